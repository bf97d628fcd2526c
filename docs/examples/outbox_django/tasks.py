"""Put messages into the outbox, and send them."""

import random
from datetime import timedelta
from functools import cache

from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.tasks import task
from django.utils import timezone
from psycopg.conninfo import make_conninfo

from securesmtp import Outcome, QueuedMessage
from securesmtp.integrations.django import to_envelope, use_mailer
from securesmtp.ledger import PostgreSQLLedger, State

from .models import Mail

# In seconds. No send takes longer than the first; when a claim is older than the
# second, nobody is sending the message any more.
DEADLINE, LONGEST_SEND = 60, 600
# What is written again under its key may be sent again, if it was not accepted.
FINAL = [Outcome.ACCEPTED, Outcome.UNKNOWN]


@cache
def ledger() -> PostgreSQLLedger:
    """Keep the ledger in the default database, over connections of its own."""
    names = ("NAME", "USER", "PASSWORD", "HOST", "PORT")
    values = [connection.settings_dict.get(name) or None for name in names]
    keys = ("dbname", "user", "password", "host", "port")
    conninfo = make_conninfo("", **dict(zip(keys, values, strict=True)))
    return PostgreSQLLedger(conninfo, longest_send=LONGEST_SEND)


@transaction.atomic
def write_mail(message: EmailMessage, key: str) -> None:
    """Put the message into the outbox, in the transaction that is open."""
    queued = QueuedMessage.prepare(
        to_envelope(message), ledger(), key=key, connection=connection
    )
    values = {
        "message": queued.as_dict(),
        "outcome": "",
        # Until then, the task that is enqueued here has sent it.
        "next_try": timezone.now() + timedelta(seconds=LONGEST_SEND),
    }
    _, is_new = Mail.objects.get_or_create(values, key=key)
    others = Mail.objects.filter(key=key).exclude(outcome__in=FINAL)
    if is_new or others.update(**values):
        send_mail.enqueue(key)


@task
def send_mail(key: str) -> str:
    """Send one message of the outbox, unless the ledger knows that it was sent."""
    mail = Mail.objects.get(key=key)
    if mail.message is None:
        return "accepted before"
    queued = QueuedMessage.from_dict(mail.message)
    with use_mailer() as mailer:
        result = queued.send(mailer, ledger(), deadline=DEADLINE)
    entry = ledger().look_up(key)
    # Another worker may have got further meanwhile.
    waiting = Mail.objects.filter(key=key, outcome="")
    if result.retryable or (entry is not None and entry.state is State.CLAIMED):
        # About 30 s after the first try, then twice as long, up to two hours.
        seconds = min(30 * 2 ** min(mail.tries, 7), 3600) * random.uniform(1, 2)
        again = timezone.now() + timedelta(seconds=seconds)
        waiting.update(next_try=again, tries=mail.tries + 1)
    elif result.outcome is Outcome.ACCEPTED:
        waiting.update(outcome=result.outcome, message=None)
    else:
        waiting.update(outcome=result.outcome)
    return result.outcome


def decide(key: str, *, arrived: bool) -> None:
    """Write the verdict of a person on a doubtful message; send it if it is lost."""
    ledger().reconcile(key, State.ACCEPTED if arrived else State.NOT_SENT)
    with transaction.atomic():
        Mail.objects.filter(key=key).update(outcome="")
        send_mail.enqueue(key)
