"""
Does a mailer use more cores when more threads send with it? Messages a second and CPU, by threads and connections.

`python -m bench.free_threads` prints a table. With the interpreter's lock, one thread runs at a time, so a second one
helps only while the first waits. A free-threaded Python (3.14t, `PYTHON_GIL=0`) has no such lock; the first line says
what runs. The server is on this machine, and has a core of its own only if there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from bench.calls import server
from bench.clients import LOGIN, Task, message
from bench.machine import Noise, description, watched
from securesmtp import SecureMailer

# Threads and connections.
CASES = ((1, 1), (2, 1), (2, 2), (4, 2), (4, 4))


def has_lock() -> bool:
    """Return whether this interpreter has a lock that lets one thread run at a time."""
    is_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_enabled is None or bool(is_enabled())


def measure(task: Task, threads: int) -> tuple[float, float]:
    """Return the seconds and the CPU seconds that one message takes."""
    mail = message(task)

    def send(count: int) -> None:
        for _ in range(count):
            mailer.send(mail)

    with (
        SecureMailer(
            "localhost",
            task.port,
            username=LOGIN[0],
            password=LOGIN[1],
            ca_file=task.ca,
            max_connections=task.connections,
        ) as mailer,
        ThreadPoolExecutor(threads) as pool,
    ):
        list(pool.map(send, repeat(3, threads)))
        began, cpu = time.perf_counter(), time.process_time()
        list(pool.map(send, repeat(task.count // threads, threads)))
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
    return seconds / task.count, used / task.count


def main() -> None:
    """Print the table: the best of several rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    best = dict.fromkeys(CASES, (float("inf"), float("inf")))
    noise: list[Noise] = []
    with watched(noise), server() as (port, ca):
        for _ in range(chosen.rounds):
            for threads, connections in CASES:
                took = measure(Task(port, ca, chosen.count, connections), threads)
                best[threads, connections] = min(best[threads, connections], took)
    print(f"{description()}, {'with' if has_lock() else 'without'} the interpreter's lock; {noise[0]}\n")
    print("| threads | connections | messages a second | of one thread's | CPU of a message | cores |")
    print("| --- | --- | --- | --- | --- | --- |")
    alone = best[CASES[0]][0]
    for (threads, connections), (seconds, used) in best.items():
        row = [threads, connections, f"{1 / seconds:,.0f}", f"{alone / seconds:.2f}", f"{used * 1e6:.0f} µs"]
        print(f"| {' | '.join(map(str, row))} | {used / seconds:.2f} |")


if __name__ == "__main__":
    main()
