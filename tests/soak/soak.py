"""
Push many messages through a real Postfix over a network that breaks, and compare what was told with what was delivered.

`nox -s soak -- --messages 20000 --seed 1`, with `--threads`, `--connections`, `--fork` and `--spawn`; with `--memory`,
so many messages go to a sink in place of that, and the memory on the way is printed. What must hold: nothing that was
told as accepted is missing, nothing that was told as not sent or refused is there, nothing was submitted twice, nothing
hangs and nothing is left behind.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import re
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from scripted import Answer, Peer, ScriptedServer, honest
from securesmtp import Envelope, Outcome, SecureMailer, SecureSMTPError, TLSPolicy
from servers.postfix import Postfix
from servers.real import ALICE
from soak.memory import measure
from soak.proxy import Proxy

# Seconds for one send; a stall of the proxy is longer.
_DEADLINE = 3.0
_NUMBER = re.compile(rb"(?m)^Subject: (\d+)\r?$")
_QUEUE_ID = re.compile(r"\bid ([0-9A-Za-z]+)")
# Each so many messages, Postfix is ended and started again.
_RESTART_EVERY = 8000


@dataclass
class Told:
    """What the callers were told of each message, by its number."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    hung: int = 0

    def lies(self, delivered: dict[int, set[str]]) -> dict[str, list[int]]:
        """Return, by kind, the messages of which something untrue was told."""
        has = {number for number, ids in delivered.items() if ids}
        no = {Outcome.NOT_SENT, Outcome.REFUSED}
        return {
            "told accepted, and not delivered": [
                n for n, o in self.outcomes.items() if o is Outcome.ACCEPTED and n not in has
            ],
            "told not sent or refused, and delivered": [n for n, o in self.outcomes.items() if o in no and n in has],
            "submitted twice": [number for number, ids in delivered.items() if len(ids) > 1],
            "never told": sorted(has - set(self.outcomes)),
        }


def _message(number: int) -> bytes:
    return b"Subject: %d\r\nMessage-ID: <%d@soak.example>\r\n\r\n.%d\r\n" % (number, number, number)


def _moody(seed: int) -> ScriptedServer:
    """Start a server that refuses, and says 421, at random; what it took is a part of the truth."""
    chance = random.Random(seed)

    def maybe(right: bytes) -> Answer:
        def answer(peer: Peer, line: bytes) -> bytes:
            wrong = chance.choices(
                [right, b"421 4.3.2 bye\r\n", b"451 4.3.0 later\r\n", b"550 5.7.1 no\r\n"], [17, 1, 1, 1]
            )
            return wrong[0]

        return answer

    ok = maybe(b"250 2.0.0 ok\r\n")
    replies = {"MAIL": ok, "RCPT": ok, "CONTENT": ok, "DATA": maybe(b"354 go\r\n")}
    return ScriptedServer(honest(auth=(ALICE.username, ALICE.password), replies=replies), tls=None, connections=10**6)


class Soak:
    """One run: the servers, the proxy, one mailer."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        """Start everything."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        self.told, self._options, self._stack = Told(), options, stack
        ca = trustme.CA()
        self._postfix = stack.enter_context(Postfix(folder, ca))
        self._moody = _moody(options.seed)
        self._moody.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(self._moody.tls)
        stack.enter_context(self._moody)
        chance = random.Random(options.seed + 1)
        self._proxy = stack.enter_context(
            Proxy(
                lambda: self._moody.port if chance.random() < 0.1 else self._postfix.implicit_port,
                options.seed + 2,
                2 * _DEADLINE,
            )
        )
        self._ca_pem = ca.cert_pem.bytes().decode()
        self.mailer = _mailer(self._proxy.port, self._ca_pem, options.connections)

    def by_threads(self, numbers: Iterator[int]) -> None:
        """Send from many threads that share the mailer."""
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    self.mailer.send_bytes(_message(number), mail_from=ALICE.username, recipients=["you@soak.example"])
                except SecureSMTPError as error:
                    self.told.outcomes[number] = error.outcome
                else:
                    self.told.outcomes[number] = Outcome.ACCEPTED

        threads = [threading.Thread(target=work, daemon=True) for _ in range(self._options.threads)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + self._options.messages * 0.1 + 60
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
            self.told.hung += thread.is_alive()

    def by_send_many(self, numbers: range) -> None:
        """Send the rest from one loop."""
        envelopes = (Envelope(ALICE.username, ["you@soak.example"], _message(number)) for number in numbers)
        for number, result in zip(numbers, self.mailer.send_many(envelopes), strict=True):
            self.told.outcomes[number] = result.outcome

    def by_forks(self, numbers: range) -> None:
        """Send from children of a fork that share the mailer with their parent, and report through a pipe."""
        pipes = []
        for start in range(4):
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reading)
                with os.fdopen(writing, "w") as report:
                    for number in numbers[start::4]:
                        try:
                            self.mailer.send_bytes(
                                _message(number), mail_from=ALICE.username, recipients=["you@soak.example"]
                            )
                            report.write(f"{number} accepted\n")
                        except SecureSMTPError as error:
                            report.write(f"{number} {error.outcome}\n")
                    self.mailer.close()
                # Nothing of the parent's is to be ended here.
                os._exit(0)
            os.close(writing)
            pipes.append((child, reading))
        for child, reading in pipes:
            with os.fdopen(reading) as report:
                for line in report:
                    told, _, outcome = line.rstrip().partition(" ")
                    self.told.outcomes[int(told)] = Outcome(outcome)
            os.waitpid(child, 0)

    def by_spawn(self, numbers: range) -> None:
        """Send from new interpreters, each with a mailer of its own."""
        settings = (self._proxy.port, self._ca_pem, self._options.connections)
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            for told in pool.starmap(_send_all, [(*settings, list(numbers[start::4])) for start in range(4)]):
                self.told.outcomes.update(told)

    def restart(self, done: threading.Event) -> None:
        """End Postfix and start it again whenever so many messages have been told."""
        for goal in itertools.count(_RESTART_EVERY, _RESTART_EVERY):
            while len(self.told.outcomes) < goal:
                if done.wait(0.2):
                    return
            self._postfix.restart()

    def delivered(self) -> dict[int, set[str]]:
        """Return the queue ids under which each message was delivered, when nothing is left in the queue."""
        found: dict[int, set[str]] = defaultdict(set)
        for index, accepted in enumerate(self._moody.accepted):
            found[_number(accepted.content)].add(f"moody {index}")
        quiet = 0
        while quiet < 3:
            taken = self._postfix.delivered_now()
            for message in taken:
                queue_id = _QUEUE_ID.search(message.trace)
                # Postfix itself delivers once more what was under way when it was ended, under the same id.
                found[_number(message.content)].add(queue_id[1] if queue_id else message.trace)
            quiet = 0 if taken or self._postfix.queued() else quiet + 1
            time.sleep(1 if not taken else 0)
        return found

    @property
    def faults(self) -> Counter[str]:
        """What the proxy did."""
        return Counter({str(fault): count for fault, count in self._proxy.faults.items()})


