"""
Rules on libraries over `smtplib` that give it no verifying context of their own: yagmail, red-mail and emails.

Their source was read in yagmail 0.16.0, red-mail 0.6.0 and emails 1.1.3. What they pass on to `smtplib` decides: a form
with a context that verifies is not reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.observing import Subject, is_given, items_of
from securesmtp._cli.audit.values import Const, Object, Unknown, Value

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.machine import Machine, Results
    from securesmtp._cli.audit.paths import Path

_ANY: Final = "smtplib then accepts any certificate: an attacker in between reads the password and each message."
_REASON: Final = f"It passes no context to smtplib unless you do, and {_ANY}"
_PLAIN_REASON: Final = "In this form nothing begins TLS: the password and each message go in plaintext."
_SECURESMTP: Final = """\
from securesmtp import SecureMailer

with SecureMailer(host, username=username, password=password) as mailer:
    mailer.send(message)"""
YAGMAIL_UNVERIFIED: Final = Rule(
    "SMT621",
    "yagmail-unverified",
    295,
    Level.ERROR,
    "yagmail: SMTP without a context that verifies",
    _REASON,
    "yagmail.SMTP(user, password, host, context=ssl.create_default_context())",
)
YAGMAIL_PLAINTEXT: Final = Rule(
    "SMT622",
    "yagmail-without-tls",
    319,
    Level.ERROR,
    "yagmail: smtp_ssl=False with smtp_starttls=False",
    _PLAIN_REASON,
    "yagmail.SMTP(user, password, host, context=ssl.create_default_context())",
)
_REDMAIL_FIX: Final = """\
context = ssl.create_default_context()
EmailSender(host, 465, username, password, cls_smtp=smtplib.SMTP_SSL, use_starttls=False, context=context)"""
REDMAIL_UNVERIFIED: Final = Rule(
    "SMT631",
    "red-mail-unverified",
    295,
    Level.ERROR,
    "red-mail: EmailSender without a context that verifies",
    f"With use_starttls, its default, red-mail calls starttls() without a context. {_REASON}",
    _REDMAIL_FIX,
)
REDMAIL_PLAINTEXT: Final = Rule(
    "SMT632",
    "red-mail-without-tls",
    319,
    Level.ERROR,
    "red-mail: use_starttls=False without SMTP_SSL",
    _PLAIN_REASON,
    _REDMAIL_FIX,
)
EMAILS_UNVERIFIED: Final = Rule(
    "SMT641",
    "emails-unverified",
    295,
    Level.ERROR,
    "emails: send() with ssl or tls",
    f"send() takes no context, and {_ANY}",
    _SECURESMTP,
)
EMAILS_PLAINTEXT: Final = Rule(
    "SMT642", "emails-without-tls", 319, Level.ERROR, "emails: send() without ssl or tls", _PLAIN_REASON, _SECURESMTP
)
RULES: Final = (
    YAGMAIL_UNVERIFIED,
    YAGMAIL_PLAINTEXT,
    REDMAIL_UNVERIFIED,
    REDMAIL_PLAINTEXT,
    EMAILS_UNVERIFIED,
    EMAILS_PLAINTEXT,
)
_GMAIL: Final = Const("smtp.gmail.com")


def _yagmail(call: Call) -> Value:
    subject = Subject(call, call.argument(2, "host") or _GMAIL)
    start = call.argument(4, "smtp_starttls")
    for path, is_implicit in subject.split(call.argument(5, "smtp_ssl"), call.path.copy(), default=True):
        context: Value | None = None
        is_plain = False
        if is_implicit:
            context = call.argument(-1, "context")
        elif isinstance(start, Object):
            options = items_of(start, path)
            # An empty dictionary is false.
            is_plain = options == {}
            context = (options or {}).get("context")
        elif isinstance(start, Unknown):
            # A dictionary may have a context.
            context = start
        else:
            is_plain = is_given(start) and start == Const(value=False)
        subject.observe(YAGMAIL_PLAINTEXT, path, "logs in and sends in plaintext", is_bad=is_plain)
        if not (is_plain or (context is None and call.arguments.has_more)):
            subject.observe_context(YAGMAIL_UNVERIFIED, context, path, "yagmail without a context verifies nothing")
    return call.make("yagmail.SMTP()")


def _redmail(call: Call) -> Value:
    subject = Subject(call, call.argument(0, "host"))
    implicit = _is_implicit(call.argument(4, "cls_smtp"))
    for path, is_starttls in subject.split(call.argument(5, "use_starttls"), call.path.copy(), default=True):
        is_plain = implicit is False and not is_starttls
        subject.observe(REDMAIL_PLAINTEXT, path, "sends in plaintext", is_bad=is_plain)
        if is_starttls:
            subject.observe(REDMAIL_UNVERIFIED, path, "red-mail calls starttls() without a context", is_bad=True)
        elif implicit and not call.arguments.has_more:
            context = call.argument(-1, "context")
            subject.observe_context(REDMAIL_UNVERIFIED, context, path, "SMTP_SSL without a context verifies nothing")
    return call.make("redmail.EmailSender()")


def _is_implicit(cls: Value | None) -> bool | None:
    """Return whether a class connects with TLS; None if that is not known."""
    if cls is None:
        return False
    return {"smtplib.SMTP_SSL": True, "smtplib.SMTP": False}.get(cls.qual) if isinstance(cls, Unknown) else None


def _redmail_shortcut(call: Call) -> None:
    """`redmail.gmail.send()` and its like: senders that the package makes, with STARTTLS."""
    subject = Subject(call, call.argument(-1, "host"))
    subject.observe(REDMAIL_UNVERIFIED, call.path, "red-mail calls starttls() without a context", is_bad=True)


def _emails(call: Call) -> None:
    options = items_of(call.argument(8, "smtp"), call.path)
    # A dictionary that is not written here, or a backend of your own; without options it is this machine.
    if options is None:
        return
    subject = Subject(call, options.get("host", Const("localhost")))
    for path, is_implicit in subject.split(options.get("ssl"), call.path.copy(), default=False):
        for after, is_starttls in subject.split(options.get("tls"), path, default=False):
            is_plain = not (is_implicit or is_starttls)
            subject.observe(EMAILS_PLAINTEXT, after, "sends in plaintext", is_bad=is_plain)
            if not is_plain:
                subject.observe(EMAILS_UNVERIFIED, after, "TLS that verifies nothing", is_bad=True)


class ClientsFamily:
    """yagmail, red-mail and emails."""

    words: tuple[bytes, ...] = (b"yagmail", b"redmail", b"import emails", b"from emails")
    rules = RULES
    bases: Mapping[str, str] = {}
    exports: Mapping[str, tuple[str, ...]] = {
        "yagmail": ("SMTP", "Client"),
        "redmail": ("EmailSender", "gmail", "outlook", "send_email"),
        "emails": ("Message", "html"),
    }
    annotated: tuple[str, ...] = ()

    def handlers(self) -> Mapping[str, Callable[[Call], Results | Value | None]]:
        """Return what is to be done at their calls."""
        senders = ("redmail.gmail", "redmail.outlook", "redmail.email.gmail", "redmail.email.outlook")
        makers = ("emails.html", "emails.Message", "emails.message.Message")
        return {
            "yagmail.SMTP": _yagmail,
            "yagmail.Client": _yagmail,
            "yagmail.sender.SMTP": _yagmail,
            "redmail.EmailSender": _redmail,
            "redmail.email.EmailSender": _redmail,
            "redmail.send_email": _redmail_shortcut,
            **{f"{sender}.send": _redmail_shortcut for sender in senders},
            **{f"{maker}().send": _emails for maker in makers},
        }

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:
        """Nothing is left to do."""
