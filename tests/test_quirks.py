"""Quirks of real servers (`docs/reference/servers.md`), played by scripted ones: no message is lost or changed."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.mime.text import MIMEText
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from conftest import Mailer, Serve
from scripted import Accepted, Mode, Peer, Script, honest, up_to_content
from securesmtp import (
    ConnectError,
    Envelope,
    Event,
    MessageError,
    Outcome,
    OutcomeUnknownError,
    SecureMailer,
    SecureSMTPError,
    events,
)

pytestmark = pytest.mark.faces("quirks", sample=(5, 1))

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "servers.md"
ALICE, BOB = "alice@a.example", "bob@b.example"
OPENSMTPD_LIMIT = 100
# Haraka's default for data_line_length, with CRLF.
HARAKA_LINE = 992


def raw(number: int = 0) -> bytes:
    """Return a message as bytes."""
    return b"Subject: %d\r\nMessage-ID: <%d@a.example>\r\n\r\nx\r\n" % (number, number)


def send(mailer: SecureMailer, data: bytes = raw(), recipient: str = BOB) -> None:
    """Send *data* as bytes."""
    mailer.send_bytes(data, mail_from=ALICE, recipients=[recipient])


# Lines that are too long.


def haraka(peer: Peer) -> None:
    """Break long lines as Haraka does: CRLF and a space after 990 octets (connection.js), and accept the message."""

    def breaks(_: Peer, content: bytes) -> bytes:
        lines = [re.sub(rb"(.{%d})(?=.{3,})" % (HARAKA_LINE - 2), rb"\1\r\n ", line) for line in content.split(b"\r\n")]
        stored.append(b"\r\n".join(lines))
        return b"250 Message Queued\r\n"

    stored: list[bytes] = []
    honest(replies={"CONTENT": breaks})(peer)
    peer.log.accepted[:] = [
        Accepted(each.mail_from, each.recipients, content, each.wire)
        for each, content in zip(peer.log.accepted, stored, strict=True)
    ]


@pytest.mark.parametrize("length", [900, 901, 991, 998, 5000])
@pytest.mark.parametrize("how", ["send", "send_many"])
def test_a_server_that_breaks_long_lines_gets_none(serve: Serve, mailer: Mailer, how: str, length: int) -> None:
    """What `send` and `send_many` make of an `EmailMessage` arrives as it was, whatever its lines."""
    text = "word " * (length // 5) + "x" * (length % 5)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = ALICE, BOB, "x"
    message.make_mixed()
    message.attach(cast("EmailMessage", MIMEText(text, "html", "us-ascii")))
    seen: list[Event] = []
    server = serve(haraka)
    with mailer(server, on_event=seen.append) as mine:
        if how == "send":
            mine.send(message)
        else:
            assert [result.outcome for result in mine.send_many([message])] == [Outcome.ACCEPTED]
    server.joined()
    (accepted,) = server.accepted
    (part,) = message_from_bytes(accepted.content, policy=policy.default).iter_parts()
    assert part.get_content().rstrip("\n") == text
    assert not [event for event in seen if isinstance(event, events.LongLines)]


@pytest.mark.parametrize(("length", "longest"), [(900, []), (901, [901]), (998, [998])])
@pytest.mark.parametrize("how", ["send_bytes", "message", "session"])
def test_bytes_with_long_lines_have_an_event(
    serve: Serve, mailer: Mailer, how: str, length: int, longest: list[int]
) -> None:
    """They are sent as they are; the event comes with the receipt, and once for each such message."""
    data = raw() + b"y" * length + b"\r\n"
    seen: list[Event] = []
    server = serve(overlaps=how == "session")
    with mailer(server, on_event=seen.append, pipelining="session" if how == "session" else "message") as mine:
        if how == "send_bytes":
            send(mine, data)
        else:
            results = mine.send_many(Envelope(ALICE, [BOB], each) for each in (data, raw(1)))
            assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 2
    assert data in [each.content for each in server.accepted]
    found = [event for event in seen if isinstance(event, events.LongLines)]
    assert [(event.message_id, event.longest) for event in found] == [("<0@a.example>", each) for each in longest]


def test_a_refused_message_with_long_lines_has_no_such_event(serve: Serve, mailer: Mailer) -> None:
    """Its refusal says more."""
    seen: list[Event] = []
    mine = mailer(serve(honest(replies={"MAIL": b"550 no\r\n"})), on_event=seen.append)
    with pytest.raises(SecureSMTPError, match="550 no"):
        send(mine, raw() + b"y" * 950)
    assert not [event for event in seen if isinstance(event, events.LongLines)]


# A farewell in the clear, in the middle of TLS.


def farewell(peer: Peer, text: bytes) -> None:
    """Write *text* without TLS, as Exim and qpsmtpd do when a client is silent for too long, and close."""
    peer.sock.sendall(text)
    peer.cut()


ENDS: dict[str, Callable[[Peer], object]] = {
    "Exim": lambda peer: farewell(peer, b"421 mx.test: SMTP command timeout - closing connection\r\n"),
    "qpsmtpd": lambda peer: farewell(peer, b"451 Connection timed out - closing.\r\n"),
    "421": lambda peer: peer.send(b"421 4.4.2 mx.test Error: timeout exceeded\r\n"),
    "421 and close": lambda peer: [each() for each in (partial(peer.send, b"421 timeout\r\n"), peer.close)],
    "close_notify": Peer.close,
    "FIN": Peer.cut,
    "RST": Peer.reset,
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_ends_an_idle_connection_is_no_failure(serve: Serve, mailer: Mailer, end: str) -> None:
    """It is a dead connection: the next message goes over a new one, and no event says that anything has failed."""
    gone = threading.Event()

    def leaves(peer: Peer) -> None:
        up_to_content(peer)
        peer.log.accepted.append(Accepted(b"", (), peer.read_data(), b""))
        peer.send(b"250 ok\r\n")
        ENDS[end](peer)
        gone.set()

    seen: list[Event] = []
    server = serve(leaves, honest())
    with mailer(server, on_event=seen.append) as mine:
        send(mine)
        assert gone.wait(10)
        send(mine)
    assert [len(log.accepted) for log in server.connections] == [1, 1]
    kinds = [type(event) for event in seen]
    begin = [events.Connecting, events.Connected, events.Sent]
    assert kinds == [*begin, events.Closed, *begin, events.Closed]
    assert str(seen[3]).endswith("closed: not usable")


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "CONTENT"])
def test_plaintext_in_a_dialogue_is_no_reply(serve: Serve, mailer: Mailer, step: str) -> None:
    """Whoever wrote it: the message fails, and is not sent again behind the caller's back."""

    def breaks_in(peer: Peer, _: bytes) -> bytes:
        farewell(peer, b"250 2.0.0 Ok: queued\r\n")
        return b""

    server = serve(honest(extensions=(), replies={step: breaks_in}))
    mine = mailer(server)
    error = OutcomeUnknownError if step == "CONTENT" else ConnectError
    with pytest.raises(error, match=r"(?i)wrong.version.number") as caught:
        send(mine)
    assert caught.value.outcome is (Outcome.UNKNOWN if step == "CONTENT" else Outcome.NOT_SENT)
    assert len(server.connections) == 1


