"""Messages through real servers of several kinds, in both TLS modes."""

from __future__ import annotations

import io
import re
from email import message_from_bytes, policy
from email.message import Message
from pathlib import Path

import pytest

from conftest import Mailer
from scripted import Mode
from securesmtp import Envelope, MessageError, Outcome, RecipientsRefusedError, SecureMailer
from servers.messages import MAILS, UNSENDABLE, raw_messages
from servers.real import ALICE, BOB, LATER, REFUSED, RealServer
from servers.received import RECEIVED

# Whether the next message may come before the reply to the last, as found out: not with Haraka and chasquid 1.11, but
# with chasquid 1.15; aiosmtpd has no PIPELINING.
OVERLAPS: dict[str, set[bool | None]] = {
    "courier": {False},
    "haraka": {False},
    "chasquid": {False, True},
    "aiosmtpd": {None},
}

pytestmark = pytest.mark.faces("real servers", sample=(11, 3))


@pytest.fixture
def connect(real_server: RealServer, make_mailer: Mailer, mode: Mode, ca_file: Path) -> Mailer:
    """Make mailers for the real server, with the login of a user who has one."""

    def make(**options: object) -> SecureMailer:
        port = real_server.implicit_port if mode == "implicit" else real_server.starttls_port
        login = {"username": ALICE.username, "password": ALICE.password}
        return make_mailer(
            real_server.host, port, **{"tls": mode, "ca_file": ca_file, "timeout": 20, **login, **options}
        )

    return make


@pytest.mark.parametrize("name", MAILS)
def test_a_message_arrives_as_it_was(real_server: RealServer, connect: Mailer, name: str) -> None:
    """Header values and decoded parts are unchanged."""
    mail = MAILS[name]()
    real_server.deliver(0)
    with connect() as mailer:
        receipt = mailer.send(mail)
    (delivered,) = real_server.deliver(1)
    arrived = message_from_bytes(delivered.content, policy=policy.default)
    assert arrived["Message-ID"] == receipt.message_id
    assert set(delivered.recipients) == set(receipt.accepted)
    _assert_equal(mail, arrived)


def test_bcc_is_delivered_and_not_shown(real_server: RealServer, connect: Mailer) -> None:
    """Its domain is internationalised, and is sent as its A-label."""
    mail = MAILS["names"]()
    mail["Bcc"] = "bcc@bücher.example.test"
    real_server.deliver(0)
    with connect() as mailer:
        receipt = mailer.send(mail)
    arrived: list[str] = []
    # Courier delivers once for each domain.
    while len(arrived) < len(receipt.accepted):
        for delivered in real_server.deliver(1):
            arrived += delivered.recipients
            assert message_from_bytes(delivered.content, policy=policy.default)["Bcc"] is None
    assert "bcc@xn--bcher-kva.example.test" in arrived


def test_bytes_arrive_unchanged(real_server: RealServer, connect: Mailer) -> None:
    """Apart from LF, which becomes CRLF, and from what the server changes; from bytes and from a file."""
    real_server.deliver(0)
    unsendable = (
        r"line \d+ " if "SMTPUTF8" in real_server.extensions("implicit") else r"line \d+ |the message has a non-ASCII"
    )
    with connect() as mailer:
        for raw in [*raw_messages(), *RECEIVED.values()]:
            for data in (raw, io.BytesIO(raw)):
                try:
                    mailer.send_bytes(data, mail_from=ALICE.username, recipients=["a@example.test"])
                except MessageError as error:
                    assert re.match(unsendable, error.args[0])  # noqa: PT017 -- each of these messages may be sent or refused
                    continue
                (delivered,) = real_server.deliver(1)
                wanted = real_server.expected(raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
                assert delivered.content.removesuffix(b"\r\n") == wanted.removesuffix(b"\r\n")


def test_what_overlaps_arrives_once(real_server: RealServer, connect: Mailer) -> None:
    """Many in flight, with refused recipients: each message arrives once, at its accepted recipients (BDAT-01)."""
    real_server.deliver(0)
    later = LATER if real_server.can("later") else REFUSED
    to = ["a@example.test", REFUSED, "b@example.test", later, "c@example.test"]
    mails = [
        Envelope(ALICE.username, to[number % 4 : number % 4 + 2], b"Subject: %d\r\n\r\n.\r\n" % number)
        for number in range(60)
    ]
    with connect(pipelining="session", max_connections=2) as mailer:
        results = list(mailer.send_many(mails, partial="allow"))
    # Each has one good and one bad recipient.
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}
    assert mailer._pool.overlap_support.supported in OVERLAPS.get(real_server.name, {True})
    arrived = {
        (delivered.content.split(b"\r\n")[0], tuple(delivered.recipients)) for delivered in real_server.deliver(60)
    }
    assert arrived == {(b"Subject: %d" % result.index, result.receipt.accepted) for result in results if result.receipt}


