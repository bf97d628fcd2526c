"""The man pages of the commands: as new as the commands, and valid roff."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from securesmtp._cli import COMMANDS

DOCS = Path(__file__).parents[2] / "docs"
MAN = runpy.run_path(str(DOCS / "man.py"))
PAGES: dict[str, str] = MAN["pages"]()


def test_the_pages_are_those_of_the_commands() -> None:
    """After a change of a command, `python docs/man.py` writes them again."""
    assert {path.name: path.read_text("utf-8") for path in (DOCS / "man").iterdir()} == PAGES
    assert set(PAGES) == {"securesmtp.1", *(f"securesmtp-{name}.1" for name in COMMANDS)}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_sections_that_man_shows(name: str) -> None:
    """The first ones in their order, each once; NAME is what `apropos` reads."""
    sections = re.findall(r"^\.SH (.+)$", PAGES[name], re.MULTILINE)
    assert sections[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert len(sections) == len(set(sections))
    summary = PAGES[name].split(".SH NAME\n")[1].split("\n")[0]
    assert re.fullmatch(r"securesmtp[\w\\-]* \\- [^.]{10,80}", summary)


@pytest.mark.parametrize(
    ("text", "escaped"), [(".x\n'y\nz", "\\&.x\n\\&'y\nz"), ("--port \\n", "\\-\\-port \\en"), ("a.b's", "a.b's")]
)
def test_text_is_no_markup(text: str, escaped: str) -> None:
    """A line that begins with a dot or an apostrophe would be a command of roff."""
    assert MAN["_escape"](text) == escaped
