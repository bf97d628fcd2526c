"""What is signed or attached stays as it is; bounds; the part that a fault is in."""

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

from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.message import Submission, from_message
from securesmtp.errors import MessageError

DATE = "Mon, 01 Jan 2024 00:00:00 +0000"
HEAD = f"From: a@b.example\nTo: c@d.example\nDate: {DATE}\nMessage-ID: <1@b.example>\n"
MIXED = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--\n"
LONG = "X-Long: " + "word " * 40 + "end\n"


def submitted(made: EmailMessage) -> Submission:
    """Return the message with its envelope."""
    return from_message(made, "a@b.example", ["c@d.example"], date=lambda: DATE, token=lambda: "token")


def written(made: EmailMessage) -> bytes:
    """Return the octets as they are written."""
    return b"".join(submitted(made).content.chunk())


def parsed(text: str) -> EmailMessage:
    """Return the message in *text*, which has octets beyond ASCII as UTF-8."""
    return email.message_from_bytes(text.encode("utf-8", "surrogateescape"), policy=email.policy.default)


def message(text: str = "text\n", **fields: str) -> EmailMessage:
    """Return a message that a program builds."""
    made = EmailMessage()
    made.set_content(text)
    for name, value in ({"From": "a@b.example", "To": "c@d.example"} | fields).items():
        made[name] = value
    return made


def signed(part: EmailMessage) -> EmailMessage:
    """Return a message with this part signed, as programs build it (RFC 1847 §2.1)."""
    outer = EmailMessage()
    for name, value in {"From": "a@b.example", "To": "c@d.example", "MIME-Version": "1.0"}.items():
        outer[name] = value
    outer["Content-Type"] = 'multipart/signed; micalg="sha-256"; protocol="application/pkcs7-signature"; boundary="s"'
    signature = EmailMessage()
    signature.set_content(b"signature", maintype="application", subtype="pkcs7-signature", filename="smime.p7s")
    outer.set_payload([part, signature])
    return outer


def refused(made: EmailMessage) -> MessageError:
    """Return the error for a message that would be changed; its hint names what does not change it."""
    with pytest.raises(MessageError) as caught:
        written(made)
    assert "send_bytes" in (caught.value.hint or "")
    return caught.value


def part(**fields: str) -> EmailMessage:
    """Return a part with these fields."""
    made = EmailMessage()
    made.set_content("line \nFrom me\n.\n", cte="8bit")
    for name, value in fields.items():
        made[name.replace("_", "-")] = value
    return made


def test_a_part_is_written_as_it_was_signed() -> None:
    """RFC 1847 §2.1: octet for octet, as the email package writes it, nested parts too."""
    inner = part()
    inner.add_attachment("<p>ü</p>\n", subtype="html", cte="8bit")
    inner.as_bytes()
    assert inner.as_bytes(policy=SMTP.clone(cte_type="8bit")) in written(signed(inner))


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(part(X_Any="word " * 40), id="folded"),
        pytest.param(part(Subject="grün"), id="encoded"),
        pytest.param(part(To="Jörg <a@bücher.example>"), id="address"),
        pytest.param(part(Content_Disposition="attachment; filename=bücher.txt"), id="filename"),
    ],
)
def test_a_signed_part_that_can_be_written_in_two_ways_is_refused(made: EmailMessage) -> None:
    """Nobody knows which of them was signed; an attached message with such a part likewise."""
    assert "is signed" in refused(signed(made)).args[0]
    outer = message()
    outer.add_attachment(signed(made))
    refused(outer)


@pytest.mark.parametrize("wrap", [False, True], ids=["itself", "attached"])
def test_a_parsed_signed_part_is_refused(wrap: bool) -> None:  # noqa: FBT001
    """Python's parser keeps neither the blanks behind a colon nor those behind a boundary."""
    made = parsed(written(signed(part(X_Any="x"))).decode().replace("X-Any: x", "X-Any:x"))
    outer = message()
    outer.add_attachment(made)
    assert "was parsed" in refused(outer if wrap else made).args[0]


