"""Parts with lines of more than 900 octets are encoded, and read as before; what must not be changed is not."""

from __future__ import annotations

import base64
import email
import email.policy
import re
from email.message import EmailMessage
from email.mime.text import MIMEText
from email.parser import HeaderParser
from itertools import starmap
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol.building import from_message
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import BLOCK, Content
from securesmtp._protocol.message import Submission
from securesmtp._protocol.scanner import MAX_LINE, SAFE_LINE
from securesmtp.errors import MessageError

HEAD = "From: a@b.example\nTo: c@d.example\nDate: Mon, 01 Jan 2024 00:00:00 +0000\nMessage-ID: <1@b.example>\n"
MIME = HEAD + "MIME-Version: 1.0\n"
LONG = "y" * 950
EIGHT_BIT = Capabilities({"8BITMIME": ""})


def prepare(message: EmailMessage) -> Submission:
    """Return the submission of *message*, whose content must not change because of its copy."""
    before = message.as_bytes(policy=email.policy.SMTP)
    made = from_message(message, None, None, date=lambda: "", token=lambda: "token")
    assert message.as_bytes(policy=email.policy.SMTP) == before
    return made


def parse(data: str | bytes) -> EmailMessage:
    """Return the message of *data*."""
    data = data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape")
    return email.message_from_bytes(data, policy=email.policy.default)


def wire(submission: Submission) -> bytes:
    """Return the bytes that are sent."""
    return b"".join(submission.content.chunk())


def longest(data: bytes) -> int:
    """Return the octets of the longest line."""
    return max(map(len, data.split(b"\r\n")))


def decoded(data: bytes) -> list[tuple[str, bytes]]:
    """Return type and decoded octets of each part, with LF line ends and without the last ones."""
    return [
        (part.get_content_type(), cast("bytes", part.get_payload(decode=True)).replace(b"\r\n", b"\n").rstrip(b"\n"))
        for part in parse(data).walk()
        if not part.is_multipart()
    ]


def part(kind: str, payload: str, encoding: str = "") -> str:
    """Return a message of one part as text."""
    field = f"Content-Transfer-Encoding: {encoding}\n" if encoding else ""
    return f"{MIME}Content-Type: {kind}\n{field}\n{payload}\n"


@pytest.mark.parametrize(
    ("kind", "payload", "encoding", "chosen"),
    [
        ("text/plain; charset=us-ascii", f"a\n{LONG} \n..\nFrom x\n\n", "", "quoted-printable"),
        ("text/html; charset=utf-8", "<p>grün</p>" * 200, "8bit", "quoted-printable"),
        ("text/html; charset=utf-8", "日本語" * 200 + "\n日本", "8BIT", "base64"),
        ("text/html; charset=utf-8", "=3D" * 900, " Binary ", "quoted-printable"),
        ("text/plain; charset=iso-8859-1", "a" * 950 + "\udcfc", "8bit", "quoted-printable"),
        ("application/json", '{"key": [' + "1," * 600 + '"ü"]}\n{}', "8bit", "base64"),
        ("model/stl", LONG, "7bit", "base64"),
        ("text/plain", "QUJD" * 500, "base64", "base64"),
        ("image/png", "QUJD\n" + "QUJD" * 500 + "=", "base64", "base64"),
        ("text/plain; charset=utf-8", "=C3=BC==3D =x " * 99 + "=\nx\ny=", "quoted-printable", "quoted-printable"),
    ],
    ids=["ASCII", "8bit", "CJK", "binary", "latin-1", "JSON", "other", "base64", "base64-image", "qp"],
)
@pytest.mark.parametrize("place", ["alone", "inside"])
def test_a_part_with_a_long_line_is_encoded(kind: str, payload: str, encoding: str, chosen: str, place: str) -> None:
    """Its text is the same afterwards, with and without 8BITMIME."""
    message = parse(part(kind, payload, encoding))
    if place == "inside":
        message.make_mixed()
        message.add_attachment("short\n", filename="a.txt", cte="7bit")
    submission = prepare(message)
    sent = wire(submission)
    expected = decoded(message.as_bytes(policy=email.policy.SMTP.clone(max_line_length=None)))
    for data in (sent, wire(submission.adapt_to(Capabilities({})))):
        assert longest(data) <= 78
        assert decoded(data) == expected
    first = next(each for each in parse(sent).walk() if not each.is_multipart())
    assert [str(value) for value in first.get_all("Content-Transfer-Encoding", [])] == [chosen]
    assert submission.content.longest_line == 0
    # The other part is as it was.
    assert place == "alone" or b"\r\n\r\nshort\r\n" in sent


