"""Write diagrams as SVG: text, boxes and arrows, in the colours of a light page and of a dark one."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Final, Literal

Theme = Literal["light", "dark"]
Ink = Literal["text", "faint", "blue", "green", "red", "amber"]
Anchor = Literal["start", "middle", "end"]

# Each colour has a contrast of at least 4.5 to the ground of the theme, as WCAG asks of text.
GROUNDS: Final[dict[Theme, str]] = {"light": "#ffffff", "dark": "#131416"}
COLOURS: Final[dict[Theme, dict[Ink, str]]] = {
    "light": {
        "text": "#1e1e1e",
        "faint": "#646464",
        "blue": "#0050aa",
        "green": "#006e28",
        "red": "#b00020",
        "amber": "#7a5400",
    },
    "dark": {
        "text": "#e1e1e1",
        "faint": "#a0a0a0",
        "blue": "#78afff",
        "green": "#5ad278",
        "red": "#ff7373",
        "amber": "#ebc350",
    },
}
# As wide as a phone's page, and so not scaled down there by much.
WIDTH: Final = 480
# Pixels.
SIZE: Final = 13
LINE: Final = 18
# Of a letter, as a part of the font's size: that of code, and more than the mean of other text.
_LETTER = 0.56
_HEAD = 7
_STYLE = """\
text {{ font: {size}px system-ui, "DejaVu Sans", sans-serif; }}
.code {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 12px; }}
.strong {{ font-weight: bold; }}
path {{ fill: none; stroke-width: 1.5; }}
rect {{ fill: none; stroke-width: 1.5; }}
"""


def width_of(text: str) -> float:
    """Return an upper limit of the width of *text*."""
    return len(text) * SIZE * _LETTER


@dataclass
class Canvas:
    """A picture that is as high as what was drawn, and names its colours by what they are for."""

    width: int = WIDTH
    height: float = 0
    _shapes: list[tuple[Ink, str]] = field(default_factory=list)

    def text(  # noqa: PLR0913 -- keyword-only, with defaults
        self, x: float, y: float, text: str, *, ink: Ink = "text", anchor: Anchor = "start", kind: str = ""
    ) -> None:
        """
        Write *text* on the base line *y*; *kind* may be "code" or "strong".

        Raises:
            ValueError: It may be wider than the picture.
        """
        left = x - width_of(text) * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        if left < 0 or left + width_of(text) > self.width:
            message = f"too wide for the picture: {text!r}"
            raise ValueError(message)
        name = f' class="{kind}"' * bool(kind)
        self._add(ink, f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{name} fill="{{}}">{escape(text)}</text>', y)

    def box(self, x: float, y: float, width: float, height: float, *, ink: Ink = "faint") -> None:
        """Draw a box with round corners."""
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"'
        self._add(ink, f'<rect {place} stroke="{{}}" />', y + height)

    def line(self, *points: tuple[float, float], ink: Ink = "faint", dashed: bool = False) -> None:
        """Draw a line through *points*."""
        way = " L".join(f"{x:g} {y:g}" for x, y in points)
        dashes = ' stroke-dasharray="3 4"' * dashed
        self._add(ink, f'<path d="M{way}" stroke="{{}}"{dashes} />', max(y for _, y in points))

    def lifeline(self, x: float, top: float) -> None:
        """Draw a vertical line from *top* to the end of the picture, behind everything else."""
        self._shapes.insert(0, ("faint", f'<path d="M{x:g} {top:g} V{self.height:g}" stroke="{{}}" />'))

    def arrow(self, *points: tuple[float, float], ink: Ink = "text", dashed: bool = False) -> None:
        """Draw a line through *points*, with a head at its end."""
        self.line(*points, ink=ink, dashed=dashed)
        (from_x, from_y), (x, y) = points[-2:]
        length = ((x - from_x) ** 2 + (y - from_y) ** 2) ** 0.5
        # One step back along the line, and half of one to its side.
        back_x, back_y = (x - from_x) / length * _HEAD, (y - from_y) / length * _HEAD
        corners = [(x - back_x + side * back_y / 2, y - back_y - side * back_x / 2) for side in (1, -1)]
        points_of_head = " ".join(f"{round(a, 1):g},{round(b, 1):g}" for a, b in [(x, y), *corners])
        self._add(ink, f'<polygon points="{points_of_head}" fill="{{}}" />', y)

    def to_svg(self, theme: Theme) -> str:
        """Return the picture in the colours of *theme*."""
        colours = COLOURS[theme]
        shapes = "\n".join(shape.format(colours[ink]) for ink, shape in self._shapes)
        size = f'viewBox="0 0 {self.width} {self.height + LINE / 2:g}"'
        style = _STYLE.format(size=SIZE)
        return f'<svg {size} xmlns="http://www.w3.org/2000/svg">\n<style>\n{style}</style>\n{shapes}\n</svg>\n'

    def _add(self, ink: Ink, shape: str, bottom: float) -> None:
        self._shapes.append((ink, shape))
        self.height = max(self.height, bottom)
