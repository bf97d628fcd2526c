"""The outbox: what is to be sent, and what became of it."""

from django.db import models
from django.utils import timezone


class Mail(models.Model):
    key = models.CharField(max_length=200, unique=True)
    written = models.DateTimeField(default=timezone.now)
    # None when it was accepted.
    message = models.JSONField(null=True)
    # Empty until nothing is left to do, or a person must decide.
    outcome = models.CharField(max_length=20, default="", db_index=True)
    tries = models.PositiveIntegerField(default=0)
    next_try = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.key}: {self.outcome or 'waiting'}"