def test_a_signed_part_of_the_old_kind_is_written_as_it_was() -> None:
    """Unless it has a long field, of which nobody knows whether it was signed before or after it was folded."""
    outer = MIMEMultipart("signed", protocol="application/pgp-signature", boundary="s")
    inner = MIMEText("text\n")
    inner["X-Short"] = "a\n b"
    outer.attach(inner)
    outer.attach(MIMEText("signature\n"))
    made = message()
    made.make_mixed()
    made.attach(cast("EmailMessage", outer))
    assert inner.as_bytes().replace(b"\n", b"\r\n") in written(made)
    inner["X-Long"] = LONG.partition(": ")[2].strip()
    refused(made)


@pytest.mark.parametrize("kind", ["signed", "attached", "DKIM"])
def test_what_is_signed_or_attached_is_not_re_encoded(kind: str) -> None:
    """A server without 8BITMIME cannot have it (RFC 6376 §5.3: signers make it 7-bit beforehand)."""
    if kind == "signed":
        inner = part()
        inner.set_content("grün\n", cte="8bit")
        made = signed(inner)
    elif kind == "attached":
        made = message()
        made.add_attachment(parsed(f"{HEAD}\ngrün\n"))
    else:
        made = parsed(f"{HEAD}DKIM-Signature: c=relaxed/relaxed; h=from; b=x\n\ngrün\n")
    submission = submitted(made)
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
def test_a_parsed_dkim_message_is_written_as_it_was(header: str) -> None:
    """RFC 6376 §3.4.2: no field is folded anew, however long, and none is encoded."""
    text = f"{HEAD}{LONG}Subject: a\n\tb\nDKIM-Signature: {header}\n\nline \n\ntext\n"
    assert written(parsed(text)) == text.encode().replace(b"\n", b"\r\n")


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
def test_a_dkim_message_that_would_be_changed_is_refused(text: str) -> None:
    """What a simple signature sees is not all in a parsed message; what is added or taken out may be signed."""
    refused(parsed(text.format(HEAD)))


@pytest.mark.parametrize("part", ["Content-Type: text/plain", "Content-Type:text/plain", "X-A:b", LONG.rstrip()])
@pytest.mark.parametrize("c", ["relaxed/relaxed", "relaxed/simple", "relaxed"])
def test_a_parsed_dkim_message_with_parts_is_refused(c: str, part: str) -> None:
    """
    The body is signed with the fields in it, and "X:b" is not "X: b" there (RFC 6376 §3.4.4).

    Python's parser keeps no difference between the two, so nobody knows which of them was signed.
    """
    body = MIXED.replace("--b\n", f"--b\n{part}\n", 1)
    refused(parsed(f"{HEAD}DKIM-Signature: c={c}; h=from; b=x\n{body}"))


def test_a_part_of_a_dkim_message_that_a_program_built_is_written_as_python_does() -> None:
    """As `as_bytes` folds it, which is what was signed; what we would write in another way is refused."""
    made = message(**{"DKIM-Signature": "c=relaxed/relaxed; h=from; b=x"})
    made.add_alternative("<p>text</p>", subtype="html")
    made.add_attachment("text", filename="a.txt")
    body = made.as_bytes(policy=SMTP).partition(b"\r\n\r\n")[2]
    assert b"multipart/alternative;\r\n boundary" in body
    assert written(made).partition(b"\r\n\r\n")[2] == body
    made.add_attachment("text", filename="bücher.txt")
    refused(made)


def test_a_dkim_signature_that_was_set_is_folded_and_nothing_else() -> None:
    """Folding is not seen by a relaxed signature; an encoded-word is, and which of them was signed is not known."""
    tags = f"v=1; a=rsa-sha256; c=relaxed/simple; d=b.example; h=From:Subject; b={'A' * 340}"
    found = re.findall(
        r"(?m)^DKIM-Signature: (.*\r\n(?:[ \t].*\r\n)*)", written(message(**{"DKIM-Signature": tags})).decode()
    )
    assert [value.replace("\r\n", "") for value in found] == [tags]
    refused(message(Subject="grün", **{"DKIM-Signature": tags}))
    assert b"=?utf-8?" in written(message(Comments="grün", **{"DKIM-Signature": tags}))


