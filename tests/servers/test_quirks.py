"""Real servers do what `docs/reference/servers.md` says of them, and the library does what it says there."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest

from conftest import Mailer
from securesmtp import MessageError, SecureMailer
from servers.real import ALICE, RealServer

BOB, JOERG = "bob@b.example", "jörg@b.example"


def open_mailer(server: RealServer, make_mailer: Mailer, ca_file: Path) -> SecureMailer:
    """Return a mailer for *server*."""
    login = {"username": ALICE.username, "password": ALICE.password}
    return make_mailer(server.host, server.implicit_port, tls="implicit", ca_file=ca_file, timeout=20, **login)


def send(mailer: SecureMailer, recipient: str) -> None:
    """Send a short message."""
    mailer.send_bytes(b"Subject: x\r\n\r\nx\r\n", mail_from=ALICE.username, recipients=[recipient])


def test_what_dovecot_offers_after_the_login_is_used(dovecot24: RealServer, make_mailer: Mailer, ca_file: Path) -> None:
    """SMTPUTF8, which 2.4 offers only then."""
    dovecot24.deliver(0)
    with open_mailer(dovecot24, make_mailer, ca_file) as mailer:
        assert "SMTPUTF8" not in mailer.check().after_tls
        for recipient in (BOB, JOERG, BOB):
            send(mailer, recipient)
    assert sorted(each.recipients for each in dovecot24.deliver(3)) == [(BOB,), (BOB,), (JOERG,)]


def test_opensmtpd_may_refuse_ehlo_after_the_login(opensmtpd: RealServer, make_mailer: Mailer, ca_file: Path) -> None:
    """The message has no form that it accepts; the next one arrives."""
    opensmtpd.deliver(0)
    with open_mailer(opensmtpd, make_mailer, ca_file) as mailer:
        send(mailer, BOB)
        with pytest.raises(MessageError, match="SMTPUTF8"):
            send(mailer, JOERG)
        send(mailer, BOB)
    assert [each.recipients for each in opensmtpd.deliver(2)] == [(BOB,), (BOB,)]
    assert 'command="EHLO' in opensmtpd.log()


def test_long_lines_arrive_at_haraka(haraka: RealServer, make_mailer: Mailer, ca_file: Path) -> None:
    """It breaks lines of more than 990 octets."""
    haraka.deliver(0)
    message = EmailMessage()
    message["From"], message["To"] = ALICE.username, BOB
    message.set_payload("x" * 995 + "\n")
    with open_mailer(haraka, make_mailer, ca_file) as mailer:
        mailer.send(message)
        mailer.send_bytes(b"Subject: x\r\n\r\n" + b"x" * 995, mail_from=ALICE.username, recipients=[BOB])
    first, second = sorted((each.content for each in haraka.deliver(2)), key=lambda content: b"\r\n " in content)
    assert b"quoted-printable" in first
    assert b"x" * 990 + b"\r\n xxxxx\r\n" in second
