"""S/MIME (RFC 8551): two independent programs verify and decrypt what a server receives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.mime.text import MIMEText
from email.policy import SMTP, default
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from leaks import shown
from securesmtp import ConfigurationError, MessageError, SecureSMTPError
from securesmtp.signing import smime_encrypt, smime_sign
from securesmtp.testing import MailServer, RecordingMailer
from signing.people import NSS, Issuer, Person, openssl, split_signed

KINDS = ("rsa2048", "p256", "p384", "p521")
BLOCK = b"\0\x01\xff" * 100


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """Who certifies all."""
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def people(issuer: Issuer) -> dict[str, Person]:
    """A person for each kind of key."""
    return {kind: issuer.person("ada@example.org", kind=kind) for kind in KINDS}


@pytest.fixture(scope="module")
def ada(people: dict[str, Person]) -> Person:
    """The author of most messages."""
    return people["rsa2048"]


@pytest.fixture(scope="module")
def nss(issuer: Issuer, ada: Person, tmp_path_factory: pytest.TempPathFactory) -> NSS:
    """Thunderbird's library, which reads what is encrypted for Ada."""
    found = NSS(tmp_path_factory.mktemp("nss"), issuer.root_file)
    found.add(ada)
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[MailServer]:
    """One server for all."""
    with MailServer() as running:
        yield running


