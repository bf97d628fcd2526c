"""Steps that yield calls which block, such as those of a database: made at once by a thread, or in one for a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")
# They are resumed with what each call returns, or raises.
Calls: TypeAlias = "Generator[Callable[[], object], Any, T]"


def perform(steps: Calls[T]) -> T:
    """Make the calls of *steps* in this thread, and return what these return."""
    result, error = None, None
    try:
        while True:
            call = steps.send(result) if error is None else steps.throw(error)
            result, error = None, None
            try:
                result = call()
            except Exception as raised:  # noqa: BLE001 -- the steps decide what it means
                error = raised
    except StopIteration as stop:
        return cast("T", stop.value)
