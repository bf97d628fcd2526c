"""
A million messages of 2 kB to a server 100 ms away, over TLS: time, CPU and memory, from one process and from two.

`python -m bench.million --out FILE` sends them; with `--count 10000` it takes seconds. Each message is an EmailMessage
of its own, made while the others are sent, with its own recipient and Message-ID. The mailer has its defaults but for
`pipelining="session"` and the number of connections. The server counts each serial number, so a message that was lost
or came twice is seen; then, and only then, the program fails.

The network is `bench.network`'s: it needs root on Linux. *Limit* sends prepared bytes without a library, and shows what
network and server can take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from email.message import EmailMessage
from itertools import pairwise
from pathlib import Path
from typing import Any

import trustme

from bench import network
from bench.clients import LOGIN, Task, text
from bench.counting import counting_sink
from bench.limit import Limit
from bench.machine import Noise, description, watched
from bench.processes import cpu_seconds, memory_bytes
from securesmtp import Envelope, SecureMailer

# Points of the curve of memory, for each process.
_SAMPLES = 200
# Messages in flight on each of the connections of the limit.
_WINDOW = 512
_CPU = {
    "cpu": "client",
    "making": "of which making the messages",
    "server_cpu": "server",
    "network_cpu": "network",
}
_SENDER = "a@example.test"


class Making:
    """Makes the messages, and measures what that costs the program before the library has them."""

    def __init__(self) -> None:
        """Have made none."""
        self.cpu = 0.0

    def emails(self, serials: range) -> Iterator[EmailMessage]:
        """Make EmailMessages, as Python's documentation does."""
        body = text()
        for serial in serials:
            began = time.thread_time()
            mail = EmailMessage()
            mail["From"], mail["To"], mail["Subject"] = _SENDER, f"{serial}@example.test", "A benchmark"
            mail["Date"], mail["Message-ID"] = "Tue, 24 Nov 2026 12:00:00 +0000", f"<{serial}.1@example.test>"
            mail.set_content(body)
            self.cpu += time.thread_time() - began
            yield mail

    def envelopes(self, serials: range) -> Iterator[Envelope]:
        """Make bytes from a template, as a program for mailings does."""
        (first,) = Making().emails(range(1))
        template = first.as_bytes(policy=first.policy.clone(linesep="\r\n"))
        for serial in serials:
            began = time.thread_time()
            content = template.replace(b" 0@", b" %d@" % serial).replace(b"<0.", b"<%d." % serial)
            envelope = Envelope(_SENDER, [f"{serial}@example.test"], content)
            self.cpu += time.thread_time() - began
            yield envelope


def send(arguments: argparse.Namespace) -> dict[str, Any]:
    """Send a part of the messages; return what it took."""
    making, serials = Making(), range(arguments.first, arguments.first + arguments.count)
    messages = making.envelopes(serials) if arguments.octets else making.emails(serials)
    began, failed, curve = time.perf_counter(), 0, [(0.0, memory_bytes())]
    with SecureMailer(
        network.FAR,
        arguments.port,
        username=LOGIN[0],
        password=LOGIN[1],
        ca_file=arguments.ca,
        max_connections=arguments.connections,
        pipelining="session",
    ) as mailer:
        every = max(1, arguments.count // _SAMPLES)
        for number, result in enumerate(mailer.send_many(messages), 1):
            failed += result.receipt is None
            if not number % every:
                curve.append((time.perf_counter() - began, memory_bytes()))
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time(),
        "making": making.cpu,
        "failed": failed,
        "highest": memory_bytes("VmHWM"),
        "curve": curve,
    }


def send_limit(arguments: argparse.Namespace) -> dict[str, Any]:
    """Send the same with nothing but sockets; the messages are made before the clock starts."""
    context = Task(arguments.port, arguments.ca).context()
    flights = []
    for envelope in Making().envelopes(range(arguments.first, arguments.first + arguments.count)):
        (recipient,), content = envelope.recipients, envelope.content
        assert isinstance(content, bytes)
        opening = f"MAIL FROM:<{_SENDER}>\r\nRCPT TO:<{recipient}>\r\nBDAT {len(content)} LAST\r\n"
        flights.append(opening.encode() + content)
    began, cpu = time.perf_counter(), time.process_time()

    def share(number: int) -> None:
        limit = Limit(arguments.port, context, LOGIN, network.FAR)
        limit.send_flights(flights[number :: arguments.connections], 3, _WINDOW)

    with ThreadPoolExecutor(arguments.connections) as pool:
        list(pool.map(share, range(arguments.connections)))
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "making": 0.0, "failed": 0}


