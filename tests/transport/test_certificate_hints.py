"""The error for a refused chain names the certificate at fault, which is not always the server's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certificates import EXPIRED_AT, GOOD, TABLE, VALID_FROM, ServerCertificate
from conftest import Serve
from scripted import Mode, honest
from securesmtp import CertificateError, CertificateReason, SecureMailer, TLSPolicy
from securesmtp._transport import system_trust

NOW = datetime.now(UTC)
LONG = (datetime(2000, 1, 1, tzinfo=UTC), NOW + timedelta(days=3650))
OVER, EARLY = (LONG[0], EXPIRED_AT), (VALID_FROM, VALID_FROM + timedelta(days=1))
Times = tuple[datetime, datetime]


class _Signed:
    """A certificate and its key, signed by another or by itself."""

    def __init__(self, name: str, signer: _Signed | None, times: Times, *, ca: bool = True) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate: x509.Certificate
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        above, key = (subject, self.key) if signer is None else (signer.certificate.subject, signer.key)
        builder = (
            x509.CertificateBuilder(above, subject, self.key.public_key(), x509.random_serial_number(), *times)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        if ca:
            usage = x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            )  # fmt: skip
            builder = builder.add_extension(usage, critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        self.certificate = builder.sign(key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)


def _chain(root: Times, intermediate: Times, leaf: Times) -> tuple[_Signed, _Signed, _Signed]:
    first = _Signed("The Root", None, root)
    second = _Signed("The Intermediate", first, intermediate)
    return first, second, _Signed("the server", second, leaf, ca=False)


def _certificate(leaf: _Signed, *above: _Signed) -> ServerCertificate:
    key = leaf.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ServerCertificate("chain", b"".join(each.pem for each in (leaf, *above)), key)


def _refusal(serve: Serve, sent: ServerCertificate, policy: TLSPolicy, mode: Mode = "implicit") -> CertificateError:
    server = serve(honest(mode), tls=sent.context())
    with (
        SecureMailer("localhost", server.port, tls=mode, policy=policy, timeout=5) as mailer,
        pytest.raises(CertificateError) as caught,
    ):
        mailer.check()
    return caught.value


@pytest.mark.parametrize(
    ("times", "reason", "text", "hint"),
    [
        ((LONG, OVER, LONG), "expired", "the intermediate certificate 'The Intermediate' expired on Jan  2", "replace"),
        ((OVER, LONG, LONG), "expired", "the root certificate 'The Root' expired on Jan  2 03:04:05 2020", "replace"),
        ((LONG, LONG, OVER), "expired", "the certificate expired on Jan  2 03:04:05 2020", "a new certificate"),
        ((LONG, EARLY, LONG), "not yet valid", "the intermediate certificate 'The Intermediate' is not valid", "clock"),
        ((LONG, LONG, EARLY), "not yet valid", "the certificate is not valid before Jan  2 03:04:05 2990", "clock"),
    ],
    ids=["intermediate expired", "root expired", "leaf expired", "intermediate not yet valid", "leaf not yet valid"],
)  # fmt: skip
def test_an_expired_or_not_yet_valid_certificate_is_named(
    serve: Serve, times: tuple[Times, Times, Times], reason: str, text: str, hint: str
) -> None:
    """With its own date, not the leaf's: RFC 5280 §6.1.3 checks every certificate of the chain."""
    root, intermediate, leaf = _chain(*times)
    error = _refusal(serve, _certificate(leaf, intermediate), TLSPolicy(ca_data=root.pem.decode()))
    assert error.reason is CertificateReason(reason)
    assert error.args[0].startswith(text)
    assert hint in (error.hint or "")


