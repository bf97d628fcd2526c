"""`send_many` with a ledger: what is sent, what is not, and what the ledger says afterwards."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from email.message import EmailMessage
from typing import Any

import pytest

from conftest import Mailer, Run, Serve
from memory_ledger import AdvancingLedger, MemoryLedger
from scripted import Peer, Script, ScriptedServer, honest
from securesmtp import (
    ConfigurationError,
    ConnectError,
    Envelope,
    LedgerError,
    MessageError,
    Outcome,
    OutcomeUnknownError,
    SendResult,
    Window,
)
from securesmtp._bulk.claims import Claims
from securesmtp._submissions import entry_digest
from securesmtp.ledger import Entry, Item, State
from securesmtp.testing import AsyncRecordingMailer, RecordingMailer

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = Outcome.ACCEPTED, Outcome.REFUSED, Outcome.NOT_SENT, Outcome.UNKNOWN
OFFER = ("PIPELINING", "8BITMIME", "CHUNKING")
pytestmark = pytest.mark.faces("ledger", sample=(5, 2))
modes = pytest.mark.parametrize("pipelining", ["message", "session"])


def mails(count: int, text: bytes = b"") -> Iterator[Envelope]:
    """Return messages whose key is their Message-ID, and whose subject is their number."""
    for number in range(count):
        yield mail(number, text)


def mail(number: int, text: bytes = b"") -> Envelope:
    """Return one of them."""
    head = b"Subject: %d\r\nMessage-ID: <%d@x>\r\n\r\n" % (number, number)
    return Envelope("a@b.example", ["c@d.example"], head + text)


def letter(subject: str = "Hello") -> EmailMessage:
    """Return a message without a Message-ID."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@b.example", "c@d.example", subject
    message.set_content("text")
    return message


def arrived(server: ScriptedServer) -> list[int]:
    """Return the numbers of the messages that the server accepted, each as often as it did."""
    return sorted(int(each.content.split(b"\r\n")[0].removeprefix(b"Subject: ")) for each in server.accepted)


def replies(*codes: bytes) -> Script:
    """Return a server that gives these replies to the contents, one after the other; b"" is a cut."""
    left, lock = list(codes), threading.Lock()

    def reply(peer: Peer, content: bytes) -> bytes:
        with lock:
            now = left.pop(0) if len(left) > 1 else left[0]
        if not now:
            peer.cut()
            peer.sleep_until_peer_closes()
        return now

    return scripted(reply)


def scripted(reply: Callable[[Peer, bytes], bytes] | bytes = b"250 2.0.0 ok\r\n") -> Script:
    """Return a server that gives this reply to each content."""
    return honest(extensions=OFFER, replies={"CONTENT": reply})


def outcomes(results: Iterator[SendResult]) -> list[Outcome]:
    """Return the outcome of each."""
    return [result.outcome for result in results]


