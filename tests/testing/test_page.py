"""The page "Test your program": its files are put into one folder and run, as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from test_docs import BLOCKS, Block

NAME = "docs/how-to/test-your-program.md"
OURS = [block for name, block in BLOCKS.items() if name.startswith(f"{NAME}-")]


def _files(mark: str) -> dict[str, str]:
    """Return the files that are marked so; the first line of each names it."""
    found = (block.code for block in OURS if block.mark == f"run by: {mark}" and block.language in {"python", "js"})
    return {code.partition("\n")[0].lstrip("#/ "): code for code in found}


def _run(folder: Path, files: dict[str, str], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in *folder* with *files*, in an environment in which warnings are errors."""
    for name, code in files.items():
        (folder / name).write_text(code, "utf-8")
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_pages_tests_pass(tmp_path: Path) -> None:
    """All of them in one run."""
    files = _files("test_the_pages_tests_pass")
    done = _run(tmp_path, files)
    count = sum(len(re.findall(r"^(?:async )?def test_", code, re.MULTILINE)) for code in files.values())
    # One test has three parameters, and two run on asyncio and on trio.
    assert f"{count + 2 + 2} passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_the_pages_failure_is_as_printed(tmp_path: Path) -> None:
    """A test that wants another subject fails with the text of the page."""
    files = _files("test_the_pages_tests_pass")
    failing = files["test_shop.py"].replace('subject="Your order 7"', 'subject="Your order 8"')
    done = _run(tmp_path, {"shop.py": files["shop.py"], "test_shop.py": failing}, "--tb=short")
    (shown,) = (block.code for block in OURS if block.mark == "run by: test_the_pages_failure_is_as_printed")
    assert "1 failed, 1 passed" in done.stdout
    assert shown in re.sub(r"^E {3}", "", done.stdout, flags=re.MULTILINE), done.stdout
    assert "_inbox.py" not in done.stdout


def test_nodemailer_sends_as_printed(tmp_path: Path) -> None:
    """By Node, with the variables that `from_env` reads."""
    node = shutil.which("node")
    if (
        node is None
        or subprocess.run([node, "-e", "require('nodemailer')"], check=False, capture_output=True).returncode
    ):
        pytest.skip("nodemailer is missing: npm install nodemailer, and set NODE_PATH")
    done = _run(tmp_path, _files("test_nodemailer_sends_as_printed"), "-s")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "queued as 1" in done.stdout


def test_each_file_of_the_page_is_named() -> None:
    """Otherwise it would not be run."""
    marked: list[Block] = [block for block in OURS if block.mark.startswith("run by") and block.language != "text"]
    assert len(marked) == len(_files("test_the_pages_tests_pass") | _files("test_nodemailer_sends_as_printed"))
