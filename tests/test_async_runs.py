"""Runs of `AsyncSecureMailer.send_many` against real servers: left, cancelled or closed, it tells the truth."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from conftest import Mailer, Serve, thorough
from scripted import Peer, ScriptedServer, honest
from securesmtp import AsyncResults, AsyncSecureMailer, Envelope, Outcome, SendResult
from securesmtp._async_keeper import Keeper
from securesmtp._protocol.message import Submission
from securesmtp.events import Event, Failed, Sent
from tasks import happens

ACCEPTED, NOT_SENT, UNKNOWN = Outcome.ACCEPTED, Outcome.NOT_SENT, Outcome.UNKNOWN
OFFER = ("PIPELINING", "8BITMIME", "CHUNKING")
BACKENDS = ("asyncio", "trio")
AsyncMailer = Callable[..., AsyncSecureMailer]
Run = Callable[..., Any]


@pytest.fixture(params=BACKENDS)
def run(request: pytest.FixtureRequest) -> Run:
    """Run an async function on asyncio and on trio."""

    async def limited(function: Callable[..., Awaitable[object]], args: tuple[object, ...], limit: float) -> object:
        with anyio.fail_after(limit):
            return await function(*args)

    return lambda function, *args, limit=60: anyio.run(limited, function, args, limit, backend=request.param)


@pytest.fixture
def async_mailer(ca_file: Path) -> AsyncMailer:
    """Make async mailers for scripted servers."""

    def make(server: ScriptedServer, **options: Any) -> AsyncSecureMailer:
        return AsyncSecureMailer("localhost", server.port, **{"ca_file": ca_file, "timeout": 60, **options})

    return make


def mails(count: int, first: int = 0) -> Iterator[Envelope]:
    """Return messages whose subject is their number."""
    for number in range(first, first + count):
        data = b"Subject: %d\r\nMessage-ID: <%d@x>\r\n\r\nx\r\n" % (number, number)
        yield Envelope("a@b.example", ["nobody@d.example" if number % 7 == 6 else "c@d.example"], data)


def _number(content: bytes) -> int:
    return int(content.split(b"\r\n")[0].removeprefix(b"Subject: "))


def _arrived(server: ScriptedServer) -> list[int]:
    return sorted(_number(each.content) for each in server.accepted)


def _free(mailer: AsyncSecureMailer) -> list[bool]:
    return [slot.is_free for slot in mailer._pool.slots]


def _describe(result: SendResult, server: ScriptedServer) -> tuple[object, ...]:
    error, receipt = result.error, result.receipt
    text = "" if error is None else str(error).replace(str(server.port), "PORT")
    reply = None if receipt is None else (receipt.reply, [each.address for each in receipt.recipients])
    return result.index, result.message_id, result.outcome, result.retryable, type(error).__name__, text, reply


def _dies(at: int, then: bytes = b"") -> Callable[[], Callable[[Peer, bytes], bytes]]:
    """Make a reply that ends the connection at each *at*-th message."""

    def make() -> Callable[[Peer, bytes], bytes]:
        seen = [0]

        def reply(peer: Peer, line: bytes) -> bytes:
            seen[0] += 1
            if seen[0] % at:
                return b"250 ok\r\n"
            if not then:
                peer.cut()
                peer.sleep_until_peer_closes()
            return then

        return reply

    return make


def _refuses() -> Callable[[Peer, bytes], bytes]:
    return lambda _, line: b"550 5.1.1 no\r\n" if b"nobody" in line else b"250 ok\r\n"


def _constant(reply: bytes) -> Callable[[], bytes]:
    return lambda: reply


# The replies of the server, made anew for each.
SERVERS: dict[str, dict[str, Callable[[], Any]]] = {
    "accepts": {},
    "refuses some recipients": {"RCPT": _refuses},
    "refuses some contents": {"CONTENT": _dies(3, b"554 5.6.0 spam\r\n")},
    "defers some contents": {"CONTENT": _dies(3, b"451 4.3.0 later\r\n")},
    "cuts at MAIL": {"MAIL": _dies(4)},
    "cuts at RCPT": {"RCPT": _dies(4)},
    "cuts after the content": {"CONTENT": _dies(4)},
    "421 at MAIL": {"MAIL": _dies(4, b"421 4.3.2 restarting\r\n")},
    "421 after the content": {"CONTENT": _dies(4, b"421 4.3.2 restarting\r\n")},
    "421 at the greeting": {"GREETING": _constant(b"421 4.3.2 not now\r\n")},
    "refuses the login": {"AUTH": _constant(b"535 5.7.8 no\r\n")},
    "refuses the login for now": {"AUTH": _constant(b"454 4.7.0 later\r\n")},
}


def _cases() -> Iterator[object]:
    """Yield each server in each way of pipelining; in the default run, one way for each server in turn."""
    for (number, server), way in itertools.product(enumerate(SERVERS), range(3)):
        case = (server, ("session", "message", "off")[way])
        marks = [] if way == number % 3 else [pytest.mark.exhaustive]
        yield pytest.param(case, id="-".join(case), marks=marks)


@pytest.mark.parametrize("case", [*_cases()])
def test_a_run_has_the_results_of_the_sync_mailer(
    run: Run, serve: Serve, mailer: Mailer, async_mailer: AsyncMailer, case: tuple[str, str]
) -> None:
    """For the same server: outcomes, errors with their whole text, and receipts."""
    name, pipelining = case

    def started() -> ScriptedServer:
        replies = {verb: make() for verb, make in SERVERS[name].items()}
        return serve(honest(auth=("me", "secret"), extensions=OFFER, replies=replies), overlaps=True, connections=100)

    options = {"max_connections": 1, "pipelining": pipelining, "username": "me", "password": "secret"}
    messages = [*mails(12), Envelope("a@b", ["not an address"], b"x"), *mails(3, 12)]

    async def main(server: ScriptedServer) -> list[SendResult]:
        async with async_mailer(server, **options) as mine:
            return [result async for result in mine.send_many(messages)]

    server = started()
    expected = [_describe(result, server) for result in mailer(server, **options).send_many(messages)]
    other = started()
    assert [_describe(result, other) for result in run(main, other)] == expected
    assert _arrived(other) == _arrived(server)


class Gate:
    """
    Replies to the content that wait until the test lets them through, except for the first messages.

    Attributes:
        waiting: Is set when one waits.
        go: Lets all of them through.
    """

    def __init__(self, first: int) -> None:
        """Reply to the *first* messages at once."""
        self.waiting, self.go = threading.Event(), threading.Event()
        self._first = first

    def __call__(self, peer: Peer, content: bytes) -> bytes:
        """Reply to a message."""
        if _number(content) >= self._first:
            self.waiting.set()
            self.go.wait(60)
        return b"250 ok\r\n"


def _check(server: ScriptedServer, results: list[SendResult], events: list[Event]) -> None:
    """Check that each message has one result, and one event if it was tried, which say what the server knows."""
    # The last is that of another run.
    assert [result.index for result in results] == [*range(len(results) - 1), 0]
    arrived = Counter(_arrived(server))
    assert set(arrived.values()) <= {1}
    outcomes = {int(str(result.message_id)[1:-3]): result.outcome for result in results}
    accepted = {number for number, outcome in outcomes.items() if outcome is ACCEPTED}
    unknown = {number for number, outcome in outcomes.items() if outcome is UNKNOWN}
    assert accepted <= set(arrived) <= accepted | unknown
    sent = [str(event.receipt.message_id) for event in events if isinstance(event, Sent)]
    failed = [str(event.error.message_id) for event in events if isinstance(event, Failed)]
    assert sorted(sent) == sorted(f"<{number}@x>" for number in accepted)
    assert set(Counter(sent + failed).values()) <= {1}
    untried = "before its turn"
    tried = {result.message_id for result in results if untried not in str(result.error)}
    assert set(sent + failed) == tried
    for event in events:
        if isinstance(event, Failed):
            assert event.error.outcome is outcomes[int(str(event.error.message_id)[1:-3])]


@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("how", ["break", "error", "break in a block", "error in a block"])
def test_a_loop_that_is_left_finishes_what_is_being_sent(
    run: Run, serve: Serve, async_mailer: AsyncMailer, how: str, pipelining: str
) -> None:
    """With a block or `aclose()` it is waited for, and the results can be read; the connections stay usable."""
    gate, events = Gate(3), list[Event]()
    server = serve(honest(extensions=OFFER, replies={"CONTENT": gate}), overlaps=True)

    async def main() -> None:
        async with async_mailer(server, max_connections=2, pipelining=pipelining, on_event=events.append) as mine:
            results, read = mine.send_many(mails(500)), list[SendResult]()

            async def loop() -> None:
                async for result in results:
                    read.append(result)
                    if result.index == 2:
                        await happens(gate.waiting)
                        gate.go.set()
                        assert "error" not in how, "an error"
                        break

            async def leave() -> None:
                if "block" in how:
                    async with results:
                        await loop()
                else:
                    await loop()

            if "error" in how:
                with pytest.raises(AssertionError, match="an error"):
                    await leave()
            else:
                await leave()
            if "block" not in how:
                await results.aclose()
            assert _free(mine) == [True, True]
            read += [result async for result in results]
            assert 3 < len(read) < 200
            assert {result.outcome for result in read} <= {ACCEPTED, NOT_SENT}
            read += [result async for result in mine.send_many(mails(1, 1000))]
            assert read[-1].outcome is ACCEPTED
        assert len(server.connections) == 2
        _check(server, read, events)

    run(main)


async def _by_scope(action: Callable[[], Coroutine[Any, Any, object]], when: threading.Event) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(action)
        await happens(when)
        group.cancel_scope.cancel()


async def _by_task(action: Callable[[], Coroutine[Any, Any, object]], when: threading.Event) -> None:
    if anyio.get_cancelled_exc_class() is trio.Cancelled:
        await _by_scope(action, when)
        return
    task = asyncio.ensure_future(action())
    await happens(when)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("case", [*itertools.product(["for", "aclose", "block"], ["message", "session"])], ids="-".join)
@pytest.mark.parametrize("cancel", [_by_scope, _by_task])
def test_a_cancelled_loop_drops_its_connections_and_knows_what_became_of_each_message(
    run: Run, serve: Serve, async_mailer: AsyncMailer, cancel: Any, case: tuple[str, str]
) -> None:
    """At once, although the server is slow; then the mailer is usable."""
    place, pipelining = case
    gate, events, closing = Gate(3), list[Event](), threading.Event()
    server = serve(honest(extensions=OFFER, replies={"CONTENT": gate}), overlaps=True)

    async def main() -> None:
        async with async_mailer(server, max_connections=2, pipelining=pipelining, on_event=events.append) as mine:
            results, read = mine.send_many(mails(500)), list[SendResult]()

            async def reads(last: int = -1) -> None:
                async for result in results:
                    read.append(result)
                    if result.index == last:
                        break

            async def closes() -> None:
                await reads(2)
                await happens(gate.waiting)
                closing.set()
                await results.aclose()

            async def sleeps() -> None:
                async with results:
                    await reads(2)
                    await anyio.sleep_forever()

            before = time.monotonic()
            action, when = {
                "for": (reads, gate.waiting),
                "aclose": (closes, closing),
                "block": (sleeps, gate.waiting),
            }[place]
            await cancel(action, when)
            assert _free(mine) == [True, True]
            rest = [result async for result in results]
            assert time.monotonic() - before < 40
            gate.go.set()
            assert UNKNOWN in {result.outcome for result in rest}
            read += rest
            assert len(read) < 200
            read += [result async for result in mine.send_many(mails(1, 1000))]
            assert read[-1].outcome is ACCEPTED
        await anyio.to_thread.run_sync(server.joined)
        _check(server, read, events)

    run(main)


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_worker_whose_task_is_cancelled_sends_no_more(
    serve: Serve, async_mailer: AsyncMailer, pipelining: str
) -> None:
    """A program that shuts down cancels each task, which asyncio does once: the worker takes no other message."""
    gate = Gate(3)
    server = serve(honest(extensions=OFFER, replies={"CONTENT": gate}), overlaps=True)

    async def main() -> None:
        async with async_mailer(server, max_connections=1, pipelining=pipelining) as mine:
            results = mine.send_many(mails(500))
            first = [await anext(results) for _ in range(3)]
            await happens(gate.waiting)
            for task in asyncio.all_tasks():
                if task.get_name().startswith("securesmtp"):
                    task.cancel()
            await asyncio.sleep(0)
            gate.go.set()
            rest = [result async for result in results]
            assert [result.index for result in (*first, *rest)] == list(range(500))
            assert {result.outcome for result in first} == {ACCEPTED}
            assert {result.outcome for result in rest} == {UNKNOWN, NOT_SENT}

    asyncio.run(main())


@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_message_that_waits_for_a_connection_when_the_run_is_cancelled_is_not_sent(
    run: Run, serve: Serve, async_mailer: AsyncMailer, pipelining: str
) -> None:
    """Its worker had taken it, but it certainly never left: another send has the only connection."""
    gate, events = Gate(0), list[Event]()
    server = serve(honest(extensions=OFFER, replies={"CONTENT": gate}), overlaps=True)

    async def main() -> None:
        async with async_mailer(server, max_connections=1, pipelining=pipelining, on_event=events.append) as mine:
            results, other = mine.send_many(mails(3, 100)), mine.send_many(mails(1))
            async with anyio.create_task_group() as group:
                group.start_soon(other.__anext__)
                await happens(gate.waiting)
                with anyio.move_on_after(0.05):
                    await anext(results)
                gate.go.set()
            rest = [result async for result in results]
            assert [result.outcome for result in rest] == [NOT_SENT] * len(rest)
            assert all(result.retryable for result in rest)
            assert "waiting for a connection" in str(rest[0].error) or "interrupted" in str(rest[0].error)
        failed = [str(event.error.message_id) for event in events if isinstance(event, Failed)]
        assert failed == ["<100@x>"]

    run(main)


def test_results_keep_no_message_alive(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """Neither those of messages that were sent or refused, nor those of a run that was cancelled."""
    gate = Gate(6)
    server = serve(honest(extensions=OFFER, replies={"RCPT": _refuses(), "CONTENT": gate}))

    async def main() -> tuple[list[SendResult], object]:
        async with async_mailer(server, max_connections=2) as mine:
            results, read = mine.send_many(mails(12)), list[SendResult]()

            async def reads() -> None:
                async for result in results:
                    read.append(result)

            async with anyio.create_task_group() as group:
                group.start_soon(reads)
                await happens(gate.waiting)
                group.cancel_scope.cancel()
            gate.go.set()
            read += [result async for result in results]
            return read, results

    # Frozen objects, those of other tests, are neither collected nor listed.
    gc.collect()
    gc.freeze()
    read, results = run(main)
    gc.collect()
    alive = [each for each in gc.get_objects() if isinstance(each, Submission)]
    assert results is not None
    assert {ACCEPTED, UNKNOWN, NOT_SENT} <= {result.outcome for result in read}
    assert alive == []


def test_results_that_nobody_keeps_are_reported_by_events(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """What was being sent is finished, each message has its event, and no more are sent (PITFALLS A7)."""
    gate, events = Gate(2), list[Event]()
    server = serve(honest(replies={"CONTENT": gate}))

    async def main() -> None:
        async with async_mailer(server, max_connections=2, on_event=events.append) as mine:
            async for result in mine.send_many(mails(500)):
                if result.index == 1:
                    break
            del result
            await happens(gate.waiting)
            gate.go.set()
        # The mailer has waited for them.

    run(main)
    sent = sorted(event.receipt.message_id or "" for event in events if isinstance(event, Sent))
    assert sent == sorted(f"<{number}@x>" for number in _arrived(server))
    assert 3 <= len(sent) <= 8


def test_an_async_iterable_is_read_as_a_list_is(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """One that waits lets the workers send meanwhile; its error comes after the results."""
    server = serve()

    async def trickle() -> AsyncIterator[Envelope]:
        for mail in mails(5):
            await anyio.sleep(0.002)
            yield mail
        raise LookupError("the queue is gone")

    async def main() -> None:
        async with async_mailer(server) as mine:
            results, read = mine.send_many(trickle()), list[SendResult]()
            with pytest.raises(LookupError):
                read.extend([result async for result in results])
            with suppress(LookupError):
                async for result in mine.send_many(trickle()):
                    read.append(result)
            assert [result.outcome for result in read] == [ACCEPTED] * 5

    run(main)
    assert _arrived(server) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("rounds", thorough(40, 400))
def test_random_cancellations_lose_no_slot_and_no_truth(
    run: Run, serve: Serve, async_mailer: AsyncMailer, rounds: int
) -> None:
    """Each round is cancelled at a random moment; every message has one result and one event (PITFALLS A1, A2)."""
    server = serve(honest(extensions=OFFER), connections=10**6, overlaps=True)
    choose, outcomes, events = random.Random(rounds), dict[int, Outcome](), _Events()

    async def main() -> None:
        for pipelining in ("message", "session"):
            async with async_mailer(server, max_connections=3, pipelining=pipelining, on_event=events) as mine:
                for _ in range(rounds // 2):
                    first, count = len(outcomes), choose.randrange(1, 12)
                    results, read = mine.send_many(mails(count, first)), list[SendResult]()
                    # The moment: some turns of the loop after an event.
                    events.start(choose.randrange(count + 2))
                    await _interrupted(results, read, events, choose)
                    assert _free(mine) == [True] * 3
                    read += [result async for result in results]
                    events.check(read)
                    outcomes.update(enumerate((result.outcome for result in read), first))
                outcomes[len(outcomes)] = ACCEPTED
                (last,) = [result async for result in mine.send_many(mails(1, len(outcomes) - 1))]
                assert last.outcome is ACCEPTED

    run(main, limit=60 + rounds)
    server.joined()
    arrived = Counter(_arrived(server))
    assert set(arrived.values()) == {1}
    accepted = {number for number, outcome in outcomes.items() if outcome is ACCEPTED}
    unknown = {number for number, outcome in outcomes.items() if outcome is UNKNOWN}
    assert accepted <= set(arrived) <= accepted | unknown
    assert len(accepted) > rounds
    assert len(outcomes) > len(accepted)


class _Events:
    """The events of a round, and the moment of its cancellation: when there were so many of them."""

    def __init__(self) -> None:
        """Start without a round."""
        self._heard, self._left = list[Event](), 0
        self.waiting: anyio.Event | None = None

    def start(self, count: int) -> None:
        """Begin a round that is cancelled after *count* events."""
        self._heard, self._left, self.waiting = [], count, None

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        self._heard.append(event)
        if len(self._heard) >= self._left and self.waiting is not None:
            self.waiting.set()

    def check(self, results: list[SendResult]) -> None:
        """Check that each message has one result, and one event if it was tried."""
        assert [result.index for result in results] == list(range(len(results)))
        sent = [str(event.receipt.message_id) for event in self._heard if isinstance(event, Sent)]
        failed = [str(event.error.message_id) for event in self._heard if isinstance(event, Failed)]
        assert sorted(sent) == sorted(str(result.message_id) for result in results if result.outcome is ACCEPTED)
        assert set(Counter(sent + failed).values()) <= {1}


async def _interrupted(results: AsyncResults, read: list[SendResult], events: _Events, choose: random.Random) -> None:
    """Read *results* into *read*, in a block or not, and be cancelled at the moment that *events* says."""
    due = events.waiting = anyio.Event()
    is_in_block, is_by_task = (
        choose.random() < 0.5,
        choose.random() < 0.5 and anyio.get_cancelled_exc_class() is not trio.Cancelled,
    )

    async def reads() -> None:
        # An async comprehension that is cancelled would lose what it has.
        while (result := await anext(results, None)) is not None:
            read.append(result)

    async def action() -> None:
        try:
            if is_in_block:
                async with results:
                    await reads()
            else:
                await reads()
        finally:
            due.set()

    async def moment() -> None:
        await due.wait()
        for _ in range(choose.randrange(12)):
            await anyio.lowlevel.checkpoint()

    if is_by_task and anyio.get_cancelled_exc_class() is not trio.Cancelled:
        task = asyncio.ensure_future(action())
        await moment()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return
    async with anyio.create_task_group() as group:
        group.start_soon(action)
        await moment()
        group.cancel_scope.cancel()


def test_a_keeper_writes_ends_although_no_more_jobs_are_taken() -> None:
    """Those of the messages that were sent last."""
    written = list[int]()

    def flush() -> Iterator[Callable[[], object]]:
        written.append(1)
        yield from ()

    class Closed(list[object]):
        is_closed, idle = True, 0

    claims: Any = SimpleNamespace(has_ends=True, flush=flush)
    workers: Any = SimpleNamespace(backlog=Closed(), most=1, started=1, loop=None)
    asyncio.run(Keeper(claims)._advance(workers))
    assert written == [1]
