"""A run that is killed goes on where it was: each message once, but for what is doubtful, and that is said."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from killed_runs import Mailing, end, kill
from securesmtp.testing import MailServer, Received


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed twice when the server has a message and has not confirmed it, which is the worst moment."""
    process: list[subprocess.Popen[str]] = []
    struck: list[str] = []

    def on_message(message: Received) -> None:
        (name,) = message.recipients
        mailing.arrived[name] += 1
        if mailing.arrived.total() in (5, 12):
            struck.append(name)
            os.kill(process[-1].pid, signal.SIGKILL)

    with MailServer(on_message=on_message) as server:
        mailing = Mailing(tmp_path, 24, "example.org", server.env())
        for _ in range(2):
            process.append(mailing.start())
            process[-1].communicate(timeout=60)
            assert process[-1].returncode == -signal.SIGKILL
        process.append(mailing.start())
        summary, _ = end(process[-1])
        assert process[-1].returncode == 3
        doubtful = mailing.check(summary)
        assert doubtful >= set(struck)
        # At most what the four connections had in flight each time.
        assert len(doubtful) <= 8


@pytest.mark.exhaustive
def test_a_run_that_is_killed_before_it_sends_leaves_nothing_doubtful(tmp_path: Path) -> None:
    """While it is checked, nothing is claimed."""
    with MailServer(fault="silent") as server:
        mailing = Mailing(tmp_path, 3, "example.org", server.env())
        process = mailing.start()
        assert process.stderr is not None
        # The columns, before the check.
        assert process.stderr.readline().startswith("people.csv: ")
        kill(process)
        server.fault = None
        last = mailing.start()
        summary, _ = end(last)
        mailing.arrived.update(each.recipients[0] for each in server.messages)
        assert last.returncode == 0
    assert mailing.check(summary) == set()


@pytest.mark.exhaustive
def test_a_closed_terminal_ends_a_run_gently(tmp_path: Path) -> None:
    """Nothing is doubtful after SIGHUP, nor after SIGTERM."""
    with MailServer() as server:
        mailing = Mailing(tmp_path, 40, "example.org", server.env())
        for number in (signal.SIGHUP, signal.SIGTERM):
            process = mailing.start("--rate", "5/s")
            server.wait_for(len(server.messages) + 2)
            process.send_signal(number)
            process.communicate(timeout=60)
            assert process.returncode == 128 + number
        summary, _ = end(mailing.start())
        mailing.arrived.update(each.recipients[0] for each in server.messages)
    assert mailing.check(summary) == set()
