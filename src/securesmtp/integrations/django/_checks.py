"""The backends that the settings name, and the system check of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core import mail
from django.core.checks import Warning  # noqa: A004 -- Django's name
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from securesmtp.integrations.django._backend import EmailBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT = "default"


def names() -> list[str]:
    """Return the names of all mailers: the keys of MAILERS (Django 6.1), or "default" for the settings EMAIL_*."""
    return list(settings.MAILERS) if hasattr(settings, "MAILERS") else [_DEFAULT]


def backend(name: str) -> EmailBackend | None:
    """
    Return the backend of this mailer, or None if it is not this library's.

    Raises:
        ImproperlyConfigured: There is no such mailer, or its settings are wrong.
    """
    if name not in names():
        raise ImproperlyConfigured(f"There is no mailer {name!r}; there is {', '.join(names()) or 'none'}.")
    has_mailers = hasattr(settings, "MAILERS")
    path = settings.MAILERS[name].get("BACKEND") if has_mailers else settings.EMAIL_BACKEND
    if path is None:
        return None
    try:
        kind = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"The email backend {path!r} cannot be imported: {error}.") from error
    if not (isinstance(kind, type) and issubclass(kind, EmailBackend)):
        return None
    found = mail.mailers[name] if has_mailers else kind()
    return found if isinstance(found, EmailBackend) else None


def check_settings(**_kwargs: Any) -> list[Warning]:  # noqa: ANN401 -- as Django calls it
    """
    Return a warning for each mailer whose settings this library refuses; nothing is sent.

    Not an error, which would stop every command: a migration needs no email.
    """
    return list(_warnings())


def _warnings() -> Iterator[Warning]:
    for name in names():
        try:
            found = backend(name)
            if found is not None:
                found.validate()
        except ImproperlyConfigured as error:
            yield Warning(str(error), id="securesmtp.W001")
