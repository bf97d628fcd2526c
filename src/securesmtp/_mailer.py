"""`SecureMailer`: the one object that an application makes, shares and closes."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from functools import partial as bind
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn, Self, TypeVar, cast, final

from securesmtp._bulk import Run, Verdict, drop_frames, is_connection_limit, may_go_again
from securesmtp._many import Backlog, Job, Known, in_order
from securesmtp._protocol.address import reverse_path
from securesmtp._protocol.content import Content
from securesmtp._protocol.delivery import Attempt, Delivery, deliver, transactions
from securesmtp._protocol.dialogue import interrupted
from securesmtp._protocol.message import Submission, envelope_recipients, from_message
from securesmtp._protocol.redaction import Memory, Redactor
from securesmtp._protocol.sasl import Password, hidden, known_secrets, mechanism
from securesmtp._settings import Timeouts, TLSPolicy, Window, seconds, settings
from securesmtp._shown import escape, quote, withhold
from securesmtp._tracebacks import raising_here
from securesmtp._transport.link import Deadline
from securesmtp._transport.pool import Pool
from securesmtp._transport.process import current_process
from securesmtp._transport.slots import Lease, Slot
from securesmtp._transport.stream import Stream
from securesmtp._transport.tls import build_context
from securesmtp._values import Envelope, Outcome, Receipt, SendResult, ServerReport, Stage, TLSMode
from securesmtp.errors import AuthenticationError, ConfigurationError, MessageError, SecureSMTPError
from securesmtp.events import Failed, FewerConnections, Sent, is_interrupt, tell, telling_no_more

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from email.headerregistry import Address
    from types import TracebackType

    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.sasl import PasswordSource
    from securesmtp._settings import Settings
    from securesmtp._transport.link import Link
    from securesmtp._transport.stream import Heard
    from securesmtp.events import Event

Partial = Literal["raise", "allow"]
T = TypeVar("T")


@final
class SecureMailer:
    """
    Submits mail to one server over verified TLS, or not at all.

    It connects at the first send and keeps the connection for the next. Threads may share it, and have up to
    *max_connections* of them. Nothing is retried but where `send_many` says so: an error says what became of the
    message and whether a later try may succeed.
    """

    def __init__(  # noqa: PLR0913 -- the whole configuration stands in one place, by keyword
        self,
        host: str,
        port: int | None = None,
        *,
        tls: TLSMode | Literal["implicit", "starttls"] | None = None,
        username: str | None = None,
        password: PasswordSource | None = None,
        auth: Password | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        policy: TLSPolicy | None = None,
        timeout: float | Timeouts = Timeouts(),  # noqa: B008 -- frozen
        deadline: float | None = None,
        max_connections: int = 4,
        max_messages: int = 100,
        max_idle: float = 60,
        max_connect_failures: int = 5,
        pipelining: Literal["off", "message", "session"] = "message",
        window: Window = Window(),  # noqa: B008 -- frozen
        local_hostname: str | None = None,
        source_address: tuple[str, int] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """
        Check everything that can be checked without the network.

        Args:
            host: Name or IP address; the certificate must be for it. A name in Unicode stands for its A-labels (IDNA
                2008), which is what the resolver is asked for and the certificate must have.
            port: 465 for implicit TLS and 587 for STARTTLS unless given.
            tls: ``"implicit"`` or ``"starttls"`` (RFC 8314); unless given, ``"starttls"`` for port 587 alone.
            username: Short for ``auth=Password(username, password)``.
            password: A str, a `Secret`, or a callable that is asked at each login, after TLS was verified.
            auth: How to log in; None for not at all.
            ca_file: Short for ``policy=TLSPolicy(ca_file=…)``.
            policy: Whom to trust; certifi's roots unless it says otherwise.
            timeout: Seconds for each step but `Timeouts.final`, or all of them as `Timeouts`.
            deadline: Seconds for one whole send.
            max_connections: How many may be open at the same time; a send that finds all of them busy waits for one.
            max_messages: How many are sent over one connection, or fewer where the server says so (RFC 9422).
            max_idle: Seconds after which a connection that nobody used is not used again.
            max_connect_failures: How many connections in a row may fail to open before `send_many` gives up the rest.
            pipelining: ``"message"`` writes the commands of one message in one go where the server offers it (RFC 2920,
                RFC 3030), ``"off"`` one command a round trip. ``"session"`` has `send_many` write messages before the
                ones before them are answered; for servers that can take it, as Postfix, Exim and Sendmail can.
            window: How much of that may be unanswered over one connection.
            local_hostname: What EHLO says; our address unless given. Never looked up.
            source_address: Local address and port to connect from.
            on_event: Is called with each event of `securesmtp.events`, in the thread that causes it.

        Raises:
            ConfigurationError: An argument is wrong; the message says which.
        """
        # First of all, so that no frame of a traceback holds the string, in whatever argument it is.
        password = None if password is None else hidden(password)
        host, port, tls, ca_file = withhold(host), withhold(port), withhold(tls), withhold(ca_file, at_is_usual=True)
        local_hostname, source_address = withhold(local_hostname), withhold(source_address)
        if auth is not None and not isinstance(auth, Password):
            message, auth = f"auth is a {type(auth).__name__}, not a Password", None
            raise ConfigurationError(message)
        if policy is not None and not isinstance(policy, TLSPolicy):
            message = f"policy is a {type(policy).__name__}, not a TLSPolicy"
            raise ConfigurationError(message)
        if (username is None) != (password is None):
            given, missing = ("username", "password") if password is None else ("password", "username")
            message = f"there is a {given}, and {missing} is None"
            hint = "is the variable set that it comes from? without a login, leave both out"
            raise ConfigurationError(message, hint=hint)
        if auth is not None and username is not None:
            message = "pass username and password, or auth, not both"
            raise ConfigurationError(message)
        if ca_file is not None and policy is not None:
            message = "pass ca_file or policy, not both"
            raise ConfigurationError(message, hint="TLSPolicy has a ca_file")
        self._settings = settings(
            host,
            port,
            tls=tls,
            login=auth if username is None or password is None else Password(username, password),
            policy=policy or TLSPolicy(ca_file=ca_file),
            timeout=timeout,
            deadline=deadline,
            max_connections=max_connections,
            max_messages=max_messages,
            max_idle=max_idle,
            max_connect_failures=max_connect_failures,
            pipelining=pipelining,
            window=window,
            local_hostname=local_hostname,
            source_address=source_address,
        )
        if on_event is not None and not callable(on_event):
            message = f"on_event is a {type(on_event).__name__}, which cannot be called"
            raise ConfigurationError(message)
        self._on_event = on_event
        # Of all connections, and of all processes: a server knows on one what it was told on another.
        self._memory = Memory()
        # And before the first login: the server may know it from another process.
        Redactor(self._memory).add(known_secrets(self._settings.login), b"")
        # By process: a child of a fork never uses its parent's connections.
        self._pools: dict[tuple[int, int], Pool] = {}
        self._closed = False
        # The caller's own files are better refused here than at the first mail. certifi's can wait (24 to 47 ms).
        self._context = build_context(self._settings.policy) if self._settings.policy != TLSPolicy() else None

    def __repr__(self) -> str:
        """Return where the mail goes."""
        made = self.__dict__.get("_settings")
        # In a traceback of `__init__` it may be shown before it is made.
        return f"<SecureMailer {made.host}:{made.port} {made.mode}>" if made else "<SecureMailer>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: two of it would share connections, and a password is not pickled."""
        message = "a SecureMailer is not copied or pickled: make one in each process, and share it between threads"
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
        """Warn of connections that were left open."""
        pool = self.__dict__.get("_pools", {}).get(current_process())
        if pool is not None and pool.slots.close_now():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    @raising_here
    def send(
        self,
        message: Message,
        *,
        mail_from: str | Address | None = None,
        recipients: Iterable[str | Address] | None = None,
        partial: Partial = "raise",
        deadline: float | None = None,
    ) -> Receipt:
        """
        Submit *message* and return the server's receipt.

        Bcc is never transmitted; Date and Message-ID are filled in where they are missing; *message* is not changed.

        Args:
            message: An EmailMessage, or any other `email.message.Message`, such as ``MIMEMultipart``.
            mail_from: The reverse-path; from Sender, else the single From, unless given. ``""`` is the null
                reverse-path of automatic replies and notifications, which nobody may answer (RFC 5321 §4.5.5).
            recipients: The forward-paths; from To, Cc and Bcc unless given (Resent fields, where there are any).
            partial: ``"raise"`` delivers to nobody when one recipient is refused, ``"allow"`` to the rest.
            deadline: Seconds for this send, in place of the mailer's.

        Raises:
            SecureSMTPError: One of `securesmtp.errors`; its ``outcome`` says what became of the message.
        """
        overall = self._overall(deadline)
        return self._submit(_from_message(message, mail_from, recipients), partial, overall)

    @raising_here
    def send_bytes(
        self,
        data: bytes | BinaryIO,
        *,
        mail_from: str | Address,
        recipients: Iterable[str | Address],
        partial: Partial = "raise",
        deadline: float | None = None,
    ) -> Receipt:
        """
        Submit a message that is octets already, and change nothing of it but bare LF, which becomes CRLF.

        Args:
            data: The message, or a file in binary mode, which is read from where it stands to its end.
            mail_from: The reverse-path; ``""`` as for `send`.
            recipients: The forward-paths.
            partial: As for `send`.
            deadline: As for `send`.

        Raises:
            SecureSMTPError: As for `send`; `MessageError` names the line that cannot be sent.
        """
        overall = self._overall(deadline)
        submission = _from_octets(data, mail_from, recipients)
        # The message is in no frame of a traceback but the caller's own.
        del data
        try:
            return self._submit(submission, partial, overall)
        finally:
            submission.content.close()

    def send_many(
        self, messages: Iterable[Message | Envelope], *, partial: Partial = "raise", deadline: float | None = None
    ) -> Iterator[SendResult]:
        """
        Submit each of *messages* over all the connections there may be, and yield what became of each, in their order.

        The iterable is read only a little ahead of your loop (twice *max_connections*, and with ``"session"`` as many
        times that as the window has messages; beyond one message for each connection, no more than twice
        *max_connections* times ``Window.octets``), so any number of messages will do. One bad message does not stop the
        others. A message that was certainly not accepted because its connection died is sent once more; one whose
        outcome is unknown never is.

        A server that takes fewer connections than *max_connections* costs no message: those that wait for a connection
        that cannot be opened are sent over the others. After a refused login, or *max_connect_failures* connections
        in a row that could not be opened, the rest is not sent. A password callable and *on_event* are called in
        threads of its own; at the end of the process, where none can be started, in yours.

        What the iterable raises is raised after the results of all that was read before. Leaving the loop early, by an
        interrupt too, waits until the messages that are under way are sent, and sends no more. Who has kept the
        iterator reads on, after its ``close()`` where the loop was left by ``break``: it has the other results.

        Args:
            messages: As for `send`, or an `Envelope` where the addresses are not those of the header.
            partial: As for `send`.
            deadline: Seconds for each message, from when its sending begins; a wait in vain for a connection that could
                not be opened is not counted where another one sends it.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        _check(partial)
        self._overall(deadline)
        self._refuse_if_closed()
        given: object = messages
        if isinstance(given, Message | str | bytes) or not isinstance(given, Iterable):
            message = f"messages is a {type(messages).__name__}, not an iterable of messages"
            raise ConfigurationError(message, hint="pass a list, or a generator")
        workers = self._settings.max_connections
        run = Run(partial, workers, self._settings.max_connect_failures)

        def jobs() -> Iterator[Job | Known]:
            for index, message in enumerate(messages):
                try:
                    # Here, in the caller's thread: who goes on to change the message changes the next one.
                    yield Job(index, _from_any(message), bind(self._overall, deadline))
                except Exception as error:  # ours, or that of the envelope's own iterable or file
                    if is_interrupt(error):
                        raise
                    drop_frames(error)
                    yield Known(SendResult(index, None, Outcome.NOT_SENT, error=error))

        ahead = self._settings.window.messages if self._settings.pipelining == "session" else 1
        octets = 2 * workers * self._settings.window.octets
        return in_order(jobs(), telling_no_more(bind(self._work, run)), workers, 2 * workers * ahead, octets)

    @raising_here
    def check(self) -> ServerReport:
        """
        Open a connection as a send would, log in where there are credentials, and say what was found.

        The connection is its own, in addition to *max_connections*, and the mailer's *deadline* bounds it. No mail is
        sent. A login that is refused is in the report; all else that would keep a message from being sent is raised as
        `send` would raise it.

        Raises:
            SecureSMTPError: There is no verified session; as for `send`.
        """
        self._refuse_if_closed()
        with self._naming(None):
            link, session, refusal = self._pool.check(self._overall(None))
        if refusal is not None:
            refusal.host, refusal.port = self._settings.host, self._settings.port
            tell(Failed(self._settings.host, self._settings.port, refusal), self._on_event)
        return _report(self._settings, link, session, refusal)

    def close(self, *, abort: bool = False) -> None:
        """
        Refuse what is sent later, wait for the sends that are under way, say goodbye and close; twice is fine.

        Called inside of a send, by a signal or a callable that has interrupted it, it waits for none: each closes its
        connection itself, when it is done.

        Args:
            abort: Do not wait: end the connections in use, so that their sends raise what became of their messages; a
                `check` that is under way raises, too.
        """
        self._closed = True
        pool = self._pools.get(current_process())
        if pool is not None:
            pool.close(abort=abort)

    @property
    def _pool(self) -> Pool:
        process = current_process()
        pool = self._pools.get(process)
        if pool is None:
            pool = self._pools.setdefault(process, Pool(self._settings, self._context, self._on_event, self._memory))
        return pool

    def _refuse_if_closed(self) -> None:
        if self._closed:
            message = "the mailer is closed"
            raise ConfigurationError(message, hint="make a new one")

    def _overall(self, deadline: float | None) -> Deadline | None:
        limit = self._settings.deadline if deadline is None else seconds("deadline", deadline)
        return None if limit is None else Deadline("deadline", limit)

    def _submit(
        self, submission: Submission, partial: Partial, overall: Deadline | None, visit: _Visit | None = None
    ) -> Receipt:
        _check(partial)
        sending = _Sending(submission, monotonic())

        def work(slot: Slot, link: Link, session: Session) -> None:
            slot.messages_left -= 1
            sending.session = session
            link.run(deliver(session, submission, partial, self._settings.pipelining, sending.attempt))

        visit, needs = visit or _Visit(), bind(transactions, len(submission.recipients), partial)
        with self._saying(sending):
            try:
                self._use(overall, work, visit, needs)
            except AuthenticationError as error:
                if visit.session is None or not self._may_log_in_again(visit.session, error):
                    raise
                self._pool.discard_idle()
                sending.attempt = Attempt()
                try:
                    self._use(overall, work, visit, needs)
                except AuthenticationError as again:
                    self._pool.slots.last_login_was_lost = self._has_lost_login(again)
                    raise
            self._pool.slots.last_login_was_lost = False
            return self._receipt(sending)

    def _receipt(self, sending: _Sending) -> Receipt:
        receipt = sending.receipt()
        self._tell_once(sending, Sent(self._settings.host, self._settings.port, receipt))
        return receipt

    def _tell_once(self, sending: _Sending, event: Event) -> None:
        # Before it is told: who is interrupted in on_event is not called again.
        if not sending.told:
            sending.told = True
            tell(event, self._on_event)

    @contextmanager
    def _saying(self, sending: _Sending) -> Iterator[None]:
        """Add to whatever ends a send what became of its message, and tell of it."""
        try:
            with self._naming(sending.submission.content.message_id, sending):
                yield
        except SecureSMTPError:
            raise
        except BaseException as interrupt:
            error = sending.interrupted_by(interrupt)
            self._place(error, sending.submission.content.message_id)
            # What the interrupt had for a cause is kept where ours has none.
            error.__cause__ = error.__cause__ or interrupt.__cause__
            interrupt.__cause__ = error
            which = escape(str(error.message_id), 200)
            interrupt.add_note(f"securesmtp: the message {which} ({error.outcome}): {error.args[0]}")
            host, port = self._settings.host, self._settings.port
            self._tell_once(sending, Sent(host, port, error.receipt) if error.receipt else Failed(host, port, error))
            raise

    @contextmanager
    def _naming(self, message_id: str | None, sending: _Sending | None = None) -> Iterator[None]:
        """Add to an error where it happened and to which message, and tell of it."""
        try:
            yield
        except SecureSMTPError as error:
            self._place(error, message_id)
            if sending is not None:
                sending.attempt.end, sending.told = error, True
            tell(Failed(self._settings.host, self._settings.port, error), self._on_event)
            raise

    def _has_lost_login(self, error: object) -> bool:
        """Return whether the server asks for a login over a connection that has one (530 to MAIL, RFC 4954 §6)."""
        return self._settings.login is not None and isinstance(error, AuthenticationError) and error.stage is Stage.MAIL

    def _may_log_in_again(self, session: Session, error: object) -> bool:
        """Return whether what has met *error* is tried once over a new connection: another server may stand there."""
        # Where no login has been good for a message, one try of one message has shown that a further one is no better.
        return self._has_lost_login(error) and (session.transactions > 1 or not self._pool.slots.last_login_was_lost)

    def _goes_again(self, session: Session, error: object) -> bool:
        """Return whether what has met *error* among others in flight is sent once more, by itself."""
        lost = self._may_log_in_again(session, error)
        if lost and session.transactions == 1:
            # That is the one further try.
            self._pool.slots.last_login_was_lost = True
        return lost or may_go_again(error)

    def _place(self, error: SecureSMTPError, message_id: str | None) -> None:
        error.host, error.port, error.message_id = self._settings.host, self._settings.port, message_id
        if self._has_lost_login(error):
            error.args = (f'the login was lost: "{error.reply}"',)
            error.hint = "the server took the login of this connection, and then asked for one"

    def _use(
        self,
        overall: Deadline | None,
        work: Callable[[Slot, Link, Session], None],
        visit: _Visit,
        needs: Callable[[Session], int] | None = None,
    ) -> None:
        """Do *work* on a connection, which is nobody else's meanwhile; it has room for what *work* needs of it."""
        pool, lease, slot, link = self._pool, Lease(), None, None
        visit.has_place, visit.session = False, None
        try:
            slot = pool.acquire(lease, overall)
            self._refuse_if_closed()
            visit.has_place = True
            link, session = pool.connection(slot, overall, needs, in_pause=visit.in_pause)
            visit.session = session
            try:
                work(slot, link, session)
            except BaseException:
                # Once more, should a second interrupt have struck in the handling of the first.
                if not link.is_in_step:
                    link.close()
                raise
        except SecureSMTPError as error:
            if slot is not None and is_connection_limit(error):
                # One too many: closed, and not the next one's.
                slot.messages_left = 0
            raise
        finally:
            # First of all, and by a store alone: a signal's exception comes after a call.
            lease.done = True
            if slot is not None and link is not None:
                pool.slots.mark_used(slot, link)
            if slot is not None and self._closed:
                pool.close_idle(slot)
            pool.notify()

    def _work(self, run: Run, backlog: Backlog) -> None:
        """Send what is in the backlog: one message after the other, or many at a time where the host bears it."""
        if not run.enter():
            return
        bearing = self._pool.bearing
        while (job := backlog.take(wait=True)) is not None:
            many = self._settings.pipelining == "session" and run.ended is None and bearing.borne is not False
            # While one connection tries it, the others go on as ever.
            trial = many and bearing.borne is None and bearing.trial.acquire(blocking=False)
            try:
                leaves = (self._stream if many and (trial or bearing.borne) else self._send_one)(run, job, backlog)
            finally:
                if trial:
                    bearing.trial.release()
            if leaves:
                return
        run.leave()

    def _send_one(self, run: Run, job: Job, backlog: Backlog) -> bool:
        """Send *job*, or give it back to the backlog; return whether this worker leaves the run."""
        visit = _Visit(run.may_log_in())
        while run.ended is None:
            try:
                end: Receipt | BaseException = self._submit(job.submission, run.partial, job.overall, visit)
            except BaseException as error:  # noqa: BLE001 -- a caller's own is the result, an interrupt raised there
                end = error
            if visit.session is not None:
                run.connected()
            if isinstance(end, Exception):
                # Whoever keeps events or log records keeps the errors of all tries.
                drop_frames(end)
                if visit.found_none:
                    return self._not_opened(run, job, end, backlog)
            left = _shrunk(run, end)
            if not may_go_again(end) or (job.died and not left):
                _finish(job, end)
            elif not left:
                job.died = True
                continue
            else:
                # It counts as no try: the run has a worker less each time.
                backlog.put(job)
            # Last of all, since on_event may raise what ends this worker.
            if left:
                self._tell_fewer(left, end)
            return left > 0
        self._refuse_rest(run, job)
        return False

    def _not_opened(self, run: Run, job: Job, error: Exception, backlog: Backlog) -> bool:
        """Do what the rule says where *job* found no connection; return whether this worker leaves the run."""
        verdict, left = run.failed(error)
        if verdict is Verdict.REPORT:
            _finish(job, error)
            return False
        backlog.put(job)
        if verdict is Verdict.LEAVE:
            self._tell_fewer(left, error)
            return True
        backlog.pause(run.pause)
        return False

    def _tell_fewer(self, left: int, why: object) -> None:
        assert isinstance(why, SecureSMTPError)  # noqa: S101 -- the rules look at no other; this is for the type checker
        reason = str(why.args[0])
        tell(FewerConnections(self._settings.host, self._settings.port, left, reason), self._on_event)

    def _refuse_rest(self, run: Run, job: Job) -> None:
        error = run.rest()
        self._place(error, job.submission.content.message_id)
        _finish(job, error)

    def _stream(self, run: Run, first: Job, backlog: Backlog) -> bool:
        """Send *first*, and what is in the backlog, over one connection; return whether this worker leaves the run."""
        waiting, again, visit, leaves = deque([first]), list[Job](), _Visit(run.may_log_in()), False

        def work(slot: Slot, link: Link, session: Session) -> None:
            run.connected()

            def take() -> Job | None:
                if slot.remaining <= 0 or self._closed or leaves:
                    return None
                job = waiting.popleft() if waiting else backlog.take(wait=False)
                slot.messages_left -= job is not None
                return job

            def heard(job: Job, what: Heard) -> None:
                nonlocal leaves
                left = not leaves and _shrunk(run, what)
                if left:
                    # One too many: closed, and not the next one's.
                    slot.messages_left, leaves = 0, True
                # Where the worker leaves, it counts as no try: the run has one less each time.
                if (leaves or not job.died) and self._goes_again(session, what):
                    job.died = job.died or not leaves
                    drop_frames(cast("SecureSMTPError", what))
                    again.append(job)
                else:
                    _finish(job, self._ended(job, session, what))
                if left:
                    self._tell_fewer(left, what)

            window, bearing = self._settings.window, self._pool.bearing
            Stream(link, session, partial=run.partial, window=window, bearing=bearing, take=take, tell=heard).run()

        try:
            self._use(first.overall, work, visit)
        except BaseException as error:  # noqa: BLE001 -- told as a result, or raised where the result is waited for
            return self._not_streamed(run, deque([*again, *waiting]), error, backlog, visit) or leaves
        return self._send_rest(run, deque([*again, *waiting]), backlog, leaves=leaves)

    def _not_streamed(self, run: Run, jobs: deque[Job], error: BaseException, backlog: Backlog, visit: _Visit) -> bool:
        """Let *error* be the end of *jobs*; return whether this worker leaves the run, since it found no connection."""
        # What was sent over one was heard of.
        for job in jobs:
            end = self._ended(job, None, error)
            if visit.found_none and isinstance(end, Exception):
                drop_frames(end)
                return self._not_opened(run, job, end, backlog)
            _finish(job, end)
        return False

    def _send_rest(self, run: Run, jobs: deque[Job], backlog: Backlog, *, leaves: bool) -> bool:
        """Send each of *jobs* by itself, or give it back where this worker *leaves*; return whether it does."""
        while jobs and not leaves:
            leaves = self._send_one(run, jobs.popleft(), backlog)
        for job in jobs:
            backlog.put(job)
        return leaves

    def _ended(self, job: Job, session: Session | None, heard: Heard) -> Receipt | BaseException:
        """Tell of the end of *job* as `send` would, and return it, or what on_event raises instead."""
        sending = _Sending(job.submission, job.started, session)
        try:
            with self._saying(sending):
                if isinstance(heard, BaseException):
                    raise heard  # noqa: TRY301 -- `_saying` tells of it
                sending.attempt.end = heard
                return self._receipt(sending)
        except BaseException as raised:  # noqa: BLE001 -- a result, or raised where the result is waited for
            return raised


