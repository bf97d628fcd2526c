"""One connection: the gate for plaintext, unsolicited replies, time limits, connections that are cut."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import pytest
import trustme

from conftest import Mailer, Positions, Serve
from scripted import Connection as Seen
from scripted import Ending, Mode, Peer, honest, up_to_content
from securesmtp import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    DataRefusedError,
    DeadlineExceededError,
    DowngradeError,
    Outcome,
    ProtocolError,
    SecureMailer,
    SecureSMTPError,
    SenderRefusedError,
    Timeouts,
    TLSPolicy,
    WrongTLSModeError,
)
from securesmtp._protocol.dialogue import expect_reply, reset
from securesmtp._protocol.effects import Block, CommandGroup, Dialogue, Receive
from securesmtp._protocol.wire import RawReply, line
from securesmtp._transport import process
from securesmtp._transport.addresses import AddressInfo
from securesmtp._transport.channel import READ, Channel, Steps
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.link import Link
from securesmtp._transport.tls import build_context
from securesmtp._transport.transfer import Transfer
from securesmtp._values import Stage, TLSInfo
from securesmtp.events import Closed, Event

RAW = b"Subject: x\r\n\r\nx\r\n"


def _link() -> Link:
    return Link(SecureMailer("localhost", 1, tls="starttls", timeout=1)._settings, build_context(TLSPolicy()))


def test_no_command_of_smtplib_is_written() -> None:
    """Each of them calls putcmd or send, and both refuse."""
    link = _link()
    written = (lambda: link.docmd("MAIL"), lambda: link.data("x"), lambda: link.send(b"NOOP"))
    for command in (link.noop, link.rset, link.starttls, link.quit, *written):
        with pytest.raises(NotImplementedError):
            command()


@pytest.mark.parametrize("ending", ["close", "cut", "reset"])
def test_a_connection_that_died_while_idle_is_replaced(
    serve: Serve, mailer: Mailer, message: EmailMessage, ending: Ending
) -> None:
    """This happens before MAIL, so the next message is not lost on it."""
    ended = threading.Event()

    def once(peer: Peer) -> None:
        def answer(peer: Peer, content: bytes) -> bytes:
            peer.send(b"250 ok\r\n")
            getattr(peer, ending)()
            ended.set()
            return b""

        honest(replies={"CONTENT": answer})(peer)

    server = serve(once, honest())
    mine = mailer(server)
    mine.send(message)
    assert ended.wait(5)
    mine.send(message)
    assert len(server.connections) == 2


def test_after_a_421_while_idle_nothing_is_written(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The connection is closed without QUIT (RPL-09), and the next message uses a new one."""
    said = threading.Event()

    def farewell(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test\r\n")
        for reply in (b"250 mx.test\r\n", b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            peer.read_line()
            peer.send(reply)
        peer.read_data()
        peer.send(b"250 ok\r\n")
        peer.send(b"421 idle\r\n")
        said.set()
        peer.sleep_until_peer_closes()

    server = serve(farewell, honest())
    mine = mailer(server)
    mine.send(message)
    assert said.wait(5)
    time.sleep(0.05)
    mine.send(message)
    assert not server.connections[0].secret.endswith(b"QUIT\r\n")
    assert len(server.connections) == 2


@pytest.mark.parametrize(
    ("extra", "error"),
    [(b"421 bye\r\n", ConnectError), (b"250 more\r\n", ProtocolError), (b"25", ProtocolError)],
    ids=["421", "reply", "fragment"],
)
def test_an_unsolicited_reply_ends_the_session(
    serve: Serve, mailer: Mailer, message: EmailMessage, extra: bytes, error: type[SecureSMTPError]
) -> None:
    """Inside TLS, after the reply to EHLO: MAIL is not written (RPL-04)."""

    def script(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test\r\n")
        peer.read_line()
        peer.send(b"250 mx.test\r\n" + extra)
        peer.sleep_until_peer_closes()

    server = serve(script)
    with pytest.raises(error, match=r"unsolicited reply|closes the session") as caught:
        mailer(server).send(message)
    assert caught.value.stage is Stage.MAIL
    server.joined()
    assert b"MAIL" not in server.secret


def test_a_reply_sent_with_the_greeting_is_not_the_reply_to_ehlo(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """EHLO is not written (RPL-04)."""

    def script(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test\r\n250 mx.test\r\n")
        peer.sleep_until_peer_closes()

    server = serve(script)
    with pytest.raises(ProtocolError, match="unsolicited reply") as caught:
        mailer(server).send(message)
    assert caught.value.stage is Stage.EHLO
    server.joined()
    assert server.secret == b""


def test_an_unsolicited_reply_in_plaintext_is_a_downgrade(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """STARTTLS is not written."""

    def script(peer: Peer) -> None:
        peer.send(b"220 mx.test\r\n")
        peer.read_line()
        peer.send(b"250-mx.test\r\n250 STARTTLS\r\n220 go\r\n")
        peer.sleep_until_peer_closes()

    server = serve(script)
    with pytest.raises(DowngradeError, match="unsolicited reply") as caught:
        mailer(server, tls="starttls").send(message)
    assert caught.value.stage is Stage.STARTTLS
    server.joined()
    assert b"STARTTLS" not in server.plain


def test_plaintext_with_the_220_is_a_downgrade(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The handshake does not begin (RFC 3207 §6)."""

    def script(peer: Peer) -> None:
        peer.send(b"220 mx.test\r\n")
        peer.read_line()
        peer.send(b"250-mx.test\r\n250 STARTTLS\r\n")
        peer.read_line()
        peer.send(b"220 go\r\n250 INJECTED\r\n")
        peer.sleep_until_peer_closes()

    with pytest.raises(DowngradeError, match="between the 220") as caught:
        mailer(serve(script), tls="starttls").send(message)
    assert caught.value.stage is Stage.STARTTLS
    assert "tampering" in str(caught.value.hint)


def test_plaintext_some_time_after_the_220_is_a_downgrade(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """In a later segment it arrives during the handshake."""

    def script(peer: Peer) -> None:
        peer.send(b"220 mx.test\r\n")
        peer.read_line()
        peer.send(b"250-mx.test\r\n250 STARTTLS\r\n")
        peer.read_line()
        peer.send(b"220 go\r\n")
        peer.read_some()
        peer.send(b"250-INJECTED\r\n250 AUTH PLAIN\r\n")
        peer.sleep_until_peer_closes()

    with pytest.raises(DowngradeError, match="plaintext after the 220"):
        mailer(serve(script), tls="starttls").send(message)


def test_a_port_without_a_server_is_a_retryable_error(message: EmailMessage) -> None:
    """The error names the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with SecureMailer("127.0.0.1", free.getsockname()[1]) as mailer, pytest.raises(ConnectError) as caught:
            mailer.send(message)
    assert caught.value.retryable
    assert isinstance(caught.value, ConnectionError)
    assert "465" in str(caught.value.hint)


def test_the_second_address_is_used_if_the_first_fails(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection leaves from the source address that the caller chose."""
    callers: list[str] = []

    def script(peer: Peer) -> None:
        callers.append(peer.sock.getpeername()[0])
        honest()(peer)

    server = serve(script)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        addresses = [free.getsockname(), ("127.0.0.1", server.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        mine = mailer(server, source_address=("127.0.0.2", 0))
        assert mine.send(message).reply.code == 250
    assert callers == ["127.0.0.2"]


def test_the_name_of_this_machine_is_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """EHLO has an address literal; a lookup could take long."""
    monkeypatch.delattr(socket, "getfqdn")
    assert not _link().is_open


def test_an_unconnected_link_raises_a_retryable_error() -> None:
    """Nothing was written."""
    link = _link()
    with pytest.raises(ConnectError, match="closed") as caught:
        link.run(reset())
    assert caught.value.retryable
    with socket.socket() as link.connection.channel.sock:
        link.abort()
        with pytest.raises(ConnectError, match="the mailer was closed") as caught:
            link.run(reset())
    assert (caught.value.stage, caught.value.retryable) == (Stage.RSET, True)


def test_an_error_in_closing_is_not_raised() -> None:
    """No message depends on QUIT."""

    def fails() -> Dialogue[None]:
        raise ConnectError("gone")
        yield

    link = _link()
    ours, theirs = socket.socketpair()
    with theirs:
        ours.settimeout(0)
        _pretend_idle(link, ours)
        link.close_gracefully(fails())
    assert not link.is_open


def test_after_a_refusal_the_connection_is_used_again(serve: Serve, mailer: Mailer) -> None:
    """All replies that were due have been read."""
    server = serve(honest(replies={"MAIL": lambda _, line: b"550 no\r\n" if b"no@" in line else b"250 ok\r\n"}))
    mine = mailer(server)
    with pytest.raises(SenderRefusedError):
        mine.send_bytes(RAW, mail_from="no@b.example", recipients=["c@d.example"])
    assert mine.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"]).accepted
    assert len(server.connections) == 1


def test_an_expired_limit_names_its_stage() -> None:
    """It names the limit too, and is retryable."""
    with pytest.raises(DeadlineExceededError) as caught:
        Deadline("command", 0).left(Stage.MAIL)
    assert (caught.value.limit, caught.value.stage, caught.value.retryable) == ("command", Stage.MAIL, True)
    link = _link()
    link.connection.limit.deadline = Deadline("deadline", 0)
    with pytest.raises(DeadlineExceededError) as caught:
        link.run(reset())
    assert (caught.value.limit, caught.value.stage) == ("deadline", Stage.RSET)


def test_an_interrupt_while_connecting_closes_the_socket(
    message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mailer stays usable."""

    class Interrupted(socket.socket):
        def connect(self, address: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(socket, "socket", Interrupted)
    with SecureMailer("127.0.0.1", 9) as mailer, pytest.raises(KeyboardInterrupt):
        mailer.send(message)


def test_ehlo_has_an_ipv6_address_as_a_literal(serve: Serve, ca_file: Path, message: EmailMessage) -> None:
    """Its form is that of RFC 5321 §4.1.3."""
    server = serve(host="::1")
    with SecureMailer("::1", server.port, policy=TLSPolicy(ca_file=ca_file, server_hostname="localhost")) as mailer:
        mailer.send(message)
    assert server.secret.startswith(b"EHLO [IPv6:::1]\r\n")


def test_starttls_on_a_silent_port_465_is_reported_as_the_wrong_mode(
    message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Client and server would wait for each other."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", silent.getsockname())]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with (
            SecureMailer("mx.example", 465, tls="starttls", timeout=0.2) as mailer,
            pytest.raises(WrongTLSModeError, match=r'waits for TLS.*tls="implicit"') as caught,
        ):
            mailer.send(message)
    assert caught.value.stage is Stage.GREETING


def test_a_server_that_reads_slowly_but_steadily_gets_the_whole_message(serve: Serve, mailer: Mailer) -> None:
    """The upload may take longer than one limit, because each block has its own (TMO-03)."""

    def slow(peer: Peer) -> None:
        up_to_content(peer)
        for _ in range(12):
            peer.read_exactly(1 << 20)
            time.sleep(0.1)
        peer.read_data()
        peer.send(b"250 ok\r\n")
        peer.sleep_until_peer_closes()

    raw = b"\r\n" + (b"x" * 78 + b"\r\n") * (13 << 20 >> 6)
    limits = Timeouts(command=0.8, block=0.8)
    receipt = mailer(serve(slow, timeout=30), timeout=limits).send_bytes(
        raw, mail_from="a@b.example", recipients=["c@d.example"]
    )
    assert receipt.size == len(raw)


def test_a_server_that_stops_reading_exceeds_the_limit_of_a_block(serve: Serve, mailer: Mailer) -> None:
    """The message was not accepted, because its content was not fully sent."""
    gone = threading.Event()

    def stuck(peer: Peer) -> None:
        up_to_content(peer)
        gone.wait(5)
        peer.reset()

    raw = b"\r\n" + (b"x" * 78 + b"\r\n") * (30 << 20 >> 6)
    with pytest.raises(DeadlineExceededError) as caught:
        mailer(serve(stuck), timeout=Timeouts(block=0.3)).send_bytes(
            raw, mail_from="a@b.example", recipients=["c@d.example"]
        )
    gone.set()
    assert (caught.value.limit, caught.value.outcome) == ("block", Outcome.NOT_SENT)
    assert caught.value.stage is Stage.CONTENT


@pytest.mark.parametrize(
    ("words", "kind"), [(b"552 5.3.4 too big\r\n", DataRefusedError), (b"250 queued\r\n", ProtocolError)]
)
def test_a_reply_during_the_last_block_does_not_accept_the_content(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, words: bytes, kind: type[SecureSMTPError]
) -> None:
    """The content was not fully sent; the connection is closed."""
    told = threading.Event()

    def script(peer: Peer) -> None:
        up_to_content(peer)
        # Its first octets are there, and nobody reads them: the system does not hold all of it.
        peer.sock.recv(1, socket.MSG_PEEK)
        peer.send(words)
        told.wait(10)

    def narrow(channel: Channel, info: AddressInfo) -> socket.socket:
        sock = connect(channel, info)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return sock

    connect = Channel._begin_attempt
    monkeypatch.setattr(Channel, "_begin_attempt", narrow)
    server, events = serve(script), list[Event]()
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mine = mailer(server, on_event=events.append)
    with pytest.raises(kind):
        mine.send_bytes(b"\r\n" * 30000, mail_from="a@b.example", recipients=["c@d.example"])
    told.set()
    assert [event.reason for event in events if isinstance(event, Closed)] == ["error"]


@pytest.mark.parametrize("words", [b"552 5.3.4 too big\r\n", b""], ids=["552", "nothing"])
def test_after_a_reset_during_the_content_the_servers_reply_is_still_read(
    serve: Serve, mailer: Mailer, words: bytes
) -> None:
    """If there is a 552, it is the error; otherwise the connection was lost and the message was not sent."""

    def full(peer: Peer) -> None:
        up_to_content(peer)
        peer.read_exactly(200000)
        if words:
            peer.send(words)
        peer.cut()

    raw = b"\r\n" + (b"x" * 78 + b"\r\n") * (30 << 20 >> 6)
    with pytest.raises(DataRefusedError if words else ConnectError) as caught:
        mailer(serve(full)).send_bytes(raw, mail_from="a@b.example", recipients=["c@d.example"])
    assert caught.value.outcome is (Outcome.REFUSED if words else Outcome.NOT_SENT)


OFFERS = {"lockstep": (), "DATA": ("PIPELINING",), "BDAT": ("PIPELINING", "CHUNKING")}


def octets_before_the_content(log: Seen, who: str) -> int:
    """Return how many bytes *who* sends before the client writes the end of the content of `RAW`."""
    before = 0
    for turn in log.turns:
        if turn.who == "client" and RAW in turn.octets:
            return before
        before += len(turn.octets) * (turn.who == who)
    pytest.fail("the content is in no turn")


@pytest.mark.faces("cuts at every byte", sample=(6, 6))
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("mode", ["implicit", "starttls"])
@pytest.mark.parametrize("ending", ["cut", "reset"])
@pytest.mark.parametrize("side", ["cut_after_read", "cut_after_written"])
def test_the_outcome_is_true_if_the_connection_is_cut_at_any_byte(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve, mailer: Mailer, positions: Positions, side: str, ending: Ending, mode: Mode, offer: str
) -> None:
    """After each byte read or written, by FIN and by RST (MSG-06)."""
    script = honest(mode, extensions=OFFERS[offer])
    whole = serve(script)
    first = mailer(whole, tls=mode)
    first.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
    # QUIT is not part of it.
    octets = len(whole.plain + whole.secret) if side == "cut_after_read" else whole.connections[0].written + 1
    needed = octets_before_the_content(whole.connections[0], "client" if side == "cut_after_read" else "server")
    # Now, or this server would wait for the rest of the test: longer than its own limit on a slow machine.
    first.close()
    told = set()
    for count in positions(octets):
        server = serve(script, cut_with=ending, **{side: count})
        mine = mailer(server, tls=mode)
        try:
            mine.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
            outcome = Outcome.ACCEPTED
        except SecureSMTPError as error:
            outcome = error.outcome
        mine.close()
        server.joined()
        assert len(server.accepted) <= 1
        assert outcome is Outcome.UNKNOWN or (outcome is Outcome.ACCEPTED) == bool(server.accepted), count
        # Unknown is no excuse: before the client has reason to write the content's end, it knows.
        assert outcome is not Outcome.UNKNOWN or count >= needed, count
        if side == "cut_after_written" and ending == "cut" and count == octets - 1:
            assert outcome is Outcome.ACCEPTED
        told.add(outcome)
        server.stop()
    assert {Outcome.NOT_SENT, Outcome.UNKNOWN} <= told


@pytest.mark.parametrize(
    "policy",
    [
        {"ca_file": "nowhere.pem"}, {"extra_ca_file": "nowhere.pem"}, {"client_cert": "nowhere.pem"}, {"ca_data": ""},
        {"ca_data": "x"}, {"ca_data": b"\x30\x00"},
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_when_the_mailer_is_made(policy: dict[str, str]) -> None:
    """The error names the argument."""
    with pytest.raises(ConfigurationError, match=next(iter(policy))):
        SecureMailer("localhost", policy=TLSPolicy(**policy))  # type: ignore[arg-type]


def test_the_text_of_a_certificate_is_not_a_path(ca: trustme.CA) -> None:
    """The error is one line, and names the argument that accepts the text."""
    with pytest.raises(ConfigurationError, match="ca_data") as caught:
        SecureMailer("localhost", ca_file=ca.cert_pem.bytes().decode())
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("extra", "kind"), [(b"250 ok\r\n", ProtocolError), (b"25", ProtocolError), (b"421 bye\r\n", ConnectError)]
)
def test_a_group_is_not_written_after_an_unsolicited_reply(
    serve: Serve, mailer: Mailer, extra: bytes, kind: type[SecureSMTPError]
) -> None:
    """That reply would count as the reply to the group's first command (RPL-04)."""
    offer = b"250-mx.test\r\n250-CHUNKING\r\n250 PIPELINING\r\n"
    server = serve(honest(extensions=("PIPELINING", "CHUNKING"), replies={"EHLO": offer + extra}))
    with pytest.raises(kind) as caught:
        mailer(server).send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
    assert (caught.value.outcome, caught.value.stage) == (Outcome.NOT_SENT, Stage.MAIL)
    server.joined()
    assert b"MAIL" not in server.secret


def test_replies_are_read_while_a_group_is_written(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the server writes a megabyte of replies before it reads on (PIPE-04)."""
    long = (b"250-" + b"x" * 1000 + b"\r\n") * 20 + b"250 ok\r\n"
    people = [f"r{number}@d.example" for number in range(60)]

    def wordy(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        # All is said before the second line is read: only the first has to have come.
        peer.expect(b"MAIL")
        peer.send(b"250 ok\r\n" + long * len(people))
        for _ in people:
            peer.expect(b"RCPT")
        size = int(peer.expect(b"BDAT").split()[1])
        peer.read_exactly(size)
        peer.send(b"250 queued\r\n")
        peer.sleep_until_peer_closes()

    def narrow(channel: Channel, info: AddressInfo) -> socket.socket:
        sock = connect(channel, info)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        return sock

    connect = Channel._begin_attempt
    monkeypatch.setattr(Channel, "_begin_attempt", narrow)
    content = b"\r\n" * 30000
    server = serve(wordy)
    # Before the connection is made: a window that was once offered is not taken back.
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    receipt = mailer(server, timeout=5).send_bytes(content, mail_from="a@b.example", recipients=people, partial="allow")
    assert len(receipt.accepted) == 60


def test_a_handshake_waits_until_the_socket_accepts_more(
    ca_file: Path, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ClientHello that does not fit is written when the server has read on."""
    junk: list[int] = []
    waits: list[int] = []
    heard: list[bytes] = []
    waiting = threading.Event()

    def full(channel: Channel) -> Steps[TLSInfo]:
        sock = channel.connected_socket()
        with suppress(BlockingIOError):
            while True:
                junk.append(sock.send(b"x" * 65536))
        return begin_tls(channel)

    def waits_for(link: Link, events: int) -> None:
        waits.append(events)
        waiting.set()
        wait(link, events)

    def listen() -> None:
        connection, _ = listener.accept()
        with connection:
            waiting.wait(5)
            left = sum(junk)
            while left:
                left -= len(connection.recv(min(left, 1 << 20)))
            heard.append(connection.recv(2))

    begin_tls, wait = Channel.begin_tls, Link._wait_for_socket
    monkeypatch.setattr(Channel, "begin_tls", full)
    monkeypatch.setattr(Link, "_wait_for_socket", waits_for)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen)
        thread.start()
        port = listener.getsockname()[1]
        with SecureMailer("localhost", port, ca_file=ca_file, timeout=5) as mailer, pytest.raises(ConnectError):
            mailer.send(message)
        thread.join()
    assert (waits[0], waits[-1]) == (selectors.EVENT_WRITE, selectors.EVENT_READ)
    # A handshake's record (RFC 8446 §5.1).
    assert heard == [b"\x16\x03"]


def _ends() -> tuple[Link, socket.socket]:
    """Return a link that waits for one reply, and the other end of its socket."""
    link = _link()
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    link.connection.channel.sock = ours
    link.connection.exchange.tls = cast("TLSInfo", object())
    link.connection.limit.stage = Stage.CONTENT
    return link, theirs


def _pretend_idle(link: Link, sock: socket.socket) -> None:
    """Make *link* one over *sock* to which no reply is due."""
    link.connection.channel.sock, link.connection._ended_cleanly = sock, True
    link.connection.exchange._command_ends.clear()


@pytest.mark.parametrize(("kind", "why"), [("deadline", "deadline"), ("abort", "the mailer was closed")])
@pytest.mark.parametrize("words", [b"250 queued\r\n", b"250 half"], ids=["whole", "half"])
def test_a_reply_that_has_come_counts_although_the_time_is_up(kind: str, why: str, words: bytes) -> None:
    """The message is accepted, not unknown; a reply that has not come is not waited for (issue 12, 11)."""
    link, theirs = _ends()
    with theirs:
        theirs.send(words)
        if kind == "deadline":
            link.connection.limit.deadline = Deadline("deadline", 0)
        else:
            link.abort()
        if words.endswith(b"\n"):
            assert link.run(expect_reply(Stage.CONTENT, "final")).text == "queued"
        else:
            with pytest.raises(SecureSMTPError, match=why):
                link.run(expect_reply(Stage.CONTENT, "final"))
    assert not link.is_open


def test_a_flood_of_replies_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a connection is lost, reading what has come has a time limit of its own."""
    link, theirs = _ends()
    link.connection.exchange._command_ends.extend([0] * 99)
    now = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with theirs:
        theirs.send(b"250 ok\r\n" * 5000)
        link.connection.transfer.fail(ConnectError("gone"))
    assert next(now) < 10


@pytest.mark.parametrize("words", [b"535 5.7.8 no\r\n", b"421 4.3.2 bye\r\n"])
def test_after_a_reply_to_an_unfinished_command_nothing_is_written(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    """A server replies to a long password of which it reads nothing: the reply is read (issue 12, 12)."""
    told = threading.Event()

    def script(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250 AUTH PLAIN\r\n")
        peer.sock.recv(1, socket.MSG_PEEK)
        peer.send(words)
        told.wait(10)

    def narrow(channel: Channel, info: AddressInfo) -> socket.socket:
        sock = connect(channel, info)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        return sock

    connect = Channel._begin_attempt
    monkeypatch.setattr(Channel, "_begin_attempt", narrow)
    server = serve(script)
    server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    mine = mailer(server, username="me", password="p" * 4096, timeout=20)
    with pytest.raises(AuthenticationError, match=words[:3].decode()):
        mine.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
    told.set()


def test_nothing_is_written_after_an_unfinished_command() -> None:
    """The server would take it for the rest of the command; nor is the connection used again (issue 12, 12)."""
    link = _link()
    ours, theirs = socket.socketpair()
    with theirs:
        ours.settimeout(0)
        _pretend_idle(link, ours)
        link.connection.exchange.position, link.connection.exchange.written = 100, 60
        assert not link.is_idle()
        with pytest.raises(ConnectError, match="before a command was fully sent") as caught:
            link.run(reset())
        assert (caught.value.stage, caught.value.outcome) == (Stage.RSET, Outcome.NOT_SENT)
        assert theirs.recv(100) == b""


@pytest.mark.parametrize("at", ["once", "in the midst"])
def test_a_fork_is_noticed_at_every_record(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Also a fork in a signal handler in the middle of a block, and a child with its parent's PID."""
    server = serve(honest(extensions=()))
    count = 0

    def forks(transfer: Transfer, record: memoryview) -> int:
        nonlocal count
        count += transfer.limit.stage is Stage.CONTENT
        if count == (1 if at == "once" else 2):
            process._count_fork()
        return write(transfer, record)

    write = Transfer._write_record
    monkeypatch.setattr(Transfer, "_write_record", forks)
    monkeypatch.setattr(process._Forks, "count", 0)
    with pytest.raises(ConnectError, match="forked") as caught:
        mailer(server).send_bytes(RAW * 2000, mail_from="a@b.example", recipients=["c@d.example"])
    assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("replies", [3, 4])
def test_more_replies_than_are_due_end_a_group_that_is_being_written(replies: int) -> None:
    """They are noticed at the next record, not kept until the whole group is written (issue 12, 1)."""
    link, theirs = _ends()
    # As after a login: nothing is owed.
    link.connection.exchange._command_ends.clear()

    def dialogue() -> Dialogue[list[int]]:
        yield CommandGroup((line(b"RCPT"),) * 3, Stage.RCPT)
        theirs.send(b"550 no\r\n" * replies)
        yield Block(b"x" * 40000)
        codes = []
        for _ in range(3):
            codes.append(cast("tuple[RawReply]", (yield Receive(Stage.RCPT)))[0].code)  # noqa: PERF401 -- no yield in a comprehension
        return codes

    with theirs:
        if replies == 3:
            assert link.run(dialogue()) == [550] * 3
        else:
            with pytest.raises(ProtocolError, match="unsolicited reply"):
                link.run(dialogue())
            assert link.connection.exchange.written <= 16384
    link.close()


def test_an_interrupt_between_two_steps_reaches_them() -> None:
    """Ctrl-C can strike anywhere in the driver: the steps get it, and the caller too."""
    thrown: list[BaseException] = []

    class Interrupted:
        """Steps during whose resumption a signal strikes in the driver, and which wait on all the same."""

        def __next__(self) -> int:
            raise KeyboardInterrupt

        def throw(self, error: BaseException) -> int:
            thrown.append(error)
            return READ

    with pytest.raises(KeyboardInterrupt) as caught:
        _link()._drive(cast("Steps[None]", Interrupted()))
    assert thrown == [caught.value]


def test_a_closed_channel_has_no_socket() -> None:
    """It cannot be waited for, read or written."""
    channel = _link().connection.channel
    for use in (channel.connected_socket, channel.read, lambda: channel.write(memoryview(b"x"))):
        with pytest.raises(ConnectError, match="closed") as caught:
            use()
        assert caught.value.retryable
