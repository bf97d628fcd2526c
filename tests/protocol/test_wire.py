"""Command lines out, replies in."""

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
    """Return the replies, the error and whether octets are left over."""
    reader, replies = ReplyReader(), []
    try:
        for chunk in chunks:
            reader.feed(chunk)
            while (reply := reader.next()) is not None:
                replies.append(reply)
    except ProtocolError as error:
        return replies, error.args[0], False
    return replies, None, reader.pending


def sizes(octets: bytes) -> list[Result]:
    """Return what is read of *octets* whole, by line and byte by byte."""
    by_byte = [octets[i : i + 1] for i in range(len(octets))]
    return [read([octets]), read(octets.splitlines(keepends=True)), read(by_byte)]


def agreed(octets: bytes) -> Result:
    """Return what is read of *octets*, which must be the same in all three sizes."""
    whole, by_line, by_byte = sizes(octets)
    assert whole == by_line == by_byte
    return whole


def test_a_line_is_its_words_and_one_crlf() -> None:
    """The words of a command are joined by one space and ended by CRLF."""
    assert line(b"RCPT", b"TO:<a@b.example>").data == b"RCPT TO:<a@b.example>\r\n"
    assert line(b"RSET").data == b"RSET\r\n"


@pytest.mark.parametrize("octet", [*range(32), 127], ids="x{:02x}".format)
@pytest.mark.parametrize("utf8", [False, True])
def test_no_control_character_gets_into_a_line(octet: int, *, utf8: bool) -> None:
    """C0 and DEL are refused in every place of a command, with UTF-8 and without."""
    for text in (bytes([octet]) + b"a", b"a" + bytes([octet]) + b"a", b"a" + bytes([octet])):
        with pytest.raises(ConfigurationError):
            line(b"NOOP", text, utf8=utf8)


def test_utf8_is_written_only_where_it_was_asked_for() -> None:
    """A non-ASCII octet is refused unless SMTPUTF8 was negotiated."""
    with pytest.raises(ConfigurationError):
        line(b"MAIL", "ü".encode())
    assert line(b"MAIL", "ü".encode(), utf8=True).data == "MAIL ü\r\n".encode()


@pytest.mark.parametrize("limit", [MAX_COMMAND, MAX_AUTH])
def test_a_line_has_at_most_its_limit(limit: int) -> None:
    """The limit counts CRLF: exactly so many octets pass, one more does not (CMD-06)."""
    assert len(line(b"x" * (limit - 2), limit=limit).data) == limit
    with pytest.raises(ConfigurationError):
        line(b"x" * (limit - 1), limit=limit)


def test_the_limit_of_a_command_is_512() -> None:
    """Without a word on it, RFC 5321 §4.5.3.1.4 holds."""
    assert len(line(b"x" * 510).data) == 512
    with pytest.raises(ConfigurationError):
        line(b"x" * 511)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=3), st.booleans())
@settings(max_examples=examples(200), deadline=None)
def test_one_command_is_never_two(words: list[bytes], utf8: bool) -> None:  # noqa: FBT001 -- hypothesis gives it
    """Whatever the words are: a line is refused, or holds one CRLF, at its end, and no other control."""
    try:
        data = line(*words, utf8=utf8).data
    except ConfigurationError:
        return
    assert data.endswith(b"\r\n")
    assert not any(octet < 32 or octet == 127 for octet in data[:-2])


def test_a_secret_line_shows_nothing() -> None:
    """The repr of a secret line has none of its octets; that of another has all but CRLF."""
    assert repr(line(b"AUTH", b"PLAIN", b"aHVudGVyMg==", secrets=(b"hunter2",))) == "Line(<redacted>)"
    assert repr(line(b"NOOP")) == "Line(b'NOOP')"
    assert Line(b"x\r\n").secrets == ()


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (b"plain text", "plain text"),
        ("grün".encode(), "grün"),
        (b"\x1b[2J\x07", "\\x1b[2J\\x07"),
        (b"a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
        (b"\xff\xc3", "\\xff\\xc3"),
        ("\u202e\u2028\x85".encode(), "\\u202e\\u2028\\x85"),
    ],
)
def test_escaped_text_is_printable(octets: bytes, shown: str) -> None:
    """Controls, line ends, bidirectional marks and what is no UTF-8 are spelled out (RPL-08)."""
    assert escape(octets) == shown


@pytest.mark.parametrize(
    "character",
    [
        "x",
        "ü",
        "\U0001f600",
    ],
)
def test_escaped_text_is_cut_at_its_limit(character: str) -> None:
    """Exactly so many characters stay as they are; of one more, an ellipsis is left."""
    assert escape((character * 20).encode(), 20) == character * 20
    assert escape((character * 21).encode(), 20) == character * 19 + "…"