@dataclass(slots=True)
class _Sending:
    """One message on its way, and what is known of it should a foreign exception interrupt that."""

    submission: Submission
    started: float
    session: Session | None = None
    attempt: Attempt = field(default_factory=Attempt)
    told: bool = False
    made: Receipt | None = None

    def receipt(self) -> Receipt:
        """Return what the server said of the message that it has accepted: the same each time."""
        if self.made is not None:
            return self.made
        delivery, session = self.attempt.end, self.session
        # `open_session` gives no session without TLS, and a dialogue that has ended well a delivery.
        assert isinstance(delivery, Delivery)  # noqa: S101 -- for the type checker
        assert session is not None  # noqa: S101 -- the same
        assert session.tls is not None  # noqa: S101 -- the same
        self.made = Receipt(
            self.submission.content.message_id,
            self.submission.mail_from.address,
            delivery.recipients,
            delivery.replies[-1],
            session.tls,
            delivery.size,
            timedelta(seconds=monotonic() - self.started),
            delivery.replies,
        )
        return self.made

    def interrupted_by(self, interrupt: BaseException) -> SecureSMTPError:
        """Return what became of the message, for the cause of *interrupt*."""
        lost = interrupted(interrupt, Stage.CONNECT if self.session is None else Stage.MAIL)
        end = self.attempt.end = self.attempt.lost(lost)
        if isinstance(end, SecureSMTPError):
            return end
        message = f'{lost.args[0]} when the server had accepted the message: "{end.replies[-1]}"'
        error = SecureSMTPError(message, stage=Stage.CONTENT, reply=end.replies[-1])
        error.outcome, error.receipt = Outcome.ACCEPTED, self.receipt()
        return error


