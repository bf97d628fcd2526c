"""
The messages of the matrix: one row each, and what must come of them.

A letter has a token of its own in its Message-ID, so that what arrives is recognised: late, twice, or not at all.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

from securesmtp import DSN, Envelope
from servers.real import ALICE, DOMAIN, LATER, REFUSED, SIZE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from servers.real import RealServer

TO = f"to@{DOMAIN}"
# Its blank, "+" and "=" are written in xtext, as +20, +2B and +3D.
ENVID = "order 7+1=8"
LARGE = 20_000_000

_TOKENS = itertools.count(1)


@dataclass(frozen=True)
class Letter:
    """
    One message.

    Attributes:
        row: The row of the matrix.
        body: The octets behind the header, or text for an `EmailMessage`.
        recipients: The envelope's recipients.
        arrives_at: Those who must get it; none if it must be refused.
        needs: The extension without which a server cannot take it.
        dsn: The reports to ask for.
        require_tls: Whether each further server has to use TLS.
        token: Its name.
    """

    row: str
    body: bytes | str
    recipients: tuple[str, ...] = (TO,)
    arrives_at: tuple[str, ...] = (TO,)
    needs: str = ""
    dsn: DSN | None = None
    require_tls: bool = False
    token: str = field(default_factory=lambda: f"{next(_TOKENS)}.matrix@{DOMAIN}")

    @property
    def octets(self) -> bytes:
        """The message as it must arrive, if it is sent in octets."""
        assert isinstance(self.body, bytes)
        head = (
            f"From: {ALICE.username}\r\nTo: {TO}\r\nDate: Fri, 27 Nov 2026 09:00:00 +0000\r\nSubject: {self.row}\r\n"
            f"Message-ID: <{self.token}>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Transfer-Encoding: {'7bit' if self.body.isascii() else '8bit'}\r\n"
            "X-Kept:   as  it\r\n\tis \r\n\r\n"
        )
        return head.encode() + self.body

    @property
    def envelope(self) -> Envelope:
        """The message and its envelope."""
        if isinstance(self.body, bytes):
            options: Any = {"dsn": self.dsn, "require_tls": self.require_tls}
            return Envelope(ALICE.username, self.recipients, self.octets, **options)
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = ALICE.username, TO, "Grüße"
        message["Message-ID"] = f"<{self.token}>"
        # Without a name for the encoding, the package email would encode long lines itself.
        message.set_content(self.body, cte="8bit")
        return Envelope(ALICE.username, self.recipients, message)

    def difference(self, arrived: bytes, server: RealServer) -> str:
        """Return how the content that arrived differs, or nothing; of the text alone, if the server rewrites it."""
        if isinstance(self.body, bytes):
            # What DATA ends with needs a line end before it.
            wanted = server.expected(self.octets if self.octets.endswith(b"\r\n") else self.octets + b"\r\n")
            if arrived == wanted:
                return ""
            if server.can("octets"):
                return _first_difference(wanted, arrived)
        text = self.body.decode() if isinstance(self.body, bytes) else self.body
        parsed = message_from_bytes(arrived, policy=policy.default)
        payload = parsed.get_payload(decode=True)
        assert isinstance(payload, bytes)
        return (
            ""
            if _lines(payload.decode(errors="replace")) == _lines(text)
            else _first_difference(text.encode(), payload)
        )


def token_of(content: bytes) -> str | None:
    """Return the token of a message that arrived."""
    found = re.search(rb"^Message-ID: <([^>]*)>", content.partition(b"\r\n\r\n")[0], re.MULTILINE | re.IGNORECASE)
    return found and found.group(1).decode()


def in_ascii(address: str) -> str:
    """Return an address with its domain in A-labels; chasquid and smtp-server pass on the U-labels."""
    local, at, domain = address.rpartition("@")
    return local + at + domain.encode("idna").decode()


def reported_tokens(report: bytes) -> set[str]:
    """Return the tokens of the messages of which a report says that they were relayed or delivered."""
    text = report.decode("utf-8", "replace")
    envelope_id = re.search(r"^Original-Envelope-ID: *(.*?)\r?$", text, re.MULTILINE | re.IGNORECASE)
    # Exim reports the xtext, OpenSMTPD nothing.
    if envelope_id is not None and envelope_id.group(1) not in {ENVID, "order+207+2B1+3D8"}:
        return set()
    if re.search(r"^Action: (relayed|delivered)", text, re.MULTILINE | re.IGNORECASE) is None:
        return set()
    return set(re.findall(rf"\d+\.matrix@{re.escape(DOMAIN)}", text))


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").rstrip("\n").split("\n")


def _first_difference(wanted: bytes, arrived: bytes) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(wanted, arrived, strict=False)) if a != b), min(len(wanted), len(arrived))
    )
    return f"at octet {at} {arrived[at : at + 20]!r} in place of {wanted[at : at + 20]!r}"


def _lines_of(octets: int) -> bytes:
    return (b"z" * 76 + b"\r\n") * (octets // 78 + 1)


def _plain(row: str, body: bytes | str) -> Callable[[], Letter]:
    return lambda: Letter(row, body)


_HUNDRED = tuple(f"r{number}@{DOMAIN}" for number in range(100))
_PARTIAL = (f"a@{DOMAIN}", REFUSED, LATER, f"b@{DOMAIN}")
BAD_RAISE, BAD_ALLOW, OVER_SIZE = "one bad recipient, raise", "one bad recipient, allow", "over SIZE"
LONG_LINE, TWENTY_MB, REPORTS = "lines of 998", "20 MB", "DSN"

# In the order of the page.
LETTERS: dict[str, Callable[[], Letter]] = {
    letter().row: letter
    for letter in (
        _plain("plain", b"Hello\r\n"),
        _plain("8-bit", "Grüße, żółw, 漢字 ✓\r\n".encode() * 30),
        _plain(LONG_LINE, (b"x" * 998 + b"\r\n") * 2),
        _plain("EmailMessage, lines of 3,000", "x" * 995 + "\n" + "word " * 600 + "\n" + "ü" * 1500 + "\n"),
        _plain("leading dots", b".\r\n..\r\n.x\r\n\r\n.\r\nQUIT\r\n.\r\n"),
        _plain("empty body", b""),
        _plain("no last line end", b"the last line has no end"),
        _plain("ends in CRLF dot", b"text\r\n."),
        _plain("ends in CRLF dot CRLF", b"text\r\n.\r\n"),
        lambda: Letter("100 recipients", b"Hello\r\n", _HUNDRED, _HUNDRED),
        lambda: Letter(BAD_RAISE, b"Hello\r\n", _PARTIAL, ()),
        lambda: Letter(BAD_ALLOW, b"Hello\r\n", _PARTIAL, (_PARTIAL[0], _PARTIAL[3])),
        lambda: Letter(TWENTY_MB, _lines_of(LARGE)),
        lambda: Letter(
            "SMTPUTF8 local part", b"Hello\r\n", (f"jürgen@{DOMAIN}",), (f"jürgen@{DOMAIN}",), needs="SMTPUTF8"
        ),
        lambda: Letter("IDN domain", b"Hello\r\n", (f"a@bücher.{DOMAIN}",), (f"a@xn--bcher-kva.{DOMAIN}",)),
        lambda: Letter(OVER_SIZE, b"", arrives_at=()),
        lambda: Letter(
            REPORTS, b"Hello\r\n", needs="DSN", dsn=DSN(notify={"success"}, ret="headers", envid=ENVID, orcpt=True)
        ),
        lambda: Letter("REQUIRETLS", b"Hello\r\n", needs="REQUIRETLS", require_tls=True),
    )
}
# Too much for a run of the tests.
HEAVY = (TWENTY_MB, OVER_SIZE)


def write(rows: Iterable[str], server: RealServer, size: int) -> list[Letter]:
    """Return a new letter for each of *rows*: over *size* octets where that is the row, to whom *server* can refuse."""
    unrefused = {REFUSED: "refuse", LATER: "later"}
    accepted = {address for address, ability in unrefused.items() if ability in server.cannot}
    letters = [LETTERS[row]() for row in rows]
    for number, letter in enumerate(letters):
        recipients = tuple(address for address in letter.recipients if address not in accepted)
        letters[number] = replace(letter, recipients=recipients)
        if letter.row == OVER_SIZE:
            letters[number] = replace(letter, body=_lines_of(max(size, SIZE_LIMIT)))
    return letters
