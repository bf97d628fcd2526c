"""send_many: results in order, input read lazily, one bad message does not stop the others, nothing is sent twice."""

from __future__ import annotations

import io
import itertools
import linecache
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from types import FrameType
from typing import Any

import pytest

from conftest import Mailer, Serve, thorough
from scripted import Peer, honest
from securesmtp import (
    AddressError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    DataRefusedError,
    Envelope,
    MessageError,
    Outcome,
    OutcomeUnknownError,
    RecipientsRefusedError,
    SecureMailer,
    SendResult,
    _results,
    _workers,
)
from securesmtp._bulk.backlog import Backlog
from securesmtp._bulk.jobs import Job
from securesmtp._bulk.run import Run as MailRun
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.content import Content
from securesmtp._protocol.message import Submission
from securesmtp._results import Progress, Results, in_order
from securesmtp._transport.poller import Poller
from securesmtp._transport.task import Task
from securesmtp._workers import Worker, Workers

ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = Outcome.ACCEPTED, Outcome.REFUSED, Outcome.NOT_SENT, Outcome.UNKNOWN


def mails(count: int) -> Iterator[Envelope]:
    """Return messages whose subject is their number."""
    for number in range(count):
        yield Envelope(
            "a@b.example", ["c@d.example"], b"Subject: %d\r\nMessage-ID: <%d@x>\r\n\r\nx\r\n" % (number, number)
        )


def _number(content: bytes) -> int:
    return int(content.split(b"\r\n")[0].removeprefix(b"Subject: "))


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("securesmtp-")}


def test_results_come_in_the_order_of_the_messages(serve: Serve, mailer: Mailer) -> None:
    """Even if a later one is sent first; each arrives once, over no more connections than are allowed."""

    def uneven(peer: Peer, content: bytes) -> bytes:
        time.sleep(0.01 if _number(content) % 3 == 0 else 0)
        return b"250 queued as %d\r\n" % _number(content)

    server = serve(honest(replies={"CONTENT": uneven}))
    results = list(mailer(server, max_connections=3).send_many(mails(30)))
    assert [(result.index, result.message_id, result.outcome) for result in results] == [
        (number, f"<{number}@x>", ACCEPTED) for number in range(30)
    ]
    assert [result.receipt.reply.text for result in results if result.receipt] == [f"queued as {n}" for n in range(30)]
    assert sorted(_number(message.content) for message in server.accepted) == list(range(30))
    assert len(server.connections) <= 3
    assert _threads() == set()


def test_the_input_is_read_only_a_little_ahead(serve: Serve, mailer: Mailer) -> None:
    """An endless input works: at most twice as many messages as connections are read ahead of the results."""
    read = 0

    def endless() -> Iterator[Envelope]:
        nonlocal read
        for read, mail in enumerate(itertools.chain.from_iterable(mails(9) for _ in itertools.count()), 1):  # noqa: B007
            yield mail

    results = mailer(serve(), max_connections=2).send_many(endless())
    assert read == 0
    for told, result in enumerate(itertools.islice(results, 50), 1):
        assert result.outcome is ACCEPTED
        assert read <= told + 4
    results.close()
    assert _threads() == set()


