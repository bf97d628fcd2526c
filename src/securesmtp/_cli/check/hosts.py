"""Which servers to check: ``HOST[:PORT]`` or a URL, on the command line or one on each line of a file."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

import click

from securesmtp import ConfigurationError, Secret, SecureMailer, TLSMode
from securesmtp._arguments import Given, as_count
from securesmtp._protocol.address import host_name
from securesmtp._shown import escape, quote
from securesmtp._url import add_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Registered for one mode each, by the library too (RFC 8314 §7.3, RFC 6409 §3.1).
_PORTS = {TLSMode.IMPLICIT: 465, TLSMode.STARTTLS: 587}
# The option for what a URL for a program may have.
_OPTIONS = {
    "username": "--login",
    "password": "--login",
    "auth": "--login",
    "ca_file": "--ca-file",
    "policy": "--pin",
    "timeout": "--timeout",
}
_IN_BRACKETS = re.compile(r"\[([^\[\]]*)\](?::(.*))?")
# A longer file is not a list of servers.
_MOST_BYTES = 1_000_000
# Faulty lines that an error names; the rest are probably faulty in the same way.
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Target:
    """
    One server to check.

    Attributes:
        host: Its name in A-labels, or its IP address in canonical form.
        port: Its port.
        tls: The TLS mode.
    """

    host: str
    port: int
    tls: Literal["implicit", "starttls"]

    def __str__(self) -> str:
        """Return host and port; an IPv6 address is in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def find_targets(hosts: Iterable[str], file: BinaryIO | None, *, starttls: bool) -> list[Target]:
    """
    Return each server once, those of the command line first.

    Args:
        hosts: The servers of the command line.
        file: A list of servers: one on each line; a ``#`` begins a comment.
        starttls: Whether all of them use STARTTLS.

    Raises:
        click.UsageError: One cannot be read, or there is none. The text names each line that is wrong.
    """
    found: dict[Target, None] = {}
    faults = []
    for where, text in [*(("", host) for host in hosts), *(_lines(file) if file else ())]:
        try:
            found[parse(text, starttls=starttls)] = None
        except ConfigurationError as error:
            hint = f". Hint: {error.hint}" if error.hint else ""
            faults.append(f"{where}{error.args[0]}{hint}")
    if len(faults) > _MOST_NAMED:
        faults[_MOST_NAMED:] = [f"and {len(faults) - _MOST_NAMED} more"]
    if faults:
        raise click.UsageError("\n".join(faults))
    if not found:
        raise click.UsageError("there is no server to check. Hint: name one, such as smtp.example.com")
    return list(found)


def parse(text: str, *, starttls: bool = False) -> Target:
    """
    Return the server that *text* names.

    Raises:
        ConfigurationError: It is not HOST, HOST:PORT, or the URL of a mail server without a login.
    """
    host, port, mode = _parse_url(text) if "://" in text else (*_parse_host(text), None)
    if starttls:
        if mode is TLSMode.IMPLICIT:
            raise ConfigurationError("smtps:// means implicit TLS", hint="leave out --starttls, or the scheme")
        mode = TLSMode.STARTTLS
    if mode is None:
        mode = TLSMode.STARTTLS if port == _PORTS[TLSMode.STARTTLS] else TLSMode.IMPLICIT
    port = _PORTS[mode] if port is None else port
    # It checks its arguments, and does not connect before it is used.
    SecureMailer(host, port, tls=mode)
    return Target(_ip_address(host) or host_name(host.removesuffix(".")).lower(), port, mode.value)


def _parse_host(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        bracketed = _IN_BRACKETS.fullmatch(text)
        if bracketed is None or _ip_address(bracketed[1]) is None:
            raise ConfigurationError(f"{quote(text)} is not [IPV6]:PORT", hint="write [2001:db8::1]:587")
        host, port = bracketed.groups()
    elif _ip_address(text) is not None:
        host, port = text, None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    if port is not None and not re.fullmatch(r"[0-9]{1,5}", port):
        raise ConfigurationError(f"{quote(text)} is not HOST:PORT", hint="write smtp.example.com:587")
    return host, None if port is None else as_count(port, "the port")


def _parse_url(text: str) -> tuple[str, int, TLSMode]:
    given = Given({})
    add_url(given, Secret(text))
    arguments = given.arguments(hint="")
    host, port, mode = (arguments.pop(name) for name in ("host", "port", "tls"))
    if arguments:
        # A pin comes in a policy, with the CA.
        names = (*arguments, *(["ca_file"] if getattr(arguments.get("policy"), "ca_file", None) else []))
        options = dict.fromkeys(_OPTIONS[name] for name in names if name in _OPTIONS)
        used = f", and use {' and '.join(options)}" if options else ""
        raise ConfigurationError(
            "a URL to check has no login and no parameters", hint=f"write smtps://smtp.example.com{used}"
        )
    return host, port, mode


def _ip_address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _lines(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Yield each line that names a server, after the text that says where it is."""
    name = getattr(file, "name", None)
    name = "standard input" if not isinstance(name, str) or name == "<stdin>" else escape(name)
    try:
        data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{name} cannot be read: {error.strerror or error}") from None
    if len(data) > _MOST_BYTES:
        raise click.UsageError(f"{name} is larger than {_MOST_BYTES:,} bytes")
    try:
        # Notepad begins a file with a byte order mark.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise click.UsageError(f"{name} is not a text in UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        # A "#" inside a word begins no comment: it may be in a URL, where it is a mistake to be reported.
        server = re.sub(r"(^|\s)#.*", "", line).strip()
        if server:
            yield f"{name}, line {number}: ", server
