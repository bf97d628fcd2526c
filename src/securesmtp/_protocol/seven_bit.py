"""
Give a message a form that no server on its way rewrites: 7-bit, and without blanks at the ends of encoded lines.

A server whose next hop does not offer 8BITMIME converts 8-bit parts (RFC 6152 §3), and some write quoted-printable
anew. Both void a DKIM signature, so the message is converted before it is signed (RFC 6376 §5.3). Postfix changes the
word 8bit into 7bit, too, where Python has left it on a part that is ASCII (`add_attachment` of a message does).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from securesmtp._protocol.message_bounds import raw_payload, subparts
from securesmtp._protocol.message_copy import copy_message, set_fields
from securesmtp._protocol.scanner import with_crlf
from securesmtp._protocol.serialising import find_signed_fields, serialise, translate_email_errors
from securesmtp._protocol.transfer_encoding import (
    EIGHT_BIT,
    UNENCODED,
    base64_lines,
    encoding_of,
    is_mostly_ascii,
    quoted_printable,
    set_encoding,
)

if TYPE_CHECKING:
    from email.message import Message

    from securesmtp._protocol.message import Submission

# A blank at the end of a line, or a soft line break at the end of the part.
_FRAGILE = re.compile(r"=(?:20|09)\r?(?:\n|\Z)|=[ \t\r\n]*\Z")
# What programs on the way change in plain text: they drop blanks, and write > before From (RFC 8551 §3.1.3).
_UNSTABLE = re.compile(r"^From |[ \t]\r?$", re.MULTILINE)


def make_seven_bit(submission: Submission) -> Submission:
    """
    Return *submission* in 7-bit form, as far as that changes no part that is signed or attached.

    Its ``message`` stays as it is: what identifies it in a ledger depends on it.
    """
    message, content = submission.message, submission.content
    if message is None or (content.is_ascii and not any(_is_fragile(part) for part in message.walk())):
        return submission
    if find_signed_fields(message):
        return submission
    copied, header = copy_message(message)
    set_fields(copied, header.fields)
    translate_email_errors(lambda: encode_parts(copied))
    translate_email_errors(lambda: _correct_labels(copied))
    return replace(submission, content=serialise(copied, utf8=content.utf8_header, cte_type="8bit"))


def encode_parts(part: Message, *, is_strict: bool = False) -> None:
    """
    Encode *part*, our copy, and what is in it, as far as that changes no part that is signed or attached.

    Args:
        part: A message, or a part of one.
        is_strict: Whether plain text in which blanks matter is encoded, too.
    """
    if part.is_multipart():
        # Not inside of what is signed, or attached.
        if part.get_content_maintype() == "multipart" and part.get_content_subtype() != "signed":
            for each in subparts(part):
                encode_parts(each, is_strict=is_strict)
            if is_strict:
                _drop_unstable_rest(part)
        return
    payload = raw_payload(part)
    if not isinstance(payload, str) or part.get_content_maintype() == "message":
        return
    encoding, is_text = encoding_of(part), part.get_content_maintype() == "text"
    is_unstable = is_strict and bool(_UNSTABLE.search(payload))
    if encoding == "quoted-printable" and (is_unstable or _FRAGILE.search(payload)):
        decoded = part.get_payload(decode=True)
        _set_base64(part, decoded if isinstance(decoded, bytes) else b"", is_text=is_text)
    elif encoding in UNENCODED and (is_unstable or not payload.isascii()):
        data = payload.encode("utf-8", "surrogateescape")
        printable = quoted_printable(data) if is_text and is_mostly_ascii(data) else None
        if printable is None or _FRAGILE.search(printable) or (is_strict and _UNSTABLE.search(printable)):
            _set_base64(part, data, is_text=is_text)
        else:
            _set(part, "quoted-printable", printable)


def _drop_unstable_rest(part: Message) -> None:
    """Drop the text before and after the parts of *part*, which no reader shows and nothing can encode."""
    if part.preamble is not None and _UNSTABLE.search(part.preamble):
        part.preamble = None
    if part.epilogue is not None and _UNSTABLE.search(part.epilogue):
        part.epilogue = None


def _correct_labels(part: Message, *, is_signed: bool = False) -> bool:
    """Say 7bit of what is ASCII in *part* and is not signed; return whether all of it is."""
    payload, encoding = raw_payload(part), encoding_of(part)
    if isinstance(payload, list):
        signs = is_signed or part.get_content_type() == "multipart/signed"
        # A list: each part is to be corrected.
        found = [_correct_labels(each, is_signed=signs or "DKIM-Signature" in each) for each in payload]
        is_ascii = all(found)
    else:
        is_ascii = not isinstance(payload, str) or payload.isascii()
    if is_ascii and encoding in EIGHT_BIT and not is_signed:
        set_encoding(part, "7bit")
    return is_ascii


def _is_fragile(part: Message) -> bool:
    payload, encoding = raw_payload(part), encoding_of(part)
    if isinstance(payload, str) and encoding == "quoted-printable":
        return bool(_FRAGILE.search(payload))
    return encoding in EIGHT_BIT


def _set_base64(part: Message, data: bytes, *, is_text: bool) -> None:
    # The line ends of a text are CRLF before it is encoded (RFC 2045 §6.8).
    _set(part, "base64", base64_lines(with_crlf(data) if is_text else data))


def _set(part: Message, encoding: str, payload: str) -> None:
    set_encoding(part, encoding)
    part.set_payload(payload)
