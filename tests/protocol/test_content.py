"""Octets of one message: checked, in CRLF form, cut into blocks, dot-stuffed."""

from __future__ import annotations

import io
import re
import tempfile
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol.content import (
    _PLAIN_HEADER,
    BLOCK,
    MAX_HEADER,
    MAX_LINE,
    Content,
    Scanner,
    _check_lines,
    stuffed,
)
from securesmtp.errors import MessageError

HEADER = b"Subject: x\r\n\r\n"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return *data* cut at these places."""
    places = sorted(min(cut, len(data)) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def unstuffed(wire: bytes) -> bytes:
    """Return what a server makes of the octets after 354 (RFC 5321 §4.5.2); nothing may follow the end."""
    lines = wire.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end + 1 :] == [b""]
    return b"".join(text.removeprefix(b".") + b"\r\n" for text in lines[:end])


def ended(data: bytes) -> bytes:
    """Return canonical *data* with the CRLF that its last line needs."""
    return data if not data or data.endswith(b"\r\n") else data + b"\r\n"


def scanned(blocks: list[bytes]) -> tuple[bytes, Content] | str:
    """Return what the scanner makes of *blocks*, or what it says against them."""
    scanner = Scanner()
    try:
        data = b"".join(scanner.feed(block) for block in blocks)
        scanner.finish()
    except MessageError as error:
        return str(error.args[0])
    return data, scanner.content(b"")


def clean(wire: bytes) -> bool:
    """Return whether every CR and LF is one of a pair, and there is no NUL."""
    return not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", wire)


def by_each(data: bytes, cut: int) -> set[str]:
    """Return the errors for *data* whole, by octet, cut at *cut*, and as a file; there must be one each."""
    single = [data[i : i + 1] for i in range(len(data))] if len(data) < 5000 else [data]
    found = [scanned([data]), scanned(single), scanned(split(data, [cut])), scanned(split(data, [cut, cut + 1]))]
    with pytest.raises(MessageError) as caught:
        Content.from_file(io.BytesIO(data))
    errors = {text for text in found if isinstance(text, str)}
    assert len([text for text in found if isinstance(text, str)]) == len(found)
    return errors | {caught.value.args[0]}


_CANONICAL = st.lists(st.sampled_from([b".", b"..", b"a", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\r\n\r\n", b"x" * 50]))
_CUTS = st.lists(st.integers(0, 200), max_size=8)


@given(_CANONICAL.map(b"".join), _CUTS)
@settings(max_examples=examples(200), deadline=None)
def test_unstuffing_gives_the_message_wherever_it_is_cut(data: bytes, cuts: list[int]) -> None:
    """Dots and CRLF at the edges of blocks are stuffed as in the middle, and only the last block ends the content."""
    blocks = list(stuffed(split(data, cuts)))
    wire = b"".join(blocks)
    assert unstuffed(wire) == ended(data)
    assert clean(wire)
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
    assert b"".join(stuffed(blocks)) == wire


def test_the_end_comes_with_the_last_octets() -> None:
    """What is written before the last block is no message: the final dot stands in that block alone."""
    data = HEADER + b"x\r\n" * BLOCK
    blocks = list(Content.from_bytes(data).blocks())
    assert len(blocks) > 2
    assert blocks[-1].endswith(b"\r\n.\r\n")
    assert not any(re.search(rb"(?:^|\r\n)\.(?:\r\n|$)", block) for block in blocks[:-1])


_TEXT = st.lists(st.sampled_from([b".", b"a", b"\xc3\xa9", b"\n", b"\r\n", b"\n.", b"\r\n.\r\n", b"\n.\n", b"x" * 70]))


@given(_TEXT.map(b"".join), st.integers(-4, 4), st.booleans())
@settings(max_examples=examples(100), deadline=None)
def test_what_arrives_is_what_was_given(body: bytes, around: int, edge: bool) -> None:  # noqa: FBT001 -- hypothesis
    """From octets and from a file, at the edge of a block and before: CRLF form, unstuffed, is the input's."""
    fill = b"y" * 62 + b"\r\n"
    # So much that *body* begins within four octets of the edge of a block.
    room = BLOCK + around - len(HEADER) if edge else 0
    data = HEADER + fill * (room // 64) + b"z" * (room % 64) + body
    canonical = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    content = Content.from_bytes(data)
    filed = Content.from_file(io.BytesIO(data))
    wire = b"".join(content.blocks())
    assert b"".join(filed.blocks()) == wire
    assert unstuffed(wire) == ended(canonical)
    assert clean(wire)
    assert (content.size, content.is_ascii) == (filed.size, filed.is_ascii) == (len(canonical), canonical.isascii())
    filed.close()


@given(st.binary(max_size=60), _CUTS)
@settings(max_examples=examples(200), deadline=None)
def test_no_bare_line_end_ever_leaves(data: bytes, cuts: list[int]) -> None:
    """Random octets are refused or leave without bare CR, bare LF and NUL, however they are cut."""
    found = scanned(split(HEADER + data, cuts))
    whole = scanned([HEADER + data])
    assert isinstance(found, str) == isinstance(whole, str)
    if not isinstance(found, str):
        assert found == whole
        assert clean(b"".join(stuffed(split(found[0], cuts))))


_LINES = st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b".", b"\xff", b"x" * 998 + b"\r\n", b"y" * 400, b"\n\n"]))
_FAULTS = [b"\0", b"\rx", b"\r\r\n", b"\nx" + b"y" * 998 + b"\n", b"\n" + b"z" * 2500]


