"""
Django's email backend: ``EMAIL_BACKEND = "securesmtp.integrations.django.EmailBackend"``.

In ``INSTALLED_APPS``, this package adds ``manage.py checkmail``, and a system check of the email settings.
"""

from __future__ import annotations

try:
    from securesmtp.integrations.django._backend import EmailBackend
    from securesmtp.integrations.django._checks import use_mailer
    from securesmtp.integrations.django._mailers import close_mailers
    from securesmtp.integrations.django._messages import get_result, to_envelope
except ModuleNotFoundError as _error:
    if str(_error.name).partition(".")[0] != "django":
        raise
    _message = "the email backend needs Django: install securesmtp[django]"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

__all__ = ["EmailBackend", "close_mailers", "get_result", "to_envelope", "use_mailer"]
