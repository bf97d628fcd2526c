"""How long a step of a session may take, and what the error says when the time is up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from securesmtp._values import Stage
from securesmtp.errors import DeadlineExceededError

if TYPE_CHECKING:
    from securesmtp._options import Timeouts
    from securesmtp._protocol import effects

# What takes the time at a stage; at any other, it is a reply.
_WAITING: dict[Stage, str] = {
    Stage.CONNECT: "connecting to the server",
    Stage.HANDSHAKE: "in the TLS handshake",
    Stage.GREETING: "waiting for the server's greeting",
}
_SENDING = "sending the message"


class Deadline:
    """A moment by which something must be done, and the name of the limit that sets it."""

    __slots__ = ("at", "limit", "seconds")
    at: float
    limit: str
    seconds: float

    def __init__(self, limit: str, seconds: float, outer: effects.Deadline | None = None) -> None:
        """Begin now. If *outer* is sooner, it counts instead."""
        self.limit, self.seconds, self.at = limit, seconds, time.monotonic() + seconds
        if outer is not None and outer.at < self.at:
            self.limit, self.seconds, self.at = outer.limit, outer.seconds, outer.at

    def left(self, stage: Stage, doing: str = "") -> float:
        """
        Return the seconds that are left; *doing* is what takes the time, if *stage* alone does not say it.

        Raises:
            DeadlineExceededError: None are.
        """
        left = self.at - time.monotonic()
        if left > 0:
            return left
        message = f"timed out after {self.seconds:g} s {doing or self._doing(stage)} (limit: {self.limit})"
        error = DeadlineExceededError(message, stage=stage, retryable=True)
        error.limit = self.limit
        raise error

    def _doing(self, stage: Stage) -> str:
        if stage is Stage.CONTENT:
            return "waiting for the reply to the message" if self.limit == "final" else _SENDING
        return _WAITING.get(stage, f"waiting for the reply to {stage.upper()}")


class StepLimit:
    """
    How long the current step of a session may take.

    Attributes:
        stage: The stage that the step belongs to.
        deadline: The deadline of the whole send, if there is one.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        """Begin with the first step, which connects."""
        self.stage = Stage.CONNECT
        self.deadline: Deadline | None = None
        self._timeouts = timeouts
        self._name = "connect"
        # Made when it is first looked at: most replies are there at once.
        self._step_deadline: Deadline | None = None

    def enter(self, stage: Stage, name: str) -> None:
        """Begin a step at *stage*, within the field *name* of `Timeouts`."""
        self.stage, self._name, self._step_deadline = stage, name, None

    def check(self) -> None:
        """
        Do nothing unless the time is up.

        Raises:
            DeadlineExceededError: It is up.
        """
        deadline = self._step_deadline or self.deadline
        if deadline is not None:
            deadline.left(self.stage)

    def left(self) -> float:
        """
        Return the seconds that are left for the step.

        Raises:
            DeadlineExceededError: None are.
        """
        if self._step_deadline is None:
            self._step_deadline = Deadline(self._name, getattr(self._timeouts, self._name), self.deadline)
        return self._step_deadline.left(self.stage)
