"""`rate`, `max_recipients` and `stats()`, over every face: what a mailer may send, and what it says that it does."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from conftest import AsyncMailer, Mailer, Run, Serve
from scripted import Peer, honest
from securesmtp import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    Envelope,
    MessageError,
    Outcome,
    RefusedError,
    SecureMailer,
    SecureSMTPError,
    Stage,
    Stats,
)
from securesmtp._activity import Activity
from securesmtp._transport import deadline, process
from securesmtp._transport.turns import Turns
from securesmtp.ledger import SQLiteLedger
from securesmtp.testing import AsyncRecordingMailer, RecordingMailer

RAW = b"Subject: x\r\nMessage-ID: <x@y.example>\r\n\r\nx\r\n"
MANY = ("PIPELINING", "8BITMIME", "CHUNKING")
ZERO = Stats(open=0, busy=0, under_way=0, waiting=0, accepted=0, refused=0, not_sent=0, unknown=0, connects=0, logins=0)


def envelopes(count: int, recipients: int = 1) -> Iterator[Envelope]:
    """Return so many messages, each with so many recipients."""
    for number in range(count):
        raw = b"Subject: x\r\nMessage-ID: <%d@y.example>\r\n\r\nx\r\n" % number
        yield Envelope("a@b.example", [f"{each}@d.example" for each in range(recipients)], raw)


def send(mailer: SecureMailer, **options: Any) -> int:
    """Send a message, and return the code of the last reply."""
    return mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"], **options).reply.code


@contextmanager
def threads(work: Callable[[], object], count: int = 1) -> Iterator[list[object]]:
    """Run *work* in threads that are joined at the end; yield a list of what it returned or raised."""
    ends: list[object] = []

    def run() -> None:
        try:
            ends.append(work())
        except Exception as error:  # noqa: BLE001 -- the test looks at it
            ends.append(error)

    started = [threading.Thread(target=run) for _ in range(count)]
    for each in started:
        each.start()
    yield ends
    for each in started:
        each.join(60)
        assert not each.is_alive()


def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* is true; a minute is for a machine that stands still."""
    end, pause = monotonic() + 60, threading.Event()
    while not condition():
        assert monotonic() < end
        pause.wait(0.005)


def least(count: int, rate: float) -> float:
    """Return the seconds that so many messages take at the least."""
    return (count - max(1, rate / 10)) / rate


class Holding:
    """A reply that comes when the test lets it."""

    def __init__(self) -> None:
        self.release, self.reached = threading.Event(), threading.Semaphore(0)

    def __call__(self, peer: Peer, content: bytes) -> bytes:
        self.reached.release()
        self.release.wait(60)
        return b"250 2.0.0 queued\r\n"


class Gate(Turns):
    """Turns that the test gives out."""

    def __init__(self, allowed: int) -> None:
        super().__init__(1)
        self.allowed = allowed

    def delay(self, now: float) -> float:
        return 0 if self.allowed > 0 else 0.01

    def take(self, now: float) -> None:
        self.allowed -= 1

    def give_back(self) -> None:
        self.allowed += 1


@pytest.mark.faces("rate")
@pytest.mark.parametrize("way", ["threads", "message", "session"])
def test_nothing_is_sent_without_a_turn(serve: Serve, mailer: Mailer, way: str) -> None:
    """Three messages of nine have theirs; the others go when they have it. No turn is lost."""
    server = serve(honest(extensions=MANY), connections=20, overlaps=way == "session")
    mine = mailer(server, max_connections=3, rate=1, pipelining="message" if way == "threads" else way)
    turns = mine._pool.slots.turns = Gate(3)
    work, count = (lambda: send(mine), 9) if way == "threads" else (lambda: len(list(mine.send_many(envelopes(9)))), 1)
    with threads(work, count) as ends:
        until(lambda: (len(server.accepted) >= 3 and mine.stats().waiting) or len(ends) == count)
        assert len(server.accepted) == 3
        turns.allowed = 100
    assert ends == ([250] * 9 if way == "threads" else [9])
    assert len(server.accepted) == 9
    assert turns.allowed == 94


@pytest.mark.faces("rate")
def test_messages_of_all_threads_share_one_rate(serve: Serve, mailer: Mailer) -> None:
    """However many connections there are: eight messages take as long as eight of one thread."""
    server = serve(connections=8)
    mine = mailer(server, max_connections=4, rate=15)
    began = monotonic()
    with threads(lambda: send(mine), 8) as ends:
        pass
    assert ends == [250] * 8
    assert monotonic() - began >= least(8, 15)
    assert len(server.accepted) == 8


