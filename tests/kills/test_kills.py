"""Workers and servers killed at the steps of a message: what arrived, beside what was asked and the ledger says."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from kills.accounts import Arrivals, Journal, Row, compare
from kills.killer import Killer
from kills.servers import MortalPostfix, Victim
from kills.steps import Aim
from kills.worker import message
from kills.workers import Nursery, nursery
from securesmtp.ledger import State
from servers.real import Delivered


@pytest.fixture(scope="module")
def mortal(ca: trustme.CA) -> Iterator[MortalPostfix]:
    """Run a Postfix that may be killed."""
    reason = MortalPostfix.missing()
    if reason is not None:
        if os.environ.get("SECURESMTP_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    # pytest's folders are closed to other users, and Postfix does not run as root alone.
    with (
        tempfile.TemporaryDirectory(prefix="securesmtp-") as directory,
        MortalPostfix(Path(directory), ca) as server,
    ):
        yield server


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


@pytest.mark.exhaustive
@pytest.mark.parametrize("victim", ["worker", "mail server"])
def test_kills_at_every_step(mortal: MortalPostfix, workers: Nursery, tmp_path: Path, victim: str) -> None:
    """Twice before, in and after each step; `nox -s kills` kills two hundred times."""
    target: Victim | None = mortal if victim == "mail server" else None
    where = str(tmp_path / "a.ledger")
    row = Killer(victim, "sqlite", where, mortal, target, random.Random(3), workers, f"every-{victim[:4]}").run(36)
    assert true(row)
    assert len(row.steps) == 18


def test_the_killer_notices_a_ledger_that_sends_doubtful_ones_again(
    mortal: MortalPostfix, workers: Nursery, tmp_path: Path
) -> None:
    """As whoever takes over a claim when its time is up does."""
    where, again = str(tmp_path / "a.ledger"), {"resend": ["unknown"], "exclusive": True}
    aims = iter([Aim("after", "reply")])
    row = Killer("worker", "sqlite", where, mortal, None, random.Random(4), workers, "again", again, aims).run(1)
    assert row.doubled >= 1


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
