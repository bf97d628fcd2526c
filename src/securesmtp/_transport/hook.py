"""The caller's function that opens a connection, and what it may return."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import TypeAlias

from securesmtp._interrupts import SuppressErrors, raise_if_interrupt
from securesmtp._protocol.content import BLOCK
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError, ConnectError, SecureSMTPError

# What is called with the host, the port and the seconds that are left.
Connect: TypeAlias = Callable[[str, int, float], socket.socket]
_NOT_EVERY_SYSTEM_HAS_IT = SuppressErrors(OSError, AttributeError)


def call_hook(connect: Connect, host: str, port: int, seconds: float) -> socket.socket:
    """
    Return what *connect* returns.

    Raises:
        ConnectError: It raised an exception, which is the cause.
    """
    try:
        return connect(host, port, seconds)
    except SecureSMTPError:
        raise
    except Exception as error:
        raise hook_error(error) from error


def hook_error(error: Exception) -> ConnectError:
    """Return the error for *error*, which the caller's function raised; an interrupt is raised again."""
    raise_if_interrupt(error)
    # Its text may have a secret of the caller's.
    message = f"connect raised {type(error).__name__}"
    return ConnectError(message, stage=Stage.CONNECT, retryable=True, hint="the cause of this error says why")


def connected_stream(found: object) -> socket.socket:
    """
    Return *found* if TLS can begin on it.

    Raises:
        ConfigurationError: It is not a connected stream socket in the clear.
    """
    if not isinstance(found, socket.socket):
        raise _refused(
            f"a {type(found).__name__}", "return a socket.socket, or from an async function an anyio ByteStream"
        )
    # An `SSLSocket` reads ahead, where no `poll` sees it.
    if isinstance(found, ssl.SSLSocket):
        found.close()
        raise _refused("a socket with TLS", "return it before TLS begins: that is the mailer's part")
    if found.type != socket.SOCK_STREAM:
        found.close()
        raise _refused("a socket that is not a stream", "return a socket of the type SOCK_STREAM")
    try:
        found.getpeername()
    except OSError as error:
        raise_if_interrupt(error)
        found.close()
        raise _refused("a socket that is not connected", "connect it first") from error
    return found


def set_options(sock: socket.socket) -> None:
    """Set how TCP writes what is written to *sock*."""
    # A group and its content are two writes: the second must not wait for the first's acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Writable as soon as a block fits, not when a third of a large buffer is free: the limit is per block.
    with _NOT_EVERY_SYSTEM_HAS_IT:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, BLOCK)


def _refused(what: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"connect returned {what}", stage=Stage.CONNECT, hint=hint)
