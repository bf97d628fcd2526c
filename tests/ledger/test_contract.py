"""What every ledger does (`securesmtp.ledger.Ledger`). A ledger in another database is one more line in `worlds.py`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from ledger.worlds import HOUR, LONGEST, WORLDS, World, item, make_world, may_send, result
from securesmtp import Outcome
from securesmtp.errors import ConfigurationError, LedgerError
from securesmtp.ledger import Entry, Item, Ledger, State

UNKNOWN_SINCE = ["claim without an end", "unknown outcome"]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Make an empty database."""
    return make_world(request.param, tmp_path, request)


@pytest.fixture
def open_ledger(world: World, request: pytest.FixtureRequest) -> Any:
    """Open ledgers that are closed at the end of the test."""

    def make(**options: Any) -> Ledger:
        ledger = world.open(**options)
        request.addfinalizer(ledger.close)
        return ledger

    return make


@pytest.fixture
def ledger(open_ledger: Any) -> Ledger:
    """Open the database."""
    opened: Ledger = open_ledger()
    return opened


def claim(ledger: Ledger, wanted: Item | None = None, token: str = "mine") -> Entry:
    """Claim one message."""
    (entry,) = ledger.claim([wanted or item()], token)
    return entry


def look_up(ledger: Ledger, key: str = "invoice-1") -> Entry:
    """Return the entry, which exists."""
    entry = ledger.look_up(key)
    assert entry is not None
    return entry


def make_unknown(ledger: Ledger, world: World, how: str) -> None:
    """Make an entry unknown, in one of two ways."""
    claim(ledger, token="dead")
    if how == "unknown outcome":
        ledger.finish({"invoice-1": result(Outcome.UNKNOWN)}, "dead")
    else:
        world.age("invoice-1", HOUR)


def test_a_prepared_message_has_an_entry_that_nobody_has_claimed(ledger: Ledger) -> None:
    """With the digest and the Message-ID that it was prepared with."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    (entry,) = ledger.prepare([item()])
    assert (entry.key, entry.digest, entry.message_id) == ("invoice-1", "a" * 64, "<1@example.com>")
    assert (entry.state, entry.token, entry.result) == (State.PREPARED, None, None)
    assert before <= entry.changed <= datetime.now(UTC) + timedelta(seconds=1)
    assert ledger.look_up("invoice-1") == entry


def test_the_first_message_id_is_the_one_of_every_try(ledger: Ledger) -> None:
    """A program that makes a new Message-ID in each try is given the first one."""
    ledger.prepare([item(message_id="<first@x>")])
    assert claim(ledger, item(message_id="<second@x>")).message_id == "<first@x>"


def test_a_message_may_have_no_message_id(ledger: Ledger) -> None:
    """Raw bytes need none."""
    assert claim(ledger, item(message_id=None)).message_id is None


def test_a_claim_is_for_one_claimant(ledger: Ledger, open_ledger: Any) -> None:
    """The second one reads whose it is, in another process too."""
    assert may_send(claim(ledger), item(), "mine")
    for each in (ledger, open_ledger()):
        entry = claim(each, token="yours")
        assert not may_send(entry, item(), "yours")
        assert (entry.state, entry.token) == (State.CLAIMED, "mine")


def test_claiming_again_with_the_same_token_is_a_yes(ledger: Ledger, world: World) -> None:
    """The reply of the database to the first claim may have been lost (Q14). The claim is as young as the last one."""
    claim(ledger)
    world.age("invoice-1", LONGEST - 60)
    assert may_send(claim(ledger), item(), "mine")
    world.age("invoice-1", LONGEST - 60)
    assert claim(ledger, token="yours").state is State.CLAIMED


def test_many_are_claimed_at_once_and_returned_in_their_order(ledger: Ledger) -> None:
    """Each as it is: some are new, some are somebody's."""
    many = [item(f"key-{number}") for number in range(20)]
    ledger.claim(many[::2], "yours")
    entries = ledger.claim(many, "mine")
    assert [entry.key for entry in entries] == [each.key for each in many]
    assert [entry.token for entry in entries] == ["yours", "mine"] * 10
    assert list(ledger.claim([], "mine")) == list(ledger.prepare([])) == []


