"""The header of one message: its fields in order, and by name, so that a look-up does not read all of them again."""

from __future__ import annotations

from email.headerregistry import BaseHeader, HeaderRegistry
from email.policy import EmailPolicy
from typing import TYPE_CHECKING

from securesmtp._protocol.header_fields import read_groups

if TYPE_CHECKING:
    from email.headerregistry import Group
    from email.message import EmailMessage

_REGISTRY = HeaderRegistry()


class HeaderIndex:
    """
    The fields of one message, to which fields are added and from which they are removed.

    Attributes:
        fields: Name and value of each field, in order.
    """

    __slots__ = ("_groups", "_policy", "_values", "fields", "non_ascii")

    def __init__(self, message: EmailMessage, fields: list[tuple[str, str]]) -> None:
        """Index *fields*, those of *message*, whose policy makes header objects of what is added."""
        self._policy = message.policy
        self._read(fields)

    def _read(self, fields: list[tuple[str, str]]) -> None:
        self.fields = fields
        self.non_ascii: set[str] = set()
        self._values: dict[str, list[str]] = {}
        self._groups: dict[str, tuple[list[Group], bool]] = {}
        for name, value in fields:
            self._index(name, value)

    def _index(self, name: str, value: str) -> None:
        lowered = name.lower()
        self._values.setdefault(lowered, []).append(value)
        # `str`, because the class of a header object can have methods of its own.
        if not str(value).isascii():
            self.non_ascii.add(lowered)

    @property
    def names(self) -> frozenset[str]:
        """The names of all fields, in lower case."""
        return frozenset(self._values)

    def values(self, field: str) -> list[str]:
        """Return the values of all fields named *field*."""
        return self._values.get(field.lower(), [])

    def groups(self, field: str) -> tuple[list[Group], bool]:
        """Return the addresses of all fields named *field*, and whether each of these is a valid list of addresses."""
        found = self._groups.get(field)
        if found is None:
            found = self._groups[field] = read_groups(field, self.values(field))
        return found

    def parsed(self, field: str) -> list[object]:
        """Return the header objects of all fields named *field*."""
        return [self._policy.header_fetch_parse(field, value) for value in self.values(field)]

    def remove(self, *fields: str) -> None:
        """Remove all fields with one of these names, which are in lower case."""
        if not self._values.keys().isdisjoint(fields):
            self._read([(name, value) for name, value in self.fields if name.lower() not in fields])

    def add(self, field: str, value: object) -> None:
        """Add a field at the end, as `EmailMessage.__setitem__` would."""
        name, stored = self._policy.header_store_parse(field, value)
        self.fields.append((name, stored))
        self._index(name, stored)
        self._groups.pop(field, None)

    def add_final(self, field: str, text: str) -> None:
        """Add a field whose *text* is a date or an identifier in its final form: parsing it would take most of the time."""
        policy, lowered = self._policy, field.lower()
        factory: object = getattr(policy, "header_factory", None)
        is_default = type(policy) is EmailPolicy and type(factory) is HeaderRegistry
        if is_default and factory.base_class is BaseHeader and factory.registry.get(lowered) is _REGISTRY.registry[lowered]:
            self.fields.append((field, text))
            self._index(field, text)
        else:
            self.add(field, text)
