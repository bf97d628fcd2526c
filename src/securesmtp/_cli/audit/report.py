"""What a run of the audit found, as all outputs show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securesmtp._cli.audit.findings import Finding, Level, Rule

# A line of a minified or generated file can have megabytes; an output shows no more than this of it.
_MAX_CODE = 300


@dataclass(frozen=True, slots=True, order=True)
class NotChecked:
    """A file, or a cell of a notebook, that is not checked: it may be insecure."""

    path: str
    cell: int
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class UnknownCode:
    """A comment that names a rule that does not exist; it silences nothing."""

    path: str
    cell: int
    line: int
    code: str


@dataclass(frozen=True, slots=True, order=True)
class Located:
    """A finding, and the line of code where it begins."""

    finding: Finding
    code: str


@dataclass(frozen=True, slots=True)
class FileReport:
    """The result of one file."""

    findings: tuple[Located, ...] = ()
    not_checked: tuple[NotChecked, ...] = ()
    unknown_codes: tuple[UnknownCode, ...] = ()
    silenced: frozenset[Finding] = frozenset()


@dataclass(frozen=True, slots=True)
class Report:
    """
    The result of a run.

    Attributes:
        rules: The rules, by their ids.
        files: How many files were looked at.
        findings: Sorted by file and line.
        not_checked: Files and cells that cannot be checked.
        unknown_codes: Comments that name a rule that does not exist.
        silenced: Findings that are left out because of a comment.
    """

    rules: Mapping[str, Rule]
    files: int = 0
    findings: list[Located] = field(default_factory=list)
    not_checked: list[NotChecked] = field(default_factory=list)
    unknown_codes: list[UnknownCode] = field(default_factory=list)
    silenced: list[Finding] = field(default_factory=list)

    def worst(self) -> Level | None:
        """Return the highest level of a finding; None if there is none."""
        return max((located.finding.level for located in self.findings), default=None)


def code_line(line: str) -> str:
    """Return a line of source as outputs show it: without its indentation, and not too long."""
    code = line.strip()
    return code if len(code) <= _MAX_CODE else code[: _MAX_CODE - 1] + "…"
