"""
Check the bytes of a message and convert its line ends (RFC 5321 §2.3.8; RFC 5322 §2.1).

Every message passes `Scanner`, wherever it comes from. What the email package lets through depends on the patch level
of Python (CVE-2024-6923, CVE-2026-1299), and a bare CR or LF can turn one message into two (VU#302671).
"""

from __future__ import annotations

import re
from io import IncrementalNewlineDecoder
from typing import TYPE_CHECKING

from securesmtp._shown import escape
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Callable

# RFC 5321 §4.5.3.1.6: 1000 octets with CRLF.
MAX_LINE = 998
# Haraka breaks lines of more than 990 octets, in silence (measured); no server is known to break shorter ones.
SAFE_LINE = 900
# Servers accept far shorter headers (Postfix: 100 kB). Without a limit, one endless field in a file would fill memory.
MAX_HEADER = 1 << 20

_RE_ENCODE = "encode that part as quoted-printable or base64"

_BARE_CR = re.compile(rb"\r(?!\n)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
# RFC 5322 §2.2: printable ASCII except the colon. No space before the colon: parsers disagree on what it means.
_FIELD = re.compile(rb"([!-9;-~]+):")
# Matches a header in which nothing is to be refused, in linear time because there is only one way to match. Possessive
# quantifiers would guarantee that, but on early 3.11 fullmatch gets them wrong (a Bcc as last field passed).
_PLAIN_HEADER = re.compile(rb"(?:(?!(?:resent-)?bcc:)[!-9;-~]+:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*)*", re.IGNORECASE)
_MESSAGE_ID = re.compile(rb"^message-id:([^\r]*(?:\r\n[ \t][^\r]*)*)", re.IGNORECASE | re.MULTILINE)


class Scanner:
    """
    Check a message in one pass and convert its line ends to CRLF; an error names the line.

    Attributes:
        blocks: How many blocks were checked.
        changed: Whether a line end was converted.
        size: The number of bytes that were returned.
        is_ascii: Whether all of them are ASCII.
        column: How many bytes follow the last CRLF.
        utf8_header: Whether the header has non-ASCII text.
        message_id: The Message-ID of the header, in printable form.
        longest_line: The octets of the longest line, if they are more than 900; otherwise 0.
    """

    def __init__(self, count_lines: Callable[[], int]) -> None:
        """
        Start at the first line.

        Args:
            count_lines: Returns how many lines end in the blocks that were checked. It is called only for an error:
                counting them all would take a third of the time.
        """
        self.blocks = 0
        self.changed = False
        self._count_lines = count_lines
        self.size = 0
        self.is_ascii = True
        self.column = 0
        self._held = b""
        self._header: bytearray | None = bytearray(b"\r\n")
        self.message_id: str | None = None
        self.utf8_header = False
        self.longest_line = 0

    def feed(self, block: bytes) -> bytes:
        """
        Return *block* with CRLF line ends; a CR at its end is returned with the next block.

        Raises:
            MessageError: It has a NUL, a bare CR, or a line of more than 998 octets.
        """
        if self._held or block.endswith(b"\r"):
            block = self._held + block
            self._held = b"\r" if block.endswith(b"\r") else b""
            block = block[: len(block) - len(self._held)]
        if (nul := block.find(b"\0")) >= 0:
            raise self._error("has a NUL", block[:nul], _RE_ENCODE)
        # It says which line ends there are, in half the time of two counts and a search.
        decoder = IncrementalNewlineDecoder(None, translate=False)
        decoder.decode(block.decode("latin-1"), final=True)
        if decoder.newlines not in (None, "\r\n"):
            if bare := _BARE_CR.search(block):
                raise self._error("has a CR without LF", block[: bare.start()])
            self.changed = True
            block = with_crlf(block)
        self._measure(block)
        self.size += len(block)
        self.is_ascii = self.is_ascii and block.isascii()
        if self._header is not None:
            self._collect_header(self._header, block)
        self.blocks += 1
        return block

    def finish(self) -> None:
        """
        Check the end of the message.

        Raises:
            MessageError: As for `feed`; or the message has no body and its header is malformed.
        """
        if self._held:
            raise self._error("has a CR without LF", b"")
        self._note_length(self.column, b"")
        if self._header is not None:
            self._check_header(bytes(self._header[2:]))

    def _measure(self, block: bytes) -> None:
        # Jump from a line end to the last one within the longest safe line: one search per 900 bytes, not per line.
        start, last_start = -self.column, len(block) - SAFE_LINE - 2
        while start < last_start:
            window = max(0, start), max(0, start + SAFE_LINE + 2)
            end = block.rfind(b"\n", *window)
            if end < 0:
                end = block.find(b"\n", window[1])
                # The CR and the LF do not count.
                self._note_length((len(block) if end < 0 else end - 1) - start, block[: window[0]])
                if end < 0:
                    break
            start = end + 1
        last = block.rfind(b"\n")
        self.column = len(block) - last - 1 if last >= 0 else self.column + len(block)

    def _note_length(self, length: int, before: bytes) -> None:
        if length > MAX_LINE:
            raise self._error(f"is longer than {MAX_LINE} bytes", before, _RE_ENCODE)
        if length > SAFE_LINE:
            self.longest_line = max(self.longest_line, length)

    def _collect_header(self, header: bytearray, block: bytes) -> None:
        # A CRLF was put before the header, so that one search also finds the end of an empty header.
        seen = max(len(header) - 3, 0)
        header += block
        end = header.find(b"\r\n\r\n", seen, MAX_HEADER)
        if end >= 0:
            self._header = None
            self._check_header(bytes(header[2 : end + 2]))
        elif len(header) > MAX_HEADER:
            message = f"the header is longer than {MAX_HEADER} bytes"
            raise MessageError(message, hint="an empty line has to end it, with CRLF if binary=True")

    def _check_header(self, header: bytes) -> None:
        if not _PLAIN_HEADER.fullmatch(header):
            _check_lines(header)
        if not header.isascii():
            self.utf8_header = True
            try:
                header.decode()
            except UnicodeDecodeError as error:
                raise _line_error(header.count(b"\n", 0, error.start) + 1, "of the header is not UTF-8") from None
        match = _MESSAGE_ID.search(header)
        self.message_id = escape(b" ".join(match[1].split()), MAX_LINE) or None if match else None

    def _error(self, what: str, before: bytes, hint: str | None = None) -> MessageError:
        return _line_error(self._count_lines() + before.count(b"\n") + 1, what, hint)


class BinaryScanner(Scanner):
    """Check the header of a message whose body may have any bytes (RFC 3030 §3), and convert nothing."""

    def __init__(self) -> None:
        """Start at the first line."""
        super().__init__(lambda: 0)

    def feed(self, block: bytes) -> bytes:
        """
        Return *block* as it is.

        Raises:
            MessageError: The header ends in it, and cannot be sent as it is.
        """
        self.size += len(block)
        self.is_ascii = self.is_ascii and block.isascii()
        if self._header is not None:
            self._collect_header(self._header, block)
        return block

    def _check_header(self, header: bytes) -> None:
        # First: without CRLF, the header does not end where its author sees the end, and has bytes of the body.
        if _BARE_LF.search(header):
            message = "the header of a binary message has a line end that is not CRLF"
            raise MessageError(message, hint="end each line of the header, and of each text part, with CRLF")
        lines = Scanner(lambda: 0)
        lines.feed(header)
        lines.finish()
        self.utf8_header, self.message_id = lines.utf8_header, lines.message_id


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


def with_crlf(data: bytes) -> bytes:
    """Return *data* with CRLF in place of each LF."""
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
