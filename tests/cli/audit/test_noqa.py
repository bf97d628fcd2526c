"""Comments that silence a finding, and those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from securesmtp._cli.audit.catalogue import RULES
from securesmtp._cli.audit.run import check_file

_CALL = "import yagmail\nyagmail.SMTP('u', load())"


def _rules(folder: Path, source: str) -> tuple[list[str], list[str]]:
    """Return the rules that are reported, and the codes that are no rules."""
    path = folder / "mail.py"
    path.write_bytes(source.encode())
    report = check_file(str(path), frozenset(RULES))
    assert not report.not_checked
    unknown = [f"{mark.line} {mark.code}".strip() for mark in report.unknown_codes]
    return [located.finding.rule for located in report.findings], unknown


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: SMT621",
        "#noqa:SMT621",
        "# NoQA : smt621",
        "# noqa: E501,SMT621",
        "# noqa: E501 SMT621",
        "# noqa: SMT621 because the relay is ours",
        "# noqa: SMT621 -- because SMT is not a code here",
        "# type: ignore # noqa: SMT621",
        "# securesmtp: ignore[SMT621] a relay of ours",
        "# securesmtp:ignore[SMT101, SMT621]",
    ],
)
def test_a_comment_silences_its_rule(tmp_path: Path, comment: str) -> None:
    """As ruff reads it; words behind a code are no codes."""
    assert _rules(tmp_path, f"{_CALL}  {comment}\n") == ([], [])


@pytest.mark.parametrize(
    ("comment", "unknown"),
    [
        ("# noqa", []),
        ("# noqa: E501", []),
        ("# noqa: SMT101", []),
        ("# noqa:", []),
        ("# noqa: because SMT621 is wrong", []),
        ("# noqa: SMT999", ["2 SMT999"]),
        ("# noqa: SMT6210", ["2 SMT6210"]),
        ("# securesmtp: ignore", ["2"]),
        ("# securesmtp: ignore[]", ["2"]),
        ("# securesmtp: ignore[yagmail-unverified]", ["2 YAGMAIL-UNVERIFIED"]),
        ("# insecuresmtp: ignored", []),
    ],
)
def test_another_comment_silences_nothing(tmp_path: Path, comment: str, unknown: list[str]) -> None:
    """No code, the code of another rule, and a code of ours that does not exist, which is reported."""
    assert _rules(tmp_path, f"{_CALL}  {comment}\n") == (["SMT621"], unknown)


_LONG = (
    "import yagmail\nx = 1\nyagmail.SMTP(\n{0}'u',\nf'''{{x}}\n# noqa: SMT621\n''',\n"
    "host=(\n{1}'h'\n),\nport=465,\n){2}\n"
)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (("# noqa: SMT621\n", "", ""), []),
        (("", "# noqa: SMT621\n", ""), []),
        (("", "", "  # noqa: SMT621"), []),
        # A comment inside of a text is no comment.
        (("", "", ""), ["SMT621"]),
        (("", "", "\n# noqa: SMT621"), ["SMT621"]),
    ],
)
def test_each_line_of_the_expression_counts(tmp_path: Path, places: tuple[str, str, str], expected: list[str]) -> None:
    """In a call over a dozen lines, with an f-string over three."""
    assert _rules(tmp_path, _LONG.format(*places))[0] == expected


def test_a_coding_line_that_only_python_knows(tmp_path: Path) -> None:
    """Emacs writes such names; the line of code is shown all the same."""
    path = tmp_path / "mail.py"
    path.write_text(f"# coding: utf-8-unix\n{_CALL}\n")
    assert [located.code for located in check_file(str(path), frozenset(RULES)).findings] == [_CALL.split("\n")[1]]


def test_a_comment_is_found_in_a_file_of_another_encoding(tmp_path: Path) -> None:
    """The coding line decides how comments are read."""
    path = tmp_path / "mail.py"
    path.write_bytes(f"# coding: latin-1\n{_CALL}  # ü noqa: SMT621\n".encode("latin-1"))
    assert check_file(str(path), frozenset(RULES)).findings == ()
