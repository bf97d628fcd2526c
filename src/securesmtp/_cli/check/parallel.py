"""Several checks at a time, and a line at the terminal that says how many are done."""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TextIO

# Each has a thread, a connection and a TLS handshake.
AT_A_TIME = 16
# Seconds between two looks for Ctrl-C: the kernel may give it to another thread, which does not wake this one.
_LOOK = 0.2

K = TypeVar("K")
T = TypeVar("T")


class Progress:
    """One line that is written again and again, at a terminal alone."""

    def __init__(self, file: TextIO) -> None:
        """Write to *file* if it is a terminal that can erase a line."""
        self._file = file
        # FORCE_COLOR makes rich believe that a log is a terminal.
        self._is_shown = file.isatty() and not Console(file=file).is_dumb_terminal
        self._last = ""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Erase the line at the end, whatever ends it."""
        try:
            yield
        finally:
            self._write("")

    def update(self, done: int, names: Sequence[object]) -> None:
        """Say how many are *done*, and that those with these *names* are not."""
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        self._write(f"{done} of {done + len(names)} checked; waiting for {names[0]}{more}")

    def _write(self, text: str) -> None:
        if not self._is_shown or text == self._last:
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
    todo: queue.SimpleQueue[tuple[Future[T], Callable[[], T]]] = queue.SimpleQueue()
    futures: dict[K, Future[T]] = {}
    for name, check in checks.items():
        futures[name] = Future()
        todo.put((futures[name], check))
    for _ in range(min(AT_A_TIME, len(checks))):
        threading.Thread(target=_work, args=(todo,), daemon=True).start()
    with progress.shown():
        while True:
            waiting = [name for name, future in futures.items() if not future.done()]
            found = [future.result() for future in futures.values() if future.done()]
            if not waiting:
                return found
            progress.update(len(futures) - len(waiting), waiting)
            wait([futures[name] for name in waiting], _LOOK, FIRST_COMPLETED)


def _work(todo: queue.SimpleQueue[tuple[Future[T], Callable[[], T]]]) -> None:
    with suppress(queue.Empty):
        while True:
            future, check = todo.get_nowait()
            try:
                future.set_result(check())
            except Exception as error:  # noqa: BLE001 -- raised in the main thread
                future.set_exception(error)
