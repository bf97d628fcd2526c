"""Careless callers: forks, signals, nested calls, wrong types, and passwords in places where they could leak."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.headerregistry import Address, HeaderRegistry
from email.message import EmailMessage
from email.policy import EmailPolicy
from pathlib import Path
from types import FrameType

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from conftest import Mailer, Serve
from leaks import shown
from protocol.play import plain_id
from scripted import Peer, Script, honest
from securesmtp import (
    CertificateError,
    ConfigurationError,
    ConnectError,
    MessageError,
    Password,
    RecipientsRefusedError,
    SecureSMTPError,
    Timeouts,
    TLSPolicy,
)

pytestmark = pytest.mark.faces("attacks", sample=(13, 12))

PASSWORD = "hunter2secret"
TOKEN = b"AG1lAGh1bnRlcjJzZWNyZXQ="


@contextmanager
def _on_alarm(handler: Callable[[], object]) -> Iterator[None]:
    """Call *handler* on SIGALRM, which `_alarm` sends."""

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        handler()

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def _alarm() -> None:
    """Interrupt the main thread; called by the server's thread for which it waits."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)


@pytest.mark.parametrize("number", ["os.getpid", "lambda: 1"], ids=["another pid", "the same pid"])
def test_a_child_of_a_fork_takes_a_connection_of_its_own(serve: Serve, ca_file: Path, number: str) -> None:
    """Two processes on one TLS session would reuse a nonce; in PID namespaces both may have process number 1."""
    server = serve()
    program = f"""
import os
os.getpid = {number}
from securesmtp import SecureMailer
mailer = SecureMailer("localhost", {server.port}, ca_file={str(ca_file)!r}, timeout=5)
def send():
    mailer.send_bytes(b"\\n", mail_from="a@b.example", recipients=["c@d.example"])
send()
child = os.fork()
if child == 0:
    send()
    send()
    mailer.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
send()
mailer.close()
"""
    # In a separate process: a fork of the test process would copy locks that its threads hold.
    subprocess.run([sys.executable, "-W", "error", "-c", program], timeout=30, check=True)
    assert [len(connection.accepted) for connection in server.connections] == [2, 2]


