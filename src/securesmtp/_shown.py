"""How an error, an event or a log shows text that others chose: on one line, printable, short, and without secrets."""

from __future__ import annotations

from typing import TypeVar, cast

T = TypeVar("T")
# What an error or a receipt keeps of a reply: enough to read, too little to fill a log.
KEPT_TEXT = 500
# What an error quotes of an argument: enough to find it again.
_QUOTED = 100
# The text of a key (PEM), a URL with a login, a login in front of a host.
_MARKS = ("-BEGIN ", "://", "@")


class Withheld:
    """Stands for an argument that may hold a secret, so that no frame of a traceback has it; it keeps nothing of it."""

    def __init__(self, mark: str) -> None:
        """Say by which *mark* it was recognised."""
        self._mark = mark

    def __repr__(self) -> str:
        """Return why the argument is not there."""
        return f'(not shown: it has "{self._mark}" in it, and may hold a secret)'


def escape(text: bytes | str, limit: int = KEPT_TEXT) -> str:
    """Return *text* as printable text on one line, cut to *limit* characters (RPL-08: log and terminal injection)."""
    if isinstance(text, bytes):
        # Four octets are the most that one character takes: nothing beyond the next one can show.
        text = text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    shown = text = text[: limit + 1]
    if not text.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def quote(argument: object, *, at_is_usual: bool = False) -> str:
    """Return *argument* for an error about it: its repr, or that it is not shown; an @ may be *at_is_usual* in it."""
    return escape(repr(withhold(argument, at_is_usual=at_is_usual)), _QUOTED)


def withhold(argument: T, *, at_is_usual: bool = False) -> T:
    """Return *argument*, or a `Withheld` where a password or a key may have come into the wrong place."""
    shown = repr(argument)
    mark = next((mark for mark in _MARKS[: 3 - at_is_usual] if mark in shown), None)
    return argument if mark is None or isinstance(argument, Withheld) else cast("T", Withheld(mark))
