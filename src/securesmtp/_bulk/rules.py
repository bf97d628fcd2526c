"""
The rules of a run of `send_many`: what is sent again, what makes it use fewer connections, and what ends it.

How it works: each worker sends one message after the other, over connections of the pool. When a connection cannot be
opened, `judge` decides. While other workers are left, the message goes back to the backlog and the worker ends, so a
server that accepts fewer connections costs no message its send. The last worker tries again after a pause, if a
connection of the run has worked before; after some failures in a row the run ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeGuard

from securesmtp._protocol.replies import is_too_many_connections
from securesmtp._values import Outcome, Stage
from securesmtp.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    NoUsableMechanismError,
    SecureSMTPError,
    ServerNotAuthenticError,
)

# Seconds before the second try; each further pause is twice as long, up to the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
# Stages in which a session was open when its connection died.
_IN_SESSION = {Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT, Stage.RSET}


class Verdict(Enum):
    """What to do when a connection could not be opened."""

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
        has_connected: Whether a connection of the run was ever opened.
        failures: How many in a row could not be opened, without those that made a worker leave.
        has_ended: Whether the remaining messages are not sent.
        login_refused: Whether a worker left because its login was refused temporarily.
        login_skipped: Whether a worker left without a login, because the mailer pauses logins after such a refusal.
        has_login_permit: Whether the last worker is to log in once during that pause.
    """

    workers: int
    most: int
    has_connected: bool = False
    failures: int = 0
    has_ended: bool = False
    login_refused: bool = False
    login_skipped: bool = False
    has_login_permit: bool = False


def judge(error: Exception, state: State) -> tuple[Verdict, State]:
    """Return what to do after *error*, which kept a connection from being opened, and the state from then on."""
    login = is_login_refusal(error)
    if login and not is_retryable(error):
        # Each further message would be one more wrong login: accounts are locked for less.
        return Verdict.REPORT, replace(state, has_ended=True)
    if _is_callers(error):
        # It says more than a second try would, and another worker that sends the message would hide it.
        failures = state.failures + 1
        return Verdict.REPORT, replace(state, failures=failures, has_ended=failures >= state.most)
    login_refused = state.login_refused or (login and not _is_pause(error))
    login_skipped = state.login_skipped or (login and _is_pause(error))
    if state.workers > 1:
        return Verdict.LEAVE, replace(
            state, workers=state.workers - 1, login_refused=login_refused, login_skipped=login_skipped
        )
    failures = state.failures + 1
    if login and ((login_refused and login_skipped) or (state.has_connected and _is_pause(error))):
        # The surplus connections are closed now, so a login that was not tried yet may succeed.
        return Verdict.RETRY, replace(
            state, failures=failures, login_refused=False, login_skipped=False, has_login_permit=True
        )
    ends = login or failures >= state.most
    verdict = Verdict.RETRY if state.has_connected and not ends else Verdict.REPORT
    return verdict, replace(state, failures=failures, has_ended=ends)


def pause(failures: int) -> float:
    """Return how many seconds to wait after so many *failures* in a row."""
    return float(min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE))


def is_connection_limit(result: object) -> TypeGuard[SecureSMTPError]:
    """Return whether the server refuses because too many connections are open."""
    reply = result.reply if isinstance(result, SecureSMTPError) else None
    return reply is not None and is_too_many_connections(reply)


def can_resend(result: object) -> bool:
    """Return whether the connection died during the message, which was certainly not accepted."""
    return isinstance(result, ConnectError) and result.outcome is Outcome.NOT_SENT and result.stage in _IN_SESSION


def is_full(messages: int, held: int, workers: int, ahead: int, octets: int) -> bool:
    """
    Return whether a run that holds so many *messages* with *held* octets reads no more for now.

    Each worker may have one message, of any size.
    """
    return messages >= ahead or (messages >= workers and held >= octets)


def is_login_refusal(error: Exception) -> bool:
    """Return whether the server refused a login, failed to prove itself, or offers no mechanism that can be used."""
    return isinstance(error, AuthenticationError) and (
        error.reply is not None or isinstance(error, NoUsableMechanismError | ServerNotAuthenticError)
    )


def is_retryable(error: Exception) -> bool:
    """Return whether the same try may succeed later."""
    return isinstance(error, SecureSMTPError) and error.retryable


def _is_pause(error: Exception) -> bool:
    """Return whether no login was tried, because an earlier one was refused temporarily."""
    return isinstance(error.__cause__, AuthenticationError)


def _is_callers(error: Exception) -> bool:
    """Return whether *error* is the caller's own: a wrong argument, or what a password callable raised."""
    if not isinstance(error, SecureSMTPError) or isinstance(error, ConfigurationError):
        return True
    return isinstance(error, AuthenticationError) and not is_login_refusal(error)
