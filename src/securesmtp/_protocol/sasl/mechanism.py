"""What a SASL mechanism is (RFC 4422), and what it gets to log in with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from securesmtp._secret import Secret

# What a mechanism proves that the client has. A certificate was proved in the TLS handshake already.
Proof: TypeAlias = Literal["password", "token", "certificate"]


@dataclass(frozen=True, slots=True)
class ChannelBinding:
    """
    What both sides of one TLS session know, and nobody else has in another session (RFC 5056).

    Attributes:
        kind: Its name, such as ``"tls-unique"`` (RFC 5929) or ``"tls-exporter"`` (RFC 9266).
        data: The bytes. They are no secret, but identify the session.
    """

    kind: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    What an exchange may use.

    Attributes:
        username: Who logs in; for EXTERNAL, who to act as, which may be empty.
        secret: The password or token; empty if there is none.
        binding: The channel binding of the connection; None if there is none that both sides would compute alike.
        is_binding_offered: Whether the server offers any mechanism that uses a channel binding.
    """

    username: str
    secret: Secret
    binding: ChannelBinding | None = None
    is_binding_offered: bool = False


class Mechanism(Protocol):
    """
    The client's side of one SASL exchange.

    Whatever it raises closes the connection, so nothing more is written after a fault. Its attributes are in the frames
    of a traceback: it keeps a secret as a `Secret`.

    Attributes:
        name: As in the server's AUTH keyword.
        proof: Which kind of login can use it.
        needs_binding: Whether it is usable only on a connection that has a channel binding.
        hint: What to do if the server refuses the login.
        has_failed: Whether the challenge that it has answered last says that the login is refused. The error then shows
            that challenge.
    """

    name: ClassVar[str]
    proof: ClassVar[Proof]
    needs_binding: ClassVar[bool]
    hint: ClassVar[str]
    has_failed: bool

    def __init__(self, credentials: Credentials) -> None:
        """Begin an exchange with *credentials*."""

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What must not be shown if a reply repeats it."""

    def start(self) -> bytes | None:
        """
        Return the initial response, or None if the server sends the first challenge.

        Raises:
            ConfigurationError: The mechanism cannot use these credentials.
        """

    def respond(self, challenge: bytes | None, /) -> bytes | None:
        """
        Return the response to *challenge* (None: it is not base64), or None if there is no response to it.

        Raises:
            SecureSMTPError: The challenge is not what this server has to send now.
        """

    def finish(self) -> None:
        """
        Do nothing if the exchange is complete: the server accepted the login.

        Raises:
            ServerNotAuthenticError: The server has not proved what the mechanism has it prove.
        """
