"""
What a DKIM signature covers, and how it is written (RFC 6376), with relaxed canonicalization of header and body.

Nothing here has a key or a clock: the caller passes what signs, and the time.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING

from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# RFC 6376 §5.4.1 and §5.4.2, and what says how the body is read. RFC 8058 §4 asks for both List-Unsubscribe fields.
DKIM_HEADERS = (
    "From", "Sender", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID", "In-Reply-To", "References",
    "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Language", "Auto-Submitted",
    "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Date", "Resent-Message-ID",
    "List-ID", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner",
    "List-Archive",
)  # fmt: skip
# Signed even if the caller leaves them out.
ALWAYS_SIGNED = ("From", "List-Unsubscribe", "List-Unsubscribe-Post")
# A message has at most one of each (RFC 5322 §3.6, RFC 2045 §3). Named once more than it is there, so that a second one
# voids the signature: readers show either of two (RFC 6376 §8.15).
_ONCE = frozenset(
    {
        "from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references",
        "mime-version", "content-type", "content-transfer-encoding",
    }
)  # fmt: skip
_FIELD = re.compile(rb"([!-9;-~]+):([^\r]*(?:\r\n[ \t][^\r]*)*)\r\n")
_BLANKS = re.compile(rb"[ \t]+")
_TWO_BLANKS = re.compile(rb" {2,}")
# RFC 5322 §2.1.1.
_PREFERRED_LINE = 78
_BASE64_LINE = 72
# Empty lines that are hashed at a time.
_EMPTY_LINES = 4096


class RelaxedBody:
    """The hash of a body in relaxed canonical form (RFC 6376 §3.4.4), fed in blocks with CRLF line ends."""

    def __init__(self) -> None:
        """Start with an empty body."""
        self._hash = sha256()
        # The beginning of a line whose end has not come yet; a line has at most 998 octets.
        self._line = b""
        # Empty lines count only if another line follows.
        self._empty_lines = 0
        self._is_empty = True

    def feed(self, block: bytes) -> None:
        """Add *block*."""
        end = block.rfind(b"\n") + 1
        if end:
            self._add_lines(self._line + block[:end])
            self._line = block[end:]
        else:
            self._line += block

    def digest(self) -> bytes:
        """Return the SHA-256 of all that was fed; nothing more can be."""
        if self._line:
            self._add_lines(self._line + b"\r\n")
        if not self._is_empty:
            self._hash.update(b"\r\n")
        return self._hash.digest()

    def _add_lines(self, lines: bytes) -> None:
        if b"\t" in lines:
            lines = lines.replace(b"\t", b" ")
        if b"  " in lines:
            lines = _TWO_BLANKS.sub(b" ", lines)
        lines = lines.replace(b" \r\n", b"\r\n")
        # The content has no bare CR or LF, so each of these octets belongs to a line end.
        text = lines.rstrip(b"\r\n")
        if not text:
            self._empty_lines += len(lines) // 2
            return
        if not self._is_empty:
            self._hash.update(b"\r\n")
        while self._empty_lines:
            count = min(self._empty_lines, _EMPTY_LINES)
            self._hash.update(b"\r\n" * count)
            self._empty_lines -= count
        self._hash.update(text)
        self._is_empty = False
        # The CRLF of the last line is added with what follows.
        self._empty_lines = (len(lines) - len(text)) // 2 - 1


@dataclass(frozen=True, slots=True)
class Tags:
    """
    What a signature says of itself.

    Attributes:
        algorithm: ``rsa-sha256`` or ``ed25519-sha256``.
        domain: Who is responsible, in ASCII.
        selector: The name of the key.
        headers: The names of the fields to sign, in lower case, each once; those that are not there are left out.
    """

    algorithm: str
    domain: str
    selector: str
    headers: tuple[str, ...]

    def encode(self, time: int) -> bytes:
        """Return them, but for those that depend on the message."""
        lines = (
            f" v=1; a={self.algorithm}; c=relaxed/relaxed; d={self.domain};",
            f" s={self.selector}; t={time};",
        )
        return "\r\n".join(lines).encode("ascii")


class Signable:
    """One message that is to be signed: its fields, and the hash of its body."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        """
        Read *blocks*, which have CRLF line ends and no DKIM signature of ours.

        Raises:
            MessageError: The body is not ASCII, or there is no From.
        """
        header, rest = _split(iter(blocks))
        body = RelaxedBody()
        for block in rest:
            if not block.isascii():
                text = "the body of the message has non-ASCII bytes, so a server on the way may void its signature"
                hint = "encode its parts as quoted-printable or base64, and attach messages as application/octet-stream"
                raise MessageError(text, hint=hint)
            body.feed(block)
        self._body_hash = b64encode(body.digest())
        # By name: the canonical fields, in the order of the header.
        self._fields: dict[str, list[bytes]] = {}
        for match in _FIELD.finditer(header):
            self._fields.setdefault(match[1].decode("ascii").lower(), []).append(relaxed_field(match[1], match[2]))
        if "from" not in self._fields:
            text = "the message has no From, so it cannot be signed"
            raise MessageError(text, hint="set it (RFC 5322 §3.6.2, RFC 6376 §5.4)")

    def sign(self, tags: Tags, time: int, signature: Callable[[bytes], bytes]) -> bytes:
        """
        Return the DKIM-Signature field.

        Args:
            tags: What it says of itself.
            time: The time of the signature, in seconds since 1970, UTC.
            signature: Returns the signature of some bytes.
        """
        present = [(name, self._fields[name]) for name in tags.headers if name in self._fields]
        names = [name for name, fields in present for _ in range(len(fields) + (name in _ONCE))]
        lines = (tags.encode(time), _fold_names(names), b" bh=" + self._body_hash + b";", b" b=")
        value = b"\r\n".join(lines)
        # From the last one up: that is how a verifier takes several fields of one name (RFC 6376 §5.4.2).
        signed = [field for _, fields in present for field in reversed(fields)]
        own = relaxed_field(b"DKIM-Signature", value).removesuffix(b"\r\n")
        encoded = b64encode(signature(b"".join([*signed, own])))
        parts = (encoded[start : start + _BASE64_LINE] for start in range(0, len(encoded), _BASE64_LINE))
        return b"DKIM-Signature:" + value + b"\r\n ".join(parts) + b"\r\n"


def relaxed_field(name: bytes, value: bytes) -> bytes:
    """Return a field in relaxed canonical form (RFC 6376 §3.4.2)."""
    return name.lower() + b":" + _BLANKS.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ") + b"\r\n"


def _split(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the header, and an iterator over the blocks of the body."""
    # So that the end of an empty header is found too. The header has at most 1 MiB.
    read = b"\r\n"
    for block in blocks:
        seen = max(len(read) - 3, 0)
        read += block
        end = read.find(b"\r\n\r\n", seen)
        if end >= 0:
            return read[2 : end + 2], chain((read[end + 4 :],), blocks)
    return read[2:], iter(())


def _fold_names(names: Iterable[str]) -> bytes:
    """Return the tag ``h`` with *names*, folded after colons: a fold inside of a name voids the signature."""
    lines, line = [], " h="
    for number, name in enumerate(names):
        item = f":{name}" if number else name
        if len(line) + len(item) + 1 > _PREFERRED_LINE and number:
            lines.append(f"{line}:")
            line, item = " ", name
        line += item
    return "\r\n".join([*lines, f"{line};"]).encode("ascii")
