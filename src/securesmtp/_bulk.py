"""
The rules of one run of `send_many`: what is sent again, what makes it use fewer connections, and what ends it.

How it works: each worker sends one message after the other, over connections of the pool. When a connection cannot be
opened, `judge` decides. While other workers are left, the message goes back to the backlog and the worker ends, so a
server that takes fewer connections costs no message its send. The last worker tries again after a pause, if a
connection of the run has worked before; after some failures in a row the run ends. Nothing here waits.
"""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import dataclass, replace
from enum import Enum
from traceback import StackSummary
from typing import TYPE_CHECKING

from securesmtp._values import Outcome, Stage
from securesmtp.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    NoUsableMechanismError,
    SecureSMTPError,
)

if TYPE_CHECKING:
    from types import TracebackType

    from securesmtp._protocol.transaction import Partial

# Seconds before the second try; each further pause is twice as long, up to the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
# Stages in which a session was open when its connection died.
_IN_SESSION = {Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT, Stage.RSET}
# "432 4.3.2 Concurrent connections limit exceeded", "421 4.7.0 Too many concurrent SMTP connections", and the like.
_LIMIT = re.compile(r"\b(?:concurrent|simultaneous|too many|maximum)\b.*\b(?:connections|sessions)\b", re.IGNORECASE)


class Verdict(Enum):
    """What follows from a connection that could not be opened."""

    REPORT = "the error is the result of the message"
    RETRY = "the message goes back, and the worker tries again after a pause"
    LEAVE = "the message goes back, and the worker ends"


@dataclass(frozen=True, slots=True)
class State:
    """
    What the rule knows of a run.

    Attributes:
        workers: How many are left, the one that asks included.
        most: How many failures in a row end the run.
        worked: Whether a connection of the run was opened at some time.
        failures: How many in a row could not be opened, without those that made a worker leave.
        has_ended: Whether the rest is not sent.
        refused: Whether a worker left since its login was refused for now.
        untried: Whether one left that tried no login, since the mailer pauses them after such a refusal.
        may_log_in: Whether the last worker tries one all the same.
    """

    workers: int
    most: int
    worked: bool = False
    failures: int = 0
    has_ended: bool = False
    refused: bool = False
    untried: bool = False
    may_log_in: bool = False


def judge(error: Exception, state: State) -> tuple[Verdict, State]:
    """Return what follows from *error*, which kept a connection from being opened, and the state from then on."""
    login = _is_login_refusal(error)
    if login and not _is_retryable(error):
        # A thousand messages are not a thousand wrong logins: accounts are locked for less.
        return Verdict.REPORT, replace(state, has_ended=True)
    if _is_callers(error):
        # It tells more than a second try would; a message that is sent by another worker would hide it.
        failures = state.failures + 1
        return Verdict.REPORT, replace(state, failures=failures, has_ended=failures >= state.most)
    refused = state.refused or (login and not _is_pause(error))
    untried = state.untried or (login and _is_pause(error))
    if state.workers > 1:
        return Verdict.LEAVE, replace(state, workers=state.workers - 1, refused=refused, untried=untried)
    failures = state.failures + 1
    if login and ((refused and untried) or (state.worked and _is_pause(error))):
        # The connections that were too many are closed now; one that was not tried may be good.
        return Verdict.RETRY, replace(state, failures=failures, refused=False, untried=False, may_log_in=True)
    ends = login or failures >= state.most
    verdict = Verdict.RETRY if state.worked and not ends else Verdict.REPORT
    return verdict, replace(state, failures=failures, has_ended=ends)


def pause(failures: int) -> float:
    """Return the seconds to wait after so many *failures* in a row."""
    return float(min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE))


def is_connection_limit(what: object) -> bool:
    """Return whether a server refuses because there are too many connections at the same time."""
    reply = what.reply if isinstance(what, SecureSMTPError) else None
    return reply is not None and (
        reply.code == 432 or (400 <= reply.code < 500 and _LIMIT.search(reply.text) is not None)  # noqa: PLR2004
    )


def may_go_again(error: object) -> bool:
    """Return whether a connection died under a message, and nobody can have it."""
    return isinstance(error, ConnectError) and error.outcome is Outcome.NOT_SENT and error.stage in _IN_SESSION


def is_full(messages: int, held: int, workers: int, ahead: int, octets: int) -> bool:
    """
    Return whether a run that holds so many *messages* with *held* octets reads no more for now.

    Each worker may have one message, of any size.
    """
    return messages >= ahead or (messages >= workers and held >= octets)


