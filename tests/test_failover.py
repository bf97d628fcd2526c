"""Failover: the next server gets a message exactly when this one certainly has not accepted it."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trustme

from conftest import Mailer, Serve
from faces import InLoop
from scripted import Peer, Script, honest, up_to_content
from securesmtp import (
    AddressError,
    AsyncFailover,
    AsyncSecureMailer,
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    DataRefusedError,
    DeadlineExceededError,
    Envelope,
    Event,
    Failover,
    LedgerError,
    MessageError,
    Outcome,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    SecureMailer,
    SecureSMTPError,
    SenderRefusedError,
    ServerReport,
    Timeouts,
    _servers,
)
from securesmtp._protocol.failures import interrupt_error
from securesmtp._server_rules import Rules, Verdict
from securesmtp._values import Stage
from securesmtp.events import Failed, ServerDown, ServerUp

Over = Callable[..., Failover]
LOGIN = ("me", "a good passphrase")


@pytest.fixture
def over() -> Over:
    """Make a Failover of mailers of either kind; the fixture of the mailers closes them."""

    def make(*mailers: Any, **options: Any) -> Any:
        if isinstance(mailers[0], SecureMailer):
            return Failover(mailers, **options)
        return InLoop.around(mailers[0]._portal, AsyncFailover([each.mailer for each in mailers], **options))

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that lets so many seconds pass, for the rests of servers alone."""
    passed = [0.0]
    monkeypatch.setattr(_servers, "monotonic", lambda: time.monotonic() + passed[0])

    def wait(seconds: float) -> None:
        passed[0] += seconds

    return wait


def _greets(reply: bytes) -> Script:
    return honest(replies={"GREETING": reply})


def _replies(**replies: Any) -> Script:
    return honest(auth=LOGIN, replies=replies)


def _ends_after_content(peer: Peer) -> None:
    up_to_content(peer)
    peer.read_data()
    peer.close()


def _ends_at_mail(peer: Peer) -> None:
    peer.start_tls()
    peer.send(b"220 mx.test\r\n")
    peer.read_line()
    peer.send(b"250 mx.test\r\n")
    peer.read_line()
    peer.close()


def _silent(peer: Peer) -> None:
    peer.start_tls()
    peer.sleep_until_peer_closes()


NEXT: dict[str, tuple[Script, type[SecureSMTPError], dict[str, str]]] = {
    "greeting 421": (_greets(b"421 4.3.2 too busy\r\n"), ConnectError, {}),
    "greeting 554": (_greets(b"554 no\r\n"), ConnectError, {}),
    "greeting of another protocol": (_greets(b"* OK IMAP\r\n"), ProtocolError, {}),
    "no greeting": (_silent, DeadlineExceededError, {}),
    "closed at MAIL": (_ends_at_mail, ConnectError, {}),
    "421 at MAIL": (_replies(MAIL=b"421 4.3.2 shutting down\r\n"), SecureSMTPError, {"on_refusal": "next"}),
    "451 at MAIL": (_replies(MAIL=b"451 4.3.0 later\r\n"), SenderRefusedError, {"on_refusal": "next"}),
    "451 at RCPT": (_replies(RCPT=b"451 4.7.1 greylisted\r\n"), RecipientsRefusedError, {"on_refusal": "next"}),
    "451 to the content": (_replies(CONTENT=b"451 4.3.0 later\r\n"), DataRefusedError, {"on_refusal": "next"}),
    "454 to the login": (_replies(AUTH=b"454 4.7.0 later\r\n"), AuthenticationError, {}),
    "535 to the login": (_replies(AUTH=b"535 5.7.8 no\r\n"), AuthenticationError, {"on_login_refused": "next"}),
}
STOP: dict[str, tuple[Script, type[SecureSMTPError], dict[str, str]]] = {
    "closed after the content": (_ends_after_content, OutcomeUnknownError, {"on_refusal": "next"}),
    "malformed reply to the content": (_replies(CONTENT=b"hm\r\n"), OutcomeUnknownError, {"on_refusal": "next"}),
    "451 at RCPT": (_replies(RCPT=b"451 4.7.1 greylisted\r\n"), RecipientsRefusedError, {}),
    "550 at RCPT": (_replies(RCPT=b"550 5.1.1 no\r\n"), RecipientsRefusedError, {"on_refusal": "next"}),
    "451 to the content": (_replies(CONTENT=b"451 4.3.0 later\r\n"), DataRefusedError, {}),
    "554 to the content": (_replies(CONTENT=b"554 5.7.1 spam\r\n"), DataRefusedError, {"on_refusal": "next"}),
    "535 to the login": (_replies(AUTH=b"535 5.7.8 no\r\n"), AuthenticationError, {"on_refusal": "next"}),
}


