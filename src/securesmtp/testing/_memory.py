"""
A server in memory, for the recording mailers: it answers the dialogues that the real mailers hold.

So their receipts and errors are made by the same code. Only what the network alone can do is made here: a certificate
that is refused, a connection that is cut, silence.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, TypeVar, cast

from securesmtp._core import Core, Sending
from securesmtp._protocol.delivery import deliver
from securesmtp._protocol.dialogue import authenticate, open_session, pick_mechanism
from securesmtp._protocol.effects import Adapt, Block, Connect, FetchPassword, Opened, Receive, Respond, Send, Upgrade
from securesmtp._protocol.sasl import Password
from securesmtp._protocol.sasl.logins import identity
from securesmtp._protocol.wire import RawReply
from securesmtp._submissions import from_any
from securesmtp._tracebacks import drop_frames
from securesmtp._values import Outcome, SendResult, Stage, TLSInfo, TLSMode
from securesmtp.errors import (
    AuthenticationError,
    CertificateError,
    ConnectError,
    DeadlineExceededError,
    SecureSMTPError,
)
from securesmtp.testing._faults import FAULTS, FaultName, check_fault
from securesmtp.testing._received import Received

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.effects import Answer, Dialogue, Effect
    from securesmtp._protocol.message import Submission
    from securesmtp._protocol.transaction import Partial
    from securesmtp._report import ServerReport
    from securesmtp._transport.connection import Connection
    from securesmtp._values import Envelope, Receipt

T = TypeVar("T")
# They need a server: one takes time, the other a second token.
_ONLY_SERVERS = ("slow", "oauth_expired")
# An address for documentation (RFC 5737).
_ADDRESS, _LITERAL = "192.0.2.1", b"[192.0.2.1]"
_BEFORE_TLS = ("mail.test", "PIPELINING", "STARTTLS")
_OFFERED = (
    "mail.test",
    "PIPELINING",
    "CHUNKING",
    "SIZE 33554432",
    "8BITMIME",
    "SMTPUTF8",
    "AUTH LOGIN PLAIN OAUTHBEARER XOAUTH2 EXTERNAL",
)
_REPLIES = {
    # A login is tried only in order to be refused.
    b"AUTH": "535 5.7.8 Authentication credentials invalid",
    b"DATA": "354 Go on",
    b"STAR": "220 Ready to start TLS",
}
_TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"


@dataclass(slots=True)
class MemoryServer:
    """
    The server.

    Attributes:
        core: The mailer's.
        accept: Keeps a message, and returns its number.
        refuse: Recipients that it refuses.
        fault: The fault that it plays.
        greylisted: Senders and recipients that "greylists" has refused once.
    """

    core: Core
    accept: Callable[[Received], int]
    refuse: frozenset[str]
    fault: FaultName | None
    greylisted: set[tuple[str, str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, submission: Submission, partial: Partial) -> Receipt:
        """
        Accept one message, and return its receipt.

        Raises:
            SecureSMTPError: As the mailer's `send`.
        """
        core, sending = self.core, Sending(submission.content.message_id, monotonic())
        try:
            core.refuse_if_closed()
            with self._lock:
                receipt = self._play(self._delivery(sending, submission, partial))
        except SecureSMTPError as error:
            core.record_error(sending, error)
            raise
        return core.report_receipt(sending, receipt)

    def result(self, index: int, message: Message | Envelope, partial: Partial) -> SendResult:
        """Return what becomes of one message of a `send_many`."""
        message_id: str | None = None
        outcome = Outcome.NOT_SENT
        try:
            submission = from_any(message)
            message_id, outcome = submission.content.message_id, Outcome.UNKNOWN
            try:
                receipt = self.send(submission, partial)
            finally:
                submission.content.close()
        except Exception as error:  # noqa: BLE001 -- it is the result
            drop_frames(error)
            outcome = error.outcome if isinstance(error, SecureSMTPError) else outcome
            return SendResult(index, message_id, outcome, error=error)
        return SendResult(index, message_id, Outcome.ACCEPTED, receipt)

    def check(self) -> ServerReport:
        """
        Return what a check finds.

        Raises:
            SecureSMTPError: As the mailer's `check`.
        """
        core, refusal = self.core, None
        core.refuse_if_closed()
        try:
            session = self._play(self._open())
            if core.settings.login is not None:
                try:
                    self._play(pick_mechanism(session, core.settings.login))
                    self._play(self._login(session))
                except AuthenticationError as error:
                    refusal = error
                    core.report_error(error)
        except SecureSMTPError as error:
            core.report_error(error)
            raise
        # Of a connection, a report tells the addresses.
        channel = SimpleNamespace(addresses=(_ADDRESS,), address=_ADDRESS)
        return core.report(cast("Connection", SimpleNamespace(channel=channel)), session, refusal)

    def _open(self) -> Dialogue[Session]:
        settings = self.core.settings
        mode = TLSMode.STARTTLS if self.fault == "starttls_stripped" else settings.mode
        return open_session(mode, settings.ehlo_name)

    def _login(self, session: Session) -> Dialogue[None]:
        # The mailer's own password is not asked for: it may be a coroutine function, or cost something.
        if self.fault == "bad_login":
            yield from authenticate(session, Password("me", "refused"))

    def _delivery(self, sending: Sending, submission: Submission, partial: Partial) -> Dialogue[Receipt]:
        session = yield from self._open()
        yield from self._login(session)
        delivery = yield from deliver(session, submission, partial)
        return sending.accept(session, submission, delivery)

    def _play(self, dialogue: Dialogue[T]) -> T:
        """Answer the effects of *dialogue* until it ends."""
        peer, answer, failure = _Peer(self), cast("Answer", None), cast("Exception | None", None)
        try:
            while True:
                effect = dialogue.send(answer) if failure is None else dialogue.throw(failure)
                answer, failure = None, None
                try:
                    answer = peer.answer(effect)
                except Exception as error:  # noqa: BLE001 -- as a connection does
                    failure = error
        except StopIteration as stop:
            return cast("T", stop.value)


class _Peer:
    """The server's side of one connection."""

    def __init__(self, server: MemoryServer) -> None:
        """Wait for a client."""
        self._server, self._settings = server, server.core.settings
        self._replies = deque[RawReply]()
        self._is_encrypted = False
        self._mail_from, self._recipients = "", list[str]()
        self._submission: Submission | None = None

    def answer(self, effect: Effect) -> Answer:
        """
        Perform *effect*, and return its answer.

        Raises:
            SecureSMTPError: The fault is that it fails.
        """
        match effect:
            case Connect():
                return self._connect()
            case Upgrade():
                return self._secure()
            case Send():
                self._replies.append(_reply(self._reply_to(effect.line.data)))
            case Receive():
                return self._replies.popleft() if self._replies else self._take_message()
            case Block() if self._server.fault == "drops_in_content":
                raise ConnectError("the connection was cut", stage=Stage.CONTENT, retryable=True)
            case Adapt():
                self._submission = effect.perform()
                return self._submission
            case FetchPassword() | Respond():
                return effect.perform()
        return None

    def _connect(self) -> Opened:
        fault, settings = self._server.fault, self._settings
        if fault == "silent":
            limit = settings.timeouts.command
            error = DeadlineExceededError(
                f"timed out after {limit:g} s waiting for the server's greeting (limit: command)",
                stage=Stage.GREETING,
                retryable=True,
            )
            error.limit = "command"
            raise error
        is_implicit = settings.mode is TLSMode.IMPLICIT and fault != "starttls_stripped"
        tls = self._secure() if is_implicit else None
        if fault == "too_busy":
            return Opened(_reply("421 4.3.2 Too many connections, try again later"), tls, _LITERAL)
        return Opened(_reply("220 mail.test ESMTP"), tls, _LITERAL)

    def _secure(self) -> TLSInfo:
        fault, settings = self._server.fault, self._settings
        reason = FAULTS[fault].reason if fault else None
        if reason is not None:
            refused = CertificateError(f"the certificate was refused: {reason}", stage=Stage.HANDSHAKE)
            refused.reason = reason
            raise refused
        self._is_encrypted = True
        return TLSInfo(
            mode=settings.mode,
            version="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            server_name=settings.server_name,
            trust="recorded",
            peer_sha256="0" * 64,
            peer_spki_sha256=f"sha256/{'A' * 43}=",
            not_after=datetime(2038, 1, 1, tzinfo=UTC),
        )

    def _reply_to(self, command: bytes) -> str:
        fault, verb = self._server.fault, command[:4].upper()
        match verb:
            case b"EHLO":
                offered = _OFFERED if self._is_encrypted else _BEFORE_TLS
                kept = (each for each in offered if (each, fault) != ("STARTTLS", "starttls_stripped"))
                return "\n".join(f"250 {each}" for each in kept)
            case b"MAIL" if fault == "full":
                return "452 4.3.1 Insufficient system storage"
            case b"MAIL":
                self._mail_from = _path(command)
            case b"RCPT":
                return self._reply_to_recipient(_path(command))
        return _REPLIES.get(verb, "250 2.1.0 OK")

    def _reply_to_recipient(self, address: str) -> str:
        server, pair = self._server, (self._mail_from, address)
        if server.fault == "refuses_recipients" or address in server.refuse:
            return "550 5.1.1 No such user here"
        if server.fault == "greylists" and pair not in server.greylisted:
            server.greylisted.add(pair)
            return "451 4.7.1 Greylisted, try again later"
        self._recipients.append(address)
        return "250 2.1.5 OK"

    def _take_message(self) -> RawReply:
        """Keep the message whose content was written, and return the reply to it."""
        content = b"".join(cast("Submission", self._submission).content.chunk())
        login = self._settings.login
        username = None if login is None else identity(login)
        number = self._server.accept(Received(self._mail_from, tuple(self._recipients), content, username, _TLS))
        if self._server.fault == "drops_after_content":
            raise ConnectError("the connection was cut", stage=Stage.CONTENT, retryable=True)
        return _reply(f"250 2.0.0 queued as {number}")


def _path(command: bytes) -> str:
    """Return the address of a MAIL or RCPT command."""
    return command[command.index(b"<") + 1 : command.rindex(b">")].decode()


def _reply(text: str) -> RawReply:
    """Return the reply that *text* is; each of its lines has the code."""
    return RawReply(int(text[:3]), tuple(each[4:].encode() for each in text.split("\n")))


def check_memory_fault(name: FaultName | None) -> None:
    """
    Check that *name* is None or a fault that can be played without a server.

    Raises:
        ValueError: It is not.
    """
    check_fault(name)
    if name in _ONLY_SERVERS:
        message = f"the fault {name} needs a server: use mail_server_factory(fault={name!r})"
        raise ValueError(message)
