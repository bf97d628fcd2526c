"""``securesmtp audit``: find insecure SMTP code, without running it."""

from __future__ import annotations

import json
import re
from typing import Final

import click
from rich.console import Console

from securesmtp._cli.audit.as_json import as_json
from securesmtp._cli.audit.catalogue import RULES
from securesmtp._cli.audit.findings import Level
from securesmtp._cli.audit.output import show_report, show_rule, show_rules
from securesmtp._cli.audit.run import audit
from securesmtp._cli.audit.sarif import as_sarif
from securesmtp._cli.exit_codes import AuditCode

_NEVER: Final = "never"
_EPILOG: Final = """\b
Examples:
  securesmtp audit src                        everything under src
  securesmtp audit --fail-on warning .        warnings fail a CI run too
  securesmtp audit --format sarif . > a.sarif for GitHub's code scanning
  securesmtp audit --explain SMT101           why, and what to write instead
  git show HEAD:mail.py | securesmtp audit -  standard input

\b
Exit codes:
  0  nothing found at or above --fail-on
  1  something found
  2  a file was not checked, or the command line is wrong
"""


class _RuleIds(click.ParamType[frozenset[str]]):
    """Rules, separated by commas: ids such as ``SMT101``, or the beginning of ids, such as ``SMT1``."""

    name = "rules"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[str]:
        """Return the ids of the rules."""
        ids: set[str] = set()
        for prefix in re.split(r"[,\s]+", value.strip()):
            found = {rule for rule in RULES if rule.startswith(prefix.upper())}
            if not prefix or not found:
                self.fail(f"{prefix!r} is no rule. Hint: --list-rules shows all rules", param, ctx)
            ids |= found
        return frozenset(ids)


@click.command("audit", epilog=_EPILOG)
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "sarif"]),
    default="text",
    show_default=True,
    help="How to print the findings.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "note", _NEVER]),
    default="error",
    show_default=True,
    help="The lowest level of a finding that makes the exit code 1.",
)
@click.option("--select", type=_RuleIds(), help="Report only these rules: ids or beginnings of ids, with commas.")
@click.option("--ignore", type=_RuleIds(), help="Leave out these rules.")
@click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Leave out files and folders by name or path; repeatable."
)
@click.option("--list-rules", is_flag=True, help="List all rules, and end.")
@click.option("--explain", metavar="RULE", help="Explain a rule (its id, or its name), and end.")
def command(  # noqa: PLR0913 -- one argument for each option
    *,
    paths: tuple[str, ...],
    form: str,
    fail_on: str,
    select: frozenset[str] | None,
    ignore: frozenset[str] | None,
    exclude: tuple[str, ...],
    list_rules: bool,
    explain: str | None,
) -> int:
    """
    Find insecure SMTP code in Python, notebooks, Go and ini files.

    Nothing is run. Files are read as they are given; under folders, what can hold code. A finding is an error (this
    code sends or logs in unverified or in plaintext), a warning (it does so by default, or if an attacker wants it) or
    a note (an option decides). A comment silences a rule on its line: "# noqa: SMT101", or "# securesmtp:
    ignore[SMT101] reason".
    """
    console = Console(highlight=False)
    if list_rules:
        show_rules(console, list(RULES.values()))
        return AuditCode.CLEAN
    if explain is not None:
        return _explain(console, explain)
    if not paths:
        raise click.UsageError('no files were given. Hint: "securesmtp audit ." checks everything here')
    report = audit(paths, exclude, (select or frozenset(RULES)) - (ignore or frozenset()))
    match form:
        case "json":
            click.echo(json.dumps(as_json(report), indent=2))
        case "sarif":
            click.echo(json.dumps(as_sarif(report), indent=2))
        case _:
            show_report(console, report)
    if report.not_checked:
        return AuditCode.NOT_CHECKED
    worst = report.worst()
    is_found = worst is not None and fail_on != _NEVER and worst >= Level[fail_on.upper()]
    return AuditCode.FOUND if is_found else AuditCode.CLEAN


def _explain(console: Console, rule: str) -> int:
    named = {each.name: each for each in RULES.values()} | RULES
    found = named.get(rule.upper()) or named.get(rule.lower())
    if found is None:
        raise click.UsageError(f"{rule!r} is no rule. Hint: --list-rules shows all rules")
    show_rule(console, found)
    return AuditCode.CLEAN
