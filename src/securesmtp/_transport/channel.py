"""
One socket that never blocks, in the clear and then in TLS: connect, begin TLS, read what has come, write what fits.

How it works: nothing here waits. Whatever takes time is a generator of steps that yields what is to be waited for; a
driver waits, in a thread or in a task, and resumes it.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from securesmtp._interrupts import SuppressErrors, raise_if_interrupt
from securesmtp._transport.addresses import AddressInfo, AttemptSchedule, order_addresses
from securesmtp._transport.certificate import SentCertificate, sent_certificates
from securesmtp._transport.connect_errors import Attempts, answers, unreachable_error
from securesmtp._transport.hook import set_options
from securesmtp._transport.process import current_process
from securesmtp._transport.tls import channel_binding, handshake_error, verify_session, wrap
from securesmtp.errors import ConnectError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesmtp._protocol.sasl import ChannelBinding
    from securesmtp._settings import Settings
    from securesmtp._transport.tls_records import RecordLayer
    from securesmtp._values import TLSInfo

T = TypeVar("T")
# What steps yield to wait for the channel's socket: that it can be read, that it can be written, or either of them.
READ, WRITE = 1, 2
# What they yield between two blocks: an event loop lets other tasks run, and a thread goes on.
PAUSE = 0
_CHUNK = 16384


@dataclass(frozen=True, slots=True)
class WaitForAny:
    """Wait until one of *sockets* can be written, or *delay* seconds: resumed with those that can."""

    sockets: tuple[socket.socket, ...]
    delay: float | None


Steps: TypeAlias = Generator[Any, Any, T]


class Channel:
    """
    The bytes of one connection.

    Attributes:
        sock: The socket; None without a connection.
        addresses: The IP addresses of the host.
        address: The one that it is connected to.
        attempts: Each address that was tried, with its error; None if it did not answer, or is the one connected to.
        is_aborted: Whether `abort` was called.
        peer: Whom an error names that has closed the connection.
    """

    def __init__(self, settings: Settings, context: ssl.SSLContext) -> None:
        """Start closed."""
        self.sock: socket.socket | None = None
        self.addresses: tuple[str, ...] = ()
        self.address = ""
        self.attempts: Attempts = {}
        self._settings, self._context = settings, context
        self._records: RecordLayer | None = None
        self._process = current_process()
        self.is_aborted, self.peer = False, "server"
        # The sockets that are connecting, for `abort`.
        self._connecting: list[socket.socket] = []

    # Begin.

    def connect(self, addresses: Iterable[AddressInfo]) -> Steps[None]:
        """Connect to the first of *addresses* that answers (RFC 8305)."""
        infos = list(addresses)
        self.addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in infos))
        try:
            yield from self._race(order_addresses(infos), self.attempts)
        except DeadlineExceededError as error:
            if len(self.attempts) > 1:
                error.args = (f"{error.args[0]}: {answers(self.attempts)}",)
            raise
        finally:
            # Close all but the winner, whatever ended the race.
            while self._connecting:
                if (sock := self._connecting.pop()) is not self.sock:
                    sock.close()

    def _race(self, addresses: list[AddressInfo], attempts: Attempts) -> Steps[None]:
        schedule, waiting = AttemptSchedule(addresses), dict[socket.socket, AddressInfo]()

        def note_failure(address: AddressInfo, error: OSError) -> None:
            # Its traceback would keep this frame and those of its callers, and the message in them.
            attempts[address] = error.with_traceback(None)
            schedule.mark_failed(address)

        while True:
            while (address := schedule.next_attempt(time.monotonic())) is not None:
                attempts[address] = None
                try:
                    waiting[self._begin_attempt(address)] = address
                except OSError as error:
                    raise_if_interrupt(error)
                    note_failure(address, error)
            # After an attempt has begun: `abort` may have been called before there was a socket to shut down.
            self.refuse_if_aborted()
            if not waiting:
                raise unreachable_error(attempts)
            for sock in (yield WaitForAny(tuple(waiting), schedule.delay(time.monotonic()))):
                address, code = waiting.pop(sock), sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    self.sock, self.address = sock, str(address[4][0])
                    return
                sock.close()
                note_failure(address, OSError(code, os.strerror(code)))

    def _begin_attempt(self, info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        sock = socket.socket(family, kind, protocol)
        self._connecting.append(sock)
        sock.settimeout(0)
        source = self._settings.source_address
        if source is not None:
            # Two attempts may be under way from the one port that the caller chose.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, source[1] != 0)
            sock.bind(source)
        set_options(sock)
        with suppress(BlockingIOError):  # under way
            sock.connect(address)
        return sock

    def adopt(self, sock: socket.socket) -> None:
        """Use *sock*, which is connected already."""
        self.sock, peer = sock, sock.getpeername()
        sock.settimeout(0)
        # Other kinds of sockets have tuples, too (AF_VSOCK), and no options of TCP.
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            set_options(sock)
            self.address = str(peer[0])
        self.refuse_if_aborted()

    def begin_tls(self) -> Steps[TLSInfo]:
        """Begin TLS, here and nowhere else, and return how it was verified."""
        self._records = records = wrap(self._context, self.connected_socket(), self._settings.server_name)
        yield from self._handshake(records)
        return verify_session(records.tls, self._settings)

    def binding(self) -> ChannelBinding | None:
        """Return the channel binding of the TLS session, if it has one."""
        return None if self._records is None else channel_binding(self._records.tls)

    def sent_certificates(self) -> tuple[SentCertificate, ...]:
        """Return the certificates that the server has sent, whether they were accepted or refused."""
        return () if self._records is None else sent_certificates(self._records.tls)

    def _handshake(self, records: RecordLayer) -> Steps[None]:
        while True:
            self._refuse_if_forked()
            try:
                return records.do_handshake()
            except BlockingIOError:
                wanted = WRITE
            except ssl.SSLWantReadError:
                wanted = READ
            except ssl.SSLEOFError:
                raise
            except ssl.SSLError as error:
                raise handshake_error(error, records.tls, self._settings) from error
            yield wanted

    # Bytes.

    @property
    def has_buffered(self) -> bool:
        """Whether TLS holds bytes that were read already, where `poll` does not see them."""
        return self._records is not None and self._records.pending() > 0

    def read(self, size: int = _CHUNK) -> bytes | None:
        """
        Return what has come, at most *size* bytes; None if nothing has.

        Raises:
            ConnectError: The server has closed the connection, or there is none.
            OSError: The connection failed.
        """
        wire = self._wire()
        try:
            data = wire.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        if not data:
            self.refuse_if_aborted()
            message = f"the {self.peer} closed the connection"
            raise ConnectError(message, retryable=True)
        return data

    def write(self, record: memoryview) -> int:
        """
        Write *record*, of at most 16 KiB, and return how much of it was written: 0 if there is no room now.

        Raises:
            ConnectError: There is no connection.
            OSError: The connection failed; the server can use no part of an unfinished TLS record (RFC 8446 §5.1).
        """
        try:
            return self._wire().send(record)
        except BlockingIOError:
            return 0

    def note_reply(self) -> None:
        """Note that a complete reply has come: it restarts the count of bytes that TLS may read without one."""
        if self._records is not None:
            self._records.reset_byte_count()

    def acknowledge(self) -> None:
        """Send the TCP acknowledgement of what has come now, not later."""
        # A server's small writes wait for it (measured: 43 of 46 ms of a login to Postfix).
        try:
            self.connected_socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except (OSError, AttributeError) as error:
            # Not every system has it.
            raise_if_interrupt(error)

    def connected_socket(self) -> socket.socket:
        """
        Return the socket, which must be connected.

        Raises:
            ConnectError: It is closed.
        """
        if self.sock is None:
            message = "the connection is closed"
            raise ConnectError(message, retryable=True)
        return self.sock

    @property
    def port(self) -> int:
        """The port that is connected to."""
        return self._settings.port

    @property
    def is_foreign(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return self._process != current_process()

    def _wire(self) -> socket.socket | RecordLayer:
        """Return where bytes are read and written: only TLS once it has begun, even during the handshake."""
        sock = self.sock
        if sock is None or current_process() != self._process:
            sock = self.connected_socket()
            self._refuse_if_forked()
        return self._records or sock

    def _refuse_if_forked(self) -> None:
        # Both processes would use the same TLS nonces (seen on the wire), and the parent would never get a reply that
        # its child has read (seen: a message was accepted, and the parent did not know).
        if self.is_foreign:
            message = "the connection belongs to the process that this one was forked from"
            raise ConnectError(message, retryable=True)

    # End.

    def close(self) -> None:
        """Close the socket; nothing is sent."""
        sock, self.sock = self.sock, None
        if sock is not None:
            sock.close()

    def abort(self) -> None:
        """Shut the connection down from another thread: a wait for it ends, and the thread that uses it closes it."""
        self.is_aborted = True
        for sock in (*self._connecting, self.sock):
            if sock is not None:
                with SuppressErrors(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def refuse_if_aborted(self) -> None:
        """
        Do nothing unless `abort` was called.

        Raises:
            ConnectError: It was called.
        """
        if self.is_aborted:
            raise aborted_error()


def aborted_error() -> ConnectError:
    """Return the error for a connection that `abort` has ended."""
    return ConnectError("the mailer was closed before the send had ended", retryable=True)
