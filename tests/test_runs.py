"""Runs of send_many against servers with few connections, or outages: no message is lost, none is sent twice."""

from __future__ import annotations

import gc
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import Mailer, Serve
from scripted import Peer, Script, ScriptedServer, honest
from securesmtp import (
    AuthenticationError,
    ConnectError,
    Envelope,
    Event,
    Outcome,
    SecureSMTPError,
    Window,
)
from securesmtp._bulk import rules
from securesmtp._protocol.message import Submission
from securesmtp.events import FewerConnections

ACCEPTED, REFUSED, NOT_SENT = Outcome.ACCEPTED, Outcome.REFUSED, Outcome.NOT_SENT
OFFER = ("PIPELINING", "8BITMIME", "CHUNKING")

pytestmark = pytest.mark.faces("runs", sample=(5, 2))


def mails(count: int, size: int = 0) -> Iterator[Envelope]:
    """Return messages whose subject is their number."""
    for number in range(count):
        data = b"Subject: %d\r\nMessage-ID: <%d@x>\r\n\r\n" % (number, number)
        yield Envelope("a@b.example", ["c@d.example"], data + b"x" * 70 * (size > 0) + b"\r\n" * (size // 2))


def arrived(server: ScriptedServer) -> list[int]:
    """Return the numbers of the messages that the server accepted, each as often as it did."""
    return sorted(int(each.content.split(b"\r\n")[0].removeprefix(b"Subject: ")) for each in server.accepted)


class Room:
    """A server with a limit of simultaneous connections."""

    def __init__(self, room: int, refuse: Callable[[Peer], object] | None, script: Script) -> None:
        """Run *script* while there is room; run *refuse* for a further connection, or let it wait."""
        self._free, self._refuse, self._script = threading.Semaphore(room), refuse, script

    def __call__(self, peer: Peer) -> None:
        if not self._free.acquire(blocking=False):
            if self._refuse is not None:
                self._refuse(peer)
                return
            # Like a server that serves one client at a time: the others wait for TLS.
            while not self._free.acquire(timeout=0.05):
                if peer._server.stopping.is_set():
                    return
        try:
            self._script(peer)
        finally:
            self._free.release()


def _greeted(reply: bytes) -> Callable[[Peer], object]:
    def refuse(peer: Peer) -> None:
        peer.start_tls()
        peer.send(reply)

    return refuse


def _at_login(reply: bytes) -> Callable[[Peer], object]:
    return honest(auth=("me", "secret"), replies={"AUTH": reply}, extensions=OFFER)


def _slow(peer: Peer, content: bytes) -> bytes:
    time.sleep(0.01)
    return b"250 ok\r\n"


FEW: dict[str, Callable[[Peer], object] | None] = {
    "421 at the greeting": _greeted(b"421 4.7.0 Too many concurrent SMTP connections\r\n"),
    "450 at the greeting": _greeted(b"450 4.7.1 later\r\n"),
    "554 at the greeting": _greeted(b"554 5.7.1 no\r\n"),
    "421 at the login": _at_login(b"421 4.3.2 too many\r\n"),
    "454 at the login": _at_login(b"454 4.7.0 too many logins\r\n"),
    "reset": lambda peer: peer.reset(),
    "closed in the handshake": lambda peer: peer.cut(),
    "in silence": None,
}


@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("room", [1, 2])
@pytest.mark.parametrize("how", FEW)
def test_a_server_with_fewer_connections_gets_every_message(
    serve: Serve, mailer: Mailer, how: str, room: int, pipelining: str
) -> None:
    """A message whose connection cannot be opened is sent over another one (PITFALLS O11)."""
    told: list[Event] = []
    good = honest(auth=("me", "secret"), replies={"CONTENT": _slow}, extensions=OFFER)
    server = serve(Room(room, FEW[how], good), connections=100, overlaps=True)
    options = {"username": "me", "password": "secret", "on_event": told.append, "pipelining": pipelining}
    # Short only for the silent server: on a busy machine, a good connection may take a second for a step.
    timeout = 1 if FEW[how] is None else 10
    results = list(mailer(server, timeout=timeout, window=Window(2), **options).send_many(mails(30)))
    assert [(result.index, result.outcome) for result in results] == [(number, ACCEPTED) for number in range(30)]
    assert arrived(server) == list(range(30))
    fewer = [event for event in told if isinstance(event, FewerConnections)]
    # One more if the mailer paused logins before the good connection had logged in.
    assert len(server.connections) <= 4 + ("login" in how)
    left = [event.connections for event in fewer]
    assert len(set(left)) == len(left)
    assert set(left) <= {1, 2, 3}
    assert all("continues with" in str(event) for event in fewer)


def test_a_deadline_does_not_run_while_a_message_has_no_connection(serve: Serve, mailer: Mailer) -> None:
    """A deadline that passes while a second connection cannot be opened costs no message: the first one works."""
    server = serve(Room(1, None, honest(replies={"CONTENT": _slow})))
    results = list(mailer(server, max_connections=3).send_many(mails(20), deadline=0.5))
    assert {result.outcome for result in results} == {ACCEPTED}
    assert arrived(server) == list(range(20))


@contextmanager
def closed_port() -> Iterator[int]:
    """Reserve a port on which no server listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize(("workers", "failures"), [(1, 1), (1, 3), (4, 5)])
def test_an_unreachable_server_is_not_tried_for_each_message(
    serve: Serve, mailer: Mailer, pipelining: str, workers: int, failures: int
) -> None:
    """After some failures in a row, the remaining messages are not sent, are retryable, and say why."""
    told: list[Event] = []
    server = serve()
    mine = mailer(
        server,
        max_connections=workers,
        max_connect_failures=failures,
        pipelining=pipelining,
        on_event=told.append,
    )
    server.stop()
    results = list(mine.send_many(mails(200)))
    assert [(result.index, result.outcome, result.retryable) for result in results] == [
        (number, NOT_SENT, True) for number in range(200)
    ]
    assert {type(result.error) for result in results} == {ConnectError}
    assert len([event for event in told if type(event).__name__ == "Connecting"]) <= failures + workers - 1
    said = [result.error for result in results if f"{failures} connections in a row" in str(result.error)]
    assert len(said) == 200 - failures
    assert all(isinstance(error, ConnectError) and error.host and error.message_id and error.hint for error in said)


@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_server_that_goes_away_in_a_run_ends_it(serve: Serve, mailer: Mailer, pipelining: str, workers: int) -> None:
    """Accepted messages are ACCEPTED, the others NOT_SENT, and none arrives twice."""
    told: list[Event] = []
    lock = threading.Lock()

    def fails(peer: Peer, content: bytes) -> bytes:
        with lock:
            if len(server.accepted) < 20:
                return b"250 ok\r\n"
        # The server no longer listens.
        threading.Thread(target=server.stop).start()
        server._acceptor.join()
        peer.reset()
        return b""

    server = serve(honest(extensions=OFFER, replies={"CONTENT": fails}), overlaps=True)
    mine = mailer(
        server, max_connections=workers, max_connect_failures=2, pipelining=pipelining, on_event=told.append, timeout=2
    )
    results = list(mine.send_many(mails(500)))
    assert [result.index for result in results] == list(range(500))
    accepted = [result.index for result in results if result.outcome is ACCEPTED]
    unknown = [result.index for result in results if result.outcome is Outcome.UNKNOWN]
    assert set(accepted) <= set(arrived(server)) <= set(accepted + unknown)
    assert len(arrived(server)) == len(set(arrived(server)))
    assert results[-1].outcome is NOT_SENT
    assert results[-1].retryable
    assert "2 connections in a row" in str(results[-1].error)
    assert len([event for event in told if type(event).__name__ == "Connecting"]) <= 3 * workers + 2


def test_a_short_outage_costs_no_message(serve: Serve, mailer: Mailer) -> None:
    """A connection of this run has just worked: the message waits for the next connection."""

    def dies(peer: Peer, line: bytes) -> bytes:
        return b"421 4.3.2 restarting\r\n" if len(server.accepted) == 3 else b"250 ok\r\n"

    away = _greeted(b"421 4.3.2 not yet\r\n")
    server = serve(honest(replies={"MAIL": dies}), away, away, honest())
    results = list(mailer(server, max_connections=1).send_many(mails(6)))
    assert [result.outcome for result in results] == [ACCEPTED] * 6
    assert arrived(server) == list(range(6))
    assert len(server.connections) == 4


def _limited(code: bytes, most: int, verb: str = "MAIL") -> Callable[[Peer], None]:
    """Take so many messages over each connection, and refuse the next at MAIL or RCPT."""

    def script(peer: Peer) -> None:
        count = itertools.count(1)
        honest(replies={verb: lambda *_: b"250 ok\r\n" if next(count) <= most else code})(peer)

    return script


@pytest.mark.parametrize(
    ("verb", "code"),
    [
        ("MAIL", b"452 4.5.3 Too many messages sent\r\n"),
        ("MAIL", b"421 4.3.2 enough\r\n"),
        ("RCPT", b"421 4.5.0 Too many errors, bye\r\n"),
    ],
    ids=["452 to MAIL", "421 to MAIL", "421 to RCPT"],
)
@pytest.mark.parametrize("how", ["send", "message", "session"])
def test_a_message_too_many_goes_over_a_new_connection(
    serve: Serve, mailer: Mailer, verb: str, code: bytes, how: str
) -> None:
    """By default, no limit of ours comes first; OpenSMTPD says 452 after 100 messages, chasquid 421 after 3 errors."""
    server = serve(_limited(code, 3, verb), connections=10, overlaps=how == "session")
    mine = mailer(server, max_connections=1, pipelining="session" if how == "session" else "message")
    if how == "send":
        for number in range(8):
            data = b"Subject: %d\r\n\r\nx\r\n" % number
            assert mine.send_bytes(data, mail_from="a@b.example", recipients=["c@d.example"]).accepted
    else:
        results = list(mine.send_many(mails(8)))
        assert [result.outcome for result in results] == [ACCEPTED] * 8
    assert sorted(arrived(server)) == list(range(8))
    assert [len(log.accepted) for log in server.connections] == [3, 3, 2]


def test_a_message_too_many_is_tried_over_no_other_used_connection(serve: Serve, mailer: Mailer) -> None:
    """All of them may have carried enough: with many threads, one message was refused ten times (seen)."""
    both, mine_alone = threading.Barrier(2), threading.Event()

    def script(peer: Peer) -> None:
        count = itertools.count()

        def content(*_: object) -> bytes:
            if not mine_alone.is_set():
                both.wait(10)
            return b"250 ok\r\n"

        honest(replies={"MAIL": lambda *_: b"452 enough\r\n" if next(count) else b"250 ok\r\n", "CONTENT": content})(
            peer
        )

    server = serve(script, connections=10)
    mine = mailer(server, max_connections=2)
    assert [result.outcome for result in mine.send_many(mails(2))] == [ACCEPTED] * 2
    mine_alone.set()
    assert mine.send_bytes(b"Subject: 2\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"]).accepted
    assert server.secret.count(b"MAIL") == 4


def test_too_many_connections_are_no_used_up_one(serve: Serve, mailer: Mailer) -> None:
    """A further one would be one more too many."""
    server = serve(_limited(b"421 4.7.0 too many concurrent connections\r\n", 1), connections=10)
    mine = mailer(server, max_connections=1)
    assert mine.send_bytes(b"Subject: 0\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"]).accepted
    with pytest.raises(ConnectError, match="too many concurrent"):
        mine.send_bytes(b"Subject: 1\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"])
    assert len(server.connections) == 1


def test_the_first_message_of_a_connection_is_not_sent_twice(serve: Serve, mailer: Mailer) -> None:
    """Its refusal has another reason: the server is full, or shuts down."""
    server = serve(_limited(b"452 4.3.1 disk full\r\n", 0), connections=10)
    (result,) = mailer(server).send_many(mails(1))
    assert result.outcome is REFUSED
    assert server.connections[0].secret.count(b"MAIL") == 1
    assert len(server.connections) == 1


def test_the_next_connection_is_opened_before_the_last_answers_come(serve: Serve, mailer: Mailer) -> None:
    """Where the limit of the old one is known, and there may be two."""
    greeted = threading.Event()

    def greets(peer: Peer, _: bytes) -> bytes:
        if len(server.connections) > 1:
            greeted.set()
        return b"220 hello\r\n"

    def waits(peer: Peer, content: bytes) -> bytes:
        # The third answer of the first connection comes when the second one is there.
        if len(server.accepted) == 2:
            assert greeted.wait(5)
        return b"250 ok\r\n"

    extensions = ("PIPELINING", "CHUNKING", "LIMITS MAILMAX=3")
    server = serve(honest(extensions=extensions, replies={"GREETING": greets, "CONTENT": waits}), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=2)
    results = list(mine.send_many(mails(5)))
    assert [result.outcome for result in results] == [ACCEPTED] * 5


def test_leaving_the_loop_in_an_outage_does_not_wait_for_its_end(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause before the next try ends with the loop."""
    monkeypatch.setattr("securesmtp._bulk.rules._FIRST_PAUSE", 3600)
    monkeypatch.setattr("securesmtp._bulk.rules._LONGEST_PAUSE", 3600)
    away = _greeted(b"421 4.3.2 not yet\r\n")
    server = serve(honest(replies={"MAIL": lambda *_: b"421 bye\r\n" if server.accepted else b"250 ok\r\n"}), away)
    mine = mailer(server, max_connections=1)
    results = mine.send_many(mails(9))
    assert next(results).outcome is ACCEPTED
    server.connections[0].done.wait(5)
    while len(server.connections) < 2:
        time.sleep(0.01)
    ends = threading.Thread(target=results.close)
    ends.start()
    ends.join(10)
    assert not ends.is_alive()


@pytest.mark.parametrize(
    "reply", [b"432 4.3.2 Concurrent connections limit exceeded\r\n", b"421 4.7.0 Too many SMTP sessions\r\n"]
)
@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_connection_limit_after_the_content_makes_a_run_use_fewer(
    serve: Serve, mailer: Mailer, pipelining: str, reply: bytes
) -> None:
    """A large provider says so after the content: that message is refused temporarily, the others are sent (O11)."""
    told: list[Event] = []
    busy, lock = set[int](), threading.Lock()

    def limited(peer: Peer, content: bytes) -> bytes:
        with lock:
            busy.add(id(peer))
            if len(busy) > 2:
                busy.discard(id(peer))
                return reply
        time.sleep(0.01)
        return b"250 ok\r\n"

    # With BDAT, a 421 leaves the messages in flight behind it unknown.
    offer = OFFER if reply.startswith(b"432") else ("PIPELINING",)
    server = serve(honest(extensions=offer, replies={"CONTENT": limited}), overlaps=True)
    options = {"max_connections": 4, "pipelining": pipelining, "on_event": told.append, "window": Window(2)}
    mine = mailer(server, **options)
    mine._pool.overlap_support.confirm()
    results = list(mine.send_many(mails(60)))
    assert {result.outcome for result in results} == {ACCEPTED, REFUSED}
    assert all(result.retryable for result in results if result.outcome is REFUSED)
    assert 0 < sum(result.outcome is REFUSED for result in results) <= 4
    assert arrived(server) == [result.index for result in results if result.outcome is ACCEPTED]
    # The third and the fourth, or only the third if it was refused before the fourth began.
    assert min(event.connections for event in told if isinstance(event, FewerConnections)) == 2


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_connection_limit_at_mail_costs_no_message(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """After 421 to MAIL no content was written: it is sent over a connection that works, not over a new one."""
    first: list[Peer] = []
    lock = threading.Lock()

    def limited(peer: Peer, line: bytes) -> bytes:
        with lock:
            first.append(peer)
        return b"250 ok\r\n" if peer is first[0] else b"421 4.7.0 too many concurrent connections\r\n"

    server = serve(honest(extensions=("PIPELINING",), replies={"MAIL": limited, "CONTENT": _slow}), overlaps=True)
    mine = mailer(server, pipelining=pipelining)
    mine._pool.overlap_support.confirm()
    results = list(mine.send_many(mails(30)))
    assert {result.outcome for result in results} == {ACCEPTED}
    assert arrived(server) == list(range(30))
    assert len(server.connections) <= 4


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_message_that_meets_a_connection_limit_twice_is_sent(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """If its second connection is one too many as well, it is sent over the third, which works."""
    limit, once, twice = b"421 4.7.0 too many concurrent connections\r\n", threading.Event(), threading.Event()
    begun = itertools.count()

    def works(_: Peer, content: bytes) -> bytes:
        assert twice.wait(5)
        return b"250 ok\r\n"

    def is_refused(_: Peer, line: bytes) -> bytes:
        once.set()
        return limit

    def works_once(_: Peer, line: bytes) -> bytes:
        if not next(begun):
            return b"250 ok\r\n"
        twice.set()
        return limit

    def waits(_: Peer, content: bytes) -> bytes:
        # So that the message of the other connection comes here.
        assert once.wait(5)
        time.sleep(0.1)
        return b"250 ok\r\n"

    scripts = [
        honest(extensions=("PIPELINING",), replies=replies)
        for replies in ({"CONTENT": works}, {"MAIL": is_refused}, {"MAIL": works_once, "CONTENT": waits})
    ]
    server = serve(*scripts, overlaps=True)
    mine = mailer(server, pipelining=pipelining, max_connections=3, window=Window(1))
    mine._pool.overlap_support.confirm()
    results = list(mine.send_many(mails(3)))
    assert [result.error for result in results] == [None] * 3
    assert arrived(server) == [0, 1, 2]
    assert len(server.connections) == 3


@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("odd", [0, 1])
def test_a_message_is_resent_once_only(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, pipelining: str, odd: int
) -> None:
    """A server that greets every other connection, and ends it at MAIL, gets the same MAIL twice."""
    monkeypatch.setattr(rules, "_FIRST_PAUSE", 0.01)
    seen = list[bytes]()

    def ends(peer: Peer, line: bytes) -> bytes:
        seen.append(line)
        return b"421 4.3.2 not now\r\n"

    talks = honest(extensions=("PIPELINING",), replies={"MAIL": ends})

    def is_away(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"421 4.3.2 not now\r\n")

    scripts = [talks, *itertools.islice(itertools.cycle([is_away, talks] if odd else [talks, is_away]), 9)]
    mine = mailer(serve(*scripts), pipelining=pipelining, max_connections=1)
    mine._pool.overlap_support.confirm()
    [result] = mine.send_many(mails(1))
    assert result.outcome is NOT_SENT
    assert len(seen) == 2


@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize(("reply", "retryable"), [(b"454 4.7.0 too many\r\n", True), (b"535 5.7.8 wrong\r\n", False)])
def test_messages_after_a_refused_login_say_whether_it_may_be_tried_later(
    serve: Serve, mailer: Mailer, pipelining: str, reply: bytes, *, retryable: bool
) -> None:
    """454 to AUTH is temporary, 535 is not; each result has the server's reply, host and port (RFC 4954 §6)."""
    server = serve(honest(auth=("me", "secret"), replies={"AUTH": reply}), connections=100)
    mine = mailer(server, username="me", password="secret", max_connections=2, pipelining=pipelining)
    results = list(mine.send_many(mails(50)))
    assert {(result.outcome, result.retryable) for result in results} == {(NOT_SENT, retryable)}
    assert "earlier message" in str(results[-1].error)
    for number, result in enumerate(results):
        assert isinstance(result.error, AuthenticationError)
        assert (result.error.host, result.error.port) == ("localhost", server.port)
        assert result.error.message_id == f"<{number}@x>"
        assert result.error.reply is not None
        assert result.error.reply.code == int(reply[:3])
    assert server.secret.count(b"AUTH ") <= 3


def test_a_temporarily_refused_login_pauses_the_logins_of_the_whole_mailer(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further one would make it worse: all threads get the first refusal, and when to try again (O12)."""
    answers = iter([b"454 4.7.0 Too many login attempts\r\n"])
    server = serve(honest(auth=("me", "secret"), replies={"AUTH": lambda *_: next(answers, b"235 ok\r\n")}))
    mine = mailer(server, username="me", password="secret")
    errors: list[SecureSMTPError] = []

    def send() -> None:
        try:
            mine.send_bytes(b"Subject: 0\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"])
        except SecureSMTPError as error:
            errors.append(error)

    send()
    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert [(type(error), error.outcome, error.retryable) for error in errors] == [
        (AuthenticationError, NOT_SENT, True)
    ] * 5
    assert all(error.reply is not None and error.reply.code == 454 for error in errors)
    assert "logs in again in" in str(errors[-1])
    assert server.secret.count(b"AUTH ") == 1
    assert len(server.connections) == 1
    report = mine.check()
    assert report.login is False
    assert server.secret.count(b"AUTH ") == 1
    monkeypatch.setattr("securesmtp._transport.login_pause._LOGIN_PAUSE", 0)
    send()
    assert arrived(server) == [0]


def _forgetful(peer: Peer, line: bytes) -> bytes:
    """Forget the login after one message."""
    return b"530 5.7.0 Authentication required\r\n" if peer.log.accepted else b"250 ok\r\n"


@pytest.mark.parametrize("pipelining", ["off", "message"])
def test_a_lost_login_is_repeated(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """530 to MAIL after a login: the message was not accepted, and is sent over a new connection (O13)."""
    server = serve(honest(auth=("me", "secret"), replies={"MAIL": _forgetful}, extensions=OFFER))
    asked: list[int] = []

    def password() -> str:
        asked.append(1)
        return "secret"

    mine = mailer(server, username="me", password=password, pipelining=pipelining)
    for number in range(3):
        mine.send_bytes(b"Subject: %d\r\n\r\n" % number, mail_from="a@b.example", recipients=["c@d.example"])
    assert arrived(server) == [0, 1, 2]
    assert len(asked) == len(server.connections) == 3


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_run_repeats_a_lost_login(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """`send_many` does it as well."""
    server = serve(honest(auth=("me", "secret"), replies={"MAIL": _forgetful}), connections=50, overlaps=True)
    mine = mailer(server, username="me", password="secret", pipelining=pipelining, max_connections=1)
    results = list(mine.send_many(mails(5)))
    assert {result.outcome for result in results} == {ACCEPTED}
    assert arrived(server) == list(range(5))


def test_a_lost_login_closes_the_other_idle_connections(serve: Serve, mailer: Mailer) -> None:
    """The server has forgotten their logins too: they are closed, and a new one is opened."""
    both = threading.Barrier(2)

    def together(peer: Peer, content: bytes) -> bytes:
        if len(server.accepted) < 2:
            both.wait(5)
        return b"250 ok\r\n"

    server = serve(honest(auth=("me", "secret"), replies={"MAIL": _forgetful, "CONTENT": together}))
    mine = mailer(server, username="me", password="secret", max_connections=2)

    def send() -> None:
        mine.send_bytes(b"Subject: 0\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"])

    other = threading.Thread(target=send)
    other.start()
    send()
    other.join(5)
    send()
    assert [len(log.accepted) for log in server.connections] == [1, 1, 1]


@pytest.mark.parametrize("pipelining", ["off", "message"])
def test_a_login_that_was_lost_at_once_is_repeated(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """530 to the first MAIL after a login, as behind a load balancer: a new connection may work."""

    def mail(peer: Peer, line: bytes) -> bytes:
        return b"530 5.7.0 log in\r\n" if len(server.connections) == 1 else b"250 ok\r\n"

    server = serve(honest(auth=("me", "secret"), replies={"MAIL": mail}, extensions=OFFER))
    mine = mailer(server, username="me", password="secret", pipelining=pipelining)
    mine.send_bytes(b"Subject: 0\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"])
    assert arrived(server) == [0]
    assert len(server.connections) == 2


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_login_that_is_lost_for_each_message_says_so(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """It does not say "pass username and password", and the login is repeated for one message, not for each."""
    server = serve(honest(auth=("me", "secret"), replies={"MAIL": b"530 5.7.0 log in\r\n"}), connections=50)
    mine = mailer(server, username="me", password="secret", pipelining=pipelining)
    with pytest.raises(AuthenticationError, match="the login was lost") as caught:
        mine.send_bytes(b"Subject: 0\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"])
    assert caught.value.outcome is NOT_SENT
    assert "pass username" not in str(caught.value)
    assert len(server.connections) == 2
    mine.close()
    mine = mailer(server, username="me", password="secret", pipelining=pipelining, max_connections=1)
    results = list(mine.send_many(mails(5)))
    assert [(type(result.error), result.outcome) for result in results] == [(AuthenticationError, NOT_SENT)] * 5
    assert all(result.error and "the login was lost" in result.error.args[0] for result in results)
    assert server.secret.count(b"AUTH ") == 2 + 2 + 4


@pytest.mark.parametrize("started", [0, 1])
def test_threads_that_cannot_be_started_lose_no_result(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    """The running ones do the work; without any, the thread that reads the results does."""
    server = serve()
    mine = mailer(server)
    start, left = threading.Thread.start, [None] * started

    def fails(thread: threading.Thread) -> None:
        if thread.name.startswith("securesmtp"):
            if not left:
                raise RuntimeError("can't start new thread")
            left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails)
    results = list(mine.send_many(mails(20)))
    assert [(result.index, result.outcome) for result in results] == [(number, ACCEPTED) for number in range(20)]
    assert arrived(server) == list(range(20))


_LATE = """
import atexit, sys, threading, time
from securesmtp import Envelope, SecureMailer

mailer = SecureMailer("localhost", int(sys.argv[1]), ca_file=sys.argv[2], timeout=5)

def run():
    some = [Envelope("a@b.example", ["c@d.example"], b"Subject: %d\\r\\n\\r\\n" % n) for n in range(9)]
    print(*[result.outcome.name for result in mailer.send_many(some)], flush=True)
    mailer.close()

def first():
    some = [Envelope("a@b.example", ["c@d.example"], b"Subject: 0\\r\\n\\r\\n") for n in range(9)]
    results = mailer.send_many(some)
    next(results)
    return results

if sys.argv[3] == "thread":
    threading.Thread(target=lambda: (threading.main_thread().join(), time.sleep(0.2), run())).start()
elif sys.argv[3] == "atexit":
    atexit.register(run)
else:
    left = first()
"""


@pytest.mark.faces("runs", threads_only=True)
@pytest.mark.parametrize("begins", [True, False])
def test_an_interrupt_in_the_start_of_a_thread_leaves_no_thread_behind(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, *, begins: bool
) -> None:
    """Its message is finished before the interrupt is raised, and the interrupt has a note about it."""
    start, threads = threading.Thread.start, list[threading.Thread]()

    def struck(thread: threading.Thread) -> None:
        if not thread.name.startswith("securesmtp-"):
            start(thread)
            return
        threads.append(thread)
        if begins:
            start(thread)
        raise KeyboardInterrupt

    def slow(_: Peer, content: bytes) -> bytes:
        time.sleep(0.3)
        return b"250 ok\r\n"

    server = serve(honest(replies={"CONTENT": slow}))
    mine = mailer(server)
    monkeypatch.setattr(threading.Thread, "start", struck)
    with pytest.raises(KeyboardInterrupt) as caught:
        list(mine.send_many(mails(1)))
    (thread,) = threads
    assert not thread.is_alive()
    monkeypatch.undo()
    # A worker that had not taken it when the run ended does not send it.
    notes = getattr(caught.value, "__notes__", [])
    assert len(notes) == len(server.accepted) <= begins


@pytest.mark.parametrize("when", ["thread", "atexit"])
def test_a_run_at_the_end_of_the_process_has_its_results(serve: Serve, ca_file: Path, when: str) -> None:
    """In a thread that outlives the main thread, and in atexit, where executors accept no more work."""
    server = serve()
    command = [sys.executable, "-c", _LATE, str(server.port), str(ca_file), when]
    ended = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, ["ACCEPTED"] * 9, "")
    assert arrived(server) == list(range(9))


def test_unread_results_do_not_keep_the_process_alive(serve: Serve, ca_file: Path) -> None:
    """The threads of a run are daemons."""
    command = [sys.executable, "-c", _LATE, str(serve().port), str(ca_file), "left"]
    subprocess.run(command, timeout=30, capture_output=True, check=True)


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_the_input_is_read_only_a_few_bytes_ahead(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """Beyond one message for each connection, no more than twice the window's bytes for each."""
    read = 0

    def large() -> Iterator[Envelope]:
        nonlocal read
        for mail in mails(40, 60_000):
            read += 1
            yield mail

    mine = mailer(serve(), max_connections=2, pipelining=pipelining, window=Window(32, 30_000))
    results = mine.send_many(large())
    for told, result in enumerate(itertools.islice(results, 10), 1):
        assert result.outcome is ACCEPTED
        assert read <= told + 2
    assert sum(result.outcome is ACCEPTED for result in results) == 30


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
@pytest.mark.parametrize(
    "replies",
    [{"RCPT": b"550 no\r\n"}, {"CONTENT": b"554 no\r\n"}, {"MAIL": b"421 bye\r\n"}, {"GREETING": b"421 bye\r\n"}],
    ids=["RCPT", "CONTENT", "MAIL", "GREETING"],
)
def test_results_keep_no_message_alive(
    serve: Serve, mailer: Mailer, pipelining: str, replies: dict[str, bytes]
) -> None:
    """The frames of a traceback keep it in local variables: 60 messages of 1 MiB took 60 MiB."""
    server = serve(honest(extensions=OFFER, replies=replies), connections=200, overlaps=True)
    mine = mailer(server, pipelining=pipelining, max_connections=2)
    mine._pool.overlap_support.confirm()
    bad = Envelope("a@b.example", ["c@d.example"], b"Subject: a\rb\r\n\r\n")
    # Frozen objects, those of other tests, are neither collected nor listed.
    gc.collect()
    gc.freeze()
    results = list(mine.send_many([*mails(8, 2000), bad]))
    gc.collect()
    alive = [each for each in gc.get_objects() if type(each) is Submission]
    assert ACCEPTED not in {result.outcome for result in results}
    assert alive == []
    assert all(result.error is not None and result.error.__traceback__ is None for result in results)


def test_a_callers_own_error_says_where_it_was_raised(serve: Serve, mailer: Mailer) -> None:
    """Its traceback is gone, but it has a note."""

    def password() -> str:
        raise LookupError("the vault is sealed")

    server = serve(honest(auth=("me", "secret")))
    mine = mailer(server, username="me", password=password, max_connections=1, max_connect_failures=2)
    results = list(mine.send_many(mails(4)))
    assert [type(result.error) for result in results] == [LookupError, LookupError, ConnectError, ConnectError]
    note = results[0].error.__notes__[-1]  # type: ignore[union-attr]
    assert "test_runs.py" in note
    assert "the vault is sealed" in note
    assert "securesmtp/_" not in note
