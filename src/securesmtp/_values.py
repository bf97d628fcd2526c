"""What the library tells its callers: frozen values without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 -- the fields' types are there at run time for who inspects them
from dataclasses import dataclass, field
from datetime import datetime, timedelta  # noqa: TC003 -- the same
from enum import StrEnum
from typing import TYPE_CHECKING

from securesmtp._portable import Portable
from securesmtp._shown import escape

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.headerregistry import Address
    from email.message import Message
    from typing import BinaryIO

# How many refused recipients are named in a receipt's text.
_NAMED = 3


class Outcome(StrEnum):
    """What became of the message, as far as anyone can know."""

    ACCEPTED = "accepted"
    """The server took it: a well-formed 250 to the content was read."""
    REFUSED = "refused"
    """The server said no; it does not have the message."""
    NOT_SENT = "not sent"
    """The server cannot have accepted it: the content was not ended, not begun, or there was no transaction for it."""
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
    UNKNOWN = "unknown"
    """Not known: the error was made from its text alone, as some task queues do."""


class TLSMode(StrEnum):
    """How TLS begins; there is no third way (RFC 8314)."""

    IMPLICIT = "implicit"
    """TLS from the first octet; port 465, and every other port but 587, unless said otherwise."""
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
class Reply(Portable):
    """
    One reply of the server (RFC 5321 §4.2).

    What repeats the password (6 octets of it in a row, in either case of letters, or a shorter one as a whole word) is
    replaced in *text* and *raw* by words that say so, over whichever connection of the mailer it was sent. The code,
    *enhanced* and the rest of the line stay. A password that is a word of the server's own texts so hides much.

    Attributes:
        code: The three digits, 200 to 599.
        enhanced: The status code of RFC 3463, such as ``"5.1.1"``, where the server gave a well-formed one.
        text: The server's words on one line, control characters escaped, 500 characters at the most.
        raw: The octets of its lines behind the code, joined by LF, 4096 octets at the most.

    Of the replies in one receipt or error, 256 KiB of *text* and *raw* are kept so; of each one after those, 96
    characters and 96 octets.
    """

    code: int
    enhanced: str | None
    text: str
    raw: bytes = field(repr=False)

    def __str__(self) -> str:
        """Return the code and the words, safe to be logged."""
        return f"{self.code} {self.text}".rstrip()


@dataclass(frozen=True, slots=True)
class Recipient(Portable):
    """
    What the server said of one recipient.

    Attributes:
        address: The mailbox as it stood in the envelope.
        accepted: Whether RCPT was answered by 25z, and the content that followed by 250: where no content was sent,
            False for everyone, whatever *reply* says.
        reply: The reply to its RCPT, or the one that refused the transaction it stood in.
    """

    address: str
    accepted: bool
    reply: Reply

    @property
    def retryable(self) -> bool:
        """Whether the server refused it for now only, by 4xx (RFC 5321 §4.2.1)."""
        return 400 <= self.reply.code < 500  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Certificate(Portable):
    """
    One certificate of a verified chain.

    Attributes:
        subject: Its subject's common name, or the first other attribute where there is none.
        issuer: The same of who signed it.
        names: DNS names and IP addresses in its subjectAltName; a CA has none.
        not_before: When it begins (UTC).
        not_after: When it ends (UTC).
        sha256: SHA-256 of it, 64 hexadecimal digits.
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
        chain: The server's certificate, the intermediate ones, and the root that was trusted.
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
    The server's receipt for one message: it has taken responsibility for it (RFC 5321 §4.2.5).

    Attributes:
        message_id: The Message-ID that was sent, or None where raw bytes have none; what is not printable is escaped.
        mail_from: The reverse-path of the envelope; empty for the null one.
        recipients: Every recipient once, in the envelope's order, with the server's reply.
        reply: The reply to the content; most servers put their queue id in its text.
        replies: All of them, one a transaction: more than one only where the server takes fewer recipients at a time.
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
    replies: tuple[Reply, ...] = ()

    def __str__(self) -> str:
        """Return one line: which message was accepted for how many, what the server replied, and who was refused."""
        refused = [recipient for recipient in self.recipients if not recipient.accepted]
        line = f"accepted {_message(self.message_id)} for {len(self.accepted)} of {len(self.recipients)} recipients"
        line += f": {self.reply}"
        if refused:
            named = [f"{escape(each.address)} ({each.reply})" for each in refused[:_NAMED]]
            more = [f"and {len(refused) - _NAMED} more"] * (len(refused) > _NAMED)
            line += f"; refused: {', '.join(named + more)}"
        return line

    @property
    def accepted(self) -> tuple[str, ...]:
        """The addresses that the server accepted."""
        return tuple(recipient.address for recipient in self.recipients if recipient.accepted)

    @property
    def refused(self) -> tuple[str, ...]:
        """The addresses that the server refused; empty unless ``partial="allow"``."""
        return tuple(recipient.address for recipient in self.recipients if not recipient.accepted)


