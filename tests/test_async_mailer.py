"""What is AsyncSecureMailer's own: its signature, event loops, the queue of tasks, threads, forks."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from conftest import AsyncMailer, Run, Serve, thorough
from faces import Backend
from scripted import Peer, honest
from securesmtp import (
    AsyncSecureMailer,
    ConfigurationError,
    DeadlineExceededError,
    Envelope,
    Event,
    Outcome,
    Receipt,
    SecureMailer,
    SecureSMTPError,
)
from securesmtp.events import Sent
from tasks import happens, slots_in_use

RAW = b"Subject: x\r\n\r\nx\r\n"
CHUNK = ("PIPELINING", "8BITMIME", "CHUNKING")
CONSTRUCTORS = ("__init__", "from_url", "from_env")
METHODS = (*CONSTRUCTORS, "send", "send_bytes", "send_many", "check", "stats", "close")
# What an async mailer takes more of: coroutine functions and asynchronous iterables.
WIDER = {"password", "auth", "connect", "messages", "options"}


async def send(mailer: AsyncSecureMailer, raw: bytes = RAW, deadline: float | None = None) -> Receipt:
    """Send a message."""
    return await mailer.send_bytes(raw, mail_from="a@b.example", recipients=["c@d.example"], deadline=deadline)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_signature_of_the_sync_mailers(name: str) -> None:
    """Names, kinds and defaults; the annotations, too, except where an async mailer takes more."""
    ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (AsyncSecureMailer, SecureMailer))
    assert list(ours) == list(theirs)
    for mine, other in zip(ours.values(), theirs.values(), strict=True):
        assert (mine.kind, mine.default) == (other.kind, other.default), mine.name
        assert mine.annotation == other.annotation or mine.name in WIDER, mine.name


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_documented_as_the_sync_mailers(name: str) -> None:
    """The first line is the same, and no argument is left out."""
    ours, theirs = (inspect.getdoc(getattr(kind, name)) or "" for kind in (AsyncSecureMailer, SecureMailer))
    assert ours.splitlines()[0] == theirs.splitlines()[0]
    for argument in list(inspect.signature(getattr(SecureMailer, name)).parameters)[1:]:
        assert (f"{argument}:" in ours) == (f"{argument}:" in theirs), argument


def test_the_mailers_have_the_same_public_names() -> None:
    """Apart from the context manager's methods."""
    ours, theirs = ({name for name in vars(kind) if name[0] != "_"} for kind in (AsyncSecureMailer, SecureMailer))
    assert ours == theirs == set(METHODS) - {"__init__"}
    for name in set(METHODS) - {*CONSTRUCTORS}:
        awaited = name not in {"send_many", "stats"}
        assert inspect.iscoroutinefunction(inspect.unwrap(getattr(AsyncSecureMailer, name))) == awaited


