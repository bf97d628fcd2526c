"""The only module that makes a TLS context and judges a TLS session: one page to audit."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from securesmtp._interrupts import raise_if_interrupt
from securesmtp._protocol.sasl import ChannelBinding
from securesmtp._shown import escape, quote
from securesmtp._transport.certificate import extract_public_key, parse_time, refused_certificate, verified_chain
from securesmtp._transport.system_trust import system_bundle
from securesmtp._transport.tls_records import RecordLayer
from securesmtp._values import CertificateReason, Stage, TLSInfo
from securesmtp.errors import CertificateError, ConfigurationError, DowngradeError, TLSError, WrongTLSModeError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from securesmtp._options import TLSPolicy
    from securesmtp._settings import Settings

# Forward secrecy and AEAD only (RFC 9325 §4.2). Level 2 refuses RSA below 2048 bits and SHA-1 on every OpenSSL.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
# The same for TLS 1.3, where every suite has forward secrecy.
_SUITES = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
_AEAD = re.compile("GCM|CHACHA20")
_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
# OpenSSL's SSL_OP_NO_EXTENDED_MASTER_SECRET, _LEGACY_SERVER_CONNECT, _ALLOW_UNSAFE_LEGACY_RENEGOTIATION and
# _IGNORE_UNEXPECTED_EOF, which an OPENSSL_CONF can set (measured). Not every Python has names for them.
_UNSAFE = 0x1 | 0x4 | 0x40000 | 0x80
# Not RECORD_LAYER_FAILURE: OpenSSL 3.6 reports it for any broken record, and the first of these for text (measured).
_PLAINTEXT = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}


def build_context(policy: TLSPolicy) -> ssl.SSLContext:
    """
    Return the TLS context of a mailer.

    Raises:
        ConfigurationError: A file of *policy* cannot be read or has the wrong content.
    """
    # Not create_default_context: it obeys SSL_CERT_FILE and SSLKEYLOGFILE, and differs between Pythons (measured).
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[policy.minimum_version]
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.set_ciphers(_CIPHERS)
    # Python has this from 3.15 on. Before, an OPENSSL_CONF can replace the suites, and `verify_session` refuses others.
    getattr(context, "set_ciphersuites", lambda _: None)(_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    # "Protocol = -TLSv1.3" in an OPENSSL_CONF sets an option, which the two versions above do not clear.
    context.options &= ~(_UNSAFE | ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3)
    context.hostname_checks_common_name = False
    # Assigned, not added: Python 3.13 would trust an intermediate as a root, and 3.11 would not check strictly.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    if not policy.allow_legacy_ca:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    _load_trust(context, policy)
    _load_client_certificate(context, policy)
    return context


def describe_trust(policy: TLSPolicy) -> str:
    """Return which root certificates *policy* trusts, for the receipt."""
    base = f"ca_file {escape(str(policy.ca_file))}" if policy.ca_file is not None else "ca_data"
    if policy.trust is not None:
        base = f"system {system_bundle()}"
    elif policy.ca_file is None and policy.ca_data is None:
        import certifi

        base = f"certifi {certifi.__version__}"
    return base if policy.extra_ca_file is None else f"{base} + extra_ca_file {escape(str(policy.extra_ca_file))}"


def wrap(context: ssl.SSLContext, sock: socket.socket, server_name: str) -> RecordLayer:
    """
    Return TLS over *sock*, whose handshake will verify *server_name*; the caller performs the handshake.

    Raises:
        TLSError: *context* does not verify certificates.
    """
    # A context can be changed after it was made.
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        _refuse_session("the TLS context does not verify certificates")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return RecordLayer(sock, context.wrap_bio(incoming, outgoing, server_hostname=server_name), incoming, outgoing)


def verify_session(tls: ssl.SSLObject, settings: Settings) -> TLSInfo:
    """
    Check a session after its handshake, with the pins, and return how it was verified.

    Raises:
        CertificateError: The server's key is not one of the pinned keys, or its certificate cannot be read.
        TLSError: The session does not have the properties that the context asked for.
    """
    # A resumed session skips the checks of chain and name (measured).
    if tls.session_reused:
        _refuse_session("the session was resumed")
    version, cipher = tls.version(), tls.cipher()
    try:
        der, fields, chain = tls.getpeercert(binary_form=True), tls.getpeercert(), verified_chain(tls)
    except ValueError:
        # A name in it is not ASCII, which no careful CA signs.
        message = "the certificate cannot be read"
        raise CertificateError(message, stage=Stage.HANDSHAKE, hint="the server needs a new certificate") from None
    if version not in _VERSIONS or cipher is None or not der or not fields:
        _refuse_session("the session has no verified certificate")
    if not _AEAD.search(cipher[0]):
        _refuse_session("the session has a cipher suite that was not asked for")
    spki = "sha256/" + base64.b64encode(hashlib.sha256(extract_public_key(der)).digest()).decode("ascii")
    pins = settings.policy.pins
    if pins is not None and spki not in pins:
        error = CertificateError(
            f"the certificate is valid, but its key {spki} is not one of the pinned keys",
            stage=Stage.HANDSHAKE,
            hint="if the server's key was changed on purpose, pin the new key",
        )
        error.reason = CertificateReason.PIN
        raise error
    return TLSInfo(
        settings.mode,
        version,
        cipher[0],
        settings.server_name,
        describe_trust(settings.policy),
        hashlib.sha256(der).hexdigest(),
        spki,
        parse_time(fields["notAfter"]),
        chain,
    )


def channel_binding(tls: ssl.SSLObject) -> ChannelBinding | None:
    """
    Return what binds a login to this session, so that nobody in between can pass it on (RFC 5056); None if nothing can.

    tls-server-end-point is not used: no mail server is known that takes it.
    """
    version = tls.version()
    # RFC 9266 §4.2: TLS 1.2 has it only with an extension that `ssl` does not tell of. No Python has it yet.
    if version == "TLSv1.3" and "tls-exporter" in ssl.CHANNEL_BINDING_TYPES:
        kind = "tls-exporter"
    # `ssl` returns bytes for TLS 1.3 as well (measured), where it is not defined (RFC 8446 appendix C.5).
    elif version == "TLSv1.2" and "tls-unique" in ssl.CHANNEL_BINDING_TYPES:
        kind = "tls-unique"
    else:
        return None
    data = tls.get_channel_binding(kind)
    return ChannelBinding(kind, data) if data else None


def handshake_error(error: ssl.SSLError, tls: ssl.SSLObject, settings: Settings) -> TLSError:
    """Return our error for a failed handshake, with a hint for a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return refused_certificate(error, tls, settings)
    if error.reason in _PLAINTEXT:
        if settings.mode == "implicit":
            message = "the server speaks plaintext on this port"
            hint = 'use tls="starttls" (usually port 587), or the port for implicit TLS (usually 465)'
            return WrongTLSModeError(message, stage=Stage.HANDSHAKE, hint=hint)
        message = "the server, or an attacker in between, continued in plaintext after the 220 reply to STARTTLS"
        return DowngradeError(message, stage=Stage.HANDSHAKE)
    message = f"the TLS handshake failed: {error.reason or error.args[-1]}"
    hint = "the server must offer TLS 1.2 or 1.3 with ECDHE and AES-GCM or ChaCha20; or it requires a client_cert"
    return TLSError(message, stage=Stage.HANDSHAKE, hint=hint)


