"""Events: which, in which order, and without a secret; an error of the application changes no outcome."""

from __future__ import annotations

import logging
import pickle
import time
from contextvars import ContextVar
from email.message import EmailMessage

import pytest

from conftest import AsyncMailer, Mailer, Run, Serve
from scripted import Mode, Peer, honest
from securesmtp import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    DowngradeError,
    Envelope,
    Event,
    Outcome,
    SecureSMTPError,
    events,
)
from securesmtp.events import is_interrupt

CONNECTING, CONNECTED, SENT, CLOSED = events.Connecting, events.Connected, events.Sent, events.Closed
AUTHENTICATED, FAILED = events.Authenticated, events.Failed
CALLER = ContextVar("CALLER", default="nobody")


def test_a_session_has_an_event_for_each_step(serve: Serve, mailer: Mailer, message: EmailMessage, mode: Mode) -> None:
    """Connecting, connected, authenticated, sent twice, closed; the events can be pickled."""
    events_seen: list[Event] = []
    server = serve(honest(mode, auth=("me", "secret")))
    mine = mailer(server, tls=mode, username="me", password="secret", on_event=events_seen.append)
    receipts = [mine.send(message), mine.send(message)]
    mine.close()
    assert [type(event) for event in events_seen] == [CONNECTING, CONNECTED, AUTHENTICATED, SENT, SENT, CLOSED]
    assert {(event.host, event.port) for event in events_seen} == {("localhost", server.port)}
    connected, authenticated, *sent, closed = events_seen[1:]
    assert isinstance(connected, events.Connected)
    assert connected.tls == receipts[0].tls
    assert isinstance(authenticated, events.Authenticated)
    assert authenticated.mechanism == "PLAIN"
    assert [event.receipt for event in sent if isinstance(event, events.Sent)] == receipts
    assert isinstance(closed, events.Closed)
    assert closed.reason == "closed by the caller"
    assert pickle.loads(pickle.dumps(events_seen)) == events_seen  # noqa: S301 -- our own
    assert all(str(event).isprintable() and "secret" not in str(event) for event in events_seen)


