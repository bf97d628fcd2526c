"""Make every message once, so that nothing is sent while any of them is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from securesmtp._cli.output import print_note
from securesmtp._cli.send.rows import Fault
from securesmtp._submissions import entry_digest
from securesmtp._values import Outcome, SendResult
from securesmtp.errors import SecureSMTPError
from securesmtp.ledger import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from securesmtp._cli.send.plan import Plan
    from securesmtp._cli.send.progress import Progress
    from securesmtp._cli.send.sources import Ready
    from securesmtp._cli.send.stop import Stop
    from securesmtp._cli.send.tally import Tally
    from securesmtp.ledger import Entry, Ledger

# How many faults are shown; all are counted.
_SHOWN: Final = 50
# A claim belongs to a process that has ended: the ledger is ours alone.
_OUTCOMES: Final = {
    State.ACCEPTED: Outcome.ACCEPTED,
    State.REFUSED: Outcome.REFUSED,
    State.UNKNOWN: Outcome.UNKNOWN,
    State.CLAIMED: Outcome.UNKNOWN,
}


@dataclass(slots=True)
class Findings:
    """What is wrong with a kind of messages: how many there are, and the first few."""

    count: int = 0
    first: list[Fault] = field(default_factory=list)

    def add(self, place: str, reason: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(Fault(place, reason))


@dataclass(slots=True)
class Check:
    """
    What was found before anything is sent.

    Attributes:
        first: The first message that this run would send.
        faults: Those that cannot be sent.
        repeated: Those whose address an earlier one has.
        changed: Those that differ from what was sent, or may have been, under their key.
    """

    first: Ready | None = None
    faults: Findings = field(default_factory=Findings)
    repeated: Findings = field(default_factory=Findings)
    changed: Findings = field(default_factory=Findings)


def check(plan: Plan, ledger: Ledger | None, tally: Tally, progress: Progress, stop: Stop) -> Check:
    """Make all messages of *plan*, look each up in *ledger*, and count in *tally* what earlier runs have sent."""
    found = Check()
    is_new = ledger is None or next(ledger.entries(), None) is None
    for ready in plan.source:
        if stop.is_requested:
            break
        progress.checked += 1
        progress.update()
        if isinstance(ready, Fault):
            found.faults.add(ready.place, ready.reason)
            continue
        try:
            digest = entry_digest(ready.envelope)
        except SecureSMTPError as error:
            found.faults.add(ready.place, str(error.args[0]))
            continue
        tally.total += 1
        if ready.is_repeated:
            found.repeated.add(ready.place, ready.key)
        entry = None if ledger is None or is_new else ledger.look_up(ready.key)
        if entry is not None and entry.digest != digest and entry.state in _OUTCOMES and entry.state != State.REFUSED:
            found.changed.add(ready.place, f"{ready.key} ({entry.state})")
        if entry is None or can_send(entry, digest, plan.resend):
            found.first = found.first or ready
        else:
            tally.add(ready.place, ready.key, result_of(entry), is_earlier=True)
    return found


def can_send(entry: Entry, digest: str, resend: Collection[str]) -> bool:
    """Return whether a message with this *entry* and this *digest* is to be sent by this run."""
    if entry.state in {State.PREPARED, State.NOT_SENT}:
        return True
    if entry.digest != digest:
        # Another text under the same key, of which nothing was delivered.
        return entry.state is State.REFUSED
    is_retryable = entry.state is State.REFUSED and entry.result is not None and entry.result.retryable
    return is_retryable or entry.state in resend


def result_of(entry: Entry) -> SendResult:
    """Return what became of the message of *entry*, in an earlier run or by the verdict of a person."""
    outcome = _OUTCOMES[entry.state]
    if entry.result is not None and entry.result.outcome is outcome:
        return entry.result
    return SendResult(0, entry.message_id, outcome)


def is_sound(found: Check, plan: Plan) -> bool:
    """Return whether all can be sent; write what keeps it from that to standard error."""
    kinds = [(found.faults, "cannot be sent", "correct them: nothing was sent")]
    if not plan.allow_duplicates:
        hint = "remove the rows, or send several messages to one address with --allow-duplicates; nothing was sent"
        kinds.append((found.repeated, "are for an address that an earlier row has", hint))
    if not plan.allow_changes:
        hint = "for a new mailing, pass another --ledger; to send the new text to the others alone, --allow-changes"
        kinds.append((found.changed, f"differ from what {plan.ledger} says was sent to them", hint))
    wrong = [kind for kind in kinds if kind[0].count]
    for findings, what, hint in wrong:
        for fault in findings.first:
            print_note(str(fault))
        more = findings.count - len(findings.first)
        print_note(f"and {more:,} more\n" * (more > 0) + f"Error: {findings.count:,} {what}. Hint: {hint}.")
    return not wrong
