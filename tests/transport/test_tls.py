"""`tls.py`: the context, the check of a session, and errors of the handshake; mostly without a server."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, NoReturn, cast

import certifi
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificate

from certificates import GOOD
from conftest import Mailer, Serve
from scripted import Mode, honest
from securesmtp import (
    CertificateError,
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    DowngradeError,
    ProtocolError,
    SecureMailer,
    SecureSMTPError,
    Stage,
    TLSError,
    TLSPolicy,
    WrongTLSModeError,
)
from securesmtp._protocol.dialogue import open_session
from securesmtp._protocol.exchange import Exchange
from securesmtp._settings import Settings
from securesmtp._transport import tls
from securesmtp._transport.channel import READ
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.link import Link
from securesmtp._values import TLSInfo, TLSMode


def _settings(mode: Literal["implicit", "starttls"] = "starttls", port: int = 1) -> Settings:
    return SecureMailer("localhost", port, tls=mode, timeout=1)._settings


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (TLSPolicy(), f"certifi {certifi.__version__}"),
        (TLSPolicy(ca_file="a.pem"), "ca_file a.pem"),
        (TLSPolicy(ca_data="x"), "ca_data"),
        (TLSPolicy(extra_ca_file="b.pem"), f"certifi {certifi.__version__} + extra_ca_file b.pem"),
        (TLSPolicy(ca_file="a.pem", extra_ca_file="b.pem"), "ca_file a.pem + extra_ca_file b.pem"),
    ],
)
def test_a_receipt_names_the_trusted_roots(policy: TLSPolicy, name: str) -> None:
    """The source of the root certificates, and the file that was added to it."""
    assert tls.describe_trust(policy) == name


@pytest.mark.parametrize(
    ("reason", "mode", "kind", "text", "hint"),
    [
        ("WRONG_VERSION_NUMBER", "implicit", WrongTLSModeError, "speaks plaintext", 'tls="starttls"'),
        ("WRONG_VERSION_NUMBER", "starttls", DowngradeError, "continued in plaintext", "None"),
        ("HTTP_REQUEST", "implicit", WrongTLSModeError, "speaks plaintext", 'tls="starttls"'),
        ("RECORD_LAYER_FAILURE", "starttls", TLSError, "failed: RECORD_LAYER_FAILURE", "ECDHE"),
        ("NO_SHARED_CIPHER", "implicit", TLSError, "failed: NO_SHARED_CIPHER", "ECDHE"),
        (None, "starttls", TLSError, "failed: odd", "ECDHE"),
    ],
)
def test_a_failed_handshake_is_explained(
    reason: str | None, mode: Literal["implicit", "starttls"], kind: type[TLSError], text: str, hint: str
) -> None:
    """What happened, at which stage, and what to do."""
    failure = ssl.SSLError(1, "odd")
    failure.reason = reason  # type: ignore[assignment]  # OpenSSL does not always give one
    error = tls.handshake_error(failure, cast("ssl.SSLObject", None), _settings(mode))
    assert type(error) is kind
    assert error.stage is Stage.HANDSHAKE
    assert text in error.args[0]
    assert hint in str(error.hint)


def test_a_resumed_session_is_refused() -> None:
    """It would skip the checks of the chain and the name (TLS-09)."""
    with pytest.raises(TLSError, match="the session was resumed") as caught:
        tls.verify_session(cast("ssl.SSLObject", SimpleNamespace(session_reused=True)), _settings())
    assert caught.value.stage is Stage.HANDSHAKE


def test_a_certificate_that_cannot_be_read_is_refused() -> None:
    """Python raises ValueError for a name in it that is not ASCII."""

    def unreadable(*, binary_form: bool = False) -> bytes:
        raise ValueError

    sock = SimpleNamespace(
        session_reused=False, version=lambda: "TLSv1.3", cipher=lambda: ("x",), getpeercert=unreadable
    )
    with pytest.raises(CertificateError, match="cannot be read") as caught:
        tls.verify_session(cast("ssl.SSLObject", sock), _settings())
    assert (caught.value.stage, caught.value.hint) == (Stage.HANDSHAKE, "the server needs a new certificate")


def test_an_encrypted_client_key_is_refused(tmp_path: Path) -> None:
    """When the mailer is made, with its own hint; OpenSSL does not ask for the password on the terminal."""
    leaf = trustme.CA().issue_cert("me.example")
    certificate, key = tmp_path / "me.pem", tmp_path / "me.key"
    leaf.cert_chain_pems[0].write_to_path(str(certificate))
    plain = load_pem_private_key(leaf.private_key_pem.bytes(), password=None)
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")))
    with pytest.raises(ConfigurationError) as caught:
        SecureMailer("localhost", policy=TLSPolicy(client_cert=certificate, client_key=key))
    assert caught.value.args == ("the client key is encrypted",)
    assert caught.value.hint == "pass a key file without a password, readable by this process only"


@pytest.mark.parametrize(
    ("said", "inside", "kind", "words"),
    [
        (b"421 bye\r\n", False, DowngradeError, "out of turn, in the clear"),
        (b"421 bye\r\n", True, ConnectError, "the server closes the session"),
        (b"250 ok\r\n", True, ProtocolError, "out of turn"),
        (b"25", True, ProtocolError, "out of turn"),
    ],
)
def test_what_nobody_asked_for_is_told_with_its_stage(
    said: bytes, kind: type[SecureSMTPError], words: str, *, inside: bool
) -> None:
    """In the clear it is an attack, in TLS a goodbye or a fault."""
    exchange = Exchange()
    exchange.tls = cast("TLSInfo", object()) if inside else None
    exchange.feed(said)
    with pytest.raises(kind, match=words) as caught:
        exchange.refuse_unsolicited(Stage.RCPT)
    assert type(caught.value) is kind
    assert caught.value.stage is Stage.RCPT


def test_a_receipt_has_the_evidence_of_its_session(serve: Serve, message: EmailMessage, mode: Mode) -> None:
    """Each field has what its name says."""
    server = serve(honest(mode), tls=GOOD.certificate.context())
    policy = TLSPolicy(ca_data=GOOD.trust.decode("ascii"))
    with SecureMailer("localhost", server.port, tls=mode, policy=policy, timeout=5) as mailer:
        info = mailer.send(message).tls
    assert (info.mode, info.version, info.server_name, info.trust) == (mode, "TLSv1.3", "localhost", "ca_data")
    assert info.cipher.startswith("TLS_")
    assert len(bytes.fromhex(info.peer_sha256)) == 32
    assert info.peer_spki_sha256.startswith("sha256/")
    assert info.not_after > datetime.now(UTC)


def test_a_client_certificate_and_its_key_are_two_files(tmp_path: Path) -> None:
    """Both are loaded; if one cannot be read, the error names the certificate's path."""
    leaf = trustme.CA().issue_cert("me.example")
    certificate, key = tmp_path / "me.pem", tmp_path / "me.key"
    leaf.cert_chain_pems[0].write_to_path(str(certificate))
    leaf.private_key_pem.write_to_path(str(key))
    assert tls.build_context(TLSPolicy(client_cert=certificate, client_key=key)).cert_store_stats()["x509"]
    with pytest.raises(ConfigurationError, match=r"client_cert '.*missing\.pem' cannot be used"):
        tls.build_context(TLSPolicy(client_cert=tmp_path / "missing.pem", client_key=key))


