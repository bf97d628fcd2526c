"""
Every error that this library raises on purpose.

.. code-block:: none

    SecureSMTPError (smtplib.SMTPException)
    ├─ ConfigurationError (ValueError)    the caller's mistake
    │   ├─ AddressError                   not an RFC 5321 mailbox
    │   └─ MessageError                   the message cannot be sent as it is
    ├─ ConnectError (ConnectionError)     DNS, refused, reset, closed, bad greeting
    ├─ TLSError (ConnectionError)         no verified TLS session
    │   ├─ CertificateError               .reason says why it was refused
    │   ├─ DowngradeError                 STARTTLS missing, refused or tampered with
    │   └─ WrongTLSModeError              plaintext on an implicit port, or the reverse
    ├─ AuthenticationError                the login was refused
    │   └─ NoUsableMechanismError         nothing that both sides allow
    ├─ ProtocolError                      malformed, oversized, unsolicited or out of step
    ├─ DeadlineExceededError (TimeoutError)   .limit says which
    ├─ RefusedError                       the server said 4xx or 5xx
    │   ├─ SenderRefusedError
    │   ├─ RecipientsRefusedError         .recipients has each one's reply
    │   └─ DataRefusedError
    └─ OutcomeUnknownError                it may have been delivered

Only `OutcomeUnknownError` stands for a message that may have arrived. It is neither a ``ConnectionError`` nor a
``TimeoutError``, so that a generic retry on those cannot send a message twice.
"""

from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING, Any, Self

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
    "MessageError",
    "NoUsableMechanismError",
    "OutcomeUnknownError",
    "ProtocolError",
    "RecipientsRefusedError",
    "RefusedError",
    "SecureSMTPError",
    "SenderRefusedError",
    "TLSError",
    "WrongTLSModeError",
]


# The page with a section on each error. The address is not registered yet: who makes the first release does that.
_SECTIONS = "https://securesmtp.readthedocs.io/en/stable/troubleshooting.html"

# Of characters: a reply and what is said of it, with room to spare.
_TEXT = 1500


