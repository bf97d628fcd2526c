"""The encodings of a part: quoted-printable and base64 (RFC 2045 §6.7, §6.8), and which of both a text gets."""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp
from typing import TYPE_CHECKING

from securesmtp._protocol.message_copy import set_fields
from securesmtp._protocol.scanner import with_crlf

if TYPE_CHECKING:
    from email.message import Message

EIGHT_BIT = frozenset({"8bit", "binary"})
UNENCODED = EIGHT_BIT | {"", "7bit"}
# RFC 2045 §6.8: a line of base64 has 76 characters, for 57 bytes.
BASE64_LINE, BASE64_LINE_BYTES = 76, 57
_FIELD = "content-transfer-encoding"
# Filters take text in base64 for an attempt to hide it, so it is used only where one byte of six is not ASCII.
_MOSTLY_ASCII = 6
_ASCII = bytes(range(128))


def encoding_of(part: Message) -> str:
    """Return the name of the encoding of *part* in lower case; an empty string if it has none."""
    return next((str(value).strip().lower() for name, value in part.raw_items() if name.lower() == _FIELD), "")


def set_encoding(part: Message, encoding: str) -> None:
    """Name the *encoding* of *part*, which is our copy."""
    fields = [(name, value) for name, value in part.raw_items() if name.lower() != _FIELD]
    set_fields(part, [*fields, ("Content-Transfer-Encoding", encoding)])


def is_mostly_ascii(data: bytes) -> bool:
    """Return whether quoted-printable is the encoding for the text *data*; if not, it is base64."""
    return _MOSTLY_ASCII * len(data.translate(None, _ASCII)) < len(data)


def quoted_printable(data: bytes) -> str:
    """Return *data*, lines of text, as quoted-printable with LF line ends."""
    return "\n".join(b2a_qp(line, istext=False).decode("ascii") for line in with_crlf(data).split(b"\r\n"))


def base64_lines(data: bytes) -> str:
    """Return *data* as base64 in lines, the last of which ends, too."""
    return break_base64(b2a_base64(data, newline=False).decode("ascii"))


def break_base64(text: str) -> str:
    """Return *text*, base64 without line ends, in lines, the last of which ends, too."""
    return "".join([f"{text[start : start + BASE64_LINE]}\n" for start in range(0, len(text), BASE64_LINE)])
