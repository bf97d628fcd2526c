"""
Many messages in flight over one connection, with a server that says anything at all. No socket, no clock.

A stream is driven over the real link; a `Wire` stands for its socket. The low bits of the input's first octet choose
the `Case`; greeting and EHLO are as they should be. The rest is what the server says then, as in the session's harness.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from unittest import mock

from audit import _replies
from fuzz.wire import Wire, memory_link
from protocol.play import TLS
from securesmtp import Outcome, SecureSMTPError, Window
from securesmtp._protocol.content import Content
from securesmtp._protocol.delivery import Delivery
from securesmtp._protocol.dialogue import open_session
from securesmtp._protocol.message import Submission, envelope_recipients
from securesmtp._protocol.overlap import OverlappingSender
from securesmtp._protocol.transaction import Partial
from securesmtp._transport import channel as transport
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.overlap_support import OverlapSupport
from securesmtp._values import TLSMode
from securesmtp.errors import TLSError

MESSAGES = 5
_LINE = re.compile(rb"(?:MAIL FROM:<m\d@b\.example> SIZE=\d+|RCPT TO:<r\d@d\.example>|DATA|BDAT \d+ LAST|RSET)\r\n")


class Case(IntFlag):
    """What is asked for; a window of one to four."""

    CHUNKING = 1
    ALLOW = 2
    TWO = 4
    PROVED = 8
    WIDER = 16
    WIDEST = 32


@dataclass
class Job:
    """One message."""

    number: int
    submission: Submission
    deadline: Deadline | None = None


@dataclass
class Seen:
    """What a server saw of one message, and what it answered."""

    mail: bytes = b""
    recipients: tuple[bytes, ...] = ()
    ended: bool = False
    final: bytes = b""

    @property
    def accepted(self) -> bool:
        """Whether the server has it."""
        return (
            self.ended
            and (self.mail, self.final) == (b"250", b"250")
            and any(code.startswith(b"25") for code in self.recipients)
        )

    @property
    def was_taken(self) -> bool:
        """Whether it has said yes to the content, whatever it said before; a content for nobody may be somebody's."""
        return self.ended and self.final == b"250"


def check(octets: bytes) -> str:
    """Check every rule on what comes of *octets*, and return the outcomes' names, each once."""
    case = Case(octets[0] & 63 if octets else 0)
    offer = b"PIPELINING\r\n250-CHUNKING" if Case.CHUNKING in case else b"PIPELINING"
    opening = [b"220 mx\r\n", b"250-mx\r\n250-" + offer + b"\r\n250 SIZE\r\n"]
    wire = Wire([*opening, *octets[1:].split(b"|")])
    partial: Partial = "allow" if Case.ALLOW in case else "raise"
    jobs = [Job(number, _submission(number, 2 if Case.TWO in case else 1)) for number in range(MESSAGES)]
    waiting, told = list(jobs), dict[int, Delivery | BaseException]()

    def tell(job: Job, what: Delivery | BaseException) -> None:
        assert job.number not in told, "told twice"
        told[job.number] = what

    support = OverlapSupport(lambda _: None)
    if Case.PROVED in case:
        support.confirm()
    with mock.patch.multiple(transport, wrap=wire.wrap, verify_session=lambda *_: TLS):
        link = memory_link(wire, TLSMode.IMPLICIT)
        session = link.run(open_session(TLSMode.IMPLICIT, b"client.example"))
        sender = OverlappingSender(
            exchange=link.connection.exchange,
            session=session,
            partial=partial,
            window=Window(1 + (int(case) >> 4)),
            support=support,
            next_job=lambda: waiting.pop(0) if waiting else None,
            report=tell,
        )
        link.run(sender.run())
    assert wire.closed or not waiting, "it stopped without a reason"
    _check(wire, told, MESSAGES - len(waiting))
    return " ".join(sorted({_outcome(what).value for what in told.values()}))


def _submission(number: int, people: int) -> Submission:
    addresses = (f"m{number}@b.example", *(f"r{each}@d.example" for each in range(people)))
    mail_from, *recipients = envelope_recipients(addresses)
    return Submission(mail_from, tuple(recipients), Content.from_bytes(b"Subject: %d\r\n\r\n.x\r\n" % number))


def _outcome(what: Delivery | BaseException) -> Outcome:
    if isinstance(what, Delivery):
        return Outcome.ACCEPTED
    assert isinstance(what, SecureSMTPError), what
    # The link's gate is the last defence, and the dialogues never come to it.
    assert type(what) is not TLSError, what
    assert what.outcome is not Outcome.ACCEPTED
    return what.outcome


def _check(wire: Wire, told: dict[int, Delivery | BaseException], begun: int) -> None:
    """Read the log once more, without the library: each is told, and what it is told is so."""
    said = b"".join(octets for who, octets in wire.log if who == "client")
    heard = b"".join(octets for who, octets in wire.log if who == "server")
    codes = _replies(heard)[0][2:]
    seen = dict[int, list[Seen]]()
    for number, transaction in _read(said.partition(b"\r\n")[2], iter(codes)):
        seen.setdefault(number, []).append(transaction)
    assert set(told) == set(range(begun)), "somebody was told nothing"
    for number, what in told.items():
        # Several where the server wants the recipients so (452).
        outcome, transactions = _outcome(what), seen.get(number, [])
        if isinstance(what, Delivery):
            taken = sum(code.startswith(b"25") for each in transactions if each.accepted for code in each.recipients)
            assert taken == sum(each.accepted for each in what.recipients), "accepted, and it is not so"
        elif outcome is Outcome.UNKNOWN:
            assert any(each.ended for each in transactions), "unknown, and it was not written to its end"
        else:
            assert not any(each.was_taken for each in transactions), f"{outcome}, and the server has it"


def _read(said: bytes, codes: Iterator[bytes]) -> Iterator[tuple[int, Seen]]:
    number, seen = -1, Seen()
    while said:
        found = _LINE.match(said)
        if found is None:
            # A line that was not written to its end.
            assert b"\r\n" not in said, f"no command of ours: {said[:100]!r}"
            break
        verb, said = said[:4], said[found.end() :]
        if verb == b"MAIL":
            if number >= 0:
                yield number, seen
            number, seen = int(found[0][12:13]), Seen(mail=next(codes, b""))
        elif verb == b"RCPT":
            seen.recipients += (next(codes, b""),)
        elif verb == b"BDAT":
            size = int(found[0].split()[1])
            seen.ended, said = len(said) >= size, said[size:]
            seen.final = next(codes, b"")
        elif verb == b"DATA":
            code = next(codes, b"")
            if code == b"354":
                content, end, said = (b"\r\n" + said).partition(b"\r\n.\r\n")
                seen.ended = bool(end) and content != b""
                seen.final = next(codes, b"")
        else:
            next(codes, b"")
    yield number, seen
