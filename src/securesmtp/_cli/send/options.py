"""The options that several commands share: which server, and how a message is sent."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from securesmtp import OAuth2, SecureMailer
from securesmtp._arguments import Given
from securesmtp._cli.exit_codes import ExitCode
from securesmtp._cli.secrets import find_secret, refuse_password_in_url, secret_options
from securesmtp._cli.send.outcome import MEANINGS, Manner
from securesmtp._environment import add_environment
from securesmtp._secret import Secret
from securesmtp._url import add_url
from securesmtp._values import TLSMode
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

# More is checked where they are used.
SECONDS = click.FloatRange(min=0, min_open=True)
_NO_PASSWORD_HINT = "use --password-file, --password-command, --password-keyring, or SMTP_PASSWORD"  # noqa: S105
NO_SERVER_HINT = "set SMTP_HOST or SMTP_URL"
_SERVER_OPTIONS = (
    click.Option(["--url"], metavar="URL", help="The server as smtps://me@HOST:PORT or smtp+starttls://…"),
    click.Option(["--host"], metavar="HOST", help="The server. Without --host and --url, the variables SMTP_… say it."),
    click.Option(["--port"], type=click.IntRange(1, 65535), metavar="PORT", help="465 by default; 587 for STARTTLS."),
    click.Option(["--starttls"], is_flag=True, help="Begin TLS by STARTTLS, as on port 587. Never without TLS."),
    click.Option(
        ["--ca-file"], type=click.Path(dir_okay=False, exists=True), help="Trust this CA instead of the public ones."
    ),
    click.Option(["--username"], metavar="USER", help="Log in as USER."),
    click.Option(["--timeout"], type=SECONDS, metavar="SECONDS", help="Limit for each step."),
)
_MANNER_OPTIONS = (
    click.Option(["--deadline"], type=SECONDS, metavar="SECONDS", help="Limit for one send."),
    click.Option(["--partial"], is_flag=True, help="If some recipients are refused, send to the others."),
    click.Option(["--dry-run"], is_flag=True, help="Print the envelope and the message, and do not connect."),
    click.Option(["--quiet"], is_flag=True, help="Print nothing but errors."),
    click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON, errors too."),
)


class SectionedCommand(click.Command):
    """A command with its options in sections, whose usage errors have the exit code of sysexits.h."""

    def __init__(self, name: str, sections: Mapping[str, Sequence[click.Parameter]], **rest: Any) -> None:  # noqa: ANN401
        """Make the command; *rest* are the arguments of click's."""
        super().__init__(name, params=[each for section in sections.values() for each in section], **rest)
        self._sections = sections

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 -- click's signature
    ) -> click.Context:
        """Parse the arguments."""
        with _usage_code():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        with _usage_code():
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section with its options."""
        for title, parameters in self._sections.items():
            options = (each for each in parameters if isinstance(each, click.Option))
            with formatter.section(title):
                formatter.write_dl(list(filter(None, (each.get_help_record(ctx) for each in options))))


def epilog(examples: str, without: Collection[ExitCode] = ()) -> str:
    """Return what a command's help ends with: its exit codes, and *examples*, a paragraph whose lines are kept."""
    codes = (
        fill(meaning, 76, initial_indent=f"  {int(code):<4}", subsequent_indent=" " * 6)
        for code, meaning in MEANINGS.items()
        if code not in without
    )
    return "\b\nExit codes:\n" + "\n".join(codes) + f"\n\n\b\nExamples:\n{examples.strip(chr(10))}\n"


@contextmanager
def _usage_code() -> Iterator[None]:
    """Give usage errors the exit code EX_USAGE."""
    try:
        yield
    except click.UsageError as error:
        error.exit_code = ExitCode.USAGE  # type: ignore[misc] # click's own subclasses set it too
        raise


def parameters_of(decorate: Callable[[Callable[..., Any]], Callable[..., Any]]) -> list[click.Parameter]:
    """Return the options that a decorator adds."""

    def stub() -> None:
        """Have options."""

    return list(reversed(getattr(decorate(stub), "__click_params__", [])))


SERVER = list(_SERVER_OPTIONS)
LOGIN = parameters_of(secret_options)
MANNER = list(_MANNER_OPTIONS)


@dataclass(frozen=True, slots=True)
class Server:
    """The values of the options in `SERVER` and `LOGIN`."""

    url: str | None
    host: str | None
    port: int | None
    starttls: bool
    ca_file: str | None
    username: str | None
    timeout: float | None
    oauth: bool
    password: Secret | None
    password_file: str | None
    password_command: str | None
    password_keyring: str | None

    @classmethod
    def take(cls, values: dict[str, Any]) -> Server:
        """Take the values out of those of all options."""
        return cls(**{name: values.pop(name) for name in cls.__slots__})

    def mailer(self, connections: int | None = None) -> SecureMailer:
        """
        Return a mailer for the server.

        Raises:
            click.UsageError: A password is an argument, or there is none.
            ConfigurationError: A value is wrong or missing, or something is given twice.
        """
        given = Given({})
        if self.url is not None:
            refuse_password_in_url(self.url)
            add_url(given, Secret(self.url), "--url")
        for name in ("host", "port", "ca_file", "username", "timeout"):
            if getattr(self, name) is not None:
                given.add(name, getattr(self, name), f"--{name.replace('_', '-')}")
        if self.starttls:
            given.add("tls", TLSMode.STARTTLS, "--starttls")
        if self.url is None and self.host is None:
            _add_environment(given)
        self._add_secret(given)
        arguments = given.arguments(hint=_NO_PASSWORD_HINT)
        if self.oauth and "password" in arguments:
            arguments["auth"] = OAuth2(arguments.pop("username"), token=arguments.pop("password"))
        if connections is not None:
            arguments["max_connections"] = connections
        return SecureMailer(**arguments)

    def _add_secret(self, given: Given) -> None:
        options = {
            name: getattr(self, name)
            for name in ("password_file", "password_command", "password_keyring")
            if getattr(self, name) is not None
        }
        username = given.value("username")
        if username is None and options:
            message = f"--{next(iter(options)).replace('_', '-')} needs --username"
            raise click.UsageError(message)
        if options or (username is not None and given.value("password") is None):
            source = f"--{next(iter(options)).replace('_', '-')}" if options else "SMTP_PASSWORD"
            given.add("password", find_secret(username, password=self.password, **options), source)


def take_manner(values: dict[str, Any]) -> Manner:
    """Take the values of the options in `MANNER` out of those of all options."""
    return Manner(
        partial="allow" if values.pop("partial") else "raise",
        **{name: values.pop(name) for name in ("deadline", "dry_run", "quiet", "as_json")},
    )


def read_input() -> bytes:
    """Return all of standard input, to its end: a line with only a dot does not end it."""
    if sys.stdin is None:
        # The caller has closed it.
        return b""
    if sys.stdin.isatty():
        click.echo("Reading the message from the terminal; Ctrl-D ends it.", err=True)
    return sys.stdin.buffer.read()


def read_file(path: str) -> bytes:
    """
    Return the bytes of a file, or of standard input for ``-``.

    Raises:
        click.UsageError: It cannot be read.
    """
    if path == "-":
        return read_input()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise click.UsageError(message) from error


def _add_environment(given: Given) -> None:
    try:
        add_environment(given, "SMTP_")
    except ConfigurationError as error:
        error.hint = error.hint or f"{NO_SERVER_HINT}, or use --host or --url"
        raise
