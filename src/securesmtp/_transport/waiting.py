"""Wait in a task for something that may take too long."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def within(left: Callable[[], float], action: Callable[[], Awaitable[T]]) -> T:
    """
    Return what *action* returns, unless it takes too long; then it is cancelled.

    *left* returns the seconds that are left, or raises the error that says what has taken too long.
    """
    with anyio.move_on_after(left()):
        return await action()
    while True:
        # It raises, at once or a moment later: the clock of the loop is not ours.
        left()
