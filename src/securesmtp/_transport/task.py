"""One of many sends in a thread: its steps, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._protocol.effects import Dialogue
    from securesmtp._transport.channel import Steps
    from securesmtp._transport.link import Link

T = TypeVar("T")


@dataclass(slots=True)
class Visit(Generic[T]):
    """Run *dialogue* over *link*: resumed with its value."""

    link: Link
    dialogue: Dialogue[T]

    def perform(self) -> T:
        """Do it in this thread."""
        return self.link.run(self.dialogue)


class Task:
    """
    Steps that a poller runs.

    Attributes:
        frames: The steps, and above them those of the connection that they visit: the last of them run.
        link: That connection; None while they visit none.
        until: When its wait ends at the latest; None while it does not wait, or without a limit.
        socket: The file descriptor of the socket that it waits for; -1 if it waits for none.
        call: What a thread does for it; None while it does not wait for one.
        polled_at: When it last looked whether its turn has come.
        goes_first: Whether it waits before all others: it does not.
    """

    goes_first = False
    __slots__ = (
        "_call_soon",
        "_is_asleep",
        "_is_woken",
        "_resume",
        "call",
        "frames",
        "link",
        "polled_at",
        "socket",
        "until",
    )

    def __init__(
        self,
        steps: Callable[[Task], Steps[None]],
        call_soon: Callable[[Callable[[], object]], None],
        resume: Callable[[Task], None],
    ) -> None:
        """Start before the first of *steps*; the other arguments are those of its poller."""
        self._call_soon, self._resume = call_soon, resume
        self.frames: list[Steps[Any]] = [steps(self)]
        self.link: Link | None = None
        self.until: float | None = None
        self.socket = -1
        self.polled_at = 0.0
        self.call: Callable[[], object] | None = None
        self._is_asleep = self._is_woken = False

    def wake(self) -> None:
        """End its sleep, or the next one if it does not sleep now; any thread may call this."""
        self._call_soon(self._wake)

    def wait(self, seconds: float) -> None:
        """Begin to sleep, for so many *seconds* at most."""
        self.until, self._is_asleep = monotonic() + seconds, True
        if self._is_woken:
            self._wake()

    def end_sleep(self) -> None:
        """Note that it does not sleep."""
        self._is_asleep = self._is_woken = False

    def _wake(self) -> None:
        if self._is_asleep:
            self._resume(self)
        else:
            self._is_woken = True
