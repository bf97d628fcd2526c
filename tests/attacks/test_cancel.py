"""
Cancellation of tasks, at every wait: no message is cut short, no slot is lost, and each outcome that is told is true.

The tests look for faults that other asynchronous clients had: another send's reply, a leaked slot, a hang.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from email.message import EmailMessage
from functools import partial as bind
from typing import Any

import anyio
import pytest
import trio

from conftest import AsyncMailer, Run, Serve, thorough
from faces import Backend
from scripted import Gone, Peer, Script, ScriptedServer, honest, up_to_content
from securesmtp import AsyncSecureMailer, DeadlineExceededError, Event, Outcome, Receipt, SecureSMTPError, Stage
from securesmtp.events import Failed, Sent
from tasks import Ended, cancel_at, delayed, happens, slots_in_use

# More than the kernel buffers on both sides: 4 MB and 32 MB (measured: 8 MB were taken once, on a busy machine).
LARGE = (b"x" * 76 + b"\r\n") * 500_000
CHUNK = ("PIPELINING", "8BITMIME", "CHUNKING")
# Where a server falls silent, and what is known of the message when the send is cancelled there.
STAGES: dict[str, tuple[Stage, Outcome]] = {
    # No session is open yet.
    "handshake": (Stage.CONNECT, Outcome.NOT_SENT),
    "greeting": (Stage.CONNECT, Outcome.NOT_SENT),
    "ehlo": (Stage.CONNECT, Outcome.NOT_SENT),
    "auth": (Stage.CONNECT, Outcome.NOT_SENT),
    "mail": (Stage.MAIL, Outcome.NOT_SENT),
    "rcpt": (Stage.RCPT, Outcome.NOT_SENT),
    "data": (Stage.DATA, Outcome.NOT_SENT),
    "content": (Stage.CONTENT, Outcome.NOT_SENT),
    "final reply": (Stage.CONTENT, Outcome.UNKNOWN),
}


def silent_at(stage: str, reached: threading.Event, then: Callable[[Peer], None]) -> Script:
    """Play a good server up to *stage*, set *reached*, and do *then* instead of a reply."""

    def stop(peer: Peer, _: bytes = b"") -> bytes:
        reached.set()
        then(peer)
        raise Gone

    def script(peer: Peer) -> None:
        if stage == "handshake":
            peer.read_some()
            stop(peer)
        if stage == "content":
            up_to_content(peer)
            peer.read_exactly(1000)
            stop(peer)
        verb = "CONTENT" if stage == "final reply" else stage.upper()
        honest(extensions=(), auth=("me", "secret") if stage == "auth" else None, replies={verb: stop})(peer)

    return script


def serve_until(stage: str, serve: Serve, *scripts: Script) -> ScriptedServer:
    """Start a server; if it stops reading in the content, with a small buffer."""
    server = serve(*scripts)
    if stage == "content":
        server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return server


def login(stage: str) -> dict[str, str]:
    """Return the mailer's arguments for a login, if the server wants one."""
    return {"username": "me", "password": "secret"} if stage == "auth" else {}


async def send(mailer: AsyncSecureMailer, number: int = 0, body: bytes = b"x\r\n") -> Receipt:
    """Send the message with this number."""
    raw = b"Message-ID: <%d@b.example>\r\nSubject: %d\r\n\r\n%s" % (number, number, body)
    return await mailer.send_bytes(raw, mail_from="a@b.example", recipients=["c@d.example"])


def numbers(contents: list[bytes]) -> list[int]:
    """Return the numbers of these messages."""
    return [int(content.partition(b"<")[2].partition(b"@")[0]) for content in contents]


async def cancelled_when(reached: threading.Event, work: Awaitable[object]) -> BaseException:
    """Await *work*, cancel it when *reached* is set, and return the cancellation that it raised."""
    interrupts = list[BaseException]()

    async def keep() -> None:
        try:
            await work
        except BaseException as interrupt:
            interrupts.append(interrupt)
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(keep)
        await happens(reached)
        group.cancel_scope.cancel()
    return interrupts[0]


