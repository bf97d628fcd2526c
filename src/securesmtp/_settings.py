"""What the caller chose, as frozen values that are checked when they are made."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal, cast

from securesmtp._protocol.address import ehlo_name, host_name
from securesmtp._shown import Withheld, quote, withhold
from securesmtp._values import TLSMode
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    import os

    from securesmtp._protocol.dialogue import Pipelining
    from securesmtp._protocol.sasl import Password

# RFC 5321 §4.5.3.2.6: who gives up early on the reply to the content makes duplicates.
_LEAST_FINAL = 60
# A week: what the system calls below take without overflow, and longer than anybody waits.
_MOST_SECONDS = 7 * 24 * 3600
# RFC 8314 §7.3, RFC 6409 §3.1.
_PORT_IMPLICIT, _PORT_STARTTLS = 465, 587
# Of connections or messages: each connection has a file descriptor, and each message a line in somebody's log.
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    How long each step may take, in seconds; each is absolute, whatever drips in meanwhile (RFC 5321 §4.5.3.2).

    Attributes:
        connect: TCP, over all addresses of the host (RFC 8305). The system's name lookup has its own limit.
        handshake: The TLS handshake.
        command: The greeting, and each command with its reply.
        data: From DATA to its 354.
        block: One block of the content.
        final: From the end of the content to its reply; at least 60, since giving up here makes duplicates.
    """

    connect: float = 30
    handshake: float = 30
    command: float = 60
    data: float = 120
    block: float = 180
    final: float = 600

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        for each in fields(self):
            seconds(f"Timeouts.{each.name}", getattr(self, each.name))
        if self.final < _LEAST_FINAL:
            message = f"Timeouts.final is below {_LEAST_FINAL} seconds"
            raise ConfigurationError(message, hint="to bound a whole send, pass deadline=")

    @classmethod
    def rfc5321(cls) -> Timeouts:
        """Return the limits of RFC 5321 §4.5.3.2."""
        return cls(command=300)


@dataclass(frozen=True, slots=True)
class TLSPolicy:
    """
    Whom to trust.

    Attributes:
        ca_file: PEM file of the roots to trust *instead* of certifi's.
        ca_data: The same as PEM in a str or DER in bytes; not together with *ca_file*.
        extra_ca_file: PEM file of roots to trust *in addition*.
        pins: SHA-256 of the server's public key, ``"sha256/…"`` (as in `TLSInfo.peer_spki_sha256`): one must match
            the server's own certificate, in addition to the chain.
        client_cert: PEM file of the certificate (and chain) to show to a server that asks.
        client_key: PEM file of its key, unencrypted, where it is not in *client_cert*.
        server_hostname: The name that the certificate must have, where it is not the host.
        minimum_version: ``"TLSv1.2"`` or ``"TLSv1.3"``.
        allow_legacy_ca: Accept a private CA that lacks what RFC 5280 asks for (key identifiers, key usage).
    """

    ca_file: str | os.PathLike[str] | None = None
    ca_data: str | bytes | None = field(default=None, repr=False)
    extra_ca_file: str | os.PathLike[str] | None = None
    pins: tuple[str, ...] | None = None
    client_cert: str | os.PathLike[str] | None = None
    client_key: str | os.PathLike[str] | None = None
    server_hostname: str | None = None
    minimum_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2"
    allow_legacy_ca: bool = False

    def __post_init__(self) -> None:
        """Refuse contradictions and pins that are none."""
        # The text of a key is no path: what cannot be used is not kept, for no repr to show it.
        for name in ("ca_file", "extra_ca_file", "client_cert", "client_key", "server_hostname"):
            object.__setattr__(self, name, withhold(getattr(self, name), allow_at=name != "server_hostname"))
        if self.ca_file is not None and self.ca_data is not None:
            message = "pass ca_file or ca_data, not both"
            raise ConfigurationError(message, hint="extra_ca_file adds to either")
        if self.client_key is not None and self.client_cert is None:
            message = "client_key without client_cert"
            raise ConfigurationError(message)
        if self.minimum_version not in ("TLSv1.2", "TLSv1.3"):
            message = 'minimum_version is neither "TLSv1.2" nor "TLSv1.3"'
            raise ConfigurationError(message)
        pins = cast("object", self.pins)
        if pins is not None and not (isinstance(pins, tuple) and pins and all(map(_is_pin, pins))):
            message = 'pins is not a tuple of "sha256/…" with 44 characters of base64 each'
            raise ConfigurationError(message, hint="a receipt's tls.peer_spki_sha256 is one")


