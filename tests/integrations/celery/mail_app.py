"""The application that the tests' workers run: all of it is in the environment."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from celery import Celery

from securesmtp import SecureMailer
from securesmtp.integrations.celery import mail_task
from securesmtp.ledger import SQLiteLedger


def make_mailer() -> SecureMailer:
    """Connect to the server of the test."""
    return SecureMailer.from_env("TEST_SMTP_")


def make_ledger() -> SQLiteLedger:
    """Open the ledger of the test; the first process that does is killed, if the test says so."""
    marker = Path(os.environ.get("TEST_KILL_ONCE", os.devnull))
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return SQLiteLedger(os.environ["TEST_LEDGER"], longest_send=float(os.environ.get("TEST_LONGEST_SEND", "60")))


app = Celery("tests", broker=os.environ["TEST_BROKER"], backend=os.environ.get("TEST_BACKEND"))
app.conf.update(
    task_default_queue=os.environ["TEST_QUEUE"],
    worker_send_task_events=True,
    task_send_sent_event=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": float(os.environ.get("TEST_VISIBILITY", "3600"))},
)
send_mail = mail_task(
    app,
    mailer=make_mailer,
    ledger=make_ledger,
    deadline=float(os.environ.get("TEST_DEADLINE", "20")),
    retry_backoff=0.1,
    retry_backoff_max=0.4,
    max_retries=40,
)
