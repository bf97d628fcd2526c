"""
A broker that is killed while Celery's workers send, at a step of a message, again and again.

How it works: the producer, which is this process, and the workers ask at each step whether they may go on. The killer
kills the broker there, starts it again at once or a little later, and lets them go on. At last, what the broker has
lost, which the ledger knows as prepared, is published again.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conftest import unmeasured
from kills.accounts import Arrivals, Journal, Row, compare
from kills.killer import WITHIN, final_states
from kills.messages import message
from kills.servers import MortalPostfix, Victim
from kills.steps import MOMENTS, STEPS
from securesmtp.ledger import State

TESTS = Path(__file__).parent.parent
# Messages that are published in each round.
NEW = 3
# Seconds within which a step is reached, and within which all is done at last.
_STRUCK_WITHIN, _DONE_WITHIN = 180.0, 600.0
# How long the broker is away, in seconds, unless it comes back at once.
_AWAY = 0.5
# How often it looks whether all is done, in seconds.
_LOOKS = 2.0


class Control(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers the processes of the application, and kills the broker where it is aimed at."""

    daemon_threads = True

    def __init__(self, path: Path, target: Victim, journal: Journal, chance: random.Random) -> None:
        self.journal, self.struck, self.is_back = journal, threading.Event(), threading.Event()
        self._target, self._chance = target, chance
        self._lock = threading.Lock()
        self._aim: tuple[str, str] | None = None
        super().__init__(str(path), _Asker)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer, in a thread."""
        thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def aim(self, moment: str, step: str) -> None:
        """Strike when the next process is there."""
        self.struck.clear()
        self.is_back.clear()
        self._aim = (moment, step)

    def answer(self, line: dict[str, Any]) -> Iterator[None]:
        """Note a line, strike if it is aimed at, and yield when its process may go on."""
        with self._lock:
            self.journal.note(line)
            moment, step = self._aim or ("", "")
            is_there = line.get("step") == step and line["what"] == ("before" if moment == "in" else moment)
            if is_there:
                self._aim = None
        if not is_there:
            yield
            return
        if moment == "in":
            yield
            time.sleep(self._chance.uniform(0, WITHIN[step]))
        self._target.kill()
        self.struck.set()
        if self._chance.random() < 0.5:
            self._start()
        else:
            threading.Timer(self._chance.uniform(0, _AWAY), self._start).start()
        if moment != "in":
            yield

    def _start(self) -> None:
        self._target.start()
        self.is_back.set()


class _Asker(socketserver.StreamRequestHandler):
    server: Control

    def handle(self) -> None:
        with suppress(OSError):
            for line in self.rfile:
                for _ in self.server.answer(json.loads(line)):
                    self.wfile.write(b"go\n")


@dataclass
class BrokerKiller:
    """
    One mailing through Celery.

    Attributes:
        kind: The ledger's kind.
        where: Its file or URL.
        postfix: The mail server.
        broker: What is killed.
        url: The broker's URL.
        chance: Decides all that is left open.
        prefix: What the keys of this mailing begin with.
    """

    kind: str
    where: str
    postfix: MortalPostfix
    broker: Victim
    url: str
    chance: random.Random
    prefix: str

    def __post_init__(self) -> None:
        self.journal, self.arrivals, self.kills = Journal(), Arrivals(), Counter[str]()
        self.published_again = 0
        self._keys: list[str] = []

    def run(self, kills: int, victim: str = "broker") -> Row:
        """Kill so often, wait until all is done, and compare."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="securesmtp-kills-")))
            control = Control(folder / "control", self.broker, self.journal, self.chance)
            stack.enter_context(control.serving())
            environment = {
                "KILLS_BROKER": self.url,
                "KILLS_CONTROL": str(folder / "control"),
                "KILLS_KIND": self.kind,
                # A connection for each message, so that opening one is a step of each.
                "KILLS_MAILER": json.dumps({**self.postfix.mailer(), "max_messages": 1}),
                "KILLS_WHERE": self.where,
            }
            os.environ.update(environment)
            # Not before its settings are there.
            task = importlib.import_module("kills.mail_app").send_mail
            stack.callback(task.close)
            workers = Supervisor(folder / "workers.log")
            stack.callback(workers.close)
            try:
                self._kill(task, control, kills)
                self._finish(task)
            except AssertionError as error:
                error.add_note((folder / "workers.log").read_text(errors="replace")[-8000:])
                raise
        self.arrivals.take(self.postfix.deliver_all())
        states = final_states(self.kind, self.where)
        row = compare(victim, self.kind, self.kills, self._keys, states, self.journal, self.arrivals)
        return replace(row, published_again=self.published_again, restarts=workers.restarts)

    def _kill(self, task: Any, control: Control, kills: int) -> None:
        pairs = list(itertools.product(MOMENTS, STEPS))
        for number in range(kills):
            if number % len(pairs) == 0:
                self.chance.shuffle(pairs)
            moment, step = pairs[number % len(pairs)]
            control.aim(moment, step)
            end = time.monotonic() + _STRUCK_WITHIN
            while not control.struck.is_set():
                # The broker may be slow to deliver, so it may take more than one round.
                assert time.monotonic() < end, f"nobody was {moment} {step}"
                for _ in range(NEW):
                    self._keys.append(f"{self.prefix}-{len(self._keys)}")
                    _publish(task, self._keys[-1])
                control.struck.wait(1)
            assert control.is_back.wait(_STRUCK_WITHIN)
            self.kills[f"{moment} {step}"] += 1
            self.arrivals.take(self.postfix.delivered_now())

    def _finish(self, task: Any) -> None:
        end = time.monotonic() + _DONE_WITHIN
        settled, before = {State.ACCEPTED, State.UNKNOWN}, -1
        while not settled.issuperset(states := final_states(self.kind, self.where).values()):
            left = sum(state not in settled for state in states)
            if left == before:
                # Nothing more comes of the broker: it has lost what is left, or shows it only later.
                self._publish_again(task)
            before = left
            assert time.monotonic() < end, f"{left} messages are left"
            time.sleep(_LOOKS)

    def _publish_again(self, task: Any) -> None:
        for key, state in final_states(self.kind, self.where).items():
            if state not in {State.ACCEPTED, State.UNKNOWN}:
                _publish(task, key)
                self.published_again += 1


def _publish(task: Any, key: str) -> None:
    """Publish a message, as often as it takes."""
    operational = importlib.import_module("kombu.exceptions").OperationalError
    while True:
        with suppress(operational, OSError):
            task.send_later(message(key))
            return
        time.sleep(0.05)


class Supervisor:
    """
    Runs Celery's workers, and starts them again when they end, as systemd does: they may end with their broker.

    Attributes:
        restarts: How often they have ended.
    """

    def __init__(self, log: Path) -> None:
        self.restarts = 0
        self._log, self._is_over = log, False
        self._process = self._start()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        options = ["--concurrency=2", "--without-gossip", "--without-mingle", "--loglevel=INFO"]
        with self._log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "kills.mail_app", "worker", *options],
                cwd=TESTS,
                env=unmeasured(),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _watch(self) -> None:
        while True:
            # Until its number is taken away by `wait`, it is that of no other group.
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._is_over:
                return
            self.restarts += 1
            self._process = self._start()

    def close(self) -> None:
        """Kill them."""
        self._is_over = True
        while self._thread.is_alive():
            # Again, if they were being started just now.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._thread.join(0.1)
