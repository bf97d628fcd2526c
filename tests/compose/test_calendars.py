"""Invitations: what mail programs need to show one."""

from __future__ import annotations

from typing import Any

import icalendar
import pytest

from compose.wire import arrived, composed, wire
from securesmtp import MessageError

LINES = [
    "BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//example//1//", "METHOD:REQUEST", "BEGIN:VEVENT", "UID:1@example.org",
    "DTSTAMP:20261127T090000Z", "DTSTART:20261201T090000Z", "DTEND:20261201T100000Z", "SUMMARY:Grüße",
    "ORGANIZER:mailto:ada@example.org", "ATTENDEE;RSVP=TRUE:mailto:bob@example.net", "END:VEVENT", "END:VCALENDAR",
]  # fmt: skip
TEXT = "\n".join([*LINES, ""])
DATA = TEXT.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("calendar", [TEXT, DATA, DATA.decode()], ids=["str", "bytes", "str-crlf"])
def test_an_invitation_is_the_last_alternative_and_a_file(calendar: str | bytes) -> None:
    """The alternative has its type and encoding, and nothing more; the copy has another type, and a name."""
    message = arrived(calendar=calendar, html="<p>Hi")
    invitation, copy = (part for part in message.walk() if part.get_content_subtype() in {"calendar", "ics"})
    assert invitation.items() == [
        ("Content-Type", 'text/calendar; charset="utf-8"; method="REQUEST"'), ("Content-Transfer-Encoding", "base64"),
    ]  # fmt: skip
    assert copy.items() == [
        ("Content-Type", 'application/ics; name="invite.ics"'),
        ("Content-Disposition", 'attachment; filename="invite.ics"'),
        ("Content-Transfer-Encoding", "base64"),
    ]
    assert invitation.get_payload(decode=True) == copy.get_payload(decode=True) == DATA
    assert [part.get_filename() for part in message.iter_attachments()] == ["invite.ics"]


@pytest.mark.parametrize(
    "method", ["PUBLISH", "Request", "REPLY", "ADD", "CANCEL", "REFRESH", "COUNTER", "DECLINECOUNTER"]
)
def test_the_method_is_that_of_the_text(method: str) -> None:
    """In upper case, whatever case the text has; a program shows no invitation if they differ."""
    message = arrived(calendar=TEXT.replace("METHOD:REQUEST", f"method:{method}"))
    (found,) = (
        part["Content-Type"].params["method"] for part in message.walk() if part.get_content_subtype() == "calendar"
    )
    assert found == method.upper()


def test_a_folded_line_is_read_as_one() -> None:
    """Also the one with the method; nothing of it is rewritten."""
    folded = DATA.replace(b"METHOD:REQ", b"METH\r\n OD:RE\r\n\tQ")
    assert b"QkVHSU46VkNBTEVOREFS" in wire(composed(calendar=folded))
    (part,) = arrived(calendar=folded).iter_attachments()
    assert part.get_payload(decode=True) == folded


@pytest.mark.parametrize(
    ("calendar", "text"),
    [
        pytest.param(7, "calendar is a int", id="a-number"),
        pytest.param("", "does not begin with BEGIN:VCALENDAR", id="empty"),
        pytest.param(TEXT.replace("VCALENDAR", "VCARD"), "does not begin with BEGIN:VCALENDAR", id="a-card"),
        pytest.param(TEXT.replace("END:VCALENDAR\n", ""), "and end with END:VCALENDAR", id="cut"),
        pytest.param("\ufeff" + TEXT, "does not begin with BEGIN:VCALENDAR", id="byte-order-mark"),
        pytest.param(TEXT.replace("METHOD:REQUEST\n", ""), "has 0 METHOD lines", id="no-method"),
        pytest.param(TEXT.replace("METHOD:REQUEST", "METHOD:REQUEST\nMETHOD:CANCEL"), "has 2 METHOD lines", id="two"),
        pytest.param(TEXT.replace("METHOD:REQUEST", "METHOD:INVITE"), "METHOD lines that mail programs know", id="odd"),
        pytest.param(TEXT.replace("ORGANIZER", "X-ORGANIZER"), "no ORGANIZER", id="no-organizer"),
        pytest.param(TEXT.encode(), "line 1 of calendar does not end in CRLF", id="lf"),
        pytest.param(DATA.replace(b"UID:1@example.org\r\n", b"UID:1@example.org\n"), "line 6 of .* CRLF", id="one-lf"),
        pytest.param(DATA.replace(b"UID:1", b"UID:\r1"), "line 6 of calendar has a CR", id="cr"),
        pytest.param(DATA.replace(b"UID:1", b"UID:\0001"), "line 6 of calendar has a CR or a NUL", id="nul"),
        pytest.param(DATA.replace(b"UID:1", b"UID:" + b"1" * 990), "line 6 of calendar is longer than 998", id="long"),
        pytest.param(DATA.replace("ü".encode(), b"\xc3\r\n \xbc"), "line 10 .* inside of a character", id="cut-letter"),
        pytest.param(DATA.replace("ü".encode(), b"\xfc"), "line 10 of calendar is not UTF-8", id="latin-1"),
        pytest.param(TEXT.replace("ü", "\udcfc"), "half of a surrogate pair at index", id="surrogate"),
    ],
)
def test_what_a_mail_program_would_not_show_is_refused(calendar: Any, text: str) -> None:
    """With the line's number; the hint names the bytes of a library."""
    with pytest.raises(MessageError, match=text) as caught:
        composed(calendar=calendar)
    assert caught.value.hint


def test_a_library_for_calendars_makes_and_reads_it() -> None:
    """What icalendar writes is accepted, and what arrives is the same to it."""
    made = icalendar.Calendar.from_ical(DATA)
    (part,) = arrived(calendar=made.to_ical()).iter_attachments()
    assert icalendar.Calendar.from_ical(part.get_content()) == made
