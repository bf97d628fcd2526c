"""Write to standard output and standard error. A reader that has gone changes nothing of what became of a message."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Steady:
    """A stream that may break while a command uses it: a full disk, a terminal that was closed, a reader that ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- of the stream
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        with _unharmed(self._stream):
            self._stream.flush()


@contextmanager
def steady_streams() -> Iterator[None]:
    """Let no failure of standard output or standard error end a command in a ``with`` block."""
    for number in range(3):
        # Otherwise the next file that is opened, such as a ledger, has this number, and gets what is written to it.
        _take_if_closed(number)
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123 -- a device
        # Python has None for one that the caller has closed.
        sys.stdout, sys.stderr = (cast("TextIO", _Steady(stream or nothing)) for stream in before)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def _take_if_closed(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        # The lowest number that is free.
        os.open(os.devnull, os.O_RDWR)


def print_text(text: str) -> None:
    """Write *text* to standard output."""
    write(sys.stdout, text)


def print_note(text: str) -> None:
    """Write *text* and a line end to standard error."""
    write(sys.stderr, f"{text}\n")


def write(stream: TextIO | None, text: str) -> None:
    """Write *text* to *stream*; what its encoding does not have is escaped. It is None if the caller has closed it."""
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    with _unharmed(stream):
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()


@contextmanager
def _unharmed(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except OSError:
        # Python would try again at its end, and exit with a code of its own.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
