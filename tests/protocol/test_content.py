"""The bytes of a message are checked, get CRLF line ends, and are dot-stuffed."""

from __future__ import annotations

import io
import re
import tempfile
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol.content import BLOCK, Content, dot_stuff
from securesmtp._protocol.scanner import _PLAIN_HEADER, MAX_HEADER, MAX_LINE, Scanner, _check_lines
from securesmtp.errors import MessageError

HEADER = b"Subject: x\r\n\r\n"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return *data* split at the positions *cuts*."""
    places = sorted(min(cut, len(data)) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def unstuff(wire: bytes) -> bytes:
    """Return the message that a server receives after 354 (RFC 5321 §4.5.2); nothing may follow the final dot."""
    lines = wire.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end + 1 :] == [b""]
    return b"".join(text.removeprefix(b".") + b"\r\n" for text in lines[:end])


def with_last_crlf(data: bytes) -> bytes:
    """Return *data* with CRLF after its last line."""
    return data if not data or data.endswith(b"\r\n") else data + b"\r\n"


def scan(blocks: list[bytes]) -> tuple[bytes, Content] | str:
    """Return the output of the scanner for *blocks*, or the text of its error."""
    scanner = Scanner(lambda: b"".join(blocks[: scanner.blocks]).count(b"\n"))
    try:
        data = b"".join(scanner.feed(block) for block in blocks)
        scanner.finish()
    except MessageError as error:
        return str(error.args[0])
    return data, Content._of(scanner, ())


def is_clean(wire: bytes) -> bool:
    """Return whether every CR and LF is part of a CRLF, and there is no NUL."""
    return not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", wire)


def all_errors(data: bytes, cut: int) -> set[str]:
    """Return the errors for *data* whole, byte by byte, split at *cut*, and as a file; each must be an error."""
    single = [data[i : i + 1] for i in range(len(data))] if len(data) < 5000 else [data]
    found = [scan([data]), scan(single), scan(split(data, [cut])), scan(split(data, [cut, cut + 1]))]
    with pytest.raises(MessageError) as caught:
        Content.from_file(io.BytesIO(data))
    errors = {text for text in found if isinstance(text, str)}
    assert len([text for text in found if isinstance(text, str)]) == len(found)
    return errors | {caught.value.args[0]}


_CANONICAL = st.lists(st.sampled_from([b".", b"..", b"a", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\r\n\r\n", b"x" * 50]))
_CUTS = st.lists(st.integers(0, 200), max_size=8)


@given(_CANONICAL.map(b"".join), _CUTS)
@settings(max_examples=examples(200), deadline=None)
def test_unstuffing_gives_the_message_for_any_blocks(data: bytes, cuts: list[int]) -> None:
    """Dots and CRLF are found across the edges of blocks, and only the last block ends the content."""
    blocks = list(dot_stuff(split(data, cuts)))
    wire = b"".join(blocks)
    assert unstuff(wire) == with_last_crlf(data)
    assert is_clean(wire)
    assert all(blocks)
    assert b"\r\n.\r\n" not in b"\r\n" + b"".join(blocks[:-1])


@pytest.mark.parametrize(
    ("blocks", "wire"),
    [
        ([], b".\r\n"),
        ([b""], b".\r\n"),
        ([b"."], b"..\r\n.\r\n"),
        ([b"\r", b"\n", b".", b"\r", b"\n"], b"\r\n..\r\n.\r\n"),
        ([b"\r\n"], b"\r\n.\r\n"),
        ([b"a\r\n", b".\r\n"], b"a\r\n..\r\n.\r\n"),
        ([b"a\r\n.", b"b"], b"a\r\n..b\r\n.\r\n"),
        ([b"a", b".b"], b"a.b\r\n.\r\n"),
    ],
)
def test_a_leading_dot_is_doubled(blocks: list[bytes], wire: bytes) -> None:
    """At the start of the content, after a CRLF and across blocks; nowhere else."""
    assert b"".join(dot_stuff(blocks)) == wire


def test_the_last_block_has_the_final_dot() -> None:
    """Without its last block, a message is never complete."""
    data = HEADER + b"x\r\n" * BLOCK
    blocks = list(Content.from_bytes(data).blocks())
    assert len(blocks) > 2
    assert blocks[-1].endswith(b"\r\n.\r\n")
    assert not any(re.search(rb"(?:^|\r\n)\.(?:\r\n|$)", block) for block in blocks[:-1])


_TEXT = st.lists(st.sampled_from([b".", b"a", b"\xc3\xa9", b"\n", b"\r\n", b"\n.", b"\r\n.\r\n", b"\n.\n", b"x" * 70]))


@given(_TEXT.map(b"".join), st.integers(-4, 4), st.booleans())
@settings(max_examples=examples(100), deadline=None)
def test_the_server_receives_the_given_message(body: bytes, around: int, edge: bool) -> None:  # noqa: FBT001 -- hypothesis
    """From bytes and from a file, at the edge of a block and elsewhere: it receives the input with CRLF line ends."""
    fill = b"y" * 62 + b"\r\n"
    # *body* begins within four bytes of the edge of a block.
    room = BLOCK + around - len(HEADER) if edge else 0
    data = HEADER + fill * (room // 64) + b"z" * (room % 64) + body
    canonical = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    content = Content.from_bytes(data)
    filed = Content.from_file(io.BytesIO(data))
    wire = b"".join(content.blocks())
    assert b"".join(filed.blocks()) == wire
    assert unstuff(wire) == with_last_crlf(canonical)
    assert is_clean(wire)
    size = len(with_last_crlf(canonical))
    assert (content.size, content.is_ascii) == (filed.size, filed.is_ascii) == (size, canonical.isascii())
    assert sum(map(len, content.chunk())) == size
    filed.close()


@given(st.binary(max_size=60), _CUTS)
@settings(max_examples=examples(200), deadline=None)
def test_no_bare_line_end_is_ever_sent(data: bytes, cuts: list[int]) -> None:
    """Random bytes are refused, or sent without bare CR, bare LF and NUL, for any blocks."""
    found = scan(split(HEADER + data, cuts))
    whole = scan([HEADER + data])
    assert isinstance(found, str) == isinstance(whole, str)
    if not isinstance(found, str):
        assert found == whole
        assert is_clean(b"".join(dot_stuff(split(found[0], cuts))))


_LINES = st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b".", b"\xff", b"x" * 998 + b"\r\n", b"y" * 400, b"\n\n"]))
_FAULTS = [b"\0", b"\rx", b"\r\r\n", b"\nx" + b"y" * 998 + b"\n", b"\n" + b"z" * 2500]


@given(_LINES.map(b"".join), st.sampled_from([b"", *_FAULTS]), _LINES.map(b"".join), _CUTS, st.integers(0, 3000))
@settings(max_examples=examples(200), deadline=None)
def test_blocks_make_no_difference(before: bytes, fault: bytes, after: bytes, cuts: list[int], by: int) -> None:
    """Whole or split anywhere: the bytes and attributes are the same, or the error and its line number."""
    # Only one fault: of two, the blocks decide which is found first.
    before, after = (b"\n".join(text[:998] for text in part.splitlines()) + b"\n" for part in (before, after))
    data = HEADER + before + fault + (b"\n" + after if fault else b"")
    assert scan(split(data, [cut + by for cut in cuts])) == scan([data])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (HEADER + b"a\0", "line 3 has a NUL"),
        (b"\0", "line 1 has a NUL"),
        (HEADER + b"\n\0\n\0", "line 4 has a NUL"),
        (HEADER + b"a\r\nb\rc\r\n", "line 4 has a CR without LF"),
        (HEADER + b"a\nb\r", "line 4 has a CR without LF"),
        (HEADER + b"a\r\r\n", "line 3 has a CR without LF"),
        (HEADER + b"\r" * 3, "line 3 has a CR without LF"),
        (HEADER + b"a\n" + b"x" * 999, "line 4 is longer than 998 bytes"),
        (HEADER + b"x" * 999 + b"\r\n", "line 3 is longer than 998 bytes"),
        (HEADER + b"a\n\n" + b"x" * 4000 + b"\n", "line 5 is longer than 998 bytes"),
        (b"Subject: x\r\nno field\r\n\r\n", "line 2 is neither a header field nor the continuation of one"),
        (b" x: y\r\n\r\n", "line 1 is neither a header field nor the continuation of one"),
        (b"A: b\r\nC : d\r\n\r\n", "line 2 is neither a header field nor the continuation of one"),
        (b"A: b\r\n: d", "line 2 is neither a header field nor the continuation of one"),
        (b"A: b\nB\xc3\xbc: d\n\n", "line 2 is neither a header field nor the continuation of one"),
        (b"plain text, no header", "line 1 is neither a header field nor the continuation of one"),
        (b"A: b\n c\nD: \xff\n\nx", "line 3 of the header is not UTF-8"),
        (b"A: b\n \xc3", "line 2 of the header is not UTF-8"),
        (b"A: b\nBcc: c@d.example\n\n", "line 2 is a Bcc field, which every recipient would see"),
        (b"BCC:", "line 1 is a BCC field, which every recipient would see"),
        (b"A: b\nResent-bcc: c\n\n", "line 2 is a Resent-bcc field, which every recipient would see"),
        (b"A: b\n c\nBcc: d\n\n", "line 3 is a Bcc field, which every recipient would see"),
        (b"A: b\n c\nno field\n\n", "line 3 is neither a header field nor the continuation of one"),
    ],
)
def test_an_error_names_the_line(data: bytes, error: str) -> None:
    """It is the number of the line in the caller's file, for any blocks."""
    for cut in range(min(len(data), 40)):
        assert all_errors(data, cut) == {error}


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"no field\n\n", "empty line"),
        (b"Bcc: c\n\n", "remove it"),
        (b"\0", "base64"),
        (HEADER + b"x" * 999, "base64"),
        (HEADER + b"x" * 999 + b"\nx", "base64"),
    ],
)
def test_a_hint_says_how_to_fix_it(data: bytes, hint: str) -> None:
    """The hint fits the error."""
    with pytest.raises(MessageError) as caught:
        Content.from_bytes(data)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "data",
    [b"", b"\r\n", b"\n", b"\nno header", b"A:", b"A: b", b"A: b\r\n", b"A:\n b\n\t c\n \n\nx", b"A: b\n\nBcc: x\n\n\n",
     b"A: b\n\n\xff\xfe"],
)  # fmt: skip
def test_unusual_but_legal_messages_pass(data: bytes) -> None:
    """They may have no header, no body or no line end; a body may say Bcc and have any bytes but NUL and bare CR."""
    canonical = data.replace(b"\n", b"\r\n") if b"\r" not in data else data
    content = Content.from_bytes(data)
    assert unstuff(b"".join(content.blocks())) == with_last_crlf(canonical)
    # RFC 1870 §3: without the final dot, but with the line end that is added before it.
    assert content.size == len(with_last_crlf(canonical) if data else b"")


