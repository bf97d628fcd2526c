"""What a test does with docs/examples/outbox_django, in a child."""

from __future__ import annotations

import os
import unittest
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": None}},
    INSTALLED_APPS=["django_tasks_db", "outbox_django"],
    TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
    USE_TZ=True,
)
django.setup()

from django.core.mail import EmailMessage
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F
from django_tasks_db.models import DBTaskResult

from examples import outbox_common
from examples.outbox_common import HOUR, TEXT, failed_of_many, key, kill_at
from outbox_django import tasks
from outbox_django.models import Mail
from securesmtp.errors import AddressError, MessageError
from securesmtp.ledger import PostgreSQLLedger


def begin() -> None:
    """Use the database and the mail server of the environment."""
    connection.settings_dict["NAME"] = os.environ["PGDATABASE"]
    # A send may take as long as a test.
    tasks.DEADLINE = tasks.LONGEST_SEND
    if "SMTP_HOST" not in os.environ:
        return
    backend = "securesmtp.integrations.django.EmailBackend"
    options = {
        "host": os.environ["SMTP_HOST"],
        "port": int(os.environ["SMTP_PORT"]),
        "use_ssl": True,
        "username": os.environ["SMTP_USERNAME"],
        "password": os.environ["SMTP_PASSWORD"],
    }
    further = {"ca_file": os.environ["SMTP_CA_FILE"]}
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": options | further}}
    else:
        names = {"username": "HOST_USER", "password": "HOST_PASSWORD"}
        settings.EMAIL_BACKEND, settings.SECURESMTP = backend, further
        for name, value in options.items():
            setattr(settings, f"EMAIL_{names.get(name, name.upper())}", value)


def set_up() -> None:
    """Make the tables."""
    call_command("migrate", verbosity=0)
    # The app has all its migrations.
    call_command("makemigrations", check=True, verbosity=0)


def write(number: int, text: str = TEXT) -> None:
    """Put a message into the outbox, and commit."""
    message = EmailMessage(f"Your order {number}", text, "Shop <shop@example.com>", ["you@example.net"])
    message.bcc = ["all@example.com"]
    tasks.write_mail(message, key(number))


def write_to(address: str) -> str:
    """Return the error of a message to this address."""
    try:
        tasks.write_mail(EmailMessage("Your order", TEXT, "shop@example.com", [address]), key(1))
    except AddressError as error:
        return str(error)
    return ""


def roll_back(number: int) -> None:
    """Put a message into the outbox, and take it back, with the savepoint or the transaction."""
    for is_inner in (True, False):
        with transaction.atomic():
            with transaction.atomic():
                write(number)
                transaction.set_rollback(is_inner)
            transaction.set_rollback(not is_inner)


def write_slowly(number: int) -> Iterator[None]:
    """Put a message into the outbox, and commit when the test says so."""
    with transaction.atomic():
        write(number)
        yield


def write_at_once(number: int, texts: list[str]) -> int:
    """Put these messages into the outbox with one key, all at once; return how many failed."""

    def call(text: str) -> None:
        try:
            write(number, text)
        finally:
            connection.close()

    return failed_of_many([partial(call, text) for text in texts], MessageError)


def work(kill: str | None = None, *, a_minute_later: bool = False) -> None:
    """Send what is due; first enqueue what is to be tried again, as each minute."""
    kill_at(kill, PostgreSQLLedger, DBTaskResult, "set_successful")
    if a_minute_later:
        call_command("retrymail")
    call_command("db_worker", batch=True, interval=0, startup_delay=False, reload=False, verbosity=0)


def outcomes() -> dict[str, str]:
    """Return what the outbox says of each message."""
    return dict(Mail.objects.values_list("key", "outcome"))


def kept() -> list[str]:
    """Return everything that is kept, except the messages that were not accepted."""
    return [
        str(list(Mail.objects.filter(outcome="accepted").values())),
        str(list(DBTaskResult.objects.values())),
    ]


def decide(number: int, *, arrived: bool) -> None:
    """Give a verdict."""
    tasks.decide(key(number), arrived=arrived)


def make_older(*, is_alive: bool) -> None:
    """Make everything an hour older that has a time; the claims only if nobody sends."""
    Mail.objects.update(next_try=F("next_try") - HOUR)
    if not is_alive:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE securesmtp_ledger SET changed = changed - interval '1 hour'")


def entries() -> dict[str, str]:
    """Return what the ledger says of each message."""
    return {entry.key: entry.state for entry in tasks.ledger().entries()}


def roll_back_a_send(number: int) -> None:
    """Send in a transaction that is rolled back, as with ATOMIC_REQUESTS."""
    with transaction.atomic():
        tasks.send_mail.func(key(number))
        transaction.set_rollback(True)


def run_blocks(blocks: list[str]) -> None:
    """Run what the page shows, and its test; then the order, with an error in another callback (D15)."""
    names = outbox_common.run_blocks(blocks)
    result = unittest.TestResult()
    # In a suite: that enters the transaction of the class, which is rolled back.
    unittest.TestSuite([names["OrderTest"]("test_an_order_is_confirmed")]).run(result)
    assert (result.testsRun, result.errors + result.failures) == (1, [])
    assert outcomes() == {}

    def fail() -> None:
        raise LookupError

    with suppress(LookupError), transaction.atomic():
        transaction.on_commit(fail)
        names["order"](7, "you@example.net")
