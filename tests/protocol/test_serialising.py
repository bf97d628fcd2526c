"""Signed and attached parts stay unchanged; messages have limits; an error names the part."""

from __future__ import annotations

import email
import email.encoders
import email.policy
import re
from email.headerregistry import Address, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.parser import HeaderParser
from email.policy import SMTP, EmailPolicy
from typing import cast

import pytest

from securesmtp._protocol.building import from_message
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.message import Submission
from securesmtp.errors import MessageError

DATE = "Mon, 01 Jan 2024 00:00:00 +0000"
HEAD = f"From: a@b.example\nTo: c@d.example\nDate: {DATE}\nMessage-ID: <1@b.example>\n"
MIXED = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--\n"
LONG = "X-Long: " + "word " * 40 + "end\n"


def prepare(msg: EmailMessage) -> Submission:
    """Return the submission of *msg*."""
    return from_message(msg, "a@b.example", ["c@d.example"], date=lambda: DATE, token=lambda: "token")


def to_bytes(msg: EmailMessage) -> bytes:
    """Return the bytes that are sent."""
    return b"".join(prepare(msg).content.chunk())


def parse(text: str) -> EmailMessage:
    """Return the message that is parsed from *text*, with non-ASCII text as UTF-8."""
    return email.message_from_bytes(text.encode("utf-8", "surrogateescape"), policy=email.policy.default)


def message(text: str = "text\n", **fields: str) -> EmailMessage:
    """Return a message that a program built."""
    msg = EmailMessage()
    msg.set_content(text)
    for name, value in ({"From": "a@b.example", "To": "c@d.example"} | fields).items():
        msg[name] = value
    return msg


def sign(part: EmailMessage) -> EmailMessage:
    """Return a message with *part* signed, as programs build it (RFC 1847 §2.1)."""
    outer = EmailMessage()
    for name, value in {"From": "a@b.example", "To": "c@d.example", "MIME-Version": "1.0"}.items():
        outer[name] = value
    outer["Content-Type"] = 'multipart/signed; micalg="sha-256"; protocol="application/pkcs7-signature"; boundary="s"'
    signature = EmailMessage()
    signature.set_content(b"signature", maintype="application", subtype="pkcs7-signature", filename="smime.p7s")
    outer.set_payload([part, signature])
    return outer


def expect_signature_error(msg: EmailMessage) -> MessageError:
    """Return the error for a message that cannot be sent as it was signed; its hint names send_bytes()."""
    with pytest.raises(MessageError) as caught:
        to_bytes(msg)
    assert "send_bytes" in (caught.value.hint or "")
    return caught.value


def part(**fields: str) -> EmailMessage:
    """Return a part with these fields."""
    msg = EmailMessage()
    msg.set_content("line \nFrom me\n.\n", cte="8bit")
    for name, value in fields.items():
        msg[name.replace("_", "-")] = value
    return msg


def test_a_signed_part_is_sent_unchanged() -> None:
    """
    It is sent byte for byte as the email package writes it, including nested parts (RFC 1847 §2.1).

    Also the name of a file that would be encoded otherwise, because some readers cut it at the semicolon.
    """
    inner = part(Content_Disposition='attachment; filename="a;b.txt"')
    inner.add_attachment("<p>ü</p>\n", subtype="html", cte="8bit")
    inner.as_bytes()
    assert inner.as_bytes(policy=SMTP.clone(cte_type="8bit")) in to_bytes(sign(inner))


@pytest.mark.parametrize(
    "msg",
    [
        pytest.param(part(X_Any="word " * 40), id="folded"),
        pytest.param(part(Subject="grün"), id="encoded"),
        pytest.param(part(To="Jörg <a@bücher.example>"), id="address"),
        pytest.param(part(Content_Disposition="attachment; filename=bücher.txt"), id="filename"),
    ],
)
def test_a_signed_part_that_has_two_forms_is_refused(msg: EmailMessage) -> None:
    """It is unknown which form was signed. The same holds for such a part in an attached message."""
    assert "is signed" in expect_signature_error(sign(msg)).args[0]
    outer = message()
    outer.add_attachment(sign(msg))
    expect_signature_error(outer)


