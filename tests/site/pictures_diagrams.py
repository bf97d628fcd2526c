"""The diagrams of the pages that explain: sessions with a server on loopback, round trips, parts and outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagrams import DIAGRAMS
from diagrams import draw as draw_diagram

if TYPE_CHECKING:
    from pathlib import Path


def draw(docs: Path) -> None:
    """Make them."""
    for name in DIAGRAMS:
        for path, svg in draw_diagram(name):
            target = docs / "explanation/pictures" / path.name
            target.parent.mkdir(exist_ok=True)
            target.write_text(svg, "utf-8")
