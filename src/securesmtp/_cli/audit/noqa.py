"""
Comments that silence a finding: ``# noqa: SMT101`` and ``# securesmtp: ignore[SMT101] reason``.

A comment counts on each line of the expression that is reported. A code that is no rule's, and a comment without a
code, silence nothing; if they look like ours, they are reported.
"""

from __future__ import annotations

import io
import re
import tokenize
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from securesmtp._cli.audit.findings import Finding

# As ruff and flake8 read it: codes are letters and digits, so that words behind them are not codes.
_NOQA: Final = re.compile(r"\bnoqa\s*:\s*(?P<codes>[a-z]+[0-9]+(?:[\s,]+[a-z]+[0-9]+)*)\b", re.IGNORECASE)
_CODE: Final = re.compile(r"[a-z]+[0-9]+", re.IGNORECASE)
_OURS: Final = re.compile(r"\bsecuresmtp\s*:\s*ignore(?:\[(?P<codes>[^\]]*)\])?", re.IGNORECASE)
# gosec's comment; without a code it silences every rule of gosec.
_NOSEC: Final = re.compile(r"#\s*nosec\b(?P<codes>(?:[\s,]+G[0-9]+)*)")
_PREFIX: Final = "SMT"
# Reading the comments of each file takes longer than compiling it.
_MAY_SILENCE: Final = re.compile(rb"noqa[^\r\n]*smt|securesmtp[ \t]*:", re.IGNORECASE)


class Comment(NamedTuple):
    """A comment of the source."""

    line: int
    text: str


class Silenced(NamedTuple):
    """A rule that a comment silences on a line; `rule` may be no rule."""

    line: int
    rule: str


def python_comments(source: bytes) -> Iterator[Comment]:
    """Return the comments of a Python file that compiles; none if no comment is for us."""
    if _MAY_SILENCE.search(source):
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield Comment(token.start[0], token.string)


def silenced(comments: Iterable[Comment]) -> Iterator[Silenced]:
    """Return what the comments silence, as they write it."""
    for line, text in comments:
        for noqa in _NOQA.finditer(text):
            codes = [code.upper() for code in _CODE.findall(noqa["codes"])]
            yield from (Silenced(line, code) for code in codes if code.startswith(_PREFIX))
        for ours in _OURS.finditer(text):
            codes = [code.strip().upper() for code in (ours["codes"] or "").split(",")]
            yield from (Silenced(line, code) for code in codes)


def silenced_by_gosec(comments: Iterable[Comment], rules: dict[str, str]) -> Iterator[Silenced]:
    """
    Return which of our *rules* comments for gosec silence, on their line and on the next.

    Args:
        comments: The comments of a Go file.
        rules: The code of gosec's rule for each rule of ours that is also one of gosec.
    """
    for line, text in comments:
        if found := _NOSEC.search(text):
            codes = re.findall(r"G[0-9]+", found["codes"])
            for rule, code in rules.items():
                if not codes or code in codes:
                    yield from (Silenced(line, rule), Silenced(line + 1, rule))


def unknown(marks: Iterable[Silenced], rules: Container[str]) -> list[Silenced]:
    """Return what names no rule."""
    return [mark for mark in marks if mark.rule not in rules]


def is_silenced(finding: Finding, marks: Iterable[Silenced]) -> bool:
    """Return whether a comment on one of the finding's lines names its rule."""
    return any(mark.rule == finding.rule and finding.line <= mark.line <= finding.end_line for mark in marks)
