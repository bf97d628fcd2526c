"""A message with the envelope that the caller wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.headerregistry import Address
    from email.message import Message
    from typing import BinaryIO

    from securesmtp._protocol.dsn import DSN


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
    """

    mail_from: str | Address
    recipients: Iterable[str | Address]
    content: Message | bytes | BinaryIO = field(repr=False)
    key: str | None = None
    dsn: DSN | None = field(default=None, kw_only=True)
