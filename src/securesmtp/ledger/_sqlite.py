"""
A ledger in a SQLite file.

How it works:

- Each call opens the file, runs one transaction, and closes it (0.1 ms). So any thread may call, and the child of a
  fork has no handle of its parent: SQLite loses its locks if a child uses or closes one.
- A rollback journal, not a write-ahead log: SQLite before 3.51.3 can damage a file in that mode when two processes
  write, and the log needs shared memory. The journal stays (PERSIST), since `synchronous=FULL` syncs the end of such a
  one, but not the folder after the removal of one. It is also a third faster than TRUNCATE.
- `BEGIN IMMEDIATE`, because a transaction that reads before it writes fails at once if another one has written.
- Times come from SQLite's clock, in milliseconds since 1970. A state that depends on them is computed when it is read.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from securesmtp._options import seconds
from securesmtp.ledger._lock import ProcessLock
from securesmtp.ledger._protocol import Entry, Item, State
from securesmtp.ledger._rules import (
    check_resend,
    closed,
    not_unknown,
    outcomes_unknown,
    states_before,
    to_entry,
)
from securesmtp.ledger._sqlite_errors import GONE, UNREADABLE, failed, translated
from securesmtp.ledger._sqlite_file import absolute, columns_of, columns_of_ends, connect, create, inspect, set_up

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from securesmtp._values import SendResult

# Entries that `entries` reads at once: the file is locked while it reads.
_PAGE = 500
# julianday() has a precision of 0.04 ms, and the clock behind it 1 ms.
_NOW = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"
_STATE = f"CASE WHEN state = 'claimed' AND {_NOW} - changed > :longest THEN 'unknown' ELSE state END"
_SELECT = f"SELECT id, key, digest, message_id, {_STATE} AS now, changed, token, result FROM entries"  # noqa: S608 -- ours
_NEXT = f"{_SELECT} WHERE id > :last AND now IN (SELECT value FROM json_each(:states)) ORDER BY id LIMIT {_PAGE}"  # noqa: S608 -- as above
_FIND = f"{_SELECT} WHERE key = :key"
_PREPARE = f"""
    INSERT INTO entries (key, digest, message_id, state, changed)
    VALUES (:key, :digest, :message_id, 'prepared', {_NOW})
    ON CONFLICT (key) DO UPDATE SET
        digest = excluded.digest, message_id = excluded.message_id, state = excluded.state, changed = excluded.changed,
        token = NULL, result = NULL
    WHERE state IN ('not sent', 'refused') AND digest <> excluded.digest
"""  # noqa: S608 -- no argument is in it
_CLAIM = f"""
    UPDATE entries SET state = 'claimed', token = :token, changed = {_NOW}
    WHERE key = :key AND digest = :digest AND CASE {_STATE}
        WHEN 'prepared' THEN 1
        WHEN 'not sent' THEN 1
        WHEN 'claimed' THEN token = :token
        WHEN 'refused' THEN retryable OR :resend_refused
        WHEN 'unknown' THEN :resend_unknown
        ELSE 0
    END
"""  # noqa: S608 -- no argument is in it
_FINISH = f"""
    UPDATE entries SET state = :state, result = :result, retryable = :retryable, changed = {_NOW}
    WHERE key = :key AND token = :token AND state IN ('claimed', 'unknown')