@pytest.mark.parametrize(("raw", "line"), UNSENDABLE.items(), ids=["long line", "bare CR", "NUL"])
def test_what_cannot_be_sent_is_refused_with_its_line(
    real_server: RealServer, connect: Mailer, raw: bytes, line: int
) -> None:
    """The next message is sent."""
    real_server.deliver(0)
    with connect() as mailer:
        with pytest.raises(MessageError, match=f"line {line} "):
            mailer.send_bytes(raw, mail_from=ALICE.username, recipients=["a@example.test"])
        mailer.send_bytes(b"Subject: x\n\n", mail_from=ALICE.username, recipients=["a@example.test"])
    assert len(real_server.deliver(1)) == 1


def test_a_non_ascii_password_logs_in(real_server: RealServer, connect: Mailer) -> None:
    """The library smtplib alone cannot do this (measured)."""
    real_server.deliver(0)
    with connect(username=BOB.username, password=BOB.password) as mailer:
        mailer.send_bytes(b"Subject: x\n\n", mail_from=BOB.username, recipients=["a@example.test"])
    assert real_server.deliver(1)[0].mail_from == BOB.username


def test_the_policy_decides_what_a_refused_recipient_means(real_server: RealServer, connect: Mailer) -> None:
    """With "raise" nobody gets the message, with "allow" the other recipients do."""
    bad = [REFUSED, LATER] if real_server.can("later") else [REFUSED]
    to = ["a@example.test", *bad]
    real_server.deliver(0)
    with connect() as mailer:
        with pytest.raises(RecipientsRefusedError) as caught:
            mailer.send_bytes(b"Subject: x\n\n", mail_from=ALICE.username, recipients=to)
        receipt = mailer.send_bytes(b"Subject: y\n\n", mail_from=ALICE.username, recipients=to, partial="allow")
    assert caught.value.outcome is Outcome.REFUSED
    assert [r.reply.code // 100 for r in caught.value.recipients] == [2, 5, 4][: len(to)]
    assert list(receipt.refused) == bad
    (delivered,) = real_server.deliver(1)
    assert delivered.recipients == ("a@example.test",)


def test_received_messages_arrive_or_are_refused(real_server: RealServer, connect: Mailer) -> None:
    """Messages of other programs arrive with the same header values and parts, or are refused as not sent."""
    arrived = 0
    real_server.deliver(0)
    with connect() as mailer:
        for name, raw in RECEIVED.items():
            mail = message_from_bytes(raw, policy=policy.default)
            try:
                mailer.send(mail, mail_from=ALICE.username, recipients=["a@example.test"])
            except MessageError as error:
                assert error.outcome is Outcome.NOT_SENT  # noqa: PT017 -- each of these messages may be sent or refused
                continue
            (delivered,) = real_server.deliver(1)
            got = message_from_bytes(delivered.content, policy=policy.default)
            _assert_equal(message_from_bytes(real_server.expected(raw), policy=policy.default), got, name)
            arrived += 1
    assert arrived > len(RECEIVED) * 3 // 4


def _assert_equal(sent: Message, got: Message, name: str = "") -> None:
    # Date and Message-ID are added if missing; Bcc is only in the envelope.
    added = {"date", "message-id"} - {field.lower() for field in sent.keys()}  # noqa: SIM118 -- not a mapping
    assert _fields(got, added) == _fields(sent, {"bcc"}), name
    wanted = [part for part in sent.walk() if not part.is_multipart()]
    have = [part for part in got.walk() if not part.is_multipart()]
    for ours, theirs in zip(wanted, have, strict=True):
        assert theirs.get_content_type() == ours.get_content_type(), name
        assert theirs.get_filename() == ours.get_filename(), name
        assert _lines(theirs.get_payload(decode=True)) == _lines(ours.get_payload(decode=True)), name


def _fields(message: Message, without: set[str]) -> list[tuple[str, str]]:
    # The encoder decides how fields are folded and parts are encoded.
    without = without | {"content-type", "content-transfer-encoding", "mime-version"}
    fields = ((name, " ".join(str(value).split())) for name, value in message.items())
    return sorted(field for field in fields if field[0].lower() not in without)


def _lines(payload: object) -> list[bytes]:
    assert isinstance(payload, bytes)
    return payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip(b"\n").split(b"\n")
