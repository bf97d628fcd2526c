"""What every ledger does, and the values that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from securesmtp._portable import Portable
from securesmtp._values import SendResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class State(StrEnum):
    """What is known of a message. All but the first two are outcomes (`Outcome`), with the same values."""

    PREPARED = "prepared"
    """Nobody has claimed it: it was certainly not sent."""
    CLAIMED = "claimed"
    """Somebody sends it, and the claim is younger than the longest send."""
    UNKNOWN = "unknown"
    """It may have been delivered: its claim has no end and is older than that, or its outcome is unknown."""
    ACCEPTED = "accepted"
    """The server accepted it."""
    REFUSED = "refused"
    """The server refused it and does not have it."""
    NOT_SENT = "not sent"
    """The server cannot have accepted it."""


@dataclass(frozen=True, slots=True)
class Item:
    """
    A message that is to be sent once.

    Attributes:
        key: Your name for it, the same whenever it is tried again: an invoice number, a file name.
        digest: The SHA-256 of what the caller gave, in hexadecimal; what differs in each try (Date, boundaries) is not
            part of it.
        message_id: Its Message-ID; None if it has none.
    """

    key: str
    digest: str
    message_id: str | None


@dataclass(frozen=True, slots=True)
class Entry(Portable):
    """
    What a ledger knows of one message.

    Attributes:
        key: The key of the message.
        digest: See `Item`.
        message_id: The Message-ID of every try.
        state: What is known of it now.
        changed: When that was written (UTC), by the clock of the database.
        token: Whose claim it is or was; None if nobody has claimed it, or if its state is a verdict.
        result: How the last try ended, with its receipt or its error; None before the first one has ended.
    """

    key: str
    digest: str
    message_id: str | None
    state: State
    changed: datetime
    token: str | None = None
    result: SendResult | None = None


class Ledger(Protocol):
    """
    What `SecureMailer.send_many` needs of a ledger. Each method commits before it returns, and takes many at a time.

    Every method may raise `LedgerError`: the database cannot be read or written, and nothing was changed. It may be
    called from any thread.

    Attributes:
        longest_send: Seconds after which a claim without an end counts as unknown. No send that uses the ledger takes
            longer: it is an upper bound of its deadline.
    """

    longest_send: float

    def prepare(self, items: Sequence[Item]) -> Sequence[Entry]:
        """
        Add those of *items* whose key is new, as `State.PREPARED`; return the entry of each as it is now.

        An entry that exists is returned unchanged, whatever its digest: the caller compares. But an entry that ended as
        `State.NOT_SENT` or `State.REFUSED` with another digest is replaced: nothing of it was delivered. The keys of
        *items* are distinct.
        """

    def claim(self, items: Sequence[Item], token: str) -> Sequence[Entry]:
        """
        Prepare each of *items*, and claim those that may be sent; return the entry of each as it is now.

        The caller may send exactly those whose entry has the item's digest, its *token* and `State.CLAIMED`, each with
        the Message-ID of the entry. May be sent: what is prepared or was not sent, what was refused and is retryable,
        and what the ledger was told to resend; never an entry with another digest.

        Claiming again with the same token is a yes as long as the claim has no end, so that a lost reply of the
        database is no loss. A caller therefore has a token of its own, and does not claim a key again while it sends
        that message.
        """

    def finish(self, ends: Mapping[str, SendResult], token: str) -> None:
        """
        Write how the sends of the entries with these keys ended. An entry that *token* does not own is not changed.

        A claim has one end; if that is `Outcome.UNKNOWN`, its owner may still write a better one. Otherwise it stays
        unknown until `reconcile` is told a verdict. A claim that counts as unknown because of its age still ends here.

        Raises:
            LedgerError: Nothing was written. Its outcome is `Outcome.UNKNOWN`, since the entries stay claimed.
        """

    def look_up(self, key: str) -> Entry | None:
        """Return the entry of *key*; None if there is none."""

    def entries(self, *states: State) -> Iterator[Entry]:
        """Yield the entries that are in one of *states*, or all, in the order in which they were added."""

    def reconcile(self, key: str, state: State) -> Entry:
        """
        Write the verdict of a person, or of the server's log, on an unknown message, and return its entry.

        A message that is `State.PREPARED` can be given up as `State.NOT_SENT`: then its key may get other content.

        Args:
            key: Its key.
            state: `State.ACCEPTED` (it arrived) or `State.NOT_SENT` (it did not: it may be sent again).

        Raises:
            LedgerError: It is not unknown, or there is no such key.
        """
