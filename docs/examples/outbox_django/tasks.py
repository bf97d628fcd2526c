"""Put messages into the outbox, and send them."""

import random
from datetime import timedelta
from email.utils import parseaddr
from functools import cache

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.tasks import task
from django.utils import timezone

from securesmtp import Envelope, Outcome
from securesmtp.integrations.django import use_mailer
from securesmtp.ledger import SQLiteLedger, State

from .models import Mail

# In seconds. No send takes longer than the first; when a claim is older than the
# second, nobody is sending the message any more.
DEADLINE, LONGEST_SEND = 60, 600


def write_mail(message: EmailMessage, key: str) -> None:
    """Put the message into the outbox, in the transaction that is open."""
    with transaction.atomic():
        Mail.objects.create(
            key=key,
            mail_from=parseaddr(message.from_email)[1],
            recipients=[parseaddr(each)[1] for each in message.recipients()],
            content=message.message().as_bytes(),
            # Until then the task that is enqueued here has sent it.
            next_try=timezone.now() + timedelta(seconds=LONGEST_SEND),
        )
        send_mail.enqueue(key)


@task
def send_mail(key: str) -> str:
    """Send one message of the outbox, unless the ledger knows that it was sent."""
    mail = Mail.objects.get(key=key)
    if mail.content is None:
        return "it was accepted before"
    content = bytes(mail.content)
    envelope = Envelope(mail.mail_from, mail.recipients, content, key=key)
    with use_mailer() as mailer:
        (result,) = mailer.send_many([envelope], deadline=DEADLINE, ledger=ledger())
    entry = ledger().look_up(key)
    # Another worker may have got further meanwhile.
    waiting = Mail.objects.filter(key=key, outcome="")
    if result.retryable or (entry is not None and entry.state is State.CLAIMED):
        # About 30 s after the first try, then twice as long, up to an hour.
        seconds = min(30 * 2 ** min(mail.tries, 7), 3600) * random.uniform(1, 2)
        again = timezone.now() + timedelta(seconds=seconds)
        waiting.update(next_try=again, tries=mail.tries + 1)
    elif result.outcome is Outcome.ACCEPTED:
        waiting.update(outcome=result.outcome, content=None)
    else:
        waiting.update(outcome=result.outcome)
    return result.outcome


def decide(key: str, *, arrived: bool) -> None:
    """Write the verdict of a person on a doubtful message; send it if it is lost."""
    ledger().reconcile(key, State.ACCEPTED if arrived else State.NOT_SENT)
    with transaction.atomic():
        Mail.objects.filter(key=key).update(outcome="")
        send_mail.enqueue(key)


@cache
def ledger() -> SQLiteLedger:
    """Open the ledger of this process, when it is first used."""
    return SQLiteLedger(settings.OUTBOX_LEDGER, longest_send=LONGEST_SEND)
