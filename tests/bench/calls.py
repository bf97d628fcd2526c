"""
How many calls one message takes, and how much CPU, by room of the house: message, dialogue, exchange, channel, ...

`python -m bench.calls` prints a table for each way to send: `send`, `send_bytes`, `send_many`, `send_many` with
`pipelining="session"`, and `send` of the async mailer. Calls are counted, so they are the same on a busy machine, and a
rise is seen; `tests/test_calls.py` holds them. A room has three columns: calls of its own functions (a generator that
goes on is a call, too), Python functions of other packages that it calls, as `email` and `ssl`, and C functions.

The CPU of a room is sampled in a run of its own: every millisecond of CPU, the main thread's share goes to the
innermost function of ours on its stack, and what other threads used to a line of its own. Time in the kernel counts
where it is waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import trustme

import securesmtp
from bench.clients import LOGIN, Task, message, octets
from bench.sink import sink
from securesmtp import AsyncSecureMailer, Envelope, SecureMailer

_HOME = Path(securesmtp.__file__).parent
# By file; the others are sorted by their folder.
_FILES = {
    "dialogue": "capabilities commands delivery dialogue effects failures hints overlap replies transaction",
    "exchange": "exchange kept_replies progress redaction wire",
    "pool": "async_pool login_pause pool slot slots task_queue threads",
    "message": "_submissions",
    "run": "_async_results _async_workers _workers",
}
_ROOMS = {name: room for room, names in _FILES.items() for name in names.split()}
_FOLDERS = {"_protocol": "message", "sasl": "dialogue", "_transport": "channel", "_bulk": "run"}
# What runs above all functions of ours: the event loop, the program that sends, the start of a thread.
OUTSIDE, OTHERS = "outside", "threads"
ROOMS = ("message", "dialogue", "exchange", "channel", "pool", "run", "facade", OUTSIDE, OTHERS)
# From 3.12 on, comprehensions are no calls.
_INLINED = {"<listcomp>", "<dictcomp>", "<setcomp>"}


class Rooms:
    """Tells in which room a function is."""

    def __init__(self) -> None:
        """Know none yet."""
        self._rooms: dict[CodeType, str] = {}

    def of_code(self, code: CodeType) -> str:
        """Return the room of *code*, or an empty string if it is not ours."""
        if code not in self._rooms:
            self._rooms[code] = self._find(Path(code.co_filename))
        return self._rooms[code]

    def of_frame(self, frame: FrameType | None) -> str:
        """Return the room of the innermost function of ours."""
        while frame is not None:
            if room := self.of_code(frame.f_code):
                return room
            frame = frame.f_back
        return OUTSIDE

    @staticmethod
    def _find(file: Path) -> str:
        if _HOME not in file.parents:
            return ""
        return _ROOMS.get(file.stem) or _FOLDERS.get(file.parent.name, "facade")


class Calls:
    """
    Counts the calls of all threads that start while it counts.

    Attributes:
        own: Calls of our own functions, by room.
        library: Calls of other Python functions, by the room that made them.
        native: Calls of C functions, likewise.
    """

    def __init__(self) -> None:
        """Have counted nothing."""
        self.own, self.library, self.native = Counter[str](), Counter[str](), Counter[str]()
        self._rooms = Rooms()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count in this thread, and in those that it starts."""
        threading.setprofile(self._count)
        sys.setprofile(self._count)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            if room := self._rooms.of_code(frame.f_code):
                self.own[room] += frame.f_code.co_name not in _INLINED
            else:
                self.library[self._rooms.of_frame(frame)] += 1
        elif event == "c_call":
            self.native[self._rooms.of_frame(frame)] += 1


class Shares:
    """Samples which room the CPU time of each thread is spent in."""

    def __init__(self) -> None:
        """Have sampled nothing."""
        self.seconds = defaultdict[str, float](float)
        self._rooms, self._clocks = Rooms(), dict[threading.Thread, float]()

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample every millisecond of the process's CPU time; in the main thread only."""
        before = signal.signal(signal.SIGPROF, self._sample)
        self._sample()
        self.seconds.clear()
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    def _sample(self, number: int = 0, frame: FrameType | None = None) -> None:
        for thread in threading.enumerate():
            try:
                used = time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))
            except OSError:  # It has just ended.
                continue
            # A signal comes to the main thread, which sees another one only where that gave up the interpreter's lock.
            room = self._rooms.of_frame(frame) if thread is threading.main_thread() else OTHERS
            self.seconds[room] += used - self._clocks.get(thread, 0.0)
            self._clocks[thread] = used


