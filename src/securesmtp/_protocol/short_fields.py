"""Write the header fields that are one short line of plain ASCII, as nearly all are, without the email package."""

from __future__ import annotations

import re
from email.headerregistry import BaseHeader
from typing import TYPE_CHECKING

from securesmtp._protocol.address_fields import is_address_list
from securesmtp._protocol.folding import PREFERRED_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.headerregistry import Group

FIELD_NAME = re.compile(r"[!-9;-~]+")
# Addresses of characters without a special meaning. Parsing them again would take a third of the time for a message.
_SIMPLE = r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9.-]+"
_SIMPLE_LIST = re.compile(rf"{_SIMPLE}(?:, {_SIMPLE})*")
# The same with display names, as a program sets them: of plain words, or in quotes and without a backslash.
_WORD = r"[A-Za-z0-9_+'-]+"
_QUOTED = r"""\"[A-Za-z0-9_+'(),.:;@ -]*\""""
_NAMED = rf"(?:({_WORD}(?: {_WORD})*|{_QUOTED}) )?<({_SIMPLE})>|({_SIMPLE})"
_NAMED_ADDRESS = re.compile(_NAMED)
_NAMED_LIST = re.compile(rf"(?:{_NAMED})(?:, (?:{_NAMED}))*")
# The same with display names as this library encodes them.
_ENCODED = rf"(?:{_WORD}|=\?utf-8\?[bq]\?[A-Za-z0-9+/=_]*\?=)"
_WRITTEN = rf"(?:(?:{_ENCODED}(?: {_ENCODED})*|{_QUOTED}) )?<({_SIMPLE})>|({_SIMPLE})"
_WRITTEN_ADDRESS = re.compile(_WRITTEN)
_WRITTEN_LIST = re.compile(rf"(?:{_WRITTEN})(?:, (?:{_WRITTEN}))*")


def short_line(name: str, value: str) -> str | None:
    """Return the field as one line, unchanged, or None if it needs folding, encoding or a closer look."""
    # A field of a parsed message is a str, and is written as it is.
    is_source = type(value) is str
    if not is_source and getattr(type(value), "fold", None) is not BaseHeader.fold:
        return None
    text = str(value)
    if not (text.isascii() and text.isprintable() and len(name) + len(text) <= PREFERRED_LINE - 2):
        return None
    if not FIELD_NAME.fullmatch(name):
        return None
    if is_source:
        return f"{name}: {text}"
    # Python has parsed what a program set, and has perhaps decoded it.
    is_plain = not value.defects and is_simple(value.groups, text) if is_address_list(value) else "=?" not in text
    return (f"{name}: {text}" if text else f"{name}:") if is_plain else None


def is_simple(groups: Iterable[Group], text: str) -> bool:
    """Return whether *text* is nothing but these addresses, and none of them has a special character."""
    specs = [f"{address.username}@{address.domain}" for group in groups for address in group.addresses]
    return text == ", ".join(specs) and _SIMPLE_LIST.fullmatch(text) is not None


def is_simple_source(groups: Iterable[Group], source: str) -> bool:
    """Return whether *source* is a list of just these addresses, of which some have plain display names."""
    if not _NAMED_LIST.fullmatch(source):
        return False
    found = [((match[1] or "").strip('"'), match[2] or match[3]) for match in _NAMED_ADDRESS.finditer(source)]
    return found == [
        (address.display_name if group.display_name is None else None, f"{address.username}@{address.domain}")
        for group in groups
        for address in group.addresses
    ]


def is_simple_result(groups: Iterable[Group], text: str) -> bool:
    """Return whether *text*, as it is written, is a list of just the mailboxes of *groups*, whatever their names."""
    if not _WRITTEN_LIST.fullmatch(text):
        return False
    found = [match[1] or match[2] for match in _WRITTEN_ADDRESS.finditer(text)]
    return found == [
        f"{address.username}@{address.domain}" if group.display_name is None else None
        for group in groups
        for address in group.addresses
    ]
