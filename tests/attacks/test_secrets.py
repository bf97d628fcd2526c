"""Secrets in unexpected places: on another connection, in the wrong argument, in traceback frames, in log lines."""

from __future__ import annotations

import logging
import ssl
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import securesmtp
from conftest import Mailer, Serve
from leaks import shown
from scripted import Mode, Peer, Script, honest
from securesmtp import (
    AddressError,
    CertificateError,
    ConfigurationError,
    Envelope,
    Event,
    Password,
    RecipientsRefusedError,
    SecureMailer,
    SecureSMTPError,
    Timeouts,
    TLSPolicy,
    Window,
)
from securesmtp.testing import MailServer

pytestmark = pytest.mark.faces("attacks", sample=(13, 12))

PASSWORD = "hunter2secret"
LIBRARY = Path(securesmtp.__file__).parent
# Moves a terminal's cursor, ends a line in some log readers, reverses the text.
NASTY = "\x1b[2J\u2028\u202e\x85"


def _second(after: Callable[[Peer], None], mode: Mode) -> Script:
    """Play a server that does STARTTLS correctly where *mode* asks for it, and continues with *after* inside TLS."""

    def script(peer: Peer) -> None:
        if mode == "implicit":
            peer.start_tls()
            after(peer)
            return
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250 STARTTLS\r\n")
        peer.expect(b"STARTTLS")
        peer.send(b"220 go\r\n")
        peer.start_tls()
        after(peer)

    return script


def _says(*answers: bytes) -> Callable[[Peer], None]:
    def after(peer: Peer) -> None:
        for number, answer in enumerate(answers):
            if number or len(answers) == 1:
                peer.expect(b"EHLO")
            peer.send(answer)
        peer.sleep_until_peer_closes()

    return after


ECHO = PASSWORD.encode()
EHLO = {
    "refused": b"550 5.5.0 " + ECHO + b"\r\n",
    "closing": b"421 4.3.0 " + ECHO.upper() + b"\r\n",
    "malformed": ECHO + b"\r\n",
    "mechanisms": b"250-mx\r\n250 AUTH X-" + ECHO + b"\r\n",
    "in pieces": b"550-hunte\r\n550 r2secret\r\n",
}
GREETING = {
    "greeting": b"554 5.3.2 " + ECHO + b"\r\n",
    "greeting in the clear": b"554 5.3.2 " + ECHO + b"\r\n",
    "greeting with another code": b"250 " + ECHO + b"\r\n",
    "malformed greeting": b"hello " + ECHO + b"\r\n",
}


@pytest.mark.parametrize("answer", EHLO.values(), ids=EHLO)
def test_the_next_connections_ehlo_does_not_show_the_password(
    serve: Serve, mailer: Mailer, message: EmailMessage, mode: Mode, answer: bytes
) -> None:
    """The server repeats on a new connection what it was sent on an earlier one (AUTH-08)."""
    greet = (b"220 mx\r\n", answer) if mode == "implicit" else (answer,)
    bad = _second(_says(*greet), mode)
    server = serve(honest(mode, auth=("me", PASSWORD)), bad, bad)
    mine = mailer(server, tls=mode, username="me", password=lambda: PASSWORD, max_messages=1)
    mine.send(message)
    with pytest.raises(SecureSMTPError) as caught:
        mine.send(message)
    try:
        found = repr(mine.check())
    except SecureSMTPError as error:
        found = shown(error)
    assert PASSWORD not in f"{shown(caught.value)} {found}".lower()
    # A word of it, among mechanisms, is listed as one.
    assert "(redacted" in str(caught.value).lower()
    assert "(redacted" in found.lower()


