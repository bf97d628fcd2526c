"""TLS in bounded steps: how much one call reads, and how a record is written."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from securesmtp import ProtocolError, TLSPolicy
from securesmtp._transport import tls_records
from securesmtp._transport.tls import build_context, wrap
from securesmtp._transport.tls_records import RecordLayer

STEP = 16384
# More than the limit, at about 250 bytes each.
TICKETS = 1500


class _Server:
    """The server end of TLS; its output is returned, and the test decides when to send it."""

    def __init__(self, sock: socket.socket, ca: trustme.CA, tickets: int) -> None:
        self.sock = sock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(context)
        context.num_tickets = tickets
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def read_socket(self) -> None:
        """Read everything that the client has written so far."""
        with suppress(BlockingIOError):
            while data := self.sock.recv(65536):
                self._incoming.write(data)

    def handshake(self) -> bytes:
        """Continue the handshake, and return the bytes to send."""
        self.read_socket()
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def read(self) -> bytes:
        """Return the application data received so far."""
        self.read_socket()
        received = b""
        with suppress(ssl.SSLWantReadError):
            while data := self.tls.read(65536):
                received += data
        return received

    def encrypt(self, data: bytes) -> bytes:
        """Return one record with *data*."""
        self.tls.write(data)
        return self._outgoing.read()


Ends = tuple[RecordLayer, socket.socket, _Server]


@pytest.fixture
def ends(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Return both ends before the handshake; the test's parameter is the number of session tickets to send."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.settimeout(0)
            # Room for all tickets.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        context = build_context(TLSPolicy(ca_data=ca.cert_pem.bytes().decode()))
        yield wrap(context, ours, "localhost"), ours, _Server(theirs, ca, getattr(request, "param", 0))


with_tickets = pytest.mark.parametrize("ends", [pytest.param(TICKETS, id="tickets")], indirect=True)


def _do_handshake(ends: Ends) -> bytes:
    """Complete the handshake, and return the tickets that the server would send after it."""
    records, _, server = ends
    with pytest.raises(ssl.SSLWantReadError):
        records.do_handshake()
    server.sock.sendall(server.handshake())
    records.do_handshake()
    return server.handshake()


def _broken(record: bytes) -> bytes:
    """Return *record* with another last byte."""
    return record[:-1] + bytes((record[-1] ^ 1,))


def _fill(sock: socket.socket) -> int:
    """Write until the socket accepts no more, and return the number of bytes."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            count += sock.send(b"x" * STEP)
    return count


def _drain(sock: socket.socket, count: int) -> None:
    while count:
        count -= len(sock.recv(count))


@with_tickets
def test_one_call_reads_the_socket_once(ends: Ends) -> None:
    """Whatever the records are and however many: the caller checks its time limit between two calls."""
    records, ours, server = ends
    flood = _do_handshake(ends)[: 4 * STEP]
    server.sock.sendall(flood)
    with pytest.raises(ssl.SSLWantReadError):
        records.recv(STEP)
    assert len(ours.recv(len(flood))) == len(flood) - STEP


def test_a_handshake_reads_the_socket_once(ends: Ends) -> None:
    """A handshake message may be long too, and arrive in many records."""
    records, ours, server = ends
    with pytest.raises(ssl.SSLWantReadError):
        records.do_handshake()
    # The beginning of a handshake message of 60 000 bytes, like one with certificates, in four records.
    server.sock.sendall((b"\x16\x03\x03\x3f\xfb" + b"\x02\x00\xea\x60".ljust(0x3FFB, b"\0")) * 4)
    with pytest.raises(ssl.SSLError):
        records.do_handshake()
    assert len(ours.recv(4 * STEP)) == 3 * STEP


