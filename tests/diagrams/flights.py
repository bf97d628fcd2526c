"""Round trips: one command at a time against commands together, as the sink of the benchmarks saw them."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from diagrams.canvas import LINE, WIDTH, Canvas, width_of

# What `nox -s bench -- --pages` writes.
RECORDED: Final = Path(__file__).parent.parent.parent / "docs/explanation/speed/flights.txt"
_LEFT: Final = 56
# Of one round trip; the widest row has four.
_TRIP = (WIDTH - _LEFT - 8) / 4
_HEIGHT = 2.2 * LINE
_TITLES = {
    "smtplib": "smtplib: one command at a time",
    "securesmtp, PIPELINING": "securesmtp, if the server offers PIPELINING",
    "securesmtp, PIPELINING and CHUNKING": "securesmtp, if it also offers CHUNKING",
    "securesmtp, session": 'send_many with pipelining="session"',
}


@dataclass(frozen=True)
class Way:
    """One way to send: its title, its round trips in words, and what both sides wrote in each of them."""

    title: str
    count: str
    flights: list[tuple[str, str]]


def read(text: str) -> list[Way]:
    """Read what `bench.flights` prints."""
    ways = []
    for block in text.strip().split("\n\n"):
        head, *lines = block.splitlines()
        name, _, count = head.partition(" offered: ")
        title = next(title for start, title in reversed(_TITLES.items()) if name.startswith(start))
        said = [line.strip().partition(": ")[2] for line in lines]
        ways.append(Way(title, count, list(zip(said[::2], said[1::2], strict=True))))
    return ways


def draw() -> Canvas:
    """Draw all ways, with time from left to right, in the same measure."""
    canvas, y = Canvas(), 0.0
    for way in read(RECORDED.read_text("ascii")):
        y = _way(canvas, y + 1.5 * LINE, way)
    canvas.text(_LEFT, y + 1.5 * LINE, "time", ink="faint")
    canvas.arrow((_LEFT + 40, y + 1.5 * LINE - 4), (_LEFT + 4 * _TRIP, y + 1.5 * LINE - 4), ink="faint")
    return canvas


def _way(canvas: Canvas, y: float, way: Way) -> float:
    canvas.text(0, y, way.title, kind="strong")
    canvas.text(0, y + LINE, way.count, ink="green" if way.count.startswith("1 ") else "text")
    y += 1.2 * LINE
    said, answered = ([_fit(flight[side], len(way.flights)) for flight in way.flights] for side in (0, 1))
    client = y + LINE * max(map(len, said)) + 6
    server = client + _HEIGHT
    canvas.text(0, client + 4, "client", ink="faint")
    canvas.text(0, server + 4, "server", ink="faint")
    for line in (client, server):
        canvas.line((_LEFT, line), (_LEFT + 4 * _TRIP, line))
    for number, (words, codes) in enumerate(zip(said, answered, strict=True)):
        x = _LEFT + number * _TRIP
        for row, text in enumerate(reversed(words)):
            canvas.text(x, client - 6 - row * LINE, text, kind="code", ink="blue")
        canvas.arrow((x, client), (x + _TRIP / 2, server), ink="blue")
        canvas.arrow((x + _TRIP / 2, server), (x + _TRIP, client), ink="text", dashed=True)
        for row, text in enumerate(codes):
            canvas.text(x + _TRIP / 2, server + 16 + row * LINE, text, kind="code")
    return server + 16 + LINE * (max(map(len, answered)) - 1)


def _fit(text: str, flights: int) -> list[str]:
    """Break a flight into lines: each message begins one, and nothing may touch the next of several flights."""
    room = int((_TRIP - 10 if flights > 1 else 3.5 * _TRIP) / width_of("x"))
    return [line for part in re.split(" (?=RSET)", text) for line in textwrap.wrap(part, room)]
