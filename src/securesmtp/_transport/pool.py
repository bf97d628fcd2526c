"""
The queue of threads for the connections of one mailer, in one process.

How it works: a send acquires a slot and releases it by `lease.done = True`. That is one attribute assignment, so
whatever interrupts a send, its slot becomes free. A send that finds no free slot is put into a queue. It is woken by a
notification, and polls as well, because a signal may have interrupted the thread that should have notified it. Nothing
is read from or written to a connection while the lock is held.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack
from functools import partial as bind
from itertools import takewhile
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from securesmtp._interrupts import SuppressErrors, call_locked
from securesmtp._protocol.dialogue import quit_session
from securesmtp._transport.link import Link
from securesmtp._transport.overlap_support import OverlapSupport
from securesmtp._transport.password import PasswordCalls
from securesmtp._transport.slot import Lease, Slot
from securesmtp._transport.slots import Slots
from securesmtp._transport.steps import Sleep
from securesmtp._values import Stage
from securesmtp.errors import AuthenticationError, ConfigurationError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.redaction import Memory
    from securesmtp._settings import Settings
    from securesmtp._transport.channel import Steps
    from securesmtp._transport.deadline import Deadline
    from securesmtp._transport.steps import Waiter
    from securesmtp.events import Event

T = TypeVar("T")
WAITING = "waiting for one of the mailer's connections, which are all in use"
WAITING_FOR_TURN = "waiting for its turn, because of the mailer's rate"
# How often a waiting send polls, in seconds.
_POLL_INTERVAL = 0.2
# A waiter that has not polled for this long is skipped: its thread was interrupted, or runs a signal handler.
_ABANDONED_AFTER = 1.0
# How often `close` checks whether a send is done, in seconds.
_CLOSE_POLL_INTERVAL = 0.02


class Pool:
    """The connections of one mailer in the process that made it; a forked child makes a pool of its own."""

    def __init__(
        self,
        settings: Settings,
        context: ssl.SSLContext | None,
        on_event: Callable[[Event], None] | None,
        memory: Memory,
        new_link: Callable[[Settings, ssl.SSLContext, Memory], Link] = Link,
    ) -> None:
        """Start without connections; without a *context*, the first connection builds one."""
        self.slots: Slots[Link] = Slots(
            settings,
            context,
            on_event,
            lambda context: new_link(settings, context, memory),
            PasswordCalls(settings.max_connections).fetch,
        )
        self.overlap_support = OverlapSupport(self.slots.emit_fell_back)
        self._lock = threading.RLock()
        self._waiters: deque[Waiter] = deque()

    def acquire(self, lease: Lease, deadline: Deadline | None, new_waiter: Callable[[], Waiter]) -> Steps[Slot[Link]]:
        """
        Wait for a free slot, give it to *lease* and return it; close the connections that have expired meanwhile.

        *new_waiter* is called if it has to wait.

        Raises:
            ConfigurationError: No slot is free, and a send of this very thread holds one: it would wait for itself, or
                for another thread that waits for it.
            DeadlineExceededError: No slot became free in time.
        """
        slot, expired = yield from self._wait_for(
            bind(self._claim, lease), deadline, new_waiter, goes_first=lease.has_turn and self.slots.turns.is_limited
        )
        # A stack calls the others too if `on_event` raises an interrupt in one.
        if expired:
            with ExitStack() as stack:
                for link, reason in expired:
                    stack.callback(self.quit_and_close, link, reason)
        return slot

    def wait_for_turn(self, new_waiter: Callable[[], Waiter], is_over: Callable[[], bool]) -> Steps[bool]:
        """Wait until the rate lets one more message go, and return True; or until *is_over*, and return False."""
        return (yield from self._wait_for(bind(self._claim_turn, is_over), None, new_waiter))

    def take_turn(self) -> bool:
        """Return whether the rate lets one more message go now."""
        return not self.slots.turns.is_limited or self._call_locked(bind(self._claim_turn, _never, None)) is True

    def give_back_turn(self) -> None:
        """Give back a turn that no message was there for."""
        self._call_locked(self.slots.turns.give_back)

    def _wait_for(
        self,
        claim: Callable[[Waiter | None], T | None],
        deadline: Deadline | None,
        new_waiter: Callable[[], Waiter],
        *,
        goes_first: bool = False,
    ) -> Steps[T]:
        """Wait in the queue until *claim* returns something, and return that; who has waited before *goes_first*."""
        waiter: Waiter | None = None
        try:
            while (claimed := self._call_locked(bind(claim, waiter))) is None:
                if waiter is None:
                    # Tried once more before waiting: a slot may have become free meanwhile.
                    waiter = new_waiter()
                    waiter.polled_at = monotonic()
                    add = self._waiters.appendleft if goes_first or waiter.goes_first else self._waiters.append
                    self._call_locked(bind(add, waiter))
                else:
                    delay = self.slots.turns.delay(monotonic())
                    waiting = WAITING_FOR_TURN if delay else WAITING
                    left = _POLL_INTERVAL if deadline is None else deadline.left(Stage.CONNECT, waiting)
                    # Only the first one waits for the next turn, and wakes the second one then.
                    is_first = delay and self._waiters and self._waiters[0] is waiter
                    yield Sleep(waiter, min(left, _POLL_INTERVAL, delay if is_first else _POLL_INTERVAL))
                    waiter.polled_at = monotonic()
        finally:
            if waiter is not None:
                self._stop_waiting(waiter)
        return claimed

    @property
    def waiting(self) -> int:
        """How many sends wait for a connection, or for their turn."""
        return len(self._waiters)

    def notify(self) -> None:
        """Wake the first send in the queue."""
        if self._waiters:
            with SuppressErrors(IndexError):  # the queue is empty now
                self._waiters[0].wake()

    def link(
        self,
        slot: Slot[Link],
        deadline: Deadline | None,
        needs: Callable[[Session], int] | None = None,
        *,
        is_new: bool = False,
    ) -> Link:
        """Return the link of *slot*, or a new one if its connection cannot carry the message, or with *is_new*."""
        if self.slots.is_outgrown(slot, needs, is_new=is_new):
            self.quit_and_close(slot.link, "message limit")
        return self.slots.link(slot, deadline)

    def check(self, deadline: Deadline | None) -> tuple[Link, Session, AuthenticationError | None]:
        """Open a connection beside the others, log in, and close it; return how the login was refused, if it was."""
        slot = Slot[Link]()
        slot.lease = Lease(threading.get_ident())
        self.slots.check_slots.append(slot)
        try:
            while True:
                link = self.slots.link(slot, deadline)
                try:
                    session, refusal = link.run(self.slots.check(slot))
                finally:
                    self.quit_and_close(link, "closed by the caller")
                # A new token is tried over a new connection.
                if slot.refusal is None:
                    break
        finally:
            self.slots.check_slots.remove(slot)
        return link, session, refusal

    def begin_close(self) -> None:
        """Refuse the sends that wait for a connection, and those that come later."""
        self.slots.is_closed = True
        for waiter in tuple(self._waiters):
            waiter.wake()

    def abort(self) -> None:
        """End the connections that are in use, and those that are opened later."""
        self.slots.abort()

    def wait_until_closed(self, limit: float | None, is_over: Callable[[], bool]) -> bool:
        """
        Close each connection when its send is done; return True when *is_over* too, or False after *limit* seconds.

        Called from inside a send, it waits for none, because two such calls would wait for each other: each send closes
        its connection itself when it is done.
        """
        is_inside = bool(self.slots.leases_of(threading.get_ident()))
        return self._wait_until_closed(0 if is_inside else limit, is_over) or is_inside

    def _wait_until_closed(self, limit: float | None, is_over: Callable[[], bool]) -> bool:
        """Close what no send has, until that is all, or for *limit* seconds; return whether it was all."""
        until = None if limit is None else monotonic() + limit
        while [slot for slot in self.slots if not self.close_idle(slot)] or not is_over():
            if until is not None and monotonic() >= until:
                return False
            sleep(_CLOSE_POLL_INTERVAL)
        return True

    def discard_idle(self) -> None:
        """Close the connections that no send has: one of them was unusable, so the others probably are."""
        for slot in self.slots:
            self.close_idle(slot, "not usable")

    def close_idle(self, slot: Slot[Link], reason: str = "closed by the caller") -> bool:
        """Close the connection of *slot* unless a send has it; return whether there is nothing left to wait for."""
        is_free, link = self._call_locked(bind(_detach_if_free, slot))
        if not is_free:
            # A send of this thread, interrupted by a signal handler or a callable, closes it when it is done.
            return slot.is_held_by(threading.get_ident())
        self.quit_and_close(link, reason)
        return True

    def quit_and_close(self, link: Link | None, reason: str) -> None:
        """Send QUIT if the connection is open, without waiting for the reply, and close it."""
        if link is not None and link.is_open:
            link.close_gracefully(quit_session())
            self.slots.emit_closed(reason)

    def _call_locked(self, do: Callable[[], T]) -> T:
        return call_locked(self._lock, do)

    def _claim(self, lease: Lease, waiter: Waiter | None) -> tuple[Slot[Link], list[tuple[Link | None, str]]] | None:
        now = monotonic()
        # A thread that holds a connection never queues: two such threads would wait for each other.
        is_inside = not lease.may_wait and bool(self.slots.leases_of(threading.get_ident()))
        if (
            not is_inside
            and not self.slots.is_closed
            and (self._is_behind_others(waiter, now) or not (lease.has_turn or self.slots.turns.delay(now) == 0))
        ):
            return None
        slot, expired = self.slots.claim(lease)
        if slot is not None:
            if not lease.has_turn:
                # Without a wait in a thread that holds a connection, as above.
                self.slots.turns.take(now)
                lease.has_turn = True
            return slot, expired
        if is_inside:
            raise nested_send_error()
        return None

    def _claim_turn(self, is_over: Callable[[], bool], waiter: Waiter | None) -> bool | None:
        now = monotonic()
        if is_over() or self.slots.is_closed:
            return False
        if self._is_behind_others(waiter, now) or self.slots.turns.delay(now):
            return None
        self.slots.turns.take(now)
        return True

    def _is_behind_others(self, waiter: Waiter | None, now: float) -> bool:
        """Return whether others came earlier, and are served first. Measured: otherwise half of the threads starved."""
        ahead = takewhile(lambda other: other is not waiter, self._waiters)
        return any(now - other.polled_at < _ABANDONED_AFTER for other in ahead)

    def _stop_waiting(self, waiter: Waiter) -> None:
        with SuppressErrors(ValueError):
            self._call_locked(bind(self._waiters.remove, waiter))
        # A slot may be free for the next waiter, too.
        self.notify()


def _detach_if_free(slot: Slot[Link]) -> tuple[bool, Link | None]:
    return (True, slot.detach()) if slot.is_free else (False, None)


def _never() -> bool:
    return False


def nested_send_error() -> ConfigurationError:
    """Return the error for a send that waits for a connection which another send of its own thread or task has."""
    message = "a send was begun inside a send of the same mailer, and all its connections are in use"
    return ConfigurationError(message, hint="a password callable or signal handler needs a mailer of its own")
