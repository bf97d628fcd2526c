"""The chain that `securesmtp check` shows: keys, signatures, names and dates, compared with what cryptography reads."""

from __future__ import annotations

import datetime
import hashlib
import ssl
import tempfile

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from certificates import ServerCertificate
from cli.checks import Check
from conftest import Serve
from scripted import honest
from securesmtp._cli.check.chain import describe_key, describe_oid, describe_signature, read_chain

BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(2026, 2, 1, 12, tzinfo=datetime.UTC)
URL = "http://ca.example/r99.crt"
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
KEYS = {
    "RSA 1024": rsa.generate_private_key(65537, 1024),
    "RSA 2048": RSA,
    "EC P-256": P256,
    "EC P-384": ec.generate_private_key(ec.SECP384R1()),
    "EC P-521": ec.generate_private_key(ec.SECP521R1()),
    "EC secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "EC brainpoolP256r1": ec.generate_private_key(ec.BrainpoolP256R1()),
    "EC brainpoolP384r1": ec.generate_private_key(ec.BrainpoolP384R1()),
    "EC brainpoolP512r1": ec.generate_private_key(ec.BrainpoolP512R1()),
    # Without a name of its own here.
    "EC 1.3.132.0.33": ec.generate_private_key(ec.SECP224R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "Ed448": ed448.Ed448PrivateKey.generate(),
    "DSA": dsa.generate_private_key(1024),
}


def _spki(key: object) -> bytes:
    return key.public_key().public_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _certificate(key: object, digest: hashes.HashAlgorithm | None, pss: padding.PSS | None = None) -> x509.Certificate:
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Org"), x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")]
    )
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, BEGIN, END)  # type: ignore[attr-defined]
    return builder.sign(key, digest, rsa_padding=pss)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KEYS)
def test_a_key_has_its_type_and_size(name: str) -> None:
    """As cryptography made it."""
    assert describe_key(_spki(KEYS[name])) == name


@pytest.mark.parametrize("bits", [1024, 2048, 3072])
def test_the_size_of_an_rsa_key_is_that_of_its_modulus(bits: int) -> None:
    """Without the octet that keeps it positive; also in a key for PSS alone, whose parameters are longer."""
    spki = _spki(rsa.generate_private_key(65537, bits))
    assert describe_key(spki) == f"RSA {bits}"
    # RFC 4055 §1.2: id-RSASSA-PSS has the same key behind another identifier.
    pss = spki.replace(bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01010a"))
    assert describe_key(pss) == f"RSA-PSS {bits}"


PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
SIGNATURES = {
    "SHA224 with RSA": (RSA, hashes.SHA224(), None),
    "SHA256 with RSA": (RSA, hashes.SHA256(), None),
    "SHA384 with RSA": (RSA, hashes.SHA384(), None),
    "SHA512 with RSA": (RSA, hashes.SHA512(), None),
    "RSA-PSS": (RSA, hashes.SHA256(), PSS),
    "SHA224 with ECDSA": (P256, hashes.SHA224(), None),
    "SHA256 with ECDSA": (P256, hashes.SHA256(), None),
    "SHA384 with ECDSA": (P256, hashes.SHA384(), None),
    "SHA512 with ECDSA": (P256, hashes.SHA512(), None),
    "Ed25519": (KEYS["Ed25519"], None, None),
    "Ed448": (KEYS["Ed448"], None, None),
}
# What cryptography no longer signs with: the identifier of SHA256 with RSA or ECDSA, and what is put in its place.
OLD = {
    "MD5 with RSA": (RSA, "2a864886f70d01010b", "2a864886f70d010104"),
    "SHA1 with RSA": (RSA, "2a864886f70d01010b", "2a864886f70d010105"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_certificate_has_its_signature(name: str) -> None:
    """By its algorithm and hash."""
    der = _certificate(*SIGNATURES[name]).public_bytes(serialization.Encoding.DER)
    assert describe_signature(der) == name


@pytest.mark.parametrize("name", OLD)
def test_old_signatures_are_recognised(name: str) -> None:
    """Those of the warning."""
    key, new, old = OLD[name]
    der = _certificate(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert describe_signature(der.replace(bytes.fromhex(new), bytes.fromhex(old))) == name


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 1 << 40), min_size=1, max_size=8))
def test_an_unknown_identifier_is_shown_in_numbers(first: int, second: int, rest: list[int]) -> None:
    """As cryptography writes it, with the long way round through a certificate policy."""
    dotted = ".".join(map(str, (first, second, *rest)))
    policy = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier(dotted), None)])
    # A sequence of a sequence of the identifier, each shorter than 128 octets.
    assert describe_oid(policy.public_bytes()[6:], {}) == dotted


def test_an_empty_identifier_is_unknown() -> None:
    """OpenSSL refuses it; nothing here fails."""
    assert describe_oid(b"", {}) == "unknown"


def test_an_endless_identifier_is_not_written_out() -> None:
    """A curve may have one; as a number, Python would refuse to write it."""
    assert describe_oid(b"\x2a" + b"\x81" * 5000 + b"\x01", {}) == "(cannot be read)"