@dataclass(slots=True)
class _Visit:
    """
    How far a send came with a connection.

    Attributes:
        in_pause: Whether it logs in even while the mailer pauses logins.
        has_place: Whether its turn came to use a connection.
        session: The session that it was given, or opened.
    """

    in_pause: bool = False
    has_place: bool = False
    session: Session | None = None

    @property
    def found_none(self) -> bool:
        """Whether it was to open a connection, and could not."""
        return self.has_place and self.session is None


def _shrunk(run: Run, what: object) -> int:
    """Return how many workers are left of *run* where this one is to leave, since *what* says that it has too many."""
    return run.shrink() if is_connection_limit(what) else 0


def _finish(job: Job, end: Receipt | BaseException) -> None:
    """Let *job* have its result; what is no Exception is raised where the result is waited for."""
    job.submission.content.close()
    if not isinstance(end, Receipt | Exception):
        job.finish(end)
        return
    message_id = job.submission.content.message_id
    if isinstance(end, Receipt):
        job.finish(SendResult(job.index, message_id, Outcome.ACCEPTED, end))
        return
    drop_frames(end)
    # Where an exception is not ours, its cause is.
    ours = end if isinstance(end, SecureSMTPError) else end.__cause__
    outcome, receipt = (ours.outcome, ours.receipt) if isinstance(ours, SecureSMTPError) else (Outcome.NOT_SENT, None)
    job.finish(SendResult(job.index, message_id, outcome, receipt, end))


