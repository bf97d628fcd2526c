"""The digest of a message in a ledger: the same for the same message, another one for another message."""

from __future__ import annotations

import email
import io
from collections.abc import Callable
from email import policy
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import make_msgid
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp import Envelope, MessageError, compose
from securesmtp._protocol.digest import _Digest
from securesmtp._submissions import entry_digest

SWAPPED = '<p>Look: <img src="cid:other" alt="x"><img src="cid:logo" alt="y"></p>'
ALT = '<p>Look: <img src="cid:logo" alt="x"><img src="cid:other" alt="y"></p>'
PNG = b"\x89PNG\r\n\x1a\n"


def letter(text: str = "text", **fields: str) -> EmailMessage:
    """Return a message."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@b.example", "c@d.example", "Hello"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


def composed(first: bytes = PNG, html: str = ALT, **options: Any) -> EmailMessage:
    """Return a message whose images and boundaries have new names each time."""
    inline = {"logo": ("logo.png", first), "other": ("other.png", PNG + b"2")}
    return compose(sender="a@b.example", to="c@d.example", subject="Hello", html=html, inline=inline, **options)


def attached() -> EmailMessage:
    """Return a message with another one inside."""
    message, inner = letter(), letter("inside", Date="Fri, 27 Nov 2026 12:00:00 +0000")
    message.add_attachment(inner)
    return message


def related(*cids: str, refers_to: str = "") -> EmailMessage:
    """Return a message as Python's documentation makes it, with a Content-ID from `make_msgid`."""
    message, cids = letter(), cids or (make_msgid(),)
    references = [refers_to or quote(cid[1:-1], safe="@") for cid in cids]
    message.add_alternative("".join(f'<img src="cid:{each}">' for each in references), subtype="html")
    for cid in cids:
        message.get_payload()[1].add_related(PNG, "image", "png", cid=cid)  # type: ignore[index, union-attr]
    return message


def mime() -> MIMEMultipart:
    """Return a message of the old API."""
    message = MIMEMultipart()
    message["From"], message["To"] = "a@b.example", "c@d.example"
    message.attach(MIMEText("grüße", "plain", "utf-8"))
    return message


def parsed(kind: Any = policy.default) -> Message:
    """Return a message that was read from a file."""
    return email.message_from_bytes(letter("grüße\n" * 40).as_bytes(), policy=kind)


MADE: dict[str, Callable[[], Any]] = {
    "text": letter,
    "compose": composed,
    "attached": attached,
    "related": related,
    "mime": mime,
    "parsed": parsed,
    "parsed, old": lambda: parsed(policy.compat32),
    "bytes": lambda: Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\ntext\r\n"),
    "file": lambda: Envelope("a@b.example", ["c@d.example"], io.BytesIO(b"Subject: x\r\n\r\ntext\r\n")),
    "generator": lambda: Envelope("a@b.example", (each for each in ["c@d.example"]), letter()),
}


@pytest.mark.parametrize("made", MADE)
def test_a_message_that_is_made_again_has_the_same_digest(made: str) -> None:
    """Boundaries, Content-IDs, Date and Message-ID are new each time."""
    assert entry_digest(MADE[made]()) == entry_digest(MADE[made]())


def test_a_message_that_was_written_before_has_the_same_digest() -> None:
    """`as_bytes` sets boundaries in the caller's object."""
    once = composed()
    before = entry_digest(once)
    once.as_bytes()
    assert entry_digest(once) == before


SAME: dict[str, tuple[Any, Any]] = {
    "Date": (letter(), letter(Date="Fri, 27 Nov 2026 12:00:00 +0000")),
    "Message-ID": (letter(Message_ID="<a@x>"), letter(Message_ID="<b@x>")),
    "order of fields": (letter(A="1", B="2"), letter(B="2", A="1")),
    "order of recipients": (
        Envelope("a@b.example", ["c@d.example", "e@d.example"], letter()),
        Envelope("a@b.example", ["e@d.example", "c@d.example", "c@d.example"], letter()),
    ),
    "envelope": (letter(), Envelope("a@b.example", ["c@d.example"], letter())),
    "random Content-ID": (related("<a+1/@x>", "<b@x>"), related("<c@x>", "<d+2=@x>")),
    "key": (letter(), Envelope("a@b.example", ["c@d.example"], letter(), key="k")),
    "line ends": (
        Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\ntext\r\n"),
        Envelope("a@b.example", ["c@d.example"], io.BytesIO(b"Subject: x\n\ntext\n")),
    ),
    "folding": (
        email.message_from_bytes(b"From: a@b.example\nTo: c@d.example\nSubject: one two\n\nx", policy=policy.default),
        email.message_from_bytes(b"From: a@b.example\nTo: c@d.example\nSubject: one\n two\n\nx", policy=policy.default),
    ),
}