@pytest.mark.parametrize("stage", STAGES)
def test_a_cancelled_send_drops_its_connection_and_says_what_became_of_it(
    run: Run, serve: Serve, async_mailer: AsyncMailer, stage: str
) -> None:
    """In an event, and in the cancellation's note and cause; the next send takes a new connection (A3, A8)."""
    reached, events = threading.Event(), list[Event]()
    auth = ("me", "secret") if stage == "auth" else None
    server = serve_until(stage, serve, silent_at(stage, reached, Peer.sleep_until_peer_closes), honest(auth=auth))
    mailer = async_mailer(server, on_event=events.append, max_connections=1, **login(stage))

    async def main() -> None:
        interrupt = await cancelled_when(reached, send(mailer, body=LARGE if stage == "content" else b"x\r\n"))
        cause = interrupt.__cause__
        assert isinstance(cause, SecureSMTPError)
        assert (cause.stage, cause.outcome, cause.message_id) == (*STAGES[stage], "<0@b.example>")
        assert f"<0@b.example> ({cause.outcome})" in interrupt.__notes__[0]
        assert [event.error for event in events if isinstance(event, Failed)] == [cause]
        assert slots_in_use(mailer) == 0
        await send(mailer, 1)
        await mailer.close()

    run(main)
    server.joined()
    assert numbers([message.content for message in server.accepted]) == [1]
    # Nothing was written after the cancellation: no final dot, no QUIT.
    assert not server.connections[0].secret.endswith((b"\r\n.\r\n", b"QUIT\r\n")) or stage == "final reply"


def outcome_of(events: list[Event]) -> Outcome:
    """Return the outcome of one message: exactly one event has it."""
    (outcome,) = [
        Outcome.ACCEPTED if isinstance(event, Sent) else event.error.outcome
        for event in events
        if isinstance(event, Sent | Failed)
    ]
    return outcome


# trio's tasks have no method to cancel them.
@pytest.mark.parametrize(
    ("backend", "by_task"),
    [("asyncio", False), ("asyncio", True), ("trio", False)],
    ids=["asyncio-scope", "asyncio-task", "trio-scope"],
)
@pytest.mark.parametrize("connected", [False, True], ids=["new", "open"])
@pytest.mark.parametrize("offers", [(), CHUNK], ids=["lockstep", "BDAT"])
def test_a_send_that_is_cancelled_at_any_wait_tells_the_truth(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    run: Run,
    serve: Serve,
    async_mailer: AsyncMailer,
    offers: tuple[str, ...],
    connected: bool,  # noqa: FBT001 -- a parameter
    by_task: bool,  # noqa: FBT001 -- a parameter
) -> None:
    """At each wait, over a new connection and over an open one: its one event agrees with the server (A1, A3)."""
    outcomes, events = dict[int, Outcome](), list[Event]()
    server = serve(honest(extensions=offers, auth=("me", "secret")), connections=1000)

    async def main() -> None:
        ended = Ended[Receipt](is_cancelled=True)
        while ended.is_cancelled:
            async with async_mailer(server, on_event=events.append, max_connections=1, **login("auth")) as mailer:
                if connected:
                    await send(mailer, 1000 + len(outcomes))
                events.clear()
                ended = await cancel_at(len(outcomes) + 1, send(mailer, len(outcomes)), by_task=by_task)
                outcomes[len(outcomes)] = outcome_of(events)
                assert slots_in_use(mailer) == 0
                # Cancelled at its last wait, it may return before the cancellation reaches it.
                assert (ended.result is None) == (ended.interrupt is not None)
                if ended.result is not None:
                    assert outcome_of(events) is Outcome.ACCEPTED

    run(main)
    server.joined()
    accepted = numbers([message.content for message in server.accepted])
    assert len(accepted) == len(set(accepted))
    for number, outcome in outcomes.items():
        assert outcome is Outcome.UNKNOWN or (outcome is Outcome.ACCEPTED) == (number in accepted), number
    # A reply that is there already is not waited for, so the number of waits varies.
    assert len(outcomes) > 1


