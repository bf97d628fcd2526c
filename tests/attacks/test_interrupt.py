"""KeyboardInterrupt and exceptions of callables at every step: nothing is written after, nothing half accepted."""

from __future__ import annotations

import gc
import io
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import securesmtp
from conftest import Mailer, Serve, thorough, unmeasured
from scripted import Mode, Peer, honest
from securesmtp import (
    ConnectError,
    Envelope,
    Event,
    Outcome,
    OutcomeUnknownError,
    Receipt,
    SecureMailer,
    SecureSMTPError,
    SendResult,
    Stage,
    TLSPolicy,
)
from securesmtp._bulk.batch import Batch
from securesmtp._bulk.run import Step
from securesmtp._protocol.effects import Answer, Block, Effect, Receive, Send
from securesmtp._protocol.serialising import translate_email_errors
from securesmtp._send_steps import Sender
from securesmtp._sending import Sending
from securesmtp._transport.channel import Channel, Steps
from securesmtp._transport.connection import Connection
from securesmtp._transport.tls import build_context
from securesmtp._transport.transfer import Transfer
from securesmtp._workers import Worker
from securesmtp.events import Failed, Sent, is_interrupt

LONG = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 3000


def _interrupted(monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool) -> list[Effect]:
    """Raise KeyboardInterrupt before (or *after*) effect number *at* is performed; return the list of effects."""
    seen: list[Effect] = []
    perform = Connection._perform

    def interrupts(connection: Connection, effect: Effect) -> Steps[Answer]:
        seen.append(effect)
        if len(seen) == at + 1 and not after:
            raise KeyboardInterrupt
        steps = perform(connection, effect)
        answer = connection._replies if steps is None else (yield from steps)
        if len(seen) == at + 1:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(Connection, "_perform", interrupts)
    return seen


@pytest.mark.parametrize("offer", [(), ("PIPELINING",), ("PIPELINING", "CHUNKING")], ids=["lockstep", "DATA", "BDAT"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_interrupt_at_any_step_leaves_no_half_message(  # noqa: PLR0913 -- fixtures and a row
    serve: Serve,
    mailer: Mailer,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    stride: int,
    *,
    after: bool,
    offer: tuple[str, ...],
) -> None:
    """No QUIT, no RSET, no dot follows; and the mailer sends the next message on a new connection (MSG-07)."""

    def send(mine: SecureMailer) -> None:
        mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])

    for at in range(len(offer) % stride, 100, stride):
        told: list[Event] = []
        server = serve(honest(mode, extensions=offer, auth=("me", "secret")))
        mine = mailer(server, tls=mode, username="me", password="secret", on_event=told.append)
        with monkeypatch.context() as patch:
            seen = _interrupted(patch, at, after=after)
            try:
                send(mine)
            except KeyboardInterrupt as interrupt:
                ours = _what_is_told(interrupt, told)
            else:
                assert at >= len(seen)
                return
        # The server accepted a whole message before the interrupt, or none.
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
            assert ours.outcome is not Outcome.NOT_SENT or not first.accepted
        final = isinstance(seen[-1], Receive) and seen[-1].stage is Stage.CONTENT
        # A reply that was read is reported; the outcome is unknown only if the content may have been fully sent.
        assert (ours.outcome is Outcome.ACCEPTED) == (final and after)
        assert ours.outcome is not Outcome.UNKNOWN or any(isinstance(effect, Block) for effect in seen)
        assert ours.outcome is not Outcome.NOT_SENT or not final
        server.stop()
    pytest.fail("a session has no hundred steps")


def _what_is_told(interrupt: BaseException, told: Sequence[Event]) -> SecureSMTPError:
    """Return our error, the cause of *interrupt*; its note, its event and its receipt say the same."""
    ours = interrupt.__cause__
    assert isinstance(ours, SecureSMTPError)
    (note,) = interrupt.__notes__
    assert f"({ours.outcome})" in note
    assert ours.args[0] in note
    assert ours.host == "localhost"
    if ours.outcome is Outcome.ACCEPTED:
        assert [event.receipt for event in told if isinstance(event, Sent)] == [ours.receipt]
    else:
        assert ours.receipt is None
        assert [event.error for event in told if isinstance(event, Failed)] == [ours]
        assert ours.retryable is (ours.outcome is Outcome.NOT_SENT)
    return ours


