"""
`SecureMailer`: the object that an application creates, shares between threads and closes.

Here is its signature; what a send does is in `_send_steps`. More than half of the file's lines are the public arguments
and docstrings, so it is longer than 300 lines.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn, Self, TypeVar

from securesmtp._arguments import Given
from securesmtp._bulk.run import Run
from securesmtp._closing import Closing, close_all
from securesmtp._core import Core
from securesmtp._options import TIMEOUTS, WINDOW, Timeouts, TLSPolicy, Window, close_limit
from securesmtp._protocol.extensions import Extensions
from securesmtp._protocol.proxy import as_proxy_url
from securesmtp._protocol.sasl import as_secret
from securesmtp._results import in_order
from securesmtp._send_steps import Sender
from securesmtp._settings import Settings, as_login, refuse_async_functions
from securesmtp._shown import withhold
from securesmtp._submissions import check_messages, check_partial, from_message, from_octets
from securesmtp._tracebacks import hide_internal_frames
from securesmtp._transport.pool import Pool
from securesmtp._transport.process import current_process
from securesmtp._transport.steps import ThreadWaiter, drive, perform
from securesmtp._url import add_url
from securesmtp._workers import Worker
from securesmtp.errors import SecureSMTPError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from email.headerregistry import Address
    from email.message import Message
    from types import TracebackType
    from typing import Unpack

    from securesmtp._arguments import Options
    from securesmtp._envelope import Envelope
    from securesmtp._protocol.dsn import DSN
    from securesmtp._protocol.message import Submission
    from securesmtp._protocol.sasl import Auth, PasswordSource
    from securesmtp._report import ServerReport, Stats
    from securesmtp._secret import Secret
    from securesmtp._sending import Checkout
    from securesmtp._submissions import Parcel
    from securesmtp._transport.channel import Steps
    from securesmtp._transport.deadline import Deadline
    from securesmtp._transport.hook import Connect
    from securesmtp._transport.task import Task
    from securesmtp._values import Receipt, SendResult, TLSMode
    from securesmtp._workers import Workers
    from securesmtp.events import Event
    from securesmtp.ledger import Ledger
    from securesmtp.signing import DKIM

Partial = Literal["raise", "allow"]
T = TypeVar("T")


class SecureMailer:
    """
    Sends mail to one server over verified TLS, or not at all.

    It connects at the first send and keeps the connection for the next one. Threads can share it; together they use up
    to *max_connections* connections. It retries nothing but what a server refuses because its connection is used
    up, and what `send_many` says: an error says what became of the message and whether a later try may succeed.
    """

    def __init__(  # noqa: PLR0913 -- the whole configuration in one place, by keyword
        self,
        host: str,
        port: int | None = None,
        *,
        tls: TLSMode | Literal["implicit", "starttls"] | None = None,
        username: str | None = None,
        password: PasswordSource | None = None,
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
        connect: Connect | None = None,
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
            password: A str, a `Secret`, or a callable that is called at each login, after TLS was verified.
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
            connect: Opens the connection in place of this library: a function that is called with host, port and the
                seconds that are left, and returns a connected stream socket. TLS begins on it as on any other.
            proxy: URL of the proxy through which to connect: ``socks5h://[user:password@]host:port`` or ``http://…``.
                The proxy looks up *host*; the certificate must still be for it.
            sign: Signs each message as a `securesmtp.signing.DKIM` says. Signed messages are sent in 7-bit form.
            on_event: Called with each event of `securesmtp.events`, in the thread that causes it.

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
        refuse_async_functions(self._settings)
        self._core = Core(self._settings, on_event)
        # By process: a child of a fork never uses its parent's connections.
        self._pools: dict[tuple[int, int], Pool] = {}

    @classmethod
    @hide_internal_frames
    def from_url(cls, url: str | Secret, **options: Unpack[Options]) -> Self:
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
    def from_env(cls, prefix: str = "SMTP_", **options: Unpack[Options]) -> Self:
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
        return f"<SecureMailer {settings.host}:{settings.port} {settings.mode}>" if settings else "<SecureMailer>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: a copy would share the connections, and pickles must not hold a password."""
        message = "a SecureMailer cannot be copied or pickled: create one in each process, and share it between threads"
        raise TypeError(message)

    def __enter__(self) -> Self:
        """Return the mailer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the mailer."""
        self.close()

    def __del__(self) -> None:
        """Warn about connections that were left open."""
        pool = self.__dict__.get("_pools", {}).get(current_process())
        if pool is not None and pool.slots.close_now():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

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
        Send *message* and return the server's receipt.

        Bcc is never transmitted. Date and Message-ID are filled in if they are missing. Parts with lines of more than
        900 bytes are encoded, because some servers break such lines. *message* is not changed.

        Args:
            message: An EmailMessage, or any other `email.message.Message`, such as ``MIMEMultipart``.
            mail_from: The reverse-path; by default from Sender, or the single address of From. ``""`` is the null
                reverse-path of automatic replies and notifications, which nobody may reply to (RFC 5321 §4.5.5).
            recipients: The forward-paths; by default from To, Cc and Bcc (or their Resent fields, if there are any).
            partial: If the server refuses some of the recipients, ``"raise"`` sends the message to nobody,
                ``"allow"`` to the others.
            deadline: Seconds for this send, instead of the mailer's.
            dsn: The delivery status notifications to ask for (RFC 3461). A server that does not offer them does not get
                the message, unless `DSN.required` is False.
            require_tls: Whether each server on the way may pass the message on over verified TLS only, and to servers
                that promise the same (RFC 8689). A server that does not offer REQUIRETLS does not get the message.

        Raises:
            SecureSMTPError: One of `securesmtp.errors`; its ``outcome`` says what became of the message.
        """
        until = self._core.start_deadline(deadline)
        asked = Extensions(dsn=dsn, require_tls=require_tls)
        built = self._core.build(from_message, message, mail_from, recipients, extensions=asked)
        return self._submit(built, partial, until)

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
        Send a message that is bytes already. Nothing in it is changed, except that a bare LF becomes CRLF.

        Some servers break lines of more than 900 bytes: `events.LongLines` reports them.

        Args:
            data: The message, or a file in binary mode, which is read from its current position to its end.
            mail_from: The reverse-path; ``""`` as for `send`.
            recipients: The forward-paths.
            partial: As for `send`.
            deadline: As for `send`.
            dsn: As for `send`.
            require_tls: As for `send`.
            binary: Whether the body may have any bytes, also NUL, bare CR and LF, and long lines (RFC 3030). Then not
                even a bare LF is changed, and the header must have CRLF. A server that does not offer BINARYMIME and
                CHUNKING does not get the message.

        Raises:
            SecureSMTPError: As for `send`; `MessageError` names the line that cannot be sent.
        """
        until = self._core.start_deadline(deadline)
        asked = Extensions(dsn=dsn, require_tls=require_tls, binary=binary)
        submission = self._core.build(from_octets, data, mail_from, recipients, extensions=asked)
        # An error report shows local variables: the message is in none but the caller's own.
        del data
        try:
            return self._submit(submission, partial, until)
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
        Send each of *messages* over up to *max_connections* connections, and yield the result of each, in order.

        The iterable may be of any length, because it is read only a little ahead of your loop: twice *max_connections*
        messages, and with ``"session"`` that times ``Window.messages``; beyond one message for each connection, no more
        bytes than twice *max_connections* times ``Window.octets``. One bad message does not stop the others. If a
        connection dies and its message was certainly not accepted, the message is sent once more. A message whose
        outcome is unknown is never sent again.

        If the server accepts fewer connections than *max_connections*, no message is lost: the other connections send
        those of a connection that could not be opened. If a login is refused for good, if no connection can log in, or
        if *max_connect_failures* connections in a row could not be opened, the remaining messages are not sent.

        One thread sends over all connections, also while your loop is busy; *on_event* is called in it, and a slow one
        holds up all of them. A password callable has a thread of its own. If no thread can be started, as at the end of
        the process, your own thread sends, over one connection.

        An error of the iterable is raised after the results of all messages before it. If you leave the loop early, or
        an interrupt does, the messages that are being sent are finished and no more are sent. The iterator still has
        their results: keep it, call its ``close()`` after a ``break``, and read on.

        Args:
            messages: As for `send`, or an `Envelope` if the addresses are not those of the header.
            partial: As for `send`.
            deadline: Seconds for each message, from when its sending begins. Time spent on a connection that could not
                be opened does not count if another connection sends the message.
            ledger: Remembers what became of each message, across runs, so that none is sent twice: for example a
                `securesmtp.ledger.SQLiteLedger`. Each message needs an `Envelope.key` or a Message-ID of yours, the
                same in each run. A message that was accepted, refused for good, or may have been delivered is not
                sent: its result is that of the ledger. If the ledger fails, no further message is sent; after the
                results of those that were read, you get a `LedgerError`.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        check_partial(partial)
        self._core.start_deadline(deadline)
        self._core.refuse_if_closed()
        check_messages(messages)
        return self._run(Run(self._core, partial, ledger), messages, deadline)

    def _run(
        self, run: Run, messages: Iterable[Message | Envelope | Parcel], deadline: float | None
    ) -> Iterator[SendResult]:
        """Send each of *messages*, and yield their results."""

        def work(workers: Workers, task: Task) -> Steps[None]:
            return Worker(run, self._pool, workers, task).work()

        return in_order(run.jobs(messages, deadline), work, run.most_workers, run.ahead, run.octets, run.claims)

    @hide_internal_frames
    def check(self) -> ServerReport:
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
            link, session, refusal = self._pool.check(core.start_deadline(None))
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

    def close(self, *, timeout: float | None = None, abort: bool = False) -> tuple[SendResult, ...]:
        """
        Refuse further sends, wait for the current ones, and close the connections with QUIT. Calling it twice is fine.

        It returns what became of each send that was under way in other threads, in the order in which they began: their
        ``index`` counts these results. A send that was still waiting for a connection is not sent. A run of `send_many`
        ends; its own results have each of its messages.

        If it is called inside a send, by a signal handler or a callable, it does not wait: each send closes its own
        connection when it is done.

        Args:
            timeout: Wait so many seconds at most, then end the connections in use: each send raises what became of its
                message, and a `check` raises too. What cannot be ended (a look-up of a name, a password callable) is
                waited for up to five seconds more; it sends nothing afterwards.
            abort: Do not wait: as a *timeout* of 0.

        Raises:
            ConfigurationError: *timeout* is not a number of seconds; nothing was closed.
        """
        limit = close_limit(timeout, abort=abort)
        return close_all([self._begin_close()], limit)

    def _begin_close(self) -> Closing[Pool]:
        """Refuse further sends."""
        # First, so that the pool of each send that goes on is there.
        self._core.is_closed = True
        # A signal handler may have interrupted a send of this thread, which goes on when `close` returns.
        return Closing(self._core, self._pools.get(current_process()), but_in=threading.get_ident())

    @property
    def _pool(self) -> Pool:
        process, core = current_process(), self._core
        pool = self._pools.get(process)
        if pool is None:
            pool = self._pools.setdefault(process, Pool(core.settings, core.context, core.on_event, core.memory))
        return pool

    def _submit(
        self, submission: Submission, partial: Partial, deadline: Deadline | None, checkout: Checkout | None = None
    ) -> Receipt:
        """Send one message, return its receipt and emit its event."""
        sender = Sender(self._core, self._pool, ThreadWaiter, is_one_of_many=False)
        return drive(sender.submit(submission, partial, deadline, checkout), perform)
