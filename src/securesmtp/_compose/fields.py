"""Check the header fields that `compose` is given by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from securesmtp._compose.addresses import read_address
from securesmtp._compose.characters import check_line
from securesmtp._shown import quote
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from email.headerregistry import Address

# The email package takes a second for a megabyte.
MAX_TEXT = 10_000
_NAME = re.compile(r"[!-9;-~]{1,60}")
_ARGUMENTS = {
    "from": "sender",
    "to": "to",
    "cc": "cc",
    "bcc": "bcc",
    "reply-to": "reply_to",
    "subject": "subject",
    "list-unsubscribe": "unsubscribe",
    "list-unsubscribe-post": "unsubscribe",
}


def read_fields(headers: object, *, taken: frozenset[str]) -> list[tuple[str, str | Address]]:
    """
    Return the fields of *headers*; *taken* are names, in lower case, that other arguments have set.

    Raises:
        MessageError: A name or a value cannot be in a header, or another argument sets the field.
    """
    if not isinstance(headers, Mapping):
        message = f"headers is a {type(headers).__name__}, not a mapping of names to values"
        raise MessageError(message, hint='pass a dict such as {"X-Order": "42"}')
    fields: list[tuple[str, str | Address]] = []
    seen = set(taken)
    for name, value in headers.items():
        _check_name(name, seen)
        seen.add(name.lower())
        fields.append((name, _read_value(name, value)))
    return fields


def _check_name(name: object, seen: set[str]) -> None:
    shown = f"the header field {quote(name)}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = f"{shown} has a name that RFC 5322 §2.2 does not allow"
        raise MessageError(message, hint="use letters, digits and hyphens, at most 60")
    lowered = name.lower()
    if lowered in _ARGUMENTS:
        message = f"{shown} has an argument of its own"
        raise MessageError(message, hint=f"pass {_ARGUMENTS[lowered]}=…")
    if lowered.startswith(("content-", "resent-")) or lowered == "mime-version":
        message = f"{shown} cannot be set: compose writes it, or the message would be a resent one"
        raise MessageError(message, hint="change the message that compose returns")
    if lowered in seen:
        message = f"{shown} is set twice"
        raise MessageError(message, hint="set it once; upper and lower case are the same here")


def _read_value(name: str, value: object) -> str | Address:
    if name.lower() == "sender":
        return read_address(value, f"the header field {name}")
    text = check_line(value, f"the header field {name}", MAX_TEXT)
    if name.lower() == "date" and not _has_offset(text):
        message = f"Date is not a date with the offset of its time zone: {quote(text)}"
        raise MessageError(message, hint="leave it out, so that it is set when the message is sent; or write +0000")
    return text


def _has_offset(text: str) -> bool:
    try:
        # It is naive for -0000, which means that nobody knows the time zone (RFC 5322 §3.3).
        return parsedate_to_datetime(text).tzinfo is not None
    except (ValueError, TypeError, IndexError):
        return False
