"""A ledger in a PostgreSQL database, for several machines; how it works is told in the modules that it is made of."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

import psycopg
from psycopg.pq import PipelineStatus

from securesmtp._options import seconds
from securesmtp._protocol.sasl import as_secret
from securesmtp._shown import quote
from securesmtp.errors import ConfigurationError, LedgerError
from securesmtp.ledger._postgresql_connections import Connections, fetch
from securesmtp.ledger._postgresql_errors import FOREIGN, LATER, PATIENCE, UNREADABLE, failed, translated
from securesmtp.ledger._postgresql_statements import COMMENT, PAGE, VERSION, Statements
from securesmtp.ledger._protocol import Entry, Item, State
from securesmtp.ledger._rules import (
    check_resend,
    not_unknown,
    outcomes_unknown,
    result_to_text,
    states_before,
    to_entry,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from types import TracebackType

    from psycopg.sql import Composed

    from securesmtp._secret import Secret
    from securesmtp._values import SendResult

# Of a table, and of its schema.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_MOST_NAMES = 2


class PostgreSQLLedger:
    """
    A ledger in a PostgreSQL database (12 or later); see `Ledger` for its methods. Any thread may use it.

    Its connections are its own, never the caller's: a claim must be committed before the content goes, whatever becomes
    of the caller's transaction. They are opened when they are needed, in each process, and again when they were lost.
    A pooler such as PgBouncer may be in between. The table is made when it is first needed; see `schema`.

    Attributes:
        longest_send: Seconds after which a claim without an end counts as unknown.
    """

    def __init__(
        self,
        conninfo: str | Secret,
        *,
        table: str = "securesmtp_ledger",
        longest_send: float = 3600.0,
        resend: Collection[Literal["unknown", "refused"]] = (),
    ) -> None:
        """
        Check the arguments; the database is used later.

        Args:
            conninfo: Where the database is: a URL as ``"postgresql://user@host/database"``, or another connection
                string of libpq. No error shows its password.
            table: The name of the table, or of its schema and the table with a dot between them. Ledgers with the same
                table are one.
            longest_send: Seconds that no send takes longer than: an upper bound of the mailer's *deadline*. A claim
                without an end that is older counts as unknown.
            resend: What may be sent again although it may arrive twice (``"unknown"``) or was refused for good
                (``"refused"``).

        Raises:
            ConfigurationError: An argument is wrong.
        """
        # First, because an error report shows these variables.
        hidden = as_secret(conninfo)
        del conninfo
        self.longest_send: float = seconds("longest_send", longest_send)
        allowed = check_resend(resend)
        self._statements = Statements(*_names(table))
        self._connections = Connections(hidden, table)
        self._parameters: dict[str, object] = {
            "longest": longest_send,
            "patience": f"{PATIENCE}s",
            "resend_unknown": "unknown" in allowed,
            "resend_refused": "refused" in allowed,
        }
        self._is_ready = False

    @staticmethod
    def schema(table: str = "securesmtp_ledger") -> str:
        """
        Return the SQL that makes the *table*: for a migration, or to be run by a user who may make tables.

        Raises:
            ConfigurationError: *table* is no name.
        """
        return Statements(*_names(table)).schema.as_string().strip()

    def close(self) -> None:
        """Close the connections. What is claimed stays so; every other method raises `LedgerError` from now on."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self, items: Sequence[Item], *, connection: object = None) -> Sequence[Entry]:
        """
        Add those of *items* whose key is new, as `State.PREPARED`; return the entry of each as it is now.

        Args:
            items: The messages.
            connection: Your own connection to the same database: of psycopg 3, or Django's ``connection``. Then the
                entries are part of your transaction. Commit it before you send: `claim` waits for its end.

        Raises:
            ConfigurationError: *connection* is another object, or in pipeline mode.
            LedgerError: Nothing was written.
        """
        if connection is None:
            return self._entries(self._statements.prepare_and_find, _columns(items))
        own = _psycopg_connection(connection)
        self._require_table()
        parameters = {**self._parameters, **_columns(items)}
        with translated(self._connections.name):
            fetch(own, self._statements.prepare, parameters)
            rows = fetch(own, self._statements.find, parameters)
        # Text is bytes over a connection without an encoding (SQL_ASCII).
        return [self._entry(tuple(_decoded(value) for value in row)) for row in rows]

    def claim(self, items: Sequence[Item], token: str) -> Sequence[Entry]:
        """
        Prepare each of *items*, and claim those that may be sent; return the entry of each as it is now.

        Raises:
            LedgerError: Nothing was claimed, or the reply of the database was lost: claim it again with this token.
        """
        return self._entries(self._statements.claim, {**_columns(items), "token": token})

    def finish(self, ends: Mapping[str, SendResult], token: str) -> None:
        """
        Write how the sends of the entries with these keys ended. An entry that *token* does not own is not changed.

        Raises:
            LedgerError: Nothing was written; the entries stay claimed.
        """
        columns = {
            "keys": list(map(_escape, ends)),
            "states": [State(result.outcome.value) for result in ends.values()],
            "results": list(map(result_to_text, ends.values())),
            "retryables": [result.retryable for result in ends.values()],
        }
        with outcomes_unknown():
            self._rows(self._statements.finish, {**columns, "token": token})

    def look_up(self, key: str) -> Entry | None:
        """
        Return the entry of *key*; None if there is none.

        Raises:
            LedgerError: The database cannot be read.
        """
        return next(iter(self._entries(self._statements.find, {"keys": [_escape(key)]})), None)

    def entries(self, *states: State) -> Iterator[Entry]:
        """
        Yield the entries that are in one of *states*, or all, in the order in which they were added.

        Raises:
            LedgerError: The database cannot be read.
        """
        last, wanted = 0, list(states or State)
        while True:
            rows = self._rows(self._statements.next, {"last": last, "states": wanted})
            yield from map(self._entry, rows)
            if len(rows) < PAGE:
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
        # A lost connection is replaced here: the verdict itself is not written twice.
        self.look_up(key)
        parameters = {"key": _escape(key), "state": state, "allowed": list(allowed)}
        rows = self._rows(self._statements.reconcile, parameters, repeat=False)
        if rows:
            return self._entry(rows[0])
        found = self.look_up(key)
        raise not_unknown(key, None if found is None else found.state)

    def _entries(self, statements: Composed, parameters: Mapping[str, object]) -> list[Entry]:
        return [self._entry(row) for row in self._rows(statements, parameters)]

    def _rows(
        self, statements: Composed, parameters: Mapping[str, object], *, repeat: bool = True
    ) -> list[tuple[Any, ...]]:
        self._require_table()
        return self._connections.execute(statements, {**self._parameters, **parameters}, repeat=repeat)

    def _require_table(self) -> None:
        """
        Make the table if it has never been there.

        Raises:
            LedgerError: It cannot be made, or it is another one.
        """
        if self._is_ready:
            return
        if not self._has_table():
            try:
                self._connections.execute(self._statements.schema, {})
            except LedgerError:
                # Another process may have been faster: of what it then finds, PostgreSQL has several errors.
                if not self._has_table():
                    raise
        self._is_ready = True

    def _has_table(self) -> bool:
        ((exists, comment),) = self._connections.execute(self._statements.inspect, {})
        if exists and comment is None:
            # Another process may just have made it: the comment is that of the statement's begin. So look again.
            ((exists, comment),) = self._connections.execute(self._statements.inspect, {})
        version = str(comment).removeprefix(COMMENT)
        if exists and version != str(VERSION):
            raise failed(self._connections.name, LATER if version.isdecimal() else FOREIGN)
        return bool(exists)

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        _, key, digest, message_id, state, changed, token, result = row
        try:
            changed = timedelta(microseconds=changed)
            return to_entry(_unescape(key), digest, message_id, state, changed, token, result)
        except ValueError as error:
            raise failed(self._connections.name, UNREADABLE) from error


