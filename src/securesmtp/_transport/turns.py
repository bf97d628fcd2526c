"""How many messages may be sent in a time: the token bucket of `rate`."""

from __future__ import annotations

from math import inf

# Seconds of the rate that a pause, or a late wake-up, is caught up by at most.
_SLACK = 0.1


class Turns:
    """
    The turns that a *rate* gives out: so many a second.

    In any t seconds there are at most ``rate * t + max(1, rate / 10)``. Only the time of the next turn is kept, which
    is a token bucket without a count (the "virtual scheduling" of ITU-T I.371). Nothing here waits or locks.

    Attributes:
        is_limited: Whether there is a rate.
    """

    __slots__ = ("_due", "_interval", "_slack", "is_limited")

    def __init__(self, rate: float | None) -> None:
        """Let the first message go at once; without a *rate*, every one."""
        self.is_limited: bool = rate is not None
        self._interval = 0.0 if rate is None else 1 / rate
        self._slack = max(0.0, _SLACK - self._interval)
        # When the next turn is. The past is not more than the slack ago once a turn was taken.
        self._due = -inf

    def delay(self, now: float) -> float:
        """Return the seconds from *now* to the next turn; 0 if it is due."""
        return max(0.0, self._due - now)

    def take(self, now: float) -> None:
        """Take the next turn, due or not."""
        if self.is_limited:
            self._due = max(self._due, now - self._slack) + self._interval

    def give_back(self) -> None:
        """Give back the turn that was taken last, because no message was there for it."""
        self._due -= self._interval
