"""
Rules on ``logging.handlers.SMTPHandler``, in each of the forms in which it is configured.

The handler begins TLS only if it has both `credentials` and `secure`, by ``starttls()`` without a verifying context, in
each Python from 3.11 to 3.15; `secure` names a key and a certificate of the client.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.findings import Finding, Level, Rule
from securesmtp._cli.audit.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securesmtp._cli.audit.settings import Group

_FIX: Final = """\
import logging
from email.message import EmailMessage
from securesmtp import SecureMailer

class MailHandler(logging.Handler):
    def __init__(self, mailer, sender, recipient):
        super().__init__(logging.ERROR)
        self.mailer, self.sender, self.recipient = mailer, sender, recipient

    def emit(self, record):
        message = EmailMessage()
        message["From"], message["To"] = self.sender, self.recipient
        message["Subject"] = record.levelname
        message.set_content(self.format(record))
        self.mailer.send(message)"""

PLAINTEXT: Final = Rule(
    "SMT501",
    "smtp-handler-without-tls",
    319,
    Level.ERROR,
    "logging: SMTPHandler without TLS",
    "SMTPHandler uses TLS only if it has both credentials and secure. Otherwise the log goes in plaintext, with the"
    " password if there is one.",
    _FIX,
)
UNVERIFIED: Final = Rule(
    "SMT502",
    "smtp-handler-unverified",
    295,
    Level.ERROR,
    "logging: SMTPHandler with secure",
    "SMTPHandler calls starttls() without a context that verifies, whatever secure is: an attacker in between reads the"
    " password and the log.",
    _FIX,
)
RULES: Final = (PLAINTEXT, UNVERIFIED)

_HANDLERS: Final = ("logging.handlers.SMTPHandler", "handlers.SMTPHandler", "SMTPHandler")


def check_handler(path: str, group: Group) -> Iterator[Finding]:
    """Return the findings in a handler's dictionary for `dictConfig`."""
    if any(name in _HANDLERS for name in [*group.texts("class"), *group.texts("()")]):
        nodes = {name: values[-1] for name, values in group.values.items()}
        where = group.node("secure", "mailhost", "class", "()")
        if where is not None:
            yield from judge(path, where, nodes)


def check_arguments(path: str, where: ast.expr, arguments: list[ast.expr]) -> Iterator[Finding]:
    """Return the findings in the arguments of a handler, in the order of its parameters."""
    names = ("mailhost", "fromaddr", "toaddrs", "subject", "credentials", "secure", "timeout")
    yield from judge(path, where, dict(zip(names, arguments, strict=False)))


def judge(path: str, where: ast.expr, nodes: dict[str, ast.expr]) -> Iterator[Finding]:
    """Return the findings for a handler's arguments, by their names."""
    host = nodes.get("mailhost")
    if isinstance(host, ast.Tuple | ast.List) and host.elts:
        host = host.elts[0]
    if isinstance(host, ast.Constant) and isinstance(host.value, str) and is_loopback(host.value):
        return
    has_login, has_tls = _is_given(nodes.get("credentials")), _is_given(nodes.get("secure"))
    if has_login and has_tls:
        yield _finding(path, UNVERIFIED, where, "SMTPHandler logs in over TLS that verifies nothing")
    elif has_tls:
        yield _finding(path, PLAINTEXT, where, "SMTPHandler ignores secure without credentials, and sends in plaintext")
    else:
        what = "logs in and sends" if has_login else "sends"
        yield _finding(path, PLAINTEXT, where, f"SMTPHandler {what} in plaintext")


def _is_given(node: ast.expr | None) -> bool:
    return node is not None and not (isinstance(node, ast.Constant) and node.value is None)


def _finding(path: str, rule: Rule, node: ast.expr, message: str) -> Finding:
    end = node.end_lineno or node.lineno
    return Finding(path, node.lineno, node.col_offset + 1, end, rule.id, Level.ERROR, message)
