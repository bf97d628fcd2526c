"""Write to standard output and standard error. A reader that has gone changes nothing of what became of a message."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO


def print_text(text: str) -> None:
    """Write *text* to standard output."""
    write(sys.stdout, text)


def print_note(text: str) -> None:
    """Write *text* and a line end to standard error."""
    write(sys.stderr, f"{text}\n")


def write(stream: TextIO | None, text: str) -> None:
    """Write *text* to *stream*; it is None if the caller has closed it."""
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError:
        # Python would try again at its end, and exit with a code of its own.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