def test_an_attached_message_is_not_folded_anew() -> None:
    """What is attached is not ours: ASCII fields stay as they are, up to 998 octets."""
    inner = f"{HEAD}{LONG}Subject:  two\n\tlines\nReferences: <{'x' * 200}>\n\nline\n"
    outer = message()
    outer.add_attachment(parsed(inner))
    assert inner.replace("Subject:  ", "Subject: ").replace("\n", "\r\n").encode() in written(outer)
    outer.add_attachment(parsed(f"{HEAD}X-Long: {'word ' * 300}\n\nx\n"))
    with pytest.raises(MessageError, match="X-Long"):
        written(outer)


@pytest.mark.parametrize("how", ["set", "parsed"])
@pytest.mark.parametrize(
    "name", ["From", "Reply-To", "Resent-To", "Disposition-Notification-To", "Bcc", "Delivered-To", "X-Original-To"]
)
def test_an_address_that_is_attached_has_an_ascii_domain(name: str, how: str) -> None:
    """An encoded-word may not be in an addr-spec (RFC 2047 §5 (3)); the domain has an A-label (RFC 5890)."""
    field = f"{name}: Jörg <info@bücher.example>"
    inner = parsed(f"{field}\nSubject: x\n\nx\n")
    if how == "set":
        inner = message()
        del inner[name]
        inner[name] = field.partition(": ")[2]
    outer = message()
    outer.add_attachment(inner)
    octets = written(outer).replace(b"\r\n ", b" ")
    assert f"{name}: =?utf-8?q?J=C3=B6rg?= <info@xn--bcher-kva.example>\r\n".encode() in octets
    assert octets.isascii()


@pytest.mark.parametrize("field", ["Message-ID: <ü@x.example>", "From: ü <a b@c", "Reply-To: a@\u2603.example"])
def test_an_attached_field_that_cannot_be_encoded_stays_as_it_is(field: str) -> None:
    """A message attached as a proof may be broken; the octets are what the proof is."""
    outer = message()
    outer.add_attachment(parsed(f"{field}\n X: y\n\nx\n"))
    assert f"{field}\r\n X: y\r\n".encode() in written(outer)


@pytest.mark.parametrize("how", ["set", "parsed", "old"])
@pytest.mark.parametrize("name", ["From", "To", "Sender", "Bcc", "Disposition-Notification-To"])
def test_a_local_part_that_is_attached_stays_in_utf_8(name: str, how: str) -> None:
    """It has no ASCII form, and an attached message is not ours to refuse (RFC 6532)."""
    inner = parsed(f"{name}: jörg@bücher.example\nSubject: x\n\nx\n")
    if how != "parsed":
        inner = cast("EmailMessage", MIMEText("x\n")) if how == "old" else EmailMessage()
        inner[name] = "jörg@bücher.example"
    outer = MIMEMultipart()
    outer["From"] = outer["To"] = "a@b.example"
    outer.attach(MIMEMessage(inner))
    submission = submitted(cast("EmailMessage", outer))
    assert f"{name}: jörg@xn--bcher-kva.example\r\n".encode() in b"".join(submission.content.chunk())
    assert not submission.needs_smtputf8
    with pytest.raises(MessageError, match=r"8BITMIME|attached"):
        submission.adapt_to(Capabilities({}))


def test_a_field_that_needs_a_local_part_beyond_ascii_is_named() -> None:
    """With the field's name, and not as an error of Python's email package."""
    made = message(**{"Disposition-Notification-To": "jörg@bücher.example"})
    with pytest.raises(MessageError, match="Disposition-Notification-To has an address with a non-ASCII") as caught:
        submitted(made)
    assert caught.value.__context__ is None


def test_an_attached_header_alone_is_written() -> None:
    """HeaderParser leaves the attached message as the text that it is."""
    made = HeaderParser(policy=email.policy.default).parsestr(
        f"{HEAD}Content-Type: message/rfc822\n\nSubject: x\n\nx\n"
    )
    assert written(made).endswith(b"\r\n\r\nSubject: x\r\n\r\nx\r\n")