def _load_trust(context: ssl.SSLContext, policy: TLSPolicy) -> None:
    # Imported here because it takes 3 ms, most of them to find one file.
    import certifi

    ca_file = policy.ca_file if policy.trust is None else system_bundle()
    source = "ca_data" if policy.ca_data is not None else _name_file("ca_file", ca_file)
    with _reading(source):
        if policy.ca_data is not None:
            context.load_verify_locations(cadata=policy.ca_data)
        else:
            context.load_verify_locations(cafile=certifi.where() if ca_file is None else ca_file)
    if not context.cert_store_stats()["x509"]:
        message = f"{source} contains no certificate"
        raise ConfigurationError(message, hint="pass the certificate of the CA that signed the server's certificate")
    if policy.extra_ca_file is not None:
        with _reading(_name_file("extra_ca_file", policy.extra_ca_file)):
            context.load_verify_locations(cafile=policy.extra_ca_file)


def _load_client_certificate(context: ssl.SSLContext, policy: TLSPolicy) -> None:
    if policy.client_cert is not None:
        with _reading(_name_file("client_cert", policy.client_cert)):
            # Without a callback, OpenSSL would ask for the key's password on the terminal.
            context.load_cert_chain(policy.client_cert, policy.client_key, password=_refuse_encrypted_key)


def _refuse_encrypted_key() -> NoReturn:
    message = "the client key is encrypted"
    raise ConfigurationError(message, hint="pass a key file without a password, readable by this process only")


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """Turn an error in reading *source* into a `ConfigurationError` that names it."""
    try:
        yield
    except ConfigurationError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise_if_interrupt(error)
        hint = "it must be a readable file in PEM form"
        if source == "ca_data":
            hint = "PEM must be a str, so decode bytes: data.decode(); DER must be bytes; a path goes into ca_file"
        elif "-BEGIN " in source:
            hint = "this is the text of a certificate or key: pass its path, or a CA's text as TLSPolicy(ca_data=...)"
        message = f"{source} cannot be used: {error}"
        raise ConfigurationError(message, hint=hint) from error


def _name_file(argument: str, path: object) -> str:
    return f"{argument} {quote(str(path))}"


def _refuse_session(reason: str) -> NoReturn:
    raise TLSError(reason, stage=Stage.HANDSHAKE)
