"""The command as it is used: which files it reads, what it prints, and its exit codes."""

from __future__ import annotations

import ast
import inspect
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import securesmtp
from securesmtp._cli import main
from securesmtp._cli.audit import run
from securesmtp._cli.audit.catalogue import RULES
from securesmtp._cli.audit.findings import Rule

_ERROR = "import yagmail\nyagmail.SMTP('u', load())\n"
_WARNING = "from flask_mailman import Mail\nMail()\n"
_NOTE = "EMAIL_HOST = HOST\nEMAIL_USE_TLS = tls\n"
_CLEAN = "x = 1\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)


def _paths(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    main(["audit", *arguments, "--format", "json"])
    return [finding["path"] for finding in json.loads(capsys.readouterr().out)["findings"]]


@pytest.mark.parametrize(
    ("source", "options", "code"),
    [
        (_CLEAN, [], 0),
        (_ERROR, [], 1),
        (_WARNING, [], 0),
        (_WARNING, ["--fail-on", "warning"], 1),
        (_NOTE, ["--fail-on", "warning"], 0),
        (_NOTE, ["--fail-on", "note"], 1),
        (_ERROR, ["--fail-on", "never"], 0),
        (_ERROR, ["--ignore", "SMT621"], 0),
        (_ERROR, ["--ignore", "smt6,SMT511"], 0),
        (_ERROR, ["--select", "SMT6"], 1),
        (_ERROR, ["--select", "SMT1 SMT5"], 0),
        (_ERROR, ["--select", "SMT6", "--ignore", "SMT62"], 0),
        ("print 'x'\n", ["--fail-on", "never"], 2),
        ("def f(a, a): pass\n", [], 2),
    ],
)
def test_the_exit_code(here: Path, source: str, options: list[str], code: int) -> None:
    """0 clean, 1 at or above the level, 2 if a file was not checked, whatever else was found."""
    _write(here, mail=source)
    assert main(["audit", *options, "mail.py"]) == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no files were given"),
        (["--select", "SMT7", "."], "'SMT7' is no rule"),
        (["--ignore", "E501", "."], "'E501' is no rule"),
        (["--explain", "SMT999"], "'SMT999' is no rule"),
        (["--format", "xml", "."], "xml"),
    ],
)
def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """2, with a sentence on standard error that says what to do."""
    assert main(["audit", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"print 'x'\n", "syntax error in line 1"),
        (b"def f(a, a): pass\n", "duplicate argument"),
        (b"return 1\n", "'return' outside function"),
        (b"# coding: nonsense\n", "nonsense"),
        (b"x = '\xff'\n", "mail.py"),
        (b"x = 1\0\n", "null byte"),
        (b"(" * 3000 + b")" * 3000, "too"),
    ],
)
@pytest.mark.parametrize("word", [b"", b"import smtplib\n"], ids=["plain", "with smtplib"])
def test_what_does_not_compile_is_not_checked(
    here: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str, word: bytes
) -> None:
    """Also if it does not name a mail library."""
    (here / "mail.py").write_bytes(content.replace(b"\n", b"\n" + word, 1) if word else content)
    (here / "other.py").write_text(_ERROR)
    assert main(["audit", "."]) == 2
    shown = capsys.readouterr().out
    assert "not checked mail.py: " in shown
    assert reason in shown
    assert "SMT621" in shown


def test_warnings_of_the_audited_code_are_not_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are about somebody else's code."""
    (here / "mail.py").write_text('import smtplib\nx = "\\d"\nassert (x, 1)\n')
    assert main(["audit", "mail.py"]) == 0
    assert capsys.readouterr().err == ""


