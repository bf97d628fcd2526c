"""Find out the name, the type and the size of each file to send, before any of them is read."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias

from securesmtp._compose.characters import check_file_name
from securesmtp._compose.media_types import media_type
from securesmtp._shown import quote
from securesmtp.errors import MessageError

# A path, or a name with its content, and its type if the name does not say it.
Attachment: TypeAlias = str | os.PathLike[str] | tuple[str, bytes] | tuple[str, bytes, str]
Attachments: TypeAlias = Attachment | Iterable[Attachment]

_HINT = 'pass a path, ("report.pdf", data), or ("report", data, "application/pdf")'
_WORD = r"[A-Za-z0-9!#$&^_.+-]{1,60}"
_MEDIA_TYPE = re.compile(rf"{_WORD}/{_WORD}(?:; *{_WORD}={_WORD}){{0,9}}")
# The names of inline images: they are a part of a Content-ID, and stand in the HTML (RFC 2392).
LABEL = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9._-]{0,58}[A-Za-z0-9_-])?")


@dataclass(frozen=True, slots=True)
class File:
    """
    One file to send.

    Attributes:
        name: The name that its reader sees.
        media_type: The type with its parameters, such as ``text/csv; charset=utf-8``.
        size: The number of bytes, before they are encoded.
        source: Its bytes, or the path to them.
    """

    name: str
    media_type: str
    size: int
    source: bytes | Path = field(repr=False)

    def open(self) -> BinaryIO:
        """
        Return its content, open for reading.

        Raises:
            OSError: It cannot be opened.
        """
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


def find_files(given: object) -> list[File]:
    """
    Return the files of *given*: one attachment, or an iterable of them. A tuple is always one.

    Raises:
        MessageError: One of them is missing, is not a file, or has a name that a reader cannot use.
    """
    if given == ():
        return []
    if isinstance(given, str | os.PathLike | tuple):
        return [find_file(given)]
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray | memoryview | Mapping):
        message = f"attachments is a {type(given).__name__}, not an attachment or a list of attachments"
        raise MessageError(message, hint=_HINT)
    return [find_file(each) for each in given]


def find_images(given: object) -> dict[str, File]:
    """
    Return the files of *given*, a mapping of the names by which the HTML refers to them.

    Raises:
        MessageError: As `find_files`; or a name has other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not isinstance(given, Mapping):
        message = f"inline is a {type(given).__name__}, not a mapping of names to files"
        raise MessageError(message, hint='pass {"logo": "logo.png"} for <img src="cid:logo">')
    for label in given:
        if not isinstance(label, str) or not LABEL.fullmatch(label):
            message = f"inline has the name {quote(label)}, which cannot be written after cid: as it is"
            raise MessageError(message, hint='use letters, digits, ".", "_" and "-"; the name of the file is not it')
    return {label: find_file(each) for label, each in given.items()}


def find_file(given: object) -> File:
    """
    Return the file of one attachment.

    Raises:
        MessageError: As `find_files`.
    """
    if isinstance(given, tuple):
        return _file_of_bytes(given)
    if not isinstance(given, str | os.PathLike):
        message = f"an attachment is a {type(given).__name__}, not a path or a tuple"
        raise MessageError(message, hint=_HINT)
    path = os.fspath(given)
    if not isinstance(path, str):
        message = f"the path {quote(path, allow_at=True)} is bytes, not a str"
        raise MessageError(message, hint="decode it with os.fsdecode()")
    return _file_at(Path(path))


def _file_of_bytes(given: tuple[object, ...]) -> File:
    # The name alone says the type, unless the caller does.
    name, data, *rest = given if 2 <= len(given) <= 3 else (None, None)  # noqa: PLR2004 -- a pair, or with a type
    if not isinstance(data, bytes | bytearray | memoryview):
        what = "the content of an attachment" if name else f"an attachment of {len(given)} values"
        message = f"{what} is {f'a {type(data).__name__}' if name else 'not a name with its content'}, not bytes"
        raise MessageError(message, hint=f"{_HINT}; text becomes bytes by text.encode()")
    checked, copied = check_file_name(name), bytes(data)
    return File(checked, _check_type(rest[0]) if rest else media_type(checked), len(copied), copied)


def _check_type(given: object) -> str:
    match = _MEDIA_TYPE.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        message = f"{quote(given)} is not a media type"
        raise MessageError(message, hint='pass one such as "application/pdf" or "text/csv; charset=utf-8"')
    kind = match[0].lower()
    # They are made of parts or messages, which may not be encoded as one (RFC 2046 §5.1, §5.2.1).
    if kind.startswith("multipart/") or (kind.startswith("message/") and kind != "message/rfc822"):
        message = f"an attachment cannot have the type {quote(given)}"
        raise MessageError(message, hint='pass "application/octet-stream"')
    return match[0]


def _file_at(path: Path) -> File:
    name = check_file_name(path.name)
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        message = f"the file {quote(str(path), allow_at=True)} cannot be read: {_reason(error)}"
        raise MessageError(message, hint="a str is a path; pass content as (name, bytes)") from error
    # Opening a pipe would wait for somebody to write.
    if not stat.S_ISREG(found.st_mode):
        message = f"{quote(str(path), allow_at=True)} is a folder or a device, not a file"
        raise MessageError(message, hint="pass the path of a file")
    return File(name, media_type(name), found.st_size, path)


def unreadable_error(file: File, error: OSError) -> MessageError:
    """Return the error for a *file* that was there, and cannot be read."""
    message = f"the file {quote(str(file.source), allow_at=True)} cannot be read: {_reason(error)}"
    return MessageError(message, hint="check its permissions")


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or "not a path"