# The signal strikes the main thread.
@pytest.mark.faces("attacks", threads_only=True)
def test_close_in_a_signal_handler_does_not_wait_for_the_send_that_it_interrupts(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """The send ends normally, and then closes the connection."""
    closed = threading.Event()

    def slow(peer: Peer, content: bytes) -> bytes:
        _alarm()
        assert closed.wait(5)
        return b"250 ok\r\n"

    def close() -> None:
        mine.close()
        closed.set()

    server = serve(honest(replies={"CONTENT": slow}))
    mine = mailer(server)
    with _on_alarm(close):
        assert mine.send(message).reply.code == 250
    with pytest.raises(ConfigurationError, match="closed"):
        mine.send(message)
    server.joined()
    assert server.secret.endswith(b"QUIT\r\n")


# An async mailer calls a password callable in a thread.
@pytest.mark.faces("attacks", threads_only=True)
def test_a_send_inside_a_send_is_an_error(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The inner one would wait forever for the connection that the outer one uses."""

    def password() -> str:
        mine.send(message)
        return PASSWORD

    mine = mailer(serve(honest(auth=("me", PASSWORD))), username="me", password=password)
    with pytest.raises(ConfigurationError, match="inside a send"):
        mine.send(message)


# The signal strikes the main thread.
@pytest.mark.faces("attacks", threads_only=True)
def test_an_interrupt_leaves_the_mailer_usable(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Nothing is written after the interrupt: no QUIT, no final dot (MSG-07)."""

    def silent(peer: Peer, line: bytes) -> bytes:
        _alarm()
        peer.sleep_until_peer_closes()
        return b""

    def interrupt() -> None:
        raise KeyboardInterrupt

    server = serve(honest(replies={"DATA": silent}), honest())
    mine = mailer(server)
    with pytest.raises(KeyboardInterrupt), _on_alarm(interrupt):
        mine.send(message)
    assert mine.send(message).reply.code == 250
    assert server.connections[0].secret.endswith(b"DATA\r\n")
    assert server.connections[0].accepted == []


def _echoes(reply: Callable[[bytes], bytes], *, after: bool = False) -> Script:
    """Play a server that repeats the AUTH line, in its reply to it or *after* the login succeeded."""

    def script(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 x\r\n")
        peer.read_line()
        peer.send(b"250-x\r\n250 AUTH PLAIN LOGIN\r\n")
        said = peer.read_line()
        if after:
            peer.send(b"235 ok\r\n")
            peer.read_line()
        peer.send(reply(said))
        peer.sleep_until_peer_closes()

    return script


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(_echoes(lambda said: said + b"\r\n"), id="plain-echo"),
        pytest.param(_echoes(lambda said: b"535 " + said + b"\r\n"), id="refusal"),
        pytest.param(_echoes(lambda said: b"535 " + said + b"\n"), id="bare-lf"),
        pytest.param(_echoes(lambda said: b"535-no\r\n550 " + said + b"\r\n"), id="two-codes"),
        pytest.param(_echoes(lambda said: b"535 bad: " + said[:30] + b"...\r\n"), id="a-part-of-it"),
        pytest.param(_echoes(lambda _: b"535 " + PASSWORD.encode() + b"\r\n"), id="decoded"),
        pytest.param(_echoes(lambda said: b"550 last was " + said + b"\r\n", after=True), id="later"),
        pytest.param(_echoes(lambda said: b"334 " + said.split()[-1] + b"\r\n"), id="challenge"),
        pytest.param(_echoes(lambda _: b"250 no\r\n"), id="250"),
        pytest.param(_echoes(lambda _: b"535-hunte\r\n535-r2sec\r\n535 ret\r\n"), id="in-pieces"),
        pytest.param(_echoes(lambda _: b"535 h u n t e r 2 s e c r e t\r\n"), id="blanks"),
        pytest.param(_echoes(lambda _: b"535 " + PASSWORD.upper().encode() + b"\r\n"), id="capitals"),
        pytest.param(_echoes(lambda _: b"535 " + b64encode(PASSWORD.encode()) + b"\r\n"), id="password-in-base64"),
        pytest.param(lambda peer: peer.cut(), id="cut"),
    ],
)
def test_a_server_that_repeats_the_password_does_not_get_it_shown(
    serve: Serve, mailer: Mailer, message: EmailMessage, script: Script
) -> None:
    """Not in text, attributes, causes or the frames of the traceback that are ours (AUTH-08)."""
    with pytest.raises(SecureSMTPError) as caught:
        # "challenge" ends by the time limit.
        mailer(serve(script), username="me", password=PASSWORD, timeout=2).send(message)
    everything = shown(caught.value)
    assert PASSWORD not in everything
    assert TOKEN.decode()[4:12] not in everything


@pytest.mark.parametrize(
    "make",
    [
        lambda make_mailer: make_mailer("h", username="me", password=PASSWORD.encode()),
        lambda make_mailer: make_mailer("h", password=PASSWORD),
        lambda make_mailer: make_mailer("h", password=[PASSWORD], username="me"),
        lambda make_mailer: make_mailer("h", auth=("me", PASSWORD)),
        lambda make_mailer: make_mailer("h", 0, username="me", password=PASSWORD),
        lambda _: Password("", PASSWORD),
        lambda _: Password("me", PASSWORD + "\0"),
    ],
    ids=["bytes", "no-username", "list", "tuple", "port", "username", "nul"],
)
def test_a_wrong_argument_does_not_show_the_password(make_mailer: Mailer, make: Callable[[Mailer], object]) -> None:
    """Neither do the frames of its traceback, whatever type the password has."""
    with pytest.raises(ConfigurationError) as caught:
        make(make_mailer)
    assert PASSWORD not in shown(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 3e6}, {"timeout": 10**400}, {"deadline": 1e10}, {"tls": []}, {"local_hostname": 5},
        {"local_hostname": b"x"}, {"source_address": ["127.0.0.1", 0]}, {"policy": "x"},
        {"source_address": ("127.0.0.1", 99999)}, {"source_address": ("a\0b", 0)}, {"source_address": 5},
        {"host": "::1%a\r\nX: y\x1b[2J"},
    ],
    ids=plain_id,
)  # fmt: skip
def test_odd_arguments_are_typed_errors(make_mailer: Mailer, options: dict[str, object]) -> None:
    """No control character gets into the error's text."""
    with pytest.raises(ConfigurationError) as caught:
        make_mailer(**{"host": "localhost", **options})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "policy",
    [
        {"extra_ca_file": "a\0b"},
        {"client_cert": "a\0b"},
        {"server_hostname": "::1%\0"},
        {"ca_file": "a\0b"},
        {"extra_ca_file": 5},
        {"minimum_version": []},
    ],
    ids=plain_id,
)
def test_odd_files_are_typed_errors(make_mailer: Mailer, policy: dict[str, object]) -> None:
    """A NUL in a path is a ValueError in Python."""
    with pytest.raises(ConfigurationError):
        make_mailer("localhost", policy=TLSPolicy(**policy))  # type: ignore[arg-type]