@pytest.fixture(params=thorough(100, 400))
def tasks(request: pytest.FixtureRequest) -> int:
    """Return the number of tasks to cancel: 10,000 with `--all-faces`."""
    count: int = request.param
    return count * (10 if request.config.getoption("all_faces") else 1)


def test_random_cancellations_lose_no_slot(
    run: Run, serve: Serve, async_mailer: AsyncMailer, backend: Backend, tasks: int
) -> None:
    """Also those that strike while a slot is handed over: afterwards all slots are free, and a send works (A2)."""
    events = list[Event]()
    server = serve(honest(extensions=CHUNK), connections=10**6)
    mailer = async_mailer(server, on_event=events.append, max_connections=3)
    chance = random.Random(1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(tasks):
                # A send over an open connection has few waits: most are cancelled, some are not.
                by_task = backend == "asyncio" and chance.random() < 0.5
                group.start_soon(bind(cancel_at, chance.randint(1, 6), send(mailer, number), by_task=by_task))
                if chance.random() < 0.3:
                    await anyio.lowlevel.checkpoint()
        assert slots_in_use(mailer) == 0
        with anyio.fail_after(10):
            await send(mailer, tasks)
        await mailer.close()

    run(main)
    server.joined()
    accepted = set(numbers([message.content for message in server.accepted]))
    told = {}
    for event in events:
        if isinstance(event, Sent):
            told[event.receipt.message_id] = Outcome.ACCEPTED
        elif isinstance(event, Failed):
            told[event.error.message_id] = event.error.outcome
    for number in range(tasks + 1):
        outcome = told.get(f"<{number}@b.example>", Outcome.NOT_SENT)
        assert outcome is Outcome.UNKNOWN or (outcome is Outcome.ACCEPTED) == (number in accepted), number
    assert {Outcome.ACCEPTED, Outcome.NOT_SENT} <= set(told.values())


@pytest.mark.parametrize(
    ("backend", "by_task"),
    [("asyncio", False), ("asyncio", True), ("trio", False)],
    ids=["asyncio-scope", "asyncio-task", "trio-scope"],
)
def test_a_send_that_is_cancelled_when_its_turn_comes_leaves_it_to_the_next(
    run: Run,
    serve: Serve,
    async_mailer: AsyncMailer,
    by_task: bool,  # noqa: FBT001 -- a parameter
) -> None:
    """It was woken, and is cancelled before it runs: other pools lost the connection then (A2)."""
    reached, go, cancels = threading.Event(), threading.Event(), list[Callable[[], object]]()

    def slow(_: Peer, content: bytes) -> bytes:
        if numbers([content]) == [0]:
            reached.set()
            go.wait(10)
        return b"250 ok\r\n"

    def on_event(event: Event) -> None:
        # The event comes when the connection is free, and the first of those that wait is awake.
        if isinstance(event, Sent) and cancels:
            cancels.pop()()

    server = serve(honest(replies={"CONTENT": slow}))
    mailer = async_mailer(server, max_connections=1, on_event=on_event)

    async def cancelled() -> None:
        with anyio.CancelScope() as scope:
            task = asyncio.current_task() if by_task else None
            cancels.append(scope.cancel if task is None else task.cancel)
            try:
                await send(mailer, 1)
            except asyncio.CancelledError:
                if task is None:
                    raise
                task.uncancel()

    async def main() -> None:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(send, mailer, 0)
                await happens(reached)
                group.start_soon(cancelled)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(send, mailer, 2)
                await anyio.wait_all_tasks_blocked()
                go.set()
        await mailer.close()

    run(main)
    assert not cancels
    assert numbers([message.content for message in server.accepted]) == [0, 2]


async def _by_timeout(work: Callable[[], Awaitable[object]], reached: threading.Event) -> None:
    async def limited() -> None:
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
            group.create_task(_when(reached, lambda: limit.reschedule(0)))
            await work()

    with pytest.raises(TimeoutError):
        await limited()


async def _when(reached: threading.Event, act: Callable[[], object]) -> None:
    await happens(reached)
    act()


async def _by_wait_for(work: Callable[[], Awaitable[object]], reached: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time
    # This limit cannot be moved, so the clock is.
    expiry = loop.create_task(_when(reached, lambda: setattr(loop, "time", lambda: now() + 60)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), 60)
    await expiry


async def _by_scope(work: Callable[[], Awaitable[object]], reached: threading.Event, scope: anyio.CancelScope) -> None:
    def expire() -> None:
        scope.deadline = anyio.current_time()

    async with anyio.create_task_group() as group:
        group.start_soon(_when, reached, expire)
        await work()


async def _by_fail_after(work: Callable[[], Awaitable[object]], reached: threading.Event) -> None:
    async def limited() -> None:
        with anyio.fail_after(60) as scope:
            await _by_scope(work, reached, scope)

    with pytest.raises(TimeoutError):
        await limited()


async def _by_move_on_after(work: Callable[[], Awaitable[object]], reached: threading.Event) -> None:
    with anyio.move_on_after(60) as scope:
        await _by_scope(work, reached, scope)


async def _by_gather(work: Callable[[], Awaitable[object]], reached: threading.Event) -> None:
    both = asyncio.gather(work(), asyncio.sleep(60))
    await happens(reached)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both


async def _by_task_group(work: Callable[[], Coroutine[Any, Any, object]], reached: threading.Event) -> None:
    async def fails() -> None:
        await happens(reached)
        raise ZeroDivisionError

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(work())

    with pytest.raises(ExceptionGroup):
        await both()


async def _by_nursery(work: Callable[[], Awaitable[object]], reached: threading.Event) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await happens(reached)
        nursery.cancel_scope.cancel()


WAYS: dict[str, tuple[Backend, Callable[[Any, threading.Event], Awaitable[None]]]] = {
    "asyncio.timeout": ("asyncio", _by_timeout),
    "asyncio.wait_for": ("asyncio", _by_wait_for),
    "asyncio.gather": ("asyncio", _by_gather),
    "asyncio.TaskGroup": ("asyncio", _by_task_group),
    "anyio.fail_after": ("asyncio", _by_fail_after),
    "anyio.move_on_after": ("trio", _by_move_on_after),
    "trio.open_nursery": ("trio", _by_nursery),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_event_has_the_outcome_however_a_send_is_cancelled(
    serve: Serve, async_mailer: AsyncMailer, way: str
) -> None:
    """Most of these ways drop the cancellation with its note; the event names the message (A4)."""
    reached, events = threading.Event(), list[Event]()
    server = serve(silent_at("final reply", reached, Peer.sleep_until_peer_closes))
    mailer = async_mailer(server, on_event=events.append)
    backend, cancel = WAYS[way]

    async def main() -> None:
        await cancel(lambda: send(mailer), reached)
        await mailer.close()

    anyio.run(main, backend=backend)
    (error,) = [event.error for event in events if isinstance(event, Failed)]
    assert (error.outcome, error.message_id) == (Outcome.UNKNOWN, "<0@b.example>")


@pytest.mark.parametrize("milliseconds", thorough(2, 100))
def test_no_send_gets_the_reply_to_another(
    run: Run, serve: Serve, async_mailer: AsyncMailer, milliseconds: int
) -> None:
    """Over a network that delays both ways, after a cancellation at each wait: each reply has its own number (A1)."""

    def queued(_: Peer, content: bytes) -> bytes:
        return b"250 2.0.0 queued as %d\r\n" % numbers([content])[0]

    server = serve(honest(extensions=CHUNK, replies={"CONTENT": queued}), connections=1000)

    async def main(port: int) -> None:
        mailer = async_mailer(server, port=port, max_connections=3)
        wait, count = 0, 0
        ended = Ended[Receipt](is_cancelled=True)
        while ended.is_cancelled:
            wait, count = wait + 1, count + 1
            ended = await cancel_at(wait, send(mailer, count))

        async def checked(number: int) -> None:
            assert (await send(mailer, number)).reply.text == f"2.0.0 queued as {number}"

        async with anyio.create_task_group() as group:
            for number in range(1000, 1100):
                group.start_soon(checked, number)
        await mailer.close()

    with delayed(server.port, milliseconds / 1000) as port:
        run(main, port)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", [Peer.cut, Peer.reset])
def test_a_connection_that_fails_leaves_its_slot_to_the_next(
    run: Run, serve: Serve, async_mailer: AsyncMailer, stage: str, how: Callable[[Peer], None]
) -> None:
    """At each stage: the send fails, and the next one does not wait for its slot (A8)."""
    auth = ("me", "secret") if stage == "auth" else None
    server = serve_until(stage, serve, silent_at(stage, threading.Event(), how), honest(auth=auth))
    mailer = async_mailer(server, max_connections=1, **login(stage))

    async def main() -> None:
        with pytest.raises(SecureSMTPError) as caught:
            await send(mailer, body=LARGE if stage == "content" else b"x\r\n")
        assert caught.value.outcome is STAGES[stage][1]
        await send(mailer, 1)
        await mailer.close()

    run(main)
    assert numbers([message.content for message in server.accepted]) == [1]


@pytest.mark.parametrize("stage", STAGES)
def test_an_abort_ends_every_wait(run: Run, serve: Serve, async_mailer: AsyncMailer, stage: str) -> None:
    """The send that waits raises what became of its message; one that waits for a slot raises too (A9)."""
    reached = threading.Event()
    server = serve_until(stage, serve, silent_at(stage, reached, Peer.sleep_until_peer_closes))
    mailer = async_mailer(server, max_connections=1, timeout=20, **login(stage))
    outcomes = list[Outcome]()

    async def fails(number: int) -> None:
        with pytest.raises(SecureSMTPError) as caught:
            await send(mailer, number, body=LARGE if stage == "content" else b"x\r\n")
        outcomes.append(caught.value.outcome)

    async def main() -> None:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(fails, 0)
                await happens(reached)
                group.start_soon(fails, 1)
                await anyio.wait_all_tasks_blocked()
                await mailer.close(abort=True)

    run(main)
    assert sorted(outcomes) == sorted([STAGES[stage][1], Outcome.NOT_SENT])
    server.joined()
    assert server.accepted == []


def test_a_cancelled_block_closes_its_mailer(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """Each wait of a clean-up is cancelled again: the sockets are closed all the same (A5)."""
    server = serve(honest())

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with async_mailer(server) as mailer:
                await send(mailer)
                scope.cancel()
        assert not any(slot.is_connected for slot in mailer._pool.slots)

    run(main)
    server.joined()


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_a_send_that_never_got_a_connection_names_its_message(
    run: Run, serve: Serve, async_mailer: AsyncMailer, message: EmailMessage, how: str
) -> None:
    """It was not built yet; a Message-ID that the caller has set is in the event all the same (A4)."""
    reached, go, events = threading.Event(), threading.Event(), list[Event]()

    def slow(_: Peer, content: bytes) -> bytes:
        reached.set()
        go.wait(10)
        return b"250 ok\r\n"

    mailer = async_mailer(serve(honest(replies={"CONTENT": slow})), max_connections=1, on_event=events.append)
    message["Message-ID"] = "<mine@b.example>"

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(send, mailer)
            await happens(reached)
            if how == "cancelled":
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(mailer.send, message)
                    await anyio.wait_all_tasks_blocked()
                    waiting.cancel_scope.cancel()
            else:
                with pytest.raises(DeadlineExceededError):
                    await mailer.send(message, deadline=0.05)
            go.set()
        await mailer.close()

    run(main)
    (error,) = [event.error for event in events if isinstance(event, Failed)]
    assert (error.message_id, error.outcome) == ("<mine@b.example>", Outcome.NOT_SENT)
