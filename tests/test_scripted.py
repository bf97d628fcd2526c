"""Tests of the scripted server and the certificates, on which the attack tests rely."""

from __future__ import annotations

import base64
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from certificates import GOOD, TABLE, Row, ServerCertificate
from conftest import Positions
from scripted import Accepted, Chunking, Ending, Peer, ScriptedServer, Unexpected, honest

_SERVER = GOOD.certificate.context()
# Codes 2 and 20 both mean that no chain leads to a trusted root.
_VERIFY_CODES = {
    "ok": {0},
    "untrusted": {2, 20},
    "self_signed": {18},
    "expired": {10},
    "not_yet_valid": {9},
    "name_mismatch": {62, 64},
    "purpose": {26},
    "weak_key": {66},
    "strict": {85},
}
_TRANSACTION = (
    b"EHLO me\r\n",
    b"MAIL FROM:<a@x.test>\r\n",
    b"RCPT TO:<b@x.test>\r\n",
    b"DATA\r\n",
    b"Subject: s\r\n\r\n..x\r\n.\r\n",
    b"QUIT\r\n",
)
_ACCEPTED = Accepted(
    mail_from=b"MAIL FROM:<a@x.test>",
    recipients=(b"RCPT TO:<b@x.test>",),
    content=b"Subject: s\r\n\r\n.x\r\n",
    wire=b"Subject: s\r\n\r\n..x\r\n.\r\n",
)