def text(content: str = "Hello\n", **options: Any) -> EmailMessage:
    """Return a message from Ada to Bob."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Ada <ada@example.org>", "bob@example.org", "Hello"
    message.set_content(content, **options)
    return message


def attached() -> EmailMessage:
    """Return a message with parts of many kinds."""
    message = text("Grüße\n", cte="8bit")
    message.add_alternative("<p>Grüße</p>\n", subtype="html", cte="quoted-printable")
    message.add_attachment(BLOCK, maintype="application", subtype="pdf", filename="Rechnung für Ada.pdf")
    message.add_attachment(text("inside\n"))
    return message


MESSAGES = {
    "plain": text(),
    "empty": text(""),
    "without a type": message_from_bytes(b"From: ada@example.org\nTo: bob@example.org\n\nHello\n", policy=default),
    "of the old API": MIMEText("Grüße"),
    "8-bit": text("Grüße\n" * 3, cte="8bit"),
    "mostly not ASCII": text("日本語\n" * 3, cte="8bit"),
    "blanks at line ends": text("two  \n tab\t\n"),
    "From at a line start": text("x\nFrom me\n"),
    "From in quoted-printable": text("From me ü\n", cte="quoted-printable"),
    "dots": text(".\n..\n.x\n"),
    "parts": attached(),
    "text around the parts": message_from_bytes(
        b"From: ada@example.org\nTo: bob@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
        b"From me \n--x\n\nHello\n--x--\nFrom me \n",
        policy=default,
    ),
}
MESSAGES["of the old API"]["From"] = "ada@example.org"
MESSAGES["of the old API"]["To"] = "bob@example.org"
each_message = pytest.mark.parametrize("message", MESSAGES.values(), ids=list(MESSAGES))
each_form = pytest.mark.parametrize("detached", [True, False], ids=["detached", "opaque"])


def arrived(server: MailServer, message: EmailMessage) -> bytes:
    """Return the octets that a server receives for *message*."""
    server.clear()
    with server.mailer() as mailer:
        mailer.send(message)
    (received,) = server.messages
    return received.content


def content_of(data: bytes) -> object:
    """Return all that a reader sees in a part: texts and files."""
    return [
        (part.get_content_type(), part.get_filename(), part.get_content())
        for part in message_from_bytes(data, policy=default).walk()
        if not part.is_multipart()
    ]


@each_form
@each_message
def test_both_programs_verify_what_arrived(  # noqa: PLR0913 -- fixtures
    message: EmailMessage, *, detached: bool, server: MailServer, issuer: Issuer, ada: Person, nss: NSS
) -> None:
    """The signature covers what was written, and nothing else was changed."""
    signed = smime_sign(message, ada.pem, ada.key_pem, chain=[issuer.certificate], detached=detached)
    data = arrived(server, signed)
    assert data.isascii()
    assert max(map(len, data.split(b"\r\n"))) <= 998
    found = openssl("-verify", "-CAfile", issuer.root_file, "-purpose", "smimesign", data=data)
    assert nss.verify(data) == found
    assert content_of(found) == content_of(message.as_bytes(policy=SMTP))
    assert b"\nFrom " not in found
    assert not any(line.endswith((b" ", b"\t")) for line in found.split(b"\r\n"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key_has_its_hash(
    kind: str, server: MailServer, issuer: Issuer, people: dict[str, Person], nss: NSS
) -> None:
    """The names of RFC 8551 §3.5.3.2."""
    person = people[kind]
    signed = smime_sign(text(), person.certificate, person.key, chain=[issuer.certificate])  # type: ignore[arg-type]
    hashes = {"rsa2048": "sha-256", "p256": "sha-256", "p384": "sha-384", "p521": "sha-512"}
    assert signed["Content-Type"].params["micalg"] == hashes[kind]
    data = arrived(server, signed)
    assert nss.verify(data) == openssl("-verify", "-CAfile", issuer.root_file, data=data)


def test_a_changed_message_is_not_verified(server: MailServer, issuer: Issuer, ada: Person, nss: NSS) -> None:
    """That both programs can refuse."""
    data = arrived(server, smime_sign(text(), ada.pem, ada.key_pem, chain=[issuer.certificate]))
    changed = data.replace(b"Hello\r\n\r\n--", b"hello\r\n\r\n--")
    assert changed != data
    for verify in nss.verify, lambda each: openssl("-verify", "-CAfile", issuer.root_file, data=each):
        with pytest.raises(AssertionError):
            verify(changed)


@each_form
@pytest.mark.parametrize("message", [MESSAGES["8-bit"], MESSAGES["parts"]], ids=["8-bit", "parts"])
def test_what_is_encrypted_is_read_by_both_programs(  # noqa: PLR0913 -- fixtures
    message: EmailMessage, *, detached: bool, server: MailServer, issuer: Issuer, ada: Person, nss: NSS, tmp_path: Path
) -> None:
    """Signed first, as the page says: inside is the signed message."""
    bob = issuer.person("bob@example.org")
    signed = smime_sign(message, ada.pem, ada.key_pem, chain=[issuer.certificate], detached=detached)
    encrypted = smime_encrypt(signed, [bob.pem, ada.certificate])
    assert encrypted["From"] == message["From"]
    data = arrived(server, encrypted)
    key = tmp_path / "key.pem"
    key.write_text(bob.key_pem)
    found = openssl("-decrypt", "-inkey", key, data=data)
    assert nss.decrypt(data) == found
    assert openssl("-verify", "-CAfile", issuer.root_file, data=found)
    cms = openssl("-cmsout", "-print", data=data)
    assert b"aes-256-cbc" in cms


def test_only_fields_of_the_content_are_inside(ada: Person) -> None:
    """And the message stays as it is, with its Bcc outside for the mailer to remove."""
    message = attached()
    message["Bcc"], message["X-Mine"], message["Content-Language"] = "eve@example.org", "y", "de"
    before = message.as_bytes()
    signed = smime_sign(message, ada.pem, ada.key_pem)
    assert message.as_bytes() == before
    content, _ = split_signed(signed.as_bytes().replace(b"\n", b"\r\n"))
    names = [name for name, _ in message_from_bytes(content).items()]
    assert names == ["Content-Type", "Content-Language"]
    assert [name for name in signed if not name.startswith("Content-")] == [
        *("From", "To", "Subject", "Bcc", "X-Mine", "MIME-Version"),
    ]
    assert "Content-Language" not in signed


@settings(max_examples=examples(60))
@given(length=st.integers(1, 200), end=st.text("x é", max_size=60), is_ours=st.booleans())
def test_the_signed_octets_are_sent_whatever_the_header_is(
    ada: Person, length: int, end: str, *, is_ours: bool
) -> None:
    """Folded fields broke signatures elsewhere (PITFALLS X14); the standard library writes them, too."""
    message = text()
    del message["Subject"]
    message["Subject"] = "x" * length + end
    signed = smime_sign(message, ada.certificate, ada.key)  # type: ignore[arg-type]
    payload = signed.get_payload()
    assert isinstance(payload, str)
    sent = signed.as_bytes(policy=SMTP)
    if is_ours:
        with RecordingMailer() as mailer:
            mailer.send(signed)
        sent = mailer.messages[0].content
    assert sent.replace(b"\r\n", b"\n").endswith(b"\n\n" + payload.encode())


PURPOSES = [ExtendedKeyUsageOID.SERVER_AUTH]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"days": (-3, -1)}, r"expired on \d{4}-\d\d-\d\d"),
    "not yet valid": ({"days": (2, 3)}, "is not valid before"),
    "short key": ({"kind": "rsa1024"}, "RSA key of 1024 bits; 2048 is the least"),
    "key usage": ({"usages": ["crl_sign"]}, "its key usage lacks "),
    "for servers": ({"purposes": PURPOSES}, "its extended key usage lacks emailProtection. Hint: .* S/MIME"),
}
each_wrong = pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=list(WRONG))


@each_wrong
def test_a_certificate_for_something_else_signs_nothing(issuer: Issuer, options: dict[str, Any], message: str) -> None:
    """The error names whose it is."""
    person = issuer.person("ada@example.org", **options)
    with pytest.raises(ConfigurationError, match=rf"the certificate \(ada@example.org\) .*{message}"):
        smime_sign(text(), person.pem, person.key_pem)


@each_wrong
def test_a_certificate_for_something_else_is_no_readers(
    issuer: Issuer, ada: Person, options: dict[str, Any], message: str
) -> None:
    """All are checked first, and the error names the one (PITFALLS X13)."""
    person = issuer.person("bob@example.org", **options)
    with pytest.raises(ConfigurationError, match=rf"certificate 1 \(bob@example.org\) .*{message}"):
        smime_encrypt(text(), [ada.pem, person.pem])


@pytest.mark.parametrize("usages", [None, ["content_commitment"]], ids=["none", "content_commitment"])
def test_a_certificate_may_have_no_usages(issuer: Issuer, usages: list[str] | None) -> None:
    """RFC 8550 §4.4.2: then it is for all."""
    person = issuer.person("ada@example.org", usages=usages, purposes=None)
    assert smime_sign(text(), person.certificate, person.key)["From"]  # type: ignore[arg-type]


def test_all_uses_include_mail(issuer: Issuer) -> None:
    """RFC 5280 §4.2.1.12."""
    person = issuer.person("ada@example.org", purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    assert smime_encrypt(text(), [person.pem])["From"]


@pytest.mark.parametrize(("kind", "said"), [("k256", "curve secp256k1"), ("ed25519", "neither an RSA key nor")])
def test_other_kinds_of_keys_are_refused(issuer: Issuer, kind: str, said: str) -> None:
    """Mail programs do not verify these (PITFALLS X13)."""
    person = issuer.person("ada@example.org", kind=kind)
    with pytest.raises(ConfigurationError, match=said):
        smime_sign(text(), person.pem, person.key_pem)


def test_messages_are_encrypted_for_rsa_alone(people: dict[str, Person]) -> None:
    """PITFALLS X13."""
    with pytest.raises(ConfigurationError, match=r"certificate 1 \(ada@example.org\) has no RSA key"):
        smime_encrypt(text(), [people["rsa2048"].pem, people["p256"].pem])


@pytest.mark.parametrize("field", ["From", "Sender"])
def test_the_certificate_is_the_writers(issuer: Issuer, ada: Person, field: str) -> None:
    """In any case of letters; a certificate without addresses is not checked (RFC 8550 §3)."""
    message = text()
    del message["From"]
    message["From"] = "Eve <eve@example.org>"
    with pytest.raises(ConfigurationError, match=r"is for ada@example\.org, not for 'eve@example\.org'"):
        smime_sign(message, ada.pem, ada.key_pem)
    nobody = issuer.person()
    assert smime_sign(message, nobody.pem, nobody.key_pem)["From"]
    del message[field]
    message[field] = "ADA@Example.org"
    assert smime_sign(message, ada.pem, ada.key_pem)["From"]


def test_a_certificate_has_the_domain_in_a_labels(issuer: Issuer) -> None:
    """RFC 8398 §3; From has it as people write it."""
    person = issuer.person("ada@xn--exmple-cua.org")
    message = text()
    message.replace_header("From", "Ada <ada@ex\N{LATIN SMALL LETTER A WITH DIAERESIS}mple.org>")
    assert smime_sign(message, person.pem, person.key_pem)["From"]


def test_the_key_is_that_of_the_certificate(issuer: Issuer, ada: Person) -> None:
    """An exchanged file is noticed here, not by readers."""
    with pytest.raises(ConfigurationError, match=r"not that of the certificate \(ada@example.org\)"):
        smime_sign(text(), ada.pem, issuer.person("ada@example.org", kind="p256").key_pem)


def test_certificates_come_in_every_form(issuer: Issuer, ada: Person, tmp_path: Path) -> None:
    """Text, bytes, files, in PEM and DER; further certificates in a text belong to the chain."""
    pem, der = tmp_path / "ada.pem", tmp_path / "ada.cer"
    pem.write_text(ada.pem)
    der.write_bytes(ada.certificate.public_bytes(Encoding.DER))
    key = tmp_path / "key.pem"
    key.write_text(ada.key_pem)
    key.chmod(0o600)
    both = ada.pem + issuer.certificate.public_bytes(Encoding.PEM).decode()
    for certificate in (ada.pem, ada.pem.encode(), pem, der, der.read_bytes(), ada.certificate, both):
        signed = smime_sign(text(), certificate, key, chain=[issuer.certificate])
        openssl("-verify", "-CAfile", issuer.root_file, data=signed.as_bytes())
    openssl("-verify", "-CAfile", issuer.root_file, data=smime_sign(text(), both, ada.key_pem).as_bytes())


SOURCES: dict[str, tuple[Any, str]] = {
    "a name": ("ada.pem", "the certificate is not a certificate in PEM or DER"),
    "half": ("-----BEGIN CERTIFICATE-----\nAAAA\n", "is not a certificate"),
    "a key": ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is not a certificate"),
    "no bytes": (b"", "is not a certificate"),
    "None": (None, "the certificate is a NoneType, not a certificate"),
    "a NUL": (Path("a\0b"), r"'a\\x00b' of the certificate cannot be read: there is a NUL"),
    "no file": (Path("missing.pem"), "the file 'missing.pem' of the certificate cannot be read: No such file"),
}


@pytest.mark.parametrize(("source", "said"), SOURCES.values(), ids=list(SOURCES))
def test_what_is_no_certificate_is_refused(ada: Person, source: Any, said: str) -> None:
    """With what to pass."""
    with pytest.raises(ConfigurationError, match=said):
        smime_sign(text(), source, ada.key_pem)


@pytest.mark.parametrize("is_path", [False, True], ids=["its name", "a path"])
def test_a_path_is_advised_only_where_none_is(ada: Person, tmp_path: Path, *, is_path: bool) -> None:
    """To certificate and key."""
    file = tmp_path / "ada.p12"
    file.write_bytes(b"x")
    source = file if is_path else file.name
    for certificate, key in ((source, ada.key_pem), (ada.pem, source)):
        with pytest.raises(ConfigurationError) as caught:
            smime_sign(text(), certificate, key)
        assert ("pass a pathlib.Path" in str(caught.value.hint)) != is_path


def test_without_its_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, ada: Person) -> None:
    """Before anything is read."""
    monkeypatch.setitem(sys.modules, "cryptography.x509", None)
    with pytest.raises(ConfigurationError, match="needs the package cryptography") as caught:
        smime_encrypt(text(), [ada.pem])
    assert "securesmtp[sign]" in str(caught.value.hint)


@pytest.mark.parametrize("certificates", ["ada.pem", b"x", 3, None, Path("ada.pem")], ids=repr)
def test_certificates_are_a_list(ada: Person, certificates: Any) -> None:
    """One is not."""
    with pytest.raises(ConfigurationError, match="certificates is not a list"):
        smime_encrypt(text(), certificates)
    with pytest.raises(ConfigurationError, match="chain is not a list"):
        smime_sign(text(), ada.pem, ada.key_pem, chain=certificates)


MISPLACED: dict[str, Callable[[str, Any], object]] = {
    "exchanged": lambda pem, key: smime_sign(text(), key, pem),
    "in the chain": lambda pem, key: smime_sign(text(), pem, "", chain=[key]),
    "as the chain": lambda pem, key: smime_sign(text(), pem, "", chain=key),
    "a reader's": lambda _, key: smime_encrypt(text(), [key]),
    "all readers": lambda _, key: smime_encrypt(text(), key),
}


@pytest.mark.parametrize("form", ["text", "bytes", "file", "beside a broken certificate"])
@pytest.mark.parametrize("case", MISPLACED)
def test_a_key_in_the_place_of_a_certificate_is_not_shown(ada: Person, tmp_path: Path, case: str, form: str) -> None:
    """Files in PEM often have both."""
    path = tmp_path / "key.pem"
    path.write_text(ada.key_pem)
    broken = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    forms = {"text": ada.key_pem, "bytes": ada.key_pem.encode(), "file": path}
    with pytest.raises(ConfigurationError) as caught:
        MISPLACED[case](ada.pem, forms.get(form, ada.key_pem + broken))
    assert ada.key_pem.splitlines()[3] not in shown(caught.value)


OF_RSA, OF_NOTHING = bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06092a864886f70d01017f")
HOSTILE: dict[str, tuple[bytes, bytes, str]] = {
    "a key of an unknown kind": (OF_RSA, OF_NOTHING, "a public key that cannot be read"),
    "a key that is none": (
        b"\x03\x82\x01\x0f\x00\x30",
        b"\x03\x82\x01\x0f\x00\x31",
        "a public key that cannot be read",
    ),
    "a version that is none": (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", "is not a certificate in PEM or DER"),
    "a name that is not UTF-8": (b"\x0c\x06Nobody", b"\x0c\x06\xffobody", r"\(with the number [0-9a-f]+\) expired"),
    "a name that is a bit string": (b"\x0c\x06Nobody", b"\x03\x06Nobody", r"\(with the number [0-9a-f]+\) expired"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_certificate_is_refused(issuer: Issuer, ada: Person, case: str) -> None:
    """Whatever it breaks: readers' certificates come from strangers."""
    before, after, said = HOSTILE[case]
    days = (-5, -2) if "name" in case else (-1, 30)
    good = issuer.person(days=days).certificate.public_bytes(Encoding.DER)
    assert before in good
    broken = good.replace(before, after)
    with pytest.raises(ConfigurationError, match=said):
        smime_encrypt(text(), [broken])
    with pytest.raises(ConfigurationError, match=said):
        smime_sign(text(), broken, ada.key_pem)


