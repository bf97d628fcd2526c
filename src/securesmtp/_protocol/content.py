"""
Check the bytes of a message and prepare them for DATA or BDAT (RFC 5321 §2.3.8, §4.5.2; RFC 5322 §2.1).

Every message passes `Scanner`, wherever it comes from. What the email package lets through depends on the patch level
of Python (CVE-2024-6923, CVE-2026-1299), and a bare CR or LF can turn one message into two (VU#302671).
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, BinaryIO, TypeVar

from securesmtp._interrupts import SuppressErrors
from securesmtp._shown import escape
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

S = TypeVar("S", bytes, str)
# Large enough that Python's work per block does not matter, small enough for a time limit per block (TMO-03).
BLOCK = 65536
# Content without any line. It is sent when a 354 arrives although the message must not be sent (RFC 2920 §3.1).
EMPTY = b".\r\n"
# RFC 5321 §4.5.3.1.6: 1000 octets with CRLF.
MAX_LINE = 998
# Servers accept far shorter headers (Postfix: 100 kB). Without a limit, one endless field in a file would fill memory.
MAX_HEADER = 1 << 20
# The copy of a file is in memory up to this size, and in an anonymous temporary file beyond it.
_MAX_MEMORY = 1 << 20

_RE_ENCODE = "encode that part as quoted-printable or base64"

_BARE_CR = re.compile(rb"\r(?!\n)")
# RFC 5322 §2.2: printable ASCII except the colon. No space before the colon: parsers disagree on what it means.
_FIELD = re.compile(rb"([!-9;-~]+):")
# Matches a header in which nothing is to be refused, in linear time because there is only one way to match. Possessive
# quantifiers would guarantee that, but on early 3.11 fullmatch gets them wrong (a Bcc as last field passed).
_PLAIN_HEADER = re.compile(rb"(?:(?!(?:resent-)?bcc:)[!-9;-~]+:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*)*", re.IGNORECASE)
_MESSAGE_ID = re.compile(rb"^message-id:([^\r]*(?:\r\n[ \t][^\r]*)*)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Content:
    """
    The checked bytes of one message, with CRLF line ends.

    Attributes:
        size: The number of bytes that the server receives, without dot-stuffing and the final dot (RFC 1870 §3).
        is_ascii: Whether all bytes are ASCII; if not, the server must offer 8BITMIME.
        utf8_header: Whether the header has non-ASCII text; then the server must offer SMTPUTF8.
        message_id: The Message-ID of the header, in printable form.
        ends_with_crlf: Whether the last line has its CRLF; `blocks` and `chunk` add it if not.
        source: A temporary file, or pieces that follow each other.
    """

    size: int
    is_ascii: bool
    utf8_header: bool
    message_id: str | None
    ends_with_crlf: bool
    source: IO[bytes] | tuple[bytes | str, ...] = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Content:
        """
        Check *data* and convert its line ends to CRLF.

        Raises:
            MessageError: It cannot be sent as it is.
        """
        return cls.from_pieces((data,))

    @classmethod
    def from_pieces(cls, pieces: tuple[bytes | str, ...]) -> Content:
        """
        Check *pieces*, which follow each other. A str must be ASCII with LF line ends; no copy of it is made.

        Raises:
            MessageError: They cannot be sent as they are.
        """
        scanner = Scanner()
        for block in _encode(pieces):
            scanner.feed(block)
        scanner.finish()
        return scanner.content((_with_crlf(b"".join(_encode(pieces))),) if scanner.changed else pieces)

    @classmethod
    def from_file(cls, file: BinaryIO) -> Content:
        """
        Read *file* to its end into a private copy: what is checked is what is sent, and memory use stays bounded.

        Raises:
            MessageError: It cannot be sent as it is, or *file* is not open in binary mode.
        """
        # Imported only when needed: it takes 4 ms.
        import tempfile

        scanner = Scanner()
        with ExitStack() as on_error:
            copy = on_error.enter_context(tempfile.SpooledTemporaryFile(max_size=_MAX_MEMORY))
            while block := _read_block(file):
                copy.write(scanner.feed(block))
            scanner.finish()
            # From here on, `Content.close` closes it.
            on_error.pop_all()
        return scanner.content(copy)

    def close(self) -> None:
        """Delete the temporary file, if there is one."""
        if not isinstance(self.source, tuple):
            # On a full disk, writing the buffered bytes fails only now, when they are no longer needed.
            with SuppressErrors(OSError):
                self.source.close()

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes to send after a 354, dot-stuffed; the last block ends the content (RFC 5321 §4.1.1.4)."""
        return dot_stuff(self._read())

    def chunk(self) -> Iterator[bytes]:
        """Yield the bytes to send after BDAT, without dot-stuffing: as many as `size` says (RFC 3030 §2)."""
        yield from self._read()
        if not self.ends_with_crlf:
            yield b"\r\n"

    def whole_chunk(self) -> bytes:
        """Return all that `chunk` yields."""
        if self.ends_with_crlf and isinstance(self.source, tuple) and len(self.source) == 1:
            (piece,) = self.source
            if isinstance(piece, bytes):
                return piece
        return b"".join(self.chunk())

    def _read(self) -> Iterator[bytes]:
        if isinstance(self.source, tuple):
            yield from _encode(self.source)
        else:
            self.source.seek(0)
            while block := self.source.read(BLOCK):
                yield block


