"""The MAIL and RCPT commands with their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._protocol.wire import Line, line

if TYPE_CHECKING:
    from securesmtp._protocol.address import Mailbox
    from securesmtp._protocol.capabilities import Capabilities
    from securesmtp._protocol.message import Submission


def mail_command(submission: Submission, capabilities: Capabilities) -> Line:
    """Return MAIL with the parameters that the server supports and the message needs (RFC 1870, RFC 6152, RFC 6531)."""
    # Without it, a message that needs it was refused already.
    utf8 = "SMTPUTF8" in capabilities.keywords and submission.needs_smtputf8
    parameters = [b"SIZE=%d" % submission.content.size] if "SIZE" in capabilities.keywords else []
    parameters += [b"BODY=8BITMIME"] if not submission.content.is_ascii else []
    parameters += [b"SMTPUTF8"] if utf8 else []
    return line(b"MAIL", b"FROM:<" + submission.mail_from.encoded + b">", *parameters, utf8=utf8)


def rcpt_command(mailbox: Mailbox) -> Line:
    """Return RCPT for *mailbox*."""
    # SMTPUTF8 on MAIL, which one non-ASCII address is enough to need, allows UTF-8 in every path (RFC 6531 §3.3).
    return line(b"RCPT", b"TO:<" + mailbox.encoded + b">", utf8=mailbox.needs_smtputf8)
