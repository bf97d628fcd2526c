"""One run of the audit: files are read, checked by the rules of their language, and silenced by comments."""

from __future__ import annotations

import ast
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.catalogue import RULES
from securesmtp._cli.audit.go_tokens import GoSource
from securesmtp._cli.audit.ini import check_ini
from securesmtp._cli.audit.noqa import Silenced, is_silenced, python_comments, silenced, silenced_by_gosec, unknown
from securesmtp._cli.audit.notebooks import Notebook, read_notebook
from securesmtp._cli.audit.python_source import LINE_END, check_python, decode
from securesmtp._cli.audit.report import FileReport, Located, NotChecked, Report, UnknownCode, code_line
from securesmtp._cli.audit.rules_go import GOSEC, check_go
from securesmtp._cli.audit.source import NotCheckedError
from securesmtp._cli.audit.walk import STDIN, Walk, language_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from securesmtp._cli.audit.findings import Finding

# Below this, starting processes takes longer than they save.
_FILES_FOR_PROCESSES: Final = 400
_FILES_AT_ONCE: Final = 50


def audit(paths: Sequence[str], exclude: tuple[str, ...], rules: frozenset[str]) -> Report:
    """
    Check files.

    Args:
        paths: Files and folders; ``-`` is standard input.
        exclude: Patterns of what is left out under folders.
        rules: The rules that are reported.
    """
    walk = Walk(exclude)
    files = walk.files(paths)
    report = Report(RULES, len(files), not_checked=walk.not_checked)
    if not files and not report.not_checked:
        # A mistyped folder must not look clean.
        report.not_checked.extend(NotChecked(path, 0, "no Python, notebook, Go or ini file is here") for path in paths)
    for result in _results(files, partial(check_file, rules=rules)):
        report.findings.extend(result.findings)
        report.not_checked.extend(result.not_checked)
        report.unknown_codes.extend(result.unknown_codes)
        report.silenced.extend(result.silenced)
    for found in (report.findings, report.not_checked, report.unknown_codes):
        found.sort()
    return report


def _results(files: list[str], check: Callable[[str], FileReport]) -> Iterable[FileReport]:
    if len(files) < _FILES_FOR_PROCESSES:
        return map(check, files)
    with ProcessPoolExecutor() as pool:
        return list(pool.map(check, files, chunksize=_FILES_AT_ONCE))


@dataclass(slots=True)
class _Checked:
    """What the rules found in a source, and the source's lines and comments."""

    findings: Iterable[Finding]
    lines: list[str]
    marks: list[Silenced] = field(default_factory=list)
    notebook: Notebook | None = None


def check_file(path: str, rules: frozenset[str]) -> FileReport:
    """Return the result of one file; whatever is wrong with the file is in it."""
    try:
        source = sys.stdin.buffer.read() if path == STDIN else _read(path)
        checked = _check(path, source)
    except NotCheckedError as error:
        return FileReport(not_checked=(NotChecked(path, 0, str(error)),))
    except Exception as error:  # noqa: BLE001 -- a fault of a rule must not hide the other files
        reason = f"a rule failed: {type(error).__name__}: {error}. Please report this"
        return FileReport(not_checked=(NotChecked(path, 0, reason),))
    notebook = checked.notebook
    selected = [finding for finding in checked.findings if finding.rule in rules]
    left_out = frozenset(finding for finding in selected if is_silenced(finding, checked.marks))
    located = [
        Located(notebook.place(finding) if notebook else finding, code_line(checked.lines[finding.line - 1]))
        for finding in selected
        if finding not in left_out
    ]
    unknown_codes = [
        UnknownCode(path, *(notebook.cell_line(mark.line) if notebook else (0, mark.line)), mark.rule)
        for mark in unknown(checked.marks, RULES)
    ]
    not_checked = notebook.not_checked if notebook else ()
    return FileReport(tuple(located), tuple(not_checked), tuple(unknown_codes), left_out)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- a path that is shown as it was given
            return file.read()
    except (OSError, MemoryError) as error:
        raise NotCheckedError(getattr(error, "strerror", None) or type(error).__name__) from None


def _check(path: str, source: bytes) -> _Checked:
    match language_of(path, source):
        case "python":
            findings = check_python(path, source)
            # Most files have no finding, and splitting them takes as long as compiling them.
            lines = LINE_END.split(decode(source)) if findings else []
            return _Checked(findings, lines, list(silenced(python_comments(source))))
        case "notebook":
            notebook = read_notebook(path, source)
            code = notebook.source.encode("utf-8", "replace")
            findings = check_python(path, code, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            return _Checked(findings, notebook.source.split("\n"), list(silenced(python_comments(code))), notebook)
        case "go":
            return _go(path, source)
        case "ini":
            text = source.decode("utf-8-sig", "replace")
            return _Checked(check_ini(path, text), LINE_END.split(text))
        case _:
            raise NotCheckedError("neither Python nor Go, by its name and its first line")


def _go(path: str, source: bytes) -> _Checked:
    go = GoSource(source.decode("utf-8-sig", "replace"))
    by_gosec = list(silenced_by_gosec(go.comments, GOSEC))
    return _Checked(check_go(path, go), go.text.split("\n"), [*silenced(go.comments), *by_gosec])
