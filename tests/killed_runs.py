"""A mailing whose process is killed, again and again, until all is sent: what the ledger says, and what has arrived."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from conftest import unmeasured
from securesmtp.ledger import SQLiteLedger, State


class Mailing:
    """
    The same command, given again and again in one folder.

    Attributes:
        names: Who is to get a message.
        arrived: How many each has got, by the server.
    """

    def __init__(self, folder: Path, count: int, domain: str, environment: Mapping[str, str]) -> None:
        """Write a table of so many addresses, and a template."""
        self.names = [f"p{number:04}@{domain}" for number in range(count)]
        self.arrived = Counter[str]()
        self._folder = folder
        self._environment = unmeasured() | dict(environment)
        rows = "".join(f"{name},{number}\n" for number, name in enumerate(self.names))
        (folder / "people.csv").write_text(f"email,number\n{rows}")
        (folder / "mail.txt").write_text("Number $number\n")
        self._sender = f"news@{domain}"

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Give the command."""
        command = ["send", "--csv", "people.csv", "--template", "mail.txt", "--from", self._sender, "--subject", "x"]
        return subprocess.Popen(
            [sys.executable, "-m", "securesmtp", *command, *options],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def states(self) -> dict[str, State]:
        """Return what the ledger says of each."""
        with SQLiteLedger(self._folder / "people-mail.ledger") as ledger:
            return {entry.key: entry.state for entry in ledger.entries()}

    def check(self, summary: str) -> set[str]:
        """Check that nothing is lost, nothing came twice, and each doubtful one is reported; return those."""
        states = self.states()
        assert sorted(states) == self.names
        assert set(states.values()) <= {State.ACCEPTED, State.UNKNOWN}
        assert [name for name, count in self.arrived.items() if count > 1] == []
        assert [name for name, state in states.items() if state is State.ACCEPTED and not self.arrived[name]] == []
        doubtful = {name for name, state in states.items() if state is State.UNKNOWN}
        # The summary lists the first twenty, and counts all.
        listed = {name for name in doubtful if f"  {name}  <" in summary}
        assert len(listed) == min(len(doubtful), 20)
        assert f"unknown  │        0 │ {len(doubtful):7,} │" in summary
        return doubtful


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the end of a command, and return what it has printed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode in (0, 3), (process.returncode, out, err)
    return out, err


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a command, as the kernel does when memory is short."""
    process.kill()
    process.communicate()
    assert process.returncode == -9 or os.name == "nt"
