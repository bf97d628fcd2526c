"""
Rules on settings: Django (`EMAIL_*`, `MAILERS`), Flask-Mail, Flask-Mailman, fastapi-mail, logging (`dictConfig`).

What the libraries do with them was read in Django 5.2 and 6.1, Flask-Mail 0.10.0, Flask-Mailman 1.1.1 and fastapi-mail
1.6.8. Django verifies certificates since 4.2 (its release notes).
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.rules_logging import check_handler
from securesmtp._cli.audit.rules_password import SOURCE, is_placeholder
from securesmtp._cli.audit.settings import Fault, Group, Switch, groups, nested, takes_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.judge import Notes
    from securesmtp._cli.audit.machine import Machine
    from securesmtp._cli.audit.paths import Path
    from securesmtp._cli.audit.values import Value

DJANGO: Final = Rule(
    "SMT511",
    "django-mail-without-tls",
    319,
    Level.ERROR,
    "Django: an SMTP host without EMAIL_USE_TLS or EMAIL_USE_SSL",
    "Django's SMTP backend uses TLS only if EMAIL_USE_TLS or EMAIL_USE_SSL is true (in MAILERS: use_tls or use_ssl)."
    " Both are false by default, and then the password and each message go in plaintext. With one of them, Django"
    " verifies the certificate since 4.2.",
    """\
# TLS from the first byte, port 465:
EMAIL_USE_SSL = True
EMAIL_PORT = 465
# or STARTTLS that must succeed, port 587:
EMAIL_USE_TLS = True
EMAIL_PORT = 587""",
)
FLASK: Final = Rule(
    "SMT512",
    "flask-mail-without-tls",
    319,
    Level.ERROR,
    "Flask: a MAIL_SERVER without MAIL_USE_TLS or MAIL_USE_SSL",
    "Flask-Mail and Flask-Mailman use TLS only if MAIL_USE_TLS or MAIL_USE_SSL is true, and both are false by default."
    " Without them the password and each message go in plaintext.",
    """\
# Flask-Mailman; with Flask-Mail see SMT513.
MAIL_USE_SSL = True
MAIL_PORT = 465""",
)
FASTAPI_PLAINTEXT: Final = Rule(
    "SMT601",
    "fastapi-mail-without-tls",
    319,
    Level.ERROR,
    "fastapi-mail: MAIL_STARTTLS and MAIL_SSL_TLS are both off",
    "With both off, fastapi-mail connects in plaintext and does not begin TLS: the password and each message go in"
    " plaintext.",
    """\
ConnectionConfig(..., MAIL_PORT=465, MAIL_SSL_TLS=True, MAIL_STARTTLS=False)
# or
ConnectionConfig(..., MAIL_PORT=587, MAIL_SSL_TLS=False, MAIL_STARTTLS=True)""",
)
FASTAPI_UNVERIFIED: Final = Rule(
    "SMT602",
    "fastapi-mail-unverified",
    295,
    Level.ERROR,
    "fastapi-mail: VALIDATE_CERTS is off",
    "Without VALIDATE_CERTS any certificate is accepted: an attacker in between reads the password and each message.",
    """\
