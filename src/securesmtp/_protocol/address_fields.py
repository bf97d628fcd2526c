"""Write and read header fields with addresses, in linear time (RFC 5322 §3.4, RFC 2047 §5, RFC 5890)."""

from __future__ import annotations

import re
from email.errors import InvalidHeaderDefect
from email.headerregistry import Address, AddressHeader, BaseHeader, Group
from typing import TYPE_CHECKING, TypeGuard

from securesmtp._protocol.address import ascii_domain
from securesmtp._protocol.encoded_words import MAX_ENCODED_LINE, MIN_ENCODED_WORD, encode_words
from securesmtp._protocol.folding import MAX_UNBROKEN, fold, quote_string
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable

# A longer address is not parsed: Python's parser takes quadratic time.
_MAX_ADDRESS = 998

# RFC 5322 §3.2.3, and any non-ASCII character (RFC 6532 §3.2).
_ATOM = r"""[^\x00-\x20"(),.:;<>@\[\\\]\x7f]+"""
_ATOMS = re.compile(rf"{_ATOM}(?: {_ATOM})*")
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# Used to split a list into single addresses: separators inside quotes or brackets do not count.
_LIST_TOKEN = re.compile(r'"(?:[^"\\]+|\\.)*(?:"|\\?\Z)|<[^<>"]*>|\[[^\[\]\\]*\]|\\.|[^"<\[(,:;\\]+|.', re.DOTALL)
# Python's parser drops these as white space, but they would stay in the header.
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")
_COMMENT_TOKEN = re.compile(r"\\.|[^()\\]+|.", re.DOTALL)


class AddressList(AddressHeader, BaseHeader):  # type: ignore[misc] # as in the email package
    """The value of a header field with addresses, of the same shape as Python's header registry makes them."""


def is_address_list(value: object) -> TypeGuard[AddressList]:
    """Return whether *value* is a header object with addresses; every class of a registry derives from both bases."""
    return isinstance(value, AddressHeader)


def format_phrase(text: str, room: int, *, utf8: bool) -> str:
    """Return the display name *text* in the form for a header field (RFC 5322 §3.2.5, RFC 2047 §5 (3))."""
    # Raw bytes of a parsed header become replacement characters.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    is_short = max(map(len, text.split(" "))) <= MAX_UNBROKEN
    if (utf8 or text.isascii()) and text.isprintable() and is_short and "=?" not in text:
        return text if _ATOMS.fullmatch(text) else quote_string(text)
    return " ".join(encode_words(text, room))


def format_address_field(name: str, groups: Iterable[Group], *, limit: int, utf8: bool) -> str:
    """
    Return an address field with domains in ASCII (RFC 5890), and with display names encoded if necessary.

    Raises:
        MessageError: A domain has no ASCII form, or a line would have more than 998 octets.
    """
    room = max(MAX_ENCODED_LINE - len(name) - 2, MIN_ENCODED_WORD)

    def format_mailbox(address: Address) -> str:
        try:
            spec = _addr_spec(address)
        except ValueError:
            message = f"an address in the header field {name} has an invalid domain"
            raise MessageError(message) from None
        return f"{format_phrase(address.display_name, room, utf8=utf8)} <{spec}>" if address.display_name else spec

    items = []
    for group in groups:
        item = ", ".join(map(format_mailbox, group.addresses))
        if group.display_name is not None:
            group_name = format_phrase(group.display_name, room, utf8=utf8)
            # RFC 2047 §5 (3): white space separates an encoded-word from a special such as the colon.
            item = f"{group_name}{' ' if group_name.endswith('?=') else ''}: {item};"
        items.append(item)
    text = ", ".join(items)
    return fold(name, text, min(limit, MAX_ENCODED_LINE) if "=?" in text else limit)


def _addr_spec(address: Address) -> str:
    if not address.domain:
        return address.addr_spec
    # Python's own addr_spec forgets the quotes if only dots make them necessary ("a..b").
    local = address.username if _DOT_ATOM.fullmatch(address.username) else quote_string(address.username)
    return f"{local}@{address.domain if address.domain.isascii() else ascii_domain(address.domain)}"


def read_addresses(name: str, text: str) -> tuple[list[Group], bool]:
    """
    Return the addresses in the unfolded *text* of a field, and whether it is a valid list of addresses.

    Python's parser gets one address at a time, because it takes quadratic time. The rules are in RFC 5322 §3.4.

    Raises:
        MessageError: One address has more than 998 characters.
    """
    groups: list[Group] = []
    members: list[Address] = []
    group: str | None = None
    is_valid, is_closed = not _CONTROL.search(text), False

    def parse(piece: str) -> list[Group]:
        nonlocal is_valid
        if len(piece) > _MAX_ADDRESS:
            message = f"the header field {name} has an address of more than {_MAX_ADDRESS} characters"
            raise MessageError(message, hint="separate the addresses with commas")
        value = AddressList(name, piece)
        is_valid = is_valid and not is_unreadable(value)
        return list(value.groups)

    for piece, separator in split_list(text):
        if separator == ":":
            is_valid = is_valid and group is None and not is_closed
            named = parse(f"{piece}:;")
            group = named[0].display_name if named else ""
            continue
        if piece.strip():
            # A comma must follow a group.
            is_valid = is_valid and not is_closed
            members += [address for each in parse(piece.strip()) for address in each.addresses]
        if separator == ";":
            is_valid = is_valid and group is not None
            groups.append(Group(group or "", tuple(members)))
            group, members = None, []
        elif group is None:
            groups += [Group(None, (address,)) for address in members]
            members = []
        is_closed = separator == ";"
    return groups + [Group(group, tuple(members))] * (group is not None), is_valid and group is None


def is_unreadable(value: AddressList) -> bool:
    """Return whether the email package could not read all of *value* as a list of addresses."""
    # "a@b.example; c@d.example" is read as one address; only the defects show that something is missing.
    return any(isinstance(defect, InvalidHeaderDefect) for defect in value.defects)


def split_list(text: str) -> Iterable[tuple[str, str]]:
    """Yield each piece of *text* and the separator after it, which is empty for the last piece."""
    piece: list[str] = []
    depth = position = 0
    while found := (_COMMENT_TOKEN if depth else _LIST_TOKEN).match(text, position):
        token, position = found[0], found.end()
        if not depth and token in {",", ":", ";"}:
            yield "".join(piece), token
            piece.clear()
            continue
        depth += {"(": 1, ")": -1 if depth else 0}.get(token, 0)
        piece.append(token)
    yield "".join(piece), ""