def test_a_fault_of_a_rule_hides_no_other_file(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is not checked, and the reason asks for a report."""

    def fail(path: str, *_: object) -> None:
        raise KeyError(path)

    _write(here, mail=_ERROR)
    (here / "main.go").write_text("package main\n")
    monkeypatch.setattr(run, "check_go", fail)
    assert main(["audit", "."]) == 2
    shown = capsys.readouterr().out
    assert "not checked main.go: a rule failed: KeyError: 'main.go'. Please report this" in shown
    assert "SMT621" in shown


# ------------------------------------------------------------------------------------------------------ which files


def test_folders_are_walked_without_the_code_of_others(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Environments, packages, caches and what `--exclude` names are left out; the order is by name."""
    inside = [".venv/x", "node_modules/x", ".git/hooks/x", "build/.tox/x", "env/lib/x", "src/__pycache__/x", "tests/x"]
    _write(here, src__b=_ERROR, src__a=_ERROR, z=_ERROR, src__old_x=_ERROR)
    for name in inside:
        (here / name).with_suffix(".py").parent.mkdir(parents=True, exist_ok=True)
        (here / name).with_suffix(".py").write_text(_ERROR)
    (here / "env/pyvenv.cfg").touch()
    (here / "notes.txt").write_text(_ERROR)
    assert _paths(capsys, ".", "--exclude", "tests", "--exclude", "*/old_*") == ["src/a.py", "src/b.py", "z.py"]


@pytest.mark.parametrize("pattern", ["src/old", "./src/old", "src/old/", "./src/old/", "old", "old/"])
def test_a_folder_is_left_out_however_it_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], pattern: str
) -> None:
    """The shell completes folders with a slash at the end."""
    _write(here, src__old__a=_ERROR, src__a=_ERROR)
    assert _paths(capsys, "./", "--exclude", pattern) == ["src/a.py"]


