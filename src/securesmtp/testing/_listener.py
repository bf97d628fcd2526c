"""The thread of a test server: it accepts connections on a free loopback port, and ends all of them when it stops."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterator

    from securesmtp.testing._engine import Engine

T = TypeVar("T")
# Rounds of the loop in which TLS and its socket are closed, with one to spare.
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
        self._loop, self._tasks = _Loop(), set[asyncio.Task[None]]()
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
        # -X dev would have it log each refused handshake.
        self._loop.set_debug(False)
        with _silence("mail.log", threading.get_ident()):
            self._start(self._accept())
            self._loop.run_forever()
            self._loop.close()

    def _start(self, action: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(self._socket)
            self._start(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        engine, context = self._connect(self._loop)
        # A handshake that fails or is cancelled closes the connection.
        with suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: engine, connection, ssl=context)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()
        # The transports close their sockets in the next rounds of the loop.
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
