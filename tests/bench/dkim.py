"""
Measure the CPU of one DKIM signature: this library, dkimpy, nodemailer, and the bare RSA signature.

`python -m bench.dkim [--node-modules FOLDER] [--rounds N]` prints a row for each size of a message. The programs take
turns, and the best of the rounds counts. The aim: at most 1.5 times the bare signature for a message of 2 kB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial as bind
from pathlib import Path
from typing import Any

import dkim
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from securesmtp.signing import DKIM
from securesmtp.signing._keys import make_key

HERE = Path(__file__).parent
HEAD = (
    b"From: a@example.org\r\nTo: b@example.org\r\nSubject: A benchmark\r\nDate: Fri, 27 Nov 2026 19:00:00 +0000\r\n"
    b"Message-ID: <1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
)
# Each with the signatures to make in a round: dkimpy takes a second for one of a large message.
SIZES = {"2 kB": (2_000, 200), "100 kB": (100_000, 50), "25 MB": (25_000_000, 1)}


def message(octets: int) -> bytes:
    """Return a message of so many octets, in lines as base64 has."""
    line = b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0\r\n"
    return HEAD + line * (octets // len(line))


def cpu(action: Callable[[], object], count: int) -> float:
    """Return the seconds of CPU of one call of *action*."""
    action()
    began = time.process_time()
    for _ in range(count):
        action()
    return (time.process_time() - began) / count


def _dkimpy(data: bytes, pem: bytes) -> bytes:
    field: bytes = dkim.sign(data, b"m", b"example.org", pem, canonicalize=(b"relaxed", b"relaxed"))
    return field


def _nodemailer(node_modules: str, key: Path, data: Path, count: int) -> float:
    task = {"key": str(key), "message": str(data), "count": count}
    command = ["node", str(HERE / "dkim_nodemailer.cjs"), json.dumps(task)]
    environment = {**os.environ, "NODE_PATH": node_modules}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def measure(octets: int, count: int, rounds: int, node_modules: str | None) -> dict[str, float]:
    """Return the seconds of CPU of one signature over a message of so many octets, by program."""
    data, pem = message(octets), make_key(2048)
    key: Any = load_pem_private_key(pem, None)
    ours, arguments = DKIM("example.org", "m", pem), (PKCS1v15(), SHA256())
    with tempfile.TemporaryDirectory() as folder:
        key_file, data_file = Path(folder, "key.pem"), Path(folder, "message.eml")
        key_file.write_bytes(pem)
        data_file.write_bytes(data)
        runs: dict[str, Callable[[], float]] = {
            "bare RSA": bind(cpu, bind(key.sign, data[:600], *arguments), count),
            "securesmtp": bind(cpu, bind(ours.sign, data), count),
            "dkimpy": bind(cpu, bind(_dkimpy, data, pem), max(count // 20, 1)),
        }
        if node_modules is not None:
            runs["nodemailer"] = bind(_nodemailer, node_modules, key_file, data_file, count)
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                taken[name].append(run())
    return {name: min(each) for name, each in taken.items()}


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node-modules", help="the folder where npm put nodemailer")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    modules = options.node_modules if shutil.which("node") else None
    for size, (octets, count) in SIZES.items():
        found = measure(octets, count, options.rounds, modules)
        bare = found["bare RSA"]
        cells = [f"{name} {1000 * taken:.3f} ms ({taken / bare:.2f} x)" for name, taken in found.items()]
        print(f"{size}: {', '.join(cells)}")


if __name__ == "__main__":
    main()
