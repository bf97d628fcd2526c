"""Processes of a benchmark: one for each part, so that the parts share no interpreter, and the CPU of each is known."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_SPAWN = multiprocessing.get_context("spawn")
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def child(work: Callable[..., None], *arguments: object) -> Iterator[tuple[int, Connection, Any]]:
    """Run *work*, which gets a pipe as last argument; give its process id, the pipe and what it sent first; end it."""
    mine, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=work, args=(*arguments, theirs), daemon=True)
    process.start()
    # So that the end of the child is the end of the pipe.
    theirs.close()
    try:
        assert process.pid is not None
        yield process.pid, mine, mine.recv()
    finally:
        process.terminate()
        process.join()


def cpu_seconds(process: int) -> float:
    """Return the CPU time that the process with this id has used (Linux)."""
    # After the name, which is in parentheses and may contain spaces: state is the first, utime the twelfth.
    words = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def memory_bytes(what: str = "VmRSS") -> float:
    """Return a line of this process's memory, in bytes (Linux): `VmRSS`, what it has, or `VmHWM`, the most."""
    status = Path("/proc/self/status").read_text("ascii")
    return next(float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what))
