"""Django's messages as what a `SecureMailer` sends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message
from email.utils import getaddresses
from typing import TYPE_CHECKING, Any, NamedTuple

from securesmtp import AddressError, Envelope, SendResult, validate_address

if TYPE_CHECKING:
    from django.core.mail import EmailMessage

# Names of the attributes of a message: the result, which is public, and what a second try of a failed one keeps.
_RESULT, _TRIED = "securesmtp_result", "_securesmtp_tried"
# A display name and an address in brackets. Unlike Python's parser, it takes linear time (CVE-2025-14874), and an
# address without brackets is never found in what looks like a name.
_NAMED = re.compile(r"""(?:"(?:[^"\\\x00-\x1f]|\\[ -~])*"|[^"<>:;@,\\\[\]\x00-\x1f])*<(?P<address>[^<>]*)> *""")
_ADDRESS_FIELDS = ("From", "To", "Cc", "Reply-To")


@dataclass(frozen=True, slots=True)
class _Tried:
    """What was sent without success, by which a second try is recognised, and its Message-ID and Date."""

    content: tuple[object, ...]
    message_id: str
    date: str


class Prepared(NamedTuple):
    """A message with its envelope, as `SecureMailer.send` takes them."""

    content: Message
    mail_from: str
    recipients: list[str]


def prepare(message: EmailMessage) -> Prepared:
    """
    Return what Django would send, in the caller's thread: translations depend on it.

    A second try of a message that failed has the Message-ID and Date of the first, so that the receiver recognises it.

    Raises:
        ValueError: A header has a line break, or an address is not valid.
    """
    # First, because forms expect its error for a line break in the subject. Without arguments, as subclasses define it.
    built = message.message()
    _restore_domains(built, message)
    _repeat_identity(built, message)
    return Prepared(built, _mailbox(message.from_email), [_mailbox(each) for each in message.recipients()])


def to_envelope(message: EmailMessage) -> Envelope:
    """
    Return what `EmailBackend` would send, for `SecureMailer.send_many` or `QueuedMessage.prepare`.

    Raises:
        ValueError: A header has a line break, or an address is not valid.
    """
    content, mail_from, recipients = prepare(message)
    return Envelope(mail_from, recipients, content)


def get_result(message: EmailMessage) -> SendResult | None:
    """
    Return what became of *message* when it was last sent by `EmailBackend`; None if it was not tried.

    It is the attribute ``securesmtp_result`` of the message, with a type.
    """
    result: SendResult | None = getattr(message, _RESULT, None)
    return result


def set_result(message: EmailMessage, result: SendResult | None) -> None:
    """Set the attribute that says what became of *message*; None until it is known."""
    setattr(message, _RESULT, result)
    if result is not None and result.receipt is not None:
        vars(message).pop(_TRIED, None)


def _repeat_identity(built: Message, message: EmailMessage) -> None:
    content = (
        str(message.subject),
        str(message.body),
        str(message.from_email),
        tuple(map(str, message.recipients())),
    )
    tried: _Tried | None = getattr(message, _TRIED, None)
    names = {name.lower() for name in message.extra_headers}
    if tried is not None and tried.content == content:
        for name, value in (("Message-ID", tried.message_id), ("Date", tried.date)):
            if name.lower() not in names:
                del built[name]
                built[name] = value
    # Until there is a receipt: an interrupt leaves an unknown outcome, too.
    setattr(message, _TRIED, _Tried(content, str(built["Message-ID"]), str(built["Date"])))


def _restore_domains(built: Message, message: EmailMessage) -> None:
    """Put back the domains that Django has encoded by IDNA 2003: header and envelope must name the same one."""
    given = {"From": message.from_email, "To": message.to, "Cc": message.cc, "Reply-To": message.reply_to}
    for name in _ADDRESS_FIELDS:
        value: Any = message.extra_headers.get(name, given[name])
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if text.isascii() or all(address.isascii() for _, address in getaddresses([text])):
            continue
        del built[name]
        # Of Django 5.2, `built` is of a class that would encode it again.
        Message.__setitem__(built, name, text)


def _mailbox(text: object) -> str:
    """
    Return the address in *text*, which may have a display name.

    Raises:
        AddressError: It is not exactly one valid mailbox.
    """
    text = str(text)
    try:
        return validate_address(text)
    except AddressError:
        named = _NAMED.fullmatch(text)
        if named is None:
            raise
    return validate_address(named["address"])
