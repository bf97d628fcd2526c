"""What the client offers in TLS, and what a server or an attacker can do to a verified session."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from email.message import EmailMessage
from pathlib import Path

import pytest
import trustme

from conftest import Mailer, Positions, Serve
from scripted import Ending, Mode, Peer, honest
from securesmtp import ConnectError, Outcome, SecureSMTPError, Stage, TLSError, TLSPolicy

pytestmark = pytest.mark.faces("attacks", sample=(13, 12))

RAW = b"Subject: x\r\n\r\nx\r\n"
# TLS-05: ECDHE with AEAD, and the signalling value of RFC 5746.
SUITES = {0x1301, 0x1302, 0x1303, 0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9, 0x00FF}


class _Hello:
    """The fields of a ClientHello (RFC 8446 §4.1.2)."""

    def __init__(self, record: bytes) -> None:
        body = record[5 + 4 + 2 + 32 :]
        at = 1 + body[0]
        (length,) = struct.unpack_from("!H", body, at)
        self.suites = set(struct.unpack_from(f"!{length // 2}H", body, at + 2))
        at += 2 + length
        self.compression = body[at + 1 : at + 1 + body[at]]
        at += 1 + body[at] + 2
        self.extensions: dict[int, bytes] = {}
        while at < len(body):
            kind, length = struct.unpack_from("!HH", body, at)
            self.extensions[kind] = body[at + 4 : at + 4 + length]
            at += 4 + length


def _hello(make_mailer: Mailer, host: str, policy: TLSPolicy = TLSPolicy()) -> _Hello:  # noqa: B008 -- frozen
    """Return the first record that a mailer for *host* sends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: list[bytes] = []

        def listen() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(65536))

        thread = threading.Thread(target=listen)
        thread.start()
        mailer = make_mailer(host, listener.getsockname()[1], policy=policy, timeout=5)
        with mailer, pytest.raises(SecureSMTPError):
            mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
        thread.join()
    return _Hello(heard[0])


def test_the_first_octets_are_a_modern_client_hello(make_mailer: Mailer) -> None:
    """TLS-02 (TLS at once), TLS-04, TLS-05, TLS-06 (no compression), TLS-07 (a name), no ALPN, no ticket (TLS-09)."""
    hello = _hello(make_mailer, "localhost")
    # supported_versions: TLS 1.3 and 1.2, and nothing else.
    assert hello.extensions[43] == b"\x04\x03\x04\x03\x03"
    assert hello.suites <= SUITES
    assert {0x1301, 0xC02B} <= hello.suites
    assert hello.compression == b"\0"
    assert hello.extensions[0].endswith(b"localhost")
    # application_layer_protocol_negotiation, session_ticket, pre_shared_key, early_data, post_handshake_auth
    assert not {16, 35, 41, 42, 49} & set(hello.extensions)


def test_an_ip_address_is_not_sent_as_server_name(make_mailer: Mailer) -> None:
    """SNI is for host names only (TLS-07, RFC 6066 §3)."""
    assert 0 not in _hello(make_mailer, "127.0.0.1").extensions


def test_tls_13_can_be_required(make_mailer: Mailer) -> None:
    """TLS 1.2 is not offered then."""
    hello = _hello(make_mailer, "localhost", TLSPolicy(minimum_version="TLSv1.3"))
    assert hello.extensions[43] == b"\x02\x03\x04"


def test_no_session_is_resumed(serve: Serve, mailer: Mailer, ca_file: Path) -> None:
    """A resumed session would skip the checks of chain and name (TLS-09, measured)."""
    server = serve(connections=20)
    for _ in range(10):
        with mailer(server) as mine:
            mine.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
    server.joined()
    assert len(server.connections) == 10
    assert server.tls is not None
    assert server.tls.session_stats()["hits"] == 0


REPLIES = (b"250-first\r\n250 last\r\n", b"250 only\r\n")