@given(_LINES.map(b"".join), st.sampled_from([b"", *_FAULTS]), _LINES.map(b"".join), _CUTS, st.integers(0, 3000))
@settings(max_examples=examples(200), deadline=None)
def test_how_it_is_cut_makes_no_difference(before: bytes, fault: bytes, after: bytes, cuts: list[int], by: int) -> None:
    """Whole or cut anywhere: the same octets and finding, or the same error with the same line number."""
    # Only one fault: with two, the first that is seen depends on the cut.
    before, after = (b"\n".join(text[:998] for text in part.splitlines()) + b"\n" for part in (before, after))
    data = HEADER + before + fault + (b"\n" + after if fault else b"")
    assert scanned(split(data, [cut + by for cut in cuts])) == scanned([data])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (HEADER + b"a\0", "line 3 has a NUL"),
        (b"\0", "line 1 has a NUL"),
        (HEADER + b"\n\0\n\0", "line 4 has a NUL"),
        (HEADER + b"a\r\nb\rc\r\n", "line 4 has a CR that no LF follows"),
        (HEADER + b"a\nb\r", "line 4 has a CR that no LF follows"),
        (HEADER + b"a\r\r\n", "line 3 has a CR that no LF follows"),
        (HEADER + b"\r" * 3, "line 3 has a CR that no LF follows"),
        (HEADER + b"a\n" + b"x" * 999, "line 4 is longer than 998 octets"),
        (HEADER + b"x" * 999 + b"\r\n", "line 3 is longer than 998 octets"),
        (HEADER + b"a\n\n" + b"x" * 4000 + b"\n", "line 5 is longer than 998 octets"),
        (b"Subject: x\r\nno field\r\n\r\n", "line 2 is neither a header field nor the continuation of one"),
        (b" x: y\r\n\r\n", "line 1 is neither a header field nor the continuation of one"),
        (b"A: b\r\nC : d\r\n\r\n", "line 2 is neither a header field nor the continuation of one"),
        (b"A: b\r\n: d", "line 2 is neither a header field nor the continuation of one"),
        (b"A: b\nB\xc3\xbc: d\n\n", "line 2 is neither a header field nor the continuation of one"),
        (b"plain text, no header", "line 1 is neither a header field nor the continuation of one"),
        (b"A: b\n c\nD: \xff\n\nx", "line 3 is a header that is not UTF-8"),
        (b"A: b\n \xc3", "line 2 is a header that is not UTF-8"),
        (b"A: b\nBcc: c@d.example\n\n", "line 2 is a Bcc field, which every recipient would see"),
        (b"BCC:", "line 1 is a BCC field, which every recipient would see"),
        (b"A: b\nResent-bcc: c\n\n", "line 2 is a Resent-bcc field, which every recipient would see"),
        (b"A: b\n c\nBcc: d\n\n", "line 3 is a Bcc field, which every recipient would see"),
        (b"A: b\n c\nno field\n\n", "line 3 is neither a header field nor the continuation of one"),
    ],
)
def test_a_fault_is_refused_with_its_line(data: bytes, error: str) -> None:
    """The number is that of the line in the caller's file, however the octets arrive."""
    for cut in range(min(len(data), 40)):
        assert by_each(data, cut) == {error}


