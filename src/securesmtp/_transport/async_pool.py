"""
The queue of tasks for the connections of one mailer, in one event loop.

How it works: as in `pool`, a send releases its slot by `lease.done = True`. All tasks run in one thread, so nothing is
locked, and QUIT is written without a wait, so clean-up works in a task that is being cancelled, too.

What waits for a connection and what ends the waits are one, so the file is longer than 300 lines.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from functools import partial as bind
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from securesmtp._protocol.dialogue import quit_session
from securesmtp._protocol.sasl import as_secret
from securesmtp._transport import password
from securesmtp._transport.async_link import AsyncLink
from securesmtp._transport.channel import aborted_error
from securesmtp._transport.event_loop import current_loop, current_task
from securesmtp._transport.overlap_support import OverlapSupport
from securesmtp._transport.pool import WAITING, WAITING_FOR_TURN, nested_send_error
from securesmtp._transport.slot import Lease, Slot
from securesmtp._transport.slots import Slots
from securesmtp._transport.task_queue import TaskQueue
from securesmtp._transport.threads import Threads
from securesmtp._transport.token_tasks import fetch_token
from securesmtp._transport.tokens import Tokens
from securesmtp._transport.waiting import within
from securesmtp._values import Stage

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.redaction import Memory
    from securesmtp._settings import Settings
    from securesmtp._transport.deadline import Deadline
    from securesmtp.errors import AuthenticationError
    from securesmtp.events import Event

T = TypeVar("T")
# Threads that serialise: more would slow each other and the loop down, since they share the interpreter's lock.
_MOST_SERIALISING = 1
BUILDING = "building the message"


class AsyncPool:
    """The connections of one mailer in one event loop of one process."""

    def __init__(
        self,
        settings: Settings,
        context: ssl.SSLContext | None,
        on_event: Callable[[Event], None] | None,
        memory: Memory,
    ) -> None:
        """Start without connections, in the loop of the current task."""
        self.loop = current_loop()
        self.messages = Threads(self.loop, _MOST_SERIALISING)
        # Of their own, because a file may hang: messages in memory and proofs of SCRAM do not wait for it.
        self.files = Threads(self.loop, _MOST_SERIALISING)
        self._lookups = Threads(self.loop, settings.max_connections)
        self._passwords = Threads(self.loop, settings.max_connections)
        # One at a time: the others find the context built.
        self._roots = Threads(self.loop, 1)

        def new_link(context: ssl.SSLContext) -> AsyncLink:
            return AsyncLink(settings, context, memory, self._lookups, self.messages)

        self.slots: Slots[AsyncLink] = Slots(settings, context, on_event, new_link, self._fetch_password)
        self.overlap_support = OverlapSupport(self.slots.emit_fell_back)
        self._queue = TaskQueue(self._is_next_due, self._delay)
        # Tasks that call a function of the caller's: what they send through this mailer is inside of another send.
        self._calling = set[object]()
        # Of builds in threads, which `close` with *abort* ends.
        self._building = set[anyio.CancelScope]()
        # Calls of `close` that wait for sends.
        self._closing = list[anyio.Event]()

    async def acquire(self, lease: Lease, deadline: Deadline | None) -> Slot[AsyncLink]:
        """
        Wait for a free slot, give it to *lease* and return it; close the connections that have expired meanwhile.

        Raises:
            ConfigurationError: No slot is free, and a send of this very task has one: it would wait for itself.
            DeadlineExceededError: No slot became free in time.
        """
        # Who has its turn has waited already.
        goes_first = lease.has_turn and self.slots.turns.is_limited
        claim = bind(self._queue.claim, bind(self._claim, lease), goes_first=goes_first)
        if self._is_inside_send():
            # Without a wait for its turn, because another send waits for this one.
            claimed = self._claim(lease, in_turn=False)
            if claimed is None:
                raise nested_send_error()
        elif deadline is None:
            claimed = await claim()
        else:
            claimed = await within(bind(self._left, deadline), claim)
        slot, expired = claimed
        # A stack calls the others too if `on_event` raises an interrupt in one.
        if expired:
            with ExitStack() as stack:
                for link, reason in expired:
                    stack.callback(self.quit_and_close, link, reason)
        return slot

    async def wait_for_turn(self) -> bool:
        """Wait until the rate lets one more message go, and return True; return False when the mailer is closed."""
        return await self._queue.claim(self._claim_turn)

    def take_turn(self) -> bool:
        """Return whether the rate lets one more message go now."""
        return not self.slots.turns.is_limited or (not len(self._queue) and self._claim_turn() is True)

    @property
    def waiting(self) -> int:
        """How many sends wait for a connection, or for their turn."""
        return len(self._queue)

    def notify(self) -> None:
        """Wake the first send in the queue, and each `close` that waits."""
        self._queue.notify()
        for event in self._closing:
            event.set()

    async def link(
        self,
        slot: Slot[AsyncLink],
        deadline: Deadline | None,
        needs: Callable[[Session], int] | None = None,
        *,
        is_new: bool = False,
    ) -> AsyncLink:
        """Return the link of *slot*, or a new one if its connection cannot carry the message, or with *is_new*."""
        if self.slots.is_outgrown(slot, needs, is_new=is_new):
            self.quit_and_close(slot.link, "message limit")
        if not self.slots.has_context:
            # A deadline shows at the next step: nothing stops the thread.
            await self._roots.run(self.slots.build_context, "securesmtp: read the roots")
        return self.slots.link(slot, deadline)

    async def build(
        self, threads: Threads, function: Callable[[], T], discard: Callable[[T], object], deadline: Deadline | None
    ) -> T:
        """
        Return the message that *function* makes in one of *threads*; one that comes too late is given to *discard*.

        Raises:
            ConnectError: The mailer was closed with *abort*.
            DeadlineExceededError: It took too long.
        """
        run = bind(threads.run, function, "securesmtp: build a message", discard)
        with anyio.CancelScope() as scope, ExitStack() as stack:
            stack.callback(self._building.discard, scope)
            self._building.add(scope)
            return await (within(bind(deadline.left, Stage.CONNECT, BUILDING), run) if deadline else run())
        raise aborted_error()

    async def check(self, deadline: Deadline | None) -> tuple[AsyncLink, Session, AuthenticationError | None]:
        """Open a connection beside the others, log in, and close it; return how the login was refused, if it was."""
        slot = Slot[AsyncLink]()
        slot.lease = Lease(None)
        self.slots.check_slots.append(slot)
        try:
            while True:
                link = await self.link(slot, deadline)
                try:
                    session, refusal = await link.run(self.slots.check(slot))
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
        self._queue.notify()

    async def wait_until_closed(self, limit: float | None, is_over: Callable[[], bool]) -> bool:
        """
        Close each connection when its send is done; return True when *is_over* too, or False after *limit* seconds.

        Called from inside a send, it waits for none: each send closes its connection itself when it is done.
        """
        if self._is_inside_send():
            self._close_free()
            return True
        return await self._wait_until_closed(limit, is_over)

    def abort(self) -> None:
        """End the connections that are in use, and those that are opened later."""
        self.slots.abort()
        for scope in tuple(self._building):
            scope.cancel()

    def _close_free(self) -> bool:
        """Close what no send has; return whether that is all."""
        return not [slot for slot in self.slots if not self.close_idle(slot)]

    async def _wait_until_closed(self, limit: float | None, is_over: Callable[[], bool]) -> bool:
        """Close what no send has, until that is all, or for *limit* seconds; return whether it was all."""
        with anyio.move_on_after(limit):
            while not (self._close_free() and is_over()):
                await self._wait_for_release()
            return True
        return False

    def discard_idle(self) -> None:
        """Close the connections that no send has: one of them was unusable, so the others probably are."""
        for slot in self.slots:
            self.close_idle(slot, "not usable")

    def close_idle(self, slot: Slot[AsyncLink], reason: str = "closed by the caller") -> bool:
        """Close the connection of *slot* unless a send has it; return whether there is nothing left to wait for."""
        if slot.is_free:
            self.quit_and_close(slot.detach(), reason)
        return slot.is_free

    def quit_and_close(self, link: AsyncLink | None, reason: str) -> None:
        """Send QUIT if the connection is open, without waiting for the reply, and close it."""
        if link is not None and link.is_open:
            link.close_gracefully(quit_session())
            self.slots.emit_closed(reason)

    def _claim(
        self, lease: Lease, *, in_turn: bool = True
    ) -> tuple[Slot[AsyncLink], list[tuple[AsyncLink | None, str]]] | None:
        if in_turn and not lease.has_turn and self._delay() and not self.slots.is_closed:
            return None
        slot, expired = self.slots.claim(lease)
        if slot is None:
            return None
        if not lease.has_turn:
            self.slots.turns.take(monotonic())
            lease.has_turn = True
        return slot, expired

    def _claim_turn(self) -> bool | None:
        if self.slots.is_closed:
            return False
        if self._delay():
            return None
        self.slots.turns.take(monotonic())
        return True

    def _delay(self) -> float:
        return self.slots.turns.delay(monotonic())

    def _left(self, deadline: Deadline) -> float:
        return deadline.left(Stage.CONNECT, WAITING_FOR_TURN if self._delay() else WAITING)

    async def _wait_for_release(self) -> None:
        released = anyio.Event()
        self._closing.append(released)
        try:
            await released.wait()
        finally:
            self._closing.remove(released)

    def _is_inside_send(self) -> bool:
        return bool(self._calling) and current_task() in self._calling

    def _is_next_due(self) -> bool:
        """Return whether the first send in the queue can go on: over a free slot, or to its end."""
        return self.slots.is_closed or any(slot.is_free for slot in self.slots)

    async def _fetch_password(
        self, source: Callable[[], object] | Tokens, deadline: Deadline | None, leases: Sequence[Lease]
    ) -> object:
        """Return the password that *source*, which may be a coroutine function, returns before *deadline*."""
        if isinstance(source, Tokens):
            return await fetch_token(source, deadline, leases, self.loop, self._call)

        async def call() -> object:
            with password.translated_errors(source):
                return await self._call(source)

        return await (within(bind(deadline.left, Stage.AUTH, password.WAITING), call) if deadline else call())

    async def _call(self, source: Callable[[], object]) -> object:
        """Return what *source* returns, as a `Secret`: frames of a traceback hold it."""
        task = current_task()
        with ExitStack() as stack:
            # The call of a send inside of another send's call leaves the task to that one.
            if task not in self._calling:
                stack.callback(self._calling.discard, task)
            self._calling.add(task)
            if inspect.iscoroutinefunction(source):
                value: Any = source()
            else:
                value = await self._passwords.run(bind(_call_hidden, source), "securesmtp: password callable")
            return as_secret(await value) if inspect.isawaitable(value) else value


def _call_hidden(source: Callable[[], Any]) -> object:
    value = source()
    return value if inspect.isawaitable(value) else as_secret(value)
