"""What an installation without extras says of what needs one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import securesmtp


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with this library and its two packages, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("securesmtp", "certifi", "idna"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        (folder / name).symlink_to(Path(str(spec.origin)).parent)
    return folder


def _run(bare: Path, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(bare)!r}); {program}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_all_names_can_be_imported_without_an_extra(bare: Path) -> None:
    """By `import *`, and by what looks at each name, such as `help`."""
    look = "import inspect, securesmtp; inspect.getmembers(securesmtp)"
    done = _run(bare, f"from securesmtp import *; {look}; print(SecureMailer.__name__)")
    assert done.stderr == ""
    assert done.stdout == "SecureMailer\n"
    assert {"AsyncResults", "AsyncSecureMailer"} <= set(securesmtp.__all__)


@pytest.mark.parametrize(
    ("program", "extra"),
    [
        ("from securesmtp import AsyncSecureMailer", "securesmtp[async]"),
        ("import securesmtp.integrations.django", "securesmtp[django]"),
    ],
)
def test_what_needs_an_extra_names_it(bare: Path, program: str, extra: str) -> None:
    """The error says what to install."""
    done = _run(bare, program)
    assert done.returncode == 1
    assert extra in done.stderr.splitlines()[-1]