@pytest.mark.parametrize("wrap", [False, True], ids=["itself", "attached"])
def test_a_parsed_signed_part_is_refused(wrap: bool) -> None:  # noqa: FBT001
    """Python's parser drops spaces after a colon and after a boundary."""
    msg = parse(to_bytes(sign(part(X_Any="x"))).decode().replace("X-Any: x", "X-Any:x"))
    outer = message()
    outer.add_attachment(msg)
    assert "was parsed" in expect_signature_error(outer if wrap else msg).args[0]


def test_a_signed_part_of_the_old_api_is_sent_unchanged() -> None:
    """If it has a long field it is refused: the field may have been signed before or after it was folded."""
    outer = MIMEMultipart("signed", protocol="application/pgp-signature", boundary="s")
    inner = MIMEText("text\n")
    inner["X-Short"] = "a\n b"
    outer.attach(inner)
    outer.attach(MIMEText("signature\n"))
    msg = message()
    msg.make_mixed()
    msg.attach(cast("EmailMessage", outer))
    assert inner.as_bytes().replace(b"\n", b"\r\n") in to_bytes(msg)
    inner["X-Long"] = LONG.partition(": ")[2].strip()
    expect_signature_error(msg)


@pytest.mark.parametrize("kind", ["signed", "attached", "DKIM"])
def test_a_signed_or_attached_part_is_not_re_encoded(kind: str) -> None:
    """It cannot be sent to a server without 8BITMIME; signers should encode it before (RFC 6376 §5.3)."""
    if kind == "signed":
        inner = part()
        inner.set_content("grün\n", cte="8bit")
        msg = sign(inner)
    elif kind == "attached":
        msg = message()
        msg.add_attachment(parse(f"{HEAD}\ngrün\n"))
    else:
        msg = parse(f"{HEAD}DKIM-Signature: c=relaxed/relaxed; h=from; b=x\n\ngrün\n")
    submission = prepare(msg)
    assert submission.adapt_to(Capabilities({"8BITMIME": ""})) is submission
    with pytest.raises(MessageError, match="signed or attached has non-ASCII bytes") as caught:
        submission.adapt_to(Capabilities({}))
    assert "send_bytes" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "header",
    [
        "c=relaxed/relaxed; h=From : To:\n Subject; b=" + "A" * 300,
        "c=relaxed/simple; h=from; b=a\n b",
        "c=relaxed; h=from; b=a",
    ],
)
def test_a_parsed_dkim_message_is_sent_unchanged(header: str) -> None:
    """No field is folded or encoded, however long it is (RFC 6376 §3.4.2)."""
    text = f"{HEAD}{LONG}Subject: a\n\tb\nDKIM-Signature: {header}\n\nline \n\ntext\n"
    assert to_bytes(parse(text)) == text.encode().replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{}DKIM-Signature: b=x\n\nx\n", id="simple by default"),
        pytest.param("{}DKIM-Signature: c=simple/relaxed; b=x\n\nx\n", id="simple"),
        pytest.param("{}DKIM-Signature: c=relaxed/simple; b=x\n" + MIXED, id="simple multipart"),
        pytest.param("{}Bcc: e@f.example\nDKIM-Signature: c=relaxed; h=bcc; b=x\n\nx\n", id="Bcc"),
        pytest.param("{}Cc: a@bücher.example\nDKIM-Signature: c=relaxed; h=cc; b=x\n\nx\n", id="domain"),
        pytest.param("{}Subject: grün\nDKIM-Signature: c=relaxed; h=subject; b=x\n\nx\n", id="raw text"),
        pytest.param("From: a@b.example\nDKIM-Signature: c=relaxed; h=date; b=x\n\nx\n", id="no date"),
    ],
)
def test_a_dkim_message_that_must_be_changed_is_refused(text: str) -> None:
    """The parser may have changed what a simple signature covers; an added or removed field may be signed."""
    expect_signature_error(parse(text.format(HEAD)))


@pytest.mark.parametrize("part", ["Content-Type: text/plain", "Content-Type:text/plain", "X-A:b", LONG.rstrip()])
@pytest.mark.parametrize("c", ["relaxed/relaxed", "relaxed/simple", "relaxed"])
def test_a_parsed_dkim_message_with_parts_is_refused(c: str, part: str) -> None:
    """
    The signed body includes the fields of parts, where "X:b" and "X: b" differ (RFC 6376 §3.4.4).

    Python's parser does not keep the difference, so it is unknown which of them was signed.
    """
    body = MIXED.replace("--b\n", f"--b\n{part}\n", 1)
    expect_signature_error(parse(f"{HEAD}DKIM-Signature: c={c}; h=from; b=x\n{body}"))