@pytest.mark.parametrize("around", range(-3, 4))
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b""])
def test_a_line_across_blocks_has_at_most_998_octets(around: int, end: bytes) -> None:
    """998 pass and 999 do not, if the line begins or ends near the edge of a block."""
    for place in (around, around + MAX_LINE, 500):
        room = BLOCK - len(HEADER) + place - MAX_LINE
        before = HEADER + (b"y" * 62 + b"\r\n") * (room // 64) + (b"z" * max(room % 64 - 2, 0) + b"\r\n")
        tail = end + b"a\r\n" if end else b""
        assert Content.from_bytes(before + b"x" * MAX_LINE + tail).size > BLOCK - 2000
        with pytest.raises(MessageError, match="longer than 998") as caught:
            Content.from_bytes(before + b"x" * (MAX_LINE + 1) + tail)
        assert str(caught.value).startswith(f"line {len(before.splitlines()) + 1} ")


def _long_header(size: int) -> bytes:
    text = b"A: " + b"x" * 500 + b"\r\n"
    full, rest = divmod(size - 600, len(text))
    header = text * full + b"B: " + b"y" * (rest + 600 - 5) + b"\r\n"
    assert len(header) == size
    return header


def test_a_header_has_at_most_a_mebibyte() -> None:
    """A longer header is refused, from bytes and from a file."""
    assert Content.from_bytes(_long_header(MAX_HEADER - 10) + b"\r\n").size == MAX_HEADER - 8
    data = _long_header(MAX_HEADER + BLOCK) + b"\r\nx\r\n"
    with pytest.raises(MessageError, match="header is longer than 1048576"):
        Content.from_bytes(data)
    with pytest.raises(MessageError, match="header is longer than 1048576"):
        Content.from_file(io.BytesIO(data))


def test_a_header_without_body_has_the_same_limit() -> None:
    """It is two bytes lower: the limit includes a CRLF that the scanner puts before the header."""
    assert Content.from_bytes(_long_header(MAX_HEADER - 2)).size == MAX_HEADER - 2
    with pytest.raises(MessageError, match="header is longer"):
        Content.from_bytes(_long_header(MAX_HEADER - 1))


def test_the_limit_of_a_header_does_not_depend_on_blocks() -> None:
    """A header over the limit is refused, wherever blocks begin."""
    data = _long_header(MAX_HEADER + 100) + b"\r\nx\r\n"
    for cuts in ([], [50], [-1, 0, 1], [100, 101]):
        assert scan(split(data, [MAX_HEADER + cut for cut in cuts])) == "the header is longer than 1048576 bytes"


@pytest.mark.parametrize(
    ("header", "message_id"),
    [
        (b"Message-ID: <a@b>\r\n", "<a@b>"),
        (b"message-id:<a@b>\r\n", "<a@b>"),
        (b"A: b\r\nMessage-Id:\r\n <a@b>\r\nC: d\r\n", "<a@b>"),
        (b"A: b\r\nX-Message-ID: <a@b>\r\n", None),
        (b"A: Message-ID: <a@b>\r\n", None),
        (b"", None),
        (b"A: b\r\n\r\nMessage-ID: <a@b>\r\n", None),
        (b"Message-ID:\r\nTo: a@b.example\r\n", None),
    ],
)
def test_the_message_id_is_that_of_the_header(header: bytes, message_id: str | None) -> None:
    """It is found in any case and folding, and only in the header."""
    assert Content.from_bytes(header + b"\r\nx\r\n").message_id == message_id


@pytest.mark.parametrize(
    ("data", "is_ascii", "utf8_header"),
    [
        (HEADER + b"x", True, False),
        (HEADER + "ü".encode(), False, False),
        ("Subject: ü\r\n\r\nx".encode(), False, True),
        ("Subject: ü".encode(), False, True),
        (HEADER + b"x\r\n" * BLOCK + b"\xff", False, False),
        (HEADER + b"\xff" + b"x\r\n" * BLOCK, False, False),
    ],
)
def test_non_ascii_bytes_are_noticed(data: bytes, *, is_ascii: bool, utf8_header: bool) -> None:
    """Anywhere they need 8BITMIME; in the header they need SMTPUTF8."""
    content = Content.from_bytes(data)
    assert (content.is_ascii, content.utf8_header) == (is_ascii, utf8_header)


def test_a_file_in_text_mode_is_refused() -> None:
    """The hint names the right mode."""
    with pytest.raises(MessageError, match=r"str, not bytes.*rb"):
        Content.from_file(cast("BinaryIO", io.StringIO("A: b\n")))


class _Short(io.BytesIO):
    """Returns a few bytes for each read, as a pipe does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(3)


def test_a_file_is_read_once_from_its_position() -> None:
    """The library keeps a copy: closing the file changes nothing, and the message can be sent again."""
    file = _Short(b"skip" + HEADER + b".x\n" * 40)
    file.seek(4)
    content = Content.from_file(file)
    file.close()
    first = b"".join(content.blocks())
    assert first == b"".join(content.blocks()) == HEADER + b"..x\r\n" * 40 + b".\r\n"
    content.close()
    with pytest.raises(ValueError, match="closed"):
        list(content.blocks())


@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt])
def test_the_copy_is_closed_when_reading_fails(failure: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error or an interrupt leaves no temporary file open."""
    copies: list[tempfile.SpooledTemporaryFile[bytes]] = []

    class Kept(tempfile.SpooledTemporaryFile[bytes]):
        def __init__(self, max_size: int) -> None:
            super().__init__(max_size)
            copies.append(self)

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise failure

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Kept)
    with pytest.raises(failure):
        Content.from_file(Broken())
    assert [copy.closed for copy in copies] == [True]


