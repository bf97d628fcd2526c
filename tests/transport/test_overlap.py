"""Many messages in flight over one connection: what is written, and the outcome of each (PIPE-02, PIPE-04)."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Mailer, Positions, Serve, examples
from scripted import Accepted, Answer, Peer, Script, ScriptedServer, honest
from securesmtp import (
    ConfigurationError,
    DataRefusedError,
    DeadlineExceededError,
    Envelope,
    Event,
    MessageError,
    Outcome,
    ProtocolError,
    SecureSMTPError,
    SendResult,
    Stage,
    Window,
)
from securesmtp._bulk.jobs import Job
from securesmtp._protocol import overlap
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import Content
from securesmtp._protocol.message import Submission
from securesmtp._results import in_order
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.overlap_support import OverlapSupport
from securesmtp.events import Failed, FellBack, Sent

DATA, CHUNK = ("PIPELINING", "8BITMIME"), ("PIPELINING", "8BITMIME", "CHUNKING")
OFFERS = pytest.mark.parametrize("offer", [DATA, CHUNK], ids=["data", "chunk"])
ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = Outcome.ACCEPTED, Outcome.REFUSED, Outcome.NOT_SENT, Outcome.UNKNOWN


def mails(count: int, people: Sequence[str] = ("c@d.example",), more: bytes = b"") -> Iterator[Envelope]:
    """Return messages whose subject is their number."""
    for number in range(count):
        yield Envelope(f"m{number}@b.example", people, b"Subject: %d\r\n\r\n.x\r\n%s" % (number, more))


def number_of(content: bytes) -> int:
    """Return the number of the message."""
    found = re.match(rb"Subject: (\d+)", content)
    assert found is not None
    return int(found[1])


def compare(server: ScriptedServer, results: Sequence[SendResult]) -> None:
    """Fail if a result differs from what the server accepted: message, sender and each recipient."""
    assert [result.index for result in results] == list(range(len(results)))
    for result in results:
        taken = [message for message in server.accepted if number_of(message.content) == result.index]
        for message in taken:
            assert message.mail_from.startswith(b"MAIL FROM:<m%d@b.example>" % result.index), "another one's envelope"
        # In several transactions where the server wants it so (452).
        to = [line.partition(b"<")[2].partition(b">")[0].decode() for message in taken for line in message.recipients]
        assert len(to) == len(set(to)), "accepted twice"
        if result.outcome is ACCEPTED:
            assert result.receipt is not None
            assert sorted(to) == sorted(result.receipt.accepted)
        elif result.outcome is not UNKNOWN:
            assert not to, f"{result.outcome}, and delivered"


def reading(peer: Peer, count: int, *, keep: bool = False) -> list[bytes]:
    """Read so many complete groups with a chunk, do not reply, and return the replies that are due."""
    owed = []
    for _ in range(count):
        line = b""
        while not line.startswith(b"BDAT"):
            line = peer.read_line()
            owed.append(b"250 2.0.0 %s\r\n" % line[:4])
        content = peer.read_exactly(int(line.split()[1]))
        if keep:
            take(peer, content)
    return owed


def opened(peer: Peer, offer: Sequence[str]) -> None:
    """Greet as a good server does, once the caller has had time to read ahead."""
    peer.start_tls()
    peer.expect_silence(0.1)
    peer.send(b"220 mx.test\r\n")
    peer.expect(b"EHLO")
    peer.send(b"".join(b"250-%s\r\n" % word.encode() for word in ("mx.test", *offer)) + b"250 SIZE\r\n")


def tried(peer: Peer) -> None:
    """Greet and pass the trial: read two messages, and do not reply to the second one's content."""
    opened(peer, CHUNK)
    owed = reading(peer, 1, keep=True) + [b"250 ok\r\n" for _ in range(3)]
    for verb in (b"RSET", b"MAIL", b"RCPT"):
        peer.expect(verb)
    peer.send(b"".join(owed))
    take(peer, peer.read_exactly(int(peer.expect(b"BDAT").split()[1])))


def test_the_window_limits_the_messages_in_flight(serve: Serve, mailer: Mailer) -> None:
    """After the trial; each message starts with RSET, since the chunk before may be refused (BDAT-03, RFC 3030 §2)."""

    def script(peer: Peer) -> None:
        opened(peer, CHUNK)
        # The trial: a whole flight, and nothing but an opening behind it.
        owed = reading(peer, 1)
        for verb in (b"RSET", b"MAIL", b"RCPT"):
            peer.expect(verb)
            owed.append(b"250 ok\r\n")
        peer.expect_silence(0.05)
        peer.send(b"".join(owed))
        peer.read_exactly(int(peer.expect(b"BDAT").split()[1]))
        owed = [b"250 first\r\n"]
        owed += reading(peer, 4)
        assert owed[1:5] == [b"250 2.0.0 RSET\r\n", b"250 2.0.0 MAIL\r\n", b"250 2.0.0 RCPT\r\n", b"250 2.0.0 BDAT\r\n"]
        # Five are in flight.
        peer.expect_silence(0.05)
        peer.send(owed.pop(0))
        owed += reading(peer, 1)
        peer.expect_silence(0.05)
        peer.send(b"".join(owed))
        peer.sleep_until_peer_closes()

    server = serve(script, overlaps=True)
    mine = mailer(server, pipelining="session", window=Window(messages=5), max_connections=1)
    results = list(mine.send_many(mails(7)))
    assert [result.outcome for result in results] == [ACCEPTED] * 7
    assert [result.receipt.reply.text for result in results if result.receipt][1:] == ["first", *["2.0.0 BDAT"] * 5]


