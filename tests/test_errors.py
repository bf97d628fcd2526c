"""Each error class: its outcome, its text, and the address of its documentation."""

from __future__ import annotations

import pickle
import re
from dataclasses import fields
from pathlib import Path

import pytest

from securesmtp import CertificateReason, Outcome, Timeouts, credentials, errors
from securesmtp.errors import (
    CertificateError,
    DataRefusedError,
    DowngradeError,
    OutcomeUnknownError,
    RecipientsRefusedError,
    RefusedError,
    SecureSMTPError,
    SenderRefusedError,
)

TROUBLESHOOTING = Path(__file__).parent.parent / "docs/troubleshooting.md"


def _refused(reason: CertificateReason) -> CertificateError:
    error = CertificateError("refused")
    error.reason = reason
    return error


_CLASSES = [getattr(errors, name) for name in errors.__all__]
# One of each class; of CertificateError, one for each reason.
ALL_ERRORS = [kind("failed") for kind in _CLASSES if kind is not CertificateError] + [*map(_refused, CertificateReason)]


def test_each_error_has_a_section_and_each_section_an_error() -> None:
    """The address in an error's text leads to an anchor that troubleshooting.md defines."""
    # Those of the check's warnings come last; `cli/test_check_faults.py` compares them.
    page = TROUBLESHOOTING.read_text("utf-8").partition("\n## Warnings of the check\n")[0]
    anchors = re.findall(r"^\(([\w-]+)\)=\n+#+ ", page, re.MULTILINE)
    assert sorted(error.url.partition("#")[2] for error in ALL_ERRORS) == sorted(anchors)


def test_the_page_has_a_row_for_each_time_limit() -> None:
    """Each limit that an error may name: `final` ends in another error, which the text below the table says."""
    section = TROUBLESHOOTING.read_text("utf-8").partition("\n### DeadlineExceededError\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"limit", "greeting"}
    sources = {name for name in credentials.__all__ if name != "from_file"}
    assert named == {each.name for each in fields(Timeouts)} - {"final"} | {"deadline"} | sources
    assert "`final`" in section


def test_every_error_class_is_public() -> None:
    """A class that is not in `__all__` would have no section."""

    def kinds(kind: type[SecureSMTPError]) -> set[type[SecureSMTPError]]:
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    assert kinds(SecureSMTPError) == set(_CLASSES)


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: error.url.partition("#")[2])
def test_the_class_of_an_error_determines_its_outcome(error: SecureSMTPError) -> None:
    """So a test that makes an error need not set it; the same after a pickle."""
    outcomes: dict[type[SecureSMTPError], Outcome] = {
        # Never raised: it replaces an error of which less is known.
        SecureSMTPError: Outcome.UNKNOWN,
        RefusedError: Outcome.REFUSED,
        SenderRefusedError: Outcome.REFUSED,
        RecipientsRefusedError: Outcome.REFUSED,
        DataRefusedError: Outcome.REFUSED,
        OutcomeUnknownError: Outcome.UNKNOWN,
    }
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert again.outcome == error.outcome == outcomes.get(type(error), Outcome.NOT_SENT)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (None, "localhost:587: STARTTLS is missing. See {}"),
        ("use port 465", "localhost:587: STARTTLS is missing. Hint: use port 465 ({})"),
    ],
    ids=["no hint", "hint"],
)
def test_the_text_is_one_line_that_ends_with_the_address(hint: str | None, text: str) -> None:
    """Server, what happened, what to do, and the address of the documentation; the same after a pickle."""
    error = DowngradeError("STARTTLS is missing", hint=hint)
    error.host, error.port = "localhost", 587
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert str(again) == str(error) == text.format(error.url)
    assert again.url == error.url


def test_the_address_of_a_certificate_error_names_its_reason() -> None:
    """Log files keep these addresses for years, so they are an interface."""
    error = pickle.loads(pickle.dumps(_refused(CertificateReason.NOT_YET_VALID)))  # noqa: S301 -- our own
    assert error.url.endswith("/troubleshooting.html#certificateerror-not-yet-valid")
