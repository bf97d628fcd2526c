"""
Run what blocks in a thread of its own while a task waits: name lookups, the caller's functions, large messages.

Not the loop's executor: other code of the program can fill it (measured: a lookup then waited 12 s), and its threads
keep a program from ending while a resolver hangs.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

import anyio

from securesmtp._transport.task_queue import TaskQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._transport.event_loop import EventLoop

T = TypeVar("T")


class Threads:
    """Threads of one kind, for the tasks of one event loop."""

    def __init__(self, loop: EventLoop, most: int) -> None:
        """Run at most *most* at a time, so that functions which hang do not use up threads."""
        self._loop = loop
        self._most = most
        self._running = 0
        self._queue = TaskQueue(self._has_room)

    async def run(self, function: Callable[[], T], name: str, discard: Callable[[T], object] | None = None) -> T:
        """
        Return what *function* returns, or raise what it raises.

        If the task is cancelled, the thread is abandoned: its result is dropped, and given to *discard* before.
        """
        await self._queue.claim(self._claim)
        done, results, errors, is_abandoned = anyio.Event(), list[T](), list[BaseException](), False

        def work() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 -- raised in the task that waits
                errors.append(error)
            self._loop.call_soon(end)

        def end() -> None:
            self._running -= 1
            self._queue.notify()
            done.set()
            drop_if_abandoned()

        def drop_if_abandoned() -> None:
            while is_abandoned and results:
                result = results.pop()
                if discard is not None:
                    discard(result)

        # A daemon: one that hangs does not keep the program alive.
        thread = threading.Thread(target=copy_context().run, args=(work,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # For example while the interpreter shuts down.
            work()
        try:
            await done.wait()
        except BaseException:
            is_abandoned = True
            drop_if_abandoned()
            raise
        if errors:
            raise errors.pop()
        return results.pop()

    def _has_room(self) -> bool:
        return self._running < self._most

    def _claim(self) -> bool | None:
        if not self._has_room():
            return None
        self._running += 1
        return True
