"""REQUIRETLS, BINARYMIME, DELIVERBY, MT-PRIORITY and FUTURERELEASE, asked for over each way to send a message."""

from __future__ import annotations

import io
import json
import re
import smtplib
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import anyio
import pytest

from conftest import Mailer, Positions, Serve
from dkim_verifiers import signer
from faces import InLoop
from memory_ledger import MemoryLedger
from scripted import Mode, Peer, ScriptedServer, honest
from securesmtp import (
    DSN,
    AsyncFailover,
    ConfigurationError,
    DataRefusedError,
    DeliverBy,
    Envelope,
    Failover,
    MessageError,
    Outcome,
    QueuedMessage,
    Receipt,
    SecureMailer,
    SecureSMTPError,
    Stage,
)
from securesmtp.testing import AsyncRecordingMailer, MailServer, RecordingMailer

pytestmark = pytest.mark.faces("extensions", sample=(3, 2))

Send = Callable[..., Receipt]

ME, TO = "me@example.org", ["you@example.org"]
CHUNK = ("PIPELINING", "8BITMIME", "CHUNKING")
OFFERED = (*CHUNK, "REQUIRETLS", "BINARYMIME", "DELIVERBY", "MT-PRIORITY", "FUTURERELEASE 86400 2099-01-01T00:00:00Z")
LOCKSTEP = tuple(each for each in OFFERED if each != "PIPELINING")
# NUL, bare CR, bare LF, a lone dot, a line of more than 998 bytes, all other bytes, and no line end at the last one.
BINARY = b"Subject: x\r\n\r\n\0\r\n.\r\n\r.\n.\n\r\r" + b"x" * 2000 + bytes(range(256))
ASKED: dict[str, Any] = {
    "deliver_by": DeliverBy(timedelta(hours=2), if_late="return"),
    "priority": -3,
    "hold": timedelta(minutes=1),
}
PARAMETERS = b"BY=7200;R MT-PRIORITY=-3 HOLDFOR=60"


@pytest.fixture
def message() -> EmailMessage:
    """Return a message in ASCII."""
    made = EmailMessage()
    made["From"], made["To"] = ME, TO[0]
    made.set_content("text")
    return made


def _send(mailer: SecureMailer, message: EmailMessage, **asked: Any) -> Receipt:
    return mailer.send(message, **asked)


def _send_bytes(mailer: SecureMailer, message: EmailMessage, **asked: Any) -> Receipt:
    return mailer.send_bytes(io.BytesIO(bytes(message)), mail_from=ME, recipients=TO, **asked)


def _one(mailer: SecureMailer, content: EmailMessage | bytes | io.BytesIO, **asked: Any) -> Receipt:
    (result,) = mailer.send_many([Envelope(ME, TO, content, **asked)])
    if result.receipt is None:
        assert result.error is not None
        raise result.error
    return result.receipt


def _send_many(mailer: SecureMailer, message: EmailMessage, **asked: Any) -> Receipt:
    return _one(mailer, message, **asked)


def _send_many_bytes(mailer: SecureMailer, message: EmailMessage, **asked: Any) -> Receipt:
    return _one(mailer, bytes(message), **asked)


WAYS = [_send, _send_bytes, _send_many, _send_many_bytes]


def _binary(mailer: SecureMailer, content: bytes = BINARY) -> Receipt:
    return mailer.send_bytes(content, mail_from=ME, recipients=TO, binary=True)


def _binary_file(mailer: SecureMailer, content: bytes = BINARY) -> Receipt:
    return mailer.send_bytes(io.BytesIO(content), mail_from=ME, recipients=TO, binary=True)


def _binary_many(mailer: SecureMailer, content: bytes = BINARY) -> Receipt:
    return _one(mailer, content, binary=True)


BINARY_WAYS = [_binary, _binary_file, _binary_many]


def _mail(server: ScriptedServer) -> list[bytes]:
    # A binary content may end without a line end.
    return re.findall(rb"MAIL FROM:<me@example\.org>[^\r\n]*", server.secret)


