"""The test server as a server: what it offers, its logins, its clocks, and what is left when it stops."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from freezegun import freeze_time
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples, unmeasured
from scripted import Mode
from securesmtp import AuthenticationError, Envelope, OAuth2, Password, SecureMailer, TLSPolicy, errors
from securesmtp.testing import MailServer, Received, _engine
from securesmtp.testing._certificates import Certificates

ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"


class Client:
    """A client that writes what it is told, over verified TLS."""

    def __init__(self, server: MailServer) -> None:
        context = ssl.create_default_context(cafile=str(server.ca_file))
        plain = socket.create_connection((server.host, server.port), timeout=10)
        self.socket = context.wrap_socket(plain, server_hostname=server.host)
        self.file = self.socket.makefile("rb")
        assert self.read().startswith(b"220 ")
        self.say(b"EHLO client\r\n")

    def read(self) -> bytes:
        """Return the next reply."""
        lines = [self.file.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(self.file.readline())
        return b"".join(lines)

    def say(self, data: bytes) -> bytes:
        """Write *data*, and return the next reply."""
        self.socket.sendall(data)
        return self.read()

    def close(self) -> None:
        """Close the connection."""
        self.file.close()
        self.socket.close()


@pytest.fixture(scope="module")
def server() -> Iterator[MailServer]:
    """Start one server for the tests that need nothing special of it."""
    with MailServer(login=None) as running:
        yield running


@pytest.fixture(scope="module")
def shared(server: MailServer) -> Iterator[Client]:
    """Connect one client, for all examples of a property."""
    connected = Client(server)
    yield connected
    connected.close()


@pytest.fixture
def client(server: MailServer) -> Iterator[Client]:
    """Connect a client."""
    connected = Client(server)
    yield connected
    connected.close()
    server.clear()


# What it offers


def test_it_offers_what_real_servers_do(mode: Mode) -> None:
    """So a program's tests take the paths that it takes outside; logins are offered inside TLS only."""
    with MailServer(mode) as server:
        report = server.mailer().check()
    assert {"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "SIZE"} <= set(report.after_tls)
    assert report.mechanisms == ("LOGIN", "OAUTHBEARER", "PLAIN", "XOAUTH2")
    assert report.login is True
    if report.before_tls is not None:
        assert "STARTTLS" in report.before_tls
        assert "AUTH" not in report.before_tls


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
def test_what_is_sent_arrives_unchanged(mode: Mode, pipelining: Any) -> None:
    """By DATA and by BDAT, one by one and many at a time: lines with dots, and a message of several blocks."""
    contents = [
        b"Subject: dots\r\n\r\n.\r\n..\r\n",
        b"Subject: long\r\n\r\n" + (b"y" * 76 + b"\r\n") * 2_000 + b".\r\n",
    ] * 5
    with MailServer(mode) as server:
        sent = [Envelope("a@example.org", ["b@example.org"], content) for content in contents]
        results = list(server.mailer(pipelining=pipelining, max_connections=1).send_many(sent))
    assert [result.error for result in results] == [None] * 10
    assert [received.content for received in server.messages] == contents
    assert {received.tls.split()[0] for received in server.messages} == {"TLSv1.3"}


@settings(max_examples=examples(90))
@given(st.data())
def test_any_division_into_chunks_is_one_message(server: MailServer, shared: Client, data: st.DataObject) -> None:
    """RFC 3030: whole, by line, by byte; empty chunks; one reply for each command, in order."""
    content = data.draw(st.binary(max_size=40))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    chunks = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    written = [*ENVELOPE.splitlines(keepends=True)]
    for number, chunk in enumerate(chunks, 1):
        written += [b"BDAT %d%s\r\n" % (len(chunk), b" LAST" * (number == len(chunks))), chunk]
    whole = b"".join(written)
    pieces = {"whole": [whole], "line": written, "byte": [bytes((octet,)) for octet in whole]}
    for piece in data.draw(st.sampled_from(list(pieces.values()))):
        shared.socket.sendall(piece)
    replies = [shared.read()[:3] for _ in range(2 + len(chunks))]
    assert replies == [b"250"] * len(replies)
    assert server.messages[-1].content == content


@pytest.mark.parametrize(
    ("written", "codes"),
    [
        (b"BDAT 2 LAST\r\nxx", [503]),
        (b"MAIL FROM:<a@example.org>\r\nBDAT 2 LAST\r\nxx", [250, 503]),
        (ENVELOPE + b"BDAT 2\r\nxxDATA\r\nRSET\r\n", [250, 250, 250, 503, 250]),
        (ENVELOPE + b"BDAT 2\r\nxxRSET\r\nBDAT 1 LAST\r\nx", [250, 250, 250, 250, 503]),
        (ENVELOPE + b"BDAT 2\r\nxxMAIL FROM:<c@example.org>\r\nRSET\r\n", [250, 250, 250, 503, 250]),
        (ENVELOPE + b"BDAT 0 LAST\r\n", [250, 250, 250]),
        (b"BDAT\r\n", [501]),
        (b"BDAT -1 LAST\r\n", [501]),
        (b"BDAT 1 FIRST\r\n", [501]),
        (b"BDAT \xb2 LAST\r\n", [501]),
        (b"NOSUCH\r\nNOOP\r\n", [500, 250]),
        (b"AUTH PLAIN AGEAYg==\r\n", [535]),
    ],
    ids=["no_mail", "no_rcpt", "data", "reset", "mail", "empty", "no_size", "size", "word", "digit", "verb", "login"],
)
def test_what_comes_at_a_wrong_moment_is_refused(client: Client, written: bytes, codes: list[int]) -> None:
    """A client that is wrong in tests learns it, and the replies stay in step."""
    client.socket.sendall(written)
    assert [int(client.read()[:3]) for _ in codes] == codes


@pytest.mark.parametrize("end", [b"BDAT 1 LAST\r\nx", b"DATA\r\nx\r\n.\r\n"], ids=["chunk", "data"])
def test_after_a_reset_a_message_begins_anew(server: MailServer, client: Client, end: bytes) -> None:
    """Chunks of a message that was given up are not in the next one."""
    client.socket.sendall(ENVELOPE + b"BDAT 2\r\nyyRSET\r\n" + ENVELOPE + end)
    expected = [250] * 7 if end.startswith(b"BDAT") else [250] * 6 + [354, 250]
    assert [int(client.read()[:3]) for _ in expected] == expected
    assert server.messages[-1].content.rstrip() == b"x"


def test_a_message_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, message: EmailMessage) -> None:
    """By SIZE before it is sent, by its length if the client has not looked; the session goes on."""
    monkeypatch.setattr(_engine, "_MAX_SIZE", 1000)
    with MailServer(login=None) as server:
        client = Client(server)
        client.socket.sendall(ENVELOPE + b"BDAT 900\r\n" + b"x" * 900 + b"BDAT 200 LAST\r\n" + b"x" * 200)
        assert [client.read()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"552"]
        assert client.say(ENVELOPE)[:3] == b"250"
        client.close()
        message.set_content("x" * 70 + "\n" * 1000)
        with pytest.raises(errors.MessageError, match="accepts at most 1000"):
            server.mailer().send(message)
        assert server.messages == []


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_long_token_is_accepted(mode: Mode, mechanism: str, message: EmailMessage) -> None:
    """Tokens of real providers have thousands of characters; a line of a message may have 998 (RFC 5321)."""
    token = "x" * 8000
    with MailServer(mode, login=("me", token)) as server:
        server.mailer(auth=OAuth2("me", token, [mechanism])).send(message)
    with MailServer(login=None) as server:
        client = Client(server)
        assert client.say(b"NOOP " + b"x" * 13_000 + b"\r\n")[:3] == b"500"
        client.socket.sendall(ENVELOPE + b"DATA\r\n")
        assert [client.read()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        assert client.say(b"x" * 1200 + b"\r\n.\r\n")[:3] == b"500"
        client.close()


def test_a_new_fault_closes_idle_connections_alone() -> None:
    """So it concerns the next send of a mailer that keeps its connection; a message that is being received goes on."""
    server = MailServer(login=None)
    server.fault = "full"
    server.fault = None
    with server:
        idle, busy = Client(server), Client(server)
        assert busy.say(b"MAIL FROM:<a@example.org>\r\n")[:3] == b"250"
        server.fault = "refuses_recipients"
        with suppress(OSError):
            assert idle.file.readline() == b""
        assert busy.say(b"RCPT TO:<b@example.org>\r\n")[:3] == b"550"
        idle.close()
        busy.close()


# Logins


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"])
def test_a_login_is_checked(mode: Mode, message: EmailMessage, mechanism: str) -> None:
    """The password is accepted, as a token too; a wrong user or a wrong password is not, and no login is not."""
    kind = OAuth2 if mechanism in {"XOAUTH2", "OAUTHBEARER"} else Password
    with MailServer(mode, login=("me", "right-password")) as server:
        server.mailer(auth=kind("me", "right-password", [mechanism])).send(message)
        for user, password in [("me", "wrong-password"), ("you", "right-password")]:
            with pytest.raises(AuthenticationError, match="535"):
                server.mailer(auth=kind(user, password, [mechanism])).send(message)
        with pytest.raises(AuthenticationError, match="530"):
            SecureMailer(server.host, server.port, tls=mode, ca_file=server.ca_file).send(message)
    assert [received.username for received in server.messages] == ["me"]


def test_each_server_has_a_password_of_its_own() -> None:
    """It is long and random, so that it is cut out of no reply by mistake."""
    passwords = {(server.login or ("", ""))[1] for server in (MailServer(), MailServer())}
    assert len(passwords) == 2
    assert min(map(len, passwords)) > 30


def test_a_server_for_any_login_requires_none(message: EmailMessage) -> None:
    """A development inbox takes what a program has; a server without logins offers none."""
    with MailServer(login="any") as server:
        assert server.login is None
        server.mailer().send(message)
        server.mailer(username="who", password="ever").send(message)
        assert [received.username for received in server.messages] == [None, "who"]
    with MailServer(login=None) as server, pytest.raises(errors.NoUsableMechanismError):
        server.mailer(username="who", password="ever").send(message)


@pytest.mark.parametrize("argument", ["not base64", "AA==", "=", "*"])
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER", "PLAIN"])
def test_a_broken_login_is_a_refusal(mechanism: str, argument: str) -> None:
    """The server does not fail, and the connection can be used."""
    with MailServer() as server:
        client = Client(server)
        reply = client.say(f"AUTH {mechanism} {argument}\r\n".encode())
        if reply.startswith(b"334 "):
            reply = client.say(b"*\r\n")
        assert reply[:3] in {b"501", b"535"}
        assert client.say(f"AUTH {mechanism}\r\n".encode())[:3] == b"334"
        assert client.say(f"{argument}\r\n".encode())[:3] in {b"501", b"334", b"535"}
        client.socket.sendall(b"*\r\nNOOP\r\n")
        assert client.read()[:3] in {b"500", b"501"}
        assert client.read().startswith(b"250")
        client.close()


# Where it is


def test_it_says_where_it_is(mode: Mode, message: EmailMessage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a URL, as variables, as arguments: each is all that a mailer needs."""
    before = dict(os.environ)
    with MailServer(mode, login=("me@example.org", "p w/%:?#")) as server:
        assert server.host == "127.0.0.1"
        assert f"@127.0.0.1:{server.port}?" in server.url
        with SecureMailer.from_url(server.url) as mailer:
            mailer.send(message)
        assert dict(os.environ) == before
        for name, value in server.env("APP_MAIL_").items():
            monkeypatch.setenv(name, value)
        with SecureMailer.from_env("APP_MAIL_") as mailer:
            mailer.send(message)
        with SecureMailer("localhost", server.port, **server.options()) as mailer:
            mailer.send(message)
        assert Path(server.ca_file).read_text("ascii") == server.ca_pem
        mine = server.mailer()
        mine.send(message)
    assert len(server.messages) == 4
    assert not server.ca_file.exists()
    with pytest.raises(errors.ConfigurationError, match="the mailer is closed"):
        mine.send(message)
    with MailServer(mode, login=None) as server, SecureMailer.from_url(server.url) as mailer:
        mailer.send(message)
        assert server.env().keys() == {"SMTP_HOST", "SMTP_PORT", "SMTP_TLS", "SMTP_CA_FILE"}
        server.mailer(policy=TLSPolicy(ca_data=server.ca_pem)).send(message)


@pytest.mark.parametrize("wrong", ["ssl", "", None.__class__])
def test_there_are_two_modes(wrong: Any) -> None:
    """There is no server without TLS."""
    with pytest.raises(ValueError, match='neither "implicit" nor "starttls"'):
        MailServer(wrong)


def test_it_listens_on_the_given_port() -> None:
    """A development server has the same port each day; a port that is taken is an error at once."""
    with MailServer() as free:
        port = free.port
        with pytest.raises(OSError, match="in use"), MailServer(port=port):
            pytest.fail("two servers on one port")
    with MailServer(port=port) as server:
        assert server.port == port


# A hook for each message


def test_each_message_is_passed_on_before_it_is_confirmed(message: EmailMessage) -> None:
    """So a message that could not be kept is not lost: the client is told, and the end of the block raises it."""
    seen = list[Received]()

    def keep(received: Received) -> None:
        seen.append(received)
        if len(seen) == 1:
            raise OSError("the disk is full")

    server, stack = MailServer(on_message=keep), ExitStack()
    mailer = stack.enter_context(server).mailer()
    with pytest.raises(errors.DataRefusedError, match=r"451 4\.3\.0 .*OSError") as caught:
        mailer.send(message)
    assert caught.value.retryable
    mailer.send(message)
    with pytest.raises(OSError, match="the disk is full"):
        stack.close()
    assert [received.mail_from for received in seen] == ["me@example.org"] * 2
    assert server.messages == seen[1:]


def test_the_tests_own_failure_is_not_replaced() -> None:
    """What failed in the hook may be a consequence of it."""
    with (
        pytest.raises(LookupError, match=r"250.*250.*451"),
        MailServer(on_message=lambda _: 1 / 0, login=None) as server,
    ):
        raise LookupError(_codes(server, ENVELOPE + b"BDAT 0 LAST\r\n", 3))


def _codes(server: MailServer, written: bytes, replies: int) -> list[bytes]:
    client = Client(server)
    client.socket.sendall(written)
    codes = [client.read()[:3] for _ in range(replies)]
    client.close()
    return codes


# Clocks (PITFALLS T3, T4)


@pytest.mark.parametrize(("mode", "moment"), [("implicit", "2001-02-03"), ("starttls", "2099-12-31")])
def test_a_frozen_clock_does_not_matter(mode: Mode, moment: str, message: EmailMessage) -> None:
    """Python's clock stands still at a moment far away; limits and delays of the server run on the real one (T3)."""
    with freeze_time(moment), MailServer(mode, fault="slow", delay=0.01) as server:
        receipt = server.mailer().send(message)
        assert server.wait_for(1, 1)[0].subject == "Grüße"
        with pytest.raises(AssertionError, match=r"waited 0\.01 s"):
            server.wait_for(2, 0.01)
    assert receipt.tls.not_after.year == 3000


@pytest.mark.parametrize(
    "moment", ["2001-02-03 04:05:06", pytest.param("2099-12-31 00:00:00", marks=pytest.mark.exhaustive)]
)
def test_a_frozen_system_clock_does_not_matter(moment: str) -> None:
    """Libfaketime stops OpenSSL's clock, too: the certificates are valid at that moment (T3, T4)."""
    if shutil.which("faketime") is None:
        pytest.skip("faketime is missing: apt-get install faketime")
    program = """
from email.message import EmailMessage
from securesmtp.testing import MailServer
message = EmailMessage()
message["From"], message["To"] = "a@example.org", "b@example.org"
message.set_content("x")
for mode in ("implicit", "starttls"):
    with MailServer(mode) as server:
        server.mailer().send(message)
        print(len(server.wait_for(1, 5)))
"""
    run = subprocess.run(
        ["faketime", "-f", moment, sys.executable, "-c", program],
        env=unmeasured(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout, run.returncode) == ("1\n1\n", 0), run.stderr


def test_a_process_that_begins_frozen_can_be_unfrozen() -> None:
    """Cryptography keeps the first class of datetimes that it sees: it must not be freezegun's (T3)."""
    program = """
from freezegun import freeze_time
with freeze_time("2001-02-03"):
    from securesmtp.testing import MailServer
    MailServer()._certificates.context("expired")
MailServer()._certificates.context("expired")
with freeze_time("2001-02-03"):
    MailServer()._certificates.context("expired")
"""
    subprocess.run([sys.executable, "-c", program], env=unmeasured(), timeout=60, check=True)


def test_an_expired_certificate_differs_by_its_dates_alone() -> None:
    """So a test of `expired` cannot pass because of something else (T4)."""
    certificates = Certificates()
    good, expired = (_shown_by(certificates.context(fault)) for fault in (None, "expired"))
    assert good.subject == expired.subject
    assert good.issuer == expired.issuer
    assert [each.oid for each in good.extensions] == [each.oid for each in expired.extensions]
    assert (good.not_valid_before_utc.year, good.not_valid_after_utc.year) == (2000, 3000)
    assert expired.not_valid_after_utc.year == 2000


# Noise and leaks (PITFALLS T9, T10)


def test_nothing_is_logged_and_nothing_warns(
    mode: Mode, message: EmailMessage, caplog: pytest.LogCaptureFixture
) -> None:
    """Aiosmtpd warns about its own calls, and logs tracebacks; other users of its logger are not silenced (T9)."""
    caplog.set_level(logging.DEBUG)
    before = list(logging.getLogger("mail.log").filters)
    with MailServer(mode) as server:
        server.mailer().send(message)
        with pytest.raises(errors.CertificateError):
            SecureMailer(server.host, server.port, tls=mode).send(message)
        logging.getLogger("mail.log").warning("of another server")
    noise = [each for each in caplog.records if not each.name.startswith("securesmtp")]
    assert [each.getMessage() for each in noise if each.name != "asyncio"] == ["of another server"]
    assert [each for each in noise if each.name == "asyncio" and each.levelno > logging.DEBUG] == []
    assert logging.getLogger("mail.log").filters == before


@pytest.mark.parametrize("state", ["before_tls", "idle", "in_a_message", "silent"])
def test_it_stops_with_clients_that_stay(mode: Mode, state: str) -> None:
    """Listener, connections, loop and thread end, and nothing is left open, whatever a client does (T10)."""
    threads = set(threading.enumerate())
    with MailServer(mode, login=None, fault="silent" if state == "silent" else None) as server:
        plain = socket.create_connection((server.host, server.port), timeout=10)
        if state == "idle" and mode == "implicit":
            plain = server_tls(server, plain)
            assert plain.recv(100).startswith(b"220 ")
        elif state == "in_a_message" and mode == "implicit":
            plain = server_tls(server, plain)
            plain.sendall(b"EHLO x\r\n" + ENVELOPE + b"BDAT 1000\r\nxx")
            while b"250 2.1.5" not in plain.recv(4096):
                pass
    assert set(threading.enumerate()) == threads
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port), timeout=10)
    plain.close()
    gc.collect()


def server_tls(server: MailServer, plain: socket.socket) -> ssl.SSLSocket:
    """Return *plain* with TLS."""
    return ssl.create_default_context(cafile=str(server.ca_file)).wrap_socket(plain, server_hostname="localhost")


def test_twenty_servers_at_once(message: EmailMessage) -> None:
    """In threads: each has its port, its CA and its messages (T2)."""
    found = list[tuple[int, int]]()

    def run() -> None:
        with MailServer() as server:
            server.mailer().send(message)
            found.append((server.port, len(server.messages)))

    threads = [threading.Thread(target=run) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [count for _, count in found] == [1] * 20


def _shown_by(context: ssl.SSLContext) -> x509.Certificate:
    """Return the certificate that a server with *context* shows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: context.wrap_socket(listener.accept()[0], server_side=True).close())
        thread.start()
        pem = ssl.get_server_certificate(listener.getsockname())
        thread.join()
    return x509.load_pem_x509_certificate(pem.encode())
