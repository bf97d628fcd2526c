"""
Certificates: reading the verified chain and the pinned key, and what a refused certificate means.

How a refusal is explained: OpenSSL gives one error code for the whole chain. From the certificates that the server sent
and the trusted ones, the chain is rebuilt here for the message only, to name the certificate that is at fault.
`untrusted.py` explains a chain that does not end in a trusted root.
"""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from securesmtp._interrupts import SuppressErrors
from securesmtp._shown import escape
from securesmtp._transport.untrusted import Fields, Untrusted, explain, quote_name
from securesmtp._values import Certificate, CertificateReason, Stage
from securesmtp.errors import CertificateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._options import TLSPolicy
    from securesmtp._settings import Settings

T = TypeVar("T")
# What the server sent: its fields, empty if they cannot be decoded, and its DER form.
SentCertificate: TypeAlias = tuple[Fields, bytes]
# What happened, and what to do.
_Explanation: TypeAlias = tuple[str, str | None]

# `_ssl.ENCODING_DER`.
_DER = 2
# The tag of the optional field version [0] (RFC 5280 §4.1).
_VERSION_TAG = 0xA0
# Certificates of a chain that are looked at for a message: real chains have three or four.
_MAX_CHAIN = 8
# Names of a certificate that a message lists, and characters of each.
_MAX_NAMES, _MAX_NAME = 10, 100

# X509_V_ERR_* in OpenSSL's x509_vfy.h.
_REASONS = {
    2: CertificateReason.UNTRUSTED,
    9: CertificateReason.NOT_YET_VALID,
    10: CertificateReason.EXPIRED,
    18: CertificateReason.SELF_SIGNED,
    19: CertificateReason.SELF_SIGNED,
    20: CertificateReason.UNTRUSTED,
    21: CertificateReason.UNTRUSTED,
    26: CertificateReason.PURPOSE,
    62: CertificateReason.NAME_MISMATCH,
    64: CertificateReason.NAME_MISMATCH,
    66: CertificateReason.WEAK_KEY,
    67: CertificateReason.WEAK_KEY,
    68: CertificateReason.WEAK_KEY,
}
# From X509_V_ERR_PATHLEN_WITHOUT_KU_KEY_CERT_SIGN on: the checks of X509_V_FLAG_X509_STRICT.
_STRICT = range(79, 95)
_TEXTS = {
    CertificateReason.EXPIRED: "the certificate, or one above it in its chain, has expired",
    CertificateReason.NOT_YET_VALID: "the certificate, or one above it in its chain, is not valid yet",
    CertificateReason.PURPOSE: "the certificate may not be used by a server",
    CertificateReason.WEAK_KEY: "a key or signature in the certificate's chain is too weak",
    CertificateReason.STRICT: "the certificate's chain violates RFC 5280",
}
_HINTS = {
    CertificateReason.EXPIRED: "the server needs a new certificate, or this machine's clock is wrong",
    CertificateReason.NOT_YET_VALID: "check the clock of this machine and of the server",
    CertificateReason.PURPOSE: "the server needs a certificate with serverAuth in its extended key usage",
    CertificateReason.WEAK_KEY: "the server needs a key of RSA 2048 bits, P-256 or better, signed with SHA-256",
    CertificateReason.STRICT: "issue the private CA's certificate again by RFC 5280, or pass allow_legacy_ca=True",
}


def verified_chain(tls: ssl.SSLObject) -> tuple[Certificate, ...]:
    """Return the chain that OpenSSL verified, from the server's certificate to the root."""
    # Public since 3.13, but only as bytes that the standard library cannot parse; the private call exists on all.
    certificates = getattr(getattr(tls, "_sslobj", None), "get_verified_chain", lambda: None)()
    return tuple(_certificate(each.get_info(), each.public_bytes(_DER)) for each in certificates or ())


def sent_certificates(tls: ssl.SSLObject) -> tuple[SentCertificate, ...]:
    """Return the certificates that the server sent, its own first, also if they were refused."""
    return tuple((_fields(each), each.public_bytes(_DER)) for each in _sent(tls)[:_MAX_CHAIN])


def parse_time(text: object) -> datetime:
    """Return a time of a certificate, such as ``Jan  2 03:04:05 2030 GMT``, in UTC."""
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(text)), UTC)


