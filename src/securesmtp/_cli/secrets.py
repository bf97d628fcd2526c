"""
Where the commands get a password or a token from.

Never from an argument: every user of the machine can read the arguments of every process. What fetches a secret is
imported when one is fetched, so that `--help` and completion are quick.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from securesmtp._secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._protocol.sasl import PasswordSource

F = TypeVar("F", bound="Callable[..., Any]")
_TERMINAL = "/dev/tty"
_WAYS = "--password-file, --password-command, --password-keyring, or the variable SMTP_PASSWORD"
_SEEN = "every user of this machine can read the arguments of a process"


def _refuse_argument(context: click.Context, option: click.Parameter, value: str | None) -> Secret | None:
    """Take the secret from the environment, never from the command line."""
    if context.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE:
        message = f"a password cannot be an argument: {_SEEN}. Hint: use {_WAYS}; without any, you are asked for it"
        raise click.UsageError(message, context)
    return Secret(value) if value else None


_OPTIONS = (
    click.option("--password-file", metavar="FILE", help="Take the password from a file that others cannot read."),
    click.option(
        "--password-command",
        metavar="COMMAND",
        help='Take the first line that a command prints, such as "pass show smtp". It gets no input.',
    ),
    click.option("--password-keyring", metavar="SERVICE", help="Take the password from the keyring of the desktop."),
    click.option("--oauth", is_flag=True, help="The password is an OAuth 2 access token."),
    # With `flag_value`, the option is refused without a value too.
    click.option(
        "--password",
        "--pass",
        "--token",
        hidden=True,
        is_flag=False,
        flag_value="",
        envvar="SMTP_PASSWORD",
        callback=_refuse_argument,
    ),
)


def secret_options(command: F) -> F:
    """Add the options that say where the secret of a login is; `find_secret` takes all but *oauth*."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def find_secret(
    username: str,
    *,
    password: Secret | None = None,
    password_file: str | None = None,
    password_command: str | None = None,
    password_keyring: str | None = None,
) -> PasswordSource:
    """
    Return the secret of *username*, or what fetches it at each login.

    An option is used before the variable ``SMTP_PASSWORD``, and a prompt at the terminal is the last.

    Raises:
        click.UsageError: Two options are given, or none and there is no terminal.
        ConfigurationError: The command cannot be found, or there is no keyring.
    """
    given = [each for each in (password_file, password_command, password_keyring) if each is not None]
    if len(given) > 1:
        raise click.UsageError("two options say where the password is. Hint: keep one of them")
    if password_file is not None:
        from securesmtp._sources.file import File

        return File(password_file, is_private=True)
    if password_command is not None:
        from securesmtp._environment import command_source

        return command_source(password_command, "--password-command")
    if password_keyring is not None:
        from securesmtp.credentials import from_keyring

        return from_keyring(password_keyring, username)
    return _ask(username) if password is None else password


def refuse_password_in_url(url: str) -> None:
    """
    Refuse a URL with a password as an argument.

    Raises:
        click.UsageError: *url* has a password, or may have one.
    """
    from securesmtp._url import has_password

    if has_password(url):
        message = f"--url has a password in it: {_SEEN}. Hint: put the whole URL into SMTP_URL, or use {_WAYS}"
        raise click.UsageError(message)


def _ask(username: str) -> Secret:
    """Ask for the secret at the terminal; standard input may be the message."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        message = f"there is no password for {username}, and no terminal to ask for it. Hint: use {_WAYS}"
        raise click.UsageError(message) from None
    from getpass import getpass

    return Secret(getpass(f"Password of {username}: "))
