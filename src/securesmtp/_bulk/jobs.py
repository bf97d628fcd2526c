"""The messages of a run of `send_many`, and how the sending of one ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from securesmtp._tracebacks import drop_frames
from securesmtp._values import Outcome, Receipt, SendResult
from securesmtp.errors import OutcomeUnknownError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from securesmtp._protocol.message import Submission
    from securesmtp._transport.deadline import Deadline
    from securesmtp.ledger import Item

T = TypeVar("T")
# What to do about a message whose outcome is unknown.
DOUBTFUL = "look for its Message-ID in the server's log, and tell the ledger by reconcile() whether it arrived"


def _do_nothing() -> None:
    """Nobody reads the results yet."""


@dataclass(slots=True, eq=False)
class Job:
    """
    One message of a run.

    Attributes:
        index: Its place in the input.
        submission: The message.
        start_deadline: Starts its deadline.
        item: What identifies it in a ledger; None without one.
        end: What became of it, or what is to be raised where its result is read; None until then.
        deadline: Its deadline, which runs from when its sending begins.
        started: When that was; 0 while no worker has it.
        was_resent: Whether a connection has died during it: it is sent once more, and not twice.
        notify: Is called when it has its end.
        latest: When its sending must be done because of its claim in a ledger.
        keep_end: Takes its end, if a ledger has to have it first.
        is_doubtful: Whether an earlier try may have been delivered, by the ledger.
    """

    index: int
    submission: Submission
    start_deadline: Callable[[], Deadline | None]
    item: Item | None = None
    end: SendResult | BaseException | None = None
    deadline: Deadline | None = None
    started: float = 0.0
    was_resent: bool = False
    notify: Callable[[], object] = _do_nothing
    latest: Deadline | None = None
    keep_end: Callable[[Job, SendResult | BaseException], None] | None = None
    is_doubtful: bool = False

    @property
    def key(self) -> str:
        """Its key in a ledger."""
        return "" if self.item is None else self.item.key

    def begin(self) -> None:
        """Start its time."""
        self.started, deadline = monotonic(), self.start_deadline()
        latest = self.latest
        self.deadline = deadline if latest is None or (deadline is not None and deadline.at < latest.at) else latest

    def finish(self, end: Receipt | BaseException) -> None:
        """Give it its result; an *end* that is no `Exception` is raised where the result is read."""
        self.submission.content.close()
        if isinstance(end, Receipt):
            self._set(self.result(Outcome.ACCEPTED, end))
        elif isinstance(end, Exception):
            drop_frames(end)
            # The cause of an exception that is not ours is ours.
            ours = end if isinstance(end, SecureSMTPError) else end.__cause__
            if isinstance(ours, SecureSMTPError):
                self._set(self.result(ours.outcome, ours.receipt, end))
            else:
                self._set(self.result(Outcome.UNKNOWN, error=end))
        else:
            self._set(end)

    def result(self, outcome: Outcome, receipt: Receipt | None = None, error: Exception | None = None) -> SendResult:
        """Return its result if this try ends so; after a doubtful one, only a success is more than a doubt."""
        message_id = self.submission.content.message_id
        if not self.is_doubtful or outcome in {Outcome.ACCEPTED, Outcome.UNKNOWN}:
            return SendResult(self.index, message_id, outcome, receipt, error)
        why = error.args[0] if isinstance(error, SecureSMTPError) else type(error).__name__
        text = f"an earlier try may have been delivered; this one failed: {str(why).removeprefix('not sent: ')}"
        doubt = OutcomeUnknownError(text, hint=DOUBTFUL)
        doubt.message_id, doubt.__cause__ = message_id, error
        return SendResult(self.index, message_id, doubt.outcome, error=doubt, from_ledger=True)

    def _set(self, end: SendResult | BaseException) -> None:
        if self.keep_end is not None:
            self.keep_end(self, end)
        else:
            self.end = end
            self.notify()

    def settle(self, end: SendResult | BaseException) -> None:
        """Let the reader have its *end*, which the ledger has."""
        self.submission.content.close()
        self.end = end
        self.notify()


@dataclass(frozen=True, slots=True)
class InvalidInput:
    """A message that is not sent; its result is known from the beginning."""

    end: SendResult

    @property
    def index(self) -> int:
        """Its place in the input."""
        return self.end.index


@dataclass(frozen=True, slots=True)
class Repeat:
    """
    A message that an earlier one of the run repeats, by its key and its content: it is not sent a second time.

    Attributes:
        index: Its place in the input.
        first: The other one, whose result is read before.
    """

    index: int
    first: Job

    @property
    def end(self) -> SendResult | BaseException | None:
        """Its result: that of the first; None before that has one."""
        return None if self.first.end is None else self.result_after(self.first.end)

    def result_after(self, end: SendResult | BaseException) -> SendResult | BaseException:
        """Return its result if the first has this *end*."""
        return replace(end, index=self.index, from_ledger=True) if isinstance(end, SendResult) else end


AnyJob: TypeAlias = Job | InvalidInput | Repeat


class Ending(Generic[T]):
    """How a block ended: with the *end* that it set, or the exception that it raised. Both are results of a message."""

    __slots__ = ("end",)
    end: T | BaseException

    def __enter__(self) -> Self:
        """Return it, for the block to set its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Keep what the block raised."""
        if error is not None:
            self.end = error
        return True
