"""Refuse characters that end a line, or change what a reader sees, in names and other short texts."""

from __future__ import annotations

import re

from securesmtp._shown import quote
from securesmtp.errors import MessageError

# Bytes of UTF-8. RFC 2231 splits a longer file name into more pieces than some readers put together; a longer display
# name does not fit the 998 bytes of one address once it is encoded.
MAX_NAME = 255
# C0, C1, line and paragraph separators, embeddings and overrides of the direction, halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]")
# A file name's end says what it is, so nothing may turn its direction: "a\u2066gpj.exe" must not look like a picture.
_UNSAFE_IN_FILE_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def check_line(text: object, what: str, limit: int) -> str:
    """
    Return *text* if it is one line of at most *limit* characters that readers see as it is.

    Raises:
        MessageError: It is not a str, too long, or has a control character.
    """
    if not isinstance(text, str):
        message = f"{what} is a {type(text).__name__}, not a str"
        raise MessageError(message)
    if len(text) > limit:
        message = f"{what} is longer than {limit} characters"
        raise MessageError(message, hint="shorten it")
    _check(text, what, _UNSAFE)
    return str(text)


def check_display_name(name: object, what: str) -> str:
    """
    Return *name* if it can stand before an address.

    Raises:
        MessageError: It is not a str, is longer than 255 bytes, or has a control character.
    """
    return _check_name(name, f"the display name {quote(name, allow_at=True)} in {what}", _UNSAFE)


def check_file_name(name: object) -> str:
    """
    Return *name* if every reader can save a file under it, and see what it is.

    Raises:
        MessageError: It is not a str, is empty or longer than 255 bytes, names a folder, or has a control character.
    """
    what = f"the file name {quote(name, allow_at=True)}"
    checked = _check_name(name, what, _UNSAFE_IN_FILE_NAMES)
    # Careless readers write "../x" outside of their folder.
    if checked.strip() in {"", ".", ".."} or "/" in checked or "\\" in checked:
        message = f"{what} is not the name of a file: it is empty, or has a folder in it"
        raise MessageError(message, hint='pass the last part of the path alone, such as "report.pdf"')
    # Python's own `get_filename` removes them.
    if checked != checked.strip():
        message = f"{what} begins or ends with a blank, which readers drop"
        raise MessageError(message, hint="remove it")
    return checked


def _check_name(name: object, what: str, unsafe: re.Pattern[str]) -> str:
    checked = check_line(name, what, MAX_NAME)
    _check(checked, what, unsafe)
    if len(checked.encode()) > MAX_NAME:
        message = f"{what} is longer than {MAX_NAME} bytes in UTF-8"
        raise MessageError(message, hint="shorten it")
    return checked


def _check(text: str, what: str, unsafe: re.Pattern[str]) -> None:
    if found := unsafe.search(text):
        message = f"{what} has the character {_describe(found[0])} at index {found.start()}"
        raise MessageError(message, hint="remove it: it ends the line, or changes what readers see")


def _describe(character: str) -> str:
    # Imported only for an error.
    import unicodedata

    other = "half of a surrogate pair" if unicodedata.category(character) == "Cs" else "a control character"
    name = unicodedata.name(character, other)
    return f"U+{ord(character):04X} ({name})"
