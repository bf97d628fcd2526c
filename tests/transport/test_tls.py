"""`tls.py`: the context, the check of a session, and errors of the handshake; mostly without a server."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, NoReturn, cast

import certifi
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import (
    Certificate,
    CertificateRevocationListBuilder,
    Name,
    NameAttribute,
    load_pem_x509_certificate,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import NameOID

from certificates import GOOD
from conftest import Mailer, Serve
from scripted import Mode, honest
from securesmtp import (
    CertificateError,
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    DowngradeError,
    SecureMailer,
    Stage,
    TLSError,
    TLSPolicy,
    WrongTLSModeError,
)
from securesmtp._protocol.dialogue import open_session
from securesmtp._protocol.sasl import ChannelBinding
from securesmtp._settings import Settings
from securesmtp._transport import tls
from securesmtp._transport.channel import READ
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.link import Link
from securesmtp._values import TLSMode


def _pin(certificate: Certificate) -> str:
    """Return the pin of a certificate, by the package cryptography."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256/" + base64.b64encode(hashlib.sha256(key).digest()).decode()


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


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"version": lambda: None}, "no verified certificate"),
        ({"version": lambda: "TLSv1.1"}, "no verified certificate"),
        ({"cipher": lambda: None}, "no verified certificate"),
        ({"getpeercert": lambda *, binary_form=False: None}, "no verified certificate"),
        ({"getpeercert": lambda *, binary_form=False: b"" if binary_form else {}}, "no verified certificate"),
        ({"getpeercert": lambda *, binary_form=False: b"x" if binary_form else {}}, "no verified certificate"),
        ({"cipher": lambda: ("ECDHE-RSA-AES128-SHA256", "TLSv1.2", 128)}, "cipher suite that was not asked for"),
    ],
    ids=["no version", "TLS 1.1", "no cipher", "no certificate", "empty certificate", "no fields", "CBC"],
)
def test_a_session_without_the_required_properties_is_refused(changed: dict[str, object], text: str) -> None:
    """The context rules these out; they are checked again after the handshake."""
    session = {
        "session_reused": False,
        "version": lambda: "TLSv1.3",
        "cipher": lambda: ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256),
        "getpeercert": lambda *, binary_form=False: b"x" if binary_form else {"notAfter": ""},
    }
    with pytest.raises(TLSError, match=text) as caught:
        tls.verify_session(cast("ssl.SSLObject", SimpleNamespace(**(session | changed))), _settings())
    assert (type(caught.value), caught.value.stage) == (TLSError, Stage.HANDSHAKE)


@pytest.mark.parametrize(
    ("types", "version", "kind"),
    [
        (["tls-unique"], "TLSv1.2", "tls-unique"),
        (["tls-unique"], "TLSv1.3", None),
        (["tls-unique", "tls-exporter"], "TLSv1.3", "tls-exporter"),
        (["tls-unique", "tls-exporter"], "TLSv1.2", "tls-unique"),
        ([], "TLSv1.2", None),
    ],
)
def test_a_channel_binding_is_one_that_the_version_of_tls_defines(
    monkeypatch: pytest.MonkeyPatch, types: list[str], version: str, kind: str | None
) -> None:
    """tls-unique on TLS 1.2 alone, whatever `ssl` returns; tls-exporter on TLS 1.3 once a Python has it (O20)."""
    monkeypatch.setattr(ssl, "CHANNEL_BINDING_TYPES", types)
    session = SimpleNamespace(version=lambda: version, get_channel_binding=lambda kind: f"of {kind}".encode())
    binding = tls.channel_binding(cast("ssl.SSLObject", session))
    assert binding == (None if kind is None else ChannelBinding(kind, f"of {kind}".encode()))
    session.get_channel_binding = lambda kind: None
    assert tls.channel_binding(cast("ssl.SSLObject", session)) is None


