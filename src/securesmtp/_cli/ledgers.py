"""Where a command finds a ledger: in a file, or in a database that several machines share."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import click

from securesmtp._secret import Secret
from securesmtp.errors import ConfigurationError, LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from securesmtp.ledger import Ledger

VARIABLE = "SECURESMTP_LEDGER"
# The class of each scheme, and its argument that tells ledgers in one database apart.
_SERVERS = {
    "postgresql": ("PostgreSQLLedger", "table"),
    "postgres": ("PostgreSQLLedger", "table"),
    "redis": ("RedisLedger", "prefix"),
    "rediss": ("RedisLedger", "prefix"),
}


class Place(click.Path):
    """The path of a file that exists, or a URL."""

    name = "ledger"

    def __init__(self) -> None:
        """Take files only."""
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 -- as click's
        """Return a path, or a URL as `Secret`."""
        if not isinstance(value, str) or "://" not in value:
            return super().convert(value, param, ctx)
        if urlsplit(value).scheme not in _SERVERS:
            self.fail(
                f"a URL of a ledger begins with one of {', '.join(each + '://' for each in _SERVERS)}", param, ctx
            )
        return Secret(value)


def refuse_argument(context: click.Context, parameter: click.Parameter, place: Path | Secret) -> Path | Secret:
    """
    Refuse a URL with a password on the command line.

    Raises:
        click.UsageError: It has one.
    """
    is_argument = context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
    if is_argument and isinstance(place, Secret) and urlsplit(place.reveal()).password is not None:
        message = "a password cannot be an argument: every user of this machine can read the arguments of a process"
        raise click.UsageError(f"{message}. Hint: put the URL into the variable {VARIABLE}", context)
    return place


def open_ledger(place: Path | Secret, name: str | None, longest_send: float) -> AbstractContextManager[Ledger]:
    """
    Open the ledger at *place*, whose table or prefix is *name*.

    Raises:
        SecureSMTPError: It cannot be opened.
    """
    options: dict[str, Any] = {"longest_send": longest_send}
    if isinstance(place, Path):
        if name is not None:
            raise ConfigurationError("a ledger in a file has no name", hint="leave out --name")
        ledger = _class("SQLiteLedger")
        # What a process has claimed that was killed is doubtful now, not after an hour. Only who has the ledger alone
        # knows that no such process is alive; who may only read it, or does so while a run has it, sees the claims.
        with suppress(LedgerError):
            ledger(place, exclusive=True).close()
        return cast("AbstractContextManager[Ledger]", ledger(place, **options))
    kind, argument = _SERVERS[urlsplit(place.reveal()).scheme]
    if name is not None:
        options[argument] = name
    return cast("AbstractContextManager[Ledger]", _class(kind)(place, **options))


def _class(name: str) -> Callable[..., Any]:
    try:
        return cast("Callable[..., Any]", getattr(import_module("securesmtp.ledger"), name))
    except ModuleNotFoundError as error:
        raise ConfigurationError(str(error), hint="install the extra") from error