@given(st.binary(max_size=200), st.integers(1, 60))
@settings(max_examples=examples(200), deadline=None)
def test_what_is_escaped_is_one_short_line(octets: bytes, limit: int) -> None:
    """Whatever a server says: what is shown of it is printable and within the limit."""
    shown = escape(octets, limit)
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
def test_an_enhanced_code_is_taken_only_if_it_is_one(text: bytes, enhanced: str | None) -> None:
    """It stands first, is well-formed, and its class is the first digit of the code (RFC 2034 §4, RPL-07)."""
    assert raw(text).reply().enhanced == enhanced


def test_what_is_kept_of_a_reply_is_bounded() -> None:
    """Text and octets of a long reply are cut, at their limits and not before."""
    reply = RawReply(250, tuple([b"x" * 100] * 100)).reply()
    assert len(reply.text) == KEPT_TEXT
    assert len(reply.raw) == KEPT_RAW
    short = RawReply(250, (b"a", b"b\x1b")).reply()
    assert (short.text, short.raw) == ("a b\\x1b", b"a\nb\x1b")


@pytest.mark.parametrize(
    ("octets", "lines"),
    [
        (b"250 ok\r\n", (b"ok",)),
        (b"250\r\n", (b"",)),
        (b"250 \r\n", (b"",)),
        (b"250-a\r\n250-\r\n250 c\r\n", (b"a", b"", b"c")),
        (b"250-a\r\n250\r\n", (b"a", b"")),
        (b"250 \x00\xff\x1b\r\n", (b"\x00\xff\x1b",)),
    ],
)
def test_a_reply_is_its_lines(octets: bytes, lines: tuple[bytes, ...]) -> None:
    """One line or several, with text and without, however it arrives."""
    assert agreed(octets) == ([RawReply(250, lines)], None, False)


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=9))
def test_what_is_kept_of_a_flights_reply_gives_the_same(lines: list[bytes]) -> None:
    """Text, octets and code of a reply that was cut are those of the whole one, and it is not larger."""
    whole = RawReply(250, tuple(lines))
    assert whole.cut().reply() == whole.reply()
    assert sum(map(len, whole.cut().lines)) <= 4096


def test_two_replies_are_two() -> None:
    """What follows a complete reply is the next one, and nothing of the first is left in it."""
    replies = [RawReply(250, (b"a", b"b")), RawReply(354, (b"c",))]
    assert agreed(b"250-a\r\n250 b\r\n354 c\r\n") == (replies, None, False)


@pytest.mark.parametrize("octets", [b"2", b"250", b"250 ok", b"250 ok\r", b"250-a\r\n", b"250-a\r\n25"])
def test_a_part_of_a_reply_is_no_reply(octets: bytes) -> None:
    """Before its last CRLF a reply is not there, and the octets are pending."""
    assert agreed(octets) == ([], None, True)


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n", b"ok\r\n", b"25\r\n", b"2500 ok\r\n", b"25x ok\r\n", b"150 x\r\n", b"650 x\r\n", b"260 x\r\n",
        b"250_ok\r\n", b"250\tok\r\n", b" 250 ok\r\n", "\u0662\u0665\u0660 ok\r\n".encode(),
        b"250-a\r\n251 b\r\n", b"250-a\r\n\r\n", b"250-a\r\nb\r\n", b"250-a\r\n2500\r\n",
        b"250 ok\n", b"250 o\rk\r\n", b"250 ok\r\r\n", b"\n", b"250-a\n250 b\r\n",
        b"HTTP/1.1 400 Bad Request\r\n", b"334 " + b"x" * 3000 + b"\n",
    ],
)  # fmt: skip
def test_what_is_not_a_reply_ends_the_session(octets: bytes) -> None:
    """Codes, separators and line ends are those of RFC 5321 §4.2, or there is an error, however it arrives."""
    replies, error, _ = agreed(octets)
    assert replies == []
    assert error is not None
    assert error.isprintable()
    assert len(error) < 200


@pytest.mark.parametrize(("code", "limit"), [(b"250", MAX_REPLY_LINE), (b"334", MAX_AUTH), (b"33x", MAX_REPLY_LINE)])
def test_a_reply_line_has_at_most_its_limit(code: bytes, limit: int) -> None:
    """CRLF counted: exactly so many octets pass, one more does not; a challenge may be as long as an AUTH line."""
    fits = code + b" " + b"x" * (limit - 6) + b"\r\n"
    assert len(fits) == limit
    if code != b"33x":
        assert agreed(fits)[0] == [RawReply(int(code), (b"x" * (limit - 6),))]
    replies, error, _ = agreed(code + b" " + b"x" * (limit - 5) + b"\r\n")
    assert (replies, error is not None and "longer" in error) == ([], True)


