"""What an asynchronous pool is made of: its queue, its threads, its event loop, and waits for a socket."""

from __future__ import annotations

import asyncio
import gc
import io
import pickle
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial as bind

import anyio
import pytest
from anyio.lowlevel import checkpoint

from conftest import AsyncMailer, Run, Serve
from scripted import Peer, honest
from securesmtp import AsyncSecureMailer, ConnectError, Envelope, Event, Outcome, SecureSMTPError, SendResult
from securesmtp._async_messages import Jobs
from securesmtp._bulk.jobs import InvalidInput, Job
from securesmtp._bulk.run import Run as BulkRun
from securesmtp._submissions import close_content, from_octets
from securesmtp._transport.async_link import AsyncLink
from securesmtp._transport.channel import WRITE
from securesmtp._transport.event_loop import current_loop
from securesmtp._transport.task_queue import TaskQueue
from securesmtp._transport.threads import Threads
from securesmtp.events import FewerConnections

RAW = b"Subject: a\r\n\r\nb\r\n"


def test_a_task_that_is_woken_for_nothing_keeps_its_place(run: Run) -> None:
    """What was free may be claimed by a send inside another send, which does not queue."""
    room, claims = list[int](), list[str]()
    queue = TaskQueue(lambda: True)

    async def take(name: str) -> None:
        claims.append(f"{name} got {await queue.claim(lambda: room.pop() if room else None)}")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(take, "first")
            await checkpoint()
            group.start_soon(take, "second")
            for _ in range(5):
                queue.notify()
                await checkpoint()
            assert claims == []
            room.extend((2, 1))
            queue.notify()

    run(main)
    assert claims == ["first got 1", "second got 2"]


def test_without_threads_the_function_runs_in_the_loop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of the interpreter, when none can be started."""

    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    async def main() -> None:
        threads = Threads(current_loop(), 1)
        monkeypatch.setattr(threading.Thread, "start", start)
        here = threading.get_ident()
        assert await threads.run(threading.get_ident, "one") == here
        # Its place is free again.
        assert await threads.run(threading.get_ident, "two") == here
        monkeypatch.undo()

    run(main)


def test_a_loop_that_is_gone_calls_nothing() -> None:
    """Neither does one that is closed; an object that outlives its loop may still try."""
    called = list[int]()

    async def main() -> object:
        return current_loop()

    runner = asyncio.new_event_loop()
    loop = runner.run_until_complete(main())
    runner.close()
    loop.call_soon(lambda: called.append(1))  # type: ignore[attr-defined]
    assert loop.is_closed  # type: ignore[attr-defined]
    del runner
    gc.collect()
    loop.call_soon(lambda: called.append(2))  # type: ignore[attr-defined]
    assert called == []


def test_a_wait_for_a_write_ends_when_there_is_room(run: Run, async_mailer: AsyncMailer, serve: Serve) -> None:
    """Although nothing can be read: in a handshake, the client may have to write first."""

    async def main() -> None:
        mailer = async_mailer(serve())
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(0)
            settings = mailer._core.settings
            context = mailer._core.context
            assert context is not None
            threads = Threads(current_loop(), 1)
            link = AsyncLink(settings, context, mailer._core.memory, threads, threads)
            link.connection.channel.sock = ours
            with anyio.fail_after(5):
                await link._wait_for_socket(WRITE)
            link.connection.channel.sock = None
            with pytest.raises(ConnectError):
                await link._wait_for_socket(WRITE)

    run(main)


def test_a_connection_too_many_is_not_used_again(run: Run, async_mailer: AsyncMailer, serve: Serve) -> None:
    """As in the sync mailer: the server has said that it serves others first."""
    replies = iter([b"432 4.3.2 Concurrent connections limit exceeded\r\n"])
    server = serve(honest(replies={"MAIL": lambda *_: next(replies, b"250 ok\r\n")}))

    async def main() -> None:
        async with async_mailer(server, max_connections=1) as mailer:
            send = bind(mailer.send_bytes, RAW, mail_from="a@b.example", recipients=["c@d.example"])
            with pytest.raises(SecureSMTPError, match="432"):
                await send()
            await send()

    run(main)
    assert len(server.connections) == 2
    assert len(server.accepted) == 1


def test_an_async_mailer_cannot_be_copied() -> None:
    """A copy would share the connections."""
    with pytest.raises(TypeError, match="create one in each process"):
        pickle.dumps(AsyncSecureMailer("localhost"))


def test_the_jobs_of_a_run_are_read_from_one_iterator(run: Run) -> None:
    """They are their own iterator, as `async for` wants it."""

    async def build(_: object, function: Callable[[], object]) -> object:
        return function()

    def jobs(given: Callable[[object, Callable[[], object]], Awaitable[object]]) -> Jobs:
        return Jobs(BulkRun(AsyncSecureMailer("localhost")._core, "raise"), [], None, given)  # type: ignore[arg-type]

    async def main() -> None:
        read = jobs(build)
        assert aiter(read) is read
        assert [job async for job in read] == []

    run(main)


def test_a_worker_that_comes_when_there_is_no_room_leaves_at_once(
    run: Run, async_mailer: AsyncMailer, serve: Serve
) -> None:
    """The server has accepted one connection of three; the message of the third worker goes over the first."""

    def refuse(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"421 4.7.0 Too many concurrent SMTP connections\r\n")

    server = serve(honest(), refuse)

    async def main() -> list[SendResult]:
        fewer = anyio.Event()

        def notice(event: Event) -> None:
            if isinstance(event, FewerConnections):
                fewer.set()

        async def messages() -> AsyncIterator[Envelope]:
            for number in range(4):
                if number == 2:
                    with anyio.fail_after(10):
                        await fewer.wait()
                yield Envelope("a@b.example", [f"c{number}@d.example"], RAW)

        async with async_mailer(server, max_connections=3, on_event=notice) as mailer:
            return [result async for result in mailer.send_many(messages())]

    assert [result.outcome for result in run(main)] == [Outcome.ACCEPTED] * 4
    assert len(server.connections) == 2


def test_what_was_made_too_late_of_a_wrong_message_has_no_file() -> None:
    """Of a right one, the temporary file is deleted."""
    file = io.BytesIO(RAW * 100_000)
    made = from_octets(file, "a@b.example", ["c@d.example"])
    close_content(InvalidInput(SendResult(0, None, Outcome.NOT_SENT)))
    assert not isinstance(made.content.source, tuple)
    assert not made.content.source.closed
    close_content(Job(0, made, lambda: None))
    assert made.content.source.closed
