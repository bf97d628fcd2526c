"""The pool: which send gets which connection, how many there are, how long they live, and how they are closed."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
import warnings
from collections.abc import Callable
from email.message import EmailMessage

import pytest

from conftest import Mailer, Serve
from scripted import Mode, Peer, honest
from securesmtp import (
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    Outcome,
    OutcomeUnknownError,
    RefusedError,
    SecureMailer,
    SecureSMTPError,
    Stage,
)
from securesmtp._protocol.dialogue import open_session
from securesmtp._transport.link import Link
from securesmtp._transport.steps import ThreadWaiter
from securesmtp._transport.tls import build_context

RAW = b"Subject: x\r\n\r\nx\r\n"


def _send(mailer: SecureMailer, **options: float) -> int:
    return mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"], **options).reply.code  # type: ignore[arg-type]


def _holding(release: threading.Event, reached: threading.Event) -> Callable[[Peer, bytes], bytes]:
    def answer(peer: Peer, content: bytes) -> bytes:
        reached.set()
        release.wait(10)
        return b"250 2.0.0 queued\r\n"

    return answer


def test_threads_use_as_many_connections_as_are_allowed(serve: Serve, mailer: Mailer) -> None:
    """No more than that; each message is sent once, and every connection is reused."""
    busy, most, lock = 0, 0, threading.Lock()

    def slow(peer: Peer, content: bytes) -> bytes:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.005)
        with lock:
            busy -= 1
        return b"250 ok\r\n"

    server = serve(honest(replies={"CONTENT": slow}), connections=50)
    mine = mailer(server, max_connections=3)
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.extend(_send(mine) for _ in range(10))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert codes == [250] * 80
    assert most == 3
    assert len(server.connections) == 3
    assert len(server.accepted) == 80


def test_a_send_that_finds_no_connection_waits_up_to_its_deadline(serve: Serve, mailer: Mailer) -> None:
    """Then it raises DeadlineExceededError, which says what it waited for; nothing was sent."""
    release, reached = threading.Event(), threading.Event()
    server = serve(honest(replies={"CONTENT": _holding(release, reached)}))
    mine = mailer(server, max_connections=1)
    other = threading.Thread(target=_send, args=(mine,))
    other.start()
    assert reached.wait(10)
    with pytest.raises(DeadlineExceededError) as caught:
        _send(mine, deadline=0.2)
    assert (caught.value.limit, caught.value.outcome) == ("deadline", Outcome.NOT_SENT)
    waiting = "waiting for one of the mailer's connections, which are all in use"
    assert caught.value.args[0] == f"timed out after 0.2 s {waiting} (limit: deadline)"
    release.set()
    other.join(5)
    assert len(server.accepted) == 1


@pytest.mark.parametrize(
    ("options", "extension", "per_connection"),
    [({"max_messages": 2}, "SIZE", 2), ({}, "LIMITS MAILMAX=3", 3), ({"max_messages": 1}, "LIMITS MAILMAX=0", 1)],
    ids=["ours", "the server's", "none of the server's"],
)
def test_a_connection_carries_only_as_many_messages_as_the_limits_allow(
    serve: Serve, mailer: Mailer, options: dict[str, int], extension: str, per_connection: int
) -> None:
    """After them it is closed with QUIT, and the next message takes a new one (RFC 9422; OpenSMTPD allows 100)."""
    server = serve(honest(extensions=(extension,)))
    mine = mailer(server, **options)
    for _ in range(6):
        _send(mine)
    mine.close()
    server.joined()
    assert [len(log.accepted) for log in server.connections] == [per_connection] * (6 // per_connection)
    assert all(log.secret.endswith(b"QUIT\r\n") for log in server.connections)


def test_an_idle_connection_is_not_reused_after_max_idle(serve: Serve, mailer: Mailer) -> None:
    """The server could close it at any moment; it is closed with QUIT when the next one is opened."""
    server = serve()
    mine = mailer(server, max_idle=0.05)
    _send(mine)
    time.sleep(0.1)
    _send(mine)
    assert [len(log.accepted) for log in server.connections] == [1, 1]
    mine.close()
    server.joined()
    assert all(log.secret.endswith(b"QUIT\r\n") for log in server.connections)


def test_a_refused_ehlo_leaves_no_connection_open(serve: Serve, mailer: Mailer) -> None:
    """The next send opens a new connection."""
    server = serve(honest(replies={"EHLO": b"550 no\r\n"}), honest())
    mine = mailer(server)
    with pytest.raises(RefusedError):
        _send(mine)
    assert _send(mine) == 250
    server.connections[0].done.wait(5)
    assert server.connections[0].client == "eof"


def test_close_waits_for_the_sends_in_progress(serve: Serve, mailer: Mailer) -> None:
    """They finish, and no new send starts."""
    release, reached = threading.Event(), threading.Event()
    server = serve(honest(replies={"CONTENT": _holding(release, reached)}))
    mine = mailer(server)
    codes: list[int] = []
    sender = threading.Thread(target=lambda: codes.append(_send(mine)))
    closer = threading.Thread(target=mine.close)
    sender.start()
    assert reached.wait(10)
    closer.start()
    closer.join(0.2)
    assert closer.is_alive()
    with pytest.raises(ConfigurationError, match="closed"):
        _send(mine)
    release.set()
    sender.join(5)
    closer.join(5)
    assert not closer.is_alive()
    assert codes == [250]
    server.joined()
    assert server.secret.endswith(b"QUIT\r\n")


@pytest.mark.parametrize(
    ("step", "kind", "outcome"),
    [
        ("GREETING", ConnectError, Outcome.NOT_SENT),
        ("MAIL", ConnectError, Outcome.NOT_SENT),
        ("CONTENT", OutcomeUnknownError, Outcome.UNKNOWN),
    ],
)
def test_close_with_abort_ends_the_sends_in_progress(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve, mailer: Mailer, mode: Mode, step: str, kind: type[SecureSMTPError], outcome: Outcome
) -> None:
    """It ends them at once, each with its true outcome, and nothing more is written."""
    reached = threading.Event()

    def silent(peer: Peer, line: bytes) -> bytes:
        reached.set()
        peer.sleep_until_peer_closes()
        return b""

    server = serve(honest(mode, replies={step: silent}))
    mine = mailer(server, tls=mode, timeout=30)
    errors: list[SecureSMTPError] = []

    def send() -> None:
        try:
            _send(mine)
        except SecureSMTPError as error:
            errors.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    assert reached.wait(10)
    mine.close(abort=True)
    sender.join(5)
    (error,) = errors
    assert (type(error), error.outcome) == (kind, outcome)
    server.joined()
    assert b"QUIT" not in server.secret
    assert server.accepted == []


def test_an_aborted_connection_is_not_used_any_further(serve: Serve, mailer: Mailer) -> None:
    """If it is aborted while it logs in, the next step raises an error that says so."""

    def password() -> str:
        (link,) = [slot.link for slot in mine._pool.slots if slot.link is not None]
        link.abort()
        return "secret"

    mine = mailer(serve(honest(auth=("me", "secret"))), username="me", password=password)
    with pytest.raises(ConnectError, match="the mailer was closed"):
        _send(mine)


def test_a_link_that_is_aborted_before_it_connects_never_connects(serve: Serve, mailer: Mailer) -> None:
    """The first step of opening it raises an error."""
    mine = mailer(serve())
    link = Link(mine._settings, build_context(mine._settings.policy))
    link.abort()
    with pytest.raises(ConnectError, match="the mailer was closed"):
        link.run(open_session(mine._settings.mode, None))


def test_nothing_is_written_to_a_connection_of_another_process(serve: Serve, mailer: Mailer) -> None:
    """A child forked in the middle of a send has its parent's connection, and a TLS nonce must not be used twice."""
    server = serve()
    mine = mailer(server)
    _send(mine)
    (link,) = [slot.link for slot in mine._pool.slots if slot.link is not None]
    link.connection.channel._process = (0, 0)
    with pytest.raises(ConnectError, match="forked") as caught:
        _send(mine)
    assert (caught.value.stage, caught.value.retryable) == (Stage.MAIL, True)
    server.joined()
    assert server.secret.count(b"MAIL") == 1


