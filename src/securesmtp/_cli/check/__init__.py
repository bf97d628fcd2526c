"""``securesmtp check``: whether a program could send through a server, found out by doing all of it up to MAIL."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import click

from securesmtp._cli.check.plugin import usage_error
from securesmtp._cli.exit_codes import CheckCode
from securesmtp._cli.secrets import secret_options

# Below the 90 and 47 days for which public certificates are valid, which are renewed after two thirds of them.
_WARNING_DAYS, _CRITICAL_DAYS = 14, 7

_HELP = """\
Check a mail server as a program would use it: connect, verify the certificate, log in. No message is sent.

HOST is HOST, HOST:PORT, [IPV6]:PORT, or a URL: smtps://HOST, smtp+starttls://HOST. Port 465 and implicit TLS are the
default, and STARTTLS on port 587.
"""
_EPILOG = """\b
Examples:
  securesmtp check smtp.example.com
  securesmtp check mx.corp.example:25 --starttls --ca-file corp-ca.pem
  securesmtp check smtp.example.com --login me    asks for the password
  securesmtp check --file servers.txt             side by side
  securesmtp check smtp.example.com --format nagios -w 20 -c 10

\b
Exit codes, those of monitoring plugins:
  0    all servers are fine
  1    a warning
  2    a fault
  3    wrong usage, or nothing could be checked
  130  Ctrl-C
"""


class _WrongUsage(click.UsageError):
    exit_code = CheckCode.UNKNOWN


class _NotChecked(click.ClickException):
    exit_code = CheckCode.UNKNOWN


class _Command(click.Command):
    """A command whose errors have the exit code of a monitoring plugin."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 -- click's signature
    ) -> click.Context:
        """
        Read the arguments.

        Raises:
            click.ClickException: They are wrong.
        """
        nagios = "nagios" in " ".join(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            raise _as_unknown(error, nagios=nagios) from None

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's signature
        """
        Check the servers.

        Raises:
            click.ClickException: Nothing could be checked.
        """
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise _as_unknown(error, nagios=ctx.params["format"] == "nagios") from None
        except (click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            # Python's own exit code for it would be that of a warning.
            traceback.print_exc()
            message = f"a mistake in this program: {type(error).__name__}. Hint: report it with the traceback"
            raise _as_unknown(click.ClickException(message), nagios=ctx.params["format"] == "nagios") from error


def _as_unknown(error: click.ClickException, *, nagios: bool) -> click.ClickException:
    message = error.format_message()
    if nagios:
        # Monitoring shows standard output alone.
        click.echo(usage_error(message), nl=False)
    return _WrongUsage(message, error.ctx) if isinstance(error, click.UsageError) else _NotChecked(message)


@click.command("check", cls=_Command, help=_HELP, epilog=_EPILOG)
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option(
    "--file", type=click.File("rb"), metavar="HOSTS", help="More servers, one on each line; - is standard input."
)
@click.option("--starttls", is_flag=True, help="STARTTLS, on any port. Without it, port 587 alone uses it.")
@click.option(
    "--ca-file",
    metavar="PEM",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trust this CA instead of the public ones.",
)
@click.option(
    "--pin", "pins", multiple=True, metavar="PIN", help="Require this key, sha256/...; several are alternatives."
)
@click.option("--server-name", metavar="NAME", help="The name that the certificate must have, if it is not HOST.")
@click.option("--login", "username", metavar="USER", help="Log in as USER; asks for the password unless it is given.")
@secret_options
@click.option(
    "--timeout", default=10.0, show_default=True, type=click.FloatRange(0.01, 3600), help="Seconds for each step."
)
@click.option("-4", "family", flag_value="4", help="IPv4 addresses alone.")
@click.option("-6", "family", flag_value="6", help="IPv6 addresses alone.")
@click.option("--all-addresses", is_flag=True, help="Check each address of each server.")
@click.option("--until", type=click.Choice(["connect", "tls", "ehlo", "auth"]), help="Stop after this stage.")
@click.option("--transcript", is_flag=True, help="Show the dialogue, without passwords; with a table or JSON.")
@click.option(
    "--format",
    default="table",
    show_default=True,
    type=click.Choice(["table", "json", "nagios", "prometheus"]),
    help="What to print.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "-w",
    "--warning",
    metavar="DAYS",
    default=_WARNING_DAYS,
    show_default=True,
    type=click.IntRange(0),
    help="Warn if a certificate has fewer days left.",
)
@click.option(
    "-c",
    "--critical",
    metavar="DAYS",
    default=_CRITICAL_DAYS,
    show_default=True,
    type=click.IntRange(0),
    help="A fault if it has fewer days left.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE instead, which is replaced at once.",
)
def command(**options: Any) -> int:  # noqa: ANN401 -- one for each option above
    """Check the servers, and return the exit code."""
    # It imports what `--help` does not need, which takes four times as long as the rest.
    from securesmtp._cli.check.run import run

    return run(options)
