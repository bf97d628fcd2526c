"""How errors, events and logs show text from others: on one line, printable, short, and without secrets."""

from __future__ import annotations

from typing import TypeVar, cast

T = TypeVar("T")
# Characters of a reply that an error or a receipt keeps: enough to read, too few to fill a log.
KEPT_TEXT = 500
# Characters of an argument that an error quotes: enough to recognise it.
_MAX_QUOTED = 100
# Signs of a secret: the text of a key (PEM), a URL that may have a login; and, with the "@", a login before a host.
_SIGNS = ("-BEGIN ", "://")
_SIGNS_WITH_AT = (*_SIGNS, "@")


class Withheld:
    """Replaces an argument that may contain a secret, so that no frame of a traceback shows it."""

    def __init__(self, sign: str) -> None:
        """Keep only *sign*, the part by which the secret was recognised."""
        self._sign = sign

    def __repr__(self) -> str:
        """Return why the argument is not shown."""
        return f'(not shown: it contains "{self._sign}" and may contain a secret)'


def escape(text: bytes | str, limit: int = KEPT_TEXT) -> str:
    """
    Return *text* as one line of printable characters, cut to *limit* characters.

    Text from a server must not inject lines into a log or control a terminal (RPL-08).
    """
    if isinstance(text, bytes):
        # A character takes at most four bytes, so the rest cannot show.
        text = text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    shown = text = text[: limit + 1]
    if not text.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def quote(argument: object, *, allow_at: bool = False) -> str:
    """Return the repr of *argument* for an error about it, or why it is not shown; see `withhold`."""
    return escape(repr(withhold(argument, allow_at=allow_at)), _MAX_QUOTED)


def withhold(argument: T, *, allow_at: bool = False) -> T:
    """
    Return *argument*, or a `Withheld` if it may contain a password or a key that was passed in the wrong place.

    An ``@`` counts as a sign of a login unless *allow_at*, for arguments that are addresses or file names.
    """
    shown = repr(argument)
    sign = next((sign for sign in (_SIGNS if allow_at else _SIGNS_WITH_AT) if sign in shown), None)
    return argument if sign is None or isinstance(argument, Withheld) else cast("T", Withheld(sign))
