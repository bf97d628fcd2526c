"""
`Failover`: several servers in order, of which the next one gets a message only if that cannot send it twice.

More than half of the lines are the public arguments and docstrings, so the file is longer than 300.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Literal, Self, cast

from securesmtp._closing import close_all
from securesmtp._mailer import Partial, SecureMailer
from securesmtp._options import close_limit, seconds
from securesmtp._protocol.extensions import Extensions
from securesmtp._relay import Relay
from securesmtp._route import Route
from securesmtp._server_rules import Rules
from securesmtp._servers import Servers, describe, note_check
from securesmtp._submissions import check_messages, check_partial, from_message, from_octets
from securesmtp._tracebacks import hide_internal_frames
from securesmtp._urls import arguments_from_env, as_urls
from securesmtp.errors import LedgerError, SecureSMTPError
from securesmtp.events import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from email.headerregistry import Address
    from email.message import Message
    from types import TracebackType
    from typing import Unpack

    from securesmtp._arguments import Options
    from securesmtp._envelope import Envelope
    from securesmtp._protocol.dsn import DSN
    from securesmtp._protocol.message import Submission
    from securesmtp._report import ServerReport, Stats
    from securesmtp._secret import Secret
    from securesmtp._submissions import Parcel
    from securesmtp._values import Receipt, SendResult
    from securesmtp.ledger import Ledger


class Failover:
    """
    Sends mail over the first of several servers that works.

    It has the methods of a `SecureMailer`; `check` and `stats` return a tuple, with one value for each server.

    The next server gets a message only if this one certainly has not accepted it. If the outcome is unknown, you get
    the `OutcomeUnknownError`, and no other server gets the message: it could arrive twice. Every server gets the same
    message, with the same Message-ID.

    A server that cannot be reached, or fails before it has accepted a message, rests: for *rest* seconds, the others
    get all messages. Then one message tries it, and if that succeeds, all do. If all servers rest, a message is tried
    at each of them, beginning with the one that has rested for the longest time. This is remembered in memory only.

    Each server has its own mailer, with its own login, limits and connections. Threads can share the object.
    """

    def __init__(
        self,
        mailers: Iterable[SecureMailer],
        *,
        rest: float = 60.0,
        on_refusal: Literal["raise", "next"] = "raise",
        on_login_refused: Literal["raise", "next"] = "raise",
    ) -> None:
        """
        Use these servers; none is connected to before the first send.

        Args:
            mailers: A mailer for each server, the preferred one first. They are closed with this object.
            rest: Seconds for which a server that failed is not used.
            on_refusal: ``"next"`` tries the next server if a server refuses a message temporarily (4xx), such as by
                greylisting. A permanent refusal (5xx) is always raised.
            on_login_refused: ``"next"`` tries the next server if a server refuses the login for good. Do not use it if
                the servers share the accounts: each of them would count one more wrong login, until the account is
                locked.

        Raises:
            ConfigurationError: An argument is wrong; the message says which.
        """
        self._servers = Servers(mailers, SecureMailer, Rules(rest, on_refusal, on_login_refused))

    @classmethod
    @hide_internal_frames
    def from_urls(
        cls,
        urls: Iterable[str | Secret],
        *,
        rest: float = 60.0,
        on_refusal: Literal["raise", "next"] = "raise",
        on_login_refused: Literal["raise", "next"] = "raise",
        **options: Unpack[Options],
    ) -> Self:
        """
        Make a mailer for each of *urls*, as `SecureMailer.from_url` does, and use them in this order.

        Args:
            urls: The URL of each server.
            rest: As for the class, and so are the next two.
            on_refusal: What to do after a temporary refusal.
            on_login_refused: What to do after a refused login.
            options: Arguments of all mailers.

        Raises:
            ConfigurationError: As for the class, or for `SecureMailer.from_url`.
        """
        mailers = [SecureMailer.from_url(url, **options) for url in as_urls(urls)]
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
        **options: Unpack[Options],
    ) -> Self:
        """
        Make mailers from environment variables, as `SecureMailer.from_env` does.

        ``SMTP_URL`` has the URLs of all servers, with blanks between them. Other variables are for all of them.

        Args:
            prefix: What the names of the variables begin with.
            rest: As for the class, and so are the next two.
            on_refusal: What to do after a temporary refusal.
            on_login_refused: What to do after a refused login.
            options: Arguments of all mailers.

        Raises:
            ConfigurationError: As for the class, or for `SecureMailer.from_env`.
        """
        mailers = [SecureMailer(**each) for each in arguments_from_env(prefix, options)]
        return cls(mailers, rest=rest, on_refusal=on_refusal, on_login_refused=on_login_refused)

    def __repr__(self) -> str:
        """Return where the mail goes."""
        return f"<Failover {describe(self.__dict__.get('_servers', ()))}>"

    def __enter__(self) -> Self:
        """Return the object."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the mailers."""
        self.close()

    @property
    def mailers(self) -> tuple[SecureMailer, ...]:
        """The mailers, in order."""
        return tuple(each.mailer for each in self._servers)

    @hide_internal_frames
    def send(  # noqa: PLR0913 -- all about one message, most by keyword
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
            message: As for `SecureMailer.send`, and so are the next three.
            mail_from: The reverse-path.
            recipients: The forward-paths.
            partial: What to do if a server refuses some of the recipients.
            deadline: Seconds for this send over all servers; without it, each mailer has its own.
            dsn: As for `SecureMailer.send`.
            require_tls: As for `SecureMailer.send`.

        Raises:
            SecureSMTPError: The error of the last server that was tried; its ``earlier`` has those of the others. It is
                retryable if one of the servers may take the message later.
        """
        route = Route(self._servers, deadline)
        asked = Extensions(dsn=dsn, require_tls=require_tls)
        built = self._servers.build(from_message, message, mail_from, recipients, extensions=asked)
        return _submit(route, built, partial)

    @hide_internal_frames
    def send_bytes(  # noqa: PLR0913 -- all about one message, most by keyword
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
            data: As for `SecureMailer.send_bytes`.
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
        submission = self._servers.build(from_octets, data, mail_from, recipients, extensions=asked)
        del data
        try:
            return _submit(route, submission, partial)
        finally:
            submission.content.close()

    def send_many(
        self,
        messages: Iterable[Message | Envelope],
        *,
        partial: Partial = "raise",
        deadline: float | None = None,
        ledger: Ledger | None = None,
    ) -> Iterator[SendResult]:
        """
        Send each of *messages*, and yield the result of each, in order; as `SecureMailer.send_many`.

        All messages go over the first server that works. When it fails, those that it certainly has not accepted go
        over the next one, and so do the messages after them; when it has rested, one message tries it. If all servers
        have failed, the remaining messages are not sent.

        Args:
            messages: As for `SecureMailer.send_many`.
            partial: As for `send`.
            deadline: Seconds for each message at each server, from when its sending begins.
            ledger: As for `SecureMailer.send_many`.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        check_partial(partial)
        if deadline is not None:
            seconds("deadline", deadline)
        self._servers.check_closed()
        check_messages(messages)
        return _Results(Relay(self._servers, partial, ledger), iter(messages), deadline)

    def check(self) -> tuple[ServerReport | SecureSMTPError, ...]:
        """
        Check each server, as `SecureMailer.check` does, and return what was found, in order.

        For a server that cannot be used, it is the error that keeps it from being used; the report has a refused login.
        One that can be used does not rest any longer.
        """
        found: list[ServerReport | SecureSMTPError] = []
        for each in self._servers:
            try:
                found.append(each.mailer.check())
            except SecureSMTPError as error:
                found.append(error)
            note_check(each, found[-1])
        return tuple(found)

    def stats(self) -> tuple[Stats, ...]:
        """Return what each mailer is doing, and what it has done, in order; as `SecureMailer.stats`."""
        return tuple(each.mailer.stats() for each in self._servers)

    def close(self, *, timeout: float | None = None, abort: bool = False) -> tuple[SendResult, ...]:
        """
        Close each mailer, as `SecureMailer.close` does, and return what became of the sends that were under way.

        No other server gets a message whose send is ended.

        Args:
            timeout: Seconds for all mailers together.
            abort: Do not wait: as a *timeout* of 0.

        Raises:
            ConfigurationError: *timeout* is not a number of seconds; nothing was closed.
        """
        limit = close_limit(timeout, abort=abort)
        self._servers.refuse_sends()
        return close_all([each.mailer._begin_close() for each in self._servers], limit)


class _Results:
    """The results of one call of `send_many`: an iterator that can be read on after `close`, or an interrupt."""

    def __init__(
        self, relay: Relay[SecureMailer], messages: Iterator[Message | Envelope], deadline: float | None
    ) -> None:
        self._relay, self._messages, self._deadline = relay, messages, deadline
        self._run: Iterator[SendResult] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SendResult:
        relay = self._relay
        try:
            while (result := relay.next_result()) is None:
                self._advance()
        except StopIteration:
            raise
        except BaseException:
            relay.stop()
            raise
        index = result.index
        # Last, and by an assignment alone, as in `_results`.
        relay.last_yielded = index
        return result

    def close(self) -> None:
        """Send only what is being sent, and wait for that."""
        self._relay.stop()
        if self._run is not None:
            cast("Generator[SendResult]", self._run).close()

    def _advance(self) -> None:
        """Note the next result of the current run, or begin the next run."""
        relay = self._relay
        if self._run is None:
            server = relay.next_server()
            if server is not None:
                messages = _messages(relay, self._messages)
                self._run = server.mailer._run(relay.run(server), messages, self._deadline)
            elif relay.next_result() is None:
                raise relay.failures.pop() if relay.failures else StopIteration
            return
        try:
            result = next(self._run, None)
        except LedgerError as error:
            relay.fail(error)
            result = None
        if result is None:
            self._run = None
        else:
            relay.settle(result)


def _messages(relay: Relay[SecureMailer], new: Iterator[Message | Envelope]) -> Iterator[Parcel]:
    """Yield what the current run of *relay* sends; *new* has the messages that were not read yet."""
    while (parcel := relay.next_message()) is not None:
        yield parcel
    while relay.wants_more:
        try:
            message = next(new)
        except StopIteration:
            relay.is_read = True
            return
        except Exception as error:
            if is_interrupt(error):
                raise
            relay.is_read = True
            relay.failures.append(error)
            return
        yield relay.add(message)


def _submit(route: Route[SecureMailer], submission: Submission, partial: Partial) -> Receipt:
    while True:
        with route:
            server = route.server
            signed = server.core.sign(submission)
            return route.accept(server.mailer._submit(signed, partial, route.deadline, route.checkout))
