"""Count what became of the messages of one mailing, in this run and in earlier ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final

from securesmtp._cli.exit_codes import ExitCode
from securesmtp._cli.send.outcome import exit_code
from securesmtp._shown import escape
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
        listed: The first few of each outcome; of those that were accepted, those that some recipients did not get.
        incomplete: How many of those there are.
        codes: The exit codes of the failures.
        clock: What the seconds are read from.
        started: When this run began to send.
    """

    total: int = 0
    earlier: Counter[Outcome] = field(default_factory=Counter)
    now: Counter[Outcome] = field(default_factory=Counter)
    listed: dict[Outcome, list[Listed]] = field(default_factory=dict)
    incomplete: int = 0
    codes: set[ExitCode] = field(default_factory=set)
    clock: Callable[[], float] = monotonic
    started: float = field(default=0.0)

    def start(self) -> None:
        """Begin to count the seconds."""
        self.started = self.clock()

    def add(self, place: str, key: str, result: SendResult, *, is_earlier: bool = False) -> None:
        """Count *result*, of this run or of an earlier one."""
        (self.earlier if is_earlier else self.now)[result.outcome] += 1
        is_incomplete = result.receipt is not None and bool(result.receipt.refused)
        if result.outcome is Outcome.ACCEPTED and not is_incomplete:
            return
        self.incomplete += is_incomplete
        self.codes.add(_code(result))
        named = self.listed.setdefault(result.outcome, [])
        if len(named) < LISTED:
            named.append(Listed(place, key, _describe(result)))

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


def _code(result: SendResult) -> ExitCode:
    if result.receipt is not None:
        return ExitCode.NO_RECIPIENT
    if result.outcome is Outcome.UNKNOWN or result.error is None:
        return ExitCode.UNKNOWN
    code = exit_code(result.error)
    # An exception of somebody else's, while nothing was sent.
    return ExitCode.UNAVAILABLE if code is ExitCode.UNKNOWN else code


def _describe(result: SendResult) -> str:
    """Return what is to be known of a message: how to find it if it may have arrived, or why it was not accepted."""
    if result.receipt is not None:
        return f"not for {', '.join(map(escape, result.receipt.refused))}"
    if result.outcome is Outcome.UNKNOWN:
        return result.message_id or ""
    reply = getattr(result.error, "reply", None)
    if reply is not None:
        return str(reply)
    return "" if result.error is None else describe_error(result.error)
