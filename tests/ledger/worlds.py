"""The databases that the contract of ledgers is tested with: each makes ledgers on the same entries."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Protocol
from uuid import uuid4

import psycopg
import pytest
import redis

from securesmtp import Outcome, SendResult
from securesmtp.errors import SenderRefusedError
from securesmtp.ledger import Entry, Item, Ledger, PostgreSQLLedger, RedisLedger, SQLiteLedger

LONGEST = 3600.0
HOUR = LONGEST + 1


class ClosableLedger(Ledger, Protocol):
    """Every ledger of this package can be closed."""

    def close(self) -> None:
        """Close it."""


class World(Protocol):
    """
    One database.

    Attributes:
        fixture: The fixture with its server, if it has one.
        arguments: Those with which another process makes the same world.
    """

    fixture: ClassVar[str | None]
    arguments: list[str]

    def open(self, **options: Any) -> ClosableLedger:
        """Open it as one process does; options are ``longest_send`` and ``resend``."""

    def age(self, key: str, seconds: float) -> None:
        """Make the entry of *key* older: as if the database's clock had gone on."""


class SQLiteWorld:
    """A file."""

    fixture: ClassVar[str | None] = None

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "ledger.sqlite"
        self.arguments = [str(folder)]

    @classmethod
    def make(cls, folder: Path, server: Any) -> SQLiteWorld:
        assert server is None
        return cls(folder)

    def open(self, **options: Any) -> SQLiteLedger:
        return SQLiteLedger(self.path, **options)

    def age(self, key: str, seconds: float) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("UPDATE entries SET changed = changed - ? WHERE key = ?", (int(seconds * 1000), key))


class PostgreSQLWorld:
    """A table."""

    fixture: ClassVar[str | None] = "postgresql"

    def __init__(self, url: str, table: str) -> None:
        self.url, self.table = url, table
        self.arguments = [url, table]

    @classmethod
    def make(cls, folder: Path, server: Any) -> PostgreSQLWorld:
        del folder
        return cls(server.url, f"ledger_{uuid4().hex}")

    def open(self, **options: Any) -> PostgreSQLLedger:
        return PostgreSQLLedger(self.url, table=self.table, **options)

    def age(self, key: str, seconds: float) -> None:
        older = f"UPDATE {self.table} SET changed = changed - %s * interval '1 second' WHERE key = %s"  # noqa: S608 -- our table
        self.run(older, seconds, key)

    def run(self, sql: str, *parameters: object) -> list[Any]:
        """Execute *sql* as another program, and return its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection, psycopg.ClientCursor(connection) as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []


class RedisWorld:
    """The keys with one prefix."""

    fixture: ClassVar[str | None] = "redis"

    def __init__(self, url: str, prefix: str) -> None:
        self.url, self.prefix = url, prefix
        self.arguments = [url, prefix]

    @classmethod
    def make(cls, folder: Path, server: Any) -> RedisWorld:
        del folder
        return cls(server.url, uuid4().hex)

    def open(self, **options: Any) -> RedisLedger:
        return RedisLedger(self.url, prefix=self.prefix, **options)

    def age(self, key: str, seconds: float) -> None:
        name = f"{{{self.prefix}}}:entry:{key}"
        with redis.Redis.from_url(self.url) as client:
            if client.exists(name):
                client.hincrby(name, "changed", -int(seconds * 1000))


WORLDS: dict[str, Any] = {"sqlite": SQLiteWorld, "postgresql": PostgreSQLWorld, "redis": RedisWorld}


def make_world(kind: str, folder: Path, request: pytest.FixtureRequest) -> World:
    """Make an empty database; start its server if it is the first one."""
    world = WORLDS[kind]
    made: World = world.make(folder, world.fixture and request.getfixturevalue(world.fixture))
    return made


def item(key: str = "invoice-1", content: str = "a", message_id: str | None = "<1@example.com>") -> Item:
    """Return a message whose digest depends on *content*."""
    return Item(key, (content * 64)[:64], message_id)


def result(outcome: Outcome = Outcome.ACCEPTED, *, retryable: bool = False) -> SendResult:
    """Return the result of one message."""
    error = None if outcome is Outcome.ACCEPTED else SenderRefusedError("no", retryable=retryable)
    return SendResult(0, "<1@example.com>", outcome, error=error)


def may_send(entry: Entry, wanted: Item, token: str) -> bool:
    """Say what a caller of `claim` may send."""
    return (entry.state, entry.token, entry.digest) == ("claimed", token, wanted.digest)
