"""Moments by which something must be done, and what the error says when one has passed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from securesmtp._values import Stage
from securesmtp.errors import DeadlineExceededError

if TYPE_CHECKING:
    from securesmtp._protocol.effects import Overall

_WAITING: dict[Stage, str] = {
    Stage.CONNECT: "connecting to the server",
    Stage.HANDSHAKE: "in the TLS handshake",
    Stage.GREETING: "waiting for the server's greeting",
}
_SENDING = "sending the message"


class Deadline:
    """A moment by which something must be done, and the name of the limit that sets it."""

    __slots__ = ("at", "limit", "seconds")

    def __init__(self, limit: str, seconds: float, overall: Overall | None = None) -> None:
        """Begin now; *overall*, where it is sooner, takes over."""
        self.limit, self.seconds, self.at = limit, seconds, time.monotonic() + seconds
        if overall is not None and overall.at < self.at:
            self.limit, self.seconds, self.at = overall.limit, overall.seconds, overall.at

    def left(self, stage: Stage) -> float:
        """
        Return the seconds that are left.

        Raises:
            DeadlineExceededError: None are.
        """
        left = self.at - time.monotonic()
        if left > 0:
            return left
        message = f"timed out after {self.seconds:g} s {self._doing(stage)} (limit: {self.limit})"
        error = DeadlineExceededError(message, stage=stage, retryable=True)
        error.limit = self.limit
        raise error

    def _doing(self, stage: Stage) -> str:
        if stage is Stage.CONTENT:
            return "waiting for the reply to the message" if self.limit == "final" else _SENDING
        return _WAITING.get(stage, f"waiting for the reply to {stage.upper()}")
