"""
Write a message part by part: texts and multiparts here, what is signed, attached or re-encoded by Python's generator.

Large texts are not copied: they are pieces of their own.
"""

from __future__ import annotations

import re
import sys
from secrets import randbelow
from typing import TYPE_CHECKING

from securesmtp._protocol.generator import generate, is_large
from securesmtp._protocol.header_fields import has_default_class
from securesmtp._protocol.message_bounds import raw_payload, subparts
from securesmtp._protocol.message_copy import set_fields
from securesmtp._protocol.short_fields import short_line
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from email.message import Message
    from email.policy import EmailPolicy

    from securesmtp._protocol.header_fields import CheckedPolicy

Pieces = list[bytes | str]
# The email package writes the payload of such a part as it is.
_TEXT_TYPES = frozenset({"text", "application", "image", "audio", "video", "font", "multipart"})
_SUBTYPE = re.compile(r"[A-Za-z0-9.+_-]+")


class PartWriter:
    """Writes the parts of one message."""

    def __init__(self, make_policy: Callable[[], CheckedPolicy], *, theirs: EmailPolicy, cte_type: str) -> None:
        """
        Prepare to write a message.

        Args:
            make_policy: Returns the policy for what needs one; most messages need none.
            theirs: The policy of the caller's message.
            cte_type: ``"7bit"`` if parts that are not ASCII are re-encoded, else ``"8bit"``.
        """
        self._make_policy = make_policy
        self._made: CheckedPolicy | None = None
        self._cte_type, self._theirs = cte_type, theirs

    def write(self, message: Message) -> tuple[bytes | str, ...]:
        """
        Return *message* in pieces.

        Raises:
            MessageError: It cannot be written as it is.
        """
        return tuple(_joined(self._write(message, ())))

    def _write(self, part: Message, enclosing: tuple[str, ...]) -> Pieces:
        payload, (kind, subtype) = raw_payload(part), _media_type(part)
        # The methods of a class from elsewhere may do something else.
        is_standard = type(part).__module__.startswith("email.")
        if is_standard and type(payload) is str and kind in _TEXT_TYPES:
            if payload.isascii() or self._cte_type == "8bit":
                refuse_boundary(payload, enclosing)
                header = self._header(part)
                return [header, payload] if is_large(payload) else [header, _lines(payload)]
        elif is_standard and isinstance(payload, list) and kind == "multipart" and subtype != "signed":
            return self._write_multipart(part, enclosing)
        refuse_boundaries(part, enclosing)
        return list(generate(part, self._policy))

    def _write_multipart(self, part: Message, enclosing: tuple[str, ...]) -> Pieces:
        boundary = part.get_boundary()
        inside = [self._write(each, (*enclosing, boundary) if boundary else enclosing) for each in subparts(part)]
        if not boundary:
            boundary = new_boundary(inside)
            self._set_boundary(part, boundary)
        delimiter = f"--{boundary}".encode("ascii", "surrogateescape")
        pieces: Pieces = [self._header(part)]
        if part.preamble is not None:
            pieces += [_lines(part.preamble), b"\r\n"]
        pieces += [delimiter, b"\r\n"]
        for number, each in enumerate(inside):
            pieces += [b"\r\n", delimiter, b"\r\n", *each] if number else each
        pieces += [b"\r\n", delimiter, b"--\r\n"]
        if part.epilogue is not None:
            pieces.append(_lines(part.epilogue))
        return pieces

    def _set_boundary(self, part: Message, boundary: str) -> None:
        if self._theirs.refold_source == "long" and has_default_class(self._theirs, "Content-Type"):
            fields = list(part.raw_items())
            places = [number for number, (name, _) in enumerate(fields) if name.lower() == "content-type"]
            name, kind = fields[places[0]] if len(places) == 1 else ("", ";")
            if ";" not in str(kind):
                # As `set_boundary` does, which takes longer than all else, because it parses the new value.
                fields[places[0]] = name, f'{str(kind).strip()}; boundary="{boundary}"'
                set_fields(part, fields)
                return
        # The policy of the whole message makes the new header object, as in the email package.
        own, part.policy = part.policy, self._policy
        part.set_boundary(boundary)
        part.policy = own

    def _header(self, part: Message) -> bytes:
        lines: list[str] = []
        keeps_source = self._theirs.refold_source in {"long", "none"}
        for name, value in part.raw_items():
            line = short_line(name, value) if keeps_source else None
            if line is None:
                line = self._policy.fold_binary(name, value).decode("utf-8", "surrogateescape").removesuffix("\r\n")
            lines.append(line)
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")

    @property
    def _policy(self) -> CheckedPolicy:
        if self._made is None:
            self._made = self._make_policy()
        return self._made


def _media_type(part: Message) -> tuple[str, str]:
    """Return type and subtype of *part* in lower case; two empty strings if they are not written plainly."""
    found = next((str(value) for name, value in part.raw_items() if name.lower() == "content-type"), None)
    kind, _, subtype = (part.get_default_type() if found is None else found.partition(";")[0].strip()).partition("/")
    return (kind.lower(), subtype.lower()) if _SUBTYPE.fullmatch(subtype) else ("", "")


def _lines(text: str) -> bytes:
    """Return *text* with CRLF line ends; surrogates are the bytes of a parsed message."""
    text = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    return text.replace("\n", "\r\n").encode("ascii", "surrogateescape")


def _joined(pieces: Iterable[bytes | str]) -> Iterator[bytes | str]:
    """Yield *pieces* with those that are bytes joined."""
    data: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            data.append(piece)
        else:
            yield b"".join(data)
            yield piece
            data.clear()
    yield b"".join(data)


def new_boundary(parts: Iterable[Pieces]) -> str:
    """Return a boundary that is in none of *parts*, of the form that the email package gives it."""
    while True:
        boundary = f"{'=' * 15}{randbelow(sys.maxsize):019}=="
        sought = boundary.encode("ascii")
        if not any(isinstance(piece, bytes) and sought in piece for pieces in parts for piece in pieces):
            return boundary


def refuse_boundaries(part: Message, enclosing: tuple[str, ...]) -> None:
    """
    Check that no text in *part* contains the boundary of an enclosing multipart.

    Raises:
        MessageError: One does: it would add a part (RFC 2046 §5.1.1).
    """
    if part.is_multipart():
        # If it has no boundary, Python generates one.
        if part.get_content_maintype() == "multipart" and (boundary := part.get_boundary()):
            enclosing = (*enclosing, boundary)
        for child in subparts(part):
            refuse_boundaries(child, enclosing)
    else:
        refuse_boundary(raw_payload(part), enclosing)


def refuse_boundary(payload: object, enclosing: tuple[str, ...]) -> None:
    """
    Check that *payload* does not contain one of the *enclosing* boundaries.

    Raises:
        MessageError: It does.
    """
    # The plain search comes first, because the pattern takes a second for 25 MB.
    found = [each for each in enclosing if isinstance(payload, str) and f"--{each}" in payload]
    if any(re.search(rf"^--{re.escape(each)}(?:--)?[ \t\r]*$", str(payload), re.MULTILINE) for each in found):
        text = "the text of a part contains the boundary of an enclosing multipart as a line"
        raise MessageError(text, hint="set no boundary, so that Python generates one; or encode the part as base64")
