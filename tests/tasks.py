"""What tests of tasks need: to wait for a server's thread, and to cancel a coroutine at a chosen wait."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import coroutine
from typing import Any, Generic, TypeVar

import anyio
from anyio.to_thread import run_sync

from securesmtp import AsyncSecureMailer

T = TypeVar("T")
# Seconds after which a server is taken to hang.
_PATIENCE = 10.0


async def happens(event: threading.Event) -> None:
    """Wait until a server's thread sets *event*."""
    assert await run_sync(event.wait, _PATIENCE, abandon_on_cancel=True), "the server hangs"


@dataclass
class Ended(Generic[T]):
    """
    How a coroutine ended.

    Attributes:
        result: What it returned, unless it raised.
        interrupt: The cancellation that it raised.
        is_cancelled: Whether it was cancelled before it ended.
    """

    result: T | None = None
    interrupt: BaseException | None = None
    is_cancelled: bool = False


async def cancel_at(wait: int, work: Coroutine[Any, Any, T], *, by_task: bool = False) -> Ended[T]:
    """
    Run *work*, and cancel it when it waits for the *wait*-th time; return how it ended.

    With *by_task*, asyncio's own `Task.cancel` is called, which cancels one wait. A scope cancels all that follow.
    """
    ended = Ended[T]()
    with anyio.CancelScope() as scope:
        task = asyncio.current_task() if by_task else None

        def cancel() -> None:
            ended.is_cancelled = True
            (scope.cancel if task is None else task.cancel)()

        try:
            ended.result = await _cancelling(work, wait, cancel)
        except anyio.get_cancelled_exc_class() as interrupt:
            ended.interrupt = interrupt
            if task is None:
                raise
            task.uncancel()
    return ended


@coroutine
def _cancelling(work: Coroutine[Any, Any, T], wait: int, cancel: Callable[[], object]) -> Generator[Any, Any, T]:
    step: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        try:
            awaited = step(value)
        except StopIteration as stop:
            result: T = stop.value
            return result
        wait -= 1
        if wait == 0:
            cancel()
        try:
            value = yield awaited
        except BaseException as error:  # noqa: BLE001 -- thrown on
            step, value = work.throw, error
        else:
            step = work.send


def slots_in_use(mailer: AsyncSecureMailer) -> int:
    """Return how many of the mailer's slots a send has."""
    return sum(not slot.is_free for slot in mailer._pool.slots)


@contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """Return the port of a proxy to *port* that passes everything on so many seconds later."""
    stopped, threads = threading.Event(), list[threading.Thread]()

    def forward(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while octets := source.recv(65536):
                stopped.wait(seconds)
                sink.sendall(octets)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=forward, args=(server, client))
            back.start()
            forward(client, server)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while not stopped.is_set():
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threads.append(threading.Thread(target=serve, args=(client,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            # Wakes the thread that waits in `accept`.
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (acceptor, *threads):
                thread.join()
