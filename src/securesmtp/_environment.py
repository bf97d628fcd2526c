"""The environment variables of a mailer. Nothing else in the library reads the environment."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from securesmtp._arguments import as_count, as_rate, as_seconds
from securesmtp._secret import Secret
from securesmtp._shown import quote
from securesmtp._url import add_url
from securesmtp._values import TLSMode
from securesmtp.credentials import from_command, from_file
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._arguments import Given


def add_environment(given: Given, prefix: str, url: Secret | None = None) -> None:
    """
    Add the arguments that the variables with *prefix* give to *given*; a *url* takes the place of that among them.

    Raises:
        ConfigurationError: One of them is empty or wrong, is not a setting, or gives again what is given.
    """
    if not re.fullmatch(r"\w+", prefix):
        raise ConfigurationError("the prefix is not of letters, digits and underscores", hint='pass "SMTP_"')
    _refuse_unknown(prefix)
    variables = [name for name in ("URL", *_VARIABLES) if prefix + name in os.environ]
    if "URL" not in variables and "HOST" not in variables:
        raise ConfigurationError(f"neither {prefix}HOST nor {prefix}URL is set")
    for name in variables:
        variable = prefix + name
        if not os.environ[variable]:
            raise ConfigurationError(f"{variable} is empty", hint="give it a value, or remove it")
        if name == "URL":
            add_url(given, url or Secret(os.environ[variable]), variable)
        else:
            argument, convert = _VARIABLES[name]
            given.add(argument, convert(os.environ[variable], variable), variable)


def list_urls(prefix: str) -> list[Secret]:
    """
    Return the URLs of several servers in the variable for a URL, which are separated by blanks.

    Raises:
        ConfigurationError: It is not set, or empty.
    """
    urls = [Secret(url) for url in os.environ.get(f"{prefix}URL", "").split()]
    if not urls:
        raise ConfigurationError(
            f"{prefix}URL is not set, or empty", hint="write one URL for each server, with blanks between them"
        )
    return urls


def find_ignored_trust() -> tuple[str, ...]:
    """Return the variables that are set and name other roots: other programs obey them, this library does not."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return tuple(name for name in names if os.environ.get(name))


def ca_file_variable() -> str:
    """Return the value of the variable for a CA that `add_environment` obeys with the usual prefix; empty if unset."""
    return os.environ.get("SMTP_CA_FILE", "")


def _refuse_unknown(prefix: str) -> None:
    known = ("URL", *_VARIABLES)
    names = sorted(name.removeprefix(prefix) for name in os.environ if name.startswith(prefix))
    unknown = [name for name in names if name not in known]
    if unknown:
        close = get_close_matches(unknown[0], known, 1)
        meant = f"do you mean {prefix}{close[0]}? otherwise" if close else "if it is for something else,"
        hint = f'{meant} rename it, or choose another prefix: from_env("MYAPP_{prefix}")'
        raise ConfigurationError(f"{quote(prefix + unknown[0])} is set, and it is not a setting of a mailer", hint=hint)


def _mode(value: str, variable: str) -> TLSMode:
    if value not in tuple(TLSMode):
        raise ConfigurationError(
            f'{variable} is neither "implicit" nor "starttls"', hint="there is no mode without TLS"
        )
    return TLSMode(value)


def command_source(value: str, variable: str) -> Callable[[], Secret]:
    """
    Return what runs the command *value*, which is quoted as in a shell; *variable* names where it is from.

    Raises:
        ConfigurationError: It is not a command. The message does not show it.
    """
    arguments: list[str] = []
    # Outside of the `except`, so that the error has no context: its frames have the command.
    with suppress(ValueError):
        arguments = shlex.split(value)
    if not arguments:
        raise ConfigurationError(f"{variable} is not a command: a quote is not closed, or it has no word")
    if shutil.which(arguments[0]) is None:
        # It may be the password itself, so it must not get as far as an error of the command.
        raise ConfigurationError(f"{variable} does not begin with a program: there is none of this name")
    return from_command(arguments)


def _host(value: str, variable: str) -> str:
    prefix = variable.removesuffix("HOST")
    if "://" in value:
        raise ConfigurationError(f"{variable} is a URL, not a host", hint=f"a URL belongs in {prefix}URL")
    if re.fullmatch(r"[^:]*:[0-9]*", value):
        raise ConfigurationError(f"{variable} has a port in it", hint=f"the port belongs in {prefix}PORT")
    return value


def _unchanged(value: str, _: str) -> str:
    return value


def _secret(value: str, _: str) -> Secret:
    return Secret(value)


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:
        # The name is too long, and the error would show it.
        return False


def _file(value: str, variable: str) -> Callable[[], Secret]:
    if not value.startswith("/") and not _is_file(value):
        # It may be the password itself.
        raise ConfigurationError(f"{variable} is neither an absolute path nor a file in the current folder")
    return from_file(value)


# By name without the prefix: the argument of the mailer, and how it is made from the value.
_VARIABLES: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "HOST": ("host", _host),
    "PORT": ("port", as_count),
    "TLS": ("tls", _mode),
    "USERNAME": ("username", _unchanged),
    "PASSWORD": ("password", _secret),
    "PASSWORD_FILE": ("password", _file),
    "PASSWORD_COMMAND": ("password", command_source),
    "CA_FILE": ("ca_file", _unchanged),
    "PROXY": ("proxy", _secret),
    "TIMEOUT": ("timeout", as_seconds),
    "DEADLINE": ("deadline", as_seconds),
    "RATE": ("rate", as_rate),
    "MAX_RECIPIENTS": ("max_recipients", as_count),
}
