"""A write that fails at any record: nothing more is written, replies are read, and each outcome is true."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from unittest import mock

import pytest

from fuzz.flights import Job
from fuzz.wire import MemoryLink, Wire, memory_link
from protocol.play import TLS
from securesmtp import Outcome, SecureSMTPError, Window
from securesmtp._protocol.content import Content
from securesmtp._protocol.delivery import Delivery, deliver
from securesmtp._protocol.dialogue import Session, open_session
from securesmtp._protocol.message import Submission, envelope_recipients
from securesmtp._protocol.overlap import OverlappingSender
from securesmtp._transport import channel as transport
from securesmtp._transport.overlap_support import OverlapSupport
from securesmtp._values import TLSMode

# So long that a flight and its content are several records.
BODY = b"y" * 70 + b"\r\n" * 12_000
PEOPLE = 400


class Breaking(Wire):
    """A wire whose other end is gone once so many records were written; *last* is what it has sent by then."""

    def __init__(self, pieces: list[bytes], records: int, last: bytes) -> None:
        super().__init__(pieces)
        self._left, self._last = records, last
        self.failed = False

    def send(self, octets: memoryview) -> int:
        """Take a record, or fail for good."""
        assert not self.failed, "something was written after a write that failed"
        if b"EHLO" not in bytes(octets[:4]):
            if not self._left:
                self.failed = True
                self._pieces[:0] = [b"!" + self._last, b"!"]
                raise BrokenPipeError
            self._left -= 1
        return super().send(octets)


def _submission(number: int) -> Submission:
    addresses = (f"m{number}@b.example", *(f"r{each}@d.example" for each in range(PEOPLE)))
    mail_from, *recipients = envelope_recipients(addresses)
    return Submission(mail_from, tuple(recipients), Content.from_bytes(b"Subject: %d\r\n\r\n%s" % (number, BODY)))


def _alone(link: MemoryLink, session: Session) -> list[Delivery | BaseException]:
    try:
        return [link.run(deliver(session, _submission(0), "allow", "message"))]
    except SecureSMTPError as error:
        return [error]


def _in_flight(link: MemoryLink, session: Session) -> list[Delivery | BaseException]:
    waiting, told = [Job(number, _submission(number)) for number in range(3)], list[Delivery | BaseException]()
    support = OverlapSupport(lambda _: None)
    support.confirm()
    sender = OverlappingSender(
        exchange=link.connection.exchange,
        session=session,
        partial="allow",
        window=Window(3),
        support=support,
        next_job=lambda: waiting.pop(0) if waiting else None,
        report=lambda _, what: told.append(what),
    )
    link.run(sender.run())
    return told


@pytest.mark.parametrize("send", [_alone, _in_flight])
@pytest.mark.parametrize("offer", [b"PIPELINING", b"PIPELINING\r\n250-CHUNKING"], ids=["data", "chunk"])
@pytest.mark.parametrize(
    "last",
    [b"", b"250 ok\r\n", b"550 no\r\n" * 900, b"421 bye\r\n", b"250 ok\r\n" * 300, b"rubbish\r\n"],
    ids=["nothing", "one", "refusals", "421", "some", "rubbish"],
)
def test_after_a_failed_write_nothing_is_written_and_replies_are_read(
    send: Callable[[MemoryLink, Session], list[Delivery | BaseException]], offer: bytes, last: bytes, stride: int
) -> None:
    """The error is one of ours; the outcome is true: unknown only if a content was fully sent (issue 12, 12)."""
    for records in count(len(last) % stride, stride):
        ready = [b"220 mx\r\n", b"250-mx\r\n250-" + offer + b"\r\n250 SIZE\r\n"]
        good = b"250 ok\r\n" * (PEOPLE + 1) + (b"354 go\r\n" if offer == b"PIPELINING" else b"")
        wire = Breaking([*ready, *[good, b"250 queued\r\n"] * 3], records, last)
        with mock.patch.multiple(transport, wrap=wire.wrap, verify_session=lambda *_: TLS):
            link = memory_link(wire, TLSMode.IMPLICIT)
            told = send(link, link.run(open_session(TLSMode.IMPLICIT, b"client.example")))
        if not wire.failed:
            assert records > 2
            return
        assert wire.closed
        whole = len(re.findall(rb"Subject: \d\r\n\r\n" + BODY, bytes(wire.secret)))
        unsure = [what for what in told if isinstance(what, Delivery) or _outcome(what) is Outcome.UNKNOWN]
        assert len(unsure) <= whole
        if last.startswith(b"550") and not whole:
            assert _outcome(told[0]) is Outcome.REFUSED


def _outcome(what: Delivery | BaseException) -> Outcome:
    assert isinstance(what, SecureSMTPError), what
    return what.outcome
