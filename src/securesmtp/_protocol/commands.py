"""The MAIL and RCPT commands with their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._protocol.dsn import mail_parameters, rcpt_parameters
from securesmtp._protocol.wire import MAX_COMMAND, Line, line

if TYPE_CHECKING:
    from securesmtp._protocol.address import Mailbox
    from securesmtp._protocol.capabilities import Capabilities
    from securesmtp._protocol.dsn import DSN
    from securesmtp._protocol.message import Submission

# RFC 3461: " NOTIFY=SUCCESS,FAILURE,DELAY" (§4.1), a blank and an ORCPT of 500 octets (§4.2). MAIL needs no more room
# than it has: with the longest path and all parameters, it has under 450 octets.
_MAX_RCPT_DSN = MAX_COMMAND + 530


def mail_command(submission: Submission, capabilities: Capabilities) -> Line:
    """Return MAIL with the parameters that the server supports and the message needs (RFC 1870, 3461, 6152, 6531)."""
    # Without it, a message that needs it was refused already.
    utf8 = "SMTPUTF8" in capabilities.keywords and submission.needs_smtputf8
    parameters = [b"SIZE=%d" % submission.content.size] if "SIZE" in capabilities.keywords else []
    parameters += [b"BODY=8BITMIME"] if not submission.content.is_ascii else []
    parameters += [b"SMTPUTF8"] if utf8 else []
    parameters += [] if submission.dsn is None else mail_parameters(submission.dsn)
    return line(b"MAIL", b"FROM:<" + submission.mail_from.encoded + b">", *parameters, utf8=utf8)


def rcpt_command(mailbox: Mailbox, dsn: DSN | None = None) -> Line:
    """Return RCPT for *mailbox*, with the parameters that *dsn* needs (RFC 3461)."""
    # SMTPUTF8 on MAIL, which one non-ASCII address is enough to need, allows UTF-8 in every path (RFC 6531 §3.3).
    path, utf8 = b"TO:<" + mailbox.encoded + b">", mailbox.needs_smtputf8
    if dsn is None:
        return line(b"RCPT", path, utf8=utf8)
    return line(b"RCPT", path, *rcpt_parameters(dsn, mailbox), utf8=utf8, limit=_MAX_RCPT_DSN)
