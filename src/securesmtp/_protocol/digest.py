"""
The digest of a message: the same each time a program builds the same message.

What differs each time is left out: Date and Message-ID, the boundaries of its parts, their Content-IDs, and how they
are encoded. Bytes and files are taken as they are.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote

from securesmtp._protocol.message_bounds import subparts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from email.message import Message

    from securesmtp._protocol.message import Submission

# A program that builds a message again makes new ones.
_NEW_EACH_TIME = frozenset({"date", "message-id"})
# They say how a part is written, which depends on the version of Python too.
_ENCODING = frozenset({"content-transfer-encoding", "mime-version"})
_BOUNDARY = re.compile(r""";\s*boundary\s*=\s*(?:"[^"]*"|[^\s;]*)""", re.IGNORECASE)
_FOLDS = re.compile(r"[ \t\r\n]+")
# RFC 2392: HTML refers to another part by its Content-ID.
_REFERENCE = re.compile(rb"""cid:([^\s"'<>()&,;?#]+)""", re.IGNORECASE)


def digest(submission: Submission) -> str:
    """Return the SHA-256 of *submission*, in hexadecimal."""
    found = _Digest()
    found.add(submission.mail_from.encoded)
    found.add_all(sorted(mailbox.encoded for mailbox in submission.recipients))
    if submission.message is None:
        found.add(b"bytes")
        # Only the last: it needs no length before it.
        for block in submission.content.unsigned():
            found.hash.update(block)
    else:
        found.add(b"message")
        found.add_part(submission.message, _content_ids(submission.message), _ENCODING | _NEW_EACH_TIME)
    return found.hash.hexdigest()


class _Digest:
    """A hash of byte strings, each after its length: where one ends and the next begins counts too."""

    __slots__ = ("hash",)

    def __init__(self) -> None:
        # Changes whenever the same message would get another digest.
        self.hash = sha256(b"securesmtp 1")

    def add(self, data: bytes) -> None:
        self.hash.update(len(data).to_bytes(8, "big"))
        self.hash.update(data)

    def add_all(self, each: Iterable[bytes]) -> None:
        listed = list(each)
        self.hash.update(len(listed).to_bytes(8, "big"))
        for data in listed:
            self.add(data)

    def add_part(self, part: Message, ids: Mapping[bytes, bytes], left_out: frozenset[str] = _ENCODING) -> None:
        """Add the fields of *part* and what it holds; a Content-ID counts as its number in *ids*."""
        is_multipart, children = part.get_content_maintype() == "multipart", subparts(part)
        fields: list[bytes] = []
        for name, value in part.raw_items():
            lowered, text = name.lower(), _unfold(value)
            if lowered in left_out:
                continue
            if is_multipart and lowered == "content-type":
                text = _BOUNDARY.sub("", text)
            data = _encode(text)
            fields.append(_encode(lowered) + b": " + (ids[_bare(data)] if lowered == "content-id" else data))
        self.add_all(sorted(fields))
        self.hash.update(len(children).to_bytes(8, "big"))
        for child in children:
            self.add_part(child, ids)
        if not children:
            payload = part.get_payload(decode=True)
            data = payload if isinstance(payload, bytes) else b""
            if ids and part.get_content_maintype() == "text":
                data = _REFERENCE.sub(lambda each: ids.get(each[1], each[0]), data)
            self.add(data)


def _content_ids(message: Message) -> dict[bytes, bytes]:
    """Return a number for each Content-ID of the parts of *message*, and for its form in a URL."""
    ids: dict[bytes, bytes] = {}
    for part in message.walk():
        for name, value in part.raw_items():
            if name.lower() == "content-id":
                # No reference in a text looks like it, and it does not depend on how many need the form in a URL.
                bare, number = _bare(_encode(_unfold(value))), b"cid:<%d>" % len(set(ids.values()))
                ids.setdefault(bare, number)
                ids.setdefault(quote(bare, safe="@").encode(), ids[bare])
    return ids


def _unfold(value: object) -> str:
    # Other kinds of space are not where a field is folded, and count.
    return " ".join(_FOLDS.split(str(value))).strip(" ")


def _bare(content_id: bytes) -> bytes:
    return content_id.removeprefix(b"<").removesuffix(b">")


def _encode(text: str) -> bytes:
    # Surrogates are the bytes of a parsed message.
    return text.encode("utf-8", "surrogatepass")
