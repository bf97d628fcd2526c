"""`certificate.py` without a server: the public key that a pin is for, names, and refusals with little to show."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from securesmtp import CertificateError, CertificateReason, SecureMailer, Stage, TLSPolicy
from securesmtp._transport import certificate
from securesmtp._transport.tls import handshake_error


def _refused(code: int, chain: Callable[[], object] | None) -> CertificateError:
    """Return our error for a refusal with OpenSSL's *code*; *chain* returns the certificates that the server sent."""
    failure = ssl.SSLCertVerificationError(1, "odd")
    failure.verify_code, failure.verify_message = code, "words"
    tls = SimpleNamespace(context=SimpleNamespace(get_ca_certs=list))
    if chain:
        tls._sslobj = SimpleNamespace(get_unverified_chain=chain)
    settings = SecureMailer("localhost", 1, tls="starttls")._settings
    error = handshake_error(failure, cast("ssl.SSLObject", tls), settings)
    assert isinstance(error, CertificateError)
    return error


def test_an_unknown_openssl_code_is_a_refusal_with_openssls_text() -> None:
    """Its reason is OTHER, and there is no hint."""
    error = _refused(1, None)
    assert (error.reason, error.stage, error.hint) == (CertificateReason.OTHER, Stage.HANDSHAKE, None)
    assert error.args[0] == "the certificate was refused (OpenSSL: words)"


def test_each_reason_has_an_openssl_code_a_text_and_a_hint() -> None:
    """Except PIN, which OpenSSL does not check, and OTHER, which stands for every other code."""
    errors = [_refused(code, None) for code in range(100)]
    explained = [error for error in errors if error.reason is not CertificateReason.OTHER]
    assert {error.reason for error in explained} == {*CertificateReason} - {
        CertificateReason.PIN,
        CertificateReason.OTHER,
    }
    for error in explained:
        assert error.hint
        assert not error.args[0].startswith("the certificate was refused")


@pytest.mark.parametrize("code", [9, 10])
def test_without_the_chain_no_date_is_given(code: int) -> None:
    """Then the certificate at fault is not known."""
    assert "one above it" in _refused(code, None).args[0]


def _broken() -> object:
    raise OSError


@pytest.mark.parametrize(
    "chain", [None, lambda: None, list, _broken], ids=["no such call", "none", "empty", "an error"]
)
def test_a_refusal_does_not_need_the_chain(chain: Callable[[], object] | None) -> None:
    """The chain is for the message only; without it the refusal is the same."""
    error = _refused(62, chain)
    assert error.reason is CertificateReason.NAME_MISMATCH
    assert "but for no name at all" in error.args[0]


@pytest.mark.parametrize("fields", [{}, {"issuer": ()}, {"issuer": ((("commonName", ""),),)}])
def test_an_issuer_without_a_name_is_not_named(fields: dict[str, object]) -> None:
    """The text is the same as without a chain."""
    for code in (19, 20):
        error = _refused(code, lambda: [SimpleNamespace(get_info=lambda: fields)])
        assert (error.args, error.hint) == (_refused(code, None).args, _refused(code, None).hint)


@pytest.mark.parametrize(
    ("urls", "sent", "is_public"),
    [
        (("http://ca.example/r1.crt",), 1, True),
        (("ldap:///CN=x", "http://ca.example/r1.crt"), 1, True),
        (("http://ca.example/r1.crt",), 2, False),
        (("ldap:///CN=x",), 1, False),
        ((), 1, False),
    ],
)
def test_a_missing_intermediate_is_that_of_a_public_ca_by_its_address(
    urls: tuple[str, ...], sent: int, *, is_public: bool
) -> None:
    """Only where the server has sent nothing above its own certificate."""
    fields = {"issuer": ((("commonName", "R99"),),), "subject": (), "caIssuers": urls}
    hint = _refused(20, lambda: [SimpleNamespace(get_info=lambda: fields)] * sent).hint
    assert str(hint).startswith("the server does not send the certificate of its issuer: add it") is is_public
    assert str(hint).startswith("pass a private CA's root as ca_file") is not is_public


def test_an_issuers_name_is_cut() -> None:
    """Anyone can put anything into a certificate."""
    fields = {"issuer": ((("commonName", "x" * 101),),)}
    assert (
        f": its issuer is '{'x' * 100}' (" in _refused(20, lambda: [SimpleNamespace(get_info=lambda: fields)]).args[0]
    )


def test_at_most_ten_names_of_a_certificate_are_listed_each_cut() -> None:
    """Anyone can put anything into a certificate: an eleventh name and what exceeds 100 characters are left out."""
    names = [("DNS", letter * 101) for letter in "abcdefghijk"]
    text = _refused(62, lambda: [SimpleNamespace(get_info=lambda: {"subjectAltName": names})]).args[0]
    assert ", ".join(f"'{letter * 99}…'" for letter in "abcdefghij") + " (OpenSSL" in text


def test_a_name_with_quotes_is_not_read_as_two() -> None:
    """Anyone can put anything into a certificate."""
    names = [("DNS", "evil.example', 'localhost")]
    text = _refused(62, lambda: [SimpleNamespace(get_info=lambda: {"subjectAltName": names})]).args[0]
    assert r"but for 'evil.example\', \'localhost' (OpenSSL" in text