class Run:
    """One call of `send_many`: how many workers it has, and what has ended it, if anything has."""

    def __init__(self, partial: Partial, workers: int, most: int) -> None:
        """Have no worker yet; up to so many *workers* may enter, and *most* failures in a row end it."""
        self.partial = partial
        self.ended: Exception | None = None
        self._lock = threading.Lock()
        self._allowed = workers
        self._state = State(0, most)

    def enter(self) -> bool:
        """Add a worker, and return whether there is room for it."""
        with self._lock:
            room = self._state.workers < self._allowed
            if room:
                self._state = replace(self._state, workers=self._state.workers + 1)
            return room

    def leave(self) -> None:
        """Take back a worker that has nothing more to do."""
        with self._lock:
            self._state = replace(self._state, workers=self._state.workers - 1)

    def connected(self) -> None:
        """Note that a worker has a session."""
        state = self._state
        # Mostly nothing is new: a lock for each small message would show (measured).
        if not state.worked or state.failures or state.refused or state.untried:
            with self._lock:
                self._state = replace(self._state, worked=True, failures=0, refused=False, untried=False)

    def may_log_in(self) -> bool:
        """Return whether the worker that asks is to log in even while the mailer pauses logins: once."""
        if not self._state.may_log_in:
            return False
        # Nobody else is left who would ask.
        with self._lock:
            self._state = replace(self._state, may_log_in=False)
        return True

    def failed(self, error: Exception) -> tuple[Verdict, int]:
        """Return what follows from *error*, which kept a worker from a session, and how many workers are left."""
        with self._lock:
            verdict, self._state = judge(error, self._state)
            if verdict is Verdict.LEAVE:
                self._allowed = self._state.workers
            if self._state.has_ended and self.ended is None:
                self.ended = error
            return verdict, self._state.workers

    def shrink(self) -> int:
        """Let a worker leave, since the server has too many connections; return how many are left, 0 for the last."""
        with self._lock:
            left = self._state.workers - 1
            if left:
                self._allowed = left
                self._state = replace(self._state, workers=left)
            return left

    @property
    def pause(self) -> float:
        """How long the last worker waits before it tries again, in seconds."""
        return pause(self._state.failures)

    def rest(self) -> SecureSMTPError:
        """Return the error for a message that is not sent because the run has ended."""
        cause = self.ended
        assert cause is not None  # noqa: S101 -- who asks has looked; this is for the type checker
        kind: type[SecureSMTPError] = ConnectError
        if _is_login_refusal(cause):
            kind, message = AuthenticationError, "not sent: the login was refused for an earlier message of this run"
        else:
            failures = self._state.most
            what = cause.args[0] if isinstance(cause, SecureSMTPError) else type(cause).__name__
            message = f"not sent: {failures} connections in a row could not be opened, the last one since: {what}"
        error = kind(message, stage=getattr(cause, "stage", Stage.AUTH), retryable=_is_retryable(cause))
        error.reply, error.hint = getattr(cause, "reply", None), getattr(cause, "hint", None)
        error.__cause__ = cause
        return error


def drop_frames(error: BaseException) -> None:
    """
    Take the tracebacks from *error* and its causes: their frames hold the whole message in local variables.

    Where code of the caller's raised it, a note says where.
    """
    seen, waiting = set[int](), [error]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            note = _where(each.__traceback__)
            if note and note not in getattr(each, "__notes__", ()):
                each.add_note(note)
            each.__traceback__ = None
            waiting += [inner for inner in (each.__cause__, each.__context__) if inner is not None]


def _where(traceback: TracebackType | None) -> str:
    theirs = []
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if name != __name__.partition(".")[0] and name not in sys.stdlib_module_names:
            theirs.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return "Raised at:\n" + "".join(StackSummary.extract(theirs).format()).rstrip() if theirs else ""


def _is_login_refusal(error: Exception) -> bool:
    """Return whether the server refused a login, or offers none that can be used: not a fault of a callable."""
    return isinstance(error, AuthenticationError) and (
        error.reply is not None or isinstance(error, NoUsableMechanismError)
    )


def _is_pause(error: Exception) -> bool:
    """Return whether no login was tried, since an earlier one was refused for now."""
    return isinstance(error.__cause__, AuthenticationError)


def _is_callers(error: Exception) -> bool:
    """Return whether *error* is the caller's own: a wrong argument, or what a password callable raised."""
    if not isinstance(error, SecureSMTPError) or isinstance(error, ConfigurationError):
        return True
    return isinstance(error, AuthenticationError) and not _is_login_refusal(error)


def _is_retryable(error: Exception) -> bool:
    return isinstance(error, SecureSMTPError) and error.retryable
