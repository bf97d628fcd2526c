"""A secret in a file."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from securesmtp._secret import Secret, SecretSource
from securesmtp._shown import quote
from securesmtp._sources.output import Output, wrong_source
from securesmtp._tracebacks import hide_internal_frames

_LOGGER = logging.getLogger("securesmtp")
# Where every user of a container may read what was mounted into it: Docker and Podman (mode 0444).
_MOUNTS = (Path("/run/secrets"), Path("/var/run/secrets"))


class File(SecretSource):
    """The content of a file."""

    __slots__ = ("_has_warned", "_is_private", "_name", "_path")

    def __init__(self, path: str, *, is_private: bool = False) -> None:
        """Read *path*; with *is_private*, refuse it where a program is only warned: if every user can read it."""
        self._path, self._is_private, self._has_warned = path, is_private, False
        self._name = f"password file {quote(path, allow_at=True)}"

    def __repr__(self) -> str:
        return f"<password from the {self._name}>"

    @hide_internal_frames
    def __call__(self) -> Secret:
        output = Output()
        try:
            # A FIFO would block without the flag.
            file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            try:
                refusal = self._refusal(os.fstat(file).st_mode)
                while refusal is None and output.read(file):
                    continue
            finally:
                os.close(file)
        except OSError as error:
            raise wrong_source(f"the {self._name} cannot be read: {error.strerror}") from error
        if refusal is None and not output.is_too_long and not output.has_one_line:
            refusal = "has more than one line"
        if refusal is not None:
            raise wrong_source(f"the {self._name} {refusal}")
        return output.first_line(f"the {self._name}")

    def _refusal(self, mode: int) -> str | None:
        """Return why a file with this *mode* is not read, or None; warn if every user can read it."""
        if not stat.S_ISREG(mode):
            return "is not a regular file"
        if mode & stat.S_IWOTH:
            return "can be written by every user (correct it with chmod o-w)"
        if mode & stat.S_IROTH and not self._has_warned and _is_open_to_all(Path(self._path)):
            if self._is_private:
                return "can be read by every user (correct it with chmod o-r)"
            self._has_warned = True
            _LOGGER.warning("the %s can be read by every user (correct it with chmod o-r)", self._name)
        return None


def _is_open_to_all(path: Path) -> bool:
    """Return whether every user gets to *path*, and it is not a secret that was mounted into a container."""
    path = path.resolve()
    # Kubernetes mounts at any path, and links each file to one in a folder "..2026_11_27_05_25_59.123456789".
    if any(map(path.is_relative_to, _MOUNTS)) or any(part.startswith("..") for part in path.parts):
        return False
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
