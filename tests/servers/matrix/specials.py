"""
The rows of the matrix about connections: many messages, and a server that is late, impatient or restarted.

Each sends with all combinations at once, so that a server is restarted or waited for only once a row.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from servers.matrix.cells import Cell
from servers.matrix.letters import Letter
from servers.matrix.mailers import wait_for_silent

if TYPE_CHECKING:
    from pathlib import Path

    from scripted import Mode
    from servers.matrix.mailers import Result, Sender
    from servers.matrix.tally import Tally
    from servers.real import RealServer

MANY, FEW = 500, 20
IDLE, RESTARTED = "idle until the server ends the connection", "restarted between two sends"
LATE, EARLY, OVER_ONE = "a greeting that comes late", "a check for early talkers", "500 over one connection"
IN_FLIGHT = "many in flight"
UNCHECKED = "obeys a client that does not wait for the greeting"
# Seconds: longer than any time for which a client might wait before it speaks without being asked.
LATENESS = 1.0
# OpenSMTPD waits for five minutes, Dovecot for ten.
LONGEST_PATIENCE = 700.0


# Who sent what, and what the library says of it.
Sent: TypeAlias = "tuple[Sender, list[Letter], list[Result]]"


@dataclass
class Run:
    """What a row works with: senders on one server, what arrived there, and what it offers in each mode."""

    senders: Sequence[Sender]
    tally: Tally
    offers: Mapping[str, set[str]]

    @property
    def ports(self) -> set[int]:
        """The ports that are connected to."""
        return {sender.server.port(sender.combination.mode) for sender in self.senders}

    def at_once(self, letters: Callable[[], list[Letter]]) -> list[Sent]:
        """Send new letters with all senders at the same time."""
        with ThreadPoolExecutor(len(self.senders)) as pool:
            return list(pool.map(lambda sender: _send(sender, letters()), self.senders))

    def judge(self, row: str, sent: Sequence[Sent]) -> Iterator[Cell]:
        """Wait for what was accepted; yield a cell for each sender: right if all its letters are."""
        self.tally.wait_for([letter for _, letters, results in sent for letter in accepted(letters, results)])
        for sender, letters, results in sent:
            combination = sender.combination
            offers = self.offers[combination.mode]
            cells = [
                self.tally.judge(letter, result, combination, offers)
                for letter, result in zip(letters, results, strict=True)
            ]
            bad = [cell for cell in cells if cell.verdict != "right"]
            detail = bad[0].detail if bad else f"{sender.connections} connections"
            yield Cell(row, sender.server.name, combination, bad[0].verdict if bad else "right", detail)

    def judge_second(self, row: str, first: Sequence[Sent], second: Sequence[Sent]) -> Iterator[Cell]:
        """Judge both; the second must have gone over another connection, or the row has shown nothing."""
        sent = [(sender, [*a, *c], [*b, *d]) for (sender, a, b), (_, c, d) in zip(first, second, strict=True)]
        for cell, (sender, _, _) in zip(self.judge(row, sent), sent, strict=True):
            is_new = sender.connections > 1 or cell.verdict != "right"
            yield cell if is_new else replace(cell, verdict="wrong", detail="the connection was not ended")


def accepted(letters: Sequence[Letter], results: Sequence[Result]) -> list[Letter]:
    """Return those letters that the library says were accepted."""
    return [letter for letter, result in zip(letters, results, strict=True) if result.receipt is not None]


def over_one_connection(run: Run, count: int = MANY) -> Iterator[Cell]:
    """Send many messages, one sender after the other."""
    for sender in run.senders:
        yield from run.judge(OVER_ONE, [_send(sender, _letters(OVER_ONE, count))])


@contextmanager
def idle(run: Run) -> Iterator[Callable[[], list[Cell]]]:
    """Send, and return what waits until the server has ended all connections, and sends again."""
    first = run.at_once(lambda: _letters(IDLE, 1))

    def finish() -> list[Cell]:
        # aiosmtpd says goodbye in TLS, and keeps the connection for 30 s.
        wait_for_silent(run.ports, 0, LONGEST_PATIENCE)
        second = run.at_once(lambda: _letters(IDLE, 1))
        return list(run.judge_second(IDLE, first, second))

    yield finish


def restarted(run: Run) -> Iterator[Cell]:
    """Send, restart the server, and send again."""
    first = run.at_once(lambda: _letters(RESTARTED, 1))
    # What a server has accepted and not delivered may wait in its queue for hours after a restart.
    run.tally.wait_for([letter for _, letters, results in first for letter in accepted(letters, results)])
    run.senders[0].server.restart(same_ports=True)
    second = run.at_once(lambda: _letters(RESTARTED, 1))
    yield from run.judge_second(RESTARTED, first, second)


def late(run: Run, lateness: float = LATENESS) -> Iterator[Cell]:
    """Send while the server is stopped, and continue it when all wait for its greeting."""
    server = run.senders[0].server
    with ThreadPoolExecutor(len(run.senders)) as pool:
        with server.frozen():
            sending = [pool.submit(_send, sender, _letters(LATE, 1)) for sender in run.senders]
            wait_for_silent(run.ports, len(run.senders), 30)
            time.sleep(lateness)
        yield from run.judge(LATE, [each.result() for each in sending])


def early(run: Run) -> Iterator[Cell]:
    """Send to a server that greets late, and refuses who speaks before, as one command on each port shows."""
    server, trusted = run.senders[0].server, run.senders[0].ca_file
    refusals = {mode: speak_early(server, mode, trusted) for mode in server.modes}
    for cell in run.judge(EARLY, run.at_once(lambda: _letters(EARLY, 1))):
        is_checked = refusals[cell.combination.mode] is not None
        yield cell if is_checked or cell.verdict == "wrong" else replace(cell, verdict="cannot", detail=UNCHECKED)


def speak_early(server: RealServer, mode: Mode, ca_file: Path) -> str | None:
    """Return what the server replies to a command that comes before its greeting, or None if it obeys."""
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((server.host, server.port(mode)), timeout=30))
        if mode == "implicit":
            context = ssl.create_default_context(cafile=str(ca_file))
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname="localhost"))
        connection.sendall(b"NOOP\r\n")
        with connection.makefile("rb") as replies:
            first = replies.readline().decode()
            if not first.startswith("220"):
                return first.strip()
            second = replies.readline().decode()
            return None if second.startswith(("2", "503", "530")) else second.strip()


def _letters(row: str, count: int) -> list[Letter]:
    return [Letter(row, b".\r\n%d\r\n" % number) for number in range(count)]


def _send(sender: Sender, letters: list[Letter]) -> Sent:
    return sender, letters, sender.send(letters)