def test_a_content_and_the_next_envelope_are_one_write(serve: Serve, mailer: Mailer) -> None:
    """Without CHUNKING, a group may begin with content (RFC 2920 §3.1)."""
    groups = []

    def script(peer: Peer) -> None:
        opened(peer, DATA)
        groups.append(peer.read_some())
        peer.send(b"250 m\r\n250 r\r\n354 go\r\n")
        for _ in range(3):
            groups.append(peer.read_some())
            peer.send(b"250 taken\r\n250 m\r\n250 r\r\n354 go\r\n")
        groups.append(peer.read_some())
        peer.send(b"250 taken\r\n")
        peer.sleep_until_peer_closes()

    server = serve(script, overlaps=True)
    results = list(mailer(server, pipelining="session", max_connections=1).send_many(mails(4)))
    assert [result.outcome for result in results] == [ACCEPTED] * 4
    assert [result.receipt.size for result in results if result.receipt] == [18] * 4
    opening = b"MAIL FROM:<m%d@b.example> SIZE=18\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
    content = b"Subject: %d\r\n\r\n..x\r\n.\r\n"
    assert groups == [opening % 0, *[content % n + opening % (n + 1) for n in range(3)], content % 3]


WORDS = [b"250 ok\r\n", b"450 4.2.0 later\r\n", b"550 5.1.1 no\r\n", b"452 4.5.3 too many\r\n", b"503 5.5.1 what\r\n"]


@pytest.mark.faces("many in flight", sample=(2, 2))
@OFFERS
@settings(deadline=None, max_examples=examples(100), suppress_health_check=list(HealthCheck))
@given(
    faults=st.lists(
        st.tuples(st.sampled_from(["MAIL", "RCPT", "CONTENT", "DATA"]), st.sampled_from(WORDS)), max_size=30
    ),
    people=st.integers(1, 3),
    partial=st.sampled_from(["raise", "allow"]),
    window=st.integers(1, 5),
    connections=st.integers(1, 3),
)
def test_each_message_has_its_own_outcome_whatever_is_refused(  # noqa: PLR0913, PLR0917 -- pytest gives two, hypothesis the rest
    serve: Serve,
    mailer: Mailer,
    offer: Sequence[str],
    faults: list[tuple[str, bytes]],
    people: int,
    partial: str,
    window: int,
    connections: int,
) -> None:
    """Each reply belongs to one command, and no message gets another one's envelope (PIPE-05)."""
    waiting: dict[str, list[bytes]] = {}
    for step, word in faults:
        waiting.setdefault(step, []).append(word)

    def sometimes(step: str, right: bytes) -> Answer:
        def answer(peer: Peer, line: bytes) -> bytes:
            word = waiting[step].pop(0) if waiting.get(step) else right
            return right if word.startswith(b"250") else word

        return answer

    replies = {
        step: sometimes(step, b"354 go\r\n" if step == "DATA" else b"250 2.0.0 ok\r\n")
        for step in ("MAIL", "RCPT", "CONTENT", "DATA")
    }
    server = serve(honest(extensions=offer, replies=replies), overlaps=True)
    mine = mailer(server, pipelining="session", window=Window(window), max_connections=connections)
    to = [f"r{number}@d.example" for number in range(people)]
    results = list(mine.send_many(mails(14, to), partial=partial))  # type: ignore[arg-type]
    compare(server, results)
    assert not {NOT_SENT, UNKNOWN} & {result.outcome for result in results}
    # Nothing is refused that no word of the server's refuses.
    assert sum(result.outcome is REFUSED for result in results) <= len(faults)
    mine.close()
    server.joined()


def one_at_a_time(offer: Sequence[str], ended: Callable[[Peer], bytes | None]) -> Script:
    """Accept one message at a time; *ended* returns the reply to its end, or None for no reply."""

    def script(peer: Peer) -> None:
        opened(peer, offer)
        while (line := peer.read_line()) != b"QUIT":
            reply: bytes | None = b"250 ok\r\n"
            if line == b"DATA":
                peer.send(b"354 go\r\n")
                take(peer, peer.read_data())
                reply = ended(peer)
            elif line.startswith(b"BDAT"):
                take(peer, peer.read_exactly(int(line.split()[1])))
                reply = ended(peer)
            if reply is None:
                return
            peer.send(reply)

    return script


def refuses(peer: Peer) -> bytes:
    """Refuse what follows the end of the content, as Haraka does."""
    return b"250 queued\r\n" + b"503 pipelined after end of DATA\r\n" * dropped(peer).count(b"\r\n")


def throws_away(peer: Peer) -> bytes:
    """Drop what follows the end of the content, as Courier and chasquid 1.11 do."""
    dropped(peer)
    return b"250 queued\r\n"


def closes(peer: Peer) -> bytes | None:
    """Close without a reply if anything follows the end of the content, as Dovecot does."""
    return None if dropped(peer) else b"250 queued\r\n"


def dropped(peer: Peer) -> bytes:
    """Return what came after the end of a message, which the server does not read."""
    behind = bytes(peer._buffer)
    peer._buffer.clear()
    return behind


