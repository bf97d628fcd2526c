"""The table of certificates, in both modes: each accepted, or refused with its own reason, before any SMTP in TLS."""

from __future__ import annotations

import socket
from email.message import EmailMessage

import pytest

from certificates import GOOD, TABLE, Row
from conftest import Serve
from scripted import Mode, honest
from securesmtp import CertificateError, CertificateReason, SecureMailer, Stage, TLSError, TLSPolicy

# What cannot be told apart: OpenSSL says of a root that is not trusted that it signed itself.
_EITHER = {CertificateReason.UNTRUSTED, CertificateReason.SELF_SIGNED}


@pytest.mark.parametrize("row", TABLE, ids=[row.id for row in TABLE])
def test_each_certificate_is_judged_as_the_table_says(
    serve: Serve, message: EmailMessage, mode: Mode, row: Row
) -> None:
    """The same on every Python; a session that is refused has no command (TLS-03, ID-02, ID-03, ID-04, ID-08)."""
    server = serve(honest(mode), tls=row.certificate.context())
    policy = TLSPolicy(ca_data=row.trust.decode("ascii"), server_hostname=row.host)
    with SecureMailer("127.0.0.1", server.port, tls=mode, policy=policy, timeout=5) as mailer:
        if row.expected == "ok":
            assert mailer.send(message).tls.server_name == row.host
            return
        with pytest.raises(CertificateError) as caught:
            mailer.send(message)
    server.joined()
    wanted = CertificateReason(row.expected.replace("_", " ").replace("self signed", "self-signed"))
    assert caught.value.reason in (_EITHER if wanted in _EITHER else {wanted})
    assert caught.value.hint
    assert server.secret == b""


def test_a_wrong_name_is_told_with_the_names_there_are(serve: Serve, message: EmailMessage) -> None:
    """So that a person sees which server was met."""
    server = serve(tls=GOOD.certificate.context())
    policy = TLSPolicy(ca_data=GOOD.trust.decode("ascii"), server_hostname="mail.example.test")
    with (
        SecureMailer("127.0.0.1", server.port, policy=policy) as mailer,
        pytest.raises(CertificateError, match=r"'localhost', '127\.0\.0\.1'"),
    ):
        mailer.send(message)


@pytest.mark.parametrize("host", ["mail.example.test", "127.0.0.2"], ids=["name", "address"])
def test_no_name_from_the_network_is_the_servers(
    serve: Serve, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Neither the canonical name that the resolver gives, nor that of the greeting, nor that of EHLO (ID-01)."""
    names = {"GREETING": b"220 localhost\r\n", "EHLO": b"250-localhost\r\n250 STARTTLS\r\n"}
    server = serve(honest("starttls", replies=names), tls=GOOD.certificate.context())
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "localhost", ("127.0.0.1", server.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    policy = TLSPolicy(ca_data=GOOD.trust.decode("ascii"))
    with (
        SecureMailer(host, server.port, tls="starttls", policy=policy) as mailer,
        pytest.raises(CertificateError) as caught,
    ):
        mailer.send(message)
    assert caught.value.reason is CertificateReason.NAME_MISMATCH
    server.joined()
    assert server.secret == b""


def test_a_legacy_ca_is_accepted_on_request(serve: Serve, message: EmailMessage) -> None:
    """The one named relaxation."""
    (row,) = (row for row in TABLE if row.id == "legacy_ca")
    server = serve(tls=row.certificate.context())
    policy = TLSPolicy(ca_data=row.trust.decode("ascii"), allow_legacy_ca=True)
    with SecureMailer("localhost", server.port, policy=policy) as mailer:
        assert mailer.send(message).reply.code == 250


def test_a_pin_is_checked_in_addition_to_the_chain(serve: Serve, message: EmailMessage, mode: Mode) -> None:
    """The receipt's pin is right, any other key is refused before any SMTP in TLS (TLS-12)."""
    trust = GOOD.trust.decode("ascii")
    server = serve(honest(mode), tls=GOOD.certificate.context())
    with SecureMailer("localhost", server.port, tls=mode, policy=TLSPolicy(ca_data=trust)) as mailer:
        pin = mailer.send(message).tls.peer_spki_sha256
    with SecureMailer("localhost", server.port, tls=mode, policy=TLSPolicy(ca_data=trust, pins=(pin,))) as mailer:
        mailer.send(message)
    other = "sha256/" + "A" * 43 + "="
    # The goodbye of the one before is not waited for by the mailer.
    server.joined()
    before = len(server.secret)
    policy = TLSPolicy(ca_data=trust, pins=(other,))
    with (
        SecureMailer("localhost", server.port, tls=mode, policy=policy) as mailer,
        pytest.raises(CertificateError) as caught,
    ):
        mailer.send(message)
    server.joined()
    assert (caught.value.reason, caught.value.stage) == (CertificateReason.PIN, Stage.HANDSHAKE)
    # What to pin, where it was changed on purpose.
    assert pin in str(caught.value)
    assert caught.value.hint is not None
    assert len(server.secret) == before


@pytest.mark.parametrize("context", ["tls11_only_context", "cbc_only_context"])
def test_old_tls_is_refused(serve: Serve, message: EmailMessage, context: str) -> None:
    """TLS 1.1 and CBC suites are not offered (RFC 8996, RFC 9325)."""
    server = serve(tls=getattr(GOOD.certificate, context)())
    with (
        SecureMailer("localhost", server.port, policy=TLSPolicy(ca_data=GOOD.trust.decode("ascii"))) as mailer,
        pytest.raises(TLSError),
    ):
        mailer.send(message)
