"""The messages of an asynchronous mailer: built when a connection is free, read from any kind of iterable."""

from __future__ import annotations

from collections.abc import AsyncIterable
from functools import partial as bind
from typing import TYPE_CHECKING, Any, Self

from securesmtp._protocol.message import Submission
from securesmtp._submissions import header_id
from securesmtp.errors import ConnectError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from email.message import Message

    from securesmtp._bulk.jobs import AnyJob
    from securesmtp._bulk.run import Run
    from securesmtp._envelope import Envelope
    from securesmtp._submissions import Parcel


class Draft:
    """
    A message that is built once a connection is free for it.

    A thousand sends that begin together so cost the loop one message for each connection, not a thousand.
    """

    __slots__ = ("_message", "_source", "is_invalid", "sign")

    def __init__(
        self, source: Submission | Callable[[], Awaitable[Submission]], message: Message | None = None
    ) -> None:
        """Have *source* called once, unless it is built already; it builds *message*, unless that is bytes."""
        self._source = source
        self._message = message
        self.is_invalid = False
        # Signs it for the server that is tried; None if what builds it does that.
        self.sign: Callable[[Submission], Awaitable[Submission]] | None = None

    @property
    def message_id(self) -> str | None:
        """Its Message-ID; before it is built, that of its header, if there is one."""
        source = self._source
        return source.content.message_id if isinstance(source, Submission) else header_id(self._message)

    async def build(self) -> Submission:
        """Return the message; *is_invalid* is set if that fails, unless its time was up or the mailer was closed."""
        source = self._source
        try:
            if not isinstance(source, Submission):
                source = self._source = await source()
            return source if self.sign is None else await self.sign(source)
        except (ConnectError, DeadlineExceededError):
            raise
        except Exception:
            self.is_invalid = True
            raise

    def close(self) -> None:
        """Delete its temporary file, if it has one."""
        if isinstance(self._source, Submission):
            self._source.content.close()


class Jobs:
    """The jobs of a run, for an iterable of messages that may be asynchronous."""

    def __init__(
        self,
        run: Run,
        messages: Iterable[Message | Envelope] | AsyncIterable[Message | Envelope | Parcel],
        deadline: float | None,
        build: Callable[[object, Callable[[], AnyJob]], Awaitable[AnyJob]],
    ) -> None:
        """Read *messages* one at a time; *build* calls a function, in a thread if its first argument is large."""
        self._run, self._deadline, self._build = run, deadline, build
        self._messages: Any = aiter(messages) if isinstance(messages, AsyncIterable) else iter(messages)
        self._index = 0

    def __aiter__(self) -> Self:
        """Return it."""
        return self

    async def __anext__(self) -> AnyJob:
        """Return the next job."""
        message = await self._read()
        index, self._index = self._index, self._index + 1
        return await self._build(message, bind(self._run.job, index, message, self._deadline))

    async def _read(self) -> Message | Envelope | Parcel:
        if hasattr(self._messages, "__anext__"):
            message: Message | Envelope | Parcel = await anext(self._messages)
            return message
        try:
            message = next(self._messages)
        except StopIteration:
            raise StopAsyncIteration from None
        return message
