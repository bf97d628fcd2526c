"""Hostile servers and callers with many messages in flight: each message has one result, and it is true."""

from __future__ import annotations

import resource
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.headerregistry import BaseHeader, HeaderRegistry
from email.message import EmailMessage
from email.policy import EmailPolicy
from io import BytesIO
from time import monotonic, sleep

import pytest

from conftest import Mailer, Serve, thorough
from scripted import Answer, Gone, Peer, honest
from securesmtp import Envelope, Event, Outcome, SecureSMTPError, SendResult, Window
from securesmtp._bulk.jobs import Job
from securesmtp._transport import pool
from securesmtp.events import ChunkingRefused, Connected, Failed, FellBack, Sent

pytestmark = pytest.mark.faces("attacks", sample=(13, 12))

CHUNK = ("PIPELINING", "8BITMIME", "CHUNKING")
DATA = ("PIPELINING", "8BITMIME")


def told(results: Iterator[SendResult], seconds: float = 15.0) -> list[SendResult | BaseException]:
    """Return all results, or the exception that ends them; fail if they never end."""
    got: list[SendResult | BaseException] = []

    def listen() -> None:
        try:
            got.extend(results)
        except BaseException as error:  # noqa: BLE001 -- returned
            got.append(error)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    thread.join(seconds)
    hangs = thread.is_alive()
    while thread.is_alive():
        # So that the test ends: finish the job for which the thread waits.
        frame = sys._current_frames().get(thread.ident or 0)
        while frame is not None:
            if isinstance(job := frame.f_locals.get("job"), Job):
                job.finish(KeyboardInterrupt("never finished"))
                break
            frame = frame.f_back
        thread.join(1)
    assert not hangs, "the results never end"
    return got


class Once(HeaderRegistry):
    """A caller's header factory that fails in the threads that send."""

    def __call__(self, name: str, value: str) -> BaseHeader:
        if threading.current_thread().name.startswith("securesmtp"):
            raise RuntimeError("the caller's own")
        return super().__call__(name, value)


def eight_bit(number: int) -> EmailMessage:
    """Return a message that is serialised again for a server without 8BITMIME."""
    mail = EmailMessage(policy=EmailPolicy(header_factory=Once()))
    mail["From"] = f"m{number}@b.example"
    mail["To"] = "c@d.example"
    mail.set_content("ä" * 60, cte="8bit")
    return mail


