"""The only place where a TLS context is made, and where a certificate is judged: one page to audit."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from securesmtp._shown import escape, quote
from securesmtp._transport.tls_records import RecordLayer
from securesmtp._values import Certificate, CertificateReason, Stage, TLSInfo
from securesmtp.errors import CertificateError, ConfigurationError, DowngradeError, TLSError, WrongTLSModeError

if TYPE_CHECKING:
    import socket

    from securesmtp._settings import Settings, TLSPolicy

# Forward secrecy and AEAD only (RFC 9325 §4.2); level 2 refuses RSA below 2048 bits and SHA-1 wherever OpenSSL is from.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
# The same for TLS 1.3, where every suite has forward secrecy.
_SUITES = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
# OpenSSL's SSL_OP_NO_EXTENDED_MASTER_SECRET, _LEGACY_SERVER_CONNECT, _ALLOW_UNSAFE_LEGACY_RENEGOTIATION and
# _IGNORE_UNEXPECTED_EOF, which an OPENSSL_CONF can set (measured) and Python names on some versions only.
_UNSAFE = 0x1 | 0x4 | 0x40000 | 0x80

# `_ssl.ENCODING_DER`.
_DER = 2

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
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
# What `ssl.SSLSocket.getpeercert` returns of a certificate.
_Shown: TypeAlias = dict[str, Any]
# How far up a chain is looked for a message: real ones have three or four certificates.
_MAX_PATH = 8
_AEAD = re.compile("GCM|CHACHA20")
# Not RECORD_LAYER_FAILURE: OpenSSL 3.6 says it of any broken record, and of text still the first of these (measured).
_PLAINTEXT = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}


def build_context(policy: TLSPolicy) -> ssl.SSLContext:
    """
    Return the one context of a mailer.

    Raises:
        ConfigurationError: A file of *policy* cannot be read, or is not what it should be.
    """
    # Not create_default_context: it obeys SSL_CERT_FILE and SSLKEYLOGFILE, and differs between Pythons (measured, 2.9).
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[
        policy.minimum_version
    ]
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.set_ciphers(_CIPHERS)
    # Since Python 3.15. Before, an OPENSSL_CONF can take these away, and `verified` refuses what it puts in place.
    getattr(context, "set_ciphersuites", lambda _: None)(_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    # "Protocol = -TLSv1.3" in an OPENSSL_CONF is an option, which the versions above leave as it is.
    context.options &= ~(_UNSAFE | ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3)
    context.hostname_checks_common_name = False
    # Set, not added to: 3.13 would otherwise take an intermediate for a root, and 3.11 not check strictly.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    if not policy.allow_legacy_ca:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    _load(context, policy)
    return context


def trust_name(policy: TLSPolicy) -> str:
    """Return whose roots *policy* trusts, for the receipt."""
    base = f"ca_file {escape(str(policy.ca_file))}" if policy.ca_file is not None else "ca_data"
    if policy.ca_file is None and policy.ca_data is None:
        import certifi

        base = f"certifi {certifi.__version__}"
    return base if policy.extra_ca_file is None else f"{base} + extra_ca_file {escape(str(policy.extra_ca_file))}"


def wrap(context: ssl.SSLContext, sock: socket.socket, server_name: str) -> RecordLayer:
    """Return TLS over *sock*, for a handshake that will verify *server_name*; the caller drives it within its limit."""
    # A context is mutable: what it was when it was made proves nothing now.
    _demand(context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname, "the context does not verify")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return RecordLayer(sock, context.wrap_bio(incoming, outgoing, server_hostname=server_name), incoming, outgoing)


def verified(tls: ssl.SSLObject, settings: Settings) -> TLSInfo:
    """
    Return the evidence of a finished handshake, after the pins were checked.

    Raises:
        CertificateError: The key is none of the pinned ones.
        TLSError: The session is not what was asked for.
    """
    # A resumed session skips the checks of chain and name (measured, 2.11).
    _demand(not tls.session_reused, "the session was resumed")
    version, cipher = tls.version(), tls.cipher()
    try:
        der, named, chain = tls.getpeercert(binary_form=True), tls.getpeercert(), _verified_chain(tls)
    except ValueError:
        # A name in it that is not ASCII: whoever signed it did not look.
        message = "the certificate cannot be read"
        raise CertificateError(message, stage=Stage.HANDSHAKE, hint="the server needs a new one") from None
    _demand(version in {"TLSv1.2", "TLSv1.3"} and bool(cipher and der and named), "there is no verified certificate")
    _demand(cipher and _AEAD.search(cipher[0]), "the session has a cipher suite that was not asked for")
    assert version and cipher and der and named  # noqa: S101, PT018 -- demanded above; this is for the type checker
    spki = "sha256/" + base64.b64encode(hashlib.sha256(public_key(der)).digest()).decode("ascii")
    pins = settings.policy.pins
    if pins is not None and spki not in pins:
        error = CertificateError(
            f"the certificate is valid, and its key {spki} is none of the pinned ones",
            stage=Stage.HANDSHAKE,
            hint="if the server's key was changed on purpose, pin the new one",
        )
        error.reason = CertificateReason.PIN
        raise error
    return TLSInfo(
        settings.mode,
        version,
        cipher[0],
        settings.server_name,
        trust_name(settings.policy),
        hashlib.sha256(der).hexdigest(),
        spki,
        _time(named["notAfter"]),
        chain,
    )


def _verified_chain(tls: ssl.SSLObject) -> tuple[Certificate, ...]:
    # Public since 3.13, as octets that nothing in the standard library reads; what stands behind it is there on all.
    found = getattr(getattr(tls, "_sslobj", None), "get_verified_chain", lambda: None)()
    return tuple(_certificate(each.get_info(), each.public_bytes(_DER)) for each in found or ())


def _certificate(shown: dict[str, Any], der: bytes) -> Certificate:
    subject, issuer = (_common_name(shown.get(which, ())) for which in ("subject", "issuer"))
    names = tuple(escape(str(name)) for _, name in shown.get("subjectAltName", ()))
    begins, ends = _time(shown["notBefore"]), _time(shown["notAfter"])
    return Certificate(subject, issuer, names, begins, ends, hashlib.sha256(der).hexdigest())


def _common_name(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    attributes = [pair for part in name for pair in part]
    found = [value for key, value in attributes if key == "commonName"] + [value for _, value in attributes]
    # Whoever made the certificate chose it.
    return escape(found[0]) if found else ""


def _time(text: object) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(text)), UTC)


def handshake_error(error: ssl.SSLError, tls: ssl.SSLObject, settings: Settings) -> TLSError:
    """Return our error for a failed handshake, with what a person can do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_error(error, tls, settings)
    if error.reason in _PLAINTEXT:
        if settings.mode == "implicit":
            message = "the server speaks plaintext on this port"
            hint = 'use tls="starttls" (usually port 587), or the port of implicit TLS (usually 465)'
            return WrongTLSModeError(message, stage=Stage.HANDSHAKE, hint=hint)
        message = "the server, or somebody in between, goes on in plaintext after the 220 to STARTTLS"
        return DowngradeError(message, stage=Stage.HANDSHAKE)
    message = f"the TLS handshake failed: {error.reason or error.args[-1]}"
    hint = "the server must offer TLS 1.2 or 1.3 with ECDHE and AES-GCM or ChaCha20; or does it want a client_cert?"
    return TLSError(message, stage=Stage.HANDSHAKE, hint=hint)


