"""
The event loop that an asynchronous mailer belongs to: one run of asyncio or of trio.

How it works: anyio starts tasks only in a group that somebody has entered, and a mailer holds none across its caller's
code (a group must be left in the task that entered it). Both libraries can start a task of the loop itself.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from contextlib import suppress
from contextvars import copy_context
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from securesmtp._interrupts import SuppressErrors

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# anyio loads it at its first use, which would keep the loop from other tasks (measured: 40 ms).
with suppress(ImportError):
    import_module("anyio._backends._asyncio")


class EventLoop(Protocol):
    """One event loop; it is not kept alive."""

    @property
    def is_current(self) -> bool:
        """Whether the calling task runs in it."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing will run in it any more."""

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str, on_end: Callable[[], object]) -> None:
        """
        Run *function* in a task of its own, which nobody waits for; it must not raise any `Exception`.

        *on_end* is called when the task has ended, even if it was cancelled before it began.
        """

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call *function* in the loop, from any thread; do nothing if it is closed."""


def current_loop() -> EventLoop:
    """
    Return the loop that the calling task runs in.

    Raises:
        RuntimeError: There is none.
    """
    return _TrioLoop() if is_in_trio() else _AsyncioLoop()


def current_task() -> object:
    """Return the task that calls."""
    if is_in_trio():
        return sys.modules["trio"].lowlevel.current_task()
    return asyncio.current_task()


def is_in_trio() -> bool:
    """Return whether trio runs the calling task."""
    # A program that runs in trio has imported it; others need not have it.
    module = sys.modules.get("trio")
    if module is None:
        return False
    try:
        # `in_trio_task` is new in trio 0.29.
        module.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def is_cancellation(error: BaseException) -> bool:
    """Return whether *error* ends a task that was cancelled or garbage-collected."""
    if isinstance(error, GeneratorExit):
        # A task that is garbage-collected has no loop to ask.
        return True
    return isinstance(error, anyio.get_cancelled_exc_class())


class _AsyncioLoop:
    def __init__(self) -> None:
        self._loop = weakref.ref(asyncio.get_running_loop())
        # asyncio keeps weak references alone.
        self._tasks = set[asyncio.Task[None]]()

    @property
    def is_current(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop() and not is_in_trio()
        except RuntimeError:
            return False

    @property
    def is_closed(self) -> bool:
        loop = self._loop()
        return loop is None or loop.is_closed()

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str, on_end: Callable[[], object]) -> None:
        task = asyncio.create_task(function(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: on_end())

    def call_soon(self, function: Callable[[], object]) -> None:
        loop = self._loop()
        if loop is not None:
            # It may be closed between a look and the call.
            with SuppressErrors(RuntimeError):
                loop.call_soon_threadsafe(function)


class _TrioLoop:
    def __init__(self) -> None:
        self._token: weakref.ref[Any] = weakref.ref(sys.modules["trio"].lowlevel.current_trio_token())

    @property
    def is_current(self) -> bool:
        return is_in_trio() and sys.modules["trio"].lowlevel.current_trio_token() is self._token()

    @property
    def is_closed(self) -> bool:
        return not self._call(lambda: None)

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str, on_end: Callable[[], object]) -> None:
        async def run() -> None:
            try:
                await function()
            finally:
                on_end()

        sys.modules["trio"].lowlevel.spawn_system_task(run, name=name, context=copy_context())

    def call_soon(self, function: Callable[[], object]) -> None:
        self._call(function)

    def _call(self, function: Callable[[], object]) -> bool:
        token = self._token()
        if token is None:
            return False
        try:
            token.run_sync_soon(function)
        except sys.modules["trio"].RunFinishedError:
            return False
        return True
