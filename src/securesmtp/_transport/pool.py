"""
The connections of one mailer in one process: who has which, which is used again, which is closed.

Theory of operation: there are as many places as there may be connections. A send claims a place by its ticket, and a
place is free when its ticket is done. That is one store, made without a call, so that no signal can come in between:
whatever a send is interrupted by, its place comes back. Who waits stands in line, is woken by a hint, and looks again
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
from typing import TYPE_CHECKING, cast

from securesmtp._protocol.dialogue import Session, authenticate, open_session, quit_session
from securesmtp._protocol.sasl import Password, as_secret
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.link import Link
from securesmtp._transport.overlap_support import OverlapSupport
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
    from securesmtp._transport.deadline import Deadline
    from securesmtp._values import Reply
    from securesmtp.events import Event

# How long a hint that a signal has swallowed delays a waiting send, in seconds.
_LOOK_AGAIN = 0.2
# Who has not looked for so long stands in line no more: its thread is in a signal handler, or was interrupted.
_GONE = 1.0
# How long no login is tried after one that the server has refused for now, in seconds: "454 4.7.0 Too many login
# attempts" is made worse by each further one.
_LOGIN_PAUSE = 30.0
# How often close() looks whether a send is done.
_CLOSE_AGAIN = 0.02


@dataclass(frozen=True, slots=True)
class State:
    """
    What the rule knows of one place.

    Attributes:
        free: Whether nobody has it.
        left: How many messages its connection may still carry; None where it has none.
        idle: Seconds since it was used.
    """

    free: bool
    left: int | None
    idle: float


def choose(places: Sequence[State], max_idle: float) -> tuple[int | None, tuple[int, ...]]:
    """
    Return the place to take, or None where there is none, and the free ones whose connection is to be closed.

    The connection that was used last is used first: those that nobody needs grow old, and are closed.
    """
    free = [number for number, place in enumerate(places) if place.free]
    worn = tuple(n for n in free if (left := places[n].left) is not None and (left <= 0 or places[n].idle >= max_idle))
    fresh = [n for n in free if places[n].left is not None and n not in worn]
    if fresh:
        return min(fresh, key=lambda n: places[n].idle), worn
    return next(iter(free), None), worn


class Ticket:
    """One send's claim to a place; `done` ends it."""

    __slots__ = ("done", "threads")

    def __init__(self) -> None:
        """Belong to this thread; and to the one that asks for its password, while it does."""
        self.threads = {threading.get_ident()}
        self.done = False

    @property
    def is_ours(self) -> bool:
        """Whether the send is this very thread's."""
        return threading.get_ident() in self.threads


class Gate:
    """One waiting send's place in the line."""

    __slots__ = ("hint", "looked")

    def __init__(self) -> None:
        """Be shut, and looking."""
        self.hint = threading.Lock()
        self.hint.acquire()
        self.looked = monotonic()


class Place:
    """Room for one connection."""

    __slots__ = ("left", "link", "session", "ticket", "used_at")

    def __init__(self) -> None:
        """Be free, without a connection."""
        self.link: Link | None = None
        self.session: Session | None = None
        self.left = 0
        self.used_at = 0.0
        self.ticket: Ticket | None = None

    @property
    def free(self) -> bool:
        """Whether nobody has it."""
        return self.ticket is None or self.ticket.done

    @property
    def room(self) -> int:
        """How many messages its connection may still carry: the server counts transactions (RFC 9422 §4.1)."""
        return self.left if self.session is None else min(self.left, self.session.transactions_left)

    @property
    def is_ours(self) -> bool:
        """Whether a send of this very thread has it."""
        return self.ticket is not None and not self.ticket.done and self.ticket.is_ours

    def give_up(self) -> tuple[Link | None, str]:
        """Return its connection, which it has no more, and why it is to be closed."""
        link, self.link = self.link, None
        return link, "message limit" if self.room <= 0 else "idle"

    def state(self, now: float) -> State:
        """Return what the rule knows of it."""
        connected = self.link is not None and self.link.is_open
        return State(self.free, self.room if connected else None, now - self.used_at)


