"""Delivery status notifications, asked for over each way to send a message (RFC 3461)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import anyio
import pytest

from conftest import Mailer, Serve
from faces import InLoop
from memory_ledger import MemoryLedger
from scripted import Mode, Peer, ScriptedServer, honest
from securesmtp import (
    DSN,
    AsyncFailover,
    ConfigurationError,
    Envelope,
    Failover,
    MessageError,
    Outcome,
    QueuedMessage,
    Receipt,
    SecureMailer,
)
from securesmtp._values import Stage
from securesmtp.testing import AsyncRecordingMailer, MailServer, RecordingMailer

pytestmark = pytest.mark.faces("DSN", sample=(3, 2))

Send = Callable[[SecureMailer, EmailMessage, DSN], Receipt]

OFFERED = ("PIPELINING", "8BITMIME", "DSN")
ALL = DSN(notify={"failure", "success"}, ret="headers", envid="order 7+1=8", orcpt=True)
NOT_NEEDED = DSN(notify={"failure", "success"}, ret="headers", envid="order 7+1=8", orcpt=True, required=False)
TO = ["you@example.org", "blind@example.org"]
ASKED = [
    b"MAIL FROM:<me@example.org> BODY=8BITMIME RET=HDRS ENVID=order+207+2B1+3D8",
    b"RCPT TO:<you@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;you@example.org",
    b"RCPT TO:<blind@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;blind@example.org",
]
PLAIN = [
    b"MAIL FROM:<me@example.org> BODY=8BITMIME",
    b"RCPT TO:<you@example.org>",
    b"RCPT TO:<blind@example.org>",
]


@pytest.fixture
def message() -> EmailMessage:
    """Return a message that may be sent as bytes too, and is 8-bit."""
    made = EmailMessage()
    made["From"], made["To"] = "me@example.org", ", ".join(TO)
    made.set_content("8-bit ü", cte="8bit")
    return made


def _send(mailer: SecureMailer, message: EmailMessage, dsn: DSN) -> Receipt:
    return mailer.send(message, dsn=dsn)


def _send_bytes(mailer: SecureMailer, message: EmailMessage, dsn: DSN) -> Receipt:
    return mailer.send_bytes(io.BytesIO(bytes(message)), mail_from="me@example.org", recipients=TO, dsn=dsn)


def _one(mailer: SecureMailer, content: EmailMessage | bytes, dsn: DSN, **options: Any) -> Receipt:
    (result,) = mailer.send_many([Envelope("me@example.org", TO, content, dsn=dsn)], **options)
    if result.receipt is None:
        assert result.error is not None
        raise result.error
    return result.receipt


def _send_many(mailer: SecureMailer, message: EmailMessage, dsn: DSN) -> Receipt:
    return _one(mailer, message, dsn)


def _send_many_bytes(mailer: SecureMailer, message: EmailMessage, dsn: DSN) -> Receipt:
    return _one(mailer, bytes(message), dsn)


WAYS = [_send, _send_bytes, _send_many, _send_many_bytes]


def _envelope(server: ScriptedServer) -> list[bytes]:
    return [line for line in server.secret.split(b"\r\n") if line.startswith((b"MAIL ", b"RCPT "))]


@pytest.mark.parametrize("extensions", [OFFERED, OFFERED[1:]], ids=["pipelining", "lockstep"])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_written_in_mail_and_rcpt(
    serve: Serve, mailer: Mailer, message: EmailMessage, way: Send, extensions: tuple[str, ...]
) -> None:
    """Exactly these bytes, over each way to send."""
    server = serve(honest(extensions=extensions))
    receipt = way(mailer(server), message, ALL)
    assert _envelope(server) == ASKED
    assert not receipt.dsn_left_out


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_does_not_offer_it_gets_nothing(
    serve: Serve, mailer: Mailer, message: EmailMessage, way: Send, mode: Mode
) -> None:
    """The message is refused before MAIL, and the hint says what to do."""
    server = serve(honest(mode))
    with pytest.raises(MessageError, match="the server does not offer DSN") as caught:
        way(mailer(server, tls=mode), message, ALL)
    assert (caught.value.outcome, caught.value.stage) == (Outcome.NOT_SENT, Stage.MAIL)
    assert "required=False" in str(caught.value.hint)
    assert _envelope(server) == []


@pytest.mark.parametrize("way", WAYS)
def test_it_is_left_out_if_it_is_not_required(serve: Serve, mailer: Mailer, message: EmailMessage, way: Send) -> None:
    """The receipt says so, also as text and as JSON."""
    server = serve(honest())
    receipt = way(mailer(server), message, NOT_NEEDED)
    assert _envelope(server) == PLAIN
    assert receipt.dsn_left_out
    assert str(receipt).endswith("; without DSN, which the server does not offer")
    assert Receipt.from_dict(json.loads(json.dumps(receipt.as_dict()))) == receipt


def test_it_is_written_where_it_is_offered_although_it_is_not_required(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """The receipt says nothing of it."""
    server = serve(honest(extensions=OFFERED))
    receipt = mailer(server).send(message, dsn=NOT_NEEDED)
    assert _envelope(server) == ASKED
    assert not receipt.dsn_left_out
    assert "DSN" not in str(receipt)


@pytest.mark.parametrize("extensions", [OFFERED, OFFERED[:2]], ids=["offered", "not offered"])
def test_a_message_without_it_is_sent_as_before(
    serve: Serve, mailer: Mailer, message: EmailMessage, extensions: tuple[str, ...]
) -> None:
    """To a server that offers it, and to one that does not."""
    server = serve(honest(extensions=extensions))
    receipt = mailer(server).send(message)
    assert b"NOTIFY" not in server.secret
    assert not receipt.dsn_left_out


def test_an_offer_before_tls_does_not_count(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """An attacker can write it there (RFC 3207 §4.2)."""

    def offers(peer: Peer, _: bytes) -> bytes:
        return b"250 mx.test\r\n" if peer.log.encrypted else b"250-mx.test\r\n250-DSN\r\n250 STARTTLS\r\n"

    server = serve(honest("starttls", replies={"EHLO": offers}))
    with pytest.raises(MessageError, match="does not offer DSN"):
        mailer(server, tls="starttls").send(message, dsn=ALL)
    assert _envelope(server) == []


def test_what_overlaps_has_each_its_own(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Each message of a run over one connection, with and without it."""
    server = serve(honest(extensions=OFFERED), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1)
    each = [DSN(envid="0"), None, DSN(envid="2", notify="never")]
    results = list(mine.send_many(Envelope("me@example.org", TO[:1], message, dsn=dsn) for dsn in each))
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 3
    lines = [line.partition(b"> ")[2].replace(b"BODY=8BITMIME", b"").strip() for line in _envelope(server)]
    assert lines == [b"ENVID=0", b"", b"", b"", b"ENVID=2", b"NOTIFY=NEVER"]