@pytest.mark.parametrize("what", SAME)
def test_what_does_not_count(what: str) -> None:
    """Whoever wrote it: the caller sets a new Date each time as well."""
    one, other = SAME[what]
    assert entry_digest(one) == entry_digest(other)


def test_the_transfer_encoding_does_not_count() -> None:
    """Which one is chosen depends on the version of Python."""
    one, other = letter(), letter()
    one.set_content("grüße", cte="base64")
    other.set_content("grüße", cte="quoted-printable")
    assert entry_digest(one) == entry_digest(other)


FIXED = "76379f42df0f54315941d29f1dd9af341a9e335e1d9658700733a0670eb27d13"
RAW = b"Subject: x\r\n\r\ntext\r\n"
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "text": (letter(), letter("other")),
    "subject": (letter(), letter(X_Subject="Hello")),
    "value": (letter(X="1"), letter(X="2")),
    "empty field": (letter(), letter(X="")),
    "recipient": (letter(), Envelope("a@b.example", ["e@d.example"], letter())),
    "more recipients": (letter(), Envelope("a@b.example", ["c@d.example", "e@d.example"], letter())),
    "blind copy": (letter(), letter(Bcc="e@d.example")),
    "sender": (letter(), Envelope("e@d.example", ["c@d.example"], letter())),
    "space that does not break": (letter(X="10 000"), letter(X="10\xa0000")),
    "reference to no part": (related("<a@x>"), related("<a@x>", refers_to="0")),
    "null sender": (letter(), Envelope("", ["c@d.example"], letter())),
    "html": (composed(), composed(html=ALT.replace("Look", "See"))),
    "image": (composed(), composed(first=PNG + b"3")),
    "which image": (
        composed(),
        composed(html=ALT.replace("logo", "x").replace("other", "logo").replace("x", "other", 1)),
    ),
    "octet": (Envelope("a@b.example", ["c@d.example"], RAW), Envelope("a@b.example", ["c@d.example"], RAW + b"\r\n")),
    "raw date": (
        Envelope("a@b.example", ["c@d.example"], b"Date: a\r\n" + RAW),
        Envelope("a@b.example", ["c@d.example"], b"Date: b\r\n" + RAW),
    ),
    "message as bytes": (letter(), Envelope("a@b.example", ["c@d.example"], letter().as_bytes())),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_counts(what: str) -> None:
    """Octets of bytes count all, also those of a Date."""
    one, other = DIFFERENT[what]
    assert entry_digest(one) != entry_digest(other)


def test_what_an_attached_message_has_counts() -> None:
    """Its Date is not one that we fill in."""
    one, other = attached(), attached()
    inner: Any = list(other.walk())[3]
    inner.replace_header("Date", "Sat, 28 Nov 2026 12:00:00 +0000")
    assert entry_digest(one) != entry_digest(other)


def test_a_digest_is_the_same_in_every_version() -> None:
    """Otherwise an upgrade would make each unsent message of a ledger an error."""
    assert entry_digest(related()) == FIXED


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
_PARTS = st.lists(_TEXT, min_size=1, max_size=4)


def _many(parts: list[str]) -> EmailMessage:
    message = letter(parts[0])
    for each in parts[1:]:
        message.add_attachment(each)
    return message


@settings(max_examples=examples(90))
@given(one=_PARTS, other=_PARTS)
def test_two_messages_have_the_same_digest_if_their_parts_are_the_same(one: list[str], other: list[str]) -> None:
    """Where one part ends and the next begins counts."""
    try:
        equal = entry_digest(_many(one)) == entry_digest(_many(other))
    except MessageError:
        return
    assert equal == ([each.rstrip("\n") for each in one] == [each.rstrip("\n") for each in other])


@settings(max_examples=examples(90))
@given(first=st.lists(st.binary(max_size=6), max_size=3), second=st.lists(st.binary(max_size=6), max_size=3))
def test_lists_of_byte_strings_are_not_confused(first: list[bytes], second: list[bytes]) -> None:
    """Each has its length before it, and each list its count."""
    found = []
    for each in (first, second):
        made = _Digest()
        made.add_all(each)
        found.append(made.hash.digest())
    assert (found[0] == found[1]) == (first == second)
