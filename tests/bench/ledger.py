"""
How many messages each ledger takes in a second: each is claimed and finished, so many at a time.

`PYTHONPATH=tests python tests/bench/ledger.py [FOLDER]` measures the disk of this folder, on which all three databases
are. SQLite and Redis write the ends of a batch with the claims of the next one, in one commit. PostgreSQL and Redis are
processes of their own on the same machine, and write as safely as SQLite does: each commit is on the disk. A database
that is not installed is left out.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from redis import Redis as RedisClient

from bench.machine import Noise, watched
from databases import PostgreSQL, Redis
from securesmtp import Certificate, Outcome, Receipt, Recipient, Reply, SendResult, TLSInfo, TLSMode
from securesmtp.ledger import Item, Ledger, PostgreSQLLedger, RedisLedger, SQLiteLedger

SIZES = (1, 10, 50, 200)
# The best of so many rounds, because what else the machine does only slows it. All ledgers have a turn in each.
ROUNDS, SECONDS = 6, 0.5


class DurablePostgreSQL(PostgreSQL):
    """With each commit on the disk, as it is by default."""

    def _command(self) -> list[str]:
        return [*super()._command(), "-c", "fsync=on"]


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


def rate(ledger: Ledger, size: int, number: int) -> float:
    """Return the messages in a second, *size* at a time, in this round."""
    result, done, begin = usual_result(), 0, time.perf_counter()
    ends: dict[str, SendResult] = {}
    # As `send_many` does.
    advance = getattr(ledger, "advance", None)
    while (took := time.perf_counter() - begin) < SECONDS:
        names = [f"{size}-{number}-{done + more}@example.com" for more in range(size)]
        items = [Item(name, "ab" * 32, f"<{name}>") for name in names]
        if advance and ends:
            advance(ends, items, "token")
        else:
            ledger.finish(ends, "token")
            ledger.claim(items, "token")
        ends = {item.key: result for item in items}
        done += size
    ledger.finish(ends, "token")
    return done / took


@contextmanager
def opened(folder: Path) -> Iterator[tuple[dict[str, Ledger], dict[str, int]]]:
    """Open a ledger in each database; the second value is filled at the end: the octets that they take."""
    ledgers: dict[str, Ledger] = {}
    octets: dict[str, int] = {}
    with ExitStack() as stack:
        for kind in (DurablePostgreSQL, Redis):
            if (missing := kind.missing()) is not None:
                print(f"{kind.name} is left out. {missing}")
                continue
            directory = folder / kind.name
            directory.mkdir()
            database = stack.enter_context(kind(directory))
            if isinstance(database, PostgreSQL):
                ledgers["PostgreSQL"] = stack.enter_context(PostgreSQLLedger(database.url))
                stack.callback(_measure_postgresql, database, octets)
            else:
                ledgers["Redis"] = stack.enter_context(RedisLedger(database.url))
                before = _memory(database.url)
                stack.callback(_measure_redis, database.url, before, octets)
        path = folder / "ledger.sqlite"
        ledgers = {"SQLite": stack.enter_context(SQLiteLedger(path)), **ledgers}
        yield ledgers, octets
        octets["SQLite"] = path.stat().st_size


def _measure_postgresql(database: PostgreSQL, octets: dict[str, int]) -> None:
    with psycopg.connect(database.url) as connection:
        (found,) = connection.execute("SELECT pg_total_relation_size('securesmtp_ledger')").fetchone() or (0,)
        octets["PostgreSQL"] = int(found)


def _measure_redis(url: str, before: int, octets: dict[str, int]) -> None:
    octets["Redis"] = _memory(url) - before


def _memory(url: str) -> int:
    with RedisClient.from_url(url) as client:
        return int(client.info("memory")["used_memory_dataset"])


def main() -> None:
    """Measure and print."""
    noise: list[Noise] = []
    # Not pytest's: PostgreSQL does not run as root, and must get into it.
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with watched(noise), opened(folder) as (ledgers, octets):
            print(f"| messages at a time | {' | '.join(ledgers)} |\n|{' --- |' * (1 + len(ledgers))}")
            for size in SIZES:
                best = dict.fromkeys(ledgers, 0.0)
                for number in range(ROUNDS):
                    for each, ledger in ledgers.items():
                        best[each] = max(best[each], rate(ledger, size, number))
                print(f"| {size} | {' | '.join(f'{found:,.0f}' for found in best.values())} |", flush=True)
            counts = {each: sum(1 for _ in ledger.entries()) for each, ledger in ledgers.items()}
    print("messages in a second, of one caller")
    for each, count in counts.items():
        print(f"{each}: {octets[each] / count:,.0f} octets for each of {count:,} messages")
    print(noise[0])


if __name__ == "__main__":
    main()
