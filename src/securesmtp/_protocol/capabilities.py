"""The answer to EHLO, typed (RFC 5321 §4.1.1.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# More keywords than any server has; the rest of a flood is not looked at.
_MAX_KEYWORDS = 100
# Nobody has more; a longer number costs time to read.
_LIMIT_DIGITS = 10
_KEYWORD = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:([ =])([ -~]*))?")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """
    What one server offers in the session at hand.

    Attributes:
        keywords: Each keyword in capitals, with its parameters as they were given.
        auth: The SASL mechanisms in capitals, in the server's order.
    """

    keywords: Mapping[str, str] = field(default_factory=dict)
    auth: tuple[str, ...] = ()

    def __contains__(self, keyword: str) -> bool:
        """Return whether *keyword* (in capitals) is offered."""
        return keyword in self.keywords

    @property
    def size(self) -> int | None:
        """The most octets that the server takes, or None where it names no limit (RFC 1870 §4: 0 is none)."""
        value = self.keywords.get("SIZE", "")
        # RFC 1870 §4 allows 20 digits.
        return int(value) or None if value.isdecimal() and len(value) <= 20 else None  # noqa: PLR2004

    @property
    def limits(self) -> dict[str, int]:
        """What LIMITS says, such as ``MAILMAX`` and ``RCPTMAX`` (RFC 9422 §3); what lets nothing pass is no limit."""
        words = (word.partition("=") for word in self.keywords.get("LIMITS", "").upper().split())
        found = {name: int(value) for name, _, value in words if value.isdecimal() and len(value) <= _LIMIT_DIGITS}
        return {name: value for name, value in found.items() if value}


def parse_capabilities(lines: Sequence[bytes]) -> Capabilities:
    """
    Return what the *lines* of a 250 to EHLO offer; what is not a keyword is passed over.

    The first line is the server's name. A keyword that comes twice counts once, the first time, except AUTH, whose
    lines add up; ``AUTH=`` is how servers of before RFC 2554 spelled it.
    """
    keywords: dict[str, str] = {}
    auth: dict[str, None] = {}
    for text in lines[1 : _MAX_KEYWORDS + 1]:
        parsed = _KEYWORD.fullmatch(text)
        if not parsed:
            continue
        keyword = parsed[1].decode("ascii").upper()
        parameters = (parsed[3] or b"").decode("ascii")
        if keyword == "AUTH":
            auth.update(dict.fromkeys(parameters.upper().split()))
        elif parsed[2] != b"=":
            keywords.setdefault(keyword, parameters)
    return Capabilities(keywords, tuple(auth))
