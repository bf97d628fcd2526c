"""
Calls of Django's mail functions that do not leave the server to the settings.

What they do was read in Django 5.2: an option that is not given comes from the settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.arguments import text_of
from securesmtp._cli.audit.observing import Subject, is_given
from securesmtp._cli.audit.rules_password import check as check_password
from securesmtp._cli.audit.rules_settings import DJANGO
from securesmtp._cli.audit.values import NONE

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.findings import Rule
    from securesmtp._cli.audit.machine import Machine, Results
    from securesmtp._cli.audit.paths import Path
    from securesmtp._cli.audit.values import Value

_MAIL: Final = "django.core.mail"
_BACKEND: Final = f"{_MAIL}.backends.smtp.EmailBackend"


def _connection(call: Call) -> None:
    """`get_connection(host=…)`, `EmailBackend(host=…)`."""
    is_class = call.qual == _BACKEND
    backend = text_of(call.argument(0, "backend") or NONE)
    if not is_class and backend is not None and backend != _BACKEND:
        return
    check_password(call, call.argument(3 if is_class else -1, "password"))
    host = call.argument(0 if is_class else -1, "host")
    start = call.argument(4 if is_class else -1, "use_tls")
    if not (is_given(host) and is_given(start)) or call.arguments.has_more:
        return
    subject = Subject(call, host)
    for path, is_starttls in subject.split(start, call.path.copy(), default=False):
        for after, is_implicit in subject.split(call.argument(6 if is_class else -1, "use_ssl"), path, default=False):
            is_bad = not (is_starttls or is_implicit)
            subject.observe(DJANGO, after, "use_tls and use_ssl are off: sends in plaintext", is_bad=is_bad)


def _send(call: Call) -> None:
    check_password(call, call.argument(6 if call.name == "send_mail" else 3, "auth_password"))


class DjangoFamily:
    """Django's mail functions."""

    words: tuple[bytes, ...] = (b"django.core.mail", b"django.core import mail")
    rules: tuple[Rule, ...] = ()
    bases: Mapping[str, str] = {}
    exports: Mapping[str, tuple[str, ...]] = {_MAIL: ("get_connection", "send_mail", "send_mass_mail")}
    annotated: tuple[str, ...] = ()

    def handlers(self) -> Mapping[str, Callable[[Call], Results | Value | None]]:
        """Return what is to be done at its calls."""
        return {
            f"{_MAIL}.get_connection": _connection,
            _BACKEND: _connection,
            f"{_MAIL}.send_mail": _send,
            f"{_MAIL}.send_mass_mail": _send,
        }

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:
        """Nothing is left to do."""
