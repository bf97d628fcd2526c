"""The judgements of `tls.py`, most of them without a server."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Literal, cast

import certifi
import pytest

from certificates import GOOD
from conftest import Serve
from scripted import Mode, honest
from securesmtp import (
    CertificateError,
    ConfigurationError,
    ConnectError,
    DowngradeError,
    ProtocolError,
    SecureMailer,
    SecureSMTPError,
    Stage,
    TLSError,
    TLSPolicy,
    WrongTLSModeError,
)
from securesmtp._settings import Settings
from securesmtp._transport import tls
from securesmtp._transport.link import Link
from securesmtp._values import TLSInfo


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
    error = tls.handshake_error(failure, cast("ssl.SSLSocket", None), _settings(mode))
    assert type(error) is kind
    assert error.stage is Stage.HANDSHAKE
    assert said in error.args[0]
    assert hint in str(error.hint)


def test_a_resumed_session_is_refused() -> None:
    """It would skip the checks of chain and name (TLS-09)."""
    with pytest.raises(TLSError, match="the session was resumed") as caught:
        tls.verified(cast("ssl.SSLSocket", SimpleNamespace(session_reused=True)), _settings())
    assert caught.value.stage is Stage.HANDSHAKE


def test_a_certificate_that_cannot_be_read_is_refused() -> None:
    """A name in it that is no ASCII is a ValueError of Python's."""

    def unreadable(*, binary_form: bool = False) -> bytes:
        raise ValueError

    sock = SimpleNamespace(
        session_reused=False, version=lambda: "TLSv1.3", cipher=lambda: ("x",), getpeercert=unreadable
    )
    with pytest.raises(CertificateError, match="cannot be read") as caught:
        tls.verified(cast("ssl.SSLSocket", sock), _settings())
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
    link = Link(_settings(), tls.build_context(TLSPolicy()))
    link._tls = cast("TLSInfo", object()) if inside else None
    link._reader.feed(said)
    with pytest.raises(kind, match=words) as caught:
        link._unsolicited(Stage.RCPT)
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