def take(peer: Peer, content: bytes) -> None:
    """Note the message as accepted."""
    peer.log.accepted.append(Accepted(b"", (), content.removesuffix(b".\r\n"), content))


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize(
    ("script", "unknown", "why"),
    [
        pytest.param(one_at_a_time(DATA, refuses), [], '"503 pipelined after', id="refuses what is pipelined"),
        pytest.param(one_at_a_time(DATA, throws_away), [], "timed out after 1 s", id="throws it away"),
        pytest.param(one_at_a_time(CHUNK, closes), [0], "the server closed", id="closes"),
        pytest.param(one_at_a_time(DATA, closes), [0], "the server closed", id="closes behind DATA"),
    ],
)
def test_a_server_without_support_loses_nothing_and_gets_nothing_twice(  # noqa: PLR0913, PLR0917 -- pytest gives them
    serve: Serve,
    mailer: Mailer,
    caplog: pytest.LogCaptureFixture,
    script: Script,
    unknown: list[int],
    why: str,
    connections: int,
) -> None:
    """It is noticed at the first overlap and reported once; only what the server left open is unknown (PIPE-06)."""
    server, events = serve(script, overlaps=True), list[Event]()
    mine = mailer(
        server, pipelining="session", max_connections=connections, timeout=1, on_event=events.append, max_messages=1000
    )
    # Enough that the others do not take them all before the first one overlaps.
    results = list(mine.send_many(mails(150)))
    assert sorted(number_of(message.content) for message in server.accepted) == list(range(150))
    assert sum(result.outcome is UNKNOWN for result in results) == len(unknown)
    assert {result.outcome for result in results} <= {ACCEPTED, UNKNOWN}
    (reason,) = [event.reason for event in events if isinstance(event, FellBack)]
    assert why in reason
    assert [record.levelno for record in caplog.records if "fell back" in record.message] == [logging.WARNING]
    # It is not tried again.
    assert {result.outcome for result in mine.send_many(mails(5))} == {ACCEPTED}
    assert mine.send_bytes(b"Subject: 1\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"]).accepted


@pytest.mark.faces("cuts at every byte", sample=(4, 8))
@OFFERS
@pytest.mark.parametrize("how", ["cut", "reset"])
def test_the_outcomes_are_true_wherever_the_connection_is_cut(
    serve: Serve, mailer: Mailer, positions: Positions, offer: Sequence[str], how: str
) -> None:
    """After every byte that the server reads: each outcome is what it accepted, and nothing is sent twice."""
    whole, script = serve(honest(extensions=offer), overlaps=True), honest(extensions=offer)
    # Closed at once: a server that waits longer than its own limit for an idle client fails the test.
    with mailer(whole, pipelining="session") as mine:
        list(mine.send_many(mails(4)))
        octets = len(whole.secret)
    for count in positions(octets):
        server = serve(script, overlaps=True, cut_after_read=count, cut_with=how)
        with mailer(server, pipelining="session", max_connections=1) as mine:
            results = list(mine.send_many(mails(4)))
        server.joined()
        compare(server, results)


@pytest.mark.parametrize("how", [Peer.close, Peer.cut, Peer.reset])
def test_messages_without_a_reply_are_unknown_and_not_sent_again(
    serve: Serve, mailer: Mailer, how: Callable[[Peer], None]
) -> None:
    """A server reads everything in flight and closes without a reply."""

    def script(peer: Peer) -> None:
        tried(peer)
        peer.send(b"250 ok\r\n")
        reading(peer, 4, keep=True)
        how(peer)

    server, events = serve(script, honest(extensions=CHUNK), overlaps=True), list[Event]()
    mine = mailer(server, pipelining="session", window=Window(messages=4), max_connections=1, on_event=events.append)
    results = list(mine.send_many(mails(9)))
    assert [result.outcome for result in results] == [ACCEPTED] * 2 + [UNKNOWN] * 4 + [ACCEPTED] * 3
    assert sorted(number_of(message.content) for message in server.accepted) == list(range(9))
    # It has borne it before.
    assert not any(isinstance(event, FellBack) for event in events)


def test_the_window_limits_the_bytes_in_flight(serve: Serve, mailer: Mailer) -> None:
    """No further message is started once they are reached."""

    def script(peer: Peer) -> None:
        tried(peer)
        # Each has 1018 octets: with the third the 3,054 are reached.
        owed = [b"250 ok\r\n", *reading(peer, 2)]
        peer.expect_silence(0.05)
        peer.send(b"".join(owed))
        peer.send(b"".join(reading(peer, 1)))
        peer.sleep_until_peer_closes()

    server = serve(script, overlaps=True)
    mine = mailer(server, pipelining="session", window=Window(octets=3054), max_connections=1)
    results = list(mine.send_many(mails(5, more=b"x" * 100 + b"\r\n" + b"y" * 896 + b"\r\n")))
    assert {result.outcome for result in results} == {ACCEPTED}


@OFFERS
def test_surplus_recipients_get_the_message_in_a_further_transaction(
    serve: Serve, mailer: Mailer, offer: Sequence[str]
) -> None:
    """As without overlap (RFC 5321 §4.5.3.1.10)."""
    seen: list[bytes] = []

    def twice(peer: Peer, line: bytes) -> bytes:
        seen.append(line)
        return b"452 4.5.3 too many\r\n" if b"r2" in line and seen.count(line) == 1 else b"250 ok\r\n"

    server = serve(honest(extensions=offer, replies={"RCPT": twice}), overlaps=True)
    to = [f"r{number}@d.example" for number in range(3)]
    results = list(mailer(server, pipelining="session", max_connections=1).send_many(mails(6, to), partial="allow"))
    compare(server, results)
    assert [len(result.receipt.accepted) for result in results if result.receipt] == [3] * 6
    assert [len(result.receipt.replies) for result in results if result.receipt] == [2, 1, 1, 1, 1, 1]


