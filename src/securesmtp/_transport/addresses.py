"""
Which of a host's addresses is tried next, and when (RFC 8305 "Happy Eyeballs"): the rule, without clock and socket.

How it works: attempts overlap. The next address is tried when the newest attempt has failed, or was silent for the
Connection Attempt Delay; the first attempt that connects wins, and whoever drives the rule closes the others.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")
# What `socket.getaddrinfo` gives for each address: family, kind, protocol, canonical name, socket address.
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]

# RFC 8305 §5 recommends this, in seconds.
ATTEMPT_DELAY = 0.25
# Each attempt that is under way holds a socket, and a forged answer of the resolver may have thousands of addresses.
_MAX_ADDRESSES = 32


def in_order_of_attempts(found: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Return the addresses to try, once each, in the resolver's order but with the families in turn (RFC 8305 §4)."""
    families: dict[int, list[AddressInfo]] = {}
    # The canonical name is at the first one only, and not for us (ID-01).
    for family, kind, protocol, _, address in dict.fromkeys((*each[:3], "", each[4]) for each in found):
        families.setdefault(family, []).append((family, kind, protocol, "", address))
    in_turn = chain.from_iterable(zip_longest(*families.values()))
    return [each for each in in_turn if each is not None][:_MAX_ADDRESSES]


class AttemptSchedule(Generic[T]):
    """When to try which address; the caller tells what failed, and passes the seconds of one monotonic clock."""

    def __init__(self, addresses: Sequence[T]) -> None:
        """Try *addresses* in this order, the first of them at once."""
        self._waiting = deque(addresses)
        self._newest: T | None = None
        self._next_at = float("-inf")

    def next_attempt(self, now: float) -> T | None:
        """Return the address to try at *now*; None if it is too early, or none is left."""
        if not self._waiting or now < self._next_at:
            return None
        self._newest, self._next_at = self._waiting.popleft(), now + ATTEMPT_DELAY
        return self._newest

    def failed(self, address: T) -> None:
        """Note that the attempt at *address* failed; if it is the newest one, the next is due at once."""
        if address == self._newest:
            self._next_at = float("-inf")

    def delay(self, now: float) -> float | None:
        """Return the seconds from *now* until the next attempt is due; None if none is left."""
        return max(0.0, self._next_at - now) if self._waiting else None