@dataclass(frozen=True, slots=True)
class Envelope:
    """
    One message for `SecureMailer.send_many` whose envelope is not to be taken from its header.

    Attributes:
        mail_from: The reverse-path; ``""`` is the null one.
        recipients: The forward-paths.
        content: What `SecureMailer.send` takes, or `SecureMailer.send_bytes`.
    """

    mail_from: str | Address
    recipients: Iterable[str | Address]
    content: Message | bytes | BinaryIO = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendResult(Portable):
    """
    What became of one message of `SecureMailer.send_many`.

    Attributes:
        index: Its place in the input, from 0.
        message_id: Its Message-ID; None where raw bytes have none, and where the message was refused before it was
            written out (a wrong address, a broken header).
        outcome: What became of it.
        receipt: The receipt, where it was accepted.
        error: What `SecureMailer.send` would have raised, where it was not, a caller's own error from a callable or an
            iterable too; after a refused login or an outage of the same run, one that says so. Without a traceback,
            whose frames would keep the message.
    """

    index: int
    message_id: str | None
    outcome: Outcome
    receipt: Receipt | None = None
    error: Exception | None = None

    def __str__(self) -> str:
        """Return one line: which message, what became of it, and why."""
        if self.receipt is not None:
            return f"{self.index}: {self.receipt}"
        line = f"{self.index}: {self.outcome} {_message(self.message_id)}"
        if self.error is not None:
            line += f", {_error(self.error)}"
        return line + " (retryable)" * self.retryable

    @property
    def retryable(self) -> bool:
        """
        Whether it was certainly not accepted, and the same try may succeed later.

        What is `Outcome.NOT_SENT` may always be sent again, once the cause is mended.
        """
        return bool(getattr(self.error, "retryable", False))


@dataclass(frozen=True, slots=True)
class ServerReport(Portable):
    """
    What a server shows to a mailer: the answer of `SecureMailer.check`.

    Attributes:
        host: The configured server.
        port: The configured port.
        addresses: The IP addresses that the host has, as the resolver gives them.
        address: The one that was connected to.
        tls: The evidence of the TLS session, with the verified chain.
        days_left: Days until the server's certificate ends.
        before_tls: What EHLO offered in the clear, by keyword; None with implicit TLS.
        after_tls: What EHLO offered inside TLS, by keyword.
        mechanisms: The SASL mechanisms that the server offers inside TLS.
        mechanism: The one that a login would use; None without credentials, or where none fits.
        size: The most octets of a message that the server takes, where it says so.
        limits: What it says by LIMITS (RFC 9422).
        login: Whether the login went well; None without credentials.
        login_error: Why it did not.
    """

    host: str
    port: int
    addresses: tuple[str, ...]
    address: str
    tls: TLSInfo
    days_left: int
    before_tls: Mapping[str, str] | None
    after_tls: Mapping[str, str]
    mechanisms: tuple[str, ...]
    mechanism: str | None
    size: int | None
    limits: Mapping[str, int]
    login: bool | None
    login_error: Exception | None = None

    def __str__(self) -> str:
        """Return some lines: the server, its TLS and certificate, the login, and what it offers."""
        login = {None: "not tried", True: f"accepted by {self.mechanism}", False: "refused"}[self.login]
        if self.login_error is not None:
            login += f", {_error(self.login_error)}"
        size = "not said" if self.size is None else f"{self.size} bytes"
        return "\n".join(
            (
                f"server: {self.host}:{self.port} at {self.address}",
                f"TLS: {self.tls.version}, {self.tls.cipher}, trust from {escape(self.tls.trust)}",
                f"certificate: for {self.tls.server_name}, {self.days_left} days left",
                f"login: {login}",
                f"largest message: {size}",
                f"offers: {escape(' '.join(self.after_tls))}",
            )
        )

    @property
    def only_before_tls(self) -> frozenset[str]:
        """The keywords that were offered in the clear only; STARTTLS is one of them by right."""
        return frozenset(self.before_tls or ()) - frozenset(self.after_tls)

    @property
    def only_after_tls(self) -> frozenset[str]:
        """The keywords that are offered inside TLS only."""
        return frozenset(self.after_tls) - frozenset(self.before_tls or self.after_tls)


def _message(message_id: str | None) -> str:
    return "a message without Message-ID" if message_id is None else escape(message_id)


def _error(error: Exception) -> str:
    """Return the error for one line: its text if it is ours and so has no secret, else its type alone."""
    return (
        f"{type(error).__name__}: {escape(str(error.args[0]))}" if isinstance(error, Portable) else type(error).__name__
    )