Send = Callable[[int], None]


@contextmanager
def _sync(task: Task, way: str) -> Iterator[Send]:
    mail, data = message(task), octets(task)
    envelope = Envelope("a@example.test", task.people, data)

    def send(mailer: SecureMailer, count: int) -> None:
        if way == "send":
            for _ in range(count):
                mailer.send(mail)
        elif way == "send_bytes":
            for _ in range(count):
                mailer.send_bytes(data, mail_from="a@example.test", recipients=task.people)
        else:
            for result in mailer.send_many(repeat(envelope if way.endswith("bytes") else mail, count)):
                assert result.receipt, result.error

    with SecureMailer("localhost", task.port, **options(task, way)) as mailer:
        yield lambda count: send(mailer, count)


@contextmanager
def _async(task: Task, way: str) -> Iterator[Send]:
    mail = message(task)

    async def send(count: int) -> None:
        for _ in range(count):
            await mailer.send(mail)

    with asyncio.Runner() as runner:
        mailer = AsyncSecureMailer("localhost", task.port, **options(task, way))
        yield lambda count: runner.run(send(count))
        runner.run(mailer.close())


def options(task: Task, way: str) -> dict[str, Any]:
    """Return a mailer's arguments."""
    return {
        "username": LOGIN[0],
        "password": LOGIN[1],
        "ca_file": task.ca,
        "max_connections": task.connections,
        "max_messages": 10_000,
        "pipelining": "session" if "session" in way else "message",
    }


# By name: how many connections.
WAYS = {
    "send": 1,
    "send_bytes": 1,
    "send_many": 10,
    "send_many, bytes": 10,
    "send_many, session": 10,
    "send_many, session, bytes": 10,
    "async send": 1,
}


@contextmanager
def server() -> Iterator[tuple[int, str]]:
    """Start a sink; give its port and the file with its CA."""
    ca = trustme.CA()
    with tempfile.TemporaryDirectory(prefix="securesmtp-bench-") as folder:
        ca_file, certificate = Path(folder, "ca.pem"), Path(folder, "certificate.pem")
        ca_file.write_bytes(ca.cert_pem.bytes())
        certificate.write_bytes(ca.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
        with sink(str(certificate), "PIPELINING CHUNKING") as running:
            yield running.port, str(ca_file)


def sender(way: str, task: Task) -> Any:  # a context manager of Send
    """Return what opens a mailer for this way to send."""
    return (_async if way.startswith("async") else _sync)(task, way)


def count_calls(way: str, task: Task, count: int) -> Calls:
    """Send *count* messages over connections that are open; return the calls of all of them."""
    calls = Calls()
    with sender(way, task) as send:
        send(3 * task.connections)
        with calls.counting():
            send(count)
    return calls


def sample_cpu(way: str, task: Task, count: int) -> Mapping[str, float]:
    """Send *count* messages; return the seconds of CPU by room."""
    shares = Shares()
    with sender(way, task) as send:
        send(3 * task.connections)
        with shares.sampling():
            send(count)
    return shares.seconds


def table(calls: Calls, count: int, microseconds: Mapping[str, float]) -> str:
    """Return a line for each room, and one for all, of what one of *count* messages took."""
    lines = [f"  {'':10}{'own':>8}{'library':>9}{'C':>8}{'µs':>8}"]
    counted = (calls.own, calls.library, calls.native)
    columns = [{room: number / count for room, number in each.items()} for each in counted]
    for room in (*ROOMS, "all"):
        own, library, native, used = (
            sum(each.values()) if room == "all" else each.get(room, 0.0) for each in (*columns, microseconds)
        )
        lines.append(f"  {room:10}{own:8.1f}{library:9.1f}{native:8.1f}{used:8.1f}")
    return "\n".join(lines)


def main() -> None:
    """Print a table for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="messages of the run that samples the CPU")
    parser.add_argument("--only", default="", help="ways whose name has this")
    chosen = parser.parse_args()
    with server() as (port, ca):
        for way, connections in WAYS.items():
            if chosen.only not in way:
                continue
            task = Task(port, ca, connections=connections)
            counted = max(1, chosen.count // 10)
            calls, seconds = count_calls(way, task, counted), sample_cpu(way, task, chosen.count)
            print(f"\n{way}, {connections} connection{'s' * (connections > 1)}: calls and CPU of one message")
            microseconds = {room: used / chosen.count * 1e6 for room, used in seconds.items()}
            print(table(calls, counted, microseconds), flush=True)


if __name__ == "__main__":
    main()
