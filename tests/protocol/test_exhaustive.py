"""
Every sequence of server behaviour up to a stated depth: what the caller is told is true in each.

At each command, and at each content, the server gives the right reply, or there is a deviation: three refusals, 421
with and without closing, a wrong positive reply, a malformed one, silence until the time limit, an interrupt while the
client waits or writes, a cut before or within a reply, or a reply to a content that was not fully sent. Replies arrive
at once, or when the client waits for them, or byte by byte.

A run has 4,137 cases: every sequence for one message, and every one with a single deviation for two and three messages
in flight. `pytest -m exhaustive` has 150,333 more, with up to three deviations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from functools import partial as bind
from typing import TYPE_CHECKING, get_args

import pytest

from protocol.model import Arrival, Chooser, ModelServer, check, connect, drive, enumerate_cases
from protocol.play import TLS
from securesmtp import Outcome, Window
from securesmtp._protocol import failures, overlap, progress, transaction
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import Content
from securesmtp._protocol.delivery import Attempt, Delivery, Pipelining, deliver
from securesmtp._protocol.dialogue import Session
from securesmtp._protocol.exchange import Exchange
from securesmtp._protocol.message import Submission
from securesmtp._protocol.overlap import OverlappingSender
from securesmtp._protocol.progress import Progress
from securesmtp._protocol.transaction import Partial
from securesmtp._transport.overlap_support import OverlapSupport
from securesmtp.errors import SecureSMTPError

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from securesmtp._protocol.overlap import _InFlight
    from securesmtp._protocol.wire import RawReply
    from securesmtp._values import Stage
    from securesmtp.errors import OutcomeUnknownError

ARRIVALS = get_args(Arrival)
BOTH = (("PIPELINING",), ("PIPELINING", "CHUNKING"))

# So many lines that a content is two TLS records, and that a chunk is written with its envelope at once.
RECORDS, BLOCK = 6000, 21840


@dataclass(frozen=True)
class Family:
    """
    Cases that differ in nothing but the server's behaviour.

    Attributes:
        offered: What the server offers.
        messages: How many are in flight.
        overlap: None for one message by itself; whether overlapping is known to be supported.
    """

    offered: tuple[str, ...] = ("PIPELINING",)
    messages: int = 1
    recipients: int = 1
    partial: Partial = "raise"
    pipelining: Pipelining = "message"
    overlap: bool | None = None
    lines: int = 1
    arrival: Arrival = "at once"


@dataclass(frozen=True)
class Job:
    """One message of a run, without a deadline."""

    number: int
    submission: Submission
    deadline: None = None


@cache
def submission(number: int, recipients: int, *, lines: int) -> Submission:
    """Return a message; its body has so many lines."""
    to = tuple(Mailbox.parse(f"r{each}@d.example") for each in range(recipients))
    body = b"Subject: x\r\n\r\n" + b"x\r\n" * lines
    return Submission(Mailbox.parse(f"m{number}@b.example"), to, Content.from_bytes(body))


def run(family: Family, seen: set[Outcome], chooser: Chooser) -> None:
    """Run one case of *family*, and check what is told."""
    server = ModelServer(chooser, family.arrival)
    connection = connect(server)
    session = Session(TLS, Capabilities(dict.fromkeys(family.offered, "")))
    results: dict[int, Delivery | BaseException] = {}
    jobs = [Job(n, submission(n, family.recipients, lines=family.lines)) for n in range(family.messages)]
    waiting = list(jobs)

    def report(job: Job, result: Delivery | BaseException) -> None:
        assert job.number not in results, "told twice"
        results[job.number] = result

    raised: list[SecureSMTPError] = []
    try:
        if family.overlap is None:
            one = waiting.pop()
            attempt = Attempt()
            try:
                drive(connection, server, deliver(session, one.submission, family.partial, family.pipelining, attempt))
            finally:
                assert attempt.result is not None, "nobody knows what became of it"
                report(one, attempt.result)
        else:
            support = OverlapSupport(lambda _: None)
            if family.overlap:
                support.confirm()
            sender = OverlappingSender(
                exchange=connection.exchange,
                session=session,
                partial=family.partial,
                window=Window(family.messages),
                support=support,
                next_job=lambda: waiting.pop(0) if waiting else None,
                report=report,
            )
            drive(connection, server, sender.run())
    except AssertionError as error:
        error.add_note(f"{family}: {chooser.names}")
        raise
    except KeyboardInterrupt:
        assert {"interrupt", "interrupt at once"} & set(chooser.names)
    except SecureSMTPError as error:
        raised.append(error)
    assert all(error in results.values() for error in raised), "an error that no message has"
    assert len(results) + len(waiting) == family.messages, "a message that was taken was not told of"
    assert not waiting or connection.exchange.ended, "it stopped without a reason"
    try:
        seen.update(check(server, results))
    except AssertionError as error:
        error.add_note(f"{family}: {chooser.names}: {results}")
        raise


ONE = [
    Family((), pipelining="off"),
    Family(("PIPELINING",)),
    Family(("PIPELINING", "CHUNKING")),
]
TWO_RECIPIENTS = [Family(offered, recipients=2, partial=partial) for offered in BOTH for partial in ("raise", "allow")]


def overlapping(messages: int, *, lines: int = 1, arrival: Arrival = "at once") -> list[Family]:
    """Return the families of so many messages in flight."""
    return [
        Family(offered, messages, overlap=overlap, lines=lines, arrival=arrival)
        for offered in (("PIPELINING",), ("PIPELINING", "CHUNKING"))
        for overlap in (False, True)
    ]


def count(families: list[Family], deviations: int) -> int:
    """Run all cases of *families*, and return how many there are."""
    cases, seen = 0, set[Outcome]()
    for family in families:
        cases += enumerate_cases(bind(run, family, seen), deviations)
    assert seen == set(Outcome)
    return cases


def cases(name: str, families: list[Family], deviations: int, number: int, *, complete: bool = False) -> ParameterSet:
    """Return a row: the families, how many deviations a case has at most, and how many cases there are then."""
    marks = [pytest.mark.exhaustive] * complete
    return pytest.param(families, deviations, number, id=f"{name}-{deviations}", marks=marks)


# More deviations than there are steps: every sequence.
ALL = 99
LATER = [replace(family, arrival=arrival) for family in ONE for arrival in ARRIVALS[1:]]
LARGE = [replace(family, lines=RECORDS) for family in ONE]
IN_TURN = [family for arrival in ARRIVALS[1:] for family in overlapping(2, arrival=arrival)]
THREE_IN_TURN = [family for arrival in ARRIVALS[1:] for family in overlapping(3, arrival=arrival)]


@pytest.mark.parametrize(
    ("families", "deviations", "number"),
    [
        cases("one", ONE, ALL, 2197),
        cases("two recipients", TWO_RECIPIENTS, 1, 224),
        cases("two in flight", overlapping(2), 1, 372),
        cases("three in flight", overlapping(3), 1, 568),
        cases("large", overlapping(2, lines=RECORDS), 1, 388),
        cases("a block", overlapping(2, lines=BLOCK), 1, 388),
        cases("one, later", LATER, ALL, 4394, complete=True),
        cases("one, large", LARGE, ALL, 1993, complete=True),
        cases("two recipients", TWO_RECIPIENTS, ALL, 17626, complete=True),
        cases("two in flight", overlapping(2), 3, 66266, complete=True),
        cases("two in flight, later", IN_TURN, 2, 12928, complete=True),
        cases("two in flight, large", overlapping(2, lines=RECORDS), 2, 6116, complete=True),
        cases("three in flight", overlapping(3), 2, 13670, complete=True),
        cases("three in flight, later", THREE_IN_TURN, 2, 27340, complete=True),
    ],
)
def test_the_outcome_is_true_whatever_the_server_does(families: list[Family], deviations: int, number: int) -> None:
    """In each case: accepted, refused, not sent or unknown, once for each message, and never unknown without need."""
    assert count(families, deviations) == number


def _not_sent(_: Progress, error: SecureSMTPError) -> SecureSMTPError:
    return failures.not_sent_error(error)


def _unknown(_: Progress, error: SecureSMTPError) -> SecureSMTPError:
    return failures.outcome_unknown_error(error)


def _sent_again(error: SecureSMTPError) -> OutcomeUnknownError:
    unknown = failures.outcome_unknown_error(error)
    unknown.retryable = True
    return unknown


def _as_if_written(sender: object, each: _InFlight[Job], error: SecureSMTPError) -> SecureSMTPError:
    return each.transaction.error_after(error)


def _any_2yz(stage: Stage, code: int) -> bool:
    return 200 <= code < 400


def _unchecked(exchange: Exchange, number: int) -> RawReply | None:
    return exchange._reader.next()


def _never(session: Session) -> bool:
    return False


LIES: dict[str, tuple[object, str, object]] = {
    "251 to a content accepts it": (progress, "is_positive", _any_2yz),
    "whatever was lost was not sent": (Progress, "error_after", _not_sent),
    "whatever was lost is unknown": (Progress, "error_after", _unknown),
    "an unknown outcome is sent again": (progress, "outcome_unknown_error", _sent_again),
    "what is held back was written": (OverlappingSender, "_error_after", _as_if_written),
    "a content is accepted before it was written": (Exchange, "_next_checked", _unchecked),
    "a chunk behind a refused RCPT is refused, whatever its reply": (transaction, "is_refusal", lambda _: True),
    "an interrupt is a refusal of the connection": (overlap, "find_interrupt", lambda _: None),
    "every error leaves the session usable": (overlap, "is_session_usable", lambda _: True),
    "a transaction that may be open is not reset": (Session, "needs_reset", property(_never, lambda *_: None)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    """One rule of the library reversed: some case shows it."""
    monkeypatch.setattr(*LIES[lie])
    with pytest.raises(AssertionError):  # noqa: PT012
        for families in (ONE, TWO_RECIPIENTS, overlapping(2), *(overlapping(2, lines=n) for n in (RECORDS, BLOCK))):
            count(families, 1)