@pytest.mark.parametrize("length", [SAFE_LINE, SAFE_LINE + 1, MAX_LINE + 1])
@pytest.mark.parametrize("encoding", ["7bit", "base64", "quoted-printable"])
def test_a_part_is_encoded_from_901_octets(length: int, encoding: str) -> None:
    """Up to 900 it stays as it is."""
    data = part("text/plain", "A" * length, encoding)
    assert (wire(prepare(parse(data))) == data.encode().replace(b"\n", b"\r\n")) is (length == SAFE_LINE)


def test_a_message_without_mime_fields_gets_the_encoding() -> None:
    """And MIME-Version, without which readers do not look at it."""
    message = parse(f"{HEAD}\n{LONG}\n")
    arrived = parse(wire(prepare(message)))
    assert arrived["MIME-Version"] == "1.0"
    assert arrived.get_content().strip() == LONG


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_ends_are_those_of_the_wire(end: str) -> None:
    """A text that is encoded has the lines that it would have unencoded."""
    for first, count in (("ü", 1), ("ü" * 500, 500)):
        message = cast("EmailMessage", MIMEText("x"))
        message["From"], message["To"] = "a@b.example", "c@d.example"
        text = f"{first}{end}{'z' * 950 if count == 1 else ''}{end}"
        message.replace_header("Content-Type", "text/plain; charset=utf-8")
        message.set_payload(text.encode().decode("ascii", "surrogateescape"))
        message = parse(message.as_bytes()) if end == "\n" else message
        (kind, data), *_ = decoded(wire(prepare(message)))
        assert (kind, data.decode()) == ("text/plain", text.replace(end, "\n").rstrip("\n"))


def _signed_part() -> str:
    inner = f"Content-Type: text/plain\n\n{LONG}"
    return f'{MIME}Content-Type: multipart/signed; boundary="s"\n\n--s\n{inner}\n--s\n{inner}\n--s--\n'


KEPT = {
    "attached": f"{MIME}Content-Type: message/rfc822\n\nSubject: x\n\n{LONG}\n",
    "attached-text": f"{MIME}Content-Type: message/external-body; access-type=x\n\n{LONG}\n\nx\n",
    "DKIM": f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; h=From; bh=x; b=x\n{HEAD}\n{LONG}\n",
    "uuencode": part("text/plain", LONG, "x-uuencode"),
    "multipart": part('multipart/signed; micalg="sha-256"; protocol="application/x"', LONG),
    "preamble": f'{MIME}Content-Type: multipart/mixed; boundary="s"\n\n{LONG}\n--s\n\nx\n--s--\n',
    "field": f"{HEAD}X-Word: {LONG}\n\nx\n",
}


@pytest.mark.parametrize("kind", KEPT)
def test_what_must_not_be_encoded_is_sent_as_it_is(kind: str) -> None:
    """Up to 998 octets; its length is noted, for the event. A longer line is refused."""
    submission = prepare(parse(KEPT[kind]))
    assert longest(wire(submission)) == submission.content.longest_line >= len(LONG)
    with pytest.raises(MessageError, match="998 bytes"):
        prepare(parse(KEPT[kind].replace(LONG, LONG * 2)))


def test_a_message_inside_that_is_a_text_is_not_encoded() -> None:
    """As HeaderParser leaves it: base64 is not allowed for it (RFC 2046 §5.2.1)."""
    message = HeaderParser(policy=email.policy.default).parsestr(KEPT["attached"])
    submission = prepare(message)
    assert f"\r\n{LONG}\r\n".encode() in wire(submission)


def test_text_in_base64_has_the_line_ends_of_the_wire() -> None:
    """RFC 2045 §6.8."""
    text = "日本語" * 200 + "\n日本\n"
    message = parse(part("text/plain; charset=utf-8", text, "8bit"))
    assert parse(wire(prepare(message))).get_payload(decode=True) == f"{text}\n".replace("\n", "\r\n").encode()


