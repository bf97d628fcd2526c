"""
Turn a message into bytes, exactly as it was signed.

Python's generator writes the body; `header_fields` writes the header, instead of the folding of the email package.
"""

from __future__ import annotations

import io
import re
from email.errors import MessageError as EmailError
from email.generator import BytesGenerator
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeGuard, TypeVar, cast

from securesmtp._interrupts import raise_if_interrupt
from securesmtp._protocol.content import BLOCK, MAX_LINE, Content
from securesmtp._protocol.folding import PREFERRED_LINE
from securesmtp._protocol.header_fields import CheckedPolicy, is_header_object, signature_error
from securesmtp._protocol.message_bounds import raw_payload, subparts
from securesmtp._shown import escape
from securesmtp.errors import MessageError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage, Message
    from email.policy import EmailPolicy

T = TypeVar("T")
# Replaces a large payload while the rest of the message is serialised.
_PLACEHOLDER = "securesmtp: a payload is put in here"


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


def _is_parsed(part: Message) -> bool:
    """Return whether a multipart was parsed; then Python has lost bytes of it, such as spaces after a boundary."""
    return part.epilogue is not None or bool(part.defects)


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
        is_exact = header != "relaxed" or (message.is_multipart() and _is_parsed(message))
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
    theirs = cast("EmailPolicy", message.policy)
    signed = find_signed_fields(message)
    policy = CheckedPolicy(
        linesep="\r\n",
        utf8=utf8,
        cte_type=cte_type,
        # RFC 5321 §4.5.3.1.6: a server may refuse longer lines.
        max_line_length=max(PREFERRED_LINE, min(theirs.max_line_length or MAX_LINE, MAX_LINE)),
        refold_source="none" if signed else theirs.refold_source,
        header_factory=theirs.header_factory,
    ).with_changes(signed_fields=signed)
    translate_email_errors(lambda: _check_boundaries(message, ()))
    pieces = translate_email_errors(lambda: _pieces(message, policy))
    try:
        return Content.from_pieces(pieces)
    except MessageError as error:
        raise _name_part(message, error) from None


def _check_boundaries(part: Message, enclosing: tuple[str, ...]) -> None:
    """Refuse a text that contains the boundary of an enclosing multipart: it would add a part (RFC 2046 §5.1.1)."""
    if part.is_multipart():
        # If it has no boundary, Python generates one.
        if part.get_content_maintype() == "multipart" and (boundary := part.get_boundary()):
            enclosing = (*enclosing, boundary)
        for child in subparts(part):
            _check_boundaries(child, enclosing)
        return
    payload = raw_payload(part)
    # The plain search comes first, because the pattern takes a second for 25 MB.
    found = [each for each in enclosing if isinstance(payload, str) and f"--{each}" in payload]
    if any(re.search(rf"^--{re.escape(each)}(?:--)?[ \t\r]*$", str(payload), re.MULTILINE) for each in found):
        text = "the text of a part contains the boundary of an enclosing multipart as a line"
        raise MessageError(text, hint="set no boundary, so that Python generates one; or encode the part as base64")


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


def _pieces(message: EmailMessage, policy: CheckedPolicy) -> tuple[bytes | str, ...]:
    """Return *message* in pieces; each large payload is a piece of its own, the same str, so that it is not copied."""
    large = [(part, payload) for part in message.walk() if _is_large(payload := raw_payload(part))]
    try:
        for part, _ in large:
            part.set_payload(_PLACEHOLDER)
        between = _flatten(message, policy).split(_PLACEHOLDER.encode("ascii"))
    finally:
        for part, payload in large:
            part.set_payload(payload)
    if len(between) != len(large) + 1:
        # The placeholder also occurs in the message.
        return (_flatten(message, policy),)
    payloads = [payload for _, payload in large]
    return tuple(piece for pair in zip_longest(between, payloads, fillvalue="") for piece in pair)


def _is_large(payload: object) -> TypeGuard[str]:
    return isinstance(payload, str) and len(payload) > BLOCK and payload.isascii() and "\r" not in payload


def _flatten(message: EmailMessage, policy: CheckedPolicy) -> bytes:
    buffer = io.BytesIO()
    _Generator(buffer, mangle_from_=False, policy=policy).flatten(message)
    return buffer.getvalue()


class _Generator(BytesGenerator):
    """Write a text in one step, and keep signed and attached parts as they are."""

    policy: CheckedPolicy

    def _write_lines(self, lines: str) -> None:
        self.write(lines.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n"))

    def _dispatch(self, msg: Message) -> None:
        policy = self.policy
        self.policy = self._policy_inside(msg)
        try:
            super()._dispatch(msg)  # type: ignore[misc] # typeshed lacks it
        finally:
            self.policy = policy

    def _policy_inside(self, part: Message) -> CheckedPolicy:
        """Return the policy for everything inside of *part*."""
        if self.policy.signed_fields:
            return self.policy.with_changes(signed="body", signed_fields=frozenset())
        if part.is_multipart():
            kind = part.get_content_type()
            if kind == "multipart/signed":
                if _is_parsed(part):
                    text = "the message has a signed part (multipart/signed) and was parsed: the part may have changed"
                    raise signature_error(text)
                return self.policy.with_changes(signed="part", refold_source="none")
            if part.get_content_maintype() == "message":
                # The header of an attached message is not folded again.
                return self.policy.with_changes(attached=True, refold_source="none")
        return self.policy

    def _handle_multipart_signed(self, msg: Message) -> None:
        self._handle_multipart(msg)  # type: ignore[attr-defined] # typeshed lacks it

    def _handle_text(self, msg: Message) -> None:
        is_kept = bool(self.policy.signed) or self.policy.attached
        if self.policy.cte_type == "7bit" and is_kept and not str(msg.get_payload()).isascii():
            text = "a part that is signed or attached has non-ASCII bytes, and the server does not offer 8BITMIME"
            raise signature_error(text)
        super()._handle_text(msg)  # type: ignore[misc] # typeshed lacks it

    _writeBody = _handle_text  # noqa: N815 -- Python's name