@pytest.mark.parametrize("answer", GREETING.values(), ids=GREETING)
def test_the_next_connections_greeting_does_not_show_the_password(
    serve: Serve, mailer: Mailer, message: EmailMessage, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    """Inside TLS and in plaintext, where anybody may have sent it."""
    for mode in ("implicit", "starttls"):

        def greets(peer: Peer, mode: str = mode) -> None:
            if mode == "implicit":
                peer.start_tls()
            peer.send(answer)
            peer.sleep_until_peer_closes()

        server = serve(honest(mode, auth=("me", PASSWORD)), greets)
        mine = mailer(server, tls=mode, username="me", password=PASSWORD, max_messages=1)
        mine.send(message)
        with pytest.raises(SecureSMTPError) as caught:
            mine.send(message)
        assert PASSWORD not in shown(caught.value) + caplog.text
        assert "(redacted: " in str(caught.value)


@pytest.mark.parametrize("answer", [*GREETING.values(), *EHLO.values()], ids=[*GREETING, *EHLO])
def test_what_another_process_has_sent_is_not_shown_before_the_first_login(
    serve: Serve, mailer: Mailer, message: EmailMessage, answer: bytes
) -> None:
    """A server that got the password from another process repeats it before this mailer has sent it (AUTH-08)."""

    def repeats(peer: Peer) -> None:
        peer.start_tls()
        if answer in EHLO.values():
            peer.send(b"220 mx\r\n")
            peer.expect(b"EHLO")
        peer.send(answer)
        peer.sleep_until_peer_closes()

    mine = mailer(serve(repeats), username="me", password=PASSWORD)
    with pytest.raises(SecureSMTPError, match=r"(?i)\(redacted") as caught:
        mine.send(message)
    assert PASSWORD not in shown(caught.value)


def test_a_password_that_is_a_word_of_ehlo_hides_no_capability(
    serve: Serve, make_mailer: Mailer, ca_file: Path, message: EmailMessage
) -> None:
    """Redaction changes what is shown, not what is read: the second connection logs in like the first."""
    server = serve(*[honest(auth=("me", "plain"))] * 3)
    # Without the fixture `mailer`, which would find the password "plain" in the report.
    with make_mailer(
        "localhost", server.port, username="me", password="plain", max_messages=1, ca_file=ca_file, timeout=5
    ) as mine:
        mine.send(message)
        mine.send(message)
        report = mine.check()
    assert (report.login, report.mechanism) == (True, "PLAIN")
    assert "8BITMIME" in report.after_tls


@pytest.mark.parametrize("partial", ["raise", "allow"])
def test_a_full_mailbox_is_not_taken_for_too_many_recipients(
    serve: Serve, mailer: Mailer, message: EmailMessage, partial: Literal["raise", "allow"]
) -> None:
    """452 4.2.2 keeps its meaning and text if it has the user's name in it (RFC 5321 §4.5.3.1.10, RFC 3463 §3.3)."""
    full = b"452 4.2.2 <you@example.org>: over quota, said me@example.org (queue 4XyZ1a)\r\n"
    server = serve(honest(auth=("me@example.org", PASSWORD), replies={"RCPT": full}))
    login = Password("me@example.org", PASSWORD, mechanisms=["LOGIN"])
    mine = mailer(server, auth=login)
    with pytest.raises(RecipientsRefusedError) as caught:
        mine.send(message, partial=partial)
    reply = caught.value.recipients[0].reply
    assert (reply.code, reply.enhanced) == (452, "4.2.2")
    assert reply.text == full[4:-2].decode()
    assert caught.value.retryable
    mine.close()
    server.joined()
    assert server.secret.count(b"MAIL FROM") == 1


def test_a_queue_id_with_the_name_in_it_is_kept(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The receipt shows the same queue ID as the server's log."""
    said = b"250 2.0.0 Ok: queued as me@example.org-4XyZ1a\r\n"
    server = serve(honest(auth=("me@example.org", PASSWORD), replies={"CONTENT": said}))
    receipt = mailer(server, auth=Password("me@example.org", PASSWORD, mechanisms=["LOGIN"])).send(message)
    assert (receipt.reply.enhanced, receipt.reply.text) == ("2.0.0", said[4:-2].decode())


def test_a_login_of_any_length_is_taken(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """A long token waits for the 334, because servers may limit a command to 512 octets (RFC 4954 §4)."""
    token = "eyJhbGciOiJSUzI1NiJ9." * 150
    server = serve(honest(auth=("me", token)))
    assert mailer(server, username="me", password=token).send(message).reply.code == 250
    assert b"AUTH PLAIN" in server.secret.split(b"\r\n")


PEM = f"-----BEGIN PRIVATE KEY-----\n{PASSWORD}\n-----END PRIVATE KEY-----\n"
URL = f"smtps://me:{PASSWORD}@mx.example.org:465"
LOGIN = f"me:{PASSWORD}@mx.example.org"
WRONG: dict[str, Callable[[Mailer], object]] = {
    "host: URL": lambda make: make(URL),
    "host: URL, cut": lambda make: make(f"smtp://{PASSWORD}"),
    "host: login": lambda make: make(LOGIN),
    "host: login in bytes": lambda make: make(LOGIN.encode()),
    "host: not ASCII": lambda make: make(f"ü{LOGIN}"),
    "host: key": lambda make: make(PEM),
    "port: URL": lambda make: make("mx.example.org", URL),
    "tls: URL": lambda make: make("mx.example.org", tls=URL),
    "pipelining: login": lambda make: make("h", pipelining=LOGIN),
    "local_hostname: login": lambda make: make("h", local_hostname=LOGIN),
    "source_address: login": lambda make: make("h", source_address=(LOGIN, 0)),
    "timeout: URL": lambda make: make("h", timeout=URL),
    "deadline: URL": lambda make: make("h", deadline=URL),
    "max_connections: URL": lambda make: make("h", max_connections=URL),
    "Timeouts: login": lambda make: Timeouts(connect=LOGIN),  # type: ignore[arg-type]
    "Window: login": lambda make: Window(messages=LOGIN),  # type: ignore[arg-type]
    "ca_file: key": lambda make: make("h", ca_file=PEM),
    "ca_file: key in bytes": lambda make: make("h", ca_file=PEM.encode()),
    "ca_file: URL": lambda make: make("h", ca_file=URL),
    "ca_file: path": lambda make: make("h", ca_file=Path(PEM)),
    "extra_ca_file: key": lambda make: make("h", policy=TLSPolicy(extra_ca_file=PEM)),
    "client_cert: key": lambda make: make("h", policy=TLSPolicy(client_cert=PEM)),
    "client_key: key": lambda make: make("h", policy=TLSPolicy(client_cert="cert.pem", client_key=PEM)),
    "ca_data: key": lambda make: make("h", policy=TLSPolicy(ca_data=PEM)),
    "server_hostname: login": lambda make: make("h", policy=TLSPolicy(server_hostname=LOGIN)),
    "server_hostname: URL": lambda make: make("h", policy=TLSPolicy(server_hostname=URL)),
    "mail_from: URL": lambda make: make("h").send_bytes(b"", mail_from=URL, recipients=["a@b.example"]),
    "recipients: URL": lambda make: make("h").send_bytes(b"", mail_from="a@b.example", recipients=[URL]),
    "partial: URL": lambda make: make("h").send_bytes(b"", mail_from="a@b.c", recipients=["d@e.f"], partial=URL),  # type: ignore[arg-type]
}
# No text quotes these either, but the argument itself is a local variable in the traceback's frames.
IN_FRAMES = {"pipelining: login", "timeout: URL", "deadline: URL", "max_connections: URL", "Timeouts: login",
             "Window: login", "mail_from: URL", "recipients: URL", "partial: URL"}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_secret_in_the_wrong_argument_is_not_quoted(make_mailer: Mailer, case: str) -> None:
    """A URL with a login as host, a private key as path: the error names the mistake without the value."""
    with pytest.raises(ConfigurationError) as caught:
        WRONG[case](make_mailer)
    error = caught.value
    assert PASSWORD not in f"{error} {error!r} {error.args} {vars(error)} {error.__cause__!r} {error.__context__!r}"
    if case not in IN_FRAMES:
        assert PASSWORD not in shown(error)


@pytest.mark.parametrize(
    "act",
    [
        lambda: SecureMailer(None),  # type: ignore[arg-type]
        lambda: SecureMailer("h", timeout=0),
        lambda: Password("me", ""),
        lambda: Password("me", None),  # type: ignore[arg-type]
        lambda: Password("", "secret"),
        lambda: TLSPolicy(pins=0),  # type: ignore[arg-type]
    ],
    ids=["host", "timeout", "password", "no password", "username", "pins"],
)
def test_an_object_that_is_refused_while_it_is_made_has_a_repr(act: Callable[[], object]) -> None:
    """`capture_locals` calls the repr of each local variable; an error in one loses the whole report."""
    with pytest.raises(ConfigurationError) as caught:
        act()
    assert "secret" not in shown(caught.value)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "repr() failed" not in "".join(told.format())


def test_a_test_server_does_not_quote_a_secret_either() -> None:
    """A program's tests may take a URL with a login from the environment, too."""
    with pytest.raises(ValueError, match=r"mode is \(not shown") as caught:
        MailServer(URL)  # type: ignore[arg-type]
    assert PASSWORD not in str(caught.value)


def test_an_argument_without_a_mark_of_a_secret_is_quoted(make_mailer: Mailer) -> None:
    """The caller sees the mistyped value; an at sign alone does not make an address secret."""
    with pytest.raises(ConfigurationError, match=r"host 'mx,example' is neither"):
        make_mailer("mx,example")
    with pytest.raises(ConfigurationError, match=r"ca_file 'missing\.pem' cannot be used"):
        make_mailer("h", ca_file="missing.pem")
    with make_mailer("h") as mailer, pytest.raises(AddressError, match=r"'a@b@c\.example' has") as caught:
        mailer.send_bytes(b"", mail_from="a@b@c.example", recipients=["d@e.example"])
    assert caught.value.address == "a@b@c.example"


def test_a_path_with_an_at_sign_is_a_path(
    serve: Serve, make_mailer: Mailer, ca: trustme.CA, message: EmailMessage, tmp_path: Path
) -> None:
    """Home directories may be named user@domain."""
    (tmp_path / "me@example.org").mkdir()
    path = tmp_path / "me@example.org" / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    with make_mailer("localhost", serve().port, ca_file=path, timeout=5) as mailer:
        assert mailer.send(message).tls.trust == f"ca_file {path}"


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")], ids=["DATA", "BDAT"])
def test_a_traceback_with_local_variables_shows_nothing_of_the_message(
    serve: Serve, mailer: Mailer, pipelining: str, offers: tuple[str, ...]
) -> None:
    """Error reports use `capture_locals`: wherever the connection is cut, no frame of ours holds content."""
    body = b"Subject: x\r\n\r\n" + b"CONFIDENTIAL words\r\n" * 8000
    mail = EmailMessage()
    mail["From"], mail["To"] = "a@b.example", "c@d.example"
    mail.set_content("CONFIDENTIAL words\n" * 8000)
    for cut in (150, 400, 1000, 70_000, 140_000):
        for envelope in (Envelope("a@b.example", ["c@d.example"], body), mail):
            server = serve(honest(extensions=offers), cut_after_read=cut)
            mine = mailer(server, pipelining=pipelining)
            (result,) = mine.send_many([envelope])
            assert result.error is not None
            assert _frames_with("CONFID", result.error) == []
        server = serve(honest(extensions=offers), cut_after_read=cut)
        with pytest.raises(SecureSMTPError) as caught:
            mailer(server, pipelining=pipelining).send_bytes(body, mail_from="a@b.example", recipients=["c@d.example"])
        assert _frames_with("CONFID", caught.value) == []


def _frames_with(text: str, error: BaseException) -> list[tuple[str, str]]:
    """Return the functions and local variables of the library in which *text* is found."""
    found, left = list[tuple[str, str]](), [traceback.TracebackException.from_exception(error, capture_locals=True)]
    while left:
        told = left.pop()
        left += [each for each in (told.__cause__, told.__context__) if each is not None]
        ours = [frame for frame in told.stack if LIBRARY in Path(frame.filename).parents]
        found += [(each.name, name) for each in ours for name, value in (each.locals or {}).items() if text in value]
    return found


# The trace function is set in the thread that sends.
@pytest.mark.faces("attacks", threads_only=True)
@pytest.mark.parametrize("offers", [(), ("PIPELINING",), ("PIPELINING", "CHUNKING")], ids=["lockstep", "DATA", "BDAT"])
def test_the_traceback_of_an_interrupt_shows_nothing_of_the_message(
    serve: Serve, mailer: Mailer, offers: tuple[str, ...]
) -> None:
    """At any line of the functions that have its bytes: a task's time limit is reported with `capture_locals` too."""
    body = b"Subject: x\r\n\r\nCONFIDENTIAL words\r\n"
    mine = mailer(serve(honest(extensions=offers), connections=1000))
    functions = {"write_content", "send_block", "queue_content", "_hold", "take_buffer", "_flush", "_write"}
    for at in range(1000):
        left = [at]

        def trace(frame: FrameType, event: str, _: object, left: list[int] = left) -> Any:
            code = frame.f_code
            if code.co_name not in functions or not code.co_filename.startswith(f"{LIBRARY}/"):
                return None
            left[0] -= event == "line"
            if left[0] == -1:
                left[0] = -2
                raise KeyboardInterrupt
            return trace

        before, interrupt = sys.gettrace(), None
        sys.settrace(trace)
        try:
            mine.send_bytes(body, mail_from="a@b.example", recipients=["c@d.example"])
        except KeyboardInterrupt as raised:
            interrupt = raised
        finally:
            sys.settrace(before)
        if interrupt is None:
            assert at > 20
            return
        assert _frames_with("CONFID", interrupt) == [], at
    pytest.fail("a send has no thousand lines")


@pytest.mark.parametrize("text", [f"<{NASTY}@x>", f"<{'i' * 900}@x>", "<" + "a b\r\n " * 400 + "@x>"], ids=ascii)
def test_a_message_id_is_shown_on_one_short_line(
    serve: Serve, mailer: Mailer, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """It may come from anybody: receipts, errors, events and log lines are safe to show (RPL-08)."""
    told: list[Event] = []
    mine = mailer(serve(honest(extensions=("SMTPUTF8", "8BITMIME"))), on_event=told.append)
    raw = f"Message-ID: {text}\r\nSubject: x\r\n\r\nx\r\n".encode()
    receipt = mine.send_bytes(raw, mail_from="a@b.example", recipients=["c@d.example"])
    with pytest.raises(SecureSMTPError) as caught:
        mailer(serve(), timeout=5).send_bytes(raw, mail_from="a@b.example", recipients=["ü@d.example"])
    for found in (receipt.message_id, caught.value.message_id):
        assert found is not None
        assert found.isprintable()
        assert len(found) <= 998
    lines = [*map(str, told), str(caught.value), *(r.getMessage() for r in caplog.records if r.name == "securesmtp")]
    assert all(line.isprintable() and len(line) < 1000 for line in lines)
    assert any("i" * 100 in line or "u2028" in line or "a b a b" in line for line in lines)


def test_what_a_certificate_says_is_shown_escaped(serve: Serve, make_mailer: Mailer, message: EmailMessage) -> None:
    """A CA may write anything into a subject, so the subject is untrusted text."""
    ca = trustme.CA(organization_name=f"CA{NASTY}", organization_unit_name="x" * 64)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", common_name=f"leaf{NASTY}").configure_cert(context)
    policy = TLSPolicy(ca_data=ca.cert_pem.bytes().decode())
    with make_mailer("localhost", serve(tls=context).port, policy=policy, timeout=5) as mailer:
        chain = mailer.send(message).tls.chain
    assert "leaf" in chain[0].subject
    assert "CA" in chain[-1].subject
    for each in chain:
        assert all(text.isprintable() for text in (each.subject, each.issuer, *each.names))


def test_the_names_in_a_certificate_are_shown_escaped(
    serve: Serve, make_mailer: Mailer, message: EmailMessage, tmp_path: Path
) -> None:
    """All names in it: in the receipt if the host name matches, and in the error if it does not."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("a\x1b[2Jb\r\nc")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    certificate = made.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem = certificate.public_bytes(Encoding.PEM)
    (tmp_path / "both.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    policy = TLSPolicy(ca_data=pem.decode(), allow_legacy_ca=True)
    server = serve(honest(), honest(), tls=context)
    with make_mailer("localhost", server.port, policy=policy, timeout=5) as mailer:
        assert mailer.send(message).tls.chain[0].names == ("localhost", "a\\x1b[2Jb\\r\\nc")
    with make_mailer("127.0.0.1", server.port, policy=policy, timeout=5) as mailer:
        with pytest.raises(CertificateError) as caught:
            mailer.send(message)
        assert caught.value.args[0].isprintable()


def test_a_path_is_shown_escaped(
    serve: Serve, make_mailer: Mailer, ca: trustme.CA, message: EmailMessage, tmp_path: Path
) -> None:
    """The receipt names the CA files that were trusted."""
    path = tmp_path / f"ca{NASTY}.pem"
    ca.cert_pem.write_to_path(str(path))
    policy = TLSPolicy(ca_file=path, extra_ca_file=path)
    with make_mailer("localhost", serve().port, policy=policy, timeout=5) as mailer:
        trust = mailer.send(message).tls.trust
    assert trust.isprintable()
    assert trust.count("u2028") == 2


def test_a_line_of_the_log_is_safe_whatever_the_error_says(caplog: pytest.LogCaptureFixture) -> None:
    """One place escapes all log lines, also those of errors that the caller made."""
    error = SecureSMTPError(f"x{NASTY}" * 2000, hint=NASTY * 1000)
    with caplog.at_level(logging.DEBUG, "securesmtp"):
        securesmtp.events.emit(securesmtp.events.Failed("h", 1, error), None)
    for line in (str(error), caplog.records[-1].getMessage()):
        assert line.isprintable()
        assert len(line) < 2500
