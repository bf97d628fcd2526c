"""
What the steps of a send ask for beside the bytes of one connection, and the driver that does it in one thread.

`Steps` are generators that never wait: they yield what is to be done, and are resumed with its result.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from securesmtp._interrupts import SuppressErrors

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._transport.channel import Steps

T = TypeVar("T")


class HelperThread(threading.Thread):
    """A thread that sends wait for, so that it does not wait for the end of a run: that may wait for it."""


class RunThread(HelperThread):
    """The thread of a run, whose sends stand still while it does anything else."""


class Waiter(Protocol):
    """Waits for its turn: a thread, or a task of a `Poller`."""

    polled_at: float

    @property
    def goes_first(self) -> bool:
        """Whether it waits before all others."""

    def wake(self) -> None:
        """End its wait, or the next one if it does not wait now; any thread may call this."""

    def wait(self, seconds: float) -> None:
        """Wait until woken, for so many *seconds* at most."""


class ThreadWaiter:
    """
    A thread that waits for its turn.

    Attributes:
        polled_at: When it last looked whether its turn has come.
        goes_first: Whether it waits before all others: the sends of a run stand still while its thread waits.
    """

    __slots__ = ("_wakeup", "goes_first", "polled_at")

    def __init__(self) -> None:
        """Start asleep."""
        self._wakeup = threading.Lock()
        self._wakeup.acquire()
        self.polled_at = monotonic()
        self.goes_first = isinstance(threading.current_thread(), RunThread)

    def wake(self) -> None:
        """End its wait, or the next one if it does not wait now."""
        with SuppressErrors(RuntimeError):  # it is awake already
            self._wakeup.release()

    def wait(self, seconds: float) -> None:
        """Wait until woken, for so many *seconds* at most."""
        self._wakeup.acquire(timeout=seconds)


class Wanted(Protocol):
    """What the steps of a send want."""

    def perform(self) -> object:
        """Do it in this thread, and return what the steps are resumed with."""


@dataclass(slots=True)
class Sleep:
    """Let *waiter* wait until it is woken, for so many *seconds* at most."""

    waiter: Waiter
    seconds: float

    def perform(self) -> None:
        """Do it in this thread."""
        self.waiter.wait(self.seconds)


def drive(steps: Steps[T], perform: Callable[[Any], object]) -> T:
    """Have *perform* do whatever *steps* ask for, and return their value; an interrupt is thrown into them."""
    try:
        wanted = next(steps)
        while True:
            try:
                result = perform(wanted)
            except BaseException as error:  # noqa: BLE001 -- the steps decide what it means
                wanted = steps.throw(error)
            else:
                wanted = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    except BaseException as error:
        # An interrupt between two steps is thrown in; steps that have ended already raise it again.
        steps.throw(error)
        raise


def perform(wanted: Wanted) -> object:
    """Do what the steps of a send want, in this thread."""
    return wanted.perform()
