"""One message in one group: what is in the group, what waits, and what a reply means (PIPE-01, PIPE-03, PIPE-05)."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from protocol.play import TLS, Played, play
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import BLOCK, Content
from securesmtp._protocol.delivery import Attempt, Delivery, deliver
from securesmtp._protocol.dialogue import Session
from securesmtp._protocol.effects import Block, CommandGroup, Receive
from securesmtp._protocol.failures import interrupt_error, is_session_usable
from securesmtp._protocol.message import Submission
from securesmtp._protocol.transaction import Partial, Transaction
from securesmtp._values import Outcome, Reply, Stage
from securesmtp.errors import (
    AuthenticationError,
    ConnectError,
    DataRefusedError,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    RefusedError,
    SecureSMTPError,
    SenderRefusedError,
)

DATA, CHUNK = {"PIPELINING": ""}, {"PIPELINING": "", "CHUNKING": ""}
SHORT = b"Subject: x\r\n\r\n.x\r\n"
GONE = ConnectError("the server closed the connection")
NO = b"550 5.1.1 no"


def mail(people: int, data: bytes = SHORT) -> Submission:
    """Return a message for this many recipients."""
    to = tuple(Mailbox.parse(f"r{number}@b.example") for number in range(people))
    return Submission(Mailbox.parse("me@a.example"), to, Content.from_bytes(data))


def send(
    offered: dict[str, str],
    people: int,
    *answers: bytes | SecureSMTPError,
    partial: Partial = "raise",
    data: bytes = SHORT,
    session: Session | None = None,
) -> Played[Delivery]:
    """Send one message in a session with these extensions."""
    session = session or Session(TLS, Capabilities(offered))
    return play(deliver(session, mail(people, data), partial, "message"), *answers)


def groups(played: Played[Delivery]) -> list[list[bytes]]:
    """Return the verbs of each group."""
    return [
        [line.data.split()[0] for line in effect.lines] for effect in played.effects if isinstance(effect, CommandGroup)
    ]


@pytest.mark.parametrize(
    ("people", "partial", "answers", "shape"),
    [
        (1, "raise", [b"250 m", b"250 r", b"354 go", b"250 ok"], [[b"MAIL", b"RCPT", b"DATA"]]),
        (2, "allow", [b"250 m", b"250 r", NO, b"354 go", b"250 ok"], [[b"MAIL", b"RCPT", b"RCPT", b"DATA"]]),
        (2, "raise", [b"250 m", b"250 r", b"251 r", b"354 go", b"250 ok"], [[b"MAIL", b"RCPT", b"RCPT"]]),
    ],
)
def test_data_is_in_the_group_if_no_recipient_can_forbid_it(
    people: int, partial: Partial, answers: list[bytes], shape: list[list[bytes]]
) -> None:
    """An accepted DATA cannot be taken back; the content waits for all replies (RFC 2920 §3.1)."""
    played = send(DATA, people, *answers, partial=partial)
    assert [reply.text for reply in played.value.replies] == ["ok"]
    assert groups(played) == shape
    assert played.commands[-1] == b"DATA"
    kinds = [type(effect) for effect in played.effects]
    # MAIL, each RCPT, DATA; then the content; then its reply.
    assert kinds[-2:] == [Block, Receive]
    assert kinds.count(Receive) == people + 3
    limits = [(effect.stage, effect.limit) for effect in played.effects if isinstance(effect, Receive)]
    assert limits[-2:] == [(Stage.DATA, "data"), (Stage.CONTENT, "final")]
    assert played.content == b"Subject: x\r\n\r\n..x\r\n.\r\n"


@pytest.mark.parametrize(
    ("people", "partial", "data", "shape"),
    [
        (1, "raise", SHORT, [[b"MAIL", b"RCPT", b"BDAT"]]),
        (2, "allow", SHORT, [[b"MAIL", b"RCPT", b"RCPT", b"BDAT"]]),
        (2, "raise", SHORT, [[b"MAIL", b"RCPT", b"RCPT"], [b"BDAT"]]),
        (1, "raise", b"\r\n" + b"x\r\n" * (BLOCK // 3), [[b"MAIL", b"RCPT"], [b"BDAT"]]),
        (1, "raise", b"\r\n" * (BLOCK // 2), [[b"MAIL", b"RCPT", b"BDAT"]]),
        (1, "raise", b"\r\n" * (BLOCK // 2) + b"\r\n", [[b"MAIL", b"RCPT"], [b"BDAT"]]),
        (1, "raise", b"", [[b"MAIL", b"RCPT", b"BDAT"]]),
        (2, "raise", b"", [[b"MAIL", b"RCPT", b"RCPT"], [b"BDAT"]]),
        (1, "raise", b"\r\n\r\nno end", [[b"MAIL", b"RCPT", b"BDAT"]]),
    ],
    ids=[
        *("one", "some may refuse", "all or nobody", "large", "a whole block", "more than a block"),
        *("empty", "empty for all or nobody", "last line without end"),
    ],
)
def test_a_chunk_is_in_the_group_if_no_recipient_can_forbid_it(
    people: int, partial: Partial, data: bytes, shape: list[list[bytes]]
) -> None:
    """With its exact octets: no dots added, the last line ended (BDAT-01). A large chunk waits for the replies."""
    played = send(CHUNK, people, b"250 m", *[b"250 r"] * people, b"250 ok", partial=partial, data=data)
    assert groups(played) == shape
    whole = data if not data or data.endswith(b"\r\n") else data + b"\r\n"
    assert played.commands[-1] == b"BDAT %d LAST" % len(whole)
    assert played.content == whole
    assert played.value.size == len(whole)
    assert b"DATA" not in played.commands
    assert [effect.stage for effect in played.effects if isinstance(effect, CommandGroup)] == [
        Stage.MAIL,
        Stage.CONTENT,
    ][: len(shape)]
    # Nothing follows it.
    assert not any(effect.coalesce for effect in played.effects if isinstance(effect, Block))


@pytest.mark.parametrize(
    ("offered", "answers", "kind", "stage", "needs_reset"),
    [
        (DATA, [b"450 m", b"503 r", b"503 d"], SenderRefusedError, Stage.MAIL, True),
        (DATA, [b"250 m", NO, b"503 d"], RecipientsRefusedError, Stage.RCPT, True),
        (DATA, [b"250 m", b"250 r", b"451 d"], DataRefusedError, Stage.DATA, True),
        (DATA, [b"250 m", b"250 r", b"354 go", b"554 no"], DataRefusedError, Stage.CONTENT, False),
        (DATA, [b"250 m", NO, b"354 go", b"400 nobody"], RecipientsRefusedError, Stage.RCPT, True),
        (CHUNK, [b"450 m", b"503 r", b"503 d"], SenderRefusedError, Stage.MAIL, True),
        (CHUNK, [b"250 m", NO, b"554 nobody"], RecipientsRefusedError, Stage.RCPT, True),
        (CHUNK, [b"250 m", b"250 r", b"552 d"], DataRefusedError, Stage.CONTENT, True),
    ],
)
def test_the_session_is_usable_after_a_refusal_in_a_group(
    offered: dict[str, str], answers: list[bytes], kind: type[RefusedError], stage: Stage, *, needs_reset: bool
) -> None:
    """Every reply is read. The next group begins with RSET if a transaction may be open, and only then."""
    session = Session(TLS, Capabilities(offered))
    played = send(offered, 1, *answers, session=session)
    error = played.failure(kind)
    assert isinstance(error, RefusedError)
    assert is_session_usable(error)
    assert (error.outcome, error.stage) == (Outcome.REFUSED, stage)
    assert session.needs_reset is needs_reset
    # Where DATA was accepted for nobody, an empty content ends it.
    assert (played.content == b".\r\n") is (offered == DATA and b"354 go" in answers and NO in answers)
    body = [b"354 go", b"250 ok"] if offered == DATA else [b"250 ok"]
    after = send(offered, 1, *[b"250 reset"] * needs_reset, b"250 m", b"250 r", *body, session=session)
    assert [reply.text for reply in after.value.replies] == ["ok"]
    assert groups(after)[0][:2] == ([b"RSET", b"MAIL"] if needs_reset else [b"MAIL", b"RCPT"])
    assert not session.needs_reset


@pytest.mark.parametrize("code", [b"530", b"535", b"538"])
@pytest.mark.parametrize("offered", [DATA, CHUNK], ids=["DATA", "BDAT"])
def test_a_required_login_is_an_authentication_error_in_a_group(offered: dict[str, str], code: bytes) -> None:
    """All replies are read, so the outcome is certain even if a chunk was written (POL-02)."""
    error = send(offered, 1, code + b" log in", b"503 r", b"503 d").failure(AuthenticationError)
    assert (error.outcome, error.stage) == (Outcome.NOT_SENT, Stage.MAIL)


@pytest.mark.parametrize(
    ("offered", "answers"),
    [
        (DATA, [b"250 m", NO, b"354 go", b"250 accepted"]),
        (DATA, [b"250 m", NO, b"354 go", GONE]),
    ],
)
def test_a_content_without_recipients_must_be_refused(
    offered: dict[str, str], answers: list[bytes | SecureSMTPError]
) -> None:
    """Otherwise the session cannot go on; that the recipients were refused stays true (PIPE-03)."""
    error = send(offered, 1, *answers).failure(RecipientsRefusedError)
    assert error.outcome is Outcome.REFUSED
    assert isinstance(error, RefusedError)
    assert not is_session_usable(error)
    # Why the session cannot go on.
    cause = error.__cause__
    if answers[-1] is GONE:
        assert cause is GONE
    else:
        assert isinstance(cause, ProtocolError)
        assert cause.reply is not None
        assert (cause.stage, f"{cause.reply.code} {cause.reply.text}".encode()) == (Stage.CONTENT, answers[-1])
        assert cause.args[0]


@pytest.mark.parametrize(
    ("offered", "answers"), [(DATA, [b"250 m", NO, b"354 go"]), (CHUNK, [b"250 m", NO])], ids=["DATA", "BDAT"]
)
def test_a_421_after_a_refusal_ends_the_session(
    offered: dict[str, str], answers: list[bytes | SecureSMTPError]
) -> None:
    """The refusal stays true, and nothing more is written or read (RFC 5321 §3.8)."""
    error = send(offered, 1, *answers, b"421 bye").failure(RecipientsRefusedError)
    assert isinstance(error, RefusedError)
    assert not is_session_usable(error)


@pytest.mark.parametrize(("code", "usable"), [(b"500", False), (b"502", False), (b"503", True), (b"552", True)])
def test_a_server_that_does_not_know_bdat_has_read_the_chunk_as_commands(code: bytes, *, usable: bool) -> None:
    """It replies to each line of it, so the session ends: the next message must not get these replies."""
    error = send(CHUNK, 1, b"250 m", b"250 r", code + b" what").failure(DataRefusedError)
    assert (error.outcome, is_session_usable(error)) == (Outcome.REFUSED, usable)


@pytest.mark.parametrize("opening", [[b"250 m", NO], [NO, b"503 r"]], ids=["recipient", "sender"])
@pytest.mark.parametrize("end", [GONE, b"250 what"], ids=["lost", "wrong"])
def test_a_refusal_stays_true_if_the_reply_to_data_is_lost_or_wrong(
    opening: list[bytes], end: bytes | SecureSMTPError
) -> None:
    """The message was refused for good: "not sent, try again" would be wrong. The session ends."""
    error = send(DATA, 1, *opening, end).error
    assert isinstance(error, RefusedError)
    assert (error.outcome, error.retryable, is_session_usable(error)) == (Outcome.REFUSED, False, False)
    assert error.__cause__ is end if end is GONE else isinstance(error.__cause__, ProtocolError)


@pytest.mark.parametrize("end", [b"250 accepted", b"354 what", b"251 x", GONE])
@pytest.mark.parametrize(
    "opening", [[b"250 m", NO], [NO, b"250 r"], [NO, NO], [b"250 m", b"421 bye"], [b"421 bye", NO], [b"530 m", NO]]
)
def test_only_the_reply_to_a_chunk_decides_its_outcome(opening: list[bytes], end: bytes | SecureSMTPError) -> None:
    """Whatever the replies to the envelope were: a server was seen to reply 421 and then accept the chunk."""
    error = send(CHUNK, 1, *opening, end).failure(OutcomeUnknownError)
    assert (error.outcome, error.retryable) == (Outcome.UNKNOWN, False)


def test_an_empty_content_is_never_an_unknown_outcome() -> None:
    """With DATA the content waits for the replies: the refusal of the sender stays true, whatever follows."""
    answers = [NO, b"250 r", b"354 go"]
    send(DATA, 1, *answers, GONE).failure(SenderRefusedError)
    by = interrupt_error(KeyboardInterrupt(), Stage.CONTENT)
    for error, breaks in ((by, {4: by}), (None, {4: ZeroDivisionError()}), (None, {5: ZeroDivisionError()})):
        attempt, session = Attempt(), Session(TLS, Capabilities(DATA))
        with nullcontext() if error else pytest.raises(ZeroDivisionError):
            play(deliver(session, mail(1), "raise", "message", attempt), *answers, breaks=breaks)  # type: ignore[arg-type]
        assert type(attempt.result_after(by)) is SenderRefusedError
    transaction = Transaction(Session(TLS, Capabilities(DATA)), mail(1), "raise")
    assert play(transaction.send_envelope()).error is None
    assert play(transaction.send_content(), *answers).error is None
    assert type(transaction.error_after(GONE)) is SenderRefusedError


@pytest.mark.parametrize("reply", [b"354 what", b"214 help", b"235 what", GONE])
@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("offered", [DATA, CHUNK], ids=["DATA", "BDAT"])
def test_an_unexpected_reply_in_a_group_has_a_true_outcome(
    offered: dict[str, str], at: int, reply: bytes | SecureSMTPError
) -> None:
    """Before the content was fully sent it is not sent; after a written chunk it is unknown."""
    right: list[bytes | SecureSMTPError] = [b"250 m", b"250 r", b"354 go", b"250 ok"]
    if offered == CHUNK:
        del right[2]
    if at == len(right) or (right[at] == b"354 go" and reply == b"354 what"):
        return
    ended = offered == CHUNK or at == 3
    error = send(offered, 1, *right[:at], reply).error
    assert type(error) is (
        OutcomeUnknownError if ended else ProtocolError if isinstance(reply, bytes) else ConnectError
    )
    assert error.outcome is (Outcome.UNKNOWN if ended else Outcome.NOT_SENT)


@pytest.mark.parametrize("code", [b"450", b"421"])
def test_a_refused_reset_in_a_group_ends_the_session(code: bytes) -> None:
    """RSET cannot be refused, so the replies no longer match the commands."""
    session = Session(TLS, Capabilities(DATA), needs_reset=True)
    error = send(DATA, 1, code + b" no", session=session).failure(ConnectError)
    assert (error.stage, error.outcome) == (Stage.RSET, Outcome.NOT_SENT)


@pytest.mark.parametrize("code", [b"450", b"421"])
def test_after_a_refused_reset_the_reply_to_the_chunk_decides(code: bytes) -> None:
    """The old transaction may have taken the recipient and the chunk."""
    for end, kind in ((b"554 no", ConnectError), (b"250 ok", OutcomeUnknownError), (GONE, OutcomeUnknownError)):
        session = Session(TLS, Capabilities(CHUNK), needs_reset=True)
        error = send(CHUNK, 1, code + b" no", b"250 m", b"250 r", end, session=session).failure(kind)
        assert kind is not ConnectError or (error.stage, error.outcome) == (Stage.RSET, Outcome.NOT_SENT)


@pytest.mark.parametrize("at", range(3))
def test_a_421_in_a_group_ends_the_transaction(at: int) -> None:
    """Before the content was written: it may be tried again (RFC 5321 §3.8)."""
    session = Session(TLS, Capabilities(DATA), needs_reset=True)
    answers = [b"250 reset", b"250 m", b"250 r"][:at]
    error = send(DATA, 1, *answers, b"421 bye", session=session).failure(ConnectError)
    assert (error.outcome, error.retryable) == (Outcome.NOT_SENT, True)


@pytest.mark.parametrize("at", range(3))
def test_a_421_before_a_refused_chunk_ends_the_transaction(at: int) -> None:
    """The reply to the chunk proves that it was not accepted, and the connection is not used again."""
    answers = [b"250 reset", b"250 m", b"250 r", b"554 no"]
    answers[at] = b"421 bye"
    session = Session(TLS, Capabilities(CHUNK), needs_reset=True)
    error = send(CHUNK, 1, *answers, session=session).failure(ConnectError)
    assert (error.outcome, error.retryable) == (Outcome.NOT_SENT, True)


@pytest.mark.parametrize(
    ("offered", "people", "replies", "limits"),
    [
        ({}, 1, [b"250 m", b"250 r", b"354 go"], ["command", "command", "data", "final"]),
        (DATA, 1, [b"250 m", b"250 r", b"354 go"], ["command", "command", "data", "final"]),
        (DATA, 2, [b"250 m", b"250 r", b"250 r", b"354 go"], ["command", "command", "command", "data", "final"]),
        (CHUNK, 1, [b"250 m", b"250 r"], ["command", "command", "final"]),
    ],
)
def test_each_reply_has_the_time_limit_of_its_step(
    offered: dict[str, str], people: int, replies: list[bytes], limits: list[str]
) -> None:
    """RFC 5321 §4.5.3.2: a server may take longer for DATA than for MAIL, and longest for the content."""
    session = Session(TLS, Capabilities(offered))
    played = send(offered, people, *replies, GONE, session=session)
    assert [effect.limit for effect in played.effects if isinstance(effect, Receive)] == limits
    assert played.failure(OutcomeUnknownError).__cause__ is GONE
    assert session.transactions == 1


@pytest.mark.parametrize(
    ("reply", "kind"), [(b"421 bye", ConnectError), (b"354 what", SenderRefusedError), (GONE, SenderRefusedError)]
)
def test_only_a_421_replaces_the_refusal_before_it(reply: bytes | SecureSMTPError, kind: type[SecureSMTPError]) -> None:
    """MAIL was refused, and the reply to RCPT is an error: after 421 the message may be sent again (RFC 5321 §3.8)."""
    error = send(DATA, 1, NO, reply).failure(kind)
    assert (error.reply is not None and error.reply.code) == (421 if kind is ConnectError else 550)
    assert (error.retryable, is_session_usable(error)) == (kind is ConnectError, False)


def test_a_421_to_reset_is_the_end_although_the_message_is_refused_too() -> None:
    """A refusal of the message would leave the session usable."""
    session = Session(TLS, Capabilities(CHUNK), needs_reset=True)
    error = send(CHUNK, 1, b"421 bye", NO, NO, NO, session=session).failure(ConnectError)
    assert (error.stage, is_session_usable(error)) == (Stage.RSET, False)


@pytest.mark.parametrize("code", [500, 502, 503, 554])
def test_a_message_whose_bdat_is_not_supported_can_be_sent_again_with_data(code: int) -> None:
    """The server offers CHUNKING all the same: the session remembers the reply. Any other refusal is of the message."""
    session = Session(TLS, Capabilities(CHUNK))
    error = send(CHUNK, 1, b"250 m", b"250 r", b"%d no" % code, session=session).failure(DataRefusedError)
    is_unsupported = code != 554
    assert (error.retryable, error.hint is not None) == (is_unsupported, is_unsupported)
    assert session.chunking_refused == (error.reply if is_unsupported else None)
    assert session.needs_reset


def test_a_421_to_one_recipient_is_not_the_reply_for_the_others() -> None:
    """The chunk was accepted for them; who ends the session is the link's to know."""
    played = send(CHUNK, 2, b"250 m", b"421 bye", b"250 r", b"250 ok", partial="allow")
    assert [each.accepted for each in played.value.recipients] == [False, True]