def _mailer(port: int, ca_pem: str, connections: int) -> SecureMailer:
    return SecureMailer(
        "localhost",
        port,
        username=ALICE.username,
        password=ALICE.password,
        policy=TLSPolicy(ca_data=ca_pem),
        deadline=_DEADLINE,
        max_connections=connections,
    )


def _send_all(port: int, ca_pem: str, connections: int, numbers: list[int]) -> dict[int, Outcome]:
    """Send these messages from a process of its own, and return what was told of each."""
    envelopes = (Envelope(ALICE.username, ["you@soak.example"], _message(number)) for number in numbers)
    with _mailer(port, ca_pem, connections) as mailer:
        return {number: result.outcome for number, result in zip(numbers, mailer.send_many(envelopes), strict=True)}


def _number(content: bytes) -> int:
    found = _NUMBER.search(content)
    assert found is not None
    return int(found[1])


def _open() -> Counter[str]:
    """Count the sockets and threads of this process."""
    links = list(Path("/proc/self/fd").iterdir())
    # The one that the listing itself was read through is gone by now.
    sockets = sum("socket:" in str(link.readlink()) for link in links if link.is_symlink())
    return Counter(sockets=sockets, threads=threading.active_count())


def run(options: argparse.Namespace) -> int:
    """Make one run, print what came of it, and return how many rules were broken."""
    before = _open()
    done = threading.Event()
    with ExitStack() as stack:
        soak = Soak(options, stack)
        restarter = threading.Thread(target=soak.restart, args=(done,))
        restarter.start()
        began = time.monotonic()
        numbers = range(options.messages)
        half = options.messages // 2
        soak.by_threads(iter(numbers[:half]))
        if options.fork:
            soak.by_forks(numbers[half : half + half // 2])
            half += half // 2
        if options.spawn:
            soak.by_spawn(numbers[half : half + half // 2])
            half += half // 2
        soak.by_send_many(numbers[half:])
        took = time.monotonic() - began
        done.set()
        restarter.join()
        soak.mailer.close()
        delivered = soak.delivered()
        faults, told = soak.faults, soak.told
    left = _open() - before
    outcomes = Counter(told.outcomes.values())
    unknown = [number for number, outcome in told.outcomes.items() if outcome is Outcome.UNKNOWN]
    lies = told.lies(delivered)
    broken: int = (
        sum(map(bool, lies.values())) + bool(told.hung) + bool(left) + (len(told.outcomes) != options.messages)
    )
    _say(f"seed {options.seed}: {options.messages} messages, {options.threads} threads and send_many,")
    _say(f"  {options.connections} connections, {took:.0f} s, {options.messages / took:.0f} a second")
    _say(f"faults of the network: {dict(faults)}")
    _say(f"told: {', '.join(f'{outcome} {outcomes[outcome]}' for outcome in Outcome)}")
    _say(f"unknown, and delivered: {sum(bool(delivered[number]) for number in unknown)} of {len(unknown)}")
    for what, which in lies.items():
        _say(f"{what}: {len(which)} {which[:10] or ''}")
    _say(f"hung: {told.hung}; left behind: {dict(left) or 'nothing'}")
    return broken


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 -- a report


def parser() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--messages", type=int, default=2000)
    made.add_argument("--threads", type=int, default=8)
    made.add_argument("--connections", type=int, default=4)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--fork", action="store_true")
    made.add_argument("--spawn", action="store_true")
    made.add_argument("--memory", action="store_true")
    return made


if __name__ == "__main__":
    chosen = parser().parse_args()
    if chosen.memory:
        measure(chosen.messages)
    else:
        sys.exit(bool(run(chosen)))
