"""The judgements of `tls.py`, most of them without a server."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, NoReturn, cast

import certifi
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from certificates import GOOD
from conftest import Mailer, Serve
from scripted import Mode, honest
from securesmtp import (
    CertificateError,
    CertificateReason,
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


def _settings(mode: Literal["implicit", "starttls"] = "starttls") -> Settings:
    return SecureMailer("localhost", 1, tls=mode, timeout=1)._settings


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
def test_a_receipt_names_whose_roots_were_trusted(policy: TLSPolicy, name: str) -> None:
    """The one source, and what was added to it."""
    assert tls.trust_name(policy) == name


@pytest.mark.parametrize(
    ("reason", "mode", "kind", "said", "hint"),
    [
        ("WRONG_VERSION_NUMBER", "implicit", WrongTLSModeError, "speaks plaintext", 'tls="starttls"'),
        ("WRONG_VERSION_NUMBER", "starttls", DowngradeError, "goes on in plaintext", "None"),
        ("HTTP_REQUEST", "implicit", WrongTLSModeError, "speaks plaintext", 'tls="starttls"'),
        ("RECORD_LAYER_FAILURE", "starttls", TLSError, "failed: RECORD_LAYER_FAILURE", "ECDHE"),
        ("NO_SHARED_CIPHER", "implicit", TLSError, "failed: NO_SHARED_CIPHER", "ECDHE"),
        (None, "starttls", TLSError, "failed: odd", "ECDHE"),
    ],
)
def test_a_failed_handshake_is_explained(
    reason: str | None, mode: Literal["implicit", "starttls"], kind: type[TLSError], said: str, hint: str
) -> None:
    """What happened, in which stage, and what to do."""
    failure = ssl.SSLError(1, "odd")
    failure.reason = reason  # type: ignore[assignment]  # OpenSSL does not always give one
    error = tls.handshake_error(failure, cast("ssl.SSLObject", None), _settings(mode))
    assert type(error) is kind
    assert error.stage is Stage.HANDSHAKE
    assert said in error.args[0]
    assert hint in str(error.hint)


def test_a_resumed_session_is_refused() -> None:
    """It would skip the checks of chain and name (TLS-09)."""
    with pytest.raises(TLSError, match="the session was resumed") as caught:
        tls.verified(cast("ssl.SSLObject", SimpleNamespace(session_reused=True)), _settings())
    assert caught.value.stage is Stage.HANDSHAKE


def test_a_certificate_that_cannot_be_read_is_refused() -> None:
    """A name in it that is no ASCII is a ValueError of Python's."""

    def unreadable(*, binary_form: bool = False) -> bytes:
        raise ValueError

    sock = SimpleNamespace(
        session_reused=False, version=lambda: "TLSv1.3", cipher=lambda: ("x",), getpeercert=unreadable
    )
    with pytest.raises(CertificateError, match="cannot be read") as caught:
        tls.verified(cast("ssl.SSLObject", sock), _settings())
    assert (caught.value.stage, caught.value.hint) == (Stage.HANDSHAKE, "the server needs a new one")


def test_an_encrypted_key_is_refused() -> None:
    """Nobody is asked for its password at the terminal."""
    with pytest.raises(ConfigurationError, match="the client key is encrypted") as caught:
        tls._encrypted()
    assert "without a password" in (caught.value.hint or "")


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
    """Each field is what its name says."""
    server = serve(honest(mode), tls=GOOD.certificate.context())
    policy = TLSPolicy(ca_data=GOOD.trust.decode("ascii"))
    with SecureMailer("localhost", server.port, tls=mode, policy=policy, timeout=5) as mailer:
        info = mailer.send(message).tls
    assert (info.mode, info.version, info.server_name, info.trust) == (mode, "TLSv1.3", "localhost", "ca_data")
    assert info.cipher.startswith("TLS_")
    assert len(bytes.fromhex(info.peer_sha256)) == 32
    assert info.peer_spki_sha256.startswith("sha256/")
    assert info.not_after > datetime.now(UTC)


def _refused(code: int, chain: Callable[[], object] | None) -> CertificateError:
    """Return what is made of OpenSSL's refusal with this code, and of a chain that can be asked for."""
    failure = ssl.SSLCertVerificationError(1, "odd")
    failure.verify_code, failure.verify_message = code, "words"
    sock = SimpleNamespace(context=tls.build_context(TLSPolicy()))
    if chain:
        sock._sslobj = SimpleNamespace(get_unverified_chain=chain)
    error = tls.handshake_error(failure, cast("ssl.SSLObject", sock), _settings())
    assert isinstance(error, CertificateError)
    return error