def test_a_part_of_a_built_dkim_message_is_sent_as_python_writes_it() -> None:
    """The signature covers what `as_bytes` returns. A part that the library writes differently is refused."""
    msg = message(**{"DKIM-Signature": "c=relaxed/relaxed; h=from; b=x"})
    msg.add_alternative("<p>text</p>", subtype="html")
    msg.add_attachment("text", filename="a.txt")
    body = msg.as_bytes(policy=SMTP).partition(b"\r\n\r\n")[2]
    assert b"multipart/alternative;\r\n boundary" in body
    assert to_bytes(msg).partition(b"\r\n\r\n")[2] == body
    msg.add_attachment("text", filename="bücher.txt")
    expect_signature_error(msg)


def test_a_built_dkim_message_may_be_folded_but_not_encoded() -> None:
    """A relaxed signature ignores folding. It does not ignore an encoded-word, unless the field is not signed."""
    tags = f"v=1; a=rsa-sha256; c=relaxed/simple; d=b.example; h=From:Subject; b={'A' * 340}"
    found = re.findall(
        r"(?m)^DKIM-Signature: (.*\r\n(?:[ \t].*\r\n)*)", to_bytes(message(**{"DKIM-Signature": tags})).decode()
    )
    assert [value.replace("\r\n", "") for value in found] == [tags]
    expect_signature_error(message(Subject="grün", **{"DKIM-Signature": tags}))
    assert b"=?utf-8?" in to_bytes(message(Comments="grün", **{"DKIM-Signature": tags}))


def test_an_attached_message_is_not_folded_again() -> None:
    """Its ASCII fields are sent unchanged, up to 998 octets."""
    inner = f"{HEAD}{LONG}Subject:  two\n\tlines\nReferences: <{'x' * 200}>\n\nline\n"
    outer = message()
    outer.add_attachment(parse(inner))
    assert inner.replace("Subject:  ", "Subject: ").replace("\n", "\r\n").encode() in to_bytes(outer)
    outer.add_attachment(parse(f"{HEAD}X-Long: {'word ' * 300}\n\nx\n"))
    with pytest.raises(MessageError, match="X-Long"):
        to_bytes(outer)


@pytest.mark.parametrize("how", ["set", "parsed"])
@pytest.mark.parametrize(
    "name", ["From", "Reply-To", "Resent-To", "Disposition-Notification-To", "Bcc", "Delivered-To", "X-Original-To"]
)
def test_an_address_in_an_attached_message_has_an_ascii_domain(name: str, how: str) -> None:
    """An address may not have encoded-words (RFC 2047 §5 (3)), but a domain has A-labels (RFC 5890)."""
    field = f"{name}: Jörg <info@bücher.example>"
    inner = parse(f"{field}\nSubject: x\n\nx\n")
    if how == "set":
        inner = message()
        del inner[name]
        inner[name] = field.partition(": ")[2]
    outer = message()
    outer.add_attachment(inner)
    data = to_bytes(outer).replace(b"\r\n ", b" ")
    assert f"{name}: =?utf-8?q?J=C3=B6rg?= <info@xn--bcher-kva.example>\r\n".encode() in data
    assert data.isascii()


@pytest.mark.parametrize("field", ["Message-ID: <ü@x.example>", "From: ü <a b@c", "Reply-To: a@\u2603.example"])
def test_an_attached_field_that_cannot_be_encoded_is_sent_unchanged(field: str) -> None:
    """A message that is attached as evidence may be malformed, and must stay as it is."""
    outer = message()
    outer.add_attachment(parse(f"{field}\n X: y\n\nx\n"))
    assert f"{field}\r\n X: y\r\n".encode() in to_bytes(outer)


