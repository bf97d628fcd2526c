"""
SCRAM (RFC 5802, RFC 7677): both sides prove that they know the password, and neither sends it.

How it works: the client sends its name and a nonce; the server answers with a longer nonce, a salt and an iteration
count; the client answers with a proof, and the server with its own. Only then is its success believed. The names with
-PLUS add the channel binding of the TLS session to the proof: somebody in between, who has two sessions, cannot pass
the proof on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from secrets import token_urlsafe
from typing import TYPE_CHECKING, ClassVar

from securesmtp._protocol.sasl.saslprep import saslprep
from securesmtp._secret import Secret
from securesmtp._values import Stage
from securesmtp.errors import (
    AuthenticationError,
    ConfigurationError,
    ProtocolError,
    SecureSMTPError,
    ServerNotAuthenticError,
)

if TYPE_CHECKING:
    from securesmtp._protocol.sasl.mechanism import Credentials, Proof

# RFC 7677 §4 asks for 4096. A million take 0.3 to 0.8 s (measured), and more would let a server keep the client busy.
_ITERATIONS = range(4096, 1_000_001)
# RFC 5802 has no limit on these; no server comes near it.
_MAX_NONCE = _MAX_SALT = 1024
_NONCE_BYTES = 24
# RFC 5802 §7. Optional extensions may follow and are ignored; those that have a meaning elsewhere, and "m", may not.
_EXTENSIONS = rb"(?:,(?![aceimnprsv]=)[A-Za-z]=[^\0,]+)*"
_SERVER_FIRST = re.compile(rb"r=([!-+\--~]+),s=([^\0,]+),i=([1-9][0-9]{0,9})" + _EXTENSIONS)
_SERVER_FINAL = re.compile(rb"v=([^\0,]+)" + _EXTENSIONS)
_SERVER_ERROR = re.compile(rb"e=([^\0,]+)" + _EXTENSIONS)
# What the server may say in its error. Other words are not shown.
_ERRORS = {
    b"invalid-encoding",
    b"extensions-not-supported",
    b"invalid-proof",
    b"channel-bindings-dont-match",
    b"server-does-support-channel-binding",
    b"channel-binding-not-provided",
    b"unsupported-channel-binding-type",
    b"unknown-user",
    b"invalid-username-encoding",
    b"no-resources",
    b"other-error",
}


class Scram:
    """The exchange that all the SCRAM mechanisms share."""

    name: ClassVar[str]
    proof: ClassVar[Proof] = "password"
    needs_binding: ClassVar[bool] = False
    hint: ClassVar[str] = (
        "check the username and password; a server may offer SCRAM and not have this password in a form for it: "
        'then pass auth=Password(..., mechanisms=["PLAIN"])'
    )
    has_failed: bool = False
    _hash: ClassVar[str]

    def __init__(self, credentials: Credentials) -> None:
        """Log in with *credentials*."""
        self._username, self._password = credentials.username, credentials.secret
        self._prepared = Secret("")
        self._nonce = token_urlsafe(_NONCE_BYTES).encode()
        self._header, self._binding = b"n,,", b""
        if self.needs_binding and credentials.binding is not None:
            self._header, self._binding = b"p=%b,," % credentials.binding.kind.encode(), credentials.binding.data
        elif credentials.binding is not None and not credentials.is_binding_offered:
            # RFC 5802 §6: we could bind, and see no offer. A server that made one refuses: somebody has removed it.
            # Never without a binding, since a server that can bind would refuse for nothing.
            self._header = b"y,,"
        self._first = b""
        self._proof = self._signature = b""
        self._is_verified = False

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The password, which the server may know although it was not sent, and the proof, which reveals a weak one."""
        return (self._password.reveal().encode(), self._prepared.reveal().encode(), self._proof)

    def start(self) -> bytes:
        """Return the client's first message: who logs in, and a nonce."""
        username, prepared = saslprep(self._username), _prepare(self._password)
        if username is None or prepared is None:
            what = "username" if username is None else "password"
            message = f"{self.name} cannot use this {what}: SASLprep (RFC 4013) does not allow one of its characters"
            hint = 'if the server accepts it nevertheless, pass auth=Password(..., mechanisms=["PLAIN", "LOGIN"])'
            raise ConfigurationError(message, stage=Stage.AUTH, hint=hint)
        self._prepared = prepared
        escaped = username.replace("=", "=3D").replace(",", "=2C")
        self._first = b"n=%b,r=%b" % (escaped.encode(), self._nonce)
        return self._header + self._first

    def respond(self, challenge: bytes | None, /) -> bytes | None:
        """Return the proof to the server's first message, nothing to its proof, and None to any more."""
        response = self._answer(challenge)
        # A traceback would show the challenge, in which a server may repeat the password.
        del challenge
        if isinstance(response, SecureSMTPError):
            raise response
        return response

    def finish(self) -> None:
        """
        Do nothing if the server has proved that it knows the password.

        Raises:
            ServerNotAuthenticError: It has not.
        """
        if not self._is_verified:
            raise _not_authentic("the server accepted the login without a proof that it knows the password")

    # These return their errors, for `respond` to raise.

    def _answer(self, challenge: bytes | None) -> bytes | SecureSMTPError | None:
        if self._is_verified:
            return None
        if challenge is None:
            return _malformed("is not base64")
        return self._verify(challenge) if self._proof else self._prove(challenge)

    def _prove(self, server_first: bytes) -> bytes | SecureSMTPError:
        match = _SERVER_FIRST.fullmatch(server_first)
        if match is None:
            return _malformed("is not its first")
        nonce, salt, iterations = match[1], _decode(match[2]), int(match[3])
        if not nonce.startswith(self._nonce) or not len(self._nonce) < len(nonce) <= _MAX_NONCE:
            return _malformed("has a nonce that does not continue ours")
        if salt is None or len(salt) > _MAX_SALT:
            return _malformed("has a salt that is not 1 to 1024 bytes of base64")
        if iterations not in _ITERATIONS:
            return _malformed(f"has an iteration count of {iterations}, not of 4096 to 1000000")
        message = b"c=%b,r=%b" % (base64.b64encode(self._header + self._binding), nonce)
        signed = b",".join((self._first, server_first, message))
        self._proof, self._signature = _proofs(self._hash, self._prepared, salt, iterations, signed)
        return message + b",p=" + self._proof

    def _verify(self, server_final: bytes) -> bytes | SecureSMTPError:
        if (error := _SERVER_ERROR.fullmatch(server_final)) is not None:
            reason = error[1].decode() if error[1] in _ERRORS else "an unknown reason"
            message = f"the server refused the login: {reason}"
            return AuthenticationError(message, stage=Stage.AUTH, hint=self.hint)
        final = _SERVER_FINAL.fullmatch(server_final)
        if final is None:
            return _malformed("is not its final one")
        if not hmac.compare_digest(_decode(final[1]) or b"", self._signature):
            return _not_authentic("the server's proof is wrong: it does not know the password")
        self._is_verified = True
        return b""


