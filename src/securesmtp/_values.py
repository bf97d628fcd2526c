"""
The values that this library returns: frozen and without behaviour of their own.

They contain each other, so they are in one file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from securesmtp._portable import Portable
from securesmtp._queue_id import find_queue_id
from securesmtp._shown import KEPT_TEXT, escape

# Refused recipients that the text of a receipt names.
_MAX_NAMED = 3
# RFC 5321 §4.2.1: 4yz is a transient negative reply.
_TRANSIENT_CODES = range(400, 500)


class Outcome(StrEnum):
    """What became of a message, as far as anyone can know."""

    ACCEPTED = "accepted"
    """The server accepted it: a well-formed 250 reply to the content was read."""
    REFUSED = "refused"
    """The server refused it and does not have the message."""
    NOT_SENT = "not sent"
    """The server cannot have accepted it: the content was not fully sent, or was not sent at all."""
    UNKNOWN = "unknown"
    """The content was fully sent and no valid reply to it was read: it may have been accepted (RFC 1047)."""


class Stage(StrEnum):
    """The step of a session at which something happened, in the order of a session."""

    CONFIGURATION = "configuration"
    CONNECT = "connect"
    HANDSHAKE = "handshake"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    RSET = "rset"
    QUIT = "quit"
    UNKNOWN = "unknown"
    """Not known: the error was rebuilt from its text alone, as some task queues do."""


class TLSMode(StrEnum):
    """How TLS begins (RFC 8314). There is no mode without TLS."""

    IMPLICIT = "implicit"
    """TLS from the first byte. The default on port 465 and on every port except 587."""
    STARTTLS = "starttls"
    """One EHLO and one STARTTLS in plaintext, then TLS or an error. The default on port 587."""


class CertificateReason(StrEnum):
    """Why a server's certificate was refused."""

    UNTRUSTED = "untrusted"
    """It is not signed by a trusted CA, or the server does not send an intermediate certificate."""
    SELF_SIGNED = "self-signed"
    """It is self-signed, or its chain ends in a root certificate that is not trusted."""
    EXPIRED = "expired"
    """It has expired, or another certificate of its chain has."""
    NOT_YET_VALID = "not yet valid"
    """It is not valid yet, or another certificate of its chain is not; a clock may be wrong."""
    NAME_MISMATCH = "name mismatch"
    """It is not for this host (RFC 9525)."""
    PURPOSE = "purpose"
    """A server may not use it (extended key usage)."""
    WEAK_KEY = "weak key"
    """A key or signature in the chain has less than 112 bits of security (RSA below 2048 bits, SHA-1)."""
    STRICT = "strict"
    """It breaks a rule of RFC 5280 that this library checks strictly on every Python."""
    PIN = "pin"
    """It is valid, but its key is not one of the pinned keys."""
    OTHER = "other"
    """Another reason; the error's text quotes OpenSSL."""


@dataclass(frozen=True, slots=True)
class Reply(Portable):
    """
    One reply of the server (RFC 5321 §4.2).

    If the server repeats a password that the mailer sent on any connection (six bytes of it in a row, in upper or lower
    case, or a shorter password as a whole word), *text* and *raw* have a note in its place. *code*, *enhanced* and the
    rest of the line stay. A password that is a common word therefore hides much of the server's text.

    Attributes:
        code: The three digits, 200 to 599.
        enhanced: The enhanced status code (RFC 3463), such as ``"5.1.1"``; None if the server sent no well-formed one.
        text: The server's text on one line, control characters escaped, at most 500 characters.
        raw: The bytes of the reply's lines after the code, joined by LF, at most 4096.

    One receipt or error keeps 256 KiB of *text* and *raw*; of each reply after that, 96 characters and 96 bytes.
    """

    code: int
    enhanced: str | None
    text: str
    raw: bytes = field(repr=False)

    def __str__(self) -> str:
        """Return the code and the text, safe to log."""
        return f"{self.code} {self.text}".rstrip()


@dataclass(frozen=True, slots=True)
class Recipient(Portable):
    """
    One recipient and the server's reply to it.

    Attributes:
        address: The mailbox as it was sent in the envelope.
        accepted: Whether the server replied 25z to its RCPT and 250 to the content; False if no content was sent.
        reply: The reply to its RCPT, or the reply that refused its transaction.
    """

    address: str
    accepted: bool
    reply: Reply

    @property
    def retryable(self) -> bool:
        """Whether the refusal is temporary, by a 4yz reply (RFC 5321 §4.2.1)."""
        return self.reply.code in _TRANSIENT_CODES


