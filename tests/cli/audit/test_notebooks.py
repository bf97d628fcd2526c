"""Notebooks: cells are one module, and a magic hides nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from securesmtp._cli.audit.catalogue import RULES
from securesmtp._cli.audit.report import FileReport
from securesmtp._cli.audit.run import check_file

_SMTP = "yagmail.SMTP('u', load())"


def _check(folder: Path, *cells: str | list[str], **metadata: Any) -> FileReport:
    """Check a notebook whose first cell is text, so that cell 2 is the first code."""
    code = [{"cell_type": "code", "source": cell} for cell in cells]
    notebook = {"metadata": metadata, "cells": [{"cell_type": "markdown", "source": "yagmail"}, *code]}
    return _check_json(folder, json.dumps(notebook))


def _check_json(folder: Path, text: str) -> FileReport:
    path = folder / "mail.ipynb"
    path.write_text(text)
    return check_file(str(path), frozenset(RULES))


def _places(report: FileReport) -> list[tuple[int, int, int]]:
    """Return the cell, the line and the column of each finding."""
    return [(each.finding.cell, each.finding.line, each.finding.column) for each in report.findings]


@pytest.mark.parametrize(
    ("cell", "place"),
    [
        (_SMTP, (3, 1, 1)),
        (f"%time {_SMTP}", (3, 1, 7)),
        (f"%timeit -n 1 -r 1 {_SMTP}", (3, 1, 19)),
        (f"if True:\n    %time {_SMTP}", (3, 2, 11)),
        (f"%%time\n{_SMTP}", (3, 2, 1)),
        (f"\n%%capture out\n{_SMTP}", (3, 3, 1)),
        (f"%matplotlib inline\n!pip install yagmail\nyagmail?\n{_SMTP}", (3, 4, 1)),
        (f"files = !ls\nhere = %pwd\n{_SMTP}", (3, 3, 1)),
        (f"for x in y:\n    !ls\n{_SMTP}", (3, 3, 1)),
        (f"x = (7\n% 3)\n{_SMTP}", (3, 3, 1)),
        (f"await f()\n{_SMTP}", (3, 2, 1)),
        (f"await f()\n%time await g()\n{_SMTP}", (3, 3, 1)),
    ],
)
def test_code_among_magics_is_checked(tmp_path: Path, cell: str, place: tuple[int, int, int]) -> None:
    """The finding has the cell, and the line and column there; the import is in another cell."""
    report = _check(tmp_path, "import yagmail", cell)
    assert _places(report) == [place]
    assert report.not_checked == ()
    assert report.findings[0].code.endswith(_SMTP)


@pytest.mark.parametrize("cell", [f"%%bash\n{_SMTP}", f"%%html\n{_SMTP}", f"!{_SMTP}", f"{_SMTP}  # noqa: SMT621", ""])
def test_what_is_no_code_is_not_reported(tmp_path: Path, cell: str) -> None:
    """Cells of another language, commands, and what a comment silences."""
    report = _check(tmp_path, "import yagmail", cell)
    assert (report.findings, report.not_checked) == ((), ())


def test_lines_may_be_a_list(tmp_path: Path) -> None:
    """So the format writes them; a call over two lines ends in its cell."""
    report = _check(tmp_path, ["import yagmail\n", "yagmail.SMTP(\n", "'u', load())"], "x = 1")
    assert _places(report) == [(2, 2, 1)]
    assert report.findings[0].finding.end_line == 3


def test_a_cell_that_does_not_compile_hides_no_other(tmp_path: Path) -> None:
    """It is named, and the rest is checked."""
    report = _check(tmp_path, "print 'x'", "import yagmail\n" + _SMTP)
    assert _places(report) == [(3, 2, 1)]
    (missed,) = report.not_checked
    assert missed.cell == 2
    assert "line 1" in missed.reason


def test_an_unknown_code_is_named_by_its_cell(tmp_path: Path) -> None:
    """As a finding is."""
    (mark,) = _check(tmp_path, "x = 1", "\ny = 2  # noqa: SMT999").unknown_codes
    assert (mark.cell, mark.line, mark.code) == (3, 2, "SMT999")


def test_the_third_version_of_the_format(tmp_path: Path) -> None:
    """It has worksheets, and calls the source `input`."""
    cells = [{"cell_type": "code", "input": f"import yagmail\n{_SMTP}"}]
    report = _check_json(tmp_path, json.dumps({"metadata": {}, "worksheets": [{"cells": cells}]}))
    assert _places(report) == [(1, 2, 1)]


@pytest.mark.parametrize(
    "metadata", [{"language_info": {"name": "R"}}, {"kernelspec": {"language": "julia"}}], ids=["info", "kernel"]
)
def test_a_notebook_in_another_language_is_left_out(tmp_path: Path, metadata: dict[str, Any]) -> None:
    """It has no Python."""
    report = _check(tmp_path, "x <- 1", **metadata)
    assert (report.findings, report.not_checked) == ((), ())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"metadata": {}, "cells": [{}]}', '{"metadata": null, "cells": []}', "[" * 100_000]
)
def test_what_is_no_notebook_is_not_checked(tmp_path: Path, text: str) -> None:
    """It is never clean."""
    (missed,) = _check_json(tmp_path, text).not_checked
    assert missed.reason.startswith("not a notebook: ")


def test_half_a_surrogate_pair_is_no_fault(tmp_path: Path) -> None:
    """JSON may hold one, and UTF-8 may not."""
    assert _places(_check(tmp_path, f"import yagmail\nx = '\ud83d'\n{_SMTP}")) == [(2, 3, 1)]
