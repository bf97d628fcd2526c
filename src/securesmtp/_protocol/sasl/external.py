"""EXTERNAL (RFC 4422 appendix A): the client's certificate, which the TLS handshake has proved, says who logs in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from securesmtp._protocol.sasl.mechanism import Credentials, Proof


class ExternalMechanism:
    """EXTERNAL: one message from the client, the identity to act as; empty for that of the certificate."""

    name: ClassVar[str] = "EXTERNAL"
    proof: ClassVar[Proof] = "certificate"
    needs_binding: ClassVar[bool] = False
    hint: ClassVar[str] = "the server may not know the client certificate, or not let it act as this identity"
    has_failed: bool = False
    _has_responded = False

    def __init__(self, credentials: Credentials) -> None:
        """Act as the username of *credentials*."""
        self._identity = credentials.username.encode()

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """Nothing: an identity is not secret."""
        return ()

    def start(self) -> bytes:
        """Return the identity, which may be empty."""
        return self._identity

    def respond(self, _challenge: bytes | None, /) -> bytes | None:
        """Return the identity again, once, for a server that ignores it in AUTH."""
        if self._has_responded:
            return None
        self._has_responded = True
        return self._identity

    def finish(self) -> None:
        """Do nothing: the TLS handshake has authenticated the server."""
