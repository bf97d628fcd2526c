"""What a real server's log says of a message, as docs/examples/unknown_outcome.py reads it."""

from __future__ import annotations

import smtplib
import ssl
import time
from pathlib import Path

import unknown_outcome
from servers.real import ALICE, RealServer

CUT, SENT = "<cut@example.test>", "<sent@example.test>"


def _lines(server: RealServer, awaited: str) -> list[str]:
    """Return the log as soon as it has what is awaited: it is written by another process."""
    end = time.monotonic() + 20
    while awaited not in server.log() and time.monotonic() < end:
        time.sleep(0.02)
    return server.log().splitlines(keepends=True)


def _begin(session: smtplib.SMTP, message_id: str) -> None:
    """Send a message up to its final dot, and more of it than waits in a buffer."""
    session.login(*ALICE)
    session.mail(ALICE.username)
    session.rcpt("a@example.test")
    session.docmd("DATA")
    session.send(f"Message-ID: {message_id}\r\n\r\n".encode() + b"x\r\n" * 30_000)


def test_a_message_that_postfix_has_read_was_not_accepted_by_that(postfix: RealServer, ca_file: Path) -> None:
    """Its log names the Message-ID of one that was cut before its end (RFC 5321 §4.1.1.4: so it is to be dropped)."""
    context = ssl.create_default_context(cafile=ca_file)
    postfix.deliver(0)
    session = smtplib.SMTP_SSL(postfix.host, postfix.implicit_port, context=context)
    _begin(session, CUT)
    _lines(postfix, CUT)
    session.close()
    log = _lines(postfix, "lost connection after DATA")
    assert any(CUT in line for line in log)
    assert not unknown_outcome.was_accepted(CUT, log)
    with smtplib.SMTP_SSL(postfix.host, postfix.implicit_port, context=context) as session:
        _begin(session, SENT)
        session.send(".\r\n")
        assert session.getreply()[0] == 250
    postfix.deliver(1)
    log = _lines(postfix, "status=sent")
    assert unknown_outcome.was_accepted(SENT, log)
    assert not unknown_outcome.was_accepted(CUT, log)
