"""Several checks at a time, and a line at the terminal that says how many are done."""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TextIO

# Each has a thread, a connection and a TLS handshake.
AT_A_TIME = 16
# Seconds between two looks for Ctrl-C: the kernel may give it to another thread, which does not wake this one.
_LOOK = 0.2

K = TypeVar("K")
T = TypeVar("T")


class Progress:
    """One line that is written again and again, at a terminal alone."""

    def __init__(self, file: TextIO | None) -> None:
        """Write to *file* if it is a terminal that can erase a line; standard error that is closed is None."""
        self._file = file
        # FORCE_COLOR makes rich believe that a log is a terminal.
        self._is_shown = file is not None and file.isatty() and not Console(file=file).is_dumb_terminal
        self._last = ""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Erase the line at the end, whatever ends it."""
        try:
            yield
        finally:
            self._write("")

    def update(self, done: int, left: int, first: object) -> None:
        """Say how many are *done* and *left*, and the name of the *first* that is left."""
        more = f" and {left - 1} more" if left > 1 else ""
        self._write(f"{done} of {done + left} checked; waiting for {first}{more}")

    def _write(self, text: str) -> None:
        if self._file is None or not self._is_shown or text == self._last:
            return
        self._last = text
        width = os.get_terminal_size(self._file.fileno()).columns
        # A longer line would wrap, and only its last part be erased.
        self._file.write(f"\r{text[: max(width - 1, 0)]}\x1b[K")
        self._file.flush()


def run_all(checks: Mapping[K, Callable[[], T]], progress: Progress) -> list[T]:
    """
    Run *checks*, whose keys are their names, and return their results in the same order.

    Their threads end with the process, so that Ctrl-C does not wait for the slowest server.

    Raises:
        Exception: What the first check that failed raised.
    """
    todo: queue.SimpleQueue[K] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[K, Future[T]]] = queue.SimpleQueue()
    for name in checks:
        todo.put(name)
    for _ in range(min(AT_A_TIME, len(checks))):
        threading.Thread(target=_work, args=(checks, todo, done), daemon=True).start()
    found: dict[K, T] = {}
    # A dictionary: with thousands of servers, a list would be searched for each of them.
    waiting = dict.fromkeys(checks)
    with progress.shown():
        while waiting:
            progress.update(len(found), len(waiting), next(iter(waiting)))
            with suppress(queue.Empty):
                name, future = done.get(timeout=_LOOK)
                found[name] = future.result()
                del waiting[name]
    return [found[name] for name in checks]


def _work(
    checks: Mapping[K, Callable[[], T]], todo: queue.SimpleQueue[K], done: queue.SimpleQueue[tuple[K, Future[T]]]
) -> None:
    with suppress(queue.Empty):
        while True:
            name, future = todo.get_nowait(), Future[T]()
            try:
                future.set_result(checks[name]())
            except Exception as error:  # noqa: BLE001 -- raised in the main thread
                future.set_exception(error)
            done.put((name, future))
