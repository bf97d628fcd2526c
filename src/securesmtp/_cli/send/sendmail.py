"""
``securesmtp sendmail``: what programs expect of ``/usr/sbin/sendmail``, without a queue.

The options are those of Postfix's sendmail(1). A program may pass on an address from a stranger as an argument, which
begins with a hyphen (CVE-2016-10033 of PHPMailer). So no option opens a file, runs a program or names a server: -C, -X,
-oA and -oQ do nothing, and the server and the login come from the environment alone. The long options count only before
the others, where the script that has the settings writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from securesmtp import DSN, SecureMailer
from securesmtp._cli.exit_codes import ExitCode
from securesmtp._cli.send.call import Call
from securesmtp._cli.send.names import Names, bare_name
from securesmtp._cli.send.options import NO_SERVER_HINT, SECONDS, SectionedCommand, epilog, read_input
from securesmtp._cli.send.outcome import IN_EACH_COMMAND, Manner, deliver
from securesmtp.errors import AddressError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesmtp import Envelope

T = TypeVar("T")
# What hints say to programmers, and the same for this command, which has no options for the server.
HINTS = {
    **IN_EACH_COMMAND,
    'pass auth=Password(..., mechanisms=["PLAIN"])': "add ?auth=PLAIN to SMTP_URL",
    'pass auth=Password(..., mechanisms=["PLAIN", "LOGIN"])': "add ?auth=PLAIN,LOGIN to SMTP_URL",
    'try pipelining="off"': "add ?pipelining=off to SMTP_URL",
    " (max_connections)": "",
    "port and mode are arguments of their own": "port and mode have variables of their own (SMTP_PORT, SMTP_TLS)",
    'use tls="starttls"': "set SMTP_TLS=starttls",
    'use tls="implicit"': "set SMTP_TLS=implicit",
    " as ca_file": " as SMTP_CA_FILE",
    "ca_file has ": "SMTP_CA_FILE has ",
    " to ca_file": " to the SMTP_CA_FILE",
    "host, or TLSPolicy(server_hostname=…)": "SMTP_HOST",
    "pass username and password": "set SMTP_USERNAME and SMTP_PASSWORD_FILE",
    "auth=OAuth2(…)": "securesmtp send --oauth",
}
_MODES = {
    "d": "it is no server",
    "D": "it is no server",
    "l": "it is no server",
    "s": "it is no SMTP server",
    "p": "there is no queue to list",
    "i": "there are no aliases",
    "v": "there is no verification of addresses",
}
# Accepted, as programs use them, and without effect: see the top of this file.
_IGNORED_WITH_VALUE = ("-A", "-C", "-L", "-O", "-X", "-e", "-h", "-o", "-p")
_IGNORED_FLAGS = ("-G", "-U", "-c", "-m", "-n", "-x")
_BARE_HINT = "--domain example.org adds the domain, --map root=ops@example.org replaces the name"
_HELP = """
Send the message on standard input as sendmail does: to the recipients in the arguments, with -t also to those of To,
Cc and Bcc.

It waits for the server's reply: there is no queue, so a message that cannot be sent now is an error. Nothing is printed
if all went well. Standard input is read to its end, whatever -i says. Bcc is always removed.

The server and the login come from the variables SMTP_HOST, SMTP_USERNAME, SMTP_PASSWORD_FILE and so on, never from
options. The long options come before those of sendmail. A script of three lines has all of it in one place.

With -N, -R and -V, a server that offers no DSN gets the message all the same, and sends no reports.

All other options of Postfix's sendmail(1) are accepted and ignored; none of them opens a file.
"""
_EXAMPLES = """
  git config sendemail.sendmailCmd "securesmtp sendmail"
  printf 'Subject: hello\\n\\nhello\\n' | securesmtp sendmail -f me@example.org you@example.org
  securesmtp sendmail -t -i -f me@example.org < message.eml
  securesmtp sendmail --domain example.org --map root=ops@example.org -i -FCronDaemon root