@pytest.mark.faces("rate")
@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_run_keeps_the_rate(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """Also where many messages may be in flight, and together with sends of other threads."""
    server = serve(honest(extensions=MANY), connections=8, overlaps=pipelining == "session")
    mine = mailer(server, max_connections=3, rate=15, pipelining=pipelining)
    began = monotonic()
    with threads(lambda: send(mine), 3) as ends:
        results = list(mine.send_many(envelopes(9)))
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 9
    assert ends == [250] * 3
    assert monotonic() - began >= least(12, 15)
    assert len(server.accepted) == 12


@pytest.mark.faces("rate")
def test_a_run_with_a_ledger_keeps_the_rate(serve: Serve, mailer: Mailer, tmp_path: Path) -> None:
    """Each message is claimed and finished as without a rate."""
    server = serve(honest(extensions=MANY), connections=8, overlaps=True)
    mine = mailer(server, max_connections=2, rate=15, pipelining="session")
    began = monotonic()
    with SQLiteLedger(tmp_path / "x.ledger") as ledger:
        results = list(mine.send_many(envelopes(6), ledger=ledger))
        again = list(mine.send_many(envelopes(6), ledger=ledger))
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 6
    assert [result.from_ledger for result in again] == [True] * 6
    assert monotonic() - began >= least(6, 15)
    assert len(server.accepted) == 6


@pytest.mark.faces("rate")
def test_the_wait_for_a_turn_counts_against_the_deadline_of_a_send(serve: Serve, mailer: Mailer) -> None:
    """The error says what it has waited for; nothing was sent, and the next send does not wait for its turn."""
    server = serve()
    mine = mailer(server, rate=0.01)
    assert send(mine) == 250
    with pytest.raises(DeadlineExceededError) as caught:
        send(mine, deadline=0.1)
    assert caught.value.args[0] == (
        "timed out after 0.1 s waiting for its turn, because of the mailer's rate (limit: deadline)"
    )
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.NOT_SENT, True)
    assert mine._pool.slots.turns.delay(monotonic()) <= 100
    assert len(server.accepted) == 1


