"""Read a secret from a file or a pipe, so that neither an error nor a traceback shows it."""

from __future__ import annotations

import os

from securesmtp._secret import Secret
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError

# A token may have some thousand bytes. More comes from another file, or from a command that does not end.
_MOST_BYTES = 64 * 1024


class Output:
    """Bytes that have the secret in them. No local variable holds them, so a traceback does not show them."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def read(self, file: int) -> bool:
        """Read once from *file*; return whether to read again."""
        size = len(self._bytes)
        self._bytes += os.read(file, _MOST_BYTES + 1 - size)
        return len(self._bytes) > size and not self.is_too_long

    @property
    def is_too_long(self) -> bool:
        """Whether it has more bytes than a secret has."""
        return len(self._bytes) > _MOST_BYTES

    @property
    def has_one_line(self) -> bool:
        """Whether nothing follows the end of the first line."""
        return not self._bytes.partition(b"\n")[2]

    def first_line(self, of: str) -> Secret:
        """
        Return the first line, without one line end.

        Raises:
            ConfigurationError: There is none; *of* names where it is from.
        """
        if self.is_too_long:
            raise wrong_source(f"{of} is longer than {_MOST_BYTES} bytes")
        if not self._first_line():
            raise wrong_source(f"{of} is empty, or its first line is")
        if not _is_utf8(self._first_line()):
            raise wrong_source(f"{of} is not in UTF-8")
        return Secret(self._first_line().decode())

    def _first_line(self) -> bytearray:
        return self._bytes.partition(b"\n")[0].removesuffix(b"\r")


def _is_utf8(text: bytearray) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def wrong_source(message: str, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError(message, stage=Stage.AUTH, hint=hint)