@pytest.mark.parametrize("extensions", [OFFERED, LOCKSTEP], ids=["pipelining", "lockstep"])
@pytest.mark.parametrize("way", WAYS)
def test_tls_is_required_all_the_way(
    serve: Serve, mailer: Mailer, message: EmailMessage, way: Send, extensions: tuple[str, ...]
) -> None:
    """EXT-05: one parameter of MAIL; the header field that asks for less TLS is never written."""
    server = serve(honest(extensions=extensions))
    way(mailer(server), message, require_tls=True)
    assert _mail(server) == [b"MAIL FROM:<me@example.org> REQUIRETLS"]
    assert b"tls-required" not in server.accepted[0].content.lower()


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_does_not_offer_it_gets_nothing(
    serve: Serve, mailer: Mailer, message: EmailMessage, way: Send, mode: Mode
) -> None:
    """EXT-05: refused before MAIL, in both modes; without it, the same message is sent."""
    server = serve(honest(mode))
    mine = mailer(server, tls=mode)
    with pytest.raises(MessageError, match=r"requires TLS all the way, .* does not offer REQUIRETLS") as caught:
        way(mine, message, require_tls=True)
    assert (caught.value.outcome, caught.value.stage) == (Outcome.NOT_SENT, Stage.MAIL)
    assert caught.value.hint == "use a server with REQUIRETLS, or leave out require_tls"
    assert _mail(server) == []
    way(mine, message)
    assert _mail(server) == [b"MAIL FROM:<me@example.org>"]
    assert b"tls-required" not in server.accepted[0].content.lower()


@pytest.mark.parametrize("keyword", ["REQUIRETLS", "BINARYMIME", "CHUNKING"])
def test_an_offer_before_tls_does_not_count(serve: Serve, mailer: Mailer, keyword: str) -> None:
    """RFC 8689 §2 says so of REQUIRETLS; an attacker can write anything there (RFC 3207 §4.2)."""
    inside = "".join(f"250-{each}\r\n" for each in OFFERED if each != keyword)

    def offers(peer: Peer, _: bytes) -> bytes:
        extensions = inside if peer.log.encrypted else f"250-{keyword}\r\n250-STARTTLS\r\n"
        return f"250-mx.test\r\n{extensions}250 HELP\r\n".encode()

    server = serve(honest("starttls", extensions=OFFERED, replies={"EHLO": offers}))
    mine = mailer(server, tls="starttls")
    with pytest.raises(MessageError, match=f"does not offer {keyword}"):
        mine.send_bytes(BINARY, mail_from=ME, recipients=TO, binary=True, require_tls=True)
    assert _mail(server) == []


@pytest.mark.parametrize("content", [b"Subject: x\r\n\r\nx", "message"], ids=["bytes", "message"])
def test_an_envelope_asks_for_the_others(serve: Serve, mailer: Mailer, message: EmailMessage, content: Any) -> None:
    """In MAIL; a server that offers none of them gets nothing."""
    server, other = serve(honest(extensions=OFFERED)), serve(honest())
    content = message if content == "message" else content
    _one(mailer(server), content, require_tls=True, **ASKED)
    assert _mail(server) == [b"MAIL FROM:<me@example.org> REQUIRETLS " + PARAMETERS]
    for name, value in ASKED.items():
        with pytest.raises(MessageError, match="and the server does not offer"):
            _one(mailer(other), content, **{name: value})
    assert _mail(other) == []


