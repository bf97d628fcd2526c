"""The thread of a test server: it accepts connections on a free loopback port, and ends all of them when it stops."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from securesmtp.testing._engine import cut

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterator

    from securesmtp.testing._engine import Engine

T = TypeVar("T")
# Rounds of the loop in which a connection is closed, with one to spare.
_ROUNDS = 4
# A connection, and the TLS context with which it begins; None for STARTTLS.
Connected = tuple["Engine", "ssl.SSLContext | None"]


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock goes on while a test has stopped ``time.monotonic``, as freezegun does."""

    def time(self) -> float:
        """Return the seconds of a clock that only goes forward."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)


@contextmanager
def _silence(logger: str, thread: int) -> Iterator[None]:
    """Drop what one thread logs: aiosmtpd warns about its own calls, and logs a traceback for each failed handshake."""

    def is_of_another(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logging.getLogger(logger).addFilter(is_of_another)
    try:
        yield
    finally:
        logging.getLogger(logger).removeFilter(is_of_another)


class Listener:
    """
    A listening socket and the thread that serves its connections.

    Attributes:
        port: The port.
    """

    def __init__(self, connect: Callable[[asyncio.AbstractEventLoop], Connected], port: int) -> None:
        """Listen on *port*, or on a free one if it is 0; *connect* makes what serves a connection."""
        self._connect = connect
        # Not by name: "localhost" may be ::1 first.
        self._socket = socket.create_server(("127.0.0.1", port), backlog=128)
        self._socket.settimeout(0)
        self.port: int = self._socket.getsockname()[1]
        self._loop, self._handshakes = _Loop(), set[asyncio.Task[None]]()
        self._transports = WeakSet[asyncio.WriteTransport]()
        # A daemon: a server that nobody stops does not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=f"securesmtp.testing {self.port}", daemon=True)
        self._thread.start()

    def call(self, action: Coroutine[None, None, T]) -> T:
        """Run *action* in the thread, and return its result."""
        return asyncio.run_coroutine_threadsafe(action, self._loop).result()

    def stop(self) -> None:
        """Stop to listen, end the connections, then the loop and the thread."""
        self.call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        # A connection that a client cuts is no news, and its traceback none for a test's log.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        # -X dev would have it log each step that a busy machine is slow at.
        self._loop.set_debug(False)
        with _silence("mail.log", threading.get_ident()):
            self._loop.add_reader(self._socket, self._accept)
            self._loop.run_forever()
            self._loop.close()

    def _accept(self) -> None:
        # Not `sock_accept`: when that is cancelled, a connection that it has just accepted is never closed.
        connection, _ = self._socket.accept()
        connection.settimeout(0)
        task = self._loop.create_task(self._serve(connection))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _serve(self, connection: socket.socket) -> None:
        engine, context = self._connect(self._loop)
        # A handshake that fails or is cancelled closes the connection.
        with suppress(OSError):
            transport, _ = await self._loop.connect_accepted_socket(lambda: engine, connection, ssl=context)
            self._transports.add(transport)

    async def _end(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        # A task that has not begun when it is cancelled would not close its connection.
        await asyncio.sleep(0)
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        for transport in self._transports:
            cut(transport)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # TLS and its socket are closed in the next rounds of the loop.
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
