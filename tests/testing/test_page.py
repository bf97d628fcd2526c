"""The page "Test your program": its files are put into one folder and run, as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from test_docs import BLOCKS, Block

NAME = "docs/how-to/test-your-program.md"
OURS = [block for name, block in BLOCKS.items() if name.startswith(f"{NAME}-")]
MINE = {"SMTP_URL": "smtps://me:secret@smtp.example.com", "SMTP_PASSWORD_FILE": "smtp-password", "SMTP_RATE": "1"}


def _files(mark: str) -> dict[str, str]:
    """Return the files that are marked so; the first line of each names it."""
    found = (block.code for block in OURS if block.mark == f"run by: {mark}" and block.language in {"python", "js"})
    return {code.partition("\n")[0].lstrip("#/ "): code for code in found}


def _has_nodemailer() -> bool:
    search = ["node", "-e", "require('nodemailer')"]
    return shutil.which("node") is not None and not subprocess.run(search, check=False, capture_output=True).returncode


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run all of the page's tests at once, and one that fails; warnings are errors. Return the output."""
    folder = tmp_path_factory.mktemp("page")
    files = _files("test_the_pages_tests_pass")
    files |= _files("test_nodemailer_sends_as_printed") if _has_nodemailer() else {}
    files["test_shop_fails.py"] = files["test_shop.py"].replace('subject="Your order 7"', 'subject="Your order 8"')
    for name, code in files.items():
        (folder / name).write_text(code, "utf-8")
    plugins = ("-p", "securesmtp_pytest", "-p", "anyio.pytest_plugin", "-p", "no:cacheprovider")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-v", "-s", "--tb=short", *plugins],
        cwd=folder,
        # As in the shell of somebody who sends by himself.
        env=environment | MINE | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.stdout


def test_the_pages_tests_pass(run: str) -> None:
    """Each of them, on asyncio and on trio where there is a loop."""
    files = _files("test_the_pages_tests_pass")
    for name, code in files.items():
        for test in re.findall(r"^(?:async )?def (test_\w+)", code, re.MULTILINE):
            assert re.search(rf"^{re.escape(name)}::{test}\b.* PASSED$", run, re.MULTILINE), run
    assert "1 failed" in run
    assert "error" not in run.splitlines()[-1]


def test_the_pages_failure_is_as_printed(run: str) -> None:
    """A test that wants another subject fails with the text of the page, and shows no line of the library."""
    (shown,) = (block.code for block in OURS if block.mark == "run by: test_the_pages_failure_is_as_printed")
    assert shown in re.sub(r"^E {3}", "", run, flags=re.MULTILINE), run
    assert "_inbox.py" not in run


def test_nodemailer_sends_as_printed(run: str) -> None:
    """By Node, with the variables that `from_env` reads."""
    if not _has_nodemailer():
        pytest.skip("nodemailer is missing: npm install nodemailer, and set NODE_PATH")
    assert re.search(r"test_with_nodemailer 250 2\.0\.0 queued as 1$", run, re.MULTILINE), run


def test_each_file_of_the_page_is_named() -> None:
    """Otherwise it would not be run."""
    marked: list[Block] = [block for block in OURS if block.mark.startswith("run by") and block.language != "text"]
    assert len(marked) == len(_files("test_the_pages_tests_pass") | _files("test_nodemailer_sends_as_printed"))