def test_a_date_is_written_as_the_server_reads_it(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """In UTC; one that has passed is left out, also if the server could not hold a message back."""
    server, other = serve(honest(extensions=OFFERED)), serve(honest())
    _one(mailer(server), message, hold=datetime(2098, 1, 1, tzinfo=UTC))
    assert _mail(server) == [b"MAIL FROM:<me@example.org> HOLDUNTIL=2098-01-01T00:00:00Z"]
    _one(mailer(other), message, hold=datetime(2001, 1, 1, tzinfo=UTC))
    assert _mail(other) == [b"MAIL FROM:<me@example.org>"]


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_value_is_refused_before_the_network(
    serve: Serve, mailer: Mailer, message: EmailMessage, way: Send
) -> None:
    """No connection is opened for it."""
    server = serve(honest(extensions=OFFERED))
    mine = mailer(server)
    with pytest.raises(ConfigurationError, match="require_tls is a str, not a bool"):
        way(mine, message, require_tls="yes")
    for wrong in ({"priority": 10}, {"hold": 60}, {"deliver_by": timedelta(hours=1)}, {"binary": 1}):
        with pytest.raises(ConfigurationError):
            _one(mine, message, **wrong)
    with pytest.raises(ConfigurationError, match="is for a message that is bytes, and this one is an object"):
        _one(mine, message, binary=True)
    (result,) = mine.send_many([Envelope("", TO, message, hold=timedelta(seconds=9))])
    assert "cannot be held back" in str(result.error)
    assert server.connections == []


# Binary content


@pytest.mark.parametrize("extensions", [OFFERED, LOCKSTEP], ids=["pipelining", "lockstep"])
@pytest.mark.parametrize("way", BINARY_WAYS)
def test_a_binary_body_arrives_as_it_is(
    serve: Serve, mailer: Mailer, way: Send, mode: Mode, extensions: tuple[str, ...]
) -> None:
    """BDAT-02: each octet, in one chunk, announced by BODY=BINARYMIME; also if the server does not pipeline."""
    server = serve(honest(mode, extensions=extensions))
    mine = mailer(server, tls=mode)
    large = BINARY + b"\r\n.\r\n\0" * 20_000
    for content in (BINARY, large):
        assert way(mine, content).size == len(content)
    assert [each.content for each in server.accepted] == [BINARY, large]
    assert _mail(server)[:1] == [b"MAIL FROM:<me@example.org> BODY=BINARYMIME"]
    assert b"\r\nDATA\r\n" not in server.secret


@pytest.mark.parametrize("way", BINARY_WAYS)
@pytest.mark.parametrize("missing", ["BINARYMIME", "CHUNKING"])
def test_a_server_without_it_gets_no_binary_body(serve: Serve, mailer: Mailer, way: Send, missing: str) -> None:
    """BDAT-02: it is refused before MAIL, and nothing is encoded."""
    server = serve(honest(extensions=[each for each in OFFERED if each != missing]))
    with pytest.raises(MessageError, match=f"the message is binary, and the server does not offer {missing}") as caught:
        way(mailer(server))
    assert (caught.value.outcome, caught.value.stage) == (Outcome.NOT_SENT, Stage.MAIL)
    assert "base64" in str(caught.value.hint)
    assert _mail(server) == []


@pytest.mark.parametrize("way", BINARY_WAYS)
def test_a_binary_message_is_not_signed(serve: Serve, mailer: Mailer, way: Send) -> None:
    """PITFALLS-2, X4: the next server may have to encode it, and with that void the signature."""
    server = serve(honest(extensions=OFFERED))
    with pytest.raises(MessageError, match="a binary message cannot be signed"):
        way(mailer(server, sign=signer()), b"From: me@example.org\r\n\r\n\0")
    assert _mail(server) == []


def test_bytes_are_not_binary_unless_they_are_said_to_be(serve: Serve, mailer: Mailer) -> None:
    """MSG-01: a server that offers BINARYMIME changes nothing."""
    server = serve(honest(extensions=OFFERED))
    with pytest.raises(MessageError, match="has a NUL"):
        mailer(server).send_bytes(BINARY, mail_from=ME, recipients=TO)
    mailer(server).send_bytes(b"Subject: x\n\nx\xff\n", mail_from=ME, recipients=TO)
    assert _mail(server) == [b"MAIL FROM:<me@example.org> BODY=8BITMIME"]
    assert server.accepted[0].content == b"Subject: x\r\n\r\nx\xff\r\n"


@pytest.mark.parametrize("extensions", [OFFERED, LOCKSTEP], ids=["pipelining", "lockstep"])
def test_a_refused_chunk_is_followed_by_a_reset(serve: Serve, mailer: Mailer, extensions: tuple[str, ...]) -> None:
    """RFC 3030 §2: the transaction is still open; the connection goes on."""
    refusals = [b"554 5.6.0 no\r\n"]
    replies: dict[str, Any] = {"CONTENT": lambda *_: refusals.pop() if refusals else b"250 2.0.0 queued\r\n"}
    server = serve(honest(extensions=extensions, replies=replies))
    mine = mailer(server, max_connections=1)
    with pytest.raises(DataRefusedError, match="no") as caught:
        _binary(mine)
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.REFUSED, False)
    _binary(mine)
    assert [each.content for each in server.accepted] == [BINARY]
    assert len(server.connections) == 1
    assert server.secret.count(b"RSET\r\n") == 1