@pytest.mark.parametrize("text", ["x" * 999 + "\n", "a\0b\n"], ids=["long", "NUL"])
@pytest.mark.parametrize("kind", ["html", "attachment", "attached", "alone", "old"])
def test_a_part_that_cannot_be_sent_is_named_and_its_hint_works(kind: str, text: str) -> None:
    """Lines of 998 octets, no NUL (RFC 5322 §2.1.1, §2.3): the error says where, the hint is code that mends it."""
    shown = {"html": "text/html", "attachment": "text/csv 'a.csv'", "attached": "text/plain", "alone": "text/plain",
             "old": "text/x"}[kind]  # fmt: skip
    made = message()
    if kind == "html":
        made.add_alternative(text, subtype="html", cte="7bit")
    elif kind == "attachment":
        made.add_attachment(text, subtype="csv", filename="a.csv", cte="7bit")
    elif kind == "attached":
        made.add_attachment(parsed(f"{HEAD}\n{text}"))
    elif kind == "alone":
        made.set_payload(text)
    else:
        made.make_mixed()
        made.attach(cast("EmailMessage", MIMEText(text, "x")))
    with pytest.raises(MessageError) as caught:
        written(made)
    assert re.search(rf"^line \d+ (has a NUL|is longer than 998 bytes), in the part {shown}$", caught.value.args[0])
    assert caught.value.hint
    exec(caught.value.hint, {"message": made, "email": email})  # noqa: S102 -- the hint is the code to run
    again = parsed(written(made).decode())
    payloads = [leaf.get_payload(decode=True) for leaf in again.walk() if not leaf.is_multipart()]
    assert text.encode() in [cast("bytes", payload).replace(b"\r\n", b"\n") for payload in payloads]


def test_the_lines_of_a_part_are_measured_in_octets() -> None:
    """600 characters can be 1,200 octets; each is one to Python, which decodes the part where it is read."""
    made = parsed(f"{HEAD}Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{'ü' * 600}\n")
    with pytest.raises(MessageError, match=r"998 bytes, in the part text/html\.") as caught:
        written(made)
    exec(caught.value.hint or "", {"message": made, "email": email})  # noqa: S102 -- as above
    assert parsed(written(made).decode()).get_content() == "ü" * 600 + "\n"


def test_a_fault_that_is_in_no_part_is_told_as_it_is() -> None:
    """A header of octets that no line may have is in no part's text."""
    made = message()
    made.preamble = "x" * 999
    made.make_mixed()
    with pytest.raises(MessageError, match=r"^line \d+ is longer than 998 bytes"):
        written(made)


@pytest.mark.parametrize("end", ["", "--", " \t"])
def test_a_text_that_has_the_boundary_in_it_adds_no_part(end: str) -> None:
    """RFC 2046 §5.1.1: where a program sets the boundary, a text from outside could hold a part of its own."""
    made = MIMEMultipart(boundary="of-a.program")
    made["From"] = made["To"] = "a@b.example"
    inner = MIMEMultipart()
    inner.attach(MIMEText(f"hello\n--of-a.program{end}\nContent-Type: text/html\n\n<b>"))
    made.attach(inner)
    with pytest.raises(MessageError, match="the boundary of an enclosing multipart"):
        written(cast("EmailMessage", made))


@pytest.mark.parametrize("text", ["-- of-a.program", "--of-a.programs", " --of-a.program", "--of-axprogram"])
def test_a_text_that_is_like_the_boundary_is_sent(text: str) -> None:
    """No reader takes it for one."""
    made = MIMEMultipart(boundary="of-a.program")
    made["From"] = made["To"] = "a@b.example"
    made.attach(MIMEText(text))
    (part,) = cast("list[EmailMessage]", email.message_from_bytes(written(cast("EmailMessage", made))).get_payload())
    assert part.get_payload() == text


def raw(name: str, value: str) -> EmailMessage:
    """Return a message as it is parsed, with one field of this."""
    made = message()
    made.set_raw(name, value)
    return made


def deep(levels: int) -> EmailMessage:
    """Return a message with parts so deep."""
    made = EmailMessage()
    for _ in range(levels):
        outer = EmailMessage()
        outer.set_raw("Content-Type", "multipart/mixed")
        outer.set_payload([made])
        made = outer
    made["From"] = "a@b.example"
    return made


def wide(count: int) -> EmailMessage:
    """Return a message of so many parts."""
    made = message()
    made.make_mixed()
    cast("list[EmailMessage]", made.get_payload()).extend([EmailMessage()] * count)
    return made


