"""
Encode the parts of a message that have lines of more than 900 octets.

RFC 5321 §4.5.3.1.6 allows 998, but Haraka breaks a line at 990, and the recipients get another text (measured). Signed
parts and attached messages are left as they are: encoding would change them.
"""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from typing import TYPE_CHECKING

from securesmtp._protocol.message_bounds import raw_payload, subparts
from securesmtp._protocol.message_copy import set_fields
from securesmtp._protocol.scanner import SAFE_LINE, with_crlf

if TYPE_CHECKING:
    from email.message import Message

_ENCODING = "content-transfer-encoding"
_UNENCODED = frozenset({"", "7bit", "8bit", "binary"})
# RFC 2045 §6.8: a line of base64 has 76 characters, for 57 bytes.
_LINE, _LINE_BYTES = 76, 57
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
    encoding = str(message.get(_ENCODING, "")).strip().lower()
    if encoding in _UNENCODED:
        encoding, payload = _encode(payload, is_text=message.get_content_maintype() == "text")
        _set_encoding(message, encoding)
    elif encoding == "base64":
        # Broken anew, not decoded: Python and the reader may disagree on what is wrong in it.
        text = "".join(payload.split())
        payload = "".join(f"{text[start : start + _LINE]}\n" for start in range(0, len(text), _LINE))
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
        return "base64", _base64(payload.encode("ascii", "surrogateescape"))
    data = "\n".join(_lines(payload)).encode("ascii", "surrogateescape")
    # Filters take text in base64 for an attempt to hide it, so it is used only where the text is mostly not ASCII.
    if 6 * len(re.findall(rb"[\x80-\xff]", data)) >= len(data):
        # Encoded, it has the line ends of a text on the wire (RFC 2045 §6.8).
        return "base64", _base64(with_crlf(data))
    return "quoted-printable", "\n".join(b2a_qp(line, istext=False).decode("ascii") for line in data.split(b"\n"))


def _base64(data: bytes) -> str:
    return "".join(b2a_base64(data[at : at + _LINE_BYTES]).decode("ascii") for at in range(0, len(data), _LINE_BYTES))


def _lines(text: str) -> list[str]:
    """Return the lines of *text*, as they are sent: CR, LF and CRLF end one."""
    return _LINE_ENDS.sub("\n", text).split("\n")


def _set_encoding(part: Message, encoding: str) -> None:
    fields = [(name, value) for name, value in part.raw_items() if name.lower() != _ENCODING]
    set_fields(part, [*fields, ("Content-Transfer-Encoding", encoding)])
