"""Servers that misbehave during the login: one attempt with one mechanism, bounded, never in plaintext."""

from __future__ import annotations

import base64

import pytest

from conftest import Mailer, Serve
from scripted import Mode, Peer, Script, honest
from securesmtp import (
    AuthenticationError,
    ConnectError,
    DowngradeError,
    NoUsableMechanismError,
    Outcome,
    ProtocolError,
    SecureSMTPError,
)

pytestmark = pytest.mark.faces("attacks", sample=(13, 12))

RAW = b"Subject: x\r\n\r\nx\r\n"
TOKEN = base64.b64encode(b"\0me\0secret")
NAME, PASSWORD = base64.b64encode(b"me"), base64.b64encode(b"secret")


def _login(offer: bytes, *answers: bytes) -> Script:
    """Play a server in TLS that announces *offer*, and sends *answers* one by one."""

    def script(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        lines = [b"mx.test", *offer.split(b"\r\n250 ")]
        peer.send(b"".join(b"250-%s\r\n" % line for line in lines[:-1]) + b"250 %s\r\n" % lines[-1])
        for answer in answers:
            peer.read_line()
            peer.send(answer)
        peer.sleep_until_peer_closes()

    return script


BOTH = b"AUTH PLAIN LOGIN"
SENT_PLAIN = [b"AUTH PLAIN " + TOKEN]
SENT_LOGIN = [b"AUTH LOGIN", NAME, PASSWORD]
ASK = b"334 " + base64.b64encode(b"Username:") + b"\r\n"
NO = b"535 no\r\n"
# Each row: the EHLO offer, the server's replies, what the client writes for the login, and the caller's error.
TABLE: dict[str, tuple[bytes, list[bytes], list[bytes], type[SecureSMTPError]]] = {
    "refused": (BOTH, [b"535 5.7.8 no\r\n"], SENT_PLAIN, AuthenticationError),
    "refused for now": (BOTH, [b"454 4.7.0 later\r\n"], SENT_PLAIN, AuthenticationError),
    "mechanism not supported after all": (BOTH, [b"504 5.5.4 no\r\n"], SENT_PLAIN, AuthenticationError),
    "mechanism too weak": (BOTH, [b"534 5.7.9 no\r\n"], SENT_PLAIN, AuthenticationError),
    "503 is no success": (BOTH, [b"503 already\r\n"], SENT_PLAIN, AuthenticationError),
    "250 is no success": (BOTH, [b"250 ok\r\n"], SENT_PLAIN, ProtocolError),
    "220 is no success": (BOTH, [b"220 ok\r\n"], SENT_PLAIN, ProtocolError),
    "354 is no success": (BOTH, [b"354 ok\r\n"], SENT_PLAIN, ProtocolError),
    "421": (BOTH, [b"421 bye\r\n"], SENT_PLAIN, AuthenticationError),
    "PLAIN is asked twice": (BOTH, [b"334 \r\n"] * 2, [*SENT_PLAIN, TOKEN], ProtocolError),
    "PLAIN is asked once more, and refused": (
        BOTH,
        [b"334 \r\n", b"535 no\r\n"],
        [*SENT_PLAIN, TOKEN],
        AuthenticationError,
    ),
    "LOGIN is asked three times": (b"AUTH LOGIN", [ASK] * 3, SENT_LOGIN, ProtocolError),
    "LOGIN is welcome too early": (b"AUTH LOGIN", [ASK, b"250 ok\r\n"], SENT_LOGIN[:2], ProtocolError),
    "challenges that are not base64": (
        b"AUTH LOGIN",
        [b"334 Username:\r\n", b"334 !\r\n", NO],
        SENT_LOGIN,
        AuthenticationError,
    ),
    "LOGIN refused after the name": (b"AUTH LOGIN", [ASK, b"535 no\r\n"], SENT_LOGIN[:2], AuthenticationError),
    "nothing that we have": (b"AUTH CRAM-MD5 NTLM", [], [], NoUsableMechanismError),
    "no AUTH at all": (b"SIZE 100", [], [], NoUsableMechanismError),
    "AUTH with nothing behind it": (b"AUTH", [], [], NoUsableMechanismError),
    "PLAINS": (b"AUTH PLAINS XPLAIN", [], [], NoUsableMechanismError),
}


@pytest.mark.parametrize("case", TABLE)
def test_a_login_is_tried_once(serve: Serve, mailer: Mailer, case: str) -> None:
    """No other mechanism, no second attempt, no response beyond the exchange (AUTH-02, AUTH-04, AUTH-05, AUTH-06)."""
    offer, answers, written, error = TABLE[case]
    server = serve(_login(offer, *answers))
    with pytest.raises(error) as caught:
        mailer(server, username="me", password="secret").send_bytes(RAW, mail_from="a@b.c", recipients=["d@e.f"])
    assert type(caught.value) is error
    assert caught.value.outcome is Outcome.NOT_SENT
    server.joined()
    assert server.secret.split(b"\r\n")[1:-1] == written


@pytest.mark.parametrize(
    "offer",
    [b"auth plain", b"AUTH=PLAIN", b"AUTH LOGIN\r\n250 AUTH X PLAIN"],
    ids=["lower case", "equals", "two lines"],
)
def test_every_spelling_of_the_offer_is_understood(serve: Serve, mailer: Mailer, offer: bytes) -> None:
    """In any case, with the equals sign used before RFC 2554, and on two lines (AUTH-02, EXT-07)."""
    server = serve(_login(offer, b"535 no\r\n"))
    with pytest.raises(AuthenticationError, match="535"):
        mailer(server, username="me", password="secret").send_bytes(RAW, mail_from="a@b.c", recipients=["d@e.f"])
    server.joined()
    assert SENT_PLAIN[0] in server.secret


def test_no_login_is_offered_to_plaintext(serve: Serve, mailer: Mailer) -> None:
    """If STARTTLS was stripped, the password is not even fetched (AUTH-01, invariant 2)."""
    asked: list[str] = []

    def password() -> str:
        asked.append("asked")
        return "secret"

    def stripped(peer: Peer) -> None:
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250 AUTH PLAIN LOGIN\r\n")
        peer.sleep_until_peer_closes()

    server = serve(stripped)
    with pytest.raises(DowngradeError):
        mailer(server, tls="starttls", username="me", password=password).send_bytes(
            RAW, mail_from="a@b.c", recipients=["d@e.f"]
        )
    server.joined()
    assert b"AUTH" not in server.plain
    assert asked == []


def test_a_password_callable_that_raises_sends_nothing(serve: Serve, mailer: Mailer, mode: Mode) -> None:
    """Its own error reaches the caller, no login was started, and the mailer is still usable (AUTH-04)."""

    class Locked(Exception):  # noqa: N818
        pass

    passwords: list[str] = []

    def password() -> str:
        if not passwords:
            raise Locked
        return passwords[0]

    server = serve(honest(mode, auth=("me", "secret")))
    mine = mailer(server, tls=mode, username="me", password=password)
    with pytest.raises(Locked):
        mine.send_bytes(RAW, mail_from="a@b.c", recipients=["d@e.f"])
    passwords.append("secret")
    mine.send_bytes(RAW, mail_from="a@b.c", recipients=["d@e.f"])
    assert [b"AUTH" in connection.secret for connection in server.connections] == [False, True]


def test_a_connection_that_ends_during_the_login_is_a_connect_error(serve: Serve, mailer: Mailer) -> None:
    """It is not reported as a refused login, and it is retryable."""

    def ends(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250 AUTH PLAIN\r\n")
        peer.expect(b"AUTH")

    with pytest.raises(ConnectError) as caught:
        mailer(serve(ends), username="me", password="secret").send_bytes(RAW, mail_from="a@b.c", recipients=["d@e.f"])
    assert caught.value.retryable
