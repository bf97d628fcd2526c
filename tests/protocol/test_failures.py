"""Which errors leave the session usable: one table over what the server replies, in each way to send a message."""

from __future__ import annotations

import pickle

import pytest

from protocol.play import TLS, play, raw
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import Content
from securesmtp._protocol.delivery import deliver
from securesmtp._protocol.dialogue import Session, ehlo
from securesmtp._protocol.failures import (
    early_reply_error,
    is_session_usable,
    keep_session,
    refusal_error,
    server_closing_error,
)
from securesmtp._protocol.message import Submission
from securesmtp._values import Stage
from securesmtp.errors import (
    ConnectError,
    DataRefusedError,
    MessageError,
    ProtocolError,
    RefusedError,
    SecureSMTPError,
)

GONE = ConnectError("the server closed the connection")
LOCKSTEP, DATA, CHUNK = {"X": ""}, {"PIPELINING": ""}, {"PIPELINING": "", "CHUNKING": ""}
M, R, GO = b"250 m", b"250 r", b"354 go"
NO, BYE, RESET, LOGIN = b"550 no", b"421 bye", b"250 reset", b"530 log in"

# What the server offers, what it replies to a message for one recipient, and whether the session is usable then.
TABLE: list[tuple[dict[str, str], list[bytes | SecureSMTPError], bool]] = [
    # One command at a time: every refusal after MAIL is followed by RSET, except that of the content.
    (LOCKSTEP, [NO], True),
    (LOCKSTEP, [BYE], False),
    (LOCKSTEP, [LOGIN], False),
    (LOCKSTEP, [M, NO, RESET], True),
    (LOCKSTEP, [M, NO, NO], False),
    (LOCKSTEP, [M, NO, BYE], False),
    (LOCKSTEP, [M, NO, b"354 what"], False),
    (LOCKSTEP, [M, NO, GONE], False),
    (LOCKSTEP, [M, R, NO, RESET], True),
    (LOCKSTEP, [M, R, NO, GONE], False),
    (LOCKSTEP, [M, R, BYE], False),
    (LOCKSTEP, [M, R, GO, NO], True),
    (LOCKSTEP, [M, R, GO, BYE], False),
    (LOCKSTEP, [M, R, GO, b"251 what"], False),
    (LOCKSTEP, [M, R, GO, GONE], False),
    # In one group: every reply to it is read. A transaction that may be open is reset by the next one.
    (DATA, [NO, NO, NO], True),
    (DATA, [LOGIN, NO, NO], False),
    (DATA, [M, NO, NO], True),
    (DATA, [NO, NO, BYE], False),
    (DATA, [NO, GONE], False),
    (DATA, [M, NO, GO, NO], True),
    (DATA, [M, NO, GO, b"250 taken"], False),
    (DATA, [M, NO, GO, BYE], False),
    (DATA, [M, NO, GO, GONE], False),
    (DATA, [M, R, NO], True),
    (DATA, [M, R, GO, NO], True),
    (DATA, [M, R, GO, BYE], False),
    # The content is in the group too.
    (CHUNK, [NO, NO, NO], True),
    (CHUNK, [M, NO, NO], True),
    (CHUNK, [M, R, NO], True),
    (CHUNK, [M, R, BYE], False),
    (CHUNK, [M, BYE, NO], False),
    (CHUNK, [M, NO, BYE], False),
    (CHUNK, [M, NO, b"250 taken"], False),
    (CHUNK, [M, NO, GONE], False),
]


@pytest.mark.parametrize(("offered", "replies", "usable"), TABLE)
def test_the_session_is_usable_after_exactly_these_errors(
    offered: dict[str, str], replies: list[bytes | SecureSMTPError], *, usable: bool
) -> None:
    """If every reply that was due was read and belongs to its command, and the server has not said 421."""
    submission = Submission(Mailbox.parse("a@b.example"), (Mailbox.parse("c@d.example"),), Content.from_bytes(b"\r\n"))
    played = play(deliver(Session(TLS, Capabilities(offered)), submission, "raise", "message"), *replies)
    assert played.unused == 0
    assert played.error is not None
    assert is_session_usable(played.error) is usable


@pytest.mark.parametrize(
    ("error", "usable"),
    [
        # It came before the end of the content: the connection closes, but the replies before it are in step.
        (early_reply_error(raw(NO)), True),
        (early_reply_error(raw(BYE)), False),
        (early_reply_error(raw(b"250 what")), False),
        (server_closing_error(raw(BYE).reply(), Stage.MAIL), False),
        # Only a dialogue knows that a reply was the last one due.
        (refusal_error(DataRefusedError, Stage.CONTENT, raw(NO).reply()), False),
        (keep_session(refusal_error(DataRefusedError, Stage.CONTENT, raw(NO).reply())), True),
        (keep_session(refusal_error(DataRefusedError, Stage.CONTENT, raw(BYE).reply())), False),
        (keep_session(RefusedError("no reply")), False),
        (keep_session(MessageError("nothing was written")), True),
        (MessageError("nothing was written"), False),
        (keep_session(ConnectError("no refusal", reply=raw(NO).reply())), False),
        (keep_session(ProtocolError("no refusal", reply=raw(NO).reply())), False),
        (play(ehlo(b"me.example", TLS), NO).error, False),
        (KeyboardInterrupt(), False),
    ],
)
def test_no_other_error_leaves_the_session_usable(error: BaseException, *, usable: bool) -> None:
    """The default is False, for every kind of error."""
    assert is_session_usable(error) is usable


def test_the_cause_of_an_error_says_nothing_about_the_session() -> None:
    """A caller's code or a later handler may set it."""
    error = keep_session(refusal_error(DataRefusedError, Stage.CONTENT, raw(NO).reply()))
    error.__cause__ = GONE
    assert is_session_usable(error)


def test_the_mark_is_not_for_callers() -> None:
    """It is in no dict, and a copy of an error is as good as the error."""
    plain, marked = (refusal_error(RefusedError, Stage.MAIL, raw(NO).reply()) for _ in range(2))
    keep_session(marked)
    assert marked.as_dict() == plain.as_dict()
    assert str(marked) == str(plain)
    assert not is_session_usable(RefusedError.from_dict(marked.as_dict()))
    assert str(pickle.loads(pickle.dumps(marked))) == str(marked)  # noqa: S301 -- our own
