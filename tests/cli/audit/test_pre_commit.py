"""The hook for pre-commit, as its file says it is called."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from securesmtp._cli import main

_ROOT = Path(__file__).parents[3]
_HOOK = dict(re.findall(r"^[- ] ?(\w+): (.*)$", (_ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize(("source", "code"), [("x = 1\n", 0), ("import yagmail\nyagmail.SMTP('u', load())\n", 1)])
def test_the_entry_checks_the_given_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, code: int
) -> None:
    """pre-commit appends the files that are committed, and no others."""
    (tmp_path / "given.py").write_text(source)
    (tmp_path / "other.py").write_text("print 'x'\n")
    program, *arguments = shlex.split(_HOOK["entry"])
    assert program == "securesmtp"
    assert main([*arguments, str(tmp_path / "given.py")]) == code
    assert "other.py" not in capsys.readouterr().out


def test_the_hook_has_what_the_extra_has() -> None:
    """pre-commit installs the package without its extras."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert re.findall(r'"([^"]+)"', _HOOK["additional_dependencies"]) == project["optional-dependencies"]["cli"]


@pytest.mark.exhaustive
def test_the_real_pre_commit_runs_the_hook(tmp_path: Path) -> None:
    """In a repository of its own; it installs the package from this one."""
    pre_commit = pytest.importorskip("pre_commit", reason="pre-commit is not installed")
    assert pre_commit
    (tmp_path / "mail.py").write_text("import yagmail\nyagmail.SMTP('u', load())\n")
    for command in ("git init -q", "git add mail.py"):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    run = ["pre-commit", "try-repo", str(_ROOT), "securesmtp-audit", "--files", "mail.py"]
    result = subprocess.run(run, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert result.returncode == 1
    assert "SMT621" in result.stdout
