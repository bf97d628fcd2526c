"""The application, for ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from securesmtp.integrations.django._checks import check_settings


class SecureSMTPConfig(AppConfig):
    """Adds the command ``checkmail`` and the system check of the settings."""

    name = "securesmtp.integrations.django"
    # The last part of the name would be "django".
    label = "securesmtp"

    def ready(self) -> None:
        """Register the check; `manage.py check` runs it, and so does `runserver`."""
        register(check_settings, "mail")
