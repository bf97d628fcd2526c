"""Several processes on one ledger: each key is claimed once, and a process may die or stop at any point."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from conftest import thorough, unmeasured
from ledger import processes
from ledger.processes import Process
from ledger.worlds import HOUR, WORLDS, ClosableLedger, SQLiteWorld, World, make_world
from securesmtp.ledger import State

Start = Callable[..., Process]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start the process that the others are forked from."""
    address = tmp_path_factory.mktemp("nursery") / "socket"
    environment = {**unmeasured(), "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, str(processes.__file__), str(address)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield address
        process.kill()


@pytest.fixture(params=WORLDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Run the test on each database."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def world(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    """Make an empty database."""
    return make_world(kind, tmp_path, request)


@pytest.fixture
def start(nursery: Path, kind: str, world: World) -> Iterator[Start]:
    """Start processes that use the ledger."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Process(nursery, kind, world, **options))


def opened(world: World, **options: Any) -> closing[ClosableLedger]:
    """Open the ledger for a `with`."""
    return closing(world.open(**options))


def check(world: World) -> None:
    """Let SQLite look for damage."""
    if isinstance(world, SQLiteWorld):
        with closing(sqlite3.connect(world.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


SQLITE_ALONE = pytest.mark.parametrize("kind", ["sqlite"])
# A process may have a file for itself, but no server.
EXCLUSIVE = pytest.mark.parametrize(
    ("kind", "exclusive"),
    [pytest.param("sqlite", True, id="sqlite-exclusive"), *(pytest.param(kind, False, id=kind) for kind in WORLDS)],
)


def options(*, exclusive: bool) -> dict[str, bool]:
    """Return the options of a ledger that is exclusive or cannot be."""
    return {"exclusive": True} if exclusive else {}


@pytest.mark.parametrize("count", thorough(60, 1000))
def test_each_key_is_claimed_once_by_eight_processes(world: World, start: Start, count: int) -> None:
    """All of them claim all keys, in different orders and batches (Q13)."""
    eight = [start() for _ in range(8)]
    for process in eight:
        process.start(f"claim_all({count})")
    won = Counter(key for process in eight for key in process.wait())
    assert won == Counter(f"key-{number}" for number in range(count))
    with opened(world) as ledger:
        assert len(list(ledger.entries(State.ACCEPTED))) == count
    check(world)


def test_the_child_of_a_fork_can_use_the_ledger(start: Start) -> None:
    """And its exit takes nothing from its parent."""
    parent = start()
    assert parent.run("claim()") is True
    assert parent.run("fork('claim(\"of the child\")')") == 0
    assert parent.run("state('of the child')") == "claimed"
    assert parent.run("finish()") is None
    assert start().run("state()") == "accepted"


@SQLITE_ALONE
def test_a_fork_leaves_the_ledger_of_its_parent_alone(world: SQLiteWorld, start: Start) -> None:
    """The child uses it and exits, while a thread of the parent is in a transaction (Q13)."""
    parent = start()
    assert parent.run("in_transaction()") is True
    # The child does not see what is not committed, and closes nothing of it when it exits.
    assert parent.run("fork('state()')") == 0
    with (
        closing(sqlite3.connect(world.path, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")
    parent.run("commit()")
    assert parent.run("state()") == "claimed"
    assert parent.run("fork('claim(\"of the child\")')") == 0
    assert parent.run("state('of the child')") == "claimed"
    check(world)


@pytest.mark.parametrize("kind", [kind for kind, world in WORLDS.items() if world.fixture])
def test_a_fork_leaves_the_connections_of_its_parent_alone(world: World, start: Start) -> None:
    """The child has its own, also after the parent has used the ledger, and its exit ends none of the parent's."""
    parent = start()
    assert parent.run("claim()") is True
    for _ in range(3):
        assert parent.run("fork('claim(\"of the child\")', 'finish(\"of the child\")')") == 0
        assert parent.run("state('of the child')") == "accepted"
    assert parent.run("claim()") is True
    parent.run("finish()")
    with opened(world) as ledger:
        assert [entry.state for entry in ledger.entries()] == ["accepted", "accepted"]


@SQLITE_ALONE
def test_a_child_does_not_have_the_lock_of_its_parent(world: World, start: Start, tmp_path: Path) -> None:
    """It cannot use an exclusive ledger, its exit gives nothing back, and it may outlive its parent."""
    parent, pipe = start(exclusive=True), tmp_path / "pipe"
    os.mkfifo(pipe)
    assert parent.run("claim()") is True
    assert parent.run("fork('claim(\"of the child\")')") == 0
    assert parent.run("state('of the child')") is None
    assert "another run is using it" in start().run("claim('other')")
    parent.run(f"fork_and_leave({str(pipe)!r})")
    try:
        parent.signal(signal.SIGKILL)
        assert parent.wait() == "(ended)"
        with opened(world, exclusive=True) as ledger:
            assert [entry.state for entry in ledger.entries()] == ["unknown"]
    finally:
        # Now the child ends.
        pipe.read_bytes()


@pytest.mark.parametrize(
    ("last", "state"), [("prepare()", "prepared"), ("claim()", "unknown"), ("finish()", "accepted")]
)
@EXCLUSIVE
def test_a_process_is_killed_between_two_steps(
    world: World, start: Start, last: str, state: str, *, exclusive: bool
) -> None:
    """What was prepared is sent by the next run, what was claimed is unknown (Q7)."""
    process = start(**options(exclusive=exclusive))
    for step in ("prepare()", "claim()", "finish()"):
        process.run(step)
        if step == last:
            break
    process.signal(signal.SIGKILL)
    assert process.wait() == "(ended)"
    with opened(world, **options(exclusive=exclusive)) as ledger:
        if not exclusive and state == "unknown":
            assert [entry.state for entry in ledger.entries()] == ["claimed"]
            world.age("invoice-1", HOUR)
        assert [entry.state for entry in ledger.entries()] == [state]


@pytest.mark.parametrize("kills", thorough(3, 50))
def test_what_was_committed_survives_a_kill_at_any_time(world: World, start: Start, kills: int) -> None:
    """Also inside a commit: then the step was made or was not."""
    order, first = random.Random(kills), 0
    for _ in range(kills):
        process = start()
        process.start(f"send_forever({first})")
        done = [process.wait() for _ in range(order.randint(1, 30))]
        process.signal(signal.SIGKILL)
        done += process.rest()
        with opened(world) as ledger:
            states = {entry.key: entry.state for entry in ledger.entries()}
        last = done[-1][1]
        for step, number in done:
            if step == "finish":
                assert states[f"key-{number}"] is State.ACCEPTED
        # At most one step more was committed than was printed.
        assert states[f"key-{last}"] in {State.CLAIMED, State.ACCEPTED}
        assert set(states) <= {f"key-{number}" for number in range(last + 2)}
        first = last + 2
    check(world)


@EXCLUSIVE
def test_a_process_that_was_stopped_past_every_limit_goes_on(world: World, start: Start, *, exclusive: bool) -> None:
    """Meanwhile its message is unknown, and nobody else sends it; then its end is written (Q16)."""
    process = start(**options(exclusive=exclusive))
    assert process.run("claim()") is True
    process.signal(signal.SIGSTOP)
    world.age("invoice-1", 100 * HOUR)
    other = start()
    assert other.run("state()") == "unknown"
    refused: Any = other.run("claim()")
    assert "another run is using it" in refused if exclusive else refused is False
    process.signal(signal.SIGCONT)
    process.run("finish()")
    assert other.run("state()") == "accepted"
