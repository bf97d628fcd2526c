"""A server, and the commands run in this process as a shell runs them."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from securesmtp._cli import main
from securesmtp.testing import MailServer


class Done(NamedTuple):
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def shared_server() -> Iterator[MailServer]:
    """Start a server that requires a login."""
    with MailServer(refuse=["refused@example.org"]) as server:
        yield server


@pytest.fixture
def server(shared_server: MailServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    """Name the server in the environment, as an operator does."""
    for name, value in shared_server.env().items():
        monkeypatch.setenv(name, value)
    shared_server.clear()
    yield shared_server
    shared_server.fault = None


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs a command with some bytes on its standard input."""

    def run_command(*arguments: str, data: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        # Rich asks for the width of a terminal.
        monkeypatch.setenv("COLUMNS", "80")
        code = main(list(arguments))
        out, err = capsysbinary.readouterr()
        return Done(code, out.decode(), err.decode())

    return run_command
