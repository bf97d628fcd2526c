"""What workers said, what the ledger says, and what arrived: whether they agree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kills.messages import message
from securesmtp.ledger import State
from servers.sink import Delivered

# What is certain of a message by what its workers said; the last two are settled by the ledger.
IDLE, CLAIMED, MAYBE_CLAIMED, MAYBE_FINISHED = "idle", "claimed", "maybe claimed", "maybe finished"


@dataclass
class Journal:
    """
    What the workers said of each message.

    Attributes:
        known: What is certain of it: one of the above, or the outcome whose `finish` was committed.
        ends: The outcome that was last to be written.
        told: The outcomes that the programs of the workers got.
        owners: Whose the last claim was: another worker may hear of the end of its own only later.
    """

    known: dict[str, str] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    told: dict[str, set[str]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)

    def note(self, line: Mapping[str, Any]) -> None:
        """Take one line of a worker, in the order of their times."""
        match line["what"]:
            case "claiming":
                for key in line["keys"]:
                    if self.known.get(key, IDLE) in {IDLE, State.NOT_SENT, State.REFUSED}:
                        self.known[key] = MAYBE_CLAIMED
            case "claimed":
                for key, is_mine in line["keys"].items():
                    if is_mine:
                        self.known[key], self.owners[key] = CLAIMED, line["token"]
                    elif self.known[key] == MAYBE_CLAIMED:
                        # That of one who died: it was committed.
                        self.known[key] = CLAIMED
            case "finishing" | "finished":
                for key, outcome in line["keys"].items():
                    if self.owners.get(key) == line["token"]:
                        self.known[key] = MAYBE_FINISHED if line["what"] == "finishing" else outcome
                        self.ends[key] = outcome
            case "result":
                self.told.setdefault(line["key"], set()).add(line["outcome"])

    def allowed(self, key: str) -> set[str]:
        """Return the states that the ledger may say of it in the end, when all was tried again."""
        match self.known.get(key, IDLE):
            case "claimed":
                return {State.UNKNOWN}
            case "maybe claimed":
                # If the claim was committed, it has no end; if it was not, a later one has.
                return {State.UNKNOWN}
            case "maybe finished":
                return {State.UNKNOWN, self.ends[key]}
            case known:
                return {known}


@dataclass
class Arrivals:
    """
    What the server delivered.

    Attributes:
        copies: By key, the ids in the server's queue: one for each message that it accepted.
        damaged: Keys whose content is not what was sent.
    """

    copies: dict[str, set[str]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)

    def take(self, delivered: Iterable[Delivered]) -> None:
        """Take messages; the server may deliver one again that it had when it was killed, under the same id."""
        for each in delivered:
            (recipient,) = each.recipients
            key = recipient.partition("@")[0]
            # Postfix: "by localhost (Postfix) with ESMTPSA id 4cXyz"; the last one, for it is after the TLS's comments.
            identity = re.findall(r"\bid ([0-9A-Za-z]+)", each.trace)[-1]
            self.copies.setdefault(key, set()).add(identity)
            if each.content != message(key).content:
                self.damaged.add(key)


@dataclass(frozen=True)
class Row:
    """
    One row of the table.

    Attributes:
        victim: What was killed.
        ledger: Which ledger.
        kills: How often.
        asked: How many messages there were.
        arrived: How many of them the server delivered.
        lost: Those that did not arrive, and are not doubtful.
        doubled: Those that the server accepted twice.
        doubtful: Those that the ledger says are unknown.
        doubtful_arrived: How many of those arrived.
        open_claims: The claims without an end, by what the workers said.
        unread_replies: Doubtful ones whose end was written: the reply to their content was lost.
        wrong: Keys of which ledger, workers and server say different things.
        steps: How many of the kills were at each step.
        published_again: Messages that the broker had lost: the ledger had them as prepared.
        restarts: How often Celery's workers have ended with their broker, and were started again.
    """

    victim: str
    ledger: str
    kills: int
    asked: int
    arrived: int
    lost: int
    doubled: int
    doubtful: int
    doubtful_arrived: int
    open_claims: int
    unread_replies: int
    wrong: tuple[str, ...]
    steps: Mapping[str, int]
    published_again: int = 0
    restarts: int = 0


def compare(  # noqa: PLR0913, PLR0917 -- all that is compared
    victim: str,
    ledger: str,
    kills: Counter[str],
    asked: Iterable[str],
    states: Mapping[str, State],
    journal: Journal,
    arrivals: Arrivals,
) -> Row:
    """Compare what was asked, what the ledger says, what the workers said, and what arrived."""
    keys = list(asked)
    doubtful = {key for key, state in states.items() if state is State.UNKNOWN}
    arrived = set(arrivals.copies)
    wrong = {key for key in keys if states.get(key) not in journal.allowed(key)}
    wrong |= {key for key, state in states.items() if state is State.ACCEPTED and key not in arrived}
    wrong |= {key for key in arrived if states.get(key) not in {State.ACCEPTED, State.UNKNOWN}}
    # What a program was told is true, also when the ledger could not be written then.
    wrong |= {key for key, told in journal.told.items() if "accepted" in told and key not in arrived}
    wrong |= arrivals.damaged | (arrived - set(keys)) | (set(states) - set(keys))
    if ledger == "smtplib":
        # It has no ledger that could be wrong.
        wrong = arrivals.damaged
    unread = {key for key in doubtful if journal.known.get(key) == State.UNKNOWN}
    return Row(
        victim,
        ledger,
        kills.total(),
        len(keys),
        len(arrived),
        len(set(keys) - arrived - doubtful),
        sum(len(ids) > 1 for ids in arrivals.copies.values()),
        len(doubtful),
        len(doubtful & arrived),
        len(doubtful - unread),
        len(unread),
        tuple(sorted(wrong)),
        dict(kills),
    )
