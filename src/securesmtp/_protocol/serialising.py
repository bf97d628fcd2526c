"""
A message written as octets, within bounds, and as it was signed.

The email package is given nothing that it takes quadratic time for: `check_bounds` comes before the first of its
parsers, and `header_fields` writes the header in place of its folder.
"""

from __future__ import annotations

import io
from email.errors import MessageError as EmailError
from email.generator import BytesGenerator
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar, cast

from securesmtp._protocol.content import BLOCK, MAX_HEADER, MAX_LINE, Content
from securesmtp._protocol.folding import MIN_LINE
from securesmtp._protocol.header_fields import CheckedPolicy, changed
from securesmtp._shown import escape
from securesmtp.errors import MessageError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage, Message
    from email.policy import EmailPolicy

T = TypeVar("T")
# Bounds of one message: Postfix looks into parts no deeper (mime_nesting_limit); nobody needs as many of the others.
_MAX_NESTING = 100
_MAX_PARTS = 10_000
# The email package parses these of each part, and takes quadratic time for it. A filename of 255 characters fits.
_MAX_MIME_FIELD = 4096
_MAX_PARAMETERS = 100
# Stands for a large payload while the rest is serialised.
_PLACE = "securesmtp: here a payload is put in"


def guarded(work: Callable[[], T]) -> T:
    """Return what *work* returns; what the email package raises for messages that it cannot handle is our error."""
    try:
        return work()
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
    ) as e:
        # All of these were seen (hypothesis, parsed headers of random characters).
        fault = type(e).__name__
    # Out here, so that it is neither cause nor context: a UnicodeEncodeError holds the text of the message.
    text = f"the message cannot be read or serialised ({fault} in Python's email package)"
    raise MessageError(text)


def check_bounds(message: Message) -> None:
    """
    Refuse what the email package would take quadratic time for, before it reads any of it.

    Raises:
        MessageError: There are too many parts, too deep; or a header, or one field of it, is too long.
    """
    parts, level = 0, [message]
    for _ in range(_MAX_NESTING + 1):
        parts += len(level)
        if parts > _MAX_PARTS:
            text = f"the message has more than {_MAX_PARTS} parts"
            raise MessageError(text)
        for part in level:
            _check_header(part)
        level = [child for part in level if part.is_multipart() for child in cast("list[Message]", part.get_payload())]
        if not level:
            return
    text = f"the parts of the message are nested more than {_MAX_NESTING} deep"
    raise MessageError(text)


