"""
A worker that sends the messages that its killer names, and dies at any moment.

How it works: `python -m kills.worker SOCKET` forks a worker for each connection, because the imports take longer than
most mailings. A worker reads one line of JSON, `Orders`, and then writes what it does.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from forks import fork_for_each_connection
from kills import plainly
from kills.messages import message
from kills.steps import Aim, Reporter, watch_ledger, watch_sends
from securesmtp import SecureMailer, SecureSMTPError, Window
from securesmtp import ledger as ledgers
from securesmtp._submissions import entry_digest
from securesmtp.ledger import Item, Ledger

CLASSES = {"sqlite": "SQLiteLedger", "postgresql": "PostgreSQLLedger", "redis": "RedisLedger"}
# Few claims at a time, so that a kill leaves few in doubt, and the next steps are reached as well.
WINDOW = Window(messages=2)


@dataclass
class Orders:
    """
    What a worker is to do.

    Attributes:
        keys: The messages, in this order.
        kind: Which ledger: `open_ledger`.
        where: The ledger's file or URL.
        mailer: Arguments of the mailer.
        aim: Where it stops.
        ledger: Arguments of the ledger.
        deadline: Seconds that a message may take.
    """

    keys: Sequence[str]
    kind: str
    where: str
    mailer: dict[str, Any]
    aim: Aim | None = None
    ledger: dict[str, Any] = field(default_factory=dict)
    deadline: float = 300.0

    def as_line(self) -> str:
        """Return it as a line for `run`."""
        return json.dumps(asdict(self)) + "\n"


def item(key: str) -> Item:
    """Return what a ledger is told of the message."""
    return Item(key, entry_digest(message(key)), f"<{key}@example.test>")


def open_ledger(kind: str, where: str, **options: Any) -> Ledger:
    """Open a ledger, with the package that only its kind needs."""
    if kind != "sqlite":
        options.pop("exclusive", None)
    made: Ledger = getattr(ledgers, CLASSES[kind])(where, **options)
    return made


def work(orders: Orders, reporter: Reporter) -> Iterator[tuple[str, str]]:
    """Prepare and send; yield each key with its outcome."""
    if orders.kind == "smtplib":
        yield from plainly.work(orders.keys, orders.where, orders.mailer, reporter)
        return
    with ExitStack() as stack:
        ledger = open_ledger(orders.kind, orders.where, **orders.ledger)
        # Their methods are those of `Ledger`; each of ours can be closed as well.
        close = getattr(ledger, "close", None)
        if close is not None:
            stack.callback(close)
        watched = watch_ledger(ledger, reporter)
        watched.prepare([item(key) for key in orders.keys])
        mailer = stack.enter_context(SecureMailer(**orders.mailer, window=WINDOW))
        watch_sends(reporter)
        for result in mailer.send_many(map(message, orders.keys), deadline=orders.deadline, ledger=watched):
            yield orders.keys[result.index], result.outcome.value


def run(connection: socket.socket) -> None:
    """Do what the first line says."""
    lines = connection.makefile("rw", encoding="ascii")
    values = json.loads(lines.readline())
    aim = values.pop("aim")
    orders = Orders(**values, aim=None if aim is None else Aim(*aim))
    reporter = Reporter(lines, lines, orders.aim)
    reporter.say("started", pid=os.getpid())
    try:
        for key, outcome in work(orders, reporter):
            reporter.say("result", key=key, outcome=outcome)
    except SecureSMTPError as error:
        reporter.say("error", text=str(error))


def nursery(path: str) -> None:
    """Fork a worker for each connection, until this process is killed."""
    for name in CLASSES.values():
        # So that no worker imports its package.
        with suppress(SecureSMTPError):
            getattr(ledgers, name)
    fork_for_each_connection(path, _run_for_killer)


def _run_for_killer(connection: socket.socket) -> None:
    # The killer may have gone.
    with suppress(BrokenPipeError, ConnectionResetError):
        run(connection)


if __name__ == "__main__":
    nursery(sys.argv[1])
