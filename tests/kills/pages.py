"""Write the tables of docs/explanation/kills.md: `python -m kills.pages FOLDER FILE...`, files of `kills --out`."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kills.accounts import Row

LEDGERS = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "redis": "Redis", "smtplib": "none: `smtplib`, and a note"}
VICTIMS = ("worker", "database", "mail server", "Redis broker", "RabbitMQ broker", "network")


def read(paths: Sequence[Path]) -> list[Row]:
    """Return the rows of these files, in the order of the tables; the file that `write` has written is one, too."""
    files = [json.loads(path.read_text("utf-8")) for path in paths]
    values = [row for file in files for row in (file["rows"] if isinstance(file, dict) else file)]
    rows = [Row(**{**each, "wrong": tuple(each["wrong"])}) for each in values]
    return sorted(rows, key=lambda row: (VICTIMS.index(row.victim), list(LEDGERS).index(row.ledger)))


def table(header: str, rows: Sequence[Sequence[object]]) -> str:
    """Return a table; numbers have commas."""
    names = header.split(" | ")
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(_shown(cell) for cell in line)} |\n" for line in lines)


def _shown(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def write(rows: Sequence[Row], folder: Path) -> None:
    """Write the values, and a table for each section of the page."""
    folder.mkdir(exist_ok=True)
    machine = {"machine": platform.machine(), "python": platform.python_version()}
    values = {**machine, "rows": [asdict(row) for row in rows]}
    (folder / "kills.json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    plain = [row for row in rows if "broker" not in row.victim and row.victim != "network"]
    tables = {
        "kills": table(
            "killed | ledger | kills | messages | arrived | lost | twice | doubtful | open claims | lost replies",
            [
                (
                    *(row.victim, LEDGERS[row.ledger], row.kills, row.asked, row.arrived, row.lost, row.doubled),
                    *(row.doubtful, row.open_claims, row.unread_replies),
                )
                for row in plain
            ],
        ),
        "brokers": table(
            "killed | ledger | kills | messages | arrived | lost | twice | doubtful | published again | restarted",
            [
                (
                    *(row.victim, LEDGERS[row.ledger], row.kills, row.asked, row.arrived, row.lost, row.doubled),
                    *(row.doubtful, row.published_again, row.restarts),
                )
                for row in rows
                if "broker" in row.victim
            ],
        ),
        "machines": table(
            "ledger | back in time | back too late | killed meanwhile | messages | arrived | lost | twice | doubtful",
            [
                (
                    LEDGERS[row.ledger],
                    *(row.steps.get(way, 0) for way in ("back in time", "back too late", "killed")),
                    *(row.asked, row.arrived, row.lost, row.doubled, row.doubtful),
                )
                for row in rows
                if row.victim == "network"
            ],
        ),
    }
    for name, text in tables.items():
        (folder / f"{name}.md").write_text(text, "utf-8")


def main() -> None:
    """Read the files, and write the tables."""
    folder, *paths = map(Path, sys.argv[1:])
    write(read(paths), folder)


if __name__ == "__main__":
    main()
