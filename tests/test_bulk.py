"""The rules of a run, without a server: failures to connect, reading ahead, resending, dropped frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securesmtp import (
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    DataRefusedError,
    DeadlineExceededError,
    NoUsableMechanismError,
    Outcome,
    ProtocolError,
    RefusedError,
    Reply,
    SecureMailer,
    SendResult,
    ServerNotAuthenticError,
    Stage,
)
from securesmtp._bulk.jobs import Job, Repeat
from securesmtp._bulk.rules import State, Verdict, can_resend, is_connection_limit, is_full, judge, pause
from securesmtp._bulk.run import Run
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.content import Content
from securesmtp._protocol.message import Submission
from securesmtp._tracebacks import drop_frames

REPORT, RETRY, LEAVE = Verdict.REPORT, Verdict.RETRY, Verdict.LEAVE


def _reply(code: int, text: str = "no") -> Reply:
    return Reply(code, None, text, b"")


def _login(code: int, *, paused: bool = False) -> AuthenticationError:
    error = AuthenticationError("no", stage=Stage.AUTH, reply=_reply(code), retryable=code < 500)
    error.__cause__ = AuthenticationError("no", reply=_reply(code)) if paused else None
    return error


def _new_run(workers: int, most: int) -> Run:
    mailer = SecureMailer("localhost", max_connections=workers, max_connect_failures=most)
    return Run(mailer._core, "raise")


NETWORK = [
    ConnectError("gone", stage=Stage.CONNECT, retryable=True),
    ConnectError("421", stage=Stage.GREETING, reply=_reply(421), retryable=True),
    CertificateError("expired", stage=Stage.HANDSHAKE),
    DeadlineExceededError("late", stage=Stage.HANDSHAKE, retryable=True),
    ProtocolError("odd", stage=Stage.EHLO),
    RefusedError("no", stage=Stage.EHLO, reply=_reply(550)),
]
TEMPORARY = [_login(454), _login(421), _login(454, paused=True)]
PERMANENT = [
    _login(535),
    NoUsableMechanismError("none", stage=Stage.AUTH),
    ServerNotAuthenticError("no proof", stage=Stage.AUTH),
]
CALLERS = [
    LookupError("sealed"),
    OSError("sealed"),
    ConfigurationError("an int", stage=Stage.AUTH),
    AuthenticationError("the password callable raised RefusedError", stage=Stage.AUTH),
]
STATES = st.builds(State, st.integers(1, 9), st.integers(1, 9), st.booleans())


@given(st.sampled_from(NETWORK + TEMPORARY), STATES)
def test_a_worker_leaves_while_there_are_others(error: Exception, state: State) -> None:
    """The last one never leaves, and none of these failures ends the run."""
    verdict, after = judge(error, state)
    assert (verdict is LEAVE) is (state.workers > 1)
    assert after.workers == max(1, state.workers - 1)
    assert not (after.has_ended and verdict is LEAVE)


@given(st.lists(st.sampled_from(NETWORK + TEMPORARY + PERMANENT + CALLERS), min_size=30, max_size=30), STATES)
def test_a_run_without_a_connection_ends(errors: list[Exception], state: State) -> None:
    """Each failure makes a worker leave or counts, and the login of the last worker is tried once."""
    tries = 0
    for error in errors:
        tries += 1
        _, state = judge(error, state)
        if state.has_ended:
            break
    assert state.has_ended
    assert tries <= 8 + 9 + 1


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
@pytest.mark.parametrize("workers", [1, 4])
def test_a_refused_login_ends_the_run_at_once(error: Exception, workers: int) -> None:
    """However many workers there are: accounts are locked for wrong passwords."""
    verdict, after = judge(error, State(workers, 5, has_connected=True))
    assert (verdict, after.has_ended) == (REPORT, True)


@pytest.mark.parametrize("error", CALLERS, ids=repr)
@pytest.mark.parametrize("workers", [1, 4])
def test_a_callers_own_error_is_the_result(error: Exception, workers: int) -> None:
    """It is reported, and a callable that always fails is not called for each message."""
    state = State(workers, 2, has_connected=True)
    verdict, state = judge(error, state)
    assert (verdict, state.has_ended, state.workers) == (REPORT, False, workers)
    verdict, state = judge(error, state)
    assert (verdict, state.has_ended) == (REPORT, True)


@pytest.mark.parametrize("error", NETWORK, ids=repr)
def test_the_last_worker_tries_again_if_a_connection_has_worked(error: Exception) -> None:
    """It tries up to the limit. If no connection has ever worked, the first message gets the error."""
    verdicts, state = [], State(1, 3, has_connected=True)
    while not state.has_ended:
        verdict, state = judge(error, state)
        verdicts.append(verdict)
    assert verdicts == [RETRY, RETRY, REPORT]
    assert judge(error, State(1, 3))[0] is REPORT


def _run(*errors: Exception, workers: int) -> tuple[list[Verdict], Run]:
    run = _new_run(workers, 5)
    assert [run.enter() for _ in range(workers)] == [True] * workers
    assert not run.enter()
    return [run.judge_failure(error)[0] for error in errors], run


def test_a_login_that_a_pause_has_prevented_is_tried_once() -> None:
    """One of two connections was too many and was refused first: the login of the other may succeed."""
    verdicts, run = _run(_login(454), _login(454, paused=True), workers=2)
    assert verdicts == [LEAVE, RETRY]
    assert run.fatal_error is None
    assert [run.take_login_permit(), run.take_login_permit()] == [True, False]
    assert run.judge_failure(_login(454))[0] is REPORT
    assert run.fatal_error is not None
    verdicts, run = _run(_login(454, paused=True), _login(454), workers=2)
    assert verdicts == [LEAVE, RETRY]


@pytest.mark.parametrize("paused", [False, True])
def test_a_pause_that_began_before_the_run_is_kept(*, paused: bool) -> None:
    """If each login was tried, none is tried again either."""
    verdicts, run = _run(_login(454, paused=paused), _login(454, paused=paused), workers=2)
    assert verdicts == [LEAVE, REPORT]
    assert run.fatal_error is not None
    assert not run.take_login_permit()


def test_a_run_that_has_worked_may_log_in_once_in_a_pause() -> None:
    """Its last connection has reached its message limit, and the server had accepted its login."""
    run = _new_run(1, 5)
    assert run.enter()
    run.note_connection()
    assert run.judge_failure(_login(454, paused=True))[0] is RETRY
    assert run.take_login_permit()


def test_a_run_goes_on_with_the_workers_that_are_left() -> None:
    """A worker that left is not replaced; one that had nothing to do may enter again."""
    run = _new_run(3, 5)
    assert run.enter()
    run.leave()
    assert [run.enter(), run.enter()] == [True, True]
    assert run.judge_failure(NETWORK[0]) == (LEAVE, 1)
    assert not run.enter()
    assert run.shrink() == 0
    run = _new_run(2, 5)
    assert [run.enter(), run.enter()] == [True, True]
    assert [run.shrink(), run.shrink()] == [1, 0]
    assert not run.enter()


@pytest.mark.parametrize("error", [*NETWORK, LookupError("sealed")], ids=repr)
def test_messages_after_the_end_of_a_run_say_why_they_are_not_sent(error: Exception) -> None:
    """They have the reply and hint of the last failure, and are retryable if it was."""
    run = _new_run(1, 1)
    assert run.enter()
    run.judge_failure(error)
    rest = run.error_after(error)
    assert type(rest) is ConnectError
    assert rest.outcome is Outcome.NOT_SENT
    assert (rest.retryable, rest.reply) == (getattr(error, "retryable", False), getattr(error, "reply", None))
    assert rest.__cause__ is error
    assert (error.args[0] if isinstance(error, ConnectError) else "") in str(rest)


@given(st.integers(1, 50))
def test_pauses_grow_up_to_a_limit(failures: int) -> None:
    """A server that restarts gets some seconds."""
    assert 0 < pause(failures) <= pause(failures + 1) <= 8


@given(*[st.integers(1, 100)] * 5)
def test_each_worker_may_have_a_message_of_any_size(
    messages: int, held: int, workers: int, ahead: int, most: int
) -> None:
    """Beyond that, neither messages nor bytes exceed what may be read ahead."""
    full = is_full(messages, held, workers, ahead, most)
    assert full or messages < ahead
    assert full or messages < workers or held < most
    assert not full or messages >= min(ahead, workers)


@pytest.mark.parametrize(
    ("code", "text", "limit"),
    [
        (432, "4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending", True),
        (432, "", True),
        (421, "4.7.0 Too many concurrent SMTP connections from this IP address", True),
        (421, "4.4.2 Maximum SMTP sessions reached", True),
        (451, "too many simultaneous connections", True),
        (421, "4.4.2 idle", False),
        (452, "4.5.3 too many recipients", False),
        (450, "too many messages in this session", False),
        (550, "too many connections", False),
    ],
)
def test_a_connection_limit_is_recognised(code: int, text: str, *, limit: bool) -> None:
    """By the code 432 (of a large provider), or by its text in a temporary refusal."""
    assert is_connection_limit(DataRefusedError("no", reply=_reply(code, text))) is limit
    assert not is_connection_limit(None)
    assert not is_connection_limit(ConnectError("too many connections"))


def test_only_a_message_that_was_certainly_not_accepted_is_resent() -> None:
    """And only if there was a session; `judge` decides about the other failures."""
    assert can_resend(ConnectError("gone", stage=Stage.MAIL))
    assert not can_resend(ConnectError("gone", stage=Stage.GREETING))
    assert not can_resend(DeadlineExceededError("late", stage=Stage.MAIL))


def test_an_error_that_says_nothing_of_its_message_leaves_the_outcome_unknown() -> None:
    """No error of ours is its cause, because a second interrupt struck while the first was recorded."""
    job = Job(3, Submission(Mailbox.parse("a@b.example"), (), Content.from_bytes(b"")), lambda: None)
    job.finish(TimeoutError("a signal handler's"))
    assert isinstance(job.end, SendResult)
    assert (job.end.index, job.end.outcome, job.end.receipt) == (3, Outcome.UNKNOWN, None)


def test_frames_are_dropped_from_all_causes() -> None:
    """Even if the causes form a cycle; the note that says where it was raised is added once."""
    first, second = LookupError("first"), ConnectError("second")
    for _ in range(2):
        for error in (first, second):
            try:
                raise error
            except (LookupError, ConnectError):
                pass
        first.__cause__, second.__context__ = second, first
        drop_frames(first)
    assert first.__traceback__ is second.__traceback__ is None
    (note,) = first.__notes__
    assert "test_bulk.py" in note


def test_a_repeat_has_its_end_when_the_first_has_one() -> None:
    """Its result is that of the first, with its own number."""
    first = Job(3, Submission(Mailbox.parse("a@b.example"), (), Content.from_bytes(b"")), lambda: None)
    repeat = Repeat(5, first)
    assert repeat.end is None
    first.finish(ConnectError("gone", stage=Stage.CONNECT))
    assert isinstance(repeat.end, SendResult)
    assert (repeat.end.index, repeat.end.outcome, repeat.end.from_ledger) == (5, Outcome.NOT_SENT, True)
