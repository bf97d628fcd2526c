"""
Remember what became of each message, across runs and processes, so that none is sent twice.

A ledger has one entry for each message, under a key that you choose. `SecureMailer.send_many` writes to it: an entry is
claimed before the content of its message is sent, and finished when the server's reply was read. If the process is
killed in between, the entry stays claimed, and the message counts as unknown: it is not sent again unless you say so.

How it works: `Ledger.prepare` fixes the digest and the Message-ID of a key. `Ledger.claim` is committed before anything
of the message is sent, and succeeds for one claimant only. `Ledger.finish` is committed when the outcome is known. A
claim without an end that is older than `Ledger.longest_send` is unknown; a younger one is in progress. Time alone never
leads to a second send.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from securesmtp.ledger._protocol import Entry, Item, Ledger, State

if TYPE_CHECKING:
    from securesmtp.ledger._postgresql import PostgreSQLLedger
    from securesmtp.ledger._redis import RedisLedger
    from securesmtp.ledger._sqlite import SQLiteLedger

__all__ = ["Entry", "Item", "Ledger", "PostgreSQLLedger", "RedisLedger", "SQLiteLedger", "State"]
# The module of each ledger, what it imports, and the extra that installs that. Some Pythons are built without sqlite3.
_LEDGERS: dict[str, tuple[str, str, str | None]] = {
    "PostgreSQLLedger": ("_postgresql", "psycopg", "postgresql"),
    "RedisLedger": ("_redis", "redis", "redis"),
    "SQLiteLedger": ("_sqlite", "sqlite3", None),
}


def __getattr__(name: str) -> object:
    """
    Import a ledger when it is first used.

    Raises:
        ModuleNotFoundError: It needs an extra.
    """
    if name not in _LEDGERS:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    module, needed, extra = _LEDGERS[name]
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if extra is None or str(error.name).partition(".")[0] != needed:
            raise
        message = f"{name} needs {needed}: install securesmtp[{extra}]"
        raise ModuleNotFoundError(message, name=error.name) from error
