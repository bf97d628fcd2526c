"""
Notebooks as one Python source.

The cells of a notebook share their names, so they are checked as one module. A magic must not hide its cell, and the
code behind ``%time`` is code: lines that only IPython can read become blanks, and each line of the source is known by
its cell, its line there and the columns that were cut off.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from securesmtp._cli.audit.python_source import LINE_END
from securesmtp._cli.audit.report import NotChecked
from securesmtp._cli.audit.source import NotCheckedError, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securesmtp._cli.audit.findings import Finding

# `%time smtp.login(user, password)`, with options before the code.
_CODE_BEHIND: Final = re.compile(
    r"(?P<indent>\s*)(?P<magic>%(?:time|timeit|prun|memit|mprun|lprun)\b(?:\s+-\S+(?:\s+\d+)?)*\s*)"
)
_LINE_MAGIC: Final = re.compile(r"(?P<indent>\s*)(?:%[A-Za-z_]|!|\?|[\w.]+\s*\?{1,2}\s*$|[\w., ]+=\s*[%!])")
# Cells whose rest is Python.
_PYTHON_CELL: Final = re.compile(
    r"\s*%%(?:time|timeit|capture|prun|python3?|pypy|memit|mprun|lprun|debug|scalene|skip_if\w*|wandb)\b"
)


@dataclass(frozen=True, slots=True)
class _Place:
    cell: int
    line: int
    # Columns that were cut off before the code.
    cut: int = 0


@dataclass(slots=True)
class Notebook:
    """
    The Python of a notebook.

    Attributes:
        path: The notebook's path.
        source: All cells that compile, one after the other.
        not_checked: The cells that do not compile.
        places: Where each line of `source` is.
    """

    path: str
    source: str = ""
    not_checked: list[NotChecked] = field(default_factory=list)
    places: list[_Place] = field(default_factory=list)

    def place(self, finding: Finding) -> Finding:
        """Return a finding in `source` as one in its cell."""
        first = self.places[finding.line - 1]
        last = self.places[min(finding.end_line, len(self.places)) - 1]
        end_line = last.line if last.cell == first.cell else first.line
        return replace(finding, line=first.line, column=finding.column + first.cut, end_line=end_line, cell=first.cell)

    def cell_line(self, line: int) -> tuple[int, int]:
        """Return the cell of a line of `source`, and the line there; both from 1."""
        place = self.places[line - 1]
        return place.cell, place.line


def read_notebook(path: str, content: bytes) -> Notebook:
    """
    Return the Python of a notebook, which is empty if the notebook is in another language.

    Raises:
        NotCheckedError: The file is no notebook.
    """
    notebook = Notebook(path)
    lines: list[str] = []
    try:
        document = json.loads(content)
        cells = list(_code_cells(document))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NotCheckedError(f"not a notebook: {type(error).__name__}: {error}") from None
    for number, cell in cells:
        code, cuts = _as_python(cell)
        try:
            parse("\n".join(code).encode("utf-8", "replace"), path, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except NotCheckedError as error:
            notebook.not_checked.append(NotChecked(path, number, str(error)))
            continue
        lines += code
        notebook.places += [_Place(number, line, cut) for line, cut in enumerate(cuts, 1)]
    notebook.source = "\n".join(lines)
    return notebook


def _code_cells(document: Any) -> Iterator[tuple[int, str]]:  # noqa: ANN401 -- JSON
    """Return the cells with code, with their numbers among all cells."""
    metadata = document["metadata"]
    language = metadata.get("language_info", {}).get("name") or metadata.get("kernelspec", {}).get("language")
    if language not in {None, "python", "python3", "ipython"}:
        return
    # Version 3 has worksheets, and calls the source "input".
    sheets = document.get("worksheets", [document])
    cells = [cell for sheet in sheets for cell in sheet["cells"]]
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] == "code":
            source = cell["source"] if "source" in cell else cell["input"]
            yield number, source if isinstance(source, str) else "".join(source)


def _as_python(cell: str) -> tuple[list[str], list[int]]:
    """Return the lines of a cell without what only IPython can read, and how many columns each has lost."""
    lines = LINE_END.split(cell)
    begin = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if lines[begin].lstrip().startswith("%%"):
        if not _PYTHON_CELL.match(lines[begin]):
            return [""] * len(lines), [0] * len(lines)
        lines[begin] = ""
    if _compiles("\n".join(lines)):
        return lines, [0] * len(lines)
    return _without_magics(lines)


def _without_magics(lines: list[str]) -> tuple[list[str], list[int]]:
    code, cuts = [], []
    for line in lines:
        if (found := _CODE_BEHIND.match(line)) and len(line) > found.end():
            code.append(found["indent"] + line[found.end() :])
            cuts.append(len(found["magic"]))
        elif found := _LINE_MAGIC.match(line):
            # A block needs a statement.
            code.append(found["indent"] + "pass")
            cuts.append(0)
        else:
            code.append(line)
            cuts.append(0)
    return code, cuts


def _compiles(code: str) -> bool:
    try:
        parse(code.encode("utf-8", "replace"), "", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except NotCheckedError:
        return False
    return True