def test_content_from_bytes_needs_no_closing() -> None:
    """Closing it does nothing; and its repr does not show the bytes."""
    content = Content.from_bytes(HEADER + b"private")
    content.close()
    assert b"private" in b"".join(content.blocks())
    assert "private" not in repr(content)


def test_a_large_file_is_copied_to_disk_and_sent_in_blocks() -> None:
    """The copy is in memory up to a mebibyte; the content of a file and of bytes is sent in blocks."""
    small, large = (Content.from_file(io.BytesIO(HEADER + b"x\r\n" * lines)) for lines in (1000, 500_000))
    assert cast("tempfile.SpooledTemporaryFile[bytes]", small.source).name is None
    assert cast("tempfile.SpooledTemporaryFile[bytes]", large.source).name is not None
    assert max(map(len, large.blocks())) < BLOCK + 10
    assert max(map(len, Content.from_bytes(HEADER + b"x\r\n" * 500_000).blocks())) < BLOCK + 10
    small.close()
    large.close()


def test_the_first_line_has_the_same_limit() -> None:
    """998 octets pass and 999 do not, if it is the only line or another follows."""
    for end in (b"\r\n\r\nx\r\n", b"\r\n", b""):
        assert Content.from_bytes(b"A: " + b"x" * (MAX_LINE - 3) + end).size == MAX_LINE + len(end or b"\r\n")
        with pytest.raises(MessageError, match="line 1 is longer than 998"):
            Content.from_bytes(b"A: " + b"x" * (MAX_LINE - 2) + end)


