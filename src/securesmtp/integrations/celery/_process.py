"""The mailer and the ledger of a process: made when the first task needs them, and closed when the process ends."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from celery.signals import worker_process_shutdown, worker_shutdown

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp.ledger import Ledger

M = TypeVar("M", bound="Mailer")
L = TypeVar("L", bound="Ledger")
T = TypeVar("T")


class Mailer(Protocol):
    """What a task sends with: a `SecureMailer`, or an object with these methods."""

    @property
    def send_many(self) -> Any:  # noqa: ANN401 -- that of `SecureMailer`
        """See `SecureMailer.send_many`."""

    def close(self, *, timeout: float | None = None) -> object:
        """See `SecureMailer.close`."""


class Once(Generic[T]):
    """A value that is made when it is first needed, by one thread."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock, self._made = make, threading.Lock(), list[T]()

    def get(self) -> T:
        """Return it."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]

    def pop(self) -> T | None:
        """Return it if it was made; the next call of `get` makes another one."""
        with suppress(IndexError):
            return self._made.pop()
        return None


class Process:
    """The mailer and the ledger of one process."""

    def __init__(self, make_mailer: Callable[[], Mailer], make_ledger: Callable[[], Ledger]) -> None:
        self.mailer: Once[Mailer] = Once(make_mailer)
        self.ledger: Once[Ledger] = Once(make_ledger)

    def close(self, timeout: float) -> None:
        """Close both; wait *timeout* seconds for messages that are being sent, then abort them."""
        mailer, ledger = self.mailer.pop(), self.ledger.pop()
        if mailer is not None:
            mailer.close(timeout=timeout)
        close = getattr(ledger, "close", None)
        if close is not None:
            close()


class Processes:
    """What each process has: the child of a fork makes its own."""

    def __init__(self, make_mailer: Callable[[], Mailer], make_ledger: Callable[[], Ledger], timeout: float) -> None:
        self._make_mailer, self._make_ledger = make_mailer, make_ledger
        self.timeout: float = timeout
        # By process: neither a lock nor a connection is shared with a parent.
        self._of: dict[int, Process] = {}
        # A child of the pool ends without `atexit`. With threads and gevent, only the second signal is sent.
        worker_process_shutdown.connect(self._on_shutdown, weak=False)
        worker_shutdown.connect(self._on_shutdown, weak=False)

    @property
    def current(self) -> Process:
        """That of this process."""
        # One step, so that two threads get the same one.
        return self._of.setdefault(os.getpid(), Process(self._make_mailer, self._make_ledger))

    def close(self) -> None:
        """Close what this process has."""
        process = self._of.pop(os.getpid(), None)
        if process is not None:
            process.close(self.timeout)

    def _on_shutdown(self, **_: object) -> None:
        self.close()
