"""
How fast we are beside our rivals, and what it costs: each case one server, each client a process of its own, in turn.

`python -m bench.speed --out FILE` writes what was measured, from which `bench.plots` draws. What is not installed is
left out and named. Nothing fails by a number: a target that was not met is printed as such. A ratio is that of the best
rounds, because what else the machine does makes a round only worse, with the least and the most of all rounds; `?` is a
ratio whose rounds differ by more than a fifth. How busy the machine was with other things is printed for each case.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.cases import CASES, POSTFIX, TARGETS, Case, Target
from bench.clients import Task
from bench.machine import Noise, description, watched
from bench.turns import Bench, Turn, ratio
from servers.postfix import Postfix

Found = dict[str, dict[str, float]]
# In place of 100 recipients, in a short run.
_FEW = 10
# Without these a short run is under a minute, and still has the targets.
_LONG = {"red-mail", "Django", "securesmtp, off", "securesmtp, send", "limit, lockstep", "limit, pipelined"}


def _shorter(case: Case) -> Case:
    counts = {name: max(1, count // 8) for name, count in case.counts.items() if name not in _LONG}
    return replace(case, counts=counts, task=case.task | ({"recipients": _FEW} if "recipients" in case.task else {}))


def _report(case: Case, found: Found, noise: Noise) -> None:
    print(f"\n{case.name} (a round trip of {case.rtt * 1000:g} ms); {noise}")
    base = found.get("smtplib", {}).get("seconds")
    for name, took in found.items():
        line = f"  {name:22}{1 / took['seconds']:9.1f} /s {took['seconds'] * 1000:9.2f} ms"
        line += f"{base / took['seconds']:8.2f} x" if base else ""
        line += f"{took['seconds'] / case.rtt:8.2f} RTT" if case.rtt else ""
        line += f"{took['flights']:8.2f} flights" if "flights" in took else ""
        line += f"{took['cpu'] * 1000:9.3f} ms CPU"
        line += f"{took['memory'] / 1e6:8.1f} MB" if "memory" in took else ""
        print(line)


def _judge(target: Target, turns: Sequence[Turn]) -> dict[str, Any] | None:
    others = [name for name in target.others if name in turns[0]]
    if target.client not in turns[0] or not others:
        return None
    measured = ratio(turns, target.client, others, "seconds" if target.what in {"rate", "time"} else target.what)
    if target.what == "rate":
        measured = measured.inverse()
    met = measured.value >= target.times if target.what == "rate" else measured.value <= target.times
    spread = {"ratio": measured.value, "least": measured.least, "most": measured.most}
    return asdict(target) | spread | {"shown": str(measured), "met": met}


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
            tasks = {name: Task(0, "", count, **case.task) for name, count in case.counts.items()}
            noise: list[Noise] = []
            with watched(noise):
                turns = bench.run(case.server, case.rtt, tasks, 1 if options.quick else options.rounds)
            found = {
                name: {what: median(turn[name][what] for turn in turns) for what in took}
                for name, took in turns[0].items()
            }
            _report(case, found, noise[0])
            cases.append({"name": case.name, "rtt": case.rtt, "noise": asdict(noise[0]), "clients": found})
            if case.task.get("recipients") != _FEW:
                judged += [each for target in TARGETS if target.case == case.name and (each := _judge(target, turns))]
    print()
    for each in judged:
        sign = ">=" if each["what"] == "rate" else "<="
        print(
            f"{'met ' if each['met'] else 'NOT '} {each['case']}: {each['client']}, {each['what']}"
            f" {each['shown']} x {' / '.join(each['others'])} (target {sign} {each['times']:g})"
        )
    if bench.missing or why:
        print("left out:", ", ".join([*sorted(bench.missing), *([f"Postfix ({why})"] if why else [])]))
    if options.out:
        written = {"machine": description(), "cases": cases, "targets": judged}
        options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