@pytest.mark.parametrize(
    "reset", [b"421 4.3.2 bye\r\n", b"500 5.5.1 no\r\n", b"oops\r\n"], ids=["421", "500", "malformed"]
)
def test_a_reset_that_fails_ends_the_connection(serve: Serve, mailer: Mailer, reset: bytes) -> None:
    """RPL-05: the message was refused all the same, and the next one goes over a new connection."""
    refusals = [b"554 5.6.0 no\r\n"]
    replies: dict[str, Any] = {
        "CONTENT": lambda *_: refusals.pop() if refusals else b"250 2.0.0 queued\r\n",
        "RSET": reset,
    }
    server = serve(honest(extensions=LOCKSTEP, replies=replies))
    mine = mailer(server, max_connections=1)
    with pytest.raises(DataRefusedError, match="no") as caught:
        _binary(mine)
    assert caught.value.outcome is Outcome.REFUSED
    _binary(mine)
    assert [len(each.accepted) for each in server.connections] == [0, 1]


@pytest.mark.parametrize("extensions", [OFFERED, LOCKSTEP], ids=["pipelining", "lockstep"])
def test_after_421_to_a_chunk_nothing_is_written(serve: Serve, mailer: Mailer, extensions: tuple[str, ...]) -> None:
    """RPL-09."""
    server = serve(honest(extensions=extensions, replies={"CONTENT": b"421 4.3.2 bye\r\n"}))
    with pytest.raises(SecureSMTPError, match="bye"):
        _binary(mailer(server))
    assert server.accepted == []
    assert server.secret.endswith(BINARY)


@pytest.mark.parametrize("extensions", [OFFERED, LOCKSTEP], ids=["pipelining", "lockstep"])
def test_a_server_that_does_not_know_bdat_gets_no_other_binary_body(
    serve: Serve, mailer: Mailer, extensions: tuple[str, ...]
) -> None:
    """It is not sent by DATA instead, and no hint says that it would be; other messages are."""
    server = serve(honest(extensions=extensions, replies={"CONTENT": b"502 5.5.1 unknown command\r\n"}))
    mine = mailer(server, max_connections=1)
    with pytest.raises(DataRefusedError) as caught:
        _binary(mine)
    assert not caught.value.retryable
    assert "DATA" not in str(caught.value.hint)
    for way in BINARY_WAYS:
        with pytest.raises(MessageError, match="the server has refused BDAT although it offers CHUNKING") as refused:
            way(mine)
        assert refused.value.outcome is Outcome.NOT_SENT
    assert len(_mail(server)) == 1
    with pytest.raises(DataRefusedError):
        mine.send_bytes(b"Subject: x\r\n\r\n", mail_from=ME, recipients=TO)
    assert b"\r\nDATA\r\n" in server.secret


