"""
Which reply code means what at which step, and what follows from it for the message: one table, and its predicates.

RFC 5321 §4.3.2 lists codes for each command, and has a client judge any other by its first digit: 5yz and 4yz refuse
what was asked, whatever their second digit. A positive reply is held to more, since to believe a wrong one is worse:

============  =========  ==============================================================================================
step          positive   any other 2yz or 3yz is out of step: the connection is closed, and the message is
============  =========  ==============================================================================================
greeting      220        not sent
EHLO          250        not sent: its lines are read as capabilities
STARTTLS      220        not sent: nothing but 220 begins TLS (RFC 3207 §4)
AUTH          235        not sent: nothing but 235 is a login (RFC 4954 §6)
MAIL, RSET    250        not sent: 251 speaks of a recipient, so the replies have shifted
RCPT          25z        not sent: 25z is the mail system's "yes", which 214 and 235 are not (RFC 5321 §4.2.1)
DATA          354        not sent: a content is written to a server that waits for it, and to no other
content       250        unknown: 251 to it may be the reply to a RCPT, and nobody's promise to deliver
============  =========  ==============================================================================================

Once the end of a content was written, only its own reply says that it was refused: whatever is out of step then, in the
opening that went along with it too, leaves the outcome unknown. 421 refuses like 4yz, and ends the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._values import Stage

if TYPE_CHECKING:
    from securesmtp._values import Reply

_POSITIVE: dict[Stage, frozenset[int]] = {
    Stage.GREETING: frozenset({220}),
    Stage.EHLO: frozenset({250}),
    Stage.STARTTLS: frozenset({220}),
    Stage.AUTH: frozenset({235}),
    Stage.MAIL: frozenset({250}),
    Stage.RCPT: frozenset(range(250, 260)),
    Stage.RSET: frozenset({250}),
    Stage.DATA: frozenset({354}),
    Stage.CONTENT: frozenset({250}),
}
# RFC 4954 §6. To RCPT they refuse one recipient.
_LOGIN_WANTED = frozenset({530, 535, 538})
# RFC 5321 §4.2.1: what was asked is not known, not implemented, or not in its place.
_NOT_A_COMMAND = frozenset({500, 502, 503})


def is_positive(stage: Stage, code: int) -> bool:
    """Return whether *code* says that what was asked at *stage* was done."""
    return code in _POSITIVE[stage]


def is_refusal(code: int) -> bool:
    """Return whether *code* refuses what was asked, for now or for good (RFC 5321 §4.2.1)."""
    return code >= 400  # noqa: PLR2004


def is_temporary(code: int) -> bool:
    """Return whether *code* refuses for now only (RFC 5321 §4.2.1)."""
    return 400 <= code < 500  # noqa: PLR2004


def is_closing(code: int) -> bool:
    """Return whether the server closes the connection (RFC 5321 §3.8)."""
    return code == 421  # noqa: PLR2004


def is_login_wanted(stage: Stage, code: int) -> bool:
    """Return whether the server takes no mail from a client that has not logged in."""
    return stage is Stage.MAIL and code in _LOGIN_WANTED


def is_not_a_command(code: int) -> bool:
    """Return whether the server does not know a command that it offered, or does not take it."""
    return code in _NOT_A_COMMAND


def is_too_many_recipients(reply: Reply) -> bool:
    """
    Return whether a recipient is refused because the transaction has enough, and is taken in another one.

    RFC 5321 §4.5.3.1.10: 452, and 552 from servers that go by RFC 821. With another enhanced code it is the storage or
    the mailbox that is full (RFC 3463 §3.3, §3.6).
    """
    return (reply.code, reply.enhanced) in {(452, None), (452, "4.5.3"), (552, None), (552, "5.5.3")}
