"""What a test does with docs/examples/outbox_procrastinate.py, in a child."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from email.message import EmailMessage

import psycopg
from procrastinate.exceptions import AlreadyEnqueued
from procrastinate.worker import Worker

import outbox_procrastinate as outbox
from examples.outbox_common import age_ledger, failed_of_many, key, kill_at
from securesmtp import SecureMailer
from securesmtp.ledger import SQLiteLedger


def begin() -> None:
    """Do nothing: libpq reads the environment."""


def set_up() -> None:
    """Make the tables."""
    sys.argv[1:] = ["setup"]
    outbox.main()


def mail(number: int) -> EmailMessage:
    """Return a message about an order."""
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = "Shop <shop@example.com>", "you@example.net", "all@example.com"
    message["Subject"], message["Message-ID"] = "Your order", key(number)
    message.set_content("It is on its way.")
    return message


def write(number: int) -> None:
    """Put a message into the outbox, and commit."""
    with psycopg.connect() as connection:
        outbox.write_mail(connection, mail(number))


def roll_back(number: int) -> None:
    """Put a message into the outbox, and take it back."""
    with psycopg.connect() as connection:
        outbox.write_mail(connection, mail(number))
        connection.rollback()


def write_slowly(number: int) -> Iterator[None]:
    """Put a message into the outbox, and commit when the test says so."""
    with psycopg.connect() as connection:
        outbox.write_mail(connection, mail(number))
        yield


def write_at_once(number: int, count: int) -> int:
    """Put the same message into the outbox, so many times at once; return how many failed."""
    return failed_of_many(count, lambda: write(number), psycopg.errors.UniqueViolation)


def work(kill: str | None = None, *, a_minute_later: bool = False) -> None:
    """Send what is due; first what a killed worker was doing, as each minute."""
    kill_at(kill, SQLiteLedger, Worker, "_persist_job_status")
    if a_minute_later:
        with outbox.app.open(), suppress(AlreadyEnqueued):
            outbox.retry_stalled.configure().defer(timestamp=0)
    with (
        SQLiteLedger(os.environ["LEDGER"], longest_send=outbox.LONGEST_SEND) as ledger,
        SecureMailer.from_env(deadline=outbox.DEADLINE) as mailer,
    ):
        outbox.app.run_worker(wait=False, additional_context={"mailer": mailer, "ledger": ledger})


def outcomes() -> dict[str, str]:
    """Return what the outbox says of each message."""
    with psycopg.connect() as connection:
        return dict(connection.execute("SELECT key, coalesce(outcome, '') FROM mail").fetchall())


def kept() -> list[str]:
    """Return everything that is kept, except the messages that were not accepted."""
    with psycopg.connect() as connection:
        return [
            str(connection.execute(statement).fetchall())
            for statement in (
                "SELECT * FROM mail WHERE outcome = 'accepted'",
                "SELECT * FROM procrastinate_jobs",
                "SELECT * FROM procrastinate_events",
            )
        ]


def decide(number: int, *, arrived: bool) -> None:
    """Give a verdict."""
    with psycopg.connect() as connection, SQLiteLedger(os.environ["LEDGER"]) as ledger:
        outbox.decide(connection, ledger, key(number), arrived=arrived)


def make_older(*, is_alive: bool) -> None:
    """Make everything an hour older that has a time; the claims only if nobody sends."""
    with psycopg.connect() as connection:
        connection.execute("UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - interval '1 hour'")
        connection.execute("UPDATE procrastinate_jobs SET scheduled_at = scheduled_at - interval '1 hour'")
    if not is_alive:
        age_ledger()
