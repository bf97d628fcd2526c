"""What the workers of both outboxes have in common; each of their modules has the functions that a test calls."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

HOUR = timedelta(hours=1)
TEXT = "It is on its way."
# In order. Two more are in the server: it kills the worker when it has the recipient, or the content.
STEPS = ["before the claim", "after the claim", "before the finish", "after the finish", "at the end of the task"]


def key(number: int) -> str:
    """Return the key of a message."""
    return f"order {number}"


def kill_at(step: str | None, ledger: type[Any], engine: type[Any], end: str) -> None:
    """End this process at this step, as the kernel does when memory is short; *end* notes the end of the task."""
    if step in {"before the claim", "after the claim"}:
        ledger.claim = _ending(ledger.claim, before=step.startswith("before"))
    elif step in {"before the finish", "after the finish"}:
        ledger.finish = _ending(ledger.finish, before=step.startswith("before"))
    elif step is not None:
        setattr(engine, end, _ending(getattr(engine, end), before=True))


def _ending(function: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> None:
        if not before:
            function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    return call


def failed_of_many(calls: Sequence[Callable[[], object]], error: type[Exception]) -> int:
    """Make all *calls* at once, each in a thread; return how many got the *error*."""
    failed, together = list[Exception](), threading.Barrier(len(calls))

    def make(call: Callable[[], object]) -> None:
        together.wait()
        try:
            call()
        except error as caught:
            failed.append(caught)

    threads = [threading.Thread(target=make, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(failed)


def run_blocks(blocks: Sequence[str]) -> dict[str, Any]:
    """Run blocks of the page, one after the other, and return their names."""
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "outbox.md", "exec"), names)  # noqa: S102 -- our own page
    return names
