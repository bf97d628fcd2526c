"""
How long a client keeps the event loop from other tasks: the longest gap between two runs of a task that only sleeps.

`python -m bench.loop_lag` prints a table with two gaps of each case, medians of three runs. *By the clock* has in it
whatever else the machine does; the rows of "nothing" show how much that is. *On the CPU* is the CPU time of the loop's
thread in a gap: neither other programs nor other threads are in it. The rows of aiosmtplib show that a gap would be
seen. Each run has a process of its own, and opens its connections while it is watched.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median

import anyio
import trustme

from bench.async_clients import CLIENTS, Client, Work, threads
from bench.clients import Task
from bench.sink import sink

TICK = 0.001
ROUNDS = 3
# What is sent: the message, how many tasks send one each, and the connections.
CASES = {
    "1,000 sends of 2 kB at once": ("small", 1000, 10),
    "1,500 sends of 2 kB at once": ("small", 1500, 4),
    "8 sends of 25 MB at once": ("large", 8, 4),
    "8 sends of a file of 25 MB at once": ("file", 8, 4),
}
SHOWN = ("nothing", "securesmtp, asyncio", "securesmtp, trio", "securesmtp, to_thread", "aiosmtplib, queue")


class Probe:
    """A task that only sleeps; what is between two of its runs, less its sleep, is the gap."""

    def __init__(self) -> None:
        """Begin without a gap."""
        self.clock = self.cpu = 0.0

    async def run(self) -> None:
        """Look for the longest gap until cancelled."""
        while True:
            clock, cpu = time.perf_counter(), time.thread_time()
            await anyio.sleep(TICK)
            self.clock = max(self.clock, time.perf_counter() - clock - TICK)
            self.cpu = max(self.cpu, time.thread_time() - cpu)


@asynccontextmanager
async def nothing(task: Task) -> AsyncIterator[Work]:
    """Send nothing for a second."""

    async def work(tasks: int, count: int, start: anyio.Event) -> None:
        await start.wait()
        await anyio.sleep(1)

    yield work


async def measure(client: Client, task: Task) -> dict[str, float]:
    """Return the gaps, and what else one message takes."""
    probe, start = Probe(), anyio.Event()
    async with client(task) as work, anyio.create_task_group() as group:
        group.start_soon(probe.run)
        async with anyio.create_task_group() as senders:
            senders.start_soon(work, task.count, task.count, start)
            # The tasks exist and wait for the start, and the probe has run.
            await anyio.sleep(0.1)
            probe.clock = probe.cpu = 0.0
            began, cpu = time.perf_counter(), time.process_time()
            start.set()
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
        count = threads()
        group.cancel_scope.cancel()
    each = {"seconds": seconds / task.count, "cpu": used / task.count, "threads": count}
    return each | {"gap": probe.clock, "gap on the CPU": probe.cpu}


def main() -> None:
    """Measure one client, or start a process for each and print a table."""
    if len(sys.argv) == 3:
        backend, client = CLIENTS.get(sys.argv[1], ("asyncio", nothing))
        print(json.dumps(anyio.run(measure, client, Task(**json.loads(sys.argv[2])), backend=backend)))
        return
    ca = trustme.CA()
    print(
        "| what | client | gap by the clock, ms | gap on the CPU, ms | messages a second | CPU of one, ms | threads |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="securesmtp-bench-") as folder:
        ca_file, certificate = Path(folder, "ca.pem"), Path(folder, "certificate.pem")
        ca_file.write_bytes(ca.cert_pem.bytes())
        certificate.write_bytes(ca.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
        Path(folder, "content").write_bytes(b"Subject: a file\r\n\r\n" + (b"y" * 76 + b"\r\n") * 320_512)
        with sink(str(certificate), "PIPELINING CHUNKING") as server:
            for title, (message, count, connections) in CASES.items():
                task = Task(server.port, str(ca_file), count, connections, message=message, folder=folder)
                for name in SHOWN:
                    # Only AsyncSecureMailer sends a file.
                    if message != "file" or name in SHOWN[:3]:
                        rounds = [_measured(name, task) for _ in range(ROUNDS)]
                        _report(f"{title}, {connections} connections", name, rounds)


def _measured(name: str, task: Task) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.loop_lag", name, json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    took: dict[str, float] = json.loads(done.stdout)
    return took


def _report(title: str, client: str, rounds: list[dict[str, float]]) -> None:
    took = {what: median(each[what] for each in rounds) for what in rounds[0]}
    gaps = [f"{took[what] * 1000:.1f}" for what in ("gap", "gap on the CPU")]
    rest = [_shown(1 / took["seconds"]), _shown(took["cpu"] * 1000), f"{took['threads']:.0f}"]
    row = [title, client, *gaps, *([""] * 3 if client == SHOWN[0] else rest)]
    print(f"| {' | '.join(row)} |", flush=True)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
