"""What docs/how-to/asyncio.md says about common mistakes; each sentence of its first table has a test here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from email.message import EmailMessage
from functools import partial
from pathlib import Path

import pytest
import trio

from conftest import Mailer, Serve
from scripted import Peer, ScriptedServer, honest
from securesmtp import AsyncSecureMailer, Outcome
from securesmtp.errors import DeadlineExceededError, RecipientsRefusedError
from securesmtp.events import Event, Failed


class Held:
    """A mail server that keeps each client waiting for a reply until it is released."""

    def __init__(self, serve: Serve, verb: str, reply: bytes) -> None:
        self.asked = threading.Semaphore(0)
        self.released = threading.Event()
        self.reply = reply
        self.server: ScriptedServer = serve(honest(replies={verb: self._hold}))

    def _hold(self, peer: Peer, octets: bytes) -> bytes:
        self.asked.release()
        self.released.wait(30)
        return self.reply

    async def wait_for(self, clients: int) -> None:
        """Wait until that many clients wait for the reply."""
        loop = asyncio.get_running_loop()
        reached = loop.create_future()

        def wait() -> None:
            for _ in range(clients):
                self.asked.acquire(timeout=30)
            loop.call_soon_threadsafe(reached.set_result, None)

        # Not in the loop's threads: the test may have used them up.
        threading.Thread(target=wait, daemon=True).start()
        await reached


Hold = Callable[..., Held]


@pytest.fixture
def hold(serve: Serve) -> Iterator[Hold]:
    """Make servers that hold a reply; all are released at the end."""
    with contextlib.ExitStack() as stack:

        def make(verb: str = "CONTENT", reply: bytes = b"250 2.0.0 queued\r\n") -> Held:
            held = Held(serve, verb, reply)
            stack.callback(held.released.set)
            return held

        yield make


async def fill_the_threads(send: Callable[[], object], held: Held) -> list[asyncio.Task[object]]:
    """Call *send* in each thread that `asyncio.to_thread` has; return when all of them wait for the mail server."""
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(int)
    threads: int = loop._default_executor._max_workers  # type: ignore[attr-defined]
    sends = [asyncio.create_task(asyncio.to_thread(send)) for _ in range(threads)]
    await held.wait_for(threads)
    return sends


MANY = 64  # more than `to_thread` has threads


def test_sends_in_to_thread_stop_every_other_to_thread(hold: Hold, mailer: Mailer, message: EmailMessage) -> None:
    """While the mail server holds its replies, no other call gets a thread, nor does a name lookup of the loop."""
    held = hold()
    mine = mailer(held.server, max_connections=MANY)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sends = await fill_the_threads(partial(mine.send, message), held)
        others = [
            asyncio.ensure_future(asyncio.to_thread(int)),
            asyncio.ensure_future(loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)),
        ]
        done, _ = await asyncio.wait(others, timeout=0.2)
        assert done == set()
        held.released.set()
        await asyncio.gather(*sends, *others)

    asyncio.run(main())


def test_a_deadline_in_to_thread_begins_when_a_thread_is_free(
    hold: Hold, mailer: Mailer, message: EmailMessage
) -> None:
    """A send with a deadline of 1 s succeeds after more than that in the queue."""
    held = hold()
    mine = mailer(held.server, max_connections=MANY)

    async def main() -> None:
        sends = await fill_the_threads(partial(mine.send, message), held)
        called = time.monotonic()
        late = asyncio.ensure_future(asyncio.to_thread(mine.send, message, deadline=1))
        await asyncio.wait([late], timeout=1.1)
        held.released.set()
        await asyncio.gather(*sends)
        assert (await late).reply.code == 250
        assert time.monotonic() - called > 1

    asyncio.run(main())


async def in_timeout(sending: Awaitable[object]) -> None:
    """Wait at most 0.2 s."""
    async with asyncio.timeout(0.2):
        await sending


async def in_wait_for(sending: Awaitable[object]) -> None:
    """Wait at most 0.2 s."""
    await asyncio.wait_for(sending, 0.2)


LIMITS = pytest.mark.parametrize("limited", [in_timeout, in_wait_for])
Limited = Callable[[Awaitable[object]], Awaitable[None]]


@LIMITS
def test_a_message_is_delivered_after_the_time_limit_around_to_thread(
    hold: Hold, mailer: Mailer, message: EmailMessage, limited: Limited
) -> None:
    """The caller gets TimeoutError; then the thread goes on, and the server accepts the message."""
    held = hold("DATA", b"354 go\r\n")
    mine = mailer(held.server, pipelining="off")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await limited(asyncio.to_thread(mine.send, message))
        assert held.server.accepted == []
        held.released.set()

    asyncio.run(main())  # waits for the thread
    mine.close()
    held.server.joined()
    assert len(held.server.accepted) == 1


def test_a_mailer_for_each_request_logs_in_each_time(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Ten messages: ten handshakes and logins, or one."""
    logins = []

    def login(peer: Peer, line: bytes) -> bytes:
        logins.append(line)
        return b"235 2.7.0 welcome\r\n"

    server = serve(honest(auth=("me", "secret"), replies={"AUTH": login}))
    for _ in range(10):
        with mailer(server, username="me", password="secret") as mine:
            mine.send(message)
    assert (len(logins), len(server.connections)) == (10, 10)
    mine = mailer(server, username="me", password="secret")
    for _ in range(10):
        mine.send(message)
    assert (len(logins), len(server.connections)) == (11, 11)


