"""
The async clients that are measured, one in a process of its own: `python -m bench.async_clients NAME TASK`.

Each gets the same message, the same trust, the same login and the same number of connections, which are open before the
clock starts. aiosmtplib is used as its documentation says for many messages: several `SMTP` instances that stay
connected and share the work, either by a queue with a worker for each or by tasks that call `send_message` directly.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import cycle, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio

from bench.clients import Task, message

if TYPE_CHECKING:
    import aiosmtplib

Backend = Literal["asyncio", "trio"]
# Sends so many messages in so many tasks; awaits the start event before it begins.
Work: TypeAlias = Callable[[int, int, anyio.Event], Coroutine[Any, Any, None]]
Client: TypeAlias = Callable[[Task], AbstractAsyncContextManager[Work]]


def by_tasks(send: Callable[[], Awaitable[object]]) -> Work:
    """Have each task send its share, one message after the other."""

    async def share(count: int, start: anyio.Event) -> None:
        await start.wait()
        for _ in range(count):
            await send()

    async def work(tasks: int, count: int, start: anyio.Event) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(share, count // tasks, start)

    return work


def options(task: Task) -> dict[str, Any]:
    """Return the arguments of both mailers of ours."""
    return {
        "username": task.login[0],
        "password": task.login[1],
        "ca_file": task.ca,
        "max_connections": task.connections,
    }


@asynccontextmanager
async def ours(task: Task) -> AsyncIterator[Work]:
    """Use securesmtp, a `send` or a `send_bytes` for each message."""
    from securesmtp import AsyncSecureMailer

    mail = message(task)

    async def send_file() -> None:
        with Path(task.folder, "content").open("rb") as file:  # noqa: ASYNC230 -- opening it takes no time
            await mailer.send_bytes(file, mail_from="a@example.test", recipients=task.people)

    async with AsyncSecureMailer(task.host, task.port, **options(task)) as mailer:
        yield by_tasks(send_file if task.message == "file" else lambda: mailer.send(mail))


@asynccontextmanager
async def ours_session(task: Task) -> AsyncIterator[Work]:
    """Use securesmtp, one `send_many` for all messages."""
    from securesmtp import AsyncSecureMailer

    mail = message(task)
    async with AsyncSecureMailer(task.host, task.port, **options(task), pipelining="session") as mailer:

        async def work(tasks: int, count: int, start: anyio.Event) -> None:
            await start.wait()
            async for result in mailer.send_many(repeat(mail, count)):
                assert result.receipt, result.error

        yield work


@asynccontextmanager
async def ours_in_threads(task: Task) -> AsyncIterator[Work]:
    """Use the sync mailer in asyncio's executor, which has a thread for each connection."""
    from securesmtp import SecureMailer

    mail = message(task)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(task.connections))
    with SecureMailer(task.host, task.port, **options(task)) as mailer:
        yield by_tasks(lambda: asyncio.to_thread(mailer.send, mail))


@asynccontextmanager
async def aiosmtplib_clients(task: Task) -> AsyncIterator[list[aiosmtplib.SMTP]]:
    """Connect as many clients as there are to be connections."""
    import aiosmtplib

    clients = [
        aiosmtplib.SMTP(
            hostname=task.host,
            port=task.port,
            use_tls=True,
            tls_context=task.context(),
            username=task.login[0],
            password=task.login[1],
            local_hostname="localhost",
        )
        for _ in range(task.connections)
    ]
    await asyncio.gather(*(client.connect() for client in clients))
    yield clients
    for client in clients:
        client.close()


@asynccontextmanager
async def aiosmtplib_queue(task: Task) -> AsyncIterator[Work]:
    """Use aiosmtplib, a worker for each connection, and a queue."""
    mail, queue = message(task), asyncio.Queue[asyncio.Future[object]]()

    async def worker(client: aiosmtplib.SMTP) -> None:
        while True:
            done = await queue.get()
            done.set_result(await client.send_message(mail))

    async def send() -> None:
        queue.put_nowait(done := asyncio.get_running_loop().create_future())
        await done

    async with aiosmtplib_clients(task) as clients, anyio.create_task_group() as workers:
        for client in clients:
            workers.start_soon(worker, client)
        yield by_tasks(send)
        workers.cancel_scope.cancel()


@asynccontextmanager
async def aiosmtplib_shared(task: Task) -> AsyncIterator[Work]:
    """Use aiosmtplib, whose clients have a lock for the tasks that share them."""
    mail = message(task)
    async with aiosmtplib_clients(task) as clients:
        turn = cycle(clients)
        yield by_tasks(lambda: next(turn).send_message(mail))


CLIENTS: dict[str, tuple[Backend, Client]] = {
    "securesmtp, asyncio": ("asyncio", ours),
    "securesmtp, trio": ("trio", ours),
    "securesmtp, asyncio, session": ("asyncio", ours_session),
    "securesmtp, trio, session": ("trio", ours_session),
    "securesmtp, to_thread": ("asyncio", ours_in_threads),
    "aiosmtplib, queue": ("asyncio", aiosmtplib_queue),
    "aiosmtplib, shared": ("asyncio", aiosmtplib_shared),
}


async def measure(client: Client, task: Task, tasks: int) -> dict[str, float]:
    """Return what one message takes, in seconds and seconds of CPU, and how many threads there were."""
    async with client(task) as work:
        # Opens every connection, and has the server tried for overlapping.
        start = anyio.Event()
        start.set()
        await work(task.connections, 3 * task.connections, start)
        start = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(work, tasks, task.count, start)
            # The tasks exist and wait for the start.
            await anyio.wait_all_tasks_blocked()
            began, cpu = time.perf_counter(), time.process_time()
            start.set()
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
        return {"seconds": seconds / task.count, "cpu": used / task.count, "threads": threads()}


def threads() -> float:
    """Return how many threads this process has (Linux)."""
    status = Path("/proc/self/status").read_text("ascii")
    return next(float(line.split()[1]) for line in status.splitlines() if line.startswith("Threads"))


def main() -> None:
    """Measure one client with one task."""
    backend, client = CLIENTS[sys.argv[1]]
    task = Task(**json.loads(sys.argv[2]))
    print(json.dumps(anyio.run(measure, client, task, task.tasks or task.connections, backend=backend)))


if __name__ == "__main__":
    main()
