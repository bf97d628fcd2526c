"""Read the certificates of people (RFC 8550), and check each for its use before anything is done with it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from securesmtp._secret import Secret
from securesmtp._shown import escape, quote
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
    from cryptography.x509 import Certificate, ExtensionType

E = TypeVar("E", bound="ExtensionType")
# In PEM or DER; a text or file in PEM may have several.
CertificateSource: TypeAlias = "str | bytes | Secret | os.PathLike[str] | Certificate"
# Far more than any chain has.
_MOST_BYTES = 1 << 20
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_LEAST_RSA_BITS = 2048
_FOR_MAIL = "use a certificate that was issued for S/MIME (email protection); one of a server is not"


def hide(source: CertificateSource) -> CertificateSource:
    """Return *source*; a text or bytes as a `Secret`, since a key may be in it: one of both, or in the wrong place."""
    if isinstance(source, str):
        return Secret(source)
    return Secret(source.decode("latin-1")) if isinstance(source, bytes | bytearray) else source


def hide_all(sources: Iterable[CertificateSource]) -> list[CertificateSource] | None:
    """Return *sources*, each as `hide` does; None if they are no list of them."""
    given: object = sources
    return None if isinstance(given, str | bytes) or not isinstance(given, Iterable) else [hide(each) for each in given]


def load_certificates(source: CertificateSource, what: str) -> list[Certificate]:
    """
    Return the certificates of *source*, at least one; *what* names the argument.

    Raises:
        ConfigurationError: It has none that can be read, or the extra ``sign`` is not installed.
    """
    try:
        from cryptography.x509 import Certificate
    except ModuleNotFoundError:
        message = "S/MIME needs the package cryptography"
        raise ConfigurationError(message, hint='install the extra: pip install "securesmtp[sign]"') from None
    if isinstance(source, Certificate):
        return [source]
    found = _parse(_read(source, what))
    if not found:
        message = f"the {what} is not a certificate in PEM or DER"
        text_hint = "" if isinstance(source, os.PathLike) else "for a file, pass a pathlib.Path; "
        raise ConfigurationError(message, hint=f"{text_hint}a .p12 or .pfx file: see the page on S/MIME")
    return found


def _parse(text: Secret) -> list[Certificate]:
    # A frame of its own, which raises nothing: it has the bytes.
    from cryptography.x509 import InvalidVersion, load_der_x509_certificate, load_pem_x509_certificates

    data = text.reveal().encode("latin-1", "replace")
    try:
        return load_pem_x509_certificates(data) if _BEGIN in data else [load_der_x509_certificate(data)]
    except (ValueError, InvalidVersion):
        return []


def _read(source: object, what: str) -> Secret:
    if isinstance(source, Secret):
        return source
    if not isinstance(source, os.PathLike):
        message = f"the {what} is a {type(source).__name__}, not a certificate"
        raise ConfigurationError(message, hint="pass its text in PEM, its bytes, or a pathlib.Path of its file")
    path, why = os.fsdecode(source), "there is a NUL in its name"
    try:
        with Path(path).open("rb") as file:
            return Secret(file.read(_MOST_BYTES).decode("latin-1"))
    except OSError as error:
        why = str(error.strerror)
    except ValueError:
        pass
    raise ConfigurationError(f"the file {quote(path, allow_at=True)} of the {what} cannot be read: {why}")


def check_use(certificate: Certificate, what: str, usages: Iterable[str]) -> None:
    """
    Check that *certificate* is valid now, and for mail.

    Args:
        certificate: The certificate.
        what: What names it in an error.
        usages: The key usages of which it needs one, if it has any (RFC 8550 §4.4.2).

    Raises:
        ConfigurationError: It is not.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    name = f"{what} ({describe(certificate)})"
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        message = f"{name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        raise ConfigurationError(message, hint="renew it, or check this machine's clock")
    if now < certificate.not_valid_before_utc:
        message = f"{name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
        raise ConfigurationError(message, hint="wait until then, or check this machine's clock")
    key = public_key(certificate, name)
    if isinstance(key, RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        raise ConfigurationError(f"{name} has an RSA key of {key.key_size} bits; {_LEAST_RSA_BITS} is the least")
    if not _has_usage(certificate, usages):
        message = f"{name} is not for this use: its key usage lacks {' and '.join(usages)}"
        raise ConfigurationError(message, hint=_FOR_MAIL)
    if not _is_for_mail(certificate):
        message = f"{name} is not for mail: its extended key usage lacks emailProtection"
        raise ConfigurationError(message, hint=_FOR_MAIL)


def public_key(certificate: Certificate, what: str) -> CertificatePublicKeyTypes:
    """
    Return the public key of *certificate*.

    Raises:
        ConfigurationError: It is of a kind that nobody knows, or broken; *what* names the certificate.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        message = f"{what} has a public key that cannot be read"
        raise ConfigurationError(message) from None


def _has_usage(certificate: Certificate, usages: Iterable[str]) -> bool:
    from cryptography.x509 import KeyUsage

    usage = _extension(certificate, KeyUsage)
    return usage is None or any(getattr(usage, each) for each in usages)


def _is_for_mail(certificate: Certificate) -> bool:
    from cryptography.x509 import ExtendedKeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID

    usage = _extension(certificate, ExtendedKeyUsage)
    allowed = ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
    return usage is None or any(each in usage for each in allowed)


def addresses(certificate: Certificate) -> list[str]:
    """
    Return the addresses of *certificate*, without those in its subject's name, which is for old programs.

    Raises:
        ConfigurationError: Its extensions cannot be read.
    """
    from cryptography.x509 import RFC822Name, SubjectAlternativeName

    names = _extension(certificate, SubjectAlternativeName)
    return [] if names is None else list(names.get_values_for_type(RFC822Name))


def _extension(certificate: Certificate, kind: type[E]) -> E | None:
    from cryptography.x509 import DuplicateExtension, ExtensionNotFound, UnsupportedGeneralNameType

    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except ExtensionNotFound:
        return None
    except (ValueError, DuplicateExtension, UnsupportedGeneralNameType):
        message = f"the certificate with the number {certificate.serial_number:x} has extensions that cannot be read"
        raise ConfigurationError(message) from None


def describe(certificate: Certificate) -> str:
    """Return whose certificate it is, in printable form."""
    names = ", ".join(addresses(certificate))
    # Parsed only now; the error for a name that is not what it says it is differs.
    with suppress(ValueError, TypeError):
        return escape(names or certificate.subject.rfc4514_string() or "without a name", 80)
    return f"with the number {certificate.serial_number:x}"
