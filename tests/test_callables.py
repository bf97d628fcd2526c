"""Password callables and log handlers: the deadline of a send bounds them, and sends inside them never deadlock."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.message import EmailMessage
from types import FrameType
from typing import Any

import pytest

from conftest import Mailer, Serve
from scripted import Peer, honest
from securesmtp import (
    AddressError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    Envelope,
    Event,
    Outcome,
    OutcomeUnknownError,
    Password,
    RefusedError,
    SecureMailer,
    SecureSMTPError,
    SendResult,
    Stage,
)
from securesmtp._secret import Secret
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.password import PasswordCalls
from securesmtp._transport.steps import ThreadWaiter
from securesmtp.events import Connecting, emit

RAW = b"Subject: x\r\nMessage-ID: <outer@x>\r\n\r\nx\r\n"


def _send(mailer: SecureMailer, **options: float) -> int:
    return mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"], **options).reply.code  # type: ignore[arg-type]


def _run(mailer: SecureMailer, **options: float) -> SendResult:
    (result,) = mailer.send_many([Envelope("a@b.example", ["c@d.example"], RAW)], **options)  # type: ignore[arg-type]
    return result


@pytest.fixture
def vault() -> Iterator[Callable[[], str]]:
    """Return a callable that returns only when the test is over."""
    release = threading.Event()

    def password() -> str:
        release.wait(30)
        return "secret"

    yield password
    release.set()


@pytest.mark.parametrize("many", [False, True], ids=["send", "send_many"])
def test_a_password_callable_is_bounded_by_the_deadline_of_the_send(
    serve: Serve, mailer: Mailer, vault: Callable[[], str], *, many: bool
) -> None:
    """It cannot be interrupted, so the send stops waiting for it; a late password leads to no login (PITFALLS O6)."""
    server = serve(honest(auth=("me", "secret")))
    mine = mailer(server, username="me", password=vault)
    if many:
        error = _run(mine, deadline=0.2).error
    else:
        with pytest.raises(DeadlineExceededError) as caught:
            _send(mine, deadline=0.2)
        error = caught.value
    assert isinstance(error, DeadlineExceededError)
    assert (error.limit, error.outcome, error.retryable) == ("deadline", Outcome.NOT_SENT, True)
    server.joined()
    assert b"AUTH" not in server.secret
    assert b"MAIL" not in server.secret


def test_the_error_says_that_the_password_callable_took_the_time(vault: Callable[[], str]) -> None:
    """Both while it runs and while it waits for others to end; no server has anything to do with it."""
    calls = PasswordCalls(1)
    for _ in range(2):
        with pytest.raises(DeadlineExceededError) as caught:
            calls.fetch(vault, Deadline("deadline", 0.05), [])
        text = "timed out after 0.05 s waiting for the password callable (limit: deadline)"
        assert (caught.value.args[0], caught.value.stage) == (text, Stage.AUTH)


def test_a_callable_that_hangs_runs_no_more_often_than_there_may_be_connections(
    serve: Serve, mailer: Mailer, vault: Callable[[], str]
) -> None:
    """So a web application does not fill up with threads that wait for a vault."""
    mine = mailer(serve(honest(auth=("me", "secret"))), username="me", password=vault, max_connections=2)

    def calls() -> int:
        return sum(thread.name == "password callable" for thread in threading.enumerate())

    deadline = 0.1
    while calls() < 2:
        # A busy machine may not connect in time.
        deadline *= 1.5
        with pytest.raises(DeadlineExceededError):
            _send(mine, deadline=deadline)
    for _ in range(2):
        with pytest.raises(DeadlineExceededError):
            _send(mine, deadline=deadline)
    assert calls() == 2


def test_an_interrupt_leaves_the_next_send_its_password() -> None:
    """At whatever line of the call it strikes, even if only one call may run at a time."""
    calls, left = PasswordCalls(1), 0

    def fetch() -> Secret:
        return calls.fetch(lambda: "secret", Deadline("deadline", 10), ())

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_globals.get("__name__") != PasswordCalls.__module__:
            return None
        if event == "line":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    for at in range(100):
        left, before = at, sys.gettrace()
        sys.settrace(trace)
        try:
            with suppress(KeyboardInterrupt):
                fetch()
        finally:
            sys.settrace(before)
        assert fetch().reveal() == "secret", at
        if left >= 0:
            return
    pytest.fail("it has no hundred lines")


def test_a_password_that_comes_in_time_is_used(serve: Serve, mailer: Mailer) -> None:
    """With a deadline it is fetched in another thread, with the same context variables; without one, in the same."""
    where = contextvars.ContextVar[str]("where")
    where.set("in the request")
    seen: list[tuple[str, threading.Thread]] = []

    def password() -> str:
        seen.append((where.get(), threading.current_thread()))
        return "secret"

    for options in ({"deadline": 5.0}, {}):
        assert _send(mailer(serve(honest(auth=("me", "secret"))), username="me", password=password), **options) == 250
    (first, other), (second, own) = seen
    assert first == second == "in the request"
    assert other is not threading.current_thread()
    assert own is threading.current_thread()


@pytest.mark.parametrize("error", [LookupError("sealed"), SystemExit(3)], ids=repr)
def test_an_exception_of_a_callable_is_raised_if_there_is_a_deadline(
    serve: Serve, mailer: Mailer, error: BaseException
) -> None:
    """In the thread that sends, as without a deadline."""

    def password() -> str:
        raise error

    mine = mailer(serve(honest(auth=("me", "secret"))), username="me", password=password, deadline=5)
    with pytest.raises(type(error)) as caught:
        _send(mine)
    assert caught.value is error


def test_a_password_is_fetched_in_the_same_thread_if_no_thread_can_be_started(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example while the interpreter shuts down: late is better than never."""
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if thread.name == "password callable":
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails)
    mine = mailer(serve(honest(auth=("me", "secret"))), username="me", password=lambda: "secret")
    assert _send(mine, deadline=5) == 250


