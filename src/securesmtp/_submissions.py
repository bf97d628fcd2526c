"""Make a `Submission` of what a caller passes: a message object, bytes, a file, or an `Envelope` of one of them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from datetime import datetime
from email.message import Message
from email.utils import format_datetime
from importlib import import_module
from secrets import token_hex
from typing import TYPE_CHECKING, BinaryIO

from securesmtp._protocol.address import reverse_path
from securesmtp._protocol.content import Content
from securesmtp._protocol.message import Submission, envelope_recipients
from securesmtp._protocol.message_bounds import raw_payload
from securesmtp._protocol.scanner import MAX_LINE
from securesmtp._shown import escape, quote
from securesmtp._values import Envelope
from securesmtp.errors import ConfigurationError, MessageError

if TYPE_CHECKING:
    from email.headerregistry import Address

# To copy so many bytes takes long enough to be noticed in an event loop; each part counts like some text.
_LARGE, _PART = 1 << 18, 1 << 10


def check_partial(partial: object) -> None:
    """
    Check the argument that says what to do when some of the recipients are refused.

    Raises:
        ConfigurationError: It is neither of the two words.
    """
    if partial not in ("raise", "allow"):
        message = f'partial is {quote(partial)}, neither "raise" nor "allow"'
        raise ConfigurationError(message)


def check_messages(messages: object) -> None:
    """
    Check that `send_many` got an iterable of messages.

    Raises:
        ConfigurationError: It is one message, which may be iterable too, or not iterable at all.
    """
    if isinstance(messages, Message | str | bytes) or not isinstance(messages, Iterable):
        message = f"messages is a {type(messages).__name__}, not an iterable of messages"
        raise ConfigurationError(message, hint="pass a list, or a generator")


def check_async_messages(messages: object) -> None:
    """
    Check that an asynchronous `send_many` got an iterable of messages, asynchronous or not.

    Raises:
        ConfigurationError: As `check_messages`.
    """
    if not isinstance(messages, AsyncIterable):
        check_messages(messages)


def from_message(
    message: Message, mail_from: str | Address | None, recipients: Iterable[str | Address] | None
) -> Submission:
    """Return a copy of *message* with its envelope, and with a Date and a Message-ID if they are missing."""
    from securesmtp._protocol.building import from_message as build

    return build(message, mail_from, recipients, date=_now, token=_token)


def load() -> None:
    """Import what `from_message` needs, so that no send waits for it; it takes as long as the class of a mailer."""
    import_module("securesmtp._protocol.building")


def from_octets(data: bytes | BinaryIO, mail_from: str | Address, recipients: Iterable[str | Address]) -> Submission:
    """
    Return a message that is bytes already, or a file of them, with its envelope.

    Raises:
        AddressError: An address is not a mailbox.
        ConfigurationError: *data* is neither bytes nor a file.
        MessageError: It is empty, or cannot be sent as it is.
    """
    reverse, forward = reverse_path(mail_from), envelope_recipients(recipients)
    if isinstance(data, bytes | bytearray | memoryview):
        content = Content.from_bytes(bytes(data))
    elif callable(getattr(data, "read", None)):
        content = Content.from_file(data)
    else:
        message = f"data is a {type(data).__name__}, neither bytes nor a file"
        raise ConfigurationError(message, hint="encode a str, or use send() with an EmailMessage")
    if not content.size:
        content.close()
        message = "the message is empty: it has 0 bytes"
        raise MessageError(message, hint="a file is read from its current position: seek(0) goes to its beginning")
    return Submission(reverse, forward, content)


def is_file(message: object) -> bool:
    """Return whether *message* is, or has, neither a message object nor bytes: it is a file, or wrong."""
    content = message.content if isinstance(message, Envelope) else message
    return not isinstance(content, Message | bytes | bytearray | memoryview)


def is_large(message: object) -> bool:
    """Return whether it takes long to make a `Submission` of *message*, or to read it: a file, or above 256 KiB."""
    if isinstance(message, Envelope):
        message = message.content
    if isinstance(message, bytes | bytearray | memoryview):
        return len(message) >= _LARGE
    if not isinstance(message, Message):
        return True
    waiting, octets = [message], 0
    while waiting and octets < _LARGE:
        payload = raw_payload(waiting.pop())
        octets += _PART
        if isinstance(payload, list):
            waiting += payload
        elif isinstance(payload, str):
            octets += len(payload)
    return octets >= _LARGE


def close_content(made: object) -> None:
    """Delete the temporary file of what was *made* of a message: a `Submission`, or what has one."""
    submission = getattr(made, "submission", made)
    if isinstance(submission, Submission):
        submission.content.close()


def header_id(message: object) -> str | None:
    """Return the Message-ID that *message* has before it is built, in printable form; None if it is no message."""
    items = message.raw_items() if isinstance(message, Message) else ()
    found = next((str(value) for name, value in items if name.lower() == "message-id"), "")
    return escape(" ".join(found.split()), MAX_LINE) or None


def from_any(message: Message | Envelope) -> Submission:
    """Return one of the messages of a `send_many`, with its envelope."""
    if not isinstance(message, Envelope):
        return from_message(message, None, None)
    if isinstance(message.content, Message):
        return from_message(message.content, message.mail_from, message.recipients)
    return from_octets(message.content, message.mail_from, message.recipients)


def _now() -> str:
    return format_datetime(datetime.now().astimezone())


def _token() -> str:
    return token_hex(16)