@pytest.mark.faces("failover", sample=(5, 2))
@pytest.mark.parametrize("name", NEXT)
def test_the_next_server_gets_what_this_one_has_not_accepted(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage, name: str
) -> None:
    """One copy arrives, and the receipt is that of the second server."""
    script, error, options = NEXT[name]
    events = list[Event]()
    first, second = serve(script), serve(honest(auth=LOGIN))
    settings: dict[str, Any] = {"on_event": events.append, "username": LOGIN[0], "password": LOGIN[1]}
    if script in {_ends_at_mail, _silent}:
        settings = {"on_event": events.append}
    timeout = Timeouts(command=0.2) if script is _silent else 5
    mailers = mailer(first, timeout=timeout, **settings), mailer(second, username=LOGIN[0], password=LOGIN[1])
    receipt = over(*mailers, **options).send(message)
    assert receipt.accepted == ("you@example.org", "blind@example.org")
    assert (len(first.accepted), len(second.accepted)) == (0, 1)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert isinstance(failed.error, error)
    assert failed.error.message_id == receipt.message_id
    is_down = not isinstance(failed.error, SenderRefusedError | RecipientsRefusedError | DataRefusedError)
    assert [type(event) for event in events if isinstance(event, ServerDown | ServerUp)] == [ServerDown] * is_down


@pytest.mark.faces("failover", sample=(5, 2))
@pytest.mark.parametrize("name", STOP)
def test_the_next_server_does_not_get_what_may_have_been_delivered_or_is_refused(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage, name: str
) -> None:
    """It is not even connected to. A server that has failed rests all the same."""
    script, error, options = STOP[name]
    events = list[Event]()
    settings: dict[str, Any] = {"on_event": events.append}
    if script is not _ends_after_content:
        settings |= {"username": LOGIN[0], "password": LOGIN[1]}
    first, second = serve(script), serve()
    with pytest.raises(error) as caught:
        over(mailer(first, **settings), mailer(second), **options).send(message, recipients=["c@d.example"])
    assert (caught.value.earlier, caught.value.port) == ((), first.port)
    assert second.connections == []
    is_unknown = error is OutcomeUnknownError
    assert [type(event) for event in events if isinstance(event, ServerDown)] == [ServerDown] * is_unknown


