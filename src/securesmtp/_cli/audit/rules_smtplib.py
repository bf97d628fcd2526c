"""The rules on clients of `smtplib` (SMT1xx): who logs in or sends in plaintext, and who does not verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.arguments import text_of
from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.judge import Alternatives
from securesmtp._cli.audit.values import Unknown

if TYPE_CHECKING:
    from securesmtp._cli.audit.values import Value

_FIX_STARTTLS = """\
server.starttls(context=ssl.create_default_context())
server.login(user, password)"""
_FIX_SECURESMTP = """\
from securesmtp import SecureMailer

with SecureMailer("mail.example.org", username=username, password=password) as mailer:
    mailer.send(message)"""

LOGIN: Final = Rule(
    "SMT101",
    "login-without-tls",
    319,
    Level.ERROR,
    "The client logs in without TLS",
    "The password crosses the network in plaintext (base64 is no encryption), and so does every message.",
    _FIX_STARTTLS,
)
SEND: Final = Rule(
    "SMT102",
    "send-without-tls",
    319,
    Level.ERROR,
    "The client sends without TLS",
    "Anybody on the way can read and change the message.",
    "server.starttls(context=ssl.create_default_context())\nserver.send_message(message)",
)
OPPORTUNISTIC: Final = Rule(
    "SMT103",
    "opportunistic-starttls",
    319,
    Level.WARNING,
    "STARTTLS is used only if the server offers it",
    "An attacker removes STARTTLS from the server's reply, and the client goes on in plaintext.",
    "server.starttls(context=ssl.create_default_context())  # raises if STARTTLS is not offered",
)
IGNORED: Final = Rule(
    "SMT104",
    "starttls-failure-ignored",
    319,
    Level.WARNING,
    "A failure of starttls() is ignored",
    "An attacker makes STARTTLS fail, and the client goes on in plaintext.",
    "server.starttls(context=ssl.create_default_context())  # let its exception end the send",
)
OPTIONAL: Final = Rule(
    "SMT105",
    "tls-is-optional",
    319,
    Level.NOTE,
    "An option decides whether TLS is used",
    "One wrong setting, or a default that nobody changes, sends in plaintext.",
    _FIX_SECURESMTP,
)
STARTTLS: Final = Rule(
    "SMT111",
    "starttls-without-verification",
    295,
    Level.ERROR,
    "starttls() is given no context",
    "Without a context, smtplib accepts every certificate: anybody on the way can read the password and the messages.",
    "server.starttls(context=ssl.create_default_context())",
)
IMPLICIT: Final = Rule(
    "SMT112",
    "smtp-ssl-without-verification",
    295,
    Level.ERROR,
    "SMTP_SSL() is given no context",
    "Without a context, smtplib accepts every certificate: anybody on the way can read the password and the messages.",
    "smtplib.SMTP_SSL(host, 465, timeout=30, context=ssl.create_default_context())",
)
NO_TIMEOUT: Final = Rule(
    "SMT121",
    "no-time-limit",
    1088,
    Level.NOTE,
    "The client waits for the server without a time limit",
    "A server, or anybody on the way, that stops answering stops the program for good.",
    'smtplib.SMTP("mail.example.org", 587, timeout=30)',
)
RULES: Final = (LOGIN, SEND, OPPORTUNISTIC, IGNORED, OPTIONAL, STARTTLS, IMPLICIT, NO_TIMEOUT)
ALTERNATIVES: Final = Alternatives(OPPORTUNISTIC, IGNORED, OPTIONAL)

_LOOPBACK: Final = {"localhost", "localhost.", "localhost.localdomain", "::1", "ip6-localhost", "[::1]"}


def is_loopback(host: Value | None) -> bool:
    """Whether a host is a literal that never leaves the machine."""
    text = text_of(host) if host is not None else None
    if text is None:
        return False
    name, _, port = text.strip().lower().rpartition(":")
    name = name if port.isdigit() and name and ":" not in name else text.strip().lower()
    return name in _LOOPBACK or name == "" or name.startswith(("127.", "/"))


def highest_level(host: Value | None) -> Level:
    """Return the highest level of findings on a client of this host: by default it may never leave the machine."""
    is_local = isinstance(host, Unknown) and host.default is not None and text_of(host.default) not in {None, ""}
    return Level.WARNING if is_local and isinstance(host, Unknown) and is_loopback(host.default) else Level.ERROR
