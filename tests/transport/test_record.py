"""TLS a step at a time: what one call reads, and what is written of a record."""

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
from securesmtp._transport import record
from securesmtp._transport.record import RecordLayer
from securesmtp._transport.tls import build_context, wrap

STEP = 16384
# More than may come, at about 250 octets each.
TICKETS = 1500


class _Server:
    """The other end, which does only what it is told; what it has to say is kept until it is fetched."""

    def __init__(self, sock: socket.socket, ca: trustme.CA, tickets: int) -> None:
        self.sock = sock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(context)
        context.num_tickets = tickets
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def hear(self) -> None:
        """Take what the client wrote so far."""
        with suppress(BlockingIOError):
            while octets := self.sock.recv(65536):
                self._incoming.write(octets)

    def handshake(self) -> bytes:
        """Go on with the handshake, and return what is to be said."""
        self.hear()
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def read(self) -> bytes:
        """Return what came for the application."""
        self.hear()
        heard = b""
        with suppress(ssl.SSLWantReadError):
            while octets := self.tls.read(65536):
                heard += octets
        return heard

    def seal(self, octets: bytes) -> bytes:
        """Return these in a record."""
        self.tls.write(octets)
        return self._outgoing.read()


Ends = tuple[RecordLayer, socket.socket, _Server]


