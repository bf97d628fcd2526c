"""
One call of `send_many` over several servers: what is sent to which of them, and the results in order.

How it works: there is one run of one mailer at a time, and it has connections as usual. Its messages come from here: as
many as there are while its server is the first choice. When the server fails, or another one becomes the first choice,
no more come, so the run ends with what it has read. What it could not send goes to the next run, over the next server,
before new messages. A server that rests gets a run of one message, which finds out whether it is back.

An interrupt may strike at any line of the caller's thread. So a message is noted before a run has it, and is forgotten
only after the caller has its result.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, cast

from securesmtp._bulk.run import Run
from securesmtp._queued import Bounded
from securesmtp._route import add_earlier
from securesmtp._server_rules import Verdict
from securesmtp._servers import M, Rest, Server, Servers
from securesmtp._submissions import Parcel
from securesmtp._values import Outcome, SendResult, Stage
from securesmtp.errors import LedgerError, OutcomeUnknownError, SecureSMTPError

if TYPE_CHECKING:
    from email.message import Message

    from securesmtp._envelope import Envelope
    from securesmtp._protocol.transaction import Partial
    from securesmtp.ledger import Ledger


@dataclass(slots=True, eq=False)
class Tracked(Generic[M]):
    """
    One message on its way.

    Attributes:
        index: Its place in the caller's iterable.
        parcel: The message.
        result: What became of it at the last server; None before the first.
        is_final: Whether no other server gets it.
        tried: The servers that had it.
        errors: What they said, without the last.
    """

    index: int
    parcel: Parcel
    result: SendResult | None = None
    is_final: bool = False
    tried: list[Server[M]] = field(default_factory=list)
    errors: list[SecureSMTPError] = field(default_factory=list)

    def begin(self, server: Server[M]) -> None:
        """Note that *server* gets it."""
        if self.result is not None and isinstance(self.result.error, SecureSMTPError):
            self.errors.append(self.result.error)
        self.tried.append(server)

    def finish(self, result: SendResult) -> None:
        """Let *result* be the one that the caller gets."""
        add_earlier(result.error, self.errors)
        self.result, self.is_final = result, True
        self.parcel.close()

    def finish_with(self, error: SecureSMTPError) -> None:
        """Let the caller get *error*, because its run has ended without a result of it."""
        built = self.parcel.submission
        error.message_id = None if built is None else built.content.message_id
        self.finish(SendResult(self.index, error.message_id, error.outcome, error=error))


class Relay(Generic[M]):
    """
    The messages of one call.

    Attributes:
        last_yielded: The index of the last result that the caller has.
        is_read: Whether the caller's iterable has no more messages.
        failures: What is raised after the results: an error of the iterable, or of the ledger.
    """

    def __init__(self, servers: Servers[M], partial: Partial, ledger: Ledger | None) -> None:
        """
        Start without a message.

        Raises:
            ConfigurationError: *ledger* is none.
        """
        self.last_yielded = -1
        self.is_read = False
        self.failures: list[Exception] = []
        self._servers, self._partial, self._ledger = servers, partial, ledger
        self._pending = deque[Tracked[M]]()
        # What the next run sends before new messages.
        self._again = deque[Tracked[M]]()
        self._has_stopped = False
        self._outage: SecureSMTPError | None = None
        self._stint = Stint(next(iter(servers)), None)
        # The ledger is checked now.
        self.run(self._stint.server)

    def run(self, server: Server[M]) -> Run:
        """Return a run over *server*."""
        # One that does not answer is left for the next server at once.
        return Run(server.core, self._partial, self._ledger, is_patient=False, fatal_error=self._outage)

    def next_result(self) -> SendResult | None:
        """Return the first result that the caller does not have; None if it is not known yet."""
        while self._pending and self._pending[0].index <= self.last_yielded:
            self._pending.popleft()
        first = self._pending[0] if self._pending else None
        return first.result if first is not None and first.is_final else None

    def next_server(self) -> Server[M] | None:
        """Return the server of the next run, when the last one has ended; None if there is nothing more to send."""
        for tracked in self._stint.given.values():
            if not tracked.is_final and tracked not in self._again:
                # An interrupt struck while its result was noted.
                tracked.finish_with(OutcomeUnknownError("interrupted while its result was read", stage=Stage.CONTENT))
        self._stint.given.clear()
        server = None
        while self._again and server is None:
            first = self._again[0]
            server = None if self._has_stopped or self._outage else self._servers.pick(self, first.tried)
            if server is None:
                self._give_up(first)
                self._again.popleft()
        if server is None and not self.is_read:
            server = self._stint.server if self._outage else self._servers.pick(self)
        if server is None:
            self._servers.readmit(self)
        else:
            self._stint = Stint(server, server.rest)
        return server

    def next_message(self) -> Parcel | None:
        """Return the next message that the current run sends again; None if there is none."""
        server = self._stint.server
        found = next((each for each in self._again if server not in each.tried), None)
        if found is None or not self._takes_more:
            return None
        parcel = self._give(found)
        self._again.remove(found)
        return parcel

    @property
    def wants_more(self) -> bool:
        """Whether the current run sends a new message."""
        if self.is_read or self._again or not self._takes_more:
            return False
        return self._outage is not None or self._servers.is_first_choice(self._stint.server, self)

    def add(self, message: Message | Envelope) -> Parcel:
        """Note a new *message*, and return it for the current run."""
        index = self._pending[-1].index + 1 if self._pending else self.last_yielded + 1
        tracked = Tracked[M](index, Parcel(message))
        self._pending.append(tracked)
        return self._give(tracked)

    def settle(self, result: SendResult) -> None:
        """Note a *result* of the current run."""
        stint = self._stint
        tracked, server = stint.given[result.index], stint.server
        error, verdict = result.error, self._servers.rules.judge(result.error)
        place, result = result.index, replace(result, index=tracked.index)
        if verdict.goes_on and self._outage is None and not server.core.is_closed and not self._is_late:
            tracked.result = result
            self._again.append(tracked)
        else:
            tracked.finish(result)
        del stint.given[place]
        # Last: the caller's `on_event` may raise an interrupt.
        if not result.from_ledger and self._outage is None:
            if result.outcome in {Outcome.ACCEPTED, Outcome.REFUSED}:
                server.note_up()
            elif isinstance(error, SecureSMTPError) and verdict.rests:
                server.note_down(stint.rest, error, self._servers.rules.rest)

    def fail(self, error: LedgerError) -> None:
        """End the call because of an *error* of the ledger, which has ended the current run."""
        self.failures.append(error)
        self.stop()
        # The last one could not be looked up. The others have results, unless an interrupt has struck (`next_server`).
        last = self._stint.given.get(self._stint.count - 1)
        if last is not None:
            last.finish_with(LedgerError(f"not sent: {error.args[0]}", retryable=True, hint=error.hint))

    def stop(self) -> None:
        """Send only what is being sent."""
        self.is_read = self._has_stopped = True

    @property
    def _takes_more(self) -> bool:
        """Whether the server of the current run is still used: one that rests gets one message, and no more."""
        stint, rest = self._stint, self._stint.server.rest
        is_used = self._outage is not None or rest is None or (rest is stint.rest and stint.count == 0)
        return is_used and not self._has_stopped

    @property
    def _is_late(self) -> bool:
        return isinstance(self._ledger, Bounded) and self._ledger.is_late

    def _give(self, tracked: Tracked[M]) -> Parcel:
        stint = self._stint
        tracked.begin(stint.server)
        stint.given[stint.count] = tracked
        stint.count += 1
        return tracked.parcel

    def _give_up(self, tracked: Tracked[M]) -> None:
        """Let *tracked* have its last result; if no server can be reached, the messages after it are not sent."""
        result = cast("SendResult", tracked.result)
        tracked.finish(result)
        is_down = self._servers.rules.judge(result.error) is Verdict.REST and all(each.rest for each in self._servers)
        if is_down:
            self._outage = cast("SecureSMTPError", result.error)


@dataclass(slots=True, eq=False)
class Stint(Generic[M]):
    """
    One run over one server.

    Attributes:
        server: The server.
        rest: The rest of it in which the run began, if there is one.
        given: The messages that it has and whose result is not noted, by their place in the run.
        count: How many it was given.
    """

    server: Server[M]
    rest: Rest | None
    given: dict[int, Tracked[M]] = field(default_factory=dict)
    count: int = 0
