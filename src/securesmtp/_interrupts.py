"""
Ignore errors that are expected, but never an interrupt.

A signal handler may raise any exception, for example `TimeoutError`, in any line: a plain `contextlib.suppress` there
would lose the caller's time limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from securesmtp.events import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")


class RLock(Protocol):
    """A `threading.RLock`."""

    def acquire(self) -> bool:
        """Wait for it, and hold it."""

    def release(self) -> None:
        """Hold it no longer."""


def raise_if_interrupt(error: BaseException) -> None:
    """Raise *error*, which was caught, if it is an interrupt."""
    if is_interrupt(error):
        raise error


def call_locked(lock: RLock, do: Callable[[], T]) -> T:
    """Call *do* with *lock* held, and return what it returns; an interrupt does not leave the lock held."""
    # Not `with`: Python 3.14 accepts an interrupt between its entry and its body (CPython issue 148874).
    try:
        lock.acquire()
        return do()
    finally:
        try:  # noqa: SIM105 -- `suppress` is written in Python: an interrupt in it would leave the lock held
            lock.release()
        except RuntimeError:
            # Not held: the interrupt ended the wait for it.
            pass


class SuppressErrors:
    """A block that ends at an error of some *kinds*, like `contextlib.suppress`; an interrupt is raised."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[Exception]) -> None:
        """Suppress errors of these *kinds*."""
        self._kinds = kinds

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Return whether *error* is suppressed."""
        return isinstance(error, self._kinds) and not is_interrupt(error)
