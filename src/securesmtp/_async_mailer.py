"""
`AsyncSecureMailer`: the object that an asynchronous application creates, shares between tasks and closes.

Here are its signature, and the few lines that wait; all else is what `SecureMailer` uses. Like `_mailer`, it is longer
than 300 lines because of the public arguments and docstrings.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from functools import partial as bind
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn, Self, TypeVar

from securesmtp._arguments import Given
from securesmtp._async_messages import Draft, Jobs
from securesmtp._async_results import AsyncResults, in_order
from securesmtp._bulk.batch import Batch
from securesmtp._bulk.jobs import Ending
from securesmtp._bulk.rules import is_connection_limit
from securesmtp._bulk.run import Run, Step
from securesmtp._closing import Closing, close_all_async
from securesmtp._core import Action, Core
from securesmtp._options import TIMEOUTS, WINDOW, Timeouts, TLSPolicy, Window, close_limit
from securesmtp._protocol.delivery import transactions_needed
from securesmtp._protocol.extensions import Extensions
from securesmtp._protocol.failures import is_used_up
from securesmtp._protocol.proxy import as_proxy_url
from securesmtp._protocol.sasl import as_secret
from securesmtp._sending import Checkout, Sending
from securesmtp._settings import Settings, as_login
from securesmtp._shown import withhold
from securesmtp._submissions import (
    check_async_messages,
    check_partial,
    close_content,
    from_message,
    from_octets,
    is_file,
    is_large,
)
from securesmtp._tracebacks import hide_internal_frames, hide_internal_frames_async
from securesmtp._transport.async_pool import AsyncPool
from securesmtp._transport.process import current_process
from securesmtp._transport.slot import Lease
from securesmtp._url import add_url
from securesmtp._values import Receipt, SendResult, TLSMode
from securesmtp.errors import AuthenticationError, ConfigurationError, SecureSMTPError
from securesmtp.events import Event

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
    from email.headerregistry import Address
    from email.message import Message
    from types import TracebackType
    from typing import Unpack

    from securesmtp._arguments import AsyncOptions
    from securesmtp._async_backlog import AsyncBacklog
    from securesmtp._bulk.jobs import Job
    from securesmtp._envelope import Envelope
    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.dsn import DSN
    from securesmtp._protocol.sasl import AsyncPasswordSource, Auth
    from securesmtp._report import ServerReport, Stats
    from securesmtp._secret import Secret
    from securesmtp._submissions import Parcel
    from securesmtp._transport.async_hook import AsyncConnect
    from securesmtp._transport.deadline import Deadline
    from securesmtp.ledger import Ledger
    from securesmtp.signing import DKIM

Partial = Literal["raise", "allow"]
T = TypeVar("T")


class AsyncSecureMailer:
    """
    Sends mail to one server over verified TLS, or not at all.

    It is `SecureMailer` for asyncio and trio: the same arguments, errors and events, with ``await``. Tasks of one event
    loop can share it; together they use up to *max_connections* connections, and wait for them in their order.

    A task may be cancelled at any time. The connection that it uses is closed then, so that the server cannot accept a
    part of its message. Whether the message was sent is in an event (``Failed``, or ``Sent``), in the cancellation's
    ``__cause__`` and in its note. Where you want a time limit, pass *deadline*: its error says it, too.
    """

    def __init__(  # noqa: PLR0913 -- the whole configuration in one place, by keyword
        self,
        host: str,
        port: int | None = None,
        *,
        tls: TLSMode | Literal["implicit", "starttls"] | None = None,
        username: str | None = None,
        password: AsyncPasswordSource | None = None,
        auth: Auth | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        policy: TLSPolicy | None = None,
        timeout: float | Timeouts = TIMEOUTS,
        deadline: float | None = None,
        max_connections: int = 4,
        max_messages: int | None = None,
        max_idle: float = 60,
        max_connect_failures: int = 5,
        max_recipients: int | None = None,
        rate: float | None = None,
        pipelining: Literal["off", "message", "session"] = "message",
        window: Window = WINDOW,
        local_hostname: str | None = None,
        source_address: tuple[str, int] | None = None,
        connect: AsyncConnect | None = None,
        proxy: str | Secret | None = None,
        sign: DKIM | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """
        Check everything that can be checked without the network.

        Args:
            host: Name or IP address; the certificate must be for it. A name in Unicode is converted to A-labels (IDNA
                2008), which the resolver is asked for and the certificate must have.
            port: 465 for implicit TLS and 587 for STARTTLS unless given.
            tls: ``"implicit"`` or ``"starttls"`` (RFC 8314). Unless given, port 587 means ``"starttls"``, any other
                ``"implicit"``.
            username: Short for ``auth=Password(username, password)``.
            password: A str, a `Secret`, or a callable that is called at each login, after TLS was verified. It may be
                ``async def``; any other is called in a thread of its own.
            auth: How to log in; None for no login.
            ca_file: Short for ``policy=TLSPolicy(ca_file=…)``.
            policy: Which servers to trust: by default those with a certificate from one of certifi's roots.
            timeout: Seconds for each step except `Timeouts.final`, or all of them as `Timeouts`.
            deadline: Seconds for one whole send.
            max_connections: How many may be open at the same time; a send that finds all of them busy waits for one.
            max_messages: How many messages are sent over one connection; None for as many as the server takes. It may
                say how many (RFC 9422), or refuse one more (421, 452): that goes over a new connection.
            max_idle: Seconds after which an unused connection is not used again.
            max_connect_failures: How many connections in a row may fail to open before `send_many` gives up.
            max_recipients: How many recipients a message may have; None for any number. One with more is a
                `MessageError` before anything is sent.
            rate: How many messages a second are begun, over all connections; None for no limit. They are spread
                evenly: after a pause, at most those of a tenth of a second go at once. The wait counts against the
                *deadline* of a send, but not of a message of `send_many`, whose sending begins after it.
            pipelining: ``"message"`` writes the commands of one message together if the server offers it (RFC 2920,
                RFC 3030); ``"off"`` waits for the reply to each command. With ``"session"``, `send_many` writes
                messages before the server has replied to earlier ones; use it for servers that support it, such as
                Postfix, Exim and Sendmail.
            window: How much `send_many` may write ahead of the replies over one connection with ``"session"``.
            local_hostname: The name that EHLO says, which is never looked up; by default our IP address.
            source_address: Local address and port to connect from.
            connect: Opens the connection in place of this library: an async function that is called with host, port and
                the seconds that are left, and returns a connected stream socket or an anyio ``ByteStream``. TLS
                begins on it as on any other connection.
            proxy: URL of the proxy through which to connect: ``socks5h://[user:password@]host:port`` or ``http://…``.
                The proxy looks up *host*; the certificate must still be for it.
            sign: As for `SecureMailer`.
            on_event: Called with each event of `securesmtp.events`, in the thread of the event loop; it must not block.

        Raises:
            ConfigurationError: An argument is wrong; the message says which.
        """
        # First, because an error report shows these variables, and a secret may be in any of them.
        password = None if password is None else as_secret(password)
        proxy = as_proxy_url(proxy)
        host, port, tls, ca_file = withhold(host), withhold(port), withhold(tls), withhold(ca_file, allow_at=True)
        local_hostname, source_address, sign = withhold(local_hostname), withhold(source_address), withhold(sign)
        login = as_login(auth)
        del auth
        self._settings = Settings(
            host=host,
            given_port=port,
            tls=tls,
            username=username,
            password=password,
            auth=login,
            ca_file=ca_file,
            given_policy=policy,
            timeout=timeout,
            deadline=deadline,
            max_connections=max_connections,
            max_messages=max_messages,
            max_idle=max_idle,
            max_connect_failures=max_connect_failures,
            max_recipients=max_recipients,
            rate=rate,
            pipelining=pipelining,
            window=window,
            local_hostname=local_hostname,
            source_address=source_address,
            connect=connect,
            given_proxy=proxy,
            sign=sign,
        )
        self._core = Core(self._settings, on_event)
        # By process: a child of a fork never uses its parent's connections.
        self._pools: dict[tuple[int, int], AsyncPool] = {}

    @classmethod
    @hide_internal_frames
    def from_url(cls, url: str | Secret, **options: Unpack[AsyncOptions]) -> Self:
        """
        Make a mailer from a URL: ``smtps://me:secret@mail.example.com``, or ``smtp+starttls://…`` for STARTTLS.

        The username and the password are percent-encoded. A port may follow the host. After a ``?``, and with ``&``
        between them, there may be the parameters ``ca_file``, ``timeout``, ``deadline``, ``pipelining``,
        ``max_connections``, ``max_recipients`` and ``rate``, which are the arguments of the same name; ``pin``, once
        for each of `TLSPolicy.pins`; and ``auth``, the names of the SASL mechanisms that may be used, with commas
        between them.

        Args:
            url: The URL.
            options: Any argument of the mailer except *host*, *port* and *tls*, unless the URL has it.

        Raises:
            ConfigurationError: The URL or an argument is wrong, or something is given twice. No error shows a password.
        """
        # First, because an error report shows these variables.
        given, hidden = Given(options), as_secret(url)
        del url, options
        add_url(given, hidden)
        return cls(**given.arguments(hint="write smtps://me:secret@host, or pass password="))

    @classmethod
    @hide_internal_frames
    def from_env(cls, prefix: str = "SMTP_", **options: Unpack[AsyncOptions]) -> Self:
        """
        Make a mailer from environment variables.

        The server is in ``SMTP_HOST``, and in ``SMTP_PORT`` and ``SMTP_TLS`` (``implicit`` or ``starttls``) unless
        they are the usual ones; or all of it is in ``SMTP_URL``, as for `from_url`. The login is in ``SMTP_USERNAME``
        and one of ``SMTP_PASSWORD``, ``SMTP_PASSWORD_FILE`` (see `credentials.from_file`) and
        ``SMTP_PASSWORD_COMMAND`` (see `credentials.from_command`; quoted as in a shell). There may also be
        ``SMTP_CA_FILE``, ``SMTP_PROXY``, ``SMTP_TIMEOUT``, ``SMTP_DEADLINE``, ``SMTP_RATE`` and
        ``SMTP_MAX_RECIPIENTS``, which are the arguments of those names.

        The variables are read once, now. A file or a command is read at each login.

        Args:
            prefix: What the names of the variables begin with. Any other variable that begins with it is an error.
            options: Any argument of the mailer except *host*, *port* and *tls*, unless a variable gives it.

        Raises:
            ConfigurationError: A variable or an argument is wrong, missing or unknown, or something is given twice.
                The message names the variable or the argument. No error shows a password.
        """
        # It imports subprocess, which few programs need.
        from securesmtp._environment import add_environment

        given = Given(options)
        del options
        add_environment(given, prefix)
        hint = f"set {prefix}PASSWORD, {prefix}PASSWORD_FILE or {prefix}PASSWORD_COMMAND"
        return cls(**given.arguments(hint=hint))

    def __repr__(self) -> str:
        """Return where the mail goes."""
        # Missing if a traceback of `__init__` shows the object.
        settings = self.__dict__.get("_settings")
        where = f" {settings.host}:{settings.port} {settings.mode}" if settings else ""
        return f"<AsyncSecureMailer{where}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: a copy would share the connections, and pickles must not hold a password."""
        message = "an AsyncSecureMailer cannot be copied or pickled: create one in each process, for all its tasks"
        raise TypeError(message)

    async def __aenter__(self) -> Self:
        """Return the mailer."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the mailer."""
        await self.close()

    def __del__(self) -> None:
        """Warn about connections that were left open."""
        pool = self.__dict__.get("_pools", {}).get(current_process())
        if pool is not None and pool.slots.close_now():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

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
        Send *message* and return the server's receipt.

        Bcc is never transmitted. Date and Message-ID are filled in if they are missing; *message* is not changed. It is
        read when a connection is free: do not change it before this returns.

        Args:
            message: As for `SecureMailer.send`, and so are the others.
            mail_from: The reverse-path.
            recipients: The forward-paths.
            partial: What to do if the server refuses some of the recipients.
            deadline: Seconds for this send, instead of the mailer's; the wait for a connection counts.
            dsn: The delivery status notifications to ask for.
            require_tls: Whether each server on the way has to use verified TLS.

        Raises:
            SecureSMTPError: One of `securesmtp.errors`; its ``outcome`` says what became of the message.
        """
        until = self._core.start_deadline(deadline)
        asked = Extensions(dsn=dsn, require_tls=require_tls)
        made = bind(self._core.build, from_message, message, mail_from, recipients, extensions=asked)
        draft = Draft(bind(self._build, message, made, until), message)
        return await self._submit(draft, partial, until)

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
        Send a message that is bytes already. Nothing in it is changed, except that a bare LF becomes CRLF.

        Some servers break lines of more than 900 bytes: `events.LongLines` reports them.

        Args:
            data: As for `SecureMailer.send_bytes`, and so are the others; a file is read in a thread.
            mail_from: The reverse-path.
            recipients: The forward-paths.
            partial: As for `send`.
            deadline: As for `send`.
            dsn: As for `send`.
            require_tls: As for `send`.
            binary: As for `SecureMailer.send_bytes`.

        Raises:
            SecureSMTPError: As for `send`; `MessageError` names the line that cannot be sent.
        """
        until = self._core.start_deadline(deadline)
        asked = Extensions(dsn=dsn, require_tls=require_tls, binary=binary)
        made = bind(self._core.build, from_octets, data, mail_from, recipients, extensions=asked)
        draft = Draft(bind(self._build, data, made, until))
        # An error report shows local variables: the message is in none but the caller's own.
        del data, made
        try:
            return await self._submit(draft, partial, until)
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
        Send each of *messages* over up to *max_connections* connections, and yield the result of each, in order.

        The rules are those of `SecureMailer.send_many`. Iterate over what it returns with ``async for``. If you leave
        the loop early, the messages that are being sent are finished and no more are sent; ``await results.aclose()``,
        or ``async with``, waits for them, and you can read on. If your task is cancelled while it waits for a result,
        the connections are closed; the results that follow say what became of each message.

        Args:
            messages: As for `send`, or an `Envelope`; an asynchronous iterable, too.
            partial: As for `send`.
            deadline: Seconds for each message, from when its sending begins.
            ledger: As for `SecureMailer.send_many`; its calls are made in a thread.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        check_partial(partial)
        self._core.start_deadline(deadline)
        self._core.refuse_if_closed()
        check_async_messages(messages)
        return self._run(Run(self._core, partial, ledger), messages, deadline)

    def _run(
        self,
        run: Run,
        messages: Iterable[Message | Envelope] | AsyncIterable[Message | Envelope | Parcel],
        deadline: float | None,
    ) -> AsyncResults:
        """Send each of *messages*, and return their results."""
        # With a ledger, in a thread even if the message is small: it is looked up there.
        build = self._build if run.claims is None else self._build_in_thread
        jobs = Jobs(run, messages, deadline, build)
        return in_order(jobs, bind(self._worker, run), run.most_workers, run.ahead, run.octets, run.claims)

    @hide_internal_frames_async
    async def check(self) -> ServerReport:
        """
        Connect as a send would, log in if there are credentials, and return what was found. No mail is sent.

        It uses a connection of its own, in addition to *max_connections*, for no longer than the mailer's *deadline*. A
        refused login is in the report; anything else that would keep a message from being sent is raised.

        Raises:
            SecureSMTPError: There is no verified session; as for `send`.
        """
        core = self._core
        core.refuse_if_closed()
        try:
            link, session, refusal = await self._pool.check(core.start_deadline(None))
            if refusal is not None:
                core.report_error(refusal)
        except SecureSMTPError as error:
            core.report_error(error)
            raise
        return core.report(link.connection, session, refusal)

    def stats(self) -> Stats:
        """Return what the mailer is doing in this process, and what it has done. It waits for nothing."""
        pool = self._pools.get(current_process())
        return self._core.stats(None if pool is None else pool.slots, 0 if pool is None else pool.waiting)

    async def close(  # the sends under way go on until it aborts them: no cancellation can do that
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        abort: bool = False,
    ) -> tuple[SendResult, ...]:
        """
        Refuse further sends, wait for the current ones, and close the connections with QUIT. Calling it twice is fine.

        It returns what became of each send that was under way, in the order in which they began: their ``index`` counts
        these results. A send that was still waiting for a connection is not sent. A run of `send_many` ends; its own
        results have each of its messages.

        If it is called inside a send, by a password callable, it does not wait: each send closes its own connection
        when it is done, and only the results that are there already are returned.

        Args:
            timeout: Wait so many seconds at most, then end the connections in use: each send raises what became of its
                message, and a `check` raises too.
            abort: Do not wait: as a *timeout* of 0.

        Raises:
            ConfigurationError: *timeout* is not a number of seconds; nothing was closed.
        """
        limit = close_limit(timeout, abort=abort)
        return await close_all_async([self._begin_close()], limit)

    def _begin_close(self) -> Closing[AsyncPool]:
        """Refuse further sends."""
        pool = self._existing_pool()
        self._core.is_closed = True
        return Closing(self._core, pool)

    def _existing_pool(self) -> AsyncPool | None:
        """
        Return the pool of this process and event loop, if there is one; drop that of a loop that is closed.

        Raises:
            ConfigurationError: The mailer belongs to another event loop.
        """
        process = current_process()
        pool = self._pools.get(process)
        if pool is None or pool.loop.is_current:
            return pool
        if not pool.loop.is_closed:
            message = "the mailer belongs to another event loop, which is not closed"
            raise ConfigurationError(message, hint="create one mailer in each event loop")
        # Nobody waits for its connections any more.
        del self._pools[process]
        for _ in range(pool.slots.close_now()):
            pool.slots.emit_closed("not usable")
        return None

    @property
    def _pool(self) -> AsyncPool:
        pool, core = self._existing_pool(), self._core
        if pool is None:
            pool = AsyncPool(core.settings, core.context, core.on_event, core.memory)
            self._pools[current_process()] = pool
        return pool

    async def _build(self, source: object, build: Callable[[], T], deadline: Deadline | None = None) -> T:
        """Return what *build* returns; in a thread if *source*, which it reads, is large or a file."""
        if not is_large(source):
            return build()
        return await self._build_in_thread(source, build, deadline)

    async def _build_in_thread(self, source: object, build: Callable[[], T], deadline: Deadline | None = None) -> T:
        pool = self._pool
        return await pool.build(pool.files if is_file(source) else pool.messages, build, close_content, deadline)

    async def _submit(
        self, draft: Draft, partial: Partial, deadline: Deadline | None, checkout: Checkout | None = None
    ) -> Receipt:
        """Send one message, return its receipt and emit its event."""
        check_partial(partial)
        core, sending = self._core, Sending(None, monotonic())
        activity, key = core.activity, id(sending)
        try:
            activity.under_way[key] = sending
            try:
                receipt = await self._deliver(sending, draft, partial, deadline, checkout or Checkout())
                return core.report_receipt(sending, receipt)
            except SecureSMTPError as error:
                # A message that cannot be built is wrong input, which has no event.
                sending.error, sending.message_id = error, draft.message_id
                if not draft.is_invalid:
                    core.record_error(sending, error)
                raise
        except BaseException as error:
            if not draft.is_invalid:
                sending.message_id = draft.message_id
                core.record_interrupt(sending, error)
            raise
        finally:
            activity.under_way.pop(key, None)
            if (checkout is None or not checkout.is_of_run) and not draft.is_invalid:
                activity.count(sending.end)
            if core.is_closed:
                # A `close` waits for it.
                self._pool.notify()

    async def _deliver(
        self, sending: Sending, draft: Draft, partial: Partial, deadline: Deadline | None, checkout: Checkout
    ) -> Receipt:
        """Send one message over a connection; if that has lost its login, or carried enough, over a new one."""
        core = self._core

        async def prepare() -> tuple[Action[Receipt], Callable[[Session], int]]:
            submission = sending.submission = await draft.build()
            needs = bind(transactions_needed, len(submission.recipients), partial)
            return core.action(sending, submission, checkout, partial), needs

        while True:
            try:
                return await self._with_connection(deadline, prepare, checkout)
            except SecureSMTPError as error:
                if not core.sends_again(sending, error):
                    raise
                checkout.needs_new = True
                if isinstance(error, AuthenticationError):
                    self._pool.discard_idle()

    async def _with_connection(
        self,
        deadline: Deadline | None,
        prepare: Callable[[], Awaitable[tuple[Action[T], Callable[[Session], int] | None]]],
        checkout: Checkout,
    ) -> T:
        """Run the action that *prepare* returns on a connection that no other send uses, with room for its message."""
        core, pool, lease, slot, events = (
            self._core,
            self._pool,
            Lease(None, has_turn=checkout.has_turn),
            None,
            list[Event](),
        )
        checkout.has_slot, checkout.session = False, None
        try:
            slot = await pool.acquire(lease, deadline)
            core.refuse_if_closed()
            checkout.check_use()
            action, needs = await prepare()
            checkout.has_slot = checkout.has_turn = True
            while True:
                link = await pool.link(slot, deadline, needs, is_new=checkout.needs_new)
                try:
                    deliver = bind(action, link.connection.exchange)
                    return await link.run(pool.slots.visit(slot, deliver, ignore_pause=checkout.ignores_pause))
                except BaseException as error:
                    # Closed again, because a second interrupt may have struck while the first was handled.
                    if not link.is_usable:
                        link.close()
                    # A new token is tried over a new connection.
                    if slot.refusal is None or error is not slot.refusal:
                        raise
                finally:
                    if checkout.session is not None:
                        events = pool.slots.mark_used(slot, link)
        except SecureSMTPError as error:
            checkout.note_error(error)
            if slot is not None and (is_connection_limit(error) or is_used_up(checkout.transactions, error)):
                # It is closed, and not used for the next message.
                slot.messages_left = 0
            raise
        finally:
            # First, and by an assignment alone: an interrupt can only strike after a call.
            lease.done = True
            # In reverse order. All of it happens, even if `on_event` raises an interrupt.
            with ExitStack() as stack:
                stack.callback(pool.notify)
                if slot is not None and core.is_closed:
                    stack.callback(pool.close_idle, slot)
                for event in reversed(events):
                    stack.callback(core.emit, event)

    async def _worker(self, run: Run, backlog: AsyncBacklog) -> None:
        """Send what is in the backlog: one message after the other, or several at a time if the host supports it."""
        if not run.enter():
            return
        support = self._pool.overlap_support
        while (job := await self._next_job(run, backlog)) is not None:
            overlap = run.overlap(support)
            if overlap is None:
                leaves = await self._send_one(run, job, backlog)
            else:
                with overlap:
                    leaves = await self._send_batch(run, job, backlog)
            if leaves:
                return
        run.leave()

    async def _next_job(self, run: Run, backlog: AsyncBacklog) -> Job | None:
        """Wait for a job, and then for its turn if there is a rate: only when that has come, its time begins."""
        pool = self._pool
        if not pool.slots.turns.is_limited:
            return await backlog.next()
        while await backlog.wait():
            has_turn = await backlog.until_closed(pool.wait_for_turn)
            # If the mailer is closed, there are no turns, and each of the rest gets that as its result.
            job = backlog.take() if has_turn or run.core.is_closed else None
            if job is not None:
                return job
            if has_turn:
                # Another worker has taken it.
                pool.slots.turns.give_back()
        return None

    def _take_in_turn(self, backlog: AsyncBacklog) -> Job | None:
        """Return a job whose turn it is now, or None."""
        return backlog.take() if len(backlog) and self._pool.take_turn() else None

    async def _send_one(self, run: Run, job: Job, backlog: AsyncBacklog) -> bool:
        """Send *job*, or give it back to the backlog; return whether this worker leaves the run."""
        checkout = Checkout(run.take_login_permit(), has_turn=True)
        while (cause := run.fatal_error) is None:
            with Ending[Receipt]() as ending:
                ending.end = await self._submit(Draft(job.submission), run.partial, job.deadline, checkout)
            step = run.settle(job, ending.end, checkout, backlog.put)
            _raise_cancellation(ending.end)
            if step is not Step.RESEND:
                return await self._follow(step, run, backlog)
        run.refuse(job, cause)
        return False

    async def _send_batch(self, run: Run, first: Job, backlog: AsyncBacklog) -> bool:
        """Send *first*, and what is in the backlog, over one connection; return whether this worker leaves the run."""
        batch = Batch(run, first, self._pool.overlap_support, bind(self._take_in_turn, backlog), backlog.put)

        async def prepare() -> tuple[Action[None], None]:
            return batch.action, None

        with Ending[None]() as ending:
            await self._with_connection(first.deadline, prepare, batch.checkout)
            ending.end = None
        try:
            leaves = await self._follow(batch.settle(ending.end), run, backlog)
            _raise_cancellation(ending.end)
            while not leaves and (job := batch.next_unsent()) is not None:
                leaves = await self._send_one(run, job, backlog)
        finally:
            # Also if on_event has ended this worker: its results would be waited for without end.
            batch.put_back_unsent()
        return leaves

    async def _follow(self, step: Step, run: Run, backlog: AsyncBacklog) -> bool:
        """Do what *step* says after a message; return whether this worker leaves the run."""
        if step is Step.PAUSE:
            await backlog.pause(run.pause)
        return step is Step.LEAVE


def _raise_cancellation(end: object) -> None:
    """Raise *end* if it has ended the task: it is the result of a message, but not of that alone."""
    if isinstance(end, BaseException) and not isinstance(end, Exception):
        raise end
