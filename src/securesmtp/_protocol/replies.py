"""
What each reply code means at each stage, and what follows for the message: one table and its predicates.

RFC 5321 §4.3.2 lists codes for each command, and a client judges any other code by its first digit: 4yz and 5yz are
refusals, whatever their second digit. A positive reply must match exactly, because believing a wrong one does more
harm:

============  =========  ==============================================================================================
stage         positive   after any other 2yz or 3yz the connection is closed, and the message is
============  =========  ==============================================================================================
greeting      220        not sent
EHLO          250        not sent: the lines of this reply are read as capabilities
STARTTLS      220        not sent: only 220 starts TLS (RFC 3207 §4)
AUTH          235        not sent: only 235 is a successful login (RFC 4954 §6)
MAIL, RSET    250        not sent: 251 is about a recipient, so the replies no longer match the commands
RCPT          25z        not sent: 25z is the mail system's "yes"; 214 and 235 are not (RFC 5321 §4.2.1)
DATA          354        not sent: content is written only to a server that is waiting for it
content       250        unknown: 251 may be the reply to a RCPT, and promises no delivery
============  =========  ==============================================================================================

Once the content was fully sent, only the reply to the content can refuse it. Any unexpected reply after that leaves the
outcome unknown, even a reply to an envelope command that was sent together with the content. 421 is a temporary
refusal, and the server closes the connection after it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from securesmtp._values import Stage

if TYPE_CHECKING:
    from securesmtp._values import Reply

# RFC 5321 §4.2.3. Half a reply: the other half comes after the content.
START_MAIL_INPUT = 354
# RFC 4954 §4: the text is a SASL challenge in base64, and the server waits for the response.
AUTH_CONTINUE = 334
# RFC 5321 §3.8: the server closes the connection after this reply.
SERVICE_CLOSING = 421
# RFC 5321 §4.2.3.
INSUFFICIENT_STORAGE = 452
# Microsoft Exchange refuses with it when an account has too many connections. RFC 4954 §6 has it for AUTH only: the
# password must be stored in another form first.
TOO_MANY_CONNECTIONS = 432
# RFC 5321 §4.2.3.
BAD_SEQUENCE = 503

_POSITIVE: dict[Stage, frozenset[int]] = {
    Stage.GREETING: frozenset({220}),
    Stage.EHLO: frozenset({250}),
    Stage.STARTTLS: frozenset({220}),
    Stage.AUTH: frozenset({235}),
    Stage.MAIL: frozenset({250}),
    Stage.RCPT: frozenset(range(250, 260)),
    Stage.RSET: frozenset({250}),
    Stage.DATA: frozenset({START_MAIL_INPUT}),
    Stage.CONTENT: frozenset({250}),
}
_END_OF_MESSAGES: dict[Stage, frozenset[int]] = {
    Stage.MAIL: frozenset({SERVICE_CLOSING, INSUFFICIENT_STORAGE}),
    Stage.RCPT: frozenset({SERVICE_CLOSING}),
}
# "432 4.3.2 Concurrent connections limit exceeded", "421 4.7.0 Too many concurrent SMTP connections", and the like.
_TOO_MANY = re.compile(r"\b(?:concurrent|simultaneous|too many|maximum)\b.*\b(?:connections|sessions)\b", re.IGNORECASE)
# RFC 5321 §4.2.1.
_TEMPORARY = range(400, 500)
_REFUSALS = range(400, 600)
# RFC 4954 §6. As a reply to RCPT, they refuse one recipient.
_LOGIN_REQUIRED = frozenset({530, 535, 538})
# RFC 5321 §4.2.3: not recognised, not implemented, or not allowed at this point.
_COMMAND_UNSUPPORTED = frozenset({500, 502, BAD_SEQUENCE})


def is_positive(stage: Stage, code: int) -> bool:
    """Return whether *code* means that the command of *stage* succeeded."""
    return code in _POSITIVE[stage]


def is_refusal(code: int) -> bool:
    """Return whether *code* refuses the command, temporarily or permanently (RFC 5321 §4.2.1)."""
    return code in _REFUSALS


def is_temporary(code: int) -> bool:
    """Return whether *code* refuses the command temporarily (RFC 5321 §4.2.1)."""
    return code in _TEMPORARY


def is_closing(code: int) -> bool:
    """Return whether the server closes the connection after *code* (RFC 5321 §3.8)."""
    return code == SERVICE_CLOSING


def is_auth_continue(code: int) -> bool:
    """Return whether the server now waits for a SASL response (RFC 4954 §4)."""
    return code == AUTH_CONTINUE


def is_bad_sequence(code: int) -> bool:
    """Return whether the server does not allow the command at this point of the session (RFC 5321 §4.2.3)."""
    return code == BAD_SEQUENCE


def is_too_many_connections(reply: Reply) -> bool:
    """Return whether the account has too many connections open; most servers say this in words."""
    return reply.code == TOO_MANY_CONNECTIONS or (is_temporary(reply.code) and _TOO_MANY.search(reply.text) is not None)


def is_end_of_messages(stage: Stage, reply: Reply) -> bool:
    """
    Return whether the server may refuse a message because its connection has carried enough of them.

    OpenSMTPD says 452 after 100 messages (measured), others close (RFC 5321 §3.8). chasquid closes at the third error,
    which may be a refused recipient (measured). The first message of a connection is not refused for that.
    """
    is_end = reply.code in _END_OF_MESSAGES.get(stage, ())
    return is_end and not is_too_many_connections(reply)


def is_login_required(stage: Stage, code: int) -> bool:
    """Return whether the server requires a login before it accepts a message."""
    return stage is Stage.MAIL and code in _LOGIN_REQUIRED


def is_command_unsupported(code: int) -> bool:
    """Return whether the server does not support a command that it advertised, or does not allow it at this point."""
    return code in _COMMAND_UNSUPPORTED


def is_too_many_recipients(reply: Reply) -> bool:
    """
    Return whether *reply* refuses a recipient only because the transaction is full: another transaction may take it.

    RFC 5321 §4.5.3.1.10 says 452; servers that follow RFC 821 say 552. Any other enhanced code means that the storage
    or the mailbox is full (RFC 3463 §3.3, §3.6).
    """
    return (reply.code, reply.enhanced) in {(452, None), (452, "4.5.3"), (552, None), (552, "5.5.3")}