def _names(table: object) -> list[str]:
    names = table.split(".") if isinstance(table, str) else []
    if not 0 < len(names) <= _MOST_NAMES or not all(map(_NAME.fullmatch, names)):
        hint = "use letters, digits and _, such as securesmtp_ledger or mail.ledger"
        raise ConfigurationError(f"table is {quote(table)}, not the name of a table", hint=hint)
    return names


def _psycopg_connection(connection: object) -> psycopg.Connection[Any]:
    if hasattr(connection, "ensure_connection"):
        # Django's has psycopg's in it.
        connection.ensure_connection()
        connection = getattr(connection, "connection", None)
    if not isinstance(connection, psycopg.Connection):
        kind = type(connection).__name__
        hint = "pass a psycopg.Connection, or django.db.connection if that is one to PostgreSQL, with psycopg 3"
        raise ConfigurationError(f"connection is a {kind}, not one of psycopg 3", hint=hint)
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        # Its replies come later.
        raise ConfigurationError("connection is in pipeline mode", hint="prepare messages before or after the pipeline")
    return connection


def _decoded(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _columns(items: Sequence[Item]) -> dict[str, object]:
    return {
        "keys": [_escape(item.key) for item in items],
        "digests": [item.digest for item in items],
        "message_ids": [item.message_id for item in items],
    }


def _escape(key: str) -> str:
    """Return *key* without NUL, which PostgreSQL cannot keep."""
    return key.replace("\1", "\1\2").replace("\0", "\1\1")


def _unescape(key: str) -> str:
    return key.replace("\1\1", "\0").replace("\1\2", "\1")
