"""What the mailer has found out about overlapping transactions, shared by the threads that use its connections."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class OverlapSupport:
    """
    Whether the host supports overlapping transactions: unknown until one connection has tried.

    Attributes:
        supported: None while unknown.
        trial: A lock that the one connection holds which tries.
    """

    def __init__(self, on_ruled_out: Callable[[str], None]) -> None:
        """Know nothing. *on_ruled_out* is called once, with the reason, if the host does not support it."""
        self.supported: bool | None = None
        self.trial = threading.Lock()
        self._on_ruled_out = on_ruled_out
        self._lock = threading.Lock()

    def confirm(self) -> None:
        """Note that a trial went well."""
        with self._lock:
            if self.supported is None:
                self.supported = True

    def rule_out(self, reason: str) -> None:
        """Note that the host does not support it; it is not tried again."""
        with self._lock:
            is_first, self.supported = self.supported is not False, False
        if is_first:
            self._on_ruled_out(reason)