@pytest.mark.parametrize("outcome", Outcome)
def test_the_end_of_a_claim_is_written(ledger: Ledger, open_ledger: Any, outcome: Outcome) -> None:
    """And read by another process, with its result."""
    claim(ledger)
    ledger.finish({"invoice-1": result(outcome, retryable=True)}, "mine")
    entry = open_ledger().look_up("invoice-1")
    assert (entry.state, entry.token) == (State(outcome.value), "mine")
    assert entry.result.as_dict() == result(outcome, retryable=True).as_dict()


def test_only_the_owner_ends_a_claim(ledger: Ledger) -> None:
    """Also if the other one once had it, or if there is no such entry (Q6)."""
    claim(ledger)
    ledger.finish({"invoice-1": result(), "invoice-2": result()}, "yours")
    assert look_up(ledger).state is State.CLAIMED
    assert ledger.look_up("invoice-2") is None


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.REFUSED])
def test_what_is_done_is_not_sent_again(ledger: Ledger, outcome: Outcome) -> None:
    """Nor by its own token; a second end changes nothing."""
    claim(ledger)
    ledger.finish({"invoice-1": result(outcome)}, "mine")
    ledger.finish({"invoice-1": result(Outcome.NOT_SENT)}, "mine")
    for token in ("mine", "yours"):
        assert claim(ledger, token=token).state is State(outcome.value)


@pytest.mark.parametrize("outcome", [Outcome.NOT_SENT, Outcome.REFUSED])
def test_what_was_certainly_not_accepted_is_sent_again(ledger: Ledger, outcome: Outcome) -> None:
    """What was refused, only if that was temporary. The entry keeps the last result until the next one."""
    claim(ledger)
    ledger.finish({"invoice-1": result(outcome, retryable=True)}, "mine")
    entry = claim(ledger, token="yours")
    assert may_send(entry, item(), "yours")
    assert entry.result is not None
    assert entry.result.outcome is outcome
    # The first owner's end comes too late.
    ledger.finish({"invoice-1": result(Outcome.UNKNOWN)}, "mine")
    assert may_send(claim(ledger, token="yours"), item(), "yours")


def test_what_was_refused_for_good_is_sent_again_if_the_ledger_is_told(ledger: Ledger, open_ledger: Any) -> None:
    """For a server whose configuration was wrong."""
    claim(ledger)
    ledger.finish({"invoice-1": result(Outcome.REFUSED)}, "mine")
    assert claim(open_ledger(resend=["unknown"]), token="yours").state is State.REFUSED
    assert may_send(claim(open_ledger(resend=["refused"]), token="yours"), item(), "yours")


@pytest.mark.parametrize("how", UNKNOWN_SINCE)
def test_what_is_unknown_is_sent_again_only_if_the_ledger_is_told(
    ledger: Ledger, open_ledger: Any, world: World, how: str
) -> None:
    """Age alone never leads to a send (Q16)."""
    make_unknown(ledger, world, how)
    world.age("invoice-1", 1000 * HOUR)
    for each in (ledger, open_ledger(resend=["refused"])):
        for token in ("mine", "dead"):
            assert claim(each, token=token).state is State.UNKNOWN
    assert may_send(claim(open_ledger(resend=["unknown"])), item(), "mine")


def test_a_claim_is_unknown_when_it_is_older_than_the_longest_send(
    ledger: Ledger, open_ledger: Any, world: World
) -> None:
    """A younger one is in progress (Q6): a broker that delivers a task twice gets this."""
    claim(ledger)
    world.age("invoice-1", LONGEST - 60)
    again = claim(open_ledger(resend=["unknown", "refused"]), token="yours")
    assert (again.state, again.token) == (State.CLAIMED, "mine")
    world.age("invoice-1", 61)
    entry = look_up(ledger)
    assert (entry.state, entry.token, entry.result) == (State.UNKNOWN, "mine", None)
    assert [each.key for each in ledger.entries(State.UNKNOWN)] == ["invoice-1"]
    assert list(ledger.entries(State.CLAIMED)) == []
    # Another ledger of the same entries may have other sends.
    assert claim(open_ledger(longest_send=10 * LONGEST), token="yours").state is State.CLAIMED