def test_a_failure_has_an_event_with_its_error(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The same object that is raised; the closed connection has an event too."""
    events_seen: list[Event] = []
    mine = mailer(serve(honest(replies={"DATA": b"250 ok\r\n"})), on_event=events_seen.append)
    with pytest.raises(SecureSMTPError) as caught:
        mine.send(message)
    assert [type(event) for event in events_seen] == [CONNECTING, CONNECTED, CLOSED, FAILED]
    failed = events_seen[-1]
    assert isinstance(failed, events.Failed)
    assert failed.error is caught.value
    assert failed.error.message_id
    assert str(failed.error.outcome) in str(failed)


def test_no_line_names_a_message_none(serve: Serve, mailer: Mailer) -> None:
    """Raw bytes may have no Message-ID: of an accepted message, of a failed one, and of one that Ctrl-C stopped."""
    lines: list[str] = []
    ends = iter([b"250 ok\r\n", b"550 no\r\n", b"250 ok\r\n"])

    def note(event: Event) -> None:
        lines.append(str(event).partition(" ")[2])
        if isinstance(event, events.Sent) and len(lines) > 3:
            raise KeyboardInterrupt

    mine = mailer(serve(honest(replies={"CONTENT": lambda *_: next(ends)})), on_event=note)
    data = b"Subject: x\r\n\r\n" + b"y" * 950 + b"\r\n"

    def send() -> object:
        return mine.send_bytes(data, mail_from="a@example.org", recipients=["b@example.org"])

    send()
    with pytest.raises(SecureSMTPError):
        send()
    with pytest.raises(KeyboardInterrupt) as caught:
        send()
    assert [line.partition(" for ")[0] for line in lines[2:4]] == [
        "sent a message without Message-ID",
        "accepted a message without Message-ID with lines of up to 950 bytes: some servers break them",
    ]
    assert lines[4].startswith("failed a message without Message-ID (refused, DataRefusedError in content): ")
    (interrupted,) = caught.value.__notes__
    assert interrupted.startswith("securesmtp: a message without Message-ID (accepted): ")


@pytest.mark.faces("send")
@pytest.mark.parametrize("pipelining", ["one by one", "message", "session"])
def test_the_event_of_a_failure_has_what_a_receipt_has(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """Its duration, TLS session, recipients and size: of `send`, and of `send_many` in both ways."""
    refuse = honest(replies={"CONTENT": b"554 no\r\n"}, extensions=("PIPELINING", "8BITMIME", "CHUNKING"))
    events_seen: list[Event] = []
    options = {} if pipelining == "one by one" else {"pipelining": pipelining}
    mine = mailer(serve(refuse, overlaps=True), on_event=events_seen.append, **options)
    before, data = time.monotonic(), b"Subject: x\r\n\r\nx\r\n"
    if options:
        (result,) = mine.send_many([Envelope("me@example.com", ["a@example.net", "b@example.net"], data)])
        assert result.outcome is Outcome.REFUSED
    else:
        with pytest.raises(SecureSMTPError):
            mine.send_bytes(data, mail_from="me@example.com", recipients=["a@example.net", "b@example.net"])
    took = time.monotonic() - before
    connected = next(event for event in events_seen if isinstance(event, events.Connected))
    (failed,) = (event for event in events_seen if isinstance(event, events.Failed))
    assert (failed.tls, failed.recipients, failed.size) == (connected.tls, 2, len(data))
    assert failed.elapsed is not None
    assert connected.elapsed.total_seconds() < failed.elapsed.total_seconds() <= took


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_without_a_connection_the_event_of_a_failure_has_no_tls(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """But recipients and size."""
    events_seen: list[Event] = []
    refuse, data = honest(replies={"GREETING": b"554 no\r\n"}), b"Subject: x\r\n\r\nx\r\n"
    mine = mailer(serve(refuse), max_connect_failures=1, pipelining=pipelining, on_event=events_seen.append)
    (result,) = mine.send_many([Envelope("me@example.com", ["a@example.net", "b@example.net"], data)])
    assert result.outcome is Outcome.NOT_SENT
    (failed,) = (event for event in events_seen if isinstance(event, events.Failed))
    assert (failed.tls, failed.recipients, failed.size) == (None, 2, len(data))


def test_the_event_of_a_message_that_was_not_built_has_no_size(
    serve: Serve, async_mailer: AsyncMailer, message: EmailMessage, run: Run
) -> None:
    """An async mailer builds a message when a connection is free, which was too late here."""
    events_seen: list[Event] = []

    async def wait() -> None:
        async with async_mailer(serve(), on_event=events_seen.append) as mine:
            with pytest.raises(DeadlineExceededError):
                await mine.send(message, deadline=1e-9)

    run(wait)
    (failed,) = (event for event in events_seen if isinstance(event, events.Failed))
    assert failed.elapsed is not None
    assert (failed.tls, failed.recipients, failed.size) == (None, None, None)


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_the_events_of_a_run_have_the_callers_context(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """Context variables have the values that they had when the first result was asked for."""
    seen: list[str] = []
    mine = mailer(serve(), pipelining=pipelining, on_event=lambda event: seen.append(CALLER.get()))
    for caller in ("first", "second"):
        token = CALLER.set(caller)
        try:
            results = mine.send_many([Envelope("me@example.com", ["you@example.net"], b"Subject: x\r\n\r\nx\r\n")])
            assert [result.outcome for result in results] == [Outcome.ACCEPTED]
        finally:
            CALLER.reset(token)
    assert seen == ["first"] * 3 + ["second"]


def test_a_connection_that_the_server_closed_has_an_event(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Before the new connection is opened."""
    events_seen: list[Event] = []

    def once(peer: Peer) -> None:
        honest(replies={"QUIT": b"221 bye\r\n", "CONTENT": lambda *_: b"250 ok\r\n421 4.4.2 idle\r\n"})(peer)

    mine = mailer(serve(once), on_event=events_seen.append)
    mine.send(message)
    mine.send(message)
    assert [type(event) for event in events_seen] == [CONNECTING, CONNECTED, SENT, CLOSED, CONNECTING, CONNECTED, SENT]
    assert "not usable" in str(events_seen[3])


def test_failures_of_tls_and_login_are_warnings(
    serve: Serve, mailer: Mailer, message: EmailMessage, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything else is logged at DEBUG, so by default an application sees only these."""
    plain = honest("starttls", replies={"EHLO": b"250 mx.test\r\n"})
    with pytest.raises(DowngradeError):
        mailer(serve(plain), tls="starttls").send(message)
    with pytest.raises(AuthenticationError):
        mailer(serve(honest(auth=("me", "right"))), username="me", password="wrong").send(message)
    mine = mailer(serve(honest(replies={"MAIL": b"550 no\r\n"})))
    with pytest.raises(SecureSMTPError):
        mine.send(message)
    warnings = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert ["DowngradeError" in text or "AuthenticationError" in text for text in warnings] == [True, True]
    assert {record.name for record in caplog.records} == {"securesmtp"}
    assert len(caplog.records) > 5


def test_an_error_in_on_event_changes_no_outcome(
    serve: Serve, mailer: Mailer, message: EmailMessage, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is sent, the receipt returned, and the error logged with its traceback."""

    def faulty(event: Event) -> None:
        raise LookupError(type(event).__name__)

    server = serve()
    assert mailer(server, on_event=faulty).send(message).reply.code == 250
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) >= 3
    assert all(record.exc_info for record in logged)


@pytest.mark.parametrize("check", [False, True], ids=["send", "check"])
def test_a_refused_login_has_an_event_and_closes_its_connection(
    serve: Serve, mailer: Mailer, message: EmailMessage, caplog: pytest.LogCaptureFixture, *, check: bool
) -> None:
    """The same events and one warning, from send() and from check()."""
    events_seen: list[Event] = []
    mine = mailer(serve(honest(auth=("me", "right"))), username="me", password="wrong", on_event=events_seen.append)
    if check:
        assert mine.check().login is False
    else:
        with pytest.raises(AuthenticationError):
            mine.send(message)
    assert [type(event) for event in events_seen] == [CONNECTING, CONNECTED, CLOSED, FAILED]
    assert [record.levelno for record in caplog.records if "AuthenticationError" in record.getMessage()] == [
        logging.WARNING
    ]
    # A check has no message.
    assert ("failed the check (AuthenticationError in auth): " in str(events_seen[-1])) == check


def test_on_event_may_send(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The connection is already free when the event is emitted, so one is enough."""
    replies: list[int] = []

    def report(event: Event) -> None:
        if isinstance(event, events.Failed) and not replies:
            replies.append(mine.send(message).reply.code)

    refuse = iter([b"550 5.7.1 no\r\n"])
    server = serve(honest(replies={"MAIL": lambda *_: next(refuse, b"250 ok\r\n")}))
    mine = mailer(server, max_connections=1, on_event=report)
    with pytest.raises(SecureSMTPError) as caught:
        mine.send(message)
    assert caught.value.outcome is Outcome.REFUSED
    assert replies == [250]


def test_an_on_event_that_is_not_callable_is_refused(serve: Serve, mailer: Mailer) -> None:
    """When the mailer is created."""
    with pytest.raises(ConfigurationError, match="on_event"):
        mailer(serve(), on_event="print")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()], ids=repr)
def test_an_exception_outside_the_class_exception_is_an_interrupt(error: BaseException) -> None:
    """Ctrl-C and the like; an ordinary error that no signal handler raised is not one."""
    assert is_interrupt(error)
    assert not is_interrupt(ValueError())


@pytest.mark.parametrize("is_many", [False, True], ids=["send_bytes", "send_many"])
@pytest.mark.parametrize("kind", [events.Sent, events.LongLines])
def test_an_interrupt_in_the_event_of_an_accepted_message_has_the_receipt(
    serve: Serve, mailer: Mailer, kind: type[Event], *, is_many: bool
) -> None:
    """Also if each further event would raise another one: on_event is not called again for the message."""

    def interrupt(event: Event) -> None:
        if isinstance(event, kind) or raised:
            raised.append(event)
            raise KeyboardInterrupt

    raised: list[Event] = []
    data = b"Message-ID: <1@a.example>\r\n\r\n" + b"y" * 950 + b"\r\n"
    mine = mailer(serve(honest()), on_event=interrupt)
    to = ["b@b.example"]

    def send() -> object:
        if is_many:
            return list(mine.send_many([Envelope("a@a.example", to, data)]))
        return mine.send_bytes(data, mail_from="a@a.example", recipients=to)

    with pytest.raises(KeyboardInterrupt) as caught:
        send()
    first = raised[0]
    # The mailer is closed without one.
    raised.clear()
    error = caught.value.__cause__
    assert isinstance(error, SecureSMTPError)
    assert (error.outcome, error.receipt is not None) == (Outcome.ACCEPTED, True)
    assert isinstance(first, kind)
