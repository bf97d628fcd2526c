"""A message with the envelope that the caller wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from securesmtp._protocol.extensions import Extensions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta
    from email.headerregistry import Address
    from email.message import Message
    from typing import BinaryIO

    from securesmtp._protocol.dsn import DSN
    from securesmtp._protocol.extensions import DeliverBy


@dataclass(frozen=True, slots=True)
class Envelope:
    """
    One message for `SecureMailer.send_many` with an explicit sender and recipients instead of those in its header.

    Attributes:
        mail_from: The sender (reverse-path); ``""`` is the null one.
        recipients: The recipients (forward-paths).
        content: A message as `SecureMailer.send` accepts it, or bytes or a file as `SecureMailer.send_bytes` does.
        key: Your name for the message in a ledger, the same in each run; by default its Message-ID.
        dsn: The delivery status notifications to ask for.
        require_tls: As for `SecureMailer.send`.
        binary: As for `SecureMailer.send_bytes`.
        deliver_by: When the message has to be delivered (DELIVERBY, RFC 2852).
        priority: From -9 to 9 (MT-PRIORITY, RFC 6710): a higher one goes first, 0 is usual.
        hold: How long the server holds the message back, or until when (FUTURERELEASE, RFC 4865). A time that has
            passed holds nothing back.

    A server that does not offer what a message asks for does not get it, unless `DSN.required` is False.
    """

    mail_from: str | Address
    recipients: Iterable[str | Address]
    content: Message | bytes | BinaryIO = field(repr=False)
    key: str | None = None
    dsn: DSN | None = field(default=None, kw_only=True)
    require_tls: bool = field(default=False, kw_only=True)
    binary: bool = field(default=False, kw_only=True)
    deliver_by: DeliverBy | None = field(default=None, kw_only=True)
    priority: int | None = field(default=None, kw_only=True)
    hold: timedelta | datetime | None = field(default=None, kw_only=True)


def extensions_of(envelope: Envelope) -> Extensions:
    """
    Return what *envelope* asks for.

    Raises:
        ConfigurationError: A value is wrong.
    """
    return Extensions(
        dsn=envelope.dsn,
        require_tls=envelope.require_tls,
        binary=envelope.binary,
        deliver_by=envelope.deliver_by,
        priority=envelope.priority,
        hold=envelope.hold,
    )
