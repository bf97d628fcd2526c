"""
Send messages through Celery to a server that loses some of its replies: with `mail_task`, and with a plain task.

`PYTHONPATH=tests python tests/bench/celery_tasks.py [MESSAGES [WORKERS]]` starts a Redis, a mail server that cuts the
connection instead of every 200th confirmation, and one Celery worker with so many processes. The plain task is what
recipes show: smtplib, a connection for each message, and a retry after every exception.
"""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import trustme
from celery import Celery
from redis import Redis as Client

from databases import Redis
from securesmtp import SecureMailer
from securesmtp.integrations.celery import mail_task
from securesmtp.ledger import SQLiteLedger, State

MESSAGES, WORKERS = 10_000, 4
# One confirmation of so many is lost.
LOSSES = 200
QUEUE = "mail"
_REPLIES = {
    b"EHLO": b"250-lossy\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n",
    b"DATA": b"354 go\r\n",
    b"QUIT": b"221 bye\r\n",
}


class LossyServer:
    """
    Takes each message, and cuts the connection instead of every `LOSSES`-th confirmation.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        arrived: How often each message arrived, by its subject.
        first: When the first one arrived.
        last: When the last one did.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.arrived = Counter[bytes]()
        self.first = self.last = 0.0
        self._context, self._lock = context, threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._socket.accept()[0],), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(sock, server_side=True) as tls, tls.makefile("rb") as lines:
            tls.sendall(b"220 lossy\r\n")
            while line := lines.readline():
                verb = line[:4].upper()
                tls.sendall(_REPLIES.get(verb, b"250 ok\r\n"))
                if verb == b"QUIT":
                    return
                if verb == b"DATA":
                    content = b"".join(iter(lines.readline, b".\r\n"))
                    if not self._take(content):
                        return
                    tls.sendall(b"250 queued\r\n")

    def _take(self, content: bytes) -> bool:
        """Note what arrived; return whether it is confirmed."""
        _, _, rest = content.partition(b"Subject: ")
        with self._lock:
            self.arrived[rest.partition(b"\r\n")[0]] += 1
            self.last = time.monotonic()
            self.first = self.first or self.last
            return bool(self.arrived.total() % LOSSES)

    def close(self) -> None:
        """Stop."""
        self._socket.close()


def message(number: int) -> EmailMessage:
    """Return one of the messages: 2 KB of text."""
    made = EmailMessage()
    made["From"], made["To"] = "billing@example.com", f"customer-{number}@example.net"
    made["Subject"] = f"Invoice {number}"
    made.set_content("Please pay within 30 days.\n" * 75)
    return made


def make_app() -> Celery:
    """Return the application of the workers, and of the program that publishes."""
    app = Celery("bench", broker=os.environ["BENCH_BROKER"], set_as_current=False)
    app.conf.update(task_default_queue=QUEUE, worker_prefetch_multiplier=16, task_ignore_result=True)
    return app


def make_ours(app: Celery) -> Any:
    """Return the task of this library."""
    return mail_task(
        app,
        mailer=lambda: SecureMailer(
            "localhost", int(os.environ["BENCH_PORT"]), ca_file=os.environ["BENCH_CA"], max_connections=1
        ),
        ledger=lambda: SQLiteLedger(os.environ["BENCH_LEDGER"]),
        retry_backoff=1,
    )


def make_plain(app: Celery) -> Any:
    """Return a task as recipes show it."""
    context = ssl.create_default_context(cafile=os.environ["BENCH_CA"])

    @app.task(
        name="plain",
        shared=False,
        acks_late=True,
        autoretry_for=(Exception,),
        retry_backoff=1,
        max_retries=20,
    )
    def plain(subject: str, sender: str, recipient: str, text: str) -> None:
        made = EmailMessage()
        made["Subject"], made["From"], made["To"] = subject, sender, recipient
        made.set_content(text)
        with smtplib.SMTP_SSL("localhost", int(os.environ["BENCH_PORT"]), context=context, timeout=30) as client:
            client.send_message(made)

    return plain


def publish_ours(task: Any, number: int) -> None:
    """Give a message to Celery."""
    task.send_later(message(number), key=f"invoice-{number}")


def publish_plain(task: Any, number: int) -> None:
    """Give a message to Celery."""
    made = message(number)
    task.delay(made["Subject"], made["From"], made["To"], made.get_content())


@dataclass
class Figures:
    """What one run has shown."""

    published: float
    rate: float
    cpu: float
    lost: int
    doubled: int
    in_doubt: str

    def row(self, name: str) -> str:
        """Return it as a row of a table."""
        cells = (f"{self.published:.0f}", f"{self.rate:.0f}", f"{self.cpu:.2f}", self.lost, self.doubled, self.in_doubt)
        return f"| {name} | {' | '.join(map(str, cells))} |"


@contextmanager
def worker(count: int) -> Iterator[list[float]]:
    """Run a worker with so many processes; at the end, the list has its CPU time and that of its processes."""
    command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "bench.celery_tasks:APP", "worker"]
    options = ["-c", str(count), "-l", "ERROR", "--without-gossip", "--without-mingle"]
    process = subprocess.Popen([*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    used = list[float]()
    try:
        yield used
    finally:
        process.terminate()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        used.append(usage.ru_utime + usage.ru_stime)


def measure(  # noqa: PLR0913, PLR0917 -- what differs between the runs
    count: int,
    workers: int,
    folder: Path,
    make: Callable[[Celery], Any],
    publish: Callable[[Any, int], None],
    context: ssl.SSLContext,
) -> Figures:
    """Publish all messages, then start the worker, and wait until it has nothing to do."""
    server = LossyServer(context)
    os.environ.update(BENCH_PORT=str(server.port), BENCH_LEDGER=str(folder / "ledger"), BENCH_KIND=make.__name__)
    with tempfile.TemporaryDirectory(dir=folder) as data, Redis(Path(data)) as broker:
        os.environ["BENCH_BROKER"] = broker.url
        app = make_app()
        task, started = make(app), time.monotonic()
        for number in range(count):
            publish(task, number)
        published = count / (time.monotonic() - started)
        with worker(workers) as used, Client.from_url(broker.url) as client:
            quiet = 0
            while quiet < 3:
                time.sleep(0.5)
                has_work = client.llen(QUEUE) or client.hlen("unacked")
                quiet = 0 if has_work else quiet + 1
        app.close()
    server.close()
    doubt = "not known"
    if make is make_ours:
        task.close()
        with SQLiteLedger(os.environ["BENCH_LEDGER"]) as ledger:
            doubt = str(sum(1 for _ in ledger.entries(State.UNKNOWN)))
    arrived = server.arrived
    lost, doubled = count - len(arrived), sum(each > 1 for each in arrived.values())
    rate = arrived.total() / (server.last - server.first)
    return Figures(published, rate, 1000 * used[0] / count, lost, doubled, doubt)


# The worker's own.
if "BENCH_KIND" in os.environ:
    APP = make_app()
    {"make_ours": make_ours, "make_plain": make_plain}[os.environ["BENCH_KIND"]](APP)


def main() -> None:
    """Measure and print."""
    count, workers = (*map(int, sys.argv[1:]), *(MESSAGES, WORKERS)[len(sys.argv) - 1 :])
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    print(f"{count} messages, {workers} processes, 1 of {LOSSES} confirmations lost")
    print("| task | published/s | sent/s | CPU ms each | lost | arrived twice | in doubt |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for name, make, publish in (("`mail_task`", make_ours, publish_ours), ("plain smtplib", make_plain, publish_plain)):
        with tempfile.TemporaryDirectory() as folder, ca.cert_pem.tempfile() as ca_file:
            os.environ["BENCH_CA"] = ca_file
            Path(folder).chmod(0o755)
            print(measure(count, workers, Path(folder), make, publish, context).row(name), flush=True)


if __name__ == "__main__":
    main()
