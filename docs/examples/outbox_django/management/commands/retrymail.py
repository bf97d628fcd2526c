"""Run it each minute: it enqueues what is to be tried again, or was interrupted."""

from datetime import timedelta

from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone

from outbox_django.models import Mail
from outbox_django.tasks import LONGEST_SEND, send_mail


class Command(BaseCommand):
    help = "Try again what was not sent"

    def handle(self, *args: object, **options: object) -> None:
        now = timezone.now()
        due = Mail.objects.filter(outcome="", next_try__lte=now)
        for mail in due.order_by("next_try").iterator():
            with transaction.atomic():
                # Until then, the task has set another time, or was killed.
                mail.next_try = now + timedelta(seconds=LONGEST_SEND)
                mail.save(update_fields=["next_try"])
                send_mail.enqueue(mail.key)