class ScramSHA1(Scram):
    """SCRAM-SHA-1. HMAC with SHA-1 is not broken, but old."""

    name: ClassVar[str] = "SCRAM-SHA-1"
    _hash: ClassVar[str] = "sha1"


class ScramSHA1Plus(ScramSHA1):
    """SCRAM-SHA-1-PLUS."""

    name: ClassVar[str] = "SCRAM-SHA-1-PLUS"
    needs_binding: ClassVar[bool] = True


class ScramSHA256(Scram):
    """SCRAM-SHA-256 (RFC 7677)."""

    name: ClassVar[str] = "SCRAM-SHA-256"
    _hash: ClassVar[str] = "sha256"


class ScramSHA256Plus(ScramSHA256):
    """SCRAM-SHA-256-PLUS."""

    name: ClassVar[str] = "SCRAM-SHA-256-PLUS"
    needs_binding: ClassVar[bool] = True


class ScramSHA512(Scram):
    """SCRAM-SHA-512 (an expired draft, which servers implement)."""

    name: ClassVar[str] = "SCRAM-SHA-512"
    _hash: ClassVar[str] = "sha512"


class ScramSHA512Plus(ScramSHA512):
    """SCRAM-SHA-512-PLUS."""

    name: ClassVar[str] = "SCRAM-SHA-512-PLUS"
    needs_binding: ClassVar[bool] = True


def can_prepare(username: str, password: Secret) -> bool:
    """Return whether SCRAM can use this *username* and *password*."""
    return saslprep(username) is not None and _prepare(password) is not None


# Frames that hold a secret raise nothing: a traceback would show it.


def _prepare(password: Secret) -> Secret | None:
    prepared = saslprep(password.reveal())
    return None if prepared is None else Secret(prepared)


def _proofs(name: str, password: Secret, salt: bytes, iterations: int, signed: bytes) -> tuple[bytes, bytes]:
    """Return the client's proof in base64, and the server's signature (RFC 5802 §3)."""
    salted = hashlib.pbkdf2_hmac(name, password.reveal().encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", name)
    client_signature = hmac.digest(hashlib.new(name, client_key).digest(), signed, name)
    proof = bytes(a ^ b for a, b in zip(client_key, client_signature, strict=True))
    return base64.b64encode(proof), hmac.digest(hmac.digest(salted, b"Server Key", name), signed, name)


def _malformed(how: str) -> SecureSMTPError:
    return ProtocolError(f"the server's SCRAM message {how}", stage=Stage.AUTH)


def _not_authentic(message: str) -> SecureSMTPError:
    hint = "somebody may be pretending to be the server"
    return ServerNotAuthenticError(message, stage=Stage.AUTH, hint=hint)


def _decode(text: bytes) -> bytes | None:
    """Return what *text* encodes; None if it is not what an encoder makes of it."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return decoded if base64.b64encode(decoded) == text else None
