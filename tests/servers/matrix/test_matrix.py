"""
The part of the matrix that every run tries: each message to each server, in a few of the ways.

`-m exhaustive` tries all ways; `nox -s servers` runs the whole matrix and writes its tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from faces import Faces
from servers.kinds import KINDS, running
from servers.matrix.cells import Cell, Combination
from servers.matrix.letters import HEAVY, LETTERS
from servers.matrix.pages import entries
from servers.matrix.run import Column, combinations
from servers.matrix.specials import EARLY, IDLE, IN_FLIGHT, LATE, RESTARTED, early, late, restarted
from servers.real import Ability, RealServer

TABLE = Path(__file__).parents[3] / "docs" / "explanation" / "servers" / "matrix.json"
LIGHT = [row for row in LETTERS if row not in HEAVY]
# Between them, they have each mode, face and way; servers take turns with the others.
STRIDE = 5


def who_can(ability: Ability) -> list[str]:
    """Return the names of the servers with which a row can be tried."""
    return [name for name, kind in KINDS.items() if kind.can(ability)]


@pytest.fixture(
    params=[pytest.param(STRIDE, id="sampled"), pytest.param(1, id="complete", marks=pytest.mark.exhaustive)]
)
def stride(request: pytest.FixtureRequest) -> int:
    """Choose how many of the ways to try: every fifth, or all."""
    chosen: int = request.param
    return chosen


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of each server in turn."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def column(request: pytest.FixtureRequest, name: str, stride: int, faces: Faces, ca_file: Path) -> Column:
    """Return the column of the server that other tests use too."""
    server: RealServer = request.getfixturevalue(name)
    return Column(server, _ways(server, name, stride), faces, ca_file)


def _ways(server: RealServer, name: str, stride: int) -> list[Combination]:
    ways = combinations(server)
    if stride > 1 and _table()["rows"][IN_FLIGHT].get(name, ["cannot"])[0] == "cannot":
        # Some of these servers have to be waited for until it is clear that they reply nothing.
        ways = [each for each in ways if each.way != "session"]
    return ways[list(KINDS).index(name) % stride :: stride]


def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text("utf-8"))
    return table


def _check(name: str, cells: Sequence[Cell], row: str | None = None) -> None:
    """Nothing is wrong, and what cannot be is what the page says."""
    assert cells
    assert [cell for cell in cells if cell.verdict == "wrong"] == []
    assert row is None or {cell.row for cell in cells} == {row}
    for cell in cells:
        shown = _table()["rows"][cell.row].get(name, [cell.verdict])
        assert shown[0] != ("right" if cell.verdict == "cannot" else "cannot"), cell


def test_each_message_arrives_or_is_refused_with_the_truth(name: str, column: Column) -> None:
    """Over one connection, one after the other, what a refusal leaves behind included; none arrives twice."""
    cells = list(column.messages(LIGHT))
    _check(name, cells)
    assert {cell.row for cell in cells} >= set(LIGHT)
    assert column.tally.doubles() == []


def test_a_greeting_that_comes_late_is_waited_for(name: str, column: Column) -> None:
    """The connection is established, and the server's processes do not run yet."""
    _check(name, list(column.connections(lambda run: late(run, 0.2))), LATE)


@pytest.mark.parametrize("name", who_can("restart"), indirect=True)
def test_a_restart_between_two_sends_loses_nothing(name: str, column: Column) -> None:
    """The connection of the first message is gone, and the second opens another one."""
    _check(name, list(column.connections(restarted)), RESTARTED)
    assert column.tally.doubles() == []


@pytest.fixture
def impatient(name: str, ca: trustme.CA) -> Iterator[RealServer]:
    """Run a server that waits a second for a command."""
    yield from running(KINDS[name], ca, patience=1)


@pytest.fixture
def watchful(name: str, ca: trustme.CA) -> Iterator[RealServer]:
    """Run a server that greets after a second, and refuses clients that do not wait."""
    yield from running(KINDS[name], ca, greeting_delay=1)


@pytest.mark.parametrize("name", who_can("patience"), indirect=True)
def test_a_send_after_the_servers_patience_opens_another_connection(
    name: str, impatient: RealServer, stride: int, faces: Faces, ca_file: Path
) -> None:
    """Whatever the server says as it leaves: 421, nothing, or Exim's words in plaintext."""
    column = Column(impatient, _ways(impatient, name, stride), faces, ca_file)
    with column.idle() as finish:
        _check(name, finish(), IDLE)
    assert column.tally.doubles() == []


@pytest.mark.parametrize("name", who_can("greeting"), indirect=True)
def test_a_server_that_refuses_early_talkers_hears_none(
    name: str, watchful: RealServer, stride: int, faces: Faces, ca_file: Path
) -> None:
    """One raw command shows that the server does refuse them."""
    column = Column(watchful, _ways(watchful, name, stride), faces, ca_file)
    _check(name, list(column.connections(early)), EARLY)


def test_the_page_has_every_cell() -> None:
    """None of them is wrong."""
    table = _table()
    assert {len(servers) for servers in table["rows"].values()} == {len(table["servers"])}
    assert set(table["servers"]) <= set(KINDS)
    assert [
        (row, shown) for row, servers in table["rows"].items() for shown in servers.values() if shown[0] == "wrong"
    ] == []


def test_a_table_without_a_cell_is_not_written() -> None:
    """Rather than with a gap that looks like a success."""
    with pytest.raises(ValueError, match="no cells"):
        entries([], ["postfix"])