def test_a_server_that_cannot_be_trusted_or_reached_is_left(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage, tmp_path: Path
) -> None:
    """Its certificate is not signed by the CA; nobody listens."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    untrusted, gone, good = serve(), serve(), serve()
    gone.stop()
    over(mailer(untrusted, ca_file=other), mailer(gone), mailer(good)).send(message)
    assert (len(untrusted.accepted), len(good.accepted)) == (0, 1)


@pytest.mark.faces("failover", sample=(2, 1))
@pytest.mark.parametrize("kind", ["send", "send_bytes", "send_bytes of a file", "send_many", "send_many of a file"])
def test_each_server_gets_the_same_bytes(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage, kind: str
) -> None:
    """The same Message-ID and Date, even if the library made them; a file is read once."""
    contents = list[bytes]()

    def later(_: Peer, content: bytes) -> bytes:
        contents.append(content)
        return b"451 4.3.0 later\r\n"

    first, second = serve(_replies(CONTENT=later)), serve()
    mine = over(mailer(first, username=LOGIN[0], password=LOGIN[1]), mailer(second), on_refusal="next")
    # Large enough to be built in a thread of an event loop.
    data, people = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 4000, iter(["c@d.example"])
    if kind == "send":
        receipt = mine.send(message)
    elif kind.startswith("send_bytes"):
        receipt = mine.send_bytes(data if kind == "send_bytes" else io.BytesIO(data), mail_from="", recipients=people)
    else:
        what: Any = message if kind == "send_many" else Envelope("", people, io.BytesIO(data))
        (result,) = mine.send_many([what])
        assert result.receipt is not None
        receipt = result.receipt
    (accepted,) = second.accepted
    assert contents == [accepted.content]
    fields = BytesHeaderParser().parsebytes(accepted.content)
    assert fields["Message-ID"] == receipt.message_id
    assert message["Message-ID"] is None


@pytest.mark.exhaustive
def test_a_message_whose_content_was_cut_off_goes_to_the_next_server(serve: Serve, mailer: Mailer, over: Over) -> None:
    """The first server cannot have accepted a content that was not fully sent."""

    def cuts(peer: Peer) -> None:
        up_to_content(peer)
        peer.read_exactly(10)
        peer.reset()

    # More than the buffers of both sides hold.
    data = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 300_000
    first, second = serve(cuts), serve()
    over(mailer(first), mailer(second)).send_bytes(data, mail_from="a@b.example", recipients=["c@d.example"])
    assert len(second.accepted) == 1


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("mail_from", "no address", AddressError),
        ("recipients", [], MessageError),
        ("partial", "some", ConfigurationError),
        ("deadline", -1, ConfigurationError),
    ],
)
@pytest.mark.faces("failover")
def test_a_mistake_of_the_caller_is_raised_at_once(  # noqa: PLR0913, PLR0917 -- fixtures and parameters
    serve: Serve,
    mailer: Mailer,
    over: Over,
    message: EmailMessage,
    argument: str,
    value: Any,
    error: type[SecureSMTPError],
) -> None:
    """No server is down because of it."""
    first, second = serve(), serve()
    mine = over(mailer(first), mailer(second))
    with pytest.raises(error) as caught:
        mine.send(message, **{argument: value})
    assert caught.value.earlier == ()
    mine.send(message)
    assert (len(first.accepted), second.connections) == (1, [])


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, Verdict.STOP),
        (ValueError("a bug in a callable"), Verdict.STOP),
        (AuthenticationError("the password callable raised"), Verdict.STOP),
        (LedgerError("full"), Verdict.STOP),
        (interrupt_error(KeyboardInterrupt(), Stage.MAIL), Verdict.STOP),
        (ConnectError("x"), Verdict.REST),
        (CertificateError("x"), Verdict.REST),
        (OutcomeUnknownError("x"), Verdict.STOP_AND_REST),
        (SecureSMTPError("rebuilt by a task queue"), Verdict.STOP_AND_REST),
    ],
    ids=lambda value: value.name if isinstance(value, Verdict) else type(value).__name__,
)
def test_what_an_error_means(error: Exception | None, verdict: Verdict) -> None:
    """Also if everything that a choice can allow is allowed."""
    assert Rules(60, "next", "next").judge(error) is verdict


def test_a_source_of_passwords_that_is_too_slow_is_no_dead_server() -> None:
    """The next server would ask the same one."""
    error = DeadlineExceededError("the command took too long")
    error.limit = "from_command"
    assert Rules(60, "raise", "raise").judge(error) is Verdict.STOP


class Switch:
    """A server that can be down: then it closes each session by 421."""

    def __init__(self, serve: Serve) -> None:
        self.is_down = False
        self.server = serve(
            honest(replies={"GREETING": self._or(b"220 mx.test\r\n"), "MAIL": self._or(b"250 ok\r\n")}), connections=500
        )

    def _or(self, good: bytes) -> Callable[[Peer, bytes], bytes]:
        return lambda *_: b"421 4.3.2 down\r\n" if self.is_down else good

    @property
    def counts(self) -> tuple[int, int]:
        """How many connections it had, and how many messages it has accepted."""
        return len(self.server.connections), len(self.server.accepted)


def test_threads_that_find_a_server_down_or_up_at_once_emit_one_event() -> None:
    """An alert is one, too: whatever step of the first thread the second one comes between."""
    seen = list[Event]()
    server = _servers.Server(SecureMailer("localhost", on_event=seen.append))

    def at_step(number: int, call: Callable[[], None]) -> bool:
        """Return whether *call* has so many steps; if so, another thread makes the same call before that one."""
        left = number

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            frame.f_trace_opcodes = frame.f_code.co_filename == _servers.__file__
            left -= event == "opcode"
            if left == -1:
                left = -2
                thread = threading.Thread(target=call)
                thread.start()
                thread.join()
            return trace

        before = sys.gettrace()
        # Python 3.12 looks for such a frame when it begins to trace.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
        return left < 0

    steps = 0
    # Of the two calls, that of a server that is down has more steps.
    while at_step(steps, lambda: server.note_down(None, ConnectError("x"), 60)):
        at_step(steps, server.note_up)
        steps += 1
    server.note_up()
    assert steps > 30
    assert [type(event) for event in seen] == [ServerDown, ServerUp] * (steps + 1)


def test_a_thread_that_comes_second_emits_nothing() -> None:
    """As above, for one step: another thread has noted the rest between the look and the entry."""
    seen = list[Event]()
    server = _servers.Server(SecureMailer("localhost", on_event=seen.append))

    class Contended(dict[Any, Any]):
        def setdefault(self, key: Any, value: Any = None) -> Any:
            self[key] = _servers.Rest(value.began, "of the other thread")
            return self[key]

    server._rests = Contended()
    server.note_down(None, ConnectError("x"), 60)
    assert (seen, server.rest and server.rest.reason) == ([], "of the other thread")


@pytest.mark.faces("failover")
def test_a_server_that_failed_rests_and_one_message_tries_it_then(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage, clock: Callable[[float], None]
) -> None:
    """It is used again when that has succeeded; the events say so once."""
    first, second, events = Switch(serve), serve(), list[Event]()
    mine = over(mailer(first.server, on_event=events.append), mailer(second), rest=60)
    first.is_down = True
    mine.send(message)
    mine.send(message)
    clock(59)
    mine.send(message)
    assert (first.counts, len(second.accepted)) == ((1, 0), 3)
    clock(2)
    mine.send(message)
    mine.send(message)
    assert (first.counts, len(second.accepted)) == ((2, 0), 5)
    first.is_down = False
    clock(61)
    mine.send(message)
    mine.send(message)
    assert (first.counts, len(second.accepted)) == ((3, 2), 5)
    said = [event for event in events if isinstance(event, ServerDown | ServerUp)]
    host, port = "localhost", first.server.port
    assert said == [ServerDown(host, port, 60, said[0].reason), ServerUp(host, port)]  # type: ignore[union-attr]
    assert str(said[0]).startswith(f"localhost:{port} is down, and not used for 60 s: ")
    assert str(said[1]) == f"localhost:{port} is up again"


def _send_at_once(mine: Failover, message: EmailMessage, count: int) -> list[object]:
    """Send *message* in so many threads, and return what each of them got."""
    barrier, ends = threading.Barrier(count), list[object]()

    def send() -> None:
        barrier.wait()
        try:
            ends.append(mine.send(message))
        except Exception as error:  # noqa: BLE001 -- looked at by the test
            ends.append(error)

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def test_a_hundred_threads_find_a_server_dead_and_back_and_dead(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage, clock: Callable[[float], None]
) -> None:
    """Only those with a connection of their own try a dead server; one tries a server that has rested (Q21)."""
    first, second = Switch(serve), serve(connections=500)
    mine = over(mailer(first.server), mailer(second))
    first.is_down = True
    ends = _send_at_once(mine, message, 100)
    assert [end for end in ends if isinstance(end, Exception)] == []
    assert 1 <= first.counts[0] <= 4
    tried = first.counts[0]
    clock(61)
    _send_at_once(mine, message, 100)
    assert first.counts == (tried + 1, 0)
    first.is_down = False
    clock(61)
    _send_at_once(mine, message, 100)
    assert first.counts[1] >= 1
    first.is_down = True
    ends = _send_at_once(mine, message, 100)
    assert [end for end in ends if isinstance(end, Exception)] == []
    assert first.counts[1] + len(second.accepted) == 400


@pytest.mark.faces("failover")
def test_if_all_servers_rest_the_one_that_has_rested_longest_is_tried_first(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage, clock: Callable[[float], None]
) -> None:
    """A message is tried at each of them; the error of the last has those of the others."""
    servers, events = [Switch(serve) for _ in range(3)], list[Event]()
    first, second, third = servers
    mine = over(*(mailer(each.server, on_event=events.append) for each in servers))

    def ports() -> list[int]:
        found = [event.port for event in events if isinstance(event, Failed)]
        events.clear()
        return found

    first.is_down = second.is_down = True
    mine.send(message)
    third.is_down = True
    with pytest.raises(ConnectError):
        mine.send(message)
    assert ports() == [each.server.port for each in (first, second, third, first, second)]
    clock(1)
    with pytest.raises(ConnectError) as caught:
        mine.send(message)
    order = [each.server.port for each in (third, first, second)]
    assert ports() == order
    assert [each.port for each in (*caught.value.earlier, caught.value)] == order
    assert {each.message_id for each in caught.value.earlier} == {caught.value.message_id}
    assert caught.value.retryable
    assert [note.partition(": ")[0] for note in caught.value.__notes__] == ["securesmtp"] * 2
    assert f"tried before: localhost:{order[0]}: " in caught.value.__notes__[0]
    # Whatever is back is found.
    first.is_down = False
    assert mine.send(message).accepted


@pytest.mark.faces("failover")
def test_an_error_is_retryable_if_an_earlier_server_may_take_the_message_later(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage
) -> None:
    """The last one refuses the login for good, but the first may be up in a minute. What is refused stays refused."""
    first = Switch(serve)
    first.is_down = True
    refuses = serve(_replies(AUTH=b"535 5.7.8 no\r\n"))
    with pytest.raises(AuthenticationError) as caught:
        over(mailer(first.server), mailer(refuses, username=LOGIN[0], password=LOGIN[1])).send(message)
    assert (caught.value.retryable, len(caught.value.earlier)) == (True, 1)
    spam = serve(_replies(CONTENT=b"554 5.7.1 spam\r\n"))
    with pytest.raises(DataRefusedError) as refused:
        over(mailer(first.server), mailer(spam, username=LOGIN[0], password=LOGIN[1])).send(message)
    assert (refused.value.retryable, len(refused.value.earlier)) == (False, 1)


@pytest.mark.faces("failover")
def test_a_deadline_is_that_of_all_servers_together(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage
) -> None:
    """The first one has taken all of the time, and rests; the next message has time for the second."""
    first, second = serve(_silent), serve()
    mine = over(mailer(first), mailer(second))
    with pytest.raises(DeadlineExceededError) as caught:
        mine.send(message, deadline=0.2)
    assert (caught.value.outcome, caught.value.port) == (Outcome.NOT_SENT, first.port)
    assert second.connections == []
    mine.send(message, deadline=30)
    assert len(second.accepted) == 1


@pytest.mark.faces("failover")
def test_a_mailer_without_a_free_connection_is_not_down(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage
) -> None:
    """If its own deadline ends before it has one, the next server gets the message."""
    arrived, go_on, events = threading.Event(), threading.Event(), list[Event]()

    def slow(*_: object) -> bytes:
        arrived.set()
        assert go_on.wait(30)
        return b"250 ok\r\n"

    first, second = serve(honest(replies={"CONTENT": slow})), serve()
    busy = mailer(first, max_connections=1, deadline=0.2, on_event=events.append)
    mine = over(busy, mailer(second))
    other = threading.Thread(target=lambda: busy.send(message, deadline=60))
    other.start()
    try:
        assert arrived.wait(30)
        mine.send(message)
    finally:
        go_on.set()
        other.join()
    assert (len(first.accepted), len(second.accepted)) == (1, 1)
    assert [event for event in events if isinstance(event, ServerDown)] == []


@pytest.mark.faces("failover")
def test_a_closed_failover_sends_nothing_over_the_next_server(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage
) -> None:
    """`close(timeout=0)` ends the send that is under way, and that is its error and its result."""
    arrived, second = threading.Event(), serve()

    def waits(peer: Peer) -> None:
        peer.start_tls()
        arrived.set()
        peer.sleep_until_peer_closes()

    mine = over(mailer(serve(waits)), mailer(second))
    ends = list[object]()

    def send() -> None:
        try:
            mine.send(message)
        except SecureSMTPError as error:
            ends.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    assert arrived.wait(30)
    (closed,) = mine.close(timeout=0)
    thread.join()
    (error,) = ends
    assert isinstance(error, ConnectError)
    assert (closed.index, closed.outcome, str(closed.error)) == (0, Outcome.NOT_SENT, str(error))
    assert second.connections == []
    with pytest.raises(ConfigurationError, match="closed"):
        mine.send(message)
    with pytest.raises(ConfigurationError, match="closed"):
        mine.send_many([message])


@pytest.mark.faces("failover")
def test_all_servers_are_closed_within_one_time(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage
) -> None:
    """One that has nothing to wait for is closed at once; a wrong time closes nothing."""
    first, second = serve(), serve()
    mine = over(mailer(first), mailer(second))
    mine.send(message)
    with pytest.raises(ConfigurationError, match="timeout"):
        mine.close(timeout=-1)
    mine.send(message)
    assert [(each.accepted, each.open) for each in mine.stats()] == [(2, 1), (0, 0)]
    assert mine.close(timeout=30) == ()
    assert [each.open for each in mine.stats()] == [0, 0]


@pytest.mark.faces("failover")
def test_the_smallest_number_of_recipients_counts(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage
) -> None:
    """Before anything is sent: otherwise it would depend on which server is up."""
    first = serve()
    mine = over(mailer(first), mailer(serve(), max_recipients=1))
    with pytest.raises(MessageError, match="2 recipients"):
        mine.send(message)
    assert first.connections == []


def test_a_failover_closes_its_mailers(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """At the end of its block."""
    server = serve()
    with Failover([mailer(server)]) as mine:
        mine.send(message)
        (mailed,) = mine.mailers
        assert repr(mine) == f"<Failover localhost:{server.port}>"
    with pytest.raises(ConfigurationError, match="closed"):
        mailed.send(message)


@pytest.mark.faces("failover")
def test_a_check_of_all_servers_says_what_each_would_do(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage
) -> None:
    """One that can be used rests no longer; a refused login is in the report, and is no use."""
    first, refuses, events = Switch(serve), serve(_replies(AUTH=b"535 5.7.8 no\r\n")), list[Event]()
    login: dict[str, Any] = {"username": LOGIN[0], "password": LOGIN[1]}
    mine = over(mailer(first.server, on_event=events.append), mailer(refuses, **login), on_login_refused="next")
    first.is_down = True
    with pytest.raises(AuthenticationError):
        mine.send(message)
    down, report = mine.check()
    assert isinstance(down, ConnectError)
    assert isinstance(report, ServerReport)
    assert report.login is False
    assert [event for event in events if isinstance(event, ServerUp)] == []
    first.is_down = False
    assert isinstance(mine.check()[0], ServerReport)
    assert len([event for event in events if isinstance(event, ServerUp)]) == 1
    mine.send(message)
    assert first.counts[1] == 1


def test_the_servers_can_be_given_as_urls(serve: Serve, ca_file: Path, message: EmailMessage) -> None:
    """The options are those of all mailers."""
    gone, good = serve(), serve()
    gone.stop()
    urls = [f"smtps://localhost:{each.port}" for each in (gone, good)]
    with Failover.from_urls(urls, ca_file=ca_file, timeout=5) as mine:
        mine.send(message)
    assert len(good.accepted) == 1


@pytest.mark.parametrize("kind", [Failover, AsyncFailover])
def test_the_servers_can_be_in_the_environment(kind: type[Failover], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several URLs in one variable; the other variables are for all of them. No error shows a password."""
    with pytest.raises(ConfigurationError, match="MY_URL is not set"):
        kind.from_env("MY_")
    monkeypatch.setenv("MY_URL", "smtps://me:secret@a.example  smtp+starttls://me:secret@b.example\n")
    monkeypatch.setenv("MY_TIMEOUT", "7")
    mine = kind.from_env("MY_", rest=5, max_connections=2)
    settings = [each._core.settings for each in mine.mailers]
    assert [(each.host, each.port, each.timeouts.connect, each.max_connections) for each in settings] == [
        ("a.example", 465, 7, 2),
        ("b.example", 587, 7, 2),
    ]
    monkeypatch.setenv("MY_URL", "smtps://me:secret@a.example smtps://me:sec@ret@b.example")
    with pytest.raises(ConfigurationError, match="MY_URL has an @") as caught:
        kind.from_env("MY_")
    assert "ret@" not in str(caught.value)


