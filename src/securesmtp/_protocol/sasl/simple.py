"""PLAIN (RFC 4616) and LOGIN (its older, server-first kin): the password itself, which is why only TLS carries them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from securesmtp._secret import Secret


class Plain:
    """PLAIN: one message from the client, in raw UTF-8 (RFC 4616 §2 leaves the preparation to the server)."""

    name: ClassVar[str] = "PLAIN"

    def __init__(self, username: str, password: Secret) -> None:
        """Log in as *username*."""
        self._username = username
        self._password = password
        self._asked = False

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The password."""
        return (self._password.reveal().encode(),)

    def start(self) -> bytes:
        """Return the initial response."""
        return f"\0{self._username}\0{self._password.reveal()}".encode()

    def respond(self, challenge: bytes | None) -> bytes | None:  # noqa: ARG002 -- PLAIN has one thing to say
        """Return the same once more, for a server that does not take it together with AUTH, then None."""
        first, self._asked = not self._asked, True
        return self.start() if first else None


class Login:
    """LOGIN: the server asks for the name, then for the password, in words that differ and do not matter."""

    name: ClassVar[str] = "LOGIN"

    def __init__(self, username: str, password: Secret) -> None:
        """Log in as *username*."""
        self._username = username
        self._password = password
        self._asked = 0

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The password; the name is none, and stands in many a reply."""
        return (self._password.reveal().encode(),)

    def start(self) -> None:
        """Return None: the server speaks first."""

    def respond(self, challenge: bytes | None) -> bytes | None:  # noqa: ARG002 -- servers word it as they like
        """Return the name, then the password, then None."""
        self._asked += 1
        if self._asked == 1:
            return self._username.encode()
        return self._password.reveal().encode() if self._asked == 2 else None  # noqa: PLR2004 -- name, password
