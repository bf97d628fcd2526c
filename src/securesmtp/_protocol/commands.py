"""The MAIL and RCPT commands with their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._protocol.dsn import rcpt_parameters
from securesmtp._protocol.extensions import MAIL_OCTETS, NO_EXTENSIONS
from securesmtp._protocol.wire import MAX_COMMAND, Line, line

if TYPE_CHECKING:
    from securesmtp._protocol.address import Mailbox
    from securesmtp._protocol.capabilities import Capabilities
    from securesmtp._protocol.dsn import DSN
    from securesmtp._protocol.message import Submission

# RFC 3461 §5.4: NOTIFY and ORCPT come on top. RET and ENVID do not: with them and the longest path, MAIL has under 450.
_MAX_RCPT_DSN = MAX_COMMAND + 530
_MAX_MAIL = MAX_COMMAND + MAIL_OCTETS


def mail_command(submission: Submission, capabilities: Capabilities) -> Line:
    """Return MAIL with the parameters that the server supports and the message needs (RFC 1870, 3030, 6152, 6531)."""
    # Without it, a message that needs it was refused already.
    utf8, content = "SMTPUTF8" in capabilities.keywords and submission.needs_smtputf8, submission.content
    parameters = [b"SIZE=%d" % content.size] if "SIZE" in capabilities.keywords else []
    if content.is_binary or not content.is_ascii:
        parameters += [b"BODY=BINARYMIME" if content.is_binary else b"BODY=8BITMIME"]
    parameters += [b"SMTPUTF8"] if utf8 else []
    if submission.extensions is not NO_EXTENSIONS:
        parameters += submission.extensions.mail_parameters()
    path = b"FROM:<" + submission.mail_from.encoded + b">"
    return line(b"MAIL", path, *parameters, utf8=utf8, limit=_MAX_MAIL if parameters else MAX_COMMAND)


def rcpt_command(mailbox: Mailbox, dsn: DSN | None = None) -> Line:
    """Return RCPT for *mailbox*, with the parameters that *dsn* needs (RFC 3461)."""
    # SMTPUTF8 on MAIL, which one non-ASCII address is enough to need, allows UTF-8 in every path (RFC 6531 §3.3).
    path, utf8 = b"TO:<" + mailbox.encoded + b">", mailbox.needs_smtputf8
    if dsn is None:
        return line(b"RCPT", path, utf8=utf8)
    return line(b"RCPT", path, *rcpt_parameters(dsn, mailbox), utf8=utf8, limit=_MAX_RCPT_DSN)
