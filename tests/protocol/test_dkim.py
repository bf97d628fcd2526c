"""What a DKIM signature covers, and how it is written (RFC 6376), without a key."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from hashlib import sha256

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol.dkim import ALWAYS_SIGNED, DKIM_HEADERS, RelaxedBody, Signable, Tags, relaxed_field
from securesmtp.errors import MessageError

EMPTY = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
HEAD = b"From: a@example.org\r\n"


def reference(body: bytes) -> bytes:
    """Return *body* in relaxed canonical form: RFC 6376 §3.4.4, sentence by sentence."""
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")[:-1]]
    while lines and not lines[-1]:
        del lines[-1]
    return b"".join(line + b"\r\n" for line in lines)


def digest(blocks: Iterable[bytes]) -> bytes:
    """Return the hash of a body in *blocks*."""
    body = RelaxedBody()
    for block in blocks:
        body.feed(block)
    return body.digest()


LINES = st.lists(st.lists(st.sampled_from([b" ", b"\t", b"x", b"y=", b"."]), max_size=4).map(b"".join), max_size=6)
BODIES = st.tuples(LINES, st.booleans()).map(lambda each: b"\r\n".join(each[0]) + b"\r\n" * each[1])


@settings(max_examples=examples(150))
@given(BODIES)
def test_every_split_of_a_body_has_one_hash(body: bytes) -> None:
    """X8: CR and LF, blanks and empty lines may be in two blocks."""
    expected = sha256(reference(body)).digest()
    assert digest([body]) == expected
    for at in range(len(body) + 1):
        assert digest([body[:at], body[at:]]) == expected
    assert digest(bytes([octet]) for octet in body) == expected


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        (b"", b""),
        (b"\r\n\r\n", b""),
        (b" \r\n\t\r\n", b""),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
        (b"no end", b"no end\r\n"),
        (b"\r\n\r\nx\r\n \r\n", b"\r\n\r\nx\r\n"),
        (b"\r\n" * 9000 + b"x" + b"\r\n" * 9000, b"\r\n" * 9000 + b"x\r\n"),
    ],
    ids=["empty", "empty lines", "blanks", "RFC 6376 3.4.5", "no line end", "inside", "many"],
)
def test_relaxed_bodies(body: bytes, canonical: bytes) -> None:
    """Those of the RFC, and those at which others failed."""
    assert digest([body]) == sha256(canonical).digest()
    assert reference(body) == canonical


def test_an_empty_body_has_the_hash_of_nothing() -> None:
    """X8: not that of one line end, as in simple canonicalization."""
    for message in (HEAD, HEAD + b"\r\n", HEAD + b"\r\n\r\n \r\n"):
        assert f"bh={EMPTY};" in written([message])


@pytest.mark.parametrize(
    ("field", "canonical"),
    [
        (b"A: X", b"a:X\r\n"),
        (b"B: Y\t\r\n\tZ  ", b"b:Y Z\r\n"),
        (b"Subject:", b"subject:\r\n"),
        (b"Subject:\x0b x \x0c", b"subject:\x0b x \x0c\r\n"),
        (b"X:a\r\n b\r\n\t \r\n c", b"x:a b c\r\n"),
    ],
    ids=["RFC 6376 3.4.5 A", "RFC 6376 3.4.5 B", "empty", "no blanks", "folds"],
)
def test_relaxed_fields(field: bytes, canonical: bytes) -> None:
    """RFC 6376 §3.4.2: only space and tab are blanks."""
    name, _, value = field.partition(b":")
    assert relaxed_field(name, value) == canonical


def written(blocks: Iterable[bytes], headers: Iterable[str] = (), signature: bytes = b"s" * 256) -> str:
    """Return the field that is written for a message in *blocks*."""
    names = tuple(dict.fromkeys(name.lower() for name in (*ALWAYS_SIGNED, *headers)))
    tags = Tags("rsa-sha256", "example.org", "mail2027", names)
    return Signable(blocks).sign(tags, 1_700_000_000, lambda _: signature).decode("ascii")


def tag(field: str, name: str) -> str:
    """Return a tag of *field* without its blanks."""
    tags = dict(each.partition("=")[::2] for each in "".join(field.partition(":")[2].split()).split(";"))
    return tags[name]


def test_only_what_is_there_is_signed() -> None:
    """X6: a Message-ID that a provider adds later does not void the signature."""
    field = written([HEAD + b"To: b@example.org\r\n\r\nx\r\n"], DKIM_HEADERS)
    assert tag(field, "h") == "from:from:to:to"


def test_a_field_that_is_there_once_is_named_twice() -> None:
    """So a second one voids the signature (RFC 6376 §8.15). What may be there often is named as often as it is."""
    message = (
        HEAD + b"SUBJECT: x\r\nList-Unsubscribe: <https://example.org>\r\nResent-To: a@b.c\r\nResent-To: d@e.f\r\n"
    )
    field = written([message + b"X-Other: y\r\n\r\n"], DKIM_HEADERS)
    assert tag(field, "h") == "from:from:list-unsubscribe:subject:subject:resent-to:resent-to"


def test_both_unsubscribe_fields_are_signed_whatever_is_chosen() -> None:
    """RFC 8058 §4; and From (RFC 6376 §5.4)."""
    message = HEAD + b"List-Unsubscribe: <https://example.org>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    field = written([message + b"Date: x\r\n\r\n"], ["subject"])
    assert tag(field, "h") == "from:from:list-unsubscribe:list-unsubscribe-post"


def test_several_fields_of_one_name_are_signed_from_the_last_one_up() -> None:
    """RFC 6376 §5.4.2."""
    signed = list[bytes]()

    def keep(data: bytes) -> bytes:
        signed.append(data)
        return b""

    tags = Tags("rsa-sha256", "example.org", "s", ("resent-to", "from"))
    Signable([b"Resent-To: 1\r\nFrom: f\r\nResent-To: 2\r\n\r\n"]).sign(tags, 1, keep)
    assert signed[0].startswith(b"resent-to:2\r\nresent-to:1\r\nfrom:f\r\ndkim-signature:v=1; a=rsa-sha256;")
    assert signed[0].endswith(b"; b=")


@given(st.lists(st.sampled_from(DKIM_HEADERS), unique=True))
@settings(max_examples=examples(60))
def test_the_field_is_well_formed(names: list[str]) -> None:
    """X7: lower case, folded at colons, each name once more than it is there at most, and b= last."""
    message = HEAD + b"".join(b"%b: x\r\n" % name.encode() for name in names if name != "From") + b"\r\n"
    field = written([message], DKIM_HEADERS)
    lines = field.removesuffix("\r\n").split("\r\n")
    assert lines[0] == "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org;"
    assert lines[1] == " s=mail2027; t=1700000000;"
    assert all(line.startswith(" ") and len(line) <= 78 for line in lines[1:])
    signed = field[field.index(" h=") : field.index(" bh=")]
    assert all(line.endswith((":", ";")) for line in signed.rstrip().split("\r\n"))
    found = tag(field, "h").split(":")
    assert found == [name.lower() for name in found]
    assert max(map(found.count, found)) <= 2
    assert b64decode(field.partition(" b=")[2]) == b"s" * 256
    # A strict reader of another program takes it.
    parsed = dkim.util.parse_tag_value(field.partition(":")[2].encode())
    dkim.validate_signature_fields(parsed)


@pytest.mark.parametrize(
    "message", [b"", b"\r\nFrom: a@example.org\r\n", b"To: b@example.org\r\n\r\nFrom: x\r\n", b"Resent-From: a\r\n\r\n"]
)
def test_a_message_without_from_cannot_be_signed(message: bytes) -> None:
    """RFC 6376 §5.4: From has to be signed."""
    with pytest.raises(MessageError, match="no From"):
        Signable([message])


@pytest.mark.parametrize("split", [0, 21, 22, 23, 30])
def test_a_body_that_is_not_ascii_is_refused(split: int) -> None:
    """X4: a server on the way would encode it; the header may be UTF-8 (RFC 6532), which no server changes."""
    message = HEAD.replace(b"a@", "ä@".encode()) + b"\r\nfirst\r\n\xc3\xa4\r\n"
    with pytest.raises(MessageError, match="non-ASCII") as caught:
        Signable([message[:split], message[split:]])
    assert "quoted-printable" in str(caught.value.hint)


@pytest.mark.parametrize("blocks", [1, 2, 7, 100_000])
def test_header_and_body_may_come_in_any_blocks(blocks: int) -> None:
    """The empty line between them may be in two."""
    message = HEAD + b"Subject: x\r\n\r\nText\r\n"
    whole = written([message], DKIM_HEADERS)
    assert written((message[at : at + blocks] for at in range(0, len(message), blocks)), DKIM_HEADERS) == whole
    assert f"bh={b64encode(sha256(b'Text' + bytes([13, 10])).digest()).decode()};" in whole
