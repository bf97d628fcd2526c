"""The certificates that a server has sent: names, dates, keys and signatures, read from what OpenSSL has parsed."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from securesmtp._cli.check.result import Certificate
from securesmtp._shown import escape
from securesmtp._transport.certificate import extract_public_key, parse_time, read_element

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesmtp._transport.certificate import SentCertificate

# Names of a certificate that are kept, and characters of each.
_MAX_NAMES, _MAX_NAME = 50, 200
# Bytes of an object identifier; Python does not write numbers of any length.
_MAX_OID = 64
# Object identifiers by their DER content, in hexadecimal. Public keys: RFC 3279, RFC 8410, RFC 9881.
_RSA = {"2a864886f70d010101": "RSA", "2a864886f70d01010a": "RSA-PSS"}
_EC = "2a8648ce3d0201"
_KEYS = {
    "2b6570": "Ed25519",
    "2b6571": "Ed448",
    "2a8648ce380401": "DSA",
    "608648016503040311": "ML-DSA-44",
    "608648016503040312": "ML-DSA-65",
    "608648016503040313": "ML-DSA-87",
}
# RFC 5480, RFC 5639.
_CURVES = {
    "2a8648ce3d030107": "P-256",
    "2b81040022": "P-384",
    "2b81040023": "P-521",
    "2b8104000a": "secp256k1",
    "2b2403030208010107": "brainpoolP256r1",
    "2b240303020801010b": "brainpoolP384r1",
    "2b240303020801010d": "brainpoolP512r1",
}
# RFC 3279, RFC 4055, RFC 5758.
_SIGNATURES = {
    "2a864886f70d010104": "MD5 with RSA",
    "2a864886f70d010105": "SHA1 with RSA",
    "2a864886f70d01010e": "SHA224 with RSA",
    "2a864886f70d01010b": "SHA256 with RSA",
    "2a864886f70d01010c": "SHA384 with RSA",
    "2a864886f70d01010d": "SHA512 with RSA",
    "2a864886f70d01010a": "RSA-PSS",
    "2a8648ce3d0401": "SHA1 with ECDSA",
    "2a8648ce3d040301": "SHA224 with ECDSA",
    "2a8648ce3d040302": "SHA256 with ECDSA",
    "2a8648ce3d040303": "SHA384 with ECDSA",
    "2a8648ce3d040304": "SHA512 with ECDSA",
    **_KEYS,
}
_UNREADABLE = "(cannot be read)"


def read_chain(sent: Iterable[SentCertificate], now: datetime | None = None) -> tuple[Certificate, ...]:
    """Return the certificates that a server has *sent*, in its order."""
    moment = now or datetime.now(UTC)
    return tuple(_certificate(fields, der, moment) for fields, der in sent)


def _certificate(fields: dict[str, Any], der: bytes, now: datetime) -> Certificate:
    pin, key, signature, digest = *_describe_der(der), hashlib.sha256(der).hexdigest()
    if not fields:
        # A name in it is not ASCII, or the like: no careful CA signs that.
        return Certificate(_UNREADABLE, _UNREADABLE, key, "", "", 0, pin, (), signature, digest)
    names = [str(name) for kind, name in fields.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
    shown = tuple(escape(name, _MAX_NAME) for name in names[:_MAX_NAMES])
    subject, issuer = (_describe_name(fields.get(which, ())) for which in ("subject", "issuer"))
    begins, ends = parse_time(fields["notBefore"]), parse_time(fields["notAfter"])
    return Certificate(
        subject or ", ".join(shown),
        issuer,
        key,
        begins.isoformat(),
        ends.isoformat(),
        (ends - now).days,
        pin,
        shown,
        signature,
        digest,
        is_self_issued=fields.get("subject") == fields.get("issuer"),
    )


def _describe_der(der: bytes) -> tuple[str, str, str]:
    """Return pin, key and signature; OpenSSL reads a key only when it verifies with it, and takes BER for DER."""
    try:
        spki = extract_public_key(der)
        pin = "sha256/" + base64.b64encode(hashlib.sha256(spki).digest()).decode("ascii")
        return pin, describe_key(spki), describe_signature(der)
    except IndexError:
        return _UNREADABLE, _UNREADABLE, _UNREADABLE


def _describe_name(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    attributes = [pair for part in name for pair in part]
    common = [value for key, value in attributes if key == "commonName"]
    return escape(common[0] if common else ", ".join(value for _, value in attributes), _MAX_NAME)


def describe_key(spki: bytes) -> str:
    """Return type and size of the key in a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)."""
    algorithm, _ = read_element(spki, 0)
    start, end = read_element(spki, algorithm)
    oid_start, oid_end = read_element(spki, start)
    oid = spki[oid_start:oid_end].hex()
    if oid in _RSA:
        return f"{_RSA[oid]} {_modulus_bits(spki, end)}"
    if oid == _EC:
        # The name of a curve; OpenSSL refuses a curve that is written out.
        curve_start, curve_end = read_element(spki, oid_end)
        return f"EC {describe_oid(spki[curve_start:curve_end], _CURVES)}"
    return describe_oid(spki[oid_start:oid_end], _KEYS)


def describe_signature(der: bytes) -> str:
    """Return how a DER certificate is signed (RFC 5280 §4.1.1.2)."""
    outer, _ = read_element(der, 0)
    _, end = read_element(der, outer)
    algorithm, _ = read_element(der, end)
    start, end = read_element(der, algorithm)
    return describe_oid(der[start:end], _SIGNATURES)


def _modulus_bits(spki: bytes, at: int) -> int:
    # RFC 8017 appendix A.1.1: a bit string, without unused bits, of a sequence that begins with the modulus.
    content, _ = read_element(spki, at)
    sequence, _ = read_element(spki, content + 1)
    start, end = read_element(spki, sequence)
    if end > len(spki):
        raise IndexError(end)
    return int.from_bytes(spki[start:end], "big").bit_length()


def describe_oid(oid: bytes, known: dict[str, str]) -> str:
    """Return the name of an object identifier, or its numbers (X.690 §8.19)."""
    if oid.hex() in known:
        return known[oid.hex()]
    if len(oid) > _MAX_OID:
        return _UNREADABLE
    numbers, value = list[int](), 0
    for byte in oid:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2) if numbers else 0
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:]))) if numbers else "unknown"
