"""The command line: a thin layer over the library, and the only place that prints."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

from securesmtp._cli.output import steady_streams

if TYPE_CHECKING:
    from collections.abc import Sequence

# Each command: its module, where it is called `command`, the extra that it needs, and its line in `--help`. It is
# imported when it is used, so that an extra is needed by its own commands alone.
COMMANDS: Final = {
    "check": ("securesmtp._cli.check", "cli", "Check a mail server: connect, verify, log in, send nothing."),
    "send": ("securesmtp._cli.send", "cli", "Send one message, many files, or what sendmail would be given."),
    "sendmail": (
        "securesmtp._cli.send.sendmail",
        "cli",
        "Send what cron, git, mutt or PHP gives to sendmail.",
    ),
    "ledger": (
        "securesmtp._cli.ledger",
        "cli",
        "Show what the ledger of many messages knows; settle what is doubtful.",
    ),
    "dkim-key": ("securesmtp._cli.dkim_key", "sign", "Make a key for DKIM, and the record of it for the DNS."),
    "audit": ("securesmtp._cli.audit", "cli", "Find insecure SMTP code in Python and Go files."),
    "explain": ("securesmtp._cli.explain", "cli", "Explain an error, and what to do about it."),
    "serve": ("securesmtp._cli.serve", "demo", "Receive the messages of a program that you are writing."),
    "demo": ("securesmtp._cli.demo", "demo", "Show two messages that are sent and two attacks that fail."),
}


_SENDING: Final = {"send", "sendmail", "ledger"}


class _Commands(click.Group):
    """The commands, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names, in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command by its name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, extra, help_text = COMMANDS[cmd_name]
        try:
            command: click.Command = import_module(module).command
        except ModuleNotFoundError as error:
            return _unavailable(cmd_name, help_text, str(error.name), extra)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, _, help_text) in COMMANDS.items()])


def _unavailable(name: str, help_text: str, missing: str, extra: str) -> click.Command:
    """Return a command that takes any arguments, and says which *extra* to install."""

    def refuse(_: tuple[str, ...]) -> None:
        message = f"{name} needs {missing}. Hint: install securesmtp with its extra {extra!r}"
        raise click.ClickException(message)

    arguments = click.Argument(["_"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True}
    return click.Command(name, settings, callback=refuse, params=[arguments], help=help_text)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="securesmtp")
def cli() -> None:
    """Submit email over verified TLS, or not at all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the help of each command lists its own. 130 is Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    # What a message came to is not changed by output that fails. A check whose verdict nobody can read is not done.
    with steady_streams() if _SENDING.intersection(given[:1]) else nullcontext():
        try:
            return int(cli.main(arguments, prog_name="securesmtp", standalone_mode=False) or 0)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            # Ctrl-C, as shells report it.
            return 130