def run(client: str, processes: int, count: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Send so many messages from so many processes; return what it took."""
    noise: list[Noise] = []
    with (
        watched(noise),
        tempfile.TemporaryDirectory(prefix="securesmtp-bench-") as folder,
        network.delay(chosen.rtt / 1000) as delaying,
    ):
        ca, ca_file, certificate = trustme.CA(), Path(folder, "ca.pem"), Path(folder, "certificate.pem")
        ca_file.write_bytes(ca.cert_pem.bytes())
        certificate.write_bytes(ca.issue_cert(network.FAR).private_key_and_cert_chain_pem.bytes())
        with counting_sink(network.NEAR, str(certificate), count) as sink:
            before = sink.cpu, cpu_seconds(delaying)
            began = time.perf_counter()
            task = Task(sink.port, str(ca_file), count, chosen.connections)
            took = _clients(client, processes, task, *["--octets"] * chosen.octets)
            found = {
                "client": client,
                "count": count,
                "seconds": time.perf_counter() - began,
                "cpu": sum(each["cpu"] for each in took),
                "making": sum(each["making"] for each in took),
                "server_cpu": sink.cpu - before[0],
                "network_cpu": cpu_seconds(delaying) - before[1],
                "failed": sum(each["failed"] for each in took),
                "delivered": asdict(sink.delivered()),
                "processes": took,
            }
    return found | {"noise": asdict(noise[0]), "is_noisy": noise[0].is_noisy}


def _clients(client: str, processes: int, task: Task, *form: str) -> list[dict[str, Any]]:
    """Have each process send its share, at the same time."""
    firsts = [task.count * number // processes for number in range(processes + 1)]
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.million", "--client", client, "--port", str(task.port), "--ca", task.ca),
                *("--connections", str(task.connections), "--first", str(first), "--count", str(end - first), *form),
            ],
            stdout=subprocess.PIPE,
        )
        for first, end in pairwise(firsts)
    ]
    printed = [each.communicate()[0] for each in started]
    if any(each.returncode for each in started):
        raise RuntimeError("a client failed; its output is above")
    return list(map(json.loads, printed))


def report(found: dict[str, Any]) -> bool:
    """Print one run; return whether each message came once."""
    count, seconds, processes = found["count"], found["seconds"], len(found["processes"])
    delivered = found["delivered"]
    print(f"\n{found['client']}, {processes} process{'es' * (processes > 1)}, {count:,} messages: ", end="")
    print(f"{seconds:,.0f} s, {count / seconds:,.0f} a second, {delivered['connections']} connections opened")
    for key, name in _CPU.items():
        used = found[key]
        print(f"  {name:28}{used:8.1f} s of CPU{used / count * 1e6:8.0f} µs a message{used / seconds:6.2f} cores")
    if highest := [f"{took['highest'] / 1e6:.0f} MB" for took in found["processes"] if "highest" in took]:
        print(f"  memory at the highest: {', '.join(highest)}")
    wrong = {name: delivered[name] for name in ("missing", "doubled", "mixed")} | {"failed": found["failed"]}
    print(" ", ", ".join(f"{name} {number}" for name, number in wrong.items()))
    print(f"  {Noise(**found['noise'])}", flush=True)
    return not any(wrong.values())


def main() -> int:
    """Send, print, write down; return 1 if a message was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=10, help="of each process")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rtt", type=float, default=100, help="in milliseconds")
    parser.add_argument("--octets", action="store_true", help="send bytes made from a template, not EmailMessages")
    parser.add_argument("--limit", action="store_true", help="measure the limit as well, with fewer messages")
    parser.add_argument("--out", type=Path)
    for name, kind in (("--client", str), ("--port", int), ("--ca", str), ("--first", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.client:
        print(json.dumps((send_limit if chosen.client == "limit" else send)(chosen)))
        return 0
    if why := network.missing():
        print(f"there is no network of its own here: {why}", file=sys.stderr)
        return 2
    network.enter("bench.million")
    runs = []
    if chosen.limit:
        runs.append(run("limit", 1, min(chosen.count, max(1000, chosen.count // 20)), chosen))
    runs += [run("securesmtp", processes, chosen.count, chosen) for processes in chosen.processes]
    if chosen.out:
        measured = {"machine": description(), "rtt": chosen.rtt, "connections": chosen.connections, "runs": runs}
        chosen.out.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    complete = [report(found) for found in runs]
    return 0 if all(complete) else 1


if __name__ == "__main__":
    sys.exit(main())
