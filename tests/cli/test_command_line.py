"""The page "Use the command line": every command is in its table, and what it shows works in the shells it names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from securesmtp._cli import COMMANDS, cli, main

PAGE = (Path(__file__).parents[2] / "docs/how-to/command-line.md").read_text("utf-8")


def test_the_page_has_every_command_with_its_extra() -> None:
    """And no other."""
    rows = re.findall(r"^\| `securesmtp ([\w-]+)` \| .* \| `(\w+)` \|$", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted((name, extra) for name, (_, extra, _) in COMMANDS.items())


def test_the_page_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed as a command is one."""
    for command in re.findall(r"^securesmtp (explain .*)$", PAGE, re.MULTILINE):
        assert main(command.split()) == 0
        assert "What to do." in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_for_a_shell_completes_commands(tmp_path: Path, shell: str) -> None:
    """The script is made for each shell; the ones that are installed take it."""
    (line,) = re.findall(rf"`((?:eval \"\$\()?_SECURESMTP_COMPLETE={shell}_source .*?)` \|$", PAGE, re.MULTILINE)
    command = Path(sys.executable).parent / "securesmtp"
    environment = {"PATH": f"{command.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    made = subprocess.run(
        [command],
        env=environment | {"_SECURESMTP_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "securesmtp" in made.stdout
    if shutil.which(shell) is None:
        return
    program = line.replace("\\|", "|") + {"bash": "\ncomplete -p securesmtp", "zsh": "", "fish": ""}[shell]
    done = subprocess.run([shell, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert shell != "bash" or "_securesmtp_completion" in done.stdout


def test_a_command_without_its_extra_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is listed all the same, and takes any arguments."""
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)
    monkeypatch.setitem(sys.modules, "securesmtp._cli.serve", None)
    assert main(["serve", "--port", "0", "x"]) == 1
    hint = "Hint: install securesmtp with its extra 'demo'\n"
    assert capsys.readouterr().err == f"Error: serve needs securesmtp._cli.serve. {hint}"
