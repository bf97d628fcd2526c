"""What every ledger of this package does alike: its arguments, its verdicts, and what it keeps of a result."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from securesmtp._shown import quote
from securesmtp._values import Outcome, SendResult, Stage
from securesmtp.errors import ConfigurationError, LedgerError
from securesmtp.ledger._protocol import Entry, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERDICTS = {State.ACCEPTED: {State.UNKNOWN}, State.NOT_SENT: {State.UNKNOWN, State.PREPARED}}


def check_resend(resend: Collection[str]) -> frozenset[str]:
    """
    Return *resend* if it is what a ledger may be told to send again.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(resend, str) or not {"unknown", "refused"}.issuperset(resend):
        raise ConfigurationError(f'resend is {quote(resend)}, not a collection of "unknown" and "refused"')
    return frozenset(resend)


def states_before(verdict: State) -> Collection[State]:
    """
    Return the states in which a message may be given this *verdict*.

    Raises:
        ConfigurationError: It is none.
    """
    if verdict not in _VERDICTS:
        raise ConfigurationError(f"{quote(verdict)} is no verdict", hint="use State.ACCEPTED or State.NOT_SENT")
    return _VERDICTS[verdict]


def not_unknown(key: str, state: State | None) -> LedgerError:
    """Return the error of a verdict on the message *key*, which is in another *state*, or has no entry."""
    return LedgerError(
        f"the message {quote(key, allow_at=True)} is not unknown, it is {state or 'not in the ledger'}",
        stage=Stage.CONFIGURATION,
        hint="entries(State.UNKNOWN) lists the messages that may have arrived",
    )


def closed(name: str) -> LedgerError:
    """Return the error of a call when the ledger *name* is closed."""
    text, hint = f"the ledger {name} is closed", "close it when the last result has been read"
    return LedgerError(text, stage=Stage.CONFIGURATION, hint=hint)


def result_to_text(result: SendResult) -> str:
    """Return *result* as a database keeps it."""
    return json.dumps(result.as_dict())


def to_entry(  # noqa: PLR0913, PLR0917 -- one for each column
    key: str,
    digest: str,
    message_id: str | None,
    state: str,
    changed: timedelta,
    token: str | None,
    result: str | None,
) -> Entry:
    """
    Return the entry with what a database keeps of it; *changed* is the time since 1970.

    Raises:
        ValueError: A later version has written it, or it is damaged.
    """
    last = None if result is None else SendResult.from_dict(json.loads(result))
    return Entry(key, digest, message_id, State(state), _EPOCH + changed, token, last)


@contextmanager
def outcomes_unknown() -> Iterator[None]:
    """Mark a `LedgerError`: the messages whose outcomes could not be written may have been delivered."""
    try:
        yield
    except LedgerError as error:
        error.outcome, error.retryable = Outcome.UNKNOWN, False
        raise