@dataclass(frozen=True, slots=True)
class Window:
    """
    How much may be under way over one connection before its reply has come, with ``pipelining="session"``.

    It is also how much is of unknown outcome when the connection is cut. What a server answers needs no bound of its
    own: replies are read while commands are written (RFC 2920 §3.1).

    Attributes:
        messages: So many messages.
        octets: So many octets of content, or one message that has more.
    """

    messages: int = 32
    octets: int = 1 << 20

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        _count("Window.messages", self.messages)
        _count("Window.octets", self.octets, 1 << 30)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that one mailer is made of."""

    host: str
    port: int
    mode: TLSMode
    server_name: str
    login: Password | None
    policy: TLSPolicy
    timeouts: Timeouts
    deadline: float | None
    max_connections: int
    max_messages: int
    max_idle: float
    max_connect_failures: int
    pipelining: Pipelining
    window: Window
    local_hostname: bytes | None
    source_address: tuple[str, int] | None


def settings(  # noqa: PLR0913 -- the mailer's own keywords
    host: str,
    port: int | None,
    *,
    tls: TLSMode | str | None,
    login: Password | None,
    policy: TLSPolicy,
    timeout: float | Timeouts,
    deadline: float | None,
    max_connections: int,
    max_messages: int,
    max_idle: float,
    max_connect_failures: int,
    pipelining: Pipelining,
    window: Window,
    local_hostname: str | None,
    source_address: tuple[str, int] | None,
) -> Settings:
    """
    Return the settings, checked.

    Raises:
        ConfigurationError: One of them is wrong; the message says which.
    """
    if tls is None:
        # Both are verified, so a port that is served in the other mode is an error, never mail in the clear (RFC 8314).
        tls = TLSMode.STARTTLS if port == _PORT_STARTTLS else TLSMode.IMPLICIT
    if tls not in tuple(TLSMode):
        message = f'tls is {quote(tls)}, neither "implicit" nor "starttls"'
        raise ConfigurationError(message, hint="there is no mode without TLS")
    mode = TLSMode(tls)
    if pipelining not in ("off", "message", "session"):
        message = f'pipelining is {quote(pipelining)}, neither "off" nor "message" nor "session"'
        raise ConfigurationError(message)
    if not isinstance(cast("object", window), Window):
        message = f"window is a {type(window).__name__}, not a Window"
        raise ConfigurationError(message)
    name = server_name("host", host)
    if port is not None and (type(port) is not int or not 0 < port < 65536):  # noqa: PLR2004
        message = f"port is {quote(port)}, not a number from 1 to 65535"
        hint = "convert what comes from the environment: int(port)" if isinstance(cast("object", port), str) else None
        raise ConfigurationError(message, hint=hint)
    if source_address is not None and not _is_source(source_address):
        message = f"source_address is {quote(source_address)}, not an address and a port"
        raise ConfigurationError(message, hint='pass ("192.0.2.1", 0), where 0 is any port')
    return Settings(
        name,
        port or (_PORT_IMPLICIT if mode is TLSMode.IMPLICIT else _PORT_STARTTLS),
        mode,
        name if policy.server_hostname is None else server_name("server_hostname", policy.server_hostname),
        login,
        policy,
        timeout if isinstance(timeout, Timeouts) else _uniform(timeout),
        None if deadline is None else seconds("deadline", deadline),
        _count("max_connections", max_connections),
        _count("max_messages", max_messages),
        seconds("max_idle", max_idle),
        _count("max_connect_failures", max_connect_failures),
        pipelining,
        window,
        None if local_hostname is None else ehlo_name(local_hostname),
        source_address,
    )


def server_name(what: str, host: str) -> str:
    """
    Return *host* as the name that is looked up and that the certificate must have (RFC 9525 §7.2).

    That is the name in A-labels without its trailing dot, or an IP address in canonical form.

    Raises:
        ConfigurationError: It is neither; *what* says which argument.
    """
    if isinstance(cast("object", host), Withheld):
        raise _no_name(what, host)
    if not isinstance(host, str):
        message = f"{what} is a {type(host).__name__}, not a str"
        raise ConfigurationError(message, hint="is the variable set that it comes from?" if host is None else None)
    try:
        return _ip_address(host) or host_name(host.removesuffix("."))
    except ValueError:
        raise _no_name(what, host) from None


def _no_name(what: str, host: object) -> ConfigurationError:
    message = f"{what} {quote(host)} is neither a host name nor an IP address"
    hint = "pass the name alone; port and mode are arguments of their own"
    if not host:
        hint = "is the variable set that it comes from?"
    elif isinstance(host, str) and host[0] in "[0123456789":
        hint = "write an IP address in full and alone, such as 127.0.0.1 or ::1"
    return ConfigurationError(message, hint=hint)


def seconds(what: str, value: float) -> float:
    """
    Return *value* if it is a number of seconds.

    Raises:
        ConfigurationError: It is not; *what* says which argument.
    """
    if type(value) not in {int, float} or not 0 < value <= _MOST_SECONDS:
        message = f"{what} is {quote(value)}, not a number of seconds above 0 and up to {_MOST_SECONDS}"
        raise ConfigurationError(message)
    return value


def _count(what: str, value: int, most: int = _MOST) -> int:
    if type(value) is not int or not 0 < value <= most:
        message = f"{what} is {quote(value)}, not a number from 1 to {most}"
        raise ConfigurationError(message)
    return value


def _uniform(value: float) -> Timeouts:
    each = seconds("timeout", value)
    return Timeouts(connect=each, handshake=each, command=each, data=each, block=each)


def _is_source(address: object) -> bool:
    match address:
        case (str(host), int(port)) if isinstance(address, tuple) and 0 <= port < 65536:  # noqa: PLR2004
            return not host or _ip_address(host) is not None
    return False


def _ip_address(text: str) -> str | None:
    """Return *text* in canonical form if it is an IP address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A zone ("fe80::1%eth0") may hold any character, and no certificate is for one.
    return None if "%" in text else str(address)


def _is_pin(pin: object) -> bool:
    if not isinstance(pin, str) or not pin.startswith("sha256/"):
        return False
    try:
        return len(base64.b64decode(pin[7:], validate=True)) == 32  # noqa: PLR2004 -- SHA-256
    except (binascii.Error, ValueError):
        return False