@pytest.mark.parametrize("how", ["set", "parsed", "old"])
@pytest.mark.parametrize("name", ["From", "To", "Sender", "Bcc", "Disposition-Notification-To"])
def test_a_local_part_in_an_attached_message_stays_utf_8(name: str, how: str) -> None:
    """It has no ASCII form, and an attached message is not refused for it (RFC 6532)."""
    inner = parse(f"{name}: jörg@bücher.example\nSubject: x\n\nx\n")
    if how != "parsed":
        inner = cast("EmailMessage", MIMEText("x\n")) if how == "old" else EmailMessage()
        inner[name] = "jörg@bücher.example"
    outer = MIMEMultipart()
    outer["From"] = outer["To"] = "a@b.example"
    outer.attach(MIMEMessage(inner))
    submission = prepare(cast("EmailMessage", outer))
    assert f"{name}: jörg@xn--bcher-kva.example\r\n".encode() in b"".join(submission.content.chunk())
    assert not submission.needs_smtputf8
    with pytest.raises(MessageError, match=r"8BITMIME|attached"):
        submission.adapt_to(Capabilities({}))


def test_the_error_for_a_non_ascii_local_part_names_the_field() -> None:
    """Its context is not an error of Python's email package, which holds the text of the message."""
    msg = message(**{"Disposition-Notification-To": "jörg@bücher.example"})
    with pytest.raises(MessageError, match="Disposition-Notification-To has an address with a non-ASCII") as caught:
        prepare(msg)
    assert caught.value.__context__ is None


def test_a_message_whose_header_alone_was_parsed_is_sent() -> None:
    """HeaderParser leaves an attached message as text."""
    msg = HeaderParser(policy=email.policy.default).parsestr(f"{HEAD}Content-Type: message/rfc822\n\nSubject: x\n\nx\n")
    assert to_bytes(msg).endswith(b"\r\n\r\nSubject: x\r\n\r\nx\r\n")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((kind, "a\0b\n") for kind in ("html", "attachment", "attached", "alone", "old")),
        ("attached", "x" * 999 + "\n"),
    ],
    ids=["html", "attachment", "attached", "alone", "old", "long"],
)
def test_the_error_names_the_part_and_its_hint_fixes_it(kind: str, text: str) -> None:
    """
    Lines have at most 998 octets and no NUL (RFC 5322 §2.1.1, §2.3); the hint is code that encodes the part.

    Long lines are encoded by the library, but not in an attached message.
    """
    shown = {"html": "text/html", "attachment": "text/csv 'a.csv'", "attached": "text/plain", "alone": "text/plain",
             "old": "text/x"}[kind]  # fmt: skip
    msg = message()
    if kind == "html":
        msg.add_alternative(text, subtype="html", cte="7bit")
    elif kind == "attachment":
        msg.add_attachment(text, subtype="csv", filename="a.csv", cte="7bit")
    elif kind == "attached":
        msg.add_attachment(parse(f"{HEAD}\n{text}"))
    elif kind == "alone":
        msg.set_payload(text)
    else:
        msg.make_mixed()
        msg.attach(cast("EmailMessage", MIMEText(text, "x")))
    with pytest.raises(MessageError) as caught:
        to_bytes(msg)
    assert re.search(rf"^line \d+ (has a NUL|is longer than 998 bytes), in the part {shown}$", caught.value.args[0])
    assert caught.value.hint
    exec(caught.value.hint, {"message": msg, "email": email})  # noqa: S102 -- the hint is the code to run
    again = parse(to_bytes(msg).decode())
    payloads = [leaf.get_payload(decode=True) for leaf in again.walk() if not leaf.is_multipart()]
    assert text.encode() in [cast("bytes", payload).replace(b"\r\n", b"\n") for payload in payloads]


def test_the_lines_of_a_part_are_measured_in_bytes() -> None:
    """A line of 500 characters can have 1,000 bytes."""
    inner = f"{HEAD}Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{'ü' * 500}\n"
    msg = message()
    msg.add_attachment(parse(inner))
    with pytest.raises(MessageError, match=r"998 bytes, in the part text/html\.") as caught:
        to_bytes(msg)
    exec(caught.value.hint or "", {"message": msg, "email": email})  # noqa: S102 -- as above
    leaves = [leaf.get_payload(decode=True) for leaf in parse(to_bytes(msg).decode()).walk()]
    assert ("ü" * 500).encode() in [cast("bytes", leaf).strip() for leaf in leaves if leaf]


