"""A long table takes no more memory than a short one, but for what finds repeated addresses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import unmeasured

_CHILD = """\
import resource, sys
from securesmtp._cli import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_ROWS = 20_000
_BYTES_FOR_EACH = 200


@pytest.mark.exhaustive
def test_rows_are_not_kept(tmp_path: Path) -> None:
    """As the page says: fewer than 200 bytes for each."""
    (tmp_path / "mail.txt").write_text("Dear $name\n" * 100)
    peaks = []
    for rows in (1000, 1000 + _ROWS):
        table = "".join(f"reader{number}@example.org,Reader {number}\n" for number in range(rows))
        (tmp_path / "people.csv").write_text(f"email,name\n{table}")
        options = [
            "--csv",
            "people.csv",
            "--template",
            "mail.txt",
            "--from",
            "news@example.org",
            "--subject",
            "Hi $name",
        ]
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, "send", *options, "--dry-run", "--quiet"],
            cwd=tmp_path,
            env=unmeasured(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    assert peaks[1] - peaks[0] < _ROWS * _BYTES_FOR_EACH
