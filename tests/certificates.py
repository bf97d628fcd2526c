"""
Make the tests' server certificates in memory: good ones, and one for each defect.

`TABLE` says what a careful client must find in each of them (ID-01 to ID-08).
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

Expected = Literal[
    "ok", "untrusted", "self_signed", "expired", "not_yet_valid", "name_mismatch", "purpose", "weak_key", "strict"
]
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

EXPIRED_AT = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
VALID_FROM = datetime.datetime(2990, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_FAR_OFF = datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC)
# RFC 4985, 2: id-on-dnsSRV.
_SRV_NAME = ObjectIdentifier("1.3.6.1.5.5.7.8.7")


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What a server presents, in PEM: its chain, leaf first, and the leaf's key."""

    name: str
    pem_chain: bytes
    key: bytes

    def context(self) -> ssl.SSLContext:
        """Make a new server context, TLS 1.2 or later, which loads even a weak key."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Level 2 would refuse to load RSA 1024, which the client must refuse.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "server.pem")
            path.write_bytes(self.key + self.pem_chain)
            context.load_cert_chain(path)
        return context

    def tls11_only_context(self) -> ssl.SSLContext:
        """Make a server context that speaks nothing newer than TLS 1.1."""
        context = self.context()
        with warnings.catch_warnings():
            # Python warns that TLS 1.1 is deprecated, which is the reason to test it.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context

    def cbc_only_context(self) -> ssl.SSLContext:
        """Make a server context that speaks TLS 1.2 with ECDHE and CBC suites only."""
        context = self.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA:@SECLEVEL=0")
        return context


@dataclass(frozen=True, slots=True)
class Row:
    """One certificate, the client's trusted roots, the host it connects to, and what it must find."""

    id: str
    certificate: ServerCertificate
    trust: bytes
    host: str
    expected: Expected


@dataclass(frozen=True, slots=True)
class _Issuer:
    certificate: x509.Certificate
    key: _Key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _shown(name: str, leaf: trustme.LeafCert, *, whole: bool = True) -> ServerCertificate:
    """Convert a leaf made by trustme, with or without its intermediates."""
    chain = [blob.bytes() for blob in leaf.cert_chain_pems]
    return ServerCertificate(name, b"".join(chain if whole else chain[:1]), leaf.private_key_pem.bytes())


def _issuer(ca: trustme.CA) -> _Issuer:
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return _Issuer(x509.load_pem_x509_certificate(ca.cert_pem.bytes()), key)


def _signed(  # noqa: PLR0913 - keyword-only; each is a defect that trustme does not make
    name: str,
    *names: x509.GeneralName,
    issuer: _Issuer | None,
    key: _Key | None = None,
    common_name: str = "scripted server",
    usage: ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    key_identifiers: bool = True,
) -> ServerCertificate:
    """Sign a leaf with cryptography; without an issuer, with its own key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = _name(common_name)
    signer = key if issuer is None else issuer.key
    builder = (
        x509.CertificateBuilder(
            subject_name=subject,
            issuer_name=subject if issuer is None else issuer.certificate.subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=_EPOCH,
            not_valid_after=_FAR_OFF,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if key_identifiers:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ServerCertificate(name, _pem(builder.sign(signer, hashes.SHA256())), private)


def _legacy_ca() -> _Issuer:
    """Make a CA like old OpenSSL recipes do: without key identifiers and key usage."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        subject_name=_name("legacy CA"),
        issuer_name=_name("legacy CA"),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=_EPOCH,
        not_valid_after=_FAR_OFF,
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return _Issuer(builder.sign(key, hashes.SHA256()), key)


def _ia5_string(text: str) -> bytes:
    """Encode up to 127 characters as DER (short form)."""
    return bytes((0x16, len(text))) + text.encode("ascii")


