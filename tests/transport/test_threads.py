"""Threads in which a task has something done that blocks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import anyio
import pytest

from securesmtp._transport.event_loop import current_loop
from securesmtp._transport.threads import Threads


def test_a_task_that_is_cancelled_when_its_turn_comes_leaves_it_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was woken, and `Task.cancel` strikes before it runs: the one behind it would wait for ever."""
    go, ran, cancels = threading.Event(), list[str](), list[Callable[[], object]]()

    async def main() -> None:
        loop = current_loop()
        threads, call_soon = Threads(loop, 1), loop.call_soon

        def call_and_cancel(function: Callable[[], object]) -> None:
            def both() -> None:
                function()
                if cancels:
                    cancels.pop()()

            call_soon(both)

        async def cancelled() -> None:
            task = asyncio.current_task()
            assert task is not None
            cancels.append(task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await threads.run(lambda: ran.append("second"), "second")
            task.uncancel()

        monkeypatch.setattr(loop, "call_soon", call_and_cancel)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(threads.run, lambda: go.wait(10), "first")
                await anyio.wait_all_tasks_blocked()
                group.start_soon(cancelled)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(threads.run, lambda: ran.append("third"), "third")
                await anyio.wait_all_tasks_blocked()
                go.set()

    asyncio.run(main())
    assert not cancels
    assert ran == ["third"]
