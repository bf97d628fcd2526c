"""The audit's own JSON, version 1; docs/how-to/audit.md describes it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from securesmtp._cli.audit.report import Located, Report

# Raised when a field is removed or changes its meaning; new fields do not raise it.
VERSION: Final = 1


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as a document that is made of JSON's types."""
    return {
        "version": VERSION,
        "tool": {"name": "securesmtp", "version": version("securesmtp")},
        "files": report.files,
        "silenced": len(report.silenced),
        "findings": [_finding(report, located) for located in report.findings],
        "not_checked": [
            {"path": missed.path, "cell": missed.cell, "reason": missed.reason} for missed in report.not_checked
        ],
        "unknown_codes": [
            {"path": mark.path, "cell": mark.cell, "line": mark.line, "code": mark.code}
            for mark in report.unknown_codes
        ],
        "rules": {
            rule: {"title": text.title, "reason": text.reason, "fix": text.fix}
            for rule in sorted({located.finding.rule for located in report.findings})
            for text in (report.rules[rule],)
        },
    }


def _finding(report: Report, located: Located) -> dict[str, Any]:
    finding = located.finding
    return {
        "path": finding.path,
        "cell": finding.cell,
        "line": finding.line,
        "column": finding.column,
        "end_line": finding.end_line,
        "rule": finding.rule,
        "name": report.rules[finding.rule].name,
        "cwe": report.rules[finding.rule].cwe,
        "level": finding.level.name.lower(),
        "message": finding.message,
        "code": located.code,
    }
