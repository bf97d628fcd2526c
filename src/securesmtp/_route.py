"""The route of one message: which servers get it, one after the other, and with which error it ends."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Generic, Self, cast

from securesmtp._options import seconds
from securesmtp._sending import Checkout, Sending
from securesmtp._server_rules import Verdict
from securesmtp._servers import M
from securesmtp._tracebacks import drop_frames
from securesmtp._transport.deadline import Deadline
from securesmtp._values import Outcome
from securesmtp.errors import DeadlineExceededError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from securesmtp._servers import Rest, Server, Servers
    from securesmtp._values import Receipt


class Route(Generic[M]):
    """
    The route of one message: the servers that were tried, and what they said.

    Each `with` block is the try of one server. If its error is one after which the next server gets the message, the
    block ends as if there were none; so it returns from its function if there is none, and stands in an endless loop.

    Attributes:
        deadline: The deadline of this try: the route's, else a new one of the mailer's.
        checkout: The use of a connection by this try.
    """

    def __init__(self, servers: Servers[M], deadline: float | None) -> None:
        """
        Begin without a try.

        Args:
            servers: The servers.
            deadline: How many seconds all tries together may take.

        Raises:
            ConfigurationError: *deadline* is not a number of seconds.
        """
        self.deadline: Deadline | None = None
        self.checkout = Checkout()
        self._servers = servers
        self._deadline = None if deadline is None else Deadline("deadline", seconds("deadline", deadline))
        self._tried: list[Server[M]] = []
        self._errors: list[SecureSMTPError] = []
        self._rest: Rest | None = None
        self._receipt: Receipt | None = None

    @property
    def server(self) -> Server[M]:
        """The server of this try."""
        return self._tried[-1]

    def __enter__(self) -> Self:
        """Pick the next server."""
        server = cast("Server[M]", self._servers.pick(self, self._tried))
        self._tried.append(server)
        self._rest = server.rest
        self.deadline = self._deadline or server.core.start_deadline(None)
        self.checkout = Checkout(guard=self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Return whether the next server gets the message."""
        try:
            verdict = self._note_end(error)
        except BaseException as interrupt:
            # Raised by the caller's `on_event`, which the event of a server that is down or up has called.
            self._explain(interrupt, error)
            raise
        if not isinstance(error, SecureSMTPError):
            return False
        is_last = len(self._tried) == len(self._servers) or self._is_late() or self.server.core.is_closed
        if is_last or not verdict.goes_on:
            add_earlier(error, self._errors)
            return False
        drop_frames(error)
        self._errors.append(error)
        return True

    def accept(self, receipt: Receipt) -> Receipt:
        """Note that this try has ended with *receipt*, and return it."""
        self._receipt = receipt
        return receipt

    def _note_end(self, error: BaseException | None) -> Verdict:
        """Note what the end of this try says of its server, and return what it means."""
        server, verdict = self.server, self._servers.rules.judge(error)
        if error is None or getattr(error, "outcome", None) is Outcome.REFUSED:
            server.note_up()
        elif isinstance(error, DeadlineExceededError) and not self.checkout.has_slot:
            # It has waited for a connection: the server is busy, and not down.
            verdict = Verdict.NEXT
        if isinstance(error, SecureSMTPError) and verdict.rests:
            server.note_down(self._rest, error, self._servers.rules.rest)
        elif self._rest is not None:
            self._rest.readmit(self)
        return verdict

    def _explain(self, interrupt: BaseException, error: BaseException | None) -> None:
        """Add to *interrupt* what became of the message, as a mailer does, if that was its receipt or *error*."""
        receipt = self._receipt
        if receipt is not None:
            ended = Sending(receipt.message_id, monotonic(), receipt=receipt, is_reported=True)
        elif isinstance(error, SecureSMTPError):
            ended = Sending(error.message_id, monotonic(), error=error, is_reported=True)
        else:
            return
        self.server.core.record_interrupt(ended, interrupt)

    def check_use(self) -> None:
        """As `Guard`."""
        self.server.check_use(self._rest)

    def note_unconnected(self, error: SecureSMTPError) -> None:
        """As `Guard`."""
        if self._servers.rules.judge(error).rests:
            self.server.note_down(self._rest, error, self._servers.rules.rest)

    def _is_late(self) -> bool:
        return self._deadline is not None and self._deadline.at <= monotonic()


def add_earlier(error: Exception | None, earlier: Sequence[SecureSMTPError]) -> None:
    """Add to *error*, with which the last server has ended the route of a message, the *earlier* ones."""
    if not isinstance(error, SecureSMTPError) or not earlier:
        return
    error.earlier = tuple(earlier)
    for each in earlier:
        error.add_note(f"securesmtp: tried before: {each.host}:{each.port}: {each.args[0]}")
    if error.outcome is Outcome.NOT_SENT:
        # If it cannot succeed here, it may succeed there.
        error.retryable = error.retryable or any(each.retryable for each in earlier)