def test_an_environment_that_is_given_is_read_with_its_packages(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its packages are all there is in it."""
    _write(here, **{".venv__lib__site-packages__x": _ERROR, "a": _ERROR})
    (here / ".venv/pyvenv.cfg").touch()
    assert _paths(capsys, ".venv") == [".venv/lib/site-packages/x.py"]
    assert _paths(capsys, ".") == ["a.py"]


def test_scripts_without_a_suffix_are_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs of cron have none; what begins with another line, or has another suffix, is no Python."""
    (here / "cron.daily").mkdir()
    texts = {"report": "#!/usr/bin/python3\n", "backup": "#!/bin/sh\n", "notes": "", "a.txt": "#!/usr/bin/python3\n"}
    for name, first in texts.items():
        (here / "cron.daily" / name).write_text(first + _ERROR)
    assert _paths(capsys, ".") == ["cron.daily/report"]


def test_given_files_are_read_whatever_they_are(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pre-commit applies its own `exclude`; an environment that is given is meant; each file is read once."""
    _write(here, **{".venv__x": _ERROR, "a": _ERROR})
    (here / "script").write_text("#!/usr/bin/env python3\n" + _ERROR)
    (here / "link.py").symlink_to("a.py")
    given = ["./.venv/x.py", "script", "a.py", "link.py", "a.py", "--exclude", "*"]
    assert _paths(capsys, *given) == [".venv/x.py", "a.py", "link.py", "script"]
    assert _paths(capsys, ".venv") == [".venv/x.py"]


def test_links_and_pipes_in_folders_are_not_followed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A loop of links ends, and a pipe does not wait for a writer."""
    _write(here, src__a=_ERROR)
    (here / "src/loop").symlink_to("..")
    (here / "src/link.py").symlink_to("a.py")
    os.mkfifo(here / "src/pipe.py")
    assert _paths(capsys, "src") == ["src/a.py"]


@pytest.mark.parametrize("name", ["missing.py", "missing", "nul\0.py"])
def test_a_path_that_does_not_exist_is_not_checked(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The others are."""
    _write(here, mail=_ERROR)
    assert main(["audit", name, "mail.py", "--format", "json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert [missed["path"] for missed in report["not_checked"]] == [name]
    assert len(report["findings"]) == 1


def test_what_cannot_be_read_is_not_checked(here: Path) -> None:
    """
    A file, and a folder in a folder, but no file that nothing says is code, such as a key.

    Root reads everything, so that its rights are dropped.
    """
    _write(here, a=_CLEAN, b=_CLEAN, sub__b=_CLEAN)
    (here / "key").touch(0)
    (here / "a.py").chmod(0)
    (here / "sub").chmod(0)
    here.chmod(0o755)
    for folder in here.parents:
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    # What is imported late may be in a folder that only root can read.
    run.audit(["b.py"], (), frozenset(RULES))
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        report = run.audit(["."], (), frozenset(RULES))
    finally:
        if is_root:
            os.seteuid(0)
        (here / "sub").chmod(0o755)
    missed = [(each.path, each.cell, each.reason) for each in report.not_checked]
    assert missed == [(name, 0, "Permission denied") for name in ("a.py", "sub")]


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n"])
def test_a_given_file_of_another_kind_is_not_checked(
    here: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """It was meant to be checked."""
    (here / "script").write_bytes(content)
    assert main(["audit", "script"]) == 2
    assert "neither Python nor Go" in capsys.readouterr().out


def test_a_folder_without_code_is_not_clean(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped folder must not pass a CI run."""
    (here / "README.md").touch()
    assert main(["audit", "."]) == 2
    assert "not checked .: no Python, notebook, Go or ini file is here" in capsys.readouterr().out


@pytest.mark.parametrize(("source", "code"), [(_ERROR, 1), (_CLEAN, 0), ("print 'x'", 2)])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, source: str, code: int) -> None:
    """`-` is Python from standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source.encode())))
    assert main(["audit", "-"]) == code


def test_many_files_are_checked_by_several_processes(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same result."""
    _write(here, **{f"m{number}": _ERROR for number in range(12)}, bad="print 'x'\n")
    assert main(["audit", ".", "--format", "json"]) == 2
    alone = capsys.readouterr().out
    monkeypatch.setattr(run, "_FILES_FOR_PROCESSES", 10)
    assert main(["audit", ".", "--format", "json"]) == 2
    assert capsys.readouterr().out == alone


# ----------------------------------------------------------------------------------------------------------- texts


def test_all_rules_are_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """Each has an id, a level, a weakness, a reason, and lines that replace the code."""
    assert main(["audit", "--list-rules"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == sorted(RULES)
    for rule in RULES.values():
        assert main(["audit", "--explain", rule.id.lower()]) == 0
        shown = capsys.readouterr().out
        assert f"{rule.id} {rule.name} (CWE-{rule.cwe})" in shown
        assert main(["audit", "--explain", rule.name]) == 0
        assert capsys.readouterr().out == shown
        assert " ".join(rule.reason.split()) in " ".join(shown.split())
        assert rule.fix.splitlines()[0] in shown


_PYTHON_FIXES = [rule for rule in RULES.values() if rule.id < "SMT9"]


@pytest.mark.parametrize("rule", _PYTHON_FIXES, ids=lambda rule: rule.id)
def test_a_fix_is_code_that_calls_what_exists(rule: Rule) -> None:
    """Names and arguments of this package that a fix has are real, and are imported."""
    tree = ast.parse(rule.fix)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names & set(securesmtp.__all__) <= imported
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in securesmtp.__all__:
            function = getattr(securesmtp, node.func.id)
            keywords = {str(keyword.arg): None for keyword in node.keywords}
            inspect.signature(function).bind(*node.args, **keywords)


@pytest.mark.parametrize("rule", _PYTHON_FIXES, ids=lambda rule: rule.id)
def test_a_fix_is_not_a_finding(here: Path, rule: Rule) -> None:
    """What a fix says is what the next run accepts."""
    imports = "import logging, os, smtplib, ssl\nimport aiosmtplib, yagmail\n"
    server = "server = smtplib.SMTP(host, 587, timeout=30)\n"
    lines = "".join(f"    {line}\n" for line in (server + rule.fix).splitlines())
    (here / "mail.py").write_text(f"{imports}async def send(host, message, user, password):\n{lines}")
    assert main(["audit", "--fail-on", "note", "--format", "text", "mail.py"]) == 0


def test_a_run_in_a_terminal(here: Path) -> None:
    """Colours, unless NO_COLOR is set; what is too wide is cut."""
    _write(here, mail="import yagmail\nyagmail.SMTP('u', load())" + ", 465" * 40 + "\n")
    script = f"import sys; from securesmtp._cli import main; sys.exit(main(['audit', {str(here)!r}]))"

    def shown(columns: str, **environment: str) -> str:
        reader, terminal = pty.openpty()
        values = {**os.environ, "TERM": "xterm", "COLUMNS": columns, **environment}
        values = {name: value for name, value in values.items() if name != "NO_COLOR" or environment}
        with subprocess.Popen([sys.executable, "-c", script], stdout=terminal, env=values) as process:
            os.close(terminal)
            text = b""
            try:
                while chunk := os.read(reader, 10_000):
                    text += chunk
            except OSError:
                # The other end is closed.
                pass
        os.close(reader)
        assert process.returncode == 1
        return text.decode()

    narrow = shown("40")
    assert "\x1b[1;31merror" in narrow
    assert "…" in narrow
    assert "\x1b[1;31m" not in shown("80", NO_COLOR="1")


def test_a_pipe_has_each_finding_on_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For grep, whatever the width is; without colours."""
    _write(here, mail=_ERROR.rstrip() + ", 465" * 40 + "\n")
    main(["audit", "mail.py"])
    shown = capsys.readouterr().out
    assert ", 465" * 40 in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("columns", ["20", "40", "80", "200"])
def test_no_line_ends_with_blanks(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """A report is pasted into tickets, and compared with the one before."""
    monkeypatch.setenv("COLUMNS", columns)
    _write(here, mail=_ERROR)
    main(["audit", "mail.py"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    assert any(line.startswith("  It passes") for line in lines)


def test_a_cell_is_part_of_the_place(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line is counted in the cell."""
    cell = {"cell_type": "code", "source": _ERROR}
    notebook = {"metadata": {}, "nbformat": 4, "nbformat_minor": 5, "cells": [cell]}
    (here / "report.ipynb").write_text(json.dumps(notebook))
    main(["audit", "."])
    assert capsys.readouterr().out.startswith("report.ipynb:cell 1:2:1  error  SMT621  ")


def test_the_text_cannot_control_the_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The audited code and its names are somebody else's."""
    name = "evil\x1b]0;[red]owned\x07.py"
    (here / name).write_text(f"{_ERROR.rstrip()}  # \x1b[2J [bold]hidden[/bold]\n")
    assert main(["audit", "."]) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "evil\\x1b]0;[red]owned\\x07.py" in shown
    assert "\\x1b[2J [bold]hidden[/bold]" in shown


def test_the_sum_and_the_rules_are_shown_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each finding has its place, and a rule is explained once, with its lines or where they are."""
    _write(here, a=_ERROR * 2, b=_ERROR, c="print 'x'\n", d="x = 1  # noqa: SMT999\n# securesmtp: ignore\n")
    main(["audit", "."])
    shown = capsys.readouterr().out
    assert shown.count("yagmail-unverified") == 1
    assert [line.partition("  ")[0] for line in shown.splitlines() if "  error  " in line] == [
        "a.py:2:1",
        "a.py:4:1",
        "b.py:2:1",
    ]
    assert "d.py, line 1: the comment names SMT999, which is no rule, and silences nothing" in shown
    assert "d.py, line 2: the comment names no rule, and silences nothing" in shown
    assert shown.endswith("3 errors in 4 files, 1 not checked.\n")


def test_the_sum_says_how_many_findings_are_silenced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Code that somebody has silenced is not code in which nothing was found; rules left out do not count."""
    _write(here, a=_ERROR.rstrip() + "  # noqa: SMT621\n", b=_WARNING.rstrip() + "  # noqa: SMT513\n")
    go = 'import ("crypto/tls"; "net/smtp")\nvar c = tls.Config{InsecureSkipVerify: true} // #nosec G402\n'
    (here / "main.go").write_text("package main\n" + go)
    assert main(["audit", "."]) == 0
    assert capsys.readouterr().out == "Nothing found in 3 files, 3 silenced by comments.\n"
    main(["audit", ".", "--ignore", "SMT621", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["silenced"] == 2


def test_a_fix_of_several_rules_is_shown_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second rule names the first."""
    _write(here, a="import yagmail\nyagmail.SMTP('u')\nyagmail.SMTP('u', smtp_ssl=False, smtp_starttls=False)\n")
    main(["audit", "."])
    assert "Instead: as for SMT621." in capsys.readouterr().out