def _client_context(row: Row) -> ssl.SSLContext:
    """Make a careful client's context without the library: this file tests the servers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.hostname_checks_common_name = False
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=row.trust.decode())
    return context


_CLIENT = _client_context(GOOD)


def _connect(server: ScriptedServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 5)


def _secure(plain: socket.socket, context: ssl.SSLContext = _CLIENT, host: str = "localhost") -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False)


@contextmanager
def _tls_client(server: ScriptedServer) -> Iterator[ssl.SSLSocket]:
    with _connect(server) as plain, _secure(plain) as sock:
        yield sock


def _reply(sock: socket.socket) -> bytes:
    """Read octets until a line has a space after its code."""
    got = b""
    while not got.endswith(b"\r\n") or got.split(b"\r\n")[-2][3:4] == b"-":
        data = sock.recv(65536)
        if not data:
            raise EOFError(got)
        got += data
    return got


def _say(sock: socket.socket, *lines: bytes) -> list[bytes]:
    replies = []
    for line in lines:
        sock.sendall(line)
        replies.append(_reply(sock))
    return replies


def _session(server: ScriptedServer) -> bool:
    """Run a whole session; return True if it reached its end."""
    try:
        with _tls_client(server) as sock:
            _reply(sock)
            _say(sock, *_TRANSACTION)
    except (OSError, EOFError):
        return False
    return True


def _forges_a_line(peer: Peer) -> None:
    peer.send(b"220 mx.test ESMTP\r\n")
    peer.expect(b"EHLO")
    peer.send(b"250-mx.test\r\n250 STARTTLS\r\n")
    peer.expect(b"STARTTLS")
    peer.send(b"220 go\r\n250-INJECTED\r\n")
    peer.start_tls()
    peer.expect(b"EHLO")
    peer.close()


def test_octets_are_logged_by_phase() -> None:
    """Octets before TLS are in `plain`, those inside it in `secret`, and an injected line reaches the client."""
    with ScriptedServer(_forges_a_line, tls=_SERVER) as server:
        with _connect(server) as plain:
            _reply(plain)
            _say(plain, b"EHLO me\r\n")
            plain.sendall(b"STARTTLS\r\n")
            assert plain.recv(100) == b"220 go\r\n250-INJECTED\r\n"
            with _secure(plain) as sock:
                sock.sendall(b"EHLO again\r\n")
                assert sock.recv(1) == b""
        server.joined()
    assert (server.plain, server.raw, server.secret) == (b"EHLO me\r\nSTARTTLS\r\n", b"", b"EHLO again\r\n")
    assert server.connections[0].finished


def test_a_client_hello_on_a_plaintext_script_is_raw() -> None:
    """A ClientHello instead of a line is logged in `raw` and ends the script without failure."""
    with ScriptedServer(honest("starttls"), tls=_SERVER) as server:
        with _connect(server) as plain, pytest.raises(ssl.SSLError):
            _secure(plain)
        server.joined()
    assert server.plain == b""
    assert server.raw.startswith(b"\x16\x03")
    assert server.connections[0].client == "client_hello"


def test_plaintext_on_a_tls_script_is_plain() -> None:
    """Plaintext instead of a ClientHello is logged in `plain`."""
    with ScriptedServer(honest(), tls=_SERVER) as server:
        with _connect(server) as plain:
            plain.sendall(b"EHLO me\r\n")
            assert plain.recv(1) == b""
        server.joined()
    assert server.plain == b"EHLO me\r\n"
    assert server.connections[0].client == "plaintext"


@pytest.mark.parametrize(("chunking", "reads"), [("whole", 1), ("by_line", 2), ("by_byte", 16)])
def test_a_reply_is_sent_whole_by_line_or_by_byte(chunking: Chunking, reads: int) -> None:
    """Inside TLS each piece is its own record, so that a client's read returns one piece."""

    def greets(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220-one\r\n220 2\r\n")

    with ScriptedServer(greets, tls=_SERVER, chunking=chunking) as server, _tls_client(server) as sock:
        pieces = list(iter(lambda: sock.recv(100), b""))
    assert b"".join(pieces) == b"220-one\r\n220 2\r\n"
    assert len(pieces) == reads


def test_a_failed_expectation_is_raised_in_the_test() -> None:
    """It is raised at the end of the `with` block."""
    server = ScriptedServer(lambda peer: peer.expect(b"EHLO"))
    with _connect(server) as sock:
        sock.sendall(b"HELO me\r\n")
        server.joined()
    with pytest.raises(Unexpected, match="begins with b'EHLO', got b'HELO me'"), server:
        pass


def test_a_mistake_in_a_script_is_raised_in_the_test() -> None:
    """An exception in the script's thread is not lost."""

    def mistaken(peer: Peer) -> None:
        # After the client has written: a reset while it connects would be another error.
        peer.read_some()
        raise ZeroDivisionError

    server = ScriptedServer(mistaken)
    with _connect(server) as client:
        client.sendall(b"x")
        server.joined()
    with pytest.raises(ZeroDivisionError), server:
        pass


def test_a_failure_is_noted_on_the_tests_own_error() -> None:
    """If the test fails too, its error is raised, with a note about the script's failure."""

    def mistaken(peer: Peer) -> None:
        peer.read_some()
        raise ZeroDivisionError

    server = ScriptedServer(mistaken)
    with _connect(server) as client:
        client.sendall(b"x")
        server.joined()
    with pytest.raises(LookupError) as caught, server:
        raise LookupError
    assert "ZeroDivisionError" in caught.value.__notes__[0]


def test_a_client_that_leaves_is_not_a_failure() -> None:
    """The script ends, and the log says how the client left."""
    with ScriptedServer(lambda peer: peer.expect(b"EHLO")) as server:
        _connect(server).close()
        server.joined()
    assert server.connections[0].client == "eof"
    assert not server.connections[0].finished


def test_a_silent_client_fails_the_script_after_the_timeout() -> None:
    """A client that does nothing takes no longer than the timeout."""
    start = time.monotonic()
    with (
        pytest.raises(Unexpected, match="the client did nothing"),
        ScriptedServer(lambda peer: peer.expect(b"EHLO"), timeout=0.1) as server,
        _connect(server),
    ):
        server.joined(2)
    assert time.monotonic() - start < 2


def test_the_block_ends_even_if_a_client_stays() -> None:
    """A client that keeps its connection open is cut off at the end of the block, without failure."""
    with ScriptedServer(honest("starttls"), tls=_SERVER) as server:
        sock = _connect(server)
        _reply(sock)
        with pytest.raises(Unexpected, match="still open"):
            server.joined(0.05)
    assert sock.recv(1) == b""
    sock.close()


def test_octets_after_the_servers_end_are_logged_as_late() -> None:
    """What a client writes after the server's close_notify is decrypted, and is in `secret` and in `late`."""
    written = threading.Event()

    def leaves(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"421 bye\r\n")
        # Includes what has arrived when the server closes, which SSLSocket.unwrap would discard.
        written.wait(5)
        peer.close()

    with ScriptedServer(leaves, tls=_SERVER) as server:
        with _tls_client(server) as sock:
            _reply(sock)
            sock.sendall(b"RSET\r\n")
            written.set()
            assert sock.recv(1) == b""
            sock.sendall(b"QUIT\r\n")
        server.joined()
    assert server.secret == b"RSET\r\nQUIT\r\n"
    assert server.connections[0].late == b"RSET\r\nQUIT\r\n"


@pytest.mark.parametrize("how", ["close", "cut", "reset"])
def test_three_ways_to_end_a_plain_connection(how: Ending) -> None:
    """In plaintext, `close` and `cut` send FIN, `reset` sends RST."""

    def ends(peer: Peer) -> None:
        peer.expect(b"EHLO")
        getattr(peer, how)()

    with ScriptedServer(ends) as server:
        with _connect(server) as sock:
            sock.sendall(b"EHLO me\r\n")
            with pytest.raises(ConnectionResetError) if how == "reset" else nullcontext():
                assert sock.recv(1) == b""
        server.joined()
    assert server.connections[0].finished


@pytest.mark.parametrize("how", ["close", "cut", "reset"])
def test_three_ways_to_end_a_tls_connection(how: Ending) -> None:
    """Inside TLS, only `close` sends close_notify; Python 3.11 and 3.12 cannot tell a reset from a cut."""

    def ends(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 hi\r\n")
        peer.expect(b"EHLO")
        getattr(peer, how)()

    with ScriptedServer(ends, tls=_SERVER) as server:
        with _tls_client(server) as sock:
            _reply(sock)
            sock.sendall(b"EHLO me\r\n")
            # Python 3.11.2 raises the base class of SSLEOFError.
            with nullcontext() if how == "close" else pytest.raises((ssl.SSLError, ConnectionResetError)):
                assert sock.recv(1) == b""
        server.joined()
    assert server.connections[0].finished


@pytest.mark.parametrize("how", ["close_notify", "eof", "reset"])
@pytest.mark.parametrize("first", ["client", "server"])
def test_the_log_says_how_the_client_ended(how: str, first: str) -> None:
    """By close_notify, by FIN alone or by RST, before the server's end or after it."""

    def greets(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 hi\r\n")
        if first == "client":
            peer.sleep_until_peer_closes()

    with ScriptedServer(greets, tls=_SERVER) as server:
        with _tls_client(server) as sock:
            _reply(sock)
            if first == "server":
                assert sock.recv(1) == b""
            if how == "close_notify":
                # Waits for the server's close_notify.
                sock.unwrap()
            elif how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.joined()
    assert server.connections[0].client == how


def test_expect_silence_fails_if_the_client_writes() -> None:
    """`expect_silence` passes while nothing comes, and fails on the first octet."""

    def waits(peer: Peer) -> None:
        peer.expect_silence(0.02)
        peer.send(b"220 hi\r\n")
        peer.expect_silence(5)

    server = ScriptedServer(waits)
    with _connect(server) as sock:
        assert _reply(sock) == b"220 hi\r\n"
        sock.sendall(b"x")
        server.joined()
    with pytest.raises(Unexpected, match="expected silence, got b'x'"), server:
        pass


def test_a_drip_sends_one_octet_per_interval() -> None:
    """So a drip of several octets takes as many intervals."""
    start = time.monotonic()
    with ScriptedServer(lambda peer: peer.drip(b"220 x", 0.02)) as server, _connect(server) as sock:
        assert b"".join(iter(lambda: sock.recv(1), b"")) == b"220 x"
    assert time.monotonic() - start >= 0.08


@pytest.mark.parametrize("chunking", ["whole", "by_line", "by_byte"])
@pytest.mark.parametrize("mode", ["implicit", "starttls"])
def test_an_honest_session(mode: str, chunking: Chunking) -> None:
    """A correct client is served in both modes; `accepted` has its message unstuffed and as it was written."""
    script = honest("implicit" if mode == "implicit" else "starttls", auth=("me", "secret"))
    plain_login = b"AUTH PLAIN " + base64.b64encode(b"\0me\0secret") + b"\r\n"
    with ScriptedServer(script, tls=_SERVER, chunking=chunking) as server:
        with _connect(server) as sock:
            if mode == "starttls":
                _reply(sock)
                offer, _ = _say(sock, b"EHLO me\r\n", b"STARTTLS\r\n")
                assert b"STARTTLS" in offer
                assert b"AUTH" not in offer
            with _secure(sock) as inside:
                if mode == "implicit":
                    _reply(inside)
                offer, welcome = _say(inside, b"EHLO me\r\n", plain_login)
                assert b"AUTH PLAIN LOGIN" in offer
                assert b"STARTTLS" not in offer
                assert welcome.startswith(b"235")
                codes = [reply[:3] for reply in _say(inside, *_TRANSACTION)]
                assert codes == [b"250", b"250", b"250", b"354", b"250", b"221"]
                assert inside.recv(1) == b""
        server.joined()
    assert server.accepted == [_ACCEPTED]


def test_an_honest_login() -> None:
    """LOGIN succeeds; a wrong password, a cancelled login and a message without login are refused."""
    user, password = base64.b64encode(b"me") + b"\r\n", base64.b64encode(b"secret") + b"\r\n"
    with ScriptedServer(honest(auth=("me", "secret")), tls=_SERVER) as server, _tls_client(server) as sock:
        _reply(sock)
        refused = _say(sock, b"AUTH PLAIN\r\n", b"*\r\n", b"AUTH PLAIN AGIAYg==\r\n", b"MAIL FROM:<a@x.test>\r\n")
        welcome = _say(sock, b"AUTH LOGIN\r\n", user, password, b"MAIL FROM:<a@x.test>\r\n")
    assert [reply[:3] for reply in refused] == [b"334", b"501", b"535", b"530"]
    assert [reply[:3] for reply in welcome] == [b"334", b"334", b"235", b"250"]


def test_an_honest_server_acts_on_its_replies() -> None:
    """A fixed or computed reply decides the state of the transaction."""
    picky = honest(replies={"RCPT": lambda _, line: b"550 no\r\n" if b"bad" in line else b"250 ok\r\n"})
    with ScriptedServer(picky, tls=_SERVER) as server, _tls_client(server) as sock:
        _reply(sock)
        _say(sock, _TRANSACTION[1], b"RCPT TO:<bad@x.test>\r\n", *_TRANSACTION[2:])
    assert server.accepted == [_ACCEPTED]
    with ScriptedServer(honest(replies={"CONTENT": b"452 full\r\n"}), tls=_SERVER) as server:
        assert _session(server)
    assert server.accepted == []


def test_an_honest_server_takes_chunks_and_a_command_group() -> None:
    """BDAT is read by its count, whatever its content; all commands that came in one write get replies."""
    group = _TRANSACTION[1] + _TRANSACTION[2] + b"BDAT 5\r\na\r\n.\rBDAT 1 LAST\r\n\n"
    with ScriptedServer(honest(extensions=("CHUNKING",)), tls=_SERVER) as server, _tls_client(server) as sock:
        _reply(sock)
        sock.sendall(group)
        got = b""
        while b"queued" not in got:
            got += sock.recv(1000)
    assert [line[:3] for line in got.splitlines()] == [b"250"] * 4
    assert server.accepted[0].content == b"a\r\n.\r\n"
    with ScriptedServer(honest(), tls=_SERVER) as server, _tls_client(server) as sock:
        _reply(sock)
        assert _say(sock, b"BDAT 0 LAST\r\n")[0].startswith(b"500")


def test_an_empty_content_is_read() -> None:
    """The final dot may follow the DATA line at once."""
    with ScriptedServer(honest(), tls=_SERVER) as server, _tls_client(server) as sock:
        _reply(sock)
        _say(sock, *_TRANSACTION[1:4], b".\r\n")
    assert (server.accepted[0].content, server.accepted[0].wire) == (b"", b".\r\n")


@pytest.mark.parametrize("how", ["close", "cut", "reset"])
def test_a_session_is_cut_at_every_octet(positions: Positions, how: Ending) -> None:
    """Each cut is at its octet, and a message is accepted when its reply starts, or was about to start."""
    with ScriptedServer(honest(), tls=_SERVER) as whole:
        assert _session(whole)
        whole.joined()
    log = whole.connections[0]
    answered = log.written - len(b"250 2.0.0 queued\r\n221 2.0.0 bye\r\n")
    for octet in positions(log.written):
        with ScriptedServer(honest(), tls=_SERVER, cut_after_written=octet, cut_with=how) as server:
            assert not _session(server)
            server.joined()
        assert server.connections[0].written == octet
        # At `answered` itself, the last octet of the 354, the cut comes before the message.
        assert len(server.accepted) == (octet > answered)
    for octet in positions(log.read + 1):
        with ScriptedServer(honest(), tls=_SERVER, cut_after_read=octet, cut_with=how) as server:
            assert not _session(server)
            server.joined()
        assert server.connections[0].read - len(server.connections[0].late) == octet
        # At the content's last octet the cut comes before the server has decided.
        assert len(server.accepted) == (octet > log.read - len(b"QUIT\r\n"))


def test_connections_have_their_own_scripts_and_logs() -> None:
    """The first connection has the first script, all later ones the last; the port closes at the limit."""
    scripts = (lambda peer: peer.send(b"first"), lambda peer: peer.send(b"later"))
    with ScriptedServer(*scripts, connections=3) as server:
        said = []
        for _ in range(3):
            with _connect(server) as sock:
                said.append(b"".join(iter(lambda: sock.recv(10), b"")))
        server.joined()
        with pytest.raises(ConnectionRefusedError):
            _connect(server)
    assert said == [b"first", b"later", b"later"]
    assert len(server.connections) == 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_a_careful_client_finds_what_the_table_says(row: Row, version: ssl.TLSVersion) -> None:
    """Each certificate has its defect, and no other that would be found first."""
    context = _client_context(row)
    context.maximum_version = version
    with ScriptedServer(Peer.start_tls, tls=row.certificate.context()) as server:
        code = 0
        try:
            with _connect(server) as plain, _secure(plain, context, row.host):
                pass
        except ssl.SSLCertVerificationError as error:
            code = error.verify_code
        server.joined()
    assert code in _VERIFY_CODES[row.expected]
    assert server.connections[0].client.startswith("tls: ") == (code != 0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (ServerCertificate.tls11_only_context, "TLSV1_ALERT_PROTOCOL_VERSION"),
        (ServerCertificate.cbc_only_context, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
    ],
)
def test_a_careful_client_fails_the_handshake_with_outdated_servers(make: object, reason: str) -> None:
    """The servers support TLS 1.1 only, or CBC suites only."""
    assert callable(make)
    context = make(GOOD.certificate)
    with ScriptedServer(Peer.start_tls, tls=context) as server:
        with _connect(server) as plain, pytest.raises(ssl.SSLError) as caught:
            _secure(plain)
        server.joined()
    assert caught.value.reason == reason


def test_outdated_servers_work_with_outdated_clients() -> None:
    """So the handshake fails because of the version or the suites, not because the servers are broken."""
    for context, version in (
        (GOOD.certificate.tls11_only_context(), "TLSv1.1"),
        (GOOD.certificate.cbc_only_context(), "TLSv1.2"),
    ):
        lax = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        lax.set_ciphers("ALL:@SECLEVEL=0")
        lax.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        lax.load_verify_locations(cadata=GOOD.trust.decode())
        with (
            ScriptedServer(Peer.start_tls, tls=context) as server,
            _connect(server) as plain,
            _secure(plain, lax) as sock,
        ):
            assert sock.version() == version
