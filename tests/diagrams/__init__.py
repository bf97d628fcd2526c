"""The diagrams of the docs: `nox -s pictures` writes them, and the tests compare them with what is drawn today."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from diagrams import architecture, flights, outcome, sequence
from diagrams.canvas import COLOURS, Canvas

FOLDER: Final = Path(__file__).parent.parent.parent / "docs/explanation/pictures"
DIAGRAMS: Final[dict[str, Callable[[], Canvas]]] = {
    "architecture": architecture.draw,
    "flights": flights.draw,
    "outcome": outcome.draw,
    "send-implicit": partial(sequence.draw, "implicit"),
    "send-starttls": partial(sequence.draw, "starttls"),
}


def draw(name: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of a diagram, one for each theme, and what is to be in them."""
    canvas = DIAGRAMS[name]()
    for theme in COLOURS:
        yield FOLDER / f"{name}-{theme}.svg", canvas.to_svg(theme)