def test_days_are_whole_and_may_be_over() -> None:
    """Of a certificate without a common name, the whole subject is shown."""
    der = _certificate(RSA, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    sent = [
        (
            {
                "subject": ((("organizationName", "Org"),), (("countryName", "DE"),)),
                "issuer": (),
                "notBefore": "Jan  1 00:00:00 2026 GMT",
                "notAfter": "Feb  1 12:00:00 2026 GMT",
            },
            der,
        )
    ]
    moments = [BEGIN, END - datetime.timedelta(hours=1), END + datetime.timedelta(hours=1)]
    chains = [read_chain(sent, moment) for moment in moments]
    assert [chain[0].days_left for chain in chains] == [31, 0, -1]
    certificate = chains[0][0]
    assert (certificate.subject, certificate.issuer, certificate.is_self_issued) == ("Org, DE", "", False)
    assert (certificate.not_before, certificate.not_after) == ("2026-01-01T00:00:00+00:00", "2026-02-01T12:00:00+00:00")
    assert certificate.sha256 == hashlib.sha256(der).hexdigest()


def test_names_are_escaped_and_not_endless() -> None:
    """Host names and addresses alone; a certificate has room for thousands."""
    names = [("email", "me@example.org"), ("DNS", "a\x1b\u202e"), ("IP Address", "192.0.2.1"), ("DNS", "b" * 500)]
    times = {"notBefore": "Jan  1 00:00:00 2026 GMT", "notAfter": "Feb  1 12:00:00 2026 GMT"}
    der = _certificate(RSA, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    fields = {"subject": (), "subjectAltName": (*names, *[("DNS", "c")] * 100), **times}
    (certificate,) = read_chain([(fields, der)])
    assert certificate.names[:3] == ("a\\x1b\\u202e", "192.0.2.1", "b" * 199 + "…")
    assert len(certificate.names) == 50
    assert certificate.subject.startswith("a\\x1b\\u202e, 192.0.2.1, b")


def test_a_certificate_that_cannot_be_decoded_is_shown_by_its_key() -> None:
    """`ssl` refuses a name that is not ASCII."""
    der = _certificate(RSA, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    (certificate,) = read_chain([({}, der)])
    assert (certificate.subject, certificate.key, certificate.not_after) == ("(cannot be read)", "RSA 2048", "")


def test_a_key_that_cannot_be_read_is_no_traceback(serve: Serve, check: Check, ca: trustme.CA) -> None:
    """A server sends any certificate after its own, and OpenSSL reads the keys alone that it verifies with."""
    der = _certificate(RSA, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    # The modulus begins a sequence in the bit string, without unused bits.
    extra = der.replace(b"\x00\x30\x82\x01\x0a\x02\x82\x01\x01", b"\x00\x30\x82\x01\x0a\x02\x82\xff\xff")
    assert extra != der
    leaf = ca.issue_cert("localhost")
    pem = leaf.cert_chain_pems[0].bytes() + ssl.DER_cert_to_PEM_cert(extra).encode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Otherwise it would look at the size of that key first.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(leaf.private_key_pem.bytes() + pem)
        file.flush()
        context.load_cert_chain(file.name)
    result = check(serve(honest(), tls=context))
    assert [each.key for each in result.chain] == ["EC P-256", "(cannot be read)"]
    assert result.chain[1].spki_sha256 == "(cannot be read)"


@pytest.mark.parametrize("der", [b"\x30\x80", b"\x30\x80\x30\x80\x00\x00\x00\x00", b""], ids=["short", "BER", "empty"])
def test_what_is_no_der_is_no_traceback(der: bytes) -> None:
    """OpenSSL takes BER too, and gives it on as it is."""
    (certificate,) = read_chain([({}, der)])
    assert {certificate.key, certificate.signature, certificate.spki_sha256} == {"(cannot be read)"}


def test_a_public_cas_missing_intermediate_is_named(serve: Serve, check: Check) -> None:
    """By the address in the server's certificate: then the fix is at the server, and no line in a program helps."""
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "R99")])
    place = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(URL))
    certificate = (
        x509.CertificateBuilder(issuer, x509.Name([]), P256.public_key(), 1, BEGIN, END.replace(year=2990))
        .add_extension(x509.AuthorityInformationAccess([place]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .sign(P256, hashes.SHA256())
    )
    key = P256.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    result = check(serve(tls=ServerCertificate("leaf", pem, key).context()), ca_file=None)
    assert result.chain[0].subject == "localhost"
    assert [(fault.name, fault.line) for fault in result.faults] == [("certificateerror-untrusted", None)]
    assert "does not send the certificate of its issuer" in result.faults[0].fix


def test_the_chain_is_that_which_the_server_sends(serve: Serve, check: Check, ca: object) -> None:
    """With intermediates, in the server's order; the root that it adds is no part of the verified chain's end."""
    intermediate = ca.create_child_ca()  # type: ignore[attr-defined]
    leaf = intermediate.issue_cert("localhost", common_name="the leaf")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    result = check(serve(honest(), tls=context))
    assert result.error is None
    first, second = result.chain
    assert (first.subject, first.names, first.is_self_issued) == ("the leaf", ("localhost",), False)
    assert first.issuer == second.subject
    assert result.session is not None
    assert first.spki_sha256 == result.session.peer_spki_sha256
