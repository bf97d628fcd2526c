"""JSON and SARIF: complete, valid, and stable from one run to the next."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from securesmtp._cli import main
from securesmtp._cli.audit import sarif

_SCHEMA = json.loads((Path(__file__).parent / "sarif-schema-2.1.0.json").read_text("utf-8"))
_CALL = "yagmail.SMTP('u', load())"
_ERROR = f"import yagmail\n{_CALL}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder of a repository the current one."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _sarif(capsys: pytest.CaptureFixture[str], *paths: str) -> dict[str, Any]:
    """Return the only run of a valid log."""
    main(["audit", "--format", "sarif", *paths])
    log = json.loads(capsys.readouterr().out)
    jsonschema.Draft4Validator(_SCHEMA).validate(log)
    (run,) = log["runs"]
    assert isinstance(run, dict)
    return run


def _uris(run: dict[str, Any]) -> list[str]:
    return [result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]]


def test_json_has_everything(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page documents these fields."""
    (here / "a.py").write_text(f"{_ERROR}x = 1  # noqa: SMT999\n")
    (here / "b.py").write_text("print 'x'\n")
    assert main(["audit", "--format", "json", "."]) == 2
    report = json.loads(capsys.readouterr().out)
    assert {name: report[name] for name in ("version", "tool", "files", "unknown_codes")} == {
        "version": 1,
        "tool": {"name": "securesmtp", "version": version("securesmtp")},
        "files": 2,
        "unknown_codes": [{"path": "a.py", "cell": 0, "line": 3, "code": "SMT999"}],
    }
    (finding,) = report["findings"]
    assert finding == {
        "path": "a.py",
        "cell": 0,
        "line": 2,
        "column": 1,
        "end_line": 2,
        "rule": "SMT621",
        "name": "yagmail-unverified",
        "cwe": 295,
        "level": "error",
        "message": "yagmail without a context verifies nothing",
        "code": _CALL,
    }
    assert set(report["rules"]) == {"SMT621"}
    assert set(report["rules"]["SMT621"]) == {"title", "reason", "fix"}
    assert [missed["path"] for missed in report["not_checked"]] == ["b.py"]


def test_sarif_has_what_code_scanning_reads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Severity and weakness at the rule; level, place and fingerprint at the result."""
    (here / "a.py").write_text(_ERROR)
    run = _sarif(capsys, ".")
    (result,) = run["results"]
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
    assert rule["id"] == result["ruleId"] == "SMT621"
    assert (result["level"], rule["properties"]["security-severity"]) == ("error", "8.0")
    assert "external/cwe/cwe-295" in rule["properties"]["tags"]
    assert result["locations"][0]["physicalLocation"]["region"] == {
        "startLine": 2,
        "startColumn": 1,
        "endLine": 2,
        "snippet": {"text": _CALL},
    }
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]
    assert str(here) not in json.dumps(run)


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("a.py", "a.py"),
        ("./a.py", "a.py"),
        ("src/../a b.py", "a%20b.py"),
        ("src/ä#%?.py", "src/%C3%A4%23%25%3F.py"),
        ("src\\a.py", "src%5Ca.py"),
        ("src/\udcff.py", "src/%FF.py"),
    ],
)
def test_paths_are_relative_to_the_repository(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: str, uri: str
) -> None:
    """Percent-encoded, also from a folder below and for a name that is no text."""
    Path(path).write_text(_ERROR)
    assert _uris(_sarif(capsys, path)) == [uri]
    assert _uris(_sarif(capsys, str(Path(path).absolute()))) == [uri]
    monkeypatch.chdir(here / "src")
    assert _uris(_sarif(capsys, f"../{path}")) == [uri]


def test_a_path_outside_the_repository_is_absolute(
    here: Path, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It has no base."""
    outside = tmp_path_factory.mktemp("out side") / "a.py"
    outside.write_text(_ERROR)
    run = _sarif(capsys, str(outside))
    location = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location == {"uri": outside.as_uri()}
    assert location["uri"].startswith("file:///")


def test_without_a_repository_paths_are_relative_to_the_current_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As GitHub's action is started in the checkout."""
    (here / ".git").rmdir()
    (here / "src/a.py").write_text(_ERROR)
    assert _uris(_sarif(capsys, "src")) == ["src/a.py"]


def test_a_fingerprint_outlives_lines_and_blanks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Code that moves or is indented stays the same alert; equal lines of a file are different ones."""

    def fingerprints(source: str, name: str = "a.py") -> list[str]:
        (here / name).write_text(source)
        results = _sarif(capsys, name)["results"]
        return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]

    (before,) = fingerprints(_ERROR)
    assert fingerprints(f"import yagmail\n\n\nif x:\n    {_CALL.replace(', ', ',  ')}\n") == [before]
    assert fingerprints(_ERROR, "b.py") != [before]
    assert fingerprints(f"import yagmail\n{_CALL.replace('u', 'v', 1)}\n") != [before]
    twice = fingerprints(f"{_ERROR}{_CALL}\n")
    assert twice == [before, before.replace(":1", ":2")]


def test_the_worst_come_first_and_the_rest_is_counted(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub shows 5,000 results."""
    assert sarif.MAX_RESULTS == 5000
    monkeypatch.setattr(sarif, "MAX_RESULTS", 3)
    (here / "a.py").write_text("from flask_mailman import Mail\n" + "Mail()\n" * 3)
    (here / "b.py").write_text(f"{_ERROR}{_CALL}\n")
    run = _sarif(capsys, ".")
    assert Counter(result["level"] for result in run["results"]) == {"error": 2, "warning": 1}
    (notification,) = run["invocations"][0]["toolExecutionNotifications"]
    assert notification["message"]["text"].startswith("2 of 5 results are left out")


def test_sarif_names_what_was_not_checked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unreadable files, cells, and codes that are no rules."""
    (here / "a.py").write_text("print 'x'\n")
    (here / "b.py").write_text("x = 1  # noqa: SMT999\n")
    cells = [{"cell_type": "code", "source": "print 'x'"}, {"cell_type": "code", "source": _ERROR}]
    (here / "c.ipynb").write_text(json.dumps({"metadata": {}, "cells": cells}))
    run = _sarif(capsys, ".")
    invocation = run["invocations"][0]
    texts = [note["message"]["text"] for note in invocation["toolExecutionNotifications"]]
    assert not invocation["executionSuccessful"]
    assert texts[0].startswith("not checked: syntax error")
    assert texts[1].startswith("not checked, cell 1: syntax error")
    assert "names no rule: 'SMT999'" in texts[2]
    (location,) = run["results"][0]["locations"]
    assert location["logicalLocations"] == [{"name": "cell 2, line 2", "kind": "function"}]
    assert "region" not in location["physicalLocation"]
