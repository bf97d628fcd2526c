"""What went wrong with a PostgreSQL database, and what to do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg
from psycopg import errors

from securesmtp._shown import escape
from securesmtp._values import Stage
from securesmtp.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Seconds to wait for another transaction that has changed the same entry.
PATIENCE: Final = 30
# Seconds to wait for a reply: a server that is frozen still answers the probes of TCP.
REPLY_WITHIN: Final = 60.0


class NoReplyError(psycopg.OperationalError):
    """The server has not replied for `REPLY_WITHIN` seconds."""


class Failure(NamedTuple):
    """What happened, and what to do."""

    text: str
    hint: str
    retryable: bool = False


_SCHEMA = "PostgreSQLLedger.schema() returns the SQL that makes the table, for somebody who may"
NO_CONNECTION: Final = Failure(
    "the database cannot be reached", "start it, or correct the address and the login", retryable=True
)
FOREIGN: Final = Failure("the table is no ledger", "choose the name of a table that does not exist")
LATER: Final = Failure("a later version of securesmtp has made the table", "install that version")
UNREADABLE: Final = Failure(
    "an entry cannot be read", "a later version of securesmtp may have written it: install that; or it is damaged"
)
_LOST = Failure("the connection to the database was lost", "try again when the database runs", retryable=True)
_ROLLED_BACK = Failure(
    "the database has rolled back because of another transaction", "try the whole transaction again", retryable=True
)
_NOT_TEXT = Failure("a key cannot be written in the encoding of the database", "make the database with UTF-8")
_FAILURES: dict[type[psycopg.Error], Failure] = {
    errors.UndefinedTable: Failure(
        "the table was there, and is gone; with a new one, all messages would be sent again",
        "restore it from a backup; for new messages, restart the program",
    ),
    errors.InvalidSchemaName: Failure("the schema does not exist", "make it, or correct its name"),
    errors.InsufficientPrivilege: Failure(
        "the user of the database lacks a right",
        "it needs SELECT, INSERT and UPDATE on the table, and USAGE on the sequence of its column id; " + _SCHEMA,
    ),
    errors.ReadOnlySqlTransaction: Failure("the server is read-only", "connect to the primary server"),
    errors.LockNotAvailable: Failure(
        f"another transaction has kept an entry locked for {PATIENCE} s",
        "commit what has prepared a message before you send it; pg_blocking_pids() shows who holds the lock",
        retryable=True,
    ),
    errors.QueryCanceled: Failure(
        "the database has canceled a statement", "statement_timeout may be too short", retryable=True
    ),
    NoReplyError: Failure(
        "the database does not reply",
        "look at its load and its disk; it may do later what it was asked",
        retryable=True,
    ),
    errors.DeadlockDetected: _ROLLED_BACK,
    errors.SerializationFailure: _ROLLED_BACK,
    errors.DiskFull: Failure("the disk of the database is full", "make room, and start again", retryable=True),
    errors.UntranslatableCharacter: _NOT_TEXT,
}


def failed(name: str, failure: Failure, more: str = "") -> LedgerError:
    """Return the error for what happened to the ledger *name*; *more* is what the database says."""
    return LedgerError(
        f"the ledger {name}: {failure.text}{more and f' ({more})'}",
        stage=Stage.CONFIGURATION,
        retryable=failure.retryable,
        hint=failure.hint,
    )


def first_line(error: psycopg.Error) -> str:
    """Return what the database says, on one line."""
    return escape(str(error).partition("\n")[0])


@contextmanager
def translated(name: str) -> Iterator[None]:
    """
    Raise what psycopg raises as an error of this library.

    Raises:
        LedgerError: The ledger *name* cannot be read or written.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise failed(name, _NOT_TEXT) from error
    except psycopg.Error as error:
        raise failed(name, _failure(error), first_line(error)) from error


def _failure(error: psycopg.Error) -> Failure:
    for kind, failure in _FAILURES.items():
        if isinstance(error, kind):
            return failure
    # Without a code, it comes from psycopg; 57 is "the server shuts down".
    is_lost = isinstance(error, psycopg.OperationalError) and str(error.sqlstate or "57")[:2] == "57"
    return _LOST if is_lost else Failure("the database has refused a statement", _SCHEMA)
