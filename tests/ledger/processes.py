"""
Processes that use a ledger, as a test tells them: each line is an expression, and its value comes back as JSON.

They are forked from one process that has imported the library, because the import takes longer than most tests.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TextIO

from forks import fork_for_each_connection
from ledger.worlds import WORLDS, World, item, may_send, result
from securesmtp.errors import LedgerError
from securesmtp.ledger import SQLiteLedger


class Process:
    """A process of its own, from the test's side."""

    def __init__(self, nursery: Path, kind: str, world: World, **options: Any) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(nursery))
        self._file = self._socket.makefile("rw", encoding="ascii")
        self.start(json.dumps([kind, world.arguments, options]))
        self.pid: int = self.wait()

    def start(self, expression: str) -> None:
        """Send an expression."""
        self._file.write(f"{expression}\n")
        self._file.flush()

    def wait(self) -> Any:
        """Return the next value."""
        line = self._file.readline()
        return json.loads(line) if line else "(ended)"

    def rest(self) -> list[Any]:
        """Return the values that are left; the last line may be cut."""
        return [json.loads(line) for line in self._file.read().split("\n")[:-1]]

    def run(self, expression: str) -> Any:
        """Send an expression and return its value."""
        self.start(expression)
        return self.wait()

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self._file.close()
        self._socket.close()


class _Commands:
    """What a test can tell the process."""

    def __init__(
        self, file: TextIO, connection: socket.socket, kind: str, arguments: list[str], options: dict[str, Any]
    ) -> None:
        self.file, self.connection = file, connection
        world: World = WORLDS[kind](*arguments)
        self.ledger = world.open(**options)
        self.token = f"token of {os.getpid()}"

    def say(self, value: Any) -> None:
        self.file.write(f"{json.dumps(value)}\n")
        self.file.flush()

    def claim(self, key: str = "invoice-1") -> bool:
        (entry,) = self.ledger.claim([item(key)], self.token)
        return may_send(entry, item(key), self.token)

    def finish(self, key: str = "invoice-1") -> None:
        self.ledger.finish({key: result()}, self.token)

    def prepare(self, key: str = "invoice-1") -> None:
        self.ledger.prepare([item(key)])

    def state(self, key: str = "invoice-1") -> str | None:
        entry = self.ledger.look_up(key)
        return None if entry is None else entry.state

    def claim_all(self, count: int) -> list[str]:
        """Claim so many keys in an order of its own, in batches; return those that it may send."""
        keys = [f"key-{number}" for number in range(count)]
        random.Random(os.getpid()).shuffle(keys)
        mine = []
        while keys:
            size = random.Random(len(keys)).randint(1, 16)
            batch, keys = [item(key) for key in keys[:size]], keys[size:]
            entries = self.ledger.claim(batch, self.token)
            won = [each.key for each, entry in zip(batch, entries, strict=True) if may_send(entry, each, self.token)]
            self.ledger.finish({key: result() for key in won}, self.token)
            mine += won
        return mine

    def send_forever(self, first: int) -> None:
        """Claim and finish one key after the other; print each step that was committed."""
        for number in range(first, sys.maxsize):
            for step in ("claim", "finish"):
                getattr(self, step)(f"key-{number}")
                self.say([step, number])

    def in_transaction(self) -> bool:
        """Claim in a thread that stops before its commit, until `commit`."""
        assert isinstance(self.ledger, SQLiteLedger)
        began, self.may_commit = threading.Event(), threading.Event()
        open_transaction = self.ledger._transaction

        @contextmanager
        def stopping(**options: Any) -> Iterator[Any]:
            with open_transaction(**options) as connection:
                yield connection
                began.set()
                self.may_commit.wait()

        def claim() -> None:
            vars(self.ledger)["_transaction"] = stopping
            self.claim()

        self.thread = threading.Thread(target=claim)
        self.thread.start()
        began.wait()
        del vars(self.ledger)["_transaction"]
        return True

    def commit(self) -> None:
        self.may_commit.set()
        self.thread.join()

    def fork(self, *lines: str) -> int:
        """Run these expressions in a child that ends as a program does; return its exit code."""
        child = os.fork()
        if child == 0:
            for line in lines:
                self.evaluate(line)
            sys.exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def fork_and_leave(self, pipe: str) -> int:
        """Leave a child behind that lives until somebody opens the pipe."""
        child = os.fork()
        if child == 0:
            os.close(self.connection.fileno())
            with Path(pipe).open("w"):
                os._exit(0)
        return child

    def evaluate(self, line: str) -> Any:
        try:
            return eval(line, {name: getattr(self, name) for name in dir(self)})  # noqa: S307 -- the test wrote it
        except LedgerError as error:
            return str(error)


def _serve(connection: socket.socket) -> None:
    """Do what the test tells, in a process of its own."""
    # The test waits for the end of this file: a child that is left behind must not keep it open.
    file = connection.makefile("rw", encoding="ascii")
    commands = _Commands(file, connection, *json.loads(file.readline()))
    commands.say(os.getpid())
    for line in file:
        commands.say(commands.evaluate(line))


if __name__ == "__main__":
    fork_for_each_connection(sys.argv[1], _serve)
