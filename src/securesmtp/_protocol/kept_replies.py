"""Replies that came while something else was written: kept in their order, within a limit, until they are read."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from securesmtp.errors import ProtocolError

if TYPE_CHECKING:
    from securesmtp._protocol.wire import RawReply

# Bytes that all replies together may have: so many, and so many more for each reply.
_MAX_KEPT, _MAX_REPLY = 1 << 18, 256


class KeptReplies(deque["RawReply"]):
    """The replies, oldest first."""

    def __init__(self) -> None:
        """Start without any."""
        super().__init__()
        self._size = 0

    def keep(self, raw: RawReply) -> None:
        """
        Add *raw*, cut to the part that a receipt or an error may show.

        Raises:
            ProtocolError: The replies are longer than any server needs.
        """
        self.append(raw.cut())
        self._size += _size(self[-1])
        if self._size > _MAX_KEPT + len(self) * _MAX_REPLY:
            message = "the replies to what is in flight are longer than any server needs"
            raise ProtocolError(message)

    def take(self) -> RawReply:
        """Remove the oldest reply and return it."""
        raw = self.popleft()
        self._size -= _size(raw)
        return raw


def _size(raw: RawReply) -> int:
    # A bytes object has 33 bytes of its own, and its entry in the tuple has 8.
    return len(raw.challenge) + sum(map(len, raw.lines)) + 41 * len(raw.lines)
