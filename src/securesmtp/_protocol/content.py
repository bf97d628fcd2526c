"""The checked bytes of a message, and how they are written after DATA or BDAT (RFC 5321 §4.5.2; RFC 3030 §2)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, TYPE_CHECKING, BinaryIO, TypeVar

from securesmtp._interrupts import SuppressErrors
from securesmtp._protocol.scanner import BinaryScanner, Scanner, with_crlf
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

S = TypeVar("S", bytes, str)
# Large enough that Python's work per block does not matter, small enough for a time limit per block (TMO-03).
BLOCK = 65536
# Content without any line. It is sent when a 354 arrives although the message must not be sent (RFC 2920 §3.1).
EMPTY = b".\r\n"
# The copy of a file is in memory up to this size, and in an anonymous temporary file beyond it.
_MAX_MEMORY = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """
    The checked bytes of one message, with CRLF line ends.

    Attributes:
        size: The number of bytes that the server receives, without dot-stuffing and the final dot (RFC 1870 §3).
        is_ascii: Whether all bytes are ASCII; if not, the server must offer 8BITMIME.
        utf8_header: Whether the header has non-ASCII text; then the server must offer SMTPUTF8.
        message_id: The Message-ID of the header, in printable form.
        ends_with_crlf: Whether the last line has its CRLF, or needs none; `blocks` and `chunk` add it if not.
        source: A temporary file, or pieces that follow each other.
        is_binary: Whether the body may have any bytes; then the server must offer BINARYMIME.
        longest_line: The octets of the longest line, if they are more than 900; otherwise 0.
        prefix: Fields before it: the DKIM signatures of the mailer.
    """

    size: int
    is_ascii: bool
    utf8_header: bool
    message_id: str | None
    ends_with_crlf: bool
    source: IO[bytes] | tuple[bytes | str, ...] = field(repr=False)
    is_binary: bool = False
    longest_line: int = 0
    prefix: bytes = field(default=b"", repr=False)

    @classmethod
    def from_bytes(cls, data: bytes, *, is_binary: bool = False) -> Content:
        """
        Check *data* and convert its line ends to CRLF; if it *is_binary*, check its header, and change nothing.

        Raises:
            MessageError: It cannot be sent as it is.
        """
        if not is_binary:
            return cls.from_pieces((data,))
        scanner = BinaryScanner()
        scanner.feed(data)
        scanner.finish()
        return cls._of(scanner, (data,))

    @classmethod
    def from_pieces(cls, pieces: tuple[bytes | str, ...]) -> Content:
        """
        Check *pieces*, which follow each other. A str must be ASCII with LF line ends; no copy of it is made.

        Raises:
            MessageError: They cannot be sent as they are.
        """
        scanner = Scanner(lambda: _count_lines(islice(_encode(pieces), scanner.blocks)))
        for block in _encode(pieces):
            scanner.feed(block)
        scanner.finish()
        return cls._of(scanner, (with_crlf(b"".join(_encode(pieces))),) if scanner.changed else pieces)

    @classmethod
    def from_file(cls, file: BinaryIO, *, is_binary: bool = False) -> Content:
        """
        Read *file* to its end into a private copy: what is checked is what is sent, and memory use stays bounded.

        It is checked and changed as by `from_bytes`.

        Raises:
            MessageError: It cannot be sent as it is, or *file* is not open in binary mode.
        """
        # Imported only when needed: it takes 4 ms.
        import tempfile

        with ExitStack() as on_error:
            copy = on_error.enter_context(tempfile.SpooledTemporaryFile(max_size=_MAX_MEMORY))
            scanner = BinaryScanner() if is_binary else Scanner(lambda: _count_lines(_blocks_of(copy)))
            while block := _read_block(file):
                copy.write(scanner.feed(block))
            scanner.finish()
            # From here on, `Content.close` closes it.
            on_error.pop_all()
        return cls._of(scanner, copy)

    @classmethod
    def _of(cls, scanner: Scanner, source: IO[bytes] | tuple[bytes | str, ...]) -> Content:
        """Return what *scanner* has checked; *source* has the bytes that it returned."""
        size, ends_with_crlf, is_binary = scanner.size, not scanner.column, isinstance(scanner, BinaryScanner)
        size += 0 if ends_with_crlf else 2
        return cls(
            size,
            scanner.is_ascii,
            scanner.utf8_header,
            scanner.message_id,
            ends_with_crlf,
            source,
            is_binary,
            scanner.longest_line,
        )

    def close(self) -> None:
        """Delete the temporary file, if there is one."""
        if not isinstance(self.source, tuple):
            # On a full disk, writing the buffered bytes fails only now, when they are no longer needed.
            with SuppressErrors(OSError):
                self.source.close()

    def with_prefix(self, prefix: bytes) -> Content:
        """Return it with the fields *prefix* before it; both have the same source."""
        return replace(self, size=self.size + len(prefix), prefix=prefix)

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes to send after a 354, dot-stuffed; the last block ends the content (RFC 5321 §4.1.1.4)."""
        return dot_stuff(self._read())

    def chunk(self) -> Iterator[bytes]:
        """Yield the bytes to send after BDAT, without dot-stuffing: as many as `size` says (RFC 3030 §2)."""
        yield from self._read()
        if not self.ends_with_crlf:
            yield b"\r\n"

    def unsigned(self) -> Iterator[bytes]:
        """Yield what `chunk` does, without `prefix`."""
        yield from self._read_source()
        if not self.ends_with_crlf:
            yield b"\r\n"

    def whole_chunk(self) -> bytes:
        """Return all that `chunk` yields."""
        source, is_whole = self.source, self.ends_with_crlf and not self.prefix
        if is_whole and isinstance(source, tuple) and len(source) == 1 and isinstance(source[0], bytes):
            return source[0]
        return b"".join(self.chunk())

    def _read(self) -> Iterator[bytes]:
        blocks = self._read_source()
        if self.prefix:
            # Together with the first block: a small message needs only one write.
            yield self.prefix + next(blocks, b"")
        yield from blocks

    def _read_source(self) -> Iterator[bytes]:
        return _encode(self.source) if isinstance(self.source, tuple) else _blocks_of(self.source)


def _blocks_of(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(BLOCK):
        yield block


def _count_lines(blocks: Iterable[bytes]) -> int:
    return sum(block.count(b"\n") for block in blocks)


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
