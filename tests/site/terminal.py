"""
Make pictures of real terminals: a command runs at a pseudo-terminal, and its screen becomes an SVG, light and dark.

`nox -s pictures` makes those of the docs, by the function `draw` of each module `pictures_*`. Nothing in a picture
comes from another host, or names a folder of the machine that made it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import tomllib
from collections.abc import Mapping
from importlib import import_module
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Final

import pyte
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

DOCS = Path(__file__).parent.parent.parent / "docs"
# Seconds for a command.
LIMIT = 60
# pyte's names of the colours that rich calls otherwise.
_COLOURS = {"brown": "yellow"} | {
    f"bright{name}": f"bright_{'yellow' if name == 'brown' else name}"
    for name in ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")
}


def _theme(background: str, foreground: str, *colours: str) -> TerminalTheme:
    """Make a theme from colours in hexadecimal: background, text, and the eight colours and their bright kin."""
    first, second, *rest = map(_colour_of, (background, foreground, *" ".join(colours).split()))
    return TerminalTheme(first, second, rest[:8], rest[8:])


def _colour_of(hexadecimal: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(hexadecimal)
    return red, green, blue


# Each colour has a contrast of at least 4.5 to the background, as WCAG asks.
THEMES: Final = {
    "light": _theme(
        *("fafafa", "1e1e1e"),
        "1e1e1e b00020 006e28 7a5400 0050aa 8c1482 006978 5a5a5a",
        "646464 b00020 006e28 7a5400 0050aa 8c1482 006978 3c3c3c",
    ),
    "dark": _theme(
        *("181a1e", "e1e1e1"),
        "8c8c8c ff7373 5ad278 ebc350 78afff e18cdc 5acdd7 e1e1e1",
        "a0a0a0 ff7373 5ad278 ebc350 78afff e18cdc 5acdd7 ffffff",
    ),
}
# Rich's own takes a font from another host.
_SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 16px; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def watch(  # noqa: PLR0913 -- keyword-only, with defaults
    command: list[str],
    *,
    folder: Path,
    columns: int = 80,
    rows: int = 60,
    environment: Mapping[str, str] | None = None,
    until: str = "",
) -> pyte.Screen:
    """
    Run *command* in *folder* at a terminal of this size, and return what it shows at the end.

    With *until*, the end is when the screen shows this text; the command is then killed.

    Raises:
        TimeoutError: It takes too long.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", "HOME": str(folder)}
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    with subprocess.Popen(
        command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=env | dict(environment or {})
    ) as process:
        os.close(theirs)
        end = monotonic() + LIMIT
        try:
            while data := _read(ours, end):
                # pyte has no dim characters.
                stream.feed(data.replace(b"\x1b[2m", b"\x1b[90m"))
                if until and until in "\n".join(screen.display):
                    break
        finally:
            process.kill() if until else None
            os.close(ours)
    return screen


def to_svg(screen: pyte.Screen, title: str, *, dark: bool = False) -> str:
    """Return the picture of a screen, up to its last line that is not empty, after a prompt with *title*."""
    # What the console itself prints is not wanted.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=screen.columns, file=nowhere, force_terminal=True, legacy_windows=False)
        console.print(Text.assemble(("$ ", "bright_black"), (title, "bold")), soft_wrap=True)
        last = max((row for row, line in enumerate(screen.display) if line.strip()), default=0)
        for row in range(last + 1):
            cells = [screen.buffer[row][column] for column in range(screen.columns)]
            parts = [("".join(cell.data for cell in same), style) for style, same in groupby(cells, _style)]
            console.print(Text.assemble(*parts), soft_wrap=True)
        theme = THEMES["dark" if dark else "light"]
        svg = console.export_svg(title="", theme=theme, code_format=_SVG, unique_id="terminal")
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE).strip() + "\n"


def write_pictures(screen: pyte.Screen, title: str, path: Path) -> None:
    """
    Write PATH-light.svg and PATH-dark.svg.

    Raises:
        ValueError: They name a folder of this machine, or another host.
    """
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["project"]
    for theme in THEMES:
        svg = to_svg(screen, title, dark=theme == "dark")
        # What is printed may have the address of the docs in it.
        others = svg.replace(project["urls"]["Documentation"], "")
        found = re.search(r"/tmp|/root|/home|https?://(?!www\.w3\.org/)", others)
        if found:
            message = f"{path.name} shows {found[0]}"
            raise ValueError(message)
        path.with_name(f"{path.name}-{theme}.svg").write_text(svg, "utf-8")


def _read(descriptor: int, end: float) -> bytes:
    readable, _, _ = select.select([descriptor], [], [], max(end - monotonic(), 0))
    if not readable:
        raise TimeoutError
    try:
        return os.read(descriptor, 65536)
    except OSError:
        # Linux reports the end of the other side so.
        return b""


def _style(cell: pyte.screens.Char) -> Style:
    front, back = (None if name == "default" else Color.parse(_colour(name)) for name in (cell.fg, cell.bg))
    more = Style(bold=cell.bold, italic=cell.italics, underline=cell.underscore, reverse=cell.reverse)
    return Style.from_color(front, back) + more


def _colour(name: str) -> str:
    """Return what rich calls a colour of pyte's."""
    return f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else _COLOURS.get(name, name)


def main() -> None:
    """Make the pictures of each module, or of those that are named."""
    names = sys.argv[1:] or sorted(path.stem for path in Path(__file__).parent.glob("pictures_*.py"))
    for name in names:
        import_module(name).draw(DOCS)


if __name__ == "__main__":
    main()
