"""Certificates of every kind, in both modes: accepted, or refused with the right reason before any SMTP inside TLS."""

from __future__ import annotations

import socket
from email.message import EmailMessage

import pytest

from certificates import GOOD, TABLE, Row, unreadable_time
from conftest import Mailer, Serve
from scripted import Mode, honest
from securesmtp import CertificateError, CertificateReason, Stage, TLSError, TLSPolicy

pytestmark = pytest.mark.faces("certificates", sample=(9, 2))

# Not distinguishable: OpenSSL reports an untrusted root as self-signed.
_EITHER = {CertificateReason.UNTRUSTED, CertificateReason.SELF_SIGNED}


@pytest.mark.parametrize("row", TABLE, ids=[row.id for row in TABLE])
def test_each_certificate_is_accepted_or_refused_as_the_table_says(
    make_mailer: Mailer, serve: Serve, message: EmailMessage, mode: Mode, row: Row
) -> None:
    """The same on every Python; after a refusal no command is sent (TLS-03, ID-02, ID-03, ID-04, ID-08)."""
    server = serve(honest(mode), tls=row.certificate.context())
    policy = TLSPolicy(ca_data=row.trust.decode("ascii"), server_hostname=row.host)
    with make_mailer("127.0.0.1", server.port, tls=mode, policy=policy, timeout=5) as mailer:
        if row.expected == "ok":
            assert mailer.send(message).tls.server_name == row.host
            return
        with pytest.raises(CertificateError) as caught:
            mailer.send(message)
    server.joined()
    expected = CertificateReason(row.expected.replace("_", " ").replace("self signed", "self-signed"))
    assert caught.value.reason in (_EITHER if expected in _EITHER else {expected})
    assert caught.value.hint
    assert server.secret == b""


def test_a_wrong_name_is_reported_with_the_certificates_names(
    make_mailer: Mailer, serve: Serve, message: EmailMessage
) -> None:
    """So that a person sees which server replied."""
    server = serve(tls=GOOD.certificate.context())
    policy = TLSPolicy(ca_data=GOOD.trust.decode("ascii"), server_hostname="mail.example.test")
    with (
        make_mailer("127.0.0.1", server.port, policy=policy) as mailer,
        pytest.raises(CertificateError, match=r"'localhost', '127\.0\.0\.1'"),
    ):
        mailer.send(message)


@pytest.mark.parametrize("host", ["mail.example.test", "127.0.0.2"], ids=["name", "address"])
def test_no_name_from_the_network_replaces_the_configured_host(
    make_mailer: Mailer, serve: Serve, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Not the resolver's canonical name, and not the names in the greeting and in the reply to EHLO (ID-01)."""
    names = {"GREETING": b"220 localhost\r\n", "EHLO": b"250-localhost\r\n250 STARTTLS\r\n"}
    server = serve(honest("starttls", replies=names), tls=GOOD.certificate.context())
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "localhost", ("127.0.0.1", server.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    policy = TLSPolicy(ca_data=GOOD.trust.decode("ascii"))
    with (
        make_mailer(host, server.port, tls="starttls", policy=policy) as mailer,
        pytest.raises(CertificateError) as caught,
    ):
        mailer.send(message)
    assert caught.value.reason is CertificateReason.NAME_MISMATCH
    server.joined()
    assert server.secret == b""


def test_a_time_that_cannot_be_read_is_no_error_of_ours(
    make_mailer: Mailer, serve: Serve, message: EmailMessage
) -> None:
    """The one that is named is the one that OpenSSL refused; another one of the chain has such a time."""
    row = unreadable_time()
    policy = TLSPolicy(ca_data=row.trust.decode("ascii"))
    server = serve(tls=row.certificate.context())
    with (
        make_mailer(row.host, server.port, policy=policy) as mailer,
        pytest.raises(CertificateError, match="the intermediate certificate 'expired CA' expired on Jan  2") as caught,
    ):
        mailer.send(message)
    assert caught.value.reason is CertificateReason.EXPIRED


def test_a_legacy_ca_is_accepted_on_request(make_mailer: Mailer, serve: Serve, message: EmailMessage) -> None:
    """By the only setting that relaxes verification; the table above has the refusal without it."""
    (row,) = (row for row in TABLE if row.id == "legacy_ca")
    server = serve(tls=row.certificate.context())
    policy = TLSPolicy(ca_data=row.trust.decode("ascii"), allow_legacy_ca=True)
    with make_mailer("localhost", server.port, policy=policy) as mailer:
        assert mailer.send(message).reply.code == 250


def test_a_pin_is_checked_in_addition_to_the_chain(
    make_mailer: Mailer, serve: Serve, message: EmailMessage, mode: Mode
) -> None:
    """The receipt's pin is accepted; any other key is refused before any SMTP inside TLS (TLS-12)."""
    trust = GOOD.trust.decode("ascii")
    server = serve(honest(mode), tls=GOOD.certificate.context())
    with make_mailer("localhost", server.port, tls=mode, policy=TLSPolicy(ca_data=trust)) as mailer:
        pin = mailer.send(message).tls.peer_spki_sha256
    with make_mailer("localhost", server.port, tls=mode, policy=TLSPolicy(ca_data=trust, pins=(pin,))) as mailer:
        mailer.send(message)
    other = "sha256/" + "A" * 43 + "="
    # The mailers above do not wait for the reply to QUIT.
    server.joined()
    before = len(server.secret)
    policy = TLSPolicy(ca_data=trust, pins=(other,))
    with (
        make_mailer("localhost", server.port, tls=mode, policy=policy) as mailer,
        pytest.raises(CertificateError) as caught,
    ):
        mailer.send(message)
    server.joined()
    assert (caught.value.reason, caught.value.stage) == (CertificateReason.PIN, Stage.HANDSHAKE)
    # The error shows the new pin, in case the key was changed on purpose.
    assert pin in str(caught.value)
    assert caught.value.hint is not None
    assert len(server.secret) == before


@pytest.mark.parametrize("context", ["tls11_only_context", "cbc_only_context"])
def test_old_tls_and_cbc_suites_are_refused(
    make_mailer: Mailer, serve: Serve, message: EmailMessage, context: str
) -> None:
    """The client offers neither TLS 1.1 nor CBC suites (RFC 8996, RFC 9325)."""
    server = serve(tls=getattr(GOOD.certificate, context)())
    with (
        make_mailer("localhost", server.port, policy=TLSPolicy(ca_data=GOOD.trust.decode("ascii"))) as mailer,
        pytest.raises(TLSError) as caught,
    ):
        mailer.send(message)
    server.joined()
    assert (type(caught.value), caught.value.stage, server.secret) == (TLSError, Stage.HANDSHAKE, b"")
