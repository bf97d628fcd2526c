"""``manage.py checkmail``: whether email could be sent now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from securesmtp import SecureSMTPError
from securesmtp.integrations.django import _checks

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    """Connects to the server, logs in, and prints what it found; sends nothing."""

    help = "Connect to the mail server as a send would, log in, and print what was found. Nothing is sent."
    # It is for finding out what is wrong with the settings.
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the names of mailers."""
        parser.add_argument("mailer", nargs="*", help="a key of MAILERS (Django 6.1); without any, all are checked")

    def handle(self, *_args: Any, **options: Any) -> None:  # noqa: ANN401 -- as Django calls it
        """
        Print a report for each mailer.

        Raises:
            CommandError: A mailer could not send.
        """
        chosen = options["mailer"] or _checks.names()
        failed = [name for name in chosen if not self._check(name, is_titled=len(chosen) > 1)]
        if failed:
            raise CommandError(f"{', '.join(failed)}: no message could be sent now")

    def _check(self, name: str, *, is_titled: bool) -> bool:
        if is_titled:
            self.stdout.write(f"mailer {name}")
        try:
            backend = _checks.backend(name)
            if backend is None:
                self.stdout.write("not checked: its backend is not securesmtp.integrations.django.EmailBackend")
                return True
            report = backend.check()
        except (ImproperlyConfigured, SecureSMTPError) as error:
            self.stderr.write(f"{type(error).__name__}: {error}")
            return False
        self.stdout.write(str(report))
        return report.login is not False
