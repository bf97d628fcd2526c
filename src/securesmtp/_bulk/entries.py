"""What the entry of a ledger says of a message: whether it is sent, and its result if it is not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial as bind
from typing import TYPE_CHECKING, Protocol, cast

from securesmtp._bulk.jobs import DOUBTFUL, InvalidInput, Repeat
from securesmtp._options import seconds
from securesmtp._queued import other_content
from securesmtp._values import Outcome, SendResult
from securesmtp.errors import ConfigurationError, LedgerError, OutcomeUnknownError
from securesmtp.ledger import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from securesmtp._bulk.jobs import Job
    from securesmtp.errors import SecureSMTPError
    from securesmtp.ledger import Entry, Item, Ledger


class _AdvancingLedger(Protocol):
    def advance(self, ends: Mapping[str, SendResult], items: Sequence[Item], token: str) -> Sequence[Entry]: ...


def check_ledger(ledger: object) -> None:
    """
    Check that *ledger* is one.

    Raises:
        ConfigurationError: It is not.
    """
    missing = [name for name in ("look_up", "claim", "finish") if not callable(getattr(ledger, name, None))]
    if missing or not hasattr(ledger, "longest_send"):
        message = f"ledger is a {type(ledger).__name__}, which has no {(*missing, 'longest_send')[0]}"
        raise ConfigurationError(message, hint="pass securesmtp.ledger.SQLiteLedger(path)")
    seconds("ledger.longest_send", ledger.longest_send)


def can_advance(ledger: Ledger) -> bool:
    """Return whether *ledger* can do `Ledger.finish` and then `Ledger.claim` in one commit."""
    return hasattr(ledger, "advance")


def call_to_claim(
    ledger: Ledger, ends: Mapping[str, SendResult], items: Sequence[Item], token: str
) -> Callable[[], Sequence[Entry]]:
    """Return the call that claims *items*, and that writes *ends*, if there are any, in the same commit."""
    if ends:
        return bind(cast("_AdvancingLedger", ledger).advance, ends, items, token)
    return bind(ledger.claim, items, token)


def end_before(job: Job, first: Job | None, entry: Entry | None) -> InvalidInput | Repeat | None:
    """Return the end of *job* if it is known before anything is claimed; None if it is not."""
    item = job.item
    if first is not None and first.item is not None and item is not None:
        if first.item.digest != item.digest:
            raise other_content(job.key, "an earlier message of this run")
        return Repeat(job.index, first)
    if entry is not None and entry.state is State.ACCEPTED:
        return InvalidInput(result_of(job, entry))
    return None


def is_doubtful(item: Item, entry: Entry | None) -> bool:
    """Return whether *item* may have been delivered before, by its *entry*."""
    return entry is not None and entry.digest == item.digest and entry.state in {State.CLAIMED, State.UNKNOWN}


def result_of(job: Job, entry: Entry) -> SendResult:
    """Return the result of a message that is not sent because of its *entry*."""
    kept, message_id = entry.result, job.submission.content.message_id
    error: SecureSMTPError
    if job.item is None or entry.digest != job.item.digest:
        error = other_content(job.key, f"another message, which is {entry.state}")
        error.message_id = message_id
        return SendResult(job.index, message_id, error.outcome, error=error)
    if entry.state is State.CLAIMED:
        text = "another run is sending it: its send is in progress"
        error = OutcomeUnknownError(text, hint="look its key up in the ledger later")
    elif kept is not None and kept.outcome.value == entry.state.value:
        return replace(kept, index=job.index, from_ledger=True)
    elif entry.state is State.ACCEPTED:
        return SendResult(job.index, entry.message_id, Outcome.ACCEPTED, from_ledger=True)
    elif entry.state is State.UNKNOWN:
        text = "an earlier run ended while it was sending it: it may have been delivered"
        error = OutcomeUnknownError(text, hint=DOUBTFUL)
    else:
        error = LedgerError(f"not sent: the ledger did not let this run claim it (it is {entry.state})")
    error.message_id = entry.message_id
    return SendResult(job.index, entry.message_id, error.outcome, error=error, from_ledger=True)
