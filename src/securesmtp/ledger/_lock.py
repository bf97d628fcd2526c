"""A lock that a process holds for as long as it lives: the kernel releases it, however the process ends."""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, ClassVar
from weakref import WeakSet

from securesmtp._values import Stage
from securesmtp.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path

# What is in the file when the ledger has been made.
_MARK = b"a ledger\n"


class ProcessLock:
    """
    A lock on a file, for one process alone or shared by several.

    How it works: flock(2) on a file beside the database. Not on the database itself: on some drives this lock and those
    of SQLite are the same, and closing the file would release SQLite's. A fork shares the lock with its child, which
    may outlive its parent, so the child closes its copy at once.
    """

    _all: ClassVar[WeakSet[ProcessLock]] = WeakSet()

    def __init__(self, path: Path, *, exclusive: bool) -> None:
        self._path = path
        self._kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        self._file: IO[bytes] | None = None
        # A signal handler may claim while its thread does.
        self._mutex = threading.RLock()
        self._all.add(self)

    def acquire(self) -> None:
        """
        Take the lock if this process does not hold it yet. It is never waited for.

        Raises:
            LedgerError: Another process holds it, or the drive has no locks.
            OSError: The file cannot be made.
        """
        with self._mutex:
            if self._file is not None:
                return
            file = self._path.open("ab")
            try:
                self._lock(file, self._kind)
                self._verify()
            except BaseException:
                file.close()
                raise
            # One that a signal handler has taken meanwhile.
            self.release()
            self._file = file

    @property
    def is_marked(self) -> bool:
        """Whether there was a ledger beside it, in an earlier process or in this one."""
        with suppress(FileNotFoundError):
            return self._path.stat().st_size > 0
        return False

    def mark(self) -> None:
        """Note that there is a ledger beside it, so that it is missed when its file is gone or empty."""
        if not self.is_marked:
            with self._path.open("ab") as file:
                file.write(_MARK)

    def release(self) -> None:
        """Give the lock back, if it is held."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _lock(self, file: IO[bytes], kind: int) -> None:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerError(
                f"another run is using it, and holds the lock {os.fspath(self._path)!r}",
                stage=Stage.CONFIGURATION,
                retryable=True,
                hint="wait for its end, or end it; fuser with the path of the lock shows its process",
            ) from None
        except OSError as error:
            raise self._without_locks() from error

    def _verify(self) -> None:
        """Try to take the lock a second time: some drives grant everything."""
        with self._path.open("ab") as second:
            try:
                self._lock(second, fcntl.LOCK_EX)
            except LedgerError:
                return
        raise self._without_locks()

    def _without_locks(self) -> LedgerError:
        return LedgerError(
            f"the drive has no locks, so two processes could send the same message: {os.fspath(self._path.parent)!r}",
            stage=Stage.CONFIGURATION,
            hint="put the ledger on a local disk",
        )

    def abandon(self) -> None:
        """Close the copy that a fork has made: the parent keeps holding the lock, and the child does not."""
        # A thread of the parent may have held it at the fork.
        self._mutex = threading.RLock()
        self.release()

    @classmethod
    def abandon_all(cls) -> None:
        """Do so with every lock."""
        for lock in cls._all:
            lock.abandon()


with suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(after_in_child=ProcessLock.abandon_all)
