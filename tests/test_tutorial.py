"""Do what the tutorial says, file by file and command by command; only the installation is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import securesmtp

# The reader works in another folder; it must still import this package.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(securesmtp.__file__).parents[1])}
PAGE = (Path(__file__).parent.parent / "docs/tutorial.md").read_text("utf-8")
FILES = dict(
    re.findall(
        r"into\s(?:the file )?`(\w+\.py)`:\n\n(?:<!--[^\n]*-->\n)?```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE
    )
)
COMMANDS = re.findall(r"^\.venv/bin/python (\w+\.py)$", PAGE, re.MULTILINE)
SHOWN = re.findall(r"^```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def _shape(text: str) -> str:
    """Replace what differs from run to run: ports, message ids, dates, the name of the CA."""
    differs = r"(?<=^localhost:)\d+|<\w{32}(?=@)|(?<=^Date: ).*|trustme v[\d.]+, Testing CA #[\w-]+"
    return re.sub(differs, "_", text, flags=re.MULTILINE)


def test_the_tutorials_outputs_are_as_printed(tmp_path: Path) -> None:
    """Write each file, run each command in order, and compare each output with the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    first, *others = COMMANDS
    seen = []
    # As on the page, the server runs until the end, in a terminal of its own.
    with subprocess.Popen(
        [sys.executable, "-u", first],
        cwd=tmp_path,
        env=ENVIRONMENT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        try:
            assert server.stdout is not None
            seen.append(server.stdout.readline())
            seen += [_output(tmp_path, name) for name in others]
            seen.append(server.communicate("\n", timeout=60)[0])
        finally:
            server.kill()
    assert list(map(_shape, seen)) == list(map(_shape, SHOWN))


def _output(folder: Path, name: str) -> str:
    command = [sys.executable, name]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, text=True, check=True, stdout=subprocess.PIPE, timeout=60
    )
    return done.stdout
