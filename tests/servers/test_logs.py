"""docs/examples/unknown_outcome.py reads from a real server's log whether a message was accepted."""

from __future__ import annotations

import smtplib
import ssl
import time
from pathlib import Path

import unknown_outcome
from servers.real import ALICE, RealServer

CUT, SENT = "<cut@example.test>", "<sent@example.test>"


def _lines(server: RealServer, awaited: str) -> list[str]:
    """Wait until the log, which another process writes, contains *awaited*; return its lines."""
    end = time.monotonic() + 20
    while awaited not in server.log() and time.monotonic() < end:
        time.sleep(0.02)
    return server.log().splitlines(keepends=True)


def _begin(session: smtplib.SMTP, message_id: str) -> None:
    """Send a message up to its final dot; it is too long to stay in a buffer."""
    session.login(*ALICE)
    session.mail(ALICE.username)
    session.rcpt("a@example.test")
    session.docmd("DATA")
    session.send(f"Message-ID: {message_id}\r\n\r\n".encode() + b"x\r\n" * 30_000)


def test_a_message_id_in_postfixs_log_does_not_mean_accepted(postfix: RealServer, ca_file: Path) -> None:
    """Postfix logs the Message-ID of a message that was cut before its end, which it drops (RFC 5321 §4.1.1.4)."""
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
