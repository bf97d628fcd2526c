"""The options of ``securesmtp send`` for many messages, as click reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import click

from securesmtp._shown import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

F = TypeVar("F", bound="Callable[..., object]")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(?:(s|sec)|(m|min)|(h|hour))")
_UNITS: Final = {2: 1.0, 3: 60.0, 4: 3600.0}


def _read_rate(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:  # noqa: ARG001
    """Return the seconds between two messages."""
    if value is None:
        return None
    found = _RATE.fullmatch(value)
    if found is None or not float(found[1]):
        message = f"{quote(value)} is not a rate. Hint: write 10/s, 300/m or 5000/h"
        raise click.BadParameter(message)
    return next(seconds for group, seconds in _UNITS.items() if found[group]) / float(found[1])


def _read_delimiter(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    """Return one character; a tab is hard to type."""
    text = {"tab": "\t", r"\t": "\t"}.get(value or "", value)
    if text is not None and (len(text) != 1 or text in '"\r\n'):
        message = f"{quote(text)} is not one character. Hint: write ';', ',', '|' or tab"
        raise click.BadParameter(message)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyOptions:
    """
    What the command line says about many messages; each field is the option of that name.

    Attributes:
        rate: Seconds between two messages.
    """

    csv: Path | None = None
    template: Path | None = None
    jinja: bool = False
    delimiter: str | None = None
    encoding: str | None = None
    to_column: str | None = None
    name_column: str | None = None
    unsubscribe: tuple[str, ...] = ()
    ledger: Path | None = None
    resend_unknown: bool = False
    retry_refused: bool = False
    allow_duplicates: bool = False
    allow_changes: bool = False
    rate: float | None = None
    stop_after: int | None = None
    connections: int | None = None
    results: Path | None = None

    @classmethod
    def read(cls, given: Mapping[str, object]) -> Self:
        """Return what click has read, and leave out the options of others."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in given.items() if name in names})  # type: ignore[arg-type]

    @property
    def for_tables(self) -> list[str]:
        """The options that were given and need ``--csv``."""
        values = {
            "--template": self.template,
            "--jinja": self.jinja,
            "--delimiter": self.delimiter,
            "--encoding": self.encoding,
            "--to-column": self.to_column,
            "--name-column": self.name_column,
            "--unsubscribe": self.unsubscribe,
        }
        return [name for name, value in values.items() if value]


_OPTIONS: Final = (
    click.option("--csv", type=_FILE, help="Send one message for each row of this table."),
    click.option(
        "--template",
        type=_FILE,
        help="With --csv: the body, with $name or ${name} for the cell of that column. It is HTML if its name ends "
        "with .html, else text; a template of Jinja2 if it ends with .j2.",
    ),
    click.option("--jinja", is_flag=True, help="All templates are Jinja2's, --subject too."),
    click.option(
        "--delimiter",
        metavar="C",
        callback=_read_delimiter,
        help="What is between two cells; found in the header line.",
    ),
    click.option("--encoding", help="How the table is encoded; UTF-8, unless it begins with the mark of UTF-16."),
    click.option("--to-column", help="The column with the address; one named email, e-mail, mail, address or to."),
    click.option("--name-column", help="The column with the name that is shown with the address."),
    click.option("--unsubscribe", multiple=True, help="Where to unsubscribe: a mailto or https URL; a template."),
    click.option(
        "--ledger",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where it is kept what became of each message; by default a file beside the input.",
    ),
    click.option("--resend-unknown", is_flag=True, help="Send again what may have arrived: it may arrive twice."),
    click.option("--retry-refused", is_flag=True, help="Send again what was refused for good."),
    click.option("--allow-duplicates", is_flag=True, help="Send several messages to one address."),
    click.option("--allow-changes", is_flag=True, help="Go on with another text: what was sent is not sent again."),
    click.option("--rate", metavar="N/s", callback=_read_rate, help="Send at most so many: 10/s, 300/m or 5000/h."),
    click.option("--stop-after", type=click.IntRange(1), metavar="N", help="Stop after so many failures."),
    click.option("--connections", type=click.IntRange(1), metavar="N", help="Send over so many connections; 4."),
    click.option(
        "--results",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write what became of each message to this file: JSON lines if its name ends with .jsonl, else CSV.",
    ),
)


def many_options(function: F) -> F:
    """Add the options to a command; they arrive as keyword arguments."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def is_many(many: Mapping[str, object], paths: Sequence[Path]) -> bool:
    """Return whether many messages are to be sent: a table, a folder, several files, or a ledger is named."""
    options = ManyOptions.read(many)
    has_option = options.csv is not None or options.ledger is not None
    return has_option or len(paths) > 1 or any(path.is_dir() for path in paths)
