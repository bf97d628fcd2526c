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

    def __init__(self, has_room: Callable[[], bool], delay: Callable[[], float] = lambda: 0) -> None:
        """
        Start empty.

        *has_room* says whether the first task is to be woken, because its claim may succeed; *delay*, in how many
        seconds that is, if nobody wakes it.
        """
        # Not a deque: thousands that are cancelled at once are each removed from wherever they are (measured: 3 s).
        self._waiters = OrderedDict[_Waiter, None]()
        self._has_room = has_room
        self._delay = delay

    async def claim(self, claim: Callable[[], T | None], *, goes_first: bool = False) -> T:
        """Return what *claim* returns, once it is this task's turn and that is not None; or before all others."""
        if not self._waiters and (claimed := claim()) is not None:
            return claimed
        waiter = _Waiter()
        self._waiters[waiter] = None
        if goes_first:
            self._waiters.move_to_end(waiter, last=False)
        try:
            while True:
                if self._first() is waiter and (claimed := claim()) is not None:
                    return claimed
                if waiter.wakeup.is_set():
                    waiter.wakeup = anyio.Event()
                # Only the first one waits for a time, and wakes the second one then.
                delay = self._delay() if self._first() is waiter else 0
                if delay:
                    with anyio.move_on_after(delay):
                        await waiter.wakeup.wait()
                else:
                    await waiter.wakeup.wait()
        finally:
            del self._waiters[waiter]
            # There may be room for the next one, too.
            self.notify()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiters)

    def notify(self) -> None:
        """Wake the first task if there is room."""
        if self._waiters and self._has_room():
            self._first().wakeup.set()

    def _first(self) -> _Waiter:
        return next(iter(self._waiters))
