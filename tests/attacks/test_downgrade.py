"""An attacker between client and server before TLS: no message in plaintext, and no plaintext reply has any effect."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from conftest import Mailer, Serve
from scripted import Chunking, Peer, Script, honest
from securesmtp import (
    ConnectError,
    DeadlineExceededError,
    DowngradeError,
    Outcome,
    ProtocolError,
    SecureSMTPError,
    Stage,
    TLSError,
    WrongTLSModeError,
)

pytestmark = pytest.mark.faces("attacks", sample=(13, 12))

EHLO = b"EHLO [127.0.0.1]\r\n"
STARTTLS = EHLO + b"STARTTLS\r\n"
OFFER = b"250-mx.test\r\n250 STARTTLS\r\n"


def _says(*replies: bytes, hello: bytes = b"220 mx.test ESMTP\r\n") -> Script:
    """Play a plaintext server that sends *hello*, then one of *replies* for each line that comes; then it waits."""

    def script(peer: Peer) -> None:
        peer.send(hello)
        for reply in replies:
            peer.read_line()
            peer.send(reply)
        peer.sleep_until_peer_closes()

    return script


def _hangs_up(*replies: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.send(b"220 mx.test ESMTP\r\n")
        for reply in replies:
            peer.read_line()
            peer.send(reply)
        peer.read_line()
        peer.close()

    return script


# Each row: what the server does, what the client may write, and the caller's error.
TABLE: dict[str, tuple[Script, bytes, type[SecureSMTPError]]] = {
    "STARTTLS not offered": (_says(b"250-mx.test\r\n250 AUTH PLAIN\r\n"), EHLO, DowngradeError),
    "STARTTLS misspelt": (_says(b"250-mx.test\r\n250 XTARTTLS\r\n"), EHLO, DowngradeError),
    "STARTTLS as the server's name": (_says(b"250 STARTTLS\r\n"), EHLO, DowngradeError),
    "EHLO answered by 250 alone": (_says(b"250 mx.test\r\n"), EHLO, DowngradeError),
    "EHLO refused with 500": (_says(b"500 what?\r\n"), EHLO, DowngradeError),
    "EHLO refused with 502": (_says(b"502 no EHLO here\r\n"), EHLO, DowngradeError),
    "EHLO refused with 421": (_says(b"421 later\r\n"), EHLO, DowngradeError),
    "EHLO answered by 220": (_says(b"220 mx.test\r\n"), EHLO, DowngradeError),
    "EHLO answered by garbage": (_says(b"hello\r\n"), EHLO, ProtocolError),
    "EHLO answered by silence": (_says(b""), EHLO, DeadlineExceededError),
    "EHLO answered by the end": (_hangs_up(), EHLO, ConnectError),
    "STARTTLS refused with 454": (_says(OFFER, b"454 not now\r\n"), STARTTLS, DowngradeError),
    "STARTTLS refused with 421": (_says(OFFER, b"421 not now\r\n"), STARTTLS, DowngradeError),
    "STARTTLS refused with 500": (_says(OFFER, b"500 what?\r\n"), STARTTLS, DowngradeError),
    "STARTTLS refused with 501": (_says(OFFER, b"501 what?\r\n"), STARTTLS, DowngradeError),
    "STARTTLS refused with 503": (_says(OFFER, b"503 already\r\n"), STARTTLS, DowngradeError),
    "STARTTLS refused with 530": (_says(OFFER, b"530 no\r\n"), STARTTLS, DowngradeError),
    "STARTTLS answered by 221": (_says(OFFER, b"221 bye\r\n"), STARTTLS, DowngradeError),
    "STARTTLS answered by 235": (_says(OFFER, b"235 welcome\r\n"), STARTTLS, DowngradeError),
    "STARTTLS answered by 250": (_says(OFFER, b"250 ok\r\n"), STARTTLS, DowngradeError),
    "STARTTLS answered by 334": (_says(OFFER, b"334 \r\n"), STARTTLS, DowngradeError),
    "STARTTLS answered by 354": (_says(OFFER, b"354 go\r\n"), STARTTLS, DowngradeError),
    "STARTTLS answered by two codes": (_says(OFFER, b"220-go\r\n250 go\r\n"), STARTTLS, ProtocolError),
    "STARTTLS answered by garbage": (_says(OFFER, b"go\r\n"), STARTTLS, ProtocolError),
    "STARTTLS answered by a bare LF": (_says(OFFER, b"220 go\n"), STARTTLS, ProtocolError),
    "STARTTLS answered by silence": (_says(OFFER, b""), STARTTLS, DeadlineExceededError),
    "STARTTLS answered by the end": (_hangs_up(OFFER), STARTTLS, ConnectError),
    "greeting 554": (_says(hello=b"554 no\r\n"), b"", ConnectError),
    "greeting 421": (_says(hello=b"421 later\r\n"), b"", ConnectError),
    "greeting 250": (_says(hello=b"250 mx.test\r\n"), b"", ConnectError),
    "greeting garbage": (_says(hello=b"SSH-2.0-x\r\n"), b"", ProtocolError),
    "two greetings": (_says(hello=b"220 mx.test\r\n220 mx.test\r\n"), b"", DowngradeError),
    "a reply to EHLO before it was asked": (_says(hello=b"220 mx.test\r\n" + OFFER), b"", DowngradeError),
    "a fragment behind the greeting": (_says(hello=b"220 mx.test\r\n25"), b"", DowngradeError),
    "a 220 to STARTTLS before it was asked": (_says(OFFER + b"220 go\r\n"), EHLO, DowngradeError),
    "a fragment behind the offer": (_says(OFFER + b"2"), EHLO, DowngradeError),
}
# Plaintext that follows the 220 to STARTTLS.
INJECTED = {
    "a whole line": b"250 injected\r\n",
    "an EHLO reply": b"250-mx.test\r\n250 AUTH PLAIN LOGIN\r\n",
    "a fragment": b"250-mx.t",
    "one octet": b"2",
    "a line feed": b"\n",
    "20 kB": b"250-" + b"x" * 20000,
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "a TLS record": b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
}


@pytest.mark.parametrize("case", TABLE)
def test_nothing_is_sent_without_tls(serve: Serve, mailer: Mailer, message: EmailMessage, case: str) -> None:
    """The error names the cause; the connection is closed, no other is opened (STLS-01, STLS-02, CMD-07, TLS-01)."""
    script, written, error = TABLE[case]
    server = serve(script)
    mine = mailer(server, tls="starttls", username="me", password="secret", timeout=0.5)
    with pytest.raises(error) as caught:
        mine.send(message)
    assert type(caught.value) is error
    assert caught.value.outcome is Outcome.NOT_SENT
    server.joined()
    # A server that spoke too early may be noticed before or after EHLO is written.
    assert server.plain in ({written, written + EHLO} if written == b"" and error is DowngradeError else {written})
    assert (server.secret, len(server.connections)) == (b"", 1)


@pytest.mark.parametrize("chunking", ["whole", "by_line"])
@pytest.mark.parametrize("octets", INJECTED.values(), ids=INJECTED)
def test_plaintext_behind_the_220_is_not_used(
    serve: Serve, mailer: Mailer, message: EmailMessage, octets: bytes, chunking: Chunking
) -> None:
    """It ends the session, in the same segment as the 220 or in a later one (STLS-03, STLS-06; CVE-2011-0411)."""
    server = serve(_says(OFFER, b"220 go\r\n" + octets), chunking=chunking)
    # Late octets that are shorter than the header of a TLS record end by the time limit: the rest never comes.
    short = (DeadlineExceededError,) if chunking == "by_line" and len(octets) < 5 else ()
    with pytest.raises((TLSError, *short)) as caught:
        mailer(server, tls="starttls", timeout=1).send(message)
    # What came with the 220 is seen before the handshake begins.
    assert chunking == "by_line" or caught.value.stage is Stage.STARTTLS
    server.joined()
    assert (server.plain, server.secret) == (STARTTLS, b"")


def test_a_multi_line_220_begins_tls(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """It is one reply, however many lines it has (STLS-02)."""
    server = serve(honest("starttls", replies={"STARTTLS": b"220-ready\r\n220 go\r\n"}))
    assert mailer(server, tls="starttls").send(message).reply.code == 250


@pytest.mark.parametrize(
    "offer",
    [
        b"250-mx.test\r\n250 STARTTLS\r\n",
        b"250-mx.test\r\n250-AUTH PLAIN LOGIN EVIL\r\n250-SIZE 1\r\n250-PIPELINING\r\n250 STARTTLS\r\n",
        b"250-other.test\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-LIMITS RCPTMAX=1\r\n250 STARTTLS\r\n",
        b"250-mx.test\r\n250-starttls\r\n250 ENHANCEDSTATUSCODES\r\n",
    ],
    ids=["little", "a login and a size", "everything else", "lower case"],
)
def test_what_was_said_before_tls_changes_nothing_after_it(serve: Serve, mailer: Mailer, offer: bytes) -> None:
    """The client writes the same inside TLS, whatever was offered in plaintext (invariant 3, STLS-04, STLS-05)."""

    def script(peer: Peer) -> None:
        peer.send(b"220 mx.test ESMTP\r\n")
        peer.expect(b"EHLO")
        peer.send(offer)
        peer.expect(b"STARTTLS")
        peer.send(b"220 go\r\n")
        peer.start_tls()
        peer.expect(b"EHLO")
        # STARTTLS inside TLS is ignored.
        peer.send(b"250-mx.test\r\n250-STARTTLS\r\n250-AUTH LOGIN PLAIN\r\n250 SIZE 1000\r\n")
        peer.expect(b"AUTH PLAIN")
        peer.send(b"235 welcome\r\n")
        for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            peer.read_line()
            peer.send(reply)
        peer.read_data()
        peer.send(b"250 queued\r\n")
        peer.sleep_until_peer_closes()

    server = serve(script)
    mine = mailer(server, tls="starttls", username="me", password="secret")
    mine.send_bytes(b"Subject: x\r\n\r\nx\r\n", mail_from="a@b.example", recipients=["c@d.example"])
    assert server.plain == STARTTLS
    assert server.secret == EHLO + (
        b"AUTH PLAIN AG1lAHNlY3JldA==\r\nMAIL FROM:<a@b.example> SIZE=17\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
        b"Subject: x\r\n\r\nx\r\n.\r\n"
    )


def test_plaintext_on_the_implicit_port_is_recognised(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Nothing but a ClientHello was written, and the error names the other mode."""
    server = serve(_says())
    with pytest.raises(WrongTLSModeError, match='tls="starttls"'):
        mailer(server).send(message)
    server.joined()
    assert (server.plain, server.secret) == (b"", b"")


def test_tls_on_the_starttls_port_is_recognised(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Client and server wait for each other; the hint names the other mode, and nothing was written."""
    server = serve(lambda peer: peer.sleep_until_peer_closes())
    with pytest.raises(DeadlineExceededError, match='tls="implicit"'):
        mailer(server, tls="starttls", timeout=0.3).send(message)
    server.joined()
    assert server.plain == b""


def test_after_a_failed_handshake_the_next_send_starts_over(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """On a new connection, with TLS (STLS-08)."""
    server = serve(_says(OFFER, b"220 go\r\n250 injected\r\n"), honest("starttls"))
    mine = mailer(server, tls="starttls")
    with pytest.raises(DowngradeError):
        mine.send(message)
    assert mine.send(message).reply.code == 250
    assert server.plain == STARTTLS * 2
