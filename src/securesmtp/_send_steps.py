"""
What a send does, as steps: it takes a connection, delivers its message, and says what became of it.

A thread performs the steps of its send one after the other; the thread of a run has several sends under way.
"""

from __future__ import annotations

import threading
from functools import partial as bind
from time import monotonic
from typing import TYPE_CHECKING, TypeVar, cast

from securesmtp._bulk.rules import is_connection_limit
from securesmtp._protocol.delivery import transactions_needed
from securesmtp._protocol.failures import is_used_up
from securesmtp._sending import Checkout, Sending
from securesmtp._submissions import check_partial
from securesmtp._transport.slot import Lease
from securesmtp._transport.task import Visit
from securesmtp.errors import AuthenticationError, SecureSMTPError
from securesmtp.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._core import Action, Core
    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.message import Submission
    from securesmtp._protocol.transaction import Partial
    from securesmtp._transport.channel import Steps
    from securesmtp._transport.deadline import Deadline
    from securesmtp._transport.pool import Pool
    from securesmtp._transport.steps import Waiter
    from securesmtp._values import Receipt

T = TypeVar("T")


class Sender:
    """Sends messages over the connections of a mailer, from one thread."""

    def __init__(self, core: Core, pool: Pool, new_waiter: Callable[[], Waiter], *, is_one_of_many: bool) -> None:
        """Wait by *new_waiter* for a free connection; if *is_one_of_many*, the thread has several sends at once."""
        self._core, self._pool, self._new_waiter, self._is_one_of_many = core, pool, new_waiter, is_one_of_many

    def submit(
        self, submission: Submission, partial: Partial, deadline: Deadline | None, checkout: Checkout | None = None
    ) -> Steps[Receipt]:
        """Send one message, return its receipt and emit its event."""
        check_partial(partial)
        core, sending = self._core, Sending(submission.content.message_id, monotonic(), submission=submission)
        activity, key = core.activity, id(sending)
        # Nested, because an interrupt may strike while an error is recorded.
        try:
            # Without a call, after which an interrupt could strike: it would stay there.
            activity.under_way[key] = sending
            try:
                receipt = yield from self._deliver(sending, submission, partial, deadline, checkout or Checkout())
                return core.report_receipt(sending, receipt)
            except SecureSMTPError as error:
                core.record_error(sending, error)
                raise
        except BaseException as error:
            core.record_interrupt(sending, error)
            raise
        finally:
            # It strikes after a call, too, so it is gone by then.
            activity.under_way.pop(key, None)
            if checkout is None or not checkout.is_of_run:
                activity.count(sending.end)

    def _deliver(
        self,
        sending: Sending,
        submission: Submission,
        partial: Partial,
        deadline: Deadline | None,
        checkout: Checkout,
    ) -> Steps[Receipt]:
        """Send one message over a connection; if that has lost its login, or carried enough, over a new one."""
        core, action = self._core, self._core.action(sending, submission, checkout, partial)
        needs = bind(transactions_needed, len(submission.recipients), partial)
        while True:
            try:
                return (yield from self.with_connection(deadline, action, checkout, needs))
            except SecureSMTPError as error:
                if not core.sends_again(sending, error):
                    raise
                checkout.needs_new = True
                if isinstance(error, AuthenticationError):
                    self._pool.discard_idle()

    def with_connection(
        self,
        deadline: Deadline | None,
        action: Action[T],
        checkout: Checkout,
        needs: Callable[[Session], int] | None = None,
    ) -> Steps[T]:
        """Run *action* on a connection that no other send uses meanwhile, with room for what the message *needs*."""
        core, pool, slot, events = self._core, self._pool, None, list[Event]()
        lease = Lease(threading.get_ident(), may_wait=self._is_one_of_many, has_turn=checkout.has_turn)
        checkout.has_slot, checkout.session = False, None
        try:
            slot = yield from pool.acquire(lease, deadline, self._new_waiter)
            core.refuse_if_closed()
            checkout.check_use()
            checkout.has_slot = checkout.has_turn = True
            while True:
                link = pool.link(slot, deadline, needs, is_new=checkout.needs_new)
                try:
                    deliver = bind(action, link.connection.exchange)
                    visit = pool.slots.visit(slot, deliver, ignore_pause=checkout.ignores_pause)
                    return cast("T", (yield Visit(link, visit)))
                except BaseException as error:
                    # Closed again, because a second interrupt may have struck while the first was handled.
                    if not link.is_usable:
                        link.close()
                    # A new token is tried over a new connection.
                    if slot.refusal is None or error is not slot.refusal:
                        raise
                finally:
                    if checkout.session is not None:
                        events = pool.slots.mark_used(slot, link)
        except SecureSMTPError as error:
            checkout.note_error(error)
            if slot is not None and (is_connection_limit(error) or is_used_up(checkout.transactions, error)):
                # It is closed, and not used for the next message.
                slot.messages_left = 0
            raise
        finally:
            # First, and by an assignment alone: an interrupt can only strike after a call.
            lease.done = True
            for event in events:
                core.emit(event)
            if slot is not None and core.is_closed:
                pool.close_idle(slot)
            pool.notify()
