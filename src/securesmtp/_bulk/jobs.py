"""The messages of a run of `send_many`, and how the sending of one ends."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

from securesmtp._tracebacks import drop_frames
from securesmtp._values import Outcome, Receipt, SendResult
from securesmtp.errors import SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from securesmtp._protocol.message import Submission
    from securesmtp._transport.deadline import Deadline

T = TypeVar("T")


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
        end: What became of it, or what is to be raised where its result is read; None until then.
        deadline: Its deadline, which runs from when its sending begins.
        started: When that was; 0 while no worker has it.
        was_resent: Whether a connection has died during it: it is sent once more, and not twice.
        notify: Is called when it has its end.
    """

    index: int
    submission: Submission
    start_deadline: Callable[[], Deadline | None]
    end: SendResult | BaseException | None = None
    deadline: Deadline | None = None
    started: float = 0.0
    was_resent: bool = False
    notify: Callable[[], object] = _do_nothing

    def begin(self) -> None:
        """Start its time."""
        self.started, self.deadline = monotonic(), self.start_deadline()

    def finish(self, end: Receipt | BaseException) -> None:
        """Give it its result; an *end* that is no `Exception` is raised where the result is read."""
        self.submission.content.close()
        message_id = self.submission.content.message_id
        if isinstance(end, Receipt):
            self._set(SendResult(self.index, message_id, Outcome.ACCEPTED, end))
        elif isinstance(end, Exception):
            drop_frames(end)
            # The cause of an exception that is not ours is ours.
            ours = end if isinstance(end, SecureSMTPError) else end.__cause__
            if isinstance(ours, SecureSMTPError):
                self._set(SendResult(self.index, message_id, ours.outcome, ours.receipt, end))
            else:
                self._set(SendResult(self.index, message_id, Outcome.UNKNOWN, error=end))
        else:
            self._set(end)

    def _set(self, end: SendResult | BaseException) -> None:
        self.end = end
        self.notify()


@dataclass(frozen=True, slots=True)
class InvalidInput:
    """A message that cannot be sent; its result is known from the beginning."""

    end: SendResult

    @property
    def index(self) -> int:
        """Its place in the input."""
        return self.end.index


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