def test_a_line_without_end_is_refused_at_the_limit() -> None:
    """A flood without LF is not collected: the limit's last octet ends it, the one before it does not."""
    assert agreed(b"2" * (MAX_REPLY_LINE - 1)) == ([], None, True)
    assert agreed(b"2" * MAX_REPLY_LINE)[1] is not None


@pytest.mark.parametrize(("lines", "fits"), [(MAX_REPLY_LINES, True), (MAX_REPLY_LINES + 1, False)])
def test_a_reply_has_at_most_128_lines(lines: int, *, fits: bool) -> None:
    """Exactly so many lines pass, one more does not."""
    replies, error, _ = agreed(b"250-x\r\n" * (lines - 1) + b"250 x\r\n")
    assert (len(replies) == 1) == fits == (error is None)


@pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
def test_a_reply_has_at_most_64_kib(extra: int, *, fits: bool) -> None:
    """Exactly so many octets pass, one more does not."""
    full = b"250-" + b"x" * (1024 - 6) + b"\r\n"
    octets = full * 63 + b"250 " + b"x" * (1024 - 6 + extra) + b"\r\n"
    assert len(octets) == MAX_REPLY + extra
    replies, error, _ = agreed(octets)
    assert (len(replies) == 1) == fits == (error is None)


def test_the_limits_hold_for_one_reply_not_for_the_session() -> None:
    """A second reply begins with nothing counted."""
    long = b"250-x\r\n" * (MAX_REPLY_LINES - 1) + b"250 x\r\n"
    assert [len(reply.lines) for reply in agreed(long * 2)[0]] == [MAX_REPLY_LINES] * 2


_PIECES = st.sampled_from(
    [b"250", b"251", b"334", b"-", b" ", b"\r\n", b"\r", b"\n", b"a", b"\0", b"\xff", b"250-a\r\n"]
)


@given(st.lists(_PIECES, max_size=20).map(b"".join), st.data())
@settings(max_examples=examples(200), deadline=None)
def test_how_octets_arrive_makes_no_difference(octets: bytes, data: st.DataObject) -> None:
    """Whole, by line, byte by byte or cut anywhere: the same replies, and the same error."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=5)))
    cut = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    assert read(cut) == agreed(octets)


def test_a_refused_line_says_why() -> None:
    """Two faults, two sentences: one of the characters, one of the length, with both numbers."""
    with pytest.raises(ConfigurationError, match="printable characters only"):
        line(b"NOOP", b"a\nb")
    with pytest.raises(ConfigurationError, match="of 513 octets is longer than the 512 "):
        line(b"x" * 511)


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"HTTP/1.1 400 no\r\n", 'a reply line is not a code and a text: "HTTP/1.1 400 no"'),
        (b"250 " + b"x" * 200 + b"\n", f'a reply line does not end in CRLF: "250 {"x" * 95}…"'),
        (b"2" * MAX_REPLY_LINE, f'a reply line is longer than any server needs: "{"2" * 99}…"'),
        (b"250-x\r\n" * (MAX_REPLY_LINES + 1), 'a reply is longer than any server needs: "250-x"'),
    ],
)
def test_a_fault_of_a_reply_is_told_with_its_first_100_characters(octets: bytes, said: str) -> None:
    """The error says which rule was broken, and shows the line that broke it, cut."""
    assert agreed(octets)[1] == said


def test_only_334_has_a_challenge() -> None:
    """What AUTH answers is found in the reply to it, and in no other reply."""
    assert raw(b"334 VXNlcm5hbWU6").challenge == b"VXNlcm5hbWU6"
    assert raw(b"250 VXNlcm5hbWU6").challenge == b""


def test_a_second_reply_may_be_as_long_as_the_first() -> None:
    """Nothing of the octets of one reply is counted for the next."""
    full = b"250-" + b"x" * (1024 - 6) + b"\r\n"
    longest = full * 63 + b"250 " + b"x" * (1024 - 6) + b"\r\n"
    assert len(longest) == MAX_REPLY
    replies, error, _ = read([longest, longest])
    assert (len(replies), error) == (2, None)


@pytest.mark.parametrize("piece", [b"250 ok\r\n", b"250-" + b"x" * 16380, b"x"], ids=["replies", "a line", "bytes"])
def test_what_waits_in_a_reader_is_bounded(piece: bytes) -> None:
    """No caller can forget it: a server that says more than is taken out fills no memory (issue 12, 1)."""
    reader = ReplyReader()
    count = MAX_UNREAD // len(piece)
    for _ in range(count):
        reader.feed(piece)
    reader.feed(b"x" * (MAX_UNREAD - count * len(piece)))
    for _ in range(2):
        with pytest.raises(ProtocolError, match="more than it was asked"):
            reader.feed(b"x")
    # What came before is there, and makes room for more.
    if piece == b"250 ok\r\n":
        assert reader.next() == RawReply(250, (b"ok",))
        reader.feed(b"x")
