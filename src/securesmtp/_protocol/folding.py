"""
One header field as it is written: folded at white space and nowhere else (RFC 5322 §2.2.3), parameters as in RFC 2231.

Python's own folder is not used. It turns a long ASCII word into an encoded-word, loses the blank between two of them,
drops the quotes of a display name, and takes quadratic time or never ends (3.11 to 3.13). Each step here is linear.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from securesmtp._protocol.content import MAX_LINE
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# RFC 5322 §2.1.1 prefers 78.
MIN_LINE = 78
# What is longer and has no blank is encoded, where its kind allows that: no line may have more than 998 octets.
MAX_UNBROKEN = 900
_MAX_PARAMETER_NAME = 60

# A piece that is better not broken: white space and a word, where a blank in quotes ends no word. As in all patterns
# here, what follows a repetition cannot fail, so that there is one way to match and the work is linear.
_CHUNK = re.compile(r'[ \t]*(?:"(?:[^"\\]+|\\.)*(?:"|\\?\Z)|[^ \t"]+)+|[ \t]+\Z', re.DOTALL)
_WORD = re.compile(r"[ \t]*[^ \t]+|[ \t]+\Z")
_PARAMETER_NAME = re.compile(rf"[A-Za-z0-9!#$&+.^_`|~-]{{1,{_MAX_PARAMETER_NAME}}}")


class Lines:
    """The lines of one field, filled one after the other."""

    def __init__(self, name: str, limit: int) -> None:
        self._limit = limit
        self._lines: list[str] = []
        self._line = f"{name}:"
        # A line with nothing but the name is no place to fold: some servers take it for an empty field.
        self._is_new = True

    @property
    def room(self) -> int:
        """How many characters fit on this line."""
        return self._limit - len(self._line)

    def add(self, chunk: str) -> None:
        """Put *chunk*, which begins with white space, on this line or on a new one."""
        if len(chunk) > (MAX_LINE - len(self._line) if self._is_new else self.room) and not chunk.isspace():
            self.end_line()
        self._line += chunk
        self._is_new = False

    def add_parts(self, chunk: str) -> None:
        """Put *chunk* on one line if it fits on one, else word by word."""
        if len(chunk) > self._limit or (self._is_new and len(chunk) > self.room):
            for word in _WORD.findall(chunk):
                self.add(word)
        else:
            self.add(chunk)

    def end_line(self) -> None:
        """Go on with a new line."""
        self._lines.append(self._line)
        self._line = ""

    def text(self) -> str | None:
        """Return the field, or None if a line of it is longer than 998 octets."""
        lines = [*self._lines, self._line]
        is_short = all(len(line) <= MAX_LINE and len(line.encode("utf-8", "replace")) <= MAX_LINE for line in lines)
        return joined(lines) if is_short else None


def joined(lines: Iterable[str]) -> str:
    """Return *lines*, each with its line end."""
    return "".join([f"{line}\r\n" for line in lines])


def unfolded(field: str) -> str:
    """Return the value of a field as its reader unfolds it (RFC 5322 §2.2.3)."""
    return field.partition(":")[2].replace("\r\n", "")


def fold(name: str, text: str, limit: int) -> str:
    """
    Return the field with *text* as it is, folded at white space alone.

    Raises:
        MessageError: A line would be longer than 998 octets.
    """
    folded = try_fold(name, text, limit)
    if folded is None:
        raise too_long(name)
    return folded


def too_long(name: str) -> MessageError:
    """Return the error for a field that cannot be folded."""
    message = (
        f"the header field {name[:80]!r} has more than {MAX_LINE} octets without a blank, where it could be folded"
    )
    return MessageError(message, hint="shorten it, or put blanks in it")


def try_fold(name: str, text: str, limit: int) -> str | None:
    """Return what `fold` returns, or None where it raises."""
    lines = Lines(name, limit)
    for chunk in _CHUNK.findall(f" {text}"):
        lines.add_parts(chunk)
    return lines.text()


def quoted(text: str) -> str:
    """Return *text* as a quoted-string (RFC 5322 §3.2.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def mime_field(name: str, value: str, parameters: Mapping[str, str], *, limit: int, utf8: bool) -> str:
    """
    Return a field with parameters; one that is not ASCII as RFC 2231 writes it.

    Raises:
        MessageError: The value or a parameter's name cannot be written.
    """
    if not value.isascii() or not all(map(_PARAMETER_NAME.fullmatch, parameters)):
        message = f"the header field {name} has a value or the name of a parameter that is no token of RFC 2045"
        raise MessageError(message, hint=f"write it in ASCII, a name with at most {_MAX_PARAMETER_NAME} characters")
    parts = [value, *(part for key, text in parameters.items() for part in _parameter(key, text, utf8=utf8))]
    return fold(name, "; ".join(parts), limit)


def _parameter(key: str, text: str, *, utf8: bool) -> list[str]:
    if (utf8 or text.isascii()) and text.isprintable() and len(text) <= MAX_UNBROKEN:
        return [f"{key}={quoted(text)}"]
    characters = [
        c
        if c.isascii() and (c.isalnum() or c in "-._")
        else "".join(f"%{octet:02X}" for octet in c.encode("utf-8", "replace"))
        for c in text
    ]
    room = MIN_LINE - len(f" {key}*=utf-8'';")
    if sum(map(len, characters)) <= room:
        return [f"{key}*=utf-8''{''.join(characters)}"]
    sections = ["utf-8''"]
    # A section has at most three digits for its number: a field has no more than some thousand octets.
    room = max(MIN_LINE - len(f" {key}*000*=;"), 12)
    for character in characters:
        if len(sections[-1]) + len(character) > room:
            sections.append("")
        sections[-1] += character
    return [f"{key}*{number}*={section}" for number, section in enumerate(sections)]
