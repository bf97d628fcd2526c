"""Command lines out, replies in: the only place where SMTP's octets are built or read (RFC 5321 §2.3.8, §4.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from securesmtp._protocol.redaction import Memory, Redactor
from securesmtp._shown import KEPT_TEXT, escape
from securesmtp._values import Reply
from securesmtp.errors import ConfigurationError, ProtocolError

# RFC 5321 §4.5.3.1.4; with a path of 256 octets at the most, no parameter that we write comes near it.
MAX_COMMAND = 512
# RFC 4954 §4.
MAX_AUTH = 12288
# RFC 5321 §4.5.3.1.5 says 512; real servers go beyond, a flood goes much further.
MAX_REPLY_LINE = 2048
MAX_REPLY_LINES = 128
MAX_REPLY = 65536
# What may wait in a reader, whole replies included: whoever feeds it takes out what is owed before more is read.
MAX_UNREAD = 131072
# What an error or a receipt keeps of a reply's octets.
KEPT_RAW = 4096
# What a receipt keeps of all its replies in full, and the characters and bytes of each one that comes after those.
KEPT_IN_ALL = 262144
KEPT_BEYOND = 96

_COMMAND = re.compile(rb"[ -~]*")
# UTF-8 is legal in MAIL and RCPT once SMTPUTF8 was negotiated (RFC 6531 §3.3); C1 controls are refused by Mailbox.
_COMMAND_UTF8 = re.compile(rb"[ -~\x80-\xff]*")
# RFC 5321 §4.2 has no second digit above 5. Refusals of servers do (571), and their first one says enough (§4.3.2).
_REPLY_LINE = re.compile(rb"([23][0-5][0-9]|[45][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
# RFC 3463 §2; the class must be the first digit of the code (RFC 2034 §4).
_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})(?: |$)")


@dataclass(frozen=True, slots=True)
class Line:
    """
    One line to be written, CRLF included; one with secrets in it shows nothing of itself.

    Attributes:
        data: The octets.
        secrets: What of it, decoded, no reply is to be seen to repeat.
    """

    data: bytes
    secrets: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        """Return the line without CRLF, or that it is redacted."""
        return "Line(<redacted>)" if self.secrets else f"Line({self.data[:-2]!r})"


def line(
    verb: bytes,
    *arguments: bytes,
    secrets: tuple[bytes, ...] = (),
    utf8: bool = False,
    limit: int = MAX_COMMAND,
) -> Line:
    """
    Return one command line, or refuse what could be two (CVE-2026-53533 and its kin).

    Raises:
        ConfigurationError: A control character, a non-ASCII octet without *utf8*, or more than *limit* octets.
    """
    text = b" ".join((verb, *arguments))
    if not (_COMMAND_UTF8 if utf8 else _COMMAND).fullmatch(text):
        message = "a command line may hold printable characters only"
        raise ConfigurationError(message)
    if len(text) + 2 > limit:
        message = f"a command line of {len(text) + 2} octets is longer than the {limit} that SMTP allows"
        raise ConfigurationError(message)
    return Line(text + b"\r\n", secrets)


@dataclass(frozen=True, slots=True)
class RawReply:
    """One complete reply as it was read: its code, and its lines without code and CRLF."""

    code: int
    lines: tuple[bytes, ...]
    challenge: bytes = field(default=b"", repr=False, compare=False)
    """What a 334 asks, as it came: base64 may look like a short name that was sent."""

    def cut(self) -> RawReply:
        """Return it with no more text than `reply` keeps."""
        kept, left = [], KEPT_RAW
        for each in self.lines:
            kept.append(each[:left])
            left -= len(each) + 1
            if left <= 0:
                break
        return RawReply(self.code, tuple(kept), self.challenge)

    def reply(self, limit: int = KEPT_TEXT) -> Reply:
        """Return what a caller may keep of it."""
        enhanced = _ENHANCED.match(self.lines[0])
        code = enhanced[1].decode("ascii") if enhanced and enhanced[1][:1] == b"%d" % (self.code // 100) else None
        return Reply(self.code, code, escape(b" ".join(self.lines), limit), b"\n".join(self.lines)[:KEPT_RAW])


class ReplyReader:
    """
    Octets in, complete replies out; bounded, and strict: a reply that is not well-formed ends the session.

    There is no way back into step after a bad line, so none is tried (measured: smtplib pairs the next command with
    the rest). The caller closes the connection on `ProtocolError`. What a server repeats of our secrets is taken out
    here, before anybody can show it (measured, REQUIREMENTS.md 2.10).
    """

    def __init__(self, memory: Memory | None = None) -> None:
        """Begin between two replies; *memory* is of what the mailer has sent to log in on any connection."""
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._code = 0
        self._octets = 0
        self._redactor = Redactor(memory)

    @property
    def pending(self) -> bool:
        """Whether octets were fed that no reply has used: outside of a reply, they are unsolicited."""
        return bool(self._buffer or self._lines)

    def feed(self, octets: bytes) -> None:
        """
        Take what the server sent; how much one read brings makes no difference.

        Raises:
            ProtocolError: More than `MAX_UNREAD` bytes would wait; what waited before can still be read.
        """
        if len(self._buffer) + len(octets) > MAX_UNREAD:
            message = "the server says more than it was asked"
            raise ProtocolError(message)
        self._buffer += octets

    def clear(self) -> None:
        """Forget what was fed and is no whole reply, and begin between two replies."""
        self._buffer, self._lines, self._octets = bytearray(), [], 0

    def conceal(self, sent: Line) -> None:
        """Recognise the secrets of *sent* in later replies, in base64 and decoded; only hashes of them are kept."""
        if sent.secrets:
            self._redactor.add(sent.secrets, sent.data[:-2].rpartition(b" ")[2])

    def next(self) -> RawReply | None:
        """
        Return the next complete reply, or None when more octets are needed.

        Raises:
            ProtocolError: The octets cannot become a well-formed reply within the limits.
        """
        found = self._next()
        if isinstance(found, str):
            raise ProtocolError(found)
        return found

    # The faults of a line are returned, not raised: the frames of a traceback would keep the line.

    def _next(self) -> RawReply | str | None:
        while (text := self._line()) is not None:
            if isinstance(text, str):
                return text
            parsed = _REPLY_LINE.fullmatch(text)
            if not parsed or (self._lines and int(parsed[1]) != self._code):
                return self._malformed("a reply line is not a code and a text", text)
            self._code = int(parsed[1])
            self._lines.append(parsed[3] or b"")
            self._octets += len(text) + 2
            if len(self._lines) > MAX_REPLY_LINES or self._octets > MAX_REPLY:
                return self._malformed("a reply is longer than any server needs", text)
            if parsed[2] != b"-":
                challenge = self._lines[0] if self._code == 334 else b""  # noqa: PLR2004 -- RFC 4954 §4
                lines = self._redactor.redact(tuple(self._lines), _ENHANCED)
                self._lines, self._octets = [], 0
                return RawReply(self._code, lines, challenge)
        return None

    def _line(self) -> bytes | str | None:
        # 334 carries a SASL challenge, which may fill a whole AUTH line (RFC 4954 §4).
        limit = MAX_AUTH if self._buffer.startswith(b"334") else MAX_REPLY_LINE
        end = self._buffer.find(b"\n", 0, limit)
        if end < 0:
            if len(self._buffer) >= limit:
                return self._malformed("a reply line is longer than any server needs", bytes(self._buffer[:limit]))
            return None
        text = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        # RFC 5321 §2.3.8: a bare CR or LF is no line end, and who treats it as one can be told two stories.
        if not text.endswith(b"\r\n") or b"\r" in text[:-2]:
            return self._malformed("a reply line does not end in CRLF", text)
        return text[:-2]

    def _malformed(self, what: str, octets: bytes) -> str:
        # With the lines before it: an echo may be in pieces.
        return f'{what}: "{escape(self._redactor.redact((*self._lines, octets), _ENHANCED)[-1], 100)}"'