def test_an_error_outside_of_all_parts_names_no_part() -> None:
    """Such as a long line in the text before the first part."""
    msg = message()
    msg.preamble = "x" * 999
    msg.make_mixed()
    with pytest.raises(MessageError, match=r"^line \d+ is longer than 998 bytes"):
        to_bytes(msg)


@pytest.mark.parametrize("end", ["", "--", " \t"])
def test_a_text_that_contains_the_boundary_is_refused(end: str) -> None:
    """If a program sets the boundary, a text from outside could add a part (RFC 2046 §5.1.1)."""
    msg = MIMEMultipart(boundary="of-a.program")
    msg["From"] = msg["To"] = "a@b.example"
    inner = MIMEMultipart()
    inner.attach(MIMEText(f"hello\n--of-a.program{end}\nContent-Type: text/html\n\n<b>"))
    msg.attach(inner)
    with pytest.raises(MessageError, match="the boundary of an enclosing multipart"):
        to_bytes(cast("EmailMessage", msg))


@pytest.mark.parametrize("text", ["-- of-a.program", "--of-a.programs", " --of-a.program", "--of-axprogram"])
def test_a_text_that_resembles_the_boundary_is_sent(text: str) -> None:
    """It is not a boundary, and the received text is the same."""
    msg = MIMEMultipart(boundary="of-a.program")
    msg["From"] = msg["To"] = "a@b.example"
    msg.attach(MIMEText(text))
    (part,) = cast("list[EmailMessage]", email.message_from_bytes(to_bytes(cast("EmailMessage", msg))).get_payload())
    assert part.get_payload() == text


def raw(name: str, value: str) -> EmailMessage:
    """Return a message with one field as a parser sets it."""
    msg = message()
    msg.set_raw(name, value)
    return msg


def deep(levels: int) -> EmailMessage:
    """Return a message with parts nested *levels* deep."""
    msg = EmailMessage()
    for _ in range(levels):
        outer = EmailMessage()
        outer.set_raw("Content-Type", "multipart/mixed")
        outer.set_payload([msg])
        msg = outer
    msg["From"] = "a@b.example"
    return msg


def wide(count: int) -> EmailMessage:
    """Return a message of *count* parts and the text."""
    msg = message()
    msg.make_mixed()
    cast("list[EmailMessage]", msg.get_payload()).extend([EmailMessage()] * count)
    return msg


def short(count: int) -> EmailMessage:
    """Return a message with *count* fields of six bytes, including line ends."""
    msg = message()
    for _ in range(count):
        msg.set_raw("X", "x")
    return msg


@pytest.mark.parametrize(
    ("msg", "error"),
    [
        pytest.param(raw("X-Any", "x" * (1 << 20)), r"1048576 bytes, including the field 'X-Any'", id="field"),
        pytest.param(short(175_000), r"1048576 bytes, including the field 'X'", id="fields"),
        pytest.param(raw("Content-Type", "a/b; a=" + "x" * 4090), r"'Content-Type' has more than 4096", id="MIME"),
        pytest.param(raw("content-x", "x; a=b" + "; a=b" * 100), r"'content-x' .* or 100 parameters", id="parameters"),
        pytest.param(raw("Content-X", "x" * 80 + '""' * 101), r"'Content-X' .* or 100 parameters", id="quotes"),
        pytest.param(deep(101), "nested more than 100 deep", id="nesting"),
        pytest.param(wide(10_000), "more than 10000 parts", id="parts"),
    ],
)
def test_a_message_beyond_a_limit_is_refused(msg: EmailMessage, error: str) -> None:
    """The error names the limit, and the field if there is one."""
    with pytest.raises(MessageError, match=error):
        to_bytes(msg)


@pytest.mark.parametrize(
    "msg",
    [
        pytest.param(raw("X-Any", "<a@b.example> " * 70_000), id="field"),
        pytest.param(raw("Content-X", "x; a=" + "x" * 980 + "; b=" + "x " * 1550), id="MIME"),
        pytest.param(raw("Content-X", "x" + "; a=b" * 100), id="parameters"),
        pytest.param(deep(100), id="nesting"),
        pytest.param(wide(9_998), id="parts"),
    ],
)
def test_a_message_within_the_limits_is_sent(msg: EmailMessage) -> None:
    """Real messages are far below the limits."""
    to_bytes(msg)


