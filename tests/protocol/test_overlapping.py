"""Many messages over one connection: what is written when, and what is reported when the connection ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from protocol.play import TLS, Played, play
from securesmtp import Outcome, Window
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import BLOCK, Content
from securesmtp._protocol.delivery import Delivery
from securesmtp._protocol.dialogue import Session
from securesmtp._protocol.effects import SetDeadline
from securesmtp._protocol.exchange import Exchange
from securesmtp._protocol.message import Submission
from securesmtp._protocol.overlap import OverlappingSender
from securesmtp._protocol.transaction import Partial
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.overlap_support import OverlapSupport
from securesmtp._values import Stage
from securesmtp.errors import ConnectError, SecureSMTPError

DATA, CHUNK = ("PIPELINING",), ("PIPELINING", "CHUNKING")
M, R, GO, OK = b"250 m", b"250 r", b"354 go", b"250 queued"


@dataclass(frozen=True)
class Job:
    """One message."""

    number: int
    submission: Submission
    deadline: Deadline | None = None


@dataclass
class Run:
    """A run of the sender: what was offered, and what it reported, in order."""

    offered: Sequence[str] = CHUNK
    supported: bool | None = True
    window: Window = field(default_factory=lambda: Window(9))
    sizes: Sequence[int] = (20, 20)
    recipients: int = 1
    partial: Partial = "raise"
    reported: list[tuple[int, Delivery | BaseException]] = field(default_factory=list)
    ruled_out: list[str] = field(default_factory=list)
    on_report: Callable[[int], None] = lambda _: None
    exchange: Exchange = field(default_factory=Exchange)
    transactions: int = 0
    deadlines: Sequence[Deadline | None] = (None,) * 9

    def play(self, *answers: bytes | SecureSMTPError, last: BaseException | None = None) -> Played[None]:
        """Send a message of each size against the *answers*; after them, asking for another raises *last*."""
        waiting = [
            Job(number, self._submission(size), self.deadlines[number]) for number, size in enumerate(self.sizes)
        ]
        support = OverlapSupport(self.ruled_out.append)
        support.supported = self.supported

        def next_job() -> Job | None:
            if not waiting and last is not None:
                raise last
            return waiting.pop(0) if waiting else None

        def report(job: Job, result: Delivery | BaseException) -> None:
            self.reported.append((job.number, result))
            self.on_report(job.number)

        keywords = (each.partition(" ") for each in self.offered)
        session = Session(TLS, Capabilities({keyword: value for keyword, _, value in keywords}))
        sender = OverlappingSender(
            exchange=self.exchange,
            session=session,
            partial=self.partial,
            window=self.window,
            support=support,
            next_job=next_job,
            report=report,
        )
        played = play(sender.run(), *answers)
        self.supported, self.transactions = support.supported, session.transactions
        return played

    def _submission(self, size: int) -> Submission:
        to = tuple(Mailbox.parse(f"r{each}@d.example") for each in range(self.recipients))
        head = b"Subject: x\r\n\r\n"
        body = (b"x" * 62 + b"\r\n") * (size // 64 + 1)
        return Submission(Mailbox.parse("a@b.example"), to, Content.from_bytes(head + body[len(head) - size :]))

    @property
    def outcomes(self) -> list[tuple[int, Outcome]]:
        """The outcome of each message, in the order of the reports."""
        return [
            (number, result.outcome if isinstance(result, SecureSMTPError) else Outcome.ACCEPTED)
            for number, result in self.reported
        ]


def verbs(played: Played[None]) -> str:
    """Return the verbs of all commands."""
    return " ".join(command.split()[0].decode() for command in played.commands)


def kinds(played: Played[None]) -> str:
    """Return a letter for each effect; C: a group, R: a reply, B: the content, S: a deadline."""
    return "".join(type(effect).__name__[0] for effect in played.effects)


def test_sizes_are_exact() -> None:
    """The tests below depend on it."""
    assert [Run()._submission(size).content.size for size in (20, BLOCK, BLOCK + 1)] == [20, BLOCK, BLOCK + 1]


def test_only_the_envelope_of_one_message_is_written_in_the_trial() -> None:
    """Neither its content nor a third message, until the replies have shown that the host supports overlapping."""
    run = Run(supported=None, sizes=(20, 20, 20))
    played = run.play(M, R, OK, b"250 reset", M, R, OK, b"250 reset", M, R, OK)
    assert verbs(played) == "MAIL RCPT BDAT RSET MAIL RCPT BDAT RSET MAIL RCPT BDAT"
    limits = [effect.limit for effect in played.effects if isinstance(effect, SetDeadline)]
    # The trial's own limit, once: while the second message waits for the replies to its envelope.
    assert limits == ["", "trial", ""]
    assert kinds(played).startswith("SCBCRRRSRRRCBSCB")
    assert run.outcomes == [(0, Outcome.ACCEPTED), (1, Outcome.ACCEPTED), (2, Outcome.ACCEPTED)]
    assert (run.supported, run.ruled_out) == (True, [])


def test_a_server_that_refuses_an_overlapping_envelope_gets_one_message_at_a_time() -> None:
    """503 says nothing about the message: it is sent again (SERVERS.md)."""
    run = Run(supported=None, offered=DATA, sizes=(20, 20, 20))
    played = run.play(M, R, GO, OK, b"503 busy", b"503 no", b"503 no", b"250 reset", M, R, GO, OK, M, R, GO, OK)
    assert verbs(played) == "MAIL RCPT DATA MAIL RCPT DATA RSET MAIL RCPT DATA MAIL RCPT DATA"
    assert run.outcomes == [(0, Outcome.ACCEPTED), (1, Outcome.ACCEPTED), (2, Outcome.ACCEPTED)]
    assert (run.supported, run.ruled_out) == (False, ['the server replied "503 busy"'])


@pytest.mark.parametrize(("size", "overlaps"), [(BLOCK, True), (BLOCK + 1, False)])
def test_a_large_message_is_not_written_for_the_trial(size: int, *, overlaps: bool) -> None:
    """It might outlast the trial, and would be written twice; once the trial went well, size does not matter."""
    run = Run(offered=DATA, supported=None, sizes=(20, size))
    played = run.play(M, R, GO, OK, M, R, GO, OK)
    # Overlapping is a group before the first message's result.
    assert kinds(played).startswith("SCRRRBCRS" if overlaps else "SCRRRBRC")
    assert (run.supported, len(run.reported)) == (True if overlaps else None, 2)
    run = Run(offered=DATA, supported=True, sizes=(20, size))
    assert kinds(run.play(M, R, GO, OK, M, R, GO, OK)).startswith("SCRRRBCR")


@pytest.mark.parametrize(
    ("window", "in_flight"), [(Window(3), 3), (Window(9, 39), 2), (Window(9, 40), 2), (Window(9, 41), 3)]
)
def test_the_window_limits_messages_and_bytes(window: Window, in_flight: int) -> None:
    """A message is started if those in flight are fewer than both limits."""
    run = Run(window=window, sizes=(20, 20, 20, 20))
    replies: list[bytes] = [M, R, OK]
    played = run.play(*replies, *[b"250 reset", *replies] * 3)
    assert kinds(played).startswith("S" + "CB" * in_flight + "RRR")
    assert run.outcomes == [(number, Outcome.ACCEPTED) for number in range(4)]
    assert run.transactions == 4


def test_each_message_has_its_own_deadline() -> None:
    """It is set before each step whose message has another than the step before; that of a trial is taken back."""
    deadlines = [Deadline("deadline", seconds) for seconds in (1, 2)]
    played = Run(sizes=(20, 20, 20), deadlines=[*deadlines, None]).play(M, R, OK, *[b"250 reset", M, R, OK] * 2)
    assert kinds(played) == "SCBSCBSCBSRRRSRRRRSRRRR"
    limits = [effect.deadline for effect in played.effects if isinstance(effect, SetDeadline)]
    assert limits == [*deadlines, None] * 2
    (same, _) = deadlines
    played = Run(supported=None, sizes=(20, 20), deadlines=[same, same]).play(M, R, OK, b"250 reset", M, R, OK)
    assert kinds(played) == "SCBCRRRSRRRCBSR"
    limits = [effect.deadline for effect in played.effects if isinstance(effect, SetDeadline)]
    assert limits == [same] * 3


@pytest.mark.parametrize(
    ("offered", "recipients", "replies"),
    [
        ((), 1, [M, R, GO, OK]),
        (("CHUNKING",), 1, [M, R, GO, OK]),
        (("PIPELINING", "LIMITS RCPTMAX=1"), 2, [M, R, GO, OK] * 2),
    ],
)
def test_what_cannot_overlap_is_sent_by_itself(offered: Sequence[str], recipients: int, replies: list[bytes]) -> None:
    """Without PIPELINING, or with more recipients than one transaction may have (RFC 9422)."""
    run = Run(offered=offered, recipients=recipients, partial="allow")
    played = run.play(*replies, *replies)
    assert (played.unused, verbs(played).count("DATA"), run.transactions) == (0, len(replies) // 2, len(replies) // 2)
    assert verbs(played).count("MAIL RCPT DATA") == len(replies) // 2
    assert run.outcomes == [(0, Outcome.ACCEPTED), (1, Outcome.ACCEPTED)]
    assert all(isinstance(result, Delivery) and len(result.recipients) == recipients for _, result in run.reported)


def test_as_many_recipients_as_a_transaction_may_have_can_overlap() -> None:
    """The limit is inclusive (RFC 9422 §4.2)."""
    run = Run(offered=("PIPELINING", "CHUNKING", "LIMITS RCPTMAX=2"), recipients=2)
    played = run.play(M, R, R, OK, b"250 reset", M, R, R, OK)
    assert verbs(played) == "MAIL RCPT RCPT BDAT RSET MAIL RCPT RCPT BDAT"
    assert run.outcomes == [(0, Outcome.ACCEPTED), (1, Outcome.ACCEPTED)]


def test_what_came_before_the_end_is_read_and_nothing_is_started() -> None:
    """The replies to the messages in flight decide their outcome; the next message was not taken."""
    run = Run(sizes=(20, 20, 20), window=Window(2))
    run.on_report = lambda number: run.exchange.end(ConnectError("gone")) if number == 0 else None
    played = run.play(M, R, OK, b"250 reset", M, R, OK)
    assert verbs(played) == "MAIL RCPT BDAT RSET MAIL RCPT BDAT"
    assert run.outcomes == [(0, Outcome.ACCEPTED), (1, Outcome.ACCEPTED)]


def test_a_message_that_waits_for_its_turn_is_not_sent_when_the_connection_ends() -> None:
    """It can be sent over another connection."""
    run = Run(offered=DATA, supported=None, sizes=(20, BLOCK + 1))
    run.on_report = lambda number: run.exchange.end() if number == 0 else None
    run.play(M, R, GO, OK)
    assert run.outcomes == [(0, Outcome.ACCEPTED), (1, Outcome.NOT_SENT)]
    error = run.reported[1][1]
    assert isinstance(error, ConnectError)
    assert error.retryable
    assert str(error.args[0]).endswith(": the connection was closed")


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_fault_between_two_messages_leaves_none_without_an_outcome(fault: type[BaseException]) -> None:
    """It is raised again. A content that was fully sent may have been delivered; a message that waits was not sent."""
    run = Run(sizes=(20,))
    with pytest.raises(fault):
        run.play(last=fault())
    assert run.outcomes == [(0, Outcome.UNKNOWN)]
    assert f"the send was interrupted by {fault.__name__}" in str(run.reported[0][1])

    def fail(number: int) -> None:
        if number == 0:
            raise fault

    run = Run(offered=DATA, supported=None, sizes=(20, BLOCK + 1), on_report=fail)
    with pytest.raises(fault):
        run.play(M, R, GO, OK)
    assert run.outcomes == [(0, Outcome.ACCEPTED), (1, Outcome.NOT_SENT)]
    error = run.reported[1][1]
    assert isinstance(error, ConnectError)
    assert (error.stage, error.retryable) == (Stage.MAIL, True)
