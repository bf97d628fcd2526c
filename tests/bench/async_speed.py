"""
AsyncSecureMailer beside aiosmtplib: messages a second and CPU, by number of tasks, round trip and size of message.

`python -m bench.async_speed --out FILE` writes what was measured, from which `bench.async_plots` draws; with `--only`,
other cases in the file are kept. The clients take turns, each in a process of its own, and a ratio is made of one turn.
So what else the machine does meets both; how busy it was with that is printed. Nothing fails by a number: a target that
was not met is printed as such.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import trustme

from bench.async_clients import CLIENTS
from bench.clients import Task
from bench.sink import distance, sink

CONNECTIONS = 10
RIVALS = [name for name in CLIENTS if name.startswith("aiosmtplib")]
OURS = [name for name in CLIENTS if name not in RIVALS]
# Seconds of CPU that a message takes, about: they decide how many messages a turn has.
_COST = {"small": {"aiosmtplib": 0.0008, "securesmtp": 0.0005}, "medium": {"aiosmtplib": 0.1, "securesmtp": 0.02}}
_TURN = 2.0
_TOO_LONG = 600
# The least and the most of a ratio differ by more than this part of it on a machine that does something else.
_NOISY = 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """
    One comparison.

    Attributes:
        tasks: How many tasks send; up to ten, each has a connection.
        rtt: A round trip, in seconds.
        message: `small` (2 kB) or `medium` (1 MB).
    """

    tasks: int
    rtt: float
    message: str

    @property
    def connections(self) -> int:
        """How many connections each client has."""
        return min(self.tasks, CONNECTIONS)

    def count(self, client: str) -> int:
        """Return how many messages a turn of *client* has: each task has the same number of them, at least one."""
        trips = 4 if client in RIVALS else 0.1 if client.endswith("session") else 1
        seconds = max(trips * self.rtt / self.connections, _COST[self.message][client.partition(",")[0]])
        return self.tasks * max(1, round(_TURN / seconds / self.tasks))

    def __str__(self) -> str:
        """Return what is printed."""
        size = {"small": "2 kB", "medium": "1 MB"}[self.message]
        return f"{size}, {self.tasks} tasks, {self.connections} connections, RTT {self.rtt * 1000:g} ms"


CASES = [
    Case(tasks, rtt, message)
    for message in ("small", "medium")
    for rtt in (0.0, 0.02, 0.05)
    for tasks in (1, 10, 100, 1000)
]
Turn = dict[str, dict[str, float]]


class Bench:
    """What all cases share."""

    def __init__(self, folder: Path) -> None:
        """Make the certificates."""
        ca = trustme.CA()
        self._ca_file, self._certificate = folder / "ca.pem", folder / "certificate.pem"
        self._ca_file.write_bytes(ca.cert_pem.bytes())
        self._certificate.write_bytes(ca.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())

    def run(self, case: Case, clients: Sequence[str], rounds: int) -> list[Turn]:
        """Return what each client took in each round; every second round has them in the opposite order."""
        with sink(str(self._certificate), "PIPELINING CHUNKING") as server, distance(server.port, case.rtt) as port:
            return [
                {client: self._measure(client, case, port) for client in clients[:: -1 if number % 2 else 1]}
                for number in range(rounds)
            ]

    def _measure(self, client: str, case: Case, port: int) -> dict[str, float]:
        task = Task(port, str(self._ca_file), case.count(client), case.connections, message=case.message)
        command = [sys.executable, "-m", "bench.async_clients", client, json.dumps(asdict(task)), str(case.tasks)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TOO_LONG, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        took: dict[str, float] = json.loads(done.stdout)
        return took


@contextmanager
def others_load(load: list[float]) -> Iterator[None]:
    """Append to *load* how many cores other programs kept busy meanwhile (Linux)."""
    began, busy, own = time.monotonic(), _busy(), _own()
    yield
    load.append(max(0.0, (_busy() - busy) - (_own() - own)) / (time.monotonic() - began))


def _busy() -> float:
    words = Path("/proc/stat").read_text("ascii").splitlines()[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def _own() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def ratios(turns: Sequence[Turn], client: str) -> dict[str, list[float]]:
    """Return how often *client* sends for one of the best rival, and its part of the CPU: middle, least, most."""
    rates = [min(turn[rival]["seconds"] for rival in RIVALS) / turn[client]["seconds"] for turn in turns]
    cpus = [turn[client]["cpu"] / min(turn[rival]["cpu"] for rival in RIVALS) for turn in turns]
    return {"rate": [median(rates), min(rates), max(rates)], "cpu": [median(cpus), min(cpus), max(cpus)]}


def report(case: Case, turns: Sequence[Turn], load: float) -> dict[str, Any]:
    """Print *turns*, and return what is written down."""
    print(f"\n{case}; other programs had {load:.2f} cores")
    clients: dict[str, Any] = {}
    for client in CLIENTS:
        if client not in turns[0]:
            continue
        middle: dict[str, Any] = {what: median(turn[client][what] for turn in turns) for what in turns[0][client]}
        line = f"  {client:28}{1 / middle['seconds']:9.1f} /s{middle['cpu'] * 1000:9.3f} ms CPU"
        line += f"{middle['threads']:4.0f} threads"
        if all(rival in turns[0] for rival in RIVALS) and client not in RIVALS:
            middle |= ratios(turns, client)
            for what, (value, least, most) in ratios(turns, client).items():
                line += f"   {what} {value:5.2f} x ({least:.2f} to {most:.2f}){'?' * (most - least > _NOISY * value)}"
        print(line, flush=True)
        clients[client] = middle
    return {"name": str(case)} | asdict(case) | {"connections": case.connections, "load": load, "clients": clients}


def judge(cases: Sequence[dict[str, Any]]) -> None:
    """Print the worst case of each client beside the targets."""
    for client in OURS:
        found = [(case, case["clients"][client]) for case in cases if "rate" in case["clients"].get(client, {})]
        far = [took["rate"][0] for case, took in found if case["rtt"]]
        near = [took["cpu"][0] for case, took in found if not case["rtt"]]
        if far:
            print(f"{client}: from RTT 20 ms at least {min(far):.2f} x the best of aiosmtplib (target >= 5)")
        if near:
            print(f"{client}: at RTT 0 at most {max(near):.2f} x its CPU (target <= 0.8)")


def main() -> None:
    """Measure the cases, print them, and judge them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose description has this")
    parser.add_argument("--clients", default="", help="clients whose name has this, and the rivals")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    clients = [name for name in CLIENTS if chosen.clients in name or name in RIVALS]
    cases = []
    with tempfile.TemporaryDirectory(prefix="securesmtp-bench-") as folder:
        bench = Bench(Path(folder))
        for case in CASES:
            if chosen.only not in str(case):
                continue
            load: list[float] = []
            with others_load(load):
                turns = bench.run(case, clients, chosen.rounds)
            cases.append(report(case, turns, load[0]))
    print("\n? : the rounds differ by more than a fifth: the machine did something else")
    judge(cases)
    if chosen.out:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        kept = json.loads(chosen.out.read_text("utf-8"))["cases"] if chosen.only and chosen.out.exists() else []
        again = {case["name"] for case in cases}
        cases += [case for case in kept if case["name"] not in again]
        chosen.out.write_text(json.dumps({"machine": machine, "cases": cases}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
