"""
A mailing whose worker, or a server that it needs, is killed at a step of a message, again and again.

How it works: each round starts a worker with some new messages and those that earlier rounds have left. The worker
stops at the step that the round aims at; the killer kills its victim there, and lets the worker go on if that is alive.
At last, a worker that nobody kills sends the rest.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from kills.accounts import Arrivals, Journal, Row, compare
from kills.plainly import Notes
from kills.servers import MortalPostfix, Victim
from kills.steps import MOMENTS, STEPS, Aim
from kills.worker import Orders, open_ledger
from kills.workers import Nursery, Worker
from securesmtp.ledger import State

# New messages in a round, and how many earlier ones it tries again.
NEW, AGAIN = 8, 12
# At which of a worker's visits of a step it is struck, at most.
MOST = {"claim": 3, "connect": 2, "content": 8, "reply": 8, "finish": 3}
# Seconds after the beginning of a step within which it is killed "in" it.
WITHIN = {"prepare": 0.003, "claim": 0.003, "connect": 0.02, "content": 0.005, "reply": 0.005, "finish": 0.003}
# A server that has just come back may refuse something for now.
LAST_ROUNDS = 3
# How many workers a kill may take until one reaches its step.
ATTEMPTS = 5


@dataclass
class Killer:
    """
    One mailing.

    Attributes:
        victim: "worker", or what `target` is.
        kind: The ledger's kind.
        where: Its file or URL.
        postfix: The mail server.
        target: What is killed; None for the worker.
        chance: Decides all that is left open.
        nursery: Where workers come from.
        prefix: What the keys of this mailing begin with.
        options: More arguments of the ledger.
        aims: Where each round strikes; by default, at every step in turn.
    """

    victim: str
    kind: str
    where: str
    postfix: MortalPostfix
    target: Victim | None
    chance: random.Random
    nursery: Nursery
    prefix: str
    options: dict[str, Any] = field(default_factory=dict)
    aims: Iterator[Aim] | None = None

    def __post_init__(self) -> None:
        self.journal, self.arrivals, self.kills = Journal(), Arrivals(), Counter[str]()
        self._keys: list[str] = []

    def run(self, kills: int) -> Row:
        """Kill so often, send the rest, and compare."""
        self.arrivals.take(self.postfix.delivered_now())
        aims = self.aims or self._aims()
        for number in range(kills):
            aim = next(aims)
            for _ in range(ATTEMPTS):
                self._keys += [f"{self.prefix}-{len(self._keys) + more}" for more in range(NEW)]
                self._round(self._keys[-NEW - AGAIN :], aim)
                if self.kills.total() > number:
                    break
                # A worker with large batches is at some steps only once.
                aim = aim._replace(nth=1)
            else:
                raise AssertionError(f"no worker was {aim.moment} {aim.step}")
        for _ in range(LAST_ROUNDS):
            self._round(self._keys, None)
            if {State.ACCEPTED, State.UNKNOWN}.issuperset(final_states(self.kind, self.where).values()):
                break
        self.arrivals.take(self.postfix.deliver_all())
        return self.compare()

    def compare(self) -> Row:
        """Compare what was asked with what is there now."""
        return compare(
            self.victim,
            self.kind,
            self.kills,
            self._keys,
            final_states(self.kind, self.where),
            self.journal,
            self.arrivals,
        )

    def _aims(self) -> Iterator[Aim]:
        """Yield every step and moment in turn, in a random order each time."""
        while True:
            steps = STEPS if self.kind != "smtplib" else ("connect", "content", "reply", "finish")
            pairs = list(itertools.product(MOMENTS, steps))
            self.chance.shuffle(pairs)
            for moment, step in pairs:
                # The steps of a call are made once; those of a message, and the calls of the ledger, several times.
                yield Aim(moment, step, 1 if step == "prepare" else self.chance.randint(1, MOST[step]))

    def _round(self, keys: list[str], aim: Aim | None) -> None:
        pipelining = self.chance.choice(["off", "message", "session"])
        connections = self.chance.choice([1, 2, 4])
        mailer = {**self.postfix.mailer(), "max_connections": connections, "pipelining": pipelining}
        # A server that is gone stays away until this worker has ended.
        mailer["max_connect_failures"] = 1
        orders = Orders(keys, self.kind, self.where, mailer, aim, self.options)
        with self.nursery.worker(orders) as worker:
            self._follow(worker, orders)
        self.arrivals.take(self.postfix.delivered_now())

    def _follow(self, worker: Worker, orders: Orders) -> None:
        """Note what the worker says, and strike when it is where it was to be killed."""
        afterwards: Callable[[], object] = _do_nothing
        for line in worker.lines():
            if line["what"] != "reached":
                self.journal.note(line)
            elif orders.aim is not None:
                afterwards = self._strike(worker, orders.aim)
                self.kills[f"{orders.aim.moment} {orders.aim.step}"] += 1
        afterwards()

    def _strike(self, worker: Worker, aim: Aim) -> Callable[[], object]:
        """Kill the victim, let the worker go on, and return what is to be done when that has ended."""
        if aim.moment == "in":
            time.sleep(self.chance.uniform(0, WITHIN[aim.step]))
        if self.target is None:
            worker.kill()
            return _do_nothing
        self.target.kill()
        comes_back_late = self.chance.random() < 0.5
        if not comes_back_late:
            self.target.start()
        if aim.moment != "in":
            worker.go_on()
        return self.target.start if comes_back_late else _do_nothing


def final_states(kind: str, where: str) -> dict[str, State]:
    """Return what a ledger says of each message; every claim without an end is too old by now."""
    if kind == "smtplib":
        with closing(Notes(where)) as notes:
            return dict.fromkeys(notes.noted(), State.ACCEPTED)
    time.sleep(0.01)
    ledger = open_ledger(kind, where, longest_send=0.001)
    try:
        return {entry.key: entry.state for entry in ledger.entries()}
    finally:
        # It is no method of `Ledger`, but each of ours has it.
        getattr(ledger, "close", _do_nothing)()


def _do_nothing() -> None:
    """Nothing has to be started again."""