def _unknown() -> SecureSMTPError:
    error = OutcomeUnknownError("the content was ended, and then: closed")
    error.message_id = "<inner@x>"
    return error


@pytest.mark.parametrize("deadline", [None, 5.0])
@pytest.mark.parametrize("many", [False, True], ids=["send", "send_many"])
@pytest.mark.parametrize(
    ("inner", "kind", "retryable"),
    [
        (_unknown(), AuthenticationError, False),
        (RefusedError("no"), AuthenticationError, False),
        (ConnectError("gone", retryable=True), AuthenticationError, True),
        (AddressError("no address"), ConfigurationError, False),
    ],
    ids=["unknown", "refused", "gone", "address"],
)
def test_an_error_of_ours_from_a_callable_is_not_the_outcome_of_the_outer_message(  # noqa: PLR0913 -- a row
    serve: Serve,
    mailer: Mailer,
    inner: SecureSMTPError,
    kind: type[SecureSMTPError],
    *,
    retryable: bool,
    many: bool,
    deadline: float | None,
) -> None:
    """It may be about a message that the callable sent: the outer one was not sent; the cause is the other error."""

    def password() -> str:
        raise inner

    server = serve(honest(auth=("me", "secret")))
    mine = mailer(server, username="me", password=password, deadline=deadline)
    before = inner.message_id
    if many:
        result = _run(mine)
        assert (result.outcome, result.retryable) == (Outcome.NOT_SENT, retryable)
        error: BaseException | None = result.error
    else:
        with pytest.raises(SecureSMTPError) as caught:
            _send(mine)
        error = caught.value
    assert type(error) is kind
    assert (error.outcome, error.retryable, error.message_id) == (Outcome.NOT_SENT, retryable, "<outer@x>")
    assert error.__cause__ is inner
    assert type(inner).__name__ in str(error)
    assert inner.message_id == before
    assert b"AUTH" not in server.secret


class Odd(Exception):  # noqa: N818
    """An application's error that has an attribute `outcome`."""

    outcome = Outcome.ACCEPTED
    retryable = True


