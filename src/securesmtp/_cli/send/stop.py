"""End a run by Ctrl-C and the like, without losing the result of any message."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from securesmtp._transport.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# A terminal that is closed, or a service that is stopped, is to end a run as gently as Ctrl-C. SIGHUP is POSIX's.
_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# A signal's handler does not end a sleep (PEP 475).
_NAP: Final = 0.1


class Stop:
    """
    Whether a run is to end when what is in flight has ended.

    The first signal only sets an attribute, so it cannot strike between a reply and its entry in the ledger. The second
    one is a KeyboardInterrupt.

    Attributes:
        signal: The signal that came; None for none.
        reason: Why else the run is to end; None for no reason.
    """

    def __init__(self) -> None:
        """Let the run go on."""
        self.signal: int | None = None
        self.reason: str | None = None

    @property
    def is_requested(self) -> bool:
        """Whether the run is to end."""
        return self.signal is not None or self.reason is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals in a ``with`` block. One that is ignored, as by nohup, stays ignored."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        # None is a handler that was not set by Python, and could not be set again.
        taken = {number: handler for number, handler in before.items() if handler not in {signal.SIG_IGN, None}}
        try:
            for number in taken:
                signal.signal(number, self._take)
            yield
        finally:
            for number, handler in taken.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- signal's signature
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


class Pace:
    """
    At most so many messages in a time, by the rule of a mailer's *rate*.

    They are paced before the mailer reads them: what it has read ahead would keep a signal waiting for its turns.

    Args:
        interval: Seconds between two messages; None for no limit.
        clock: What the seconds are read from.
        wait: Waits for some seconds.
    """

    def __init__(
        self,
        interval: float | None,
        clock: Callable[[], float] = monotonic,
        wait: Callable[[float], object] = sleep,
    ) -> None:
        """Let the first message go at once."""
        self._turns, self._clock, self._wait = Turns(None if interval is None else 1 / interval), clock, wait

    def wait_for_turn(self, stop: Stop) -> None:
        """Return when the next message may go, or when *stop* is requested."""
        while not stop.is_requested and (left := self._turns.delay(self._clock())) > 0:
            self._wait(min(left, _NAP))
        self._turns.take(self._clock())
