"""``securesmtp check``: whether a program could send through a server, found out by doing all of it up to MAIL."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from securesmtp import ConfigurationError
from securesmtp._cli.check import probe
from securesmtp._cli.check.hosts import Target, find_targets
from securesmtp._cli.check.json_output import to_json
from securesmtp._cli.check.nagios import to_nagios, usage_error
from securesmtp._cli.check.output import replace_file
from securesmtp._cli.check.parallel import Progress, run_all
from securesmtp._cli.check.prometheus import to_prometheus
from securesmtp._cli.check.result import Request
from securesmtp._cli.check.table import TableWriter
from securesmtp._cli.check.verdict import Checked, Thresholds, judge, worst
from securesmtp._cli.exit_codes import CheckCode
from securesmtp._cli.secrets import find_secret, secret_options

if TYPE_CHECKING:
    from securesmtp._cli.check.result import CheckResult

_Format: TypeAlias = Literal["table", "json", "nagios", "prometheus"]
_Render: TypeAlias = Callable[[Sequence[Checked], datetime, Thresholds, bool], str]

_RENDERERS: dict[str, _Render] = {
    "json": lambda results, when, _, transcript: to_json(results, when, transcript=transcript),
    "nagios": lambda results, _, thresholds, __: to_nagios(results, thresholds),
    "prometheus": lambda results, when, _, __: to_prometheus(results, when),
}
# Below the 90 and 47 days for which public certificates are valid, which are renewed after two thirds of them.
_WARNING_DAYS, _CRITICAL_DAYS = 14, 7

_HELP = """
Check a mail server as a program would use it: connect, verify the certificate, log in. No message is sent.

\b
  securesmtp check smtp.example.com              implicit TLS, port 465
  securesmtp check smtp.example.com:587          STARTTLS
  securesmtp check mx.corp.example:25 --starttls --ca-file corp-ca.pem
  securesmtp check smtp.example.com --login me   asks for the password
  securesmtp check --file servers.txt            side by side
  securesmtp check smtp.example.com --format nagios -w 20 -c 10

HOST is HOST, HOST:PORT, [IPV6]:PORT, or a URL: smtps://HOST, smtp+starttls://HOST.

Exit codes, those of monitoring plugins: 0 all fine, 1 a warning, 2 a fault, 3 wrong usage or nothing could be checked,
130 Ctrl-C.
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
        except ConfigurationError as error:
            hint = f". Hint: {error.hint}" if error.hint else ""
            raised: click.ClickException = click.UsageError(f"{error.args[0]}{hint}", ctx)
        except click.ClickException as error:
            raised = error
        raise _as_unknown(raised, nagios=ctx.params["format"] == "nagios")


def _as_unknown(error: click.ClickException, *, nagios: bool) -> click.ClickException:
    message = error.format_message()
    if nagios:
        # Monitoring shows standard output alone.
        click.echo(usage_error(message), nl=False)
    return _WrongUsage(message, error.ctx) if isinstance(error, click.UsageError) else _NotChecked(message)


@click.command("check", cls=_Command, help=_HELP)
@click.argument("hosts", nargs=-1, metavar="HOST...")
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
    form = _settle(options)
    thresholds = Thresholds(options["warning"], options["critical"])
    requests = _requests(options)
    when = datetime.now(UTC)
    per_address = options["all_addresses"]
    checks = {target: partial(_check, request, per_address) for target, request in requests.items()}
    found = run_all(checks, Progress(sys.stderr))
    results = [judge(result, thresholds, per_address=per_address) for each in found for result in each]
    try:
        if form == "table":
            _write_table(results, options["output"], transcript=options["transcript"])
        else:
            _write(_RENDERERS[form](results, when, thresholds, options["transcript"]), options["output"])
    except OSError as error:
        where = options["output"] or "standard output"
        raise click.ClickException(f"{where} cannot be written: {error.strerror or error}") from None
    return worst(each.code for each in results)


def _settle(options: dict[str, Any]) -> _Format:
    """
    Return the format.

    Raises:
        click.UsageError: Two options contradict each other.
    """
    form: _Format = options["format"]
    if options["as_json"]:
        if form not in {"table", "json"}:
            raise click.UsageError(f"--json and --format {form} are two formats. Hint: keep one of them")
        form = "json"
    if options["critical"] > options["warning"]:
        raise click.UsageError("--critical has more days than --warning. Hint: the warning comes first")
    if options["transcript"] and form not in {"table", "json"}:
        raise click.UsageError(f"--format {form} has no transcript. Hint: use --json, or leave one of them out")
    secrets = ("oauth", "password_file", "password_command", "password_keyring")
    given = next((name for name in secrets if options[name]), None)
    if given is not None and options["username"] is None:
        raise click.UsageError(f"--{given.replace('_', '-')} is for a login. Hint: add --login USER")
    return form


def _requests(options: dict[str, Any]) -> dict[Target, Request]:
    targets = find_targets(options["hosts"], options["file"], starttls=options["starttls"])
    username, password = options["username"], None
    if username is not None:
        # Once, before the checks begin: several prompts would be in each other's way.
        names = ("password", "password_file", "password_command", "password_keyring")
        password = find_secret(username, **{name: options[name] for name in names})
    return {
        target: Request(
            host=target.host,
            port=target.port,
            tls=target.tls,
            ca_file=options["ca_file"],
            pins=options["pins"],
            server_name=options["server_name"],
            username=username,
            password=password,
            oauth=options["oauth"],
            timeout=options["timeout"],
            family={None: None, "4": 4, "6": 6}[options["family"]],
            until=options["until"],
        )
        for target in targets
    }


def _check(request: Request, per_address: bool) -> list[CheckResult]:  # noqa: FBT001 -- called by one line
    return probe.probe_all(request) if per_address else [probe.probe(request)]


def _write_table(results: Sequence[Checked], output: Path | None, *, transcript: bool) -> None:
    if output is None:
        TableWriter(sys.stdout).write(results, transcript=transcript)
        sys.stdout.flush()
    else:
        text = io.StringIO()
        TableWriter(text, plain=True).write(results, transcript=transcript)
        replace_file(output, text.getvalue())


def _write(text: str, output: Path | None) -> None:
    if output is None:
        # In UTF-8, as these formats are, whatever the locale.
        click.echo(text.encode("utf-8", "backslashreplace"), nl=False)
    else:
        replace_file(output, text)
