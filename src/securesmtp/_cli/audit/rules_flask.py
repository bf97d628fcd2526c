"""
Rules on Flask-Mail and Flask-Mailman as such, whose source was read in versions 0.10.0 and 1.1.1.

Flask-Mail gives `smtplib` no context. Flask-Mailman makes one that verifies for MAIL_USE_SSL, none for MAIL_USE_TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.settings import Switch, groups

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.machine import Machine
    from securesmtp._cli.audit.paths import Path
    from securesmtp._cli.audit.values import Value

UNVERIFIED: Final = Rule(
    "SMT513",
    "flask-mail-unverified",
    295,
    Level.ERROR,
    "Flask-Mail, and Flask-Mailman without MAIL_USE_SSL, verify no certificate",
    "They call smtplib without a context, which then accepts any certificate: an attacker in between reads the password"
    " and each message. Flask-Mailman verifies with MAIL_USE_SSL alone.",
    """\
# Flask-Mailman:
MAIL_USE_SSL = True
MAIL_PORT = 465
# or, without either package:
from securesmtp import SecureMailer

with SecureMailer(host, username=username, password=password) as mailer:
    mailer.send(message)""",
)
RULES: Final = (UNVERIFIED,)
_MAIL, _MAILMAN = ("flask_mail.Mail", "flask_mailman.Mail")


class FlaskFamily:
    """Flask-Mail and Flask-Mailman."""

    words: tuple[bytes, ...] = (b"flask_mail",)
    rules = RULES
    bases: Mapping[str, str] = {}
    exports: Mapping[str, tuple[str, ...]] = {"flask_mail": ("Mail", "Message"), "flask_mailman": ("Mail",)}
    annotated: tuple[str, ...] = ()

    def handlers(self) -> Mapping[str, Callable[[Call], Value | None]]:
        """Return nothing: `finish` knows the calls, and the settings too."""
        return {}

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:  # noqa: ARG002 -- the families' signature
        """Report each `Mail(app)`, unless the settings in the same file make it secure."""
        made = {node: qual for qual, _, node in machine.called if qual in {_MAIL, _MAILMAN}}
        if not made:
            return
        settings = [group for group in groups(tree) if "MAIL_SERVER" in group]
        if settings and all(group.is_loopback("MAIL_SERVER") for group in settings):
            return
        has_ssl = any(group.switch("MAIL_USE_SSL") is Switch.ON for group in groups(tree))
        has_tls = any(group.switch("MAIL_USE_TLS") is Switch.ON for group in groups(tree))
        for node, qual in made.items():
            if qual == _MAIL:
                machine.notes.report(UNVERIFIED, node, "Flask-Mail verifies no certificate")
            elif not has_ssl:
                level = Level.ERROR if has_tls else Level.WARNING
                message = "Flask-Mailman verifies no certificate without MAIL_USE_SSL"
                machine.notes.report(UNVERIFIED, node, message, level)