@pytest.mark.parametrize("offer", [("PIPELINING",), ()], ids=["in flight", "alone"])
def test_what_the_callers_own_policy_raises_is_the_messages_result(
    serve: Serve, mailer: Mailer, offer: tuple[str, ...]
) -> None:
    """The other messages are sent."""
    server = serve(honest(extensions=offer), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1)
    good = [Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n") for _ in range(2)]
    results = told(mine.send_many([good[0], eight_bit(1), eight_bit(2), good[1]]))
    outcomes = [(result.outcome, str(result.error)) for result in results if isinstance(result, SendResult)]
    accepted, failed = (Outcome.ACCEPTED, "None"), (Outcome.NOT_SENT, "the caller's own")
    assert outcomes == [accepted, failed, failed, accepted]
    assert len(server.accepted) == 2


# In an event loop, such an exception ends the whole program.
@pytest.mark.faces("attacks", threads_only=True)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exception_in_on_event_does_not_block_the_run(
    serve: Serve, mailer: Mailer, error: type[BaseException]
) -> None:
    """The results end, even if a callable raises SystemExit in a sending thread."""

    def script(peer: Peer, line: bytes) -> bytes:
        return b"503 5.5.1 pipelined\r\n" if line.startswith(b"MAIL FROM:<m1") else b"250 ok\r\n"

    def on_event(event: Event) -> None:
        if isinstance(event, FellBack):
            raise error

    server = serve(honest(extensions=DATA, replies={"MAIL": script}), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1, on_event=on_event)
    told(mine.send_many(Envelope(f"m{n}@b.example", ["c@d.example"], b"Subject: x\r\n\r\n") for n in range(4)))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the send buffer, so that a server can reply before everything is written."""

    def narrowed(sock: socket.socket, address: tuple[str, int]) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        connect(sock, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", narrowed)


def opened(peer: Peer, offer: Sequence[str]) -> None:
    """Play a good server up to its EHLO reply, with a small receive buffer."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.start_tls()
    peer.send(b"220 mx.test\r\n")
    peer.expect(b"EHLO")
    peer.send(b"".join(b"250-%s\r\n" % word.encode() for word in ("mx.test", *offer)) + b"250 SIZE\r\n")


LONG = b"Subject: x\r\n\r\n" + (b"y" * 70 + b"\r\n") * 860


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("last", [b"", b"421 bye\r\n", b"42", b"250 more\r\n"])
def test_a_250_before_the_chunk_was_written_accepts_nothing(
    serve: Serve, mailer: Mailer, pipelining: str, last: bytes
) -> None:
    """The server cannot have accepted a content of which it has only a part."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        opened(peer, CHUNK)
        for _ in range(3):
            peer.read_line()
        peer.send(b"250 m\r\n250 r\r\n250 accepted\r\n" + last)
        over.wait(5)
        peer.reset()

    server = serve(script, honest(extensions=CHUNK), overlaps=True)
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    mine = mailer(server, pipelining=pipelining, max_connections=1)
    with pytest.raises(SecureSMTPError) as caught:
        mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    over.set()
    assert caught.value.outcome is Outcome.NOT_SENT
    assert server.connections[0].read < len(LONG)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("early", [b"552 too much\r\n", b"250 queued\r\n"])
def test_after_an_early_reply_the_rest_of_the_content_is_not_written(
    serve: Serve, mailer: Mailer, early: bytes
) -> None:
    """Nor the commands that were queued behind it: after its reply, the server reads content as commands."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        opened(peer, DATA)
        for _ in range(3):
            peer.read_line()
        peer.send(b"250 ok\r\n250 ok\r\n354 go\r\n")
        peer.read_exactly(100)
        peer.send(early)
        over.wait(5)
        peer.sleep_until_peer_closes()

    server = serve(script, honest(extensions=DATA), overlaps=True)
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    mine = mailer(server, pipelining="session", max_connections=1)
    mine._pool.overlap_support.confirm()
    told(mine.send_many(Envelope("a@b.example", ["c@d.example"], LONG) for _ in range(2)))
    over.set()
    assert bytes(server.connections[0].secret).count(b"MAIL") == 1


class Dribbling(BytesIO):
    """A file whose last octets are read separately, so that they stay in the write buffer of the private copy."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = len(self.getbuffer()) - self.tell()
        return super().read(min(size or 0, left - 100) if left > 100 else left)


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_full_disk_does_not_block_the_run(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """A full disk may show only when the private copy of a file is rewound or closed."""
    data = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * (1 << 20)
    server = serve(honest(extensions=CHUNK), overlaps=True)
    mine = mailer(server, pipelining=pipelining, max_connections=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) - 100, before[1]))
    try:
        results = told(mine.send_many([Envelope("a@b.example", ["c@d.example"], Dribbling(data))]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [result.outcome for result in results if isinstance(result, SendResult)] == [Outcome.NOT_SENT]


@pytest.mark.faces("attacks", threads_only=True)
@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("kind", [Connected, Sent, Failed])
def test_two_callables_can_close_the_mailer_at_the_same_time(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, pipelining: str, kind: type[Event]
) -> None:
    """Each runs in the thread of its run, and neither waits for the other."""
    until = monotonic() + 5

    def sleep_at_most_5_s(seconds: float) -> None:
        assert monotonic() < until, "two callables wait for each other"
        sleep(seconds)

    monkeypatch.setattr(pool, "sleep", sleep_at_most_5_s)
    failures, met = list[AssertionError](), list[int]()
    both, armed = threading.Barrier(2), threading.Event()

    def on_event(event: Event) -> None:
        if armed.is_set() and isinstance(event, kind):
            met.append(both.wait(5))
            try:
                mine.close()
            except AssertionError as error:
                failures.append(error)

    def slow(peer: Peer, line: bytes) -> bytes:
        return b"550 no\r\n" if kind is Failed and armed.is_set() else b"250 ok\r\n"

    server = serve(honest(extensions=CHUNK, replies={"MAIL": slow}), overlaps=True)
    mine = mailer(server, pipelining=pipelining, max_connections=2, on_event=on_event, max_messages=2, window=Window(1))
    some = [Envelope(f"m{n}@b.example", ["c@d.example"], b"Subject: x\r\n\r\n") for n in range(2)]
    mine._pool.overlap_support.confirm()
    armed.set()
    with ThreadPoolExecutor(2) as runs:
        results = list(runs.map(lambda each: list(mine.send_many([each])), some))
    assert [len(each) for each in results] == [1, 1]
    assert sorted(met) == [0, 1]
    assert not failures


@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("end", [b"250 queued\r\n", b"251 queued\r\n", b"2", b""])
@pytest.mark.parametrize(
    "opening",
    [
        *(b"550 m\r\n250 r\r\n", b"250 m\r\n421 r\r\n", b"421 m\r\n421 r\r\n", b"250 m\r\n450 r\r\n"),
        *(b"250 m\r\n550 r\r\n", b"530 m\r\n503 r\r\n", b"250 m\r\n214 r\r\n"),
    ],
)
def test_a_content_that_was_written_and_accepted_was_not_refused(
    serve: Serve, mailer: Mailer, pipelining: str, opening: bytes, end: bytes
) -> None:
    """Whatever the replies to MAIL and RCPT: the server may have the chunk, so it is not sent again (RFC 3030 §2)."""
    taken: list[bytes] = []

    def script(peer: Peer) -> None:
        opened(peer, CHUNK)
        with suppress(Gone):
            while line := peer.read_line():
                if line.startswith(b"BDAT"):
                    taken.append(peer.read_exactly(int(line.split()[1])))
                    peer.send(opening + end)
                    if not end.startswith(b"250"):
                        peer.cut()
                        return

    server = serve(script, overlaps=True)
    mine = mailer(server, pipelining=pipelining, max_connections=1)
    (result,) = mine.send_many([Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n")])
    assert len(taken) == 1
    assert (result.outcome, result.retryable) == (Outcome.UNKNOWN, False)


@pytest.mark.parametrize("code", [b"421", b"450", b"550"])
def test_a_refused_chunk_was_delivered_to_nobody(serve: Serve, mailer: Mailer, code: bytes) -> None:
    """Its own reply says so, even after a 421 to RCPT; then it is sent again on another connection."""

    def script(peer: Peer) -> None:
        opened(peer, CHUNK)
        peer.expect(b"MAIL")
        peer.expect(b"RCPT")
        peer.read_exactly(int(peer.expect(b"BDAT").split()[1]))
        peer.send(b"250 m\r\n%s r\r\n554 nobody\r\n" % code)
        peer.sleep_until_peer_closes()

    server = serve(script, honest(extensions=CHUNK))
    mine = mailer(server, max_connections=1)
    (result,) = mine.send_many([Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n")])
    assert result.outcome is (Outcome.ACCEPTED if code == b"421" else Outcome.REFUSED)
    assert len(server.accepted) == (code == b"421")


def test_a_connection_after_421_is_not_used_again(serve: Serve, mailer: Mailer) -> None:
    """The 421 refuses one of two recipients, the next message takes another connection (RFC 5321 §3.8)."""

    def script(peer: Peer) -> None:
        opened(peer, CHUNK)
        for _ in range(3):
            peer.read_line()
        peer.read_exactly(int(peer.expect(b"BDAT").split()[1]))
        peer.send(b"250 m\r\n421 a\r\n250 b\r\n250 queued\r\n")
        peer.sleep_until_peer_closes()

    server = serve(script, honest(extensions=CHUNK))
    mine = mailer(server, max_connections=1)
    for accepted in (("b@d.example",), ("a@d.example", "b@d.example")):
        receipt = mine.send_bytes(
            LONG, mail_from="a@b.example", recipients=["a@d.example", "b@d.example"], partial="allow"
        )
        assert receipt.accepted == accepted
    assert len(server.connections) == 2


def test_replies_after_a_421_decide_the_messages_in_flight(serve: Serve, mailer: Mailer) -> None:
    """A server may process what it already has after its 421, and its replies count."""

    def script(peer: Peer) -> None:
        opened(peer, CHUNK)
        for _ in range(2):
            for _ in range(3):
                line = peer.read_line()
                line = peer.read_line() if line == b"RSET" else line
            peer.read_exactly(int(line.split()[1]))
        peer.send(b"250 m\r\n250 r\r\n421 later\r\n250 rs\r\n250 m\r\n250 r\r\n250 queued\r\n")
        peer.sleep_until_peer_closes()

    mine = mailer(serve(script, overlaps=True), pipelining="session", max_connections=1)
    mine._pool.overlap_support.confirm()
    results = list(mine.send_many([Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n")] * 2))
    assert [result.outcome for result in results] == [Outcome.REFUSED, Outcome.ACCEPTED]


@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("code", [500, 502, 503])
def test_a_server_that_offers_chunking_and_refuses_bdat_is_sent_data(
    serve: Serve, mailer: Mailer, code: int, pipelining: str
) -> None:
    """That message is refused, with a hint; the next ones use DATA, on this and other connections (RFC 3030 §4)."""
    refusals = [b"%d 5.5.1 what\r\n" % code] * 9

    def content(peer: Peer, _: bytes) -> bytes:
        by_data = b"DATA\r\n" in peer.log.secret
        return b"250 ok\r\n" if by_data else refusals[0]

    events: list[Event] = []
    server = serve(honest(extensions=CHUNK, replies={"CONTENT": content}), overlaps=pipelining == "session")
    # A window of one, so that one message is refused, and not all in flight.
    mine = mailer(
        server, pipelining=pipelining, max_connections=1, max_messages=3, window=Window(1), on_event=events.append
    )
    results = list(mine.send_many([Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n")] * 6))
    assert [result.outcome for result in results] == [Outcome.REFUSED, *[Outcome.ACCEPTED] * 5]
    error = results[0].error
    assert isinstance(error, SecureSMTPError)
    assert error.retryable
    assert "CHUNKING" in str(error.hint)
    # 500 and 502: the server may have read the chunk as commands, so a message sent alone ends its connection.
    assert len(server.connections) == (3 if pipelining == "message" and code != 503 else 2)
    assert sum(bytes(each.secret).count(b"BDAT") for each in server.connections) == 1
    (told,) = [event for event in events if isinstance(event, ChunkingRefused)]
    assert told.reply.code == code
    assert f"refused BDAT: {code} 5.5.1 what" in str(told)


def test_after_a_chunk_in_flight_the_first_message_by_data_resets_too(serve: Serve, mailer: Mailer) -> None:
    """
    BDAT was refused, so this message uses DATA; but the message before it is a chunk still, and may be refused.

    Without RSET, its transaction would be open, and both messages' recipients would get what comes next (seen).
    """
    last: list[bytes] = []

    def script(peer: Peer) -> None:
        opened(peer, CHUNK)
        for count in (3, 4):
            *_, bdat = [peer.read_line() for _ in range(count)]
            peer.read_exactly(int(bdat.split()[1]))
        # The third one's chunk is large, and waits for the replies to its envelope.
        for _ in range(3):
            peer.read_line()
        peer.send(b"250 m\r\n250 r\r\n503 5.5.1 what\r\n" + b"250 rs\r\n250 m\r\n250 r\r\n250 queued\r\n")
        peer.send(b"250 rs\r\n250 m\r\n250 r\r\n")
        peer.read_exactly(int(peer.expect(b"BDAT").split()[1]))
        while not last or last[-1] != b"DATA":
            last.append(peer.read_line())
        peer.send(b"450 later\r\n" + b"250 ok\r\n" * (len(last) - 1) + b"354 go\r\n")
        while peer.read_line() != b".":
            pass
        peer.send(b"250 queued\r\n")
        peer.sleep_until_peer_closes()

    mine = mailer(serve(script, overlaps=True), pipelining="session", max_connections=1)
    mine._pool.overlap_support.confirm()
    short = b"Subject: x\r\n\r\n"
    contents = [short, short, short + b"x\r\n" * 40_000, short]
    results = list(mine.send_many([Envelope("a@b.example", ["c@d.example"], each) for each in contents]))
    assert [each.split()[0] for each in last] == [b"RSET", b"MAIL", b"RCPT", b"DATA"]
    outcomes = [Outcome.REFUSED, Outcome.ACCEPTED, Outcome.REFUSED, Outcome.ACCEPTED]
    assert [result.outcome for result in results] == outcomes


@pytest.mark.parametrize("reply", [b"503 no recipients\r\n", b"552 too much\r\n"])
def test_a_bdat_refused_for_its_message_does_not_end_chunking(serve: Serve, mailer: Mailer, reply: bytes) -> None:
    """It had no valid recipient or was too large; the server does support BDAT, and the next message uses it."""
    rcpt = iter([b"550 no\r\n" if reply.startswith(b"503") else b"250 ok\r\n"])
    answers = iter([reply])
    replies: dict[str, Answer] = {
        "RCPT": lambda *_: next(rcpt, b"250 ok\r\n"),
        "CONTENT": lambda *_: next(answers, b"250 ok\r\n") if reply.startswith(b"552") else b"250 ok\r\n",
    }
    server = serve(honest(extensions=CHUNK, replies=replies))
    mine = mailer(server, max_connections=1)
    results = list(mine.send_many([Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n")] * 2))
    assert [result.outcome for result in results] == [Outcome.REFUSED, Outcome.ACCEPTED]
    assert bytes(server.connections[0].secret).count(b"BDAT") == 2


@pytest.mark.parametrize("count", thorough(1000, 3000))
@pytest.mark.parametrize("pipelining", ["off", "message"])
def test_long_replies_to_a_thousand_recipients_make_a_receipt(
    serve: Serve, mailer: Mailer, pipelining: str, count: int
) -> None:
    """Replies are read once per record written: more of them than are kept may wait in the socket (issue 12, 1)."""
    said = b"250-2.1.5 " + b"x" * 1900 + b"\r\n250 2.1.5 " + b"y" * 1900 + b"\r\n"
    people = [f"c{number}@d.example" for number in range(count)]
    server = serve(honest(extensions=DATA, replies={"RCPT": said}), overlaps=True)
    receipt = mailer(server, pipelining=pipelining, timeout=30).send_bytes(
        b"Subject: x\r\n\r\n", mail_from="a@b.example", recipients=people
    )
    assert [each.address for each in receipt.recipients] == people
    assert all(each.accepted for each in receipt.recipients)
    assert sum(len(each.reply.text) + len(each.reply.raw) for each in receipt.recipients) < 1 << 20


def test_overlong_replies_while_a_window_is_written_end_the_connection(serve: Serve, mailer: Mailer) -> None:
    """They are kept until the window is written, so their size is bounded (RPL-03)."""
    reply = b"250-" + b"x" * 31 + b"\r\n"
    reply = reply * 127 + b"250 " + b"x" * 31 + b"\r\n"

    def script(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened(peer, CHUNK)
        with suppress(Gone):
            while line := peer.read_line():
                if line.startswith(b"BDAT"):
                    peer.read_exactly(int(line.split()[1]))
                peer.send(reply)

    server = serve(script, overlaps=True)
    mine = mailer(server, pipelining="session", window=Window(32), max_connections=1, max_messages=1000)
    mine._pool.overlap_support.confirm()
    body = b"Subject: x\r\n\r\n" + (b"y" * 70 + b"\r\n") * 400
    people = [f"c{number}@d.example" for number in range(20)]
    results = list(mine.send_many([Envelope("a@b.example", people, body)] * 40, partial="allow"))
    assert any("longer than any server needs" in str(result.error) for result in results)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("offer", [DATA, CHUNK], ids=["data", "chunk"])
@pytest.mark.parametrize(
    ("pipelining", "people", "size"), [("message", 500, 64_000), ("session", 1, 30_000), ("session", 500, 64_000)]
)
@pytest.mark.parametrize(
    "flood",
    # "short" has all the replies that are due, and more, within one record.
    [
        pytest.param((b"550 5.1.1 " + b"x" * 140 + b"\r\n") * 400, id="long"),
        pytest.param(b"550\r\n" * 8000, id="short"),
    ],
)
def test_a_flood_while_it_is_written_to_ends_the_connection(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve, mailer: Mailer, flood: bytes, pipelining: str, people: int, size: int, offer: Sequence[str]
) -> None:
    """The server stops reading and sends more replies than are due: they are not kept, nor is the limit waited for."""
    taken: list[int] = []

    def script(peer: Peer) -> None:
        opened(peer, offer)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        with suppress(Gone):
            # From here on nothing is read.
            for _ in range(4000):
                peer.send(flood)
                taken.append(len(flood))

    server = serve(script, honest(extensions=offer), overlaps=True)
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    mine = mailer(server, pipelining=pipelining, max_connections=1, timeout=30)
    mine._pool.overlap_support.confirm()
    to = [f"r{number}@d.example" for number in range(people)]
    body = b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n" * (size // 2)
    results = list(mine.send_many([Envelope("a@b.example", to, body)] * 3, partial="allow"))
    assert Outcome.UNKNOWN not in {result.outcome for result in results}
    # No more than the buffers of the operating system hold.
    assert sum(taken) < 8 << 20
