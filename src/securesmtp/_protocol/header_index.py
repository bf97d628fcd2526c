"""The header of one message: its fields in order, and by name, so that a look-up does not read all of them again."""

from __future__ import annotations

from email.policy import EmailPolicy
from typing import TYPE_CHECKING

from securesmtp._protocol.header_fields import ADDRESS_FIELDS, RESENT, has_default_class, read_groups

if TYPE_CHECKING:
    from email.headerregistry import Group
    from email.policy import EmailPolicy

# These fields may not be empty (RFC 5322 §3.6), and some servers refuse a message with an empty one.
_NEVER_EMPTY = frozenset(
    name.lower()
    for name in (*ADDRESS_FIELDS, *RESENT, "Date", "Message-ID", "Resent-Date", "Resent-Message-ID", "In-Reply-To",
                 "References", "Keywords")
)  # fmt: skip


class HeaderIndex:
    """
    The fields of one message, to which fields are added and from which they are removed.

    Attributes:
        fields: Name and value of each field, in order, without empty ones that must not be empty.
        non_ascii: The names of those that have non-ASCII text, in lower case.
    """

    __slots__ = ("_groups", "_policy", "_values", "fields", "non_ascii")

    def __init__(self, policy: EmailPolicy, fields: list[tuple[str, str]]) -> None:
        """Index *fields*; the *policy* of their message makes header objects of what is added."""
        self._policy = policy
        self._index(fields)

    def _index(self, fields: list[tuple[str, str]]) -> None:
        self.fields: list[tuple[str, str]] = []
        self.non_ascii: set[str] = set()
        self._values: dict[str, list[str]] = {}
        self._groups: dict[str, tuple[list[Group], bool]] = {}
        for name, value in fields:
            # The class of a header object can have methods of its own.
            text, lowered = str(value), name.lower()
            if lowered in _NEVER_EMPTY and _is_empty(text):
                continue
            self.fields.append((name, value))
            if lowered in self._values:
                self._values[lowered].append(value)
            else:
                self._values[lowered] = [value]
            if not text.isascii():
                self.non_ascii.add(lowered)

    def has_any(self, names: frozenset[str]) -> bool:
        """Return whether there is a field with one of these *names*, which are in lower case."""
        return not names.isdisjoint(self._values)

    def values(self, field: str) -> list[str]:
        """Return the values of all fields named *field*."""
        return self._values.get(field.lower(), [])

    def groups(self, field: str) -> tuple[list[Group], bool]:
        """Return the addresses of all fields named *field*, and whether each of these is a valid list of addresses."""
        found = self._groups.get(field)
        if found is None:
            values = self._values.get(field.lower())
            found = self._groups[field] = read_groups(field, values) if values else ([], True)
        return found

    def parsed(self, field: str) -> list[object]:
        """Return the header objects of all fields named *field*."""
        return [self._policy.header_fetch_parse(field, value) for value in self.values(field)]

    def remove(self, names: frozenset[str]) -> None:
        """Remove all fields with one of these *names*, which are in lower case."""
        if self.has_any(names):
            self._index([(name, value) for name, value in self.fields if name.lower() not in names])

    def add(self, field: str, value: object) -> None:
        """Add a field at the end, as `EmailMessage.__setitem__` would."""
        self._index([*self.fields, self._policy.header_store_parse(field, value)])

    def add_final(self, field: str, text: str) -> None:
        """Add a date or an identifier whose *text* is in its final form: parsing it would take the most time of all."""
        if has_default_class(self._policy, field):
            self.fields.append((field, text))
            self._values[field.lower()] = [text]
        else:
            self.add(field, text)


def _is_empty(text: str) -> bool:
    # ", ".join() of empty strings gives nothing but commas.
    return not text or ((text[0] == "," or text[0].isspace()) and not text.replace(",", "").strip())
