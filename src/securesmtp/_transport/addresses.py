"""
Which of a host's addresses to try next, and when: the rule of "Happy Eyeballs" (RFC 8305), without clock or socket.

How it works: attempts overlap. The next address is tried when the newest attempt has failed, or when it has not
connected within the Connection Attempt Delay. The first attempt that connects wins; the caller closes the others.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")
# One result of `socket.getaddrinfo`: family, type, protocol, canonical name, socket address.
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]

# Seconds, as RFC 8305 §5 recommends.
ATTEMPT_DELAY = 0.25
# Each attempt holds a socket, and a forged DNS response may have thousands of addresses.
_MAX_ADDRESSES = 32


def order_addresses(infos: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Return the addresses to try, each once: in the resolver's order, with alternating families (RFC 8305 §4)."""
    families: dict[int, list[AddressInfo]] = {}
    # Without the canonical name: only the first result has it, and it must not be used (ID-01).
    for family, kind, protocol, _, address in dict.fromkeys((*each[:3], "", each[4]) for each in infos):
        families.setdefault(family, []).append((family, kind, protocol, "", address))
    alternating = chain.from_iterable(zip_longest(*families.values()))
    return [each for each in alternating if each is not None][:_MAX_ADDRESSES]


class AttemptSchedule(Generic[T]):
    """When to try which address. The caller reports failures and passes the seconds of one monotonic clock."""

    def __init__(self, addresses: Sequence[T]) -> None:
        """Schedule *addresses* in this order, the first of them at once."""
        self._waiting = deque(addresses)
        self._newest: T | None = None
        self._next_at = float("-inf")

    def next_attempt(self, now: float) -> T | None:
        """Return the address to try at *now*; None if it is too early or no address is left."""
        if not self._waiting or now < self._next_at:
            return None
        self._newest, self._next_at = self._waiting.popleft(), now + ATTEMPT_DELAY
        return self._newest

    def mark_failed(self, address: T) -> None:
        """Record that the attempt at *address* failed; if it is the newest attempt, the next one is due at once."""
        if address == self._newest:
            self._next_at = float("-inf")

    def delay(self, now: float) -> float | None:
        """Return the seconds from *now* until the next attempt is due; None if no address is left."""
        return max(0.0, self._next_at - now) if self._waiting else None