@pytest.mark.parametrize("how", UNKNOWN_SINCE)
def test_an_owner_that_is_late_ends_its_claim(ledger: Ledger, world: World, how: str) -> None:
    """It was stopped, and goes on: now somebody knows (Q16). But not when the claim is another's."""
    make_unknown(ledger, world, how)
    ledger.finish({"invoice-1": result()}, "dead")
    assert look_up(ledger).state is State.ACCEPTED


def test_the_same_key_with_other_content_is_never_claimed(ledger: Ledger) -> None:
    """The entry is returned unchanged, so the caller can compare (Q17)."""
    for change in (ledger.prepare, lambda items: ledger.claim(items, "mine")):
        (first,) = change([item()])
        for token in ("mine", "yours"):
            assert ledger.prepare([item(content="b")]) == [first]
            assert ledger.claim([item(content="b")], token) == [first]
            assert not may_send(first, item(content="b"), token)


@pytest.mark.parametrize("outcome", Outcome)
def test_other_content_replaces_what_was_certainly_not_delivered(ledger: Ledger, outcome: Outcome) -> None:
    """An address was corrected after a refusal. What was or may have been delivered stays."""
    claim(ledger)
    ledger.finish({"invoice-1": result(outcome)}, "mine")
    corrected = item(content="b", message_id="<2@x>")
    (entry,) = ledger.prepare([corrected])
    if outcome in {Outcome.ACCEPTED, Outcome.UNKNOWN}:
        assert (entry.state, entry.digest) == (State(outcome.value), item().digest)
        assert not may_send(claim(ledger, corrected, "yours"), corrected, "yours")
    else:
        assert (entry.state, entry.token, entry.result) == (State.PREPARED, None, None)
        assert (entry.digest, entry.message_id) == (corrected.digest, "<2@x>")
        assert may_send(claim(ledger, corrected, "yours"), corrected, "yours")
        # What was refused for good is not remembered as retryable or not.
        ledger.finish({"invoice-1": result(Outcome.REFUSED)}, "yours")
        assert claim(ledger, corrected).state is State.REFUSED


def test_entries_are_listed_by_state_in_the_order_in_which_they_were_added(ledger: Ledger) -> None:
    """Also what was never claimed (Q7), and more than are read at once."""
    many = [item(f"key-{number}") for number in range(1203, 0, -1)]
    ledger.prepare(many)
    ledger.claim(many[1::2], "mine")
    assert [entry.key for entry in ledger.entries()] == [each.key for each in many]
    assert [entry.key for entry in ledger.entries(State.PREPARED)] == [each.key for each in many[::2]]
    assert len(list(ledger.entries(State.PREPARED, State.CLAIMED))) == 1203
    assert list(ledger.entries(State.ACCEPTED)) == []


def test_entries_can_be_changed_while_they_are_listed(ledger: Ledger) -> None:
    """A person gives a verdict on each: nothing is locked, left out or listed twice."""
    many = [item(f"key-{number}") for number in range(1001)]
    ledger.claim(many, "dead")
    ledger.finish({each.key: result(Outcome.UNKNOWN) for each in many[::2]}, "dead")
    seen = []
    for number, entry in enumerate(ledger.entries(State.UNKNOWN)):
        if number % 25 == 0:
            ledger.reconcile(entry.key, State.NOT_SENT)
        seen.append(entry.key)
    assert seen == [each.key for each in many[::2]]
    assert len(list(ledger.entries(State.UNKNOWN))) == 501 - 21


