"""How mailers are closed: one, or several within one time."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

from securesmtp._activity import UnderWay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securesmtp._core import Core
    from securesmtp._transport.async_pool import AsyncPool
    from securesmtp._transport.pool import Pool
    from securesmtp._values import SendResult

# How long `close` waits for sends that it has aborted, in seconds: one may hang in a look-up of a name.
ABORT_GRACE = 5.0

L = TypeVar("L", "Pool", "AsyncPool")


class Closing(Generic[L]):
    """
    A mailer that refuses further sends, and the sends that were under way then.

    Attributes:
        pool: Its connections; None if it has had none.
        under_way: The sends.
    """

    __slots__ = ("pool", "under_way")

    def __init__(self, core: Core, pool: L | None, but_in: int = 0) -> None:
        """Note the sends of *core*, which is closed; those in the thread *but_in* are not waited for."""
        self.under_way = UnderWay(core.activity, but_in)
        self.pool: L | None = pool
        if pool is not None:
            pool.begin_close()

    def abort(self) -> None:
        """End the connections that are in use."""
        if self.pool is not None:
            self.pool.abort()

    @property
    def results(self) -> tuple[SendResult, ...]:
        """What became of the sends."""
        return self.under_way.results(is_aborted=self.pool is not None and self.pool.slots.is_aborted)


def close_all(closings: Sequence[Closing[Pool]], limit: float | None) -> tuple[SendResult, ...]:
    """
    Wait for the sends of *closings* for *limit* seconds, then abort them; return what became of each.

    All of them have the same time, and so do those that cannot be ended at once.
    """

    def late(each: Closing[Pool], limit: float | None) -> bool:
        return each.pool is not None and not each.pool.wait_until_closed(limit, each.under_way.is_over)

    left, waiting = _countdown(limit), list(closings)
    if limit != 0:
        # First what nothing keeps open: an interrupt may strike while the others are waited for.
        waiting = [each for each in closings if late(each, 0)]
        waiting = [each for each in waiting if late(each, left())]
    for each in waiting:
        each.abort()
    left = _countdown(ABORT_GRACE)
    for each in waiting:
        late(each, left())
    return _numbered(closings)


async def close_all_async(closings: Sequence[Closing[AsyncPool]], limit: float | None) -> tuple[SendResult, ...]:
    """Do as `close_all`."""

    async def late(each: Closing[AsyncPool], limit: float | None) -> bool:
        return each.pool is not None and not await each.pool.wait_until_closed(limit, each.under_way.is_over)

    left, waiting = _countdown(limit), list(closings)
    if limit != 0:
        waiting = [each for each in closings if await late(each, 0)]
        waiting = [each for each in waiting if await late(each, left())]
    for each in waiting:
        each.abort()
    left = _countdown(ABORT_GRACE)
    for each in waiting:
        await late(each, left())
    return _numbered(closings)


def _numbered(closings: Sequence[Closing[L]]) -> tuple[SendResult, ...]:
    """Return the results of all *closings*, with an index that counts them."""
    found = (result for each in closings for result in each.results)
    return tuple(replace(result, index=index) for index, result in enumerate(found))


def _countdown(limit: float | None) -> Callable[[], float | None]:
    if limit is None:
        return lambda: None
    until = monotonic() + limit
    return lambda: max(until - monotonic(), 0)