@pytest.mark.parametrize("ending", ["close", "cut", "reset"])
@pytest.mark.parametrize("reply", REPLIES, ids=["two lines", "one line"])
def test_half_a_reply_is_no_reply(
    serve: Serve, mailer: Mailer, positions: Positions, reply: bytes, ending: Ending
) -> None:
    """However the session ends, and after whichever octet of the reply, it is not a success (TLS-10, RPL-01)."""
    for count in positions(len(reply)):

        def truncates(peer: Peer, content: bytes, count: int = count) -> bytes:
            peer.send(reply[:count])
            getattr(peer, ending)()
            return b"221 gone\r\n"

        server = serve(honest(replies={"CONTENT": truncates}))
        mine = mailer(server)
        with pytest.raises(SecureSMTPError) as caught:
            mine.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
        assert caught.value.outcome is Outcome.UNKNOWN, count
        mine.close()
        server.stop()


def _greeted(peer: Peer, mode: Mode) -> None:
    """Play up to the client's ClientHello, and read that."""
    if mode == "starttls":
        peer.send(b"220 hi\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250 STARTTLS\r\n")
        peer.expect(b"STARTTLS")
        peer.send(b"220 go\r\n")
    peer.read_some()


def test_a_broken_record_in_a_handshake_is_not_taken_for_plaintext(serve: Serve, mailer: Mailer, mode: Mode) -> None:
    """The error suggests neither the other mode nor a downgrade: OpenSSL 3.6 reports all such faults alike."""

    def breaks(peer: Peer) -> None:
        _greeted(peer, mode)
        # A TLS record that is longer than the maximum.
        peer.send(b"\x16\x03\x03\xff\xff" + b"x" * 100)
        peer.cut()

    with pytest.raises(TLSError, match="the TLS handshake failed") as caught:
        mailer(serve(breaks), tls=mode).check()
    assert type(caught.value) is TLSError


def test_a_handshake_that_is_cut_is_a_lost_connection(serve: Serve, mailer: Mailer, mode: Mode) -> None:
    """
    Not a refused handshake: it may be retried, and no hint suggests another TLS version.

    An end without close_notify says nothing about what the peer supports (RFC 8446 §6.1).
    """

    def cuts(peer: Peer) -> None:
        _greeted(peer, mode)
        peer.cut()

    with pytest.raises(ConnectError) as caught:
        mailer(serve(cuts), tls=mode).check()
    assert (caught.value.stage, caught.value.outcome) == (Stage.HANDSHAKE, Outcome.NOT_SENT)
    assert caught.value.retryable
    assert caught.value.hint is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is not installed")
def test_a_renegotiation_ends_the_session(
    make_mailer: Mailer, ca: trustme.CA, ca_file: Path, tmp_path: Path, message: EmailMessage
) -> None:
    """A TLS 1.2 server that asks for renegotiation gets neither that nor a command (TLS-06, RFC 9325 §3.5)."""
    leaf = ca.issue_cert("localhost")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(tmp_path / "server.pem"), "-tls1_2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            while b"ACCEPT" not in server.stdout.readline():
                pass
            # A line that starts with "r" makes s_server renegotiate.
            asking = threading.Timer(0.5, lambda: (server.stdin.write(b"r\n"), server.stdin.flush()))  # type: ignore[union-attr]
            asking.start()
            with make_mailer("localhost", port, ca_file=ca_file, timeout=5) as mailer:
                began = time.monotonic()
                with pytest.raises((ConnectError, TLSError)):
                    mailer.send(message)
            # The refusal ended the session, not the time limit.
            assert time.monotonic() - began < 4
            asking.join()
        finally:
            server.kill()
            said = server.stdout.read()
    assert b"EHLO" not in said


def test_no_client_certificate_is_sent_that_the_policy_does_not_have(
    serve: Serve, make_mailer: Mailer, ca: trustme.CA, ca_file: Path, message: EmailMessage
) -> None:
    """A server that asks for one gets none (TLS-13)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    seen: list[object] = []

    def looks(peer: Peer, line: bytes) -> bytes:
        assert peer.tls is not None
        seen.append(peer.tls.getpeercert())
        return b"250 mx.test\r\n"

    server = serve(honest(replies={"EHLO": looks}), tls=context)
    with make_mailer("localhost", server.port, ca_file=ca_file) as mailer:
        mailer.send(message)
    assert seen == [None]