@pytest.mark.parametrize("how", UNKNOWN_SINCE)
@pytest.mark.parametrize("verdict", [State.ACCEPTED, State.NOT_SENT])
def test_a_person_gives_the_verdict_on_an_unknown_message(
    ledger: Ledger, world: World, how: str, verdict: State
) -> None:
    """It is final: its owner no longer has it. What was not sent may be sent again."""
    make_unknown(ledger, world, how)
    entry = ledger.reconcile("invoice-1", verdict)
    assert (entry.state, entry.token) == (verdict, None)
    assert entry.as_dict() == look_up(ledger).as_dict()
    ledger.finish({"invoice-1": result(Outcome.REFUSED)}, "dead")
    assert may_send(claim(ledger), item(), "mine") == (verdict is State.NOT_SENT)


def test_a_prepared_message_can_be_given_up(ledger: Ledger) -> None:
    """So that its key can have other content."""
    ledger.prepare([item()])
    with pytest.raises(LedgerError, match="'invoice-1' is not unknown, it is prepared"):
        ledger.reconcile("invoice-1", State.ACCEPTED)
    ledger.reconcile("invoice-1", State.NOT_SENT)
    assert may_send(claim(ledger, item(content="b")), item(content="b"), "mine")


@pytest.mark.parametrize("outcome", [None, Outcome.ACCEPTED, Outcome.REFUSED, Outcome.NOT_SENT])
@pytest.mark.parametrize("verdict", [State.ACCEPTED, State.NOT_SENT])
def test_a_verdict_is_for_unknown_messages(ledger: Ledger, outcome: Outcome | None, verdict: State) -> None:
    """What is being sent, or is known, is left as it is."""
    claim(ledger)
    if outcome is not None:
        ledger.finish({"invoice-1": result(outcome)}, "mine")
    before = look_up(ledger).as_dict()
    with pytest.raises(LedgerError, match=f"is not unknown, it is {outcome or 'claimed'}") as caught:
        ledger.reconcile("invoice-1", verdict)
    assert caught.value.hint
    assert look_up(ledger).as_dict() == before


def test_there_is_no_verdict_on_a_key_without_entry(ledger: Ledger) -> None:
    """A typing error in the key."""
    with pytest.raises(LedgerError, match="'invoice-2' is not unknown, it is not in the ledger"):
        ledger.reconcile("invoice-2", State.ACCEPTED)
    assert ledger.look_up("invoice-2") is None


@pytest.mark.parametrize("state", [each for each in State if each not in {State.ACCEPTED, State.NOT_SENT}])
def test_other_states_are_no_verdict(ledger: Ledger, state: State) -> None:
    """Nobody can know afterwards that it was refused."""
    with pytest.raises(ConfigurationError, match="is no verdict"):
        ledger.reconcile("invoice-1", state)


@pytest.mark.parametrize("threads", [50])
def test_of_many_claims_at_once_one_wins(ledger: Ledger, threads: int) -> None:
    """From any thread: the same key from 50 of them (Q17)."""
    start = Barrier(threads)

    def run(number: int) -> bool:
        start.wait()
        return may_send(claim(ledger, token=f"token-{number}"), item(), f"token-{number}")

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(run, range(threads))) == 1


@pytest.mark.parametrize("key", ["", "a" * 5000, "Rechnung 1/ü\n\t'\"; --", "a\0b", "\N{PILE OF POO}"])
def test_any_text_is_a_key(ledger: Ledger, key: str) -> None:
    """Two that differ are two."""
    ledger.claim([item(key), item(key + "x")], "mine")
    assert look_up(ledger, key).key == key
    assert len(list(ledger.entries())) == 2


def test_an_entry_survives_json(ledger: Ledger) -> None:
    """For an export."""
    claim(ledger)
    ledger.finish({"invoice-1": result(Outcome.REFUSED)}, "mine")
    (entry,) = ledger.entries()
    again = Entry.from_dict(json.loads(json.dumps(entry.as_dict())))
    assert again.as_dict() == entry.as_dict()
    assert again.state is State.REFUSED
