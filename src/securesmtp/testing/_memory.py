"""
What the recording mailers have instead of a pool of connections: the dialogues of the real mailers, held with a `Peer`.

So their receipts and errors are made by the same code.
"""

from __future__ import annotations

import threading
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, TypeVar, cast

from securesmtp._bulk.calls import perform
from securesmtp._bulk.jobs import Ending, Job
from securesmtp._protocol.delivery import deliver
from securesmtp._protocol.dialogue import authenticate, open_session, pick_mechanism
from securesmtp._protocol.sasl import Password
from securesmtp._sending import Sending
from securesmtp._values import Receipt, SendResult, TLSMode
from securesmtp.errors import AuthenticationError, SecureSMTPError
from securesmtp.testing._faults import FaultName, check_fault
from securesmtp.testing._peer import ADDRESS, Peer

if TYPE_CHECKING:
    from email.message import Message

    from securesmtp._bulk.run import Run
    from securesmtp._core import Core
    from securesmtp._envelope import Envelope
    from securesmtp._protocol.delivery import Attempt
    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.effects import Answer, Dialogue
    from securesmtp._protocol.message import Submission
    from securesmtp._protocol.transaction import Partial
    from securesmtp._report import ServerReport
    from securesmtp._submissions import Parcel
    from securesmtp._transport.connection import Connection
    from securesmtp.testing._rules import Rules

T = TypeVar("T")
# They need a server: one takes time, the other a second token.
_ONLY_SERVERS = ("slow", "oauth_expired")


class MemoryServer:
    """
    The server of one mailer.

    Attributes:
        rules: What it does with messages.
    """

    def __init__(self, core: Core, rules: Rules) -> None:
        """Serve the mailer that has this *core*."""
        self._core, self.rules = core, rules
        self._lock = threading.Lock()

    def send(self, submission: Submission, partial: Partial) -> Receipt:
        """
        Accept one message, and return its receipt.

        Raises:
            SecureSMTPError: As the mailer's `send`.
        """
        core, sending = self._core, Sending(submission.content.message_id, monotonic(), submission=submission)
        try:
            core.refuse_if_closed()
            with self._lock:
                peer = Peer(self.rules, core.settings)
                receipt = _play(self._delivery(sending, submission, partial, peer.attempt), peer)
        except SecureSMTPError as error:
            core.activity.count(error)
            core.record_error(sending, error)
            raise
        core.activity.count(receipt)
        return core.report_receipt(sending, receipt)

    def result(self, run: Run, index: int, message: Message | Envelope | Parcel, deadline: float | None) -> SendResult:
        """
        Return what becomes of one message of a *run*.

        Raises:
            LedgerError: The ledger of the run has failed before.
        """
        claims = run.claims
        if claims is not None and claims.failures:
            raise claims.failures.pop()
        job = run.job(index, message, deadline)
        if isinstance(job, Job) and claims is None:
            self._send_job(run, job)
        elif isinstance(job, Job) and claims is not None:
            claims.waiting.append(job)
            for claimed in perform(claims.advance(1, 0)):
                self._send_job(run, claimed)
            perform(claims.flush())
        end = cast("SendResult | BaseException", job.end)
        if isinstance(end, BaseException):
            raise end
        return end

    def _send_job(self, run: Run, job: Job) -> None:
        if run.fatal_error is not None:
            run.refuse(job, run.fatal_error)
            return
        job.begin()
        with Ending[Receipt]() as ending:
            ending.end = self.send(job.submission, run.partial)
        job.finish(ending.end)

    def check(self) -> ServerReport:
        """
        Return what a check finds.

        Raises:
            SecureSMTPError: As the mailer's `check`.
        """
        core, refusal = self._core, None
        core.refuse_if_closed()
        try:
            peer = Peer(self.rules, core.settings)
            session = _play(self._open(), peer)
            if core.settings.login is not None:
                try:
                    _play(pick_mechanism(session, core.settings.login), peer)
                    _play(self._login(session), peer)
                except AuthenticationError as error:
                    refusal = error
                    core.report_error(error)
        except SecureSMTPError as error:
            core.report_error(error)
            raise
        # Of a connection, a report tells the addresses.
        channel = SimpleNamespace(addresses=(ADDRESS,), address=ADDRESS)
        return core.report(cast("Connection", SimpleNamespace(channel=channel)), session, refusal)

    def _open(self) -> Dialogue[Session]:
        settings = self._core.settings
        mode = TLSMode.STARTTLS if self.rules.fault == "starttls_stripped" else settings.mode
        return open_session(mode, settings.ehlo_name)

    def _login(self, session: Session) -> Dialogue[None]:
        # The mailer's own password is not asked for: it may be a coroutine function, or cost something.
        if self.rules.fault == "bad_login":
            yield from authenticate(session, Password("me", "refused"))

    def _delivery(
        self, sending: Sending, submission: Submission, partial: Partial, attempt: Attempt
    ) -> Dialogue[Receipt]:
        session = yield from self._open()
        yield from self._login(session)
        sending.progress = session, submission, attempt
        delivery = yield from deliver(session, submission, partial, attempt=attempt)
        return sending.accept(session, submission, delivery)


def _play(dialogue: Dialogue[T], peer: Peer) -> T:
    """Have *peer* answer the effects of *dialogue* until it ends."""
    answer, failure = cast("Answer", None), cast("Exception | None", None)
    try:
        while True:
            effect = dialogue.send(answer) if failure is None else dialogue.throw(failure)
            answer, failure = None, None
            try:
                answer = peer.answer(effect)
            except Exception as error:  # noqa: BLE001 -- as a connection does
                failure = error
    except StopIteration as stop:
        return cast("T", stop.value)


def check_memory_fault(name: FaultName | None) -> None:
    """
    Check that *name* is None or a fault that can be played without a server.

    Raises:
        ValueError: It is not.
    """
    check_fault(name)
    if name in _ONLY_SERVERS:
        message = f"the fault {name} needs a server: use mail_server_factory(fault={name!r})"
        raise ValueError(message)
