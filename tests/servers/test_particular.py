"""What chasquid, Haraka and aiosmtpd do that the others do not."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from conftest import Mailer
from scripted import Mode
from securesmtp import MessageError, Outcome, SecureMailer
from securesmtp.events import Event, LongLines
from servers.real import ALICE, REFUSED, RealServer

pytestmark = pytest.mark.faces("real servers", sample=(3, 1))


def _connect(make_mailer: Mailer, server: RealServer, ca_file: Path, mode: Mode, **options: object) -> SecureMailer:
    login = {"username": ALICE.username, "password": ALICE.password}
    return make_mailer(server.host, server.port(mode), tls=mode, ca_file=ca_file, timeout=20, **login, **options)


def test_chasquid_ends_a_connection_at_its_third_refusal_and_no_message_is_lost(
    chasquid: RealServer, make_mailer: Mailer, ca_file: Path, mode: Mode
) -> None:
    """The third message goes over a new connection, where no recipient was refused yet."""
    chasquid.deliver(0)
    before = chasquid.log().count("too many errors, breaking connection")
    with _connect(make_mailer, chasquid, ca_file, mode, max_connections=1) as mailer:
        for number in range(4):
            receipt = mailer.send_bytes(
                b"Subject: %d\r\n\r\n" % number,
                mail_from=ALICE.username,
                recipients=["a@example.test", REFUSED],
                partial="allow",
            )
            assert (receipt.accepted, receipt.refused) == (("a@example.test",), (REFUSED,))
    arrived = sorted(delivered.content for delivered in chasquid.deliver(4))
    assert arrived == [b"Subject: %d\r\n\r\n" % number for number in range(4)]
    assert chasquid.log().count("too many errors, breaking connection") == before + 1


def test_haraka_breaks_long_lines_but_none_that_we_write(
    haraka: RealServer, make_mailer: Mailer, ca_file: Path, mode: Mode
) -> None:
    """An `EmailMessage` is encoded in shorter lines; bytes go as they are, and an event says what may happen."""
    text = "x" * 995 + "\n"
    message, events = EmailMessage(), list[Event]()
    message["From"], message["To"] = ALICE.username, "a@example.test"
    message.set_content(text)
    raw = b"Subject: x\r\n\r\n" + text.encode().replace(b"\n", b"\r\n")
    haraka.deliver(0)
    with _connect(make_mailer, haraka, ca_file, mode, on_event=events.append) as mailer:
        mailer.send(message)
        assert not any(isinstance(event, LongLines) for event in events)
        mailer.send_bytes(raw, mail_from=ALICE.username, recipients=["a@example.test"])
    encoded, broken = (delivered.content for delivered in haraka.deliver(2))
    assert message_from_bytes(encoded, policy=policy.default).get_content().splitlines() == text.splitlines()
    assert broken != raw
    assert broken == haraka.expected(raw)
    assert [event.longest for event in events if isinstance(event, LongLines)] == [995]


def test_aiosmtpd_has_no_requiretls(aiosmtpd: RealServer, make_mailer: Mailer, ca_file: Path, mode: Mode) -> None:
    """Nothing is sent."""
    aiosmtpd.deliver(0)
    with _connect(make_mailer, aiosmtpd, ca_file, mode) as mailer, pytest.raises(MessageError) as caught:
        mailer.send_bytes(
            b"Subject: x\r\n\r\n", mail_from=ALICE.username, recipients=["a@example.test"], require_tls=True
        )
    assert caught.value.outcome is Outcome.NOT_SENT
    assert aiosmtpd.delivered_now() == []
