"""PLAIN (RFC 4616) and the older LOGIN. Both send the password itself, which is safe only inside TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from securesmtp._protocol.sasl.mechanism import Credentials, Proof


class _Simple:
    """What PLAIN and LOGIN have in common: the server proves nothing."""

    proof: ClassVar[Proof] = "password"
    needs_binding: ClassVar[bool] = False
    hint: ClassVar[str] = "check the username and password; some providers require an app password"
    has_failed: bool = False

    def __init__(self, credentials: Credentials) -> None:
        """Log in with *credentials*."""
        self._username = credentials.username
        self._password = credentials.secret

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The password; the username is not secret, and many replies contain it."""
        return (self._password.reveal().encode(),)

    def finish(self) -> None:
        """Do nothing."""


class Plain(_Simple):
    """PLAIN: one message from the client, in unprepared UTF-8 (RFC 4616 §2 has the server prepare it)."""

    name: ClassVar[str] = "PLAIN"
    _has_responded = False

    def start(self) -> bytes:
        """Return the initial response."""
        return f"\0{self._username}\0{self._password.reveal()}".encode()

    def respond(self, _challenge: bytes | None, /) -> bytes | None:
        """Return the initial response again, once, for a server that ignores it in AUTH."""
        if self._has_responded:
            return None
        self._has_responded = True
        return self.start()


class Login(_Simple):
    """LOGIN: the server asks for the username and then for the password. How it words that varies, so it is ignored."""

    name: ClassVar[str] = "LOGIN"
    _username_sent = _password_sent = False

    def start(self) -> None:
        """Return None, because the server sends the first challenge."""

    def respond(self, _challenge: bytes | None, /) -> bytes | None:
        """Return the username, then the password, then None."""
        if not self._username_sent:
            self._username_sent = True
            return self._username.encode()
        if not self._password_sent:
            self._password_sent = True
            return self._password.reveal().encode()
        return None
