"""The public values of a mailer's arguments; each checks itself when it is made."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

from securesmtp._shown import quote, withhold
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    import os

# RFC 5321 §4.5.3.2.6: a client that gives up early on the reply to the content causes duplicates.
_LEAST_FINAL = 60
# A week: system calls take it without overflow, and nobody waits longer.
_MOST_SECONDS = 7 * 24 * 3600
# Of connections or messages: a larger number is a mistake. Each connection needs a file descriptor.
_MOST = 10_000
# One message in three hours, and more than any server accepts.
_LEAST_RATE, _MOST_RATE = 0.0001, 1_000_000
_SHA256_BYTES = 32


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    How long each step may take, in seconds. A server that sends byte by byte gets no extra time (RFC 5321 §4.5.3.2).

    Attributes:
        connect: TCP, over all addresses of the host (RFC 8305). The system's name lookup has its own limit, which only
            an `AsyncSecureMailer` cuts short.
        handshake: The TLS handshake.
        command: The greeting, and each command with its reply.
        data: From DATA to its 354.
        block: One block of the content.
        final: From the end of the content to its reply; at least 60, since giving up here causes duplicates.
    """

    connect: float = 30
    handshake: float = 30
    command: float = 60
    data: float = 120
    block: float = 180
    final: float = 600

    def __post_init__(self) -> None:
        """Refuse anything that is not a number of seconds."""
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
    Which servers to trust.

    Attributes:
        ca_file: PEM file of the roots to trust *instead* of certifi's.
        ca_data: The same as PEM in a str or DER in bytes; not together with *ca_file*.
        extra_ca_file: PEM file of roots to trust *in addition*.
        pins: SHA-256 of the server's public key, ``"sha256/…"`` (as in `TLSInfo.peer_spki_sha256`): one must match
            the server's own certificate, in addition to the chain.
        client_cert: PEM file of the certificate (and chain) to show to a server that asks for one.
        client_key: PEM file of its key, unencrypted, if it is not in *client_cert*.
        server_hostname: The name that the certificate must have, if it is not the host.
        minimum_version: ``"TLSv1.2"`` or ``"TLSv1.3"``.
        allow_legacy_ca: Accept a private CA that lacks what RFC 5280 requires (key identifiers, key usage).
        trust: ``"system"`` for the roots in the file of the Linux distribution *instead* of certifi's; not together
            with *ca_file* or *ca_data*.
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
    trust: Literal["system"] | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions and malformed pins."""
        # The text of a key may be passed instead of a path: it is not kept, so that no repr shows it.
        for name in ("ca_file", "extra_ca_file", "client_cert", "client_key", "server_hostname"):
            object.__setattr__(self, name, withhold(getattr(self, name), allow_at=name != "server_hostname"))
        if self.ca_file is not None and self.ca_data is not None:
            message = "pass ca_file or ca_data, not both"
            raise ConfigurationError(message, hint="extra_ca_file adds to either")
        if self.trust not in (None, "system"):
            message = 'trust is neither None nor "system"'
            raise ConfigurationError(message, hint="a file of roots is ca_file")
        if self.trust is not None and (self.ca_file is not None or self.ca_data is not None):
            message = 'pass trust="system" or the roots to trust, not both'
            raise ConfigurationError(message, hint="extra_ca_file adds to the system's")
        if self.client_key is not None and self.client_cert is None:
            message = "client_key without client_cert"
            raise ConfigurationError(message)
        if self.minimum_version not in ("TLSv1.2", "TLSv1.3"):
            message = 'minimum_version is neither "TLSv1.2" nor "TLSv1.3"'
            raise ConfigurationError(message)
        if self.pins is not None and not _are_pins(self.pins):
            message = 'pins is not a tuple of "sha256/…" with 44 characters of base64 each'
            raise ConfigurationError(message, hint="a receipt's tls.peer_spki_sha256 is one")


@dataclass(frozen=True, slots=True)
class Window:
    """
    How much one connection may send ahead of the server's replies, with ``pipelining="session"``.

    It is also how much has an unknown outcome when the connection is cut. The replies need no limit of their own: they
    are read while commands are written (RFC 2920 §3.1).

    Attributes:
        messages: How many messages.
        octets: How many bytes of content; a larger message goes alone.
    """

    messages: int = 32
    octets: int = 1 << 20

    def __post_init__(self) -> None:
        """Refuse anything that is not a count."""
        count("Window.messages", self.messages)
        count("Window.octets", self.octets, 1 << 30)


def seconds(what: str, value: float) -> float:
    """
    Return *value* if it is a number of seconds.

    Raises:
        ConfigurationError: It is not; *what* names the argument.
    """
    if type(value) not in {int, float} or not 0 < value <= _MOST_SECONDS:
        message = f"{what} is {quote(value)}, not a number of seconds above 0 and up to {_MOST_SECONDS}"
        raise ConfigurationError(message)
    return value


def close_limit(timeout: float | None, *, abort: bool) -> float | None:
    """
    Return how many seconds a `close` waits; None for as long as it takes.

    Raises:
        ConfigurationError: *timeout* is neither None nor 0 nor a number of seconds.
    """
    # A program may pass what is left of its own time.
    if timeout is not None and (type(timeout) not in {int, float} or not 0 <= timeout <= _MOST_SECONDS):
        message = f"timeout is {quote(timeout)}, not a number of seconds from 0 to {_MOST_SECONDS}"
        raise ConfigurationError(message, hint="of the time that is left, pass max(0, left)")
    return 0 if abort else timeout


def count(what: str, value: int, most: int = _MOST) -> int:
    """
    Return *value* if it is a number from 1 to *most*.

    Raises:
        ConfigurationError: It is not; *what* names the argument.
    """
    if type(value) is not int or not 0 < value <= most:
        message = f"{what} is {quote(value)}, not a number from 1 to {most}"
        raise ConfigurationError(message)
    return value


def per_second(what: str, value: float) -> float:
    """
    Return *value* if it is a number of messages a second.

    Raises:
        ConfigurationError: It is not; *what* names the argument.
    """
    if type(value) not in {int, float} or not _LEAST_RATE <= value <= _MOST_RATE:
        message = f"{what} is {quote(value)}, not a number of messages a second from {_LEAST_RATE} to {_MOST_RATE:,}"
        raise ConfigurationError(message, hint="100 a minute are 100 / 60")
    return value


def _are_pins(pins: object) -> bool:
    return isinstance(pins, tuple) and bool(pins) and all(map(_is_pin, pins))


def _is_pin(pin: object) -> bool:
    if not isinstance(pin, str) or not pin.startswith("sha256/"):
        return False
    try:
        return len(base64.b64decode(pin[7:], validate=True)) == _SHA256_BYTES
    except (binascii.Error, ValueError):
        return False


# Defaults of the mailers' keywords.
TIMEOUTS, WINDOW = Timeouts(), Window()