def test_there_is_a_reader() -> None:
    """Nobody could read it."""
    with pytest.raises(ConfigurationError, match="certificates is empty"):
        smime_encrypt(text(), [])


@pytest.mark.parametrize("field", ["Bcc", "Resent-Bcc"])
def test_bcc_is_not_encrypted(ada: Person, field: str) -> None:
    """The others would see that there are more readers."""
    message = text()
    message[field] = "eve@example.org"
    with pytest.raises(MessageError, match=f"the message has {field}"):
        smime_encrypt(message, [ada.pem])


def with_dkim() -> EmailMessage:
    """Return a message that is signed otherwise."""
    message = text()
    message["DKIM-Signature"] = "v=1; a=rsa-sha256; d=example.org; s=a; h=from; bh=x; b=x"
    return message


def with_eight_bit_message() -> EmailMessage:
    """Return one whose attached message cannot be encoded (RFC 2046 §5.2.1)."""
    message = text()
    message.add_attachment(text("ü\n", cte="8bit"))
    return message


IMPOSSIBLE: dict[str, tuple[Any, str]] = {
    "DKIM": (with_dkim(), "has a DKIM-Signature"),
    "an attached message": (with_eight_bit_message(), "bytes that are not ASCII"),
    "bytes": (b"From: ada@example.org\n\n", "message is a bytes"),
}


