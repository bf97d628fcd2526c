"""
Three machines in one: each is a network namespace, and two of them have a cable to the third, which has the servers.

How it works: this process and its servers move into a namespace of their own. A worker's machine is the namespace of a
process that does nothing, joined by a pair of virtual devices. It has no loopback device, so that 127.0.0.1 is routed
through the cable and reaches the servers where they listen anyway.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_INSIDE = "SECURESMTP_KILLS_NETWORK"
SERVERS = "127.0.0.1"


def missing() -> str:
    """Return why this machine cannot make namespaces, or an empty string."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    command = "ip link add cable type veth peer name plug"
    tried = subprocess.run(["unshare", "--net", *command.split()], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


def enter(module: str) -> None:
    """Run `python -m MODULE` with the same arguments in a new network namespace, in place of this process; once."""
    if _INSIDE in os.environ:
        _run("ip link set lo up")
        _allow_loopback_addresses()
        return
    environment = os.environ | {_INSIDE: "1", "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    os.execvpe("unshare", ["unshare", "--net", sys.executable, "-m", module, *sys.argv[1:]], environment)  # noqa: S606 -- no shell is meant


class Machine:
    """
    A worker's machine.

    Attributes:
        command: What runs a program there.
    """

    def __init__(self, number: int, process: int) -> None:
        """Join the namespace of this process by a cable."""
        self._cable, plug = f"cable{number}", f"plug{number}"
        # Addresses for documentation (RFC 5737), four for each cable.
        here, there = f"192.0.2.{4 * number + 1}", f"192.0.2.{4 * number + 2}"
        self.command = ("nsenter", f"--net=/proc/{process}/ns/net")
        _run(f"ip link add {self._cable} type veth peer name {plug}")
        _run(f"ip link set {plug} netns {process}")
        _run(f"ip address add {here}/30 dev {self._cable}")
        self.plug_in()
        _run(f"ip address add {there}/30 dev {plug}", *self.command)
        _run(f"ip link set {plug} up", *self.command)
        _allow_loopback_addresses(*self.command)
        _run(f"ip route add {SERVERS} via {here} src {there}", *self.command)

    def cut(self) -> None:
        """Pull the cable out, at the servers' end."""
        _run(f"ip link set {self._cable} down")

    def plug_in(self) -> None:
        """Put the cable in again."""
        _run(f"ip link set {self._cable} up")


@contextmanager
def machine(number: int) -> Iterator[Machine]:
    """Make a machine; its namespace ends with the process that has it."""
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as process:
        try:
            # Its namespace is another than ours as soon as `unshare` has become `sleep`.
            while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
                os.sched_yield()
            yield Machine(number, process.pid)
        finally:
            process.kill()


def _allow_loopback_addresses(*inside: str) -> None:
    _run("sysctl -qw net.ipv4.conf.all.route_localnet=1", *inside)


def _run(command: str, *inside: str) -> None:
    subprocess.run([*inside, *command.split()], check=True)