def _table() -> Sequence[Row]:
    """Make every certificate, with what a client must find."""
    ca = trustme.CA()
    stranger = trustme.CA()
    intermediate = ca.create_child_ca()
    hand = _issuer(ca)
    legacy = _legacy_ca()
    trust = ca.cert_pem.bytes()

    localhost = x509.DNSName("localhost")
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    good = _shown("good", ca.issue_cert("localhost", "127.0.0.1"))
    self_signed = _signed("self_signed", localhost, loopback, issuer=None)
    low = intermediate.issue_cert("localhost", "127.0.0.1")
    wildcard = _shown("wildcard", ca.issue_cert("*.example.test"))
    partial_wildcard = _signed("partial_wildcard", x509.DNSName("f*.example.test"), issuer=hand)
    ip_without_ip_san = _shown("ip_without_ip_san", ca.issue_cert("localhost"))
    nul_in_name = _signed("nul_in_name", x509.DNSName("localhost\0.evil.test"), issuer=hand)
    service = x509.OtherName(_SRV_NAME, _ia5_string("_submissions.example.test"))

    def row(
        certificate: ServerCertificate,
        expected: Expected,
        host: str = "localhost",
        trusted: bytes = trust,
        id: str = "",  # noqa: A002 - the field's name
    ) -> Row:
        return Row(id or certificate.name, certificate, trusted, host, expected)

    return [
        row(good, "ok"),
        row(good, "ok", "LOCALHOST", id="good_in_capitals"),
        row(good, "ok", "127.0.0.1", id="good_ip"),
        row(_shown("good_intermediate", low), "ok"),
        row(_shown("missing_intermediate", low, whole=False), "untrusted"),
        row(_shown("unknown_ca", stranger.issue_cert("localhost", "127.0.0.1")), "untrusted"),
        row(good, "untrusted", trusted=good.pem_chain, id="leaf_as_ca"),
        row(good, "untrusted", trusted=intermediate.cert_pem.bytes(), id="sibling_as_ca"),
        row(_shown("intermediate_as_ca", low), "untrusted", trusted=intermediate.cert_pem.bytes()),
        row(self_signed, "self_signed"),
        row(self_signed, "ok", trusted=self_signed.pem_chain, id="self_signed_and_trusted"),
        row(_shown("expired", ca.issue_cert("localhost", "127.0.0.1", not_after=EXPIRED_AT)), "expired"),
        row(_shown("not_yet_valid", ca.issue_cert("localhost", "127.0.0.1", not_before=VALID_FROM)), "not_yet_valid"),
        row(_shown("wrong_name", ca.issue_cert("other.example.test")), "name_mismatch"),
        row(_signed("cn_only", issuer=hand, common_name="localhost"), "name_mismatch"),
        row(ip_without_ip_san, "name_mismatch", "127.0.0.1"),
        row(
            _signed("dns_name_that_looks_like_an_ip", x509.DNSName("127.0.0.1"), issuer=hand),
            "name_mismatch",
            "127.0.0.1",
        ),
        row(wildcard, "ok", "mail.example.test", id="wildcard_one_label"),
        row(wildcard, "name_mismatch", "a.mail.example.test", id="wildcard_two_labels"),
        row(wildcard, "name_mismatch", "example.test", id="wildcard_no_label"),
        row(partial_wildcard, "name_mismatch", "foo.example.test"),
        row(_shown("top_level_wildcard", ca.issue_cert("*.com")), "name_mismatch", "example.com"),
        row(nul_in_name, "name_mismatch"),
        row(_shown("a_label", ca.issue_cert("xn--bcher-kva.example")), "ok", "xn--bcher-kva.example"),
        row(_signed("underscore", x509.DNSName("mail_relay.test"), issuer=hand), "ok", "mail_relay.test"),
        # In OpenSSL a wildcard matches letters, digits and hyphens only.
        row(wildcard, "name_mismatch", "mail_relay.example.test", id="wildcard_underscore"),
        row(_signed("srv_only", service, issuer=hand), "name_mismatch", "mail.example.test"),
        row(_signed("client_only_eku", localhost, issuer=hand, usage=ExtendedKeyUsageOID.CLIENT_AUTH), "purpose"),
        row(_signed("weak_key", localhost, issuer=hand, key=rsa.generate_private_key(65537, 1024)), "weak_key"),
        row(
            _signed("legacy_ca", localhost, issuer=legacy, key_identifiers=False),
            "strict",
            trusted=_pem(legacy.certificate),
        ),
    ]


def _signs_certificates() -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    usage = dict.fromkeys([*names.split(), "encipher_only", "decipher_only"], False)
    return x509.KeyUsage(**{**usage, "key_cert_sign": True})


def unreadable_time() -> Row:
    """Make a leaf whose validity ends at no time at all, below an intermediate that has expired."""
    ca, key = trustme.CA(), ec.generate_private_key(ec.SECP256R1())
    root, above = _issuer(ca), ec.generate_private_key(ec.SECP256R1())
    intermediate = (
        x509.CertificateBuilder(
            root.certificate.subject, _name("expired CA"), above.public_key(), 1, _EPOCH, EXPIRED_AT
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_signs_certificates(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(above.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False)
        .sign(root.key, hashes.SHA256())
    )
    end = datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC)
    leaf = (
        x509.CertificateBuilder(intermediate.subject, _name("leaf"), key.public_key(), 2, _EPOCH, end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
    )
    signed = leaf.sign(above, hashes.SHA256()).tbs_certificate_bytes.replace(b"400101000000Z", b"40010100000xZ")
    signature = above.sign(signed, ec.ECDSA(hashes.SHA256()))
    # A sequence of what is signed, ecdsa-with-SHA256, and the signature as a bit string (RFC 5280 §4.1).
    content = signed + bytes.fromhex("300a06082a8648ce3d040302") + bytes((3, len(signature) + 1, 0)) + signature
    der = bytes((0x30, 0x82)) + len(content).to_bytes(2, "big") + content
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = ssl.DER_cert_to_PEM_cert(der).encode() + _pem(intermediate)
    return Row(
        "unreadable_time",
        ServerCertificate("unreadable_time", chain, private),
        ca.cert_pem.bytes(),
        "localhost",
        "expired",
    )


TABLE: Sequence[Row] = _table()
GOOD: Row = TABLE[0]
