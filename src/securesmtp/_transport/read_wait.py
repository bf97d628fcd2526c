"""
Wait in a task until a socket can be read, for a limited time: the one wait of a small message.

How it works: anyio's cancel scope makes a timer for each wait and cancels it again, which is 5 % of the CPU of a small
message (measured). On asyncio's own loop, one timer serves many waits: when it rings, it is set again for the wait of
that moment. On any other loop, anyio waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from securesmtp._transport.event_loop import is_in_trio

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

ReadWait: TypeAlias = "Callable[[socket.socket, float], Coroutine[Any, Any, None]]"


def new_read_wait() -> ReadWait:
    """Return a function for one connection that waits until a socket can be read, at most so many seconds."""
    if not is_in_trio():
        loop = asyncio.get_running_loop()
        # uvloop has no base class in common, and Windows' own loop cannot watch sockets.
        if isinstance(loop, asyncio.SelectorEventLoop):
            return _SelectorWait(loop).wait
    return _wait_by_anyio


async def _wait_by_anyio(sock: socket.socket, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        await anyio.wait_readable(sock)


class _SelectorWait:
    __slots__ = ("_loop", "_ready", "_timer", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        # Of the last wait.
        self._ready: asyncio.Future[None] | None = None
        self._until = 0.0

    async def wait(self, sock: socket.socket, seconds: float) -> None:
        loop, descriptor = self._loop, sock.fileno()
        self._until = loop.time() + seconds
        if self._timer is None or self._timer.when() > self._until:
            self._set_timer()
        self._ready = ready = loop.create_future()
        loop.add_reader(descriptor, _end, ready)
        try:
            await ready
        finally:
            loop.remove_reader(descriptor)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._until, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._ready is not None and not self._ready.done():
            if self._loop.time() < self._until:
                self._set_timer()
            else:
                _end(self._ready)


def _end(wait: asyncio.Future[None]) -> None:
    # The task may be cancelled in the moment in which the socket becomes readable.
    if not wait.done():
        wait.set_result(None)
