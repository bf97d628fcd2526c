"""The extensions that a server offers in its reply to EHLO (RFC 5321 §4.1.1.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# More keywords than any server offers; the lines after these are ignored, in case of a flood.
_MAX_KEYWORDS = 100
# RFC 1870 §4.
_MAX_SIZE_DIGITS = 20
# More digits than any real limit has; int() takes quadratic time for a long number.
_MAX_LIMIT_DIGITS = 10
_KEYWORD = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:([ =])([ -~]*))?")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """
    The extensions that a server offers in this session.

    Attributes:
        keywords: Each keyword in upper case, with its parameters as the server sent them.
        auth: The SASL mechanisms in upper case, in the server's order.
        size: The maximum size of a message in bytes; None if the server states no limit (RFC 1870 §4: 0 is no limit).
        limits: The values of LIMITS, such as ``MAILMAX`` and ``RCPTMAX`` (RFC 9422 §3); a value of 0 is ignored.
    """

    keywords: Mapping[str, str] = field(default_factory=dict)
    auth: tuple[str, ...] = ()
    size: int | None = field(init=False, repr=False, compare=False)
    limits: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the numbers once: they are asked for with every message."""
        object.__setattr__(self, "size", _positive(self.keywords.get("SIZE", ""), _MAX_SIZE_DIGITS))
        words = (word.partition("=") for word in self.keywords.get("LIMITS", "").upper().split())
        limits = {name: limit for name, _, value in words if (limit := _positive(value, _MAX_LIMIT_DIGITS))}
        object.__setattr__(self, "limits", limits)

    def __contains__(self, keyword: str) -> bool:
        """Return whether the server offers *keyword* (in upper case)."""
        return keyword in self.keywords


def _positive(value: str, max_digits: int) -> int | None:
    return int(value) or None if value.isdecimal() and len(value) <= max_digits else None


def parse_capabilities(lines: Sequence[bytes]) -> Capabilities:
    """
    Return the extensions in the *lines* of a 250 reply to EHLO; malformed lines are ignored.

    The first line is the server's name. Of a repeated keyword, the first line counts; several AUTH lines are combined.
    Servers older than RFC 2554 write ``AUTH=``.
    """
    keywords: dict[str, str] = {}
    auth: dict[str, None] = {}
    for text in lines[1 : _MAX_KEYWORDS + 1]:
        match = _KEYWORD.fullmatch(text)
        if not match:
            continue
        keyword = match[1].decode("ascii").upper()
        parameters = (match[3] or b"").decode("ascii")
        if keyword == "AUTH":
            auth.update(dict.fromkeys(parameters.upper().split()))
        elif match[2] != b"=":
            keywords.setdefault(keyword, parameters)
    return Capabilities(keywords, tuple(auth))
