"""
Any octets, in any pieces, into `ReplyReader`: the same replies or the same `ProtocolError`, within the limits.

How the octets are cut is drawn from a generator that the octets seed: one input is always the same run.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

from securesmtp._protocol import wire
from securesmtp._protocol.wire import KEPT_RAW, RawReply, ReplyReader, line
from securesmtp._shown import KEPT_TEXT, escape
from securesmtp.errors import ProtocolError

# What the reader says of its own, and 100 characters of the server's.
MAX_ERROR = 200
# Small enough for an input of a few octets to reach every limit.
SMALL: dict[str, Any] = {"MAX_AUTH": 60, "MAX_REPLY_LINE": 40, "MAX_REPLY_LINES": 4, "MAX_REPLY": 90}
# "hunter2-Secret", as AUTH LOGIN writes it.
SECRET = line(b"aHVudGVyMi1TZWNyZXQ=", secrets=(b"hunter2-Secret",))
ECHO = re.compile(rb"hunter2-secret|ahvudgvymi1tzwnyzxq", re.IGNORECASE)
# Well-formed by RFC 5321 §4.2 and RPL-01, said once more and in one piece, beside the reader's line by line.
REPLIES = re.compile(
    rb"(?:(?:(?P<code>(?:[23][0-5]|[45][0-9])[0-9])(?:-[^\r\n]*\r\n(?:(?P=code)-[^\r\n]*\r\n)*(?P=code))?(?: [^\r\n]*)?\r\n))*"  # noqa: E501 -- one pattern
)


def check(octets: bytes) -> str:
    """Check every rule on *octets*, and say what they are: "replies", "malformed" or "part" of a reply."""
    _check_text(escape(octets), KEPT_TEXT)
    with mock.patch.multiple(wire, **SMALL):
        _check_splits(octets, ())
    _check_splits(octets, (SECRET,))
    replies, error, pending = _read([octets], ())
    if error is None and not pending:
        assert REPLIES.fullmatch(octets), "a reply that is not well-formed was taken for one"
    return "malformed" if error else "part" if pending or not replies else "replies"


def _check_splits(octets: bytes, secrets: tuple[wire.Line, ...]) -> tuple[list[RawReply], str | None, bool]:
    whole = _read([octets], secrets)
    for pieces in _splits(octets):
        assert _read(pieces, secrets) == whole, f"another answer in the pieces {pieces!r}"
    for raw in whole[0]:
        _check_reply(raw)
        # An echo may be told apart by blanks and line ends, but as it stands it is never kept.
        assert not (secrets and ECHO.search(raw.reply().raw)), "an echo of a secret is kept"
    assert whole[1] is None or not (secrets and ECHO.search(whole[1].encode())), "an echo of a secret in an error"
    return whole


def _splits(octets: bytes) -> Iterator[list[bytes]]:
    yield octets.splitlines(keepends=True)
    yield [octets[at : at + 1] for at in range(len(octets))]
    draw = random.Random(octets)
    cuts = sorted(draw.choices(range(len(octets) + 1), k=draw.randint(1, 9)))
    yield [octets[begin:end] for begin, end in zip([0, *cuts], [*cuts, None], strict=True)]


def _read(pieces: list[bytes], secrets: tuple[wire.Line, ...]) -> tuple[list[RawReply], str | None, bool]:
    """Return the replies, the error's text, and whether octets are left over; only `ProtocolError` is caught."""
    reader, replies = ReplyReader(), []
    for secret in secrets:
        reader.redact(secret)
    try:
        for piece in pieces:
            reader.feed(piece)
            while (raw := reader.next()) is not None:
                replies.append(raw)
            kept = len(reader._buffer) + sum(len(text) for text in reader._lines)
            assert kept < wire.MAX_REPLY + wire.MAX_AUTH, "the reader keeps more than its limits"
    except ProtocolError as error:
        _check_text(error.args[0], MAX_ERROR)
        # The session is over: nobody asks what is left.
        return replies, error.args[0], False
    return replies, None, reader.pending


def _check_reply(raw: RawReply) -> None:
    assert 200 <= raw.code <= 559
    assert 1 <= len(raw.lines) <= wire.MAX_REPLY_LINES
    assert all(len(text) <= wire.MAX_AUTH for text in raw.lines)
    assert raw.code == 334 or all(len(text) <= wire.MAX_REPLY_LINE for text in raw.lines)
    assert sum(len(text) for text in raw.lines) <= wire.MAX_REPLY
    assert not any(b"\r" in text or b"\n" in text for text in raw.lines), "a line holds a line end"
    reply = raw.reply()
    _check_text(reply.text, KEPT_TEXT)
    _check_text(str(reply), KEPT_TEXT + 20)
    assert len(reply.raw) <= KEPT_RAW
    assert reply.enhanced is None or re.fullmatch(rf"{raw.code // 100}(\.[0-9]{{1,3}}){{2}}", reply.enhanced)


def _check_text(text: str, most: int) -> None:
    assert text.isprintable(), "a control or bidi character is shown as it is"
    assert len(text) <= most
    text.encode()