LINES = ["Subject: x", "A:", "bcc: x", "BCC:", "Resent-Bcc: x", "resent-bcc:", "Bcc", "Bccx: y", "X-Bcc: y",
         " folded", "\tBcc: x", "", "no field", " ", ":", "a b: c", "\x80: x", "A: \xfc", "A:\x0bBcc: x"]  # fmt: skip


@given(st.lists(st.sampled_from(LINES) | st.text(st.sampled_from("bBcC: -\tx"), max_size=6), max_size=6), st.booleans())
@settings(max_examples=examples(500), deadline=None)
def test_the_fast_and_the_slow_check_of_a_header_agree(lines: list[str], has_end: bool) -> None:  # noqa: FBT001
    """
    Every recipient would see a Bcc (RFC 5322 §3.6.3), and the fast check once missed one.

    On early 3.11, `re.fullmatch` gets possessive quantifiers wrong: a header that ended in ``BCC:`` passed. There are
    no empty lines here, since an empty line ends the header before either check.
    """
    header = "".join(f"{line}\r\n" for line in lines if line).encode("latin-1")
    header = header if has_end else header.removesuffix(b"\r\n")
    is_plain = _PLAIN_HEADER.fullmatch(header) is not None
    try:
        _check_lines(header)
    except MessageError:
        assert not is_plain
    else:
        # The slow check alone accepts a last line without CRLF.
        assert is_plain is (has_end or not header)
