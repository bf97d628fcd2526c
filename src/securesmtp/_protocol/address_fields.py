"""Lists of addresses in header fields, written and read in linear work (RFC 5322 §3.4, RFC 2047 §5, RFC 5890)."""

from __future__ import annotations

import re
from email.errors import InvalidHeaderDefect
from email.headerregistry import Address, AddressHeader, Group
from typing import TYPE_CHECKING, cast

from securesmtp._protocol.address import ascii_domain
from securesmtp._protocol.encoded_words import MAX_ENCODED_LINE, MIN_ENCODED_WORD, encoded_words
from securesmtp._protocol.folding import MAX_UNBROKEN, fold, quoted
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from email.errors import MessageDefect

# One address that is longer is not parsed: Python's parser takes quadratic time.
_MAX_ADDRESS = 998

# RFC 5322 §3.2.3, and all that is not ASCII (RFC 6532 §3.2).
_ATOM = r"""[^\x00-\x20"(),.:;<>@\[\\\]\x7f]+"""
_ATOMS = re.compile(rf"{_ATOM}(?: {_ATOM})*")
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# An address list is parsed one address at a time; what is quoted or in brackets holds no separator.
_LIST_TOKEN = re.compile(r'"(?:[^"\\]+|\\.)*(?:"|\\?\Z)|<[^<>"]*>|\[[^\[\]\\]*\]|\\.|[^"<\[(,:;\\]+|.', re.DOTALL)
# What Python's parser takes for a blank, and drops, stays in the header.
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")
_COMMENT_TOKEN = re.compile(r"\\.|[^()\\]+|.", re.DOTALL)


def phrase(text: str, room: int, *, utf8: bool) -> str:
    """Return the display name *text* as it stands in front of an address (RFC 5322 §3.2.5, RFC 2047 §5 (3))."""
    # What a parsed header had of octets that are no text is not text here either.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    is_short = max(map(len, text.split(" "))) <= MAX_UNBROKEN
    if (utf8 or text.isascii()) and text.isprintable() and is_short and "=?" not in text:
        return text if _ATOMS.fullmatch(text) else quoted(text)
    return " ".join(encoded_words(text, room))


def address_field(name: str, groups: Iterable[Group], *, limit: int, utf8: bool) -> str:
    """
    Return an address field: display names encoded where they must be, domains in ASCII (RFC 5890).

    Raises:
        MessageError: A domain has no ASCII form, or a line would be longer than 998 octets.
    """
    room = max(MAX_ENCODED_LINE - len(name) - 2, MIN_ENCODED_WORD)

    def mailbox(address: Address) -> str:
        try:
            spec = _spec(address)
        except ValueError:
            message = f"an address in the header field {name} has a domain that is not a domain name"
            raise MessageError(message) from None
        return f"{phrase(address.display_name, room, utf8=utf8)} <{spec}>" if address.display_name else spec

    written = []
    for group in groups:
        members = ", ".join(map(mailbox, group.addresses))
        if group.display_name is not None:
            named = phrase(group.display_name, room, utf8=utf8)
            # RFC 2047 §5 (3): white space stands between an encoded-word and a special.
            members = f"{named}{' ' if named.endswith('?=') else ''}: {members};"
        written.append(members)
    text = ", ".join(written)
    return fold(name, text, min(limit, MAX_ENCODED_LINE) if "=?" in text else limit)


def _spec(address: Address) -> str:
    if not address.domain:
        return address.addr_spec
    # Python drops the quotes of a local part that needs them for its dots alone.
    local = address.username if _DOT_ATOM.fullmatch(address.username) else quoted(address.username)
    return f"{local}@{address.domain if address.domain.isascii() else ascii_domain(address.domain)}"


def read_addresses(name: str, text: str, parse: Callable[[str], AddressHeader]) -> tuple[list[Group], bool]:
    """
    Return the addresses of a field, and whether it is a list of addresses and nothing else (RFC 5322 §3.4).

    Args:
        name: The field's name, for the error.
        text: Its text, unfolded.
        parse: Python's parser. It gets one address at a time: its work grows with the square of what it gets.

    Raises:
        MessageError: One address has more than 998 characters.
    """
    groups: list[Group] = []
    members: list[Address] = []
    group: str | None = None
    is_valid, is_closed = not _CONTROL.search(text), False

    def parsed(piece: str) -> list[Group]:
        nonlocal is_valid
        if len(piece) > _MAX_ADDRESS:
            message = f"the header field {name} has an address of more than {_MAX_ADDRESS} characters"
            raise MessageError(message, hint="separate the addresses with commas")
        header = parse(piece)
        is_valid = is_valid and not is_unreadable(header)
        return list(header.groups)

    for piece, mark in _address_list(text):
        if mark == ":":
            is_valid = is_valid and group is None and not is_closed
            named = parsed(f"{piece}:;")
            group = named[0].display_name if named else ""
            continue
        if piece.strip():
            # Behind a group stands a comma.
            is_valid = is_valid and not is_closed
            found = parsed(piece.strip())
            members += [address for each in found for address in each.addresses]
        if mark == ";":
            is_valid = is_valid and group is not None
            groups.append(Group(group or "", tuple(members)))
            group, members = None, []
        elif group is None:
            groups += [Group(None, (address,)) for address in members]
            members = []
        is_closed = mark == ";"
    return groups + [Group(group, tuple(members))] * (group is not None), is_valid and group is None


def is_unreadable(value: AddressHeader) -> bool:
    """Return whether the email package could not read all of *value* as a list of addresses."""
    # The parser keeps what it could read ("a@b.example; c@d.example" gives one) and says so only in the defects.
    defects = cast("tuple[MessageDefect, ...]", value.defects)  # type: ignore[attr-defined] # typeshed lacks it
    return any(isinstance(defect, InvalidHeaderDefect) for defect in defects)


def _address_list(text: str) -> Iterable[tuple[str, str]]:
    """Yield the pieces of *text* and the separator behind each, the last with an empty one."""
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