class SecureSMTPError(Portable, smtplib.SMTPException):
    """
    The base of every error of this library, so that ``except smtplib.SMTPException`` goes on to work.

    Its text is one line that is safe to be logged: what a server said is escaped and cut, and there is never a
    secret or a part of the message in it. It pickles, and `as_dict` returns it for JSON. The original error, where
    there is one, is ``__cause__``.

    An error that was made from ``args`` alone, as some task queues do, has lost its facts: it is not retryable, and its
    stage is unknown. The outcome is that of its class.

    Attributes:
        stage: Where in the session it happened.
        outcome: What became of the message.
        reply: The server's reply, where one led to the error.
        retryable: Whether the message was certainly not accepted and a later try may succeed.
        hint: What to do next, where the library knows.
        host: The configured server, None before there is one.
        port: The configured port, None before there is one.
        message_id: The Message-ID of the message concerned; None where raw bytes have none, and where the message was
            refused before it was written out (a wrong address, a broken header).
        receipt: What `SecureMailer.send` would have returned, in the one error whose outcome is ACCEPTED: the cause of
            an exception that interrupted a send after the server had accepted the message; else None.
    """

    # For a class that says nothing about it: whoever knows less must not claim more.
    outcome: Outcome = Outcome.UNKNOWN
    stage: Stage = Stage.UNKNOWN
    reply: Reply | None
    retryable: bool
    hint: str | None
    host: str | None
    port: int | None
    message_id: str | None
    receipt: Receipt | None = None

    def __init__(
        self,
        message: str,
        *,
        stage: Stage | None = None,
        reply: Reply | None = None,
        retryable: bool = False,
        hint: str | None = None,
    ) -> None:
        """Say what happened in *message*, and what a program needs in the attributes."""
        super().__init__(message)
        if stage is not None:
            self.stage = stage
        self.reply = reply
        self.retryable = retryable
        self.hint = hint
        self.host = self.port = self.message_id = None

    def as_dict(self) -> dict[str, Any]:
        """
        Return the type, the text without hint, and every attribute, as ``json.dumps`` takes them; not the cause.

        The attributes are those of this class, with ``reply`` and ``recipients`` as dicts.
        """
        known = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__)
        return {"type": known.__name__, "message": self.args[0], **attributes_to_json(self, known)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Return the error that `as_dict` was called on, of the class that it had.

        What is no error of this library becomes a `SecureSMTPError` of unknown outcome.

        Raises:
            ValueError: *data* is not what `as_dict` returns, or an error of another kind than this class.
        """
        name, message = data.get("type"), data.get("message")
        found = globals().get(name) if isinstance(name, str) else None
        kind = found if isinstance(found, type) and issubclass(found, SecureSMTPError) else SecureSMTPError
        if not issubclass(kind, cls):
            message = f"a {kind.__name__} is no {cls.__name__}"
            raise ValueError(message)  # noqa: TRY004 -- one error for whatever is wrong with the data
        error = kind(message if isinstance(message, str) else f"an error of type {name!r:.100} was raised")
        for name, value in attributes_from_json(data, kind).items():
            # What the class says needs no attribute of its own.
            if value != getattr(error, name):
                setattr(error, name, value)
        error.retryable = error.retryable and error.outcome in {Outcome.NOT_SENT, Outcome.REFUSED}
        return error

    @property
    def url(self) -> str:
        """Where the documentation says what this error means, why it happens and what to do."""
        return f"{_SECTIONS}#{type(self).__name__.lower()}"

    def __str__(self) -> str:
        """Return where, what, what to do next and where to read on, on one line."""
        where = f"{self.host}:{self.port}: " if self.host else ""
        more = f"Hint: {escape(self.hint)} ({self.url})" if self.hint else f"See {self.url}"
        return f"{where}{escape(str(self.args[0]), _TEXT)}. {more}"


class ConfigurationError(SecureSMTPError, ValueError):
    """The caller's mistake; raised before any network use unless a password callable returns the mistake."""

    outcome = Outcome.NOT_SENT
    stage = Stage.CONFIGURATION


class AddressError(ConfigurationError):
    """
    An address is not a mailbox by the grammar of RFC 5321 §4.1.2, taken exactly as given.

    Attributes:
        address: The text that was refused as a mailbox, as it was given; None where it was no str, or a whole header
            field was refused.
    """

    address: str | None = None


class MessageError(ConfigurationError):
    """
    The message cannot be sent as it is: a bare CR, a NUL, a line over 998 octets, a broken header, no recipient.

    The one kind of `ConfigurationError` that can come after the connection was made: when the message needs what
    this server does not offer (SIZE, 8BITMIME, SMTPUTF8). Then, too, nothing of it was sent, not even MAIL.
    """


class ConnectError(SecureSMTPError, ConnectionError):
    """
    There is no connection, or no longer one: DNS, refused, reset, closed, a greeting other than 220.

    Attributes:
        interrupted: Whether an exception that is not this library's ended it (Ctrl-C, a task's time limit).
    """

    outcome = Outcome.NOT_SENT
    interrupted: bool = False


class TLSError(SecureSMTPError, ConnectionError):
    """No verified TLS session came about; nothing but EHLO and STARTTLS was written in the clear, if that."""

    outcome = Outcome.NOT_SENT


class CertificateError(TLSError):
    """
    The server's certificate was refused.

    Attributes:
        reason: Why.
    """

    reason: CertificateReason = CertificateReason.OTHER

    @property
    def url(self) -> str:
        """Where the documentation speaks of this reason."""
        return f"{super().url}-{self.reason.replace(' ', '-')}"


class DowngradeError(TLSError):
    """STARTTLS was missing, refused, answered wrongly or followed by plaintext: a fault or an attack (RFC 3207 §6)."""


class WrongTLSModeError(TLSError):
    """The port speaks the other mode: plaintext where implicit TLS was asked for, or the reverse."""


class AuthenticationError(SecureSMTPError):
    """The login was refused, or the server asks for one; no other mechanism was tried."""

    outcome = Outcome.NOT_SENT


class NoUsableMechanismError(AuthenticationError):
    """The server offers no mechanism that this library has and the caller allows; no credential was sent."""


class ProtocolError(SecureSMTPError):
    """The server broke the protocol: a malformed, oversized or unsolicited reply, or a code that is out of step."""

    outcome = Outcome.NOT_SENT


class DeadlineExceededError(SecureSMTPError, TimeoutError):
    """
    A time limit ran out.

    Attributes:
        limit: The field of `Timeouts` that ran out, or ``"deadline"``.
    """

    outcome = Outcome.NOT_SENT
    limit: str = ""


class RefusedError(SecureSMTPError):
    """The server refused the message by a 4xx or 5xx reply; it does not have it."""

    outcome = Outcome.REFUSED


class SenderRefusedError(RefusedError):
    """MAIL was refused."""


class RecipientsRefusedError(RefusedError):
    """
    RCPT was refused: for one recipient under ``partial="raise"``, for all under ``partial="allow"``.

    Nobody got the message.

    Attributes:
        recipients: Every recipient with its reply; ``accepted`` is False for all of them.
    """

    recipients: tuple[Recipient, ...] = ()


class DataRefusedError(RefusedError):
    """DATA or the content was refused."""


class OutcomeUnknownError(SecureSMTPError):
    """
    The content was ended and no valid reply to it was read: the message may have been delivered (RFC 1047).

    Sending it again may deliver it twice; ``message_id`` lets the receiver (or you) recognise the second copy.
    ``__cause__`` says what went wrong.

    Attributes:
        recipients: Where the message was sent in several transactions, everyone whose outcome is known, the refused
            ones too; else empty.
    """

    outcome = Outcome.UNKNOWN
    recipients: tuple[Recipient, ...] = ()