def short(count: int) -> EmailMessage:
    """Return a message of so many fields of six octets, line ends included."""
    made = message()
    for _ in range(count):
        made.set_raw("X", "x")
    return made


@pytest.mark.parametrize(
    ("made", "said"),
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
def test_what_is_beyond_a_bound_is_refused(made: EmailMessage, said: str) -> None:
    """Before the email package reads any of it, with the field's name."""
    with pytest.raises(MessageError, match=said):
        written(made)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(raw("X-Any", "<a@b.example> " * 70_000), id="field"),
        pytest.param(raw("Content-X", "x; a=" + "x" * 980 + "; b=" + "x " * 1550), id="MIME"),
        pytest.param(raw("Content-X", "x" + "; a=b" * 100), id="parameters"),
        pytest.param(deep(100), id="nesting"),
        pytest.param(wide(9_998), id="parts"),
    ],
)
def test_what_is_within_the_bounds_is_sent(made: EmailMessage) -> None:
    """The bounds are far beyond what anybody sends."""
    written(made)


def test_a_field_of_a_class_of_the_callers_own_stays_one_field() -> None:
    """It may fold as it likes, and adds no other (CVE-2026-1299)."""

    class Two(UnstructuredHeader):
        def fold(self, *, policy: EmailPolicy) -> str:
            return f"X-Any: a{policy.linesep}Bcc: e@f.example{policy.linesep}"

    registry = HeaderRegistry()
    registry.map_to_type("x-any", Two)  # type: ignore[arg-type]  # typeshed wants what the registry makes
    made = EmailMessage(EmailPolicy(header_factory=registry))
    made["From"], made["X-Any"] = "a@b.example", "x"
    with pytest.raises(MessageError, match="'X-Any' would not be exactly one field"):
        written(made)


@pytest.mark.parametrize("how", ["set", "parsed"])
@pytest.mark.parametrize(
    ("text", "spelt"),
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
def test_a_list_that_is_not_the_envelope_is_written_as_it_is_read(how: str, text: str, spelt: str | None) -> None:
    """What is not ASCII is encoded where it may be (RFC 2047 §5 (3)); the rest is as it was, or refused by its name."""
    if how == "set":
        made = message()
        made["Reply-To"] = text
    else:
        made = raw("Reply-To", text)
    if spelt is None:
        with pytest.raises(MessageError, match=r"Reply-To|domain"):
            written(made)
    else:
        assert f"\r\nReply-To: {spelt}\r\n".encode() in written(made).replace(b"\r\n ", b" ")


def test_an_address_without_domain_that_a_program_set_is_written_as_it_is() -> None:
    """Python has such addresses; they are nobody's business but the program's."""
    made = message()
    made["Reply-To"] = [Address("Last, Jim", "jim"), Address("Jörg", "jim")]
    assert written(made).count(b'\r\nReply-To: "Last, Jim" <jim>, =?') == 1


def test_a_domain_without_ascii_form_is_refused_in_a_part() -> None:
    """By the field's name, as in the header."""
    inner = message(**{"Reply-To": "Jörg <a@-ü.example>"})
    outer = message()
    outer.add_attachment(inner)
    with pytest.raises(MessageError, match="an address in the header field Reply-To has an invalid domain"):
        written(outer)


def test_a_line_end_that_was_encoded_is_refused() -> None:
    """RFC 2047 can hide one, which older Pythons write as it is (CVE-2024-6923)."""
    with pytest.raises(MessageError, match="'Subject' would not be exactly one field"):
        written(message(Subject="=?utf-8?q?a=0ABcc:_x@y.example?="))


def test_a_header_in_utf8_has_no_encoded_words() -> None:
    """RFC 6532 §3: where the server must take UTF-8 anyway; but what could be taken for a line end is encoded."""
    octets = written(message(**{"Reply-To": "Jörg <jörg@b.example>", "Subject": "grün\tgrün", "Comments": "ü\u202eü"}))
    assert "\r\nReply-To: Jörg <jörg@b.example>\r\nSubject: grün\tgrün\r\n".encode() in octets
    assert b"\r\nComments: =?utf-8?b?w7zigK7DvA==?=\r\n" in octets
