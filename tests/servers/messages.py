"""Typical messages, each with something that can break on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email.message import EmailMessage

ICS = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//securesmtp//tests//EN\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\n"
    "UID:1@example.test\r\nDTSTAMP:20261124T120000Z\r\nDTSTART:20261125T120000Z\r\nSUMMARY:Prüfung\r\n"
    "ATTENDEE;RSVP=TRUE:mailto:to@example.test\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
# A GIF of one pixel.
PIXEL = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")


def _mail(subject: str, text: str, cte: str | None = None) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "alice@example.test"
    mail["To"] = "to@example.test"
    mail["Subject"] = subject
    mail.set_content(text, cte=cte)
    return mail


def _attachments() -> EmailMessage:
    mail = _mail("attachments", "See what is attached.\n")
    mail.add_attachment(bytes(range(256)) * 300, maintype="application", subtype="octet-stream", filename="a\u0308.bin")
    mail.add_attachment("a;b\nü;ö\n", filename="table.csv", subtype="csv")
    mail.add_attachment(_mail("inside", "A mail in a mail.\n.with a dot\n"))
    return mail


def _inline_image() -> EmailMessage:
    mail = _mail("a picture", "There is a picture.\n")
    mail.add_alternative('<p>There is a <img src="cid:pixel@example.test"></p>\n', subtype="html")
    html = list(mail.iter_parts())[-1]
    assert isinstance(html, EmailMessage)
    html.add_related(PIXEL, "image", "gif", cid="<pixel@example.test>", filename="pixel.gif", disposition="inline")
    return mail


def _names() -> EmailMessage:
    mail = _mail("Grüße aus Łódź ✓ " + "mit einem langen Betreff " * 12, "x\n")
    mail.replace_header("To", '"Ünsal, Ö." <to@example.test>, Gruppe:a@example.test, "B. C" <b@example.test>;')
    mail["X-Umlaut"] = "ä" * 300
    mail["Keywords"] = "one, two"
    return mail


def _invitation() -> EmailMessage:
    mail = _mail("Invitation", "Please come.\n")
    mail.add_alternative(ICS, subtype="calendar", params={"method": "REQUEST"})
    return mail


MAILS: dict[str, Callable[[], EmailMessage]] = {
    "attachments": _attachments,
    "inline image": _inline_image,
    "8-bit": lambda: _mail("8-bit", "Grüße, żółw, 漢字 ✓\n" * 30, cte="8bit"),
    "very long lines": lambda: _mail("long", ("word " * 3000 + "\n") * 2 + "ü" * 2000 + "\n"),
    "leading dots": lambda: _mail("dots", ".\n..\n.x\n\n.\n" * 5 + "QUIT\n.\n"),
    "empty body": lambda: _mail("empty", ""),
    "no line end": lambda: _mail("end", "the last line has no end"),
    "names": _names,
    "invitation": _invitation,
    "trailing space": lambda: _mail("space", "From here  \nFrom there\t\n \n"),
}


def raw_messages() -> Iterator[bytes]:
    """Yield messages as bytes, with content that encoders avoid."""
    head = b"From: alice@example.test\r\nTo: to@example.test\r\nX-Kept:   as  it\r\n\tis \r\n"
    yield head + b"\r\n"
    yield head + b"\r\n.\r\n..\r\n.x\r\nQUIT\r\n.\r\n"
    yield head.replace(b"\r\n", b"\n") + b"\nLF line ends\n\n.dot\n"
    yield head + b"\r\n" + b"\xc3\xa4\xff\xfe 8-bit\r\n"
    yield head + b"\r\n" + b"x" * 998 + b"\r\nFrom here\r\n"
    yield head + b"\r\n" + b"y" * 70 + b"\r\n" * 3
    yield head + b"\r\n" + (b"z" * 76 + b"\r\n") * 20000


UNSENDABLE = {
    b"Subject: x\n\nfirst\n" + b"y" * 999 + b"\n": 4,
    b"Subject: x\n\nfirst\rsecond\n": 3,
    b"Subject: x\n\nfirst\nNUL \0\n": 4,
}
