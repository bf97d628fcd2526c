"""
Ignore errors that are expected, but never an interrupt.

A signal handler may raise any exception, for example `TimeoutError`, in any line: a plain `contextlib.suppress` there
would lose the caller's time limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp.events import is_interrupt

if TYPE_CHECKING:
    from types import TracebackType


def raise_if_interrupt(error: BaseException) -> None:
    """Raise *error*, which was caught, if it is an interrupt."""
    if is_interrupt(error):
        raise error


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
