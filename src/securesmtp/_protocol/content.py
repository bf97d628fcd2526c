"""
Octets of one message: checked, in CRLF form, cut into blocks, dot-stuffed (RFC 5321 §2.3.8, §4.5.2; RFC 5322 §2.1).

Every message passes `Scanner`, whatever it came from: what the email package lets through depends on the patch level of
Python (CVE-2024-6923, CVE-2026-1299), and a bare CR or LF is how one message becomes two (VU#302671).
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, BinaryIO, TypeVar

from securesmtp._shown import escape
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

S = TypeVar("S", bytes, str)
# Large enough that Python's work per block does not show, small enough for a time limit of its own (TMO-03).
BLOCK = 65536
# A content without a line: what answers a 354 that nobody wants any more (RFC 2920 §3.1).
EMPTY = b".\r\n"
# RFC 5321 §4.5.3.1.6: 1000 with CRLF.
MAX_LINE = 998
# Servers stop reading a header far below (Postfix: 100 kB); without a bound a file of one field would fill the memory.
MAX_HEADER = 1 << 20
# What is kept in memory of a file; the rest is in an anonymous temporary file.
_MAX_MEMORY = 1 << 20

_RE_ENCODE = "encode the part that it is in as quoted-printable or base64"

_BARE_CR = re.compile(rb"\r(?!\n)")
# RFC 5322 §2.2: printable ASCII without the colon; no space before it, which parsers read in two ways.
_FIELD = re.compile(rb"([!-9;-~]+):")
# A header in which there is nothing to be refused, in one step. There is one way to match, so that one without end is
# little work; possessive quantifiers would say so, but fullmatch gets them wrong on early 3.11 (a last Bcc passed).
_PLAIN_HEADER = re.compile(rb"(?:(?!(?:resent-)?bcc:)[!-9;-~]+:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*)*", re.IGNORECASE)
_MESSAGE_ID = re.compile(rb"^message-id:([^\r]*(?:\r\n[ \t][^\r]*)*)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Content:
    """
    The checked octets of one message in CRLF form.

    Attributes:
        size: Octets, before dot-stuffing (RFC 1870 §3).
        is_ascii: Whether all of them are; if not, the server must offer 8BITMIME.
        utf8_header: Whether the header is not ASCII; then the server must offer SMTPUTF8.
        message_id: The Message-ID that stands in the header, as it may be shown.
        ended: Whether the last line has its CRLF.
    """

    size: int
    is_ascii: bool
    utf8_header: bool
    message_id: str | None
    ended: bool
    source: bytes | IO[bytes] | tuple[bytes | str, ...] = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Content:
        """
        Check *data* and make its line ends CRLF.

        Raises:
            MessageError: It cannot be sent as it is.
        """
        scanner = Scanner()
        for block in _cut(data):
            scanner.feed(block)
        scanner.finish()
        if scanner.changed:
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        return scanner.content(data)

    @classmethod
    def from_pieces(cls, pieces: tuple[bytes | str, ...]) -> Content:
        """
        Check *pieces* one behind the other; a str is ASCII with LF line ends, and no copy of it is made.

        Raises:
            MessageError: They cannot be sent as they are.
        """
        scanner = Scanner()
        for block in _written(pieces):
            scanner.feed(block)
        scanner.finish()
        return cls.from_bytes(b"".join(_written(pieces))) if scanner.changed else scanner.content(pieces)

    @classmethod
    def from_file(cls, file: BinaryIO) -> Content:
        """
        Read *file* to its end into a private copy, so that what is checked is what is sent, and memory does not grow.

        Raises:
            MessageError: It cannot be sent as it is, or *file* is not open in binary mode.
        """
        # Imported where it is needed: 4 ms that only files cost.
        import tempfile

        scanner = Scanner()
        copy = tempfile.SpooledTemporaryFile(max_size=_MAX_MEMORY)  # noqa: SIM115 -- closed by Content.close
        try:
            while (data := file.read(BLOCK)) != b"":
                if not isinstance(data, bytes):  # text, or None from a file that has nothing yet
                    message = f"the file gives {type(data).__name__}, not bytes"
                    raise MessageError(message, hint='open it with mode "rb", blocking')  # noqa: TRY301 -- the copy is closed below
                copy.write(scanner.feed(data))
            scanner.finish()
        except BaseException:
            copy.close()
            raise
        return scanner.content(copy)

    def close(self) -> None:
        """Give back the temporary file, if there is one."""
        if not isinstance(self.source, bytes | tuple):
            # A full disk may say so only here, of what was buffered.
            with suppress(OSError):
                self.source.close()

    def blocks(self) -> Iterator[bytes]:
        """Yield the octets as they go to the wire after 354; the last block ends the content (RFC 5321 §4.1.1.4)."""
        return stuffed(self._read())

    @property
    def octets(self) -> int:
        """How many octets `chunk` has."""
        return self.size + (0 if self.ended else 2)

    def chunk(self) -> Iterator[bytes]:
        """Yield the octets as they go to the wire after BDAT: as they are, the last line ended (RFC 3030 §2)."""
        yield from self._read()
        if not self.ended:
            yield b"\r\n"

    def _read(self) -> Iterator[bytes]:
        if isinstance(self.source, bytes):
            yield from _cut(self.source)
        elif isinstance(self.source, tuple):
            yield from _written(self.source)
        else:
            self.source.seek(0)
            while block := self.source.read(BLOCK):
                yield block


def _written(pieces: Iterable[bytes | str]) -> Iterator[bytes]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield from _cut(piece)
        else:
            yield from (block.encode("ascii").replace(b"\n", b"\r\n") for block in _cut(piece))


def _cut(octets: S) -> Iterator[S]:
    return (octets[start : start + BLOCK] for start in range(0, len(octets), BLOCK))


def stuffed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """
    Yield canonical *blocks* with each leading dot doubled, and then the line that ends the content (RFC 5321 §4.5.2).

    The end is in the last block, together with the last octets: what was written without it is no message, and a
    small message is one write.
    """
    ready, held, lead = b"", b"\r\n", 2
    for block in filter(None, blocks):
        if ready:
            yield ready
        # What a CRLF and its dot could be split over is kept back, so that one replace sees them together. In front of
        # the first line stands a CRLF of our own (lead), for its dot is a leading one as well.
        text = held + block
        keep = 1 if text.endswith(b"\r") else 2 if text.endswith(b"\r\n") else 0
        ready, held, lead = text[: len(text) - keep].replace(b"\r\n.", b"\r\n..")[lead:], text[len(text) - keep :], 0
    yield ready + held[lead:] + (b".\r\n" if held.endswith(b"\r\n") else b"\r\n.\r\n")


class Scanner:
    """One pass over a message: refuse what cannot be sent, with its line number; return the octets in CRLF form."""

    def __init__(self) -> None:
        """Begin with the first line."""
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
        Return *block* with its line ends made CRLF; a CR at its end waits for the next block.

        Raises:
            MessageError: A NUL, a bare CR, or a line of more than 998 octets.
        """
        block = self._held + block
        self._held = b"\r" if block.endswith(b"\r") else b""
        block = block[: len(block) - len(self._held)]
        if (nul := block.find(b"\0")) >= 0:
            raise self._refused("has a NUL", block[:nul], _RE_ENCODE)
        if bare := _BARE_CR.search(block):
            raise self._refused("has a CR that no LF follows", block[: bare.start()])
        lines = block.count(b"\n")
        if block.count(b"\r") != lines:
            self.changed = True
            block = block.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._measure(block)
        self._size += len(block)
        self._is_ascii = self._is_ascii and block.isascii()
        if self._in_header:
            self._collect(block)
        self._line += lines
        return block

    def finish(self) -> None:
        """
        Check what only the end can tell.

        Raises:
            MessageError: As `feed`; or the header is not one.
        """
        if self._held:
            raise self._refused("has a CR that no LF follows", b"")
        if self._column > MAX_LINE:
            raise self._refused(f"is longer than {MAX_LINE} octets", b"", _RE_ENCODE)
        if self._in_header:
            self._check_header(bytes(self._header[2:]))

    def content(self, source: bytes | IO[bytes] | tuple[bytes | str, ...]) -> Content:
        """Return the finding, over *source*, which holds what `feed` returned."""
        return Content(self._size, self._is_ascii, self._utf8_header, self._message_id, not self._column, source)

    def _measure(self, block: bytes) -> None:
        # From one line end to the furthest that a legal line can have: a search a thousand octets, not a line.
        start = -self._column
        while len(block) - start > MAX_LINE + 2:
            end = block.rfind(b"\n", max(start, 0), start + MAX_LINE + 2)
            if end < 0:
                raise self._refused(f"is longer than {MAX_LINE} octets", block[: max(start, 0)], _RE_ENCODE)
            start = end + 1
        last = block.rfind(b"\n")
        self._column = len(block) - last - 1 if last >= 0 else self._column + len(block)

    def _collect(self, block: bytes) -> None:
        # The header began with a CRLF of our own, so that an empty header ends as any other does.
        seen = max(len(self._header) - 3, 0)
        self._header += block
        end = self._header.find(b"\r\n\r\n", seen, MAX_HEADER)
        if end >= 0:
            self._in_header = False
            self._check_header(bytes(self._header[2 : end + 2]))
            self._header.clear()
        elif len(self._header) > MAX_HEADER:
            message = f"the header is longer than {MAX_HEADER} octets"
            raise MessageError(message)

    def _check_header(self, header: bytes) -> None:
        if not _PLAIN_HEADER.fullmatch(header):
            _check_lines(header)
        if not header.isascii():
            self._utf8_header = True
            try:
                header.decode()
            except UnicodeDecodeError as error:
                raise _at(header.count(b"\n", 0, error.start) + 1, "is a header that is not UTF-8") from None
        found = _MESSAGE_ID.search(header)
        self._message_id = escape(b" ".join(found[1].split()), MAX_LINE) or None if found else None

    def _refused(self, what: str, before: bytes, hint: str | None = None) -> MessageError:
        return _at(self._line + before.count(b"\n"), what, hint)


def _check_lines(header: bytes) -> None:
    for number, text in enumerate(header.removesuffix(b"\r\n").split(b"\r\n"), 1):
        if text[:1] in {b" ", b"\t"} and number > 1:
            continue
        parsed = _FIELD.match(text)
        if text and not parsed:
            hint = "the header ends with an empty line"
            raise _at(number, "is neither a header field nor the continuation of one", hint)
        # RFC 5322 §3.6.3; in raw bytes we change nothing, so it is for the caller to take it out.
        if parsed and parsed[1].lower() in {b"bcc", b"resent-bcc"}:
            raise _at(number, f"is a {parsed[1].decode()} field, which every recipient would see", "take it out")


def _at(number: int, what: str, hint: str | None = None) -> MessageError:
    return MessageError(f"line {number} {what}", hint=hint)
