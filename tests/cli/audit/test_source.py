"""Files that Python cannot read are never clean, and nothing of them is printed: PITFALLS-2 A7 and A8."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from conftest import unmeasured
from securesmtp._cli.audit.engine import check_source
from securesmtp._cli.audit.source import NotCheckedError, parse

UNREADABLE = {
    "python-2-print": (b"import smtplib\nprint 'hello'\n", "syntax error in line 2"),
    "python-2-except": (b"try:\n    pass\nexcept Exception, e:\n    pass\n", "syntax error in line 3"),
    "argument-twice": (b"def send(host, host):\n    pass\n", "syntax error in line 1: duplicate argument"),
    "return-outside-function": (b"import smtplib\nreturn 1\n", "syntax error in line 2"),
    "indentation": (b"def f():\npass\n", "syntax error in line 2"),
    "null-byte": (b"import smtplib\x00\n", "null byte"),
    "unknown-coding": (b"# coding: klingon\nimport smtplib\n", "syntax error: unknown encoding: klingon"),
    "not-utf-8": (b"name = '\xff'\n", "syntax error"),
    "deep": (b"x = " + b"(" * 5_000 + b")" * 5_000, "too many nested parentheses"),
    "deep-operators": (b"x = " + b"-" * 20_000 + b"1", "nested"),
    "deep-attributes": (b"x = a" + b".a" * 100_000, "nested"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_file_is_not_checked_and_says_why(case: str) -> None:
    """Python 2, duplicate arguments, null bytes, nesting: each has its reason."""
    data, reason = UNREADABLE[case]
    with pytest.raises(NotCheckedError) as caught:
        check_source(data + b"\n# smtplib\n", "program.py")
    assert reason in caught.value.reason


def test_error_names_the_line() -> None:
    """The line is where an editor opens the file."""
    with pytest.raises(NotCheckedError) as caught:
        parse(b"import smtplib\n\nprint 'hello'\n", "program.py")
    assert caught.value.line == 3
    assert str(caught.value) == caught.value.reason


def test_null_bytes_are_no_crash_on_older_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11.2 raises a ValueError for them."""

    def refuse(data: bytes, path: str) -> None:
        raise ValueError("source code string cannot contain null bytes")

    monkeypatch.setattr("securesmtp._cli.audit.source.ast.parse", refuse)
    with pytest.raises(NotCheckedError, match="not Python: source code string cannot contain null bytes"):
        parse(b"\0", "program.py")


READABLE = {
    "coding-line": b"# coding: latin-1\nimport smtplib\nsmtplib.SMTP('m\xe4il.example').sendmail(1, 2, 3)\n",
    "byte-order-mark": b"\xef\xbb\xbfimport smtplib\n\nsmtplib.SMTP('mail.example').sendmail(1, 2, 3)\n",
    "carriage-returns": b"import smtplib\r\n\r\nsmtplib.SMTP('mail.example').sendmail(1, 2, 3)\r\n",
    "form-feed": b"import smtplib\n\x0c\nsmtplib.SMTP('mail.example').sendmail(1, 2, 3)\n",
}


@pytest.mark.parametrize("case", READABLE)
def test_bytes_are_read_as_python_reads_them(case: str) -> None:
    """Coding lines, byte order marks and line ends."""
    findings = check_source(READABLE[case], "program.py")
    assert [(each.line, each.rule) for each in findings] == [(3, "SMT102"), (3, "SMT121")]


def test_warnings_about_audited_code_are_not_printed() -> None:
    """They are about somebody else's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(b"import smtplib\npattern = '\\d'\nassert (1, 'always true')\n1 is 1\n", "program.py")


def test_nothing_of_the_file_is_run() -> None:
    """Audited code may be hostile."""
    program = b"import smtplib, sys\nprint('RAN')\nsys.exit(9)\n"
    script = f"from securesmtp._cli.audit.engine import check_source; print(check_source({program!r}, 'p.py'))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=unmeasured(), timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
