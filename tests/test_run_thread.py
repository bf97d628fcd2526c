"""send_many and the thread of a run: who waits for whom when runs, sends and the caller's functions are nested."""

from __future__ import annotations

import errno
import gc
import itertools
import linecache
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import pytest

from conftest import Mailer, Serve, thorough
from scripted import Peer, honest
from securesmtp import ConfigurationError, Envelope, Outcome, SecureMailer, SendResult, _results, _workers
from securesmtp._transport import poller, pool
from securesmtp._transport.poller import Poller
from securesmtp.events import Connected, Event, Sent

ACCEPTED, NOT_SENT, UNKNOWN = Outcome.ACCEPTED, Outcome.NOT_SENT, Outcome.UNKNOWN
T = TypeVar("T")


def mails(count: int, name: str = "") -> Iterator[Envelope]:
    """Return messages whose subject is *name* and their number."""
    for number in range(count):
        yield Envelope("a@b.example", ["c@d.example"], f"Subject: {name}{number}\r\n\r\nx\r\n".encode())


def _send(mailer: SecureMailer) -> None:
    mailer.send_bytes(b"Subject: one\r\n\r\nx\r\n", mail_from="a@b.example", recipients=["c@d.example"])


def _subjects(server: Any) -> Counter[str]:
    return Counter(message.content.split(b"\r\n")[0].decode().removeprefix("Subject: ") for message in server.accepted)


