"""Read the addresses that `compose` is given; none is taken out of a longer string."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from email.headerregistry import Address
from typing import TypeAlias

from securesmtp._compose.characters import check_display_name
from securesmtp._protocol.address import Mailbox, ascii_domain
from securesmtp._shown import quote
from securesmtp.errors import AddressError

# One address, with its display name if it has one.
Person: TypeAlias = str | tuple[str, str] | Address
People: TypeAlias = Person | Iterable[Person]

_PAIR_HINT = 'pass "ada@example.org", or ("Ada", "ada@example.org") with a display name; pass a list of several'
_LIST_HINT = "pass several addresses as a list; a tuple is one display name with its address"
_LIKE_ADDRESS = re.compile(r"[^\s@<>()\"',;:]+@[^\s@<>()\"',;:]+\.[^\s@<>()\"',;:]+")
_ESCAPED = re.compile(r"\\(.)")


class AddressWarning(UserWarning):
    """
    A display name contains another address than its own, which spam filters take for a forged sender.

    It is a warning, because the message can be sent. To make it an error, use
    ``warnings.filterwarnings("error", category=AddressWarning)``.
    """


def read_address(given: object, what: str) -> Address:
    """
    Return one address; *what* names the argument.

    Raises:
        AddressError: It is not a mailbox (RFC 5321 §4.1.2).
        MessageError: Its display name has a control character, or is too long.
    """
    name: object = ""
    address = given
    if isinstance(given, tuple):
        if len(given) != 2:  # noqa: PLR2004 -- a pair
            text = f"{what} is a tuple of {len(given)}, not of a display name and an address"
            raise AddressError(text, hint=_LIST_HINT)
        name, address = given
    elif isinstance(given, Address):
        name = given.display_name
    mailbox = _parse(address, what)
    return Address(check_display_name(name, what), _unquote(mailbox.local), mailbox.domain)


def read_addresses(given: object, what: str) -> list[Address]:
    """
    Return the addresses of *given*: one, or an iterable of them. A tuple is always one.

    Raises:
        AddressError: One of them is not a mailbox, or *given* is a tuple of two addresses.
        MessageError: As `read_address`.
    """
    if isinstance(given, tuple) and len(given) == 2 and all(map(_is_mailbox, given)) and given[0] != given[1]:  # noqa: PLR2004
        text = f"{what} is a tuple of two addresses, so the first would be the display name of the second"
        raise AddressError(text, hint=_LIST_HINT)
    # An empty tuple is the default: nobody.
    if given != () and isinstance(given, str | tuple | Address):
        return [read_address(given, what)]
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        text = f"{what} is a {type(given).__name__}, not an address or a list of addresses"
        raise AddressError(text, hint=_PAIR_HINT)
    return [read_address(each, what) for each in given]


def _parse(address: object, what: str) -> Mailbox:
    try:
        return Mailbox.parse(address)  # type: ignore[arg-type] # it checks the type
    except AddressError as error:
        error.args = (f"{what}: {error.args[0]}",)
        error.hint = _hint(address)
        raise


def _hint(given: object) -> str:
    """Return what to pass instead of *given*, which is no address."""
    found = _LIKE_ADDRESS.findall(given) if isinstance(given, str) else []
    if len(found) > 1:
        return _LIST_HINT
    if not found or found[0] == given:
        return _PAIR_HINT
    shown = quote(found[0], allow_at=True)
    return f'pass {shown}, or ("Ada", {shown}) with a display name'


def _is_mailbox(text: object) -> bool:
    try:
        Mailbox.parse(text)  # type: ignore[arg-type] # it checks the type
    except AddressError:
        return False
    return isinstance(text, str)


def _unquote(local: str) -> str:
    return _ESCAPED.sub(r"\1", local[1:-1]) if local.startswith('"') else local


def warn_of_another_address(address: Address, what: str) -> None:
    """Issue an `AddressWarning` at the caller of the caller, if the display name contains another address."""
    others = [each for each in _LIKE_ADDRESS.findall(address.display_name) if not _is_same(each, address)]
    if others:
        message = (
            f"a display name in {what} contains the address {quote(others[0], allow_at=True)}, which is not its own: "
            "spam filters take this for a forged sender"
        )
        warnings.warn(message, AddressWarning, stacklevel=3)


def _is_same(text: str, address: Address) -> bool:
    local, _, domain = text.rpartition("@")
    try:
        return (local.casefold(), ascii_domain(domain.casefold())) == (
            address.username.casefold(),
            address.domain.lower(),
        )
    except ValueError:
        return False