def test_a_send_waits_behind_those_that_came_earlier(serve: Serve, mailer: Mailer) -> None:
    """Even if a slot is free; but not behind a waiter whose thread is gone: an interrupt may leave one in the queue."""
    mine = mailer(serve())
    left = ThreadWaiter()
    mine._pool._waiters.append(left)
    began = time.monotonic()
    assert _send(mine, deadline=5) == 250
    assert time.monotonic() - began > 0.5
    left.polled_at -= 10
    assert _send(mine, deadline=0.2) == 250


def test_a_mailer_that_was_not_closed_warns(serve: Serve, mailer: Mailer) -> None:
    """With a ResourceWarning, as files and sockets do, but only if it has an open connection."""
    server = serve()
    unused = mailer(server)
    left = [SecureMailer("localhost", server.port, policy=unused._settings.policy)]
    _send(left[0])
    with pytest.warns(ResourceWarning, match="unclosed <SecureMailer localhost"):
        left.clear()
    closed = SecureMailer("localhost", server.port, policy=unused._settings.policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _send(closed)
        closed.close()
        del closed
        gc.collect()


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_mailer_cannot_be_copied(use: Callable[[object], object]) -> None:
    """A copy would share its connections, and close them."""
    with pytest.raises(TypeError, match="create one in each process"):
        use(SecureMailer("localhost"))


def test_a_send_inside_a_send_takes_another_connection(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """If one is free: a password callable or a signal handler may send a message of its own."""
    server = serve(honest(auth=("me", "secret")))

    def password() -> str:
        if not server.accepted and len(server.connections) == 1:
            mine.send(message)
        return "secret"

    mine = mailer(server, username="me", password=password)
    mine.send(message)
    assert len(server.connections) == 2
    assert len(server.accepted) == 2


@pytest.mark.parametrize(
    ("extensions", "turns"),
    [((), 4), (("PIPELINING",), 2), (("PIPELINING", "CHUNKING"), 1)],
    ids=["lockstep", "DATA", "BDAT"],
)
def test_a_message_on_an_open_connection_takes_as_few_round_trips_as_possible(
    serve: Serve, mailer: Mailer, extensions: tuple[str, ...], turns: int
) -> None:
    """The server counts them: what the client writes before it reads a reply is one (RFC 2920, RFC 3030)."""
    server = serve(honest(extensions=extensions))
    mine = mailer(server)
    _send(mine)
    (log,) = server.connections
    before = len(log.turns)
    _send(mine)
    told = [turn for turn in log.turns[before:] if turn.who == "client"]
    # The chunk is a write of its own after its command group, without a wait in between.
    assert len(told) in {turns, turns + ("CHUNKING" in extensions)}