class SoftTimeLimitExceeded(Exception):  # noqa: N818 -- as Celery has it
    """What a task queue raises in a signal handler: an ordinary Exception."""


INTERRUPTS = pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, SoftTimeLimitExceeded, TimeoutError, OSError]
)


@contextmanager
def _alarms(error: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """Raise *error* on SIGALRM."""

    def interrupt(*_: object) -> None:
        raise error

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
        # At most one interrupt, and only inside this block.
        armed = True
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.01))
        # Bounded, because an interrupt in a finalizer is printed, not raised.
        for _ in range(20):
            mailer.send_bytes(b"\\n", mail_from="a@b.example", recipients=["c@d.example"])
        armed = False
    except KeyboardInterrupt:
        struck += 1
armed = False
# An alarm after Python has restored the system's own handler would end the process.
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
    """Wherever the interrupts strike, also in the pool's lock: other threads can still send."""
    server = serve(connections=5000)
    # In a separate process, without coverage: an interrupt can leave the tracer's locks held (seen as a hang).
    command = [sys.executable, "-c", _STORM, str(server.port), str(ca_file)]
    subprocess.run(command, timeout=60, check=True, env=unmeasured())


class InterruptedLock:
    """A lock whose taking ends with an interrupt, as on Python 3.14 the entry of a `with` statement can."""

    def __init__(self, lock: Any, *, taken: bool) -> None:
        """Raise when *lock* was *taken*, or before."""
        self._lock, self._taken = lock, taken
        self.release = lock.release

    def acquire(self) -> None:
        if self._taken:
            self._lock.acquire()
        raise KeyboardInterrupt

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@pytest.mark.parametrize("taken", [True, False])
def test_a_lock_that_is_interrupted_while_it_is_taken_is_left_to_others(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    """It is released if it was taken; in both cases the caller sees the interrupt and nothing else."""
    mine = mailer(serve())
    codes: list[int] = []

    def send() -> None:
        codes.append(mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"], deadline=5).reply.code)

    send()
    with monkeypatch.context() as patch:
        patch.setattr(mine._pool, "_lock", InterruptedLock(mine._pool._lock, taken=taken))
        with pytest.raises(KeyboardInterrupt):
            send()
    other = threading.Thread(target=send, daemon=True)
    other.start()
    other.join(10)
    assert codes == [250, 250]


def test_a_waiting_send_that_is_interrupted_leaves_the_turn_to_the_next(serve: Serve, mailer: Mailer) -> None:
    """A finished send wakes a thread that still waits, not the one that was interrupted."""
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


def test_a_connection_whose_dialogue_did_not_end_is_not_used_again(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second interrupt while the first is handled may leave it open; the next message takes another one."""
    server = serve()
    mine = mailer(server)
    mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    (link,) = [slot.link for slot in mine._pool.slots if slot.link is not None]
    assert link is not None
    monkeypatch.setattr(link.connection.transfer, "close_ended", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        link.run(_raises(KeyboardInterrupt()))
    monkeypatch.undo()
    assert link.is_open
    assert not link.is_idle()
    mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    assert len(server.connections) == 2


@INTERRUPTS
@pytest.mark.parametrize("offer", [(), ("PIPELINING",), ("PIPELINING", "CHUNKING")], ids=["lockstep", "DATA", "BDAT"])
@pytest.mark.parametrize(("step", "outcome"), [("RCPT", Outcome.NOT_SENT), ("CONTENT", Outcome.UNKNOWN)])
def test_whatever_a_signal_handler_raises_leaves_with_what_became_of_the_message(  # noqa: PLR0913, PLR0917 -- a row
    serve: Serve, mailer: Mailer, error: type[BaseException], offer: tuple[str, ...], step: str, outcome: Outcome
) -> None:
    """A caller's time limit strikes during a wait for a reply; even TimeoutError is not taken for the connection's."""

    def slow(peer: Peer, line: bytes) -> bytes:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        go.wait(5)
        return b"250 ok\r\n"

    go, told = threading.Event(), list[Event]()
    mine = mailer(serve(honest(extensions=offer, replies={step: slow})), on_event=told.append)
    with _alarms(error), pytest.raises(error) as caught:
        mine.send_bytes(LONG[:100], mail_from="a@b.example", recipients=["c@d.example"])
    go.set()
    if offer[1:]:
        # The chunk was written together with RCPT.
        outcome = Outcome.UNKNOWN
    assert type(caught.value) is error
    ours = _what_is_told(caught.value, told)
    assert ours.outcome is outcome
    assert error.__name__ in ours.args[0]
    assert isinstance(ours, OutcomeUnknownError if outcome is Outcome.UNKNOWN else ConnectError)


@INTERRUPTS
def test_what_strikes_in_on_event_is_not_swallowed(serve: Serve, mailer: Mailer, error: type[BaseException]) -> None:
    """An exception of the callable itself is logged and ignored; an interrupt is raised, and has the receipt."""
    told: list[Event] = []

    def on_event(event: Event) -> None:
        told.append(event)
        if isinstance(event, Sent) and len(told) == 3:
            signal.raise_signal(signal.SIGALRM)

    mine = mailer(serve(), on_event=on_event)
    with _alarms(error), pytest.raises(error) as caught:
        mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    ours = _what_is_told(caught.value, told)
    assert ours.outcome is Outcome.ACCEPTED
    assert ours.receipt is not None
    assert ours.receipt.reply == ours.reply
    # The connection is usable: the whole reply was read.
    assert mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"]).reply.code == 250


def test_an_interrupt_in_on_event_of_a_failure_keeps_that_outcome(serve: Serve, mailer: Mailer) -> None:
    """A refusal stays a refusal, and has one event."""
    told: list[Event] = []

    def on_event(event: Event) -> None:
        told.append(event)
        if isinstance(event, Failed):
            signal.raise_signal(signal.SIGALRM)

    mine = mailer(serve(honest(replies={"CONTENT": b"554 no\r\n"})), on_event=on_event)
    with _alarms(SoftTimeLimitExceeded), pytest.raises(SoftTimeLimitExceeded) as caught:
        mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    assert _what_is_told(caught.value, told).outcome is Outcome.REFUSED


class Handler:
    """Signal handlers of each kind that Python accepts; they raise an ordinary Exception."""

    def __call__(self, *_: object) -> None:
        raise LookupError

    def method(self, *_: object) -> None:
        self()


@pytest.mark.parametrize(
    "handler", [Handler(), Handler().method, lambda *_: Handler()()], ids=["object", "method", "def"]
)
def test_an_interrupt_is_recognised_by_the_handler_that_raised_it(handler: Callable[..., None]) -> None:
    """Every kind of handler is recognised; an exception from other code is not an interrupt."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(LookupError) as caught:
            signal.raise_signal(signal.SIGALRM)
        assert is_interrupt(caught.value)
        with pytest.raises(LookupError) as caught:
            [].pop()
        assert not is_interrupt(caught.value)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_the_cause_of_an_interrupt_is_kept(serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes the cause of our error, which becomes the cause of the interrupt."""
    first = ValueError("why")

    def interrupts(*_: object) -> None:
        raise SystemExit from first

    monkeypatch.setattr(Connection, "_perform", interrupts)
    with pytest.raises(SystemExit) as caught:
        mailer(serve()).send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    assert isinstance(caught.value.__cause__, ConnectError)
    assert caught.value.__cause__.__cause__ is first


def test_an_alarm_before_anything_is_written_is_raised(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It strikes while an idle connection is examined; its TimeoutError does not mean that the connection has ended."""
    mine, told = mailer(serve()), list[Event]()
    mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    monkeypatch.setattr(Transfer, "has_unread", lambda _: signal.raise_signal(signal.SIGALRM))
    mine._core.on_event = told.append
    with _alarms(TimeoutError), pytest.raises(TimeoutError) as caught:
        mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    assert _what_is_told(caught.value, told).outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("second", ["close_ended", "_interrupt"])
def test_a_second_interrupt_leaves_a_closed_connection(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """It strikes while the first is handled; the outcome of the message is reported all the same."""
    server, told = serve(), list[Event]()
    mine = mailer(server, on_event=told.append)
    mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    told.clear()
    struck: list[str] = []

    def once(name: str, act: Callable[..., object]) -> Callable[..., object]:
        def strikes(self: object, *arguments: object) -> object:
            if name not in struck and (name == "wait_for_replies" or struck):
                struck.append(name)
                raise KeyboardInterrupt
            return act(self, *arguments)

        return strikes

    for name in ("wait_for_replies", second):
        owner = Connection if name == "_interrupt" else Transfer
        monkeypatch.setattr(owner, name, once(name, getattr(owner, name)))
    with pytest.raises(KeyboardInterrupt) as caught:
        mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    assert struck == ["wait_for_replies", second]
    assert not any(slot.link is not None and slot.link.is_open for slot in mine._pool.slots)
    assert _what_is_told(caught.value, told).outcome is Outcome.NOT_SENT


_HERE = str(Path(securesmtp.__file__).parent)


@pytest.mark.parametrize("lines", thorough(29, 7))
@pytest.mark.parametrize(
    ("first", "offer"),
    [(0, ()), (1, ("PIPELINING",)), (2, ("PIPELINING", "CHUNKING"))],
    ids=["lockstep", "DATA", "BDAT"],
)
def test_an_interrupt_at_any_line_tells_no_lie(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    request: pytest.FixtureRequest, serve: Serve, mailer: Mailer, first: int, offer: tuple[str, ...], lines: int
) -> None:
    """
    Whichever line of ours it strikes: a delivered message is not reported as not sent, and no receipt is lost.

    Our error is missing only from an interrupt in the few lines around the whole call: before the message is read, and
    when the receipt is returned, after its event. Each run tries every 29th line; all of them were run once.
    """
    server = serve(honest(extensions=offer), connections=5000, timeout=60)
    told: list[Event] = []
    mine = mailer(server, on_event=told.append)
    at, outcomes = first, set[Outcome | None]()
    # Finalizers of other tests' objects must not run, and be interrupted, inside this test's lines.
    gc.disable()
    request.addfinalizer(gc.enable)
    while True:
        content = b"Subject: %d\r\n\r\nx\r\n" % at
        mine.send_bytes(b"Subject: x\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"])
        told.clear()
        left = [at]

        def trace(frame: FrameType, event: str, _: object, left: list[int] = left) -> Any:
            if not frame.f_code.co_filename.startswith(_HERE):
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == -1:
                    raise KeyboardInterrupt
            return trace

        def apart(content: bytes = content) -> Iterator[object]:
            # An exception that tracing raises at the end of an `except` leaves CPython handling the caught one. In a
            # generator that state is the generator's own, so no later test sees it.
            yield mine.send_bytes(content, mail_from="a@b.example", recipients=["c@d.example"])

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            next(apart())
            done = True
        except KeyboardInterrupt as interrupt:
            sys.settrace(before)
            done = False
            ours = interrupt.__cause__
            outcome = ours.outcome if isinstance(ours, SecureSMTPError) else None
            outcomes.add(outcome)
        finally:
            sys.settrace(before)
        if done:
            break
        sent = [event for event in told if isinstance(event, Sent)]
        # The server may still be reading. Once it has replied to the next message, it has read all of this one.
        if outcome is Outcome.NOT_SENT:
            mine.send_bytes(b"Subject: x\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"])
            assert content not in [message.content for message in server.accepted], at
        if outcome is Outcome.ACCEPTED or sent:
            assert content in [message.content for message in server.accepted], at
        if outcome is None and not sent:
            mine.send_bytes(b"Subject: x\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"])
            assert content not in [message.content for message in server.accepted], at
        at += lines
    # Tracing also interrupts where a signal cannot: between a call and the release of its slot, which stays in use.
    mine._pool.slots.close_now()
    assert sys.exception() is None
    assert at > 300
    assert outcomes == {None, Outcome.NOT_SENT, Outcome.UNKNOWN, Outcome.ACCEPTED}


def test_an_interrupt_before_the_receipt_is_made_has_it(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has accepted the message; the receipt is made for the cause of the interrupt."""
    accept, calls = Sending.accept, list[Sending]()

    def once(sending: Sending, *arguments: Any) -> Receipt:
        calls.append(sending)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return accept(sending, *arguments)

    monkeypatch.setattr(Sending, "accept", once)
    told, server = list[Event](), serve()
    with pytest.raises(KeyboardInterrupt) as caught:
        mailer(server, on_event=told.append).send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
    assert _what_is_told(caught.value, told).outcome is Outcome.ACCEPTED
    assert len(server.accepted) == 1


def test_an_event_that_is_interrupted_with_many_in_flight_is_emitted_once(serve: Serve, mailer: Mailer) -> None:
    """In the sending thread: the exception has the receipt of the message whose event it was."""
    told = list[Event]()

    def on_event(event: Event) -> None:
        if isinstance(event, Sent):
            told.append(event)
            raise SystemExit

    mine = mailer(serve(honest(), overlaps=True), pipelining="session", max_connections=1, on_event=on_event)
    mine._pool.overlap_support.confirm()
    with pytest.raises(SystemExit) as caught:
        list(mine.send_many(_mails(1)))
    assert _what_is_told(caught.value, told).outcome is Outcome.ACCEPTED


def test_a_time_limit_is_raised_where_socket_errors_are_ignored(serve: Serve, mailer: Mailer) -> None:
    """A handler's TimeoutError is an OSError too: it strikes at each line of the functions that ignore those."""
    functions = {"acknowledge", "_send_responses", "_flush", "_write_unsent"}
    server = serve(connections=500)
    # Finalizers of other tests' objects must not run, and be interrupted, inside this test's lines.
    gc.disable()
    try:
        for at in range(40):
            left = [at]

            def trace(frame: FrameType, event: str, _: object, left: list[int] = left) -> Any:
                if not frame.f_code.co_filename.startswith(_HERE):
                    return None
                left[0] -= event == "line" and frame.f_code.co_name in functions
                if left[0] == -1:
                    left[0] = -2
                    signal.raise_signal(signal.SIGALRM)
                return trace

            mine, before, caught = mailer(server), sys.gettrace(), None
            with _alarms(TimeoutError):
                sys.settrace(trace)
                try:
                    mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])
                except TimeoutError as error:
                    caught = error
                finally:
                    sys.settrace(before)
            assert type(caught) is TimeoutError, at
            assert isinstance(caught.__cause__, SecureSMTPError), at
    finally:
        gc.enable()


def test_a_time_limit_at_the_start_of_an_attempt_to_connect_is_no_failure_of_it(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next address is not tried, and the error is the handler's own."""
    monkeypatch.setattr(Channel, "_begin_attempt", lambda *_: signal.raise_signal(signal.SIGALRM))
    with _alarms(TimeoutError), pytest.raises(TimeoutError) as caught:
        mailer(serve()).check()
    assert type(caught.value) is TimeoutError


def test_a_time_limit_while_the_roots_are_read_is_no_error_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes longest of all that is done before the network is used."""
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: signal.raise_signal(signal.SIGALRM))
    with _alarms(TimeoutError), pytest.raises(TimeoutError):
        build_context(TLSPolicy())


@pytest.mark.parametrize("error", [LookupError, ValueError])
def test_an_interrupt_is_no_error_of_pythons_email_package(error: type[BaseException]) -> None:
    """It strikes while a message is serialised; the message is not refused for it."""
    with _alarms(error), pytest.raises(error) as caught:
        translate_email_errors(lambda: signal.raise_signal(signal.SIGALRM))
    assert type(caught.value) is error


def test_an_interrupt_in_the_iterable_of_messages_is_raised_at_once(serve: Serve, mailer: Mailer) -> None:
    """It is no error of the iterable, which would wait until all results are read; these can be read afterwards."""

    def messages() -> Iterator[Envelope]:
        yield from _mails(1)
        signal.raise_signal(signal.SIGALRM)

    results: list[SendResult] = []
    run = mailer(serve(), max_connections=2).send_many(messages())
    with _alarms(SoftTimeLimitExceeded), pytest.raises(SoftTimeLimitExceeded):
        results.extend(run)
    assert results == []
    assert [result.index for result in run] == [0]


@pytest.mark.parametrize("method", ["start", "join"])
def test_an_interrupt_of_a_thread_is_not_taken_for_a_missing_one(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A handler may raise RuntimeError, as `threading` does where no thread can be started."""
    real = getattr(threading.Thread, method)

    def strikes(thread: threading.Thread, *arguments: object) -> None:
        real(thread, *arguments)
        if thread.name.startswith("securesmtp-"):
            monkeypatch.undo()
            signal.raise_signal(signal.SIGALRM)

    run = mailer(serve()).send_many(_mails(1))
    monkeypatch.setattr(threading.Thread, method, strikes)
    with _alarms(RuntimeError), pytest.raises(RuntimeError):
        list(run)


def test_an_interrupt_of_a_run_without_threads_is_raised(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It strikes between two messages; nobody waits for the result of the one that was to be sent next."""

    def refuses(thread: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    def interrupts(*_: object) -> bool:
        raise KeyboardInterrupt

    server = serve()
    run = mailer(server).send_many(_mails(2))
    monkeypatch.setattr(threading.Thread, "start", refuses)
    monkeypatch.setattr(Worker, "_send_one", interrupts)
    # Ends the wait that a lost interrupt would begin.
    with _alarms(SoftTimeLimitExceeded):
        signal.setitimer(signal.ITIMER_REAL, 5)
        with pytest.raises(KeyboardInterrupt):
            next(run)
    assert [result.outcome for result in run] == [Outcome.UNKNOWN, Outcome.NOT_SENT]


def test_a_message_that_an_interrupt_has_lost_is_not_waited_for(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run without threads, the interrupt ended the connection when the message had just been taken for it."""

    def refuses(thread: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    run = mailer(serve()).send_many(_mails(1))
    monkeypatch.setattr(threading.Thread, "start", refuses)
    monkeypatch.setattr(Worker, "_send_one", lambda *_: iter(()))
    # Ends the wait that it would begin.
    with _alarms(SoftTimeLimitExceeded):
        signal.setitimer(signal.ITIMER_REAL, 5)
        assert [result.outcome for result in run] == [Outcome.UNKNOWN]


def test_a_message_whose_interrupt_says_nothing_of_it_is_not_reported_as_not_sent(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have struck when the receipt was returned; a message that no worker had is not sent."""

    def interrupts(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sender, "submit", interrupts)
    run = mailer(serve(), max_connections=1).send_many(_mails(2))
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert next(run).outcome is Outcome.UNKNOWN


def test_a_worker_that_an_event_has_ended_leaves_its_other_messages_to_the_run(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were to be sent once more, each by itself: their results are not waited for without end."""

    def settle(batch: Batch, _: object) -> Step:
        while (job := batch._next_job()) is None:
            pass
        batch._resend.append(job)
        return Step.CONTINUE

    def leaves(*_: object) -> bool:
        raise SystemExit

    monkeypatch.setattr(Batch, "settle", settle)
    monkeypatch.setattr(Sender, "with_connection", lambda *_: iter(()))
    monkeypatch.setattr(Worker, "_send_one", leaves)
    run = mailer(serve(), pipelining="session", max_connections=1).send_many(_mails(2))
    # Ends the wait that a lost message would begin.
    with _alarms(SoftTimeLimitExceeded):
        signal.setitimer(signal.ITIMER_REAL, 10)
        with pytest.raises(SystemExit):
            next(run)
    assert [result.outcome for result in run] == [Outcome.NOT_SENT, Outcome.UNKNOWN]


def _mails(count: int) -> list[Envelope]:
    text = b"Message-ID: <%d@b.example>\r\n\r\nx\r\n"
    # The third has more recipients than RCPTMAX allows, so it is sent alone, in two transactions.
    to = [["c@d.example"] if number != 2 else ["c@d.example", "e@d.example", "f@d.example"] for number in range(count)]
    return [Envelope("a@b.example", to[number], text % number) for number in range(count)]


@pytest.mark.parametrize("offer", [("PIPELINING",), ("PIPELINING", "CHUNKING")], ids=["DATA", "BDAT"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [SystemExit, LookupError])
def test_an_interrupt_with_many_in_flight_loses_none(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve,
    mailer: Mailer,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    offer: tuple[str, ...],
    stride: int,
    *,
    after: bool,
) -> None:
    """At any step of the sending thread: each message's outcome is reported by one event, and it is true."""
    ids = [f"<{number}@b.example>" for number in range(5)]
    perform = Connection._perform
    for at in range(4 + len(offer) % stride, 100, stride):
        seen: list[Effect] = []

        def interrupts(
            connection: Connection, effect: Effect, at: int = at, seen: list[Effect] = seen
        ) -> Steps[Answer]:
            seen.append(effect)
            if len(seen) == at + 1 and not after:
                raise error
            steps = perform(connection, effect)
            answer = connection._replies if steps is None else (yield from steps)
            if len(seen) == at + 1:
                raise error
            return answer

        told: list[Event] = []
        server = serve(honest(extensions=(*offer, "LIMITS RCPTMAX=2")), overlaps=True)
        mine = mailer(server, pipelining="session", max_connections=1, on_event=told.append)
        mine._pool.overlap_support.confirm()
        monkeypatch.setattr(Connection, "_perform", interrupts)
        results: list[SendResult] = []
        with suppress(error):
            results.extend(mine.send_many(_mails(5), partial="allow"))
        monkeypatch.undo()
        mine.close()
        server.joined()
        taken = [message.content[12 : message.content.index(b"\r")].decode() for message in server.accepted]
        last = {e.receipt.message_id: Outcome.ACCEPTED for e in told if isinstance(e, Sent)}
        for event in told:
            if isinstance(event, Failed):
                assert event.error.message_id is not None
                last.setdefault(event.error.message_id, event.error.outcome)
        for message_id in ids:
            # None: it was never started.
            outcome = last.get(message_id)
            assert taken.count(message_id) <= 2 - (message_id != ids[2]), "two copies"
            if outcome is Outcome.ACCEPTED:
                assert message_id in taken
            elif outcome is not Outcome.UNKNOWN:
                assert message_id not in taken, (at, message_id, outcome)
        # Each final reply that was read is reported, also if the interrupt struck right after it.
        heard = [
            effect for effect in seen[: at + after] if isinstance(effect, Receive) and effect.stage is Stage.CONTENT
        ]
        twice = taken.count(ids[2]) == 2
        assert [*last.values()].count(Outcome.ACCEPTED) >= len(heard) - twice
        for result in results:
            assert result.outcome is last[result.message_id]
        if len(seen) <= at:
            assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 5
            return
    pytest.fail("a run of five has no hundred steps")


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_results_that_the_caller_did_not_get_are_in_the_interrupts_notes(
    serve: Serve, mailer: Mailer, pipelining: str
) -> None:
    """Messages in flight are finished and have their events; the interrupt's notes have each one's outcome."""

    def slow(peer: Peer, line: bytes) -> bytes:
        if not go.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            go.wait(0.3)
            go.set()
        return b"250 ok\r\n"

    go, told, results = threading.Event(), list[Event](), list[SendResult]()
    server = serve(honest(replies={"CONTENT": slow}), overlaps=pipelining == "session")
    mine = mailer(server, pipelining=pipelining, max_connections=1, on_event=told.append)
    run = mine.send_many(_mails(5))
    with _alarms(SoftTimeLimitExceeded), pytest.raises(SoftTimeLimitExceeded) as caught:
        results.extend(run)
    sent = [event.receipt.message_id for event in told if isinstance(event, Sent)]
    assert sent
    assert sent == [f"<{number}@b.example>" for number in range(len(server.accepted))]
    notes = [f"securesmtp: result {number}, message {message_id}: accepted" for number, message_id in enumerate(sent)]
    assert caught.value.__notes__ == notes[len(results) :]
    # The iterator still has these results, and those of the messages that were not started.
    results.extend(run)
    assert [result.index for result in results] == list(range(len(results)))
    assert [result.message_id for result in results if result.receipt] == sent
    assert {result.outcome for result in results[len(sent) :]} <= {Outcome.NOT_SENT}


def test_an_interrupt_while_a_file_is_read_is_raised(serve: Serve, mailer: Mailer) -> None:
    """It is not the result of the message whose file it is."""

    class File(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            signal.raise_signal(signal.SIGALRM)
            return b""

    envelope = Envelope("a@b.example", ["c@d.example"], File())
    with _alarms(SoftTimeLimitExceeded), pytest.raises(SoftTimeLimitExceeded):
        list(mailer(serve()).send_many([envelope]))


def _raises(error: BaseException) -> Generator[Effect, Answer, None]:
    raise error
    yield  # It makes this a generator.


class Raises(io.RawIOBase):
    """A file that raises when the second half is read."""

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
    """A file is read to its end before anything is written; its own error reaches the caller (MSG-08)."""
    server = serve()
    mine = mailer(server)
    with pytest.raises(type(error)) as caught:
        mine.send_bytes(Raises(error), mail_from="a@b.example", recipients=["c@d.example"])  # type: ignore[arg-type]
    assert caught.value is error
    assert server.connections == []
    mine.send_bytes(LONG, mail_from="a@b.example", recipients=["c@d.example"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LookupError("nobody")], ids=repr)
def test_recipients_that_raise_send_nothing(serve: Serve, mailer: Mailer, error: BaseException) -> None:
    """A generator is read to its end before a connection is opened."""

    def recipients() -> object:
        yield "c@d.example"
        raise error

    server = serve()
    with pytest.raises(type(error)):
        mailer(server).send_bytes(LONG, mail_from="a@b.example", recipients=recipients())  # type: ignore[arg-type]
    assert server.connections == []
