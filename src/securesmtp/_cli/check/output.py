"""A file that is complete at each moment: its new content is written beside it, and then renamed."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """
    Make *text* the content of the file.

    Raises:
        OSError: It cannot be written; what was there is still there.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            # A pipe or a device: renaming would put a file in its place.
            path.write_text(text, "utf-8", newline="")
            return
    # A link stays one. The new file has the permissions that the process gives to any other; a collector that runs as
    # another user could not read those of `tempfile`.
    target = path.resolve()
    # The name does not end in .prom, by which the collector finds its files.
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with beside.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