@pytest.mark.parametrize("mechanisms", [5, [[]], "PLAIN", []], ids=repr)
def test_odd_mechanisms_are_typed_errors(mechanisms: object) -> None:
    """A str would be read as a list of its letters."""
    with pytest.raises(ConfigurationError, match="mechanisms"):
        Password("me", PASSWORD, mechanisms)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"recipients": 5},
        # Its repr has an address, and test ids must be the same in each worker of pytest-xdist.
        pytest.param({"data": type("F", (), {"read": 5})()}, id="read is no method"),
        {"partial": []},
        {"recipients": ["a@b"], "data": None},
        {"mail_from": 5},
    ],
    ids=plain_id,
)
def test_odd_arguments_of_a_send_are_typed_errors(make_mailer: Mailer, options: dict[str, object]) -> None:
    """Before any network use."""
    with make_mailer("localhost", 1) as mailer, pytest.raises(ConfigurationError):
        mailer.send_bytes(**{"data": b"", "mail_from": "a@b.example", "recipients": ["c@d.example"], **options})  # type: ignore[arg-type]


def test_a_file_that_has_nothing_yet_is_not_at_its_end(make_mailer: Mailer) -> None:
    """A non-blocking file that returns None would otherwise cut the message in half."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b"Subject: x\r\n\r\nfirst half\r\n")
    with (
        open(reading, "rb", buffering=0) as pipe,  # noqa: PTH123 -- a descriptor
        make_mailer("localhost", 1) as mailer,
        pytest.raises(MessageError, match="blocking"),
    ):
        mailer.send_bytes(pipe, mail_from="a@b.example", recipients=["c@d.example"])
    os.close(writing)


def _registry() -> EmailMessage:
    mail = EmailMessage(policy=EmailPolicy(header_factory=HeaderRegistry(use_default_map=False)))
    mail["From"] = "a@b.example"
    return mail


def _group() -> EmailMessage:
    mail = EmailMessage()
    mail.set_raw("To", "G: a@x.example, b@x.example; c@x.example")
    return mail


def _narrow() -> EmailMessage:
    mail = EmailMessage(policy=policy.default.clone(max_line_length=15))
    mail["From"] = mail["To"] = "a@b.example"
    mail["Subject"] = "Grüße an Ada " * 3
    return mail


@pytest.mark.parametrize("make", [_registry, _group], ids=["registry", "group"])
def test_what_the_email_package_cannot_read_is_a_message_error(
    make_mailer: Mailer, make: Callable[[], EmailMessage]
) -> None:
    """The package's own AttributeError would not say what to do."""
    with make_mailer("localhost", 1) as mailer, pytest.raises((MessageError, ConfigurationError)):
        mailer.send(make())


def test_a_narrow_policy_does_not_hang(serve: Serve, mailer: Mailer) -> None:
    """Python 3.11 folds to 15 columns in an endless loop."""
    assert mailer(serve()).send(_narrow()).reply.code == 250


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_a_certificate_that_cannot_be_decoded_is_refused_as_any_other(
    serve: Serve, make_mailer: Mailer, message: EmailMessage, tmp_path: Path, *, trusted: bool
) -> None:
    """A broken name list is refused even if a right name is in it and the certificate itself is trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    octets = bytes.fromhex("300f8209") + b"localhost" + bytes.fromhex("8202fffe")
    names = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), octets)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem, shown = (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.public_bytes(Encoding.PEM),
    )
    (tmp_path / "both.pem").write_bytes(pem + shown)
    context.load_cert_chain(tmp_path / "both.pem")
    policy = TLSPolicy(ca_data=shown.decode(), allow_legacy_ca=True) if trusted else TLSPolicy()
    with make_mailer("localhost", serve(tls=context).port, policy=policy) as mailer, pytest.raises(CertificateError):
        mailer.send(message)


def test_a_530_to_one_recipient_is_a_refusal_of_it(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The login succeeded, so the error must not suggest to pass a password."""
    with pytest.raises(RecipientsRefusedError):
        mailer(serve(honest(replies={"RCPT": b"530 5.7.1 relaying denied\r\n"}))).send(message)


