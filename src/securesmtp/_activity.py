"""What the sends of one mailer are doing in one process, and how many have ended in which way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._values import Outcome, Receipt
from securesmtp.errors import SecureSMTPError

if TYPE_CHECKING:
    from securesmtp._sending import Sending
    from securesmtp._values import SendResult


class Activity:
    """
    The sends of a mailer.

    Attributes:
        under_way: Those that have begun and not ended, each by its `id`, in the order in which they began.
        counts: How many messages have ended with each outcome, by its name.
    """

    __slots__ = ("counts", "under_way")

    def __init__(self) -> None:
        """Start with none."""
        self.under_way: dict[int, Sending] = {}
        # By names: the hash of an enum's member is a call, in which another thread could count too.
        self.counts: dict[str, int] = {outcome.name: 0 for outcome in Outcome}

    def count(self, end: Receipt | BaseException | None) -> None:
        """Count the *end* of a message; None, of one whose end an interrupt kept from being noted, is unknown."""
        name = "ACCEPTED" if type(end) is Receipt else _outcome(end).name
        # Without a call in it, so that no other thread comes in between.
        self.counts[name] += 1


class UnderWay:
    """The sends that are under way at a moment, and what becomes of them."""

    def __init__(self, activity: Activity, but_in: int = 0) -> None:
        """Look at the sends of *activity*, but not at those in the thread *but_in*."""
        self._activity = activity
        self._sends = [each for each in tuple(activity.under_way.values()) if each.thread != but_in]

    def is_over(self) -> bool:
        """Return whether it is known of all what became of them: their `on_event` may still be running."""
        return all(map(self._has_ended, self._sends))

    def results(self, *, is_aborted: bool) -> tuple[SendResult, ...]:
        """Return what became of each; with *is_aborted*, also of those that have not ended."""
        ended = [each for each in self._sends if is_aborted or self._has_ended(each)]
        return tuple(each.result(index) for index, each in enumerate(ended))

    def _has_ended(self, sending: Sending) -> bool:
        return sending.end is not None or id(sending) not in self._activity.under_way


def _outcome(end: object) -> Outcome:
    # The cause of an exception that is not ours is ours.
    ours = end if isinstance(end, SecureSMTPError) else getattr(end, "__cause__", None)
    return ours.outcome if isinstance(ours, SecureSMTPError) else Outcome.UNKNOWN
