"""SCRAM and EXTERNAL over TLS: bound to the session, refused when somebody is in between, and without a leak."""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme

from conftest import AsyncMailer, Mailer, Run, Serve
from leaks import shown
from scram_server import Server, exchange, tls_unique
from scripted import Answer, Mode, Peer, Script, honest
from securesmtp import (
    AuthenticationError,
    ConfigurationError,
    Envelope,
    External,
    Outcome,
    Password,
    ProtocolError,
    SecureMailer,
    SecureSMTPError,
    ServerNotAuthenticError,
    TLSPolicy,
)
from securesmtp._protocol.sasl import ChannelBinding, scram

PASSWORD = "hunter2,sec=ret"
ACCOUNT = ("me", PASSWORD)
OFFER = "AUTH SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-256-PLUS"
WITHOUT_PLUS = "AUTH SCRAM-SHA-1 SCRAM-SHA-256"
MAIL = Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\nx\r\n")


@pytest.fixture
def tls12(ca: trustme.CA) -> ssl.SSLContext:
    """Make the context of a server that has TLS 1.2 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    ca.issue_cert("localhost").configure_cert(context)
    return context


def _server(
    mode: Mode = "implicit",
    offer: str = OFFER,
    bind: Callable[[Peer], ChannelBinding | None] = tls_unique,
    replies: Mapping[str, bytes] | None = None,
) -> Script:
    """Play a server whose account's password is PASSWORD."""
    auth = exchange(*ACCOUNT, bind)
    return honest(mode, extensions=("PIPELINING", offer), auth=ACCOUNT, replies={"AUTH": auth, **(replies or {})})


def _login(secret: bytes | bytearray) -> tuple[bytes, bytes]:
    """Return the mechanism and the first message of the only login."""
    (line,) = [line for line in bytes(secret).split(b"\r\n") if line.startswith(b"AUTH ")]
    _, name, initial = line.split(b" ")
    return name, base64.b64decode(initial)


def test_on_tls_12_the_login_is_bound_to_the_session(
    serve: Serve, mailer: Mailer, tls12: ssl.SSLContext, message: EmailMessage, mode: Mode
) -> None:
    """The server has the same tls-unique, and the strongest -PLUS is used (SCR-04)."""
    server = serve(_server(mode), tls=tls12)
    mine = mailer(server, tls=mode, username="me", password=PASSWORD)
    assert mine.send(message).tls.version == "TLSv1.2"
    mine.close()
    server.joined()
    name, first = _login(server.secret)
    assert (name, first.partition(b"n=")[0]) == (b"SCRAM-SHA-256-PLUS", b"p=tls-unique,,")


def test_on_tls_13_nothing_is_bound(serve: Serve, mailer: Mailer, message: EmailMessage, mode: Mode) -> None:
    """Python has bytes for it, which mean nothing there: no -PLUS, and "n" (O20, SCR-05)."""
    server = serve(_server(mode, bind=lambda peer: None))
    mine = mailer(server, tls=mode, username="me", password=PASSWORD)
    assert mine.send(message).tls.version == "TLSv1.3"
    report = mine.check()
    assert report.passed_over["SCRAM-SHA-256-PLUS"] == "this connection has no channel binding"
    mine.close()
    server.joined()
    name, first = _login(server.connections[0].secret)
    assert (name, first.partition(b"n=")[0]) == (b"SCRAM-SHA-256", b"n,,")


def test_somebody_in_between_cannot_pass_a_proof_on(
    serve: Serve, mailer: Mailer, tls12: ssl.SSLContext, message: EmailMessage
) -> None:
    """Their session with the server has another tls-unique, and the server refuses."""
    server = serve(_server(bind=lambda peer: ChannelBinding("tls-unique", b"of their session")), tls=tls12)
    with pytest.raises(AuthenticationError, match="535"):
        mailer(server, username="me", password=PASSWORD).send(message)
    server.joined()
    assert _login(server.secret)[0] == b"SCRAM-SHA-256-PLUS"


def test_somebody_in_between_cannot_remove_the_offer(
    serve: Serve, mailer: Mailer, tls12: ssl.SSLContext, message: EmailMessage
) -> None:
    """The client says that it could have bound, and the server, which had offered it, refuses (RFC 5802 §6)."""
    server = serve(_server(offer=WITHOUT_PLUS), tls=tls12)
    with pytest.raises(AuthenticationError, match="535"):
        mailer(server, username="me", password=PASSWORD).send(message)
    server.joined()
    name, first = _login(server.secret)
    assert (name, first.partition(b"n=")[0]) == (b"SCRAM-SHA-256", b"y,,")


