"""What a test does with docs/examples/outbox_procrastinate.py, in a child."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from email.message import EmailMessage
from functools import partial

import psycopg
from procrastinate.exceptions import AlreadyEnqueued
from procrastinate.worker import Worker

import outbox_procrastinate as outbox
from examples import outbox_common
from examples.outbox_common import TEXT, failed_of_many, key, kill_at
from securesmtp import SecureMailer
from securesmtp.errors import AddressError, MessageError
from securesmtp.ledger import PostgreSQLLedger


def begin() -> None:
    """Let a send take as long as a test: libpq reads the environment."""
    outbox.DEADLINE = outbox.LONGEST_SEND


def set_up() -> None:
    """Make the tables."""
    sys.argv[1:] = ["setup"]
    outbox.main()


def mail(number: int, text: str) -> EmailMessage:
    """Return a message about an order."""
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = "Shop <shop@example.com>", "you@example.net", "all@example.com"
    message["Subject"] = f"Your order {number}"
    message.set_content(text)
    return message


def write(number: int, text: str = TEXT) -> None:
    """Put a message into the outbox, and commit."""
    with psycopg.connect() as connection:
        outbox.write_mail(connection, mail(number, text), key(number))


def write_to(address: str) -> str:
    """Return the error of a message to this address."""
    message = mail(1, TEXT)
    message.replace_header("To", address)
    try:
        with psycopg.connect() as connection:
            outbox.write_mail(connection, message, key(1))
    except AddressError as error:
        return str(error)
    return ""


def roll_back(number: int) -> None:
    """Put a message into the outbox, and take it back."""
    with psycopg.connect() as connection:
        outbox.write_mail(connection, mail(number, TEXT), key(number))
        connection.rollback()


def write_slowly(number: int) -> Iterator[None]:
    """Put a message into the outbox, and commit when the test says so."""
    with psycopg.connect() as connection:
        outbox.write_mail(connection, mail(number, TEXT), key(number))
        yield


def write_at_once(number: int, texts: list[str]) -> int:
    """Put these messages into the outbox with one key, all at once; return how many failed."""
    return failed_of_many([partial(write, number, text) for text in texts], MessageError)


def work(kill: str | None = None, *, a_minute_later: bool = False) -> None:
    """Send what is due; first what a killed worker was doing, as each minute."""
    kill_at(kill, PostgreSQLLedger, Worker, "_persist_job_status")
    if a_minute_later:
        with outbox.app.open(), suppress(AlreadyEnqueued):
            outbox.retry_stalled.configure().defer(timestamp=0)
    with SecureMailer.from_env() as mailer:
        outbox.app.run_worker(wait=False, additional_context={"mailer": mailer})


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
    with psycopg.connect() as connection:
        outbox.decide(connection, key(number), arrived=arrived)


def make_older(*, is_alive: bool) -> None:
    """Make everything an hour older that has a time; the claims only if nobody sends."""
    with psycopg.connect() as connection:
        connection.execute("UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - interval '1 hour'")
        connection.execute("UPDATE procrastinate_jobs SET scheduled_at = scheduled_at - interval '1 hour'")
        if not is_alive:
            connection.execute("UPDATE securesmtp_ledger SET changed = changed - interval '1 hour'")


def roll_back_a_send(number: int) -> None:
    """Send, but let the database refuse what became of it."""
    with psycopg.connect(autocommit=True) as connection:
        connection.execute("ALTER TABLE mail ADD CONSTRAINT none CHECK (outcome IS NULL)")
        work()
        connection.execute("ALTER TABLE mail DROP CONSTRAINT none")
    make_older(is_alive=True)


def entries() -> dict[str, str]:
    """Return what the ledger says of each message."""
    return {entry.key: entry.state for entry in outbox.ledger.entries()}


def run_blocks(blocks: list[str]) -> None:
    """Run what the page shows."""
    outbox_common.run_blocks(blocks)
