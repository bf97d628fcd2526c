"""
How many messages a SQLite ledger takes in a second: each is claimed and finished, so many at a time.

`PYTHONPATH=tests python tests/bench/ledger.py [FOLDER]` measures the disk of this folder: each batch waits for it
twice.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesmtp import Certificate, Outcome, Receipt, Recipient, Reply, SendResult, TLSInfo, TLSMode
from securesmtp.ledger import Item, SQLiteLedger

SIZES = (1, 10, 50, 200)
# The best of so many rounds, because what else the machine does only slows it.
ROUNDS, SECONDS = 6, 0.5


def usual_result() -> SendResult:
    """Return a result as a public server gives it: three certificates, one recipient."""
    start, end = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 12, 30, tzinfo=UTC)
    chain = tuple(
        Certificate(f"name {number}", f"name {number + 1}", ("smtp.example.com",), start, end, "ab" * 32)
        for number in range(3)
    )
    name = "smtp.example.com"
    cipher = "TLS_AES_256_GCM_SHA384"
    tls = TLSInfo(TLSMode.IMPLICIT, "TLSv1.3", cipher, name, "certifi", "ab" * 32, f"sha256/{'a' * 44}", end, chain)
    accepted = Reply(250, "2.0.0", "2.0.0 Ok: queued as 4c1Bhq2vXzz1Jm", b"2.0.0 Ok: queued as 4c1Bhq2vXzz1Jm")
    person = Recipient("somebody@example.com", accepted=True, reply=Reply(250, "2.1.5", "2.1.5 Ok", b"2.1.5 Ok"))
    receipt = Receipt(
        "<1@example.com>", "me@example.com", (person,), accepted, tls, 2048, timedelta(seconds=0.2), (accepted,)
    )
    return SendResult(0, "<1@example.com>", Outcome.ACCEPTED, receipt)


def rate(ledger: SQLiteLedger, size: int, number: int) -> float:
    """Return the messages in a second, *size* at a time, in this round."""
    result, done, begin = usual_result(), 0, time.perf_counter()
    while (took := time.perf_counter() - begin) < SECONDS:
        names = [f"{size}-{number}-{done + more}@example.com" for more in range(size)]
        items = [Item(name, "ab" * 32, f"<{name}>") for name in names]
        ledger.claim(items, "token")
        ledger.finish({item.key: result for item in items}, "token")
        done += size
    return done / took


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        path = Path(folder) / "ledger.sqlite"
        with SQLiteLedger(path) as ledger:
            print("| messages at a time | messages in a second |\n| --- | --- |")
            for size in SIZES:
                best = max(rate(ledger, size, number) for number in range(ROUNDS))
                print(f"| {size} | {best:,.0f} |", flush=True)
            count = sum(1 for _ in ledger.entries())
        print(f"\n{path.stat().st_size / count:,.0f} bytes for each of {count:,} messages")


if __name__ == "__main__":
    main()
