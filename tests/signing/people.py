"""People with S/MIME certificates, and two independent readers of their messages: OpenSSL, and NSS (Thunderbird's)."""

from __future__ import annotations

import datetime
import email
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache
from itertools import takewhile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM
CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "k256": ec.SECP256K1()}


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a certificate."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> str:
        """The certificate as a text."""
        return self.certificate.public_bytes(PEM).decode()

    @property
    def key_pem(self) -> str:
        """The key as a text."""
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


@cache
def new_key(kind: str) -> PrivateKey:
    """Return a key, the same for everybody: ``rsa2048``, ``ed25519``, or the name of a curve."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(CURVES[kind])


class Issuer:
    """A root, an issuer below it, and what they certify."""

    def __init__(self, directory: Path) -> None:
        """Make both; the root's certificate is put into *directory*."""
        self._root_key, self._key = new_key("p256"), new_key("p256")
        self.root = self._sign("root", None, self._root_key, self._root_key, _basic(is_ca=True))
        self.certificate = self._sign("issuer", "root", self._key, self._root_key, _basic(is_ca=True))
        self.root_file = directory / "root.pem"
        self.root_file.write_bytes(self.root.public_bytes(PEM))

    @staticmethod
    def _sign(  # noqa: PLR0913, PLR0917 -- what differs
        name: str,
        issuer: str | None,
        key: PrivateKey,
        signer: PrivateKey,
        extensions: Sequence[x509.ExtensionType],
        days: tuple[int, int] = (-1, 30),
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            issuer_name=_name(issuer or name),
            subject_name=_name(name),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now + days[0] * DAY,
            not_valid_after=now + days[1] * DAY,
        )
        for each in extensions:
            builder = builder.add_extension(each, critical=isinstance(each, x509.BasicConstraints))
        return builder.sign(signer, hashes.SHA256())

    def person(
        self,
        *addresses: str,
        kind: str = "rsa2048",
        days: tuple[int, int] = (-1, 30),
        usages: Sequence[str] | None = ("digital_signature", "key_encipherment"),
        purposes: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.EMAIL_PROTECTION,),
    ) -> Person:
        """Return a person with these *addresses*, whose certificate is good unless told otherwise."""
        key = new_key(kind)
        extensions = [*_basic(is_ca=False)]
        if addresses:
            extensions.append(x509.SubjectAlternativeName([x509.RFC822Name(each) for each in addresses]))
        if usages is not None:
            extensions.append(_usage(usages))
        if purposes is not None:
            extensions.append(x509.ExtendedKeyUsage(purposes))
        name = addresses[0] if addresses else "Nobody"
        return Person(self._sign(name, "issuer", key, self._key, extensions, days), key)

    def with_broken_extension(self) -> bytes:
        """Return a certificate in DER whose alternative names are no names."""
        broken = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x03\x01\x01\xff")
        key = new_key("rsa2048")
        return self._sign("x", "issuer", key, self._key, [broken]).public_bytes(serialization.Encoding.DER)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _basic(*, is_ca: bool) -> tuple[x509.ExtensionType, ...]:
    return (x509.BasicConstraints(ca=is_ca, path_length=None),)


def _usage(usages: Sequence[str]) -> x509.KeyUsage:
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign"
    names += " crl_sign encipher_only decipher_only"
    return x509.KeyUsage(**{name: name in usages for name in names.split()})


def openssl(*arguments: str | Path, data: bytes) -> bytes:
    """
    Return what ``openssl cms`` says of the message *data*.

    Raises:
        AssertionError: It refuses it.
    """
    done = subprocess.run(["openssl", "cms", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class NSS:
    """The library of Thunderbird, with a database of its own that trusts one root."""

    def __init__(self, directory: Path, root: Path) -> None:
        """Make the database in *directory*."""
        self._directory = directory
        self._database = f"sql:{directory}"
        self._run("certutil", "-N", "--empty-password")
        self._run("certutil", "-A", "-n", "root", "-t", ",C,", "-i", str(root))

    def _run(self, program: str, *arguments: str) -> bytes:
        done = subprocess.run(
            [program, *arguments, "-d", self._database], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def add(self, person: Person) -> None:
        """Let it read what is encrypted for *person*."""
        assert not isinstance(person.key, ed25519.Ed25519PrivateKey)
        encryption = serialization.BestAvailableEncryption(b"x")
        file = self._directory / "person.p12"
        file.write_bytes(
            pkcs12.serialize_key_and_certificates(b"person", person.key, person.certificate, None, encryption)
        )
        self._run("pk12util", "-i", str(file), "-W", "x", "-K", "")

    def verify(self, message: bytes) -> bytes:
        """
        Return the signed octets of *message*.

        Raises:
            AssertionError: The signature is not good.
        """
        parsed = email.message_from_bytes(message, policy=SMTP)
        if parsed.get_content_type() == "multipart/signed":
            content, der = split_signed(message)
            return self._decode(der, content)
        return self._decode(_decoded(parsed), None)

    def decrypt(self, message: bytes) -> bytes:
        """
        Return what is encrypted in *message*.

        Raises:
            AssertionError: It cannot be decrypted.
        """
        return self._decode(_decoded(email.message_from_bytes(message, policy=SMTP)), None)

    def _decode(self, der: bytes, content: bytes | None) -> bytes:
        files = self._directory / "message.der", self._directory / "content", self._directory / "decoded"
        files[0].write_bytes(der)
        files[1].write_bytes(content or b"")
        detached = ("-c", str(files[1])) if content is not None else ()
        self._run("cmsutil", "-D", "-h", "2", "-i", str(files[0]), "-o", str(files[2]), *detached)
        # Lines about the message come first.
        lines = files[2].read_bytes().splitlines(keepends=True)
        about = list(takewhile(lambda line: line.startswith((b"SMIME:", b"\t")), lines))
        assert b"GoodSignature" in b"".join(about) or b"signer" not in b"".join(about), about
        return b"".join(lines[len(about) :])


def split_signed(message: bytes) -> tuple[bytes, bytes]:
    """Return the signed octets of a ``multipart/signed``, cut out by hand, and its signature in DER."""
    parsed = email.message_from_bytes(message, policy=SMTP)
    delimiter = b"\r\n--" + str(parsed.get_boundary()).encode() + b"\r\n"
    _, signed, _ = message.split(delimiter)
    *_, signature = parsed.iter_parts()
    assert isinstance(signature, EmailMessage)
    return signed, _decoded(signature)


def _decoded(part: EmailMessage) -> bytes:
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return data