def test_a_silent_server_has_a_short_limit_in_the_trial(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have dropped the envelope; the message is sent all the same."""
    monkeypatch.setattr(overlap, "_TRIAL", 0.2)
    events: list[Event] = []
    mine = mailer(
        serve(one_at_a_time(DATA, throws_away), overlaps=True),
        pipelining="session",
        timeout=5,
        max_connections=1,
        on_event=events.append,
    )
    assert {result.outcome for result in mine.send_many(mails(3))} == {ACCEPTED}
    assert [event.reason for event in events if isinstance(event, FellBack)] == [
        "timed out after 0.2 s waiting for the reply to MAIL (limit: trial)"
    ]


def test_the_short_limit_is_for_the_trial_alone(serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither for the first message nor for those after the trial has succeeded."""
    server = serve(honest(extensions=DATA), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1)
    trial = overlap._TRIAL
    for limit, count in ((1e-9, 1), (trial, 3), (1e-9, 3)):
        monkeypatch.setattr(overlap, "_TRIAL", limit)
        assert {result.outcome for result in mine.send_many(mails(count))} == {ACCEPTED}
    assert mine._pool.overlap_support.supported
    # Nothing is owed when all was heard, so it is used again.
    assert len(server.connections) == 1


def test_a_server_that_stops_reading_exceeds_the_deadline_of_the_message_being_written(
    serve: Serve, mailer: Mailer
) -> None:
    """The messages before it are unknown for that reason."""
    told = threading.Event()

    def script(peer: Peer) -> None:
        tried(peer)
        peer.send(b"250 ok\r\n")
        told.wait(10)

    server = serve(script, honest(extensions=CHUNK), overlaps=True)
    # More than the system holds of what is not read.
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mine = mailer(server, pipelining="session", max_connections=1, window=Window(200, 1 << 30))
    results = list(mine.send_many(mails(150, more=(b"x" * 998 + b"\r\n") * 60), deadline=2))
    told.set()
    errors = [str(result.error) for result in results if result.outcome is UNKNOWN]
    assert errors
    assert all("timed out after 2 s" in error and "limit: deadline" in error for error in errors)


def test_a_message_whose_deadline_expires_in_the_trial_is_not_sent_again(serve: Serve, mailer: Mailer) -> None:
    """Its error names its deadline."""
    server = serve(one_at_a_time(DATA, throws_away), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1)
    results = list(mine.send_many(mails(2), deadline=0.3))
    assert results[0].outcome is ACCEPTED
    error = results[1].error
    assert isinstance(error, DeadlineExceededError)
    assert (error.limit, error.stage) == ("deadline", Stage.MAIL)


@pytest.mark.parametrize(
    ("mode", "early", "kind"),
    [
        ("session", b"552 too much\r\n", DataRefusedError),
        # Nobody has it, so it goes over another connection.
        ("session", b"250 queued\r\n", None),
        ("message", b"552 too much\r\n", DataRefusedError),
        ("message", b"250 queued\r\n", ProtocolError),
        ("off", b"what\r\n", ProtocolError),
    ],
)
def test_a_reply_to_a_content_that_was_not_written_ends_the_connection(
    serve: Serve, mailer: Mailer, mode: str, early: bytes, kind: type[SecureSMTPError] | None
) -> None:
    """A content that is held back for the next envelope is not written: the server would read it as commands."""

    def script(peer: Peer) -> None:
        opened(peer, DATA)
        for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n" + early):
            peer.read_line()
            peer.send(reply)
        peer.sleep_until_peer_closes()

    server = serve(script, honest(extensions=DATA), overlaps=mode == "session")
    results = list(mailer(server, pipelining=mode, max_connections=1).send_many(mails(3)))
    error = results[0].error
    assert type(error) is (kind or type(None))
    assert error is None or error.stage is Stage.CONTENT
    assert [result.outcome for result in results[1:]] == [ACCEPTED] * 2
    assert b"Subject" not in server.connections[0].secret


def test_replies_that_have_come_are_read_before_more_is_written(serve: Serve, mailer: Mailer) -> None:
    """So the messages that follow are one write."""

    def script(peer: Peer) -> None:
        tried(peer)
        peer.send(b"".join([b"250 ok\r\n", *reading(peer, 3)]))
        written = peer.read_some()
        assert written.count(b"BDAT") == 2
        peer.send(b"250 ok\r\n" * 8)
        peer.sleep_until_peer_closes()

    server = serve(script, overlaps=True)
    # All of them are read ahead.
    mine = mailer(server, pipelining="session", window=Window(messages=4), max_connections=1)
    assert {result.outcome for result in mine.send_many(mails(7))} == {ACCEPTED}


@OFFERS
def test_after_a_421_a_chunk_that_was_written_is_not_sent_again(
    serve: Serve, mailer: Mailer, offer: Sequence[str]
) -> None:
    """Only its own reply could say that it was not accepted; unwritten messages use another connection."""
    left = [3]

    def closes(peer: Peer, line: bytes) -> bytes:
        left[0] -= 1
        return b"421 4.3.2 enough\r\n" if left[0] < 0 else b"250 ok\r\n"

    replies: dict[str, Answer] = {"MAIL": closes}
    server = serve(honest(extensions=offer, replies=replies), honest(extensions=offer), overlaps=True)
    results = list(mailer(server, pipelining="session", max_connections=1).send_many(mails(12)))
    assert {result.outcome for result in results} == ({ACCEPTED} if offer is DATA else {ACCEPTED, UNKNOWN})
    compare(server, results)
    # With chunks all of them are on their way when it is said.
    assert len(server.connections) == (2 if offer is DATA else 1)


@OFFERS
def test_messages_that_cannot_overlap_are_sent_all_the_same(serve: Serve, mailer: Mailer, offer: Sequence[str]) -> None:
    """Large ones, files, partial="raise", too many recipients, invalid input, 8-bit content without 8BITMIME."""
    server = serve(honest(extensions=(*offer, "LIMITS RCPTMAX=2")), overlaps=True)
    many = [f"r{number}@d.example" for number in range(5)]
    one, two = ["c@d.example"], ["c@d.example", "e@d.example"]
    text = b"Subject: %d\r\n\r\n"
    messages = [
        Envelope("m0@b.example", one, text % 0),
        Envelope("m1@b.example", one, text % 1 + b"x" * 70 + b"\r\n" * 200000),
        Envelope("m2@b.example", two, text % 2),
        Envelope("m3@b.example", one, BytesIO(text % 3)),
        Envelope("m4@b.example", many, text % 4),
        Envelope("m5@b.example", one, b"a\rb"),
        Envelope("m6@b.example", one, text % 6 + b".\r\n" * 300000),
        Envelope("m7@b.example", one, text % 7),
    ]
    results = list(mailer(server, pipelining="session", max_connections=1).send_many(messages))
    assert [type(result.error) for result in results] == [
        *[type(None)] * 4,
        MessageError,
        MessageError,
        type(None),
        type(None),
    ]
    # The file of the first run is at its end.
    messages[3] = Envelope("m3@b.example", one, BytesIO(text % 3))
    again = list(mailer(server, pipelining="session", max_connections=1).send_many(messages, partial="allow"))
    assert [type(result.error) for result in again] == [*[type(None)] * 5, MessageError, type(None), type(None)]
    assert again[4].receipt is not None
    assert len(again[4].receipt.accepted) == 5
    assert len(again[4].receipt.replies) == 3


def test_a_connection_carries_no_more_messages_than_its_limit(serve: Serve, mailer: Mailer) -> None:
    """Those in flight count."""
    server = serve(honest(extensions=CHUNK), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1, max_messages=7)
    assert {result.outcome for result in mine.send_many(mails(20))} == {ACCEPTED}
    assert [len(log.accepted) for log in server.connections] == [7, 7, 6]


def test_without_pipelining_each_command_waits_for_its_reply(serve: Serve, mailer: Mailer) -> None:
    """No event warns, because the server has not offered it."""
    events: list[Event] = []
    server = serve(honest(extensions=()))
    mine = mailer(server, pipelining="session", on_event=events.append)
    assert {result.outcome for result in mine.send_many(mails(9))} == {ACCEPTED}
    assert not any(isinstance(event, FellBack) for event in events)


def test_a_closed_mailer_finishes_only_the_messages_in_flight(serve: Serve, mailer: Mailer) -> None:
    """The errors of the others say that the mailer is closed."""
    server = serve(honest(extensions=CHUNK), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1, window=Window(3))

    def closing() -> Iterator[Envelope]:
        yield from mails(10)
        mine.close()
        yield from mails(3)

    results = list(mine.send_many(closing()))
    assert [type(result.error) for result in results[-3:]] == [ConfigurationError] * 3
    assert len(server.accepted) == sum(result.outcome is ACCEPTED for result in results)


@pytest.mark.parametrize("error", [SystemExit, ValueError])
def test_what_a_callable_raises_is_raised_or_returned(serve: Serve, mailer: Mailer, error: type[BaseException]) -> None:
    """An Exception is the result of its message; anything else (SystemExit) is raised where results are read."""

    def password() -> str:
        raise error

    server = serve(honest(extensions=CHUNK, auth=("me", "secret")), overlaps=True)
    results = mailer(server, pipelining="session", username="me", password=password, max_connections=1).send_many(
        mails(3)
    )
    if error is SystemExit:
        with pytest.raises(SystemExit):
            list(results)
    else:
        assert [type(result.error) for result in results] == [error] * 3


@pytest.mark.parametrize(
    ("offer", "where"),
    [
        (CHUNK, (overlap.OverlappingSender, "_advance_oldest")),
        (CHUNK, (Content, "whole_chunk")),
        (DATA, (Content, "blocks")),
        ((), (Content, "blocks")),
    ],
    ids=["our own", "in a chunk", "behind DATA", "of one that goes alone"],
)
def test_an_error_of_our_own_leaves_no_message_without_a_result(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, offer: Sequence[str], where: tuple[type, str]
) -> None:
    """For example, a copy of a file that cannot be read: each outcome is true, and the error is in the results."""
    broken = OSError("a fault")

    def fault(_: object) -> None:
        raise broken

    monkeypatch.setattr(*where, fault)
    server = serve(honest(extensions=offer), overlaps=True)
    results = list(mailer(server, pipelining="session", max_connections=1).send_many(mails(2)))
    assert {result.outcome for result in results} == {NOT_SENT}
    assert all("a fault" in str(result.error) for result in results)
    assert broken in {results[0].error, results[0].error and results[0].error.__cause__}
    assert server.accepted == []


def test_a_worker_that_fails_leaves_no_message_without_a_result() -> None:
    """Its error is raised where the results are read."""

    def work(*_: object) -> Generator[None]:
        raise RuntimeError("a fault")
        yield

    job = Job(0, Submission(Mailbox.parse("a@b.example"), (), Content.from_bytes(b"")), lambda: None)
    with pytest.raises(RuntimeError, match="a fault"):
        list(in_order([job], work, 1, 1))


def last_words(peer: Peer, words: bytes) -> None:
    """Send this and close, in one segment."""
    assert peer.tls is not None
    peer.tls.write(words)
    with contextlib.suppress(ssl.SSLError):
        peer.tls.unwrap()
    peer._flush()
    peer.cut()


def test_a_server_that_closes_between_two_messages_ends_all_in_flight(serve: Serve, mailer: Mailer) -> None:
    """What was written is unknown, and the next messages are sent over another connection."""

    def script(peer: Peer) -> None:
        tried(peer)
        reading(peer, 1, keep=True)
        last_words(peer, b"250 ok\r\n")

    server = serve(script, honest(extensions=CHUNK), overlaps=True)
    mine = mailer(server, pipelining="session", window=Window(messages=2), max_connections=1)
    results = list(mine.send_many(mails(6)))
    assert [result.outcome for result in results] == [ACCEPTED, ACCEPTED, UNKNOWN, *[ACCEPTED] * 3]
    assert sorted(number_of(message.content) for message in server.accepted) == list(range(6))


def test_a_message_to_be_sent_alone_is_not_lost_with_the_connection(serve: Serve, mailer: Mailer) -> None:
    """One with too many recipients uses the next connection; if some have it, the others get a temporary refusal."""

    def script(peer: Peer) -> None:
        opened(peer, (*CHUNK, "LIMITS RCPTMAX=2"))
        owed = reading(peer, 1, keep=True)
        owed[2] = b"452 4.5.3 too many\r\n"
        last_words(peer, b"".join(owed))

    def ends(peer: Peer) -> None:
        opened(peer, (*CHUNK, "LIMITS RCPTMAX=2"))
        last_words(peer, b"".join(reading(peer, 1)[:-1]))

    one, three = ["a@d.example"], ["a@d.example", "b@d.example", "c@d.example"]
    text = b"Subject: %d\r\n\r\n"
    for first, people, told in ((script, three[:2], ACCEPTED), (ends, one, UNKNOWN)):
        server = serve(first, honest(extensions=CHUNK), overlaps=True)
        mine = mailer(server, pipelining="session", max_connections=1)
        messages = [Envelope("m0@b.example", people, text % 0), Envelope("m1@b.example", three, text % 1)]
        results = list(mine.send_many(messages, partial="allow"))
        assert [result.outcome for result in results] == [told, ACCEPTED]
        assert results[0].receipt is None or results[0].receipt.accepted == ("a@d.example",)
        assert results[1].receipt is not None
        assert results[1].receipt.accepted == tuple(three)


def test_the_refusal_of_a_message_sent_alone_is_its_own(serve: Serve, mailer: Mailer) -> None:
    """The deferred recipients of an earlier message still get it."""
    seen: list[bytes] = []

    def twice(peer: Peer, line: bytes) -> bytes:
        seen.append(line)
        return b"452 4.5.3 too many\r\n" if b"<b@" in line and seen.count(line) == 1 else b"250 ok\r\n"

    def sender(peer: Peer, line: bytes) -> bytes:
        return b"550 no\r\n" if b"<m1@" in line else b"250 ok\r\n"

    replies: dict[str, Answer] = {"MAIL": sender, "RCPT": twice}
    server = serve(honest(extensions=(*CHUNK, "LIMITS RCPTMAX=2"), replies=replies), overlaps=True)
    three, text = ["a@d.example", "b@d.example", "c@d.example"], b"Subject: %d\r\n\r\n"
    messages = [Envelope("m0@b.example", three[:2], text % 0), Envelope("m1@b.example", three, text % 1)]
    results = list(mailer(server, pipelining="session", max_connections=1).send_many(messages, partial="allow"))
    assert [result.outcome for result in results] == [ACCEPTED, REFUSED]
    assert results[0].receipt is not None
    assert results[0].receipt.accepted == tuple(three[:2])


def test_a_message_to_be_sent_alone_may_use_another_connection(serve: Serve, mailer: Mailer) -> None:
    """If the one before it ends the connection."""

    def script(peer: Peer) -> None:
        tried(peer)
        peer.send(b"250 ok\r\n")
        reading(peer, 2)
        peer.send(b"250 reset\r\n503 m\r\n503 r\r\n503 c\r\n" * 2)
        peer.expect(b"RSET")
        for _ in range(2):
            peer.read_line()
        peer.read_exactly(int(peer.expect(b"BDAT").split()[1]))
        last_words(peer, b"421 bye\r\n503 m\r\n503 r\r\n503 c\r\n")

    server = serve(script, honest(extensions=CHUNK), overlaps=True)
    mine = mailer(server, pipelining="session", window=Window(messages=2), max_connections=1)
    assert {result.outcome for result in mine.send_many(mails(4))} == {ACCEPTED}
    assert sorted(number_of(message.content) for message in server.accepted) == list(range(4))


def test_a_server_that_closes_after_the_only_message_loses_nothing(serve: Serve, mailer: Mailer) -> None:
    """The next message uses another connection."""

    def script(peer: Peer) -> None:
        opened(peer, CHUNK)
        last_words(peer, b"".join(reading(peer, 1)))

    server, events = serve(script, honest(extensions=CHUNK), overlaps=True), list[Event]()
    mine = mailer(server, pipelining="session", window=Window(messages=1), max_connections=1, on_event=events.append)
    assert {result.outcome for result in mine.send_many(mails(3))} == {ACCEPTED}
    assert not any(isinstance(event, FellBack) for event in events)


@pytest.mark.parametrize("end", [b"", b"250 m\r\n"], ids=["at once", "in the opening"])
def test_a_connection_that_ends_without_overlap_does_not_rule_it_out(serve: Serve, mailer: Mailer, end: bytes) -> None:
    """Only the end of a connection in the trial does."""

    def script(peer: Peer) -> None:
        opened(peer, DATA)
        for _ in range(3):
            peer.read_line()
        last_words(peer, end)

    server, events = serve(script, honest(extensions=DATA), overlaps=True), list[Event]()
    mine = mailer(server, pipelining="session", max_connections=1, on_event=events.append)
    assert {result.outcome for result in mine.send_many(mails(3))} == {ACCEPTED}
    assert not any(isinstance(event, FellBack) for event in events)


@OFFERS
@pytest.mark.parametrize(
    ("step", "word"),
    [
        ("MAIL", b"450 4.2.0 later\r\n"),
        ("RCPT", b"503 5.5.1 what\r\n"),
        ("CONTENT", b"503 5.5.1 what\r\n"),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_reply_that_may_concern_one_message_refuses_only_that(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve, mailer: Mailer, offer: Sequence[str], step: str, word: bytes, which: int
) -> None:
    """Overlapping goes on; only a 503 to the overlapping MAIL ends it."""
    asked: list[bytes] = []

    def answer(peer: Peer, line: bytes) -> bytes:
        asked.append(line)
        return word if len(asked) == which + 1 else b"250 ok\r\n"

    events: list[Event] = []
    server = serve(honest(extensions=offer, replies={step: answer}), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1, on_event=events.append)
    results = list(mine.send_many(mails(3)))
    assert [result.outcome for result in results] == [REFUSED if n == which else ACCEPTED for n in range(3)]
    assert len(asked) == 3
    assert not any(isinstance(event, FellBack) for event in events)


@pytest.mark.parametrize("offer", [(), DATA, CHUNK], ids=["alone", "data", "chunk"])
@pytest.mark.parametrize("at", ["MAIL", "CONTENT"])
def test_each_message_has_its_own_deadline(serve: Serve, mailer: Mailer, offer: Sequence[str], at: str) -> None:
    """However it is sent."""
    server = serve(honest(extensions=offer, replies={at: silent}), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1)
    (result,) = mine.send_many(mails(1), deadline=0.3)
    assert "timed out after 0.3 s" in str(result.error)
    # Of another port than this one, which has greeted.
    assert "implicit" not in str(result.error)


def silent(peer: Peer, line: bytes) -> bytes:
    """Send nothing more."""
    peer.sleep_until_peer_closes()
    return b""


def test_once_ruled_out_overlap_stays_so() -> None:
    """It is reported once."""
    told: list[str] = []
    support = OverlapSupport(told.append)
    support.confirm()
    support.rule_out("no")
    support.rule_out("no again")
    support.confirm()
    assert (support.supported, told) == (False, ["no"])


def test_an_unsolicited_421_is_no_reply_to_the_messages_in_flight(serve: Serve, mailer: Mailer) -> None:
    """Those that were written may have been accepted, and are not sent again."""

    def script(peer: Peer) -> None:
        tried(peer)
        peer.send(b"250 ok\r\n" + b"".join(reading(peer, 1, keep=True)) + b"421 4.3.2 bye\r\n")
        peer.sleep_until_peer_closes()

    server = serve(script, honest(extensions=CHUNK), overlaps=True)
    mine = mailer(server, pipelining="session", window=Window(messages=2), max_connections=1)
    results = list(mine.send_many(mails(6)))
    assert sorted(number_of(message.content) for message in server.accepted) == list(range(6))
    # Its answer had come before the 421.
    assert {result.outcome for result in results} == {ACCEPTED}


LONG = b"".join(b"250-%s\r\n" % (b"x" * 450) for _ in range(3))


@pytest.mark.parametrize("long", [b"", LONG], ids=["in one read", "in two reads"])
@pytest.mark.parametrize(
    ("answered", "end", "unknown"),
    [
        pytest.param(3, b"", [], id="closed"),
        pytest.param(3, b"421 4.3.2 bye\r\n", [], id="421"),
        pytest.param(3, b"250 one too many\r\n" * 9, [], id="too much"),
        pytest.param(2, b"rubbish\r\n" + b"250 ok\r\n" * 9, [4], id="malformed"),
    ],
)
def test_replies_before_the_end_count_and_unwritten_messages_are_sent_again(  # noqa: PLR0913, PLR0917 -- pytest gives them
    serve: Serve, mailer: Mailer, answered: int, end: bytes, unknown: list[int], long: bytes
) -> None:
    """Both come while the client is busy; each replied message has its outcome, and none is sent twice."""
    ended, told = threading.Event(), list[Sent]()

    def script(peer: Peer) -> None:
        tried(peer)
        owed = reading(peer, 3, keep=True)[: 4 * answered]
        peer.send(b"250 ok\r\n" + b"".join(long + reply for reply in owed) + end)
        if not end:
            peer.close()
        ended.set()
        peer.sleep_until_peer_closes()

    def busy(event: Event) -> None:
        if isinstance(event, Sent):
            told.append(event)
            # The first one is what the script goes on by.
            assert len(told) == 1 or ended.wait(5)

    server = serve(script, honest(extensions=CHUNK), overlaps=True)
    mine = mailer(server, pipelining="session", window=Window(messages=4), max_connections=1, on_event=busy)
    results = list(mine.send_many(mails(9)))
    assert sorted(number_of(message.content) for message in server.accepted) == list(range(9))
    assert [result.index for result in results if result.outcome is UNKNOWN] == unknown
    assert {result.outcome for result in results} <= {ACCEPTED, UNKNOWN}


@OFFERS
def test_a_large_message_is_not_used_for_the_trial(serve: Serve, mailer: Mailer, offer: Sequence[str]) -> None:
    """It waits for the reply to the first and is sent alone, because writing it may outlast the trial."""

    def script(peer: Peer) -> None:
        opened(peer, offer)
        owed = reading(peer, 1, keep=True) if offer == CHUNK else []
        if offer == DATA:
            for verb in (b"MAIL", b"RCPT", b"DATA"):
                peer.expect(verb)
            peer.send(b"250 ok\r\n250 ok\r\n354 go\r\n")
            take(peer, peer.read_data())
            owed = [b"250 ok\r\n"]
        peer.expect_silence(0.1)
        peer.send(b"".join(owed))
        # No RSET: there is nothing before it any more.
        peer.expect(b"MAIL")
        peer.close()

    server = serve(script, honest(extensions=offer), overlaps=True)
    large = Envelope("m1@b.example", ["c@d.example"], b"Subject: 1\r\n\r\n" + b"x\r\n" * 30_000)
    first, *_, last = mails(3)
    mine = mailer(server, pipelining="session", max_connections=1)
    results = list(mine.send_many([first, large, last]))
    assert [result.outcome for result in results] == [ACCEPTED] * 3
    assert sorted(number_of(message.content) for message in server.accepted) == [0, 1, 2]


@pytest.mark.parametrize("first", [ACCEPTED, REFUSED])
@pytest.mark.parametrize("end", [Peer.close, Peer.cut, Peer.reset, None], ids=["close", "cut", "reset", "time"])
def test_each_reply_in_its_own_record_is_read(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, end: Callable[[Peer], None] | None, first: Outcome
) -> None:
    """
    Whether it was decrypted or not when a write failed or the time was up: 9 of 10 were lost (issue 12, 11).

    A refusal of the first message says nothing about the others.
    """
    ended, over, told = threading.Event(), threading.Event(), list[Event]()

    def script(peer: Peer) -> None:
        tried(peer)
        peer.send(b"250 ok\r\n")
        owed = [reading(peer, 1, keep=bool(number) or first is ACCEPTED) for number in range(10)]
        if first is REFUSED:
            owed[0][-1] = b"554 5.7.1 no\r\n"
        # So few that a reset overtakes none of them: what the system has not sent yet, it drops.
        for replies in owed:
            peer.send(b"".join(replies))
        if end is not None:
            end(peer)
        ended.set()
        peer.sleep_until_peer_closes()

    def busy(event: Event) -> None:
        if isinstance(event, Sent | Failed):
            told.append(event)
            # The first two make room for the last of those that the script reads.
            if len(told) > 2:
                assert ended.wait(5)
                if end is None:
                    over.set()

    def left(limit: Deadline, stage: Stage) -> float:
        if over.is_set():
            limit.at = 0.0
        return measured(limit, stage)

    measured = Deadline.left
    monkeypatch.setattr(Deadline, "left", left)
    server = serve(script, honest(extensions=CHUNK), overlaps=True)
    mine = mailer(server, pipelining="session", window=Window(messages=10), max_connections=1, on_event=busy)
    results = list(mine.send_many(mails(30)))
    # Those that were not in flight have no time any more, where it is over.
    rest = [NOT_SENT if end is None else ACCEPTED] * 18
    assert [result.outcome for result in results] == [*[ACCEPTED] * 2, first, *[ACCEPTED] * 9, *rest]
    assert len(server.accepted) == (12 if end is None else 30) - (first is REFUSED)


def test_an_error_in_the_callers_code_ends_only_its_message(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is serialised for each server, which may run code of the caller's."""
    calls: list[Submission] = []
    adapt_to = Submission.adapt_to

    def adapt_or_fail(submission: Submission, capabilities: Capabilities) -> Submission:
        # The second time is when its turn to go alone has come.
        calls.append(submission)
        if len(submission.recipients) == 2 and len([each for each in calls if each is submission]) == 2:
            raise OSError("the caller's file is gone")
        return adapt_to(submission, capabilities)

    monkeypatch.setattr(Submission, "adapt_to", adapt_or_fail)
    monkeypatch.setattr(Submission, "fits", lambda *_: False)
    server = serve(honest(extensions=("PIPELINING", "LIMITS RCPTMAX=1")), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1)
    mine._pool.overlap_support.confirm()
    raw = b"Subject: x\r\n\r\nx\r\n"
    some = [Envelope("a@b.example", ["c@d.example", "e@d.example"][:number], raw) for number in (1, 2, 1)]
    results = list(mine.send_many(some, partial="allow"))
    assert [result.outcome for result in results] == [ACCEPTED, NOT_SENT, ACCEPTED]
    assert str(results[1].error) == "the caller's file is gone"
