"""
SARIF 2.1.0, as GitHub's code scanning reads it: one run, whose paths are relative to the repository.

GitHub shows at most 5,000 results, so the worst come first and a notification says how many are left out. A result is
the same in the next run if its rule, its file and its line of code are the same, whatever the line's number is.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from securesmtp._cli.audit.findings import Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securesmtp._cli.audit.findings import Finding, Rule
    from securesmtp._cli.audit.report import Located, Report

MAX_RESULTS: Final = 5000
_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT: Final = "%SRCROOT%"
# GitHub's steps: from 7.0 high, from 4.0 medium, above 0 low.
_SEVERITY: Final = {Level.ERROR: "8.0", Level.WARNING: "5.0", Level.NOTE: "2.0"}


def as_sarif(report: Report) -> dict[str, Any]:
    """Return a report as a SARIF log with one run."""
    # The sort is stable, so that each level keeps the order of files and lines.
    worst_first = sorted(report.findings, key=lambda located: -located.finding.level)
    rules = sorted(report.rules)
    places = {rule: index for index, rule in enumerate(rules)}
    run = {
        "tool": {
            "driver": {
                "name": "securesmtp",
                "version": version("securesmtp"),
                "rules": [_rule(report.rules[rule]) for rule in rules],
            }
        },
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The root of the repository."}}},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": not report.not_checked,
                "toolExecutionNotifications": list(_notifications(report)),
            }
        ],
        "results": list(_results(worst_first[:MAX_RESULTS], places, _repository())),
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": rule.name,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.reason},
        "help": {
            "text": f"{rule.reason}\n\nInstead:\n\n{rule.fix}",
            "markdown": f"{rule.reason}\n\n```\n{rule.fix}\n```",
        },
        "defaultConfiguration": {"level": rule.level.name.lower()},
        "properties": {
            "tags": ["security", f"external/cwe/cwe-{rule.cwe}"],
            "precision": "high",
            "problem.severity": {Level.NOTE: "recommendation"}.get(rule.level, rule.level.name.lower()),
            "security-severity": _SEVERITY[rule.level],
        },
    }


def _results(findings: list[Located], places: dict[str, int], root: Path) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for finding, code in ((located.finding, located.code) for located in findings):
        location = _location(finding.path, root)
        fingerprint = _fingerprint(finding.rule, location["uri"], code)
        seen[fingerprint] += 1
        physical: dict[str, Any] = {"artifactLocation": location}
        if not finding.cell:
            physical["region"] = {
                "startLine": finding.line,
                "startColumn": finding.column,
                "endLine": finding.end_line,
                "snippet": {"text": code},
            }
        yield {
            "ruleId": finding.rule,
            "ruleIndex": places[finding.rule],
            "level": finding.level.name.lower(),
            "message": {"text": finding.message},
            "locations": [{"physicalLocation": physical, **_logical(finding)}],
            # The number tells equal lines of a file apart.
            "partialFingerprints": {"primaryLocationLineHash": f"{fingerprint}:{seen[fingerprint]}"},
        }


def _logical(finding: Finding) -> dict[str, Any]:
    """Name the cell of a notebook: its line is no line of the file."""
    if not finding.cell:
        return {}
    return {"logicalLocations": [{"name": f"cell {finding.cell}, line {finding.line}", "kind": "function"}]}


def _fingerprint(rule: str, uri: str, code: str) -> str:
    normalised = re.sub(r"\s+", "", code)
    return hashlib.sha256(f"{rule} {uri} {normalised}".encode()).hexdigest()[:16]


def _notifications(report: Report) -> Iterator[dict[str, Any]]:
    root = _repository()
    for missed in report.not_checked:
        where = f", cell {missed.cell}" if missed.cell else ""
        yield _notification("error", f"not checked{where}: {missed.reason}", missed.path, root)
    for mark in report.unknown_codes:
        text = f"a comment on line {mark.line} names no rule: {mark.code!r}; it silences nothing"
        yield _notification("warning", text, mark.path, root)
    if (cut := len(report.findings) - MAX_RESULTS) > 0:
        text = (
            f"{cut} of {len(report.findings)} results are left out, the least severe ones: the limit is {MAX_RESULTS}"
        )
        yield {"level": "warning", "message": {"text": text}}


def _notification(level: str, text: str, path: str, root: Path) -> dict[str, Any]:
    location = {"physicalLocation": {"artifactLocation": _location(path, root)}}
    return {"level": level, "message": {"text": text}, "locations": [location]}


def _repository() -> Path:
    """Return the nearest folder that is a repository's root; the current one without a repository."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def _location(path: str, root: Path) -> dict[str, str]:
    """Return the URI of a file: relative to the repository, or absolute outside it."""
    # Not resolved: a link in the repository is shown where it is.
    absolute = Path(os.path.abspath(path))  # noqa: PTH100
    try:
        relative = absolute.relative_to(root)
    except ValueError:
        return {"uri": absolute.as_uri()}
    return {"uri": quote(os.fsencode(relative.as_posix())), "uriBaseId": _ROOT}
