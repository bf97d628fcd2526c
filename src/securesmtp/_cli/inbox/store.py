"""A folder of messages, one ``.eml`` file each, and what is known about them beside the file."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from securesmtp.testing import Received


@dataclass(frozen=True, slots=True)
class Kept:
    """
    One message in the folder.

    Attributes:
        number: Its number in this run, from 1.
        arrived: When it arrived, in local time.
        path: Its file.
        envelope: The message without its content: sender, recipients, login, TLS.
        subject: Its subject.
    """

    number: int
    arrived: datetime
    path: Path
    envelope: Received
    subject: str

    def read(self) -> Received:
        """Return the message with its content; raise OSError if the file is not there any more."""
        return replace(self.envelope, content=self.path.read_bytes())


class Store:
    """The messages of one run. Threads share it."""

    def __init__(self, folder: Path) -> None:
        """Make *folder* if it is missing, for this user only."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._kept: list[Kept] = []
        self._lock = threading.Lock()

    def keep(self, received: Received) -> Kept:
        """Write a message to a new file, and return it; raise OSError if it cannot be written."""
        with self._lock:
            number, now = len(self._kept) + 1, datetime.now().astimezone()
            # Nothing of the message is in the name. The time keeps the runs apart; an existing file is not replaced.
            path = self.folder / f"{now:%Y%m%d-%H%M%S-%f}-{number}.eml"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(received.content)
            kept = Kept(number, now, path, replace(received, content=b""), subject_of(received))
            self._kept.append(kept)
        return kept

    def all(self) -> list[Kept]:
        """Return the messages of this run, in order."""
        with self._lock:
            return list(self._kept)

    def get(self, number: int) -> Kept | None:
        """Return a message by its number."""
        with self._lock:
            return self._kept[number - 1] if 0 < number <= len(self._kept) else None


def subject_of(received: Received) -> str:
    """Return the subject, or say that it cannot be read."""
    try:
        return received.subject
    except Exception:  # noqa: BLE001 -- the email package raises whatever a hostile field makes it raise
        return "(a subject that cannot be read)"
