"""Names without a domain, which cron and other local programs write: ``root``, ``root (Cron Daemon)``, ``<root>``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from securesmtp._protocol.address_fields import split_list

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = r"""([^\s<>()",:;\\]+)"""
_COMMENT = r"(?:\([^()]*\)\s*)?"
# The name in angle brackets at the end, or alone; with comments.
_PLACES = (re.compile(rf"[^<>]*<\s*{_NAME}\s*>\s*{_COMMENT}"), re.compile(rf"\s*{_COMMENT}{_NAME}\s*{_COMMENT}"))


@dataclass(frozen=True, slots=True)
class Names:
    """
    What becomes of names without a domain.

    Attributes:
        domain: The domain that they get; None for none.
        mapped: The addresses that replace names, or whole addresses.
    """

    domain: str | None = None
    mapped: Mapping[str, str] = field(default_factory=dict)

    def qualify(self, text: str) -> str:
        """Return *text*, a list of addresses, with names replaced; all else in it is unchanged."""
        return "".join(
            (piece if separator == ":" else self._qualify_one(piece)) + separator
            for piece, separator in split_list(text)
        )

    def _qualify_one(self, piece: str) -> str:
        found = _find(piece)
        if found is None:
            return piece
        name = found[1]
        address = self.mapped.get(name)
        if address is None and "@" not in name and self.domain is not None:
            address = f"{name}@{self.domain}"
        return piece if address is None else piece[: found.start(1)] + address + piece[found.end(1) :]


def bare_name(text: str) -> str | None:
    """Return the first name in *text*, a list of addresses, that has no domain; None if there is none."""
    found = (_find(piece) for piece, separator in split_list(text) if separator != ":")
    return next((match[1] for match in found if match and "@" not in match[1]), None)


def _find(piece: str) -> re.Match[str] | None:
    return next(filter(None, (place.fullmatch(piece) for place in _PLACES)), None)