@pytest.mark.parametrize("kind", [Failover, AsyncFailover])
def test_wrong_arguments_are_refused(kind: type[Failover]) -> None:
    """With what to do instead."""
    mailers: list[Any] = [(SecureMailer if kind is Failover else AsyncSecureMailer)(host) for host in ("a", "b")]
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "there is no mailer"),
        ([mailers[0], mailers[0]], {}, "a mailer is there twice"),
        (["smtps://mail.example.com"], {}, "a mailer is a str, not a .* from_urls"),
        (mailers, {"rest": 0}, "rest"),
        (mailers, {"on_refusal": "skip"}, 'on_refusal is \'skip\', neither "raise" nor "next"'),
        (mailers, {"on_login_refused": True}, "on_login_refused is True"),
    ]
    for wrong, options, text in cases:
        with pytest.raises(ConfigurationError, match=text):
            kind(wrong, **options)
    for urls in ("smtps://mail.example.com", 7):
        with pytest.raises(ConfigurationError, match="not a list of URLs"):
            kind.from_urls(urls)  # type: ignore[arg-type]
    assert [each._core.settings.host for each in kind.from_urls(["smtps://a.example"], timeout=5).mailers] == [
        "a.example"
    ]


def test_an_ehlo_that_ends_the_session_lets_no_server_rest(serve: Serve, mailer: Mailer, over: Over) -> None:
    """It is asked after the login for one message; an address from a stranger must not take the server out."""

    def offers(peer: Peer, _: bytes) -> bytes:
        is_first = b"AUTH" not in peer.log.secret
        return b"250-mx.test\r\n250 AUTH PLAIN\r\n" if is_first else b"421 4.3.2 bye\r\n"

    first, second = serve(_replies(EHLO=offers)), serve(honest(auth=LOGIN))
    login = {"username": LOGIN[0], "password": LOGIN[1]}
    failover = over(mailer(first, **login), mailer(second, **login))
    data = b"Subject: x\r\n\r\nx\r\n"
    with pytest.raises(MessageError, match="SMTPUTF8"):
        failover.send_bytes(data, mail_from="alice@a.example", recipients=["jörg@b.example"])
    failover.send_bytes(data, mail_from="alice@a.example", recipients=["bob@b.example"])
    assert (len(first.accepted), len(second.connections)) == (1, 0)