@pytest.mark.parametrize(("message", "said"), IMPOSSIBLE.values(), ids=list(IMPOSSIBLE))
def test_a_message_that_would_change_is_refused(ada: Person, message: Any, said: str) -> None:
    """Before anything is signed or encrypted."""
    with pytest.raises(MessageError, match=said):
        smime_sign(message, ada.pem, ada.key_pem)
    with pytest.raises(MessageError, match=said):
        smime_encrypt(message, [ada.pem])


def test_an_extension_that_cannot_be_read_is_named(issuer: Issuer) -> None:
    """Certificates come from elsewhere."""
    with pytest.raises(ConfigurationError, match="has extensions that cannot be read"):
        smime_encrypt(text(), [issuer.with_broken_extension()])


BAD_KEYS: dict[str, Callable[[str], str]] = {
    "cut": lambda pem: pem[: len(pem) // 2],
    "without its last line": lambda pem: pem.rpartition("-----END")[0],
    "in disorder": lambda pem: "\n".join([*pem.split("\n")[:3], *pem.split("\n")[4:]]),
}


@pytest.mark.parametrize("change", BAD_KEYS.values(), ids=list(BAD_KEYS))
def test_no_error_shows_the_key(ada: Person, change: Callable[[str], str]) -> None:
    """Neither in its text nor in the locals of a frame of the library."""
    broken = change(ada.key_pem)
    with pytest.raises(SecureSMTPError) as caught:
        smime_sign(text(), ada.pem, broken)
    lines = [line for line in broken.split("\n") if len(line) > 20 and "-----" not in line]
    assert lines
    assert not [line for line in lines if line in shown(caught.value)]