@modes
def test_a_second_run_sends_nothing_again(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """It returns the results of the first one, without opening a connection."""
    server, ledger = serve(scripted(), overlaps=True), MemoryLedger()
    with mailer(server, pipelining=pipelining) as mine:
        first = list(mine.send_many(mails(40), ledger=ledger))
    connections = len(server.connections)
    with mailer(server, pipelining=pipelining) as mine:
        second = list(mine.send_many(mails(40), ledger=ledger))
    assert arrived(server) == list(range(40))
    assert len(server.connections) == connections
    assert [result.receipt for result in second] == [result.receipt for result in first]
    assert [result.index for result in second] == list(range(40))
    assert [result.from_ledger for result in first + second] == [False] * 40 + [True] * 40


@modes
def test_a_message_is_claimed_before_anything_of_it_is_written(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """The server asks the ledger when the content comes, and the reader sees no result that the ledger lacks."""
    ledger, seen = MemoryLedger(), list[State]()
    is_written, is_wrong = threading.Event(), threading.Event()

    def slowly(name: str) -> None:
        if name == "finish":
            # In the middle of it, the reader looks.
            is_written.set()
            is_wrong.wait(0.02)
            is_written.clear()

    ledger.before = slowly

    def reply(peer: Peer, content: bytes) -> bytes:
        number = content.split(b"\r\n")[0].removeprefix(b"Subject: ").decode()
        seen.append(ledger.states()[f"<{number}@x>"])
        return b"250 2.0.0 ok\r\n"

    server = serve(scripted(reply), overlaps=True)
    results = mailer(server, pipelining=pipelining, max_connections=2).send_many(mails(12), ledger=ledger)
    for result in results:
        if ledger._entries[f"<{result.index}@x>"].state is not State.ACCEPTED:
            is_wrong.set()
        is_written.wait(0.1)
    assert not is_wrong.is_set()
    assert seen == [State.CLAIMED] * 12


def test_no_message_is_claimed_before_there_is_a_connection_for_it(serve: Serve, mailer: Mailer) -> None:
    """If the process is killed, no more are doubtful than it has connections."""
    ledger, most = MemoryLedger(), list[int]()

    def reply(peer: Peer, content: bytes) -> bytes:
        most.append(list(ledger.states().values()).count(State.CLAIMED))
        return b"250 2.0.0 ok\r\n"

    list(mailer(serve(scripted(reply), overlaps=True), max_connections=3).send_many(mails(30), ledger=ledger))
    assert max(most) <= 3


# A task reads the next message while a thread claims the last one.
@pytest.mark.faces("ledger", threads_only=True)
def test_with_many_in_flight_a_window_is_claimed_at_a_time(serve: Serve, mailer: Mailer) -> None:
    """One commit of the database serves many messages."""
    server, ledger = serve(scripted(), overlaps=True), MemoryLedger()
    options = {"pipelining": "session", "window": Window(messages=16), "max_connections": 1}
    list(mailer(server, **options).send_many(mails(64), ledger=ledger))
    claims = [len(keys) for name, keys in ledger.calls if name == "claim"]
    assert sum(claims) == 64
    assert len(claims) <= 64 // 8
    assert max(claims) <= 16


# As above.
@pytest.mark.faces("ledger", threads_only=True)
@modes
def test_a_ledger_that_can_writes_ends_and_claims_in_one_commit(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """Each message is claimed once, before it is sent, and its end is written once."""
    has_more = threading.Event()

    def messages() -> Iterator[Envelope]:
        for number, each in enumerate(mails(40)):
            # Two are being sent, and the third one waits.
            if number == 3:
                has_more.set()
            yield each

    def reply(peer: Peer, content: bytes) -> bytes:
        has_more.wait(30)
        return b"250 2.0.0 ok\r\n"

    server, ledger = serve(scripted(reply), overlaps=True), AdvancingLedger()
    options = {"pipelining": pipelining, "window": Window(messages=4), "max_connections": 2}
    results = list(mailer(server, **options).send_many(messages(), ledger=ledger))
    assert outcomes(iter(results)) == [ACCEPTED] * 40
    assert arrived(server) == list(range(40))
    assert set(ledger.states().values()) == {State.ACCEPTED}
    # A claim and an end for each.
    assert Counter(key for _, keys in ledger.calls for key in keys) == {f"<{number}@x>": 2 for number in range(40)}
    assert "advance" in {name for name, _ in ledger.calls}


@modes
@pytest.mark.parametrize("number", [0, 2])
def test_a_commit_of_both_that_fails_hides_no_result(
    serve: Serve, mailer: Mailer, pipelining: str, number: int
) -> None:
    """What was sent has its result, which is written later; what was to be claimed is not sent."""
    server, ledger, results = serve(scripted(), overlaps=True), AdvancingLedger(), list[SendResult]()
    ledger.before = _fails("advance", number, LedgerError("locked"))
    options = {"pipelining": pipelining, "window": Window(messages=4), "max_connections": 1}
    run = mailer(server, **options).send_many(mails(60), ledger=ledger)
    with pytest.raises(LedgerError, match="locked"):
        results.extend(run)
    results.extend(run)
    sent = [result.index for result in results if result.outcome is ACCEPTED]
    assert arrived(server) == sent
    assert sent
    for result in results:
        assert result.outcome is ACCEPTED or (isinstance(result.error, LedgerError) and result.retryable)
        assert ledger.states().get(f"<{result.index}@x>", State.NOT_SENT).value in {result.outcome.value, "prepared"}
    ledger.before = lambda _: None
    list(mailer(server).send_many(mails(60), ledger=ledger))
    assert arrived(server) == list(range(60))


OLD = {
    "accepted": (State.ACCEPTED, ACCEPTED, None),
    "prepared": (State.PREPARED, NOT_SENT, "did not let this run claim it"),
    "unknown": (State.UNKNOWN, UNKNOWN, "may have been delivered"),
    "claimed": (State.CLAIMED, UNKNOWN, "in progress"),
}


@pytest.mark.parametrize("old", OLD)
def test_what_an_entry_says_without_a_result(serve: Serve, mailer: Mailer, old: str) -> None:
    """Nothing is sent: not even a connection is opened."""
    state, outcome, text = OLD[old]
    server, ledger = serve(), MemoryLedger()
    # Such a ledger lets nobody send for now.
    ledger.resend -= {State.PREPARED}
    ledger.prepare([Item("<0@x>", entry_digest(mail(0)), "<0@x>")])
    ledger.reconcile("<0@x>", state)
    (result,) = mailer(server).send_many([mail(0)], ledger=ledger)
    assert (result.outcome, result.from_ledger, result.retryable) == (outcome, True, False)
    assert result.message_id == "<0@x>"
    assert (result.error is None) if text is None else (text in str(result.error))
    assert not isinstance(result.error, ConnectionError | TimeoutError)
    assert not server.connections


@pytest.mark.parametrize(
    ("reply", "outcome", "again"),
    [
        pytest.param(b"451 4.3.0 later\r\n", REFUSED, True, id="temporary"),
        pytest.param(b"550 5.7.1 never\r\n", REFUSED, False, id="permanent"),
        pytest.param(b"", UNKNOWN, False, id="unknown"),
    ],
)
@modes
def test_what_is_tried_again(  # noqa: PLR0913 -- fixtures and a row
    serve: Serve, mailer: Mailer, reply: bytes, outcome: Outcome, pipelining: str, *, again: bool
) -> None:
    """Only what was certainly not accepted, and may be accepted now."""
    server, ledger = serve(replies(reply, b"250 2.0.0 ok\r\n"), overlaps=True), MemoryLedger()
    (first,) = mailer(server, pipelining=pipelining).send_many([mail(0)], ledger=ledger)
    assert first.outcome is outcome
    (second,) = mailer(server, pipelining=pipelining).send_many([mail(0)], ledger=ledger)
    assert second.outcome is (ACCEPTED if again else outcome)
    assert len(server.accepted) == again
    assert again or str(second.error) == str(first.error)


def test_what_the_ledger_is_told_to_send_again_is_sent(serve: Serve, mailer: Mailer) -> None:
    """The ledger decides, and the second copy has the Message-ID of the first."""
    server, ledger = serve(replies(b"", b"250 2.0.0 ok\r\n"), overlaps=True), MemoryLedger(resend=[State.UNKNOWN])
    envelopes = [Envelope("a@b.example", ["c@d.example"], letter(), key="invoice 7") for _ in range(2)]
    results = [next(mailer(server).send_many([each], ledger=ledger)) for each in envelopes]
    assert [result.outcome for result in results] == [UNKNOWN, ACCEPTED]
    assert results[0].message_id == results[1].message_id
    assert str(results[0].message_id).encode() in server.accepted[0].content


@pytest.mark.parametrize(
    ("resend", "reply"),
    [
        pytest.param([], None, id="not claimed"),
        pytest.param([State.UNKNOWN], None, id="no server"),
        pytest.param([State.UNKNOWN], b"451 4.3.0 later\r\n", id="refused"),
    ],
)
@modes
def test_what_may_have_been_delivered_stays_unknown(
    serve: Serve, mailer: Mailer, resend: list[State], reply: bytes | None, pipelining: str
) -> None:
    """A second try that fails says nothing about the first; nor does a run that ends before it claims the message."""
    server, ledger, results = (
        serve(scripted(reply or b""), overlaps=True),
        MemoryLedger(resend=resend),
        list[SendResult](),
    )
    ledger.prepare([Item(f"<{number}@x>", entry_digest(mail(number)), f"<{number}@x>") for number in range(1, 7)])
    for number in range(1, 7):
        ledger.reconcile(f"<{number}@x>", State.UNKNOWN)
    if reply is None:
        server.stop()
    options = {"max_connections": 2, "max_connect_failures": 1, "pipelining": pipelining, "window": Window(messages=2)}
    has_read = threading.Event()

    def messages() -> Iterator[Envelope]:
        yield from mails(2)
        has_read.set()
        yield from (mail(number) for number in range(2, 7))

    def fail(name: str) -> None:
        if name == "claim":
            has_read.wait(10)
            raise LedgerError("locked")

    if not resend:
        ledger.before = fail
    with suppress(LedgerError):
        results.extend(mailer(server, **options).send_many(messages(), ledger=ledger))
    assert [result.outcome for result in results[1:]] == [UNKNOWN] * (len(results) - 1)
    assert len(results) > 1
    for result in results[1:]:
        assert (result.from_ledger, result.retryable) == (True, False)
        assert isinstance(result.error, OutcomeUnknownError)
        assert result.error.message_id == f"<{result.index}@x>"
    assert {key: state for key, state in ledger.states().items() if key != "<0@x>"} == {
        f"<{number}@x>": State.UNKNOWN for number in range(1, 7)
    }


@pytest.mark.parametrize("given", [None, "<mine@x>", "<other@x>", "no id"])
def test_each_try_has_the_message_id_of_the_first(serve: Serve, mailer: Mailer, given: str | None) -> None:
    """Also if the program sets another one the next time; other headers are not touched."""
    server, ledger = serve(replies(b"451 4.3.0 later\r\n", b"250 2.0.0 ok\r\n"), overlaps=True), MemoryLedger()
    first, second = letter(), letter()
    first["Message-ID"] = "<mine@x>"
    if given is not None:
        second["Message-ID"] = given
    for message in (first, second):
        list(mailer(server).send_many([Envelope("a@b.example", ["c@d.example"], message, "k")], ledger=ledger))
    head = server.accepted[0].content.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line for line in head if line.lower().startswith(b"message-id:")] == [b"Message-ID: <mine@x>"]
    assert second["Message-ID"] == given


def test_an_odd_message_id_is_left_as_it_is(serve: Serve, mailer: Mailer) -> None:
    """It cannot be written into another message as the ledger keeps it: printable, and perhaps cut."""
    server, ledger = serve(replies(b"451 4.3.0 later\r\n", b"250 2.0.0 ok\r\n"), overlaps=True), MemoryLedger()
    for _ in range(2):
        message = letter()
        message["Message-ID"] = "not an id"
        list(mailer(server).send_many([message], ledger=ledger))
    assert list(ledger.states()) == ["not an id"]
    assert b"\r\nMessage-ID: not an id\r\n" in server.accepted[0].content


def test_a_first_message_id_that_cannot_be_written_again_is_named(serve: Serve, mailer: Mailer) -> None:
    """The hint says what to do."""
    server, ledger = serve(scripted(b"451 4.3.0 later\r\n"), overlaps=True), MemoryLedger()
    for odd in ("odd", "another"):
        message = letter()
        message["Message-ID"] = odd
        envelope = Envelope("a@b.example", ["c@d.example"], message, "k")
        (result,) = mailer(server).send_many([envelope], ledger=ledger)
    assert (result.outcome, ledger.states()) == (NOT_SENT, {"k": State.NOT_SENT})
    assert isinstance(result.error, LedgerError)
    assert "Message-ID 'odd'" in str(result.error)
    assert result.error.hint


@pytest.mark.parametrize(
    "envelope",
    [
        pytest.param(letter(), id="message"),
        pytest.param(Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n"), id="bytes"),
        pytest.param(Envelope("a@b.example", ["c@d.example"], io.BytesIO(b"Subject: x\r\n\r\n")), id="file"),
        pytest.param(Envelope("a@b.example", ["c@d.example"], letter(), key=""), id="empty"),
        pytest.param(Envelope("a@b.example", ["c@d.example"], letter(), key="x" * 1000), id="long"),
        pytest.param(Envelope("a@b.example", ["c@d.example"], letter(), key="\udcff"), id="no text"),
        pytest.param(Envelope("a@b.example", ["c@d.example"], letter(), key=7), id="int"),  # type: ignore[arg-type]
    ],
)
def test_a_message_without_a_key_is_not_sent(serve: Serve, mailer: Mailer, envelope: Any) -> None:
    """The hint says what to write; the others are sent."""
    server, ledger = serve(), MemoryLedger()
    bad, good = mailer(server).send_many([envelope, mail(1)], ledger=ledger)
    assert (bad.outcome, bad.from_ledger, good.outcome) == (NOT_SENT, False, ACCEPTED)
    assert isinstance(bad.error, MessageError)
    assert bad.error.hint
    assert arrived(server) == [1]


def test_a_missing_key_is_explained(serve: Serve, mailer: Mailer) -> None:
    """Both ways to give one are in the hint."""
    (result,) = mailer(serve()).send_many([letter()], ledger=MemoryLedger())
    assert "Message-ID" in str(result.error)
    assert "key=" in str(result.error)


@pytest.mark.parametrize("state", [State.ACCEPTED, State.UNKNOWN, State.CLAIMED, State.PREPARED])
def test_the_same_key_with_other_content_is_an_error(serve: Serve, mailer: Mailer, state: State) -> None:
    """It is checked before anything else (PITFALLS-1, Q17)."""
    server, ledger = serve(), MemoryLedger()
    list(RecordingMailer().send_many([mail(0)], ledger=ledger))
    ledger.reconcile("<0@x>", state)
    (result,) = mailer(server).send_many([mail(0, b"more")], ledger=ledger)
    assert result.outcome is NOT_SENT
    assert isinstance(result.error, MessageError)
    assert "other content" in str(result.error)
    assert (result.message_id, result.error.message_id, result.from_ledger) == ("<0@x>", "<0@x>", False)
    assert not server.connections
    assert ledger.states() == {"<0@x>": state}


@pytest.mark.parametrize("reply", [b"451 4.3.0 later\r\n", b"550 5.7.1 never\r\n"])
def test_a_refused_message_may_be_corrected(serve: Serve, mailer: Mailer, reply: bytes) -> None:
    """Nothing of the first one was delivered."""
    server, ledger = serve(replies(reply, b"250 2.0.0 ok\r\n"), overlaps=True), MemoryLedger()
    assert outcomes(mailer(server).send_many([mail(0)], ledger=ledger)) == [REFUSED]
    assert outcomes(mailer(server).send_many([mail(0, b"more")], ledger=ledger)) == [ACCEPTED]


@modes
def test_a_key_twice_in_one_run_is_sent_once(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """The second has the result of the first; with other content, it is an error."""
    server, ledger = serve(scripted(), overlaps=True), MemoryLedger()
    messages = [mail(0), mail(0), mail(1), mail(0), mail(1, b"other"), mail(2), mail(0)]
    results = list(mailer(server, pipelining=pipelining).send_many(messages, ledger=ledger))
    assert [result.index for result in results] == list(range(7))
    assert [result.outcome for result in results] == [ACCEPTED] * 4 + [NOT_SENT] + [ACCEPTED] * 2
    assert [result.from_ledger for result in results] == [False, True, False, True, False, False, True]
    assert {result.receipt for result in results if result.message_id == "<0@x>"} == {results[0].receipt}
    assert arrived(server) == [0, 1, 2]


def test_two_runs_at_the_same_time_send_each_message_once(serve: Serve, mailer: Mailer) -> None:
    """What one is sending is in progress for the other (PITFALLS-1, Q6, Q17)."""
    server = serve(scripted(), overlaps=True, connections=64)
    ledger, together = MemoryLedger(), threading.Barrier(8)
    found: list[list[SendResult]] = []

    def run() -> None:
        together.wait(10)
        found.append(list(mailer(server).send_many(mails(25), ledger=ledger)))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert arrived(server) == list(range(25))
    for results in zip(*found, strict=True):
        assert [result.outcome for result in results if not result.from_ledger] == [ACCEPTED]
        for result in results:
            assert result.outcome is ACCEPTED or "in progress" in str(result.error)


def test_a_message_that_another_run_holds_is_in_progress(serve: Serve, mailer: Mailer) -> None:
    """Its outcome is unknown until the other run has its end, and it is not retryable."""
    go, reached, ledger = threading.Event(), threading.Event(), MemoryLedger()

    def reply(peer: Peer, content: bytes) -> bytes:
        reached.set()
        go.wait(10)
        return b"250 2.0.0 ok\r\n"

    server, found = serve(scripted(reply), overlaps=True), list[SendResult]()
    other = threading.Thread(target=lambda: found.extend(mailer(server).send_many([mail(0)], ledger=ledger)))
    other.start()
    reached.wait(10)
    (waiting,) = mailer(server).send_many([mail(0)], ledger=ledger)
    go.set()
    other.join(10)
    assert (waiting.outcome, waiting.retryable) == (UNKNOWN, False)
    assert isinstance(waiting.error, OutcomeUnknownError)
    assert [result.outcome for result in found] == [ACCEPTED]
    assert outcomes(mailer(server).send_many([mail(0)], ledger=ledger)) == [ACCEPTED]
    assert arrived(server) == [0]


def test_two_runs_that_made_a_message_id_each_use_one(serve: Serve, mailer: Mailer) -> None:
    """The second one, which has read the message before, does not send it under another one."""
    server, ledger = serve(), MemoryLedger()

    def first(name: str) -> None:
        if name == "claim":
            ledger.before = lambda _: None
            dead = mailer(server, ca_file=None, max_connect_failures=1)
            list(dead.send_many([Envelope("a@b.example", ["c@d.example"], letter(), "k")], ledger=ledger))

    ledger.before = first
    (result,) = mailer(server).send_many([Envelope("a@b.example", ["c@d.example"], letter(), "k")], ledger=ledger)
    assert (result.outcome, result.retryable) == (NOT_SENT, True)
    assert isinstance(result.error, LedgerError)
    assert ledger.states() == {"k": State.NOT_SENT}
    assert not server.accepted
    (again,) = mailer(server).send_many([Envelope("a@b.example", ["c@d.example"], letter(), "k")], ledger=ledger)
    assert again.message_id == next(ledger.entries()).message_id


class FailingError(Exception):
    """What a driver of a database raises."""


def _fails(at: str, number: int, error: Exception) -> Callable[[str], None]:
    left = [number]

    def before(name: str) -> None:
        if name == at:
            left[0] -= 1
            if left[0] < 0:
                raise error

    return before


@pytest.mark.faces("ledger")
def test_a_mistake_in_the_claims_is_raised_where_the_results_are_read(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends, and does not hang."""

    def fail(*_: object) -> None:
        raise IndexError(7)

    monkeypatch.setattr(Claims, "advance", fail)
    server = serve()
    with pytest.raises(IndexError, match="7"):
        list(mailer(server).send_many(mails(2), ledger=MemoryLedger()))
    assert not server.accepted


ERRORS = [
    pytest.param(LedgerError("the disk is full", hint="make room"), id="ledger"),
    pytest.param(FailingError("secret"), id="driver"),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("at", ["look_up", "claim", "finish"])
@pytest.mark.parametrize("number", [0, 3])
@modes
def test_a_ledger_that_fails_ends_the_run(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve, mailer: Mailer, at: str, number: int, error: Exception, pipelining: str
) -> None:
    """Every result before that is true, nothing is sent without a claim, and the error comes last."""
    server, ledger, results = serve(scripted(), overlaps=True), MemoryLedger(), list[SendResult]()
    ledger.before = _fails(at, number, error)
    window = Window(messages=4)
    run = mailer(server, max_connections=2, pipelining=pipelining, window=window).send_many(mails(60), ledger=ledger)
    with pytest.raises(LedgerError) as raised:
        results.extend(run)
    while (rest := next(run, None)) is not None:
        results.append(rest)
    ledger.before = lambda _: None
    assert raised.value is error or (raised.value.__cause__ is error and "secret" not in str(raised.value))
    # No more messages were read than needed.
    assert len(results) < 50
    assert [result.index for result in results] == list(range(len(results)))
    sent = [result.index for result in results if result.outcome is ACCEPTED]
    assert arrived(server) == sent
    for result in results:
        if result.outcome is not ACCEPTED:
            assert (result.outcome, result.retryable) == (NOT_SENT, True)
            assert isinstance(result.error, LedgerError)
            assert result.error.message_id == f"<{result.index}@x>"
    # What was sent was claimed, so a next run sends it at most if the ledger says so.
    states = ledger.states()
    assert all(states[f"<{index}@x>"] in {State.ACCEPTED, State.CLAIMED} for index in sent)
    assert at == "finish" or all(states[f"<{index}@x>"] is State.ACCEPTED for index in sent)
    again = list(mailer(server).send_many(mails(60), ledger=ledger))
    assert arrived(server) == list(range(60))
    assert all(result.outcome is ACCEPTED or "in progress" in str(result.error) for result in again)


def test_a_ledger_that_fails_once_gets_the_end_with_the_next_one(serve: Serve, mailer: Mailer) -> None:
    """The run ends, and what it was sending is finished and written."""
    server, ledger = serve(), MemoryLedger()
    failing = _fails("finish", 0, LedgerError("locked"))

    def once(name: str) -> None:
        if name == "finish":
            ledger.before = lambda _: None
        failing(name)

    ledger.before = once
    results = list[SendResult]()
    with pytest.raises(LedgerError, match="locked"):
        results.extend(mailer(server, max_connections=2).send_many(mails(20), ledger=ledger))
    sent = [result.index for result in results if result.outcome is ACCEPTED]
    assert sent == arrived(server)
    # Although the ledger could be written again, nothing more is sent.
    names = [name for name, _ in ledger.calls]
    assert "claim" not in names[names.index("finish") :]
    # The first end is written with a later one, if there was one.
    assert list(ledger.states().values()).count(State.CLAIMED) in {0, len(sent)}


def test_a_run_that_was_ended_by_an_outage_claims_no_more(serve: Serve, mailer: Mailer) -> None:
    """The rest of the messages costs the ledger nothing, and may be sent by the next run."""
    ledger = MemoryLedger()
    server = serve()
    server.stop()
    results = list(mailer(server, max_connections=2, max_connect_failures=2).send_many(mails(50), ledger=ledger))
    assert [result.outcome for result in results] == [NOT_SENT] * 50
    assert all(isinstance(result.error, ConnectError) and result.retryable for result in results)
    assert State.CLAIMED not in ledger.states().values()
    assert len(ledger.states()) < 10


def test_a_send_takes_no_longer_than_the_ledger_allows(serve: Serve, mailer: Mailer) -> None:
    """A claim without an end that is older than that cannot still be sending."""
    go = threading.Event()
    go.set()

    def reply(peer: Peer, content: bytes) -> bytes:
        go.wait(30)
        return b"250 2.0.0 ok\r\n"

    mine = mailer(serve(scripted(reply), overlaps=True))
    # The connection is open before the time begins.
    assert [each.outcome for each in mine.send_many([mail(1)])] == [Outcome.ACCEPTED]
    go.clear()
    (late,) = mine.send_many([mail(0)], ledger=MemoryLedger(longest_send=1.5), deadline=30)
    assert isinstance(late.error, OutcomeUnknownError)
    assert "1.5 s" in str(late.error)
    (early,) = mine.send_many([mail(0)], ledger=MemoryLedger(longest_send=30), deadline=0.3)
    assert "0.3 s" in str(early.error)
    go.set()


def test_leaving_the_loop_early_gives_claims_back(serve: Serve, mailer: Mailer) -> None:
    """With many in flight, more may be claimed than were begun."""
    server, ledger = serve(scripted(), overlaps=True), MemoryLedger()
    options = {"pipelining": "session", "window": Window(messages=8), "max_connections": 2}
    run = mailer(server, **options).send_many(mails(200), ledger=ledger)
    next(run)
    run.close()
    results = list(run)
    states = ledger.states()
    assert State.CLAIMED not in states.values()
    assert [number for number in range(200) if states.get(f"<{number}@x>") is State.ACCEPTED] == arrived(server)
    for result in results:
        assert states.get(f"<{result.index}@x>", State.PREPARED).value in {result.outcome, "prepared"}


@pytest.mark.parametrize("ledger", ["a.ledger", object(), MemoryLedger(longest_send=0)])
def test_what_is_no_ledger_is_refused_at_the_call(serve: Serve, mailer: Mailer, ledger: Any) -> None:
    """A path is not opened as one."""
    mine = mailer(serve())
    with pytest.raises(ConfigurationError, match="ledger"):
        mine.send_many([], ledger=ledger)
    with pytest.raises(ConfigurationError, match="ledger"):
        RecordingMailer().send_many([], ledger=ledger)


def test_a_recording_mailer_uses_a_ledger_too() -> None:
    """So a program that has one is tested without a server."""
    ledger, mine = MemoryLedger(), RecordingMailer(refuse=["no@d.example"])
    bad = Envelope("a@b.example", ["no@d.example"], b"Message-ID: <bad@x>\r\n\r\n")
    assert outcomes(mine.send_many([mail(0), bad, letter(), mail(0)], ledger=ledger)) == [
        ACCEPTED,
        REFUSED,
        NOT_SENT,
        ACCEPTED,
    ]
    assert len(mine.messages) == 1
    ledger.before = _fails("claim", 0, LedgerError("locked"))
    results = list[SendResult]()
    with pytest.raises(LedgerError, match="locked"):
        results.extend(mine.send_many(mails(9), ledger=ledger))
    assert [result.outcome for result in results] == [ACCEPTED, NOT_SENT]


def test_a_recording_mailer_raises_what_its_caller_interrupts() -> None:
    """As without a ledger."""

    def strike(_: object) -> None:
        raise KeyboardInterrupt

    ledger = MemoryLedger()
    with pytest.raises(KeyboardInterrupt):
        list(RecordingMailer(on_event=strike).send_many([mail(0)], ledger=ledger))
    # The mailer does not know any more whether it has kept the message.
    assert ledger.states() == {"<0@x>": State.UNKNOWN}


def test_without_a_ledger_a_key_means_nothing(serve: Serve, mailer: Mailer) -> None:
    """Nothing is compared, and nothing of the ledger is imported."""
    server = serve()
    both = [Envelope("a@b.example", ["c@d.example"], b"Subject: 0\r\n\r\n", key="k")] * 2
    assert outcomes(mailer(server).send_many(both)) == [ACCEPTED, ACCEPTED]


def test_an_async_recording_mailer_uses_a_ledger_too(run: Run) -> None:
    """As the one for threads."""
    ledger = MemoryLedger()

    async def main() -> list[SendResult]:
        mine = AsyncRecordingMailer()
        return [result async for result in mine.send_many([mail(0), mail(0), letter()], ledger=ledger)]

    assert [(result.outcome, result.from_ledger) for result in run(main)] == [
        (ACCEPTED, False),
        (ACCEPTED, True),
        (NOT_SENT, False),
    ]


class Forgetful(MemoryLedger):
    """A ledger that breaks its contract."""

    def claim(self, items: Sequence[Item], token: str) -> Sequence[Entry]:
        """Return fewer entries than items."""
        return super().claim(items, token)[1:]


def test_a_ledger_that_breaks_its_contract_ends_the_run(serve: Serve, mailer: Mailer) -> None:
    """Nothing is sent, and its claims are given back."""
    server, ledger = serve(scripted(), overlaps=True), Forgetful()
    run = mailer(server).send_many(mails(3), ledger=ledger)
    with pytest.raises(ValueError, match="zip"):
        next(run)
    assert [result.outcome for result in run] in ([NOT_SENT] * each for each in range(4))
    assert not server.accepted
    assert State.CLAIMED not in ledger.states().values()