@pytest.mark.faces("rate")
def test_the_wait_for_a_turn_does_not_count_in_a_run(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a message begins after it: the second one has waited longer than its deadline is."""
    ahead = [0.0]
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: monotonic() + ahead[0]))
    server = serve(connections=4)
    mine = mailer(server, max_connections=2, rate=1)
    turns = mine._pool.slots.turns = Gate(1)
    with threads(lambda: list(mine.send_many(envelopes(2), deadline=100))) as ends:
        until(lambda: server.accepted and mine.stats().waiting and not mine.stats().under_way)
        ahead[0] = 1000
        turns.allowed = 9
    (results,) = ends
    assert isinstance(results, list)
    assert [result.error for result in results] == [None, None]


@pytest.mark.faces("rate")
def test_a_run_that_ends_early_waits_for_no_turn(serve: Serve, mailer: Mailer) -> None:
    """What had no turn is not sent; at this rate, the test would last for hours."""
    server = serve(connections=4)
    mine = mailer(server, max_connections=4, rate=0.001)
    results: Any = mine.send_many(envelopes(50))
    first = next(results)
    results.close()
    rest = list(results)
    assert first.outcome is Outcome.ACCEPTED
    assert {result.outcome for result in rest} == {Outcome.NOT_SENT}
    assert all(isinstance(result.error, ConnectError) and result.error.retryable for result in rest)
    assert len(server.accepted) == 1


@pytest.mark.faces("rate")
def test_closing_the_mailer_ends_the_wait_for_a_turn(serve: Serve, mailer: Mailer) -> None:
    """Of a send, and of each message of a run, which has all its results."""
    server = serve(connections=4)
    mine = mailer(server, max_connections=2, rate=0.001)
    assert send(mine) == 250
    with threads(lambda: send(mine)) as ends, threads(lambda: list(mine.send_many(envelopes(20)))) as runs:
        until(lambda: mine.stats().waiting >= 3 and mine.stats().under_way)
        (result,) = mine.close()
    assert isinstance(result.error, ConfigurationError)
    (error,), (results,) = ends, runs
    assert isinstance(error, ConfigurationError)
    assert "closed" in str(error)
    assert isinstance(results, list)
    assert [each.outcome for each in results] == [Outcome.NOT_SENT] * 20
    assert {type(each.error) for each in results} == {ConfigurationError}
    assert len(server.accepted) == 1


def test_a_send_inside_a_send_does_not_wait_for_its_turn(serve: Serve, mailer: Mailer) -> None:
    """Its thread holds a connection, for which others may wait; the turn that it takes is missing later."""
    codes: list[int] = []

    def password() -> str:
        if not codes:
            codes.append(0)
            codes.append(send(mine))
        return "secret"

    mine = mailer(serve(honest(auth=("me", "secret")), connections=4), username="me", password=password, rate=0.01)
    assert send(mine) == 250
    assert codes == [0, 250]
    assert mine._pool.slots.turns.delay(monotonic()) > 100


def test_a_send_inside_a_send_of_a_task_does_not_wait_for_its_turn(
    run: Run, serve: Serve, async_mailer: AsyncMailer
) -> None:
    """As in a thread."""
    codes: list[int] = []

    async def main() -> None:
        async def password() -> str:
            if not codes:
                codes.append(0)
                codes.append(await one())
            return "secret"

        async def one() -> int:
            receipt = await mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
            return receipt.reply.code

        server = serve(honest(auth=("me", "secret")), connections=4)
        async with async_mailer(server, username="me", password=password, rate=0.01) as mailer:
            with anyio.fail_after(60):
                assert await one() == 250
            assert mailer._pool.slots.turns.delay(monotonic()) > 100

    run(main)
    assert codes == [0, 250]


@pytest.mark.faces("rate")
def test_a_second_try_of_a_message_takes_no_second_turn(serve: Serve, mailer: Mailer) -> None:
    """A server that closes after one message: the next one goes over a new connection at once."""
    count = 0

    def mail(peer: Peer, line: bytes) -> bytes:
        nonlocal count
        count += 1
        return b"421 4.7.0 enough\r\n" if count == 2 else b"250 ok\r\n"

    server = serve(honest(extensions=(), replies={"MAIL": mail}), connections=4)
    mine = mailer(server, rate=1)
    turns = mine._pool.slots.turns = Gate(5)
    assert [send(mine), send(mine)] == [250, 250]
    assert (count, turns.allowed) == (3, 3)


def test_cancelled_sends_leave_their_turns_to_others(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """Fifty that waited are cancelled: the next message goes as if they had never been there."""

    async def main() -> None:
        async with async_mailer(serve(connections=9), rate=5) as mailer:

            async def one() -> None:
                await mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])

            await one()
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(one)
                while mailer.stats().waiting < 45:
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            assert mailer._pool.slots.turns.delay(monotonic()) <= 0.2
            await one()

    run(main)


@pytest.mark.faces("limits")
def test_a_message_with_too_many_recipients_is_refused(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Before the network, whichever way it is given; a run goes on with the next one."""
    server = serve()
    mine = mailer(server, max_recipients=2)
    del message["Bcc"]
    many = [f"{number}@d.example" for number in range(3)]
    ways: list[Callable[[], object]] = [
        lambda: mine.send(message, recipients=many),
        lambda: mine.send_bytes(RAW, mail_from="a@b.example", recipients=many),
    ]
    for refused in ways:
        with pytest.raises(MessageError) as caught:
            refused()
        assert caught.value.args[0] == "the message has 3 recipients, and the mailer allows 2 (max_recipients)"
        assert caught.value.stage is Stage.CONFIGURATION
    assert server.connections == []
    results = list(mine.send_many([*envelopes(1, 3), *envelopes(1, 2)]))
    assert [result.outcome for result in results] == [Outcome.NOT_SENT, Outcome.ACCEPTED]
    assert isinstance(results[0].error, MessageError)
    assert [len(each.recipients) for each in server.accepted] == [2]
    assert mine.stats().not_sent == 0


def test_too_many_recipients_are_not_written_into_a_ledger(serve: Serve, mailer: Mailer, tmp_path: Path) -> None:
    """As with every message that is wrong: it can be corrected, and sent with the same key."""
    mine = mailer(serve(), max_recipients=2)
    with SQLiteLedger(tmp_path / "x.ledger") as ledger:
        (result,) = mine.send_many(envelopes(1, 3), ledger=ledger)
        assert isinstance(result.error, MessageError)
        assert list(ledger.entries()) == []
        (result,) = mine.send_many(envelopes(1, 2), ledger=ledger)
        assert result.outcome is Outcome.ACCEPTED


def test_recording_mailers_have_the_same_cap_and_counts() -> None:
    """A test sees what the program would see; a rate makes no test wait."""
    many = ["a@d.example", "b@d.example"]
    with RecordingMailer(max_recipients=1, rate=0.01) as mailer:
        for _ in range(3):
            assert send(mailer) == 250
        with pytest.raises(MessageError, match="max_recipients"):
            mailer.send_bytes(RAW, mail_from="a@b.example", recipients=many)
        assert [result.outcome for result in mailer.send_many(envelopes(2, 2))] == [Outcome.NOT_SENT] * 2
        mailer.fault = "full"
        with pytest.raises(SecureSMTPError):
            send(mailer)
        assert (mailer.stats().accepted, mailer.stats().refused) == (3, 1)

    async def main() -> None:
        async with AsyncRecordingMailer(max_recipients=1) as other:
            await other.send_bytes(RAW, mail_from="a@b.example", recipients=many[:1])
            with pytest.raises(MessageError, match="max_recipients"):
                await other.send_bytes(RAW, mail_from="a@b.example", recipients=many)
            assert other.stats().accepted == 1

    anyio.run(main)


@pytest.mark.faces("stats")
def test_the_stats_say_what_is_under_way(serve: Serve, mailer: Mailer) -> None:
    """One send has the only connection, and two wait for it."""
    holding = Holding()
    mine = mailer(
        serve(honest(auth=("me", "secret"), replies={"CONTENT": holding})),
        max_connections=1,
        username="me",
        password="secret",
    )
    assert mine.stats() == ZERO
    with threads(lambda: send(mine), 3):
        assert holding.reached.acquire(timeout=60)
        until(lambda: mine.stats().waiting == 2)
        now = mine.stats()
        assert (now.open, now.busy, now.under_way, now.waiting, now.connects, now.logins) == (1, 1, 3, 2, 1, 1)
        assert (now.accepted, now.refused, now.not_sent, now.unknown) == (0, 0, 0, 0)
        holding.release.set()
    now = mine.stats()
    assert (now.open, now.busy, now.under_way, now.waiting, now.accepted) == (1, 0, 0, 0, 3)
    mine.close()
    assert (mine.stats().open, mine.stats().accepted) == (0, 3)
    assert Stats.from_dict(now.as_dict()) == now


@pytest.mark.faces("stats")
@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_the_stats_count_each_message_once_by_its_outcome(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """Also one that is sent again because its connection died."""
    dies = iter([True])

    def content(peer: Peer, data: bytes) -> bytes:
        if b"<3@" in data:
            peer.cut()
        return b"554 no\r\n" if b"<1@" in data else b"250 ok\r\n"

    def mail(peer: Peer, line: bytes) -> bytes:
        if next(dies, False):
            peer.cut()
        return b"250 ok\r\n"

    server = serve(honest(replies={"CONTENT": content, "MAIL": mail}), connections=20, overlaps=pipelining == "session")
    mine = mailer(server, max_connections=1, pipelining=pipelining)
    results = list(mine.send_many(envelopes(5)))
    wanted = {Outcome.ACCEPTED: 3, Outcome.REFUSED: 1, Outcome.UNKNOWN: 1}
    assert {each: [result.outcome for result in results].count(each) for each in wanted} == wanted
    now = mine.stats()
    assert (now.accepted, now.refused, now.not_sent, now.unknown) == (3, 1, 0, 1)
    assert now.under_way == 0
    assert now.connects == len(server.connections)


@pytest.mark.faces("stats")
def test_the_stats_count_failures(serve: Serve, mailer: Mailer) -> None:
    """After a refused login, the message was not sent; the connection counts, and the login does not."""
    mine = mailer(serve(honest(auth=("me", "right"))), username="me", password="wrong")
    with pytest.raises(AuthenticationError):
        send(mine)
    now = mine.stats()
    assert (now.not_sent, now.logins, now.connects, now.under_way, now.open) == (1, 0, 1, 0, 0)


def test_no_count_is_lost_between_threads() -> None:
    """The interpreter changes threads as often as it can."""
    activity, before = Activity(), sys.getswitchinterval()
    error = RefusedError("no", stage=Stage.MAIL)

    def count() -> None:
        for _ in range(2000):
            activity.count(error)

    sys.setswitchinterval(1e-6)
    try:
        with threads(count, 8):
            pass
    finally:
        sys.setswitchinterval(before)
    assert activity.counts == {"ACCEPTED": 0, "REFUSED": 16000, "NOT_SENT": 0, "UNKNOWN": 0}


def test_a_forked_child_begins_with_nothing(serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parent was sending is none of its sends: it neither counts them nor waits for them when it closes."""
    holding = Holding()
    mine = mailer(serve(honest(replies={"CONTENT": holding}), connections=2))
    with threads(lambda: send(mine)) as ends:
        assert holding.reached.acquire(timeout=60)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            patch.setattr(process._Forks, "count", process._Forks.count + 1)
            assert mine.stats() == ZERO
            assert mine.close() == ()
        assert mine.stats().under_way == 1
        holding.release.set()
    assert ends == [250]
