"""`RecordingMailer`: a `SecureMailer` that keeps its messages in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from securesmtp._mailer import Partial, SecureMailer
from securesmtp._results import Results
from securesmtp._submissions import check_partial
from securesmtp.testing._inbox import Inbox
from securesmtp.testing._memory import MemoryServer, check_memory_fault
from securesmtp.testing._rules import Rules

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable
    from email.message import Message
    from typing import Unpack

    from securesmtp._arguments import Options
    from securesmtp._bulk.run import Run
    from securesmtp._envelope import Envelope
    from securesmtp._protocol.message import Submission
    from securesmtp._report import ServerReport
    from securesmtp._sending import Checkout
    from securesmtp._submissions import Parcel
    from securesmtp._transport.deadline import Deadline
    from securesmtp._values import Receipt, SendResult, TLSMode
    from securesmtp.testing._faults import FaultName


class Recorder(Inbox):
    """What both recording mailers share: an inbox, and the server in memory that fills it."""

    _server: MemoryServer

    @property
    def fault(self) -> FaultName | None:
        """The name of the fault that is played; None for none. Set it at any time."""
        return self._server.rules.fault

    @fault.setter
    def fault(self, name: FaultName | None) -> None:
        check_memory_fault(name)
        self._server.rules.fault = name

    def clear(self) -> None:
        """Forget the messages, and whom the fault has refused once."""
        super().clear()
        self._server.rules.greylisted.clear()


class RecordingMailer(SecureMailer, Recorder):
    """
    A `SecureMailer` that keeps its messages in memory: for tests that want no server.

    It takes the arguments of `SecureMailer`, has its methods, returns its receipts and raises its errors: arguments are
    checked and messages are built by the same code. It opens no connection, reads no certificate, asks for no password,
    and starts no thread: ``send_many`` takes the next message when its result is asked for.

    Args:
        host: A name that is not looked up.
        port: As for `SecureMailer`.
        tls: As for `SecureMailer`.
        fault: The name of a fault that it plays: one of `FAULTS`, except ``slow`` and ``oauth_expired``.
        refuse: Recipients to refuse with a 550 reply.
        options: Any argument of `SecureMailer`.

    Raises:
        ConfigurationError: As for `SecureMailer`.
        ValueError: *fault* is something else.
    """

    def __init__(
        self,
        host: str = "mail.example.com",
        port: int | None = None,
        *,
        tls: TLSMode | Literal["implicit", "starttls"] | None = None,
        fault: FaultName | None = None,
        refuse: Collection[str] = (),
        **options: Unpack[Options],
    ) -> None:
        """Check everything, and keep nothing yet."""
        check_memory_fault(fault)
        SecureMailer.__init__(self, host, port, tls=tls, **options)
        Recorder.__init__(self)
        self._server = MemoryServer(self._core, Rules(self._add, frozenset(refuse), fault))

    def _submit(
        self,
        submission: Submission,
        partial: Partial,
        deadline: Deadline | None,  # noqa: ARG002 -- it takes no time
        checkout: Checkout | None = None,  # noqa: ARG002 -- it has no connection
    ) -> Receipt:
        """Keep one message, and return its receipt."""
        check_partial(partial)
        return self._server.send(submission, partial)

    def _run(self, run: Run, messages: Iterable[Message | Envelope | Parcel], deadline: float | None) -> Results:
        """Keep each of *messages*, and yield its result."""
        return _Results(self._server.result(run, *each, deadline) for each in enumerate(messages))

    def check(self) -> ServerReport:
        """Return what the server in memory offers, or raise its fault; as `SecureMailer.check`."""
        return self._server.check()


class _Results(Results):
    """The results of a run in memory: the next message is taken when its result is asked for."""

    def __init__(self, results: Generator[SendResult]) -> None:
        """Yield *results*."""
        self._run = results

    def __next__(self) -> SendResult:
        """Return the next result."""
        return next(self._run)
