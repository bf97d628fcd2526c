"""What an error says when a host cannot be connected to."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, TypeAlias

from securesmtp._transport.addresses import AddressInfo
from securesmtp._values import Stage
from securesmtp.errors import ConnectError, DeadlineExceededError, ProxyError, SecureSMTPError

if TYPE_CHECKING:
    from securesmtp._protocol.proxy import Proxy

# Each address that was tried, with its error; None as long as it has not answered.
Attempts: TypeAlias = dict[AddressInfo, OSError | None]
HINTS: dict[type[OSError], str] = {
    ConnectionRefusedError: "is the port right (implicit TLS: 465, STARTTLS: 587)? does a firewall let it pass?",
    socket.gaierror: "is the host's name right?",
}
# A proxy of the other kind waits for more, or closes the connection.
_KINDS = {"socks5h": "a SOCKS 5", "http": "an HTTP"}


def describe(error: OSError) -> str:
    """Return *error* in words."""
    if isinstance(error, ssl.SSLEOFError):
        # OpenSSL's text for a server that closes, whatever the reason, speaks of a violation of the protocol.
        return "the server closed it"
    return error.strerror or type(error).__name__


def unreachable_error(attempts: Attempts) -> ConnectError:
    """Return the error for a host none of whose addresses could be connected to."""
    errors = [error for error in attempts.values() if error is not None]
    what = answers(attempts) if len(attempts) > 1 else ", ".join(map(describe, errors)) or "the name has no address"
    hint = HINTS[ConnectionRefusedError] if ConnectionRefusedError in map(type, errors) else None
    ours = ConnectError(f"the connection failed: {what}", stage=Stage.CONNECT, retryable=True, hint=hint)
    ours.__cause__ = errors[-1] if errors else None
    return ours


def with_proxy(error: SecureSMTPError, proxy: Proxy) -> SecureSMTPError:
    """Return *error*, which came before the connection to the server was there, as one that names *proxy*."""
    if isinstance(error, DeadlineExceededError):
        way = f"the connection goes through the proxy {proxy.place}"
        error.hint = f"{way}: does it run, is it {_KINDS[proxy.scheme]} proxy, and can it reach the server?"
    if type(error) is not ConnectError:
        return error
    ours = ProxyError(f"the proxy {proxy.place}: {error.args[0]}", stage=Stage.CONNECT, retryable=error.retryable)
    ours.hint = f"are the host and port of the proxy right, does it run, and is it {_KINDS[proxy.scheme]} one?"
    ours.__cause__ = error.__cause__
    return ours


def answers(attempts: Attempts) -> str:
    """Return what each address has answered."""
    found = {info: "no answer" if error is None else describe(error) for info, error in attempts.items()}
    return "; ".join(f"{address[0]}: {words}" for (*_, address), words in found.items())