@pytest.fixture
def ends(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Make both ends, with nothing said; the server will send tickets where it is told to."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.settimeout(0)
            # Room for all the tickets.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        context = build_context(TLSPolicy(ca_data=ca.cert_pem.bytes().decode()))
        yield wrap(context, ours, "localhost"), ours, _Server(theirs, ca, getattr(request, "param", 0))


with_tickets = pytest.mark.parametrize("ends", [pytest.param(TICKETS, id="tickets")], indirect=True)


def _shaken(ends: Ends) -> bytes:
    """Do the handshake, and return the tickets that the server would send after it."""
    records, _, server = ends
    with pytest.raises(ssl.SSLWantReadError):
        records.do_handshake()
    server.sock.sendall(server.handshake())
    records.do_handshake()
    return server.handshake()


def _fill(sock: socket.socket) -> int:
    """Write until nothing more fits, and return how much that was."""
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
    """Whatever the records are, and however many: in between somebody looks at the limit."""
    records, ours, server = ends
    flood = _shaken(ends)[: 4 * STEP]
    server.sock.sendall(flood)
    with pytest.raises(ssl.SSLWantReadError):
        records.recv(STEP)
    assert len(ours.recv(len(flood))) == len(flood) - STEP


def test_a_handshake_reads_the_socket_once(ends: Ends) -> None:
    """Its messages may be long too, and come in many records."""
    records, ours, server = ends
    with pytest.raises(ssl.SSLWantReadError):
        records.do_handshake()
    # The beginning of a message of 60 000 octets, a certificate's kind, in four records.
    server.sock.sendall((b"\x16\x03\x03\x3f\xfb" + b"\x02\x00\xea\x60".ljust(0x3FFB, b"\0")) * 4)
    with pytest.raises(ssl.SSLError):
        records.do_handshake()
    assert len(ours.recv(4 * STEP)) == 3 * STEP


@with_tickets
def test_a_whole_reply_ends_the_count(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted is what comes up to it, and who parses replies says when that is."""
    records, _, server = ends
    flood = _shaken(ends) + server.seal(b"250 one\r\n")
    # The handshake counts, and as much as is allowed is.
    monkeypatch.setattr(record, "_MAX_BARREN", records._barren + len(flood))
    server.sock.sendall(flood)
    heard = b""
    while not heard:
        with suppress(ssl.SSLWantReadError):
            heard = records.recv(STEP)
    for _ in range(4):
        records.renew()
        server.sock.sendall(server.seal(b"x" * (STEP // 2)))
        assert records.recv(STEP) == b"x" * (STEP // 2)
    monkeypatch.setattr(record, "_MAX_BARREN", records._barren)
    server.sock.sendall(server.seal(b"x"))
    with pytest.raises(ProtocolError, match="no whole reply"):
        records.recv(STEP)


class _KeyUpdates:
    """The server's records, sealed here (RFC 8446 §5.2, §7.2): no server of Python asks for a key update."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._begin()

    def _begin(self) -> None:
        self._aead, self._iv, self._count = AESGCM(self._expand(b"key", 32)), self._expand(b"iv", 12), 0

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
        return HKDFExpand(SHA384(), size, info).derive(self._secret)

    def seal(self, octets: bytes, kind: int = 0x17) -> bytes:
        """Return one record; of the application, unless it is of another *kind*."""
        nonce = (int.from_bytes(self._iv, "big") ^ self._count).to_bytes(12, "big")
        self._count += 1
        header = b"\x17\x03\x03" + (len(octets) + 17).to_bytes(2, "big")
        return header + self._aead.encrypt(nonce, octets + bytes((kind,)), header)

    def update(self, *, answered: bool) -> bytes:
        """Return a key update, which the client has to answer or not (RFC 8446 §4.6.3)."""
        sealed = self.seal(b"\x18\0\0\x01" + bytes((answered,)), 0x16)
        self._secret = self._expand(b"traffic upd", 48)
        self._begin()
        return sealed


def _key_updates(ends: Ends, folder: Path) -> _KeyUpdates:
    _, _, server = ends
    server.tls.context.keylog_filename = str(folder / "keys")
    _shaken(ends)
    assert server.tls.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
    words = (line.split() for line in (folder / "keys").read_text().splitlines())
    (secret,) = (bytes.fromhex(line[2]) for line in words if line[0] == "SERVER_TRAFFIC_SECRET_0")
    return _KeyUpdates(secret)


def test_one_byte_of_a_reply_in_between_ends_no_count(ends: Ends, tmp_path: Path) -> None:
    """Key updates without end, and a byte of a reply now and then: a server must not go on so for ever."""
    records, _, server = ends
    updates = _key_updates(ends, tmp_path)
    heard = b""

    def read() -> None:
        nonlocal heard
        while len(heard) < 1000:
            server.sock.sendall(b"".join(updates.update(answered=False) for _ in range(100)) + updates.seal(b"2"))
            heard += records.recv(STEP)

    with pytest.raises(ProtocolError, match="no whole reply"):
        read()
    assert 10 < len(heard) < 200


@pytest.mark.parametrize("reads", [False, True], ids=["reads none", "reads them"])
@pytest.mark.parametrize("sealed", [False, True], ids=["between records", "in a record"])
def test_answers_that_nobody_reads_are_bounded(ends: Ends, tmp_path: Path, *, reads: bool, sealed: bool) -> None:
    """A key update has to be answered (RFC 8446 §4.6.3); who reads no answers must not fill the memory with them."""
    records, ours, server = ends
    updates = _key_updates(ends, tmp_path)
    if sealed:
        _blocked(ends, memoryview(bytes(STEP)))
    elif not reads:
        _fill(ours)
    most, heard = 0, b""

    def ask() -> None:
        nonlocal heard, most
        for _ in range(100):
            server.sock.sendall(
                b"".join(updates.update(answered=True) for _ in range(100)) + updates.seal(b"250 ok\r\n")
            )
            heard += records.recv(STEP)
            # As who has read a reply does.
            records.renew()
            most = max(most, records._outgoing.pending + len(records._unsent))
            if reads:
                server.hear()
                if sealed:
                    with suppress(BlockingIOError):
                        records.send(records._sealed)

    if reads:
        ask()
        assert heard == b"250 ok\r\n" * 100
    else:
        with pytest.raises(ProtocolError, match="reads none of them"):
            ask()
    assert most < 1 << 17


def test_after_a_write_that_failed_nothing_is_written(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the rest, nor an answer, nor an alert; and what has come is read all the same (RFC 5321 §3.8)."""
    records, ours, server = ends
    _shaken(ends)
    server.sock.sendall(server.seal(b"250 ok\r\n") + server.seal(b"421 bye\r\n")[:-1] + b"\0")
    writes: list[int] = []

    class Broken:
        """The socket, whose other end is gone for what is written."""

        def recv(self, size: int) -> bytes:
            return ours.recv(size)

        def send(self, octets: memoryview) -> int:
            writes.append(len(octets))
            raise BrokenPipeError

    monkeypatch.setattr(records, "_sock", Broken())
    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            records.send(memoryview(b"NOOP\r\n"))
        records._sealed = memoryview(b"")
    assert records.recv(STEP) == b"250 ok\r\n"
    # It makes an alert, which is not written.
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac|record layer failure"):
        records.recv(STEP)
    assert len(writes) == 1


def test_a_part_of_a_record_hides_nothing_that_waits_in_the_socket(ends: Ends) -> None:
    """What is here may be half a record: the other half is read at once, so that all that has come is heard."""
    records, _, server = ends
    _shaken(ends)
    one, two = server.seal(b"250 one\r\n"), server.seal(b"250 two\r\n")
    server.sock.sendall(one + two[:-3])
    assert records.recv(STEP) == b"250 one\r\n"
    server.sock.sendall(two[-3:])
    assert records.recv(STEP) == b"250 two\r\n"


def test_what_waits_here_is_told(ends: Ends) -> None:
    """No `select` sees it: two records that came together, and half of one that was read."""
    records, _, server = ends
    _shaken(ends)
    server.sock.sendall(server.seal(b"250 one\r\n") + server.seal(b"250 two\r\n"))
    assert (records.recv(STEP), records.pending() > 0) == (b"250 one\r\n", True)
    assert (records.recv(4), records.pending()) == (b"250 ", 5)
    assert (records.recv(STEP), records.pending()) == (b"two\r\n", 0)
    with pytest.raises(BlockingIOError):
        records.recv(STEP)


def test_a_handshake_waits_where_the_socket_takes_no_more(ends: Ends) -> None:
    """And goes on with the rest of what it had to say."""
    records, ours, server = ends
    junk = _fill(ours)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            records.do_handshake()
    _drain(server.sock, junk)
    _shaken(ends)


def test_a_record_is_sealed_once_however_often_it_is_tried(ends: Ends) -> None:
    """And nothing else is taken for it."""
    records, ours, server = ends
    _shaken(ends)
    junk = _fill(ours)
    line = memoryview(b"NOOP\r\n")
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            records.send(line)
    for other in (memoryview(b"QUIT\r\n"), line[:-1]):
        with pytest.raises(ValueError, match="not written whole"):
            records.send(other)
    _drain(server.sock, junk)
    assert records.send(line) == len(line)
    assert records.send(memoryview(b"RSET\r\n")) == 6
    assert server.read() == b"NOOP\r\nRSET\r\n"


def test_a_record_is_written_whole_where_the_socket_takes_it_in_parts(ends: Ends) -> None:
    """What is told as written, the server can read."""
    records, ours, server = ends
    _shaken(ends)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    heard, waited = b"", 0
    block = memoryview(bytes(range(256)) * (STEP // 256))
    for _ in range(3):
        sent = 0
        while not sent:
            try:
                sent = records.send(block)
            except BlockingIOError:
                waited += 1
                heard += server.read()
        assert sent == STEP
    heard += server.read()
    assert waited
    assert heard == bytes(block) * 3


def _blocked(ends: Ends, data: memoryview) -> None:
    """Begin to write a record for which there is no room, and make some."""
    records, ours, server = ends
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with pytest.raises(BlockingIOError):
        records.send(data)
    server.hear()


@pytest.mark.parametrize("ends", [pytest.param(3, id="three tickets")], indirect=True)
@pytest.mark.parametrize("broken", [False, True], ids=["tickets", "a broken record"])
def test_nothing_but_send_writes_the_rest_of_a_record(ends: Ends, *, broken: bool) -> None:
    """Or the server would have what nobody counted as written."""
    records, _, server = ends
    tickets = _shaken(ends)
    _blocked(ends, memoryview(bytes(STEP)))
    server.sock.sendall(tickets[:-1] + b"\0" if broken else tickets)
    with pytest.raises(ssl.SSLError):
        records.recv(STEP)
    with pytest.raises(BlockingIOError):
        server.sock.recv(1)


def test_a_record_is_written_when_its_own_end_is(ends: Ends) -> None:
    """Whatever TLS has to say after it can wait."""
    records, _, server = ends
    _shaken(ends)
    block = memoryview(bytes(STEP))
    _blocked(ends, block)
    # As TLS leaves the answer to a key update, which no server of Python asks for.
    records._outgoing.write(b"more")
    heard, sent = b"", 0
    while not sent:
        with suppress(BlockingIOError):
            sent = records.send(block)
        heard += server.read()
    assert (heard, records._outgoing.pending) == (bytes(block), 4)


def test_a_record_comes_behind_what_tls_had_to_say_before(ends: Ends) -> None:
    """The end of a handshake that did not fit."""
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


def test_a_failure_is_told_to_the_server(ends: Ends) -> None:
    """By TLS's alert, which its log may show."""
    records, _, server = ends
    _shaken(ends)
    server.sock.sendall(server.seal(b"250 ok\r\n")[:-1] + b"\0")
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac|record layer failure"):
        records.recv(STEP)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        server.read()


def test_the_failure_is_what_is_raised_where_the_alert_cannot_be_written(
    ends: Ends,
) -> None:
    """The server is gone, or reads no more."""
    records, ours, server = ends
    _shaken(ends)
    _fill(ours)
    server.sock.sendall(server.seal(b"250 ok\r\n")[:-1] + b"\0")
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac|record layer failure"):
        records.recv(STEP)


def test_an_end_in_the_middle_is_an_error(ends: Ends) -> None:
    """RFC 8446 §6.1: without close_notify it may be somebody's cut; however often it is asked."""
    records, _, server = ends
    _shaken(ends)
    server.sock.sendall(server.seal(b"250 ok\r\n"))
    server.sock.shutdown(socket.SHUT_WR)
    assert records.recv(STEP) == b"250 ok\r\n"
    for _ in range(2):
        with pytest.raises(ssl.SSLEOFError):
            records.recv(STEP)


@with_tickets
def test_tickets_without_end_are_an_error(ends: Ends) -> None:
    """By themselves, and long before a limit of time."""
    records, _, server = ends
    server.sock.sendall(_shaken(ends))
    for _ in range((1 << 18) // STEP - 1):
        with suppress(ssl.SSLWantReadError):
            records.recv(STEP)
    with pytest.raises(ProtocolError, match="without end"):
        records.recv(STEP)
