"""
Sign and encrypt messages with S/MIME 4.0 (RFC 8551).

The signed part is serialised once, and from then on it is text: whoever sends the message writes it as it is.
"""

from __future__ import annotations

from contextlib import suppress
from email.message import EmailMessage, Message
from email.utils import getaddresses
from typing import TYPE_CHECKING, TypeAlias

from securesmtp._protocol.address import ascii_domain
from securesmtp._protocol.message_copy import copy_message, set_fields
from securesmtp._protocol.parts import new_boundary
from securesmtp._protocol.serialising import find_signed_fields, serialise, translate_email_errors
from securesmtp._protocol.seven_bit import encode_parts
from securesmtp._protocol.transfer_encoding import base64_lines
from securesmtp._shown import quote
from securesmtp.errors import ConfigurationError, MessageError
from securesmtp.signing._certificates import (
    addresses,
    check_use,
    describe,
    hide,
    hide_all,
    load_certificates,
    public_key,
)
from securesmtp.signing._keys import hide_key, read_private_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
    from cryptography.x509 import Certificate

    from securesmtp.signing._certificates import CertificateSource
    from securesmtp.signing._keys import KeySource

    SigningKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey

_MAKER = "your certificate's issuer gave it to you with the certificate"
_SIGNATURE_USAGES = ("digital_signature", "content_commitment")
_ENCRYPTION_USAGES = ("key_encipherment",)


def smime_sign(
    message: EmailMessage,
    certificate: CertificateSource,
    key: KeySource | SigningKey,
    *,
    chain: Iterable[CertificateSource] = (),
    detached: bool = True,
) -> EmailMessage:
    """
    Return a copy of *message* with its content signed (RFC 8551 §3.5); the fields of the header are not signed.

    The content becomes 7-bit first: texts that servers may change on the way are encoded. Only what has the name
    ``Content-…`` in the header moves into the signed part. Send the copy as any other message.

    Args:
        message: The message. It stays as it is.
        certificate: The sender's certificate, for an RSA key of 2048 bits or more, or for one on the curve P-256, P-384
            or P-521: in PEM (further ones in the text belong to *chain*) or DER, a `pathlib.Path` of a file, or a
            `cryptography.x509.Certificate`.
        key: Its private key: as for `DKIM`, or an object of ``cryptography``.
        chain: The certificates between it and a root that the recipients trust.
        detached: Whether mail programs without S/MIME can read the message (``multipart/signed``). If not, it is in one
            part (``application/pkcs7-mime``) of Base64, which servers on the way have no reason to change.

    Raises:
        ConfigurationError: A certificate or the key is wrong, or not for this use; *certificate* has addresses, and
            neither From nor Sender is one of them (RFC 8550 §3); or the extra ``sign`` is not installed.
        MessageError: The message has a DKIM signature, or cannot be written in 7-bit form.
    """
    # First of all, so that no frame of a traceback holds the text.
    key, certificate, hidden = _hide(key), hide(certificate), hide_all(chain)
    chain = ()
    _check_message(message)
    own, *others = load_certificates(certificate, "certificate")
    for number, source in enumerate(_as_list(hidden, "chain")):
        others += load_certificates(source, f"certificate {number} of the chain")
    check_use(own, "the certificate", _SIGNATURE_USAGES)
    private, digest = _signing_key(key, own)
    _check_sender(message, own)
    outer, content = _split(message)
    signature = _signature(content, own, private, digest, others, detached=detached)
    if not detached:
        return _enveloped(outer, "signed-data", signature)
    signed = content.decode("ascii").replace("\r\n", "\n")
    boundary = new_boundary([[content]])
    entity = (
        'Content-Type: application/pkcs7-signature; name="smime.p7s"\n'
        "Content-Transfer-Encoding: base64\n"
        'Content-Disposition: attachment; filename="smime.p7s"\n\n'
    )
    text = f"--{boundary}\n{signed}\n--{boundary}\n{entity}{base64_lines(signature)}\n--{boundary}--\n"
    micalg = digest.name.replace("sha", "sha-")
    kind = f'multipart/signed; protocol="application/pkcs7-signature"; micalg="{micalg}"; boundary="{boundary}"'
    outer["Content-Type"] = kind
    outer.set_payload(text)
    return outer