# EHLO after the login.


def dovecot(after: bytes) -> Script:
    """Reply *after* to the EHLO after AUTH, as Dovecot 2.4 (250), OpenSMTPD and qpsmtpd (503) do."""

    def script(peer: Peer) -> None:
        def offers(peer: Peer, line: bytes) -> bytes:
            count.append(line)
            return b"250-mx.test\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n" if len(count) == 1 else after

        count: list[bytes] = []
        honest(auth=("me", "secret"), extensions=("PIPELINING",), replies={"EHLO": offers})(peer)

    return script


MORE = b"250-mx.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
LOGIN = {"username": "me", "password": "secret", "max_connections": 1}


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
def test_what_is_offered_after_the_login_only_is_found(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """EHLO is asked again once over a connection, and only for a message that needs more than was offered."""
    server = serve(dovecot(MORE), overlaps=pipelining == "session")
    mine = mailer(server, pipelining=pipelining, **LOGIN)
    to = [BOB, BOB, "jörg@b.example", "jürgen@b.example", BOB]
    results = mine.send_many(Envelope(ALICE, [each], raw(number)) for number, each in enumerate(to))
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 5
    first, *others = server.secret.split(b"EHLO ")[1:]
    assert (first.count(b"MAIL FROM"), [each.count(b"MAIL FROM") for each in others]) == (2, [3])
    assert server.secret.count(b" SMTPUTF8\r\n") == 2
    (log,) = server.connections
    assert [each.content for each in log.accepted] == [raw(number) for number in range(5)]


@pytest.mark.parametrize("code", [b"503 5.5.1 Invalid command: Already said EHLO\r\n", b"450 4.0.0 later\r\n"])
@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_server_that_refuses_ehlo_after_the_login_is_asked_once(
    serve: Serve, mailer: Mailer, pipelining: str, code: bytes
) -> None:
    """The message has no form that it accepts; the next one is sent."""
    server = serve(dovecot(code), overlaps=pipelining == "session")
    mine = mailer(server, pipelining=pipelining, **LOGIN)
    to = [BOB, "jörg@b.example", "jürgen@b.example", BOB]
    results = list(mine.send_many(Envelope(ALICE, [each], raw(number)) for number, each in enumerate(to)))
    assert [result.outcome for result in results] == [
        Outcome.ACCEPTED, Outcome.NOT_SENT, Outcome.NOT_SENT, Outcome.ACCEPTED
    ]  # fmt: skip
    assert {type(result.error) for result in results[1:3]} == {MessageError}
    assert all("SMTPUTF8" in str(result.error) for result in results[1:3])
    assert all(log.secret.count(b"EHLO") <= 2 for log in server.connections)


def test_what_is_not_offered_after_the_login_either_is_not_asked_for_again(serve: Serve, mailer: Mailer) -> None:
    """The second message needs something else."""
    server = serve(dovecot(MORE.replace(b"8BITMIME", b"SIZE 100")))
    mine = mailer(server, **LOGIN)
    send(mine, recipient="jörg@b.example")
    with pytest.raises(MessageError, match="at most 100"):
        send(mine, raw() + b"x\r\n" * 50)
    assert [log.secret.count(b"EHLO") for log in server.connections] == [2]


def test_without_a_login_ehlo_is_not_asked_again(serve: Serve, mailer: Mailer) -> None:
    """Nothing has changed since the first one."""
    server = serve(honest(extensions=()))
    with pytest.raises(MessageError, match="SMTPUTF8"):
        send(mailer(server), recipient="jörg@b.example")
    assert server.secret.count(b"EHLO") == 1


ENDS_OF_EHLO: dict[str, Callable[[Peer], object]] = {
    "421": lambda peer: peer.send(b"421 4.3.2 bye\r\n"),
    "220": lambda peer: peer.send(b"220 what\r\n"),
    "no reply": lambda peer: peer.send(b"\xff\r\n"),
    "close": Peer.close,
    "reset": Peer.reset,
}


def ends_at_that_ehlo(end: str) -> Script:
    """Take messages, and end the session in this way at an EHLO after AUTH."""

    def script(peer: Peer) -> None:
        def offers(peer: Peer, line: bytes) -> bytes:
            count.append(line)
            if len(count) > 1:
                ENDS_OF_EHLO[end](peer)
                peer.cut()
            return b"250-mx.test\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n"

        count: list[bytes] = []
        honest(auth=("me", "secret"), extensions=("PIPELINING",), replies={"EHLO": offers})(peer)

    return script


@pytest.mark.parametrize("end", ENDS_OF_EHLO)
def test_a_server_that_ends_the_session_at_that_ehlo_refuses_only_the_message(
    serve: Serve, mailer: Mailer, end: str
) -> None:
    """A used connection may have ended for another reason, so a new one is tried; its end says it is the EHLO."""
    server = serve(ends_at_that_ehlo(end))
    mine = mailer(server, **LOGIN)
    send(mine)
    with pytest.raises(MessageError, match="SMTPUTF8") as caught:
        send(mine, recipient="jörg@b.example")
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.NOT_SENT, False)
    assert isinstance(caught.value.__cause__, SecureSMTPError)
    send(mine, raw(1))
    assert [log.secret.count(b"EHLO") for log in server.connections] == [2, 2, 1]
    assert [each.content for each in server.accepted] == [raw(), raw(1)]


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
@pytest.mark.parametrize("end", ENDS_OF_EHLO)
def test_such_a_message_is_sent_over_a_new_connection_if_that_takes_it(
    serve: Serve, mailer: Mailer, end: str, pipelining: str
) -> None:
    """A connection that dies while it is asked has nothing to do with the message."""
    server = serve(ends_at_that_ehlo(end), dovecot(MORE), overlaps=pipelining == "session")
    mine = mailer(server, pipelining=pipelining, **LOGIN)
    to = [BOB, "jörg@b.example", BOB]
    results = list(mine.send_many(Envelope(ALICE, [each], raw(number)) for number, each in enumerate(to)))
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 3
    assert sorted(each.content for each in server.accepted) == [raw(0), raw(1), raw(2)]


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
def test_messages_that_the_server_cannot_take_cost_no_login(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """Nothing of them was written, so the connection carries the next message."""
    server = serve(dovecot(b"503 5.5.1 no\r\n"), overlaps=pipelining == "session")
    mine = mailer(server, pipelining=pipelining, **LOGIN)
    to = [BOB, *["jörg@b.example"] * 5, BOB]
    results = list(mine.send_many(Envelope(ALICE, [each], raw(number)) for number, each in enumerate(to)))
    assert [result.outcome for result in results] == [Outcome.ACCEPTED, *[Outcome.NOT_SENT] * 5, Outcome.ACCEPTED]
    (log,) = server.connections
    assert (log.secret.count(b"EHLO"), log.secret.count(b"AUTH")) == (2, 1)


# OpenSMTPD.


def opensmtpd(peer: Peer) -> None:
    """Take 100 messages, then 452 to MAIL; reply 500 and close if anything follows a command in the same write."""

    def strict(default: bytes) -> object:
        def reply(peer: Peer, line: bytes) -> bytes:
            if peer._buffer:
                peer.send(b"500 5.5.1 Invalid command: Pipelining not supported\r\n")
                peer.cut()
            counts[line[:4]] = counts.get(line[:4], 0) + 1
            if line.startswith(b"MAIL") and counts[b"MAIL"] > OPENSMTPD_LIMIT:
                return b"452 4.5.3 Too many recipients: Too many messages sent\r\n"
            return default

        return reply

    counts: dict[bytes, int] = {}
    replies = {
        "MAIL": b"250 2.0.0 Ok\r\n",
        "RCPT": b"250 2.1.5 Ok\r\n",
        "DATA": b"354 go\r\n",
        "RSET": b"250 2.0.0 Ok\r\n",
    }
    honest(extensions=("8BITMIME",), replies={verb: strict(reply) for verb, reply in replies.items()})(peer)  # type: ignore[misc]


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
def test_a_server_of_100_messages_a_connection_without_pipelining(
    serve: Serve, mailer: Mailer, pipelining: str
) -> None:
    """Nothing is pipelined, because it offers no PIPELINING; message 101 goes over a new connection."""
    server = serve(opensmtpd)
    mine = mailer(server, pipelining=pipelining, max_connections=1)
    results = mine.send_many(Envelope(ALICE, [BOB], raw(number)) for number in range(OPENSMTPD_LIMIT + 5))
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * (OPENSMTPD_LIMIT + 5)
    assert [each.content for each in server.accepted] == [raw(number) for number in range(OPENSMTPD_LIMIT + 5)]
    assert [len(log.accepted) for log in server.connections] == [OPENSMTPD_LIMIT, 5]


# Early talkers.


def punctual(mode: Mode) -> Script:
    """Punish who talks before the greeting, or behind EHLO, STARTTLS or AUTH in the same write."""

    def waits(default: bytes) -> Callable[[Peer, bytes], bytes]:
        def reply(peer: Peer, _: bytes) -> bytes:
            # Until the client has shown that it waits, too.
            peer.expect_silence(0.05)
            return default

        return reply

    offer = b"250-mx.test\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"
    replies = {"GREETING": waits(b"220 mx.test\r\n"), "EHLO": waits(offer), "AUTH": waits(b"235 ok\r\n")}
    return honest(mode, auth=("me", "secret"), replies=replies)


def test_a_server_that_punishes_early_talkers_meets_none(serve: Serve, mailer: Mailer, mode: Mode) -> None:
    """Neither before a late greeting, nor behind a command whose reply changes the session."""
    server = serve(punctual(mode))
    send(mailer(server, tls=mode, **LOGIN))
    assert len(server.accepted) == 1


# The page.


def rows() -> list[dict[str, str]]:
    """Return the rows of the page, by the names of their columns."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    names, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in cells if row != names and set(row) != {"---"}]


def named(cell: str) -> list[str]:
    """Return what *cell* has in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{n}") for n, row in enumerate(rows(), 1)])
def test_each_quirk_on_the_page_has_its_test_and_its_code(row: dict[str, str]) -> None:
    """The names on the page are those of tests and files that exist."""
    tests = named(row["Test"])
    assert tests
    for name in tests:
        path, _, function = name.partition("::")
        assert f"\ndef {function}(" in (ROOT / path).read_text("utf-8"), name
    assert all((ROOT / "src" / "securesmtp" / path).is_file() for path in named(row["Code"]))


def test_each_test_of_this_file_is_on_the_page() -> None:
    """All but those of the page itself."""
    found = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text("utf-8"), re.MULTILINE))
    on_page = {name.partition("::")[2] for row in rows() for name in named(row["Test"])}
    assert {name for name in found if not name.endswith("_page") and "_on_the_page_" not in name} <= on_page