def test_a_refusal_that_nobody_has_a_word_for_is_a_refusal() -> None:
    """An OpenSSL code without an entry is OTHER, with OpenSSL's own words."""
    error = _refused(1, None)
    assert (error.reason, error.stage, error.hint) == (CertificateReason.OTHER, Stage.HANDSHAKE, None)
    assert error.args[0] == "the certificate is refused (OpenSSL: words)"


@pytest.mark.parametrize("code", [9, 10])
def test_a_certificate_that_cannot_be_seen_has_no_date(code: int) -> None:
    """Then it is not said which one it is."""
    assert "one above it" in _refused(code, None).args[0]


def _broken() -> object:
    raise OSError


@pytest.mark.parametrize("chain", [None, lambda: None, list, _broken], ids=["no way", "none", "empty", "broken"])
def test_a_chain_that_cannot_be_seen_is_not_shown(chain: Callable[[], object] | None) -> None:
    """What is for the message only never stands in the way of the refusal."""
    assert "but for no name at all" in _refused(62, chain).args[0]


def test_ten_names_of_a_certificate_are_shown_each_cut() -> None:
    """Whoever made it chose them: the eleventh is left out, as is what is beyond a hundred characters."""
    names = [("DNS", letter * 101) for letter in "abcdefghijk"]
    said = _refused(62, lambda: [SimpleNamespace(get_info=lambda: {"subjectAltName": names})]).args[0]
    assert ", ".join(f"'{letter * 99}…'" for letter in "abcdefghij") + " (OpenSSL" in said


def test_a_client_certificate_and_its_key_are_two_files(tmp_path: Path) -> None:
    """Both are read; where they cannot be, the certificate's path is named."""
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
    link = Link(dataclasses.replace(_settings(), port=465), tls.build_context(TLSPolicy()))
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


def _tlv(tag: int, *parts: bytes) -> bytes:
    """Return one element of DER."""
    body = b"".join(parts)
    length = len(body).to_bytes(2, "big")
    return bytes((tag, 0x82)) + length + body if len(body) > 127 else bytes((tag, len(body))) + body


@pytest.mark.parametrize("kind", [trustme.KeyType.RSA, trustme.KeyType.ECDSA])
@pytest.mark.parametrize("version", [3, 1])
def test_a_pin_is_of_the_public_key_and_of_nothing_else(kind: trustme.KeyType, version: int) -> None:
    """As another library reads it; a certificate of version 1 has one field less before it (RFC 5280 §4.1)."""
    pem = trustme.CA().issue_cert("localhost", key_type=kind).cert_chain_pems[0].bytes()
    certificate = load_pem_x509_certificate(pem)
    der = certificate.public_bytes(Encoding.DER)
    if version == 1:
        fields = certificate.tbs_certificate_bytes
        start = fields.index(b"\xa0\x03\x02\x01\x02") + 5
        der = _tlv(0x30, _tlv(0x30, fields[start:]), b"\x30\x00\x03\x01\x00")
    expected = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert tls.public_key(der) == expected


def test_tls_1_2_is_spoken_where_there_is_nothing_newer(
    serve: Serve, mailer: Mailer, ca: trustme.CA, message: EmailMessage
) -> None:
    """And the pin that the receipt tells is the server's key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = ca.issue_cert("localhost")
    issued.configure_cert(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    told = mailer(serve(tls=context)).send(message).tls
    key = load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    assert (told.version, told.peer_spki_sha256) == ("TLSv1.2", "sha256/" + base64.b64encode(digest).decode())


def test_what_openssl_does_by_default_stays() -> None:
    """Options are added to its own, except that a cut is noticed; the flags are the same on every Python."""
    ours, theirs = tls.build_context(TLSPolicy()), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert ours.options & theirs.options == theirs.options & ~ssl.OP_IGNORE_UNEXPECTED_EOF
    assert ours.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ((), ""),
        (((("organizationName", "o"),), (("commonName", "c"), ("commonName", "d"))), "c"),
        (((("organizationName", "o"),), (("organizationalUnitName", "u"),)), "o"),
    ],
)
def test_a_certificate_is_called_by_its_common_name(name: tuple[tuple[tuple[str, str], ...], ...], shown: str) -> None:
    """Or by the first name that it has."""
    assert tls._common_name(name) == shown


def test_a_context_that_looks_at_no_name_is_not_used() -> None:
    """Though it looks at the chain."""
    context = tls.build_context(TLSPolicy())
    context.check_hostname = False
    with socket.socket() as plain, pytest.raises(TLSError, match="does not verify"):
        tls.wrap(context, plain, "localhost")
