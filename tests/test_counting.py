"""The server of `bench.million` sees a message that is lost, doubled, or under another's envelope."""

from __future__ import annotations

import ssl
from typing import cast

import pytest

from bench.counting import Delivered, Session, Tally


def message(serial: int, header: int) -> bytes:
    """Return the commands and the content of a message."""
    content = b"Subject: a\r\nMessage-ID: <%d.1@example.test>\r\n\r\nHello\r\n" % header
    commands = b"MAIL FROM:<a@example.test>\r\nRCPT TO:<%d@example.test>\r\nBDAT %d LAST\r\n" % (serial, len(content))
    return commands + content


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_each_serial_number_is_counted(size: int) -> None:
    """However the bytes are cut: 1 comes once, 2 twice, 3 with the content of 4, and 0 and 4 not at all."""
    octets = b"EHLO me\r\n" + message(1, 1) + message(2, 2) + message(2, 2) + message(3, 4)
    tally = Tally(5)
    session = Session(cast("ssl.SSLSocket", None), tally)
    replies = list[bytes]()
    for start in range(0, len(octets), size):
        session.pending = session.take(session.pending + octets[start : start + size], replies)
    assert tally.delivered() == Delivered(once=2, missing=2, doubled=1, mixed=1, connections=0)
    # A reply to EHLO, and to each command but BDAT, whose reply comes after the content.
    assert len(replies) == 1 + 4 * 3
