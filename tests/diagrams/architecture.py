"""The parts of the library, the files in which they are, and what goes from one to another."""

from __future__ import annotations

import textwrap
from typing import Final, NamedTuple

from diagrams.canvas import LINE, WIDTH, Canvas, Ink, width_of

_INSET: Final = 10
_GAP: Final = 42
# Where the part on the left ends, and the one on the right begins.
_COLUMNS = (220, 290)


class Part(NamedTuple):
    """A part: what it decides, its folder in the package, and its main files there."""

    title: str
    what: str
    folder: str
    files: tuple[str, ...]
    ink: Ink = "faint"


MAILER = Part(
    "mailer",
    "arguments, receipts, runs of many messages",
    ".",
    ("_mailer.py", "_async_mailer.py", "_core.py", "_bulk"),
)
POOL = Part("connections", "which connection carries a message", "_transport", ("pool.py", "async_pool.py", "slots.py"))
DIALOGUE = Part(
    "protocol",
    "what is said in which order; no socket, no clock, no thread",
    "_protocol",
    ("dialogue.py", "transaction.py", "exchange.py", "replies.py"),
    "blue",
)
CONNECTION = Part(
    "transport: connection", "bytes, TLS, time limits", "_transport", ("connection.py", "channel.py"), "green"
)
LINK = Part(
    "transport: link",
    "waits for the socket: a thread by poll, a task by await",
    "_transport",
    ("link.py", "async_link.py"),
    "green",
)
PARTS: Final = (MAILER, POOL, LINK, DIALOGUE, CONNECTION)


def draw() -> Canvas:
    """Draw the parts from the program at the top to the server at the bottom."""
    canvas, half, (left, right) = Canvas(), WIDTH / 2, _COLUMNS
    column = (right + WIDTH) / 2
    canvas.text(half, LINE, "your program", kind="strong", anchor="middle")
    _both(canvas, half, LINE + _INSET, _GAP, "messages", "receipts, errors")
    y = _part(canvas, 0, LINE + _INSET + _GAP, WIDTH, MAILER)
    _both(canvas, half, y, _GAP, "envelope, content", "outcome")
    y = _part(canvas, 0, y + _GAP, WIDTH, POOL)
    _both(canvas, half, y, _GAP, "dialogue", "outcome")
    y = _part(canvas, 0, y + _GAP, WIDTH, LINK)
    _both(canvas, column, y, _GAP, "next step", "wait")
    top = y + _GAP
    end = _part(canvas, 0, top, left, DIALOGUE)
    y = _part(canvas, right, top, WIDTH - right, CONNECTION)
    _across(canvas, top + 2 * LINE, "effects", left, right)
    _across(canvas, top + 4 * LINE, "replies", right, left)
    _both(canvas, column, y, end + LINE - y, "bytes", "bytes")
    canvas.text(column, end + 2 * LINE, "mail server", kind="strong", anchor="middle")
    return canvas


def _part(canvas: Canvas, x: float, y: float, width: float, part: Part) -> float:
    """Draw a part with its files; return where it ends."""
    room = int((width - 2 * _INSET) / width_of("x"))
    what, files = textwrap.wrap(part.what, room), textwrap.wrap(", ".join(part.files), room)
    height = (1 + len(what) + len(files)) * LINE + 8
    canvas.box(x + 1, y, width - 2, height, ink=part.ink)
    ink: Ink = "text" if part.ink == "faint" else part.ink
    canvas.text(x + _INSET, y + LINE, part.title, kind="strong", ink=ink)
    for number, line in enumerate(what, 2):
        canvas.text(x + _INSET, y + number * LINE, line)
    for number, line in enumerate(files, 2 + len(what)):
        canvas.text(x + _INSET, y + number * LINE, line, ink="faint", kind="code")
    return y + height


def _both(canvas: Canvas, x: float, y: float, height: float, down: str, up: str) -> None:  # noqa: PLR0913, PLR0917
    """Draw an arrow down and one up between two parts, with what goes there."""
    top, bottom = y + 4, y + height - 4
    canvas.arrow((x - 8, top), (x - 8, bottom))
    canvas.arrow((x + 8, bottom), (x + 8, top))
    canvas.text(x - 20, (top + bottom) / 2 + 4, down, ink="faint", anchor="end")
    canvas.text(x + 20, (top + bottom) / 2 + 4, up, ink="faint")


def _across(canvas: Canvas, y: float, text: str, start: float, end: float) -> None:
    side = 4 if end > start else -4
    canvas.arrow((start + side, y), (end - side, y))
    canvas.text((start + end) / 2, y - 6, text, ink="faint", anchor="middle")
