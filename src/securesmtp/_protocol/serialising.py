"""
Turn a message into bytes, exactly as it was signed.

`parts` writes its parts, and `header_fields` their headers, instead of the folding of the email package.
"""

from __future__ import annotations

from email.errors import MessageError as EmailError
from typing import TYPE_CHECKING, TypeVar, cast

from securesmtp._interrupts import raise_if_interrupt
from securesmtp._protocol.content import Content
from securesmtp._protocol.folding import PREFERRED_LINE
from securesmtp._protocol.generator import generate, is_parsed
from securesmtp._protocol.header_fields import CheckedPolicy, signature_error
from securesmtp._protocol.long_lines import encode_long_parts
from securesmtp._protocol.message_bounds import is_header_object, raw_payload
from securesmtp._protocol.parts import PartWriter, refuse_boundaries
from securesmtp._protocol.scanner import MAX_LINE, SAFE_LINE
from securesmtp._shown import escape
from securesmtp.errors import MessageError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage, Message
    from email.policy import EmailPolicy

T = TypeVar("T")


def translate_email_errors(action: Callable[[], T]) -> T:
    """
    Return the result of *action*.

    Raises:
        MessageError: The email package raised an error, because it cannot handle the message.
    """
    try:
        return action()
    except SecureSMTPError:
        raise
    except (
        EmailError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        NameError,
        RecursionError,
        ArithmeticError,
    ) as error:
        raise_if_interrupt(error)
        # All of these were seen, for parsed headers of random characters.
        kind = type(error).__name__
    # Raised outside of the handler, because the context of the error would show the text of the message.
    text = f"the message cannot be read or serialised ({kind} in Python's email package)"
    raise MessageError(text)


def find_signed_fields(message: Message) -> frozenset[str]:
    """
    Return the names of the fields that a DKIM signature covers, in lower case (RFC 6376 §3.5).

    Raises:
        MessageError: The message was parsed, so the signature may no longer match.
    """
    names: set[str] = set()
    for name, value in message.raw_items():
        if name.lower() != "dkim-signature":
            continue
        tags = dict(tag.partition("=")[::2] for tag in "".join(str(value).split()).split(";"))
        header = tags.get("c", "").partition("/")[0]
        # Python's parser drops spaces after a colon and after a boundary. A simple signature covers the former in the
        # header; any signature covers both in the body, such as after "Content-Type:" in a part (RFC 6376 §3.4.4).
        is_exact = header != "relaxed" or (message.is_multipart() and is_parsed(message))
        if is_exact and not is_header_object(value):
            text = "the message has a DKIM-Signature and was parsed: the signed text may have changed"
            raise signature_error(text)
        names |= {"dkim-signature", *tags.get("h", "").lower().split(":")}
    return frozenset(names)


def check_signed(message: Message, prepared: Message) -> None:
    """
    Check that *prepared*, the copy of *message* that is sent, has all signed fields unchanged.

    Raises:
        MessageError: A signed field differs.
    """
    if signed := find_signed_fields(message):
        before, after = _values_by_name(message), _values_by_name(prepared)
        for name in sorted(signed):
            if before.get(name) != after.get(name):
                text = f"the header field {name[:80]!r} is signed, but must be changed to send the message"
                raise signature_error(text)


def _values_by_name(message: Message) -> dict[str, list[str]]:
    # One pass over the header: `get_all` for each name would take quadratic time.
    values: dict[str, list[str]] = {}
    for name, value in message.raw_items():
        values.setdefault(name.lower(), []).append(str(value))
    return values


def serialise(message: EmailMessage, *, utf8: bool, cte_type: str) -> Content:
    """
    Return the bytes of *message*.

    Args:
        message: Our own copy, because boundaries are set in it.
        utf8: Whether the header may be UTF-8 (RFC 6532).
        cte_type: ``"7bit"`` to re-encode parts that are not ASCII, else ``"8bit"``.

    Raises:
        MessageError: It cannot be written as it is.
    """
    signed = find_signed_fields(message)

    def make_policy() -> CheckedPolicy:
        return _policy(message, signed, utf8=utf8, cte_type=cte_type)

    def write() -> tuple[bytes | str, ...]:
        if signed:
            refuse_boundaries(message, ())
            return generate(message, make_policy())
        return PartWriter(make_policy, theirs=cast("EmailPolicy", message.policy), cte_type=cte_type).write(message)

    def encode() -> bool:
        return not signed and translate_email_errors(lambda: encode_long_parts(message))

    pieces = translate_email_errors(write)
    # Long lines are looked for only now, because nearly all messages have none.
    try:
        content = Content.from_pieces(pieces)
    except MessageError as error:
        if not encode():
            raise _name_part(message, error) from None
    else:
        if not content.longest_line or not encode():
            return content
    return serialise(message, utf8=utf8, cte_type=cte_type)


def _policy(message: EmailMessage, signed: frozenset[str], *, utf8: bool, cte_type: str) -> CheckedPolicy:
    theirs = cast("EmailPolicy", message.policy)
    policy = CheckedPolicy(
        linesep="\r\n",
        utf8=utf8,
        cte_type=cte_type,
        max_line_length=max(PREFERRED_LINE, min(theirs.max_line_length or SAFE_LINE, SAFE_LINE)),
        refold_source="none" if signed else theirs.refold_source,
        header_factory=theirs.header_factory,
    )
    return policy.with_changes(signed_fields=signed) if signed else policy


def _name_part(message: Message, error: MessageError) -> MessageError:
    """Return *error* with the name of the part that has the long line or the NUL, and code that re-encodes it."""
    for number, part in enumerate(message.walk()):
        payload = raw_payload(part)
        data = payload.encode("utf-8", "surrogateescape") if isinstance(payload, str) else b""
        if b"\0" in data or max(map(len, data.split(b"\n"))) > MAX_LINE:
            text = f"{error.args[0]}, in the part {describe_part(part)}"
            hint = (
                f'part = list(message.walk())[{number}]; del part["Content-Transfer-Encoding"]; '
                "email.encoders.encode_base64(part)"
            )
            return MessageError(text, hint=hint)
    return error


def describe_part(part: Message) -> str:
    """Return the type and the file name of *part*, for an error about it."""
    filename = part.get_filename()
    return escape(f"{part.get_content_type()}{f' {filename!r}' if filename else ''}", 80)
