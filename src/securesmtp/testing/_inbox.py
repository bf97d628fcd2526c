"""The messages that a test server or a recording mailer has received, and the assertions about them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from securesmtp.testing._received import Received

# What a failed assertion shows: messages, and characters of one text.
_LISTED, _SHOWN = 20, 300


@dataclass(frozen=True, slots=True)
class _Check:
    """One thing to look for: what is wanted, what a message has instead, and whether it fits."""

    wanted: str
    found: Callable[[Received], object]
    fits: Callable[[Received], bool]

    def difference(self, message: Received) -> str:
        """Return the lines that say how *message* differs."""
        return f"  wanted {self.wanted}\n     got {_shown(self.found(message))}"


class Inbox:
    """
    The messages that were received, and assertions about them.

    Attributes:
        messages: All of them, in order: always the same list.
    """

    messages: list[Received]

    def __init__(self) -> None:
        """Start empty."""
        self.messages = []
        self._last_number = 0
        self._arrival = threading.Condition()

    def clear(self) -> None:
        """Forget the messages."""
        with self._arrival:
            self.messages.clear()

    def wait_for(self, count: int = 1, timeout: float = 5.0) -> list[Received]:
        """
        Wait until *count* messages have come, and return all that have.

        Raises:
            AssertionError: There are fewer after *timeout* seconds; the text lists them.
        """
        __tracebackhide__ = True
        with self._arrival:
            has_come = self._arrival.wait_for(lambda: len(self.messages) >= count, timeout)
            messages = list(self.messages)
        if not has_come:
            raise AssertionError(f"waited {timeout:g} s for {_count(count)}, and got {_listed(messages)}")
        return messages

    def assert_sent(  # noqa: PLR0913 -- each is one thing to look for
        self,
        *,
        to: str | Iterable[str] = (),
        subject: str | None = None,
        text_contains: str | None = None,
        html_contains: str | None = None,
        mail_from: str | None = None,
        count: int | None = None,
    ) -> Received:
        """
        Check that a message was sent, and return the first that fits.

        Args:
            to: A recipient of its envelope (so To, Cc or Bcc), or several of them.
            subject: Its whole subject.
            text_contains: A part of its text.
            html_contains: A part of its HTML.
            mail_from: Its sender, as in the envelope.
            count: How many messages must fit, exactly; None for one or more.

        Raises:
            AssertionError: No message fits, or not *count* of them. The text lists the messages, and says what is
                different in the one that fits best.
            ValueError: *count* is below 1.
        """
        __tracebackhide__ = True
        if count is not None and count < 1:
            raise ValueError(f"count is {count}: use assert_nothing_sent(), or look at messages")
        checks = [_recipient(address) for address in ([to] if isinstance(to, str) else to)]
        if mail_from is not None:
            checks.append(
                _Check(f"mail_from {mail_from!r}", lambda each: each.mail_from, _equals("mail_from", mail_from))
            )
        if subject is not None:
            checks.append(_Check(f"subject {subject!r}", lambda each: each.subject, _equals("subject", subject)))
        if text_contains is not None:
            checks.append(_part("text", text_contains))
        if html_contains is not None:
            checks.append(_part("html", html_contains))
        messages = list(self.messages)
        fitting = [each for each in messages if all(check.fits(each) for check in checks)]
        if fitting and count in {None, len(fitting)}:
            return fitting[0]
        if fitting:
            raise AssertionError(f"{_count(len(fitting))} fit, not {count}, of {_listed(messages)}")
        raise AssertionError(f"no message fits, of {_listed(messages)}{_nearest(messages, checks)}")

    def assert_nothing_sent(self) -> None:
        """
        Check that no message was sent, and that none is on its way.

        Raises:
            AssertionError: One was, or is; the text lists them.
        """
        __tracebackhide__ = True
        if self.messages:
            raise AssertionError(f"wanted no message, and got {_listed(self.messages)}")
        if self._is_receiving():
            raise AssertionError(
                "wanted no message, and one is being received just now: wait until your program is done"
            )

    def _add(self, message: Received) -> int:
        """Keep *message*, and return its number: also after `clear`, another one for each."""
        with self._arrival:
            self.messages.append(message)
            self._last_number += 1
            self._arrival.notify_all()
            return self._last_number

    def _is_receiving(self) -> bool:
        return False


def _recipient(address: str) -> _Check:
    wanted = address.casefold()
    return _Check(
        f"to {address!r}",
        lambda each: ", ".join(each.recipients),
        lambda each: wanted in map(str.casefold, each.recipients),
    )


def _equals(attribute: str, wanted: str) -> Callable[[Received], bool]:
    return lambda each: getattr(each, attribute) == wanted


def _part(attribute: str, wanted: str) -> _Check:
    return _Check(
        f"{attribute} with {wanted!r}",
        lambda each: getattr(each, attribute),
        lambda each: wanted in (getattr(each, attribute) or ""),
    )


def _nearest(messages: Sequence[Received], checks: Sequence[_Check]) -> str:
    """Return what is different in the message that fits most of *checks*."""
    if not messages:
        return ""
    nearest = max(messages, key=lambda each: sum(check.fits(each) for check in checks))
    different = [check.difference(nearest) for check in checks if not check.fits(nearest)]
    return "\n".join([f"\nmessage {messages.index(nearest)} fits best:", *different])


def _count(number: int) -> str:
    return "1 message" if number == 1 else f"{number} messages"


def _listed(messages: Sequence[Received]) -> str:
    lines = [f"  {number}: {each}" for number, each in enumerate(messages[:_LISTED])]
    if len(messages) > _LISTED:
        lines.append(f"  and {len(messages) - _LISTED} more")
    return "\n".join([_count(len(messages)) + ":" * bool(lines), *lines])


def _shown(value: object) -> str:
    if value is None:
        return "nothing: the message has none"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
