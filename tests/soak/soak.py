"""
Send many messages through a real Postfix over a failing network, and compare outcomes with deliveries.

Run `nox -s soak -- --messages 20000 --seed 1`; further options are `--threads`, `--connections`, `--pipelining`,
`--fork`, `--spawn`, `--abort` and `--face`. With `--memory`, the messages go to a sink instead, and the memory used is
printed. These must hold: every message reported as accepted was delivered, none reported as not sent or refused was,
none was submitted twice or changed, no call hangs, no socket or thread is left.
"""

from __future__ import annotations

import argparse
import random
import re
import ssl
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from faces import FACES, Faces
from scripted import Answer, Peer, ScriptedServer, honest
from securesmtp import Outcome
from servers.postfix import Postfix
from servers.real import ALICE
from soak.callers import (
    DEADLINE,
    Plain,
    Told,
    by_aborted,
    by_forks,
    by_send_many,
    by_spawn,
    by_threads,
    message,
    started,
)
from soak.memory import measure
from soak.proxy import Proxy

_NUMBER = re.compile(rb"Subject: (\d+)\r\n")
_QUEUE_ID = re.compile(r"\bid ([0-9A-Za-z]+)")
# Share of the connections that go to the server that refuses and sends 421.
_MOODY_SHARE = 0.15
# A run in which fewer messages were accepted proves little: the outcome of an unsent message is easy to know.
_ACCEPTED_SHARE = 0.6
# So many looks at a queue from which nothing comes, half a second apart.
_STUCK = 8


@dataclass
class Delivered:
    """What was delivered: the IDs under which each message arrived, and the messages that were changed."""

    ids: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    changed: set[int] = field(default_factory=set)

    def note(self, content: bytes, identity: str) -> None:
        """Record one delivery."""
        found = _NUMBER.match(content)
        number = -1 if found is None else int(found[1])
        self.ids[number].add(identity)
        if found is None or content != message(number):
            self.changed.add(number)

    def lies(self, told: Told) -> dict[str, list[int]]:
        """Return the messages with untrue outcomes, by kind of lie."""
        no = {Outcome.NOT_SENT, Outcome.REFUSED}
        has = set(self.ids)
        return {
            "told accepted, and not delivered": [
                n for n, outcome in told.outcomes.items() if outcome is Outcome.ACCEPTED and n not in has
            ],
            "told not sent or refused, and delivered": [
                n for n, outcome in told.outcomes.items() if outcome in no and n in has
            ],
            "submitted twice": [number for number, ids in self.ids.items() if len(ids) > 1],
            "changed on the way": sorted(self.changed),
            "delivered, and never told": sorted(has - set(told.outcomes)),
        }


def _moody(seed: int, tls: ssl.SSLContext, timeout: float) -> ScriptedServer:
    """Start a server that refuses, and says 421, at random; what it took is a part of the truth."""
    chance = random.Random(seed)

    def maybe(right: bytes) -> Answer:
        def answer(peer: Peer, line: bytes) -> bytes:
            wrong = [b"421 4.3.2 bye\r\n", b"451 4.3.0 later\r\n", b"550 5.7.1 no\r\n"]
            return chance.choices([right, *wrong], [17, 1, 1, 1])[0]

        return answer

    ok = maybe(b"250 2.0.0 ok\r\n")
    replies = {"MAIL": ok, "RCPT": ok, "CONTENT": ok, "DATA": maybe(b"354 go\r\n"), "GREETING": maybe(b"220 moody\r\n")}
    script = honest(auth=(ALICE.username, ALICE.password), replies=replies)
    return ScriptedServer(script, tls=tls, connections=10**6, timeout=timeout)


