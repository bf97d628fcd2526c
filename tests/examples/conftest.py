"""Set up the environment that the examples read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from conftest import Serve
from examples.worlds import PASSWORD, WRONG, Enter, World
from scripted import Script, ScriptedServer


@pytest.fixture
def enter(
    serve: Serve,
    ca_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Enter]:
    """Start the server of a world, and configure the examples for it; no log line has a password."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    trustme.CA().cert_pem.write_to_path("other.pem")

    def start(world: World, script: Script | None = None, **options: object) -> ScriptedServer:
        server = serve(script or world.script(), **options)
        for variable, value in world.environment(server.port, str(ca_file)).items():
            monkeypatch.setenv(variable, value)
        return server

    yield start
    assert not any(password in caplog.text for password in (PASSWORD, WRONG))