def test_a_ca_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    """OpenSSL reads a file with a revocation list only, without an error."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer, now = Name([NameAttribute(NameOID.COMMON_NAME, "ca")]), datetime.now(UTC)
    revoked = CertificateRevocationListBuilder(issuer, now, now + timedelta(days=1)).sign(key, SHA256())
    (tmp_path / "ca.pem").write_bytes(revoked.public_bytes(Encoding.PEM))
    with pytest.raises(ConfigurationError, match=r"^ca_file '.*ca\.pem' contains no certificate\. ") as caught:
        SecureMailer("localhost", ca_file=tmp_path / "ca.pem")
    assert "the CA that signed" in (caught.value.hint or "")


def test_an_encrypted_client_key_is_refused(tmp_path: Path) -> None:
    """When the mailer is created, with its own hint; OpenSSL does not ask for the password on the terminal."""
    leaf = trustme.CA().issue_cert("me.example")
    certificate, key = tmp_path / "me.pem", tmp_path / "me.key"
    leaf.cert_chain_pems[0].write_to_path(str(certificate))
    plain = load_pem_private_key(leaf.private_key_pem.bytes(), password=None)
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")))
    with pytest.raises(ConfigurationError) as caught:
        SecureMailer("localhost", policy=TLSPolicy(client_cert=certificate, client_key=key))
    assert caught.value.args == ("the client key is encrypted",)
    assert caught.value.hint == "pass a key file without a password, readable by this process only"


def test_a_receipt_has_the_evidence_of_its_session(serve: Serve, message: EmailMessage, mode: Mode) -> None:
    """Each field has what its name says."""
    server = serve(honest(mode), tls=GOOD.certificate.context())
    policy = TLSPolicy(ca_data=GOOD.trust.decode("ascii"))
    with SecureMailer("localhost", server.port, tls=mode, policy=policy, timeout=5) as mailer:
        info = mailer.send(message).tls
    assert (info.mode, info.version, info.server_name, info.trust) == (mode, "TLSv1.3", "localhost", "ca_data")
    assert info.cipher.startswith("TLS_")
    leaf = load_pem_x509_certificate(GOOD.certificate.pem_chain)
    assert info.peer_sha256 == leaf.fingerprint(SHA256()).hex()
    assert info.peer_spki_sha256 == _pin(leaf)
    assert info.not_after == leaf.not_valid_after_utc
    (first, *_, root), roots = info.chain, load_pem_x509_certificates(GOOD.trust)
    assert first.sha256 == info.peer_sha256
    assert root.sha256 in {each.fingerprint(SHA256()).hex() for each in roots}


def test_a_client_certificate_and_its_key_are_two_files(
    serve: Serve, ca: trustme.CA, message: EmailMessage, tmp_path: Path
) -> None:
    """Both are loaded and used; if one cannot be read, the error names the certificate's path."""
    clients = trustme.CA()
    leaf = clients.issue_cert("me.example")
    certificate, key = tmp_path / "me.pem", tmp_path / "me.key"
    leaf.cert_chain_pems[0].write_to_path(str(certificate))
    leaf.private_key_pem.write_to_path(str(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    clients.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    policy = TLSPolicy(ca_data=ca.cert_pem.bytes().decode(), client_cert=certificate, client_key=key)
    with SecureMailer("localhost", serve(tls=context).port, policy=policy) as mailer:
        assert mailer.send(message).reply.code == 250
    with pytest.raises(ConfigurationError, match=r"client_cert '.*missing\.pem' cannot be used"):
        tls.build_context(TLSPolicy(client_cert=tmp_path / "missing.pem", client_key=key))


def test_only_the_configured_host_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not None, which the resolver takes for this machine."""
    queries: list[object] = []

    def fail(host: object, *_: object, **__: object) -> NoReturn:
        queries.append(host)
        raise socket.gaierror

    link = Link(_settings(), tls.build_context(TLSPolicy()))
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectError):
        link.run(open_session(TLSMode.IMPLICIT, None))
    assert queries == ["localhost"]


def test_an_expired_limit_names_the_stage() -> None:
    """The stage of the current effect, even if the limit expired before the wait."""
    link = Link(_settings(), tls.build_context(TLSPolicy()))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = link.connection
        connection.channel.sock, connection.limit.stage = ours, Stage.RCPT
        connection.limit.deadline = Deadline("command", 0)
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
    pin = _pin(load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()))
    assert (info.version, info.peer_spki_sha256) == ("TLSv1.2", pin)


def test_the_default_options_of_openssl_stay() -> None:
    """Except the one that hides a cut connection; the verification flags are the same on every Python."""
    ours, theirs = tls.build_context(TLSPolicy()), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert ours.options & theirs.options == theirs.options & ~ssl.OP_IGNORE_UNEXPECTED_EOF
    assert ours.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize("mode", [ssl.CERT_REQUIRED, ssl.CERT_NONE])
def test_a_context_that_does_not_verify_is_not_used(mode: ssl.VerifyMode) -> None:
    """Without the check of the name, or without any check: a context can be changed, so each handshake looks at it."""
    context = tls.build_context(TLSPolicy())
    context.check_hostname = False
    context.verify_mode = mode
    with socket.socket() as plain, pytest.raises(TLSError, match="does not verify"):
        tls.wrap(context, plain, "localhost")
