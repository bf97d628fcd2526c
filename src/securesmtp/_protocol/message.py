"""
One message with its envelope, as it is sent.

What makes it of an EmailMessage is in `building`, which is loaded with the first mailer and not with its class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.extensions import NO_EXTENSIONS, Extensions
from securesmtp._protocol.message_bounds import raw_payload
from securesmtp._protocol.serialising import describe_part
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError, MessageError

if TYPE_CHECKING:
    from email.headerregistry import Address
    from email.message import EmailMessage

    from securesmtp._protocol.capabilities import Capabilities
    from securesmtp._protocol.content import Content


@dataclass(frozen=True, slots=True)
class Submission:
    """
    One message with its envelope. All checks that do not depend on the server have passed.

    Attributes:
        mail_from: The reverse-path.
        recipients: The forward-paths, each once.
        content: The bytes for a server with 8BITMIME.
        message: The copy of the message that *content* was made from, or None if the caller passed bytes.
        extensions: What else the server is asked for.
    """

    mail_from: Mailbox
    recipients: tuple[Mailbox, ...]
    content: Content
    message: EmailMessage | None = None
    extensions: Extensions = NO_EXTENSIONS

    @property
    def needs_smtputf8(self) -> bool:
        """Whether an address or the header has no ASCII form (RFC 6531 §3.2)."""
        return self.content.utf8_header or any(m.needs_smtputf8 for m in (self.mail_from, *self.recipients))

    def fits(self, capabilities: Capabilities) -> bool:
        """Return whether this server accepts the message as it is."""
        offered, limit, content = capabilities.keywords, capabilities.size, self.content
        return (
            (content.is_ascii or content.is_binary or "8BITMIME" in offered)
            and ("SMTPUTF8" in offered or not self.needs_smtputf8)
            and (limit is None or content.size <= limit)
            and (self.extensions is NO_EXTENSIONS or self._is_offered(capabilities))
        )

    def adapt_to(self, capabilities: Capabilities) -> Submission:
        """
        Return the message in a form that this server accepts.

        Raises:
            MessageError: There is no such form (RFC 1870, 6152, 6531), or the server does not offer what the message
                asks for; nothing was written to the server.
        """
        adapted = self
        if self.needs_smtputf8 and "SMTPUTF8" not in capabilities:
            message = "the message has a non-ASCII address or header, and the server does not offer SMTPUTF8"
            raise MessageError(message, stage=Stage.MAIL, hint="use an ASCII local part, or a server with SMTPUTF8")
        if not (self.content.is_ascii or self.content.is_binary) and "8BITMIME" not in capabilities:
            if self.message is not None and not self.content.prefix:
                from securesmtp._protocol.serialising import serialise

                adapted = replace(self, content=serialise(self.message, utf8=False, cte_type="7bit"))
            if not adapted.content.is_ascii:
                message = "the message has non-ASCII bytes, and the server does not offer 8BITMIME"
                raise MessageError(message, stage=Stage.MAIL, hint="encode the parts as base64 or quoted-printable")
        if (missing := self.extensions.missing(capabilities)) is not None:
            raise missing
        if self.extensions.dsn is not None and "DSN" not in capabilities:
            adapted = replace(adapted, extensions=replace(self.extensions, dsn=None))
        size, limit = adapted.content.size, capabilities.size
        if limit is not None and size > limit:
            message = f"the message has {size} bytes, and the server accepts at most {limit}"
            raise MessageError(message, stage=Stage.MAIL, hint=_size_hint(adapted.message))
        return adapted

    def _is_offered(self, capabilities: Capabilities) -> bool:
        asked = self.extensions
        return asked.missing(capabilities) is None and (asked.dsn is None or "DSN" in capabilities)


def _size_hint(message: EmailMessage | None) -> str:
    parts = [] if message is None else [part for part in message.walk() if not part.is_multipart()]
    if not parts:
        return "send a link instead of the attachment"
    largest = max(parts, key=lambda part: len(str(raw_payload(part))))
    return f"send a link instead of the largest part, {describe_part(largest)}"


def envelope_recipients(addresses: Iterable[str | Address]) -> tuple[Mailbox, ...]:
    """
    Return *addresses* as mailboxes, each once, in the same order.

    Raises:
        AddressError: One of them is not a valid mailbox.
        ConfigurationError: *addresses* is one str, or not iterable.
        MessageError: There are none.
    """
    if isinstance(addresses, str | bytes) or not isinstance(addresses, Iterable):
        text = f"recipients is a {type(addresses).__name__}, not a list of addresses"
        raise ConfigurationError(text, hint="pass a list of addresses")
    return unique(map(Mailbox.parse, addresses))


def unique(mailboxes: Iterable[Mailbox]) -> tuple[Mailbox, ...]:
    """
    Return *mailboxes*, each once, in the same order.

    Raises:
        MessageError: There are none.
    """
    unique: dict[bytes, Mailbox] = {}
    for mailbox in mailboxes:
        unique.setdefault(mailbox.encoded, mailbox)
    if not unique:
        text = "the message has no recipient"
        raise MessageError(text, hint="set To, Cc or Bcc, or pass recipients=[…]")
    return tuple(unique.values())
