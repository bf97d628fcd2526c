"""
OAUTHBEARER (RFC 7628) and the older XOAUTH2: both send an OAuth 2 access token, which is safe only inside TLS.

A server may refuse by a challenge that has an error in JSON. It sends the final reply only when the client has answered
that challenge, each mechanism in its own way.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, ClassVar

from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from securesmtp._protocol.sasl.mechanism import Credentials, Proof
    from securesmtp._secret import Secret

# RFC 6750 §2.1. So a token has neither blanks nor controls, which would add fields to the messages below.
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
# With a username of this many bytes, each of which may need three, it fits into one line of 12288 (RFC 4954 §4).
_MAX_TOKEN, MAX_USERNAME = 8192, 320


def validated_token(token: Secret) -> Secret:
    """
    Return *token* if it is an access token.

    Raises:
        ConfigurationError: It is of a wrong type, too long, or has characters that no token has (RFC 6750 §2.1).
    """
    kind = type(token.reveal())
    if kind is not str:
        message = f"the token is a {kind.__name__}, not a str or a Secret"
        raise ConfigurationError(message, stage=Stage.AUTH)
    if token.reveal()[:7].casefold() == "bearer ":
        message = 'the token begins with "Bearer "'
        raise ConfigurationError(message, stage=Stage.AUTH, hint="return the access token alone")
    if len(token.reveal()) > _MAX_TOKEN or _TOKEN.fullmatch(token.reveal()) is None:
        message = f"the token must have 1 to {_MAX_TOKEN} characters: letters, digits and -._~+/, with = at the end"
        raise ConfigurationError(message, stage=Stage.AUTH, hint="return the access token alone, without a line end")
    return token


def is_valid_username(text: object) -> bool:
    """Return whether *text* can be sent together with a token: a control character would end the username there."""
    if not isinstance(text, str) or not text or re.search("[\0-\x1f\x7f\ud800-\udfff]", text):
        return False
    return len(text.encode()) <= MAX_USERNAME


def fingerprint(token: Secret, key: bytes) -> bytes:
    """Return a hash of *token* by which it can be recognised, but not found out without *key*."""
    return hmac.digest(key, token.reveal().encode(), "sha256")


class _Bearer:
    """What both mechanisms share: one message from the client, and one answer to the server's error."""

    proof: ClassVar[Proof] = "token"
    needs_binding: ClassVar[bool] = False
    hint: ClassVar[str] = (
        "check that the token is for this mailbox and has the scope for SMTP that the provider documents"
    )
    has_failed: bool = False
    _ANSWER_TO_ERROR: ClassVar[bytes]

    def __init__(self, credentials: Credentials) -> None:
        """Log in with *credentials*."""
        self._username = credentials.username
        self._token = credentials.secret

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The token."""
        return (self._token.reveal().encode(),)

    def respond(self, _challenge: bytes | None, /) -> bytes | None:
        """Return the answer to the server's error, once, whatever that contains: some servers send no valid JSON."""
        if self.has_failed:
            return None
        self.has_failed = True
        return self._ANSWER_TO_ERROR

    def finish(self) -> None:
        """Do nothing: the server proves nothing."""


class XOAuth2(_Bearer):
    """XOAUTH2, as Google and Microsoft document it."""

    name: ClassVar[str] = "XOAUTH2"
    _ANSWER_TO_ERROR = b""

    def start(self) -> bytes:
        """Return the initial response."""
        return f"user={self._username}\1auth=Bearer {self._token.reveal()}\1\1".encode()


class OAuthBearer(_Bearer):
    """OAUTHBEARER, without the host and port of RFC 7628 §3.1: they are optional, and some servers cannot read them."""

    name: ClassVar[str] = "OAUTHBEARER"
    # RFC 7628 §3.2.3.
    _ANSWER_TO_ERROR = b"\1"

    def start(self) -> bytes:
        """Return the initial response."""
        # RFC 5801 §4: how a GS2 header escapes these two.
        name = self._username.replace("=", "=3D").replace(",", "=2C")
        return f"n,a={name},\1auth=Bearer {self._token.reveal()}\1\1".encode()
