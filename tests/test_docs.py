"""The pages' code: all of it compiles, and what needs no server of the reader's is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = {
    f"{page.name}-{number}": block
    for page in PAGES
    for number, block in enumerate(_BLOCK.findall(page.read_text("utf-8")))
}


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_is_python(name: str) -> None:
    """With nothing left out that would not compile."""
    compile(BLOCKS[name], name, "exec")


@pytest.mark.filterwarnings("ignore:Session.login_data:UserWarning")
def test_the_test_of_a_program_runs_as_printed() -> None:
    """It brings its own server."""
    exec(compile(BLOCKS["test-your-program.md-0"], "test-your-program.md", "exec"), {})  # noqa: S102 -- our own page
