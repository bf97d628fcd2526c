"""The backends that the settings name, and the system check of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core import mail
from django.core.checks import Warning  # noqa: A004 -- Django's name
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from securesmtp.integrations.django._backend import EmailBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securesmtp import SecureMailer

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


@contextmanager
def use_mailer(name: str = _DEFAULT) -> Iterator[SecureMailer]:
    """
    Lend the mailer of the process, with its connections, to a ``with`` statement; do not close it.

    It is for what Django's functions cannot do, such as `SecureMailer.send_many` with a ledger.

    Args:
        name: A key of ``MAILERS`` (Django 6.1).

    Raises:
        ImproperlyConfigured: There is no such mailer, it has another backend, or its settings are wrong.
    """
    found = backend(name)
    if found is None:
        raise ImproperlyConfigured(f"The mailer {name!r} does not have securesmtp.integrations.django.EmailBackend.")
    with found.use_mailer() as mailer:
        yield mailer


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
