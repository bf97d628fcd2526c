"""What docs/how-to/asyncio.md says about common mistakes; each sentence of its first table has a test here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from functools import partial

import pytest

from conftest import Mailer, Serve
from scripted import Peer, ScriptedServer, honest


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


async def fill_the_threads(send: Callable[[], object], held: Held) -> list[asyncio.Future[object]]:
    """Call *send* in each thread that `asyncio.to_thread` has; return when all of them wait for the mail server."""
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(int)
    threads: int = loop._default_executor._max_workers  # type: ignore[attr-defined]
    sends = [asyncio.ensure_future(asyncio.to_thread(send)) for _ in range(threads)]
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
    """A send with a deadline of 0.2 s succeeds after 0.4 s in the queue."""
    held = hold()
    mine = mailer(held.server, max_connections=MANY)

    async def main() -> None:
        sends = await fill_the_threads(partial(mine.send, message), held)
        called = time.monotonic()
        late = asyncio.ensure_future(asyncio.to_thread(mine.send, message, deadline=0.2))
        await asyncio.wait([late], timeout=0.4)
        held.released.set()
        await asyncio.gather(*sends)
        assert (await late).reply.code == 250
        assert time.monotonic() - called > 0.4

    asyncio.run(main())


@pytest.mark.parametrize("limit", ["timeout", "wait_for"])
def test_a_message_is_delivered_after_the_time_limit_around_to_thread(
    hold: Hold, mailer: Mailer, message: EmailMessage, limit: str
) -> None:
    """The caller gets TimeoutError; then the thread goes on, and the server accepts the message."""
    held = hold("DATA", b"354 go\r\n")
    mine = mailer(held.server, pipelining="off")

    async def main() -> None:
        sending = asyncio.to_thread(mine.send, message)
        with pytest.raises(TimeoutError):
            if limit == "timeout":
                async with asyncio.timeout(0.2):
                    await sending
            else:
                await asyncio.wait_for(sending, 0.2)
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