@with_tickets
def test_a_complete_reply_restarts_the_count(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are counted per reply; the caller, which parses replies, says when one is complete."""
    records, _, server = ends
    flood = _do_handshake(ends) + server.encrypt(b"250 one\r\n")
    # The handshake counts too; exactly the limit is allowed.
    monkeypatch.setattr(tls_records, "_MAX_BYTES_PER_REPLY", records._bytes_since_reply + len(flood))
    server.sock.sendall(flood)
    received = b""
    while not received:
        with suppress(ssl.SSLWantReadError):
            received = records.recv(STEP)
    assert received == b"250 one\r\n"
    for _ in range(4):
        records.reset_byte_count()
        server.sock.sendall(server.encrypt(b"x" * (STEP // 2)))
        assert records.recv(STEP) == b"x" * (STEP // 2)
    monkeypatch.setattr(tls_records, "_MAX_BYTES_PER_REPLY", records._bytes_since_reply)
    server.sock.sendall(server.encrypt(b"x"))
    with pytest.raises(ProtocolError, match="without a complete reply"):
        records.recv(STEP)


class _KeyUpdates:
    """The server's records, encrypted here (RFC 8446 §5.2, §7.2): Python's `ssl` cannot request a key update."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._derive_keys()

    def _derive_keys(self) -> None:
        self._aead, self._iv, self._count = AESGCM(self._expand(b"key", 32)), self._expand(b"iv", 12), 0

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
        return HKDFExpand(SHA384(), size, info).derive(self._secret)

    def encrypt(self, data: bytes, content_type: int = 0x17) -> bytes:
        """Return one record with *data*, by default of type application_data."""
        nonce = (int.from_bytes(self._iv, "big") ^ self._count).to_bytes(12, "big")
        self._count += 1
        header = b"\x17\x03\x03" + (len(data) + 17).to_bytes(2, "big")
        return header + self._aead.encrypt(nonce, data + bytes((content_type,)), header)

    def key_update(self, *, update_requested: bool) -> bytes:
        """Return a KeyUpdate message; the client must respond to it if *update_requested* (RFC 8446 §4.6.3)."""
        record = self.encrypt(b"\x18\0\0\x01" + bytes((update_requested,)), 0x16)
        self._secret = self._expand(b"traffic upd", 48)
        self._derive_keys()
        return record


def _key_updates(ends: Ends, folder: Path) -> _KeyUpdates:
    _, _, server = ends
    server.tls.context.keylog_filename = str(folder / "keys")
    _do_handshake(ends)
    assert server.tls.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
    lines = (line.split() for line in (folder / "keys").read_text().splitlines())
    (secret,) = (bytes.fromhex(line[2]) for line in lines if line[0] == "SERVER_TRAFFIC_SECRET_0")
    return _KeyUpdates(secret)


def test_one_byte_of_a_reply_does_not_restart_the_count(ends: Ends, tmp_path: Path) -> None:
    """A server cannot continue forever with key updates and now and then one byte of a reply."""
    records, _, server = ends
    updates = _key_updates(ends, tmp_path)
    received = b""

    def read() -> None:
        nonlocal received
        while len(received) < 1000:
            server.sock.sendall(
                b"".join(updates.key_update(update_requested=False) for _ in range(100)) + updates.encrypt(b"2")
            )
            received += records.recv(STEP)

    with pytest.raises(ProtocolError, match="without a complete reply"):
        read()
    assert 10 < len(received) < 200


@pytest.mark.parametrize("reads", [False, True], ids=["reads none", "reads them"])
@pytest.mark.parametrize("in_record", [False, True], ids=["between records", "in a record"])
def test_unread_tls_responses_are_bounded(ends: Ends, tmp_path: Path, *, reads: bool, in_record: bool) -> None:
    """A key update requires a response (RFC 8446 §4.6.3); a server that reads none must not fill the memory."""
    records, ours, server = ends
    updates = _key_updates(ends, tmp_path)
    if in_record:
        _start_record(ends, memoryview(bytes(STEP)))
    elif not reads:
        _fill(ours)
    most, received = 0, b""

    def request_updates() -> None:
        nonlocal received, most
        for _ in range(100):
            server.sock.sendall(
                b"".join(updates.key_update(update_requested=True) for _ in range(100)) + updates.encrypt(b"250 ok\r\n")
            )
            received += records.recv(STEP)
            # As the caller does after each reply.
            records.reset_byte_count()
            most = max(most, records._outgoing.pending + len(records._unsent))
            if reads:
                server.read_socket()
                if in_record:
                    with suppress(BlockingIOError):
                        records.send(records._pending_plaintext)

    if reads:
        request_updates()
        assert received == b"250 ok\r\n" * 100
    else:
        with pytest.raises(ProtocolError, match="reads none of them"):
            request_updates()
    assert most < 1 << 17


def test_nothing_is_written_after_a_failed_write(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest, no TLS response, no alert; data that has arrived is still read (RFC 5321 §3.8)."""
    records, ours, server = ends
    _do_handshake(ends)
    server.sock.sendall(server.encrypt(b"250 ok\r\n") + _broken(server.encrypt(b"421 bye\r\n")))
    writes: list[int] = []

    class Broken:
        """A socket that can be read but not written."""

        def recv(self, size: int) -> bytes:
            return ours.recv(size)

        def send(self, data: memoryview) -> int:
            writes.append(len(data))
            raise BrokenPipeError

    monkeypatch.setattr(records, "_sock", Broken())
    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            records.send(memoryview(b"NOOP\r\n"))
        records._pending_plaintext = memoryview(b"")
    assert records.recv(STEP) == b"250 ok\r\n"
    # OpenSSL makes an alert, which is not written.
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac|record layer failure"):
        records.recv(STEP)
    assert len(writes) == 1


def test_a_partial_record_is_completed_from_the_socket(ends: Ends) -> None:
    """If the buffer holds half a record, the same call reads the other half, so no received data is missed."""
    records, _, server = ends
    _do_handshake(ends)
    one, two = server.encrypt(b"250 one\r\n"), server.encrypt(b"250 two\r\n")
    server.sock.sendall(one + two[:-3])
    assert records.recv(STEP) == b"250 one\r\n"
    server.sock.sendall(two[-3:])
    assert records.recv(STEP) == b"250 two\r\n"


def test_pending_counts_buffered_bytes(ends: Ends) -> None:
    """`select` does not see them: a second record that arrived with the first, and the unread half of a record."""
    records, _, server = ends
    _do_handshake(ends)
    server.sock.sendall(server.encrypt(b"250 one\r\n") + server.encrypt(b"250 two\r\n"))
    assert (records.recv(STEP), records.pending() > 0) == (b"250 one\r\n", True)
    assert (records.recv(4), records.pending()) == (b"250 ", 5)
    assert (records.recv(STEP), records.pending()) == (b"two\r\n", 0)
    with pytest.raises(BlockingIOError):
        records.recv(STEP)


def test_a_handshake_waits_until_the_socket_accepts_more(ends: Ends) -> None:
    """Then it continues with the rest of its output."""
    records, ours, server = ends
    junk = _fill(ours)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            records.do_handshake()
    _drain(server.sock, junk)
    _do_handshake(ends)


def test_a_record_is_encrypted_once_however_often_it_is_tried(ends: Ends) -> None:
    """Until the record is completely written, other data is refused."""
    records, ours, server = ends
    _do_handshake(ends)
    junk = _fill(ours)
    line = memoryview(b"NOOP\r\n")
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            records.send(line)
    for other in (memoryview(b"QUIT\r\n"), line[:-1]):
        with pytest.raises(ValueError, match="not completely written"):
            records.send(other)
    _drain(server.sock, junk)
    assert records.send(line) == len(line)
    assert records.send(memoryview(b"RSET\r\n")) == 6
    assert server.read() == b"NOOP\r\nRSET\r\n"


def test_a_record_is_completed_when_the_socket_accepts_it_in_parts(ends: Ends) -> None:
    """The server can read everything that `send` reports as written."""
    records, ours, server = ends
    _do_handshake(ends)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    received, waited = b"", 0
    block = memoryview(bytes(range(256)) * (STEP // 256))
    for _ in range(3):
        sent = 0
        while not sent:
            try:
                sent = records.send(block)
            except BlockingIOError:
                waited += 1
                received += server.read()
        assert sent == STEP
    received += server.read()
    assert waited
    assert received == bytes(block) * 3


def _start_record(ends: Ends, data: memoryview) -> None:
    """Write part of a record until the socket blocks, then make room in it."""
    records, ours, server = ends
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with pytest.raises(BlockingIOError):
        records.send(data)
    server.read_socket()


@pytest.mark.parametrize("ends", [pytest.param(3, id="three tickets")], indirect=True)
@pytest.mark.parametrize("broken", [False, True], ids=["tickets", "a broken record"])
def test_only_send_writes_the_rest_of_a_record(ends: Ends, *, broken: bool) -> None:
    """Otherwise the server could receive data that was not counted as written."""
    records, _, server = ends
    tickets = _do_handshake(ends)
    _start_record(ends, memoryview(bytes(STEP)))
    server.sock.sendall(_broken(tickets) if broken else tickets)
    with pytest.raises(ssl.SSLError):
        records.recv(STEP)
    with pytest.raises(BlockingIOError):
        server.sock.recv(1)


def test_a_record_counts_as_written_without_the_tls_messages_after_it(ends: Ends) -> None:
    """TLS's own messages after the record can wait."""
    records, _, server = ends
    _do_handshake(ends)
    block = memoryview(bytes(STEP))
    _start_record(ends, block)
    # Like the response to a key update.
    records._outgoing.write(b"more")
    received, sent = b"", 0
    while not sent:
        with suppress(BlockingIOError):
            sent = records.send(block)
        received += server.read()
    assert (received, records._outgoing.pending) == (bytes(block), 4)


def test_a_record_follows_earlier_tls_messages(ends: Ends) -> None:
    """Such as the end of a handshake that the socket did not accept yet."""
    records, ours, server = ends
    with pytest.raises(ssl.SSLWantReadError):
        records.do_handshake()
    server.sock.sendall(server.handshake())
    junk = _fill(ours)
    line = memoryview(b"EHLO x\r\n")
    with pytest.raises(BlockingIOError):
        records.do_handshake()
    with pytest.raises(BlockingIOError):
        records.send(line)
    _drain(server.sock, junk)
    assert records.send(line) == len(line)
    server.handshake()
    assert server.read() == line


def test_a_failure_is_reported_to_the_server(ends: Ends) -> None:
    """By a TLS alert, which its log may show."""
    records, _, server = ends
    _do_handshake(ends)
    server.sock.sendall(_broken(server.encrypt(b"250 ok\r\n")))
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac|record layer failure"):
        records.recv(STEP)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        server.read()


def test_the_failure_is_raised_even_if_the_alert_cannot_be_written(ends: Ends) -> None:
    """The server is gone or no longer reads."""
    records, ours, server = ends
    _do_handshake(ends)
    _fill(ours)
    server.sock.sendall(_broken(server.encrypt(b"250 ok\r\n")))
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac|record layer failure"):
        records.recv(STEP)


def test_an_end_without_close_notify_is_an_error(ends: Ends) -> None:
    """Every time: an attacker may have cut the connection (RFC 8446 §6.1)."""
    records, _, server = ends
    _do_handshake(ends)
    server.sock.sendall(server.encrypt(b"250 ok\r\n"))
    server.sock.shutdown(socket.SHUT_WR)
    assert records.recv(STEP) == b"250 ok\r\n"
    for _ in range(2):
        with pytest.raises(ssl.SSLEOFError):
            records.recv(STEP)


@with_tickets
def test_endless_tickets_are_an_error(ends: Ends) -> None:
    """By their size alone, long before a time limit."""
    records, _, server = ends
    server.sock.sendall(_do_handshake(ends))
    for _ in range((1 << 18) // STEP - 1):
        with suppress(ssl.SSLWantReadError):
            records.recv(STEP)
    with pytest.raises(ProtocolError, match="keeps sending TLS records"):
        records.recv(STEP)