def _check(partial: object) -> None:
    if partial not in ("raise", "allow"):
        message = f'partial is {quote(partial)}, neither "raise" nor "allow"'
        raise ConfigurationError(message)


def _from_message(
    message: Message, mail_from: str | Address | None, recipients: Iterable[str | Address] | None
) -> Submission:
    return from_message(message, mail_from, recipients, date=_now, token=_token)


def _now() -> str:
    return format_datetime(datetime.now().astimezone())


def _token() -> str:
    return token_hex(16)


def _from_octets(data: bytes | BinaryIO, mail_from: str | Address, recipients: Iterable[str | Address]) -> Submission:
    reverse, forward = reverse_path(mail_from), envelope_recipients(recipients)
    if isinstance(data, bytes | bytearray | memoryview):
        content = Content.from_bytes(bytes(data))
    elif callable(getattr(data, "read", None)):
        content = Content.from_file(data)
    else:
        message = f"data is a {type(data).__name__}, neither bytes nor a file"
        raise ConfigurationError(message, hint="encode a str, or use send() with an EmailMessage")
    if not content.size:
        content.close()
        message = "the message is empty: it has 0 bytes"
        raise MessageError(message, hint="a file is read from where it stands: seek(0) goes to its beginning")
    return Submission(reverse, forward, content)


def _from_any(message: Message | Envelope) -> Submission:
    if not isinstance(message, Envelope):
        return _from_message(message, None, None)
    if isinstance(message.content, Message):
        return _from_message(message.content, message.mail_from, message.recipients)
    return _from_octets(message.content, message.mail_from, message.recipients)


def _report(settings: Settings, link: Link, session: Session, refusal: AuthenticationError | None) -> ServerReport:
    assert session.tls is not None  # noqa: S101 -- open_session gives no session without; this is for the type checker
    return ServerReport(
        host=settings.host,
        port=settings.port,
        addresses=link.addresses,
        address=link.address,
        tls=session.tls,
        days_left=(session.tls.not_after - datetime.now(UTC)).days,
        before_tls=None if session.plain is None else dict(session.plain.keywords),
        after_tls=dict(session.offered.keywords),
        mechanisms=session.offered.auth,
        mechanism=None if settings.login is None else mechanism(settings.login, session.offered.auth),
        size=session.offered.size,
        limits=session.offered.limits,
        login=None if settings.login is None else refusal is None,
        login_error=refusal,
    )
