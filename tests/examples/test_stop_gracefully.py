"""A worker that gets SIGTERM at each stage of a session, and twice, as a process (PITFALLS-1, Q20)."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import stop_gracefully
from conftest import Serve, unmeasured
from scripted import Peer, ScriptedServer, honest
from test_limits import until
from test_shutdown import STEPS, Silent, silent_at


def _started(server: ScriptedServer, ca_file: Path, count: int) -> subprocess.Popen[str]:
    variables = {
        "SMTP_HOST": "localhost",
        "SMTP_PORT": str(server.port),
        "SMTP_TLS": "implicit",
        "SMTP_USERNAME": "me",
        "SMTP_PASSWORD": "secret",
        "SMTP_CA_FILE": str(ca_file),
        "MAIL_FROM": "me@example.com",
    }
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(Path(stop_gracefully.__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**unmeasured(), **variables},
    )
    assert program.stdin is not None
    program.stdin.write("".join(f"{number}@example.net\n" for number in range(count)))
    program.stdin.close()
    program.stdin = None
    return program


# The example, with less time than a service has.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import stop_gracefully
stop_gracefully.CLOSE_TIMEOUT = 0.3
for result in stop_gracefully.main():
    print(result.message_id, result.outcome.name, flush=True)
"""


@pytest.fixture
def silent() -> Silent:
    """Return what a server does not reply."""
    return Silent()


@pytest.mark.parametrize("step", ["GREETING", "AUTH", "MAIL", "CONTENT"])
def test_sigterm_at_each_stage(serve: Serve, ca_file: Path, silent: Silent, step: str) -> None:
    """The program ends by itself, and prints the truth about each message."""
    server = serve(silent_at(step, silent), connections=8, timeout=60)
    with _started(server, ca_file, 3) as program:
        for _ in range(3):
            assert silent.reached.acquire(timeout=60)
        program.send_signal(signal.SIGTERM)
        said, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    assert [line.split()[1] for line in said.splitlines()] == [STEPS[step].name] * 3
    assert "Traceback" not in errors
    assert server.accepted == []


def test_sigterm_lets_a_send_end(serve: Serve, ca_file: Path) -> None:
    """What the server accepts in time is ACCEPTED; the second signal ends what it does not."""
    silent, taken = Silent(), threading.Event()

    def content(peer: Peer, data: bytes) -> bytes:
        if b"0@example.net" in data:
            taken.wait(60)
            return b"250 2.0.0 queued\r\n"
        return silent(peer, data)

    server = serve(
        honest(extensions=(), auth=("me", "secret"), replies={"CONTENT": content}), connections=8, timeout=60
    )
    program = _started(server, ca_file, 2)
    with program:
        assert silent.reached.acquire(timeout=60)
        taken.set()
        until(lambda: server.accepted)
        program.send_signal(signal.SIGTERM)
        program.send_signal(signal.SIGTERM)
        said, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    outcomes = [line.split()[1] for line in said.splitlines()]
    # The first one has ended before the signal, or is among them.
    assert sorted(outcomes) in (["UNKNOWN"], ["ACCEPTED", "UNKNOWN"])
    assert len(server.accepted) == 1
