"""Command lines are built, and replies are read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from protocol.play import raw
from securesmtp._protocol.wire import (
    KEPT_RAW,
    MAX_AUTH,
    MAX_COMMAND,
    MAX_REPLY,
    MAX_REPLY_LINE,
    MAX_REPLY_LINES,
    MAX_UNREAD,
    Line,
    RawReply,
    ReplyReader,
    line,
)
from securesmtp._shown import KEPT_TEXT, escape
from securesmtp.errors import ConfigurationError, ProtocolError

Result = tuple[list[RawReply], str | None, bool]


def read(chunks: list[bytes]) -> Result:
    """Return the replies, the error, and whether bytes are left over."""
    reader, replies = ReplyReader(), []
    try:
        for chunk in chunks:
            reader.feed(chunk)
            while (reply := reader.next()) is not None:
                replies.append(reply)
    except ProtocolError as error:
        return replies, error.args[0], False
    return replies, None, reader.pending


def read_all_ways(data: bytes) -> Result:
    """Return what is read of *data*: whole, line by line and byte by byte give the same result."""
    whole = read([data])
    assert read(data.splitlines(keepends=True)) == whole
    assert read([data[i : i + 1] for i in range(len(data))]) == whole
    return whole


def test_a_line_is_its_words_and_one_crlf() -> None:
    """The words of a command are joined by one space, and CRLF ends the line."""
    assert line(b"RCPT", b"TO:<a@b.example>").data == b"RCPT TO:<a@b.example>\r\n"
    assert line(b"RSET").data == b"RSET\r\n"


@pytest.mark.parametrize("control", [*range(32), 127], ids="x{:02x}".format)
@pytest.mark.parametrize("utf8", [False, True])
def test_a_line_has_no_control_character(control: int, *, utf8: bool) -> None:
    """C0 and DEL are refused at the start, in the middle and at the end of every word, the verb included."""
    for text in (bytes([control]) + b"a", b"a" + bytes([control]) + b"a", b"a" + bytes([control])):
        for words in ((text,), (text, b"x"), (b"NOOP", text), (b"NOOP", text, b"x")):
            with pytest.raises(ConfigurationError):
                line(*words, utf8=utf8)


def test_a_line_has_utf8_only_on_request() -> None:
    """A non-ASCII byte is refused unless SMTPUTF8 was negotiated."""
    with pytest.raises(ConfigurationError):
        line(b"MAIL", "ü".encode())
    assert line(b"MAIL", "ü".encode(), utf8=True).data == "MAIL ü\r\n".encode()


@pytest.mark.parametrize("limit", [MAX_COMMAND, MAX_AUTH])
def test_a_line_is_never_longer_than_its_limit(limit: int) -> None:
    """The limit includes CRLF; one byte more is refused (CMD-06)."""
    assert len(line(b"x" * (limit - 2), limit=limit).data) == limit
    with pytest.raises(ConfigurationError):
        line(b"x" * (limit - 1), limit=limit)


def test_the_default_limit_is_512() -> None:
    """It is the limit of RFC 5321 §4.5.3.1.4."""
    assert len(line(b"x" * 510).data) == 512
    with pytest.raises(ConfigurationError):
        line(b"x" * 511)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=3), st.booleans())
@settings(max_examples=examples(200), deadline=None)
def test_one_command_is_never_two(words: list[bytes], utf8: bool) -> None:  # noqa: FBT001 -- hypothesis gives it
    """Any words are refused, or make a line with one CRLF at its end and no other control character."""
    try:
        data = line(*words, utf8=utf8).data
    except ConfigurationError:
        return
    assert data.endswith(b"\r\n")
    assert not any(byte < 32 or byte == 127 for byte in data[:-2])


def test_the_repr_of_a_line_with_secrets_shows_none_of_it() -> None:
    """The repr of any other line shows all but CRLF."""
    assert repr(line(b"AUTH", b"PLAIN", b"aHVudGVyMg==", secrets=(b"hunter2",))) == "Line(<redacted>)"
    assert repr(line(b"NOOP")) == "Line(b'NOOP')"
    assert Line(b"x\r\n").secrets == ()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain text", "plain text"),
        ("grün".encode(), "grün"),
        (b"\x1b[2J\x07", "\\x1b[2J\\x07"),
        (b"a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
        (b"\xff\xc3", "\\xff\\xc3"),
        ("\u202e\u2028\x85".encode(), "\\u202e\\u2028\\x85"),
    ],
)
def test_escaped_text_is_printable(data: bytes, shown: str) -> None:
    """Control characters, line ends, bidirectional marks and invalid UTF-8 are escaped (RPL-08)."""
    assert escape(data) == shown


@pytest.mark.parametrize("character", ["x", "ü", "\U0001f600"])
def test_escaped_text_is_cut_at_its_limit(character: str) -> None:
    """Text of exactly the limit is complete; longer text ends in an ellipsis."""
    assert escape((character * 20).encode(), 20) == character * 20
    assert escape((character * 21).encode(), 20) == character * 19 + "…"


@given(st.binary(max_size=200), st.integers(1, 60))
@settings(max_examples=examples(200), deadline=None)
def test_any_escaped_text_is_one_short_line(data: bytes, limit: int) -> None:
    """Any bytes from a server become printable text within the limit."""
    shown = escape(data, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        (b"250 2.1.5 ok", "2.1.5"),
        (b"550 5.1.1", "5.1.1"),
        (b"450 4.999.999 x", "4.999.999"),
        (b"500 5.5.2 x", "5.5.2"),
        (b"200 2.0.0 x", "2.0.0"),
        (b"250 5.1.1", None),
        (b"550 2.0.0", None),
        (b"550 4.0.0", None),
        (b"550 5.1.1234", None),
        (b"550 5.1234.1", None),
        (b"550 5.1.1x", None),
        (b"550 5.1", None),
        (b"550  5.1.1", None),
        (b"550 no 5.1.1", None),
        (b"354 3.0.0", None),
        (b"550", None),
        (b"550-5.1.1 a\n550 5.7.1 b", "5.1.1"),
        (b"550-a\n550 5.7.1 b", None),
    ],
)
def test_an_enhanced_code_is_used_only_if_it_is_valid(text: bytes, enhanced: str | None) -> None:
    """It comes first, is well-formed, and its class is the first digit of the code (RFC 2034 §4, RPL-07)."""
    assert raw(text).reply().enhanced == enhanced


def test_text_and_raw_bytes_of_a_reply_are_bounded() -> None:
    """Both are cut at their limits; a short reply is complete."""
    reply = RawReply(250, tuple([b"x" * 100] * 100)).reply()
    assert len(reply.text) == KEPT_TEXT
    assert len(reply.raw) == KEPT_RAW
    short = RawReply(250, (b"a", b"b\x1b")).reply()
    assert (short.text, short.raw) == ("a b\\x1b", b"a\nb\x1b")


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"250 ok\r\n", (b"ok",)),
        (b"250\r\n", (b"",)),
        (b"250 \r\n", (b"",)),
        (b"250-a\r\n250-\r\n250 c\r\n", (b"a", b"", b"c")),
        (b"250-a\r\n250\r\n", (b"a", b"")),
        (b"250 \x00\xff\x1b\r\n", (b"\x00\xff\x1b",)),
    ],
)
def test_a_reply_has_the_text_of_its_lines(data: bytes, lines: tuple[bytes, ...]) -> None:
    """One line or several, with and without text, in one read or many."""
    assert read_all_ways(data) == ([RawReply(250, lines)], None, False)


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=9))
def test_a_cut_reply_has_the_same_public_form(lines: list[bytes]) -> None:
    """Text, raw bytes and codes are those of the complete reply, and the cut reply is within the limit."""
    whole = RawReply(250, tuple(lines))
    assert whole.cut().reply() == whole.reply()
    assert sum(map(len, whole.cut().lines)) <= 4096


def test_two_replies_stay_apart() -> None:
    """The bytes after a complete reply are the next reply, with nothing of the first in it."""
    replies = [RawReply(250, (b"a", b"b")), RawReply(354, (b"c",))]
    assert read_all_ways(b"250-a\r\n250 b\r\n354 c\r\n") == (replies, None, False)


@pytest.mark.parametrize("data", [b"2", b"250", b"250 ok", b"250 ok\r", b"250-a\r\n", b"250-a\r\n25"])
def test_an_incomplete_reply_is_pending(data: bytes) -> None:
    """Before its last CRLF has arrived, there is no reply, and the bytes are pending."""
    assert read_all_ways(data) == ([], None, True)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"ok\r\n", b"25\r\n", b"2500 ok\r\n", b"25x ok\r\n", b"150 x\r\n", b"650 x\r\n", b"260 x\r\n",
        b"250_ok\r\n", b"250\tok\r\n", b" 250 ok\r\n", "\u0662\u0665\u0660 ok\r\n".encode(),
        b"250-a\r\n251 b\r\n", b"250-a\r\n\r\n", b"250-a\r\nb\r\n", b"250-a\r\n2500\r\n",
        b"250 ok\n", b"250 o\rk\r\n", b"250 ok\r\r\n", b"\n", b"250-a\n250 b\r\n",
        b"HTTP/1.1 400 Bad Request\r\n", b"334 " + b"x" * 3000 + b"\n",
    ],
)  # fmt: skip
def test_a_malformed_reply_is_an_error(data: bytes) -> None:
    """Codes, separators and line ends must follow RFC 5321 §4.2; the error is short and printable."""
    replies, error, _ = read_all_ways(data)
    assert replies == []
    assert error is not None
    assert error.isprintable()
    assert len(error) < 200


@pytest.mark.parametrize(("code", "limit"), [(b"250", MAX_REPLY_LINE), (b"334", MAX_AUTH), (b"33x", MAX_REPLY_LINE)])
def test_a_reply_line_is_never_longer_than_its_limit(code: bytes, limit: int) -> None:
    """The limit includes CRLF; one byte more is an error. A challenge may be as long as an AUTH line."""
    fits = code + b" " + b"x" * (limit - 6) + b"\r\n"
    assert len(fits) == limit
    if code != b"33x":
        assert read_all_ways(fits)[0] == [RawReply(int(code), (b"x" * (limit - 6),))]
    replies, error, _ = read_all_ways(code + b" " + b"x" * (limit - 5) + b"\r\n")
    assert (replies, error is not None and "longer" in error) == ([], True)


def test_a_line_without_an_end_is_refused_at_the_limit() -> None:
    """A flood without LF is not collected: one byte below the limit it is pending, at the limit it is an error."""
    assert read_all_ways(b"2" * (MAX_REPLY_LINE - 1)) == ([], None, True)
    assert read_all_ways(b"2" * MAX_REPLY_LINE)[1] is not None


@pytest.mark.parametrize(("lines", "fits"), [(MAX_REPLY_LINES, True), (MAX_REPLY_LINES + 1, False)])
def test_a_reply_has_at_most_128_lines(lines: int, *, fits: bool) -> None:
    """One line more is an error."""
    replies, error, _ = read_all_ways(b"250-x\r\n" * (lines - 1) + b"250 x\r\n")
    assert (len(replies) == 1) == fits == (error is None)


@pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
def test_a_reply_has_at_most_64_kib(extra: int, *, fits: bool) -> None:
    """One byte more is an error."""
    full = b"250-" + b"x" * (1024 - 6) + b"\r\n"
    data = full * 63 + b"250 " + b"x" * (1024 - 6 + extra) + b"\r\n"
    assert len(data) == MAX_REPLY + extra
    replies, error, _ = read_all_ways(data)
    assert (len(replies) == 1) == fits == (error is None)


def test_a_second_reply_may_have_as_many_lines_as_the_first() -> None:
    """The limit is for one reply, not for the session."""
    long = b"250-x\r\n" * (MAX_REPLY_LINES - 1) + b"250 x\r\n"
    assert [len(reply.lines) for reply in read_all_ways(long * 2)[0]] == [MAX_REPLY_LINES] * 2


_PIECES = st.sampled_from(
    [b"250", b"251", b"334", b"-", b" ", b"\r\n", b"\r", b"\n", b"a", b"\0", b"\xff", b"250-a\r\n"]
)


@given(st.lists(_PIECES, max_size=20).map(b"".join), st.data())
@settings(max_examples=examples(200), deadline=None)
def test_the_size_of_reads_makes_no_difference(data: bytes, draw: st.DataObject) -> None:
    """Whole, line by line, byte by byte or cut anywhere: the replies and the error are the same."""
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=5)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert read(pieces) == read_all_ways(data)


def test_the_error_of_a_command_line_says_why() -> None:
    """It names the characters, or the length and the limit."""
    with pytest.raises(ConfigurationError, match="printable characters only"):
        line(b"NOOP", b"a\nb")
    with pytest.raises(ConfigurationError, match="has 513 bytes, and SMTP allows 512"):
        line(b"x" * 511)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP/1.1 400 no\r\n", 'a reply line is not a code and a text: "HTTP/1.1 400 no"'),
        (b"250 " + b"x" * 200 + b"\n", f'a reply line does not end in CRLF: "250 {"x" * 95}…"'),
        (b"2" * MAX_REPLY_LINE, f'a reply line is longer than any server needs: "{"2" * 99}…"'),
        (b"250-x\r\n" * (MAX_REPLY_LINES + 1), 'a reply is longer than any server needs: "250-x"'),
    ],
)
def test_the_error_of_a_reply_quotes_100_characters(data: bytes, message: str) -> None:
    """It says which rule was broken, and quotes the start of the line that broke it."""
    assert read_all_ways(data)[1] == message


def test_only_334_has_a_challenge() -> None:
    """The challenge of a 334 is kept as it came; no other reply has one."""
    assert raw(b"334 VXNlcm5hbWU6").challenge == b"VXNlcm5hbWU6"
    assert raw(b"250 VXNlcm5hbWU6").challenge == b""


def test_a_second_reply_may_be_as_long_as_the_first() -> None:
    """The bytes of one reply are not counted for the next."""
    full = b"250-" + b"x" * (1024 - 6) + b"\r\n"
    longest = full * 63 + b"250 " + b"x" * (1024 - 6) + b"\r\n"
    assert len(longest) == MAX_REPLY
    replies, error, _ = read([longest, longest])
    assert (len(replies), error) == (2, None)


@pytest.mark.parametrize("piece", [b"250 ok\r\n", b"250-" + b"x" * 16380, b"x"], ids=["replies", "a line", "bytes"])
def test_a_reader_holds_a_bounded_number_of_bytes(piece: bytes) -> None:
    """A server that sends faster than its replies are read cannot fill the memory (issue 12, 1)."""
    reader = ReplyReader()
    count = MAX_UNREAD // len(piece)
    for _ in range(count):
        reader.feed(piece)
    reader.feed(b"x" * (MAX_UNREAD - count * len(piece)))
    for _ in range(2):
        with pytest.raises(ProtocolError, match="more than it was asked for"):
            reader.feed(b"x")
    # The earlier bytes are still there; reading a reply makes room for more.
    if piece == b"250 ok\r\n":
        assert reader.next() == RawReply(250, (b"ok",))
        reader.feed(b"x")
