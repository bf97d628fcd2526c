"""How an error, an event or a log shows text that others chose: on one line, printable, short, and without secrets."""

from __future__ import annotations

# What an error or a receipt keeps of a reply: enough to read, too little to fill a log.
KEPT_TEXT = 500
# What an error quotes of an argument: enough to find it again.
_QUOTED = 100
# A URL with a login, an address with one in front of it, the text of a key (PEM).
_MAY_BE_SECRET = ("@", "://", "-BEGIN ")
_NOT_SHOWN = "(not shown: it may hold a secret)"


def escape(text: bytes | str, limit: int = KEPT_TEXT) -> str:
    """Return *text* as printable text on one line, cut to *limit* characters (RPL-08: log and terminal injection)."""
    if isinstance(text, bytes):
        # Four octets are the most that one character takes: nothing beyond the next one can show.
        text = text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    shown = text = text[: limit + 1]
    if not text.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def quote(argument: object, *, address: bool = False) -> str:
    """
    Return *argument* for an error about it: its repr, unless a password or a key may have come into the wrong place.

    Where an *address* is expected, an @ alone hides nothing.
    """
    shown = repr(argument)
    hidden = any(mark in shown for mark in _MAY_BE_SECRET[address:])
    return _NOT_SHOWN if hidden else escape(shown, _QUOTED)
