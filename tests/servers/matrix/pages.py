"""Write the tables of docs/explanation/servers.md: `python -m servers.matrix.pages COLUMNS FOLDER`."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from servers.kinds import KINDS
from servers.matrix.cells import Cell, Combination, Verdict
from servers.matrix.letters import LETTERS
from servers.matrix.specials import EARLY, IDLE, IN_FLIGHT, LATE, OVER_ONE, RESTARTED
from servers.real import Ability

ROWS = (*LETTERS, OVER_ONE, IN_FLIGHT, IDLE, RESTARTED, LATE, EARLY)
# Rows that need an ability of the server.
NEEDED: dict[str, Ability] = {RESTARTED: "restart", EARLY: "greeting"}
# As people write the names of the servers.
NAMES = {
    "postfix": "Postfix",
    "exim": "Exim",
    "opensmtpd": "OpenSMTPD",
    "dovecot": "Dovecot 2.3",
    "dovecot24": "Dovecot 2.4",
    "sendmail": "Sendmail",
    "courier": "Courier",
    "haraka": "Haraka",
    "smtp_server": "smtp-server",
}
MODES = {"implicit": "implicit TLS", "starttls": "STARTTLS"}


@dataclass(frozen=True)
class Entry:
    """
    The cells of one row and one server together.

    Attributes:
        verdict: The worst, but "right" if it is right in some of the ways.
        ways: In how many ways it was tried.
        only: The one mode of TLS in which it is right, or nothing.
        detail: What the server replies, or what it lacks, where it cannot.
    """

    verdict: Verdict
    ways: int
    only: str = ""
    detail: str = ""

    def __str__(self) -> str:
        """Return it as the table has it."""
        return f"{self.verdict}, with {self.only}" if self.only else self.verdict


def save(folder: Path, name: str, version: str, cells: Sequence[Cell]) -> None:
    """Write the column of one server."""
    folder.mkdir(exist_ok=True, parents=True)
    values = {"version": version, "cells": [[each.row, *each.combination, each.verdict, each.detail] for each in cells]}
    (folder / f"{name}.json").write_text(json.dumps(values, indent=1, ensure_ascii=False), "utf-8")


def load(folder: Path) -> tuple[dict[str, str], list[Cell]]:
    """Return the versions of the servers, and the cells of all of them."""
    versions, cells = dict[str, str](), list[Cell]()
    for name in KINDS:
        if (path := folder / f"{name}.json").exists():
            column = json.loads(path.read_text("utf-8"))
            versions[name] = column["version"]
            cells += [
                Cell(row, name, Combination(mode, face, way), verdict, detail)
                for row, mode, face, way, verdict, detail in column["cells"]
            ]
    return versions, cells


def summarise(cells: Sequence[Cell]) -> Entry:
    """Return what all *cells* of a row and a server come to."""
    verdicts = {cell.verdict for cell in cells}
    details = sorted({cell.detail for cell in cells if cell.verdict != "right"})
    if "wrong" in verdicts:
        return Entry("wrong", len(cells), detail="; ".join(details))
    right = {cell.combination.mode for cell in cells if cell.verdict == "right"}
    if verdicts == {"right", "cannot"}:
        only = " and ".join(MODES[mode] for mode in sorted(right))
        return Entry("right", len(cells), only, details[0])
    return Entry(cells[0].verdict, len(cells), detail="".join(details[:1]))


def entries(cells: Sequence[Cell], servers: Iterable[str]) -> dict[tuple[str, str], Entry]:
    """Return the entry of each row and server, also of what is not tried, because the server is known to lack it."""
    together: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        together.setdefault((cell.row, cell.server), []).append(cell)
    found = {key: summarise(each) for key, each in together.items()}
    for row, ability in NEEDED.items():
        for server in servers:
            if not KINDS[server].can(ability):
                found.setdefault((row, server), Entry("cannot", 0, detail=KINDS[server].cannot[ability]))
    missing = [(row, server) for row in ROWS for server in servers if (row, server) not in found]
    if missing:
        raise ValueError(f"no cells: {missing}")
    return found


def write(folder: Path, versions: Mapping[str, str], found: Mapping[tuple[str, str], Entry]) -> None:
    """Write the values, the table, and what the servers cannot do."""
    folder.mkdir(exist_ok=True, parents=True)
    values = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "servers": dict(versions),
        "rows": {
            row: {
                server: [str(found[row, server]), found[row, server].ways, found[row, server].detail]
                for server in versions
            }
            for row in ROWS
        },
    }
    (folder / "matrix.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", "utf-8")
    names = [NAMES.get(server, server) for server in versions]
    lines = [["message", *names], *([row, *(str(found[row, server]) for server in versions)] for row in ROWS)]
    (folder / "matrix.md").write_text(_table(lines), "utf-8")
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in ROWS:
        for server in versions:
            if detail := found[row, server].detail:
                reasons.setdefault((row, detail), []).append(NAMES.get(server, server))
    lines = [
        ["message", "server", "why not"],
        *([row, ", ".join(cannot), why] for (row, why), cannot in reasons.items()),
    ]
    (folder / "cannot.md").write_text(_table(lines), "utf-8")
    lines = [["server", "version"], *([NAMES.get(server, server), version] for server, version in versions.items())]
    (folder / "versions.md").write_text(_table(lines), "utf-8")


def main() -> None:
    """Write the tables of all columns."""
    columns, folder = (Path(argument) for argument in sys.argv[1:])
    versions, cells = load(columns)
    write(folder, versions, entries(cells, versions))


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rest])


if __name__ == "__main__":
    main()
