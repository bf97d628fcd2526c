"""A queue of tasks that wait for the same thing, served in their order."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Waiter:
    __slots__ = ("wakeup",)

    def __init__(self) -> None:
        self.wakeup = anyio.Event()


class TaskQueue:
    """
    Tasks that wait until something is free.

    Nothing is handed over: the first task is woken, and claims it without a wait. So a task that is cancelled at any
    moment holds nothing, and wakes the next one.
    """

    def __init__(self, has_room: Callable[[], bool]) -> None:
        """Start empty; *has_room* says whether a claim would succeed."""
        # Not a deque: thousands that are cancelled at once are each removed from wherever they are (measured: 3 s).
        self._waiters = OrderedDict[_Waiter, None]()
        self._has_room = has_room

    async def claim(self, claim: Callable[[], T | None]) -> T:
        """Return what *claim* returns, once it is this task's turn and that is not None."""
        if not self._waiters and (claimed := claim()) is not None:
            return claimed
        waiter = _Waiter()
        self._waiters[waiter] = None
        try:
            while True:
                if self._first() is waiter and (claimed := claim()) is not None:
                    return claimed
                if waiter.wakeup.is_set():
                    waiter.wakeup = anyio.Event()
                await waiter.wakeup.wait()
        finally:
            del self._waiters[waiter]
            # There may be room for the next one, too.
            self.notify()

    def notify(self) -> None:
        """Wake the first task if there is room."""
        if self._waiters and self._has_room():
            self._first().wakeup.set()

    def _first(self) -> _Waiter:
        return next(iter(self._waiters))