def _check_header(part: Message) -> None:
    size = 0
    for name, value in part.raw_items():
        length = len(str(value))
        # With what stands between and behind them: a field of one character is work as well.
        size += len(name) + length + len(": \r\n")
        if size > MAX_HEADER:
            text = f"the header is longer than {MAX_HEADER} octets, with the field {name[:80]!r}"
            raise MessageError(text)
        if length > MIN_LINE and not hasattr(value, "fold") and name.lower().startswith("content-"):
            text = str(value)
            if length > _MAX_MIME_FIELD or max(text.count(";"), text.count('"') // 2) > _MAX_PARAMETERS:
                bounds = f"{_MAX_MIME_FIELD} characters or {_MAX_PARAMETERS} parameters"
                text = f"the header field {name[:80]!r} has more than {bounds}"
                raise MessageError(text)


def _is_parsed(part: Message) -> bool:
    """Return whether a multipart was parsed: Python loses octets of it, such as blanks behind a boundary."""
    return part.epilogue is not None or bool(part.defects)


def signed_fields(message: Message) -> frozenset[str]:
    """
    Return the names of the fields that a DKIM signature covers, in lower case; none if there is none (RFC 6376 §3.5).

    Raises:
        MessageError: It was parsed, and it is not known whether the signature still holds.
    """
    names: set[str] = set()
    for name, value in message.raw_items():
        if name.lower() != "dkim-signature":
            continue
        tags = dict(tag.partition("=")[::2] for tag in "".join(str(value).split()).split(";"))
        header = tags.get("c", "").partition("/")[0]
        # Python's parser keeps neither the blanks behind a colon nor those behind a boundary. A simple signature sees
        # them, and any signature sees in a part whether "Content-Type:" has a blank (RFC 6376 §3.4.4).
        is_exact = header != "relaxed" or (message.is_multipart() and _is_parsed(message))
        if is_exact and not hasattr(value, "fold"):
            text = "the message has a DKIM-Signature, and was parsed: what it signs may have been changed"
            raise changed(text)
        names |= {"dkim-signature", *tags.get("h", "").lower().split(":")}
    return frozenset(names)


def check_signed(message: Message, prepared: Message) -> None:
    """
    Refuse a message of which a field is signed that *prepared*, its copy, has otherwise.

    Raises:
        MessageError: There is one.
    """
    if signed := signed_fields(message):
        before, after = _by_name(message), _by_name(prepared)
        for name in sorted(signed):
            if before.get(name) != after.get(name):
                text = f"the header field {name[:80]!r} is signed, and must be changed to send the message"
                raise changed(text)


def _by_name(message: Message) -> dict[str, list[str]]:
    """Return the values of the fields by name: to look for each name among all fields would take quadratic time."""
    values: dict[str, list[str]] = {}
    for name, value in message.raw_items():
        values.setdefault(name.lower(), []).append(str(value))
    return values


def serialised(message: EmailMessage, *, utf8: bool, cte_type: str) -> Content:
    """
    Return the octets of *message*.

    Args:
        message: A copy of ours; boundaries are set in it.
        utf8: Whether the header may be UTF-8 (RFC 6532).
        cte_type: ``"7bit"`` re-encodes parts that are not ASCII.

    Raises:
        MessageError: It cannot be written as it is.
    """
    theirs = cast("EmailPolicy", message.policy)
    signed = signed_fields(message)
    policy = CheckedPolicy(
        linesep="\r\n",
        utf8=utf8,
        cte_type=cte_type,
        # Above 998 no server need take it.
        max_line_length=max(MIN_LINE, min(theirs.max_line_length or MAX_LINE, MAX_LINE)),
        refold_source="none" if signed else theirs.refold_source,
        header_factory=theirs.header_factory,
    ).but(signed_fields=signed)
    pieces = guarded(lambda: _pieces(message, policy))
    try:
        return Content.from_pieces(pieces)
    except MessageError as error:
        raise _with_part(message, error) from None


def _with_part(message: Message, error: MessageError) -> MessageError:
    """Return *error* with the part that a line too long or a NUL is in, and how to re-encode it."""
    for number, part in enumerate(message.walk()):
        # Not get_payload(): it decodes, and a line is measured in octets.
        payload = vars(part)["_payload"]
        octets = payload.encode("utf-8", "surrogateescape") if isinstance(payload, str) else b""
        if b"\0" in octets or max(map(len, octets.split(b"\n"))) > MAX_LINE:
            filename = part.get_filename()
            shown = escape(f"{part.get_content_type()}{f' {filename!r}' if filename else ''}", 80)
            text = f"{error.args[0]}, in the part {shown}"
            hint = (
                f'part = list(message.walk())[{number}]; del part["Content-Transfer-Encoding"]; '
                "email.encoders.encode_base64(part)"
            )
            return MessageError(text, hint=hint)
    return error


def _pieces(message: EmailMessage, policy: CheckedPolicy) -> tuple[bytes | str, ...]:
    """Return *message* as it is written, each large payload as the str that it is: no copy is made of it."""
    large = [part for part in message.walk() if _is_large(part.get_payload())]
    payloads = [cast("str", part.get_payload()) for part in large]
    try:
        for part in large:
            part.set_payload(_PLACE)
        between = _flattened(message, policy).split(_PLACE.encode("ascii"))
    finally:
        for part, payload in zip(large, payloads, strict=True):
            part.set_payload(payload)
    if len(between) != len(large) + 1:
        # The words are in the message itself.
        return (_flattened(message, policy),)
    return tuple(piece for pair in zip_longest(between, payloads, fillvalue="") for piece in pair)


def _is_large(payload: object) -> bool:
    return isinstance(payload, str) and len(payload) > BLOCK and payload.isascii() and "\r" not in payload


def _flattened(message: EmailMessage, policy: CheckedPolicy) -> bytes:
    buffer = io.BytesIO()
    _Generator(buffer, mangle_from_=False, policy=policy).flatten(message)
    return buffer.getvalue()


class _Generator(BytesGenerator):
    """Python's own, but for one write of a text, and for what is signed or attached."""

    policy: CheckedPolicy

    def _write_lines(self, lines: str) -> None:
        self.write(lines.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n"))

    def _dispatch(self, msg: Message) -> None:
        policy = self.policy
        self.policy = self._below(msg)
        try:
            super()._dispatch(msg)  # type: ignore[misc] # typeshed lacks it
        finally:
            self.policy = policy

    def _below(self, part: Message) -> CheckedPolicy:
        """Return the policy for what is in *part*."""
        if self.policy.signed_fields:
            return self.policy.but(signed="body", signed_fields=frozenset())
        if part.is_multipart():
            kind = part.get_content_type()
            if kind == "multipart/signed":
                if _is_parsed(part):
                    text = "the message has a signed part (multipart/signed), and was parsed: it may have been changed"
                    raise changed(text)
                return self.policy.but(signed="part", refold_source="none")
            if part.get_content_maintype() == "message":
                # What is attached is not ours to fold anew.
                return self.policy.but(attached=True, refold_source="none")
        return self.policy

    def _handle_multipart_signed(self, msg: Message) -> None:
        self._handle_multipart(msg)  # type: ignore[attr-defined] # typeshed lacks it

    def _handle_text(self, msg: Message) -> None:
        is_kept = bool(self.policy.signed) or self.policy.attached
        if self.policy.cte_type == "7bit" and is_kept and not str(msg.get_payload()).isascii():
            text = "a part that is signed or attached has non-ASCII octets, and the server does not offer 8BITMIME"
            raise changed(text)
        super()._handle_text(msg)  # type: ignore[misc] # typeshed lacks it

    _writeBody = _handle_text  # noqa: N815 -- Python's name
