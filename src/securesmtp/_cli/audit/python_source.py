"""Python sources: what the rules find in them, and the text of a line."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.engine import check_source, is_relevant
from securesmtp._cli.audit.judge import Notes
from securesmtp._cli.audit.rules_settings import has_settings, report_settings
from securesmtp._cli.audit.source import parse

if TYPE_CHECKING:
    from securesmtp._cli.audit.findings import Finding

LINE_END: Final = re.compile(r"\r\n|\r|\n")
# PEP 263; it is in the first two lines.
_CODING: Final = re.compile(rb"\A(?:[^\r\n]*(?:\r\n|\r|\n))?[ \t\f]*#[^\r\n]*?coding[:=][ \t]*([-\w.]+)")


def check_python(path: str, source: bytes, flags: int = 0) -> list[Finding]:
    """
    Return the findings in a source; *flags* are those of `compile`.

    Raises:
        NotCheckedError: It is no Python, or cannot be checked.
    """
    if is_relevant(source):
        return check_source(source, path, flags=flags)
    if has_settings(source):
        notes = Notes(path)
        report_settings(parse(source, path, flags), notes)
        return notes.findings()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Without a syntax tree, which nothing needs here, it takes a third of the time.
            compile(source, path, "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # It says why.
        parse(source, path, flags)
    return []


def decode(source: bytes) -> str:
    """Return the text of a source that compiles."""
    coding = _CODING.match(source)
    try:
        return source.decode("utf-8-sig" if coding is None else coding[1].decode("ascii"))
    except (UnicodeDecodeError, LookupError):
        return source.decode("latin-1")