def test_an_interrupted_chunk_is_unknown_after_its_last_block() -> None:
    """A large one is written block by block. Until the last is written whole, the server cannot accept it."""
    data = b"\r\n" + b"x\r\n" * BLOCK
    session = Session(TLS, Capabilities(CHUNK))
    submission = mail(1, data)
    whole = play(deliver(session, submission, "raise", "message"), b"250 m", b"250 r", b"250 ok")
    blocks = [number for number, effect in enumerate(whole.effects) if isinstance(effect, Block)]
    assert len(blocks) > 2
    for number in [*blocks, blocks[-1] + 1]:
        session = Session(TLS, Capabilities(CHUNK))
        played = play(deliver(session, submission, "raise", "message"), b"250 m", b"250 r", breaks={number: GONE})
        assert played.error is not None
        assert played.error.outcome is (Outcome.NOT_SENT if number in blocks else Outcome.UNKNOWN)


def test_a_lost_message_is_not_sent_until_its_content_was_fully_sent() -> None:
    """From then on the outcome is unknown, whatever became of another message."""
    bye = ConnectError("the server closes the session", reply=Reply(421, None, "bye", b"bye"))
    transaction = Transaction(Session(TLS, Capabilities(DATA)), mail(1), "raise")
    outcomes = []
    for act, answers in ((transaction.send_envelope, []), (transaction.send_content, [b"250 m", b"250 r", b"354 go"])):
        assert play(act(), *answers).error is None
        told = [transaction.error_after(error) for error in (GONE, bye)]
        outcomes += [error.outcome for error in told]
        # What it was that ended the connection is said.
        assert all(cause.args[0] in str(error) for cause, error in zip((GONE, bye), told, strict=True))
        for error in told:
            if error.outcome is Outcome.NOT_SENT:
                assert (type(error), error.stage, error.retryable) == (ConnectError, Stage.MAIL, True)
            assert error.outcome is Outcome.UNKNOWN or error.reply is (bye.reply if error is told[1] else None)
    assert outcomes == [Outcome.NOT_SENT, Outcome.NOT_SENT, Outcome.UNKNOWN, Outcome.UNKNOWN]


