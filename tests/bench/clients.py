"""
The clients that are measured, one in a process of its own: `python clients.py NAME TASK` prints what it took.

Each gets the same message, the same trust, the same login, and what its own documentation says is quick: connections
that stay open, as many as the task says. All check the server's certificate.
"""

from __future__ import annotations

import asyncio
import json
import resource
import smtplib
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from email.message import EmailMessage
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from bench.limit import Way
    from securesmtp import SecureMailer

LOGIN = ("me@example.test", "correct horse")
Send = Callable[[int], object]
# Bytes that are attached; in base64 a third more.
_ATTACHED = {"medium": 730_000, "large": 25_000_000}


@dataclass(frozen=True)
class Task:
    """
    What is to be done.

    Attributes:
        port: Where, on loopback.
        ca: The file of the CA.
        count: How many messages.
        connections: Over how many connections.
        recipients: To how many each.
        message: `small` (2 kB), `octets` (the same, made before), `medium` (1 MB), `large` (25 MB attached) or `file`
            (25 MB, a path).
        cold: Whether each has a connection of its own, which is a part of what is measured.
        login: Who logs in.
        folder: Where the file is.
        host: The server's name.
        opening: How many messages each connection has before the clock starts. With one it is open; with three, the
            server was tried for overlapping as well.
        tasks: How many tasks an async client has; 0: as many as connections.
    """

    port: int
    ca: str
    count: int = 1
    connections: int = 1
    recipients: int = 1
    message: str = "small"
    cold: bool = False
    login: tuple[str, str] = LOGIN
    folder: str = ""
    host: str = "localhost"
    opening: int = 3
    tasks: int = 0

    @property
    def people(self) -> list[str]:
        """The recipients."""
        return [f"b{number}@example.test" for number in range(self.recipients)]

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts the CA, and checks."""
        return ssl.create_default_context(cafile=self.ca)


def text() -> str:
    """Return a body of 2 kB."""
    return "x" * 70 + "\n" + ("y" * 70 + "\n") * 25


def message(task: Task) -> EmailMessage:
    """Return the message of the *task*."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.test", ", ".join(task.people), "A benchmark"
    mail["Date"], mail["Message-ID"] = "Tue, 24 Nov 2026 12:00:00 +0000", "<1@example.test>"
    mail.set_content(text())
    if task.message in _ATTACHED:
        data = bytes(range(256)) * (_ATTACHED[task.message] // 256)
        mail.add_attachment(data, maintype="application", subtype="pdf", filename="a")
    return mail


def octets(task: Task) -> bytes:
    """Return the message in the form in which it goes over the wire."""
    return message(task).as_bytes(policy=message(task).policy.clone(linesep="\r\n"))


@contextmanager
def stdlib(task: Task) -> Iterator[Send]:
    """Use smtplib, a thread for each connection."""
    mail, data, context = message(task), octets(task), task.context()

    def send(client: smtplib.SMTP, count: int) -> None:
        for _ in range(count):
            if task.message in {"octets", "file"}:
                client.sendmail("a@example.test", task.people, data)
            else:
                client.send_message(mail)

    with ExitStack() as stack:
        clients = [
            stack.enter_context(smtplib.SMTP_SSL(task.host, task.port, "localhost", context=context))
            for _ in range(task.connections)
        ]
        for client in clients:
            client.login(*task.login)
        if task.connections == 1:
            yield lambda count: send(clients[0], count)
            return
        pool = stack.enter_context(ThreadPoolExecutor(task.connections))
        yield lambda count: list(pool.map(send, clients, repeat(count // task.connections)))


@contextmanager
def asynchronous(task: Task) -> Iterator[Send]:
    """Use aiosmtplib."""
    import aiosmtplib

    mail = message(task)
    with asyncio.Runner() as runner:
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

        async def connect() -> None:
            await asyncio.gather(*(client.connect() for client in clients))

        async def send(client: aiosmtplib.SMTP, count: int) -> None:
            for _ in range(count):
                await client.send_message(mail)

        async def share(count: int) -> None:
            await asyncio.gather(*(send(client, count // task.connections) for client in clients))

        runner.run(connect())
        yield lambda count: runner.run(share(count))
        for client in clients:
            client.close()


@contextmanager
def django(task: Task) -> Iterator[Send]:
    """Use Django's backend."""
    from django.conf import settings
    from django.core.mail import EmailMessage as DjangoMessage
    from django.core.mail.backends.smtp import EmailBackend

    if not settings.configured:
        settings.configure()
    backend: Any = EmailBackend("localhost", task.port, *task.login, use_ssl=True)
    backend.ssl_context = task.context()
    mail = DjangoMessage("A benchmark", text(), "a@example.test", task.people)
    if task.message == "large":
        mail.attach("a", bytes(range(256)) * (_ATTACHED["large"] // 256), "application/pdf")
    backend.open()
    yield lambda count: [backend.send_messages([mail]) for _ in range(count)]
    backend.close()


@contextmanager
def redmail(task: Task) -> Iterator[Send]:
    """Use red-mail, which makes its message itself."""
    from redmail import EmailSender

    sender = EmailSender(
        "localhost", task.port, *task.login, cls_smtp=smtplib.SMTP_SSL, use_starttls=False, context=task.context()
    )

    def send() -> object:
        return sender.send(subject="A benchmark", sender="a@example.test", receivers=task.people, text=text())

    with sender:
        yield lambda count: deque((send() for _ in range(count)), 0)


def ours(
    pipelining: str, partial: str = "raise", *, way: Literal["send_many", "send", "send_bytes"] = "send_many"
) -> Callable[[Task], Any]:
    """Use securesmtp, as it is configured by default but for *pipelining* and the number of connections."""

    @contextmanager
    def client(task: Task) -> Iterator[Send]:
        from securesmtp import Envelope, SecureMailer

        with SecureMailer(
            task.host,
            task.port,
            username=task.login[0],
            password=task.login[1],
            ca_file=task.ca,
            max_connections=task.connections,
            pipelining=pipelining,  # type: ignore[arg-type]
        ) as mailer:
            if task.message == "file":
                yield lambda count: _file(mailer, task, count)
                return
            data = octets(task) if task.message == "octets" else b""
            mail = Envelope("a@example.test", task.people, data) if data else message(task)

            def send(count: int) -> None:
                for result in mailer.send_many(repeat(mail, count), partial=partial):  # type: ignore[arg-type]
                    assert result.receipt, result.error

            def send_each(count: int) -> None:
                for _ in range(count):
                    mailer.send(cast("EmailMessage", mail), partial=partial)  # type: ignore[arg-type]

            def send_each_bytes(count: int) -> None:
                for _ in range(count):
                    mailer.send_bytes(data, mail_from="a@example.test", recipients=task.people)

            if way == "send_bytes":
                yield send_each_bytes
            else:
                yield send_each if way == "send" or task.cold else send

    return client


def _file(mailer: SecureMailer, task: Task, count: int) -> None:
    for _ in range(count):
        with Path(task.folder, "content").open("rb") as file:
            mailer.send_bytes(file, mail_from="a@example.test", recipients=task.people)


def limit(way: Way) -> Callable[[Task], AbstractContextManager[Send]]:
    """Use nothing but sockets, and octets that were made before."""

    @contextmanager
    def client(task: Task) -> Iterator[Send]:
        from bench.limit import Limit

        context, data = task.context(), octets(replace(task, message="small") if task.message == "file" else task)
        clients = [Limit(task.port, context, task.login, task.host) for _ in range(task.connections)]

        def send(client: Limit, count: int) -> None:
            if task.message == "file":
                path = Path(task.folder, "content")
                with path.open("rb") as file:
                    client.send_file(file, path.stat().st_size)
            else:
                client.send(way, data, task.people, count)

        if task.connections == 1:
            yield lambda count: send(clients[0], count)
            return
        with ThreadPoolExecutor(task.connections) as pool:
            yield lambda count: list(pool.map(send, clients, repeat(count // task.connections)))

    return client


CLIENTS: dict[str, Callable[[Task], AbstractContextManager[Send]]] = {
    "smtplib": stdlib,
    "aiosmtplib": asynchronous,
    "Django": django,
    "red-mail": redmail,
    "securesmtp": ours("message"),
    "securesmtp, send": ours("message", way="send"),
    "securesmtp, send_bytes": ours("message", way="send_bytes"),
    "securesmtp, allow": ours("message", "allow"),
    "securesmtp, off": ours("off"),
    "securesmtp, session": ours("session"),
    "limit, lockstep": limit("lockstep"),
    "limit, pipelined": limit("pipelined"),
    "limit, content-first": limit("content-first"),
    "limit, chunk": limit("chunk"),
    "limit, chunks": limit("chunks"),
}


def measure(client: Callable[[Task], AbstractContextManager[Send]], task: Task) -> dict[str, float]:
    """Return what one message takes: seconds, seconds of CPU, and octets of memory more than before at the highest."""
    if task.cold:
        # What is loaded and made once is so before the clock starts.
        with client(task) as send:
            send(1)
        seconds, used = 0.0, 0.0
        for _ in range(task.count):
            began, cpu = time.perf_counter(), time.process_time()
            with client(task) as send:
                send(1)
                seconds, used = seconds + time.perf_counter() - began, used + time.process_time() - cpu
        return {"seconds": seconds / task.count, "cpu": used / task.count}
    with client(task) as send:
        # Connections are opened, and a server is tried, before the clock starts.
        if task.message in {"small", "octets"}:
            send((task.opening if task.recipients == 1 else 1) * task.connections)
        else:
            _warm(client, task)
        # The highest mark of this process is set back to what it has now (Linux).
        Path("/proc/self/clear_refs").write_text("5", "ascii")
        before = _memory("VmRSS")
        began, cpu = time.perf_counter(), time.process_time()
        send(task.count)
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
        return {"seconds": seconds / task.count, "cpu": used / task.count, "memory": _memory("VmHWM") - before}


def _warm(client: Callable[[Task], AbstractContextManager[Send]], task: Task) -> None:
    """Load what is loaded once, without a large message."""
    with client(replace(task, message="small")) as send:
        send(1)


def _memory(what: str) -> float:
    status = Path("/proc/self/status").read_text("ascii")
    return next(float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what))


def main() -> None:
    """Measure one client with one task."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    name, task = sys.argv[1], Task(**json.loads(sys.argv[2]))
    task = replace(task, login=(task.login[0], task.login[1]))
    print(json.dumps(measure(CLIENTS[name], task)))


if __name__ == "__main__":
    main()
