"""
The connections of a ledger to PostgreSQL.

How it works:

- A call takes a connection for itself, and gives it back; so a signal handler may call while its thread does. At most
  four are open: other threads wait for their turn.
- An interrupt may end a call at any line. A turn that it leaves behind is over when nothing refers to it any more; a
  semaphore would count it for ever (measured: at 15 of 77 lines).
- A connection is kept only if the server waits for the next statement. After any exception in between, such as the time
  limit of a task queue, it is closed.
- A server that is frozen (its disk, or its virtual machine) does not reply, and is not lost either: there is a limit.
- The child of a fork closes its copies without a word to the server: a farewell would end the parent's session.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from contextlib import contextmanager, suppress
from operator import call
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import WeakSet, ref

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.waiting import wait_selector

from securesmtp._shown import quote
from securesmtp.errors import ConfigurationError, LedgerError
from securesmtp.ledger._postgresql_errors import (
    NO_CONNECTION,
    REPLY_WITHIN,
    NoReplyError,
    failed,
    first_line,
    translated,
)
from securesmtp.ledger._rules import closed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg.abc import PQGen
    from psycopg.sql import Composed

    from securesmtp._secret import Secret

T = TypeVar("T")

_MOST = 4
# How often a call that waits looks for its turn by itself, in seconds.
_POLL_INTERVAL = 0.02
# Likewise a call that waits for a reply.
_WAKE_EACH = 0.1
_SHOWN = ("host", "port", "dbname")
# A server that has vanished is noticed after 30 s, not after two hours. A standby would not know of the last claims.
_DEFAULTS = {
    "application_name": "securesmtp",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
    "target_session_attrs": "read-write",
}


class _Connection(psycopg.Connection[Any]):
    """A connection that does not wait for ever."""

    def wait(self, gen: PQGen[T], *_: object, **__: object) -> T:
        """Return what *gen* does: it waits for the server."""
        # psycopg's own choice before 3.2.13, in C, does not wake up *gen* in between.
        return wait_selector(_limited(gen, time.monotonic() + REPLY_WITHIN), self.pgconn.socket, interval=_WAKE_EACH)


def _limited(steps: PQGen[T], end: float) -> PQGen[T]:
    """
    Do what *steps* do, until *end*.

    Raises:
        NoReplyError: There was no reply in time.
    """
    try:
        wanted = next(steps)
        while True:
            # Nothing, each time that it was only woken up.
            ready = yield wanted
            if not ready and time.monotonic() >= end:
                text = "no reply"
                raise NoReplyError(text)
            wanted = steps.send(ready)
    except StopIteration as last:
        result: T = last.value
        return result


class Turn:
    """A call that uses a connection, or waits for one."""

    __slots__ = ("__weakref__",)


class Connections:
    """
    Connections to one database.

    Attributes:
        name: How errors call the ledger.
    """

    _all: ClassVar[WeakSet[Connections]] = WeakSet()

    def __init__(self, conninfo: Secret, table: str) -> None:
        """
        Open none yet.

        Raises:
            ConfigurationError: *conninfo* is wrong.
        """
        # No variable has all of it: an error report would show its password.
        shown = _shown(conninfo)
        where = ", ".join(f"{name}={value}" for name, value in shown.items() if value)
        self.name: str = quote(f"{table} in PostgreSQL ({where})", allow_at=True)
        self._conninfo = conninfo
        given = frozenset(conninfo_to_dict(conninfo.reveal()))
        self._options: dict[str, Any] = {name: value for name, value in _DEFAULTS.items() if name not in given}
        self._closed = False
        self._start()
        self._all.add(self)

    def _start(self) -> None:
        self._idle = deque[psycopg.Connection[Any]]()
        # In the order in which they began.
        self._turns = list[ref[Turn]]()
        # Locked until a call ends.
        self._bell = Lock()
        self._bell.acquire()

    def close(self) -> None:
        """Close them all; one that is in use, when its call ends."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def execute(
        self, statements: Composed, parameters: Mapping[str, object], *, repeat: bool = True
    ) -> list[tuple[Any, ...]]:
        """
        Execute *statements* and return the rows of the last one that has some.

        Unless *repeat* is false, they are executed a second time if the connection is lost, as it may be after hours
        without use: the effect must be the same.

        Raises:
            LedgerError: The database cannot be reached, or refuses it.
        """
        with translated(self.name):
            try:
                with self._lent() as connection:
                    return fetch(connection, statements, parameters)
            except psycopg.OperationalError:
                if not (repeat and connection.broken):
                    raise
            # The others were lost with it.
            self._close_idle()
            with self._lent() as connection:
                return fetch(connection, statements, parameters)

    @contextmanager
    def _lent(self) -> Iterator[psycopg.Connection[Any]]:
        if self._closed:
            raise closed(self.name)
        with self._in_turn():
            connection = None
            with suppress(IndexError):
                connection = self._idle.pop()
            if connection is None:
                connection = self._connect()
            try:
                yield connection
            finally:
                if connection.info.transaction_status is TransactionStatus.IDLE:
                    self._idle.append(connection)
                else:
                    connection.close()
                if self._closed:
                    self._close_idle()

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        turn = Turn()
        mine, turns, bell = ref(turn), self._turns, self._bell
        # Those of interrupted calls, or the list would grow with each.
        for dead in [each for each in tuple(turns) if each() is None]:
            # Another thread may have removed it.
            with suppress(ValueError):
                turns.remove(dead)
        turns.append(mine)
        try:
            # Those that are alive: a call of a dead reference returns None.
            while mine not in list(filter(call, tuple(turns)))[:_MOST]:
                bell.acquire(timeout=_POLL_INTERVAL)
            yield
        finally:
            # At once: the traceback of an error refers to it.
            turns.remove(mine)
            with suppress(RuntimeError):
                bell.release()

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return _Connection.connect(
                self._conninfo.reveal(),
                autocommit=True,
                prepare_threshold=None,
                client_encoding="UTF8",
                **self._options,
            )
        except psycopg.Error as error:
            text = first_line(error)
        # Not as the cause: its frames have the password in them.
        raise self._cannot_connect(text)

    def _cannot_connect(self, text: str) -> LedgerError:
        password = conninfo_to_dict(self._conninfo.reveal()).get("password")
        return failed(self.name, NO_CONNECTION, "" if password and str(password) in text else text)

    def abandon(self) -> None:
        """Close the copies that a fork has made: the parent keeps its connections."""
        inherited = self._idle
        # Threads of the parent may have used the others, and do not exist here.
        self._start()
        for connection in inherited:
            with socket.socket() as nowhere:
                os.dup2(nowhere.fileno(), connection.fileno())
            connection.close()

    @classmethod
    def abandon_all(cls) -> None:
        """Do so for every ledger."""
        for connections in cls._all:
            connections.abandon()


def fetch(
    connection: psycopg.Connection[Any], statements: Composed, parameters: Mapping[str, object]
) -> list[tuple[Any, ...]]:
    """Execute *statements* over *connection*, and return the rows of the last one that has some."""
    rows: list[tuple[Any, ...]] = []
    with psycopg.ClientCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(statements, parameters)
        has_more: bool | None = True
        while has_more:
            if cursor.description is not None:
                rows = cursor.fetchall()
            has_more = cursor.nextset()
    return rows


def _shown(conninfo: Secret) -> dict[str, str]:
    """
    Return what an error may show of *conninfo*.

    Raises:
        ConfigurationError: It is wrong.
    """
    hint = 'write "postgresql://user@host/database", with % and two digits for what is special in a password'
    error = ConfigurationError("conninfo is not the address of a PostgreSQL database", hint=hint)
    try:
        shown = {name: str(value) for name, value in conninfo_to_dict(conninfo.reveal()).items() if name in _SHOWN}
    except psycopg.Error:
        # Its text has a part of it.
        shown = {"": "@"}
    # A password with special characters that are not written with a % ends in these.
    if any(sign in value for value in shown.values() for sign in "@?#%"):
        del shown
        raise error
    return shown


with suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(after_in_child=Connections.abandon_all)