"""


def _read_map(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given:
        name, equals, address = each.partition("=")
        if not equals or not name or "@" not in address:
            message = "write NAME=ADDRESS, such as root=ops@example.org"
            raise click.BadParameter(message)
        found[name] = address
    return found


def _check_mode(_: click.Context, __: click.Parameter, mode: str | None) -> None:
    for letter in mode or "m":
        if letter in _MODES:
            message = f"-b{letter} is not possible: {_MODES[letter]}, it only sends. Hint: leave -b out"
            raise click.UsageError(message)


def _read_notify(_: click.Context, __: click.Parameter, value: str | None) -> frozenset[str] | None:
    conditions = None if value is None else frozenset(value.lower().replace(",", " ").split())
    return _checked("notify", conditions)


def _read_ret(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    # Postfix's word for the headers is that of RFC 3461.
    return _checked("ret", None if value is None else {"hdrs": "headers"}.get(value.lower(), value.lower()))


def _read_envid(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    return _checked("envid", value)


def _checked(name: str, value: T) -> T:
    if value is not None:
        try:
            DSN(**{name: value})  # type: ignore[arg-type] # it is checked here
        except ConfigurationError as error:
            raise click.BadParameter(error.args[0]) from error
    return value


def _dsn(values: dict[str, Any]) -> DSN | None:
    asked = {name: values[name] for name in ("notify", "ret", "envid") if values[name] is not None}
    # The program that calls wants its message to be sent first of all.
    return DSN(**asked, required=False) if asked else None


def _refuse_queue(_: click.Context, __: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError("-q is not possible: there is no queue to run. Hint: send the message again")


def _run(**values: Any) -> int:  # noqa: ANN401 -- the options, each of its own type
    call = Call(
        recipients=values["recipients"],
        reads_recipients=values["reads_recipients"],
        sender=values["sender"],
        full_name=values["full_name"],
        names=Names(values["domain"], values["map"]),
        removed=values["removed"],
    )
    manner = Manner(
        partial="allow" if values["partial"] else "raise",
        deadline=values["deadline"],
        dry_run=values["dry_run"],
        quiet=not values["verbose"],
        dsn=_dsn(values),
        words=HINTS,
    )
    code = deliver(lambda: _envelope(call), _open_mailer, manner)
    return int(values["tempfail_exit"]) if code == ExitCode.TEMPORARY_FAILURE else code


def _envelope(call: Call) -> Envelope:
    try:
        return call.envelope(read_input())
    except AddressError as error:
        if bare_name(error.address or "") is not None:
            error.hint = _BARE_HINT
        raise


def _open_mailer() -> SecureMailer:
    try:
        return SecureMailer.from_env()
    except ConfigurationError as error:
        error.hint = error.hint or NO_SERVER_HINT
        raise


def _ignored(name: str, *, is_flag: bool) -> click.Option:
    return click.Option(
        [name, f"ignored_{ord(name[1])}"], is_flag=is_flag, hidden=True, expose_value=False, multiple=not is_flag
    )


_SENDMAIL = [
    click.Option(["-t", "reads_recipients"], is_flag=True, help="Send to the addresses of To, Cc and Bcc too."),
    click.Option(["-f", "-r", "sender"], metavar="ADDRESS", help="The sender (envelope); <> for none. Default: From."),
    click.Option(
        ["-F", "full_name"],
        metavar="NAME",
        envvar="NAME",
        help="The name for a From that is missing. Default: the variable NAME.",
    ),
    click.Option(
        ["-B", "body_type"],
        type=click.Choice(["7BIT", "8BITMIME"], case_sensitive=False),
        expose_value=False,
        help="The type of the body; it is found out anyway.",
    ),
    click.Option(["-v", "verbose"], count=True, help="Print the server's reply."),
    click.Option(
        ["-i"], is_flag=True, expose_value=False, help="A line with only a dot does not end the message. Always so."
    ),
    click.Option(
        ["-N", "notify"],
        metavar="LIST",
        callback=_read_notify,
        help="Report to the sender on success, failure, delay (with commas between them), or never.",
    ),
    click.Option(["-R", "ret"], metavar="full|hdrs", callback=_read_ret, help="What a report has of the message."),
    click.Option(["-V", "envid"], metavar="ID", callback=_read_envid, help="What reports call the message."),
    click.Option(["-b", "mode"], callback=_check_mode, expose_value=False, hidden=True),
    click.Option(
        ["-q", "queue"], is_flag=False, flag_value="", callback=_refuse_queue, expose_value=False, hidden=True
    ),
    *(_ignored(name, is_flag=False) for name in _IGNORED_WITH_VALUE),
    *(_ignored(name, is_flag=True) for name in _IGNORED_FLAGS),
    click.Argument(["recipients"], nargs=-1),
]
_OWN = [
    click.Option(["--domain"], metavar="DOMAIN", help="Add @DOMAIN to names without one, such as cron's root."),
    click.Option(
        ["--map"],
        multiple=True,
        metavar="NAME=ADDRESS",
        callback=_read_map,
        help="Replace a name in the envelope and in the header. Can be repeated.",
    ),
    click.Option(
        ["--remove-field", "removed"],
        multiple=True,
        metavar="NAME",
        help="Leave a header field out, such as X-Cron-Env, which may have secrets in it. Can be repeated.",
    ),
    click.Option(
        ["--tempfail-exit"],
        type=click.IntRange(1, 255),
        default=int(ExitCode.TEMPORARY_FAILURE),
        show_default=True,
        metavar="CODE",
        help="The exit code instead of 75, which PHP 8.5 takes for success: 69.",
    ),
    click.Option(["--deadline"], type=SECONDS, metavar="SECONDS", help="Limit for the send."),
    click.Option(["--partial"], is_flag=True, help="If some recipients are refused, send to the others."),
    click.Option(["--dry-run"], is_flag=True, help="Print the envelope and the message, and do not connect."),
]


class _Sendmail(SectionedCommand):
    """A command whose long options count only before the others."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments of a caller, who may have them from a stranger."""
        with_value = {name for option in _OWN if not option.is_flag for name in option.opts}
        rest = iter(args[: args.index("--")] if "--" in args else args)
        for argument in rest:
            if not argument.startswith("--"):
                break
            if argument in with_value:
                next(rest, None)
        for argument in rest:
            if argument.startswith("--"):
                message = f"{argument.partition('=')[0]} is not before the options of sendmail"
                raise click.UsageError(message, ctx)
        return super().parse_args(ctx, args)


command = _Sendmail(
    "sendmail",
    {"Options of sendmail": _SENDMAIL, "Options": _OWN},
    callback=_run,
    help=_HELP,
    # -h has another meaning for sendmail.
    context_settings={"help_option_names": ["--help"]},
    # It has no --results.
    epilog=epilog(_EXAMPLES, without=(ExitCode.NO_RESULTS,)),
)