SERVERS = (
    "aiosmtpd|chasquid|Courier|Dovecot|Exim|Gmail|Google|Haraka|Microsoft|OpenSMTPD|Postfix|qpsmtpd|Sendmail|"
    "slimta|smtp-server|Twisted|Amazon|Yahoo|Stalwart|Zimbra"
)
# Modules that name a server although nothing in the dialogue depends on it.
NO_QUIRK = {
    "_async_mailer.py": "which servers support an argument",
    "_mailer.py": "which servers support an argument",
    "_protocol/message_bounds.py": "a limit of ours",
    "_protocol/sasl/registry.py": "the order of mechanisms",
    "_transport/channel.py": "speed",
    "_transport/untrusted.py": "the setting that a hint names",
    "_protocol/exchange.py": "speed",
}
# What speaks to no server, or is not about servers of mail.
ELSEWHERE = ("_cli/", "integrations/", "ledger/", "testing/", "_sources/", "_compose/")


def test_code_that_names_a_server_has_a_row_on_the_page() -> None:
    """Nothing is done for one kind of server without a row and a test."""
    code = {path for row in rows() for path in named(row["Code"])} | NO_QUIRK.keys()
    source = ROOT / "src" / "securesmtp"
    found = {
        path.relative_to(source).as_posix(): sorted(set(re.findall(rf"\b(?:{SERVERS})\b", path.read_text("utf-8"))))
        for path in source.rglob("*.py")
        if not path.relative_to(source).as_posix().startswith(ELSEWHERE)
    }
    assert {path: names for path, names in found.items() if names and path not in code} == {}
    assert [path for path in NO_QUIRK if not found[path]] == []
