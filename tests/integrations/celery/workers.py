"""Real workers of Celery, as a test starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from celery import Celery
from celery.result import AsyncResult

from securesmtp import SendResult
from securesmtp.integrations.celery import MailTask, mail_task
from securesmtp.ledger import SQLiteLedger
from securesmtp.testing import MailServer

HERE = Path(__file__).parent
# However busy the machine is.
PATIENCE = 100.0


class Worker:
    """
    A worker, with its log at level DEBUG.

    Attributes:
        process: Its main process.
    """

    def __init__(self, environment: dict[str, str], *options: str) -> None:
        """Start it; return when it takes tasks."""
        self._lines = list[str]()
        self._news = threading.Condition()
        command = [sys.executable, "-m", "celery", "-A", "mail_app", "worker", "-l", "DEBUG", "--without-mingle"]
        self.process = subprocess.Popen(
            [*command, "-n", f"{uuid4()}@localhost", *options],
            cwd=HERE,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.wait_for(" ready.")
        except BaseException:
            self.kill()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._lines.append("(end)")
            self._news.notify_all()

    @property
    def log(self) -> str:
        """What it has logged."""
        with self._news:
            return "".join(self._lines)

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until so many lines of its log have this *text*."""
        with self._news:
            found = self._news.wait_for(lambda: self._count(text) >= count or "(end)" in self._lines, PATIENCE)
            assert found, "".join(self._lines)
            assert self._count(text) >= count, "".join(self._lines)

    def _count(self, text: str) -> int:
        return sum(text in line for line in self._lines)

    @property
    def children(self) -> list[int]:
        """The processes of its pool."""
        main = self.process.pid
        return [int(pid) for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split()]

    def signal(self, number: int) -> None:
        """Send a signal to its main process."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        """Kill all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@dataclass
class Site:
    """
    A mail server, a ledger, a broker, and the program that gives messages to it.

    Attributes:
        before_reply: Called when the server has a message and has not confirmed it.
    """

    server: MailServer
    task: MailTask
    path: Path
    environment: dict[str, str]
    stack: ExitStack
    before_reply: list[Callable[[], object]] = field(default_factory=list)

    def start(self, *options: str, **environment: str) -> Worker:
        """Start a worker, which the end of the test kills."""
        return self.stack.enter_context(Worker(self.environment | environment, *options))

    def send(self, key: str) -> AsyncResult[Any]:
        """Give a message to Celery."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "me@example.org", "you@example.net", key
        message.set_content("the body of the message")
        return self.task.send_later(message, key=key)

    def result(self, sent: AsyncResult[Any]) -> SendResult:
        """Wait for the result of its task."""
        return SendResult.from_dict(sent.get(timeout=PATIENCE))

    @property
    def arrived(self) -> list[str]:
        """The keys of the messages that the server has."""
        return sorted(received.subject for received in self.server.messages)


@contextmanager
def site(folder: Path, broker: str, backend: str, **environment: str) -> Iterator[Site]:
    """Make one, with a queue of its own."""
    with ExitStack() as stack:
        hooks = list[Callable[[], object]]()
        server = stack.enter_context(MailServer(on_message=lambda _: [hook() for hook in hooks]))
        path = folder / "ledger"
        settings = {
            **server.env("TEST_SMTP_"),
            "TEST_BROKER": broker,
            "TEST_BACKEND": backend,
            "TEST_LEDGER": str(path),
            "TEST_QUEUE": str(uuid4()),
            **environment,
        }
        app = Celery("client", broker=broker, backend=backend, set_as_current=False)
        stack.callback(app.close)
        app.conf.task_default_queue = settings["TEST_QUEUE"]
        app.conf.task_send_sent_event = True
        task = mail_task(app, mailer=server.mailer, ledger=lambda: SQLiteLedger(path))
        stack.callback(task.close)
        yield Site(server, task, path, settings, stack, hooks)
