"""KeyboardInterrupt, or what a callable raises, at every step: nothing more is written, no half message is taken."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import Mailer, Serve, unmeasured
from scripted import Mode, Peer, honest
from securesmtp import SecureMailer
from securesmtp._protocol.dialogue import Answer, Block, Effect, Receive, Send
from securesmtp._transport.link import Link

LONG = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 3000


def _interrupted(monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool) -> list[Effect]:
    """Raise KeyboardInterrupt at the effect of number *at*, before it is performed or *after*; log the effects."""
    seen: list[Effect] = []
    perform: Callable[[Link, Effect], Answer] = Link._perform

    def interrupts(link: Link, effect: Effect) -> Answer:
        seen.append(effect)
        if len(seen) == at + 1 and not after:
            raise KeyboardInterrupt
        answer = perform(link, effect)
        if len(seen) == at + 1:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(Link, "_perform", interrupts)
    return seen


@pytest.mark.parametrize("offer", [(), ("PIPELINING",), ("PIPELINING", "CHUNKING")], ids=["lockstep", "DATA", "BDAT"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_interrupt_at_any_step_leaves_no_half_message(  # noqa: PLR0913 -- fixtures and a row
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, mode: Mode, *, after: bool, offer: tuple[str, ...]
) -> None:
    """No QUIT, no RSET, no dot behind it; and the mailer sends the next message on a new connection (MSG-07)."""

    def send(mine: SecureMailer) -> None:
        mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])

    for at in range(100):
        server = serve(honest(mode, extensions=offer, auth=("me", "secret")))
        mine = mailer(server, tls=mode, username="me", password="secret")
        with monkeypatch.context() as patch:
            seen = _interrupted(patch, at, after=after)
            try:
                send(mine)
            except KeyboardInterrupt:
                pass
            else:
                assert at == len(seen)
                return
        # What the server took before the interrupt is a whole message, or none.
        ended = isinstance(seen[-1], Receive) or (after and isinstance(seen[-1], Block))
        before = len(seen) - 1 if not after else len(seen)
        written = [effect.line.data for effect in seen[:before] if isinstance(effect, Send)]
        send(mine)
        mine.close()
        server.joined()
        *interrupted, last = server.connections
        assert len(interrupted) <= 1
        assert [message.content for message in last.accepted] == [LONG]
        for first in interrupted:
            octets = bytes(first.plain + first.secret)
            assert octets.startswith(b"".join(written))
            assert not octets.endswith((b"QUIT\r\n", b"RSET\r\n"))
            assert [message.content for message in first.accepted] in ([[], [LONG]] if ended else [[]])
        server.stop()
    pytest.fail("a session has no hundred steps")


@contextmanager
def _alarms() -> Iterator[None]:
    """Make SIGALRM an interrupt."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_STORM = """
import random, signal, sys, threading
from securesmtp import SecureMailer

armed = False

def interrupt(*_):
    if armed:
        raise KeyboardInterrupt

mailer = SecureMailer("localhost", int(sys.argv[1]), ca_file=sys.argv[2], timeout=5, deadline=10)
signal.signal(signal.SIGALRM, interrupt)
struck = 0
for _ in range(200):
    try:
        # Struck once at the most, and inside of this block alone.
        armed = True
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.01))
        # Bounded: an interrupt that strikes in a finalizer is printed, not raised.
        for _ in range(20):
            mailer.send_bytes(b"\\n", mail_from="a@b.example", recipients=["c@d.example"])
        armed = False
    except KeyboardInterrupt:
        struck += 1
armed = False
# One that strikes when Python has put back the system's own handler ends the process.
signal.setitimer(signal.ITIMER_REAL, 0)
replies = []

def send():
    receipt = mailer.send_bytes(b"\\n", mail_from="a@b.example", recipients=["c@d.example"], deadline=5)
    replies.append(receipt.reply.code)

others = [threading.Thread(target=send, daemon=True) for _ in range(3)]
for other in others:
    other.start()
for other in others:
    other.join(10)
send()
assert struck > 50, struck
assert replies == [250] * 4, replies
"""


def test_a_storm_of_interrupts_leaves_the_mailer_to_others(serve: Serve, ca_file: Path) -> None:
    """Wherever they strike, the lock among them: another thread's turn comes."""
    server = serve(connections=5000)
    # In a process of its own, without coverage: its tracer has locks that an interrupt keeps (seen as a hang).
    command = [sys.executable, "-c", _STORM, str(server.port), str(ca_file)]
    subprocess.run(command, timeout=60, check=True, env=unmeasured())


def test_a_waiting_send_that_is_interrupted_leaves_the_turn_to_the_next(serve: Serve, mailer: Mailer) -> None:
    """The one that sends wakes the one that waits, not the one that has gone."""
    sending, go = threading.Event(), threading.Event()

    def slow(peer: Peer, content: bytes) -> bytes:
        sending.set()
        go.wait(5)
        return b"250 ok\r\n"

    mine = mailer(serve(honest(replies={"CONTENT": slow})))
    replies: list[int] = []

    def send() -> None:
        replies.append(mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"]).reply.code)

    others = [threading.Thread(target=send) for _ in range(2)]
    others[0].start()
    assert sending.wait(5)
    with _alarms():
        others[1].start()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            send()
    go.set()
    for other in others:
        other.join(5)
    assert replies == [250, 250]


def test_a_connection_whose_session_did_not_end_is_not_used_again(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second interrupt, in the handling of the first, leaves it open; the next message takes another one."""
    server = serve()
    mine = mailer(server)
    mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    (link,) = [place.link for place in mine._pool.places if place.link is not None]
    assert link is not None
    monkeypatch.setattr(link, "close", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        link.run(_raises(KeyboardInterrupt()))
    monkeypatch.undo()
    assert link.is_open
    assert not link.is_idle()
    mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    assert len(server.connections) == 2


def _raises(error: BaseException) -> Generator[Effect, Answer, None]:
    raise error
    yield  # it makes it a generator


class Raises(io.RawIOBase):
    """A file that raises in the middle."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error, self._first = error, True

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._first:
            self._first = False
            return b"Subject: x\r\n\r\nhalf of it"
        raise self._error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is gone"), ValueError("odd")], ids=repr)
def test_a_file_that_raises_sends_nothing(serve: Serve, mailer: Mailer, error: BaseException) -> None:
    """It is read to its end before anything is written; its own error reaches the caller (MSG-08)."""
    server = serve()
    mine = mailer(server)
    with pytest.raises(type(error)) as caught:
        mine.send_bytes(Raises(error), mail_from="a@b.example", recipients=["c@d.example"])  # type: ignore[arg-type]
    assert caught.value is error
    assert server.connections == []
    mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LookupError("nobody")], ids=repr)
def test_recipients_that_raise_send_nothing(serve: Serve, mailer: Mailer, error: BaseException) -> None:
    """A generator is read to its end before the connection is made."""

    def recipients() -> object:
        yield "c@d.example"
        raise error

    server = serve()
    with pytest.raises(type(error)):
        mailer(server).send_bytes(LONG, mail_from="a@b.example", recipients=recipients())  # type: ignore[arg-type]
    assert server.connections == []