def _undecodable() -> None:
    message = "what OpenSSL says"
    raise ValueError(message)


@pytest.mark.parametrize("code", [10, 18, 19, 20, 62])
def test_a_certificate_that_cannot_be_decoded_hides_no_other(code: int) -> None:
    """Neither the trusted CAs nor those that the server sent with it: that there are none would be false."""
    failure = ssl.SSLCertVerificationError(1, "odd")
    failure.verify_code, failure.verify_message = code, "words"
    settings = SecureMailer("localhost", 1, policy=TLSPolicy(ca_data=trustme.CA().cert_pem.bytes().decode()))._settings
    fields = {"issuer": ((("commonName", "R99"),),), "subject": (), "subjectAltName": (("DNS", "R99"),)}
    root = {"subject": ((("commonName", "The Root"),),), "issuer": ()}

    def refused(*sent: Callable[[], object], trusted: Callable[[], object]) -> str:
        context = SimpleNamespace(get_ca_certs=trusted, cert_store_stats=lambda: {"x509_ca": 1})
        chain = [SimpleNamespace(get_info=each) for each in sent]
        tls = SimpleNamespace(context=context, _sslobj=SimpleNamespace(get_unverified_chain=lambda: chain))
        return str(handshake_error(failure, cast("ssl.SSLObject", tls), settings))

    alone = refused(_undecodable, trusted=lambda: [root])
    both = refused(lambda: fields, _undecodable, trusted=lambda: [root])
    assert ("ca_data has 'The Root', not this" in alone) is (code in {18, 19, 20})
    assert ("'R99'" in both) is (code in {19, 20, 62})
    hidden = refused(_undecodable, trusted=_undecodable)
    assert ("ca_data has 1 CA, not this" in hidden) is (code in {18, 19, 20})


@pytest.mark.parametrize(("length", "shown"), [(64, f"'{'A' * 64}', '{'B' * 64}'"), (100, "2 CAs")])
def test_long_names_of_trusted_cas_leave_room_for_what_is_to_be_done(length: int, shown: str) -> None:
    """An error cuts its hint, whose end is the advice."""
    failure = ssl.SSLCertVerificationError(1, "odd")
    failure.verify_code, failure.verify_message = 20, "words"
    policy = TLSPolicy(ca_file="a", extra_ca_file="b", pins=("sha256/" + "A" * 43 + "=",))
    trusted = [{"subject": ((("commonName", letter * length),),), "issuer": ()} for letter in "AB"]
    chain = [SimpleNamespace(get_info=lambda: {"subject": (), "issuer": ((("commonName", "R99"),),)})]
    tls = SimpleNamespace(
        context=SimpleNamespace(get_ca_certs=lambda: trusted),
        _sslobj=SimpleNamespace(get_unverified_chain=lambda: chain),
    )
    settings = SimpleNamespace(policy=policy, server_name="localhost")
    error = certificate.refused_certificate(failure, cast("ssl.SSLObject", tls), cast("Any", settings))
    assert f"ca_file and extra_ca_file have {shown}, not this issuer: " in str(error)
    assert "; a pin does not replace that (https:" in str(error)


def test_a_certificate_that_openssl_cannot_decode_is_among_those_that_were_sent() -> None:
    """Its octets are shown, without fields."""
    sent = SimpleNamespace(get_info=_undecodable, public_bytes=lambda _: b"der")
    tls = SimpleNamespace(_sslobj=SimpleNamespace(get_unverified_chain=lambda: [sent]))
    assert certificate.sent_certificates(cast("ssl.SSLObject", tls)) == (({}, b"der"),)


def _tlv(tag: int, *parts: bytes) -> bytes:
    """Return one element of DER."""
    body = b"".join(parts)
    length = len(body).to_bytes(2, "big")
    return bytes((tag, 0x82)) + length + body if len(body) > 127 else bytes((tag, len(body))) + body


@pytest.mark.parametrize("kind", [trustme.KeyType.RSA, trustme.KeyType.ECDSA])
@pytest.mark.parametrize("version", [3, 1])
def test_the_public_key_is_extracted_as_another_library_does(kind: trustme.KeyType, version: int) -> None:
    """A certificate of version 1 has one field less before the key (RFC 5280 §4.1)."""
    pem = trustme.CA().issue_cert("localhost", key_type=kind).cert_chain_pems[0].bytes()
    parsed = load_pem_x509_certificate(pem)
    der = parsed.public_bytes(Encoding.DER)
    if version == 1:
        fields = parsed.tbs_certificate_bytes
        start = fields.index(b"\xa0\x03\x02\x01\x02") + 5
        der = _tlv(0x30, _tlv(0x30, fields[start:]), b"\x30\x00\x03\x01\x00")
    expected = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert certificate.extract_public_key(der) == expected


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ((), ""),
        (((("organizationName", "o"),), (("commonName", "c"), ("commonName", "d"))), "c"),
        (((("organizationName", "o"),), (("organizationalUnitName", "u"),)), "o"),
    ],
)
def test_a_certificate_is_called_by_its_common_name(name: tuple[tuple[tuple[str, str], ...], ...], shown: str) -> None:
    """Without one, by its first attribute."""
    assert certificate._common_name(name) == shown