"""  # noqa: S608 -- no argument is in it
_RECONCILE = f"UPDATE entries SET state = :state, token = NULL, changed = {_NOW} WHERE key = :key"  # noqa: S608 -- no argument is in it


class SQLiteLedger:
    """
    A ledger in a SQLite file on a local disk; see `Ledger` for its methods. Any thread may use it.

    Attributes:
        path: The file, absolute.
        longest_send: Seconds after which a claim without an end counts as unknown.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        longest_send: float = 3600.0,
        resend: Collection[Literal["unknown", "refused"]] = (),
        exclusive: bool = False,
    ) -> None:
        """
        Open the ledger, or make it if there is no such file.

        Args:
            path: The file. Two more are beside it: one ends in ``-journal`` and belongs to it, one in ``-lock``.
            longest_send: Seconds that no send takes longer than: an upper bound of the mailer's *deadline*. A claim
                without an end that is older counts as unknown.
            resend: What may be sent again although it may arrive twice (``"unknown"``) or was refused for good
                (``"refused"``).
            exclusive: Keep other processes from claiming as long as this one has the ledger open. Then a claim that has
                no end when it is opened is unknown at once, because its owner is dead.

        Raises:
            ConfigurationError: An argument is wrong.
            LedgerError: The file cannot be opened or is no ledger, or another process uses it.
        """
        self.path: Path = absolute(path)
        self.longest_send: float = seconds("longest_send", longest_send)
        allowed = check_resend(resend)
        self._parameters: dict[str, object] = {
            "longest": int(longest_send * 1000),
            "resend_unknown": "unknown" in allowed,
            "resend_refused": "refused" in allowed,
        }
        self._exclusive = exclusive
        self._closed = False
        with translated(self.path):
            # SQLite follows links too. The lock is that of the file, whatever name it has.
            resolved = self.path.resolve()
            self._lock = ProcessLock(resolved.with_name(f"{resolved.name}-lock"), exclusive=exclusive)
            if self._lock.is_marked and not resolved.is_file():
                raise failed(self.path, GONE)
            create(resolved)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes use it. What is claimed stays so; every other method raises `LedgerError` from now on."""
        self._closed = True
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self, items: Sequence[Item]) -> Sequence[Entry]:
        """
        Add those of *items* whose key is new, as `State.PREPARED`; return the entry of each as it is now.

        Raises:
            LedgerError: Nothing was written.
        """
        with self._transaction() as connection:
            connection.executemany(_PREPARE, map(columns_of, items))
            return self._find(connection, (item.key for item in items))

    def claim(self, items: Sequence[Item], token: str) -> Sequence[Entry]:
        """
        Prepare each of *items*, and claim those that may be sent; return the entry of each as it is now.

        Raises:
            LedgerError: Nothing was claimed.
        """
        with self._transaction(claims=True) as connection:
            return self._claim(connection, items, token)

    def finish(self, ends: Mapping[str, SendResult], token: str) -> None:
        """
        Write how the sends of the entries with these keys ended. An entry that *token* does not own is not changed.

        Raises:
            LedgerError: Nothing was written; the entries stay claimed.
        """
        with outcomes_unknown(), self._transaction() as connection:
            connection.executemany(_FINISH, columns_of_ends(ends, token))

    def advance(self, ends: Mapping[str, SendResult], items: Sequence[Item], token: str) -> Sequence[Entry]:
        """
        Do what `finish` does with *ends*, then what `claim` does with *items*, in one transaction.

        Raises:
            LedgerError: Nothing was written or claimed.
        """
        with outcomes_unknown(), self._transaction(claims=True) as connection:
            connection.executemany(_FINISH, columns_of_ends(ends, token))
            return self._claim(connection, items, token)

    def look_up(self, key: str) -> Entry | None:
        """
        Return the entry of *key*; None if there is none.

        Raises:
            LedgerError: The file cannot be read.
        """
        with self._connected() as connection:
            return next(iter(self._find(connection, [key])), None)

    def entries(self, *states: State) -> Iterator[Entry]:
        """
        Yield the entries that are in one of *states*, or all, in the order in which they were added.

        Raises:
            LedgerError: The file cannot be read.
        """
        last, parameters = 0, {**self._parameters, "states": json.dumps(states or tuple(State))}
        while True:
            with self._connected() as connection:
                rows = connection.execute(_NEXT, {**parameters, "last": last}).fetchall()
            yield from map(self._entry, rows)
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def reconcile(self, key: str, state: State) -> Entry:
        """
        Write the verdict of a person, or of the server's log, on an unknown message, and return its entry.

        Args:
            key: Its key.
            state: `State.ACCEPTED` (it arrived) or `State.NOT_SENT` (it did not: it may be sent again).

        Raises:
            ConfigurationError: *state* is no verdict.
            LedgerError: It is not unknown, or there is no such key.
        """
        allowed = states_before(state)
        with self._transaction() as connection:
            found = next((entry.state for entry in self._find(connection, [key])), None)
            if found not in allowed:
                raise not_unknown(key, found)
            connection.execute(_RECONCILE, {"key": key, "state": state})
            (entry,) = self._find(connection, [key])
        return entry

    def _open(self) -> None:
        with self._connected() as connection:
            version = inspect(connection, self.path)
        # Otherwise nothing is written: to read a ledger, a right to read is enough.
        if version == 0 or self._exclusive:
            self._write_first()
            # Not before it is on the disk.
            with translated(self.path):
                self._lock.mark()

    def _write_first(self) -> None:
        with self._transaction() as connection:
            # Again, because another process may have been faster.
            if inspect(connection, self.path) == 0:
                if self._lock.is_marked:
                    raise failed(self.path, GONE)
                set_up(connection)
            if self._exclusive:
                connection.execute("UPDATE entries SET state = 'unknown' WHERE state = 'claimed'")

    @contextmanager
    def _transaction(self, *, claims: bool = False) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            if claims or self._exclusive:
                # Again in the child of a fork, where it fails if the parent has it for itself.
                self._lock.acquire()
            connection.execute("PRAGMA journal_mode = PERSIST")
            connection.execute("BEGIN IMMEDIATE")
            # Without the COMMIT, closing the connection rolls back.
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise closed(repr(os.fspath(self.path)))
        with translated(self.path), connect(self.path) as connection:
            yield connection

    def _claim(self, connection: sqlite3.Connection, items: Sequence[Item], token: str) -> list[Entry]:
        connection.executemany(_PREPARE, map(columns_of, items))
        connection.executemany(_CLAIM, [{**self._parameters, "token": token, **columns_of(item)} for item in items])
        return self._find(connection, (item.key for item in items))

    def _find(self, connection: sqlite3.Connection, keys: Iterable[str]) -> list[Entry]:
        parameters = ({**self._parameters, "key": key} for key in keys)
        return [self._entry(row) for each in parameters for row in connection.execute(_FIND, each)]

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        _, key, digest, message_id, state, changed, token, result = row
        try:
            return to_entry(key, digest, message_id, state, timedelta(milliseconds=changed), token, result)
        except ValueError as error:
            raise failed(self.path, UNREADABLE) from error