def test_a_long_list_of_mechanisms_is_shortened(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """A server cannot fill a log with its EHLO reply."""
    extensions = [f"AUTH X{number:02}{'Y' * 1400}" for number in range(30)]
    with pytest.raises(SecureSMTPError) as caught:
        mailer(serve(honest(extensions=extensions)), username="me", password="x").send(message)
    assert len(str(caught.value)) < 1000


def test_a_steady_reader_is_not_cut_off_by_the_socket_buffer(serve: Serve, mailer: Mailer) -> None:
    """16 kB every 60 ms is 270 kB a second, well above the required one block in three seconds."""

    def steady(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 x\r\n")
        for reply in (b"250 x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            peer.read_line()
            peer.send(reply)
        for _ in range(100):
            peer.read_exactly(16384)
            threading.Event().wait(0.06)
        peer.read_data()
        peer.send(b"250 ok\r\n")
        peer.sleep_until_peer_closes()

    raw = b"\r\n" + (b"x" * 78 + b"\r\n") * 150000
    # On a busy machine, a reader may stand still for a second.
    limits = Timeouts(command=10, block=3)
    mailer(serve(steady), timeout=limits).send_bytes(raw, mail_from="a@b.example", recipients=["c@d.example"])


def test_a_connection_closed_before_the_greeting_is_a_connect_error(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """The handshake succeeded, so this is neither a TLS error nor a reply."""

    def leaves(peer: Peer) -> None:
        peer.start_tls()
        peer.close()

    with pytest.raises(ConnectError):
        mailer(serve(leaves)).send(message)


NAMED = {
    "a long name with an address in it": Address("a" * 30 + " <ceo@bank.example>, " + "b " * 40, "me", "example.org"),
    "a name with a comma": Address("Doe, John", "me", "example.org"),
    "a name with quotes": Address('x" <evil@x.example>, "' * 5, "me", "example.org"),
    "a name with a backslash": Address("\\" * 30 + '"', "me", "example.org"),
    "an umlaut and a comma": Address("Ö, evil@x.example" * 8, "me", "example.org"),
}


@pytest.mark.parametrize("who", NAMED)
@pytest.mark.parametrize("field", ["From", "To", "Cc", "Reply-To", "Sender"])
def test_a_display_name_adds_no_address(serve: Serve, mailer: Mailer, field: str, who: str) -> None:
    """The receiver reads the same addresses as were set; Python drops the quotes of long names."""
    server = serve()
    mail = EmailMessage()
    mail["From"], mail["To"] = "a@b.example", "c@d.example"
    del mail[field]
    mail[field] = (NAMED[who], Address("", "b", "example.org")) if field in {"To", "Cc", "Reply-To"} else NAMED[who]
    mailer(server).send(mail, mail_from="a@b.example", recipients=["c@d.example"])
    (accepted,) = server.accepted
    arrived = message_from_bytes(accepted.content, policy=policy.default)
    assert [a.addr_spec for a in arrived[field].addresses] == [a.addr_spec for a in mail[field].addresses]


@pytest.mark.parametrize(
    "value",
    [
        "=?utf-8?q?x=2Cb=40evil.example?= <a@good.example>",
        "=?utf-8?q?G=3A?= <a@good.example>, c@good.example",
        "=?utf-8?q?=22?= <a@good.example>, =?utf-8?q?=22?= <c@good.example>",
        "=?utf-8?q?x=3Cevil=40x=2Eexample=3E=2C?= <a@good.example>",
        "Team: =?utf-8?q?x=3B_b=40evil.example?= <a@good.example>;",
    ],
)
def test_a_display_name_that_was_encoded_adds_no_address(serve: Serve, mailer: Mailer, value: str) -> None:
    """A decoded name is quoted when it is written again; envelope and header have the same addresses."""
    server = serve()
    mail = message_from_bytes(f"From: me@b.example\nTo: {value}\n\nx\n".encode(), policy=policy.default)
    assert isinstance(mail, EmailMessage)
    receipt = mailer(server).send(mail)
    (accepted,) = server.accepted
    arrived = message_from_bytes(accepted.content, policy=policy.default)
    assert tuple(a.addr_spec for a in arrived["To"].addresses) == receipt.accepted
    assert all(address.endswith("@good.example") for address in receipt.accepted)


def test_a_child_of_a_fork_in_the_middle_of_a_send_takes_its_own_turn(serve: Serve, ca_file: Path) -> None:
    """The thread that holds the parent's connection does not exist in the child."""
    sending, go = threading.Event(), threading.Event()

    def slow(peer: Peer, content: bytes) -> bytes:
        sending.set()
        go.wait(20)
        return b"250 ok\r\n"

    server = serve(honest(replies={"CONTENT": slow}), honest())
    program = f"""
import os, threading
from securesmtp import SecureMailer
mailer = SecureMailer("localhost", {server.port}, ca_file={str(ca_file)!r}, timeout=20)
def send():
    mailer.send_bytes(b"\\n", mail_from="a@b.example", recipients=["c@d.example"])
thread = threading.Thread(target=send)
thread.start()
input()
child = os.fork()
if child == 0:
    send()
    mailer.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("child", flush=True)
thread.join()
mailer.close()
"""
    # -W: Python 3.12 warns about a fork in a program with threads, which is the subject of this test.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert sending.wait(20)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"child\n"
        go.set()
        assert process.wait(30) == 0
    assert [len(connection.accepted) for connection in server.connections] == [1, 1]


@pytest.mark.parametrize(
    ("stage", "parent", "child"), [("MAIL", "accepted", "not sent"), ("CONTENT", "accepted", "unknown")]
)
def test_a_child_of_a_fork_in_a_handler_takes_no_reply_of_its_parents(
    serve: Serve, ca_file: Path, stage: str, parent: str, child: str
) -> None:
    """The child returns from the handler into the parent's send: it waits for the reply, but does not read it."""
    forked, processes = threading.Event(), list[subprocess.Popen[str]]()

    def slow(peer: Peer, said: bytes) -> bytes:
        if peer.log.accepted:
            # The second message: its sender is forked while it waits for this reply.
            processes[0].send_signal(signal.SIGALRM)
            assert forked.wait(20)
        return b"250 ok\r\n"

    server = serve(honest(replies={stage: slow}))
    program = f"""
import os, signal
from securesmtp import SecureMailer, SecureSMTPError
def forks(*_):
    global child
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    else:
        os.write(1, b"forked\\n")
signal.signal(signal.SIGALRM, forks)
mailer = SecureMailer("localhost", {server.port}, ca_file={str(ca_file)!r}, timeout=20, pipelining="off")
mailer.send_bytes(b"\\n", mail_from="a@b.example", recipients=["c@d.example"])
try:
    mailer.send_bytes(b"\\n", mail_from="a@b.example", recipients=["c@d.example"], deadline=15)
    end = "accepted"
except SecureSMTPError as error:
    end = str(error.outcome)
if child == 0:
    os.write(1, f"child: {{end}}\\n".encode())
    os._exit(0)
print(f"parent: {{end}}")
mailer.close()
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        forked.set()
        assert process.stdout.read().splitlines() == [f"child: {child}", f"parent: {parent}"]
        assert process.wait(30) == 0
    assert len(server.accepted) == 2


def test_a_silent_goodbye_is_not_waited_for(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """QUIT is written and the connection is closed; the server's 221 is not needed."""

    def silent(peer: Peer, line: bytes) -> bytes:
        peer.sleep_until_peer_closes()
        return b""

    server = serve(honest(replies={"QUIT": silent}))
    mine = mailer(server)
    mine.send(message)
    began = time.monotonic()
    mine.close()
    assert time.monotonic() - began < 2
    server.joined()
    assert server.secret.endswith(b"QUIT\r\n")


def test_the_message_is_not_in_the_causes_of_an_error(make_mailer: Mailer) -> None:
    """A UnicodeEncodeError holds the whole text that it could not encode."""
    mail = EmailMessage()
    mail["From"], mail["To"] = "a@b.example", "c@d.example"
    mail.set_payload("TOP SECRET €")
    with make_mailer("localhost", 1) as mailer, pytest.raises(MessageError) as caught:
        mailer.send(mail)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
