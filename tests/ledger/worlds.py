"""The databases that the contract of ledgers is tested with: each makes ledgers on the same entries."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

import pytest
from redis import Redis

from securesmtp import Outcome, SendResult
from securesmtp.errors import SenderRefusedError
from securesmtp.ledger import Entry, Item, Ledger, RedisLedger, SQLiteLedger

LONGEST = 3600.0
HOUR = LONGEST + 1


class World(Protocol):
    """One database."""

    def open(self, **options: Any) -> Ledger:
        """Open it as one process does; options are ``longest_send`` and ``resend``."""

    def age(self, key: str, seconds: float) -> None:
        """Make the entry of *key* older: as if the database's clock had gone on."""


class SQLiteWorld:
    """A file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.sqlite"

    def open(self, **options: Any) -> SQLiteLedger:
        return SQLiteLedger(self.path, **options)

    def age(self, key: str, seconds: float) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("UPDATE entries SET changed = changed - ? WHERE key = ?", (int(seconds * 1000), key))


class RedisWorld:
    """A prefix in a Redis."""

    def __init__(self, url: str) -> None:
        self.url, self.prefix = url, token_hex(8)

    def open(self, **options: Any) -> RedisLedger:
        return RedisLedger(self.url, prefix=self.prefix, **options)

    def age(self, key: str, seconds: float) -> None:
        name = f"{{{self.prefix}}}:entry:{key}"
        with Redis.from_url(self.url) as client:
            if client.exists(name):
                client.hincrby(name, "changed", -int(seconds * 1000))


# PostgreSQL and Redis are added here.
WORLDS: dict[str, Callable[[pytest.FixtureRequest, Path], World]] = {
    "sqlite": lambda _, folder: SQLiteWorld(folder),
    "redis": lambda request, _: RedisWorld(request.getfixturevalue("redis").url),
}


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
