"""
Read a private key, so that neither an error nor a traceback shows it, and sign with it.

No local variable here holds the text of a key: see `Secret`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from hashlib import sha256
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from securesmtp._secret import Secret
from securesmtp._shown import quote
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

# A text in PEM, a file of it, or what returns it.
KeySource: TypeAlias = str | bytes | Secret | os.PathLike[str] | Callable[[], str | bytes | Secret]
# RFC 8301 §3.2: verifiers accept 1024 to 4096; shorter than 2048 is too weak today.
LEAST_BITS, MOST_BITS = 2048, 4096
# Far more than any key has.
_MOST_BYTES = 64 * 1024
_BEGIN = "-----BEGIN "
_EXTRA_HINT = 'install the extra: pip install "securesmtp[sign]"'
_PEM_HINT = "it has to begin with -----BEGIN PRIVATE KEY-----"


class Key(Protocol):
    """A private key."""

    @property
    def algorithm(self) -> str:
        """Its name in a signature (RFC 6376 §3.3, RFC 8463 §3)."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature of *data*."""

    def public_bytes(self) -> bytes:
        """Return the public key, as a DNS record has it."""


class RSAKey:
    """An RSA key: RSASSA-PKCS1-v1_5 over SHA-256 (RFC 6376 §3.3.1)."""

    __slots__ = ("_arguments", "_key")
    algorithm = "rsa-sha256"

    def __init__(self, key: RSAPrivateKey) -> None:
        """Sign with *key*."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        self._key, self._arguments = key, (PKCS1v15(), SHA256())

    def sign(self, data: bytes) -> bytes:
        """Return the signature of *data*."""
        return self._key.sign(data, *self._arguments)

    def public_bytes(self) -> bytes:
        """Return the SubjectPublicKeyInfo in DER (RFC 6376 §3.6.1)."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Ed25519Key:
    """An Ed25519 key, which signs the SHA-256 (RFC 8463 §3)."""

    __slots__ = ("_key",)
    algorithm = "ed25519-sha256"

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Sign with *key*."""
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """Return the signature of the hash of *data*."""
        return self._key.sign(sha256(data).digest())

    def public_bytes(self) -> bytes:
        """Return the 32 bytes of the public key (RFC 8463 §4)."""
        return self._key.public_key().public_bytes_raw()


def load_key(source: KeySource, what: str) -> RSAKey | Ed25519Key:
    """
    Return the key of *source* for DKIM; *what* names the argument.

    Raises:
        ConfigurationError: There is none, or not one that is used for DKIM.
    """
    hint = "securesmtp dkim-key makes one"
    key = read_private_key(source, what, hint)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if isinstance(key, RSAPrivateKey):
        if not LEAST_BITS <= key.key_size <= MOST_BITS:
            message = f"the {what} is an RSA key of {key.key_size} bits; receivers want {LEAST_BITS} to {MOST_BITS}"
            raise ConfigurationError(message, hint=f"{hint} of 2048")
        return RSAKey(key)
    if isinstance(key, Ed25519PrivateKey):
        return Ed25519Key(key)
    raise ConfigurationError(f"the {what} is neither an RSA nor an Ed25519 key", hint=hint)


def read_private_key(source: KeySource, what: str, maker: str) -> PrivateKeyTypes:
    """
    Return the private key of *source*, whatever its kind; *what* names the argument, and *maker* what makes one.

    Raises:
        ConfigurationError: It has none that can be read, or the extra ``sign`` is not installed.
    """
    try:
        import cryptography  # noqa: F401 -- whether it is there
    except ModuleNotFoundError:
        message = "signing needs the package cryptography"
        raise ConfigurationError(message, hint=_EXTRA_HINT) from None
    hint = f"{_PEM_HINT}; {maker}"
    one_line_hint = hint if isinstance(source, os.PathLike) else "for a file, pass a pathlib.Path"
    return _parse(_as_pem(source, what), what, hint, one_line_hint)


def make_key(bits: int | None) -> bytes:
    """Return a new private key in PEM (PKCS #8): an RSA key of so many *bits*, or Ed25519 if that is None."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key: PrivateKeyTypes = (
        ed25519.Ed25519PrivateKey.generate() if bits is None else rsa.generate_private_key(65537, bits)
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def hide_key(source: KeySource) -> Secret | os.PathLike[str] | Callable[[], str | bytes | Secret]:
    """Return *source*; a text as a `Secret`, and also what is of a wrong type."""
    if isinstance(source, Secret | os.PathLike) or callable(source):
        return source
    return Secret(source.decode("latin-1") if isinstance(source, bytes | bytearray) else source)


def _as_pem(source: KeySource, what: str) -> Secret:
    """Return the text that *source* is, has or returns."""
    if iscoroutinefunction(source):
        raise ConfigurationError(f"the {what} callable is a coroutine function", hint="pass the key that it returns")
    source = hide_key(source() if callable(source) else source)
    if isinstance(source, os.PathLike):
        source = _read(Path(os.fsdecode(source)), what)
    if not isinstance(source, Secret):
        message = f"the {what} callable returned another callable, not the text of a private key in PEM"
        raise ConfigurationError(message)
    return source


def _read(path: Path, what: str) -> Secret:
    shown = quote(str(path), allow_at=True)
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                return Secret(file.read(_MOST_BYTES).decode("latin-1"))
        why = "can be written by every user (correct it with chmod o-w)"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except ValueError:
        why = "cannot be read: there is a NUL in its name"
    raise ConfigurationError(f"the file {shown} of the {what} {why}")


def _parse(pem: Secret, what: str, hint: str, one_line_hint: str) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not _is_pem(pem):
        # A str that is a path has one line.
        hint = one_line_hint if _is_one_line(pem) else hint
        raise ConfigurationError(f"the {what} is not the text of a private key in PEM", hint=hint)
    message = f"the {what} is not a private key that can be read"
    try:
        return load_pem_private_key(pem.reveal().encode("latin-1", "replace"), password=None)
    except TypeError:
        message, hint = f"the {what} is encrypted", "decrypt it: openssl pkey -in FILE -out PLAIN"
    except (ValueError, UnsupportedAlgorithm):
        pass
    # Raised outside of the handlers, because the errors of cryptography may quote the key.
    raise ConfigurationError(message, hint=hint)


def _is_text(pem: Secret) -> bool:
    # In functions of their own, so that no frame that may raise holds the text.
    return isinstance(pem.reveal(), str)


def _is_pem(pem: Secret) -> bool:
    return _is_text(pem) and _BEGIN in pem.reveal()


def _is_one_line(pem: Secret) -> bool:
    return _is_text(pem) and "\n" not in pem.reveal().strip()
