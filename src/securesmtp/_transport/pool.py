"""
The connections of one mailer in one process: who has which, which is used again, which is closed.

Theory of operation: there are as many slots as there may be connections. A send claims a slot by its lease, and a
slot is free when its lease is done. That is one store, made without a call, so that no signal can come in between:
whatever a send is interrupted by, its slot comes back. Who waits stands in line, is woken by a hint, and looks again
by itself in case a signal has swallowed it. Nothing is read or written under the lock.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from functools import partial as bind
from itertools import takewhile
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar, cast

from securesmtp._protocol.dialogue import Session, authenticate, open_session, quit_session
from securesmtp._protocol.sasl import Password, hidden
from securesmtp._transport.link import Deadline, Link
from securesmtp._transport.stream import Bearing
from securesmtp._transport.tls import build_context
from securesmtp._values import Stage
from securesmtp.errors import AuthenticationError, ConfigurationError, RefusedError, SecureSMTPError
from securesmtp.events import Authenticated, ChunkingRefused, Closed, Connected, Connecting, FellBack, tell

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from securesmtp._protocol.redaction import Memory
    from securesmtp._secret import Secret
    from securesmtp._settings import Settings
    from securesmtp._values import Reply
    from securesmtp.events import Event

T = TypeVar("T")

# How long a hint that a signal has swallowed delays a waiting send, in seconds.
_POLL_INTERVAL = 0.2
# Who has not looked for so long stands in line no more: its thread is in a signal handler, or was interrupted.
_ABANDONED_AFTER = 1.0
# How long no login is tried after one that the server has refused for now, in seconds: "454 4.7.0 Too many login
# attempts" is made worse by each further one.
_LOGIN_PAUSE = 30.0
# How often close() looks whether a send is done.
_CLOSE_POLL_INTERVAL = 0.02


@dataclass(frozen=True, slots=True)
class SlotState:
    """
    What the rule knows of one slot.

    Attributes:
        is_free: Whether nobody has it.
        remaining: How many messages its connection may still carry; None where it has none.
        idle: Seconds since it was used.
    """

    is_free: bool
    remaining: int | None
    idle: float


def pick_slot(slots: Sequence[SlotState], max_idle: float) -> tuple[int | None, tuple[int, ...]]:
    """
    Return the slot to take, or None where there is none, and the free ones whose connection is to be closed.

    The connection that was used last is used first: those that nobody needs grow old, and are closed.
    """
    free = [number for number, slot in enumerate(slots) if slot.is_free]
    expired = tuple(
        n for n in free if (left := slots[n].remaining) is not None and (left <= 0 or slots[n].idle >= max_idle)
    )
    fresh = [n for n in free if slots[n].remaining is not None and n not in expired]
    if fresh:
        return min(fresh, key=lambda n: slots[n].idle), expired
    return next(iter(free), None), expired


class Lease:
    """One send's claim to a slot; `done` ends it."""

    __slots__ = ("done", "threads")

    def __init__(self) -> None:
        """Belong to this thread; and to the one that asks for its password, while it does."""
        self.threads = {threading.get_ident()}
        self.done = False

    @property
    def is_held_by_this_thread(self) -> bool:
        """Whether the send is this very thread's."""
        return threading.get_ident() in self.threads


class Waiter:
    """One waiting send in the queue."""

    __slots__ = ("polled_at", "wakeup")

    def __init__(self) -> None:
        """Be shut, and looking."""
        self.wakeup = threading.Lock()
        self.wakeup.acquire()
        self.polled_at = monotonic()


class Slot:
    """Room for one connection."""

    __slots__ = ("last_used", "lease", "link", "messages_left", "session")

    def __init__(self) -> None:
        """Be free, without a connection."""
        self.link: Link | None = None
        self.session: Session | None = None
        self.messages_left = 0
        self.last_used = 0.0
        self.lease: Lease | None = None

    @property
    def is_free(self) -> bool:
        """Whether nobody has it."""
        return self.lease is None or self.lease.done

    @property
    def remaining(self) -> int:
        """How many messages its connection may still carry: the server counts transactions (RFC 9422 §4.1)."""
        return self.messages_left if self.session is None else min(self.messages_left, self.session.room)

    @property
    def is_held_by_this_thread(self) -> bool:
        """Whether a send of this very thread has it."""
        return self.lease is not None and not self.lease.done and self.lease.is_held_by_this_thread

    def detach(self) -> tuple[Link | None, str]:
        """Return its connection, which it has no more, and why it is to be closed."""
        link, self.link = self.link, None
        return link, "message limit" if self.remaining <= 0 else "idle"

    def state(self, now: float) -> SlotState:
        """Return what the rule knows of it."""
        connected = self.link is not None and self.link.is_open
        return SlotState(self.is_free, self.remaining if connected else None, now - self.last_used)


