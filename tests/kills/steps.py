"""
The steps of a message in a worker: before, in and after each, the worker tells its killer where it is.

Steps are the calls of the ledger (prepare, claim, finish), and of a send the opening of the connection, the content and
the reply to it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO

from securesmtp import SendResult, Stage
from securesmtp._protocol.effects import Answer, Block, Connect, Effect, Receive
from securesmtp._transport.channel import Steps
from securesmtp._transport.connection import Connection
from securesmtp.ledger import Entry, Item, Ledger, State

STEPS = ("prepare", "claim", "connect", "content", "reply", "finish")
MOMENTS = ("before", "in", "after")


class Aim(NamedTuple):
    """At which step a kill is wanted: at the *nth* time that a worker is there, counted from 1."""

    moment: str
    step: str
    nth: int = 1


@dataclass
class Reporter:
    """Writes what the worker does, one line of JSON each, and waits at the step that its killer aims at."""

    out: TextIO
    answers: TextIO
    aim: Aim | None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = 0

    def say(self, what: str, **values: Any) -> None:
        """Write one line."""
        with self._lock:
            self.out.write(self.line(what, values))
            self.out.flush()

    @staticmethod
    def line(what: str, values: Mapping[str, Any]) -> str:
        """Return one line, with the time that is the same in all processes."""
        return json.dumps({"what": what, "at": time.monotonic(), **values}) + "\n"

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do one step: stop before or after it, or only say that it begins, if the killer aims at it."""
        is_aimed = self.aim is not None and self.aim.step == name
        if is_aimed:
            self._seen += 1
            is_aimed = self.aim is not None and self._seen == self.aim.nth
        moment = self.aim.moment if is_aimed and self.aim is not None else ""
        if moment == "before":
            self._stop()
        if moment == "in":
            self.say("reached")
        yield
        if moment == "after":
            self._stop()

    def _stop(self) -> None:
        self.say("reached")
        self.answers.readline()


class WatchedLedger:
    """A ledger whose calls are steps, and are told before and after."""

    def __init__(self, ledger: Ledger, reporter: Reporter) -> None:
        self.longest_send = ledger.longest_send
        self._ledger, self._reporter = ledger, reporter

    def prepare(self, items: Sequence[Item]) -> Sequence[Entry]:
        with self._reporter.step("prepare"):
            return self._ledger.prepare(items)

    def claim(self, items: Sequence[Item], token: str) -> Sequence[Entry]:
        with self._reporter.step("claim"):
            self._say_claiming(items)
            entries = self._ledger.claim(items, token)
            self._say_claimed(entries, token)
        return entries

    def finish(self, ends: Mapping[str, SendResult], token: str) -> None:
        with self._reporter.step("finish"):
            self._say_finishing(ends, token)
            self._ledger.finish(ends, token)
            self._say_finished(ends, token)

    def _say_claiming(self, items: Sequence[Item]) -> None:
        self._reporter.say("claiming", keys=[item.key for item in items])

    def _say_claimed(self, entries: Sequence[Entry], token: str) -> None:
        claimed = {entry.key: entry.token == token for entry in entries if entry.state is State.CLAIMED}
        self._reporter.say("claimed", keys=claimed, token=token)

    def _say_finishing(self, ends: Mapping[str, SendResult], token: str) -> None:
        self._reporter.say("finishing", keys={key: end.outcome.value for key, end in ends.items()}, token=token)

    def _say_finished(self, ends: Mapping[str, SendResult], token: str) -> None:
        self._reporter.say("finished", keys={key: end.outcome.value for key, end in ends.items()}, token=token)

    def look_up(self, key: str) -> Entry | None:
        return self._ledger.look_up(key)

    def entries(self, *states: State) -> Iterator[Entry]:
        return self._ledger.entries(*states)

    def reconcile(self, key: str, state: State) -> Entry:
        return self._ledger.reconcile(key, state)


class AdvancingLedger(WatchedLedger):
    """A ledger that finishes and claims in one commit, which is both steps at once."""

    def advance(self, ends: Mapping[str, SendResult], items: Sequence[Item], token: str) -> Sequence[Entry]:
        advance: Any = self._ledger
        with self._reporter.step("finish"), self._reporter.step("claim"):
            self._say_finishing(ends, token)
            self._say_claiming(items)
            entries: Sequence[Entry] = advance.advance(ends, items, token)
            self._say_claimed(entries, token)
            self._say_finished(ends, token)
        return entries


def watch_ledger(ledger: Ledger, reporter: Reporter) -> WatchedLedger:
    """Return *ledger* with its calls as steps."""
    return (AdvancingLedger if hasattr(ledger, "advance") else WatchedLedger)(ledger, reporter)


def watch_sends(reporter: Reporter) -> None:
    """Make steps of the effects that decide what becomes of a message, for the rest of this process."""
    perform = Connection._perform

    def watched(connection: Connection, effect: Effect) -> Steps[Answer]:
        with reporter.step(_name(effect)):
            steps = perform(connection, effect)
            return connection._replies if steps is None else (yield from steps)

    Connection._perform = watched  # type: ignore[method-assign,assignment]


def _name(effect: Effect) -> str:
    match effect:
        case Connect():
            return "connect"
        case Block():
            return "content"
        case Receive(stage=Stage.CONTENT):
            return "reply"
        case _:
            return ""
