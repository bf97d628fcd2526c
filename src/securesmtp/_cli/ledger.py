"""``securesmtp ledger``: show what a ledger knows, and settle what is doubtful."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from securesmtp._cli.exit_codes import ExitCode
from securesmtp._cli.ledgers import VARIABLE, Place, open_ledger, refuse_argument
from securesmtp._cli.output import print_text
from securesmtp._cli.send.ledger_view import cells, json_lines, write_results
from securesmtp._cli.send.sources import address_key
from securesmtp._shown import escape
from securesmtp.errors import AddressError, LedgerError, SecureSMTPError
from securesmtp.ledger import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from securesmtp._secret import Secret
    from securesmtp.ledger import Entry, Ledger

# The one argument that means "read the keys from standard input".
_INPUT = "-"


_EPILOG = """\b
Examples:
  securesmtp ledger people-mail.ledger                             what may have arrived, and how much of the rest
  securesmtp ledger people-mail.ledger --arrived ada@example.org   it did: it is never sent again
  securesmtp ledger people-mail.ledger --not-arrived - < keys.txt  they did not: the next run sends them
  securesmtp ledger people-mail.ledger --state refused --results refused.csv
  securesmtp ledger postgresql://app@db.example.com/app            that of several machines
  securesmtp ledger mail.ledger --longest-send 60                  of workers whose longest_send is 60

Exit codes: 0; 3 if the outcome of a message is unknown; 65 if a key is not doubtful, or LEDGER is none; 75 if the
database cannot be reached.
"""


@click.command("ledger", epilog=_EPILOG)
@click.argument("place", metavar="LEDGER", type=Place(), envvar=VARIABLE, callback=refuse_argument)
@click.option(
    "--state",
    "states",
    type=click.Choice([str(state) for state in State]),
    multiple=True,
    help="List the messages in this state; those that are unknown, unless given.",
)
@click.option("--name", help="The table in PostgreSQL, or the prefix in Redis, unless it is the usual one.")
@click.option(
    "--longest-send",
    metavar="SECONDS",
    type=float,
    default=3600,
    show_default=True,
    help="What the workers have as longest_send: a claim that is older counts as unknown.",
)
@click.option("--arrived", metavar="KEY", multiple=True, help="It arrived: it is never sent again.")
@click.option("--not-arrived", metavar="KEY", multiple=True, help="It did not arrive: the next run sends it.")
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what became of each message to this file: JSON lines if its name ends with .jsonl, else CSV.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the listed messages as lines of JSON.")
def command(  # noqa: PLR0913 -- one for each option
    *,
    place: Path | Secret,
    name: str | None,
    longest_send: float,
    states: tuple[str, ...],
    arrived: tuple[str, ...],
    not_arrived: tuple[str, ...],
    results: Path | None,
    as_json: bool,
) -> int:
    """
    Show what LEDGER knows of each message, and settle what is doubtful.

    LEDGER is the file of securesmtp send, or the URL of a database: postgresql://user@host/database, or redis://host.
    If it has a password, put it into the variable SECURESMTP_LEDGER.

    A KEY is the one that your program gives to the message. For securesmtp send, it is the address that a row of the
    table has, or the path of a file from the folder of the ledger. With -, the keys are read from standard input, one
    on each line.
    """
    try:
        with open_ledger(place, name, longest_send) as ledger:
            is_settled = _settle(ledger, arrived, State.ACCEPTED) & _settle(ledger, not_arrived, State.NOT_SENT)
            wanted = tuple(map(State, states)) or (State.UNKNOWN,)
            counts = Counter(entry.state for entry in ledger.entries())
            if results is not None:
                write_results(ledger.entries(*(wanted if states else ())), results)
            if as_json:
                for line in json_lines(ledger.entries(*wanted)):
                    print_text(line)
            else:
                _show(counts, ledger.entries(*wanted), longest_send)
    except SecureSMTPError as error:
        click.echo(f"Error: {error}", err=True)
        return ExitCode.TEMPORARY_FAILURE if error.retryable else ExitCode.DATA
    if not is_settled:
        return ExitCode.DATA
    return ExitCode.UNKNOWN if counts[State.UNKNOWN] else ExitCode.OK


def _settle(ledger: Ledger, given: Iterable[str], state: State) -> bool:
    """Return whether the verdict *state* on each of the keys *given* could be written; say on which it could not."""
    is_settled = True
    for key in _keys(given):
        entry = ledger.look_up(key) or ledger.look_up(_as_in_a_table(key))
        if entry is not None and entry.state is state:
            # The same list may be given again.
            continue
        try:
            ledger.reconcile(entry.key if entry else key, state)
        except LedgerError as error:
            # The others are settled, whichever is wrong.
            click.echo(f"Error: {error.args[0]}. Hint: without --arrived, the doubtful ones are listed", err=True)
            is_settled = False
    return is_settled


def _as_in_a_table(key: str) -> str:
    with suppress(AddressError):
        # A log has the address in other letters.
        return address_key(key)
    return key


def _keys(given: Iterable[str]) -> Iterator[str]:
    for key in given:
        if key == _INPUT:
            yield from filter(None, map(str.strip, sys.stdin))
        else:
            yield key


def _show(counts: Counter[State], entries: Iterable[Entry], longest_send: float) -> None:
    console = Console(highlight=False)
    total = ", ".join(f"{counts[state]:,} {state}" for state in State if counts[state])
    _print(console, Text(total or "no message yet"))
    if counts[State.CLAIMED]:
        # Otherwise an exit code of 0 says more than is known.
        _print(
            console, Text(f"A claim counts as in progress for {longest_send:,g} s (--longest-send), then as unknown.")
        )
    for entry in entries:
        # Not a table: a key that is cut into two lines cannot be copied.
        key, state, changed, message_id, _, reply, error = map(escape, cells(entry))
        facts = (state, f"since {changed}", message_id, error or reply)
        _print(console, Text(f"\n{key}", "bold"))
        _print(console, Text(f"  {', '.join(filter(None, facts))}"))


def _print(console: Console, text: Text) -> None:
    with console.capture() as captured:
        console.print(text, soft_wrap=True)
    print_text(captured.get())
