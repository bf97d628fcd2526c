"""Open a SQLite file as a ledger, make it, and recognise it; and what its columns hold."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from securesmtp._shown import quote
from securesmtp.errors import ConfigurationError
from securesmtp.ledger._protocol import State
from securesmtp.ledger._rules import result_to_text
from securesmtp.ledger._sqlite_errors import BUSY_TIMEOUT, FOREIGN, LATER, failed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from securesmtp._values import SendResult
    from securesmtp.ledger._protocol import Item

# "SMTL", in the header of the file (PRAGMA application_id).
_APPLICATION = 0x534D544C
_VERSION = 1
_SCHEMA = (
    """
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, message_id TEXT, state TEXT NOT NULL,
        changed INTEGER NOT NULL, token TEXT, result TEXT, retryable INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)


def absolute(path: object) -> Path:
    """
    Return *path*, whatever the current folder will be.

    Raises:
        ConfigurationError: It is not the path of a file.
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str) or text in {"", ":memory:"}:
        hint = "a ledger outlives the process, so it is a file"
        raise ConfigurationError(f"{quote(path, allow_at=True)} is not the path of a file", hint=hint)
    return Path(text).absolute()


def create(path: Path) -> None:
    """Make an empty file that only this user may read, if there is none: a ledger has addresses in it."""
    if path.exists():
        return
    # Not opened under its own name: closing a file releases the locks that SQLite has on it for this process.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}-")
    os.close(handle)
    new = Path(name)
    try:
        path.hardlink_to(new)
    except FileExistsError:
        pass  # another process was faster
    except OSError:
        # Some drives have no hard links.
        path.touch(mode=0o600)
    finally:
        new.unlink()


@contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file for one transaction."""
    # A file that was removed must not come back empty: then every message would be sent again.
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        yield connection
    finally:
        connection.close()


def inspect(connection: sqlite3.Connection, path: Path) -> int:
    """
    Return the version of the ledger at *path*; 0 if the file is empty.

    Raises:
        LedgerError: It is the database of another program, or of a later version.
    """
    application, version, tables = connection.execute(
        "SELECT application_id, user_version, (SELECT COUNT(*) FROM sqlite_schema)"
        " FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    if (application, version, tables) == (0, 0, 0):
        return 0
    if application != _APPLICATION:
        raise failed(path, FOREIGN)
    if version > _VERSION:
        raise failed(path, LATER)
    return _VERSION


def set_up(connection: sqlite3.Connection) -> None:
    """Make the table."""
    for statement in _SCHEMA:
        connection.execute(statement)


def columns_of(item: Item) -> dict[str, object]:
    """Return the columns of an entry that is added or claimed."""
    return {"key": item.key, "digest": item.digest, "message_id": item.message_id}


def columns_of_ends(ends: Mapping[str, SendResult], token: str) -> list[dict[str, object]]:
    """Return the columns of each entry whose send has ended."""
    return [
        {
            "key": key,
            "token": token,
            "state": State(result.outcome.value),
            "result": result_to_text(result),
            "retryable": result.retryable,
        }
        for key, result in ends.items()
    ]
