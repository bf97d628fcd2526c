"""
Children of one process that has imported what they need: each runs a function, and its value comes back as JSON.

A generator is resumed when the test asks for the next value. Before it, the child calls the module's `begin`.

`python children.py SOCKET MODULE` imports the module, and forks for each connection.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from inspect import isgenerator
from pathlib import Path
from typing import Any

from forks import fork_for_each_connection

KILLED = "(killed)"


class Child:
    """A process that runs one function of the module."""

    def __init__(self, nursery: Path, function: str, environment: dict[str, str], **arguments: Any) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(nursery))
        self._file = self._socket.makefile("rw", encoding="ascii")
        self._file.write(f"{json.dumps([function, environment, arguments])}\n")
        self._file.flush()
        self.pid = int(self._file.readline())

    def next(self) -> Any:
        """Return what the generator has yielded, and let it go on at the next call."""
        value = json.loads(self._file.readline())
        self._file.write("\n")
        return value

    def wait(self) -> Any:
        """Return what the function has returned, or that the process was killed."""
        self._file.flush()
        try:
            line = self._file.readline()
        finally:
            self._file.close()
            self._socket.close()
        return json.loads(line) if line else KILLED

    def signal(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


@contextmanager
def nursery(folder: Path, module: str, environment: dict[str, str]) -> Iterator[Path]:
    """Start the process that the children are forked from."""
    address = folder / "nursery"
    command = [sys.executable, __file__, str(address), module]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield address
        finally:
            process.kill()


def _serve(connection: socket.socket, module: str) -> None:
    with connection, connection.makefile("rw", encoding="ascii") as file:
        function, environment, arguments = json.loads(file.readline())
        os.environ.update(environment)
        file.write(f"{os.getpid()}\n")
        file.flush()
        sys.modules[module].begin()
        value = getattr(sys.modules[module], function)(**arguments)
        if isgenerator(value):
            for each in value:
                file.write(f"{json.dumps(each)}\n")
                file.flush()
                file.readline()
            value = None
        file.write(f"{json.dumps(value)}\n")


def _run(path: str, module: str) -> None:
    importlib.import_module(module)
    fork_for_each_connection(path, lambda connection: _serve(connection, module))


if __name__ == "__main__":
    _run(*sys.argv[1:])
