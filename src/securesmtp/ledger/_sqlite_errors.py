"""What went wrong with a SQLite file, and what to do."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from securesmtp._values import Stage
from securesmtp.errors import LedgerError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Seconds to wait for another process that writes to the file.
BUSY_TIMEOUT = 30.0


class _Failure(NamedTuple):
    text: str
    hint: str
    retryable: bool = False


_CANNOT_OPEN = _Failure(
    "it cannot be opened",
    "its folder must exist, and this user must be allowed to read and write the folder and the file",
)
_READ_ONLY = _Failure("it cannot be written", "this user must be allowed to write to the file and to its folder")
_FULL = _Failure("the disk is full", "make room, and start again", retryable=True)
_DAMAGED = _Failure("it is damaged", "restore it from a backup; with an empty ledger, all messages would be sent again")
NO_LEDGER = _Failure("it is no ledger", "choose the path of a file that does not exist")
FOREIGN = _Failure("it belongs to another program", NO_LEDGER.hint)
LATER = _Failure("a later version of securesmtp has written it", "install that version")
GONE = _Failure(
    "its file was deleted or emptied after it had been used; with a new one, all messages would be sent again",
    "put the file back, or restore it from a backup; for a new mailing, delete the file that ends in -lock as well",
)
UNREADABLE = _Failure(
    "an entry cannot be read", "a later version of securesmtp may have written it: install that; or the file is damaged"
)
_NOT_TEXT = _Failure("a key cannot be written in UTF-8", "choose another key, such as repr() of it")
_FAILURES = {
    sqlite3.SQLITE_BUSY: _Failure(
        f"another program kept it locked for {BUSY_TIMEOUT:g} s",
        "end the program that has a transaction open on it, such as a database browser",
        retryable=True,
    ),
    sqlite3.SQLITE_CANTOPEN: _CANNOT_OPEN,
    sqlite3.SQLITE_PERM: _CANNOT_OPEN,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: NO_LEDGER,
    # A lock that is refused with an error is one of these, too.
    sqlite3.SQLITE_IOERR: _Failure("the disk failed", "put the ledger on a local disk that has no errors"),
}
_OS_FAILURES = {
    errno.EACCES: _READ_ONLY,
    errno.EDQUOT: _FULL,
    errno.ENOSPC: _FULL,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
}


def failed(path: Path, failure: _Failure) -> LedgerError:
    """Return the error for what happened to the ledger at *path*."""
    return LedgerError(
        f"the ledger {os.fspath(path)!r}: {failure.text}",
        stage=Stage.CONFIGURATION,
        retryable=failure.retryable,
        hint=failure.hint,
    )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """
    Raise what SQLite and the operating system raise as an error of this library.

    Raises:
        LedgerError: The ledger at *path* cannot be read or written.
    """
    try:
        yield
    except SecureSMTPError:
        # It is an OSError as well.
        raise
    except sqlite3.Error as error:
        # The low byte is the kind; the rest says where in SQLite.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        raise failed(path, _FAILURES.get(code, _Failure(f"{error}", NO_LEDGER.hint))) from error
    except UnicodeEncodeError as error:
        # SQLite keeps text in UTF-8. The name of a file may be other bytes.
        raise failed(path, _NOT_TEXT) from error
    except OSError as error:
        raise failed(path, _OS_FAILURES.get(error.errno or 0, _CANNOT_OPEN)) from error