def test_without_pipelining_each_command_is_a_round_trip() -> None:
    """Whatever is offered."""
    played = play(
        deliver(Session(TLS, Capabilities(CHUNK)), mail(1), "raise", "off"), b"250 m", b"250 r", b"354 go", b"250 ok"
    )
    assert played.commands == [b"MAIL FROM:<me@a.example>", b"RCPT TO:<r0@b.example>", b"DATA"]
    assert groups(played) == []
    assert send({"CHUNKING": ""}, 1, b"250 m", b"250 r", b"354 go", b"250 ok").commands[-1] == b"DATA"


ANSWERS = [b"250 x", b"251 x", b"354 x", b"450 x", b"550 x", b"421 x", b"530 x", b"503 x"]


@given(
    st.sampled_from([DATA, CHUNK]),
    st.integers(1, 3),
    st.sampled_from(["raise", "allow"]),
    st.lists(st.sampled_from(ANSWERS), max_size=9),
)
@settings(max_examples=examples(500), deadline=None)
def test_success_needs_every_right_reply_in_a_group(
    offered: dict[str, str], people: int, partial: Partial, said_: list[bytes]
) -> None:
    """Whatever the server replies: a delivery has an accepted recipient, and 250 to the content as the last reply."""
    answers = [*said_, *[b"500 x"] * 12]
    played = send(offered, people, *answers, partial=partial)
    codes = [answer[:3] for answer in answers]
    received = sum(isinstance(effect, Receive) for effect in played.effects)
    if played.error is None:
        accepted = [code[:2] == b"25" for code in codes[1 : people + 1]]
        assert codes[0] == codes[received - 1] == b"250"
        assert any(accepted) if partial == "allow" else all(accepted)
        assert [r.accepted for r in played.value.recipients] == accepted
        assert received == people + 2 + (offered == DATA)
    elif is_session_usable(played.error):
        commands = sum(len(effect.lines) for effect in played.effects if isinstance(effect, CommandGroup))
        data = [effect for effect in played.effects if isinstance(effect, Block)]
        lone = b"DATA" in played.commands and bool(data)
        # Each reply that was due was read (PIPE-05).
        assert received == len(played.commands) + lone >= commands


