"""
Clients that take turns with one server, each in a process of its own.

Every second round has them in the opposite order, so what else the machine does meets all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import trustme

from bench import network
from bench.clients import LOGIN, Task
from bench.machine import Ratio
from bench.sink import Counts, Sink, distance, sink
from servers.postfix import Postfix
from servers.real import ALICE

HERE = Path(__file__).parent
POSTFIX = "Postfix"
# TCP's handshake, TLS 1.3's, and the greeting.
_OPENING = 3
_TOO_LONG = 600
# These are clients of `bench.async_clients`.
_ASYNC = ("securesmtp, asyncio", "securesmtp, trio", "securesmtp, to_thread", "aiosmtplib, ")
Turn = dict[str, dict[str, float]]


class Bench:
    """What all comparisons share: the certificates, and where things are."""

    def __init__(self, folder: Path, node_modules: str | None) -> None:
        """Make the CA, and the file that is sent."""
        self.folder, self.ca = folder, trustme.CA()
        self.ca_file, self.certificate = folder / "ca.pem", folder / "certificate.pem"
        self.ca_file.write_bytes(self.ca.cert_pem.bytes())
        self.certificate.write_bytes(
            self.ca.issue_cert("localhost", network.FAR).private_key_and_cert_chain_pem.bytes()
        )
        lines = (b"y" * 76 + b"\r\n") * 320_512
        (folder / "content").write_bytes(b"Subject: a file\r\n\r\n" + lines)
        self._node_modules = node_modules
        self.missing: set[str] = set()

    def run(self, server: str, rtt: float, tasks: Mapping[str, Task], rounds: int) -> list[Turn]:
        """
        Return what one message took each client, for each round.

        Args:
            server: What the sink offers, or Postfix.
            rtt: A round trip, in seconds.
            tasks: What each client does; where the server is and who logs in is filled in.
            rounds: How many turns each client has.
        """
        with self._server(server, rtt) as (where, counter):
            filled = {
                name: replace(task, **where, ca=str(self.ca_file), folder=str(self.folder))
                for name, task in tasks.items()
            }
            turns = []
            for number in range(rounds):
                turn: Turn = {}
                for name in list(filled)[:: -1 if number % 2 else 1]:
                    if name in self.missing or (took := self._measure(name, filled[name])) is None:
                        continue
                    if counter is not None:
                        took["flights"] = _flights(filled[name], counter.counted())
                    turn[name] = took
                # As in the tasks.
                turns.append({name: turn[name] for name in filled if name in turn})
            return turns

    def _measure(self, name: str, task: Task) -> dict[str, float] | None:
        module = "bench.async_clients" if name.startswith(_ASYNC) else "bench.clients"
        command = [sys.executable, "-m", module, name, json.dumps(asdict(task))]
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
    def _server(self, kind: str, rtt: float) -> Iterator[tuple[dict[str, Any], Sink | None]]:
        if kind == POSTFIX:
            directory = Path(tempfile.mkdtemp(dir=self.folder))
            directory.chmod(0o755)
            with Postfix(directory, self.ca) as postfix, distance(postfix.implicit_port, rtt) as port:
                yield {"port": port, "login": (ALICE.username, ALICE.password)}, None
        elif rtt and network.is_inside():
            with network.delay(rtt), sink(str(self.certificate), kind, network.NEAR) as server:
                yield {"host": network.FAR, "port": server.port, "login": LOGIN}, server
        else:
            with sink(str(self.certificate), kind) as server, distance(server.port, rtt) as port:
                yield {"port": port, "login": LOGIN}, server


def _flights(task: Task, counts: Counts) -> float:
    # EHLO and AUTH are once for each connection; a cold one is all of it.
    once = 0 if task.cold else 2 * task.connections
    return (counts.flights - once) / counts.messages + (_OPENING if task.cold else 0)


def best(turns: Sequence[Turn], client: str, what: str) -> float:
    """Return the least that *client* took in a round: what else the machine does only makes it more."""
    return min(turn[client][what] for turn in turns)


def ratio(turns: Sequence[Turn], client: str, others: Sequence[str], what: str) -> Ratio:
    """Return what *client* took, as a part of what the best of *others* took."""
    rounds = [turn[client][what] / min(turn[other][what] for other in others) for turn in turns]
    middle = best(turns, client, what) / min(best(turns, other, what) for other in others)
    return Ratio(middle, min(*rounds, middle), max(*rounds, middle))