def smime_encrypt(message: EmailMessage, certificates: Iterable[CertificateSource]) -> EmailMessage:
    """
    Return a copy of *message* with its content encrypted for each of *certificates* (RFC 8551 §3.3).

    The cipher is AES-256 in CBC mode, which does not show a change on the way: sign the message first. The header,
    with the subject and all addresses, is not encrypted.

    Args:
        message: The message, such as one that `smime_sign` returned. It stays as it is.
        certificates: One for each reader, and one of the sender who wants to read the copy: each for an RSA key of 2048
            bits or more, as for `smime_sign`.

    Raises:
        ConfigurationError: A certificate is wrong, or not for this use: the error names it. There is none. Or the extra
            ``sign`` is not installed.
        MessageError: The message has Bcc or Resent-Bcc, whose recipients all others would see in it; it has a DKIM
            signature; or it cannot be written in 7-bit form.
    """
    # As in `smime_sign`.
    hidden, certificates = hide_all(certificates), ()
    _check_message(message)
    loaded: list[Certificate] = []
    for number, source in enumerate(_as_list(hidden, "certificates")):
        for each in load_certificates(source, f"certificate {number}"):
            _check_recipient(each, number)
            loaded.append(each)
    if not loaded:
        raise ConfigurationError("certificates is empty", hint="pass one for each recipient")
    for field in ("Bcc", "Resent-Bcc"):
        if message[field] is not None:
            text = f"the message has {field}, and each recipient of an encrypted message sees who else can read it"
            hint = f"remove {field}; encrypt a copy for each of these recipients, and send it alone"
            raise MessageError(text, hint=hint)
    outer, content = _split(message)
    return _enveloped(outer, "enveloped-data", _encrypted(content, loaded))


def _as_list(sources: list[CertificateSource] | None, what: str) -> list[CertificateSource]:
    if sources is None:
        raise ConfigurationError(f"{what} is not a list", hint="pass [certificate], also for one")
    return sources


def _check_message(message: object) -> None:
    if not isinstance(message, Message):
        text = f"message is a {type(message).__name__}, not an EmailMessage"
        raise MessageError(text, hint="build it with compose(), or parse bytes with email.message_from_bytes()")
    if find_signed_fields(message):
        text = "the message has a DKIM-Signature, which another content would void"
        raise MessageError(text, hint="let DKIM sign last: SecureMailer(sign=…)")


def _hide(key: KeySource | SigningKey) -> KeySource | SigningKey:
    return key if hasattr(key, "private_bytes") else hide_key(key)