class Soak:
    """One run: the servers, the proxy, one mailer."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        """Start everything."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        ca, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(tls)
        self.told, self.restarts, self._options = Told(), 0, options
        # All callers end within so many seconds, or they hang.
        self._limit = options.messages * 0.1 + 60
        self._postfix = stack.enter_context(Postfix(folder, ca))
        # What the parent of a fork has closed, the server sees closed when the last child ends.
        self._moody = stack.enter_context(_moody(options.seed, tls, self._limit if options.fork else 30))
        self._chance = random.Random(options.seed + 1)
        self.proxy = stack.enter_context(Proxy(self._target, options.seed + 2, DEADLINE + 1))
        pem = ca.cert_pem.bytes().decode()
        self._plain = Plain(self.proxy.port, pem, options.connections, options.pipelining, options.face)
        self._faces = Faces(stack)
        self._mailer = self._plain.mailer(self._faces)

    def _target(self) -> int:
        return self._moody.port if self._chance.random() < _MOODY_SHARE else self._postfix.implicit_port

    def send(self) -> None:
        """Send everything: from threads and `send_many` at the same time, and from children if requested."""
        told, numbers = self.told, range(self._options.messages)
        limit = self._limit
        quarter = len(numbers) // 4
        early, late = numbers[:quarter], numbers[quarter:]
        shares = {
            what: late[quarter * turn : quarter * (turn + 1)]
            for turn, what in enumerate(what for what in ("fork", "spawn", "abort") if getattr(self._options, what))
        }
        late = late[quarter * len(shares) :]
        # Threads first, so that the children are forked while the parent has connections in use.
        threads = by_threads(self._mailer, told, early, self._options.threads)
        while len(told.outcomes) < quarter // 2 and any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
        if "fork" in shares:
            threads += by_forks(self._mailer, told, shares["fork"], limit)
        if "spawn" in shares:
            threads += by_spawn(self._plain, told, shares["spawn"], limit)
        if "abort" in shares:
            threads += by_aborted(self._plain, self._faces, told, shares["abort"], self._options.threads)
        half = len(late) // 2
        threads += by_threads(self._mailer, told, late[:half], self._options.threads)
        threads += by_send_many(self._mailer, told, late[half:])
        told.join(threads, limit)

    def restart(self, done: threading.Event) -> None:
        """Restart Postfix as often as the options say, spread over the run."""
        for turn in range(self._options.restarts):
            goal = self._options.messages * (turn + 1) // (self._options.restarts + 1)
            while len(self.told.outcomes) < goal:
                if done.wait(0.1):
                    return
            self._postfix.restart()
            self.restarts += 1

    def close(self) -> None:
        """Close the mailer and the network; what is delivered later has already reached the servers."""
        self.told.join(started(self._close), 30)
        self.proxy.close()

    def _close(self) -> None:
        self._mailer.close(abort=bool(self.told.hung))

    def delivered(self) -> Delivered:
        """Wait until the queue is empty; return what was delivered."""
        truth, quiet, stuck = Delivered(), 0, 0
        while quiet < 4:
            taken = self._postfix.delivered_now()
            stuck = 0 if taken else stuck + 1
            if stuck == _STUCK:
                # A message that an old process was still delivering at a restart is skipped, and not looked at again.
                self._postfix.restart()
                stuck = 0
            for got in taken:
                queue_id = _QUEUE_ID.search(got.trace)
                # Postfix itself repeats a delivery that its restart interrupted, under the same ID.
                truth.note(got.content, queue_id[1] if queue_id else got.trace)
            quiet = 0 if taken or self._postfix.queued() else quiet + 1
            time.sleep(0 if taken else 0.5)
        # After the wait, because a script may still be processing a client's last message.
        for index, accepted in enumerate(self._moody.accepted):
            truth.note(accepted.content, f"moody {index}")
        return truth


def _open() -> Counter[str]:
    """Count the sockets and threads of this process."""
    links = list(Path("/proc/self/fd").iterdir())
    # The descriptor through which the list was read is closed by now.
    sockets = sum("socket:" in str(link.readlink()) for link in links if link.is_symlink())
    return Counter(sockets=sockets, threads=threading.active_count())


def run(options: argparse.Namespace) -> int:
    """Do one run, print the results, and return the number of broken rules."""
    if options.fork and options.face != "sync":
        sys.exit("--fork needs the sync mailer: a child has no thread that runs its parent's event loop")
    before, done = _open(), threading.Event()
    with warnings.catch_warnings(record=True) as warned, ExitStack() as stack:
        # Objects that only the garbage collector closed.
        warnings.simplefilter("always", ResourceWarning)
        soak = Soak(options, stack)
        restarter = threading.Thread(target=soak.restart, args=(done,))
        restarter.start()
        began = time.monotonic()
        soak.send()
        took = time.monotonic() - began
        done.set()
        restarter.join()
        soak.close()
        delivered = soak.delivered()
        told, faults = soak.told, dict(soak.proxy.faults)
    left = _open() - before
    outcomes = Counter(told.outcomes.values())
    unknown = [number for number, outcome in told.outcomes.items() if outcome is Outcome.UNKNOWN]
    lies = delivered.lies(told)
    lies["not told of"] = sorted(set(range(options.messages)) - set(told.outcomes))
    leaks = [str(warning.message) for warning in warned if issubclass(warning.category, ResourceWarning)]
    _say(f"seed {options.seed}: {options.messages} messages, {options.face}, {options.threads} threads and send_many,")
    _say(f"  {options.connections} connections, {took:.0f} s, {options.messages / took:.0f} a second")
    _say(f"faults of the network: {faults}; restarts of Postfix: {soak.restarts}")
    _say(f"told: {', '.join(f'{outcome} {outcomes[outcome]}' for outcome in Outcome)}")
    _say(f"unknown, and delivered: {sum(number in delivered.ids for number in unknown)} of {len(unknown)}")
    for what, which in lies.items():
        _say(f"{what}: {len(which)} {which[:10] or ''}")
    _say(f"hung: {told.hung}; left behind: {dict(left) or 'nothing'}; left to the collector: {leaks or 'nothing'}")
    if too_few := outcomes[Outcome.ACCEPTED] < _ACCEPTED_SHARE * options.messages:
        _say("too few were accepted for this to prove anything")
    return sum(map(bool, [*lies.values(), told.hung, left, leaks, too_few]))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 -- a report


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--messages", type=int, default=2000)
    made.add_argument("--threads", type=int, default=8)
    made.add_argument("--connections", type=int, default=8)
    made.add_argument("--pipelining", choices=["session", "message", "off"], default="message")
    made.add_argument("--restarts", type=int, default=2, help="of Postfix, spread over the run")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--face", choices=FACES, default="sync")
    made.add_argument("--fork", action="store_true", help="a quarter from children that share the sync mailer")
    made.add_argument("--spawn", action="store_true", help="a quarter from interpreters of their own")
    made.add_argument("--abort", action="store_true", help="a quarter over mailers that are aborted")
    made.add_argument("--memory", action="store_true", help="to a sink alone, and watch the memory")
    return made


if __name__ == "__main__":
    chosen = parser().parse_args()
    sys.exit(measure(chosen.messages) if chosen.memory else bool(run(chosen)))
