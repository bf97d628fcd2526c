"""
The connections of one mailer, and what is done on one of them.

How it works: a mailer has one slot for each connection that it may have. All that happens on a connection, from the
greeting to the last reply, is one dialogue (`Slots.visit`), and the events of the connection are emitted between its
effects. Nothing here waits or locks: a pool queues the sends, runs the dialogues, and holds its lock for `Slots.claim`.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from functools import partial as bind
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from securesmtp._protocol.dialogue import Session, authenticate, open_session, pick_mechanism
from securesmtp._protocol.sasl import OAuth2, secret_source, with_secret_source
from securesmtp._transport.login_pause import LoginPause
from securesmtp._transport.slot import L, Lease, Slot, pick_slot
from securesmtp._transport.tls import build_context
from securesmtp._transport.token_login import log_in
from securesmtp._transport.tokens import Tokens
from securesmtp._transport.turns import Turns
from securesmtp.errors import AuthenticationError, ConfigurationError
from securesmtp.events import Authenticated, ChunkingRefused, Closed, Connected, Connecting, FellBack, emit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from securesmtp._protocol.effects import Dialogue
    from securesmtp._protocol.sasl import Auth
    from securesmtp._settings import Settings
    from securesmtp._transport.deadline import Deadline
    from securesmtp._values import Reply
    from securesmtp.events import Event

    # The caller's callable or the mailer's tokens, the deadline of the send, and the leases of those who wait.
    FetchPassword: TypeAlias = Callable[[Callable[[], Any] | Tokens, Deadline | None, list[Lease]], Any]

T = TypeVar("T")
# More messages than any connection carries.
_UNLIMITED = 1 << 60


class Slots(Generic[L]):
    """The slots of one mailer in one process."""

    def __init__(
        self,
        settings: Settings,
        context: ssl.SSLContext | None,
        on_event: Callable[[Event], None] | None,
        new_link: Callable[[ssl.SSLContext], L],
        fetch_password: FetchPassword,
    ) -> None:
        """
        Start with all slots free; without a *context*, the first connection builds one.

        The driver of the link calls *fetch_password* with the caller's callable, the deadline of the send, and the
        leases of those who wait for the result.
        """
        self._all: tuple[Slot[L], ...] = tuple(Slot() for _ in range(settings.max_connections))
        self._settings = settings
        self._context = context
        self._on_event = on_event
        self._new_link = new_link
        self._fetch_password = fetch_password
        self._pause = LoginPause()
        self._tokens = Tokens(settings.login) if isinstance(settings.login, OAuth2) else None
        # The server's refusal of BDAT although it offers CHUNKING, under that keyword.
        self._refusals: dict[str, Reply] = {}
        # Each `check` has a slot of its own, in addition to *max_connections*.
        self.check_slots: list[Slot[L]] = []
        # What was used last, and when the rule is asked again: until then no connection of another slot expires.
        self._last: Slot[L] = self._all[0]
        self._next_expiry = 0.0
        self.turns = Turns(settings.rate)
        # Set by `close`: nothing is sent any more; and, if it aborts, a connection that is opened later ends at once.
        self.is_closed = self.is_aborted = False
        # Connections that were opened, and logins that were accepted.
        self.connects = self.logins = 0

    def __iter__(self) -> Iterator[Slot[L]]:
        """Iterate over the slots, without those of `check`."""
        return iter(self._all)

    def claim(self, lease: Lease) -> tuple[Slot[L] | None, list[tuple[L | None, str]]]:
        """Give *lease* a slot if one is free; return it, and the expired connections with the reason to close each."""
        if self.is_closed:
            raise closed_error()
        now, last, max_idle = monotonic(), self._last, self._settings.max_idle
        if now < self._next_expiry and last.is_free and last.is_connected and last.remaining > 0:
            # What the rule would say, at a tenth of its cost (measured): most sends use one connection again.
            last.lease = lease
            return last, []
        free = [slot for slot in self._all if slot.is_free]
        number, expired = pick_slot([slot.state(now) for slot in free], max_idle)
        if number is None:
            return None, []
        self._next_expiry = min((now, *(slot.last_used for slot in self._all if slot.is_connected))) + max_idle
        slots = [free[each] for each in expired]
        closing = [(slot.detach(), "message limit" if slot.remaining <= 0 else "idle") for slot in slots]
        free[number].lease = lease
        return free[number], closing

    def leases_of(self, *holders: object) -> list[Lease]:
        """Return the leases that sends in the threads or tasks *holders* have."""
        leases = [slot.lease for slot in self._all if slot.lease is not None and not slot.lease.done]
        return [lease for lease in leases if not lease.holders.isdisjoint(holders)]

    def is_outgrown(self, slot: Slot[L], needs: Callable[[Session], int] | None, *, is_new: bool = False) -> bool:
        """
        Return whether the connection of *slot* is usable, but has no room for what *needs* asks of its session.

        With *is_new*, it has none once it has carried a message.
        """
        session = slot.session
        if session is None or not session.transactions:
            return False
        if not is_new and (
            needs is None or not session.capabilities.limits or needs(session) <= session.transactions_left
        ):
            return False
        return slot.link is not None and slot.link.is_idle()

    def link(self, slot: Slot[L], deadline: Deadline | None) -> L:
        """Return the link of *slot*, or a new one that is not connected yet."""
        link = slot.link
        if link is not None and link.is_open:
            link.connection.limit.deadline = deadline
            if slot.session is not None and link.is_idle():
                return link
            link.close()
            self.emit_closed("not usable")
        context = self.build_context()
        # Set again after the login, so that a connection whose login was interrupted is not used.
        slot.session = None
        link = slot.link = self._new_link(context)
        link.connection.limit.deadline = deadline
        if self.is_aborted:
            # `close` may have looked for links before this one was there.
            link.abort()
        return link

    @property
    def has_context(self) -> bool:
        """Whether the TLS context is there."""
        return self._context is not None

    def build_context(self) -> ssl.SSLContext:
        """Return the TLS context; the first call reads the roots (24 to 47 ms)."""
        if self._context is None:
            self._context = build_context(self._settings.policy)
        return self._context

    def visit(
        self, slot: Slot[L], work: Callable[[Slot[L], Session], Dialogue[T]], *, ignore_pause: bool = False
    ) -> Dialogue[T]:
        """
        Do *work* in the session of *slot*; without a session, connect and log in first.

        Raises:
            AuthenticationError: The login was refused, or logins are paused and *ignore_pause* is False.
        """
        session = slot.session
        if session is None:
            if not ignore_pause:
                self._pause.check()
            session = yield from self._open(slot)
            yield from self._log_in(slot, session, ignore_pause=ignore_pause)
            slot.session = session
        session.chunking_refused = session.chunking_refused or self._refusals.get("CHUNKING")
        try:
            return (yield from work(slot, session))
        except AuthenticationError:
            # The login was lost, perhaps because the token has expired.
            if self._tokens is not None:
                self._tokens.forget()
            raise

    def check(self, slot: Slot[L]) -> Dialogue[tuple[Session, AuthenticationError | None]]:
        """Connect and log in; return the session, and the refusal if the login was refused."""
        session = yield from self._open(slot)
        if self._settings.login is not None:
            yield from pick_mechanism(session, self._settings.login)
        try:
            yield from self._log_in(slot, session, ignore_pause=False)
        except AuthenticationError as refusal:
            return session, refusal
        return session, None

    def mark_used(self, slot: Slot[L], link: L) -> list[Event]:
        """
        Note when *slot* was used; return the events of what that has shown: *link* ended, or the server refuses BDAT.

        Call this while the lease is not done, and emit the events later: from then on, another send may close *link*.
        """
        slot.last_used = monotonic()
        if slot is not self._last:
            # What was used before may have carried enough messages.
            self._last, self._next_expiry = slot, 0.0
        events: list[Event] = []
        refusal = None if slot.session is None else slot.session.chunking_refused
        # `setdefault` is atomic: if two threads come at the same time, one of them emits the event.
        if refusal is not None and not self._refusals and self._refusals.setdefault("CHUNKING", refusal) is refusal:
            events.append(ChunkingRefused(*self.endpoint, refusal))
        if not link.is_open:
            events.append(Closed(*self.endpoint, "error"))
        return events

    def close_now(self) -> int:
        """Close every connection without QUIT or events; return how many there were."""
        links = [slot.link for slot in self._all if slot.link is not None and slot.link.is_open]
        for link in links:
            link.close()
        return len(links)

    def emit_closed(self, reason: str) -> None:
        """Emit that a connection was closed, for *reason*."""
        self._emit(Closed(*self.endpoint, reason))

    def emit_fell_back(self, reason: str) -> None:
        """Emit that messages no longer overlap, for *reason*."""
        self._emit(FellBack(*self.endpoint, reason))

    def abort(self) -> None:
        """End the connections that are in use, and those that are opened later."""
        self.is_aborted = True
        for slot in (*self._all, *self.check_slots):
            link = slot.link
            if link is not None and not slot.is_free:
                link.abort()

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port of the server."""
        return self._settings.host, self._settings.port

    def _open(self, slot: Slot[L]) -> Dialogue[Session]:
        self._emit(Connecting(*self.endpoint))
        began = monotonic()
        session = yield from open_session(self._settings.mode, self._settings.ehlo_name)
        most = self._settings.max_messages
        slot.messages_left = _UNLIMITED if most is None else most
        self.connects += 1
        with self._closing_on_error(slot):
            self._emit(Connected(*self.endpoint, session.tls, timedelta(seconds=monotonic() - began)))
        return session

    def _log_in(self, slot: Slot[L], session: Session, *, ignore_pause: bool) -> Dialogue[None]:
        """Log in if there are credentials."""
        login = self._settings.login
        if login is None:
            return
        began = monotonic()
        with self._closing_on_error(slot):
            # Another thread's login may have been refused while this one connected.
            if not ignore_pause:
                self._pause.check()
            try:
                mechanism = yield from self._authenticate(slot, session, login)
            except AuthenticationError as error:
                self._pause.begin(error)
                raise
            if ignore_pause:
                self._pause.end()
            self.logins += 1
            session.can_ask_again = True
            self._emit(Authenticated(*self.endpoint, mechanism, timedelta(seconds=monotonic() - began)))

    def _authenticate(self, slot: Slot[L], session: Session, login: Auth) -> Dialogue[str]:
        """Log in, with the mailer's token if it has one, and return the name of the mechanism."""
        deadline = None if slot.link is None else slot.link.connection.limit.deadline
        leases = [] if slot.lease is None else self.leases_of(*slot.lease.holders)
        if self._tokens is not None and isinstance(login, OAuth2):
            fetch = bind(self._fetch_password, self._tokens, deadline, leases)
            return (yield from log_in(slot, session, login, self._tokens, fetch))
        source = secret_source(login)
        if callable(source):
            login = with_secret_source(login, bind(self._fetch_password, source, deadline, leases))
        return (yield from authenticate(session, login))

    @contextmanager
    def _closing_on_error(self, slot: Slot[L]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            slot.close()
            self.emit_closed("error")
            raise

    def _emit(self, event: Event) -> None:
        emit(event, self._on_event)


def closed_error() -> ConfigurationError:
    """Return the error for a use of a mailer that is closed."""
    return ConfigurationError("the mailer is closed", hint="make a new one")
