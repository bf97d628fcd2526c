"""
One slot for a connection, and the rule that picks the slot for a send.

A send claims a slot with a lease, and the slot is free once the lease is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesmtp._protocol.dialogue import Session
    from securesmtp._transport.connection import Connection
    from securesmtp.errors import AuthenticationError


class Driver(Protocol):
    """What a slot needs of a link: it waits in a thread or in a task."""

    connection: Connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""

    def is_idle(self) -> bool:
        """Return whether the connection can carry another message."""

    def close(self) -> None:
        """Close the socket; nothing is sent."""

    def abort(self) -> None:
        """End the connection: the thread or task that uses it closes it."""


L = TypeVar("L", bound=Driver)


@dataclass(frozen=True, slots=True)
class SlotState:
    """
    What `pick_slot` knows of one slot.

    Attributes:
        is_free: Whether no send has it.
        remaining: Number of messages that its connection may still carry; None without a connection.
        idle: Seconds since it was last used.
    """

    is_free: bool
    remaining: int | None
    idle: float


def pick_slot(slots: Sequence[SlotState], max_idle: float) -> tuple[int | None, tuple[int, ...]]:
    """
    Return the slot to use, or None if none is free, and the free slots whose connection must be closed.

    The most recently used connection comes first, so that connections which are not needed grow old and are closed.
    """
    free = [number for number, slot in enumerate(slots) if slot.is_free]
    expired = tuple(number for number in free if _is_expired(slots[number], max_idle))
    usable = [number for number in free if slots[number].remaining is not None and number not in expired]
    if usable:
        return min(usable, key=lambda number: slots[number].idle), expired
    return next(iter(free), None), expired


def _is_expired(slot: SlotState, max_idle: float) -> bool:
    return slot.remaining is not None and (slot.remaining <= 0 or slot.idle >= max_idle)


class Lease:
    """
    One send's claim to a slot; setting `done` releases the slot.

    Attributes:
        holders: The thread or task that it belongs to, and those that call its password callable.
        has_turn: Whether the rate has let its send go.
        may_wait: Whether its send waits for a slot even if its thread has another one: they are not nested.
    """

    __slots__ = ("done", "has_turn", "holders", "may_wait")

    def __init__(self, holder: object, *, may_wait: bool = False, has_turn: bool = False) -> None:
        """Belong to the thread or task *holder*."""
        self.holders = {holder}
        self.may_wait = may_wait
        self.has_turn = has_turn
        # Releasing is one attribute assignment, so an interrupt cannot strike half-way through it.
        self.done = False

    def is_held_by(self, holder: object) -> bool:
        """Return whether the send runs in the thread or task *holder*."""
        return not self.done and holder in self.holders


class Slot(Generic[L]):
    """Room for one connection."""

    __slots__ = ("last_used", "lease", "link", "messages_left", "refusal", "session")

    def __init__(self) -> None:
        """Start free, without a connection."""
        self.link: L | None = None
        self.session: Session | None = None
        # Of the mailer's own limit on messages for each connection.
        self.messages_left = 0
        self.last_used = 0.0
        self.lease: Lease | None = None
        # Of a token by the last connection, if another token is to be tried over a new one.
        self.refusal: AuthenticationError | None = None

    @property
    def is_free(self) -> bool:
        """Whether no send has it."""
        return self.lease is None or self.lease.done

    @property
    def is_connected(self) -> bool:
        """Whether it has an open connection."""
        return self.link is not None and self.link.is_open

    @property
    def remaining(self) -> int:
        """Number of messages that its connection may still carry: the server may limit them, too (RFC 9422 §4.1)."""
        return self.messages_left if self.session is None else min(self.messages_left, self.session.transactions_left)

    def is_held_by(self, holder: object) -> bool:
        """Return whether a send in the thread or task *holder* has it."""
        return self.lease is not None and self.lease.is_held_by(holder)

    def close(self) -> None:
        """Close its connection, if it has one, without QUIT."""
        if self.link is not None:
            self.link.close()

    def detach(self) -> L | None:
        """Take its connection out of it, and return it."""
        link, self.link = self.link, None
        return link

    def state(self, now: float) -> SlotState:
        """Return what `pick_slot` needs to know."""
        return SlotState(self.is_free, self.remaining if self.is_connected else None, now - self.last_used)
