"""What the library tells its callers: frozen values without behaviour of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta  # noqa: TC003 -- the fields' types are there at run time for who inspects them
from enum import StrEnum


class Outcome(StrEnum):
    """What became of the message, as far as anyone can know."""

    ACCEPTED = "accepted"
    """The server took it: a well-formed 250 to the content was read."""
    REFUSED = "refused"
    """The server said no; it does not have the message."""
    NOT_SENT = "not sent"
    """The server cannot have accepted it: the content was not ended, or not even begun."""
    UNKNOWN = "unknown"
    """The content was ended and no reply to it was read: it may have been accepted (RFC 1047)."""


class Stage(StrEnum):
    """Where in the session something happened, in the order of the session."""

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


class TLSMode(StrEnum):
    """How TLS begins; there is no third way (RFC 8314)."""

    IMPLICIT = "implicit"
    """TLS from the first octet; port 465 unless said otherwise."""
    STARTTLS = "starttls"
    """One EHLO and one STARTTLS in the clear, then TLS or nothing; port 587 unless said otherwise."""


class CertificateReason(StrEnum):
    """Why a server's certificate was refused."""

    UNTRUSTED = "untrusted"
    """Nothing that we trust signed it, or an intermediate certificate was not sent."""
    SELF_SIGNED = "self-signed"
    """It signed itself, or its chain ends in a root that we do not trust."""
    EXPIRED = "expired"
    """Its time, or that of a certificate above it, is over."""
    NOT_YET_VALID = "not yet valid"
    """Its time has not begun: the server's clock or ours may be wrong."""
    NAME_MISMATCH = "name mismatch"
    """It is not for this host (RFC 9525)."""
    PURPOSE = "purpose"
    """It may not be used by a server (extended key usage)."""
    WEAK_KEY = "weak key"
    """A key or signature in the chain is below 112 bits of security (RSA below 2048 bits, SHA-1)."""
    STRICT = "strict"
    """It breaks a rule of RFC 5280 that is checked strictly on every Python."""
    PIN = "pin"
    """It is valid, and its key is none of the pinned ones."""
    OTHER = "other"
    """OpenSSL's own words are in the message."""


@dataclass(frozen=True, slots=True)
class Reply:
    """
    One reply of the server (RFC 5321 §4.2).

    Attributes:
        code: The three digits, 200 to 559.
        enhanced: The status code of RFC 3463, such as ``"5.1.1"``, where the server gave a well-formed one.
        text: The server's words on one line, control characters escaped, 500 characters at the most.
        raw: The octets of its lines behind the code, joined by LF, 4096 octets at the most.
    """

    code: int
    enhanced: str | None
    text: str
    raw: bytes = field(repr=False)

    def __str__(self) -> str:
        """Return the code and the words, safe to be logged."""
        return f"{self.code} {self.text}".rstrip()


@dataclass(frozen=True, slots=True)
class Recipient:
    """
    What the server said of one recipient.

    Attributes:
        address: The mailbox as it stood in the envelope.
        accepted: Whether RCPT was answered by 250 or 251.
        reply: The reply to its RCPT.
    """

    address: str
    accepted: bool
    reply: Reply


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """
    The evidence of one verified TLS session.

    Attributes:
        mode: Implicit TLS or STARTTLS.
        version: ``"TLSv1.3"`` or ``"TLSv1.2"``.
        cipher: The cipher suite, as OpenSSL names it.
        server_name: The name or address that the certificate was checked against.
        trust: Whose roots verified it: ``"certifi …"``, ``"ca_file …"``, ``"ca_data"``.
        peer_sha256: SHA-256 of the server's certificate, 64 hexadecimal digits.
        peer_spki_sha256: SHA-256 of its public key, in the form that ``TLSPolicy.pins`` takes.
        not_after: When the certificate ends (UTC).
    """

    mode: TLSMode
    version: str
    cipher: str
    server_name: str
    trust: str
    peer_sha256: str
    peer_spki_sha256: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """
    The server's receipt for one message: it has taken responsibility for it (RFC 5321 §4.2.5).

    Attributes:
        message_id: The Message-ID that was sent, or None where raw bytes have none.
        mail_from: The reverse-path of the envelope.
        recipients: Every recipient once, in the envelope's order, with the server's reply.
        reply: The reply to the content; most servers put their queue id in its text.
        tls: The evidence of the TLS session that carried the message.
        size: Octets of the message in CRLF form, before dot-stuffing.
        elapsed: From the call to the final reply.
    """

    message_id: str | None
    mail_from: str
    recipients: tuple[Recipient, ...]
    reply: Reply
    tls: TLSInfo
    size: int
    elapsed: timedelta

    @property
    def accepted(self) -> tuple[str, ...]:
        """The addresses that the server accepted."""
        return tuple(recipient.address for recipient in self.recipients if recipient.accepted)

    @property
    def refused(self) -> tuple[str, ...]:
        """The addresses that the server refused; empty unless ``partial="allow"``."""
        return tuple(recipient.address for recipient in self.recipients if not recipient.accepted)
