"""
The errors that this library raises.

.. code-block:: none

    SecureSMTPError (smtplib.SMTPException)
    ├─ ConfigurationError (ValueError)    the caller's mistake
    │   ├─ AddressError                   not an RFC 5321 mailbox
    │   └─ MessageError                   the message cannot be sent as it is
    ├─ LedgerError                        a ledger cannot be read or written
    ├─ ConnectError (ConnectionError)     no connection: DNS, refused, reset, closed, bad greeting
    │   └─ ProxyError                     the proxy refused, failed, or is no proxy
    ├─ TLSError (ConnectionError)         no verified TLS session
    │   ├─ CertificateError               the certificate was refused; .reason says why
    │   ├─ DowngradeError                 STARTTLS is missing, refused or tampered with
    │   └─ WrongTLSModeError              plaintext on a port for implicit TLS, or the reverse
    ├─ AuthenticationError                the login was refused
    │   ├─ NoUsableMechanismError         no mechanism that both sides allow
    │   └─ ServerNotAuthenticError        the server has not proved that it knows the password
    ├─ ProtocolError                      a reply that is malformed, oversized, unsolicited or out of step
    ├─ DeadlineExceededError (TimeoutError)   timed out; .limit says which limit
    ├─ RefusedError                       the server replied 4xx or 5xx
    │   ├─ SenderRefusedError             to MAIL
    │   ├─ RecipientsRefusedError         to RCPT; .recipients has each recipient's reply
    │   └─ DataRefusedError               to DATA or the content
    └─ OutcomeUnknownError                the message may have been delivered

Only `OutcomeUnknownError` means that a message may have been delivered. It is neither a ``ConnectionError`` nor a
``TimeoutError``, so a generic retry on those cannot send a message twice.
"""

# One tree, and more than half of the lines are docstrings of public classes, so the file is longer than 300.
from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING, Any, Self, TypeVar

from securesmtp._portable import Portable, attributes_from_json, attributes_to_json
from securesmtp._shown import escape
from securesmtp._values import CertificateReason, Outcome, Receipt, Recipient, Reply, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AddressError",
    "AuthenticationError",
    "CertificateError",
    "ConfigurationError",
    "ConnectError",
    "DataRefusedError",
    "DeadlineExceededError",
    "DowngradeError",
    "LedgerError",
    "MessageError",
    "NoUsableMechanismError",
    "OutcomeUnknownError",
    "ProtocolError",
    "ProxyError",
    "RecipientsRefusedError",
    "RefusedError",
    "SecureSMTPError",
    "SenderRefusedError",
    "ServerNotAuthenticError",
    "TLSError",
    "WrongTLSModeError",
]
E = TypeVar("E", bound="SecureSMTPError")
# The page with a section on each error. `python docs/links.py` writes the address, from pyproject.toml.
_TROUBLESHOOTING = "https://securesmtp.readthedocs.io/en/stable/troubleshooting.html"
# Characters of an error's text: a whole reply and the words around it.
_MAX_TEXT = 1500


