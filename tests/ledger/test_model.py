"""Ledgers against a model: whatever is called in whatever order, a message is claimed only if it may be sent."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from conftest import examples
from ledger.worlds import HOUR, WORLDS, World, item, make_world, may_send, result
from securesmtp import Outcome
from securesmtp.errors import LedgerError
from securesmtp.ledger import Entry, State

KEYS = st.sampled_from(["one", "two"])
CONTENTS = st.sampled_from("ab")
TOKENS = st.sampled_from(["mine", "yours"])
RESENDS: list[tuple[str, ...]] = [(), ("unknown",), ("refused",), ("unknown", "refused")]
RESEND = st.sampled_from(RESENDS)
# Where nothing was delivered, so that other content may take the key.
UNDELIVERED = {State.NOT_SENT, State.REFUSED}


@dataclass
class Known:
    """What the model knows of a key."""

    content: str
    state: State = State.PREPARED
    token: str | None = None
    retryable: bool = False
    is_old: bool = False

    @property
    def now(self) -> State:
        return State.UNKNOWN if self.state is State.CLAIMED and self.is_old else self.state

    def may_be_claimed(self, token: str, resend: tuple[str, ...]) -> bool:
        return {
            State.PREPARED: True,
            State.NOT_SENT: True,
            State.CLAIMED: self.token == token,
            State.REFUSED: self.retryable or "refused" in resend,
            State.UNKNOWN: "unknown" in resend,
            State.ACCEPTED: False,
        }[self.now]


class Machine(RuleBasedStateMachine):
    """Two processes, one database, two keys."""

    make: Callable[[Path], World]

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = type(self).make(Path(self.folder.name))
        self.ledgers = {resend: self.world.open(resend=resend) for resend in RESENDS}
        self.model: dict[str, Known] = {}

    def teardown(self) -> None:
        for ledger in self.ledgers.values():
            ledger.close()
        self.folder.cleanup()

    def _prepare(self, key: str, content: str) -> Known:
        known = self.model.setdefault(key, Known(content))
        if known.state in UNDELIVERED and known.content != content:
            known = self.model[key] = Known(content)
        return known

    def _claim(self, key: str, content: str, token: str, resend: tuple[str, ...]) -> tuple[Known, bool]:
        known = self._prepare(key, content)
        allowed = known.content == content and known.may_be_claimed(token, resend)
        if allowed:
            known.state, known.token, known.is_old = State.CLAIMED, token, False
        return known, allowed

    def _compare(self, entry: Entry, known: Known) -> None:
        assert (entry.digest, entry.state, entry.token) == (item(content=known.content).digest, known.now, known.token)

    @rule(key=KEYS, content=CONTENTS, resend=RESEND)
    def prepare(self, key: str, content: str, resend: tuple[str, ...]) -> None:
        (entry,) = self.ledgers[resend].prepare([item(key, content)])
        self._compare(entry, self._prepare(key, content))

    @rule(key=KEYS, content=CONTENTS, token=TOKENS, resend=RESEND)
    def claim(self, key: str, content: str, token: str, resend: tuple[str, ...]) -> None:
        known, allowed = self._claim(key, content, token, resend)
        (entry,) = self.ledgers[resend].claim([item(key, content)], token)
        assert may_send(entry, item(key, content), token) == allowed
        self._compare(entry, known)

    @rule(key=KEYS, token=TOKENS, outcome=st.sampled_from(Outcome), retryable=st.booleans())
    def finish(self, key: str, token: str, outcome: Outcome, *, retryable: bool) -> None:
        known = self.model.get(key)
        ends = result(outcome, retryable=retryable)
        self.ledgers[()].finish({key: ends}, token)
        if known is not None and known.token == token and known.state in {State.CLAIMED, State.UNKNOWN}:
            known.state, known.retryable = State(outcome.value), ends.retryable

    @rule(
        end=KEYS, item_key=KEYS, content=CONTENTS, token=TOKENS, resend=RESEND, outcome=st.sampled_from(Outcome),
        retryable=st.booleans(),
    )  # fmt: skip
    def advance(  # noqa: PLR0913, PLR0917 -- as many as the two calls
        self, end: str, item_key: str, content: str, token: str, resend: tuple[str, ...], outcome: Outcome, *,
        retryable: bool,
    ) -> None:  # fmt: skip
        """It is `finish` and then `claim`, also of the same key."""
        ledger = self.ledgers[resend]
        if not hasattr(ledger, "advance"):
            return
        ends, wanted = result(outcome, retryable=retryable), item(item_key, content)
        known = self.model.get(end)
        if known is not None and known.token == token and known.state in {State.CLAIMED, State.UNKNOWN}:
            known.state, known.retryable = State(outcome.value), ends.retryable
        known, allowed = self._claim(item_key, content, token, resend)
        (entry,) = ledger.advance({end: ends}, [wanted], token)
        assert may_send(entry, wanted, token) == allowed
        self._compare(entry, known)

    @rule(key=KEYS)
    def grow_old(self, key: str) -> None:
        self.world.age(key, HOUR)
        if key in self.model:
            self.model[key].is_old = True

    @rule(key=KEYS, verdict=st.sampled_from([State.ACCEPTED, State.NOT_SENT]))
    def reconcile(self, key: str, verdict: State) -> None:
        known = self.model.get(key)
        allowed = {State.UNKNOWN} | ({State.PREPARED} if verdict is State.NOT_SENT else set())
        if known is not None and known.now in allowed:
            known.state, known.token = verdict, None
            self._compare(self.ledgers[()].reconcile(key, verdict), known)
        else:
            with pytest.raises(LedgerError):
                self.ledgers[()].reconcile(key, verdict)

    @invariant()
    def agrees(self) -> None:
        entries = list(self.ledgers[()].entries())
        assert [entry.key for entry in entries] == list(self.model)
        for entry in entries:
            self._compare(entry, self.model[entry.key])


@pytest.mark.parametrize("kind", WORLDS)
def test_ledgers_agree_with_the_model(kind: str, request: pytest.FixtureRequest) -> None:
    """See `Known.may_be_claimed`: these are the rules."""

    class Here(Machine):
        make = staticmethod(lambda folder: make_world(kind, folder, request))

    # A server needs more time for each step than a file.
    count = examples(60 if kind == "sqlite" else 15)
    steps = settings(max_examples=count, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(Here, settings=steps)
