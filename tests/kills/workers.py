"""Workers from their killer's side."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from conftest import unmeasured
from kills.worker import Orders

TESTS = Path(__file__).parent.parent


class Worker:
    """A worker that has its orders."""

    def __init__(self, nursery: Path, orders: Orders) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(nursery))
        self._file = self._socket.makefile("rw", encoding="ascii")
        self._file.write(orders.as_line())
        self._file.flush()
        # Not by its number, which another process may have by then.
        self._process = os.pidfd_open(json.loads(self._file.readline())["pid"])

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what it says, until it ends."""
        # Of what a killed one has written, the last line may be cut.
        with suppress(ConnectionResetError):
            for text in self._file:
                if text.endswith("\n"):
                    yield json.loads(text)

    def go_on(self) -> None:
        """Let it go on, if it waits where it was aimed at."""
        with suppress(BrokenPipeError):
            self._file.write("go\n")
            self._file.flush()

    def kill(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def close(self) -> None:
        """Kill it, if it lives, and forget it."""
        self.kill()
        os.close(self._process)
        with suppress(BrokenPipeError):
            self._file.close()
        self._socket.close()


class Nursery:
    """A process of which each worker is a fork."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    @contextmanager
    def worker(self, orders: Orders) -> Iterator[Worker]:
        """Start a worker; it is dead at the end."""
        worker = Worker(self._socket, orders)
        try:
            yield worker
        finally:
            worker.close()


@contextmanager
def nursery(*inside: str) -> Iterator[Nursery]:
    """Start a nursery, by the command *inside* which it runs."""
    with tempfile.TemporaryDirectory(prefix="securesmtp-kills-") as folder:
        path = Path(folder) / "nursery"
        with subprocess.Popen(
            [*inside, sys.executable, "-m", "kills.worker", str(path)],
            cwd=TESTS,
            env=unmeasured(),
            stdout=subprocess.PIPE,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                yield Nursery(path)
            finally:
                process.kill()
