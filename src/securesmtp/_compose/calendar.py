"""
Check an invitation (RFC 5545, RFC 5546) and find out its method; the text is sent as it is.

Only what makes mail programs show no invitation is checked. A library that makes iCalendar text checks the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from securesmtp._protocol.scanner import MAX_LINE
from securesmtp.errors import MessageError

# RFC 5546 §1.4.
_METHODS = frozenset({"PUBLISH", "REQUEST", "REPLY", "ADD", "CANCEL", "REFRESH", "COUNTER", "DECLINECOUNTER"})
_HINT = "pass the bytes that a library such as icalendar makes, or Path(…).read_bytes()"
_END = b"\r\n"
_FOLD = re.compile(rb"\r\n[ \t]")
_PROPERTY = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Invitation:
    """
    An iCalendar text.

    Attributes:
        method: Its METHOD, in upper case.
        data: The text in UTF-8 with CRLF line ends.
    """

    method: str
    data: bytes = field(repr=False)


def read_invitation(given: object) -> Invitation:
    """
    Return the iCalendar text *given*, a str or the bytes of one.

    Raises:
        MessageError: It is not such a text, has not exactly one METHOD, or asks for an answer to no ORGANIZER.
    """
    data = _read_bytes(given)
    _check_lines(data)
    lines = [line.decode() for line in _FOLD.sub(b"", data).split(_END) if line]
    if [lines[:1], lines[-1:]] != [["BEGIN:VCALENDAR"], ["END:VCALENDAR"]]:
        text = "calendar does not begin with BEGIN:VCALENDAR and end with END:VCALENDAR"
        raise MessageError(text, hint=_HINT)
    methods = [line.partition(":")[2].strip().upper() for line in lines if _name(line) == "METHOD"]
    if len(methods) != 1 or methods[0] not in _METHODS:
        text = f"calendar has {len(methods)} METHOD lines that mail programs know; it must have one"
        raise MessageError(text, hint="METHOD:REQUEST invites, METHOD:CANCEL cancels, METHOD:PUBLISH informs")
    if methods[0] == "REQUEST" and "ORGANIZER" not in map(_name, lines):
        text = "calendar has METHOD:REQUEST and no ORGANIZER, so nobody would get the answers"
        raise MessageError(text, hint='add a line such as "ORGANIZER:mailto:ada@example.org" to its VEVENT')
    return Invitation(methods[0], data)


def _read_bytes(given: object) -> bytes:
    if isinstance(given, bytes):
        return given
    if not isinstance(given, str):
        text = f"calendar is a {type(given).__name__}, not a str or bytes"
        raise MessageError(text, hint=_HINT)
    try:
        data = given.encode()
    except UnicodeEncodeError as error:
        text = f"calendar has half of a surrogate pair at index {error.start}"
        raise MessageError(text, hint=_HINT) from None
    # Lines of a str end in LF, as everywhere in Python. One with CRLF was put together by a program for calendars.
    return data if b"\r" in data else data.replace(b"\n", _END)


def _check_lines(data: bytes) -> None:
    for number, line in enumerate(data.split(b"\n"), 1):
        if number <= data.count(b"\n") and not line.endswith(b"\r"):
            raise _line_error(number, "does not end in CRLF (RFC 5545 §3.1)")
        text = line.removesuffix(b"\r")
        if b"\r" in text or b"\0" in text:
            raise _line_error(number, "has a CR or a NUL in it")
        if len(text) > MAX_LINE:
            raise _line_error(number, f"is longer than {MAX_LINE} bytes, so it is not folded (RFC 5545 §3.1)")
        try:
            text.decode()
        except UnicodeDecodeError:
            # Also where a program folds a line by bytes, not by characters.
            raise _line_error(number, "is not UTF-8, or is folded inside of a character") from None


def _line_error(number: int, what: str) -> MessageError:
    return MessageError(f"line {number} of calendar {what}", hint=_HINT)


def _name(line: str) -> str:
    found = _PROPERTY.match(line)
    return found[0].upper() if found else ""
