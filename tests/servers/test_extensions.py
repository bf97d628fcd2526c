"""What real servers do with REQUIRETLS (nodemailer's smtp-server) and DELIVERBY (Sendmail); no other offers more."""

from __future__ import annotations

from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from conftest import Mailer
from scripted import Mode
from securesmtp import DeliverBy, Envelope, MessageError, Outcome, SecureMailer
from servers.real import ALICE, BOB, RealServer

pytestmark = pytest.mark.faces("real servers", sample=(2, 1))


@pytest.fixture
def message() -> EmailMessage:
    """Return a message from Alice to Bob."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = ALICE.username, BOB.username, "more than delivery"
    made.set_content("Hello")
    return made


def _mailer(server: RealServer, make_mailer: Mailer, mode: Mode, ca_file: Path) -> SecureMailer:
    login = {"username": ALICE.username, "password": ALICE.password}
    return make_mailer(server.host, server.port(mode), tls=mode, ca_file=ca_file, timeout=20, **login)


def test_smtp_server_reads_requiretls(
    smtp_server: RealServer, make_mailer: Mailer, mode: Mode, ca_file: Path, message: EmailMessage
) -> None:
    """It offers the extension inside TLS, and refuses parameters that it does not know."""
    smtp_server.deliver(0)
    with _mailer(smtp_server, make_mailer, mode, ca_file) as mailer:
        receipt = mailer.send(message, require_tls=True)
        with pytest.raises(MessageError, match="the server does not offer BINARYMIME"):
            mailer.send_bytes(b"Subject: x\r\n\r\n\0", mail_from="", recipients=[BOB.username], binary=True)
    (delivered,) = smtp_server.deliver(1)
    assert message_from_bytes(delivered.content)["Message-ID"] == receipt.message_id
    assert f"MAIL FROM:<{ALICE.username}> SIZE={receipt.size} REQUIRETLS\n" in smtp_server.log()


def test_sendmail_reads_deliverby(
    sendmail: RealServer, make_mailer: Mailer, mode: Mode, ca_file: Path, message: EmailMessage
) -> None:
    """Its next server does not offer the extension, so *trace* has it report that it has passed the message on."""
    sendmail.deliver(0)
    traced = Envelope(ALICE.username, [BOB.username], message, deliver_by=DeliverBy(timedelta(hours=1), trace=True))
    with _mailer(sendmail, make_mailer, mode, ca_file) as mailer:
        (result,) = mailer.send_many([traced])
        with pytest.raises(MessageError, match="the server does not offer REQUIRETLS"):
            mailer.send(message, require_tls=True)
    assert result.outcome is Outcome.ACCEPTED
    delivered = {each.mail_from: each for each in sendmail.deliver(2)}
    assert delivered[ALICE.username].recipients == (BOB.username,)
    report = message_from_bytes(delivered[""].content, policy=policy.default)
    assert report.get_content_type() == "multipart/report"
    about, each = next(
        part for part in report.walk() if part.get_content_type() == "message/delivery-status"
    ).iter_parts()
    assert each["Action"].startswith("relayed")
    by, arrived = (parsedate_to_datetime(about[name]) for name in ("Deliver-By-Date", "Arrival-Date"))
    assert by - arrived == timedelta(hours=1)