def test_a_signed_part_is_not_encoded() -> None:
    """Built by a program, as it is signed."""
    message = EmailMessage()
    message["From"], message["To"], message["MIME-Version"] = "a@b.example", "c@d.example", "1.0"
    message["Content-Type"] = 'multipart/signed; micalg="sha-256"; protocol="application/x"; boundary="s"'
    inner = EmailMessage()
    inner.set_payload(LONG)
    message.attach(inner)
    submission = prepare(message)
    assert LONG.encode() in wire(submission)
    assert submission.content.longest_line == len(LONG)


def test_a_header_field_is_folded_at_900_octets() -> None:
    """Also if the caller's policy allows longer lines."""
    policy = email.policy.default.clone(max_line_length=None)
    message = EmailMessage(policy=policy)
    message["From"], message["To"], message["Subject"] = "a@b.example", "c@d.example", "word " * 400
    assert 890 < longest(wire(prepare(message))) <= SAFE_LINE


@pytest.mark.parametrize("text", ["=" * 950, "y" * 901 + "=" * 90, "==4" * 310])
def test_malformed_quoted_printable_is_not_broken(text: str) -> None:
    """Each reader makes something else of it, and of a line break in it."""
    submission = prepare(parse(part("text/plain", text, "quoted-printable")))
    assert f"\r\n\r\n{text}\r\n".encode() in wire(submission)
    assert submission.content.longest_line == len(text)


_ATOMS = st.sampled_from(
    ["a", "=", "=3", "=41", " ", "\t", ".", "\n", "\n\n", "x" * 70, "y" * 400, "ü", "ü" * 300, "€"]
)


@given(st.lists(_ATOMS, max_size=30).map("".join), st.sampled_from(["text/plain", "application/x"]))
@settings(max_examples=examples(200), deadline=None)
def test_any_text_arrives(text: str, kind: str) -> None:
    """Whatever its lines: the reader gets its octets."""
    message = parse(part(f"{kind}; charset=utf-8", text + "z" * 901, "8bit"))
    sent = wire(prepare(message))
    assert longest(sent) <= 78
    assert decoded(sent) == [(kind, (text + "z" * 901).encode())]


@given(st.binary(max_size=2000).map(lambda data: base64.b64encode(data).decode()), st.integers(1, 2000))
@settings(max_examples=examples(100), deadline=None)
def test_any_base64_arrives(text: str, cut: int) -> None:
    """In lines of any length."""
    payload = f"{text[:cut]}\n{text[cut:]}\n"
    ((_, data),) = decoded(wire(prepare(parse(part("application/x", payload, "base64")))))
    assert data == base64.b64decode(text).replace(b"\r\n", b"\n").rstrip(b"\n")


@given(st.text(st.sampled_from("=3dD4F \t.x"), min_size=901, max_size=990))
@settings(max_examples=examples(100), deadline=None)
def test_any_quoted_printable_arrives(text: str) -> None:
    """What Python's decoder makes of it does not change, whether it is legal or not."""
    # A line must not end in what the decoder drops, or takes for a soft break.
    payload = text + "x"
    before, after = (
        decoded(each)
        for each in (
            part("text/x", payload, "quoted-printable").encode(),
            wire(prepare(parse(part("text/x", payload, "quoted-printable")))),
        )
    )
    assert after == before


_LINES = st.lists(
    st.tuples(st.sampled_from([0, 1, 50, 899, 900, 901, 902, 950, 997, 998]), st.sampled_from([b"\n", b"\r\n"]))
)


@given(
    _LINES,
    st.lists(st.integers(0, 20_000), max_size=5),
    st.sampled_from([b"", b"y" * 905]),
    st.integers(0, BLOCK + 2000),
)
@settings(max_examples=examples(300), deadline=None)
def test_the_longest_line_is_found(
    lines: list[tuple[int, bytes]],
    cuts: list[int],
    tail: bytes,
    before: int,
) -> None:
    """In blocks of any size, with and without a last line end."""
    filling = b"w" * 62 + b"\r\n"
    data = (
        b"A: b\r\n\r\n" + filling * (before // 64) + b"".join(starmap(lambda length, end: b"x" * length + end, lines))
    )
    data += tail
    places = sorted(min(cut, len(data)) for cut in cuts)
    pieces = tuple(data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True))
    found = max(map(len, re.split(rb"\r?\n", data)))
    for content in (Content.from_bytes(data), Content.from_pieces(pieces)):
        assert content.longest_line == (found if found > SAFE_LINE else 0)
