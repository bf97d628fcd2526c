"""
`AsyncFailover`: `Failover` for asyncio and trio. All that does not wait is in `_route` and `_relay`.

More than half of the lines are the public arguments and docstrings, so the file is longer than 300.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from functools import partial as bind
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

from securesmtp._async_mailer import AsyncSecureMailer, Partial
from securesmtp._async_messages import Draft
from securesmtp._async_results import AsyncResults
from securesmtp._closing import close_all_async
from securesmtp._options import close_limit, seconds
from securesmtp._protocol.extensions import Extensions
from securesmtp._relay import Relay
from securesmtp._route import Route
from securesmtp._server_rules import Rules
from securesmtp._servers import Servers, describe, note_check
from securesmtp._submissions import check_async_messages, check_partial, from_message, from_octets
from securesmtp._tracebacks import hide_internal_frames, hide_internal_frames_async
from securesmtp._urls import arguments_from_env, as_urls
from securesmtp.errors import LedgerError, SecureSMTPError
from securesmtp.events import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from email.headerregistry import Address
    from email.message import Message
    from types import TracebackType
    from typing import Unpack

    from securesmtp._arguments import AsyncOptions
    from securesmtp._envelope import Envelope
    from securesmtp._protocol.dsn import DSN
    from securesmtp._protocol.message import Submission
    from securesmtp._report import ServerReport, Stats
    from securesmtp._secret import Secret
    from securesmtp._submissions import Parcel
    from securesmtp._values import Receipt, SendResult
    from securesmtp.ledger import Ledger


class AsyncFailover:
    """
    Sends mail over the first of several servers that works. It has the methods of an `AsyncSecureMailer`.

    It is `Failover` for asyncio and trio: the same arguments and rules, with ``await``. Tasks of one event loop can
    share it. If a task is cancelled, no other server gets its message.
    """

    def __init__(
        self,
        mailers: Iterable[AsyncSecureMailer],
        *,
        rest: float = 60.0,
        on_refusal: Literal["raise", "next"] = "raise",
        on_login_refused: Literal["raise", "next"] = "raise",
    ) -> None:
        """
        Use these servers; none is connected to before the first send.

        Args:
            mailers: A mailer for each server, the preferred one first. They are closed with this object.
            rest: As for `Failover`, and so are the others.
            on_refusal: What to do after a temporary refusal.
            on_login_refused: What to do after a refused login.

        Raises:
            ConfigurationError: An argument is wrong; the message says which.
        """
        self._servers = Servers(mailers, AsyncSecureMailer, Rules(rest, on_refusal, on_login_refused))

    @classmethod
    @hide_internal_frames
    def from_urls(
        cls,
        urls: Iterable[str | Secret],
        *,
        rest: float = 60.0,
        on_refusal: Literal["raise", "next"] = "raise",
        on_login_refused: Literal["raise", "next"] = "raise",
        **options: Unpack[AsyncOptions],
    ) -> Self:
        """
        Make a mailer for each of *urls*, as `AsyncSecureMailer.from_url` does, and use them in this order.

        Args:
            urls: The URL of each server.
            rest: As for `Failover`, and so are the next two.
            on_refusal: What to do after a temporary refusal.
            on_login_refused: What to do after a refused login.
            options: Arguments of all mailers.

        Raises:
            ConfigurationError: As for the class, or for `AsyncSecureMailer.from_url`.
        """
        mailers = [AsyncSecureMailer.from_url(url, **options) for url in as_urls(urls)]
        return cls(mailers, rest=rest, on_refusal=on_refusal, on_login_refused=on_login_refused)

    @classmethod
    @hide_internal_frames
    def from_env(
        cls,
        prefix: str = "SMTP_",
        *,
        rest: float = 60.0,
        on_refusal: Literal["raise", "next"] = "raise",
        on_login_refused: Literal["raise", "next"] = "raise",
        **options: Unpack[AsyncOptions],
    ) -> Self:
        """
        Make mailers from environment variables, as `AsyncSecureMailer.from_env` does.

        ``SMTP_URL`` has the URLs of all servers, with blanks between them. Other variables are for all of them.

        Args:
            prefix: What the names of the variables begin with.
            rest: As for the class, and so are the next two.
            on_refusal: What to do after a temporary refusal.
            on_login_refused: What to do after a refused login.
            options: Arguments of all mailers.

        Raises:
            ConfigurationError: As for the class, or for `AsyncSecureMailer.from_env`.
        """
        mailers = [AsyncSecureMailer(**each) for each in arguments_from_env(prefix, options)]
        return cls(mailers, rest=rest, on_refusal=on_refusal, on_login_refused=on_login_refused)

    def __repr__(self) -> str:
        """Return where the mail goes."""
        return f"<AsyncFailover {describe(self.__dict__.get('_servers', ()))}>"

    async def __aenter__(self) -> Self:
        """Return the object."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the mailers."""
        await self.close()

    @property
    def mailers(self) -> tuple[AsyncSecureMailer, ...]:
        """The mailers, in order."""
        return tuple(each.mailer for each in self._servers)

    @hide_internal_frames_async
    async def send(  # noqa: PLR0913 -- all about one message, most by keyword
        self,
        message: Message,
        *,
        mail_from: str | Address | None = None,
        recipients: Iterable[str | Address] | None = None,
        partial: Partial = "raise",
        deadline: float | None = None,
        dsn: DSN | None = None,
        require_tls: bool = False,
    ) -> Receipt:
        """
        Send *message* over the first server that takes it, and return its receipt.

        Args:
            message: As for `AsyncSecureMailer.send`, and so are the next three.
            mail_from: The reverse-path.
            recipients: The forward-paths.
            partial: What to do if a server refuses some of the recipients.
            deadline: Seconds for this send over all servers; without it, each mailer has its own.
            dsn: As for `SecureMailer.send`.
            require_tls: As for `SecureMailer.send`.

        Raises:
            SecureSMTPError: As for `Failover.send`.
        """
        route = Route(self._servers, deadline)
        asked = Extensions(dsn=dsn, require_tls=require_tls)
        made = bind(self._servers.build, from_message, message, mail_from, recipients, extensions=asked)
        draft = Draft(_builder(route, message, made), message)
        return await _submit(route, draft, partial)

    @hide_internal_frames_async
    async def send_bytes(  # noqa: PLR0913 -- all about one message, most by keyword
        self,
        data: bytes | BinaryIO,
        *,
        mail_from: str | Address,
        recipients: Iterable[str | Address],
        partial: Partial = "raise",
        deadline: float | None = None,
        dsn: DSN | None = None,
        require_tls: bool = False,
        binary: bool = False,
    ) -> Receipt:
        """
        Send a message that is bytes already; otherwise as `send`.

        Args:
            data: As for `AsyncSecureMailer.send_bytes`.
            mail_from: The reverse-path.
            recipients: The forward-paths.
            partial: As for `send`.
            deadline: As for `send`.
            dsn: As for `send`.
            require_tls: As for `send`.
            binary: As for `SecureMailer.send_bytes`.

        Raises:
            SecureSMTPError: As for `send`.
        """
        route = Route(self._servers, deadline)
        asked = Extensions(dsn=dsn, require_tls=require_tls, binary=binary)
        made = bind(self._servers.build, from_octets, data, mail_from, recipients, extensions=asked)
        draft = Draft(_builder(route, data, made))
        del data, made
        try:
            return await _submit(route, draft, partial)
        finally:
            draft.close()

    def send_many(
        self,
        messages: Iterable[Message | Envelope] | AsyncIterable[Message | Envelope],
        *,
        partial: Partial = "raise",
        deadline: float | None = None,
        ledger: Ledger | None = None,
    ) -> AsyncResults:
        """
        Send each of *messages*, and yield the result of each, in order; as `AsyncSecureMailer.send_many`.

        The rules are those of `Failover.send_many`.

        Args:
            messages: As for `AsyncSecureMailer.send_many`.
            partial: As for `send`.
            deadline: Seconds for each message at each server, from when its sending begins.
            ledger: As for `AsyncSecureMailer.send_many`.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        check_partial(partial)
        if deadline is not None:
            seconds("deadline", deadline)
        self._servers.check_closed()
        check_async_messages(messages)
        return _Results(Relay(self._servers, partial, ledger), messages, deadline)

    async def check(self) -> tuple[ServerReport | SecureSMTPError, ...]:
        """
        Check each server, as `AsyncSecureMailer.check` does, and return what was found, in order.

        For a server that cannot be used, it is the error that keeps it from being used; the report has a refused login.
        One that can be used does not rest any longer.
        """
        found: list[ServerReport | SecureSMTPError] = []
        for each in self._servers:
            try:
                found.append(await each.mailer.check())
            except SecureSMTPError as error:
                found.append(error)
            note_check(each, found[-1])
        return tuple(found)

    def stats(self) -> tuple[Stats, ...]:
        """Return what each mailer is doing, and what it has done, in order; as `AsyncSecureMailer.stats`."""
        return tuple(each.mailer.stats() for each in self._servers)

    async def close(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        abort: bool = False,
    ) -> tuple[SendResult, ...]:
        """
        Close each mailer, as `AsyncSecureMailer.close` does, and return what became of the sends that were under way.

        No other server gets a message whose send is ended.

        Args:
            timeout: Seconds for all mailers together.
            abort: Do not wait: as a *timeout* of 0.

        Raises:
            ConfigurationError: *timeout* is not a number of seconds; nothing was closed.
        """
        limit = close_limit(timeout, abort=abort)
        self._servers.refuse_sends()
        return await close_all_async([each.mailer._begin_close() for each in self._servers], limit)


class _Results(AsyncResults):
    """The results of one call of `send_many`, which can be read on after `aclose`, or a cancellation."""

    def __init__(
        self,
        relay: Relay[AsyncSecureMailer],
        messages: Iterable[Message | Envelope] | AsyncIterable[Message | Envelope],
        deadline: float | None,
    ) -> None:
        self._relay, self._deadline = relay, deadline
        self._messages: Any = aiter(messages) if isinstance(messages, AsyncIterable) else iter(messages)
        self._run: AsyncResults | None = None
        self._is_awaited = False

    async def __anext__(self) -> SendResult:
        relay = self._relay
        if self._is_awaited:
            message = "another task is waiting for the next result"
            raise RuntimeError(message)
        self._is_awaited = True
        try:
            while (result := relay.next_result()) is None:
                await self._advance()
        except StopAsyncIteration:
            raise
        except BaseException:
            relay.stop()
            raise
        finally:
            self._is_awaited = False
        relay.last_yielded = result.index
        return result

    async def aclose(self) -> None:
        """Send only what is being sent, and wait for that."""
        self._relay.stop()
        if self._run is not None:
            await self._run.aclose()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._relay.stop()
        if self._run is not None:
            await self._run.__aexit__(kind, error, traceback)

    async def _advance(self) -> None:
        """Note the next result of the current run, or begin the next run."""
        relay = self._relay
        if self._run is None:
            server = relay.next_server()
            if server is not None:
                messages = _Messages(relay, self._messages)
                self._run = server.mailer._run(relay.run(server), messages, self._deadline)
            elif relay.next_result() is None:
                raise relay.failures.pop() if relay.failures else StopAsyncIteration
            return
        try:
            result = await anext(self._run, None)
        except LedgerError as error:
            relay.fail(error)
            result = None
        if result is None:
            self._run = None
        else:
            relay.settle(result)


class _Messages(AsyncIterable["Message | Envelope | Parcel"]):
    """What the current run of a relay sends."""

    def __init__(self, relay: Relay[AsyncSecureMailer], new: Any) -> None:  # noqa: ANN401 -- of either kind
        """Read *new*, an iterator over the messages that were not read yet, or an asynchronous one."""
        self._relay, self._new = relay, new

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | Envelope | Parcel:
        relay = self._relay
        if (parcel := relay.next_message()) is not None:
            return parcel
        if not relay.wants_more:
            raise StopAsyncIteration
        try:
            new: Message | Envelope = await anext(self._new) if hasattr(self._new, "__anext__") else next(self._new)
        except (StopIteration, StopAsyncIteration):
            relay.is_read = True
            raise StopAsyncIteration from None
        except Exception as error:
            if is_interrupt(error):
                raise
            relay.is_read = True
            relay.failures.append(error)
            raise StopAsyncIteration from None
        return relay.add(new)


def _builder(route: Route[AsyncSecureMailer], source: object, build: Callable[[], Submission]) -> Any:  # noqa: ANN401
    """Return what builds a message from *source*, in a thread if that is large: one of the mailer that is tried."""

    async def call() -> Submission:
        return await route.server.mailer._build(source, build, route.deadline)

    return call


def _signer(route: Route[AsyncSecureMailer]) -> Callable[[Submission], Awaitable[Submission]]:
    """Return what signs a message for the server that is tried."""

    async def sign(submission: Submission) -> Submission:
        mailer, core = route.server.mailer, route.server.core
        if core.settings.sign is None:
            return submission
        return await mailer._build(submission, bind(core.sign, submission), route.deadline)

    return sign


async def _submit(route: Route[AsyncSecureMailer], draft: Draft, partial: Partial) -> Receipt:
    draft.sign = _signer(route)
    while True:
        with route:
            return route.accept(await route.server.mailer._submit(draft, partial, route.deadline, route.checkout))