@dataclass(frozen=True, slots=True)
class Certificate(Portable):
    """
    One certificate of a verified chain.

    Attributes:
        subject: The common name of its subject; without one, the subject's first attribute.
        issuer: The same for its issuer, who signed it.
        names: DNS names and IP addresses in its subjectAltName; a CA has none.
        not_before: Start of its validity (UTC).
        not_after: End of its validity (UTC).
        sha256: SHA-256 of its DER form, 64 hexadecimal digits.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    sha256: str


@dataclass(frozen=True, slots=True)
class TLSInfo(Portable):
    """
    How one TLS session was verified.

    Attributes:
        mode: Implicit TLS or STARTTLS.
        version: ``"TLSv1.3"`` or ``"TLSv1.2"``.
        cipher: The cipher suite, as OpenSSL names it.
        server_name: The host name or IP address that the certificate was checked against.
        trust: The root certificates that were trusted: ``"certifi …"``, ``"ca_file …"``, ``"ca_data"``
            or ``"system …"``.
        peer_sha256: SHA-256 of the server's certificate, 64 hexadecimal digits.
        peer_spki_sha256: SHA-256 of its public key, in the form of ``TLSPolicy.pins``.
        not_after: End of the certificate's validity (UTC).
        chain: The server's certificate, the intermediate certificates, and the trusted root.
    """

    mode: TLSMode
    version: str
    cipher: str
    server_name: str
    trust: str
    peer_sha256: str
    peer_spki_sha256: str
    not_after: datetime
    chain: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt(Portable):
    """
    Proof that the server accepted a message and took responsibility for it (RFC 5321 §4.2.5).

    Attributes:
        message_id: The Message-ID that was sent, unprintable characters escaped; None if raw bytes have none.
        mail_from: The envelope's sender (reverse-path); empty for the null one.
        recipients: Every recipient once, in the envelope's order, with the server's reply.
        reply: The reply to the content.
        replies: The replies of all transactions. More than one only if the server accepts fewer recipients at a time.
        tls: How the TLS session that carried the message was verified.
        size: Bytes of the message with CRLF line ends, before dot-stuffing.
        elapsed: Time from the call to the final reply.
        dsn_left_out: Whether the message had ``DSN(…, required=False)`` and the server does not offer DSN, so that no
            delivery status notification was asked for.
    """

    message_id: str | None
    mail_from: str
    recipients: tuple[Recipient, ...]
    reply: Reply
    tls: TLSInfo
    size: int
    elapsed: timedelta
    replies: tuple[Reply, ...] = ()
    dsn_left_out: bool = False

    def __str__(self) -> str:
        """Return one line: message, number of recipients, the server's reply, who was refused, what was left out."""
        count = f"{len(self.accepted)} of {len(self.recipients)} recipients"
        line = f"accepted {describe_id(self.message_id)} for {count}: {self.reply}"
        refused = [f"{escape(each.address)} ({each.reply})" for each in self.recipients if not each.accepted]
        if len(refused) > _MAX_NAMED:
            refused[_MAX_NAMED:] = [f"and {len(refused) - _MAX_NAMED} more"]
        line += f"; refused: {', '.join(refused)}" if refused else ""
        return f"{line}; without DSN, which the server does not offer" if self.dsn_left_out else line

    @property
    def queue_id(self) -> str | None:
        """
        The id under which the server's log has the message, read from the reply; None if that has no known form.

        Use it to search a log, and for nothing else: the server chooses it, and may use it again for another message.
        It is up to 64 ASCII letters, digits, dots, hyphens and underscores. It is that of the last transaction, if
        there are several.
        """
        return find_queue_id(self.reply.text)

    @property
    def accepted(self) -> tuple[str, ...]:
        """The addresses for which the server accepted the message."""
        return tuple(recipient.address for recipient in self.recipients if recipient.accepted)

    @property
    def refused(self) -> tuple[str, ...]:
        """The addresses that the server refused; empty unless ``partial="allow"``."""
        return tuple(recipient.address for recipient in self.recipients if not recipient.accepted)


@dataclass(frozen=True, slots=True)
class SendResult(Portable):
    """
    What became of one message of `SecureMailer.send_many`.

    Attributes:
        index: Its position in the input, from 0.
        message_id: Its Message-ID; None if raw bytes have none, or if the message was refused before it was serialised
            (a wrong address, a broken header).
        outcome: What became of it.
        receipt: The receipt if it was accepted.
        error: Why it was not accepted: the error that `SecureMailer.send` would have raised, or the exception of your
            callable or iterable. If the run stopped early (a refused login, an outage), messages not tried have an
            error that says so. It has no traceback, since the frames would keep the message in memory.
        from_ledger: Whether the ledger has it from another send of the same message: this run has not delivered it.
    """

    index: int
    message_id: str | None
    outcome: Outcome
    receipt: Receipt | None = None
    error: Exception | None = None
    from_ledger: bool = False

    def __str__(self) -> str:
        """Return one line: the message, its outcome, and why."""
        if self.receipt is not None:
            return f"{self.index}: {self.receipt}"
        line = f"{self.index}: {self.outcome} {describe_id(self.message_id)}"
        if self.error is not None:
            line += f", {describe_error(self.error)}"
        return line + " (retryable)" * self.retryable

    @property
    def retryable(self) -> bool:
        """
        Whether the message was certainly not accepted and sending it again unchanged may succeed.

        A message that is `Outcome.NOT_SENT` can always be sent again once the cause is fixed.
        """
        return bool(getattr(self.error, "retryable", False))


def describe_error(error: Exception) -> str:
    """Return *error* on one line: its type, and its text if it is this library's own, which never has a secret."""
    name = type(error).__name__
    return f"{name}: {escape(str(error.args[0]))}" if isinstance(error, Portable) else name


def describe_id(message_id: str | None, limit: int = KEPT_TEXT) -> str:
    """Return the Message-ID for a text about its message, cut to *limit* characters."""
    return "a message without Message-ID" if message_id is None else escape(message_id, limit)
