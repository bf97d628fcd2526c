"""
Retries round a send (SMT4xx).

A connection that ends after the content was sent leaves the outcome unknown: the server may have accepted the message.
`smtplib` raises `SMTPServerDisconnected` or an `OSError` then, which are caught by `SMTPException` and `Exception` too.
"""

from __future__ import annotations

from typing import Final

from securesmtp._cli.audit.findings import Level, Rule

_REASON = (
    "If the connection is lost after the content was sent, the server may have accepted the message."
    " To send it again can deliver it twice."
)
_FIX = """\
from securesmtp import SecureSMTPError

try:
    mailer.send(message)
except SecureSMTPError as error:
    if not error.retryable:  # also when the outcome is unknown
        raise"""
LOOP: Final = Rule(
    "SMT401",
    "retry-can-double-a-message",
    837,
    Level.WARNING,
    "A message is sent again after any failure",
    _REASON,
    _FIX,
)
DECORATOR: Final = Rule(
    "SMT402",
    "retry-decorator-can-double-a-message",
    837,
    Level.WARNING,
    "A decorator calls a function that sends again after any failure",
    _REASON,
    "import stamina\nfrom securesmtp import SecureSMTPError\n\n"
    "@stamina.retry(on=lambda error: isinstance(error, SecureSMTPError) and error.retryable)\n"
    "def send(message):\n    mailer.send(message)",
)
RULES: Final = (LOOP, DECORATOR)