def test_a_header_class_of_the_caller_cannot_add_a_field() -> None:
    """It may fold in its own way, but only one field (CVE-2026-1299)."""

    class Two(UnstructuredHeader):
        def fold(self, *, policy: EmailPolicy) -> str:
            return f"X-Any: a{policy.linesep}Bcc: e@f.example{policy.linesep}"

    registry = HeaderRegistry()
    registry.map_to_type("x-any", Two)  # type: ignore[arg-type]  # typeshed wants what the registry makes
    msg = EmailMessage(EmailPolicy(header_factory=registry))
    msg["From"], msg["X-Any"] = "a@b.example", "x"
    with pytest.raises(MessageError, match="'X-Any' would not be exactly one field"):
        to_bytes(msg)


@pytest.mark.parametrize("how", ["set", "parsed"])
@pytest.mark.parametrize(
    ("text", "formatted"),
    [
        ("foo", "foo"),
        ("a b c", "a b c"),
        ("a@b.example; c@d.example", "a@b.example; c@d.example"),
        ("Destinataires non divulgués", "=?utf-8?q?Destinataires_non_divulgu=C3=A9s?="),
        ("undisclosed-recipients:;", "undisclosed-recipients:;"),
        ('"user..name."@mobile.example', '"user..name."@mobile.example'),
        ('Jörg <"user..name."@mobile.example>', '=?utf-8?q?J=C3=B6rg?= <"user..name."@mobile.example>'),
        ("Joe (Jim) <a@b.example>", "Joe (Jim) <a@b.example>"),
        ("<@r.example,@s.example:a@b.example>", "<@r.example,@s.example:a@b.example>"),
        (
            "Büro: a@b.example, Jö <c@d.example>;",
            "=?utf-8?q?B=C3=BCro?= : a@b.example, =?utf-8?b?SsO2?= <c@d.example>;",
        ),
        ("Jörg <a b@c", None),
        ("Jörg; a@b.example", None),
        ("a@\u2603.example", None),
    ],
)
def test_addresses_outside_of_the_envelope_are_encoded_or_refused(how: str, text: str, formatted: str | None) -> None:
    """Non-ASCII text is encoded if it may be (RFC 2047 §5 (3)), other text stays; the error names the field."""
    if how == "set":
        msg = message()
        msg["Reply-To"] = text
    else:
        msg = raw("Reply-To", text)
    if formatted is None:
        with pytest.raises(MessageError, match=r"Reply-To|domain"):
            to_bytes(msg)
    else:
        assert f"\r\nReply-To: {formatted}\r\n".encode() in to_bytes(msg).replace(b"\r\n ", b" ")


def test_an_address_object_without_domain_is_sent_unchanged() -> None:
    """Python allows such addresses, and they are not part of the envelope."""
    msg = message()
    msg["Reply-To"] = [Address("Last, Jim", "jim"), Address("Jörg", "jim")]
    assert to_bytes(msg).count(b'\r\nReply-To: "Last, Jim" <jim>, =?') == 1


def test_an_invalid_domain_in_a_part_is_refused() -> None:
    """The error names the field."""
    inner = message(**{"Reply-To": "Jörg <a@-ü.example>"})
    outer = message()
    outer.add_attachment(inner)
    with pytest.raises(MessageError, match="an address in the header field Reply-To has an invalid domain"):
        to_bytes(outer)


def test_an_encoded_line_end_is_refused() -> None:
    """Older Pythons decode it and write two fields (CVE-2024-6923)."""
    with pytest.raises(MessageError, match="'Subject' would not be exactly one field"):
        to_bytes(message(Subject="=?utf-8?q?a=0ABcc:_x@y.example?="))


def test_a_utf8_header_has_no_encoded_words() -> None:
    """The server must accept UTF-8 anyway (RFC 6532 §3). An unprintable character is encoded."""
    data = to_bytes(message(**{"Reply-To": "Jörg <jörg@b.example>", "Subject": "grün\tgrün", "Comments": "ü\u202eü"}))
    assert "\r\nReply-To: Jörg <jörg@b.example>\r\nSubject: grün\tgrün\r\n".encode() in data
    assert b"\r\nComments: =?utf-8?b?w7zigK7DvA==?=\r\n" in data
