"""The Celery application of the kills: its workers and its producer ask the killer at each step whether to go on."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from celery import Celery

from kills.steps import Reporter, watch_ledger, watch_sends
from kills.worker import WINDOW, open_ledger
from securesmtp import SecureMailer
from securesmtp.integrations.celery import mail_task
from securesmtp.ledger import Ledger

DEADLINE = 60.0
# After so many seconds, Redis' broker delivers again what was not acknowledged.
VISIBLE_AFTER = 5.0


class Asking(Reporter):
    """Asks the killer before and after each step; only then does it go on."""

    def __init__(self, path: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        lines = cast("TextIO", connection.makefile("rw", encoding="ascii"))
        super().__init__(lines, lines, None)

    def say(self, what: str, **values: Any) -> None:
        # Each line has an answer, and one thread asks at a time.
        with self._lock:
            self.out.write(self.line(what, values))
            self.out.flush()
            self.answers.readline()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if name:
            self.say("before", step=name)
        yield
        if name:
            self.say("after", step=name)


def make_mailer() -> SecureMailer:
    """Make the mailer of a process."""
    arguments = json.loads(os.environ["KILLS_MAILER"])
    return SecureMailer(**arguments, window=WINDOW)


def make_ledger() -> Ledger:
    """Open the ledger of a process, whose sends are watched from then on."""
    reporter = Asking(os.environ["KILLS_CONTROL"])
    watch_sends(reporter)
    return watch_ledger(open_ledger(os.environ["KILLS_KIND"], os.environ["KILLS_WHERE"]), reporter)


app = Celery("kills", broker=os.environ["KILLS_BROKER"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": VISIBLE_AFTER} if "redis" in os.environ["KILLS_BROKER"] else {},
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
)
send_mail = mail_task(
    app,
    mailer=make_mailer,
    ledger=make_ledger,
    deadline=DEADLINE,
    retry_backoff=0.2,
    retry_backoff_max=1.0,
    max_retries=200,
)
