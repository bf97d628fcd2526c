"""The messages of a run that one connection carries, several of them in flight at a time."""

from __future__ import annotations

from collections import deque
from functools import partial as bind
from typing import TYPE_CHECKING, Any

from securesmtp._bulk.jobs import Job
from securesmtp._bulk.rules import can_resend
from securesmtp._bulk.run import Step
from securesmtp._protocol.delivery import Attempt, Delivery
from securesmtp._protocol.failures import is_used_up
from securesmtp._protocol.overlap import OverlappingSender
from securesmtp._sending import Checkout, Sending
from securesmtp._tracebacks import drop_frames
from securesmtp.errors import SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._bulk.run import Run
    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.effects import Dialogue
    from securesmtp._protocol.exchange import Exchange
    from securesmtp._transport.overlap_support import OverlapSupport
    from securesmtp._transport.slot import Slot


class Batch:
    """
    The messages that one worker sends over one connection.

    Attributes:
        checkout: How far it got with the connection.
        leaves: Whether the worker ends after it, because the server has too many connections.
    """

    def __init__(
        self,
        run: Run,
        first: Job,
        support: OverlapSupport,
        next_job: Callable[[], Job | None],
        put_back: Callable[[Job], None],
    ) -> None:
        """Start with *first*; *next_job* returns a further one, or None if there is none now."""
        self.checkout = Checkout(run.take_login_permit(), has_turn=True)
        self.leaves = False
        self._run, self._support, self._next_job, self._put_back = run, support, next_job, put_back
        self._waiting, self._resend = deque([first]), deque[Job]()
        self._under_way = run.core.activity.under_way
        self._sendings: dict[Job, Sending] = {}

    def action(self, exchange: Exchange, slot: Slot[Any], session: Session) -> Dialogue[None]:
        """Send messages until there are no more now, or the connection has ended."""
        run = self._run
        self.checkout.session = session
        run.note_connection()
        return OverlappingSender(
            exchange=exchange,
            session=session,
            partial=run.partial,
            window=run.core.settings.window,
            support=self._support,
            next_job=bind(self._take, slot, session),
            report=bind(self._report, slot, session),
        ).run()

    def settle(self, error: BaseException | None) -> Step:
        """Give the unsent messages the *error* that ended the batch, if there is one; return the worker's next step."""
        # Messages that were sent over the connection have been reported.
        while error is not None and (job := self.next_unsent()) is not None:
            sending = Sending(job.submission.content.message_id, job.started, submission=job.submission)
            end = self._run.conclude(sending, error)
            if self.checkout.is_unconnected and isinstance(end, Exception):
                drop_frames(end)
                return self._run.settle_unconnected(job, end, self._put_back)
            self._run.finish(job, end)
        return Step.LEAVE if self.leaves else Step.CONTINUE

    def next_unsent(self) -> Job | None:
        """Return a message that is to be sent by itself, or None if there are no more."""
        unsent = self._resend or self._waiting
        return unsent.popleft() if unsent else None

    def put_back_unsent(self) -> None:
        """Leave the unsent messages to other workers."""
        while (job := self.next_unsent()) is not None:
            self._put_back(job)

    def _take(self, slot: Slot[Any], session: Session) -> Job | None:
        if slot.remaining <= 0 or self.leaves or self._run.core.is_closed:
            return None
        job = self._waiting.popleft() if self._waiting else self._next_job()
        if job is not None:
            slot.messages_left -= 1
            progress, submission = (session, job.submission, Attempt()), job.submission
            sending = Sending(submission.content.message_id, job.started, progress, submission=submission)
            self._sendings[job] = self._under_way[id(sending)] = sending
        return job

    def _report(self, slot: Slot[Any], session: Session, job: Job, end: Delivery | BaseException) -> None:
        try:
            self._settle(slot, session, job, end)
        finally:
            self._under_way.pop(id(self._sendings.pop(job)), None)

    def _settle(self, slot: Slot[Any], session: Session, job: Job, end: Delivery | BaseException) -> None:
        run, sending = self._run, self._sendings[job]
        left = 0 if self.leaves else run.shrink_after(end)
        if left:
            # This connection is one too many: no further message is sent over it.
            slot.messages_left, self.leaves = 0, True
        elif is_used_up(session.transactions, end):
            slot.messages_left = 0
        # Not counted as a try if the worker leaves: the run has one worker less each time.
        may_resend = self.leaves or not job.was_resent
        if not isinstance(end, Delivery) and may_resend and self._can_resend(session, end):
            job.was_resent = job.was_resent or not self.leaves
            drop_frames(end)
            sending.error = end if isinstance(end, SecureSMTPError) else None
            self._resend.append(job)
        else:
            result = sending.accept(session, job.submission, end) if isinstance(end, Delivery) else end
            run.finish(job, run.conclude(sending, result))
        # Last, because on_event may raise.
        if left:
            run.emit_fewer(left, end)

    def _can_resend(self, session: Session, error: BaseException) -> bool:
        """Return whether a message that met *error* among others in flight is sent once more, by itself."""
        core = self._run.core
        is_login_lost = core.can_log_in_again(session, error)
        if is_login_lost and session.transactions == 1:
            # The message is tried once more, and then no other one.
            core.last_login_was_lost = True
        return is_login_lost or is_used_up(session.transactions, error) or can_resend(error)
