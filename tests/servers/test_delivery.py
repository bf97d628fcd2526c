"""Real messages through a real Postfix and a real Exim, in both modes."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
import test.test_email

from scripted import Mode
from securesmtp import MessageError, Outcome, RecipientsRefusedError, SecureMailer
from servers.real import ALICE, BOB, LATER, REFUSED, RealServer

DATA = sorted((Path(test.test_email.__file__).parent / "data").glob("msg_*.txt"))


def _mailer(server: RealServer, mode: Mode, ca_file: Path) -> SecureMailer:
    port = server.implicit_port if mode == "implicit" else server.starttls_port
    return SecureMailer(
        server.host, port, tls=mode, username=ALICE.username, password=ALICE.password, ca_file=ca_file, timeout=20
    )


def test_a_mail_with_attachments_arrives(real_server: RealServer, mode: Mode, ca_file: Path) -> None:
    """Header values and decoded parts are the same, Bcc is gone, and the server says ESMTPSA."""
    mail = EmailMessage()
    mail["From"] = ALICE.username
    mail["To"] = "Ünsal <to@example.test>"
    mail["Bcc"] = "bcc@bücher.example.test"
    mail["Subject"] = "Grüße ✓ " + "lang " * 60
    mail.set_content("ä" * 400 + "\n.dot\n\n", cte="8bit")
    mail.add_attachment(bytes(range(256)) * 100, maintype="application", subtype="octet-stream", filename="a\u0308.bin")
    real_server.deliver(0)
    with _mailer(real_server, mode, ca_file) as mailer:
        receipt = mailer.send(mail)
    (delivered,) = real_server.deliver(1)
    arrived = message_from_bytes(delivered.content, policy=policy.default)
    assert set(delivered.recipients) == {"to@example.test", "bcc@xn--bcher-kva.example.test"}
    assert arrived["Bcc"] is None
    assert arrived["Subject"] == mail["Subject"]
    assert arrived["To"] == mail["To"]
    assert arrived["Message-ID"] == receipt.message_id
    for sent, got in zip(mail.iter_parts(), arrived.iter_parts(), strict=True):
        ours, theirs = sent.get_content(), got.get_content()
        assert ours == (theirs.replace("\r\n", "\n") if isinstance(theirs, str) else theirs)
        assert sent.get_filename() == got.get_filename()


def test_a_non_ascii_password_logs_in(real_server: RealServer, mode: Mode, ca_file: Path) -> None:
    """Smtplib cannot do that at all (measured)."""
    port = real_server.implicit_port if mode == "implicit" else real_server.starttls_port
    real_server.deliver(0)
    with SecureMailer(
        real_server.host, port, tls=mode, username=BOB.username, password=BOB.password, ca_file=ca_file
    ) as mailer:
        mailer.send_bytes(b"Subject: x\n\n", mail_from=BOB.username, recipients=["a@example.test"])
    assert real_server.deliver(1)[0].mail_from == BOB.username


def test_a_refused_recipient_stops_the_message_or_not(real_server: RealServer, mode: Mode, ca_file: Path) -> None:
    """Nobody gets it under "raise"; the rest gets it under "allow", over the same connection."""
    to = ["a@example.test", REFUSED, LATER]
    real_server.deliver(0)
    with _mailer(real_server, mode, ca_file) as mailer:
        with pytest.raises(RecipientsRefusedError) as caught:
            mailer.send_bytes(b"Subject: x\n\n", mail_from=ALICE.username, recipients=to)
        receipt = mailer.send_bytes(b"Subject: y\n\n", mail_from=ALICE.username, recipients=to, partial="allow")
    assert caught.value.outcome is Outcome.REFUSED
    assert [r.reply.code // 100 for r in caught.value.recipients] == [2, 5, 4]
    assert receipt.refused == (REFUSED, LATER)
    (delivered,) = real_server.deliver(1)
    assert delivered.recipients == ("a@example.test",)


def test_cpythons_messages_arrive_or_are_refused(real_server: RealServer, mode: Mode, ca_file: Path) -> None:
    """Each of CPython's test messages arrives with the same header values and parts, or names why it cannot be sent."""
    arrived = 0
    real_server.deliver(0)
    with _mailer(real_server, mode, ca_file) as mailer:
        for path in DATA:
            mail = message_from_bytes(path.read_bytes(), policy=policy.default)
            try:
                mailer.send(mail, mail_from=ALICE.username, recipients=["a@example.test"])
            except MessageError as error:
                assert error.outcome is Outcome.NOT_SENT  # noqa: PT017 -- one of many, each may do either
                continue
            (delivered,) = real_server.deliver(1)
            got = message_from_bytes(delivered.content, policy=policy.default)
            wanted = [p.get_payload(decode=True) for p in mail.walk() if not p.is_multipart()]
            have = [p.get_payload(decode=True) for p in got.walk() if not p.is_multipart()]
            assert [_lines(p) for p in have] == [_lines(p) for p in wanted], path.name
            arrived += 1
    assert arrived > len(DATA) * 3 // 4


def _lines(payload: object) -> list[bytes]:
    assert isinstance(payload, bytes)
    return payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip(b"\n").split(b"\n")