def _with_crlf(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _read_block(file: BinaryIO) -> bytes:
    block: object = file.read(BLOCK)
    # It is a str in text mode, and None from a non-blocking file that has no data yet.
    if not isinstance(block, bytes):
        message = f"reading the file returned {type(block).__name__}, not bytes"
        raise MessageError(message, hint='open it with mode "rb", blocking')
    return block


def _encode(pieces: Iterable[bytes | str]) -> Iterator[bytes]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield from _split(piece)
        else:
            yield from (block.encode("ascii").replace(b"\n", b"\r\n") for block in _split(piece))


def _split(data: S) -> Iterator[S]:
    return (data[start : start + BLOCK] for start in range(0, len(data), BLOCK))


def dot_stuff(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """
    Yield *blocks*, which have CRLF line ends, with each leading dot doubled, then the final dot (RFC 5321 §4.5.2).

    The final dot is in the same block as the last bytes of the message: without that block the server has no complete
    message, and a small message needs only one write.
    """
    # The first line has no CRLF before it. One is added, so that its dot is found, and removed again (skip).
    ready, held, skip = b"", b"\r\n", 2
    for block in filter(None, blocks):
        if ready:
            yield ready
        # Hold back a CR or CRLF at the end of the block: the next block may begin with the rest of b"\r\n.".
        text = held + block
        keep = 1 if text.endswith(b"\r") else 2 if text.endswith(b"\r\n") else 0
        ready, held, skip = text[: len(text) - keep].replace(b"\r\n.", b"\r\n..")[skip:], text[len(text) - keep :], 0
    yield ready + held[skip:] + (b".\r\n" if held.endswith(b"\r\n") else b"\r\n.\r\n")


class Scanner:
    """Check a message in one pass and convert its line ends to CRLF; an error names the line."""

    def __init__(self) -> None:
        """Start at the first line."""
        self.changed = False
        self._size = 0
        self._is_ascii = True
        self._line = 1
        self._column = 0
        self._held = b""
        self._header = bytearray(b"\r\n")
        self._in_header = True
        self._message_id: str | None = None
        self._utf8_header = False

    def feed(self, block: bytes) -> bytes:
        """
        Return *block* with CRLF line ends; a CR at its end is returned with the next block.

        Raises:
            MessageError: It has a NUL, a bare CR, or a line of more than 998 octets.
        """
        block = self._held + block
        self._held = b"\r" if block.endswith(b"\r") else b""
        block = block[: len(block) - len(self._held)]
        if (nul := block.find(b"\0")) >= 0:
            raise self._error("has a NUL", block[:nul], _RE_ENCODE)
        if bare := _BARE_CR.search(block):
            raise self._error("has a CR without LF", block[: bare.start()])
        lines = block.count(b"\n")
        if block.count(b"\r") != lines:
            self.changed = True
            block = _with_crlf(block)
        self._measure(block)
        self._size += len(block)
        self._is_ascii = self._is_ascii and block.isascii()
        if self._in_header:
            self._collect_header(block)
        self._line += lines
        return block

    def finish(self) -> None:
        """
        Check the end of the message.

        Raises:
            MessageError: As for `feed`; or the message has no body and its header is malformed.
        """
        if self._held:
            raise self._error("has a CR without LF", b"")
        if self._column > MAX_LINE:
            raise self._error(f"is longer than {MAX_LINE} bytes", b"", _RE_ENCODE)
        if self._in_header:
            self._check_header(bytes(self._header[2:]))

    def content(self, source: IO[bytes] | tuple[bytes | str, ...]) -> Content:
        """Return the checked message; *source* has the bytes that `feed` returned."""
        ends_with_crlf = not self._column
        size = self._size if ends_with_crlf else self._size + 2
        return Content(size, self._is_ascii, self._utf8_header, self._message_id, ends_with_crlf, source)

    def _measure(self, block: bytes) -> None:
        # Jump from a line end to the last one within the longest legal line: one search per 1000 bytes, not per line.
        start = -self._column
        while len(block) - start > MAX_LINE + 2:
            end = block.rfind(b"\n", max(start, 0), start + MAX_LINE + 2)
            if end < 0:
                raise self._error(f"is longer than {MAX_LINE} bytes", block[: max(start, 0)], _RE_ENCODE)
            start = end + 1
        last = block.rfind(b"\n")
        self._column = len(block) - last - 1 if last >= 0 else self._column + len(block)

    def _collect_header(self, block: bytes) -> None:
        # A CRLF was put before the header, so that one search also finds the end of an empty header.
        seen = max(len(self._header) - 3, 0)
        self._header += block
        end = self._header.find(b"\r\n\r\n", seen, MAX_HEADER)
        if end >= 0:
            self._in_header = False
            self._check_header(bytes(self._header[2 : end + 2]))
            self._header.clear()
        elif len(self._header) > MAX_HEADER:
            message = f"the header is longer than {MAX_HEADER} bytes"
            raise MessageError(message)

    def _check_header(self, header: bytes) -> None:
        if not _PLAIN_HEADER.fullmatch(header):
            _check_lines(header)
        if not header.isascii():
            self._utf8_header = True
            try:
                header.decode()
            except UnicodeDecodeError as error:
                raise _line_error(header.count(b"\n", 0, error.start) + 1, "of the header is not UTF-8") from None
        match = _MESSAGE_ID.search(header)
        self._message_id = escape(b" ".join(match[1].split()), MAX_LINE) or None if match else None

    def _error(self, what: str, before: bytes, hint: str | None = None) -> MessageError:
        return _line_error(self._line + before.count(b"\n"), what, hint)


def _check_lines(header: bytes) -> None:
    for line, text in enumerate(header.removesuffix(b"\r\n").split(b"\r\n"), 1):
        if text[:1] in {b" ", b"\t"} and line > 1:
            continue
        match = _FIELD.match(text)
        if text and not match:
            what = "is neither a header field nor the continuation of one"
            raise _line_error(line, what, "an empty line must end the header")
        # RFC 5322 §3.6.3. Raw bytes are sent unchanged, so only the caller can remove it.
        if match and match[1].lower() in {b"bcc", b"resent-bcc"}:
            raise _line_error(line, f"is a {match[1].decode()} field, which every recipient would see", "remove it")


def _line_error(line: int, what: str, hint: str | None = None) -> MessageError:
    return MessageError(f"line {line} {what}", hint=hint)
