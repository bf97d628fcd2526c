"""Write each part of a message as ASCII, in lines that every server accepts."""

from __future__ import annotations

import re
from binascii import b2a_qp
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from typing import TYPE_CHECKING

from securesmtp._compose.files import File, unreadable_error
from securesmtp._compose.media_types import UNKNOWN
from securesmtp._protocol.serialising import serialise
from securesmtp._protocol.transfer_encoding import BASE64_LINE_BYTES, base64_lines, is_mostly_ascii
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

# The fields that most messages have, parsed once: that halves the time for a short message.
_parse = default.header_factory
MIME_VERSION = _parse("MIME-Version", "1.0")
_ENCODINGS = {name: _parse("Content-Transfer-Encoding", name) for name in ("7bit", "quoted-printable", "base64")}
_TYPES = {f"text/{name}": _parse("Content-Type", f'text/{name}; charset="utf-8"') for name in ("plain", "html")}
# RFC 2387 §3.1 requires the parameter.
_TYPES |= {
    f"multipart/{name}": _parse("Content-Type", f"multipart/{name}{parameter}")
    for name, parameter in {"mixed": "", "alternative": "", "related": '; type="text/html"'}.items()
}
_BLOCK = 1024 * BASE64_LINE_BYTES
# What may be sent as it is: printable ASCII in lines that no server breaks.
_PLAIN = re.compile(r"(?:[\t -~]{0,78}\n)*")
_LINE_ENDS = re.compile(r"\r\n|\r")
# A file name in a quoted string means the same to all readers if it has nothing else.
_SIMPLE_NAME = re.compile(r"[A-Za-z0-9_.+-](?:[A-Za-z0-9 _.,+-]*[A-Za-z0-9_.+-])?")


def text_part(text: object, subtype: str) -> EmailMessage:
    """
    Return a text part; *subtype* is ``plain`` or ``html``.

    Raises:
        MessageError: *text* is not a str, or has half of a surrogate pair.
    """
    name = "text" if subtype == "plain" else subtype
    if not isinstance(text, str):
        message = f"{name} is a {type(text).__name__}, not a str"
        raise MessageError(message, hint="decode bytes; render a template first")
    lines = _LINE_ENDS.sub("\n", text)
    lines += "" if lines.endswith("\n") or not lines else "\n"
    part = EmailMessage()
    part.set_raw("Content-Type", _TYPES[f"text/{subtype}"])
    if _PLAIN.fullmatch(lines):
        _set_payload(part, "7bit", lines)
        return part
    try:
        data = lines.encode()
    except UnicodeEncodeError as error:
        message = f"{name} has half of a surrogate pair at index {error.start}, which UTF-8 does not have"
        raise MessageError(message, hint="read it with the right encoding") from None
    if is_mostly_ascii(data):
        _set_payload(part, "quoted-printable", b2a_qp(data).decode("ascii"))
    else:
        # Encoded, it has the line ends of a text on the wire (RFC 2045 §6.8).
        _set_payload(part, "base64", base64_lines(data.replace(b"\n", b"\r\n")))
    return part


def multipart(subtype: str, children: list[EmailMessage]) -> EmailMessage:
    """Return *children* as one part, or the only child itself."""
    if len(children) == 1:
        return children[0]
    part = EmailMessage()
    part.set_raw("Content-Type", _TYPES[f"multipart/{subtype}"])
    part.set_payload(list[Message | str](children))
    return part


def attached_part(file: File) -> EmailMessage:
    """
    Return *file* as a part that readers save.

    Raises:
        MessageError: It cannot be read.
    """
    if file.media_type.lower() == "message/rfc822":
        return _message_part(file)
    return _file_part(file, "attachment", file.media_type)


def inline_part(file: File, content_id: str) -> EmailMessage:
    """
    Return *file* as a part that the HTML shows.

    Raises:
        MessageError: It cannot be read.
    """
    part = _file_part(file, "inline", file.media_type)
    part["Content-ID"] = f"<{content_id}>"
    return part


def invitation_part(method: str, data: bytes) -> EmailMessage:
    """
    Return the part that mail programs show as an invitation (RFC 6047 §2.4).

    Without any other field: a Content-Disposition or a Content-ID makes some programs show none.
    """
    part = EmailMessage()
    part["Content-Type"] = f'text/calendar; charset="utf-8"; method={method}'
    _set_payload(part, "base64", base64_lines(data))
    return part


def encoded_size(size: int) -> int:
    """Return how many bytes a file of *size* bytes has once it is encoded, with its line ends."""
    return (size + 2) // 3 * 4 + 2 * ((size + BASE64_LINE_BYTES - 1) // BASE64_LINE_BYTES)


def _file_part(file: File, disposition: str, media_type: str) -> EmailMessage:
    part = EmailMessage()
    part["Content-Type"] = media_type
    part["Content-Disposition"] = f"{disposition}; {_file_name(file.name)}"
    # As base64 even if it is text: that alone keeps the bytes as they are.
    try:
        with file.open() as opened:
            _set_payload(part, "base64", "".join(map(base64_lines, _blocks(opened))))
    except OSError as error:
        raise unreadable_error(file, error) from error
    return part


def _message_part(file: File) -> EmailMessage:
    """Return an attached message; base64 is not allowed for it (RFC 2046 §5.2.1), and some readers save nothing."""
    try:
        with file.open() as opened:
            data = opened.read()
    except OSError as error:
        raise unreadable_error(file, error) from error
    part = EmailMessage()
    part["Content-Type"] = "message/rfc822"
    part["Content-Disposition"] = f"attachment; {_file_name(file.name)}"
    part.set_payload([message_from_bytes(data, policy=default)])
    return part if _is_written_as(part, data) else _file_part(file, "attachment", UNKNOWN)


def _is_written_as(part: EmailMessage, data: bytes) -> bool:
    """Return whether the attached message of *part* goes out as exactly these bytes, on every server."""
    try:
        content = serialise(part, utf8=False, cte_type="7bit")
    except MessageError:
        return False
    return content.is_ascii and not content.longest_line and b"".join(content.chunk()).partition(b"\r\n\r\n")[2] == data


def _file_name(name: str) -> str:
    if _SIMPLE_NAME.fullmatch(name):
        return f'filename="{name}"'
    # RFC 2231 §4, which readers decode to the same name, whatever is in it.
    return "filename*=utf-8''" + "".join(
        c if c.isascii() and c.isalnum() else "".join(f"%{byte:02X}" for byte in c.encode()) for c in name
    )


def _set_payload(part: EmailMessage, encoding: str, payload: str) -> None:
    part.set_raw("Content-Transfer-Encoding", _ENCODINGS[encoding])
    part.set_payload(payload)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    # A block at a time, so that the file is never in memory beside its encoded form.
    while block := file.read(_BLOCK):
        yield block