ConnectionConfig(..., VALIDATE_CERTS=True)
# with a CA of your own:
ConnectionConfig(..., VALIDATE_CERTS=True, CERT_BUNDLE="ca.pem")""",
)
RULES: Final = (DJANGO, FLASK, FASTAPI_PLAINTEXT, FASTAPI_UNVERIFIED)


class _Names(NamedTuple):
    """The names of the settings of one library."""

    rule: Rule
    host: str
    switches: tuple[str, str]
    login: tuple[str, str]


_DJANGO: Final = _Names(
    DJANGO, "EMAIL_HOST", ("EMAIL_USE_TLS", "EMAIL_USE_SSL"), ("EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD")
)
_MAILER: Final = _Names(DJANGO, "host", ("use_tls", "use_ssl"), ("username", "password"))
_FLASK: Final = _Names(FLASK, "MAIL_SERVER", ("MAIL_USE_TLS", "MAIL_USE_SSL"), ("MAIL_USERNAME", "MAIL_PASSWORD"))
_SMTP_BACKEND: Final = "django.core.mail.backends.smtp.EmailBackend"
_FASTAPI_SWITCHES: Final = ("MAIL_STARTTLS", "MAIL_SSL_TLS", "MAIL_TLS", "MAIL_SSL")
_LEVELS: Final = {
    Switch.OFF: Level.ERROR,
    Switch.OFF_BY_DEFAULT: Level.WARNING,
    Switch.OPTION: Level.NOTE,
    Switch.ON_BY_DEFAULT: Level.NOTE,
}
_HOW: Final = {
    Level.ERROR: "in plaintext",
    Level.WARNING: "in plaintext unless an option turns TLS on",
    Level.NOTE: "an option decides whether there is TLS",
}


def check_settings(tree: ast.Module) -> Iterator[Fault]:
    """Return the findings in the settings of a file."""
    for group in groups(tree):
        if group.call == "ConnectionConfig":
            yield from _fastapi(group)
            yield from _password(group, "MAIL_PASSWORD")
        elif takes_settings(group):
            if "class" in group or "()" in group:
                yield from check_handler(group)
            if any(name in group for name in _FASTAPI_SWITCHES):
                yield from _fastapi(group)
            elif "MAIL_SERVER" in group:
                yield from _without_tls(group, _FLASK)
            if "EMAIL_HOST" in group:
                yield from _django(group)
            yield from _password(group, "EMAIL_HOST_PASSWORD")
            if "MAIL_SERVER" in group or "MAIL_USERNAME" in group:
                yield from _password(group, "MAIL_PASSWORD")
            for mailers in group.values.get("MAILERS", []):
                yield from _mailers(group, mailers)


def report_settings(tree: ast.Module, notes: Notes) -> None:
    """Report the findings in the settings of a file."""
    for fault in check_settings(tree):
        notes.report(fault.rule, fault.node, fault.message, fault.level)


def _password(group: Group, name: str) -> Iterator[Fault]:
    """Report a password that is written in the source."""
    for node, text in zip(group.values.get(name, []), group.texts(name), strict=True):
        if text and not is_placeholder(text):
            yield Fault(SOURCE, node, "the password of the mail account is written here")


def _django(group: Group) -> Iterator[Fault]:
    backends = group.texts("EMAIL_BACKEND")
    # A backend of another kind has settings of its own.
    if backends and all(backend is not None and backend != _SMTP_BACKEND for backend in backends):
        return
    yield from _without_tls(group, _DJANGO)


def _mailers(group: Group, mailers: ast.expr) -> Iterator[Fault]:
    for mailer in nested(mailers, group.constants).values():
        entry = nested(mailer, group.constants)
        options = nested(entry.get("OPTIONS", mailer), group.constants)
        backend = entry.get("BACKEND")
        if isinstance(backend, ast.Constant) and backend.value != _SMTP_BACKEND:
            continue
        if "host" in options:
            values = {name: [value] for name, value in options.items()}
            mailer_group = Group(values, constants=group.constants)
            yield from _without_tls(mailer_group, _MAILER)
            yield from _password(mailer_group, "password")


def _without_tls(group: Group, names: _Names) -> Iterator[Fault]:
    """Report a host without TLS, at the switch that is off or at the host."""
    if not group.is_set(names.host) or group.is_loopback(names.host):
        return
    states = [group.switch(name) for name in names.switches]
    if Switch.ON in states:
        return
    level = min(_LEVELS[state] for state in states)
    if level is Level.ERROR and not group.is_complete and not any(name in group for name in names.switches):
        # The names that are added by another module may have it.
        level = Level.WARNING
    what = "logs in and sends" if any(group.is_set(name) for name in names.login) else "sends"
    where = next(name for name in (*names.switches, names.host) if name in group)
    message = f"{what}: {_HOW[level]}" if level is Level.NOTE else f"{what} {_HOW[level]}"
    yield Fault(names.rule, group.values[where][-1], message, level)


def _fastapi(group: Group) -> Iterator[Fault]:
    if "VALIDATE_CERTS" in group:
        state = group.switch("VALIDATE_CERTS")
        if state is not Switch.ON:
            level = _LEVELS[state]
            text = "an option decides whether certificates are verified"
            if level is Level.ERROR:
                text = "any certificate is accepted"
            yield Fault(FASTAPI_UNVERIFIED, group.values["VALIDATE_CERTS"][-1], f"VALIDATE_CERTS: {text}", level)
    switches = [name for name in _FASTAPI_SWITCHES if name in group]
    if len(switches) < len(("STARTTLS", "TLS")) or ("MAIL_SERVER" in group and group.is_loopback("MAIL_SERVER")):
        return
    states = [group.switch(name) for name in switches]
    if Switch.ON in states:
        return
    level = min(_LEVELS[state] for state in states)
    yield Fault(FASTAPI_PLAINTEXT, group.values[switches[0]][-1], f"{' and '.join(switches)}: {_HOW[level]}", level)


_WORDS: Final = re.compile(rb"EMAIL_HOST|MAIL_PASSWORD|MAIL_SERVER|MAIL_STARTTLS|MAILERS|SMTPHandler|VALIDATE_CERTS")


def has_settings(source: bytes) -> bool:
    """Return whether a source has a word of `check_settings`."""
    return _WORDS.search(source) is not None


class SettingsFamily:
    """Settings: the syntax tree alone decides, so that they are no reason to follow a file's calls."""

    words: tuple[bytes, ...] = ()
    rules = RULES
    bases: Mapping[str, str] = {}
    exports: Mapping[str, tuple[str, ...]] = {}
    annotated: tuple[str, ...] = ()

    def handlers(self) -> Mapping[str, Callable[[Call], Value | None]]:
        """Return nothing: no call is looked at."""
        return {}

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:  # noqa: ARG002 -- the families' signature
        """Report the settings of the file."""
        report_settings(tree, machine.notes)
