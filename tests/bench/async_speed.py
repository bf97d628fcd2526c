"""
AsyncSecureMailer beside aiosmtplib: messages a second and CPU, by number of tasks, round trip and size of message.

`python -m bench.async_speed --out FILE` writes what was measured, from which `bench.async_plots` draws; with `--only`,
other cases in the file are kept. The clients take turns, each in a process of its own, and ratios are those of
`bench.speed`. Nothing fails by a number: a target that was not met is printed as such.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.async_clients import CLIENTS
from bench.clients import Task
from bench.machine import Noise, Ratio, description, watched
from bench.turns import Bench, Turn, ratio

CONNECTIONS = 10
RIVALS = [name for name in CLIENTS if name.startswith("aiosmtplib")]
OURS = [name for name in CLIENTS if name not in RIVALS]
# Seconds of CPU that a message takes, about: they decide how many messages a turn has.
_COST = {"small": {"aiosmtplib": 0.0008, "securesmtp": 0.0005}, "medium": {"aiosmtplib": 0.1, "securesmtp": 0.02}}
_TURN = 2.0


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


def ratios(turns: Sequence[Turn], client: str) -> dict[str, Ratio]:
    """Return how often *client* sends for one of the best rival, and its part of the CPU."""
    return {"rate": ratio(turns, client, RIVALS, "seconds").inverse(), "cpu": ratio(turns, client, RIVALS, "cpu")}


def report(case: Case, turns: Sequence[Turn], noise: Noise) -> dict[str, Any]:
    """Print *turns*, and return what is written down."""
    print(f"\n{case}; {noise}")
    clients: dict[str, Any] = {}
    for client in CLIENTS:
        if client not in turns[0]:
            continue
        middle: dict[str, Any] = {what: median(turn[client][what] for turn in turns) for what in turns[0][client]}
        line = f"  {client:28}{1 / middle['seconds']:9.1f} /s{middle['cpu'] * 1000:9.3f} ms CPU"
        line += f"{middle['threads']:4.0f} threads"
        if all(rival in turns[0] for rival in RIVALS) and client not in RIVALS:
            for what, measured in ratios(turns, client).items():
                middle[what] = [measured.value, measured.least, measured.most]
                line += f"   {what} x {measured}"
        print(line, flush=True)
        clients[client] = middle
    written = {"name": str(case), "connections": case.connections, "noise": asdict(noise), "clients": clients}
    return asdict(case) | written


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
        bench = Bench(Path(folder), None)
        for case in CASES:
            if chosen.only not in str(case):
                continue
            noise: list[Noise] = []
            tasks = {
                client: Task(0, "", case.count(client), case.connections, message=case.message, tasks=case.tasks)
                for client in clients
            }
            with watched(noise):
                turns = bench.run("PIPELINING CHUNKING", case.rtt, tasks, chosen.rounds)
            cases.append(report(case, turns, noise[0]))
    print("\n? : the rounds differ by more than a fifth: the machine did something else")
    judge(cases)
    if chosen.out:
        kept = json.loads(chosen.out.read_text("utf-8"))["cases"] if chosen.only and chosen.out.exists() else []
        again = {case["name"] for case in cases}
        cases += [case for case in kept if case["name"] not in again]
        chosen.out.write_text(json.dumps({"machine": description(), "cases": cases}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
