"""The form of a message that no server on its way rewrites."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from email.mime.text import MIMEText

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol.message import Submission
from securesmtp._protocol.seven_bit import make_seven_bit
from securesmtp._submissions import digest, from_message, from_octets


def mail(text: str, cte: str, subtype: str = "plain") -> EmailMessage:
    """Return a message with one part."""
    made = EmailMessage()
    made["From"], made["To"] = "a@example.org", "b@example.org"
    made.set_content(text, subtype=subtype, cte=cte)
    return made


def built(message: EmailMessage | MIMEText) -> Submission:
    """Return *message* as it is sent unsigned."""
    return from_message(message, None, None)


def sent(submission: Submission) -> EmailMessage:
    """Return what a receiver reads."""
    found = message_from_bytes(submission.content.whole_chunk(), policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


def text_of(message: EmailMessage) -> str:
    """Return the text of *message* without its last line ends."""
    text: str = message.get_content()
    return text.replace("\r\n", "\n").rstrip("\n")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Grüße aus Bremen, und noch ein Satz.\n", "quoted-printable"),
        ("漢字かな交じり文\n", "base64"),
        ("Grüße, hinten ein Leerzeichen, und noch ein Satz \nSchluss\n", "base64"),
        ("Grüße, hinten ein Tabulator, und noch ein Satz\t\n", "base64"),
        ("Grüße und ein letztes, langes Wort " + "x" * 200, "quoted-printable"),
    ],
    ids=["German", "Japanese", "blank", "tab", "long"],
)
def test_eight_bit_text_is_encoded(text: str, encoding: str) -> None:
    """X4, X9: as quoted-printable where most of it is ASCII, and where no line of it ends with a blank."""
    submission = built(mail(text, "8bit"))
    assert not submission.content.is_ascii
    made = make_seven_bit(submission)
    assert made.content.is_ascii
    assert sent(made)["Content-Transfer-Encoding"] == encoding
    assert text_of(sent(made)) == text.rstrip("\n")
    assert max(map(len, made.content.whole_chunk().split(b"\r\n"))) <= 78


@pytest.mark.parametrize("text", ["ends with a blank \nx\n", "tab\t\n", "blank at the end ", "a" * 75 + "="])
def test_quoted_printable_that_servers_write_anew_becomes_base64(text: str) -> None:
    """X9: a blank at the end of a line, and a soft line break at the end of the part."""
    message = mail(text, "quoted-printable")
    if text.endswith("="):
        message.set_payload("soft=\n")
        text = "soft"
    made = make_seven_bit(built(message))
    assert sent(made)["Content-Transfer-Encoding"] == "base64"
    assert text_of(sent(made)) == text.rstrip("\n")


def test_text_in_base64_has_crlf_inside() -> None:
    """RFC 2045 §6.8; other parts are kept as they are."""
    made = make_seven_bit(built(mail("漢字\n漢字\n", "8bit")))
    assert sent(made).get_payload(decode=True) == "漢字\r\n漢字\r\n".encode()
    part = EmailMessage()
    part["Content-Type"], part["Content-Transfer-Encoding"] = "application/json", "8bit"
    part.set_payload(b'"\xc3\xa4"\n'.decode("ascii", "surrogateescape"))
    message = mail("x", "7bit")
    message.make_mixed()
    message.attach(part)
    made = make_seven_bit(built(message))
    assert list(sent(made).iter_parts())[1].get_payload(decode=True) == b'"\xc3\xa4"\n'


def test_a_message_that_needs_nothing_stays_the_same_object() -> None:
    """Nothing is written twice."""
    for message in (mail("x \n", "7bit"), mail("=\n", "quoted-printable"), mail("ü", "base64")):
        submission = built(message)
        assert make_seven_bit(submission) is submission
    raw = from_octets(b"From: a@b.c\r\n\r\n\xc3\xa4", "a@b.c", ["d@e.f"])
    assert make_seven_bit(raw) is raw


def test_what_is_signed_or_attached_is_not_changed() -> None:
    """It stays 8-bit, and a signature over it is refused then."""
    message = mail("Grüße", "8bit")
    message.add_attachment(mail("Grüße", "8bit"))
    made = make_seven_bit(built(message))
    first, attached = sent(made).iter_parts()
    assert first["Content-Transfer-Encoding"] == "base64"
    inner = attached.get_payload(0)
    assert isinstance(inner, EmailMessage)
    assert inner["Content-Transfer-Encoding"] == "8bit"
    signed = mail("Grüße", "8bit")
    signed.make_mixed()
    signed.replace_header("Content-Type", "multipart/signed")
    assert not make_seven_bit(built(signed)).content.is_ascii
    theirs = mail("Grüße", "8bit")
    theirs["DKIM-Signature"] = "v=1; h=from; c=relaxed/relaxed"
    submission = built(theirs)
    assert make_seven_bit(submission) is submission


def test_a_part_that_is_ascii_does_not_say_eight_bit() -> None:
    """C18: Python writes the word for an attached message, and Postfix changes it on the way."""
    inner, forwarded = mail("x", "8bit"), mail("y", "8bit")
    forwarded["DKIM-Signature"] = "v=1; h=content-transfer-encoding; c=relaxed/relaxed"
    message = mail("x", "8bit")
    message.add_attachment(inner)
    message.add_attachment(forwarded)
    signed = mail("z", "8bit")
    signed.make_mixed()
    signed.replace_header("Content-Type", "multipart/signed")
    message.attach(signed)
    made = make_seven_bit(built(message))
    text, first, second, third = sent(made).iter_parts()
    words = [each["Content-Transfer-Encoding"] for each in (text, first, first.get_payload(0), second)]  # type: ignore[index]
    assert words == ["7bit"] * 4
    # Another signature covers these.
    assert second.get_payload(0)["Content-Transfer-Encoding"] == "8bit"  # type: ignore[index]
    assert third.get_payload(0)["Content-Transfer-Encoding"] == "8bit"  # type: ignore[index]
    assert digest(made) == digest(built(message))


def test_what_a_ledger_recognises_stays() -> None:
    """The digest of a message that is signed is that of one that is not."""
    submission = built(mail("Grüße \n", "8bit"))
    made = make_seven_bit(submission)
    assert made.content.whole_chunk() != submission.content.whole_chunk()
    assert digest(made) == digest(submission)


def test_a_message_of_the_old_api_is_converted_too() -> None:
    """Its charset stays."""
    message = MIMEText("x", "plain")
    message["From"], message["To"] = "a@example.org", "b@example.org"
    message.replace_header("Content-Type", 'text/plain; charset="iso-8859-1"')
    message.replace_header("Content-Transfer-Encoding", "8bit")
    message.set_payload(b"Gr\xfc\xdfe und noch ein Satz".decode("ascii", "surrogateescape"))
    made = make_seven_bit(built(message))
    assert text_of(sent(made)) == "Grüße und noch ein Satz"


@settings(max_examples=examples(90))
@given(st.text(st.sampled_from("aü漢 \t=.\n"), max_size=300), st.sampled_from(["8bit", "quoted-printable", "base64"]))
def test_every_text_arrives_and_no_line_is_fragile(text: str, cte: str) -> None:
    """Whatever it is made of."""
    made = make_seven_bit(built(mail(text, cte)))
    body = made.content.whole_chunk().partition(b"\r\n\r\n")[2]
    assert body.isascii()
    if sent(made)["Content-Transfer-Encoding"] == "quoted-printable":
        assert not body.rstrip(b"\r\n").endswith(b"=")
        assert not any(line.endswith((b"=20", b"=09", b" ", b"\t")) for line in body.split(b"\r\n"))
    assert text_of(sent(made)) == text.rstrip("\n")
