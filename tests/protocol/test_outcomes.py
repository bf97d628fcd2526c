"""
Every class of reply code at every step of one transaction, in each mode, and a cut at each effect: what is told is so.

The truth is found without the library's table: a server has a message if its content was written to its end and the
reply to that is 250; where that reply was not heard, or is neither 250 nor a refusal, nobody knows.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import pytest

from protocol.play import TLS, Played, play
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import BLOCK, Content
from securesmtp._protocol.delivery import Attempt, Delivery, deliver
from securesmtp._protocol.dialogue import Session
from securesmtp._protocol.effects import Block, Receive
from securesmtp._protocol.failures import interrupt_error, is_session_usable
from securesmtp._protocol.message import Submission
from securesmtp._values import Outcome, Stage
from securesmtp.errors import (
    AuthenticationError,
    ConnectError,
    DataRefusedError,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    SecureSMTPError,
    SenderRefusedError,
)

Mode = Literal["off", "data", "bdat"]
GONE = ConnectError("the server closed the connection")
# RFC 5321 §4.2.1: each first digit, with second digits that it names and some that it does not.
CODES = [b"250", b"254", b"200", b"354", b"421", b"451", b"471", b"530", b"571"]
STEPS: dict[Mode, tuple[Stage, ...]] = {
    "off": (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT),
    "data": (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT),
    "bdat": (Stage.MAIL, Stage.RCPT, Stage.CONTENT),
}
RIGHT = {Stage.MAIL: b"250", Stage.RCPT: b"250", Stage.DATA: b"354", Stage.CONTENT: b"250"}
MODES = pytest.mark.parametrize("mode", STEPS)


def deliver_in(mode: Mode, data: bytes = b"Subject: x\r\n\r\nx\r\n", attempt: Attempt | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN201 -- a dialogue
    """Return the dialogue of one message for one recipient."""
    session = Session(TLS, Capabilities({"PIPELINING": ""} | ({"CHUNKING": ""} if mode == "bdat" else {})))
    submission = Submission(Mailbox.parse("a@b.example"), (Mailbox.parse("c@d.example"),), Content.from_bytes(data))
    return deliver(session, submission, "raise", "off" if mode == "off" else "message", attempt)


def outcome(played: Played[Delivery]) -> Outcome:
    """Return what the caller is told."""
    return Outcome.ACCEPTED if played.error is None else played.error.outcome


def truth(played: Played[Delivery], answers: list[bytes | SecureSMTPError]) -> set[Outcome]:
    """Return what may be told, by what was written and what was answered to the content."""
    heard = list(answers)
    ended, own = False, None
    for effect in played.effects:
        if isinstance(effect, Block):
            ended = ended or (effect.data.endswith(b"x\r\n") or effect.data.endswith(b"x\r\n.\r\n"))
        elif isinstance(effect, Receive):
            answer = heard.pop(0)
            own = answer if effect.stage is Stage.CONTENT and isinstance(answer, bytes) else None
    if not ended:
        return {Outcome.NOT_SENT, Outcome.REFUSED}
    if own is None or own[:1] in b"23":
        return {Outcome.ACCEPTED, Outcome.UNKNOWN} if own is not None and own[:3] == b"250" else {Outcome.UNKNOWN}
    return {Outcome.NOT_SENT, Outcome.REFUSED}


@MODES
def test_the_outcome_is_true_for_every_reply_at_every_step(mode: Mode) -> None:
    """All of them: accepted is 25z to the recipient and 250 else; what was written and not answered is unknown."""
    steps, seen = STEPS[mode], set[Outcome]()
    for codes in product([*CODES, GONE], repeat=len(steps)):
        said = [code + b" x" if isinstance(code, bytes) else GONE for code in codes]
        # What RSET is answered, where it is written.
        answers: list[bytes | SecureSMTPError] = [*said, b"250 reset", b"250 reset"]
        if mode == "off":
            # One command after the other: what was refused is followed by RSET, or by nothing.
            refused = next((n for n, code in enumerate(said) if isinstance(code, bytes) and code[:1] in b"45"), 9)
            answers = [*said[: refused + 1], b"250 reset", b"250 reset"]
        played = play(deliver_in(mode), *answers)
        told = outcome(played)
        seen.add(told)
        assert told in truth(played, answers), (codes, played.error)
        right = all(code == RIGHT[step] or (step is Stage.RCPT and code == b"254") for step, code in zip(steps, codes))  # noqa: B905
        assert (told is Outcome.ACCEPTED) == right, codes
        if played.error is not None:
            assert not played.error.retryable or told in {Outcome.NOT_SENT, Outcome.REFUSED}
            # The session goes on where every reply that was asked for was heard.
            if is_session_usable(played.error):
                assert GONE not in answers[: sum(isinstance(effect, Receive) for effect in played.effects)]
    assert seen == set(Outcome)


TABLE: dict[Stage, dict[bytes, tuple[type[SecureSMTPError], Outcome]]] = {
    stage: {
        **{code: (ProtocolError, Outcome.NOT_SENT) for code in CODES if code[:1] in b"23"},
        b"421": (ConnectError, Outcome.NOT_SENT),
        **dict.fromkeys((b"451", b"471", b"530", b"571"), (kind, Outcome.REFUSED)),
    }
    for stage, kind in (
        (Stage.MAIL, SenderRefusedError),
        (Stage.RCPT, RecipientsRefusedError),
        (Stage.DATA, DataRefusedError),
        (Stage.CONTENT, DataRefusedError),
    )
}
TABLE[Stage.MAIL][b"530"] = (AuthenticationError, Outcome.NOT_SENT)
TABLE[Stage.CONTENT] |= {code: (OutcomeUnknownError, Outcome.UNKNOWN) for code in CODES if code[:1] in b"23"}
# Its own reply: nobody has it.
TABLE[Stage.CONTENT][b"421"] = (DataRefusedError, Outcome.REFUSED)


@MODES
@pytest.mark.parametrize("code", CODES)
def test_one_wrong_code_is_one_error(mode: Mode, code: bytes) -> None:
    """
    The rest is what a good server says then (RFC 5321 §4.3.2: an unexpected code is judged by its first digit).

    In a flight with a chunk, what is no refusal is unknown, since the chunk was written.
    """
    for number, stage in enumerate(STEPS[mode]):
        if code == RIGHT[stage] or (stage is Stage.RCPT and code == b"254"):
            continue
        answers = [RIGHT[each] + b" x" for each in STEPS[mode][:number]] + [code + b" x"]
        if mode == "off":
            answers += [b"250 reset"] * (stage is not Stage.MAIL)
        elif code[:1] in b"45" and not (mode == "data" and code == b"421"):
            answers += [b"503 x"] * (len(STEPS[mode]) - (mode == "data") - number - 1)
        error = play(deliver_in(mode), *answers).error
        kind, told = TABLE[stage][code]
        if mode == "bdat" and kind is ProtocolError:
            kind, told = OutcomeUnknownError, Outcome.UNKNOWN
        assert (type(error), error and error.outcome) == (kind, told), (stage, error)
        temporary = code[:1] == b"4" and told is not Outcome.UNKNOWN
        assert error is not None
        assert error.retryable is temporary


@MODES
@pytest.mark.parametrize("by", [GONE, interrupt_error(KeyboardInterrupt(), Stage.CONTENT)], ids=["cut", "interrupt"])
@pytest.mark.parametrize("data", [b"Subject: x\r\n\r\nx\r\n", b"\r\n" + b"y\r\n" * BLOCK + b"x\r\n"], ids=["1", "many"])
def test_a_failed_effect_is_unknown_from_the_last_block_on(mode: Mode, by: ConnectError, data: bytes) -> None:
    """A block that failed was not written whole; one that was interrupted may have been."""
    right = [RIGHT[step] + b" x" for step in STEPS[mode]]
    whole = play(deliver_in(mode, data), *right)
    blocks = [number for number, effect in enumerate(whole.effects) if isinstance(effect, Block)]
    for at in range(len(whole.effects)):
        attempt = Attempt()
        played = play(deliver_in(mode, data, attempt), *right, breaks={at: by})
        ended = at > blocks[-1] or (by.interrupted and at == blocks[-1])
        assert outcome(played) is (Outcome.UNKNOWN if ended else Outcome.NOT_SENT), at
        assert attempt.result is played.error


@MODES
def test_the_outcome_is_as_certain_between_two_effects(mode: Mode) -> None:
    """Whoever has to leave a dialogue where it stands asks the attempt: unknown from the last block on."""
    by = interrupt_error(SystemExit(), Stage.MAIL)
    right = [RIGHT[step] + b" x" for step in STEPS[mode]]
    whole = play(deliver_in(mode), *right)
    last = max(number for number, effect in enumerate(whole.effects) if isinstance(effect, Block))
    for at in range(len(whole.effects)):
        attempt = Attempt()
        # What is no error of ours leaves the dialogue as it was.
        with pytest.raises(ZeroDivisionError):
            play(deliver_in(mode, attempt=attempt), *right, breaks={at: ZeroDivisionError()})  # type: ignore[dict-item]
        end = attempt.result_after(by)
        assert isinstance(end, SecureSMTPError)
        assert end.outcome is (Outcome.UNKNOWN if at >= last else Outcome.NOT_SENT)
        assert end is by or end.__cause__ is by


def _many(attempt: Attempt, *answers: bytes, people: int = 3, stop: int | None = None) -> None:
    """Play a message for so many, two at a time, up to the effect of number *stop*."""
    to = tuple(Mailbox.parse(f"r{number}@d.example") for number in range(people))
    submission = Submission(Mailbox.parse("a@b.example"), to, Content.from_bytes(b"Subject: x\r\n\r\nx\r\n"))
    session = Session(TLS, Capabilities({"LIMITS": "RCPTMAX=2"}))
    breaks = {} if stop is None else {stop: ZeroDivisionError()}
    play(deliver(session, submission, "allow", "off", attempt), *answers, breaks=breaks)  # type: ignore[arg-type]


def test_of_several_transactions_the_accepted_recipients_are_known() -> None:
    """At every effect: those of the transaction that was accepted, and none of the one that is being sent."""
    one = [b"250 m", b"250 a", b"550 b", b"354 go", b"250 first"]
    two = [b"250 m", b"250 c", b"354 go", b"250 second"]
    by = interrupt_error(SystemExit(), Stage.MAIL)
    seen = set[tuple[Outcome, int]]()
    for at in range(20):
        attempt = Attempt()
        try:
            _many(attempt, *one, *two, stop=at)
        except ZeroDivisionError:
            end = attempt.result_after(by)
            assert isinstance(end, SecureSMTPError)
            known = end.recipients if isinstance(end, OutcomeUnknownError) else ()
            seen.add((end.outcome, len(known)))
            continue
        break
    assert seen == {(Outcome.NOT_SENT, 0), (Outcome.UNKNOWN, 0), (Outcome.UNKNOWN, 2)}
    assert isinstance(attempt.result, Delivery)
    assert attempt.result_after(by) is attempt.result
    assert [each.accepted for each in attempt.result.recipients] == [True, False, True]


def test_a_result_before_the_end_of_the_dialogue_is_kept() -> None:
    """An interrupt may come after the reply was read, and before the dialogue has returned."""
    attempt = Attempt()
    _many(attempt, b"250 m", b"250 a", b"552 5.5.3 b", b"354 go", b"250 first", b"550 m", people=2)
    whole = attempt.result
    assert isinstance(whole, Delivery)
    for people, kind in ((2, Delivery), (3, OutcomeUnknownError)):
        early = Attempt((whole.recipients, whole.replies[0]))
        by = interrupt_error(SystemExit(), Stage.MAIL)
        # Before it was looked at, it is what those say that it was said to.
        assert early.result_after(by) is by
        early.adapted = Submission(
            Mailbox.parse("a@b.example"),
            tuple(Mailbox.parse(f"r{number}@d.example") for number in range(people)),
            Content.from_bytes(b"\r\nx\r\n"),
        )
        for _ in range(2):
            end = early.result_after(by)
            assert type(end) is kind
            assert isinstance(end, Delivery | OutcomeUnknownError)
            assert [each.accepted for each in end.recipients] == [True, False]
