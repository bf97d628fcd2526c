"""
Two workers on two machines are given the same messages, and one is cut off in the middle: `python -m kills.machines`.

How it works: each round starts both workers. The first one stops at the step that the round aims at; there its cable is
pulled out, and it goes on. The cable comes back before its deadline, after that, or when the worker was killed. The
mail server and the ledger are on a third machine, which the second worker reaches all the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trustme

from kills.accounts import Arrivals, Journal, Row, compare
from kills.killer import AGAIN, MOST, NEW, final_states
from kills.network import Machine, enter, machine
from kills.servers import MortalPostfix, OpenPostgreSQL, OpenRedis
from kills.steps import MOMENTS, Aim
from kills.worker import Orders
from kills.workers import Nursery, Worker, nursery

# Of a message, and of a claim, in seconds.
DEADLINE, LONGEST_SEND = 4.0, 6.0
WAYS = ("back in time", "back too late", "killed")
# For how long the cable is out, in seconds.
OUT = {"back in time": (0.2, 1.0), "back too late": (LONGEST_SEND, LONGEST_SEND + 0.5), "killed": (0.5, 1.0)}
LAST_ROUNDS = 3
_ENDS_WITHIN = 120.0


@dataclass
class Cutter:
    """
    One mailing of two workers.

    Attributes:
        kind: The ledger's kind.
        where: Its URL.
        postfix: The mail server.
        cable: That of the first machine.
        nurseries: Where the workers come from, on both machines.
        chance: Decides all that is left open.
    """

    kind: str
    where: str
    postfix: MortalPostfix
    cable: Machine
    nurseries: tuple[Nursery, Nursery]
    chance: random.Random

    def __post_init__(self) -> None:
        self.journal, self.arrivals, self.cuts = Journal(), Arrivals(), Counter[str]()
        self._keys: list[str] = []

    def run(self, cuts: int) -> Row:
        """Cut so often, send the rest, and compare."""
        cases = list(itertools.product(WAYS, MOMENTS, MOST))
        self.chance.shuffle(cases)
        for way, moment, step in itertools.cycle(cases):
            self._keys += [f"cut{self.kind}-{len(self._keys) + more}" for more in range(NEW)]
            keys = self._keys[-NEW - AGAIN :]
            self._round(keys, Aim(moment, step, self.chance.randint(1, MOST[step])), way)
            if self.cuts.total() >= cuts:
                break
        for _ in range(LAST_ROUNDS):
            with self.nurseries[1].worker(self._orders(self._keys, None, 300.0)) as worker:
                self._note(list(worker.lines()))
        self.arrivals.take(self.postfix.deliver_all())
        states = final_states(self.kind, self.where)
        return compare("network", self.kind, self.cuts, self._keys, states, self.journal, self.arrivals)

    def _orders(self, keys: list[str], aim: Aim | None, deadline: float) -> Orders:
        mailer = {
            **self.postfix.mailer(),
            "max_connections": self.chance.choice([1, 2, 4]),
            "pipelining": self.chance.choice(["off", "message", "session"]),
            "max_connect_failures": 1,
        }
        options = {"longest_send": max(LONGEST_SEND, deadline)}
        return Orders(keys, self.kind, self.where, mailer, aim, options, deadline)

    def _round(self, keys: list[str], aim: Aim, way: str) -> None:
        first = self._orders(keys, aim, DEADLINE)
        # In another order, so that each of them is the first to claim something.
        second = self._orders(self.chance.sample(keys, len(keys)), None, DEADLINE)
        with ExitStack() as stack:
            cut_off = stack.enter_context(self.nurseries[0].worker(first))
            other = stack.enter_context(self.nurseries[1].worker(second))
            said: list[dict[str, Any]] = []
            reader = threading.Thread(target=lambda: said.extend(other.lines()))
            reader.start()
            lines = self._follow(cut_off, aim, way)
            reader.join(_ENDS_WITHIN)
            assert not reader.is_alive(), "a worker hangs"
        self._note([*lines, *said])
        self.arrivals.take(self.postfix.delivered_now())

    def _follow(self, worker: Worker, aim: Aim, way: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        # If it hangs for ever, it ends, and its claims are in doubt.
        watchdog = threading.Timer(_ENDS_WITHIN, worker.kill)
        watchdog.start()
        try:
            for line in worker.lines():
                lines.append(line)
                if line["what"] == "reached":
                    self._cut(worker, aim, way)
            assert watchdog.is_alive(), "a worker hangs"
        finally:
            watchdog.cancel()
        return lines

    def _cut(self, worker: Worker, aim: Aim, way: str) -> None:
        self.cable.cut()
        try:
            if aim.moment != "in":
                worker.go_on()
            time.sleep(self.chance.uniform(*OUT[way]))
            if way == "killed":
                worker.kill()
        finally:
            self.cable.plug_in()
        self.cuts[way] += 1

    def _note(self, lines: list[dict[str, Any]]) -> None:
        for line in sorted(lines, key=lambda line: line["at"]):
            self.journal.note(line)


def run(kind: str, cuts: int, seed: int) -> Row:
    """Cut so often, with a mail server and a ledger of its own; in a network namespace (`enter`)."""
    with ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="securesmtp-kills-")))

        database = stack.enter_context({"postgresql": OpenPostgreSQL, "redis": OpenRedis}[kind](folder()))
        postfix = stack.enter_context(MortalPostfix(folder(), trustme.CA()))
        machines = (stack.enter_context(machine(1)), stack.enter_context(machine(2)))
        workers = [stack.enter_context(nursery(*each.command)) for each in machines]
        chance = random.Random(seed)
        return Cutter(kind, database.url, postfix, machines[0], (workers[0], workers[1]), chance).run(cuts)


def main() -> None:
    """Cut over each ledger, and write a row of each as JSON."""
    parser = argparse.ArgumentParser(prog="kills.machines")
    parser.add_argument("kinds", nargs="*", default=["postgresql", "redis"])
    parser.add_argument("--cuts", type=int, default=45)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"), help="a file for the rows, as JSON")
    options = parser.parse_args()
    enter("kills.machines")
    # So that the servers end as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows = [run(kind, options.cuts, options.seed) for kind in options.kinds]
    options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    sys.exit(any(row.lost or row.doubled or row.wrong for row in rows))


if __name__ == "__main__":
    main()
