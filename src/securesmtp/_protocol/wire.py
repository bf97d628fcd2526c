"""Build command lines and read replies: the only place that does (RFC 5321 §2.3.8, §4.2)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from securesmtp._protocol.redaction import Memory, Redactor
from securesmtp._protocol.replies import is_auth_continue
from securesmtp._shown import KEPT_TEXT, escape
from securesmtp._values import Reply
from securesmtp.errors import ConfigurationError, ProtocolError

# RFC 5321 §4.5.3.1.4. Our longest command is far shorter: a path has at most 256 octets.
MAX_COMMAND = 512
# RFC 4954 §4.
MAX_AUTH = 12288
# RFC 5321 §4.5.3.1.5 says 512. Real servers exceed that; a flood exceeds this as well.
MAX_REPLY_LINE = 2048
MAX_REPLY_LINES = 128
MAX_REPLY = 65536
# Bytes that may wait in a reader, complete replies included: its owner takes out the replies before it feeds more.
MAX_UNREAD = 131072
# A reader remembers this many replies of one line of at most so many bytes: servers repeat most of theirs.
_MAX_REMEMBERED = 64
_MAX_REMEMBERED_LINE = 128
# Bytes of one reply that an error or a receipt keeps.
KEPT_RAW = 4096
# A receipt keeps this much of all its replies, in bytes and in characters, and this much of each reply after those.
KEPT_IN_ALL = 262144
KEPT_BEYOND = 96

_COMMAND = re.compile(rb"[ -~]*")
# MAIL and RCPT may contain UTF-8 after SMTPUTF8 was negotiated (RFC 6531 §3.3). Mailbox refuses C1 controls.
_COMMAND_UTF8 = re.compile(rb"[ -~\x80-\xff]*")
# RFC 5321 §4.2 allows no second digit above 5. Servers do send such refusals (571); the first digit suffices (§4.3.2).
_REPLY_LINE = re.compile(rb"([23][0-5][0-9]|[45][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
# RFC 3463 §2; the class must be the first digit of the code (RFC 2034 §4).
_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})(?: |$)")


# Not frozen, like all that a message needs several of: a frozen object takes three times as long to make (measured).
@dataclass(slots=True)
class Line:
    """
    One line to write, CRLF included. The repr of a line with secrets shows none of it.

    Attributes:
        data: The bytes to write.
        secrets: The secrets in *data*, decoded; they are redacted from every later reply.
        known: Secrets that are redacted from every later reply as well, although *data* has none: the server may know
            them from elsewhere.
    """

    data: bytes
    secrets: tuple[bytes, ...] = ()
    known: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        """Return the line without CRLF, or a placeholder if it has secrets."""
        return "Line(<redacted>)" if self.secrets else f"Line({self.data[:-2]!r})"


def line(
    verb: bytes,
    *arguments: bytes,
    secrets: tuple[bytes, ...] = (),
    known: tuple[bytes, ...] = (),
    utf8: bool = False,
    limit: int = MAX_COMMAND,
) -> Line:
    """
    Return one command line; refuse any text that a server could read as two commands (such as CVE-2026-53533).

    Raises:
        ConfigurationError: It has a control character, a non-ASCII byte without *utf8*, or more than *limit* bytes.
    """
    text = b" ".join((verb, *arguments))
    if not (_COMMAND_UTF8 if utf8 else _COMMAND).fullmatch(text):
        message = "a command line may contain printable characters only"
        raise ConfigurationError(message)
    if len(text) + 2 > limit:
        message = f"the command line has {len(text) + 2} bytes, and SMTP allows {limit}"
        raise ConfigurationError(message)
    return Line(text + b"\r\n", secrets, known)


@dataclass(slots=True)
class RawReply:
    """One complete reply as the server sent it: its code, and its lines without code and CRLF."""

    code: int
    lines: tuple[bytes, ...]
    challenge: bytes = field(default=b"", repr=False, compare=False)
    """The text of a 334 before redaction: base64 can look like a short user name that was sent."""
    decoded: bytes = field(default=b"", repr=False, compare=False)
    """The same, decoded and after redaction, to be shown; empty if it is not base64."""
    _public: Reply | None = field(default=None, init=False, repr=False, compare=False)

    def cut(self) -> RawReply:
        """Return it with only as much text as `reply` keeps."""
        if len(self.lines) == 1 and len(self.lines[0]) <= KEPT_RAW:
            return self
        kept, room = [], KEPT_RAW
        for each in self.lines:
            kept.append(each[:room])
            room -= len(each) + 1
            if room <= 0:
                break
        return RawReply(self.code, tuple(kept), self.challenge, self.decoded)

    def reply(self, limit: int = KEPT_TEXT) -> Reply:
        """Return the public form, with at most *limit* characters of text; the same object each time."""
        if limit != KEPT_TEXT:
            return self._to_reply(limit)
        if self._public is None:
            self._public = self._to_reply(KEPT_TEXT)
        return self._public

    def _to_reply(self, limit: int) -> Reply:
        enhanced = _ENHANCED.match(self.lines[0])
        code = enhanced[1].decode("ascii") if enhanced and enhanced[1][:1] == b"%d" % (self.code // 100) else None
        return Reply(self.code, code, escape(b" ".join(self.lines), limit), b"\n".join(self.lines)[:KEPT_RAW])


class ReplyReader:
    """
    Turn bytes into complete replies, within limits; a malformed reply ends the session.

    After a malformed line it is unknown which reply belongs to which command, so the reader does not try to recover
    (measured: smtplib pairs the next command with the rest of such a line). The caller closes the connection on
    `ProtocolError`. Secrets that the server repeats are redacted here, before anyone can show them (measured,
    REQUIREMENTS.md 2.10).
    """

    def __init__(self, memory: Memory | None = None) -> None:
        """Start between two replies; *memory* has the secrets that the mailer has sent on any connection."""
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._code = 0
        self._size = 0
        self._memory = memory or Memory()
        self._redactor = Redactor(self._memory)
        # By their lines; and the version of the secrets for which they were redacted.
        self._remembered: dict[bytes, RawReply] = {}
        self._version = self._memory.version

    @property
    def pending(self) -> bool:
        """Whether there are bytes that belong to no complete reply; if no reply is due, they are unsolicited."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> None:
        """
        Add *data* from the server; how the bytes are split over several calls makes no difference.

        Raises:
            ProtocolError: More than `MAX_UNREAD` bytes would wait; `next` still returns what was added before.
        """
        if len(self._buffer) + len(data) > MAX_UNREAD:
            message = "the server sent more than it was asked for"
            raise ProtocolError(message)
        self._buffer += data

    def has_at_most(self, replies: int) -> bool:
        """Return whether no more than so many *replies* are pending, judged by line ends alone: no only if unsure."""
        return not self._buffer or (self._buffer.count(b"\n") <= replies and self._buffer.endswith(b"\n"))

    def clear(self) -> None:
        """Forget the bytes that belong to no complete reply."""
        self._buffer, self._lines, self._size = bytearray(), [], 0

    def redact(self, sent: Line) -> None:
        """Redact the secrets of *sent* from later replies, plain and in base64; only hashes of them are kept."""
        if sent.secrets or sent.known:
            self._remembered = {}
        if sent.secrets:
            self._redactor.add(sent.secrets, sent.data[:-2].rpartition(b" ")[2])
        elif sent.known:
            self._redactor.add(sent.known, b"")

    def next(self) -> RawReply | None:
        """
        Return the next complete reply, or None if more bytes are needed.

        Raises:
            ProtocolError: The bytes cannot become a well-formed reply within the limits.
        """
        if not self._buffer:
            return None
        reply = self._next()
        if isinstance(reply, str):
            raise ProtocolError(reply)
        return reply

    def next_remembered(self) -> RawReply | None:
        """Return the next reply if it is one that has come before; None if it is another, or not complete."""
        if self._version is not self._memory.version:
            self._remembered, self._version = {}, self._memory.version
        remembered = self._remembered.get(whole := self._whole_line())
        if remembered is not None:
            del self._buffer[: len(whole)]
        return remembered

    def _whole_line(self) -> bytes:
        """Return the next line if it is the first of a reply, and short; without one, nothing."""
        return b"" if self._lines else bytes(self._buffer[: self._buffer.find(b"\n", 0, _MAX_REMEMBERED_LINE) + 1])

    # These return the message of an error, and `next` raises it: a traceback through them would show the raw line.

    def _next(self) -> RawReply | str | None:
        if (remembered := self.next_remembered()) is not None:
            return remembered
        whole = self._whole_line()
        reply = self._parse()
        # A line that was redacted is not kept, and a challenge is never the same.
        if whole and isinstance(reply, RawReply) and reply.lines == (whole[4:-2],) and not reply.challenge:
            if len(self._remembered) == _MAX_REMEMBERED:
                self._remembered = {}
            self._remembered[whole] = reply
        return reply

    def _parse(self) -> RawReply | str | None:
        while (text := self._line()) is not None:
            if isinstance(text, str):
                return text
            match = _REPLY_LINE.fullmatch(text)
            if not match or (self._lines and int(match[1]) != self._code):
                return self._malformed("a reply line is not a code and a text", text)
            self._code = int(match[1])
            self._lines.append(match[3] or b"")
            self._size += len(text) + 2
            if len(self._lines) > MAX_REPLY_LINES or self._size > MAX_REPLY:
                return self._malformed("a reply is longer than any server needs", text)
            if match[2] != b"-":
                challenge = self._lines[0] if is_auth_continue(self._code) else b""
                lines = self._redactor.redact(tuple(self._lines), _ENHANCED)
                self._lines, self._size = [], 0
                # Each message has many replies, and none of them is a challenge.
                return RawReply(self._code, lines, challenge, self._decoded(challenge) if challenge else b"")
        return None

    def _line(self) -> bytes | str | None:
        # A 334 has a SASL challenge, which may be as long as an AUTH line (RFC 4954 §4).
        limit = MAX_AUTH if self._buffer.startswith(b"334") else MAX_REPLY_LINE
        end = self._buffer.find(b"\n", 0, limit)
        if end < 0:
            if len(self._buffer) >= limit:
                return self._malformed("a reply line is longer than any server needs", bytes(self._buffer[:limit]))
            return None
        text = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        # RFC 5321 §2.3.8: a bare CR or LF does not end a line. Two readers that disagree on this see different replies.
        if not text.endswith(b"\r\n") or b"\r" in text[:-2]:
            return self._malformed("a reply line does not end in CRLF", text)
        return text[:-2]

    def _decoded(self, challenge: bytes) -> bytes:
        try:
            decoded = base64.b64decode(challenge, validate=True)
        except binascii.Error:
            return b""
        return self._redactor.redact((decoded,), _ENHANCED)[0]

    def _malformed(self, what: str, data: bytes) -> str:
        # Redact it together with the lines before it: a repeated secret may be split over several lines.
        return f'{what}: "{escape(self._redactor.redact((*self._lines, data), _ENHANCED)[-1], 100)}"'
