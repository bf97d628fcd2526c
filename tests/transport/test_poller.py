"""Many sends in one thread: each goes on when it can, and nothing that blocks holds up the others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

import pytest

from conftest import Mailer, Serve
from scripted import Peer, honest
from securesmtp import Envelope, Outcome, SecureMailer, SecureSMTPError
from securesmtp._protocol.effects import FetchPassword
from securesmtp._secret import Secret
from securesmtp._transport.channel import PAUSE, READ
from securesmtp._transport.connection import OPENING
from securesmtp._transport.poller import Poller
from securesmtp._transport.slot import Lease
from securesmtp._transport.steps import Sleep, ThreadWaiter, drive, perform
from securesmtp._transport.task import Task
from securesmtp.events import Closed, Event, Sent

Steps = Generator[Any, Any, None]


class Run:
    """A poller, and what its tasks have raised."""

    def __init__(self, *tasks: Callable[[Task], Steps]) -> None:
        self.ends = list[BaseException | None]()
        self.poller = Poller(lambda: None, self.ends.append)
        for steps in tasks:
            self.poller.spawn(steps)

    def to_its_end(self) -> list[BaseException | None]:
        """Run all tasks, and return how each has ended."""
        self.poller.run(lambda: not self.poller.tasks)
        return self.ends


def test_a_function_that_blocks_does_not_hold_up_the_other_tasks() -> None:
    """Such as a password callable: it runs in a thread of its own."""
    go, got = threading.Event(), list[object]()

    def source() -> str:
        assert go.wait(5)
        return "secret"

    def asks(_: Task) -> Steps:
        got.append((yield FetchPassword(source)))

    def sets(_: Task) -> Steps:
        yield PAUSE
        go.set()

    assert Run(asks, sets).to_its_end() == [None, None]
    assert len(got) == 1


@pytest.mark.parametrize("starts", [True, False])
def test_what_a_function_raises_is_raised_in_its_task(monkeypatch: pytest.MonkeyPatch, *, starts: bool) -> None:
    """Also if no thread can be started: then it is called in that of the tasks."""

    def refuses(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    def source() -> str:
        raise LookupError("sealed")

    caught = list[BaseException]()

    def asks(_: Task) -> Steps:
        try:
            yield FetchPassword(source)
        except LookupError as error:
            caught.append(error)

    if not starts:
        monkeypatch.setattr(threading.Thread, "start", refuses)
    assert Run(asks).to_its_end() == [None]
    assert len(caught) == 1


def test_a_task_that_ends_by_an_error_ends_alone() -> None:
    """The others go on."""

    def fails(_: Task) -> Steps:
        yield PAUSE
        raise LookupError("a fault")

    def goes_on(_: Task) -> Steps:
        for _turn in range(3):
            yield PAUSE

    failed, went_on = Run(fails, goes_on).to_its_end()
    assert (str(failed), went_on) == ("a fault", None)


@pytest.mark.parametrize("wanted", ["coffee", READ, OPENING], ids=["unknown", "no socket", "no connection"])
def test_a_task_that_wants_what_it_cannot_have_learns_it(wanted: object) -> None:
    """It is a fault of ours, which must not stop the others."""

    def wants(_: Task) -> Steps:
        yield wanted

    (error,) = Run(wants).to_its_end()
    assert isinstance(error, AssertionError)


@pytest.mark.parametrize("early", [False, True], ids=["asleep", "before it sleeps"])
def test_another_thread_wakes_a_task(*, early: bool) -> None:
    """It is not lost if it comes too early."""
    tasks, asleep = list[Task](), threading.Event()

    def sleeps(task: Task) -> Steps:
        tasks.append(task)
        if early:
            task.wake()
            # The call is made at the next wait.
            yield PAUSE
            yield PAUSE
        asleep.set()
        yield Sleep(task, 60)

    def wakes() -> None:
        asleep.wait(5)
        if not early:
            tasks[0].wake()

    waker = threading.Thread(target=wakes)
    waker.start()
    began = time.monotonic()
    assert Run(sleeps).to_its_end() == [None]
    waker.join(5)
    assert time.monotonic() - began < 30


def test_a_task_sleeps_no_longer_than_it_wants() -> None:
    """Nobody wakes it."""

    def sleeps(task: Task) -> Steps:
        yield Sleep(task, 0.01)

    assert Run(sleeps).to_its_end() == [None]


def test_an_interrupt_is_thrown_into_each_task() -> None:
    """It may strike between two steps; each task says what became of its message."""
    caught = list[str]()

    def sends(_: Task) -> Steps:
        try:
            while True:
                yield PAUSE
        except KeyboardInterrupt:
            caught.append("told")

    def strikes() -> None:
        raise KeyboardInterrupt

    poller = Poller(strikes, lambda _: None)
    poller.spawn(sends)
    poller.spawn(sends)
    with pytest.raises(KeyboardInterrupt):
        poller.run(lambda: False)
    assert caught == ["told", "told"]
    assert not poller.tasks


class Struck:
    """Steps, after one of which an interrupt strikes before anybody has what they want."""

    def __init__(self, steps: Steps) -> None:
        self._steps, self._strikes = steps, True

    def __getattr__(self, name: str) -> object:
        return getattr(self._steps, name)

    def send(self, value: object) -> object:
        wanted = self._steps.send(value)
        if self._strikes:
            self._strikes = False
            raise KeyboardInterrupt
        return wanted


def test_an_interrupt_between_two_steps_is_thrown_into_them() -> None:
    """They are not left where they were, with a connection that nobody else can use."""
    done = list[str]()

    def sends(_: Task) -> Steps:
        try:
            yield PAUSE
        finally:
            done.append("released")
            yield PAUSE
            done.append("closed")

    run = Run(lambda task: cast("Steps", Struck(sends(task))))
    (end,) = run.to_its_end()
    assert isinstance(end, KeyboardInterrupt)
    assert done == ["released", "closed"]


def test_a_result_that_comes_after_an_interrupt_is_dropped() -> None:
    """The task waits for something else by then."""
    ends, got, strikes = threading.Event(), list[object](), [KeyboardInterrupt()]

    def late() -> str:
        assert ends.wait(5)
        return "late"

    def in_time() -> str:
        threads[0].join(5)
        return "in time"

    def asks(_: Task) -> Steps:
        try:
            got.append((yield FetchPassword(late)))
        except KeyboardInterrupt:
            ends.set()
            # The first call ends before this one.
            got.append((yield FetchPassword(in_time)))

    def on_turn() -> None:
        if strikes and threads:
            raise strikes.pop()

    threads = list[threading.Thread]()
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        start(thread)
        threads.append(thread)

    poller = Poller(on_turn, lambda _: None)
    poller.spawn(asks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", note)
        with pytest.raises(KeyboardInterrupt):
            poller.run(lambda: False)
        poller.run(lambda: not poller.tasks)
    assert [secret.reveal() for secret in got if isinstance(secret, Secret)] == ["in time"]


def test_a_run_that_ends_does_not_look_for_a_connection_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message waits for one that another send has."""
    mine, claims = SecureMailer("localhost", 1, max_connections=1), list[float]()
    lease = Lease(threading.get_ident())
    drive(mine._pool.acquire(lease, None, ThreadWaiter), perform)
    claim, looked = mine._pool._claim, threading.Semaphore(0)

    def counting(*arguments: Any) -> Any:
        claims.append(time.monotonic())
        looked.release()
        return claim(*arguments)

    monkeypatch.setattr(mine._pool, "_claim", counting)
    results = mine.send_many(_mails(1))
    reader = threading.Thread(target=list, args=(results,))
    reader.start()
    assert looked.acquire(timeout=5)
    results._progress.workers.backlog.close()
    for _ in range(6):
        assert looked.acquire(timeout=5)
    lease.done = True
    mine._pool.notify()
    reader.join(5)
    # It was woken once, and then looked five times a second.
    assert claims[6] - claims[0] > 0.5