def _signing_key(key: KeySource | SigningKey, own: Certificate) -> tuple[SigningKey, SHA256 | SHA384 | SHA512]:
    """Return the private key of *own*, and the hash that goes with it (RFC 8551 §2.2)."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

    private = key if hasattr(key, "private_bytes") else read_private_key(key, "key", _MAKER)
    if not isinstance(private, RSAPrivateKey | EllipticCurvePrivateKey):
        message = "the key is neither an RSA key nor one on an elliptic curve of NIST"
        raise ConfigurationError(message, hint="mail programs verify signatures of these keys alone")
    if private.public_key() != public_key(own, "the certificate"):
        text = f"the key is not that of the certificate ({describe(own)})"
        raise ConfigurationError(text, hint="pass the private key that was made for this certificate")
    if isinstance(private, RSAPrivateKey):
        return private, SHA256()
    digests: dict[str, SHA256 | SHA384 | SHA512] = {"secp256r1": SHA256(), "secp384r1": SHA384(), "secp521r1": SHA512()}
    if digest := digests.get(private.curve.name):
        return private, digest
    message = f"the key is on the curve {private.curve.name}, which mail programs do not verify"
    raise ConfigurationError(message, hint="use P-256, P-384, P-521, or RSA")


def _check_sender(message: Message, own: Certificate) -> None:
    """Check that *own* is a certificate of the author or of the sender: readers have to (RFC 8550 §3)."""
    certified = {_comparable(address) for address in addresses(own)}
    fields = [str(value) for name in ("From", "Sender") for value in message.get_all(name, [])]
    writers = [address for _, address in getaddresses(fields) if address]
    if certified and writers and not any(_comparable(address) in certified for address in writers):
        text = f"the certificate is for {describe(own)}, not for {quote(writers[0], allow_at=True)}"
        hint = "mail programs would show it as invalid: pass the certificate of the address in From or Sender"
        raise ConfigurationError(text, hint=hint)


def _comparable(address: str) -> str:
    """Return *address* in lower case, with the domain in A-labels, as certificates have it (RFC 8398 §3)."""
    local, _, domain = address.rpartition("@")
    with suppress(ValueError):
        domain = ascii_domain(domain)
    return f"{local}@{domain}".lower()


def _check_recipient(certificate: Certificate, number: int) -> None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    check_use(certificate, f"certificate {number}", _ENCRYPTION_USAGES)
    name = f"certificate {number} ({describe(certificate)})"
    if not isinstance(public_key(certificate, name), RSAPublicKey):
        raise ConfigurationError(f"{name} has no RSA key", hint="messages can be encrypted for RSA keys alone")


def _split(message: EmailMessage) -> tuple[EmailMessage, bytes]:
    """Return a message of the fields that stay outside, and the content with those that describe it, in 7-bit form."""
    copied, header = copy_message(message)
    inside = [(name, value) for name, value in header.fields if _is_of_content(name)]
    if not any(name.lower() == "content-type" for name, _ in inside):
        inside.insert(0, ("Content-Type", "text/plain"))
    set_fields(copied, inside)
    translate_email_errors(lambda: encode_parts(copied, is_strict=True))
    content = serialise(copied, utf8=False, cte_type="8bit")
    if not content.is_ascii:
        text = "a part that is signed or attached has bytes that are not ASCII, which cannot be encoded"
        raise MessageError(text, hint="attach it as application/octet-stream, which is encoded as base64")
    outer = EmailMessage(policy=copied.policy)
    set_fields(
        outer, (each for each in header.fields if not _is_of_content(each[0]) and each[0].lower() != "mime-version")
    )
    outer["MIME-Version"] = "1.0"
    return outer, content.whole_chunk()


def _is_of_content(name: str) -> bool:
    return name.lower().startswith("content-")


def _signature(  # noqa: PLR0913 -- all that a signature has
    content: bytes,
    own: Certificate,
    key: SigningKey,
    digest: SHA256 | SHA384 | SHA512,
    others: Iterable[Certificate],
    *,
    detached: bool,
) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

    builder = PKCS7SignatureBuilder().set_data(content).add_signer(own, key, digest)
    for each in others:
        builder = builder.add_certificate(each)
    options = [PKCS7Options.Binary, *[PKCS7Options.DetachedSignature] * detached]
    return builder.sign(Encoding.DER, options)


def _encrypted(content: bytes, certificates: Iterable[Certificate]) -> bytes:
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options

    builder = PKCS7EnvelopeBuilder().set_data(content).set_content_encryption_algorithm(AES256)
    for each in certificates:
        builder = builder.add_recipient(each)
    return builder.encrypt(Encoding.DER, [PKCS7Options.Binary])


def _enveloped(outer: EmailMessage, kind: str, data: bytes) -> EmailMessage:
    """Return *outer* with *data* as its only part (RFC 8551 §3.2)."""
    outer["Content-Type"] = f'application/pkcs7-mime; smime-type={kind}; name="smime.p7m"'
    outer["Content-Transfer-Encoding"] = "base64"
    outer["Content-Disposition"] = 'attachment; filename="smime.p7m"'
    outer.set_payload(base64_lines(data))
    return outer
