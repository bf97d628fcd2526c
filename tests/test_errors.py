"""The errors by themselves: what each of them tells, and where it says more."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from securesmtp import CertificateReason, Outcome, errors
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
# A certificate is refused for a reason, always.
EVERY = [kind("failed") for kind in _CLASSES if kind is not CertificateError] + [*map(_refused, CertificateReason)]


def test_each_error_has_its_section_and_each_section_its_error() -> None:
    """The address that an error prints leads to a section on it, with an anchor that the page's author has set."""
    anchors = re.findall(r"^\(([\w-]+)\)=\n+#+ ", TROUBLESHOOTING.read_text("utf-8"), re.MULTILINE)
    assert sorted(error.url.partition("#")[2] for error in EVERY) == sorted(anchors)


def test_every_error_is_looked_at() -> None:
    """One that is not public would have no section."""

    def kinds(kind: type[SecureSMTPError]) -> set[type[SecureSMTPError]]:
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    assert kinds(SecureSMTPError) == set(_CLASSES)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.url.partition("#")[2])
def test_an_error_tells_the_outcome_by_its_kind(error: SecureSMTPError) -> None:
    """Whoever makes one for a test need not say it; the same after a pickle."""
    told: dict[type[SecureSMTPError], Outcome] = {
        # Raised by nobody: it stands for an error of which less is known.
        SecureSMTPError: Outcome.UNKNOWN,
        RefusedError: Outcome.REFUSED,
        SenderRefusedError: Outcome.REFUSED,
        RecipientsRefusedError: Outcome.REFUSED,
        DataRefusedError: Outcome.REFUSED,
        OutcomeUnknownError: Outcome.UNKNOWN,
    }
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert again.outcome == error.outcome == told.get(type(error), Outcome.NOT_SENT)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (None, "localhost:587: STARTTLS is missing. See {}"),
        ("use port 465", "localhost:587: STARTTLS is missing. Hint: use port 465 ({})"),
    ],
    ids=["no hint", "hint"],
)
def test_the_text_is_one_line_that_ends_with_the_address(hint: str | None, text: str) -> None:
    """Where, what, what to do and where to read on; the same after a pickle."""
    error = DowngradeError("STARTTLS is missing", hint=hint)
    error.host, error.port = "localhost", 587
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert str(again) == str(error) == text.format(error.url)
    assert again.url == error.url


def test_the_address_of_a_certificate_error_names_its_reason() -> None:
    """As it stands in log files for years: the addresses are an interface."""
    error = pickle.loads(pickle.dumps(_refused(CertificateReason.NOT_YET_VALID)))  # noqa: S301 -- our own
    assert error.url.endswith("/troubleshooting.html#certificateerror-not-yet-valid")
