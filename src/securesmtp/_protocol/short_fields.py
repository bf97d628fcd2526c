"""Write the header fields that are one short line of plain ASCII, as nearly all are, without the email package."""

from __future__ import annotations

import re
from email.headerregistry import BaseHeader
from itertools import starmap
from typing import TYPE_CHECKING

from securesmtp._protocol.address_fields import is_address_list
from securesmtp._protocol.folding import PREFERRED_LINE, is_simple_parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from email.headerregistry import Group

FIELD_NAME = re.compile(r"[!-9;-~]+")
# An address of characters without a special meaning. Parsing it again would take a third of the time for a message.
_SPEC = r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9.-]+"
_ADDRESS = re.compile(_SPEC)
# One with a display name: of plain or encoded words, or in quotes and without a backslash.
_WORD = r"(?:[A-Za-z0-9_+'-]+|=\?utf-8\?[bq]\?[A-Za-z0-9+/=_]*\?=)"
_NAMED = re.compile(rf"""(?:({_WORD}(?: {_WORD})*|"[A-Za-z0-9_+'(),.:;@ -]*") )?(<?)({_SPEC})(>?)""")


def short_line(name: str, value: str, *, is_signed: bool = False) -> str | None:
    """
    Return the field as one line, unchanged, or None if it needs folding, encoding or a closer look.

    Args:
        name: The name of the field.
        value: A str of a parsed message, or a header object.
        is_signed: Whether parameters stay as they are, even if some readers misread them.
    """
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
    if is_address_list(value):
        is_plain = not value.defects and is_simple(value.groups, text)
    else:
        parameters: Mapping[str, str] | None = getattr(value, "params", None)
        is_plain = "=?" not in text and (
            not parameters or is_signed or all(starmap(is_simple_parameter, parameters.items()))
        )
    return (f"{name}: {text}" if text else f"{name}:") if is_plain else None


def is_simple(groups: Iterable[Group], text: str) -> bool:
    """Return whether *text* is nothing but these addresses, and none of them has a special character."""
    specs = [f"{address.username}@{address.domain}" for group in groups for address in group.addresses]
    return text == ", ".join(specs) and all(map(_ADDRESS.fullmatch, specs))


def read_simple(text: str) -> list[tuple[str, str]] | None:
    """
    Return display name and address of each mailbox in *text*, or None if only a parser can read them.

    An encoded name is not decoded.
    """
    found: list[tuple[str, str]] = []
    for item in text.split(", "):
        match = _NAMED.fullmatch(item)
        if not match or (match[2] + match[4] != "<>" and (match[1] is not None or match[2] or match[4])):
            return None
        found.append(((match[1] or "").strip('"'), match[3]))
    return found


def simple_addresses(groups: Iterable[Group]) -> list[tuple[str, str]] | None:
    """Return display name and address of each mailbox of *groups*, or None if there is a named group."""
    if any(group.display_name is not None for group in groups):
        return None
    return [(a.display_name, f"{a.username}@{a.domain}") for group in groups for a in group.addresses]