def public_key(certificate: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a DER certificate (RFC 5280 §4.1): the octets that a pin hashes."""
    outer, _ = _content(certificate, 0)
    start, end = _content(certificate, outer)
    # version [0] may be left out; then serialNumber, signature, issuer, validity, subject.
    skip = 6 if certificate[start] == 0xA0 else 5  # noqa: PLR2004 -- the tag of [0]
    for _ in range(skip):
        _, start = _content(certificate, start)
    _, end = _content(certificate, start)
    return certificate[start:end]


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the element at *at* begins and ends (X.690 §8.1)."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        length, start = int.from_bytes(der[start : start + octets], "big"), start + octets
    return start, start + length


def _load(context: ssl.SSLContext, policy: TLSPolicy) -> None:
    # Imported where it is needed: 3 ms, most of them to find one file.
    import certifi

    try:
        if policy.ca_data is not None:
            context.load_verify_locations(cadata=policy.ca_data)
        else:
            context.load_verify_locations(cafile=policy.ca_file if policy.ca_file is not None else certifi.where())
    except (OSError, ValueError, TypeError) as error:
        _unreadable("ca_data" if policy.ca_data is not None else _named("ca_file", policy.ca_file), error)
    if not context.cert_store_stats()["x509"]:
        message = "there is no certificate in what you trust"
        raise ConfigurationError(message, hint="pass the certificate of the CA that signed the server's")
    if policy.extra_ca_file is not None:
        try:
            context.load_verify_locations(cafile=policy.extra_ca_file)
        except (OSError, ValueError, TypeError) as error:
            _unreadable(_named("extra_ca_file", policy.extra_ca_file), error)
    if policy.client_cert is not None:
        try:
            # Without a callback OpenSSL would ask for the key's password at the terminal.
            context.load_cert_chain(policy.client_cert, policy.client_key, password=_encrypted)
        except (OSError, ValueError, TypeError) as error:
            _unreadable(_named("client_cert", policy.client_cert), error)


def _encrypted() -> NoReturn:
    message = "the client key is encrypted"
    raise ConfigurationError(message, hint="pass a key file without a password, readable by this process only")


def _unreadable(what: str, error: Exception) -> NoReturn:
    hint = "it must be a readable file in PEM form"
    if what == "ca_data":
        hint = "PEM must be a str, so decode bytes: data.decode(); DER must be bytes; a path goes into ca_file"
    elif "-BEGIN " in what:
        hint = "that is the text of a certificate or key and no path: pass a path, or a CA as TLSPolicy(ca_data=...)"
    message = f"{what} cannot be used: {error}"
    raise ConfigurationError(message, hint=hint) from error


def _named(argument: str, path: object) -> str:
    return f"{argument} {quote(str(path))}"


def _demand(held: object, otherwise: str) -> None:
    if not held:
        raise TLSError(otherwise, stage=Stage.HANDSHAKE)


def _certificate_error(error: ssl.SSLCertVerificationError, tls: ssl.SSLObject, settings: Settings) -> CertificateError:
    code = error.verify_code
    reason = CertificateReason.STRICT if code in _STRICT else _REASONS.get(code, CertificateReason.OTHER)
    path, trusted = _path(tls)
    shown = path[0] if path else {}
    said = {
        CertificateReason.UNTRUSTED: "the certificate is signed by nobody whom you trust",
        CertificateReason.SELF_SIGNED: "the certificate, or the root of its chain, signed itself",
        CertificateReason.EXPIRED: "the certificate, or one above it, expired",
        CertificateReason.NOT_YET_VALID: "the time of the certificate, or of one above it, has not begun",
        CertificateReason.NAME_MISMATCH: f"the certificate is not for {settings.server_name}, but for {_names(shown)}",
        CertificateReason.PURPOSE: "the certificate may not be used by a server",
        CertificateReason.WEAK_KEY: "a key or signature in the certificate's chain is too weak",
        CertificateReason.STRICT: "the certificate's chain breaks RFC 5280",
    }.get(reason, "the certificate is refused")
    hint = {
        CertificateReason.UNTRUSTED: "pass the CA that signed it as ca_file; the server must send its intermediates",
        CertificateReason.SELF_SIGNED: "pass the CA that signed it as ca_file",
        CertificateReason.EXPIRED: "the server needs a new certificate; or is your clock wrong?",
        CertificateReason.NOT_YET_VALID: "is your clock wrong, or the server's?",
        CertificateReason.NAME_MISMATCH: "use one of those names as host if you mean that server",
        CertificateReason.PURPOSE: "the server needs a certificate with serverAuth among its extended key usages",
        CertificateReason.WEAK_KEY: "the server needs a key of RSA 2048 bits, P-256 or better, signed with SHA-256",
        CertificateReason.STRICT: "make the private CA anew with what is missing, or pass allow_legacy_ca=True",
    }.get(reason)
    if reason in {CertificateReason.EXPIRED, CertificateReason.NOT_YET_VALID}:
        said, hint = _out_of_time(path, said, hint)
    elif reason in {CertificateReason.UNTRUSTED, CertificateReason.SELF_SIGNED}:
        said, hint = _without_root(path[1:], trusted, settings.policy, said, hint)
    elif reason is CertificateReason.NAME_MISMATCH and ("DNS", settings.server_name) in shown.get("subjectAltName", ()):
        said = f"the certificate has {settings.server_name} as a DNS name, not as an IP address"
        hint = "the server needs a certificate with that IP address in subjectAltName"
    mapped = CertificateError(f"{said} (OpenSSL: {error.verify_message})", stage=Stage.HANDSHAKE, hint=hint)
    mapped.reason = reason
    return mapped


def _out_of_time(path: list[_Shown], said: str, hint: str | None) -> tuple[str, str | None]:
    """Return which certificate is out of its time, and since or until when; *said* and *hint* where it is not seen."""
    now = datetime.now(UTC)
    for each in path:
        late = _time(each["notAfter"]) < now
        if late or _time(each["notBefore"]) > now:
            when = f"expired on {each['notAfter']}" if late else f"begins on {each['notBefore']}"
            if each is path[0]:
                return f"the certificate {when}", hint
            kind = "root" if each["subject"] == each["issuer"] else "intermediate"
            said = f"the {kind} certificate {_called(each, 'subject')} {when}"
            return said, "whoever runs the server or the CA must replace it; or is your clock wrong?"
    return said, hint


def _without_root(
    above: list[_Shown], trusted: list[_Shown], policy: TLSPolicy, said: str, hint: str | None
) -> tuple[str, str | None]:
    """Return that an intermediate certificate alone is trusted; *said* and *hint* where it is something else."""
    for each in above:
        if each in trusted and each["subject"] != each["issuer"]:
            given = [name for name in ("ca_file", "ca_data", "extra_ca_file") if getattr(policy, name) is not None]
            held, root = " and ".join(given), _called(each, "issuer")
            said = f"{held} has the intermediate certificate {_called(each, 'subject')} but not {root}, which signed it"
            return said, f"add the root certificate above it to {held}"
    return said, hint


def _called(certificate: _Shown, which: str) -> str:
    attributes = dict(pair for part in certificate[which] for pair in part)
    # Quoted by repr: whoever made the certificate chose these octets.
    return repr(attributes.get("commonName", ", ".join(attributes.values()))[:100])


def _path(tls: ssl.SSLObject) -> tuple[list[_Shown], list[_Shown]]:
    """Return the server's certificate and those above it, by their names, as far as they are known; and the trusted."""
    # For the message only. After a failed handshake no public call gives the chain on 3.11 and 3.12.
    # Whoever made the certificates chose their octets: what cannot be decoded is not shown.
    with suppress(ValueError, OSError):
        sent = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", lambda: None)()
        shown, trusted = [each.get_info() for each in sent or ()], tls.context.get_ca_certs()
        path = shown[:1]
        # As OpenSSL looks for them: among the trusted first.
        for _ in range(_MAX_PATH):
            path += [each for each in (*trusted, *shown) if each not in path and _is_issuer(each, path)][:1]
        return path, trusted
    return [], []


def _is_issuer(issuer: _Shown, path: list[_Shown]) -> bool:
    return bool(path) and issuer.get("subject") == path[-1].get("issuer")


def _names(shown: dict[str, Any]) -> str:
    # Whoever made the certificate chose these octets.
    names = [escape(str(name), 100) for _, name in shown.get("subjectAltName", ())[:10]]
    return ", ".join(f"'{name}'" for name in names) or "no name at all"
