"""Fixtures for the tests of the commands."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from cli.checks import Check, Resolve
from scripted import Mode, ScriptedServer
from securesmtp._cli.check.probe import probe
from securesmtp._cli.check.result import CheckResult, Request


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Resolve every name to 127.0.0.1, or to the addresses that the test sets, with their ports if it sets any."""
    look_up, found = socket.getaddrinfo, list[tuple[str, int | None]]([("127.0.0.1", None)])

    def find(host: str, port: int, *rest: Any, **more: Any) -> Any:
        ports = {address: here for address, here in found if here}
        if more.get("flags", 0) & socket.AI_NUMERICHOST:
            return look_up(host, ports.get(host, port), *rest, **more)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [each for address, here in found for each in look_up(address, here or port, *rest, **more)]

    def resolve_to(*addresses: str | tuple[str, int]) -> None:
        found[:] = [(each, None) if isinstance(each, str) else each for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", find)
    return resolve_to


@pytest.fixture
def check(ca_file: Path, resolve: Resolve) -> Check:
    """Probe a server."""

    def call(server: ScriptedServer, mode: Mode = "implicit", host: str = "localhost", **request: Any) -> CheckResult:
        request = {"ca_file": ca_file, "timeout": 5, **request}
        return probe(Request(host=host, port=server.port, tls=mode, **request))

    return call
