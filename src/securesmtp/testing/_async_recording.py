"""`AsyncRecordingMailer`: an `AsyncSecureMailer` that keeps its messages in memory."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from anyio.lowlevel import checkpoint

from securesmtp._async_mailer import AsyncSecureMailer, Partial
from securesmtp._async_results import AsyncResults
from securesmtp._submissions import check_partial
from securesmtp.testing._memory import MemoryServer, check_memory_fault
from securesmtp.testing._recording import Recorder
from securesmtp.testing._rules import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from email.message import Message
    from types import TracebackType
    from typing import Unpack

    from securesmtp._arguments import AsyncOptions
    from securesmtp._async_messages import Draft
    from securesmtp._bulk.run import Run
    from securesmtp._envelope import Envelope
    from securesmtp._report import ServerReport
    from securesmtp._sending import Checkout
    from securesmtp._submissions import Parcel
    from securesmtp._transport.deadline import Deadline
    from securesmtp._values import Receipt, SendResult, TLSMode
    from securesmtp.testing._faults import FaultName

T = TypeVar("T")


class AsyncRecordingMailer(AsyncSecureMailer, Recorder):
    """
    An `AsyncSecureMailer` that keeps its messages in memory: for tests that want no server.

    It is `RecordingMailer` for asyncio and trio: the same arguments, with ``await``.

    Args:
        host: A name that is not looked up.
        port: As for `AsyncSecureMailer`.
        tls: As for `AsyncSecureMailer`.
        fault: The name of a fault that it plays: one of `FAULTS`, except ``slow`` and ``oauth_expired``.
        refuse: Recipients to refuse with a 550 reply.
        options: Any argument of `AsyncSecureMailer`.

    Raises:
        ConfigurationError: As for `AsyncSecureMailer`.
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
        **options: Unpack[AsyncOptions],
    ) -> None:
        """Check everything, and keep nothing yet."""
        check_memory_fault(fault)
        AsyncSecureMailer.__init__(self, host, port, tls=tls, **options)
        Recorder.__init__(self)
        self._server = MemoryServer(self._core, Rules(self._add, frozenset(refuse), fault))

    async def _submit(
        self,
        draft: Draft,
        partial: Partial,
        deadline: Deadline | None,  # noqa: ARG002 -- it takes no time
        checkout: Checkout | None = None,  # noqa: ARG002 -- it has no connection
    ) -> Receipt:
        """Keep one message, and return its receipt."""
        check_partial(partial)
        await checkpoint()
        return self._server.send(await draft.build(), partial)

    async def _build(self, source: object, build: Callable[[], T], deadline: Deadline | None = None) -> T:  # noqa: ARG002
        """Return what *build* returns, without a thread."""
        return build()

    def _run(
        self,
        run: Run,
        messages: Iterable[Message | Envelope] | AsyncIterable[Message | Envelope | Parcel],
        deadline: float | None,
    ) -> AsyncResults:
        """Keep each of *messages*, and return their results."""
        return _Results(messages, lambda index, message: self._server.result(run, index, message, deadline))

    async def check(self) -> ServerReport:
        """Return what the server in memory offers, or raise its fault; as `AsyncSecureMailer.check`."""
        await checkpoint()
        return self._server.check()


class _Results(AsyncResults):
    """The results of a run in memory: the next message is taken when its result is asked for."""

    def __init__(
        self,
        messages: Iterable[Message | Envelope] | AsyncIterable[Message | Envelope | Parcel],
        result: Callable[[int, Message | Envelope | Parcel], SendResult],
    ) -> None:
        """Return the *result* of each of *messages*, with its index."""
        self._messages: Any = aiter(messages) if isinstance(messages, AsyncIterable) else iter(messages)
        self._result, self._index = result, 0

    async def __anext__(self) -> SendResult:
        """Return the next result."""
        await checkpoint()
        if hasattr(self._messages, "__anext__"):
            message = await anext(self._messages)
        else:
            try:
                message = next(self._messages)
            except StopIteration:
                raise StopAsyncIteration from None
        index, self._index = self._index, self._index + 1
        return self._result(index, message)

    async def aclose(self) -> None:
        """End the run."""
        self._messages = iter(())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the run."""
        await self.aclose()
