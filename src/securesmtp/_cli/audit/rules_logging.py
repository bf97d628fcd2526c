"""
Rules on ``logging.handlers.SMTPHandler``, in each of the forms in which it is configured.

The handler begins TLS only if it has both `credentials` and `secure`, by ``starttls()`` without a verifying context, in
each Python from 3.11 to 3.15; `secure` names a key and a certificate of the client.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.observing import Subject, first_of, is_given
from securesmtp._cli.audit.rules_password import check as check_password
from securesmtp._cli.audit.settings import Fault, is_loopback
from securesmtp._cli.audit.values import Object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.machine import Machine
    from securesmtp._cli.audit.paths import Path
    from securesmtp._cli.audit.settings import Group
    from securesmtp._cli.audit.values import Value

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


def check_handler(group: Group) -> Iterator[Fault]:
    """Return the findings in a handler's dictionary for `dictConfig`."""
    if any(name in _HANDLERS for name in [*group.texts("class"), *group.texts("()")]):
        nodes = {name: values[-1] for name, values in group.values.items()}
        where = next(nodes[name] for name in ("secure", "mailhost", "class", "()") if name in nodes)
        yield from judge(where, nodes)


def judge(where: ast.expr, nodes: dict[str, ast.expr]) -> Iterator[Fault]:
    """Return the findings for a handler's arguments, by their names."""
    host = nodes.get("mailhost")
    if isinstance(host, ast.Tuple | ast.List) and host.elts:
        host = host.elts[0]
    if isinstance(host, ast.Constant) and isinstance(host.value, str) and is_loopback(host.value):
        return
    has_login, has_tls = _is_given(nodes.get("credentials")), _is_given(nodes.get("secure"))
    if has_login and has_tls:
        yield Fault(UNVERIFIED, where, "SMTPHandler logs in over TLS that verifies nothing")
    elif has_tls:
        yield Fault(PLAINTEXT, where, "SMTPHandler ignores secure without credentials, and sends in plaintext")
    else:
        what = "logs in and sends" if has_login else "sends"
        yield Fault(PLAINTEXT, where, f"SMTPHandler {what} in plaintext")


def _is_given(node: ast.expr | None) -> bool:
    return node is not None and not (isinstance(node, ast.Constant) and node.value is None)


def _make(call: Call) -> Value | None:
    owner = call.receiver.owner if isinstance(call.receiver, Object) else None
    # A subclass that sends by itself is judged by what it does.
    if owner is not None and any(isinstance(node, ast.FunctionDef) and node.name == "emit" for node in owner.node.body):
        return None
    subject = Subject(call, first_of(call.argument(0, "mailhost"), call.path))
    credentials, secure = call.argument(4, "credentials"), call.argument(5, "secure")
    if call.arguments.has_more and (credentials is None or secure is None):
        return None
    has_login, has_tls = is_given(credentials), is_given(secure)
    what = "logs in and sends" if has_login else "sends"
    subject.observe(PLAINTEXT, call.path, f"SMTPHandler {what} in plaintext", is_bad=not (has_login and has_tls))
    if has_login and has_tls:
        subject.observe(UNVERIFIED, call.path, "SMTPHandler logs in over TLS that verifies nothing", is_bad=True)
    if isinstance(credentials, Object) and credentials.qual == "sequence":
        check_password(call, call.path.fields(credentials.key).get("[1]"))
    return None


class LoggingFamily:
    """The constructor of `SMTPHandler`."""

    words: tuple[bytes, ...] = (b"smtphandler",)
    rules = RULES
    bases: Mapping[str, str] = {}
    exports: Mapping[str, tuple[str, ...]] = {"logging.handlers": ("SMTPHandler",)}
    annotated: tuple[str, ...] = ()

    def handlers(self) -> Mapping[str, Callable[[Call], Value | None]]:
        """Return the constructor."""
        return {"logging.handlers.SMTPHandler": _make}

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:
        """Nothing is left to do."""
