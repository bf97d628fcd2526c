"""Count what became of the messages of one mailing, in this run and in earlier ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final

from securesmtp._values import Outcome, describe_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._values import SendResult

# How many of a kind a summary lists; the ledger has all of them.
LISTED: Final = 20


@dataclass(frozen=True, slots=True)
class Listed:
    """One message that a summary names: where it comes from, its key, and what became of it."""

    place: str
    key: str
    text: str


@dataclass(slots=True)
class Tally:
    """
    How far a mailing is.

    Attributes:
        total: How many messages it has.
        earlier: What became of those that an earlier run has sent, and that this one leaves alone.
        now: What became of those that this run has tried.
        listed: The first few of each outcome but *accepted*.
        errors: One error for each of the failures, in the order in which each kind first came; few are of a new kind.
        clock: What the seconds are read from.
        started: When this run began to send.
    """

    total: int = 0
    earlier: Counter[Outcome] = field(default_factory=Counter)
    now: Counter[Outcome] = field(default_factory=Counter)
    listed: dict[Outcome, list[Listed]] = field(default_factory=dict)
    errors: dict[type[BaseException], BaseException] = field(default_factory=dict)
    clock: Callable[[], float] = monotonic
    started: float = field(default=0.0)

    def start(self) -> None:
        """Begin to count the seconds."""
        self.started = self.clock()

    def add(self, place: str, key: str, result: SendResult, *, is_earlier: bool = False) -> None:
        """Count *result*, of this run or of an earlier one."""
        (self.earlier if is_earlier else self.now)[result.outcome] += 1
        if result.error is not None:
            self.errors.setdefault(type(result.error), result.error)
        if result.outcome is Outcome.ACCEPTED:
            return
        named = self.listed.setdefault(result.outcome, [])
        if len(named) < LISTED:
            text = describe_error(result.error) if result.error is not None else ""
            named.append(Listed(place, key, text))

    def count(self, outcome: Outcome) -> int:
        """Return how many have this *outcome*, in this run or in an earlier one."""
        return self.now[outcome] + self.earlier[outcome]

    @property
    def tried(self) -> int:
        """How many this run has tried."""
        return self.now.total()

    @property
    def to_try(self) -> int:
        """How many this run is to try."""
        return self.total - self.earlier.total()

    @property
    def failures(self) -> int:
        """How many this run has tried that were not accepted."""
        return self.tried - self.now[Outcome.ACCEPTED]

    @property
    def elapsed(self) -> float:
        """Seconds since this run began to send."""
        return self.clock() - self.started

    @property
    def rate(self) -> float:
        """Messages that were tried in a second; 0 in the first moment."""
        return self.tried / self.elapsed if self.elapsed else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all are tried, at the rate of this run; None if it has no rate yet."""
        return (self.to_try - self.tried) / self.rate if self.rate else None