class Pool:
    """The places of one mailer, in the process that made it: a child of a fork has a pool of its own."""

    def __init__(
        self,
        settings: Settings,
        context: ssl.SSLContext | None,
        on_event: Callable[[Event], None] | None,
        memory: Memory,
    ) -> None:
        """Have all places free; without a *context*, one is made for the first connection."""
        self.places = tuple(Place() for _ in range(settings.max_connections))
        self._settings = settings
        self._context = context
        self._on_event = on_event
        self._memory = memory
        self._lock = threading.RLock()
        self._line: deque[Gate] = deque()
        # When a login was refused for now, and how.
        self._paused: tuple[float, str, Reply] | None = None
        # Whether the last login was good for no message: MAIL was answered by 530 over one new connection, and another.
        self.loses_logins = False
        # A callable that hangs is asked no more often than there are places.
        self._asking = threading.BoundedSemaphore(settings.max_connections)
        # How the server refused BDAT although it offers CHUNKING, where it did.
        self._chunking_refused: Reply | None = None
        # Beside the places: a `check` has a connection of its own.
        self.apart: list[Place] = []
        self._aborted = False
        self.overlap_support = OverlapSupport(lambda why: self._tell(FellBack(*self._where, why)))

    def take(self, ticket: Ticket, overall: Deadline | None) -> Place:
        """
        Claim a place for *ticket*, and return it; what grew old meanwhile is closed.

        Raises:
            ConfigurationError: None is free, and this very thread has one: it would wait for itself, or for another
                that waits for it.
            DeadlineExceededError: None became free in time.
        """
        gate: Gate | None = None
        try:
            while (found := self._claim(ticket, gate)) is None:
                if gate is None:
                    # Looked at once more before waiting: a place may have become free meanwhile.
                    gate = Gate()
                    with self._lock:
                        self._line.append(gate)
                else:
                    left = _LOOK_AGAIN if overall is None else min(_LOOK_AGAIN, overall.left(Stage.CONNECT))
                    gate.hint.acquire(timeout=left)
                    gate.looked = monotonic()
        finally:
            if gate is not None:
                self._leave(gate)
        place, worn = found
        for link, reason in worn:
            self.part(link, reason)
        return place

    def used(self, place: Place, link: Link) -> None:
        """Note when *place* was used, and tell of a *link* that did not outlive it, or does not take what it offers."""
        place.used_at = monotonic()
        refused = None if place.session is None else place.session.chunking_refused
        if refused is not None:
            with self._lock:
                first, self._chunking_refused = self._chunking_refused is None, self._chunking_refused or refused
            if first:
                self._tell(ChunkingRefused(*self._where, refused))
        if not link.is_open:
            self._tell(Closed(*self._where, "error"))

    def wake(self) -> None:
        """Let who is first in line look again."""
        with suppress(IndexError, RuntimeError):  # nobody waits; it was told already
            self._line[0].hint.release()

    def close(self, *, abort: bool) -> None:
        """Close each connection when its send is done, or with *abort* at once; one of this thread's own send not."""
        self._aborted = self._aborted or abort
        for place in (*self.places, *self.apart):
            link = place.link
            if abort and link is not None and not place.free:
                link.abort()
        # From inside of a send nobody is waited for: two that did would wait for each other. Each closes what it has.
        inside = any(place.is_ours for place in self.places)
        for place in self.places:
            while not self.close_idle(place) and not inside:
                sleep(_CLOSE_AGAIN)

    def discard_idle(self) -> None:
        """Close the connections that nobody has: what has become of one has become of them, too."""
        for place in self.places:
            self.close_idle(place, "not usable")

    def close_idle(self, place: Place, reason: str = "closed by the caller") -> bool:
        """Close the connection of *place* if nobody has it; return whether there is nothing left to wait for."""
        with self._lock:
            if not place.free:
                # This very thread's: a signal handler, or a callable, inside a send, which closes when it is done.
                return place.is_ours
            link, place.link = place.link, None
        self.part(link, reason)
        return True

    def drop(self) -> bool:
        """Close every connection without a word, and return whether there was one."""
        links = [place.link for place in self.places if place.link is not None and place.link.is_open]
        for link in links:
            link.close()
        return bool(links)

    def connection(
        self,
        place: Place,
        overall: Deadline | None,
        needs: Callable[[Session], int] | None = None,
        *,
        in_pause: bool = False,
    ) -> tuple[Link, Session]:
        """Return the connection of *place*, or a new one where it has none that can carry what is to be sent."""
        link, session = place.link, place.session
        if link is not None and link.is_open:
            link.connection.overall = overall
            if session is None or not link.is_idle():
                link.close()
                self._tell(Closed(*self._where, "not usable"))
            elif needs is None or not session.transactions or needs(session) <= session.transactions_left:
                session.chunking_refused = session.chunking_refused or self._chunking_refused
                return link, session
            else:
                self.part(link, "message limit")
        if not in_pause:
            self._refuse_in_pause()
        # Set when it is logged in, and not before: an interrupt in between leaves a session that is not.
        place.session = None
        link, session = self.open(place, overall)
        session.chunking_refused = self._chunking_refused
        self.log_in(link, session, in_pause=in_pause)
        place.session = session
        return link, session

    def open(self, place: Place, overall: Deadline | None) -> tuple[Link, Session]:
        """Open a connection in *place*: connect, verify, greet."""
        self._tell(Connecting(*self._where))
        began = monotonic()
        context = self._context = self._context or build_context(self._settings.policy)
        link = place.link = Link(self._settings, context, self._memory)
        link.connection.overall = overall
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
        self._tell(Connected(*self._where, session.tls, timedelta(seconds=monotonic() - began)))
        place.left = self._settings.max_messages
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
                login = Password(
                    login.username, bind(self._ask, login.password, link.connection.overall), login.mechanisms
                )
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
                    self._paused = monotonic(), error.args[0], error.reply
                link.close()
                self._tell(Closed(*self._where, "error"))
                raise
            if in_pause:
                self._paused = None
            self._tell(Authenticated(*self._where, name, timedelta(seconds=monotonic() - began)))

    def _refuse_in_pause(self) -> None:
        paused = self._paused
        if paused is None:
            return
        since, refusal, reply = paused
        ago = monotonic() - since
        if ago >= _LOGIN_PAUSE:
            self._paused = None
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
        tickets = [place.ticket for place in self.places if place.is_ours and place.ticket is not None]

        def ask() -> None:
            # A send inside of it is one inside of ours.
            me = threading.get_ident()
            for ticket in tickets:
                ticket.threads.add(me)
            try:
                answers.put(_called(source))
            except BaseException as error:  # noqa: BLE001 -- raised by whoever waits
                answers.put(error)
            finally:
                for ticket in tickets:
                    ticket.threads.discard(me)
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

    def part(self, link: Link | None, reason: str) -> None:
        """Say QUIT where there is a connection, without waiting for the answer, and close it."""
        if link is not None and link.is_open:
            link.goodbye(quit_session())
            self._tell(Closed(*self._where, reason))

    def _claim(self, ticket: Ticket, gate: Gate | None) -> tuple[Place, list[tuple[Link | None, str]]] | None:
        with self._lock:
            now = monotonic()
            # Who has a connection already waits for nobody: two that did would wait for each other.
            inside = any(place.is_ours for place in self.places)
            # Who comes later than those who wait waits behind them (measured: without, half of the threads starved).
            ahead = takewhile(lambda other: other is not gate, self._line)
            if not inside and any(now - other.looked < _GONE for other in ahead):
                return None
            chosen, worn = choose([place.state(now) for place in self.places], self._settings.max_idle)
            if chosen is not None:
                closing = [self.places[number].give_up() for number in worn]
                self.places[chosen].ticket = ticket
                return self.places[chosen], closing
        if inside:
            message = "a send was begun inside a send of the same mailer, and all its connections are in use"
            raise ConfigurationError(message, hint="a password callable or signal handler needs a mailer of its own")
        return None

    def _leave(self, gate: Gate) -> None:
        with self._lock, suppress(ValueError):
            self._line.remove(gate)
        # There may be a place for the next as well.
        self.wake()

    def _tell(self, event: Event) -> None:
        tell(event, self._on_event)

    @property
    def _where(self) -> tuple[str, int]:
        return self._settings.host, self._settings.port


def _called(source: Callable[[], str | Secret]) -> Secret:
    try:
        # Of whatever type it is: who asked for it checks that.
        return cast("Secret", as_secret(source()))
    except SecureSMTPError as error:
        # It may be about another message, and what it says of that is not true of this one, which is not sent.
        message = f"the password callable raised {type(error).__name__}: {error.args[0]}"
        kind = ConfigurationError if isinstance(error, ConfigurationError) else AuthenticationError
        raise kind(message, stage=Stage.AUTH, retryable=error.retryable, hint=error.hint) from error
