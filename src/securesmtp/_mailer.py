"""`SecureMailer`: the one object that an application makes, shares and closes."""

from __future__ import annotations

import os
import threading
from datetime import datetime, timedelta
from email.utils import format_datetime
from functools import cached_property
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, Literal, Self, final

from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.content import Content
from securesmtp._protocol.dialogue import Session, authenticate, deliver, open_session, quit_session
from securesmtp._protocol.message import Submission, envelope_recipients, from_message
from securesmtp._protocol.sasl import Password, hidden
from securesmtp._settings import Timeouts, TLSPolicy, seconds, settings
from securesmtp._transport.link import Deadline, Link
from securesmtp._transport.tls import build_context
from securesmtp._values import Receipt, Stage, TLSMode
from securesmtp.errors import ConfigurationError, SecureSMTPError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from email.message import EmailMessage
    from types import TracebackType

    from securesmtp._protocol.sasl import PasswordSource

Partial = Literal["raise", "allow"]


@final
class SecureMailer:
    """
    Submits mail to one server over verified TLS, or not at all.

    It connects at the first send, keeps the connection for the next, and may be shared by threads, which then take
    turns. Nothing is retried: an error says what became of the message and whether a later try may succeed.
    """

    def __init__(  # noqa: PLR0913 -- the whole configuration stands in one place, by keyword
        self,
        host: str,
        port: int | None = None,
        *,
        tls: TLSMode | Literal["implicit", "starttls"] = "implicit",
        username: str | None = None,
        password: PasswordSource | None = None,
        auth: Password | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        policy: TLSPolicy | None = None,
        timeout: float | Timeouts = Timeouts(),  # noqa: B008 -- frozen
        deadline: float | None = None,
        local_hostname: str | None = None,
        source_address: tuple[str, int] | None = None,
    ) -> None:
        """
        Check everything that can be checked without the network.

        Args:
            host: Name in ASCII (A-labels) or IP address; the certificate must be for it.
            port: 465 for implicit TLS and 587 for STARTTLS unless given.
            tls: ``"implicit"`` or ``"starttls"`` (RFC 8314).
            username: Short for ``auth=Password(username, password)``.
            password: A str, a `Secret`, or a callable that is asked at each login, after TLS was verified.
            auth: How to log in; None for not at all.
            ca_file: Short for ``policy=TLSPolicy(ca_file=…)``.
            policy: Whom to trust; certifi's roots unless it says otherwise.
            timeout: Seconds for each step but `Timeouts.final`, or all of them as `Timeouts`.
            deadline: Seconds for one whole send.
            local_hostname: What EHLO says; our address unless given. Never looked up.
            source_address: Local address and port to connect from.

        Raises:
            ConfigurationError: An argument is wrong; the message says which.
        """
        # First of all, so that no frame of a traceback holds the string.
        password = None if password is None else hidden(password)
        if auth is not None and not isinstance(auth, Password):
            message, auth = f"auth is a {type(auth).__name__}, not a Password", None
            raise ConfigurationError(message)
        if policy is not None and not isinstance(policy, TLSPolicy):
            message = f"policy is a {type(policy).__name__}, not a TLSPolicy"
            raise ConfigurationError(message)
        if (username is None) != (password is None) or (auth is not None and username is not None):
            message = "pass username and password together, or auth alone"
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
            local_hostname=local_hostname,
            source_address=source_address,
        )
        # By process: in the child of a fork, the thread that holds the parent's does not exist.
        self._turns: dict[int, threading.RLock] = {}
        self._owner: tuple[int, int] | None = None
        self._link: Link | None = None
        self._session: Session | None = None
        self._closed = False
        if self._settings.policy != TLSPolicy():
            # The caller's own files: better refused here than at the first mail. certifi's can wait (24 to 47 ms).
            _ = self._context

    def __repr__(self) -> str:
        """Return where the mail goes."""
        return f"<SecureMailer {self._settings.host}:{self._settings.port} {self._settings.mode}>"

    def __enter__(self) -> Self:
        """Return the mailer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the mailer."""
        self.close()

    def send(
        self,
        message: EmailMessage,
        *,
        mail_from: str | None = None,
        recipients: Iterable[str] | None = None,
        partial: Partial = "raise",
        deadline: float | None = None,
    ) -> Receipt:
        """
        Submit *message* and return the server's receipt.

        Bcc is never transmitted; Date and Message-ID are filled in where they are missing; *message* is not changed.

        Args:
            message: An EmailMessage (not the ``MIMEText`` family).
            mail_from: The reverse-path; from Sender, else the single From, unless given.
            recipients: The forward-paths; from To, Cc and Bcc unless given (Resent fields, where there are any).
            partial: ``"raise"`` delivers to nobody when one recipient is refused, ``"allow"`` to the rest.
            deadline: Seconds for this send, in place of the mailer's.

        Raises:
            SecureSMTPError: One of `securesmtp.errors`; its ``outcome`` says what became of the message.
        """
        overall = self._overall(deadline)
        date = format_datetime(datetime.now().astimezone())
        submission = from_message(message, mail_from, recipients, date=date, token=token_hex(16))
        return self._submit(submission, partial, overall)

    def send_bytes(
        self,
        data: bytes | BinaryIO,
        *,
        mail_from: str,
        recipients: Iterable[str],
        partial: Partial = "raise",
        deadline: float | None = None,
    ) -> Receipt:
        """
        Submit a message that is octets already, and change nothing of it but bare LF, which becomes CRLF.

        Args:
            data: The message, or a file in binary mode, which is read to its end.
            mail_from: The reverse-path.
            recipients: The forward-paths.
            partial: As for `send`.
            deadline: As for `send`.

        Raises:
            SecureSMTPError: As for `send`; `MessageError` names the line that cannot be sent.
        """
        overall = self._overall(deadline)
        reverse, forward = Mailbox.parse(mail_from), envelope_recipients(recipients)
        if isinstance(data, bytes | bytearray | memoryview):
            content = Content.from_bytes(bytes(data))
        elif callable(getattr(data, "read", None)):
            content = Content.from_file(data)
        else:
            message = f"data is a {type(data).__name__}, neither bytes nor a file"
            raise ConfigurationError(message, hint="encode a str, or use send() with an EmailMessage")
        try:
            return self._submit(Submission(reverse, forward, content), partial, overall)
        finally:
            content.close()

    def close(self) -> None:
        """
        Say goodbye to the server, close the connection, and refuse what is sent later; closing twice is fine.

        It does not wait: a send that is under way is finished, and closes the connection itself.
        """
        self._closed = True
        turn = self._turns.setdefault(os.getpid(), threading.RLock())
        # The owner: a signal handler, or a callable, inside a send of this very thread.
        if self._owner == (os.getpid(), threading.get_ident()) or not turn.acquire(blocking=False):
            return
        try:
            link, self._link = self._link, None
            if link is not None:
                link.goodbye(quit_session())
        finally:
            turn.release()

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return build_context(self._settings.policy)

    def _overall(self, deadline: float | None) -> Deadline | None:
        limit = self._settings.deadline if deadline is None else seconds("deadline", deadline)
        return None if limit is None else Deadline("deadline", limit)

    def _submit(self, submission: Submission, partial: Partial, overall: Deadline | None) -> Receipt:
        if partial not in ("raise", "allow"):
            message = f'partial is {partial!r}, neither "raise" nor "allow"'
            raise ConfigurationError(message)
        started = monotonic()
        me = (os.getpid(), threading.get_ident())
        if self._owner == me:
            message = "a send was begun inside a send of the same mailer"
            raise ConfigurationError(message, hint="a password callable or signal handler needs a mailer of its own")
        turn = self._turns.setdefault(os.getpid(), threading.RLock())
        try:
            # It ends by the error of `left` where there is a limit.
            while not turn.acquire(timeout=-1 if overall is None else overall.left(Stage.CONNECT)):
                pass
            self._owner = me
            if self._closed:
                message = "the mailer is closed"
                raise ConfigurationError(message, hint="make a new one")
            link, session = self._connected(overall)
            delivery = link.run(deliver(session, submission, partial))
        except SecureSMTPError as error:
            error.host, error.port = self._settings.host, self._settings.port
            error.message_id = submission.content.message_id
            raise
        finally:
            # A signal's exception comes after a call: up to the release there is none, whatever was interrupted above.
            if self._owner == me:
                self._owner = None
            try:  # noqa: SIM105 -- suppress() would be such a call
                turn.release()
            except RuntimeError:  # the lock knows who has it: not we
                pass
            if self._closed:
                self.close()
        assert session.tls is not None  # noqa: S101 -- open_session gives no session without; this is for the type checker
        return Receipt(
            submission.content.message_id,
            submission.mail_from.address,
            delivery.recipients,
            delivery.reply,
            session.tls,
            delivery.size,
            timedelta(seconds=monotonic() - started),
        )

    def _connected(self, overall: Deadline | None) -> tuple[Link, Session]:
        link, session = self._link, self._session
        if link is not None and session is not None:
            link.overall = overall
            if link.is_idle():
                return link, session
            link.close()
        link = self._link = Link(self._settings, self._context)
        link.overall = overall
        try:
            session = self._session = link.run(open_session(self._settings.mode, self._settings.local_hostname))
            if self._settings.login is not None:
                link.run(authenticate(session, self._settings.login))
        except BaseException:
            link.close()
            raise
        return link, session