WORDS = b"-%%d.1.5 to %%d %s\n%%d %s" % ("ü".encode() * 700, b"x" * 1500)


@pytest.mark.parametrize("offered", [{}, DATA, CHUNK], ids=["off", "data", "chunk"])
@pytest.mark.parametrize("code", [2, 5])
def test_the_text_of_replies_in_a_receipt_has_a_limit(offered: dict[str, str], code: int) -> None:
    """3,000 recipients held 17 MiB of them; the codes are kept of each (issue 12, 1)."""
    to = [(b"%d50" + WORDS) % (code, code, number, code * 100 + 50) for number in range(3000)]
    ends = {2: [b"354 go", b"250 ok"], 5: [b"554 no"]}[code]
    if offered == CHUNK:
        ends = ends[-1:]
    elif not offered and code == 5:
        ends = [b"250 reset"]
    played = send(offered, 3000, b"250 m", *to, *ends, partial="allow")
    recipients = (
        played.error.recipients if isinstance(played.error, RecipientsRefusedError) else played.value.recipients
    )
    assert sum(len(each.reply.text) + len(each.reply.raw) for each in recipients) < 1 << 20
    assert {(each.reply.code, each.reply.enhanced) for each in recipients} == {(code * 100 + 50, f"{code}.1.5")}
    assert len(recipients[0].reply.raw) > 2000
    assert f"to {2999} " in recipients[-1].reply.text
    assert recipients[-1].reply.text.endswith("…")