def test_a_foreign_error_has_no_outcome(serve: Serve, mailer: Mailer) -> None:
    """Whatever its attributes are named, it was raised before MAIL."""

    def password() -> str:
        raise Odd

    result = _run(mailer(serve(honest(auth=("me", "secret"))), username="me", password=password))
    assert (result.outcome, type(result.error)) == (Outcome.NOT_SENT, Odd)


@pytest.mark.parametrize("deadline", [None, 20.0])
def test_sends_inside_sends_do_not_wait_for_each_other(serve: Serve, mailer: Mailer, deadline: float | None) -> None:
    """Two threads hold both connections, and each wants one more: both are refused at once."""
    both = threading.Barrier(2)
    errors: list[BaseException] = []

    def password() -> str:
        both.wait(10)
        try:
            _send(mine)
        finally:
            both.wait(10)
        return "secret"

    def send() -> None:
        try:
            _send(mine)
        except SecureSMTPError as error:
            errors.append(error)

    server = serve(honest(auth=("me", "secret")))
    mine = mailer(server, username="me", password=password, max_connections=2, deadline=deadline)
    threads = [threading.Thread(target=send, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert not any(thread.is_alive() for thread in threads)
    assert [type(error) for error in errors] == [ConfigurationError] * 2
    assert all("inside a send" in str(error) for error in errors)
    assert b"AUTH" not in server.secret


def test_a_send_inside_a_send_does_not_queue(serve: Serve, mailer: Mailer) -> None:
    """The sends in the queue may wait for the outer send; so the inner one takes a free connection before them."""
    asked: list[int] = []

    def password() -> str:
        asked.append(1)
        if len(asked) == 1:
            # A waiter that seems to go on polling.
            left.polled_at = time.monotonic() + 60
            mine._pool._waiters.append(left)
            assert _send(mine) == 250
            mine._pool._waiters.remove(left)
        return "secret"

    left = ThreadWaiter()
    mine = mailer(serve(honest(auth=("me", "secret"))), username="me", password=password, max_connections=2, deadline=5)
    assert _send(mine) == 250


class Mails(logging.Handler):
    """A handler that emails each record through a mailer that logs."""

    def __init__(self, mailer: SecureMailer) -> None:
        super().__init__(logging.WARNING)
        self.mailer, self.records = mailer, 0

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1
        try:
            _send(self.mailer)
        except SecureSMTPError:
            self.handleError(record)


@pytest.fixture
def handled() -> Iterator[Callable[[logging.Handler], None]]:
    """Add handlers to the library's logger while a test runs."""
    logger, added = logging.getLogger("securesmtp"), list[logging.Handler]()

    def add(handler: logging.Handler) -> None:
        added.append(handler)
        logger.addHandler(handler)

    yield add
    for handler in added:
        logger.removeHandler(handler)


@pytest.mark.parametrize("another", [False, True], ids=["the same mailer", "another mailer"])
def test_a_log_handler_that_sends_gets_no_records_of_its_own_messages(
    serve: Serve,
    mailer: Mailer,
    handled: Callable[[logging.Handler], None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    another: bool,
) -> None:
    """One refused login is one record, whose message causes one more refused login: there were 88 (PITFALLS)."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    server = serve(honest(auth=("me", "right")), connections=200)
    mine = mailer(server, username="me", password="wrong")
    handler = Mails(mailer(server, username="me", password="wrong") if another else mine)
    handled(handler)
    with pytest.raises(AuthenticationError):
        _send(mine)
    assert handler.records == 1
    assert server.secret.count(b"AUTH ") == 2
    # Only for the time of the call: the next failure is logged.
    with pytest.raises(AuthenticationError):
        _send(mine)
    assert handler.records == 2


def test_on_event_gets_no_events_of_what_it_sends(serve: Serve, mailer: Mailer) -> None:
    """It gets those of the outer message; for its own it has the receipt."""
    told: list[Event] = []

    def report(event: Event) -> None:
        told.append(event)
        _send(mine)

    server = serve()
    mine = mailer(server, on_event=report)
    _send(mine)
    assert [type(event).__name__ for event in told] == ["Connecting", "Connected", "Sent"]
    assert len(server.accepted) == 4


def test_the_threads_of_a_run_that_on_event_starts_emit_nothing_either(serve: Serve, mailer: Mailer) -> None:
    """Each would send about its own messages, in a thread of its own, without end."""
    told: list[Event] = []

    def report(event: Event) -> None:
        told.append(event)
        if len(told) < 50:
            list(mine.send_many([Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n")]))

    server = serve(connections=200)
    mine = mailer(server, on_event=report)
    _send(mine)
    assert [type(event).__name__ for event in told] == ["Connecting", "Connected", "Sent"]
    assert len(server.accepted) == 4
    # Afterwards, events are emitted again.
    _send(mine)
    assert len(told) == 4


@pytest.mark.parametrize("at", range(1, 12))
def test_after_an_interrupt_at_any_line_the_thread_still_gets_events(at: int) -> None:
    """A Ctrl-C between two lines once left a flag set, and that thread emitted no more events."""
    told: list[Event] = []
    left = at

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code is not emit.__code__:
            return None
        left -= event == "line"
        if event == "line" and not left:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(KeyboardInterrupt):
            emit(Connecting("localhost", 465), told.append)
    finally:
        sys.settrace(before)
    told.clear()
    emit(Connecting("localhost", 465), told.append)
    assert len(told) == 1


def test_other_threads_emit_events_meanwhile(serve: Serve, mailer: Mailer) -> None:
    """Only the thread that runs on_event is muted."""
    told: list[str] = []
    inside, other = threading.Event(), threading.Event()

    def report(event: Event) -> None:
        told.append(threading.current_thread().name)
        if threading.current_thread().name == "first" and not inside.is_set():
            inside.set()
            other.wait(5)

    mine = mailer(serve(), on_event=report)
    first = threading.Thread(target=_send, args=(mine,), name="first")
    first.start()
    inside.wait(5)
    second = threading.Thread(target=_send, args=(mine,), name="second")
    second.start()
    second.join(5)
    other.set()
    first.join(5)
    assert told.count("second") == told.count("first") == 3


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
def test_no_recipient_is_accepted_if_the_message_was_not_sent(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """One recipient is refused, so no content was sent: the other is not accepted, although its RCPT was."""
    refuse: Callable[[Peer, bytes], bytes] = lambda _, line: b"550 no\r\n" if b"nobody" in line else b"250 ok\r\n"  # noqa: E731
    server = serve(honest(replies={"RCPT": refuse}))
    mine = mailer(server, pipelining=pipelining)
    (result,) = mine.send_many([Envelope("a@b.example", ["c@d.example", "nobody@d.example"], RAW)])
    assert result.outcome is Outcome.REFUSED
    recipients = result.error.recipients  # type: ignore[union-attr]
    assert [(each.accepted, each.reply.code) for each in recipients] == [(False, 250), (False, 550)]
    assert server.accepted == []


@pytest.mark.faces("runs")
@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
def test_the_server_counts_transactions(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """RFC 9422 §4.1: MAILMAX counts each MAIL, and a message for more recipients than RCPTMAX needs several."""
    server = serve(honest(extensions=("PIPELINING", "LIMITS MAILMAX=3 RCPTMAX=2")), connections=50)
    mine = mailer(server, pipelining=pipelining, max_connections=1)
    three = [f"c{number}@d.example" for number in range(3)]
    some = [Envelope("a@b.example", three, RAW), Envelope("a@b.example", three[:1], RAW)] * 4
    results = list(mine.send_many(some, partial="allow"))
    assert [len(result.receipt.accepted) if result.receipt else result.error for result in results] == [3, 1] * 4
    assert max(bytes(log.secret).count(b"MAIL FROM") for log in server.connections) <= 3
    before = len(server.connections)
    for _ in range(4):
        mine.send_bytes(RAW, mail_from="a@b.example", recipients=three, partial="allow")
    assert max(bytes(log.secret).count(b"MAIL FROM") for log in server.connections) <= 3
    assert len(server.connections) <= before + 4


def test_messages_in_flight_stop_at_the_servers_limit(serve: Serve, mailer: Mailer) -> None:
    """MAILMAX also bounds the messages that are written before the first reply."""
    server = serve(honest(extensions=("PIPELINING", "LIMITS MAILMAX=3")), connections=50, overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1)
    mine._pool.overlap_support.confirm()
    results = list(mine.send_many([Envelope("a@b.example", ["c@d.example"], RAW)] * 9))
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}
    assert [bytes(log.secret).count(b"MAIL FROM") for log in server.connections] == [3, 3, 3]


def test_a_refused_transaction_counts(serve: Serve, mailer: Mailer) -> None:
    """The server counts every MAIL, whatever it replies."""
    server = serve(honest(extensions=("LIMITS MAILMAX=2",), replies={"MAIL": b"550 no\r\n"}))
    mine = mailer(server)
    for _ in range(4):
        with pytest.raises(RefusedError):
            _send(mine)
    assert [bytes(log.secret).count(b"MAIL FROM") for log in server.connections] == [2, 2]


def test_a_message_that_needs_more_transactions_than_a_connection_has_is_refused(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """Before any recipient gets it: the rest could never be sent over this connection."""
    server = serve(honest(extensions=("LIMITS MAILMAX=2 RCPTMAX=1",)))
    many = [f"c{number}@d.example" for number in range(3)]
    with pytest.raises(ConfigurationError, match="3 transactions") as caught:
        mailer(server).send(message, recipients=many, partial="allow")
    assert caught.value.outcome is Outcome.NOT_SENT
    assert b"MAIL" not in server.secret


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_message_that_needs_more_than_is_left_takes_a_new_connection(
    serve: Serve, mailer: Mailer, pipelining: str
) -> None:
    """A connection that allows one more transaction does not carry a message that needs two (RFC 9422)."""
    offer = ("PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=1")
    server = serve(honest(extensions=offer), connections=50, overlaps=True)
    mine = mailer(server, pipelining=pipelining, max_connections=1)
    mine._pool.overlap_support.confirm()
    some = [Envelope("a@b.example", ["c@d.example", "e@d.example"][:number], RAW) for number in (1, 2, 2)]
    results = list(mine.send_many(some, partial="allow"))
    assert [len(result.receipt.accepted) if result.receipt else result.error for result in results] == [1, 2, 2]
    assert [bytes(log.secret).count(b"MAIL FROM") for log in server.connections] == [1, 2, 2]


def test_recipients_beyond_the_last_transaction_are_refused_temporarily(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """452 to a recipient asks for another transaction; if the server allows none, the refusal is temporary."""
    seen: list[bytes] = []

    def one_at_a_time(peer: Peer, line: bytes) -> bytes:
        seen.append(line)
        return b"250 ok\r\n" if len(seen) % 3 == 1 else b"452 4.5.3 too many\r\n"

    server = serve(honest(extensions=("LIMITS MAILMAX=1",), replies={"RCPT": one_at_a_time}))
    many = [f"c{number}@d.example" for number in range(3)]
    receipt = mailer(server).send(message, recipients=many, partial="allow")
    assert receipt.accepted == tuple(many[:1])
    assert [each.retryable for each in receipt.recipients] == [False, True, True]
    assert server.secret.count(b"MAIL FROM") == 1


async def _password() -> str:
    return "secret"


@pytest.mark.parametrize(
    "arguments",
    [{"username": "me", "password": _password}, {"auth": Password("me", _password)}],
    ids=["password", "auth"],
)
def test_a_coroutine_function_needs_the_asynchronous_mailer(arguments: dict[str, Any]) -> None:
    """Refused at once, not at the first login."""
    with pytest.raises(ConfigurationError, match="coroutine function") as caught:
        SecureMailer("localhost", **arguments)
    assert "AsyncSecureMailer" in str(caught.value.hint)
