"""``securesmtp ledger`` with a ledger in a database: the same lists and verdicts, no password among the arguments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from databases import PostgreSQL
from ledger.worlds import WORLDS, World, item, make_world
from securesmtp.ledger import PostgreSQLLedger, State

DATABASES = [kind for kind in WORLDS if kind != "sqlite"]


@pytest.fixture(params=DATABASES)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Make a ledger with a message that is being sent for 100 s, and another."""
    world = make_world(request.param, tmp_path, request)
    ledger = world.open()
    ledger.prepare([item("invoice-1"), item("invoice-2")])
    ledger.claim([item("invoice-1")], "dead")
    ledger.close()
    world.age("invoice-1", 100)
    return world


def test_a_ledger_in_a_database_is_shown_and_settled(run: Any, world: World) -> None:
    """A claim counts as unknown after the longest send of the workers."""
    place = (world.arguments[0], "--name", world.arguments[1])
    shown = run("ledger", *place)
    assert (shown.code, shown.out.splitlines()) == (
        0,
        [
            "1 prepared, 1 claimed",
            "A claim counts as in progress for 3,600 s (--longest-send), then as unknown.",
        ],
    )
    listed = run("ledger", *place, "--longest-send", "60")
    assert (listed.code, listed.err) == (3, "")
    assert "1 prepared, 1 unknown" in listed.out
    assert "invoice-1" in listed.out
    settled = run("ledger", *place, "--longest-send", "60", "--arrived", "invoice-1")
    assert (settled.code, settled.out.splitlines()[0]) == (0, "1 prepared, 1 accepted")
    ledger = world.open()
    assert [entry.state for entry in ledger.entries()] == [State.ACCEPTED, State.PREPARED]
    ledger.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "redis", "rediss"])
def test_a_password_is_no_argument(run: Any, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """It can be in a variable."""
    url = f"{scheme}://me:hunter2@127.0.0.1:1/0"
    refused = run("ledger", url)
    assert refused.code == 2
    assert "put the URL into the variable SECURESMTP_LEDGER" in refused.err
    monkeypatch.setenv("SECURESMTP_LEDGER", url)
    down = run("ledger")
    assert down.code == 75
    for text in (refused.err, refused.out, down.err, down.out):
        assert "hunter2" not in text


def test_another_url_is_no_ledger(run: Any) -> None:
    """The error names those that are."""
    done = run("ledger", "mysql://127.0.0.1/db")
    assert done.code == 2
    assert "postgresql://" in done.err


def test_a_file_has_no_name(run: Any, tmp_path: Path) -> None:
    """Each file is one ledger."""
    (tmp_path / "a.ledger").touch()
    done = run("ledger", str(tmp_path / "a.ledger"), "--name", "other")
    assert (done.code, "leave out --name" in done.err) == (65, True)


def test_the_usual_name_is_the_default(run: Any, postgresql: PostgreSQL) -> None:
    """As in a program."""
    postgresql.execute("DROP TABLE IF EXISTS securesmtp_ledger")
    with PostgreSQLLedger(postgresql.url) as ledger:
        ledger.prepare([item("invoice-3")])
    assert run("ledger", postgresql.url).out == "1 prepared\n"


def test_a_missing_extra_is_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As elsewhere."""
    monkeypatch.setitem(sys.modules, "securesmtp.ledger._postgresql", None)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "securesmtp.ledger._postgresql")
    done = run("ledger", "postgresql://127.0.0.1/db")
    assert (done.code, "install securesmtp[postgresql]" in done.err) == (65, True)