def test_several_transactions_share_the_budget_of_one_receipt() -> None:
    """A server that takes one recipient at a time says something of each content as well."""
    each = [(b"250" + WORDS) % (2, number, 250) for number in range(3000)]
    answers = [reply for one in each for reply in (b"250 m", one, b"354 go", one)]
    delivery = send({"LIMITS": "RCPTMAX=1"}, 3000, *answers, partial="allow").value
    kept = [*(one.reply for one in delivery.recipients), *delivery.replies]
    assert len(kept) == 6000
    assert sum(len(reply.text) + len(reply.raw) for reply in kept) < (1 << 18) + 6000 * 2 * 96


def test_the_text_of_replies_in_an_attempt_has_the_same_limit() -> None:
    """The record for an interrupt keeps each reply once, as the receipt does (measured: 10 MiB for 3,000)."""
    each = [(b"250" + WORDS) % (2, number, 250) for number in range(3000)]
    answers = [reply for one in each for reply in (b"250 m", one, b"354 go", one)]
    attempt, session = Attempt(), Session(TLS, Capabilities({"LIMITS": "RCPTMAX=1"}))
    gc.collect()
    before = {id(one) for one in gc.get_objects() if type(one) is Reply}
    played = play(deliver(session, mail(3000), "allow", "off", attempt), *answers)
    assert attempt.result is played.value
    replies = [one for one in gc.get_objects() if type(one) is Reply and id(one) not in before]
    assert len(replies) >= 6000
    assert sum(len(reply.text) + len(reply.raw) for reply in replies) < (1 << 19) + 6000 * 2 * 96


