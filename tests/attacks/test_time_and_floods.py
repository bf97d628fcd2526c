"""Servers that flood, stall, reply too early or refuse in the middle: the wait is bounded, the error typed."""

from __future__ import annotations

import ssl
import threading
import time
from email.message import EmailMessage

import pytest
import trustme

from conftest import Mailer, Serve
from scripted import Mode, Peer, honest, up_to_content
from securesmtp import (
    DataRefusedError,
    DeadlineExceededError,
    Outcome,
    ProtocolError,
    SecureSMTPError,
    Stage,
    Timeouts,
)
from securesmtp._transport.transfer import Transfer

pytestmark = pytest.mark.faces("attacks", sample=(13, 12))


def _greeted(*replies: bytes) -> object:
    """Play a server in TLS that greets, then sends one of *replies* for each line that comes."""

    def script(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test\r\n")
        for reply in replies:
            peer.read_line()
            peer.send(reply)
        peer.sleep_until_peer_closes()

    return script


def test_a_silent_handshake_is_bounded(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The handshake has its own time limit."""
    with pytest.raises(DeadlineExceededError) as caught:
        mailer(serve(lambda peer: peer.sleep_until_peer_closes()), timeout=Timeouts(handshake=0.3)).send(message)
    assert (caught.value.limit, caught.value.stage) == ("handshake", Stage.HANDSHAKE)


def test_the_error_of_a_silent_starttls_port_names_the_other_mode(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """A server with implicit TLS waits for the client, which waits for the greeting."""
    with pytest.raises(DeadlineExceededError, match='tls="implicit"'):
        mailer(serve(lambda peer: peer.sleep_until_peer_closes()), tls="starttls", timeout=0.3).send(message)


def test_a_flood_inside_tls_is_cut_short(
    serve: Serve, mailer: Mailer, ca: trustme.CA, mode: Mode, message: EmailMessage
) -> None:
    """Endless session tickets, records without application data, come between the handshake and the next reply."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    # More than 1 MiB.
    context.num_tickets = 5000
    with pytest.raises(ProtocolError, match="keeps sending TLS records") as caught:
        mailer(serve(honest(mode), tls=context), tls=mode).send(message)
    assert caught.value.stage is (Stage.GREETING if mode == "implicit" else Stage.EHLO)
    assert caught.value.outcome is Outcome.NOT_SENT


def test_an_unsolicited_reply_ends_the_session(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """It would be taken as the reply to the next command."""
    server = serve(_greeted(b"250 mx.test\r\n250 extra\r\n"))
    with pytest.raises(ProtocolError, match="unsolicited reply"):
        mailer(server).send(message)
    server.joined()
    assert b"MAIL" not in server.secret


def test_a_refusal_in_the_middle_of_the_content_is_reported(serve: Serve, mailer: Mailer) -> None:
    """The error has the server's 552, not the end of the connection that follows it."""

    def full(peer: Peer) -> None:
        up_to_content(peer)
        peer.read_exactly(100000)
        peer.send(b"552 5.3.4 too big\r\n")
        peer.close()

    raw = b"\r\n" + (b"x" * 78 + b"\r\n") * 100000
    with pytest.raises(DataRefusedError, match="552") as caught:
        mailer(serve(full)).send_bytes(raw, mail_from="a@b.example", recipients=["c@d.example"])
    assert caught.value.outcome is Outcome.REFUSED


def test_a_refusal_by_a_server_that_stopped_reading_is_reported(serve: Serve, mailer: Mailer) -> None:
    """The client reads the 552 while it waits for room to write."""
    heard = threading.Event()

    def stuck(peer: Peer) -> None:
        up_to_content(peer)
        time.sleep(0.3)
        peer.send(b"552 5.3.4 too big\r\n")
        heard.wait(5)
        peer.reset()

    raw = b"\r\n" + (b"x" * 78 + b"\r\n") * (30 << 20 >> 6)
    with pytest.raises(DataRefusedError, match="552"):
        mailer(serve(stuck)).send_bytes(raw, mail_from="a@b.example", recipients=["c@d.example"])
    heard.set()


def test_a_refusal_right_before_a_reset_is_reported(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both come between the client's check for a reply and its write: the write fails, the 552 can still be read."""
    looked, gone = threading.Event(), threading.Event()

    def quick(peer: Peer) -> None:
        up_to_content(peer)
        looked.wait(5)
        peer.send(b"552 5.3.4 too big\r\n")
        peer.reset()
        gone.set()

    def unread(transfer: Transfer) -> bool:
        found = look(transfer)
        if transfer.limit.stage is Stage.CONTENT:
            looked.set()
            gone.wait(5)
        return found

    look = Transfer.has_unread
    monkeypatch.setattr(Transfer, "has_unread", unread)
    with pytest.raises(DataRefusedError, match="552"):
        mailer(serve(quick)).send_bytes(b"\n", mail_from="a@b.example", recipients=["c@d.example"])


def test_the_mailer_is_usable_after_an_error(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The next message takes a new connection, with TLS like the first."""
    server = serve(_greeted(b"nonsense\r\n"), honest())
    mine = mailer(server)
    with pytest.raises(SecureSMTPError):
        mine.send(message)
    assert mine.send(message).reply.code == 250
    assert len(server.connections) == 2
