"""Kill what a mailing needs, and print a table: `PYTHONPATH=tests python -m kills --kills 200 worker/sqlite`."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import trustme

from databases import Database, PostgreSQL, RabbitMQ, Redis
from kills.accounts import Row
from kills.brokers import BrokerKiller
from kills.killer import Killer
from kills.servers import MortalPostfix, Victim
from kills.workers import nursery

# What is killed, over which ledger.
CASES = (
    "worker/smtplib",
    "mail server/smtplib",
    "worker/sqlite",
    "worker/postgresql",
    "worker/redis",
    "database/postgresql",
    "database/redis",
    "mail server/sqlite",
    "mail server/postgresql",
    "mail server/redis",
    "Redis broker/sqlite",
    "Redis broker/postgresql",
    "Redis broker/redis",
    "RabbitMQ broker/sqlite",
)

BROKERS: dict[str, type[Database]] = {"Redis broker": Redis, "RabbitMQ broker": RabbitMQ}


def run(case: str, kills: int, seed: int) -> Row:
    """Run one case, with servers of its own."""
    victim, kind = case.split("/")
    with ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="securesmtp-kills-")))

        postfix = stack.enter_context(MortalPostfix(folder(), trustme.CA()))
        where, target = "", None
        if kind in {"sqlite", "smtplib"}:
            where = str(folder() / "ledger.sqlite")
        else:
            database = stack.enter_context({"postgresql": PostgreSQL, "redis": Redis}[kind](folder()))
            where, target = database.url, database
        if victim in BROKERS:
            broker = stack.enter_context(BROKERS[victim](folder()))
            chance = random.Random(seed)
            killer = BrokerKiller(kind, where, postfix, broker, broker.url, chance, f"broker{kind}{seed}")
            return killer.run(kills, victim)
        targets: dict[str, Victim | None] = {"worker": None, "database": target, "mail server": postfix}
        workers = stack.enter_context(nursery())
        chance = random.Random(seed)
        return Killer(victim, kind, where, postfix, targets[victim], chance, workers, f"{kind}{seed}").run(kills)


def main() -> None:
    """Run the cases, and print a row for each."""
    parser = argparse.ArgumentParser(prog="kills")
    parser.add_argument("cases", nargs="*", default=CASES, help="such as worker/sqlite")
    parser.add_argument("--kills", type=int, default=216, help="twelve at each step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file for the rows, as JSON")
    options = parser.parse_args()
    # So that the servers end as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows = []
    for case in options.cases:
        begun = time.monotonic()
        row = run(case, options.kills, options.seed)
        rows.append(row)
        sys.stdout.write(f"{row} in {time.monotonic() - begun:.0f} s\n")
        sys.stdout.flush()
        if options.out is not None:
            options.out.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")
    sys.exit(any(row.lost or row.doubled or row.wrong for row in rows if row.ledger != "smtplib"))


if __name__ == "__main__":
    main()