def test_short_replies_are_kept_whole_however_many_there_are() -> None:
    """Only who is wordy is cut."""
    replies = [b"250 2.1.5 " + b"x" * 60 for _ in range(5000)]
    played = send(DATA, 5000, b"250 m", *replies, b"354 go", b"250 ok", partial="allow")
    assert {each.reply.text for each in played.value.recipients} == {"2.1.5 " + "x" * 60}


@pytest.mark.parametrize(
    ("refused", "kind"), [(NO, SenderRefusedError), (b"250 m", ConnectError)], ids=["refused", "accepted"]
)
def test_a_chunk_that_was_not_written_whole_is_not_sent(refused: bytes, kind: type[SecureSMTPError]) -> None:
    """Replies that came before the end are read, and no more of the content is written."""
    transaction = Transaction(Session(TLS, Capabilities(CHUNK)), mail(1), "raise")
    opening = transaction.send_envelope()
    assert isinstance(opening.send(None), CommandGroup)
    assert isinstance(opening.send(None), Block)
    with pytest.raises(StopIteration):
        opening.send(True)  # noqa: FBT003 -- what a link answers
    assert not transaction.is_fully_sent
    played = play(transaction.send_content(), refused, GONE)
    assert type(played.error) is kind
    assert played.error.outcome is not Outcome.UNKNOWN
    assert not played.content
