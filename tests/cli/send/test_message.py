"""What is changed in a message that is bytes already, and what never is."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp import Envelope
from securesmtp._cli.send.message import Message, read_eml
from securesmtp._cli.send.names import Names, bare_name
from securesmtp._protocol.content import Content
from securesmtp._submissions import from_any
from securesmtp.errors import AddressError, MessageError

HEAD = b"From: me@example.org\nTo: you@example.org\n"
_LINES = st.lists(st.text("ab .:-=\t\r\0ü", max_size=20).map(str.encode), max_size=8)
_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r\r\n"])


def _content(envelope: Envelope) -> bytes:
    assert isinstance(envelope.content, bytes)
    return envelope.content


@hypothesis_settings(max_examples=examples(150))
@given(_LINES, _ENDS, st.binary(max_size=3))
def test_a_body_arrives_as_it_was_written(lines: list[bytes], end: bytes, tail: bytes) -> None:
    """Whatever is in it: its lines are the same once they are read, and the library sends what comes out."""
    body = end.join([*lines, tail])
    content = _content(read_eml(HEAD + b"\n" + body))
    Content.from_bytes(content)
    payload = message_from_bytes(content, EmailMessage, policy=policy.default).get_payload(decode=True)
    assert isinstance(payload, bytes)

    def normal(data: bytes) -> bytes:
        return re.sub(rb"\r{0,2}\n", b"\n", data if data.endswith(b"\n") or not data else data + b"\n")

    assert payload.replace(b"\r\n", b"\n") == normal(body)
    if not re.search(rb"\0|\r(?!\n)", content.partition(b"\r\n\r\n")[2]) and b"quoted-printable" not in content:
        assert content.partition(b"\r\n\r\n")[2] == normal(body).replace(b"\n", b"\r\n")


@hypothesis_settings(max_examples=examples(150))
@given(st.lists(st.text('abc =?_<>@,;:()"\\ü€\x1b\t', max_size=30), max_size=5), _ENDS)
def test_no_header_becomes_another_one(values: list[str], end: bytes) -> None:
    """Each field stays one field: nothing in a value adds one, and Bcc never goes."""
    fields = [f"X-{number}: {value.strip()}x".encode() for number, value in enumerate(values)]
    data = end.join([*HEAD.split(b"\n")[:2], *fields, b"BCC: hidden@example.net", b"", b"x"])
    try:
        content = _content(read_eml(data))
    except MessageError:
        return
    Content.from_bytes(content)
    assert content.isascii()
    assert b"hidden" not in content
    names = [name for name, _ in message_from_bytes(content, policy=policy.compat32).items()]
    expected = [f"X-{number}" for number in range(len(values))]
    assert names == ["From", "To", *expected, "Date", "Message-ID"]


@hypothesis_settings(max_examples=examples(150))
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error_of_ours(data: bytes) -> None:
    """Never another exception, and never a Bcc."""
    try:
        content = Message.parse(data).complete("me@example.org").to_bytes()
        Content.from_bytes(content)
    except (MessageError, AddressError):
        return
    assert not re.search(rb"^(resent-)?bcc:", content.partition(b"\r\n\r\n")[0], re.IGNORECASE | re.MULTILINE)


def test_what_is_there_is_not_added() -> None:
    """Date, Message-ID and MIME-Version, in any case."""
    data = b"DATE: x\nMESSAGE-ID: y\nmime-version: 1.0\nContent-Type: text/plain\n" + HEAD + b"\nx\n"
    assert _content(read_eml(data)) == data.replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    ("header", "sender", "recipients"),
    [
        (b"Sender: s@example.org\nFrom: a@x.example, b@x.example\nCc: c@x.example\n", "s@example.org", ["c@x.example"]),
        (b"Resent-From: r@example.org\nResent-To: t@example.org\n" + HEAD, "r@example.org", ["t@example.org"]),
        (b"Resent-Date: x\n" + HEAD, "me@example.org", ["you@example.org"]),
        (b"From: Ada <A@x.example> (x)\nTo: \xc3\xbc <u@\xc3\xbc.example>\n", "A@x.example", ["u@xn--tda.example"]),
    ],
    ids=["Sender", "Resent", "Resent-Date alone", "decorated"],
)  # fmt: skip
def test_the_header_determines_the_envelope(header: bytes, sender: str, recipients: list[str]) -> None:
    """As for a message object."""
    envelope = read_eml(header + b"\nx\n")
    submission = from_any(envelope)
    assert envelope.mail_from == sender
    assert [each.encoded.decode() for each in submission.recipients] == recipients


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"From: a@example.org, b@example.org\nTo: c@example.org\n", "From has 2 addresses"),
        (b"To: c@example.org\n", "the message has no From"),
        (b"Resent-To: a@example.org\nResent-To: b@example.org\n" + HEAD, "resent more than once"),
        (b"From: me@example.org\n", "no recipient"),
        (b"From: me@exa_mple.org\nTo: a@example.org\n", "From: "),
        (b"From: me\nTo: a@example.org\n", "From has a name without a domain: 'me'"),
        (HEAD + b"Subject: x\0y\n", "has a NUL"),
        (HEAD + b"Subject : x\n", "line 3 is neither a header field"),
        (HEAD + b"Message-ID: <\xc3\xbc@x>\n", "Message-ID is not ASCII"),
        (HEAD + b"X: " + b"x" * 1200 + b"\n", "has more than 998 bytes without a space"),
    ],
)
def test_a_message_that_does_not_determine_it_is_refused(header: bytes, said: str) -> None:
    """Nothing is guessed."""
    with pytest.raises((MessageError, AddressError), match=re.escape(said)):
        from_any(read_eml(header + b"\nx\n"))


@pytest.mark.parametrize(("length", "is_kept"), [(900, True), (901, False)])
def test_a_line_that_some_servers_break_is_encoded_or_folded(length: int, *, is_kept: bool) -> None:
    """Haraka breaks lines of more than 990 octets."""
    head = HEAD + b"Date: x\nMessage-ID: y\n"
    body, field = b"x" * length + b"\n", b"X: " + b"words " * 149 + b"x" * (length - 897) + b"\n"
    for data in (head + b"\n" + body, head + field + b"\nx\n"):
        content = _content(read_eml(data))
        assert (content == data.replace(b"\n", b"\r\n")) is is_kept
        assert max(map(len, content.split(b"\r\n"))) <= 900


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"From x\n"])
def test_an_empty_message_is_refused(data: bytes) -> None:
    """A program that failed has written nothing."""
    with pytest.raises(MessageError, match="empty"):
        read_eml(data)


def test_a_local_part_in_utf_8_stays_as_it_is() -> None:
    """It has no other form; the server may offer SMTPUTF8."""
    envelope = read_eml("From: ü@example.org\nTo: you@example.org\nSubject: ü\n\nx\n".encode())
    assert "From: ü@example.org\r\n".encode() in _content(envelope)
    assert b"Subject: =?utf-8?b?w7w=?=\r\n" in _content(envelope)
    assert from_any(envelope).needs_smtputf8
    with pytest.raises(MessageError, match="not UTF-8"):
        Content.from_bytes(Message.parse(b"From: \xfc@example.org\n\nx\n").complete("me@example.org").to_bytes())


@pytest.mark.parametrize(
    ("text", "qualified"),
    [
        ("root", "ops@example.net"),
        ("root (Cron Daemon)", "ops@example.net (Cron Daemon)"),
        ('"(Cron Daemon)" <root>', '"(Cron Daemon)" <ops@example.net>'),
        ("(x) bob", "(x) bob@example.org"),
        ('a@b.example, "x, root" <bob>,root', 'a@b.example, "x, root" <bob@example.org>,ops@example.net'),
        ("root: bob, root;", "root: bob@example.org, ops@example.net;"),
        ("old@host.example", "new@example.net"),
        ("Undisclosed recipients", "Undisclosed recipients"),
        ("<>", "<>"),
        ("", ""),
        ("me@example.org", "me@example.org"),
    ],
)
def test_names_get_a_domain_or_an_address(text: str, qualified: str) -> None:
    """All else stays, and so it is read as the same list."""
    names = Names("example.org", {"root": "ops@example.net", "old@host.example": "new@example.net"})
    assert names.qualify(text) == qualified
    assert bare_name(qualified) is None
    assert Names().qualify(text) == text


@hypothesis_settings(max_examples=examples(150))
@given(st.text('ab@<>()",;:\\. ', max_size=40))
def test_names_that_have_no_domain_are_all_that_changes(text: str) -> None:
    """Without its additions, the text is the same; a second time, nothing changes."""
    qualified = Names("example.org").qualify(text)
    assert qualified.replace("@example.org", "") == text
    assert Names("example.org").qualify(qualified) == qualified