@pytest.mark.parametrize(
    ("data", "hint"), [(b"no field\n\n", "empty line"), (b"Bcc: c\n\n", "take it out"), (b"\0", "base64")]
)
def test_a_fault_of_the_header_comes_with_a_hint(data: bytes, hint: str | None) -> None:
    """What a person can mend is said, where there is something."""
    with pytest.raises(MessageError) as caught:
        Content.from_bytes(data)
    assert str(hint) in str(caught.value.hint)


@pytest.mark.parametrize(
    "data",
    [b"", b"\r\n", b"\n", b"\nno header", b"A:", b"A: b", b"A: b\r\n", b"A:\n b\n\t c\n \n\nx", b"A: b\n\nBcc: x\n\n\n",
     b"A: b\n\n\xff\xfe"],
)  # fmt: skip
def test_what_looks_odd_and_is_legal_passes(data: bytes) -> None:
    """No header, no body, no line end: none of it is a fault; a body may say Bcc and be of any octets."""
    canonical = data.replace(b"\n", b"\r\n") if b"\r" not in data else data
    content = Content.from_bytes(data)
    assert unstuffed(b"".join(content.blocks())) == ended(canonical)
    assert content.size == len(canonical)


@pytest.mark.parametrize("around", range(-3, 4))
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b""])
def test_a_line_has_at_most_998_octets_across_blocks(around: int, end: bytes) -> None:
    """Exactly 998 pass and 999 do not, where the line begins and ends around the edge of a block."""
    for place in (around, around + MAX_LINE, 500):
        room = BLOCK - len(HEADER) + place - MAX_LINE
        before = HEADER + (b"y" * 62 + b"\r\n") * (room // 64) + (b"z" * max(room % 64 - 2, 0) + b"\r\n")
        tail = end + b"a\r\n" if end else b""
        assert Content.from_bytes(before + b"x" * MAX_LINE + tail).size > BLOCK - 2000
        with pytest.raises(MessageError, match="longer than 998") as caught:
            Content.from_bytes(before + b"x" * (MAX_LINE + 1) + tail)
        assert str(caught.value).startswith(f"line {len(before.splitlines()) + 1} ")


def _long_header(octets: int) -> bytes:
    text = b"A: " + b"x" * 500 + b"\r\n"
    full, rest = divmod(octets - 600, len(text))
    header = text * full + b"B: " + b"y" * (rest + 600 - 5) + b"\r\n"
    assert len(header) == octets
    return header


def test_a_header_has_at_most_a_mebibyte() -> None:
    """A header without end is not collected beyond that, from octets and from a file."""
    assert Content.from_bytes(_long_header(MAX_HEADER - 10) + b"\r\n").size == MAX_HEADER - 8
    data = _long_header(MAX_HEADER + BLOCK) + b"\r\nx\r\n"
    with pytest.raises(MessageError, match="header is longer than 1048576"):
        Content.from_bytes(data)
    with pytest.raises(MessageError, match="header is longer than 1048576"):
        Content.from_file(io.BytesIO(data))


def test_a_header_without_body_has_the_same_limit() -> None:
    """The CRLF of our own in front of it counts: two octets below the limit pass, one below does not."""
    assert Content.from_bytes(_long_header(MAX_HEADER - 2)).size == MAX_HEADER - 2
    with pytest.raises(MessageError, match="header is longer"):
        Content.from_bytes(_long_header(MAX_HEADER - 1))


def test_the_limit_of_a_header_does_not_depend_on_the_cut() -> None:
    """A header over the limit is refused, wherever the blocks begin."""
    data = _long_header(MAX_HEADER + 100) + b"\r\nx\r\n"
    assert scanned([data]) == scanned(split(data, [MAX_HEADER + 50]))


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
        pytest.param(
            b"Message-ID:\r\nTo: a@b.example\r\n",
            None,
        ),
    ],
)
def test_the_message_id_is_that_of_the_header(header: bytes, message_id: str | None) -> None:
    """It is read in whatever case and folding, from the header only."""
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
def test_what_the_server_must_offer_is_known(data: bytes, *, is_ascii: bool, utf8_header: bool) -> None:
    """Non-ASCII octets anywhere need 8BITMIME; in the header they need SMTPUTF8."""
    content = Content.from_bytes(data)
    assert (content.is_ascii, content.utf8_header) == (is_ascii, utf8_header)