class SecureSMTPError(Portable, smtplib.SMTPException):
    """
    Base class of all errors of this library. It is an ``smtplib.SMTPException``, so existing handlers still work.

    Its text is one line that is safe to log: text from the server is escaped and cut, and there is never a secret or a
    part of the message in it. It can be pickled, and `as_dict` returns it for JSON. If another exception led to it,
    that is its ``__cause__``.

    An error that was rebuilt from ``args`` alone, as some task queues do, has lost its attributes: it is not retryable,
    its stage is unknown, and its outcome is that of its class.

    Attributes:
        stage: The step of the session at which it happened.
        outcome: What became of the message.
        reply: The server's reply that led to the error, if any.
        retryable: Whether the message was certainly not accepted and sending it again may succeed.
        hint: What to do next, if the library knows.
        host: The configured server; None if the error came before there was one.
        port: The configured port; None if the error came before there was one.
        message_id: The message's Message-ID; None if raw bytes have none, or if the message was refused before it was
            serialised (a wrong address, a broken header).
        receipt: None, unless an exception such as Ctrl-C interrupted `SecureMailer.send` after the server had accepted
            the message. The ``__cause__`` of that exception is then an error with the outcome ACCEPTED and the receipt.
        earlier: The errors of the servers that a `Failover` has tried before this one, in order; otherwise empty.
    """

    # A class that does not declare its outcome must not claim that the message was not sent.
    outcome: Outcome = Outcome.UNKNOWN
    stage: Stage = Stage.UNKNOWN
    reply: Reply | None
    retryable: bool
    hint: str | None
    host: str | None
    port: int | None
    message_id: str | None
    receipt: Receipt | None = None
    earlier: tuple[SecureSMTPError, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        stage: Stage | None = None,
        reply: Reply | None = None,
        retryable: bool = False,
        hint: str | None = None,
    ) -> None:
        """Make an error that says what happened in *message*; the other arguments become attributes."""
        super().__init__(message)
        if stage is not None:
            self.stage = stage
        self.reply = reply
        self.retryable = retryable
        self.hint = hint
        self.host = self.port = self.message_id = None

    def as_dict(self) -> dict[str, Any]:
        """
        Return the type, the text without hint, and every attribute, in types that ``json.dumps`` accepts.

        The cause is left out. A class of your own is written as the nearest class of this module.
        """
        kind = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__)
        return {"type": kind.__name__, "message": self.args[0], **attributes_to_json(self, kind)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Return the error that `as_dict` was called on, in its own class.

        An exception that is not this library's becomes a `SecureSMTPError` with an unknown outcome.

        Raises:
            ValueError: *data* is not a result of `as_dict`, or the error is not of this class.
        """
        name, message = data.get("type"), data.get("message")
        error = _class_named(name, cls)(
            message if isinstance(message, str) else f"an error of type {name!r:.100} was raised"
        )
        for attribute, value in attributes_from_json(data, type(error)).items():
            # A value that the class already has stays there, as in the original error.
            if value != getattr(error, attribute):
                setattr(error, attribute, value)
        error.retryable = error.retryable and error.outcome in {Outcome.NOT_SENT, Outcome.REFUSED}
        return error

    @property
    def url(self) -> str:
        """Address of the documentation that says what this error means, why it happens and what to do."""
        return f"{_TROUBLESHOOTING}#{type(self).__name__.lower()}"

    def __str__(self) -> str:
        """Return one line: the server, what happened, what to do next, and the address of the documentation."""
        where = f"{self.host}:{self.port}: " if self.host else ""
        more = f"Hint: {escape(self.hint)} ({self.url})" if self.hint else f"See {self.url}"
        return f"{where}{escape(str(self.args[0]), _MAX_TEXT)}. {more}"


class ConfigurationError(SecureSMTPError, ValueError):
    """The caller's mistake, found before any network use; a wrong value from a password callable is found later."""

    outcome = Outcome.NOT_SENT
    stage = Stage.CONFIGURATION


class AddressError(ConfigurationError):
    """
    An address, exactly as given, is not a mailbox by the grammar of RFC 5321 §4.1.2.

    Attributes:
        address: The refused text, exactly as given; None if it was not a str, or if a whole header field was refused.
    """

    address: str | None = None


class MessageError(ConfigurationError):
    """
    The message cannot be sent as it is: a bare CR, a NUL, a line over 998 bytes, a broken header, no recipient.

    It can also be raised after the connection was made, if the message needs an extension that this server does not
    offer (8BITMIME, SMTPUTF8) or exceeds its SIZE. Then, too, nothing of it was sent, not even MAIL.
    """


class LedgerError(SecureSMTPError):
    """
    A ledger cannot be read or written: a full disk, a lock, a file that is no ledger.

    If a ledger raises it when outcomes are to be written, its outcome is `Outcome.UNKNOWN`: the entries stay claimed.
    """

    outcome = Outcome.NOT_SENT


class ConnectError(SecureSMTPError, ConnectionError):
    """
    The connection failed or was lost: DNS, refused, reset, closed, a greeting other than 220.

    Attributes:
        interrupted: Whether an exception from outside this library ended it (Ctrl-C, a task's time limit).
    """

    outcome = Outcome.NOT_SENT
    interrupted: bool = False


class ProxyError(ConnectError):
    """The proxy cannot be reached, refused the connection or the login, or did not answer like a proxy."""


class TLSError(SecureSMTPError, ConnectionError):
    """There is no verified TLS session; at most EHLO and STARTTLS were sent in plaintext."""

    outcome = Outcome.NOT_SENT


class CertificateError(TLSError):
    """
    The server's certificate was refused.

    Attributes:
        reason: Why it was refused.
    """

    reason: CertificateReason = CertificateReason.OTHER

    @property
    def url(self) -> str:
        """Address of the documentation about this reason."""
        return f"{super().url}-{self.reason.replace(' ', '-')}"


class DowngradeError(TLSError):
    """STARTTLS is missing, refused, answered by a wrong code or followed by plaintext: maybe an attack (RFC 3207)."""


class WrongTLSModeError(TLSError):
    """The port uses the other mode: plaintext where implicit TLS was configured, or the reverse."""


class AuthenticationError(SecureSMTPError):
    """The login was refused, or the server requires one; no other mechanism was tried."""

    outcome = Outcome.NOT_SENT


class NoUsableMechanismError(AuthenticationError):
    """The server offers no mechanism that this library supports and you allow; no credential was sent."""


class ServerNotAuthenticError(AuthenticationError):
    """The server accepted the login without proof that it knows the password (SCRAM); the connection was closed."""


class ProtocolError(SecureSMTPError):
    """The server broke the protocol: a malformed, oversized or unsolicited reply, or a code that does not fit."""

    outcome = Outcome.NOT_SENT


class DeadlineExceededError(SecureSMTPError, TimeoutError):
    """
    A time limit expired.

    Attributes:
        limit: The field of `Timeouts` that expired, ``"deadline"``, or the source of a password that took too long:
            ``"from_command"`` or ``"from_keyring"``.
    """

    outcome = Outcome.NOT_SENT
    limit: str = ""


class RefusedError(SecureSMTPError):
    """The server refused the message by a 4xx or 5xx reply and does not have it."""

    outcome = Outcome.REFUSED


class SenderRefusedError(RefusedError):
    """The server refused the sender: its reply to MAIL."""


class RecipientsRefusedError(RefusedError):
    """
    The server refused recipients: at least one with ``partial="raise"``, all of them with ``partial="allow"``.

    The message was delivered to no recipient.

    Attributes:
        recipients: Every recipient with its reply to RCPT; ``accepted`` is False for all of them.
    """

    recipients: tuple[Recipient, ...] = ()


class DataRefusedError(RefusedError):
    """The server refused the message: its reply to DATA or to the content."""


class OutcomeUnknownError(SecureSMTPError):
    """
    The content was fully sent and no valid reply to it was read: the message may have been delivered (RFC 1047).

    Sending it again may deliver it twice; ``message_id`` lets the receiver (or you) recognise the second copy.
    ``__cause__`` says what went wrong.

    Attributes:
        recipients: Recipients whose outcome is known, accepted or refused, if the message needed several transactions;
            otherwise empty.
    """

    outcome = Outcome.UNKNOWN
    recipients: tuple[Recipient, ...] = ()


def _class_named(name: object, base: type[E]) -> type[E]:
    """Return the error class with this *name*, or `SecureSMTPError` if this module has none."""
    found = globals().get(name) if isinstance(name, str) else None
    kind = found if isinstance(found, type) and issubclass(found, SecureSMTPError) else SecureSMTPError
    if issubclass(kind, base):
        return kind
    message = f"a {kind.__name__} is not a {base.__name__}"
    raise ValueError(message)