def test_several_transactions_have_the_same(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """If the server takes one recipient at a time, each gets what the mapping has for it."""
    server = serve(honest(extensions=(*OFFERED, "LIMITS RCPTMAX=1")))
    dsn = DSN(notify={"blind@example.org": "never"}, envid="7")
    assert len(mailer(server).send(message, dsn=dsn, partial="allow").replies) == 2
    mail, you, again, blind = _envelope(server)
    assert (you, blind) == (b"RCPT TO:<you@example.org>", b"RCPT TO:<blind@example.org> NOTIFY=NEVER")
    assert mail == again
    assert mail.endswith(b" ENVID=7")


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_one_is_refused_before_the_network(
    serve: Serve, mailer: Mailer, message: EmailMessage, way: Send
) -> None:
    """No connection is opened for it."""
    server = serve(honest(extensions=OFFERED))
    mine = mailer(server)
    with pytest.raises(ConfigurationError, match="dsn is a dict, not a DSN"):
        way(mine, message, {"notify": "never"})  # type: ignore[arg-type]
    with pytest.raises(MessageError, match=r"notify has 'other@example\.org', which is no recipient"):
        way(mine, message, DSN(notify={"other@example.org": "never"}))
    assert server.connections == []


@pytest.mark.parametrize("is_offered", [True, False], ids=["offered", "not offered"])
def test_failover_passes_it_on(serve: Serve, mailer: Mailer, message: EmailMessage, *, is_offered: bool) -> None:
    """To the server that takes the message; a server without DSN is no failed server."""
    down = serve(honest(replies={"GREETING": b"421 busy\r\n"}))
    up = serve(honest(extensions=OFFERED if is_offered else OFFERED[:2]))
    over = _failover(mailer(down), mailer(up))
    for way in (_send, _send_bytes, _send_many):
        receipt = way(over, message, NOT_NEEDED)
        assert receipt.dsn_left_out is not is_offered
    assert up.secret.count(b"ENVID=order+207+2B1+3D8") == (3 if is_offered else 0)


def _failover(*mailers: Any) -> Any:
    if isinstance(mailers[0], SecureMailer):
        return Failover(mailers)
    return InLoop.around(mailers[0]._portal, AsyncFailover([each.mailer for each in mailers]))


def test_a_queued_message_keeps_it(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Through JSON, to the server; its repr does not show it."""
    ledger, server = MemoryLedger(), serve(honest(extensions=OFFERED))
    envelope = Envelope("me@example.org", TO, message, key="1", dsn=ALL)
    queued = QueuedMessage.from_dict(json.loads(json.dumps(QueuedMessage.prepare(envelope, ledger).as_dict())))
    assert queued.dsn == ALL
    assert repr(queued) == "QueuedMessage(key='1')"
    assert queued.send(mailer(server), ledger, deadline=20).outcome is Outcome.ACCEPTED
    # A queued message is 7-bit, because it may be signed later.
    assert _envelope(server) == [line.replace(b" BODY=8BITMIME", b"") for line in ASKED]


def test_its_entry_in_a_ledger_does_not_depend_on_it(message: EmailMessage) -> None:
    """A program that makes a new ENVID for each run still sends the message once."""
    ledger = MemoryLedger()
    first, second = (
        QueuedMessage.prepare(Envelope("me@example.org", TO, message, key="1", dsn=dsn), ledger)
        for dsn in (ALL, DSN(envid="2"))
    )
    assert first.digest == second.digest


def test_the_test_servers_take_it(message: EmailMessage) -> None:
    """So a program that asks for notifications can be tested: in memory, in an event loop, and over the network."""
    with RecordingMailer() as mailer:
        assert not mailer.send(message, dsn=ALL).dsn_left_out
        assert not _send_many(mailer, message, DSN(envid="a>b")).dsn_left_out
        assert [each.mail_from for each in mailer.messages] == ["me@example.org"] * 2

    async def send() -> int:
        async with AsyncRecordingMailer() as mailer:
            await mailer.send(message, dsn=ALL)
            await mailer.send_bytes(bytes(message), mail_from="", recipients=TO, dsn=ALL)
            return len(mailer.messages)

    assert anyio.run(send) == 2
    with MailServer() as server, server.mailer() as over_network:
        assert not over_network.send(message, dsn=ALL).dsn_left_out
        (received,) = server.messages
    assert received.recipients == tuple(TO)
