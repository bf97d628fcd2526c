"""The pause after a login that the server refused temporarily: further attempts would only make it worse."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from securesmtp._values import Stage
from securesmtp.errors import AuthenticationError

if TYPE_CHECKING:
    from securesmtp._values import Reply

# In seconds. "454 4.7.0 Too many login attempts" lasts longer with each further attempt.
_LOGIN_PAUSE = 30.0


class LoginPause:
    """The logins of one mailer: allowed, or paused since a temporary refusal."""

    def __init__(self) -> None:
        """Start with logins allowed."""
        self._refusal: tuple[float, str, Reply] | None = None

    def begin(self, error: AuthenticationError) -> None:
        """Begin if *error* is a temporary refusal by the server."""
        if error.retryable and error.reply is not None:
            self._refusal = monotonic(), error.args[0], error.reply

    def end(self) -> None:
        """Allow logins again."""
        self._refusal = None

    def check(self) -> None:
        """
        Do nothing unless logins are paused.

        Raises:
            AuthenticationError: They are; the refusal that caused the pause is its cause.
        """
        # Read once: another thread may end the pause, or begin another, meanwhile.
        if (begun := self._refusal) is None:
            return
        since, refusal, reply = begun
        ago = monotonic() - since
        if ago >= _LOGIN_PAUSE:
            return
        message = f"no login was attempted: the server temporarily refused one {ago:.0f} s ago: {refusal}"
        hint = f"the mailer logs in again in {_LOGIN_PAUSE - ago:.0f} s"
        # A new error, because the frames of the first one hold another message.
        cause = AuthenticationError(refusal, stage=Stage.AUTH, reply=reply, retryable=True)
        raise AuthenticationError(message, stage=Stage.AUTH, reply=reply, retryable=True, hint=hint) from cause