@pytest.mark.parametrize("sends", ["leaf", "intermediate", "root"])
def test_an_intermediate_alone_is_not_trusted_and_the_error_says_so(
    serve: Serve, mode: Mode, tmp_path: Path, sends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the server sends, the chain must end in a trusted root (RFC 5280 §6.1)."""
    root, intermediate, leaf = _chain(LONG, LONG, LONG)
    above = {"leaf": (), "intermediate": (intermediate,), "root": (intermediate, root)}[sends]
    file = tmp_path / "ca.pem"
    file.write_bytes(intermediate.pem)
    error = _refusal(serve, _certificate(leaf, *above), TLSPolicy(ca_file=file), mode)
    assert error.reason in {CertificateReason.UNTRUSTED, CertificateReason.SELF_SIGNED}
    assert error.args[0].startswith(
        "ca_file has the intermediate certificate 'The Intermediate' but not the certificate of its issuer 'The Root'"
    )
    assert error.hint == "add the root certificate of that chain to ca_file"
    # As extra_ca_file it is not a root either. Together with its root it is trusted.
    error = _refusal(serve, _certificate(leaf, *above), TLSPolicy(extra_ca_file=file), mode)
    assert error.args[0].startswith("extra_ca_file has the intermediate certificate")
    monkeypatch.setattr(system_trust, "BUNDLES", (str(file),))
    error = _refusal(serve, _certificate(leaf, *above), TLSPolicy(trust="system"), mode)
    assert error.args[0].startswith("the system's file has the intermediate certificate")
    file.write_bytes(intermediate.pem + root.pem)
    server = serve(honest(mode), tls=_certificate(leaf, *above).context())
    with SecureMailer("localhost", server.port, tls=mode, policy=TLSPolicy(ca_file=file), timeout=5) as mailer:
        assert len(mailer.check().tls.chain) == 3


PUBLIC = "; for a public CA, the server must send its chain"
UNKNOWN = "; if you do not know that issuer, ask before you trust it"
OTHERS = "the server may have another CA, or somebody else may answer; ask who runs the server, or the network"
ISSUER = ": its chain ends with the issuer 'The Root'"
# What is passed, and the hint for a chain that ends with an issuer that was neither sent nor trusted.
PASSED: dict[str, str] = {
    "nothing": f"pass a private CA's root as ca_file{PUBLIC}{UNKNOWN}",
    "pins": f"pass a private CA's root as ca_file{PUBLIC}{UNKNOWN}; a pin does not replace that",
    "ca_file": f"ca_file has 'Another Root', not this issuer: an intermediate may be missing, {OTHERS}",
    "ca_data": f"ca_data has 'Another Root', not this issuer: an intermediate may be missing, {OTHERS}",
    "trust": f"the system's file has 'Another Root', not this issuer: pass a private CA's root as extra_ca_file{PUBLIC}"
    f"{UNKNOWN}",
    "extra_ca_file": f"certifi and extra_ca_file have 4 CAs, not this issuer: an intermediate may be missing, {OTHERS}",
}


@pytest.fixture
def passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, TLSPolicy]:
    """Make a policy for each way to pass "Another Root"; certifi has three others."""
    file, public = tmp_path / "ca.pem", tmp_path / "public.pem"
    file.write_bytes(_Signed("Another Root", None, LONG).pem)
    public.write_bytes(b"".join(_Signed(f"Public {number}", None, LONG).pem for number in range(3)))
    monkeypatch.setattr(certifi, "where", lambda: str(public))
    monkeypatch.setattr(system_trust, "BUNDLES", (str(file),))
    return {
        "nothing": TLSPolicy(),
        "pins": TLSPolicy(pins=(f"sha256/{'A' * 43}=",)),
        "ca_file": TLSPolicy(ca_file=file),
        "ca_data": TLSPolicy(ca_data=file.read_text()),
        "trust": TLSPolicy(trust="system"),
        "extra_ca_file": TLSPolicy(extra_ca_file=file),
    }


@pytest.mark.parametrize("how", PASSED)
def test_the_hint_for_an_unknown_issuer_fits_what_was_passed(
    serve: Serve, passed: dict[str, TLSPolicy], how: str
) -> None:
    """The issuer is named, and compared with the CAs that were passed."""
    _, intermediate, leaf = _chain(LONG, LONG, LONG)
    error = _refusal(serve, _certificate(leaf, intermediate), passed[how])
    assert error.reason is CertificateReason.UNTRUSTED
    assert error.args[0].startswith(f"the certificate is not signed by a trusted CA{ISSUER} (OpenSSL: ")
    assert error.hint == PASSED[how]


def test_a_missing_intermediate_is_among_the_causes_if_the_right_root_was_passed(serve: Serve) -> None:
    """From here, that is not to be distinguished from another CA, or from somebody else: the hint names all three."""
    root, _, leaf = _chain(LONG, LONG, LONG)
    error = _refusal(serve, _certificate(leaf), TLSPolicy(ca_data=root.pem.decode()))
    assert "not signed by a trusted CA: its issuer is 'The Intermediate' (OpenSSL" in error.args[0]
    missing = "an intermediate may be missing (the server sent one certificate)"
    assert error.hint == f"ca_data has 'The Root', not this issuer: {missing}, {OTHERS}"


# The same for a lone self-signed certificate, which no CA has signed, and for a root that the server sends.
GET_IT = "get it from whoever runs the server, not over this connection, and pass it as"
GET_ROOT = "if it is that of your private CA, get it from whoever runs the CA, not over this connection, and pass it as"
ASK = "; if you do not know that root, ask before you trust it"
SELF_SIGNED: dict[str, tuple[str, str]] = {
    "nothing": (f"{GET_IT} ca_file", f"{GET_ROOT} ca_file{ASK}"),
    "pins": (
        f"{GET_IT} ca_file; a pin does not replace that",
        f"{GET_ROOT} ca_file{ASK}; a pin does not replace that",
    ),
    "ca_file": (
        f"ca_file has 'Another Root', not this certificate: {GET_IT} ca_file",
        f"ca_file has 'Another Root', not this root: {OTHERS}",
    ),
    "ca_data": (
        f"ca_data has 'Another Root', not this certificate: {GET_IT} ca_data",
        f"ca_data has 'Another Root', not this root: {OTHERS}",
    ),
    "trust": (
        f"the system's file has 'Another Root', not this certificate: {GET_IT} extra_ca_file",
        f"the system's file has 'Another Root', not this root: {GET_ROOT} extra_ca_file{ASK}",
    ),
    "extra_ca_file": (
        f"certifi and extra_ca_file have 4 CAs, not this certificate: {GET_IT} extra_ca_file",
        f"certifi and extra_ca_file have 4 CAs, not this root: {OTHERS}",
    ),
}


@pytest.mark.parametrize("how", SELF_SIGNED)
def test_a_lone_self_signed_certificate_and_a_root_have_their_own_hints(
    serve: Serve, passed: dict[str, TLSPolicy], how: str
) -> None:
    """OpenSSL's codes 18 and 19: for the first, there is no CA whose root could be passed."""
    alone, in_chain = SELF_SIGNED[how]
    error = _refusal(serve, _certificate(_Signed("alone", None, LONG, ca=False)), passed[how])
    assert (error.reason, error.hint) == (CertificateReason.SELF_SIGNED, alone)
    assert error.args[0].startswith("the certificate is self-signed (OpenSSL: ")
    root, intermediate, leaf = _chain(LONG, LONG, LONG)
    error = _refusal(serve, _certificate(leaf, intermediate, root), passed[how])
    assert (error.reason, error.hint) == (CertificateReason.SELF_SIGNED, in_chain)
    assert error.args[0].startswith("the certificate's chain ends in a root that is not trusted: 'The Root' (OpenSSL: ")


@pytest.mark.parametrize("sends_root", [False, True])
def test_a_ca_of_the_same_name_and_another_key_is_not_the_issuer(serve: Serve, *, sends_root: bool) -> None:
    """A CA was renewed; or somebody uses its name, which anybody can."""
    root, intermediate, leaf = _chain(LONG, LONG, LONG)
    policy = TLSPolicy(ca_data=_Signed("The Root", None, LONG).pem.decode())
    error = _refusal(serve, _certificate(leaf, intermediate, *[root] * sends_root), policy)
    causes = "it may have been renewed, or somebody uses its name; ask who runs the server"
    assert error.hint == f"ca_data has another CA with that name: {causes}"


def test_the_servers_own_certificate_is_no_ca(serve: Serve) -> None:
    """Somebody copied it from the connection, and passed it as the CA."""
    _, intermediate, leaf = _chain(LONG, LONG, LONG)
    error = _refusal(serve, _certificate(leaf, intermediate), TLSPolicy(ca_data=leaf.pem.decode()))
    get_root = "get the CA's root certificate from whoever runs the CA, not over this connection"
    assert error.hint == f"ca_data has no CA: {get_root}, and pass it as ca_data"


def test_an_issuers_name_is_shown_escaped_and_cut(serve: Serve) -> None:
    """Anybody can put anything into a certificate."""
    root = _Signed("x\x1b[2J\r\nHint: trust me", None, LONG)
    error = _refusal(serve, _certificate(_Signed("leaf", root, LONG, ca=False)), TLSPolicy())
    assert str(error).isprintable()
    assert r"its issuer is 'x\x1b[2J\r\nHint: trust me' (" in error.args[0]


def test_an_ip_address_as_a_dns_name_is_explained(serve: Serve) -> None:
    """An IP address counts only as iPAddress (RFC 9525 §6.4); "not for X, but for X" would help nobody."""
    (row,) = (row for row in TABLE if row.id == "dns_name_that_looks_like_an_ip")
    policy = TLSPolicy(ca_data=row.trust.decode(), server_hostname=row.host)
    error = _refusal(serve, row.certificate, policy)
    assert error.reason is CertificateReason.NAME_MISMATCH
    assert error.args[0].startswith("the certificate has 127.0.0.1 as a DNS name, not as an IP address")
    assert error.hint == "the server needs a certificate with that IP address in subjectAltName"


def test_a_wrong_host_name_is_reported_with_the_certificates_names(serve: Serve) -> None:
    """So that a person sees which server replied."""
    error = _refusal(serve, GOOD.certificate, TLSPolicy(ca_data=GOOD.trust.decode(), server_hostname="mail.example"))
    assert error.args[0].startswith("the certificate is not for mail.example, but for 'localhost', '127.0.0.1'")
    # What is to be changed is what was passed.
    assert (error.hint or "").endswith(
        "if you know that this is the right server, use one of its names as server_hostname"
    )
    server = serve(tls=next(row for row in TABLE if row.id == "wrong_name").certificate.context())
    with (
        SecureMailer("localhost", server.port, policy=TLSPolicy(ca_data=GOOD.trust.decode()), timeout=5) as mailer,
        pytest.raises(CertificateError) as caught,
    ):
        mailer.check()
    assert (caught.value.hint or "").endswith("use one of its names as host, or TLSPolicy(server_hostname=…)")
