"""A ledger in memory: the rules of `securesmtp.ledger.Ledger` in few lines, and what was called, for tests of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from securesmtp import Outcome, SendResult
from securesmtp.ledger import Entry, Item, State


class MemoryLedger:
    """A ledger in memory, which any thread may use."""

    def __init__(self, *, longest_send: float = 3600.0, resend: Sequence[State] = ()) -> None:
        """Start without entries; `before` is called with the name of each method that writes."""
        self.longest_send, self.resend = longest_send, frozenset({State.PREPARED, State.NOT_SENT, *resend})
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.before: Callable[[str], object] = lambda _: None
        self._entries: dict[str, Entry] = {}
        self._lock = threading.RLock()

    def prepare(self, items: Sequence[Item]) -> Sequence[Entry]:
        """Add those that are new."""
        with self._lock:
            return [self._prepare(item) for item in items]

    def _prepare(self, item: Item) -> Entry:
        entry = self._entries.get(item.key)
        if entry is None or (entry.digest != item.digest and entry.state in {State.NOT_SENT, State.REFUSED}):
            entry = self._put(Entry(item.key, item.digest, item.message_id, State.PREPARED, datetime.now(UTC)))
        return entry

    def claim(self, items: Sequence[Item], token: str) -> Sequence[Entry]:
        """Claim those that may be sent."""
        self._note("claim", [item.key for item in items])
        with self._lock:
            return [self._claim(self._prepare(item), item, token) for item in items]

    def _claim(self, entry: Entry, item: Item, token: str) -> Entry:
        is_retryable = entry.state is State.REFUSED and entry.result is not None and entry.result.retryable
        if entry.digest == item.digest and (entry.state in self.resend or is_retryable):
            return self._put(replace(entry, state=State.CLAIMED, token=token))
        return entry

    def finish(self, ends: Mapping[str, SendResult], token: str) -> None:
        """Write how sends ended."""
        self._note("finish", list(ends))
        with self._lock:
            self._finish(ends, token)

    def _finish(self, ends: Mapping[str, SendResult], token: str) -> None:
        for key, result in ends.items():
            entry = self._entries.get(key)
            if entry is not None and entry.token == token:
                self._put(replace(entry, state=State(result.outcome), result=result))

    def look_up(self, key: str) -> Entry | None:
        """Return the entry."""
        self.before("look_up")
        with self._lock:
            return self._entries.get(key)

    def entries(self, *states: State) -> Iterator[Entry]:
        """Yield the entries in these states."""
        with self._lock:
            return iter([entry for entry in self._entries.values() if not states or entry.state in states])

    def reconcile(self, key: str, state: State) -> Entry:
        """Write a verdict."""
        return self._put(replace(self._entries[key], state=state, result=None))

    def states(self) -> dict[str, State]:
        """Return the state of each entry."""
        return {entry.key: entry.state for entry in self.entries()}

    def outcomes(self) -> dict[str, Outcome | None]:
        """Return the outcome of each entry's last try."""
        return {entry.key: None if entry.result is None else entry.result.outcome for entry in self.entries()}

    def _note(self, name: str, keys: list[str]) -> None:
        self.calls.append((name, tuple(keys)))
        self.before(name)

    def _put(self, entry: Entry) -> Entry:
        self._entries[entry.key] = entry
        return entry


class AdvancingLedger(MemoryLedger):
    """One that writes ends and claims in one commit."""

    def advance(self, ends: Mapping[str, SendResult], items: Sequence[Item], token: str) -> Sequence[Entry]:
        """Do `finish`, then `claim`."""
        self._note("advance", [*ends, *(item.key for item in items)])
        with self._lock:
            self._finish(ends, token)
            return [self._claim(self._prepare(item), item, token) for item in items]


def new_ledger(pipelining: str) -> MemoryLedger:
    """Return a ledger: with many messages in flight, one that can do both in one commit."""
    return AdvancingLedger() if pipelining == "session" else MemoryLedger()