def test_a_task_computes_its_proof_in_a_thread(
    run: Run, serve: Serve, async_mailer: AsyncMailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may ask for a million iterations, which would hold up the whole loop."""
    threads: list[int] = []
    proofs = scram._proofs

    def recording(*arguments: Any) -> tuple[bytes, bytes]:
        threads.append(threading.get_ident())
        return proofs(*arguments)

    monkeypatch.setattr(scram, "_proofs", recording)
    server = serve(_server(bind=lambda peer: None))

    async def main() -> int:
        async with async_mailer(server, username="me", password=PASSWORD) as mailer:
            await mailer.send(message)
        return threading.get_ident()

    loop = run(main)
    assert len(threads) == 1
    assert threads != [loop]


# Leaks. The server knows the password, and says it wherever it can.

ENCODED = base64.b64encode(PASSWORD.encode())


def _echoing(end: bytes) -> Callable[[Peer, bytes], bytes]:
    """Return an exchange that repeats the password, and after the proof also the proof, in a 334 or the *end*."""

    def reply(peer: Peer, line: bytes) -> bytes:
        server = Server("SCRAM-SHA-256", *ACCOUNT)
        first = server.first(base64.b64decode(line.split(b" ")[2]))
        if end == b"334 FIRST\r\n":
            return b"334 " + base64.b64encode(first + b",s=" + PASSWORD.encode()) + b"\r\n"
        if end == SAYS["in place of the first message"] + b"\r\n":
            return end
        peer.send(b"334 " + base64.b64encode(first) + b"\r\n")
        token = peer.read_line()
        proof = base64.b64decode(token).rpartition(b"p=")[2]
        final = server.final(base64.b64decode(token))
        if end.startswith(b"235 in"):
            peer.send(b"334 " + base64.b64encode(final) + b"\r\n")
            peer.read_line()
        return end.replace(b"PROOF", proof).replace(b"TOKEN", token).replace(b"FINAL", base64.b64encode(final))

    return reply


SAYS = {
    "password": b"535 no: " + PASSWORD.encode(),
    "password in base64": b"535 " + ENCODED,
    "proof": b"535 no: PROOF",
    "what was written": b"535 no: TOKEN",
    "in pieces": b"535-no: hunter2,\r\n535 sec=ret",
    "in the error": b"334 " + base64.b64encode(b"e=" + PASSWORD.encode()),
    "as the final": b"334 " + base64.b64encode(b"v=" + ENCODED),
    "as a challenge": b"334 " + base64.b64encode(PASSWORD.encode()),
    "malformed": b"535_" + PASSWORD.encode(),
    "proof, malformed": b"PROOF",
    "no login": b"250 " + PASSWORD.encode(),
    "without its proof": b"235 PROOF",
    "in the first message": b"334 FIRST",
    "in place of the first message": b"334 " + base64.b64encode(b"r=" + PASSWORD.encode()),
    "after the login": b"235 in",
}
ECHO = b"550 5.7.1 " + PASSWORD.encode() + b"\r\n"


@pytest.mark.parametrize("case", SAYS)
@pytest.mark.parametrize("callable_", [False, True], ids=["str", "callable"])
def test_no_reply_during_scram_shows_the_password_or_the_proof(
    serve: Serve, mailer: Mailer, message: EmailMessage, case: str, *, callable_: bool
) -> None:
    """From `send`, `check` and `send_many`: no text, attribute, cause or frame (AUTH-08)."""
    auth = _echoing(SAYS[case] + b"\r\n")
    replies: dict[str, Answer] = {"AUTH": auth, "MAIL": ECHO, "RCPT": ECHO}
    script = honest(extensions=("PIPELINING", "AUTH SCRAM-SHA-256"), auth=ACCOUNT, replies=replies)
    server = serve(*[script] * 3)
    password = (lambda: PASSWORD) if callable_ else PASSWORD
    mine = mailer(server, username="me", password=password, pipelining="session", timeout=2, max_connections=1)
    with pytest.raises(SecureSMTPError) as caught:
        mine.send(message)
    results = list(mine.send_many([MAIL, MAIL]))
    try:
        found = repr(mine.check())
    except SecureSMTPError as error:
        found = shown(error)
    found += shown(caught.value) + "".join(shown(result.error) for result in results if result.error)
    mine.close()
    server.joined()
    tokens = [line for line in server.secret.split(b"\r\n") if line.startswith(b"Yz1")]
    proofs = [base64.b64decode(token).rpartition(b"p=")[2].decode() for token in tokens]
    assert bool(proofs) is ("first message" not in case)
    for secret in [PASSWORD, ENCODED.decode().rstrip("="), *proofs, *(token[-30:-4].decode() for token in tokens)]:
        assert secret not in found
    assert all(result.outcome is not Outcome.ACCEPTED for result in results)


# What is written after a fault.

FAULTS: dict[str, tuple[list[bytes], type[SecureSMTPError]]] = {
    "not base64": ([b"334 !"], ProtocolError),
    "no first message": ([b"334 "], ProtocolError),
    "another nonce": ([b"334 " + base64.b64encode(b"r=x,s=QUJD,i=4096")], ProtocolError),
    "one iteration": ([b"NONCE,s=QUJD,i=1"], ProtocolError),
    "235 at once": ([b"235 in"], ServerNotAuthenticError),
    "235 without its proof": ([b"NONCE,s=QUJD,i=4096", b"235 in"], ServerNotAuthenticError),
    "no proof": ([b"NONCE,s=QUJD,i=4096", b"334 " + base64.b64encode(b"V=AAAA")], ProtocolError),
    "a proof of another": (
        [b"NONCE,s=QUJD,i=4096", b"334 " + base64.b64encode(b"v=" + base64.b64encode(b"x" * 32))],
        ServerNotAuthenticError,
    ),
    "an error and 235": ([b"NONCE,s=QUJD,i=4096", b"334 " + base64.b64encode(b"e=other-error")], AuthenticationError),
}


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.parametrize("way", ["send", "check", "session"])
def test_nothing_is_written_after_a_fault(
    serve: Serve, mailer: Mailer, message: EmailMessage, case: str, way: str
) -> None:
    """The connection is closed: no proof to what is no first message, no MAIL, not even QUIT (AUTH-04)."""
    answers, kind = FAULTS[case]

    def exchange(peer: Peer, line: bytes) -> bytes:
        nonce = base64.b64decode(line.split(b" ")[2]).rpartition(b"r=")[2]
        for answer in answers[:-1]:
            peer.send(_with_nonce(answer, nonce))
            peer.read_line()
        peer.send(_with_nonce(answers[-1], nonce))
        return b"235 in\r\n"

    server = serve(
        honest(extensions=("AUTH SCRAM-SHA-256 PLAIN",), auth=ACCOUNT, replies={"AUTH": exchange}), timeout=5
    )
    mine = mailer(server, username="me", password=PASSWORD, pipelining="session")
    error: object
    if way == "check":
        try:
            error = mine.check().login_error
        except SecureSMTPError as raised:
            error = raised
    elif way == "send":
        with pytest.raises(SecureSMTPError) as caught:
            mine.send(message)
        error = caught.value
    else:
        (result,) = mine.send_many([MAIL])
        error = result.error
    assert type(error) is kind
    server.joined()
    lines = server.connections[0].secret.split(b"\r\n")
    at = next(number for number, line in enumerate(lines) if line.startswith(b"AUTH"))
    assert len(lines) - at == len(answers) + 1
    assert lines[-1] == b""


def _with_nonce(answer: bytes, nonce: bytes) -> bytes:
    if answer.startswith(b"NONCE"):
        answer = b"334 " + base64.b64encode(answer.replace(b"NONCE", b"r=%bserver" % nonce))
    return answer + b"\r\n"


# EXTERNAL.


@pytest.fixture
def policy(ca: trustme.CA, ca_file: Path, tmp_path: Path) -> TLSPolicy:
    """Make a policy with a client certificate."""
    path = tmp_path / "me.pem"
    ca.issue_cert(common_name="me").private_key_and_cert_chain_pem.write_to_path(str(path))
    return TLSPolicy(ca_file=ca_file, client_cert=path)


def test_a_certificate_logs_in_by_external(
    serve: Serve, mailer: Mailer, policy: TLSPolicy, message: EmailMessage
) -> None:
    """An empty identity is written "=" (AUTH-03)."""
    for identity, written in (("", b"="), ("me@example.org", base64.b64encode(b"me@example.org"))):
        server = serve(honest(extensions=("AUTH EXTERNAL",), auth=ACCOUNT, replies={"AUTH": b"235 in\r\n"}))
        mine = mailer(server, auth=External(identity), policy=policy)
        assert mine.send(message).reply.code == 250
        report = mine.check()
        assert (report.mechanism, report.login) == ("EXTERNAL", True)
        mine.close()
        server.joined()
        assert b"AUTH EXTERNAL " + written in server.connections[0].secret.split(b"\r\n")


def test_external_needs_a_certificate() -> None:
    """Without one, the server would refuse it: a mistake that is seen at once."""
    with pytest.raises(ConfigurationError, match="client certificate"):
        SecureMailer("h", auth=External())


@pytest.mark.parametrize("identity", ["a\0b", "\ud800", "x" * 4097, 5, None], ids=ascii)
def test_an_identity_that_cannot_be_sent_is_refused(identity: str) -> None:
    """As a username is."""
    with pytest.raises(ConfigurationError, match="identity"):
        External(identity)


def test_a_login_of_a_wrong_type_is_refused_by_its_type() -> None:
    """The error names those that there are."""
    with pytest.raises(ConfigurationError, match="auth is a tuple, not one of Password, OAuth2, External"):
        SecureMailer("h", auth=("me", PASSWORD))  # type: ignore[arg-type]
    assert Password("me", PASSWORD).mechanisms is None
