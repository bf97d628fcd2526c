"""Copy a message of either email API into an EmailMessage, so that the caller's object is never changed."""

from __future__ import annotations

import copy
import re
from collections import Counter
from email.header import Header
from email.message import EmailMessage, MIMEPart
from email.policy import EmailPolicy
from typing import TYPE_CHECKING, TypeVar, cast

from securesmtp._protocol.header_index import HeaderIndex
from securesmtp._protocol.message_bounds import is_header_object, subparts
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import Message

M = TypeVar("M", bound="Message")
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_LINE_END = re.compile(r"[\r\n]")


def copy_message(message: Message) -> tuple[EmailMessage, HeaderIndex]:
    """
    Return a copy of *message*, and its fields without empty ones that must not be empty.

    The copy has no fields, until `set_fields` sets them. Parts are copied, payloads are shared.

    Raises:
        MessageError: A field is not text, or occurs too often.
    """
    ours = _as_email_message(message)
    return _copy_parts(ours), HeaderIndex(cast("EmailPolicy", ours.policy), _copy_fields(ours))


def _as_email_message(message: Message) -> EmailMessage:
    """
    Return *message* itself, or an EmailMessage with its fields and its payload.

    The old API (``MIMEText``, and ``message_from_bytes`` by default) allows any number of fields with any value. An
    EmailMessage does not, so the same rules are applied here.
    """
    policy: object = message.policy
    if isinstance(message, EmailMessage) and isinstance(policy, EmailPolicy):
        return message
    converted = EmailMessage()
    vars(converted).update(vars(message), policy=converted.policy)
    for name, count in Counter(name.title() for name, _ in message.raw_items()).items():
        if count > 1 and converted.policy.header_max_count(name):
            text = f"the message has {count} {name} fields"
            raise MessageError(text, hint=f'set it once: use del message["{name}"] before you set it again')
    for name, value in message.raw_items():
        if _LINE_END.search(_FOLD.sub("", _field_text(name, value))):
            text = f"the header field {name[:80]!r} has a line end in its value"
            raise MessageError(text, hint="remove line ends from it")
    return converted


def _field_text(name: str, value: object) -> str:
    # A Header of the old API is not a str, and its own folding differs from that of the new API.
    if not isinstance(value, str | Header):
        text = f"the header field {name[:80]!r} is a {type(value).__name__}, not a str"
        raise MessageError(text, hint="set it to a str, or leave it out")
    return value if isinstance(value, str) else str(value)


def _copy_parts(message: M) -> M:
    kind = type(message)
    if kind in (EmailMessage, MIMEPart):
        # `copy.copy` does the same, and takes longer than to copy all fields.
        copied = kind.__new__(kind)
        vars(copied).update(vars(message))
    else:
        copied = copy.copy(message)
    # The email package sets boundaries and the like on the parts that it writes.
    if message.is_multipart():
        copied.set_payload([_copy_part(part) for part in subparts(message)])
    return copied


def _copy_part(message: M) -> M:
    copied = _copy_parts(message)
    set_fields(copied, _copy_fields(message))
    return copied


def _copy_fields(message: Message) -> list[tuple[str, str]]:
    return [
        (name, value if type(value) is str or is_header_object(value) else _field_text(name, value))
        for name, value in message.raw_items()
    ]


def set_fields(message: Message, fields: Iterable[tuple[str, str]]) -> None:
    """Replace the fields of *message*, which is our copy."""
    # Deleting the fields one by one would take quadratic time, and the email package has no public way to delete all.
    message._headers = []  # type: ignore[attr-defined] # noqa: SLF001
    for name, value in fields:
        message.set_raw(name, value)