def test_the_configured_host_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other: the resolver takes None for this machine."""
    asked: list[object] = []

    def resolves(host: object, *_: object, **__: object) -> NoReturn:
        asked.append(host)
        raise socket.gaierror

    link = Link(_settings(), tls.build_context(TLSPolicy()))
    monkeypatch.setattr(socket, "getaddrinfo", resolves)
    with pytest.raises(ConnectError):
        link.run(open_session(TLSMode.IMPLICIT, None))
    assert asked == ["localhost"]


def test_a_silent_server_on_port_465_waits_for_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing comes in the clear, the port says why."""
    link = Link(_settings(port=465), tls.build_context(TLSPolicy()))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        link.connection.channel.sock = ours
        steps = link.connection.greet()
        assert next(steps) == READ
        with pytest.raises(WrongTLSModeError, match="waits for TLS") as caught:
            steps.throw(ConnectError("gone"))
    assert caught.value.stage is Stage.GREETING
    assert "implicit" in (caught.value.hint or "")


def test_a_limit_that_ran_out_before_a_wait_names_the_stage() -> None:
    """The stage is that of the effect at hand."""
    link = Link(_settings(), tls.build_context(TLSPolicy()))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = link.connection
        connection.channel.sock, connection._stage, connection._deadline = ours, Stage.RCPT, Deadline("command", 0)
        with pytest.raises(DeadlineExceededError, match="reply to RCPT") as caught:
            link._wait_for_socket(READ)
    assert (caught.value.stage, caught.value.limit) == (Stage.RCPT, "command")


def test_tls_1_2_is_used_if_the_server_has_nothing_newer(
    serve: Serve, mailer: Mailer, ca: trustme.CA, message: EmailMessage
) -> None:
    """The pin in the receipt is the hash of the server's key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = ca.issue_cert("localhost")
    issued.configure_cert(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    info = mailer(serve(tls=context)).send(message).tls
    key = load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    assert (info.version, info.peer_spki_sha256) == ("TLSv1.2", "sha256/" + base64.b64encode(digest).decode())


def test_the_default_options_of_openssl_stay() -> None:
    """Except the one that hides a cut connection; the verification flags are the same on every Python."""
    ours, theirs = tls.build_context(TLSPolicy()), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert ours.options & theirs.options == theirs.options & ~ssl.OP_IGNORE_UNEXPECTED_EOF
    assert ours.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_STRICT


def test_a_context_that_does_not_check_the_name_is_not_used() -> None:
    """Although it checks the chain."""
    context = tls.build_context(TLSPolicy())
    context.check_hostname = False
    with socket.socket() as plain, pytest.raises(TLSError, match="does not verify"):
        tls.wrap(context, plain, "localhost")