def test_what_overlaps_has_each_its_own(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Binary or not, in one run over one connection."""
    server = serve(honest(extensions=OFFERED), overlaps=True)
    mine = mailer(server, pipelining="session", max_connections=1)
    made: list[EmailMessage | Envelope] = [
        Envelope(ME, TO, BINARY, binary=True),
        message,
        Envelope(ME, TO, message, require_tls=True),
        Envelope(ME, TO, BINARY * 2, binary=True, priority=4),
        Envelope(ME, TO, BINARY, binary=True),
    ]
    assert [result.outcome for result in mine.send_many(made)] == [Outcome.ACCEPTED] * 5
    asked = [line.removeprefix(b"MAIL FROM:<me@example.org>").strip() for line in _mail(server)]
    assert asked == [b"BODY=BINARYMIME", b"", b"REQUIRETLS", b"BODY=BINARYMIME MT-PRIORITY=4", b"BODY=BINARYMIME"]
    assert [each.content for each in server.accepted][::3] == [BINARY, BINARY * 2]


@pytest.mark.parametrize("cut", ["read", "written"])
@pytest.mark.parametrize("extensions", [OFFERED, LOCKSTEP], ids=["pipelining", "lockstep"])
def test_a_cut_at_any_octet_tells_no_lie(
    serve: Serve, mailer: Mailer, positions: Positions, extensions: tuple[str, ...], cut: str
) -> None:
    """Of a binary message: what is not sent was not accepted, and what was accepted is unknown at worst."""
    content = b"Subject: x\r\n\r\n\0\n\r"
    whole = serve(honest(extensions=extensions))
    with mailer(whole) as mine:
        _binary(mine, content)
    whole.joined()
    (log,) = whole.connections
    for octet in positions(getattr(log, cut)):
        server = serve(honest(extensions=extensions), **{f"cut_after_{cut}": octet})
        with mailer(server) as mine:
            try:
                _binary(mine, content)
                outcome = Outcome.ACCEPTED
            except SecureSMTPError as error:
                outcome = error.outcome
        server.joined()
        allowed = {Outcome.ACCEPTED, Outcome.UNKNOWN} if server.accepted else {Outcome.NOT_SENT, Outcome.UNKNOWN}
        assert outcome in allowed, octet


# Failover, queues, test servers


def _failover(*mailers: Any) -> Any:
    if isinstance(mailers[0], SecureMailer):
        return Failover(mailers)
    return InLoop.around(mailers[0]._portal, AsyncFailover([each.mailer for each in mailers]))


def test_failover_passes_them_on(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """To the server that takes the message."""
    down, up = serve(honest(replies={"GREETING": b"421 busy\r\n"})), serve(honest(extensions=OFFERED))
    over = _failover(mailer(down), mailer(up))
    for way in WAYS:
        way(over, message, require_tls=True)
    for binary in BINARY_WAYS:
        binary(over)
    _one(over, message, **ASKED)
    assert _mail(up) == [
        *[b"MAIL FROM:<me@example.org> REQUIRETLS"] * 4,
        *[b"MAIL FROM:<me@example.org> BODY=BINARYMIME"] * 3,
        b"MAIL FROM:<me@example.org> " + PARAMETERS,
    ]
    assert [each.content for each in up.accepted[4:7]] == [BINARY] * 3


def test_failover_sends_nothing_with_less_than_was_asked_for(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """To no server at all."""
    down, up = serve(honest(replies={"GREETING": b"421 busy\r\n"})), serve(honest())
    over = _failover(mailer(down), mailer(up))
    with pytest.raises(MessageError, match="does not offer REQUIRETLS"):
        over.send(message, require_tls=True)
    assert _mail(up) == []


@pytest.mark.parametrize(
    ("content", "asked", "mail"),
    [
        ("message", {"require_tls": True, **ASKED}, b"REQUIRETLS " + PARAMETERS),
        (BINARY, {"binary": True}, b"BODY=BINARYMIME"),
        ("message", {"hold": datetime(2098, 1, 1, tzinfo=UTC)}, b"HOLDUNTIL=2098-01-01T00:00:00Z"),
    ],
    ids=["all", "binary", "date"],
)
def test_a_queued_message_keeps_them(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve, mailer: Mailer, message: EmailMessage, content: Any, asked: dict[str, Any], mail: bytes
) -> None:
    """Through JSON, to the server, byte by byte; its repr does not show them."""
    ledger, server = MemoryLedger(), serve(honest(extensions=OFFERED))
    envelope = Envelope(ME, TO, message if content == "message" else content, key="1", **asked)
    queued = QueuedMessage.from_dict(json.loads(json.dumps(QueuedMessage.prepare(envelope, ledger).as_dict())))
    assert repr(queued) == "QueuedMessage(key='1')"
    assert queued.send(mailer(server), ledger, deadline=20).outcome is Outcome.ACCEPTED
    assert _mail(server) == [b"MAIL FROM:<me@example.org> " + mail]
    assert server.accepted[0].content == queued.content
    assert content in {"message", queued.content}


def test_a_test_server_keeps_what_was_asked_for(message: EmailMessage) -> None:
    """In memory, in an event loop, and over the network: each parameter as it was sent."""
    blind: dict[str, dict[str, str]] = {"you@example.org": {}}
    mail = {"REQUIRETLS": "", "BY": "7200;R", "MT-PRIORITY": "-3", "HOLDFOR": "60"}
    with RecordingMailer() as mailer:
        _one(mailer, message, require_tls=True, **ASKED)
        _binary(mailer)
        first, second = mailer.messages
    assert {name: value for name, value in first.mail_parameters.items() if name != "SIZE"} == mail
    assert second.mail_parameters == {"SIZE": str(len(BINARY)), "BODY": "BINARYMIME"}
    assert first.recipient_parameters == second.recipient_parameters == blind
    assert second.content == BINARY

    async def send() -> tuple[Any, ...]:
        async with AsyncRecordingMailer() as mailer:
            await mailer.send(message, require_tls=True)
            await mailer.send_bytes(BINARY, mail_from="", recipients=TO, binary=True)
            return tuple(mailer.messages)

    first, second = anyio.run(send)
    assert first.mail_parameters["REQUIRETLS"] == ""
    assert second.content == BINARY
    assert hash(first)


def test_a_test_server_with_tls_keeps_what_was_asked_for(message: EmailMessage, mode: Mode) -> None:
    """Also an ENVID in upper and lower case; without TLS it offers none of it."""
    dsn = DSN(notify={"you@example.org": "never"}, ret="headers", envid="Order+7")
    with MailServer(mode) as server, server.mailer() as mailer:
        mailer.send(message, recipients=[*TO, "them@example.org"], dsn=dsn, require_tls=True)
        _binary(mailer)
        _one(mailer, message, **ASKED)
        report = mailer.check()
        first, second, third = server.messages
    assert first.mail_parameters.items() >= {"RET": "HDRS", "ENVID": "Order+2B7", "REQUIRETLS": ""}.items()
    assert first.recipient_parameters == {"you@example.org": {"NOTIFY": "NEVER"}, "them@example.org": {}}
    assert (second.mail_parameters["BODY"], second.content) == ("BINARYMIME", BINARY)
    assert third.mail_parameters.items() >= {"BY": "7200;R", "MT-PRIORITY": "-3", "HOLDFOR": "60"}.items()
    assert {"REQUIRETLS", "BINARYMIME", "DELIVERBY", "MT-PRIORITY", "FUTURERELEASE"} <= report.after_tls.keys()
    assert "REQUIRETLS" not in (report.before_tls or {})
    assert "REQUIRETLS" in str(report)


def test_a_test_server_takes_a_binary_body_by_bdat_only() -> None:
    """As RFC 3030 §3 has it: 503 to DATA."""
    with MailServer(login=None) as server, ExitStack() as stack:
        context = ssl.create_default_context(cadata=server.ca_pem)
        client = stack.enter_context(smtplib.SMTP_SSL(server.host, server.port, context=context))
        client.ehlo()
        assert client.mail(ME, ["body=binarymime"])[0] == client.rcpt(TO[0])[0] == 250
        assert client.docmd("DATA")[0] == 503
        assert client.docmd("BDAT 0 LAST")[0] == 250
        assert client.mail(ME)[0] == client.rcpt(TO[0])[0] == 250
        assert client.data(b"Subject: x\r\n\r\n")[0] == 250


def test_the_page_shows_what_is_written(mailer: Mailer, serve: Serve, message: EmailMessage) -> None:
    """The command of its example."""
    page = (Path(__file__).parents[1] / "docs/how-to/smtp-extensions.md").read_text("utf-8")
    server = serve(honest(extensions=(*OFFERED, "SIZE")))
    made = {"deliver_by": DeliverBy(timedelta(hours=2), if_late="return"), "priority": 5}
    _one(mailer(server), message, **made)
    (mail,) = _mail(server)
    assert b" BY=7200;R MT-PRIORITY=5" in mail
    assert "BY=7200;R MT-PRIORITY=5" in page
