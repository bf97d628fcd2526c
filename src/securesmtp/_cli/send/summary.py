"""Say at the end of a run what became of its messages, and what to do about the others."""

from __future__ import annotations

import json
from shlex import quote
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from securesmtp._cli.exit_codes import ExitCode
from securesmtp._cli.send.progress import duration
from securesmtp._shown import escape
from securesmtp._values import Outcome

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from securesmtp._cli.send.tally import Tally

_STYLES: Final = {
    Outcome.ACCEPTED: "green",
    Outcome.REFUSED: "red",
    Outcome.NOT_SENT: "red",
    Outcome.UNKNOWN: "yellow",
}
_MEANINGS: Final = {
    Outcome.ACCEPTED: "",
    Outcome.REFUSED: "the server refused them",
    Outcome.NOT_SENT: "the next run tries them again",
    Outcome.UNKNOWN: "they may have arrived: no run sends them again by itself",
}
# If several messages failed, the run has the code of the worst: that which most needs a person. Temporary failures are
# last, because the same command again is all that they need.
_WORST_FIRST: Final = (
    ExitCode.UNKNOWN,
    ExitCode.CONFIGURATION,
    ExitCode.NO_PERMISSION,
    ExitCode.DATA,
    ExitCode.NO_HOST,
    ExitCode.PROTOCOL,
    ExitCode.NO_RECIPIENT,
    ExitCode.UNAVAILABLE,
    ExitCode.TEMPORARY_FAILURE,
)


def code_of(tally: Tally) -> ExitCode:
    """Return the exit code of a mailing: 0 if all was accepted, in this run or before."""
    return next((code for code in _WORST_FIRST if code in tally.codes), ExitCode.OK)


def summary(tally: Tally, ledger: Path, stream: TextIO | None) -> str:
    """Return a table of the outcomes, and the first few messages that need somebody, with what to do; for *stream*."""
    console = Console(file=stream, highlight=False)
    with console.capture() as captured:
        _show(console, tally, ledger)
    return captured.get()


def _show(console: Console, tally: Tally, ledger: Path) -> None:
    console.print(Text(f"{tally.total:,} messages", "bold"))
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("outcome")
    table.add_column("this run", justify="right")
    table.add_column("earlier", justify="right")
    table.add_column("what it means", overflow="fold")
    for outcome in Outcome:
        count = tally.count(outcome)
        style = _STYLES[outcome] if count else "dim"
        meaning = _MEANINGS[outcome] if count else ""
        table.add_row(Text(str(outcome), style), f"{tally.now[outcome]:,}", f"{tally.earlier[outcome]:,}", meaning)
    left = tally.to_try - tally.tried
    if left:
        table.add_row("not tried yet", f"{left:,}", "", "the same command again sends them")
    console.print(table)
    console.print()
    for outcome in (Outcome.UNKNOWN, Outcome.REFUSED, Outcome.NOT_SENT, Outcome.ACCEPTED):
        _show_listed(console, tally, outcome, ledger)
    took = f"{duration(tally.elapsed)}, {tally.rate:.1f}/s" if tally.tried else "nothing was to be sent"
    console.print(Text(f"Took {took}. " if tally.tried else f"{took.capitalize()}. ").append(f"Ledger: {ledger}"))


def _show_listed(console: Console, tally: Tally, outcome: Outcome, ledger: Path) -> None:
    named = tally.listed.get(outcome, [])
    if not named:
        return
    command = f"securesmtp ledger {quote(str(ledger))}"
    title, count = str(outcome), tally.count(outcome)
    if outcome is Outcome.ACCEPTED:
        title, count = "accepted, but refused for some recipients", tally.incomplete
    more = count - len(named)
    lines = [f"{escape(each.key)}  {each.text}" for each in named]
    if more:
        lines.append(f"and {more:,} more: {command} --state {quote(outcome)}")
    if outcome is Outcome.UNKNOWN:
        lines += [
            "Find out by their Message-IDs whether they arrived, and settle each:",
            f"    {command} --arrived KEY",
            f"    {command} --not-arrived KEY",
            "Or send them again, so that some may arrive twice: --resend-unknown",
        ]
    elif outcome is Outcome.REFUSED:
        lines.append("To try again also those that were refused for good: --retry-refused")
    console.print(Text(f"{title}:", _STYLES[outcome]))
    for line in lines:
        # Not wrapped: a key or a command that is cut cannot be copied.
        console.print(Text(f"  {line}"), soft_wrap=True)
    console.print()


def json_summary(tally: Tally, ledger: Path) -> str:
    """Return the same as one line of JSON."""
    value = {
        "version": 1,
        "messages": tally.total,
        "this_run": {str(outcome): tally.now[outcome] for outcome in Outcome},
        "earlier": {str(outcome): tally.earlier[outcome] for outcome in Outcome},
        "not_tried": tally.to_try - tally.tried,
        "seconds": round(tally.elapsed, 3),
        "ledger": str(ledger),
    }
    return f"{json.dumps(value)}\n"
