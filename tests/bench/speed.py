"""
How fast we are beside our rivals, and what it costs: each case one server, each client a process of its own, in turn.

`python -m bench.speed --out FILE` writes what was measured, from which `bench.plots` draws. What is not installed is
left out and named. Nothing fails by a number: a target that was not met is printed as such.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import trustme

from bench.clients import Task
from bench.sink import Counts, Sink, distance, sink
from servers.postfix import Postfix
from servers.real import ALICE

HERE = Path(__file__).parent
BOTH, PIPELINING, POSTFIX = "PIPELINING CHUNKING", "PIPELINING", "Postfix"
RIVALS = ("smtplib", "aiosmtplib", "Django", "red-mail", "nodemailer")
FAST = ("smtplib", "aiosmtplib", "nodemailer")
# TCP's handshake, TLS 1.3's, and the greeting.
OPENING = 3
_TOO_LONG = 180
# In place of 100, in a short run.
_FEW = 10


@dataclass(frozen=True)
class Case:
    """
    One comparison.

    Attributes:
        name: What it is called.
        rtt: A round trip, in seconds.
        server: What the sink offers, or Postfix.
        counts: How many messages each client sends.
        task: What else is in its task.
    """

    name: str
    rtt: float
    server: str
    counts: dict[str, int]
    task: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """What is to be: *client* at most or at least so many times the best of *others*."""

    case: str
    client: str
    others: Sequence[str]
    what: Literal["rate", "cpu", "memory", "time"]
    times: float


_LIMITS = {"limit, lockstep": 15, "limit, pipelined": 30, "limit, content-first": 60}
_OURS = {"securesmtp": 60, "securesmtp, send": 60, "securesmtp, off": 15}
_RTT = 0.05
CASES = (
    Case(
        "one connection, CHUNKING",
        _RTT,
        BOTH,
        dict.fromkeys(RIVALS, 15)
        | _OURS
        | _LIMITS
        | {"limit, chunk": 60, "securesmtp, session": 2000, "limit, chunks": 2000},
    ),
    Case(
        "one connection, PIPELINING",
        _RTT,
        PIPELINING,
        dict.fromkeys(FAST, 15) | _OURS | _LIMITS | {"securesmtp, session": 60},
    ),
    Case(
        "one connection, Postfix",
        _RTT,
        POSTFIX,
        dict.fromkeys(FAST, 15) | _OURS | _LIMITS | {"securesmtp, session": 600, "limit, chunks": 600},
    ),
    Case(
        "ten connections, CHUNKING",
        _RTT,
        BOTH,
        dict.fromkeys(FAST, 100)
        | {"securesmtp": 400, "securesmtp, session": 8000, "limit, chunk": 400, "limit, chunks": 8000},
        {"connections": 10},
    ),
    Case(
        "100 recipients, CHUNKING",
        _RTT,
        BOTH,
        {"smtplib": 2, "nodemailer": 6, "securesmtp": 10, "securesmtp, allow": 10, "limit, chunk": 10},
        {"recipients": 100},
    ),
    Case("cold, CHUNKING", _RTT, BOTH, dict.fromkeys((*FAST, "securesmtp", "limit, chunk"), 6), {"cold": True}),
    Case(
        "cold, PIPELINING",
        _RTT,
        PIPELINING,
        dict.fromkeys((*FAST, "securesmtp", "limit, pipelined"), 6),
        {"cold": True},
    ),
    Case("cold, Postfix", 0.0, POSTFIX, dict.fromkeys((*FAST, "securesmtp", "limit, pipelined"), 20), {"cold": True}),
    Case(
        "2 kB, no distance",
        0.0,
        BOTH,
        dict.fromkeys((*RIVALS, "securesmtp", "securesmtp, send", "securesmtp, off", "securesmtp, session"), 1000),
    ),
    Case(
        "2 kB of octets, no distance",
        0.0,
        BOTH,
        dict.fromkeys(
            ("smtplib", "securesmtp", "securesmtp, off", "securesmtp, session", "limit, lockstep", "limit, chunk"), 1000
        ),
        {"message": "octets"},
    ),
    Case("25 MB attached", 0.0, BOTH, dict.fromkeys((*FAST, "Django", "securesmtp"), 1), {"message": "large"}),
    Case("25 MB file", 0.0, BOTH, dict.fromkeys(("securesmtp", "limit, chunk"), 1), {"message": "file"}),
)
THREADED = ("smtplib", "aiosmtplib", "nodemailer")
TARGETS = (
    Target("one connection, CHUNKING", "securesmtp", ["smtplib"], "rate", 3.6),
    Target("one connection, PIPELINING", "securesmtp", ["smtplib"], "rate", 1.9),
    Target("ten connections, CHUNKING", "securesmtp", THREADED, "rate", 3),
    Target("one connection, CHUNKING", "securesmtp, session", ["smtplib"], "rate", 40),
    Target("one connection, CHUNKING", "securesmtp, session", ["limit, chunks"], "rate", 0.8),
    Target("one connection, PIPELINING", "securesmtp, session", ["smtplib"], "rate", 3.8),
    Target("one connection, PIPELINING", "securesmtp, session", ["limit, content-first"], "rate", 0.9),
    Target("ten connections, CHUNKING", "securesmtp, session", THREADED, "rate", 25),
    Target("100 recipients, CHUNKING", "securesmtp, allow", ["smtplib"], "rate", 60),
    Target("100 recipients, CHUNKING", "securesmtp, allow", ["nodemailer"], "rate", 1),
    Target("100 recipients, CHUNKING", "securesmtp", ["smtplib"], "rate", 30),
    Target("cold, CHUNKING", "securesmtp", ["limit, chunk"], "time", 1.05),
    Target("cold, PIPELINING", "securesmtp", ["limit, pipelined"], "time", 1.05),
    Target("cold, Postfix", "securesmtp", ["smtplib"], "rate", 4),
    Target("2 kB of octets, no distance", "securesmtp", ["smtplib"], "cpu", 0.25),
    Target("2 kB of octets, no distance", "securesmtp, session", ["smtplib"], "cpu", 0.15),
    Target("2 kB, no distance", "securesmtp", ["smtplib"], "cpu", 0.7),
    Target("25 MB attached", "securesmtp", ["smtplib"], "cpu", 0.3),
    Target("25 MB attached", "securesmtp", ["smtplib"], "memory", 0.4),
    Target("25 MB file", "securesmtp", ["limit, chunk"], "cpu", 1.3),
)
Found = dict[str, dict[str, float]]


class Bench:
    """What all cases share: the certificates, and where things are."""

    def __init__(self, folder: Path, node_modules: str | None) -> None:
        """Make the CA, and the file that is sent."""
        self.folder, self.ca = folder, trustme.CA()
        self.ca_file, self.certificate = folder / "ca.pem", folder / "certificate.pem"
        self.ca_file.write_bytes(self.ca.cert_pem.bytes())
        self.certificate.write_bytes(self.ca.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
        lines = (b"y" * 76 + b"\r\n") * 320_512
        (folder / "content").write_bytes(b"Subject: a file\r\n\r\n" + lines)
        self._node_modules = node_modules
        self.missing: set[str] = set()

    def run(self, case: Case, rounds: int) -> Found:
        """Return the medians of *case*, by client."""
        found: dict[str, list[dict[str, float]]] = {}
        with self._server(case.server) as (near, counter, login), distance(near, case.rtt) as port:
            for _ in range(rounds):
                for name, count in case.counts.items():
                    task = Task(port, str(self.ca_file), count, login=login, folder=str(self.folder), **case.task)
                    if name in self.missing or (took := self._measure(name, task)) is None:
                        continue
                    if counter is not None:
                        took["flights"] = _flights(task, counter.counted())
                    found.setdefault(name, []).append(took)
        return {name: {what: median(each[what] for each in runs) for what in runs[0]} for name, runs in found.items()}

    def _measure(self, name: str, task: Task) -> dict[str, float] | None:
        command = [sys.executable, "-m", "bench.clients", name, json.dumps(asdict(task))]
        if name == "nodemailer":
            command = ["node", str(HERE / "nodemailer.cjs"), json.dumps(asdict(task))]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, sys.path)),
            "NODE_PATH": self._node_modules or "",
        }
        if name == "nodemailer" and not (self._node_modules and shutil.which("node")):
            self.missing.add(name)
            return None
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TOO_LONG, check=False)
        if "ModuleNotFoundError" in done.stderr:
            self.missing.add(name)
            return None
        if done.returncode:
            raise RuntimeError(done.stderr)
        result: dict[str, float] = json.loads(done.stdout)
        return result

    @contextmanager
    def _server(self, kind: str) -> Iterator[tuple[int, Sink | None, tuple[str, str]]]:
        if kind == POSTFIX:
            directory = Path(tempfile.mkdtemp(dir=self.folder))
            directory.chmod(0o755)
            with Postfix(directory, self.ca) as postfix:
                yield postfix.implicit_port, None, (ALICE.username, ALICE.password)
        else:
            with sink(str(self.certificate), kind) as server:
                yield server.port, server, ("me@example.test", "correct horse")


# Without these a short run is under a minute, and still has the targets.
_LONG = {"red-mail", "Django", "securesmtp, off", "securesmtp, send", "limit, lockstep", "limit, pipelined"}


def _shorter(case: Case) -> Case:
    counts = {name: max(1, count // 8) for name, count in case.counts.items() if name not in _LONG}
    return replace(case, counts=counts, task=case.task | ({"recipients": _FEW} if "recipients" in case.task else {}))


def _flights(task: Task, counts: Counts) -> float:
    # EHLO and AUTH are once for each connection; a cold one is all of it.
    once = 0 if task.cold else 2 * task.connections
    return (counts.flights - once) / counts.messages + (OPENING if task.cold else 0)


def _report(case: Case, found: Found) -> None:
    print(f"\n{case.name} (a round trip of {case.rtt * 1000:g} ms)")
    base = found.get("smtplib", {}).get("seconds")
    for name, took in found.items():
        line = f"  {name:22}{1 / took['seconds']:9.1f} /s {took['seconds'] * 1000:9.2f} ms"
        line += f"{base / took['seconds']:8.2f} x" if base else ""
        line += f"{took['seconds'] / case.rtt:8.2f} RTT" if case.rtt else ""
        line += f"{took['flights']:8.2f} flights" if "flights" in took else ""
        line += f"{took['cpu'] * 1000:9.3f} ms CPU"
        line += f"{took['memory'] / 1e6:8.1f} MB" if "memory" in took else ""
        print(line)


def _judge(target: Target, found: Found) -> dict[str, Any] | None:
    ours, theirs = found.get(target.client), [found[name] for name in target.others if name in found]
    if ours is None or not theirs:
        return None
    what = "seconds" if target.what in {"rate", "time"} else target.what
    best = min(each[what] for each in theirs)
    ratio = best / ours[what] if target.what == "rate" else ours[what] / best
    met = ratio >= target.times if target.what == "rate" else ratio <= target.times
    return asdict(target) | {"ratio": ratio, "met": met}


def main() -> None:
    """Measure every case, print it, and judge it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: one round, fewer messages")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name has this")
    parser.add_argument("--node-modules", help="the folder where npm put nodemailer")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    why = Postfix.missing()
    cases, judged = [], []
    with tempfile.TemporaryDirectory(prefix="securesmtp-bench-") as folder:
        # Postfix's own users look into it.
        Path(folder).chmod(0o755)
        bench = Bench(Path(folder), options.node_modules)
        for case in CASES:
            if options.only not in case.name or (case.server == POSTFIX and why):
                continue
            if options.quick:
                case = _shorter(case)  # noqa: PLW2901 -- the same
            found = bench.run(case, 1 if options.quick else options.rounds)
            _report(case, found)
            cases.append({"name": case.name, "rtt": case.rtt, "clients": found})
            if case.task.get("recipients") != _FEW:
                judged += [each for target in TARGETS if target.case == case.name and (each := _judge(target, found))]
    print()
    for each in judged:
        sign = ">=" if each["what"] == "rate" else "<="
        print(
            f"{'met ' if each['met'] else 'NOT '} {each['case']}: {each['client']}, {each['what']}"
            f" {each['ratio']:.2f} x {' / '.join(each['others'])} (target {sign} {each['times']:g})"
        )
    if bench.missing or why:
        print("left out:", ", ".join([*sorted(bench.missing), *([f"Postfix ({why})"] if why else [])]))
    if options.out:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        options.out.write_text(json.dumps({"machine": machine, "cases": cases, "targets": judged}, indent=1) + "\n")


if __name__ == "__main__":
    main()
