"""
Fold a header field, only at white space (RFC 5322 §2.2.3), and encode the parameters of MIME fields (RFC 2231).

Python's own folding is not used. It turns a long ASCII word into an encoded-word, loses the space between two encoded
words, drops the quotes of a display name, and takes quadratic time or never ends (3.11 to 3.13). Every step here takes
linear time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from securesmtp._protocol.scanner import MAX_LINE, SAFE_LINE
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# RFC 5322 §2.1.1.
PREFERRED_LINE = 78
# A longer word is encoded if its field allows that.
MAX_UNBROKEN = SAFE_LINE
_MAX_PARAMETER_NAME = 60

# White space and a word; a quoted string counts as part of the word, spaces included. All patterns here take linear
# time: there is only one way to match.
_CHUNK = re.compile(r'[ \t]*(?:"(?:[^"\\]+|\\.)*(?:"|\\?\Z)|[^ \t"]+)+|[ \t]+\Z', re.DOTALL)
_WORD = re.compile(r"[ \t]*[^ \t]+|[ \t]+\Z")
# Some readers end a file name at the first of these, even in a quoted string.
_ODD_IN_FILE_NAMES = re.compile(r'["\\;]')
_PARAMETER_NAME = re.compile(rf"[A-Za-z0-9!#$&+.^_`|~-]{{1,{_MAX_PARAMETER_NAME}}}")


class Lines:
    """Collects the lines of one field: each is filled before the next one starts."""

    def __init__(self, name: str, limit: int) -> None:
        self._limit = limit
        self._lines: list[str] = []
        self._line = f"{name}:"
        # Do not fold right after the name: some servers treat such a field as empty.
        self._is_empty = True

    @property
    def room(self) -> int:
        """The number of characters that still fit on this line."""
        return self._limit - len(self._line)

    def add(self, chunk: str) -> None:
        """Add *chunk*, which begins with white space, to this line or to a new one."""
        if len(chunk) > (MAX_LINE - len(self._line) if self._is_empty else self.room) and not chunk.isspace():
            self.end_line()
        self._line += chunk
        self._is_empty = False

    def add_parts(self, chunk: str) -> None:
        """Add *chunk* on one line if it fits, else word by word."""
        if len(chunk) > self._limit or (self._is_empty and len(chunk) > self.room):
            for word in _WORD.findall(chunk):
                self.add(word)
        else:
            self.add(chunk)

    def end_line(self) -> None:
        """Start a new line."""
        self._lines.append(self._line)
        self._line = ""

    def text(self) -> str | None:
        """Return the field, or None if one of its lines has more than 998 octets."""
        lines = [*self._lines, self._line]
        is_short = all(len(line) <= MAX_LINE and len(line.encode("utf-8", "replace")) <= MAX_LINE for line in lines)
        return join_lines(lines) if is_short else None


def join_lines(lines: Iterable[str]) -> str:
    """Return *lines*, each with CRLF."""
    return "".join([f"{line}\r\n" for line in lines])


def unfold(field: str) -> str:
    """Return the value of a folded field (RFC 5322 §2.2.3)."""
    return field.partition(":")[2].replace("\r\n", "")


def fold(name: str, text: str, limit: int) -> str:
    """
    Return the field with *text* unchanged, folded only at white space.

    Raises:
        MessageError: A line would have more than 998 octets.
    """
    folded = try_fold(name, text, limit)
    if folded is None:
        raise too_long_error(name)
    return folded


def too_long_error(name: str) -> MessageError:
    """Return the error for a field that cannot be folded."""
    message = f"the header field {name[:80]!r} has more than {MAX_LINE} bytes without a space, so it cannot be folded"
    return MessageError(message, hint="shorten it, or add spaces")


def try_fold(name: str, text: str, limit: int) -> str | None:
    """Return the same as `fold`, or None instead of an error."""
    lines = Lines(name, limit)
    for chunk in _CHUNK.findall(f" {text}"):
        lines.add_parts(chunk)
    return lines.text()


def quote_string(text: str) -> str:
    """Return *text* as a quoted-string (RFC 5322 §3.2.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def format_mime_field(name: str, value: str, parameters: Mapping[str, str], *, limit: int) -> str:
    """
    Return a field with parameters; those that are not plain ASCII are encoded (RFC 2231), also with SMTPUTF8.

    Raises:
        MessageError: The value or the name of a parameter cannot be written.
    """
    if not value.isascii() or not all(map(_PARAMETER_NAME.fullmatch, parameters)):
        message = f"the value or the name of a parameter of the header field {name} is not a token (RFC 2045)"
        hint = f"use ASCII; the name of a parameter has at most {_MAX_PARAMETER_NAME} characters"
        raise MessageError(message, hint=hint)
    parts = [value, *(part for key, text in parameters.items() for part in _parameter(key, text))]
    return fold(name, "; ".join(parts), limit)


def is_simple_parameter(key: str, text: str) -> bool:
    """Return whether every reader gets *text* from a quoted string; some get nothing from raw UTF-8, if it is legal."""
    # Readers decode what looks like an encoded-word, and drop spaces at the ends.
    is_kept = text.isascii() and text.isprintable() and "=?" not in text and text == text.strip()
    return is_kept and not (key in {"filename", "name"} and _ODD_IN_FILE_NAMES.search(text))


def _parameter(key: str, text: str) -> list[str]:
    if is_simple_parameter(key, text) and len(text) <= MAX_UNBROKEN:
        return [f"{key}={quote_string(text)}"]
    characters = [
        c
        if c.isascii() and (c.isalnum() or c in "-._")
        else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "replace"))
        for c in text
    ]
    room = PREFERRED_LINE - len(f" {key}*=utf-8'';")
    if sum(map(len, characters)) <= room:
        return [f"{key}*=utf-8''{''.join(characters)}"]
    sections = ["utf-8''"]
    # Section numbers of more than three digits make a line a little longer than preferred.
    room = max(PREFERRED_LINE - len(f" {key}*000*=;"), 12)
    for character in characters:
        if len(sections[-1]) + len(character) > room:
            sections.append("")
        sections[-1] += character
    return [f"{key}*{number}*={section}" for number, section in enumerate(sections)]
