"""
Make a `Submission` of what a caller passes: a message object, bytes, a file, or an `Envelope` of one of them.

A `Parcel` is made into one too, and makes one, so both are in one file, which is longer than 300 lines.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime
from importlib import import_module
from secrets import token_hex
from typing import TYPE_CHECKING, BinaryIO, cast

from securesmtp._envelope import Envelope, extensions_of
from securesmtp._protocol.address import reverse_path
from securesmtp._protocol.content import Content
from securesmtp._protocol.dsn import check_dsn
from securesmtp._protocol.extensions import NO_EXTENSIONS, Extensions
from securesmtp._protocol.message import Submission, envelope_recipients
from securesmtp._protocol.message_bounds import raw_payload
from securesmtp._protocol.scanner import MAX_LINE
from securesmtp._shown import escape, quote
from securesmtp.errors import ConfigurationError, MessageError, SecureSMTPError

if TYPE_CHECKING:
    from email.headerregistry import Address
    from typing import IO

# To copy so many bytes takes long enough to be noticed in an event loop; each part counts like some text.
_LARGE, _PART = 1 << 18, 1 << 10
# RFC 5322 §3.6.4, as far as every server takes it.
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+>")


class Parcel:
    """
    A message that several servers may get: built once, so that each of them gets the same one.

    Attributes:
        message: The message as the caller passed it.
        submission: What was built from it; None before that.
    """

    __slots__ = ("message", "submission")

    def __init__(self, message: Message | Envelope) -> None:
        """Build nothing yet."""
        self.message: Message | Envelope = message
        self.submission: Submission | None = None

    def build(self, message_id: str | None) -> Submission:
        """Return the message as `from_any`; closing its content has no effect before `close`."""
        if self.submission is None:
            built = from_any(self.message, message_id)
            if not isinstance(built.content.source, tuple):
                built = replace(built, content=replace(built.content, source=cast("IO[bytes]", _Kept(built.content))))
            self.submission = built
        return self.submission

    def close(self) -> None:
        """Delete the temporary file, if there is one."""
        kept = None if self.submission is None else self.submission.content.source
        if isinstance(kept, _Kept):
            kept.content.close()


class _Kept:
    """The temporary file of a `Content`, which each run closes although another one may read it again."""

    def __init__(self, content: Content) -> None:
        self.content = content
        file = cast("IO[bytes]", content.source)
        self.read, self.seek = file.read, file.seek

    def __del__(self) -> None:
        self.content.close()

    def close(self) -> None:
        """Leave it open."""


def as_given(message: Message | Envelope | Parcel) -> Message | Envelope:
    """Return *message* as the caller passed it."""
    return message.message if isinstance(message, Parcel) else message


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
    message: Message,
    mail_from: str | Address | None,
    recipients: Iterable[str | Address] | None,
    message_id: str | None = None,
    extensions: Extensions = NO_EXTENSIONS,
) -> Submission:
    """
    Return a copy of *message* with its envelope, and with a Date and a Message-ID if they are missing.

    Its Message-ID is *message_id*, if that is given; *extensions* are asked for.
    """
    from securesmtp._protocol.building import from_message as build

    if extensions.binary:
        text = "binary=True is for a message that is bytes, and this one is an object"
        raise ConfigurationError(text, hint="leave it out: the parts are encoded")
    built = build(message, mail_from, recipients, date=_now, token=_token, message_id=message_id)
    return _asking(built, extensions)


def load() -> None:
    """Import what `from_message` needs, so that no send waits for it; it takes as long as the class of a mailer."""
    import_module("securesmtp._protocol.building")


def from_octets(
    data: bytes | BinaryIO,
    mail_from: str | Address,
    recipients: Iterable[str | Address],
    extensions: Extensions = NO_EXTENSIONS,
) -> Submission:
    """
    Return a message that is bytes already, or a file of them, with its envelope; *extensions* are asked for.

    Raises:
        AddressError: An address is not a mailbox.
        ConfigurationError: *data* is neither bytes nor a file, or the *extensions* contradict each other.
        MessageError: It is empty, or cannot be sent as it is.
    """
    reverse, forward = reverse_path(mail_from), envelope_recipients(recipients)
    if isinstance(data, bytes | bytearray | memoryview):
        content = Content.from_bytes(bytes(data), is_binary=extensions.binary)
    elif callable(getattr(data, "read", None)):
        content = Content.from_file(data, is_binary=extensions.binary)
    else:
        message = f"data is a {type(data).__name__}, neither bytes nor a file"
        raise ConfigurationError(message, hint="encode a str, or use send() with an EmailMessage")
    if not content.size:
        content.close()
        message = "the message is empty: it has 0 bytes"
        raise MessageError(message, hint="a file is read from its current position: seek(0) goes to its beginning")
    return _asking(Submission(reverse, forward, content), extensions)


def _asking(submission: Submission, extensions: Extensions) -> Submission:
    if extensions == NO_EXTENSIONS:
        return submission
    try:
        if extensions.dsn is not None:
            check_dsn(extensions.dsn, submission.recipients)
        asked = extensions.at(datetime.now(UTC), is_bounce=not submission.mail_from.encoded)
        return replace(submission, extensions=asked)
    except SecureSMTPError:
        submission.content.close()
        raise


def is_file(message: object) -> bool:
    """Return whether *message* is, or has, neither a message object nor bytes: it is a file, or wrong."""
    message = message.message if isinstance(message, Parcel) else message
    content = message.content if isinstance(message, Envelope) else message
    return not isinstance(content, Message | bytes | bytearray | memoryview)


def is_large(message: object) -> bool:
    """Return whether it takes long to make a `Submission` of *message*, or to read it: a file, or above 256 KiB."""
    if isinstance(message, Parcel):
        return message.submission is None and is_large(message.message)
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


def from_any(message: Message | Envelope | Parcel, message_id: str | None = None) -> Submission:
    """
    Return one of the messages of a `send_many`, with its envelope.

    A *message_id* is that of an earlier try. It takes the place of the message's own, but not in bytes.
    """
    if isinstance(message, Parcel):
        return message.build(message_id)
    if not isinstance(message, Envelope):
        return from_message(message, None, None, _kept_id(message, message_id))
    if isinstance(message.content, Message):
        kept = _kept_id(message.content, message_id)
        return from_message(message.content, message.mail_from, message.recipients, kept, extensions_of(message))
    return from_octets(message.content, message.mail_from, message.recipients, extensions_of(message))


def _kept_id(message: Message, message_id: str | None) -> str | None:
    """Return *message_id* if it can be written as it is, and *message* does not have it already."""
    if message_id is None or not _MESSAGE_ID.fullmatch(message_id) or header_id(message) == message_id:
        return None
    return message_id


def given_key(message: Message | Envelope | Parcel) -> str | None:
    """
    Return the key of *message* in a ledger, as far as it is known before the message is built.

    It is that of the envelope, else the Message-ID that the caller set. That of bytes is known when they were read.

    Raises:
        MessageError: There is none, or it is no text.
    """
    message = as_given(message)
    content: object = message
    if isinstance(message, Envelope):
        if message.key is not None:
            return check_key(message.key)
        content = message.content
    return check_key(header_id(content)) if isinstance(content, Message) else None


def check_key(key: object) -> str:
    """
    Return *key*, which is to name a message in a ledger.

    Raises:
        MessageError: It is missing, or no text.
    """
    if key is None:
        text = (
            "the message has neither a key nor a Message-ID of yours, so the ledger cannot recognise it the next time"
        )
        hint = 'set message["Message-ID"], the same in each run, or pass Envelope(…, key="…")'
        raise MessageError(text, hint=hint)
    if not isinstance(key, str):
        text = f"the key of the message is a {type(key).__name__}, not a str"
        raise MessageError(text, hint="pass str(key)")
    if not 0 < len(key) <= MAX_LINE or any("\ud800" <= character <= "\udfff" for character in key):
        text = f"the key of the message is no text of 1 to {MAX_LINE} characters: {quote(key, allow_at=True)}"
        raise MessageError(text, hint="use a number or a name")
    return key


def digest(submission: Submission) -> str:
    """
    Return the digest by which a ledger recognises the message, in hexadecimal.

    Raises:
        MessageError: Python's email package cannot read the message.
    """
    from securesmtp._protocol.digest import digest as compute
    from securesmtp._protocol.serialising import translate_email_errors

    return translate_email_errors(lambda: compute(submission))


def entry_digest(message: Message | Envelope) -> str:
    """
    Return the digest that `send_many` gives *message* in a ledger; a file is read to its end.

    Raises:
        SecureSMTPError: As `SecureMailer.send`, for a message that cannot be sent.
    """
    submission = from_any(message)
    try:
        return digest(submission)
    finally:
        submission.content.close()


def _now() -> str:
    return format_datetime(datetime.now().astimezone())


def _token() -> str:
    return token_hex(16)
