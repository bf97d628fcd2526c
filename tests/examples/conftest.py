"""Set up the environment that the examples read."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme

from conftest import Serve
from examples.worlds import PASSWORD, WRONG, Enter, World
from scripted import Script, ScriptedServer

AsPrinted = Callable[[Script], ScriptedServer]


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
        # Those of an earlier world, and of whoever runs the tests.
        for variable in [name for name in os.environ if name.startswith("SMTP_")]:
            monkeypatch.delenv(variable)
        for variable, value in world.environment(server.port, str(ca_file)).items():
            monkeypatch.setenv(variable, value)
        return server

    yield start
    assert not any(password in caplog.text for password in (PASSWORD, WRONG))


@pytest.fixture
def as_printed(serve: Serve, ca: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsPrinted:
    """Start servers at smtp.example.com, which pages name, with the certificate of a "public" CA."""
    look_up = socket.getaddrinfo

    def start(script: Script) -> ScriptedServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("smtp.example.com").configure_cert(context)
        server = serve(script, tls=context)

        def find(host: str, port: int, *more: Any, **options: Any) -> Any:
            where = ("127.0.0.1", server.port) if host == "smtp.example.com" else (host, port)
            return look_up(*where, *more, **options)

        monkeypatch.setattr(socket, "getaddrinfo", find)
        monkeypatch.setattr(certifi, "where", lambda: str(ca_file))
        for variable, value in {"HOST": "smtp.example.com", "USERNAME": "me", "PASSWORD": "secret"}.items():
            monkeypatch.setenv(f"SMTP_{variable}", value)
        return server

    return start
