"""
A network of this process's own, with a delay: TCP's slow start, its window and its acknowledgements are the kernel's.

`enter` runs the program again in a network namespace, where `delay` makes a device (TUN) whose packets a process holds
back for half a round trip. It gives each packet back with its two addresses exchanged, so the packet arrives on this
machine: a program that connects to `FAR` reaches a server that listens on `NEAR`. `tc netem` would do the same, and is
not in every kernel. The proxy of `bench.sink` needs no rights, but has a window that is open from the beginning.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import child

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# Addresses for documentation (RFC 5737): they are nobody's, and nothing leaves the namespace.
NEAR, FAR = "192.0.2.1", "192.0.2.2"
_INSIDE = "SECURESMTP_BENCH_NETWORK"
_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# Linux's if_tun.h.
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_MTU = 1500


def missing() -> str:
    """Return why this machine cannot make such a network, or an empty string."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened; run it as root"
    tried = subprocess.run(["unshare", "--net", "ip", "link"], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


def is_inside() -> bool:
    """Return whether this process has a network of its own."""
    return _INSIDE in os.environ


def enter(module: str) -> None:
    """Run `python -m MODULE` with the same arguments in a new network namespace, in place of this process; once."""
    if is_inside():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    # The child processes have the packages that this one has.
    environment = os.environ | {_INSIDE: "1", "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    os.execvpe("unshare", ["unshare", "--net", sys.executable, "-m", module, *sys.argv[1:]], environment)  # noqa: S606 -- no shell is meant


@contextmanager
def delay(rtt: float) -> Iterator[int]:
    """Make the device, with a round trip of *rtt* seconds, and give the id of the process that delays; end it."""
    # CUBIC, as on most machines; where it is missing, the kernel's own choice.
    with suppress(OSError):
        _CONTROL.write_text("cubic", "ascii")
    with child(_hold_back, rtt) as (process, _pipe, _name):
        yield process


def congestion_control() -> str:
    """Return the name of TCP's congestion control here."""
    return _CONTROL.read_text("ascii").strip()


def _hold_back(rtt: float, pipe: Connection) -> None:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"delay", _IFF_TUN | _IFF_NO_PI))
    # A full queue would lose packets.
    for command in (
        f"link set delay mtu {_MTU} txqueuelen 100000",
        f"address add {NEAR}/24 dev delay",
        "link set delay up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    pipe.send("delay")
    held: deque[tuple[float, bytes]] = deque()
    while True:
        # Not `poll`, which waits for whole milliseconds.
        select.select([device], [], [], max(0.0, held[0][0] - time.monotonic()) if held else None)
        with suppress(BlockingIOError):
            due = time.monotonic() + rtt / 2
            # Not for ever: what is due goes first.
            for _ in range(64):
                packet = os.read(device, _MTU)
                # IPv4, and nothing else: the kernel looks for IPv6 routers.
                if packet[0] >> 4 == 4:
                    held.append((due, packet[:12] + packet[16:20] + packet[12:16] + packet[20:]))
        now = time.monotonic()
        while held and held[0][0] <= now:
            os.write(device, held.popleft()[1])
