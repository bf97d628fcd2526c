"""
The server's side of a connection in memory: it answers the effects of a dialogue, and plays the faults.

What the network alone can do is made here: a certificate that is refused, a connection that is cut, silence.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from securesmtp._protocol.delivery import Attempt
from securesmtp._protocol.effects import Adapt, Block, Connect, FetchPassword, Opened, Receive, Respond, Send, Upgrade
from securesmtp._protocol.sasl.logins import identity
from securesmtp._protocol.wire import RawReply
from securesmtp._values import Stage, TLSInfo, TLSMode
from securesmtp.errors import CertificateError, ConnectError, DeadlineExceededError
from securesmtp.testing._faults import FAULTS
from securesmtp.testing._received import Received, read_parameters
from securesmtp.testing._rules import BUSY, EXTENSIONS

if TYPE_CHECKING:
    from securesmtp._protocol.effects import Answer, Effect
    from securesmtp._protocol.message import Submission
    from securesmtp._settings import Settings
    from securesmtp.testing._rules import Rules

# An address for documentation (RFC 5737).
ADDRESS, _LITERAL = "192.0.2.1", b"[192.0.2.1]"
_BEFORE_TLS = ("mail.test", "PIPELINING", "STARTTLS")
_OFFERED = (
    "mail.test",
    "PIPELINING",
    "CHUNKING",
    "SIZE 33554432",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    *EXTENSIONS,
    "AUTH LOGIN PLAIN OAUTHBEARER XOAUTH2 EXTERNAL",
)
_REPLIES = {
    # A login is tried only in order to be refused.
    b"AUTH": "535 5.7.8 Authentication credentials invalid",
    b"DATA": "354 Go on",
    b"STAR": "220 Ready to start TLS",
}
_TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"


class Peer:
    """
    The server's side of one connection.

    Attributes:
        attempt: The account of the message that is sent over it.
    """

    def __init__(self, rules: Rules, settings: Settings) -> None:
        """Wait for the client of a mailer with these *settings*."""
        self._rules, self._settings = rules, settings
        self._replies = deque[RawReply]()
        self._is_encrypted = False
        self._mail_from, self._mail_parameters = "", dict[str, str]()
        # With their parameters.
        self._recipients = dict[str, dict[str, str]]()
        self.attempt = Attempt()

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
                return (self._replies.popleft() if self._replies else self._take_message(),)
            case Block() if self._rules.fault == "drops_in_content":
                raise ConnectError("the connection was cut", stage=Stage.CONTENT, retryable=True)
            case Adapt() | FetchPassword() | Respond():
                return effect.perform()
        return None

    def _connect(self) -> Opened:
        fault, settings = self._rules.fault, self._settings
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
            return Opened(_reply(BUSY), tls, _LITERAL)
        return Opened(_reply("220 mail.test ESMTP"), tls, _LITERAL)

    def _secure(self) -> TLSInfo:
        fault, settings = self._rules.fault, self._settings
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
        fault, verb = self._rules.fault, command[:4].upper()
        match verb:
            case b"EHLO":
                offered = _OFFERED if self._is_encrypted else _BEFORE_TLS
                kept = (each for each in offered if (each, fault) != ("STARTTLS", "starttls_stripped"))
                return "\n".join(f"250 {each}" for each in kept)
            case b"MAIL":
                self._mail_from, self._mail_parameters = _parse(command)
                return self._rules.reply_to_mail()
            case b"RCPT":
                address, parameters = _parse(command)
                reply = self._rules.reply_to_recipient(self._mail_from, address)
                if reply.startswith("250"):
                    self._recipients[address] = parameters
                return reply
        return _REPLIES.get(verb, "250 2.1.0 OK")

    def _take_message(self) -> RawReply:
        """Keep the message whose content was written, and return the reply to it."""
        content = b"".join(cast("Submission", self.attempt.adapted).content.chunk())
        login = self._settings.login
        username = None if login is None else identity(login)
        recipients, asked = tuple(self._recipients), (self._mail_parameters, self._recipients)
        number = self._rules.accept(Received(self._mail_from, recipients, content, username, _TLS, *asked))
        if self._rules.fault == "drops_after_content":
            raise ConnectError("the connection was cut", stage=Stage.CONTENT, retryable=True)
        return _reply(f"250 2.0.0 queued as {number}")


def _parse(command: bytes) -> tuple[str, dict[str, str]]:
    """Return the address of a MAIL or RCPT command, and its parameters."""
    address, _, parameters = command.decode().partition("<")[2].partition(">")
    return address, read_parameters(parameters)


def _reply(text: str) -> RawReply:
    """Return the reply that *text* is; each of its lines has the code."""
    return RawReply(int(text[:3]), tuple(each[4:].encode() for each in text.split("\n")))
