"""Real proxies: microsocks and Dante (SOCKS 5), tinyproxy (HTTP), each on a loopback port until it is closed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers.real import ATTEMPTS, INSTALL, READY_WITHIN, SEARCH_PATH, servers_cache, stop

LOGIN = ("me", "hunter2secret")


@dataclass(frozen=True, slots=True)
class Kind:
    """
    A program.

    Attributes:
        scheme: What it speaks.
        program: Where it is in the folder of tests/servers/install.
        has_login: Whether it checks a login of its own; Dante's are those of the system.
        command: Returns its arguments, and writes its configuration into a folder: it lets through to one port.
    """

    scheme: str
    program: str
    has_login: bool
    command: Callable[[Path, int, int], list[str]]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that runs."""

    kind: Kind
    port: int
    log: Path

    def url(self, login: tuple[str, str] | None = LOGIN) -> str:
        """Return what a mailer gets as *proxy*."""
        user = f"{login[0]}:{login[1]}@" if login and self.kind.has_login else ""
        return f"{self.kind.scheme}://{user}127.0.0.1:{self.port}"


def _microsocks(_: Path, port: int, __: int) -> list[str]:
    return ["-i", "127.0.0.1", "-p", str(port), "-u", LOGIN[0], "-P", LOGIN[1]]


def _tinyproxy(folder: Path, port: int, allowed: int) -> list[str]:
    settings = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "MaxClients 20", "Allow 127.0.0.1"]
    (folder / "tinyproxy.conf").write_text(
        "\n".join([*settings, f"ConnectPort {allowed}", f"BasicAuth {LOGIN[0]} {LOGIN[1]}", ""])
    )
    return ["-d", "-c", str(folder / "tinyproxy.conf")]


def _dante(folder: Path, port: int, allowed: int) -> list[str]:
    (folder / "danted.conf").write_text(
        f"logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: lo\n"
        "socksmethod: none\nclientmethod: none\nuser.privileged: root\nuser.unprivileged: nobody\n"
        "client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n"
        f"socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 port = {allowed} }}\n"
    )
    return ["-f", str(folder / "danted.conf"), "-p", str(folder / "danted.pid")]


KINDS = {
    "microsocks": Kind("socks5h", "usr/bin/microsocks", has_login=True, command=_microsocks),
    "dante": Kind("socks5h", "usr/sbin/danted", has_login=False, command=_dante),
    "tinyproxy": Kind("http", "usr/bin/tinyproxy", has_login=True, command=_tinyproxy),
}


@contextmanager
def running_proxy(name: str, folder: Path, allowed: int) -> Iterator[Proxy]:
    """Run a proxy that lets through to the port *allowed*; microsocks to each."""
    kind, log = KINDS[name], folder / "proxy.log"
    program = servers_cache() / "proxies" / kind.program
    if not program.exists():
        (pytest.fail if os.environ.get("SECURESMTP_REQUIRE_SERVERS") == "1" else pytest.skip)(
            f"{name} is missing: {INSTALL}"
        )
    for _ in range(ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with ExitStack() as stack, log.open("ab") as console:
            process = subprocess.Popen(
                [str(program), *kind.command(folder, port, allowed)],
                env={"PATH": SEARCH_PATH},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
            stack.callback(stop, process)
            if _is_ready(process, port):
                yield Proxy(kind, port, log)
                return
    raise RuntimeError(f"{name} does not start:\n{log.read_text(errors='replace')}")


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + READY_WITHIN
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        time.sleep(0.02)
    return False
