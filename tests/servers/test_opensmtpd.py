"""OpenSMTPD, which allows 100 messages over a connection and no pipelining: each message arrives once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from conftest import Mailer
from scripted import Mode
from securesmtp import Envelope, Outcome, SecureMailer
from servers.real import ALICE, BOB, Account, RealServer

pytestmark = pytest.mark.faces("real servers", sample=(5, 1))

LIMIT, COUNT = 100, 130
RAW = (
    "From: alice@example.test\r\nTo: to@example.test\r\nDate: Fri, 27 Nov 2026 09:00:00 +0000\r\n"
    "Message-ID: <1@example.test>\r\nX-Kept:   as  it\r\n\tis \r\n\r\n.\r\n..\r\n.x\r\nQUIT\r\nGrüße\r\n"
).encode()


@pytest.fixture
def connect(opensmtpd: RealServer, make_mailer: Mailer, ca_file: Path) -> Mailer:
    """Make mailers for OpenSMTPD."""

    def make(mode: Mode, account: Account, **options: object) -> SecureMailer:
        port = opensmtpd.implicit_port if mode == "implicit" else opensmtpd.starttls_port
        login = {"username": account.username, "password": account.password}
        return make_mailer(opensmtpd.host, port, **{"tls": mode, "ca_file": ca_file, "timeout": 20, **login, **options})

    return make


def send_many(mailer: SecureMailer, contents: Iterable[bytes]) -> None:
    """Send by `send_many`."""
    results = mailer.send_many(Envelope(ALICE.username, ["a@example.test"], content) for content in contents)
    assert {(result.outcome, result.error) for result in results} == {(Outcome.ACCEPTED, None)}


def send_each(mailer: SecureMailer, contents: Iterable[bytes]) -> None:
    """Send by `send_bytes`, which raises if a message is not accepted."""
    for content in contents:
        mailer.send_bytes(content, mail_from=ALICE.username, recipients=["a@example.test"])


# "session": without PIPELINING among the server's extensions, no command may come before the last reply.
@pytest.mark.parametrize(
    ("send", "pipelining"), [(send_many, "session"), (send_many, "message"), (send_each, "message")]
)
def test_what_a_connection_does_not_take_goes_over_a_new_one(
    opensmtpd: RealServer, connect: Mailer, send: Callable[..., None], pipelining: str
) -> None:
    """Message 101 is refused with 452, and accepted over the second connection; each message arrives once."""
    subjects = [b"Subject: %d" % number for number in range(COUNT)]
    opensmtpd.deliver(0)
    before = len(opensmtpd.log())
    with connect("implicit", ALICE, max_connections=1, pipelining=pipelining) as mailer:
        send(mailer, [subject + b"\r\n\r\n.\r\n" for subject in subjects])
    arrived = Counter(delivered.content.split(b"\r\n")[0] for delivered in opensmtpd.deliver(COUNT))
    assert arrived == dict.fromkeys(subjects, 1)
    log = opensmtpd.log()[before:]
    failed = re.findall(r'smtp failed-command command="(\w+) .*" result="(\d+) ', log)
    assert failed == [("MAIL", "452")]
    # A line begins with the number of the connection.
    accepted = Counter(re.findall(r"^(\w+) smtp message ", log, re.MULTILINE))
    assert list(accepted.values()) == [LIMIT, COUNT - LIMIT]


def test_a_message_arrives_as_it_was(opensmtpd: RealServer, connect: Mailer, mode: Mode) -> None:
    """In both TLS modes, from each user: one has an ASCII password, one has not."""
    opensmtpd.deliver(0)
    for user in (ALICE, BOB):
        with connect(mode, user) as mailer:
            mailer.send_bytes(RAW, mail_from=user.username, recipients=["a@example.test"])
    arrived = {delivered.mail_from: delivered for delivered in opensmtpd.deliver(2)}
    assert arrived.keys() == {ALICE.username, BOB.username}
    for delivered in arrived.values():
        assert (delivered.recipients, delivered.content) == (("a@example.test",), RAW)
        assert "with ESMTPSA" in delivered.trace