def test_a_mailer_may_be_entered_and_left_in_different_tasks(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """As fixtures and the lifespan of an application do: no cancel scope is held across the caller's code (A6)."""
    server = serve()
    mailer = async_mailer(server)

    async def enters() -> None:
        await mailer.__aenter__()
        await send(mailer)

    async def leaves() -> None:
        await mailer.__aexit__(None, None, None)

    async def main() -> None:
        for step in (enters, leaves):
            async with anyio.create_task_group() as group:
                group.start_soon(step)

    run(main)
    server.joined()
    assert server.secret.endswith(b"QUIT\r\n")


def test_an_error_leaves_the_block_as_it_is(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """`except SecureSMTPError` around `async with` catches it: it is in no group of exceptions (A6)."""

    async def main() -> None:
        async with async_mailer(serve(honest(replies={"MAIL": b"550 no\r\n"}))) as mailer:
            await send(mailer)

    with pytest.raises(SecureSMTPError, match="550"):
        run(main)


def test_a_mailer_moves_to_the_next_event_loop(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """The connections of a loop that was closed are dropped without QUIT: nobody can wait there (A11)."""
    server = serve(honest())
    mailer = async_mailer(server)
    for _ in range(3):
        run(send, mailer)
    run(mailer.close)
    server.joined()
    assert [connection.secret.count(b"QUIT") for connection in server.connections] == [0, 0, 0]
    assert len(server.accepted) == 3


def test_a_second_event_loop_is_refused_while_the_first_is_alive(
    run: Run, serve: Serve, async_mailer: AsyncMailer
) -> None:
    """The error is ours, and says what to do; the first loop can go on (A11)."""
    mailer = async_mailer(serve())

    async def main() -> None:
        await send(mailer)
        for use in (send(mailer), mailer.check(), mailer.close()):
            with pytest.raises(ConfigurationError, match="another event loop") as caught:
                await anyio.to_thread.run_sync(anyio.run, _awaited, use)
            assert caught.value.hint
        with pytest.raises(ConfigurationError, match="another event loop"):
            await anyio.to_thread.run_sync(anyio.run, _first, mailer)
        # A close that was refused has closed nothing.
        await send(mailer)
        await mailer.close()

    run(main)


async def _awaited(use: object) -> None:
    await use  # type: ignore[misc]


async def _first(mailer: AsyncSecureMailer) -> None:
    async for _ in mailer.send_many([Envelope("a@b.example", ["c@d.example"], RAW)]):
        pass


@pytest.mark.parametrize("where", ["this thread", "another thread"])
def test_a_mailer_that_was_left_open_is_collected_without_its_loop(
    run: Run, serve: Serve, async_mailer: AsyncMailer, where: str
) -> None:
    """Its sockets are closed with a warning; nothing is asked of a loop that has ended (A12)."""
    server = serve()
    kept = [async_mailer(server)]

    async def main() -> None:
        await send(kept[0])

    run(main)

    def collect() -> None:
        with pytest.warns(ResourceWarning, match="unclosed <AsyncSecureMailer localhost"):
            kept.clear()

    if where == "this thread":
        collect()
    else:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(collect).result()
    server.joined()


def test_a_lookup_does_not_wait_for_the_programs_other_threads(
    run: Run, serve: Serve, async_mailer: AsyncMailer, backend: Backend
) -> None:
    """The loop's executor and anyio's threads are busy: names, large messages and passwords have others (A13, A14)."""
    go = threading.Event()
    server = serve(honest(extensions=CHUNK, auth=("me", "secret")))
    mailer = async_mailer(server, username="me", password=lambda: "secret")

    async def main() -> None:
        if backend == "asyncio":
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(1))
            loop.run_in_executor(None, go.wait, 30)
        else:
            trio.to_thread.current_default_thread_limiter().total_tokens = 1
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, go.wait, 30)
            if backend == "trio":
                group.start_soon(trio.to_thread.run_sync, go.wait, 30)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(10):
                await send(mailer, RAW + b"x\r\n" * 200_000)
                assert (await mailer.check()).login
                await mailer.close()
            go.set()

    run(main)
    assert len(server.accepted) == 1


def test_a_resolver_that_hangs_is_waited_for_no_longer_than_the_limit(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline counts, and so does a cancellation; its thread is abandoned (A13)."""
    go, asked = threading.Event(), threading.Event()

    def hang(*_: object, **options: object) -> object:
        if options.get("flags"):
            raise socket.gaierror
        asked.set()
        go.wait(30)
        return []

    mailer = AsyncSecureMailer("mx.example")
    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await send(mailer, deadline=0.1)
        assert caught.value.outcome is Outcome.NOT_SENT
        asked.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(send, mailer)
            await happens(asked)
            group.cancel_scope.cancel()
        assert slots_in_use(mailer) == 0
        await mailer.close()

    run(main)
    go.set()


def test_a_resolver_that_hangs_does_not_keep_the_program_alive(backend: Backend) -> None:
    """Its thread is a daemon (A13)."""
    program = f"""
import anyio, socket, threading, time
from securesmtp import AsyncSecureMailer
asked = threading.Event()
def hang(*_, flags=0, **__):
    if flags:
        raise socket.gaierror
    asked.set()
    time.sleep(600)
socket.getaddrinfo = hang
async def main():
    async with AsyncSecureMailer("mx.example") as mailer, anyio.create_task_group() as group:
        group.start_soon(mailer.check)
        await anyio.to_thread.run_sync(asked.wait)
        group.cancel_scope.cancel()
anyio.run(main, backend={backend!r})
print("ended")
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=True, capture_output=True, text=True)
    assert ended.stdout == "ended\n"


class Recorded(EmailMessage):
    """A message that notes in which thread it is read."""

    def __init__(self, subject: str, content: str, readers: dict[str, set[str]]) -> None:
        super().__init__()
        self.readers = readers
        self["From"], self["To"], self["Subject"] = "a@b.example", "c@d.example", subject
        self.set_content(content)

    def raw_items(self) -> Iterator[tuple[str, Any]]:
        """Return the fields: whoever builds the message needs them."""
        self.readers.setdefault(str(self["Subject"]), set()).add(threading.current_thread().name)
        return super().raw_items()


def test_a_large_message_is_built_in_a_thread_and_a_small_one_in_the_loop(
    run: Run, serve: Serve, async_mailer: AsyncMailer
) -> None:
    """To serialise 25 MB takes a second, in which no other task would run; a thread costs more than a small message."""
    readers = dict[str, set[str]]()
    mailer = async_mailer(serve(honest(extensions=CHUNK)))

    async def main() -> None:
        await mailer.send(Recorded("small", "x\n", readers))
        await mailer.send(Recorded("large", ("x" * 70 + "\n") * 20_000, readers))
        await mailer.close()

    run(main)
    assert readers == {"small": {threading.current_thread().name}, "large": {"securesmtp: build a message"}}


def test_a_large_message_leaves_the_loop_to_others(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """
    Of 20 MB, it takes the loop's thread for less than 50 ms at a time.

    CPU time of that thread is measured: time on the clock has in it what the other threads and programs do
    (`bench.loop_lag` prints both).
    """
    mailer = async_mailer(serve(honest(extensions=CHUNK)), timeout=60)
    gaps, message = list[float](), EmailMessage()
    message["From"], message["To"] = "a@b.example", "c@d.example"
    message.set_content(bytes(15 << 20), maintype="application", subtype="octet-stream")

    async def probe() -> None:
        while True:
            before = time.thread_time()
            await anyio.sleep(0.001)
            gaps.append(time.thread_time() - before)

    async def main() -> None:
        async with mailer, anyio.create_task_group() as group:
            # Its first use loads modules.
            await send(mailer)
            group.start_soon(probe)
            await anyio.wait_all_tasks_blocked()
            # A collection of all objects of the tests takes longer than this.
            gc.disable()
            receipt = await mailer.send(message)
            gc.enable()
            group.cancel_scope.cancel()
            assert receipt.size > 20 << 20

    run(main)
    assert max(gaps) < 0.05


def test_a_message_is_built_when_a_connection_is_free(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """A burst of sends does not serialise all its messages at once, and keeps none of them twice."""
    reached, go, readers = threading.Event(), threading.Event(), dict[str, set[str]]()

    def slow(_: Peer, content: bytes) -> bytes:
        reached.set()
        go.wait(10)
        return b"250 ok\r\n"

    mailer = async_mailer(serve(honest(replies={"CONTENT": slow})), max_connections=1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(mailer.send, Recorded(str(number), "x\n", readers))
            await happens(reached)
            assert len(readers) == 1
            go.set()
        await mailer.close()

    run(main)
    assert len(readers) == 20


@pytest.mark.parametrize("tasks", thorough(200, 1000))
def test_many_tasks_are_served_in_their_order(run: Run, serve: Serve, async_mailer: AsyncMailer, tasks: int) -> None:
    """Over one connection, each message arrives in the order of the calls."""
    server = serve(honest(extensions=CHUNK))
    mailer = async_mailer(server, max_connections=1, max_messages=10_000)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(tasks):
                group.start_soon(send, mailer, b"Subject: %d\r\n\r\n" % number)
                # trio starts the tasks of one moment in random order.
                await anyio.wait_all_tasks_blocked() if number % 50 == 0 else await anyio.lowlevel.checkpoint()
        await mailer.close()

    run(main)
    order = [int(message.content.split()[1]) for message in server.accepted]
    assert order == sorted(order)
    assert len(order) == tasks


def test_the_wait_for_a_connection_counts(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """A deadline begins with the call: a send that waits for a connection is told in time, and is not sent."""
    reached, go = threading.Event(), threading.Event()

    def slow(_: Peer, content: bytes) -> bytes:
        reached.set()
        go.wait(10)
        return b"250 ok\r\n"

    server = serve(honest(replies={"CONTENT": slow}))
    mailer = async_mailer(server, max_connections=1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(send, mailer)
            await happens(reached)
            with pytest.raises(DeadlineExceededError, match="waiting for one of the mailer's connections") as caught:
                await send(mailer, deadline=0.1)
            assert (caught.value.limit, caught.value.outcome) == ("deadline", Outcome.NOT_SENT)
            # It was not built, but its header has a name for it.
            named = EmailMessage()
            named["From"], named["To"], named["MESSAGE-ID"] = "a@example.org", "b@example.org", "<\x1bmine@example.org>"
            with pytest.raises(DeadlineExceededError) as caught:
                await mailer.send(named, deadline=0.1)
            assert caught.value.message_id == r"<\x1bmine@example.org>"
            with pytest.raises(DeadlineExceededError) as caught:
                await mailer.send(EmailMessage(), deadline=0.1)
            assert caught.value.message_id is None
            go.set()
        await mailer.close()

    run(main)
    assert len(server.accepted) == 1


@pytest.mark.parametrize("kind", ["function", "coroutine function", "callable object"])
def test_a_password_may_be_awaited(run: Run, serve: Serve, async_mailer: AsyncMailer, kind: str) -> None:
    """A coroutine function runs in the loop, anything else in a thread: a keyring may block."""
    threads = list[threading.Thread]()

    def fetch() -> str:
        threads.append(threading.current_thread())
        return "secret"

    async def fetch_async() -> str:
        await anyio.lowlevel.checkpoint()
        return fetch()

    class Vault:
        async def __call__(self) -> str:
            return await fetch_async()

    sources: dict[str, Callable[[], object]] = {
        "function": fetch, "coroutine function": fetch_async, "callable object": Vault(),
    }  # fmt: skip
    mailer = async_mailer(serve(honest(auth=("me", "secret"))), username="me", password=sources[kind])

    async def main() -> None:
        async with mailer:
            await send(mailer)

    run(main)
    assert (threads == [threading.current_thread()]) == (kind != "function")


def test_events_come_in_the_loops_thread(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """A callable may use what belongs to the loop."""
    threads = set[threading.Thread]()

    def on_event(_: Event) -> None:
        threads.add(threading.current_thread())

    async def main() -> None:
        async with async_mailer(serve(), on_event=on_event) as mailer:
            await send(mailer, RAW + b"x\r\n" * 200_000)
            [result async for result in mailer.send_many([Envelope("a@b.example", ["c@d.example"], RAW)] * 3)]

    run(main)
    assert threads == {threading.current_thread()}


def test_a_send_inside_a_send_is_an_error(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """The inner one would wait forever for the connection that the outer one has."""
    events = list[Event]()

    async def password() -> str:
        await send(mailer)
        return "secret"

    mailer = async_mailer(
        serve(honest(auth=("me", "secret"))), username="me", password=password, max_connections=1,
        on_event=events.append,
    )  # fmt: skip

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="inside a send"):
            await send(mailer)
        await mailer.close()

    run(main)
    assert not any(isinstance(event, Sent) for event in events)


def test_a_child_of_a_fork_leaves_its_parents_connection_alone(serve: Serve, ca_file: Path, backend: Backend) -> None:
    """Forked under a send, it sends over another and collects the mailer; the parent's message arrives (A16)."""
    reached, go = threading.Event(), threading.Event()

    def slow(_: Peer, content: bytes) -> bytes:
        if b"parent" in content:
            reached.set()
            go.wait(60)
        return b"250 ok\r\n"

    server = serve(honest(replies={"CONTENT": slow}), timeout=60)
    program = f"""
import anyio, gc, os, sys
from securesmtp import AsyncSecureMailer
def make():
    return AsyncSecureMailer("localhost", {server.port}, ca_file={str(ca_file)!r}, timeout=60)
async def send(mailer, who):
    await mailer.send_bytes(b"Subject: " + who + b"\\n\\n", mail_from="a@b.example", recipients=["c@d.example"])
async def use(mailer):
    await send(mailer, b"child, the same mailer")
    await mailer.close()
async def main():
    mailer = make()
    async with anyio.create_task_group() as group:
        group.start_soon(send, mailer, b"parent")
        await anyio.wait_readable(sys.stdin)
        child = os.fork()
        if child == 0:
            # The child has its parent's loop in its frames, and no way out of it but this.
            import threading
            ended = []
            def work():
                anyio.run(use, mailer, backend={backend!r})
                ended.append(True)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            del mailer
            gc.collect()
            os._exit(0 if ended else 1)
        assert os.waitpid(child, 0)[1] == 0
        print("child", flush=True)
    await mailer.close()
anyio.run(main, backend={backend!r})
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert reached.wait(60)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"child\n"
        go.set()
        assert process.wait(60) == 0
    subjects = [[message.content.split(b"\r\n")[0] for message in each.accepted] for each in server.connections]
    assert subjects == [[b"Subject: parent"], [b"Subject: child, the same mailer"]]


def test_a_mailer_may_be_made_before_the_loop_starts(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """As a global of a module, say; it belongs to the loop in which it is first used."""
    server = serve()
    mailer = async_mailer(server)
    results = mailer.send_many([Envelope("a@b.example", ["c@d.example"], RAW)])

    async def main() -> None:
        async with mailer:
            await send(mailer)
            assert [result.outcome async for result in results] == [Outcome.ACCEPTED]

    run(main)
    assert len(server.accepted) == 2