def test_a_file_in_text_mode_is_refused() -> None:
    """Text has no octets yet; the hint says which mode."""
    with pytest.raises(MessageError, match=r"str, not bytes.*rb"):
        Content.from_file(cast("BinaryIO", io.StringIO("A: b\n")))


class _Short(io.BytesIO):
    """Gives a few octets at each read, as a pipe does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(3)


def test_a_file_is_read_once_from_where_it_stands() -> None:
    """The copy is ours: what happens to the file later does not change what is sent, and it can be sent again."""
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
    """Whatever goes wrong, no temporary file is left open."""
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


def test_octets_need_no_closing() -> None:
    """Closing content that was given as octets does nothing, and its repr does not show them."""
    content = Content.from_bytes(HEADER + b"private")
    content.close()
    assert b"private" in b"".join(content.blocks())
    assert "private" not in repr(content)


def test_a_large_file_is_neither_kept_in_memory_nor_written_at_once() -> None:
    """Beyond a mebibyte the copy is on the disk, and what is read of it at a time is a block."""
    small, large = (Content.from_file(io.BytesIO(HEADER + b"x\r\n" * octets)) for octets in (1000, 500_000))
    assert cast("tempfile.SpooledTemporaryFile[bytes]", small.source).name is None
    assert cast("tempfile.SpooledTemporaryFile[bytes]", large.source).name is not None
    assert max(map(len, large.blocks())) < BLOCK + 10
    assert max(map(len, Content.from_bytes(HEADER + b"x\r\n" * 500_000).blocks())) < BLOCK + 10
    small.close()
    large.close()


def test_the_first_line_has_the_limit_of_every_line() -> None:
    """Exactly 998 octets pass, one more does not, with a line after it and as the only one."""
    for end in (b"\r\n\r\nx", b"\r\n", b""):
        assert Content.from_bytes(b"A: " + b"x" * (MAX_LINE - 3) + end).size == MAX_LINE + len(end)
        with pytest.raises(MessageError, match="line 1 is longer than 998"):
            Content.from_bytes(b"A: " + b"x" * (MAX_LINE - 2) + end)


LINES = ["Subject: x", "A:", "bcc: x", "BCC:", "Resent-Bcc: x", "resent-bcc:", "Bcc", "Bccx: y", "X-Bcc: y",
         " folded", "\tBcc: x", "", "no field", " ", ":", "a b: c", "\x80: x", "A: \xfc", "A:\x0bBcc: x"]  # fmt: skip


@given(st.lists(st.sampled_from(LINES) | st.text(st.sampled_from("bBcC: -\tx"), max_size=6), max_size=6), st.booleans())
@settings(max_examples=examples(500), deadline=None)
def test_the_fast_look_at_a_header_accepts_what_the_slow_one_accepts(lines: list[str], ended: bool) -> None:  # noqa: FBT001
    """
    On early 3.11 `re.fullmatch` gets possessive quantifiers wrong: a header that ended in ``BCC:`` passed.

    A Bcc would be seen by every recipient (RFC 5322 §3.6.3). An empty line ends the header before either looks at it.
    """
    header = "".join(f"{line}\r\n" for line in lines if line).encode("latin-1")
    header = header if ended else header.removesuffix(b"\r\n")
    is_plain = _PLAIN_HEADER.fullmatch(header) is not None
    try:
        _check_lines(header)
    except MessageError:
        assert not is_plain
    else:
        # A last line without its end is left to the slow look.
        assert is_plain is (ended or not header)
