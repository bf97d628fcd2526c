"""
The message matrix: every kind of message, to every real server, in every way: `python -m servers.matrix --out FOLDER`.

As root, on Linux, for about half an hour; `nox -s servers` runs it. Names of servers select some. It fails if a cell is
wrong. The servers that end idle connections only after minutes are waited for while the others are tried. Each server's
column is a file in the folder, and `python -m servers.matrix.pages` makes the tables of all of them.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import trustme

from faces import Faces
from servers.kinds import KINDS
from servers.matrix.cells import Cell, Combination
from servers.matrix.letters import LETTERS
from servers.matrix.pages import save
from servers.matrix.run import Column, combinations
from servers.matrix.specials import OVER_ONE, early, late, over_one_connection, restarted
from servers.real import RealServer

# Seconds: of a server that can be told how long it waits for a command, and when it greets.
IMPATIENT, DELAY = 3, 2

Finish = Callable[[], list[Cell]]


class Matrix:
    """Starts the servers one after the other, and fills their columns."""

    def __init__(self, stack: ExitStack) -> None:
        """Stop everything when *stack* ends."""
        self.stack, self.ca, self.faces = stack, trustme.CA(), Faces(stack)
        self.versions: dict[str, str] = {}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="securesmtp-matrix-")))
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))

    def column(self, stack: ExitStack, name: str, chosen: list[Combination] | None = None, **options: int) -> Column:
        """Start a server until *stack* ends."""
        # The servers do not run as root, and may not enter the folder of another user.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="securesmtp-"))
        server: RealServer = stack.enter_context(KINDS[name](Path(folder), self.ca, **options))
        self.versions[name] = server.version
        return Column(server, chosen or combinations(server), self.faces, self.ca_file)

    def wait_for_patient(self, name: str) -> Finish | None:
        """Begin the row of the idle connections with a server that cannot be made impatient."""
        if KINDS[name].can("patience"):
            return None
        return self.stack.enter_context(self.column(self.stack, name).idle())

    def cells(self, name: str, finish: Finish | None) -> Iterator[Cell]:
        """Yield the other cells of a column."""
        with ExitStack() as stack:
            column = self.column(stack, name)
            yield from column.messages(list(LETTERS))
            yield from column.connections(over_one_connection, late)
            if KINDS[name].can("restart"):
                yield from column.connections(restarted)
            tolerated, doubles = column.tolerated, column.tally.doubles()
        if doubles:
            yield Cell(OVER_ONE, name, tolerated[0], "wrong", f"arrived twice: {doubles}")
        if KINDS[name].can("greeting"):
            with ExitStack() as stack:
                yield from self.column(stack, name, tolerated, greeting_delay=DELAY).connections(early)
        if finish is None:
            with ExitStack() as stack:
                column = self.column(stack, name, tolerated, patience=IMPATIENT)
                yield from stack.enter_context(column.idle())()


def main() -> int:
    """Run the matrix."""
    parser = argparse.ArgumentParser(prog="python -m servers.matrix", description=__doc__)
    parser.add_argument("servers", nargs="*", metavar="SERVER", help=f"default: all of {', '.join(KINDS)}")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the columns")
    arguments = parser.parse_args()
    missing = {name: reason for name, kind in KINDS.items() if (reason := kind.missing()) is not None}
    for name, reason in missing.items():
        _say(f"{name} is left out: {reason}")
    if missing and os.environ.get("SECURESMTP_REQUIRE_SERVERS") == "1":
        return 1
    # Otherwise the servers would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = [name for name in arguments.servers or KINDS if name not in missing]
    with ExitStack() as stack:
        matrix, found = Matrix(stack), dict[str, list[Cell]]()
        waiting = {name: matrix.wait_for_patient(name) for name in names}
        for name in names:
            before = time.monotonic()
            found[name] = list(_reported(replace(cell, server=name) for cell in matrix.cells(name, waiting[name])))
            if waiting[name] is None:
                save(arguments.out, name, matrix.versions[name], found[name])
            _say(f"{name}: {time.monotonic() - before:.0f} s")
        for name, finish in waiting.items():
            if finish is not None:
                found[name] += _reported(replace(cell, server=name) for cell in finish())
                save(arguments.out, name, matrix.versions[name], found[name])
    return int(any(cell.verdict == "wrong" for cells in found.values() for cell in cells))


def _reported(cells: Iterable[Cell]) -> Iterator[Cell]:
    for cell in cells:
        if cell.verdict == "wrong":
            _say(f"wrong: {cell}")
        yield cell


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