def extract_public_key(certificate: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a DER certificate (RFC 5280 §4.1): the bytes that a pin is a hash of."""
    outer, _ = read_element(certificate, 0)
    start, end = read_element(certificate, outer)
    # The version may be left out; then serialNumber, signature, issuer, validity, subject.
    for _ in range(6 if certificate[start] == _VERSION_TAG else 5):
        _, start = read_element(certificate, start)
    _, end = read_element(certificate, start)
    return certificate[start:end]


def refused_certificate(
    error: ssl.SSLCertVerificationError, tls: ssl.SSLObject, settings: Settings
) -> CertificateError:
    """Return our error for a certificate that OpenSSL refused: which one, why, and what to do."""
    code = error.verify_code
    reason = CertificateReason.STRICT if code in _STRICT else _REASONS.get(code, CertificateReason.OTHER)
    text, hint = _explain(code, reason, *_read_certificates(tls), settings)
    refused = CertificateError(f"{text} (OpenSSL: {error.verify_message})", stage=Stage.HANDSHAKE, hint=hint)
    refused.reason = reason
    return refused


def read_element(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the DER element at *at* begins and ends (X.690 §8.1)."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    return start, start + length


def _certificate(fields: Fields, der: bytes) -> Certificate:
    subject, issuer = (_common_name(fields.get(which, ())) for which in ("subject", "issuer"))
    names = tuple(escape(str(name)) for _, name in fields.get("subjectAltName", ()))
    begins, ends = parse_time(fields["notBefore"]), parse_time(fields["notAfter"])
    return Certificate(subject, issuer, names, begins, ends, hashlib.sha256(der).hexdigest())


def _common_name(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    attributes = [pair for part in name for pair in part]
    found = [value for key, value in attributes if key == "commonName"] + [value for _, value in attributes]
    # Escaped: anyone can put anything into a certificate.
    return escape(found[0]) if found else ""


def _explain(
    code: int, reason: CertificateReason, sent: list[Fields], trusted: list[Fields], settings: Settings
) -> _Explanation:
    text, hint = _TEXTS.get(reason, "the certificate was refused"), _HINTS.get(reason)
    match reason:
        case CertificateReason.EXPIRED | CertificateReason.NOT_YET_VALID:
            return _explain_dates(_build_chain(sent, trusted), hint) or (text, hint)
        case CertificateReason.UNTRUSTED | CertificateReason.SELF_SIGNED:
            return explain(code, Untrusted(sent, _build_chain(sent, trusted), trusted, settings.policy))
        case CertificateReason.NAME_MISMATCH:
            return _explain_names(sent[0] if sent else {}, settings.server_name, settings.policy)
    return text, hint


def _explain_dates(chain: list[Fields], hint: str | None) -> _Explanation | None:
    """Name the certificate that has expired or is not valid yet, with the date; None if none is found."""
    now = datetime.now(UTC)
    for each in filter(_has_times, chain):
        has_expired = parse_time(each["notAfter"]) < now
        if has_expired or parse_time(each["notBefore"]) > now:
            date = f"expired on {each['notAfter']}" if has_expired else f"is not valid before {each['notBefore']}"
            if each is chain[0]:
                return f"the certificate {date}", hint
            kind = "root" if each["subject"] == each["issuer"] else "intermediate"
            text = f"the {kind} certificate {quote_name(each, 'subject')} {date}"
            return text, "the server or its CA must replace it, or this machine's clock is wrong"
    return None


def _explain_names(leaf: Fields, host: str, policy: TLSPolicy) -> _Explanation:
    """List the names that the certificate is for, so that a person sees which server replied."""
    names = leaf.get("subjectAltName", ())
    if ("DNS", host) in names:
        text = f"the certificate has {host} as a DNS name, not as an IP address"
        return text, "the server needs a certificate with that IP address in subjectAltName"
    # Escaped and cut, so that one is not read as two: anyone can put anything into a certificate.
    shown = [escape(str(name), _MAX_NAME).replace("'", "\\'") for _, name in names[:_MAX_NAMES]]
    listed = ", ".join(f"'{name}'" for name in shown) or "no name at all"
    text = f"the certificate is not for {host}, but for {listed}"
    where = "host, or TLSPolicy(server_hostname=…)" if policy.server_hostname is None else "server_hostname"
    return text, f"if you know that this is the right server, use one of its names as {where}"


def _read_certificates(tls: ssl.SSLObject) -> tuple[list[Fields], list[Fields]]:
    """Return the certificates that the server sent, its own first, and those of the trusted CAs."""
    sent = [_decode(each.get_info) or {} for each in _decode(lambda: _sent(tls)) or ()]
    trusted: list[Fields] | None = _decode(tls.context.get_ca_certs)
    # One that cannot be decoded hides the names of all.
    return sent, [{}] * tls.context.cert_store_stats()["x509_ca"] if trusted is None else trusted


def _build_chain(sent: list[Fields], trusted: list[Fields]) -> list[Fields]:
    """Return the server's certificate and those above it, as far as they are known."""
    chain = sent[:1]
    # In the order in which OpenSSL searches: the trusted certificates first.
    for _ in range(_MAX_CHAIN):
        chain += [each for each in (*trusted, *sent) if each not in chain and _is_issuer(each, chain)][:1]
    return chain


def _sent(tls: ssl.SSLObject) -> list[Any]:
    # After a failed handshake no public call returns the chain on 3.11 and 3.12.
    return getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", lambda: None)() or []


def _decode(read: Callable[[], T]) -> T | None:
    """Return what *read* returns; None if a certificate cannot be decoded."""
    with SuppressErrors(ValueError, OSError):
        return read()
    return None


def _fields(certificate: Any) -> Fields:  # noqa: ANN401 -- a private class of `_ssl`
    fields: Fields | None = _decode(certificate.get_info)
    return fields if fields and _has_times(fields) else {}


def _has_times(fields: Fields) -> bool:
    """Return whether both times of a certificate can be read: OpenSSL writes "Bad time value" for others."""
    with SuppressErrors(ValueError):
        _ = parse_time(fields.get("notBefore")), parse_time(fields.get("notAfter"))
        return True
    return False


def _is_issuer(issuer: Fields, chain: list[Fields]) -> bool:
    return bool(chain) and "subject" in issuer and issuer["subject"] == chain[-1].get("issuer")
