"""
Django's email backend: ``EMAIL_BACKEND = "securesmtp.integrations.django.EmailBackend"``.

In ``INSTALLED_APPS``, this package adds ``manage.py checkmail``, and a system check of the email settings.
"""

from __future__ import annotations

from securesmtp.integrations.django._backend import EmailBackend
from securesmtp.integrations.django._mailers import close_mailers
from securesmtp.integrations.django._messages import get_result

__all__ = ["EmailBackend", "close_mailers", "get_result"]
