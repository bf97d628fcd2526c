"""Workers and servers killed at the steps of a message: what arrived, beside what was asked and the ledger says."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from conftest import unmeasured
from databases import Database, PostgreSQL, Redis, running
from kills import network, pages
from kills.__main__ import CASES
from kills.accounts import Arrivals, Journal, Row, compare
from kills.brokers import BrokerKiller
from kills.killer import Killer
from kills.messages import message
from kills.servers import MortalPostfix, Victim
from kills.steps import Aim
from kills.workers import TESTS, Nursery, nursery
from securesmtp.ledger import State
from servers import kinds
from servers.sink import Delivered

PAGES = TESTS.parent / "docs" / "explanation" / "kills"
LEDGER_CASES = [case.split("/") for case in CASES if "broker" not in case and "smtplib" not in case]


@pytest.fixture(scope="module")
def mortal(ca: trustme.CA) -> Iterator[MortalPostfix]:
    """Run a Postfix that may be killed."""
    yield from kinds.running(MortalPostfix, ca)


@pytest.fixture
def mortal_postgresql() -> Iterator[PostgreSQL]:
    """Run a PostgreSQL that may be killed."""
    yield from running(PostgreSQL)


@pytest.fixture
def mortal_redis() -> Iterator[Redis]:
    """Run a Redis that may be killed."""
    yield from running(Redis)


@pytest.fixture(scope="module")
def workers() -> Iterator[Nursery]:
    """Start the process of which each worker is a fork."""
    with nursery() as started:
        yield started


def true(row: Row) -> bool:
    """Check that nothing is lost or doubled, and that only claims without an end, and lost replies, are doubtful."""
    assert (row.lost, row.doubled, row.wrong) == (0, 0, ())
    assert row.doubtful == row.open_claims + row.unread_replies
    assert row.asked == row.arrived + row.doubtful - row.doubtful_arrived
    return True


@pytest.mark.parametrize("aims", [[Aim("after", "claim"), Aim("after", "reply")]], ids=["claim, reply"])
def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    mortal: MortalPostfix, workers: Nursery, tmp_path: Path, aims: list[Aim]
) -> None:
    """What it had claimed is in doubt, and the next worker sends all else."""
    where = str(tmp_path / "a.ledger")
    killer = Killer("worker", "sqlite", where, mortal, None, random.Random(1), workers, "few", aims=iter(aims))
    row = killer.run(len(aims))
    assert true(row)
    # Nothing of the first claims was sent; of the second, one was accepted.
    assert row.open_claims >= 2
    assert row.doubtful_arrived >= 1
    assert row.kills == row.steps["after claim"] + row.steps["after reply"] == 2


def test_a_killed_mail_server_leaves_no_claim_open(mortal: MortalPostfix, workers: Nursery, tmp_path: Path) -> None:
    """The worker lives on, and writes what it knows."""
    where, chance = str(tmp_path / "a.ledger"), random.Random(2)
    killer = Killer(
        "mail server", "sqlite", where, mortal, mortal, chance, workers, "server", aims=iter([Aim("after", "content")])
    )
    row = killer.run(1)
    assert true(row)
    assert (row.kills, row.open_claims) == (1, 0)


def test_a_killed_database_leaves_its_claims_in_doubt(
    mortal: MortalPostfix, workers: Nursery, mortal_redis: Redis
) -> None:
    """The worker lives on, and may send what it had claimed; the end is written if the database is back by then."""
    chance, aims = random.Random(5), iter([Aim("after", "claim")])
    row = Killer("database", "redis", mortal_redis.url, mortal, mortal_redis, chance, workers, "data", aims=aims).run(1)
    assert true(row)
    assert (row.kills, row.doubtful) == (1, row.open_claims)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("victim", "kind"), [case.split("/") for case in CASES if "broker" not in case and "smtplib" not in case]
)
def test_kills_at_every_step(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    request: pytest.FixtureRequest, mortal: MortalPostfix, workers: Nursery, tmp_path: Path, victim: str, kind: str
) -> None:
    """Before, in and after each step; `nox -s kills` kills two hundred times."""
    database: Database | None = None if kind == "sqlite" else request.getfixturevalue(f"mortal_{kind}")
    where = str(tmp_path / "a.ledger") if database is None else database.url
    targets: dict[str, Victim | None] = {"worker": None, "mail server": mortal, "database": database}
    prefix = f"every-{victim[:4]}-{kind}"
    row = Killer(victim, kind, where, mortal, targets[victim], random.Random(3), workers, prefix).run(18)
    assert true(row)
    assert len(row.steps) == 18


@pytest.mark.exhaustive
def test_a_killed_broker_loses_nothing_and_doubles_nothing(
    mortal: MortalPostfix, mortal_redis: Redis, tmp_path: Path
) -> None:
    """The workers live on; what the broker shows twice is sent once, and what it lost is published again."""
    where, chance = str(tmp_path / "a.ledger"), random.Random(6)
    row = BrokerKiller("sqlite", where, mortal, mortal_redis, mortal_redis.url, chance, "broker").run(18)
    assert true(row)
    # A worker that ends with its broker leaves a claim without an end.
    assert row.doubtful == 0 or row.restarts
    assert len(row.steps) == 18


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_a_worker_that_is_cut_off_loses_nothing_and_doubles_nothing(kind: str) -> None:
    """Its cable is out for a moment, for longer than its claims count, or until it was killed."""
    reason = network.missing()
    if reason:
        if os.environ.get("SECURESMTP_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    command = [sys.executable, "-m", "kills.machines", kind, "--cuts", "9"]
    done = subprocess.run(command, cwd=TESTS, env=unmeasured(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)
    assert true(Row(**{**row, "wrong": tuple(row["wrong"])}))
    assert set(row["steps"]) == {"back in time", "back too late", "killed"}


def test_the_killer_notices_a_ledger_that_sends_doubtful_ones_again(
    mortal: MortalPostfix, workers: Nursery, tmp_path: Path
) -> None:
    """As whoever takes over a claim when its time is up does."""
    where, again = str(tmp_path / "a.ledger"), {"resend": ["unknown"], "exclusive": True}
    aims = iter([Aim("after", "reply")])
    row = Killer("worker", "sqlite", where, mortal, None, random.Random(4), workers, "again", again, aims).run(1)
    assert row.doubled >= 1


@pytest.mark.exhaustive
def test_the_killer_finds_what_smtplib_sends_twice(mortal: MortalPostfix, workers: Nursery, tmp_path: Path) -> None:
    """A note of what was sent comes too late."""
    chance, where = random.Random(7), str(tmp_path / "notes")
    row = Killer("worker", "smtplib", where, mortal, None, chance, workers, "smtplib").run(12)
    # Certainly when it is killed after the reply, and before the note.
    assert (row.lost, row.doubled > 0) == (0, True)


def _row(states: dict[str, State], lines: list[dict[str, object]], arrived: dict[str, list[str]]) -> Row:
    journal, arrivals = Journal(), Arrivals()
    for line in lines:
        journal.note(line)
    for key, ids in arrived.items():
        content = message(key).content
        assert isinstance(content, bytes)
        arrivals.take(
            Delivered("", (f"{key}@example.test",), content, f"Received: with ESMTPSA id {id_};") for id_ in ids
        )
    return compare("worker", "sqlite", Counter(), ["k-1"], states, journal, arrivals)


def _said(what: str, keys: object) -> dict[str, object]:
    return {"what": what, "keys": keys, "token": "t"}


CLAIMED = [_said("claiming", ["k-1"]), _said("claimed", {"k-1": True})]
ACCEPTED = [*CLAIMED, _said("finishing", {"k-1": "accepted"}), _said("finished", {"k-1": "accepted"})]
TOLD = {"what": "result", "key": "k-1", "outcome": "accepted"}


@pytest.mark.parametrize(
    ("state", "lines", "arrived", "lost", "doubled", "wrong"),
    [
        pytest.param("accepted", ACCEPTED, ["A"], 0, 0, (), id="accepted"),
        pytest.param("accepted", ACCEPTED, ["A", "A"], 0, 0, (), id="delivered again by the server"),
        pytest.param("unknown", CLAIMED, [], 0, 0, (), id="doubtful"),
        pytest.param("unknown", CLAIMED, ["A"], 0, 0, (), id="doubtful and arrived"),
        pytest.param("accepted", ACCEPTED, ["A", "B"], 0, 1, (), id="doubled"),
        pytest.param("accepted", ACCEPTED, [], 1, 0, ("k-1",), id="lost"),
        pytest.param("not sent", CLAIMED, [], 1, 0, ("k-1",), id="claim without an end that is not doubtful"),
        pytest.param("unknown", ACCEPTED, ["A"], 0, 0, ("k-1",), id="doubtful with an end"),
        pytest.param("unknown", [*ACCEPTED[:3], TOLD], [], 0, 0, ("k-1",), id="told accepted and not there"),
        pytest.param("prepared", [], [], 1, 0, ("k-1",), id="never sent"),
    ],
)
def test_what_is_wrong_is_counted(  # noqa: PLR0913, PLR0917 -- a row
    state: str, lines: list[dict[str, object]], arrived: list[str], lost: int, doubled: int, wrong: tuple[str, ...]
) -> None:
    """Each disagreement of ledger, workers and server."""
    row = _row({"k-1": State(state)}, lines, {"k-1": arrived} if arrived else {})
    assert (row.lost, row.doubled, row.wrong) == (lost, doubled, wrong)


def test_a_damaged_message_is_wrong() -> None:
    """Such as one that was cut, and accepted."""
    arrivals = Arrivals()
    arrivals.take([Delivered("", ("k-1@example.test",), b"Subject: k", "Received: with ESMTPSA id A;")])
    row = compare("worker", "sqlite", Counter(), ["k-1"], {"k-1": State.ACCEPTED}, Journal(), arrivals)
    assert row.wrong == ("k-1",)


def test_the_page_shows_what_was_measured(tmp_path: Path) -> None:
    """Its tables are those of its values, which are good."""
    rows = pages.read([PAGES / "kills.json"])
    pages.write(rows, tmp_path)
    for table in tmp_path.glob("*.md"):
        assert table.read_text("utf-8") == (PAGES / table.name).read_text("utf-8")
    assert all(true(row) for row in rows if row.ledger != "smtplib")
