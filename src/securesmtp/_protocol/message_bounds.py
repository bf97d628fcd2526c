"""Refuse messages for which the email package would take quadratic time, before its parsers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from securesmtp._protocol.folding import PREFERRED_LINE
from securesmtp._protocol.scanner import MAX_HEADER
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from email.headerregistry import BaseHeader
    from email.message import Message

# Postfix does not look at parts that are nested deeper (mime_nesting_limit).
_MAX_NESTING = 100
# More than any real message has.
_MAX_PARTS = 10_000
# The email package takes quadratic time to parse Content-Type and the like. A filename of 255 characters fits.
_MAX_MIME_FIELD = 4096
_MAX_PARAMETERS = 100
# Colon, space and line end. They count, because a million fields of one character take long too.
_FIELD_OVERHEAD = 4


def check_bounds(message: Message) -> None:
    """
    Refuse a message for which the email package would take quadratic time, before it parses any of it.

    Raises:
        MessageError: It has too many parts, they are nested too deep, or a header or one of its fields is too long.
    """
    parts, level = 0, [message]
    for _ in range(_MAX_NESTING + 1):
        parts += len(level)
        if parts > _MAX_PARTS:
            text = f"the message has more than {_MAX_PARTS} parts"
            raise MessageError(text)
        for part in level:
            _check_header(part)
        level = [child for part in level for child in subparts(part)]
        if not level:
            return
    text = f"the parts of the message are nested more than {_MAX_NESTING} deep"
    raise MessageError(text)


def subparts(part: Message) -> list[Message]:
    """Return the parts directly inside of *part*."""
    payload = raw_payload(part)
    return payload if isinstance(payload, list) else []


def raw_payload(part: Message) -> object:
    """Return what *part* holds: a list of parts, or a str whose surrogates are the bytes that are not ASCII."""
    # `get_payload` looks at each character of a text, and so takes a fifth of the time of 25 MB each time.
    return vars(part).get("_payload")


def is_header_object(value: object) -> TypeGuard[BaseHeader]:
    """Return whether *value* was set by a program. A field of a parsed message is a str without ``fold``."""
    return hasattr(value, "fold")


def _check_header(part: Message) -> None:
    size = 0
    for name, value in part.raw_items():
        length = len(str(value))
        size += len(name) + length + _FIELD_OVERHEAD
        if size > MAX_HEADER:
            text = f"the header is longer than {MAX_HEADER} bytes, including the field {name[:80]!r}"
            raise MessageError(text)
        if length > PREFERRED_LINE and not is_header_object(value) and name.lower().startswith("content-"):
            field = str(value)
            if length > _MAX_MIME_FIELD or max(field.count(";"), field.count('"') // 2) > _MAX_PARAMETERS:
                limits = f"{_MAX_MIME_FIELD} characters or {_MAX_PARAMETERS} parameters"
                text = f"the header field {name[:80]!r} has more than {limits}"
                raise MessageError(text)
