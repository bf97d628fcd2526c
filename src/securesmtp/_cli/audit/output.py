"""The audit's text for people: each finding with its place, and each rule explained once."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from rich.text import Text

from securesmtp._cli.audit.findings import Level
from securesmtp._shown import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from securesmtp._cli.audit.findings import Rule
    from securesmtp._cli.audit.report import Located, Report

_STYLES: Final = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.NOTE: "cyan"}
# Longer paths exist, but no file system takes them at once.
_MAX_PATH: Final = 4096


def show_report(console: Console, report: Report) -> None:
    """Print the findings, why each kind is insecure and what to write instead, and the sum."""
    for _, located in groupby(report.findings, key=lambda item: item.finding.path):
        for item in located:
            _show_finding(console, item, report.rules[item.finding.rule])
        console.print()
    fixes: dict[str, str] = {}
    for rule in sorted({located.finding.rule for located in report.findings}):
        shown_at = fixes.setdefault(report.rules[rule].fix, rule)
        show_rule(console, report.rules[rule], see=shown_at if shown_at != rule else "")
        console.print()
    for missed in report.not_checked:
        cell = f", cell {missed.cell}" if missed.cell else ""
        console.print(
            Text.assemble(
                ("not checked ", "bold red"), f"{escape(missed.path, _MAX_PATH)}{cell}: {escape(missed.reason)}"
            ),
            soft_wrap=True,
        )
    for mark in report.unknown_codes:
        cell = f"cell {mark.cell}, " if mark.cell else ""
        names = f"names {escape(mark.code)}, which is no rule" if mark.code else "names no rule"
        text = f"{escape(mark.path, _MAX_PATH)}, {cell}line {mark.line}: the comment {names}, and silences nothing"
        console.print(Text.assemble(("unknown code ", "yellow"), text), soft_wrap=True)
    console.print(Text(", ".join(_sum(report)) + "."), soft_wrap=True)


def show_rule(console: Console, rule: Rule, *, see: str = "") -> None:
    """Print a rule: what it finds, why that is insecure, and what replaces the code, or the rule that shows it."""
    heading = Text.assemble((rule.id, _STYLES[rule.level]), f" {rule.name} ", (f"(CWE-{rule.cwe})", "dim"))
    console.print(heading, soft_wrap=True)
    instead = f"Instead: as for {see}." if see else "Instead:"
    for text in (f"{rule.title}.", rule.reason, instead):
        for wrapped in Text(text).wrap(console, max(console.width - 2, 1)):
            wrapped.rstrip()
            console.print(Text.assemble("  ", wrapped), soft_wrap=True)
    for line in () if see else rule.fix.splitlines():
        # A line that wraps can no longer be copied.
        console.print(Text(f"    {line}".rstrip(), style="green"), soft_wrap=True)


def show_rules(console: Console, rules: list[Rule]) -> None:
    """Print one line for each rule."""
    for rule in rules:
        level = Text(f"{rule.level.name.lower():7}", style=_STYLES[rule.level])
        console.print(Text.assemble((rule.id, "bold"), "  ", level, f"  CWE-{rule.cwe}  {rule.title}"), soft_wrap=True)


def _show_finding(console: Console, located: Located, rule: Rule) -> None:
    finding = located.finding
    cell = f"cell {finding.cell}:" if finding.cell else ""
    head = Text.assemble(
        # Terminals and editors open what a click on this shows.
        (f"{escape(finding.path, _MAX_PATH)}:{cell}{finding.line}:{finding.column}", "bold"),
        "  ",
        (finding.level.name.lower(), _STYLES[finding.level]),
        f"  {rule.id}  ",
        (escape(finding.message)),
    )
    code = Text(f"    {escape(located.code)}", style="dim")
    # A place that wraps cannot be clicked, nor found by grep.
    console.print(head, soft_wrap=True)
    if console.is_terminal:
        console.print(code, no_wrap=True, overflow="ellipsis")
    else:
        console.print(code, soft_wrap=True)


def _sum(report: Report) -> Iterator[str]:
    count = {level: sum(located.finding.level is level for located in report.findings) for level in Level}
    found = [_count(number, level.name.lower()) for level, number in sorted(count.items(), reverse=True) if number]
    yield f"{', '.join(found) or 'Nothing found'} in {_count(report.files, 'file')}"
    if report.silenced:
        yield f"{len(report.silenced):,} silenced by comments"
    if report.not_checked:
        yield f"{len(report.not_checked)} not checked"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
