"""
Encode the parts of a message that have lines of more than 900 octets.

RFC 5321 §4.5.3.1.6 allows 998, but Haraka breaks a line at 990, and the recipients get another text (measured). Signed
parts and attached messages are left as they are: encoding would change them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from securesmtp._protocol.message_bounds import raw_payload, subparts
from securesmtp._protocol.message_copy import set_fields
from securesmtp._protocol.scanner import SAFE_LINE, with_crlf
from securesmtp._protocol.transfer_encoding import (
    UNENCODED,
    base64_lines,
    break_base64,
    encoding_of,
    is_mostly_ascii,
    quoted_printable,
    set_encoding,
)

if TYPE_CHECKING:
    from email.message import Message

# Room for the "=" of a soft line break (RFC 2045 §6.7), which must not stand in a code such as "=3D".
_SHORT = re.compile(r".{1,75}(?:(?<!=)(?<!=.)|\Z)")
_LINE_ENDS = re.compile(r"\r\n?")


def encode_long_parts(message: Message) -> bool:
    """
    Encode the parts of *message* with long lines as quoted-printable or base64; return whether there were any.

    *message* is our own copy, and is not signed.
    """
    if not _encode_parts(message):
        return False
    if "MIME-Version" not in message:
        set_fields(message, [*message.raw_items(), ("MIME-Version", "1.0")])
    return True


def _encode_parts(message: Message) -> bool:
    if message.is_multipart():
        is_closed = message.get_content_maintype() != "multipart" or message.get_content_subtype() == "signed"
        return not is_closed and sum(map(_encode_parts, subparts(message))) > 0
    payload = raw_payload(message)
    # A multipart that is a text is signed already.
    is_kept = message.get_content_maintype() in {"message", "multipart"}
    if not isinstance(payload, str) or is_kept or not _has_long_line(payload):
        return False
    encoding = encoding_of(message)
    if encoding in UNENCODED:
        encoding, payload = _encode(payload, is_text=message.get_content_maintype() == "text")
        set_encoding(message, encoding)
    elif encoding == "base64":
        # Broken anew, not decoded: Python and the reader may disagree on what is wrong in it.
        payload = break_base64("".join(payload.split()))
    elif encoding == "quoted-printable":
        lines = [_SHORT.findall(line) for line in _lines(payload)]
        if "\n".join(map("".join, lines)) != "\n".join(_lines(payload)):
            # It is not legal, and has no place to break a line.
            return False
        payload = "\n".join(map("=\n".join, lines))
    else:
        return False
    message.set_payload(payload)
    return True


def _has_long_line(payload: str) -> bool:
    lines = payload.encode("utf-8", "surrogateescape").splitlines()
    return max(map(len, lines), default=0) > SAFE_LINE


def _encode(payload: str, *, is_text: bool) -> tuple[str, str]:
    """Return the name of the encoding of *payload*, and the encoded text."""
    if not is_text:
        return "base64", base64_lines(payload.encode("ascii", "surrogateescape"))
    data = "\n".join(_lines(payload)).encode("ascii", "surrogateescape")
    if is_mostly_ascii(data):
        return "quoted-printable", quoted_printable(data)
    # Encoded, it has the line ends of a text on the wire (RFC 2045 §6.8).
    return "base64", base64_lines(with_crlf(data))


def _lines(text: str) -> list[str]:
    """Return the lines of *text*, as they are sent: CR, LF and CRLF end one."""
    return _LINE_ENDS.sub("\n", text).split("\n")