# From here on, with an AsyncSecureMailer.
Async = Callable[..., AsyncSecureMailer]


@pytest.fixture
def asynchronous(ca_file: Path) -> Async:
    """Make asynchronous mailers for scripted servers."""
    return lambda server, **options: AsyncSecureMailer("localhost", server.port, ca_file=ca_file, **options)


STAGES = pytest.mark.parametrize(
    ("verb", "outcome"), [("DATA", Outcome.NOT_SENT), ("CONTENT", Outcome.UNKNOWN)], ids=["not-sent", "unknown"]
)


@LIMITS
@STAGES
def test_a_time_limit_around_a_send_does_not_say_the_outcome(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    hold: Hold, asynchronous: Async, message: EmailMessage, limited: Limited, verb: str, outcome: Outcome
) -> None:
    """The text of its error says nothing; the event does."""
    held, seen = hold(verb), list[Event]()

    async def main() -> None:
        async with asynchronous(held.server, on_event=seen.append) as mailer:
            sending = asyncio.create_task(mailer.send(message))
            await held.wait_for(1)
            with pytest.raises(TimeoutError) as caught:
                await limited(sending)
        assert str(caught.value) == ""
        held.released.set()

    asyncio.run(main())
    assert [event.error.outcome for event in seen if isinstance(event, Failed)] == [outcome]


def test_the_error_of_a_deadline_says_the_outcome(hold: Hold, asynchronous: Async, message: EmailMessage) -> None:
    """Also while the send waits for a connection: the deadline counts from the call."""
    held = hold()

    async def main() -> None:
        async with asynchronous(held.server, max_connections=1) as mailer:
            first = asyncio.create_task(mailer.send(message))
            await held.wait_for(1)
            with pytest.raises(DeadlineExceededError, match="waiting for one of the mailer's connections") as caught:
                await mailer.send(message, deadline=0.1)
            held.released.set()
            await first
        assert caught.value.outcome is Outcome.NOT_SENT

    asyncio.run(main())


def test_a_task_that_nobody_keeps_ends_with_the_program(hold: Hold, asynchronous: Async, message: EmailMessage) -> None:
    """The program has responded; the message is not sent."""
    held = hold("DATA")

    async def main() -> None:
        mailer = asynchronous(held.server)
        asyncio.create_task(mailer.send(message))  # noqa: RUF006 -- the mistake
        await held.wait_for(1)

    asyncio.run(main())
    held.released.set()
    held.server.joined()
    assert held.server.accepted == []


def test_one_refused_message_cancels_the_others_of_a_task_group(
    serve: Serve, asynchronous: Async, message: EmailMessage
) -> None:
    """With asyncio and trio: the others were being sent, and their outcome is unknown."""
    waiting = threading.Barrier(3)

    def rcpt(peer: Peer, line: bytes) -> bytes:
        if b"<nobody@" not in line:
            return b"250 2.1.5 ok\r\n"
        waiting.wait(30)
        return b"550 5.1.1 no such user\r\n"

    def content(peer: Peer, octets: bytes) -> bytes:
        waiting.wait(30)
        peer.sleep_until_peer_closes()
        return b"250 2.0.0 queued\r\n"

    server = serve(honest(replies={"RCPT": rcpt, "CONTENT": content}))
    addresses = ["one@example.net", "two@example.net", "nobody@example.net"]
    seen = list[Event]()

    async def on_asyncio() -> None:
        async with asynchronous(server, on_event=seen.append) as mailer, asyncio.TaskGroup() as group:
            for address in addresses:
                group.create_task(mailer.send(message, recipients=[address]))

    async def on_trio() -> None:
        async with asynchronous(server, on_event=seen.append) as mailer, trio.open_nursery() as nursery:
            for address in addresses:
                nursery.start_soon(partial(mailer.send, message, recipients=[address]))

    for run, main in (asyncio.run, on_asyncio()), (trio.run, on_trio):
        seen.clear()
        with pytest.raises(ExceptionGroup) as caught:
            run(main)  # type: ignore[arg-type]
        assert [type(error) for error in caught.value.exceptions] == [RecipientsRefusedError]
        outcomes = sorted(event.error.outcome for event in seen if isinstance(event, Failed))
        assert outcomes == [Outcome.REFUSED, Outcome.UNKNOWN, Outcome.UNKNOWN]


def test_a_cancellation_that_is_swallowed_makes_a_time_limit_useless(
    hold: Hold, asynchronous: Async, message: EmailMessage
) -> None:
    """No TimeoutError is raised: the caller believes that all is well."""
    held = hold()

    async def main() -> None:
        async with asynchronous(held.server) as mailer:
            async with asyncio.timeout(0.2):
                with contextlib.suppress(asyncio.CancelledError):
                    await mailer.send(message)
        held.released.set()

    asyncio.run(main())