def _within(seconds: float, function: Callable[[], T]) -> T:
    """Return what *function* returns in a thread of its own, or fail if it does not end."""
    ends = list[T]()
    thread = threading.Thread(target=lambda: ends.append(function()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert ends, "it does not end, or has raised"
    return ends[0]


def test_a_run_that_is_collected_in_its_own_thread_ends(serve: Serve, mailer: Mailer) -> None:
    """It would wait for itself, and keep its connections (seen: `close` waited for ever)."""
    go, collects, is_dropped = threading.Event(), threading.Event(), threading.Event()

    def slow(peer: Peer, content: bytes) -> bytes:
        if content.startswith(b"Subject: 1\r\n"):
            assert go.wait(10)
        if content.startswith(b"Subject: 2\r\n"):
            assert is_dropped.wait(10)
        return b"250 ok\r\n"

    def on_event(event: Event) -> None:
        if isinstance(event, Sent) and collects.is_set():
            collects.clear()
            gc.collect()
            go.set()

    server = serve(honest(replies={"CONTENT": slow}), connections=8)
    mine = mailer(server, max_connections=2, on_event=on_event)

    class Holder:
        """Refers to itself, so that only the collector frees it."""

        def __init__(self) -> None:
            self.me, self.results = self, mine.send_many(mails(50))

    gc.disable()
    try:
        holder = Holder()
        next(holder.results)
        collects.set()
        del holder
        is_dropped.set()
        assert go.wait(10)
        _within(10, mine.close)
    finally:
        gc.enable()


def test_a_run_that_waits_for_its_last_messages_does_not_spin(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn woke the next one: it took all of a processor until the server replied."""
    go, turns = threading.Event(), list[None]()

    def slow(peer: Peer, content: bytes) -> bytes:
        if not content.startswith(b"Subject: 0\r\n"):
            assert go.wait(10)
        return b"250 ok\r\n"

    wait = Poller._wait

    def counts(self: Poller, wakeup: socket.socket | None) -> None:
        turns.append(None)
        if len(turns) > 500:
            go.set()
        wait(self, wakeup)

    monkeypatch.setattr(Poller, "_wait", counts)
    results = mailer(serve(honest(replies={"CONTENT": slow})), max_connections=2).send_many(mails(50))
    next(results)
    timer = threading.Timer(0.5, go.set)
    timer.start()
    results.close()
    timer.join()
    assert len(turns) < 500


def test_too_many_open_files_end_no_run(serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of the run can do without the sockets that wake it."""

    def refuses() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    server = serve()
    monkeypatch.setattr(socket, "socketpair", refuses)
    results = list(mailer(server, max_connections=2).send_many(mails(9)))
    assert [result.outcome for result in results] == [ACCEPTED] * 9


def test_a_run_without_a_thread_holds_no_connection_while_the_caller_goes_on(
    serve: Serve, mailer: Mailer, no_threads: Callable[[], None]
) -> None:
    """The caller's loop may send, and two runs may be read in turn, over the only connection."""
    server = serve()
    mine = mailer(server, max_connections=1)

    def program() -> bool:
        no_threads()
        for _ in mine.send_many(mails(5, "loop ")):
            _send(mine)
        list(zip(mine.send_many(mails(3, "left ")), mine.send_many(mails(3, "right ")), strict=True))
        return True

    assert _within(10, program)
    sent = [f"{name}{number}" for name, count in (("loop ", 5), ("left ", 3), ("right ", 3)) for number in range(count)]
    assert _subjects(server) == Counter([*sent, *["one"] * 5])


@pytest.mark.parametrize("connections", [1, 2])
def test_a_run_inside_a_run_does_not_wait_for_its_connections(serve: Serve, mailer: Mailer, connections: int) -> None:
    """The outer one stands still while its thread is in on_event: the inner one would wait for ever."""
    inner = list[SendResult]()

    def on_event(event: Event) -> None:
        if isinstance(event, Connected) and not inner:
            inner.extend(mine.send_many(mails(2, "inner ")))

    server = serve(connections=8)
    mine = mailer(server, max_connections=connections, on_event=on_event)
    outer = _within(10, lambda: list(mine.send_many(mails(12))))
    assert [result.outcome for result in outer] == [ACCEPTED] * 12
    assert len(inner) == 2
    for result in inner:
        assert result.outcome is ACCEPTED or isinstance(result.error, ConfigurationError), result


def test_a_send_of_on_event_does_not_wait_for_its_own_run(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks of a run stand still, so they do not come first in the queue (seen: one second for each send)."""
    monkeypatch.setattr(pool, "_ABANDONED_AFTER", 3600.0)
    inside, sent = threading.local(), list[object]()

    def on_event(event: Event) -> None:
        if isinstance(event, Sent) and not getattr(inside, "yes", False):
            inside.yes = True
            try:
                _send(mine)
                sent.append(None)
            except ConfigurationError as error:
                # All connections were in use, one of them by this run.
                sent.append(error)
            finally:
                inside.yes = False

    server = serve(connections=8)
    mine = mailer(server, max_connections=2, on_event=on_event)
    ends = list[list[SendResult]]()
    runs = [threading.Thread(target=lambda: ends.append(list(mine.send_many(mails(8)))), daemon=True) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(20)
    assert [[result.outcome for result in end] for end in ends] == [[ACCEPTED] * 8] * 3
    assert len(sent) == 24


@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("step", thorough(41, 3))
def test_an_interrupt_at_any_line_of_a_run_without_a_thread_loses_no_result(
    serve: Serve, mailer: Mailer, no_threads: Callable[[], None], pipelining: str, step: int
) -> None:
    """What was in flight is UNKNOWN, or has its outcome; nothing is sent twice, and no error is one of ours."""
    server = serve(honest(extensions=("PIPELINING",)), connections=5000, overlaps=True)
    mine = mailer(server, max_connections=2, pipelining=pipelining)
    no_threads()
    # No signal strikes at a `try`, where Python does nothing and no handler holds yet, nor at the end of a `with`: its
    # line is traced again before `__exit__` is called.
    skipped = {"try:", "return result", "with wakeup, waker:", "with self._wakeable() as wakeup:"}
    files = {module.__file__ for module in (_results, _workers, poller)}
    for at in itertools.count(0, step):
        results, told, left = mine.send_many(mails(6, f"{at}.")), list[SendResult](), [at]

        def trace(frame: FrameType, what: str, _: object, left: list[int] = left) -> Any:
            file = frame.f_code.co_filename
            if file not in files:
                return None
            # A signal strikes after a call, and not between an assignment and the return after it. Before the sockets
            # have an owner, the collector closes them, with a warning.
            if what == "line" and linecache.getline(file, frame.f_lineno).strip() not in skipped:
                left[0] -= 1
                if left[0] == -1:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for result in results:
                told.append(result)
        except KeyboardInterrupt:
            sys.settrace(before)
            told += list(results)
        finally:
            sys.settrace(before)
        assert [result.index for result in told] == list(range(len(told))), at
        arrived = {
            int(each.split(".")[1]): count for each, count in _subjects(server).items() if each.startswith(f"{at}.")
        }
        assert set(arrived.values()) <= {1}, at
        accepted = {result.index for result in told if result.outcome is ACCEPTED}
        unknown = {result.index for result in told if result.outcome is UNKNOWN}
        assert accepted <= set(arrived) <= accepted | unknown, at
        for result in told:
            assert result.error is None or type(result.error).__module__ == "securesmtp.errors", (at, result)
        if left[0] >= 0:
            break
    assert len(told) == 6
    assert at > 300