def test_a_wait_that_an_interrupt_has_left_is_begun_again() -> None:
    """Its socket may have been read, and is not watched any more."""
    tasks = list[Task]()

    def sleeps(task: Task) -> Steps:
        tasks.append(task)
        yield Sleep(task, 60)

    run = Run(sleeps)
    run.poller.run(lambda: bool(tasks))
    run.poller._waiting[1000], tasks[0].socket = tasks[0], 1000
    assert run.to_its_end() == [None]


def test_waking_a_poller_that_does_not_run_does_nothing() -> None:
    """Its sockets are closed."""
    run = Run()
    run.poller.wake()
    assert run.to_its_end() == []
    run.poller.wake()


def test_a_waker_whose_buffer_is_full_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has been woken by the bytes before."""
    made = list[socket.socket]()
    real = socket.socketpair

    def small() -> tuple[socket.socket, socket.socket]:
        made.extend(real())
        return made[0], made[1]

    monkeypatch.setattr(socket, "socketpair", small)
    woken = list[None]()

    def on_turn() -> None:
        for _ in range(2000):
            run.poller.wake()
        woken.append(None)

    def waits(_: Task) -> Steps:
        yield PAUSE
        yield PAUSE

    run = Run(waits)
    run.poller._on_turn = on_turn
    assert run.to_its_end() == [None]
    assert woken


def _mails(count: int) -> Iterator[Envelope]:
    for number in range(count):
        yield Envelope("a@b.example", ["c@d.example"], b"Subject: %d\r\n\r\nx\r\n" % number)


def test_what_has_arrived_is_read_before_the_deadline_counts(serve: Serve, mailer: Mailer) -> None:
    """A slow on_event keeps the whole run from reading; the server has accepted the other message long ago."""
    both, stands_still = threading.Barrier(2), threading.Event()

    def takes(_: Peer, content: bytes) -> bytes:
        # Both are in flight, and the second reply comes when the run does not read.
        both.wait(5)
        assert b"Subject: 0" in content or stands_still.wait(5)
        return b"250 ok\r\n"

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, Sent) and not stands_still.is_set():
            stands_still.set()
            while time.monotonic() < began + 1.5:
                time.sleep(0.05)

    events, began = list[Event](), time.monotonic()
    mine = mailer(serve(honest(replies={"CONTENT": takes})), max_connections=2, on_event=on_event)
    results = list(mine.send_many(_mails(2), deadline=1))
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 2
    # No connection has timed out.
    assert [event.reason for event in events if isinstance(event, Closed)] == []


def test_close_in_on_event_does_not_wait_for_its_own_run(serve: Serve, mailer: Mailer) -> None:
    """All sends of the run are in the thread that calls it."""
    raised = list[SecureSMTPError]()

    def on_event(event: Event) -> None:
        if isinstance(event, Sent):
            mine.close()

    mine = mailer(serve(), max_connections=2, on_event=on_event)
    for result in mine.send_many(_mails(6)):
        if isinstance(result.error, SecureSMTPError):
            raised.append(result.error)
    assert {type(error).__name__ for error in raised} <= {"ConfigurationError"}


def test_a_send_in_on_event_is_inside_its_run(serve: Serve, mailer: Mailer) -> None:
    """It would wait for ever for a connection that the run has: an error says so instead."""
    told = list[str]()

    def on_event(event: Event) -> None:
        if isinstance(event, Sent) and not told:
            told.append("")
            try:
                mine.send_bytes(b"Subject: x\r\n\r\n", mail_from="a@b.example", recipients=["c@d.example"])
            except SecureSMTPError as error:
                told.append(str(error))

    go = threading.Barrier(2)

    def takes(_: Peer, content: bytes) -> bytes:
        if b"Subject: 0" in content or b"Subject: 1" in content:
            go.wait(5)
        return b"250 ok\r\n"

    mine = mailer(serve(honest(replies={"CONTENT": takes})), max_connections=2, on_event=on_event)
    assert [result.outcome for result in mine.send_many(_mails(2))] == [Outcome.ACCEPTED] * 2
    assert len(told) == 1 or "inside a send" in told[1]