def test_one_bad_message_stops_no_other(serve: Serve, mailer: Mailer) -> None:
    """Each result has what `send` would have raised; files, objects and envelopes are sent."""
    bad = b"550 5.7.1 no\r\n"
    replies = {
        "RCPT": lambda _, line: bad if b"nobody" in line else b"250 ok\r\n",
        "CONTENT": lambda _, content: b"554 5.6.0 spam\r\n" if b"spam" in content else b"250 ok\r\n",
    }
    server = serve(honest(replies=replies))
    mail = EmailMessage()
    mail["From"], mail["To"] = "a@b.example", "c@d.example"
    broken = EmailMessage()
    messages = [
        Envelope("a@b.example", ["c@d.example"], io.BytesIO(b"Subject: file\r\n\r\n")),
        Envelope("a@b", ["not an address"], b"x"),
        mail,
        broken,
        Envelope("a@b.example", ["nobody@d.example"], b"\r\nx"),
        Envelope("a@b.example", ["c@d.example"], b"\r\nspam"),
        Envelope("x@b.example", ["y@d.example"], mail),
        Envelope("a@b.example", ["c@d.example"], b"a\rb"),
        Envelope("a@b.example", (1 // 0 for _ in "x"), b"\r\nx"),  # type: ignore[misc]
        "Subject: a str",
        Envelope("a@b.example", ["c@d.example"], b"Subject: last\r\n\r\n"),
    ]
    results = list(mailer(server).send_many(messages))  # type: ignore[arg-type]
    assert [(result.index, result.outcome, type(result.error)) for result in results] == [
        (0, ACCEPTED, type(None)),
        (1, NOT_SENT, AddressError),
        (2, ACCEPTED, type(None)),
        (3, NOT_SENT, MessageError),
        (4, REFUSED, RecipientsRefusedError),
        (5, REFUSED, DataRefusedError),
        (6, ACCEPTED, type(None)),
        (7, NOT_SENT, MessageError),
        (8, NOT_SENT, ZeroDivisionError),
        (9, NOT_SENT, MessageError),
        (10, ACCEPTED, type(None)),
    ]
    assert len(server.accepted) == 4
    assert any(message.mail_from == b"MAIL FROM:<x@b.example>" for message in server.accepted)


def test_a_message_is_copied_when_it_is_read(serve: Serve, mailer: Mailer) -> None:
    """A caller that changes the object afterwards changes the next message only (MSG-08)."""

    def reused() -> Iterator[EmailMessage]:
        mail = EmailMessage()
        mail["From"], mail["To"] = "a@b.example", "c@d.example"
        for number in range(20):
            del mail["Subject"]
            mail["Subject"] = str(number)
            yield mail

    server = serve()
    assert {result.outcome for result in mailer(server).send_many(reused())} == {ACCEPTED}
    subjects = [line for message in server.accepted for line in message.content.split(b"\r\n") if b"Subject" in line]
    assert sorted(subjects) == sorted(b"Subject: %d" % number for number in range(20))


def test_an_error_of_the_iterable_is_raised_after_the_results(serve: Serve, mailer: Mailer) -> None:
    """No result is lost, and no thread is left running."""

    def raises() -> Iterator[Envelope]:
        yield from mails(7)
        raise LookupError("the database is gone")

    server = serve()
    results: list[SendResult] = []
    with pytest.raises(LookupError, match="database"):
        results.extend(mailer(server).send_many(raises()))
    results = []
    with pytest.raises(LookupError):  # noqa: PT012 -- what came before it is looked at
        for result in mailer(server).send_many(raises()):
            results.append(result)
    assert [result.outcome for result in results] == [ACCEPTED] * 7
    assert _threads() == set()


def test_leaving_the_loop_early_leaves_no_half_message(serve: Serve, mailer: Mailer) -> None:
    """Messages that are being sent are finished, the others are dropped, and the mailer is usable."""
    server = serve()
    mine = mailer(server, max_connections=2)
    for result in mine.send_many(mails(100)):
        if result.index == 3:
            break
    del result
    mine.close()
    server.joined()
    assert _threads() == set()
    assert 4 <= len(server.accepted) <= 8
    assert all(connection.secret.endswith(b"QUIT\r\n") for connection in server.connections)


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_results_can_be_read_after_leaving_the_loop(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """Messages that were being sent have their result, the others are NOT_SENT, and no more are read."""
    server = serve(honest(extensions=("PIPELINING",)), overlaps=True)
    mine = mailer(server, max_connections=2, pipelining=pipelining)
    read: list[Envelope] = []

    def reads() -> Iterator[Envelope]:
        for each in mails(500):
            read.append(each)
            yield each

    results = mine.send_many(reads())
    first = list(itertools.islice(results, 3))
    results.close()
    count = len(read)
    rest = list(results)
    assert [result.index for result in (*first, *rest)] == list(range(count))
    assert list(results) == []
    assert len(read) == count < 500
    accepted = sorted(_number(message.content) for message in server.accepted)
    assert [result.index for result in (*first, *rest) if result.outcome is ACCEPTED] == accepted
    for result in rest:
        assert result.message_id == f"<{result.index}@x>"
        assert result.outcome is ACCEPTED or (result.outcome is NOT_SENT and result.retryable), result
    assert _threads() == set()


def test_a_run_closed_before_its_first_result_reads_nothing(serve: Serve, mailer: Mailer) -> None:
    """Its iterable is not touched."""
    results = mailer(serve()).send_many(mails(3))
    results.close()
    assert list(results) == []


def test_after_an_interrupt_in_the_body_of_the_loop_close_ends_the_run(serve: Serve, mailer: Mailer) -> None:
    """The iterator cannot know of it: without `close`, reading on would send the rest."""
    server = serve(connections=4)
    run = mailer(server).send_many(mails(50))
    results = [next(run)]
    # Here Ctrl-C strikes, in the caller's own code.
    run.close()
    results += run
    assert [result.index for result in results] == list(range(len(results)))
    assert len(results) < 50
    assert {result.outcome for result in results} <= {ACCEPTED, NOT_SENT}
    assert sum(result.outcome is ACCEPTED for result in results) == len(server.accepted)


def test_an_error_of_the_iterable_is_raised_after_an_interrupt_too(serve: Serve, mailer: Mailer) -> None:
    """It comes after the results that the interrupt kept from the caller."""

    def raises() -> Iterator[Envelope]:
        yield from mails(2)
        raise LookupError("the database is gone")

    def interrupts(peer: Peer, line: bytes) -> bytes:
        go.wait(5)
        return b"250 ok\r\n"

    go = threading.Event()
    results = mailer(serve(honest(replies={"CONTENT": interrupts}))).send_many(raises())
    with _interrupted_when_it_waits(go), pytest.raises(KeyboardInterrupt):
        next(results)
    assert [next(results).outcome, next(results).outcome] == [ACCEPTED] * 2
    with pytest.raises(LookupError):
        next(results)
    assert next(results, None) is None


@contextmanager
def _interrupted_when_it_waits(go: threading.Event) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: signal.default_int_handler(signal.SIGINT, None))

    def strike() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        go.set()

    timer = threading.Timer(0.2, strike)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("step", thorough(7, 1))
def test_an_interrupt_at_any_line_of_a_run_loses_no_result(serve: Serve, mailer: Mailer, step: int) -> None:
    """Each message that was read has one result, before or after it, and each accepted one is ACCEPTED."""
    server = serve(connections=5000)
    mine = mailer(server, max_connections=2)
    for at in itertools.count(0, step):
        taken = Counter(_number(message.content) for message in server.accepted)
        results, told, left = mine.send_many(mails(6)), list[SendResult](), [at]

        def trace(frame: FrameType, what: str, _: object, left: list[int] = left) -> Any:
            file = frame.f_code.co_filename
            if file not in {_results.__file__, _workers.__file__}:
                return None
            # A signal strikes after a call, and not between an assignment and the return after it.
            if what == "line" and linecache.getline(file, frame.f_lineno).strip() != "return result":
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
        accepted = sorted((Counter(_number(message.content) for message in server.accepted) - taken).elements())
        assert accepted == [result.index for result in told if result.outcome is ACCEPTED], at
        if left[0] >= 0:
            break
    assert len(told) == 6
    assert at > 100


def test_a_message_whose_worker_ended_has_an_unknown_outcome() -> None:
    """It may have been accepted. Messages that no worker had taken are certainly not sent."""
    sender = Mailbox.parse("a@b.example")
    jobs = [Job(number, Submission(sender, (), Content.from_bytes(b"")), lambda: None) for number in range(3)]

    def work(workers: Workers, _: Task) -> Generator[None]:
        workers.backlog.take()
        raise RuntimeError("a fault")
        yield

    results = in_order(jobs, work, 1, 3)
    with pytest.raises(RuntimeError, match="a fault"):
        next(results)
    assert [(result.index, result.outcome) for result in results] == [(0, UNKNOWN), (1, NOT_SENT), (2, NOT_SENT)]


def test_a_worker_that_is_one_too_many_does_nothing() -> None:
    """The server accepts fewer connections, which was seen before it began."""
    mine = SecureMailer("localhost")
    sent = MailRun(mine._core, "raise")
    sent._allowed = 0
    workers = Workers(_idle, 1)
    worker = Worker(sent, mine._pool, workers, Task(_idle, lambda _: None, lambda _: None))
    assert list(worker.work()) == []


def test_a_fault_in_the_thread_of_a_run_is_raised(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results say that nothing is known of the message that was being sent."""

    def breaks(*_: object) -> None:
        raise MemoryError

    results = mailer(serve()).send_many(mails(2))
    monkeypatch.setattr(Poller, "_wait", breaks)
    with pytest.raises(MemoryError):
        next(results)
    assert [result.outcome for result in results] == [NOT_SENT, NOT_SENT]


def _dies(times: int, at: str, then: bytes = b"") -> Callable[[Peer, bytes], bytes]:
    """End the connection at this step, so many *times*, or reply with *then*."""
    left = [None] * times

    def answer(peer: Peer, line: bytes) -> bytes:
        if left:
            left.pop()
            if then:
                return then
            peer.cut()
            peer.sleep_until_peer_closes()
        return {"DATA": b"354 go\r\n"}.get(at, b"250 ok\r\n")

    return answer


@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("then", [b"", b"421 4.3.2 restarting\r\n"], ids=["cut", "421"])
def test_a_message_whose_connection_died_is_sent_once_more(serve: Serve, mailer: Mailer, at: str, then: bytes) -> None:
    """It was certainly not accepted. If the second connection dies as well, the error is the result."""
    server = serve(honest(replies={at: _dies(1, at, then)}))
    (result,) = mailer(server).send_many(mails(1))
    assert result.outcome is ACCEPTED
    assert len(server.connections) == 2
    server = serve(honest(replies={at: _dies(2, at, then)}))
    (result,) = mailer(server).send_many(mails(1))
    assert result.outcome is NOT_SENT
    assert result.retryable
    assert len(server.connections) == 2


def test_a_message_whose_outcome_is_unknown_is_never_sent_again(serve: Serve, mailer: Mailer) -> None:
    """It may have arrived, and here it did: once (MSG-05)."""
    server = serve(honest(replies={"CONTENT": _dies(1, "CONTENT")}))
    results = list(mailer(server, max_connections=1).send_many(mails(3)))
    assert [result.outcome for result in results] == [UNKNOWN, ACCEPTED, ACCEPTED]
    assert isinstance(results[0].error, OutcomeUnknownError)
    assert not any(result.retryable for result in results)
    assert [_number(message.content) for message in server.accepted] == [0, 1, 2]


def test_a_connection_that_cannot_be_opened_is_not_tried_twice(serve: Serve, mailer: Mailer) -> None:
    """Only a message whose connection was open before is sent again."""
    server = serve(honest(replies={"GREETING": b"421 4.3.2 not now\r\n"}))
    (result,) = mailer(server).send_many(mails(1))
    assert result.outcome is NOT_SENT
    assert len(server.connections) == 1


def test_a_refused_login_ends_a_run(serve: Serve, mailer: Mailer) -> None:
    """Fifty messages do not make fifty wrong logins; the next run tries again."""
    server = serve(honest(auth=("me", "right")), connections=100)
    mine = mailer(server, username="me", password="wrong", max_connections=2)
    results = list(mine.send_many(mails(50)))
    assert {(result.outcome, type(result.error)) for result in results} == {(NOT_SENT, AuthenticationError)}
    assert "earlier message" in str(results[-1].error)
    assert len(server.connections) <= 2
    list(mine.send_many(mails(1)))
    assert len(server.connections) <= 3


def test_an_error_of_a_password_callable_is_the_result(serve: Serve, mailer: Mailer) -> None:
    """It is not wrapped, and the other messages are tried."""
    asked = itertools.count()

    def password() -> str:
        if next(asked) == 0:
            raise LookupError("the vault is sealed")
        return "secret"

    server = serve(honest(auth=("me", "secret")))
    results = list(mailer(server, username="me", password=password, max_connections=1).send_many(mails(3)))
    assert [(result.outcome, type(result.error)) for result in results] == [
        (NOT_SENT, LookupError),
        (ACCEPTED, type(None)),
        (ACCEPTED, type(None)),
    ]


def test_each_message_has_its_own_deadline(serve: Serve, mailer: Mailer) -> None:
    """A slow message leaves the next one its full time."""
    asked = itertools.count()

    def slow(peer: Peer, line: bytes) -> bytes:
        if next(asked) == 0:
            peer.sleep_until_peer_closes()
        return b"354 go\r\n"

    server = serve(honest(replies={"DATA": slow}))
    results = list(mailer(server, max_connections=1).send_many(mails(3), deadline=0.3))
    assert [result.outcome for result in results] == [NOT_SENT, ACCEPTED, ACCEPTED]


def test_arguments_are_checked_at_the_call(serve: Serve, mailer: Mailer) -> None:
    """Not when the first result is asked for."""
    mine = mailer(serve())
    with pytest.raises(ConfigurationError, match="partial"):
        mine.send_many([], partial="some")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="deadline"):
        mine.send_many([], deadline=0)
    with pytest.raises(ConfigurationError, match="iterable"):
        mine.send_many(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="iterable"):
        mine.send_many(EmailMessage())  # type: ignore[arg-type]


def test_a_closed_backlog_drops_what_no_worker_has_taken() -> None:
    """Each worker learns that there are no more jobs."""
    changes = list[None]()
    backlog, job = Backlog(lambda: changes.append(None)), _job()
    backlog.put(job)
    backlog.close()
    assert [backlog.take() for _ in range(3)] == [None] * 3
    assert (backlog.is_closed, job.started, len(changes)) == (True, 0.0, 2)


def _job() -> Job:
    return Job(0, Submission(Mailbox.parse("a@b.example"), (), Content.from_bytes(b"")), lambda: None, started=1.0)


def _idle(*_: object) -> Generator[None]:
    yield from ()


def test_a_thread_whose_start_was_interrupted_is_waited_for_by_its_job() -> None:
    """Whether it runs is not known; but its job has an end before the run is over."""
    job, workers = _job(), Workers(_idle, 1)

    class Ends:
        def get(self, timeout: float) -> None:
            job.end = SendResult(0, None, Outcome.NOT_SENT)

    workers.thread, workers.ends = threading.Thread(target=print), Ends()  # type: ignore[assignment]
    Progress(pending=deque([job]), workers=workers).stop()
    assert job.end is not None
    assert workers.thread is None


def test_the_error_that_an_interrupt_carries_is_the_result() -> None:
    """The cause of the interrupt is an error of ours about this message."""
    job, known, interrupt = _job(), ConnectError("the send was interrupted"), KeyboardInterrupt()
    interrupt.__cause__, job.end = known, interrupt

    def ended() -> Generator[SendResult]:
        yield from ()

    result = next(Results(ended(), Progress(pending=deque([job]), workers=Workers(_idle, 1))))
    assert result.error is known
    assert result.outcome is Outcome.NOT_SENT
