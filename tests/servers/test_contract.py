"""Each kind of real server does what the tests expect of all: login, mail read back, refusals, restart, patience."""

from __future__ import annotations

import smtplib
import ssl
from email import message_from_bytes, policy
from pathlib import Path

import pytest
import trustme

from scripted import Mode
from securesmtp import SecureMailer
from servers.kinds import KINDS, running
from servers.real import ALICE, LATER, REFUSALS, REFUSED, Ability, Account, RealServer

RAW = (
    "From: alice@example.test\r\nTo: to@example.test\r\nDate: Fri, 27 Nov 2026 09:00:00 +0000\r\n"
    "Message-ID: <1@example.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\nX-Kept:   as  it\r\n\tis \r\n\r\n.\r\n..\r\n.x\r\nQUIT\r\nGrüße\r\n"
).encode()
GOOD = ("a@example.test", "b@example.test")
NEEDED: dict[str, Ability] = {REFUSED: "refuse", LATER: "later"}


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> RealServer:
    """Return each of the real servers in turn."""
    started: RealServer = request.getfixturevalue(request.param)
    return started


def _connect(server: RealServer, mode: Mode, ca_file: Path, account: Account = ALICE) -> SecureMailer:
    return SecureMailer(
        server.host, server.port(mode), tls=mode, ca_file=ca_file, timeout=20, username=account[0], password=account[1]
    )


def _collect(server: RealServer) -> tuple[set[str], list[bytes]]:
    """Return to whom the server delivered the message, and its copies."""
    delivered = server.deliver(1 if server.can("envelope") else len(GOOD))
    assert {each.mail_from for each in delivered} == {ALICE.username}
    assert [bool(each.trace) for each in delivered] == [server.can("trace")] * len(delivered)
    recipients = [recipient for each in delivered for recipient in each.recipients]
    assert len(recipients) == len(GOOD)
    return set(recipients), [each.content for each in delivered]


def test_mail_comes_back_with_its_envelope(server: RealServer, mode: Mode, ca_file: Path) -> None:
    """What the server has to refuse is refused at RCPT, and the others get the message as it was."""
    if mode not in server.modes:
        pytest.skip(server.cannot[mode])
    server.deliver(0)
    refusals = {address: reply for address, reply in REFUSALS.items() if server.can(NEEDED[address])}
    to = [GOOD[0], *refusals, GOOD[1]]
    with _connect(server, mode, ca_file) as mailer:
        receipt = mailer.send_bytes(RAW, mail_from=ALICE.username, recipients=to, partial="allow")
    replies = {each.address: each.reply.code for each in receipt.recipients if not each.accepted}
    assert replies == {address: int(reply[:3]) for address, reply in refusals.items()}
    recipients, copies = _collect(server)
    assert recipients == set(GOOD)
    for content in copies:
        if server.can("octets"):
            assert content == server.expected(RAW)
        else:
            _assert_same_parts(content)


def _assert_same_parts(content: bytes) -> None:
    sent, got = (message_from_bytes(raw, policy=policy.default) for raw in (RAW, content))
    assert [(name, got[name]) for name in sent.keys() if name.startswith("X-")] == [("X-Kept", sent["X-Kept"])]  # noqa: SIM118 -- not a mapping
    assert got.get_content() == sent.get_content()


def test_each_account_logs_in(server: RealServer, ca_file: Path) -> None:
    """With no other password, and the server says before what it offers."""
    mode = server.modes[0]
    assert "AUTH" in server.extensions(mode)
    assert server.version[0].isdigit()
    for account in server.accounts:
        with _connect(server, mode, ca_file, account) as mailer:
            assert mailer.check().login is True, account
        with _connect(server, mode, ca_file, account._replace(password="not this")) as mailer:
            assert mailer.check().login is False, account


def test_nothing_goes_without_tls_and_login(server: RealServer, ca_file: Path) -> None:
    """No MAIL without TLS, and none without a login."""
    context = ssl.create_default_context(cafile=ca_file)
    for mode in server.modes:
        with server._connect(mode, context) as client:
            client.ehlo()
            refused = [client.mail(ALICE.username)[0], client.rcpt(GOOD[0])[0]]
            assert refused[-1] >= 400, refused
    with smtplib.SMTP(server.host, server.port("starttls"), "localhost", timeout=20) as client:
        client.ehlo()
        refused = [client.mail(ALICE.username)[0], client.rcpt(GOOD[0])[0]]
        assert refused[-1] >= 400, refused


def test_it_comes_back_on_the_ports_that_it_had(server: RealServer, ca_file: Path) -> None:
    """Restarted, it takes mail as before."""
    if not server.can("restart"):
        pytest.skip(server.cannot["restart"])
    ports, mode = [server.port(mode) for mode in server.modes], server.modes[-1]
    server.restart(same_ports=True)
    assert [server.port(mode) for mode in server.modes] == ports
    server.deliver(0)
    with _connect(server, mode, ca_file) as mailer:
        receipt = mailer.send_bytes(RAW, mail_from=ALICE.username, recipients=GOOD)
    assert not receipt.refused
    assert _collect(server)[0] == set(GOOD)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.can("patience")])
def test_it_waits_for_a_command_as_long_as_it_is_told(ca: trustme.CA, ca_file: Path, name: str) -> None:
    """It closes an idle connection, whether it says so or not, long before its default."""
    context = ssl.create_default_context(cafile=ca_file)
    for server in running(KINDS[name], ca, patience=1):
        with server._connect(server.modes[0], context) as client:
            assert client.sock is not None
            client.sock.settimeout(30)
            try:
                while client.sock.recv(1000):
                    pass
            except ssl.SSLError as error:
                # Exim writes its last reply without TLS.
                assert error.reason == "WRONG_VERSION_NUMBER"  # noqa: PT017 -- or the connection ends