class Pool:
    """The slots of one mailer, in the process that made it: a child of a fork has a pool of its own."""

    def __init__(
        self,
        settings: Settings,
        context: ssl.SSLContext | None,
        on_event: Callable[[Event], None] | None,
        memory: Memory,
    ) -> None:
        """Have all slots free; without a *context*, one is made for the first connection."""
        self.slots = tuple(Slot() for _ in range(settings.max_connections))
        self._settings = settings
        self._context = context
        self._on_event = on_event
        self._memory = memory
        self._lock = threading.RLock()
        self._waiters: deque[Waiter] = deque()
        # When a login was refused for now, and how.
        self._login_pause: tuple[float, str, Reply] | None = None
        # Whether the last login was good for no message: MAIL was answered by 530 over one new connection, and another.
        self.last_login_was_lost = False
        # A callable that hangs is asked no more often than there are slots.
        self._asking = threading.BoundedSemaphore(settings.max_connections)
        # How the server refused BDAT although it offers CHUNKING, where it did.
        self._chunking_refused: Reply | None = None
        # Beside the slots: a `check` has a connection of its own.
        self.check_slots: list[Slot] = []
        self._aborted = False
        self.bearing = Bearing(lambda why: self._emit(FellBack(*self._endpoint, why)))

    def acquire(self, lease: Lease, overall: Deadline | None) -> Slot:
        """
        Claim a slot for *lease*, and return it; what grew old meanwhile is closed.

        Raises:
            ConfigurationError: None is free, and this very thread has one: it would wait for itself, or for another
                that waits for it.
            DeadlineExceededError: None became free in time.
        """
        waiter: Waiter | None = None
        try:
            while (found := self._exclusively(bind(self._claim, lease, waiter))) is None:
                if waiter is None:
                    # Looked at once more before waiting: a slot may have become free meanwhile.
                    waiter = Waiter()
                    self._exclusively(bind(self._waiters.append, waiter))
                else:
                    left = _POLL_INTERVAL if overall is None else min(_POLL_INTERVAL, overall.left(Stage.CONNECT))
                    waiter.wakeup.acquire(timeout=left)
                    waiter.polled_at = monotonic()
        finally:
            if waiter is not None:
                self._stop_waiting(waiter)
        slot, expired = found
        for link, reason in expired:
            self.quit_and_close(link, reason)
        return slot

    def mark_used(self, slot: Slot, link: Link) -> None:
        """Note when *slot* was used, and tell of a *link* that did not outlive it, or does not take what it offers."""
        slot.last_used = monotonic()
        refused = None if slot.session is None else slot.session.chunking_refused
        if refused is not None and self._exclusively(bind(self._is_first_refusal, refused)):
            self._emit(ChunkingRefused(*self._endpoint, refused))
        if not link.is_open:
            self._emit(Closed(*self._endpoint, "error"))

    def notify(self) -> None:
        """Let who is first in line look again."""
        with suppress(IndexError, RuntimeError):  # nobody waits; it was told already
            self._waiters[0].wakeup.release()

    def close(self, *, abort: bool) -> None:
        """Close each connection when its send is done, or with *abort* at once; one of this thread's own send not."""
        self._aborted = self._aborted or abort
        for slot in (*self.slots, *self.check_slots):
            link = slot.link
            if abort and link is not None and not slot.is_free:
                link.abort()
        # From inside of a send nobody is waited for: two that did would wait for each other. Each closes what it has.
        inside = any(slot.is_held_by_this_thread for slot in self.slots)
        for slot in self.slots:
            while not self.close_idle(slot) and not inside:
                sleep(_CLOSE_POLL_INTERVAL)

    def discard_idle(self) -> None:
        """Close the connections that nobody has: what has become of one has become of them, too."""
        for slot in self.slots:
            self.close_idle(slot, "not usable")

    def close_idle(self, slot: Slot, reason: str = "closed by the caller") -> bool:
        """Close the connection of *slot* if nobody has it; return whether there is nothing left to wait for."""
        free, link = self._exclusively(bind(self._detach_if_free, slot))
        if not free:
            # This very thread's: a signal handler, or a callable, inside a send, which closes when it is done.
            return slot.is_held_by_this_thread
        self.quit_and_close(link, reason)
        return True

    def close_now(self) -> bool:
        """Close every connection without a word, and return whether there was one."""
        links = [slot.link for slot in self.slots if slot.link is not None and slot.link.is_open]
        for link in links:
            link.close()
        return bool(links)

    def connection(
        self,
        slot: Slot,
        overall: Deadline | None,
        needs: Callable[[Session], int] | None = None,
        *,
        in_pause: bool = False,
    ) -> tuple[Link, Session]:
        """Return the connection of *slot*, or a new one where it has none that can carry what is to be sent."""
        link, session = slot.link, slot.session
        if link is not None and link.is_open:
            link.overall = overall
            if session is None or not link.is_idle():
                link.close()
                self._emit(Closed(*self._endpoint, "not usable"))
            elif needs is None or not session.transactions or needs(session) <= session.room:
                session.chunking_refused = session.chunking_refused or self._chunking_refused
                return link, session
            else:
                self.quit_and_close(link, "message limit")
        if not in_pause:
            self._refuse_in_pause()
        # Set when it is logged in, and not before: an interrupt in between leaves a session that is not.
        slot.session = None
        link, session = self.open(slot, overall)
        session.chunking_refused = self._chunking_refused
        self.log_in(link, session, in_pause=in_pause)
        slot.session = session
        return link, session

    def open(self, slot: Slot, overall: Deadline | None) -> tuple[Link, Session]:
        """Open a connection in *slot*: connect, verify, greet."""
        self._emit(Connecting(*self._endpoint))
        began = monotonic()
        context = self._context = self._context or build_context(self._settings.policy)
        link = slot.link = Link(self._settings, context, self._memory)
        link.overall = overall
        if self._aborted:
            # Since the send began, and when there was no connection to end.
            link.abort()
        try:
            session = link.run(open_session(self._settings.mode, self._settings.local_hostname))
        except RefusedError:
            # EHLO was refused: in step, and nothing to be done in it.
            link.close()
            raise
        assert session.tls is not None  # noqa: S101 -- open_session gives none without; this is for the type checker
        self._emit(Connected(*self._endpoint, session.tls, timedelta(seconds=monotonic() - began)))
        slot.messages_left = self._settings.max_messages
        return link, session

    def log_in(self, link: Link, session: Session, *, in_pause: bool = False) -> None:
        """
        Log in, where there are credentials.

        Raises:
            AuthenticationError: The login was refused, or one was refused for now a short time ago.
        """
        login = self._settings.login
        if login is not None:
            began = monotonic()
            if callable(login.password):
                login = Password(login.username, bind(self._ask, login.password, link.overall), login.mechanisms)
            try:
                # Another thread's login may have been refused while this one connected.
                if not in_pause:
                    self._refuse_in_pause()
                name = link.run(authenticate(session, login))
            except BaseException as error:
                if (
                    isinstance(error, AuthenticationError)
                    and error.retryable
                    and error.__cause__ is None
                    and error.reply
                ):
                    self._login_pause = monotonic(), error.args[0], error.reply
                link.close()
                self._emit(Closed(*self._endpoint, "error"))
                raise
            if in_pause:
                self._login_pause = None
            self._emit(Authenticated(*self._endpoint, name, timedelta(seconds=monotonic() - began)))

    def _refuse_in_pause(self) -> None:
        paused = self._login_pause
        if paused is None:
            return
        since, refusal, reply = paused
        ago = monotonic() - since
        if ago >= _LOGIN_PAUSE:
            self._login_pause = None
            return
        message = f"no login was tried, since {ago:.0f} s ago one was refused for now: {refusal}"
        hint = f"the mailer logs in again in {_LOGIN_PAUSE - ago:.0f} s"
        # The refusal itself has the other message in its frames.
        cause = AuthenticationError(refusal, stage=Stage.AUTH, reply=reply, retryable=True)
        raise AuthenticationError(message, stage=Stage.AUTH, reply=reply, retryable=True, hint=hint) from cause

    def _ask(self, source: Callable[[], str | Secret], overall: Deadline | None) -> Secret:
        """
        Call *source* for the password, no longer than *overall*.

        Where there is a limit, it is called in a thread of its own, since nothing can interrupt it; what it returns too
        late is thrown away.
        """
        if overall is None:
            return _called(source)
        answers: SimpleQueue[Secret | BaseException] = SimpleQueue()
        leases = [slot.lease for slot in self.slots if slot.is_held_by_this_thread and slot.lease is not None]

        def ask() -> None:
            # A send inside of it is one inside of ours.
            me = threading.get_ident()
            for lease in leases:
                lease.threads.add(me)
            try:
                answers.put(_called(source))
            except BaseException as error:  # noqa: BLE001 -- raised by whoever waits
                answers.put(error)
            finally:
                for lease in leases:
                    lease.threads.discard(me)
                self._asking.release()

        # `left` raises when there is none.
        while not self._asking.acquire(timeout=overall.left(Stage.AUTH)):
            continue
        thread = threading.Thread(target=copy_context().run, args=(ask,), name="password callable", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # No thread can be started: at the end of the process, for one.
            self._asking.release()
            return _called(source)
        answer = None
        while answer is None:
            with suppress(Empty):
                answer = answers.get(timeout=overall.left(Stage.AUTH))
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def quit_and_close(self, link: Link | None, reason: str) -> None:
        """Say QUIT where there is a connection, without waiting for the answer, and close it."""
        if link is not None and link.is_open:
            link.goodbye(quit_session())
            self._emit(Closed(*self._endpoint, reason))

    def _exclusively(self, do: Callable[[], T]) -> T:
        """Return what *do* returns, called while no other thread is in here."""
        # Not `with`: on Python 3.14 an interrupt between its entry and its body leaves the lock taken (CPython 148874).
        try:
            self._lock.acquire()
            return do()
        finally:
            try:  # noqa: SIM105 -- `suppress` is Python code: an interrupt in it would leave the lock taken as well
                self._lock.release()
            except RuntimeError:
                # Another thread has it: the interrupt ended the wait for it.
                pass

    def _claim(self, lease: Lease, waiter: Waiter | None) -> tuple[Slot, list[tuple[Link | None, str]]] | None:
        now = monotonic()
        # Who has a connection already waits for nobody: two that did would wait for each other.
        inside = any(slot.is_held_by_this_thread for slot in self.slots)
        # Who comes later than those who wait waits behind them (measured: without, half of the threads starved).
        ahead = takewhile(lambda other: other is not waiter, self._waiters)
        if not inside and any(now - other.polled_at < _ABANDONED_AFTER for other in ahead):
            return None
        picked, expired = pick_slot([slot.state(now) for slot in self.slots], self._settings.max_idle)
        if picked is not None:
            closing = [self.slots[number].detach() for number in expired]
            self.slots[picked].lease = lease
            return self.slots[picked], closing
        if inside:
            message = "a send was begun inside a send of the same mailer, and all its connections are in use"
            raise ConfigurationError(message, hint="a password callable or signal handler needs a mailer of its own")
        return None

    @staticmethod
    def _detach_if_free(slot: Slot) -> tuple[bool, Link | None]:
        return (True, slot.detach()[0]) if slot.is_free else (False, None)

    def _is_first_refusal(self, refused: Reply) -> bool:
        first, self._chunking_refused = self._chunking_refused is None, self._chunking_refused or refused
        return first

    def _stop_waiting(self, waiter: Waiter) -> None:
        with suppress(ValueError):
            self._exclusively(bind(self._waiters.remove, waiter))
        # There may be a slot for the next as well.
        self.notify()

    def _emit(self, event: Event) -> None:
        tell(event, self._on_event)

    @property
    def _endpoint(self) -> tuple[str, int]:
        return self._settings.host, self._settings.port


def _called(source: Callable[[], str | Secret]) -> Secret:
    try:
        # Of whatever type it is: who asked for it checks that.
        return cast("Secret", hidden(source()))
    except SecureSMTPError as error:
        # It may be about another message, and what it says of that is not true of this one, which is not sent.
        message = f"the password callable raised {type(error).__name__}: {error.args[0]}"
        kind = ConfigurationError if isinstance(error, ConfigurationError) else AuthenticationError
        raise kind(message, stage=Stage.AUTH, retryable=error.retryable, hint=error.hint) from error
