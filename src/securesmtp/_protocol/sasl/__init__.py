"""
Who logs in and how: credentials, and the ranked registry of mechanisms.

A mechanism takes and gives octets and knows nothing of base64, lines or replies; `dialogue.authenticate` does the rest.
Secrets are revealed in this package only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, cast

from securesmtp._protocol.sasl.simple import Login, Plain
from securesmtp._secret import Secret
from securesmtp._shown import escape
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError, NoUsableMechanismError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Name and password in one AUTH PLAIN line stay below the 12288 octets of RFC 4954 §4.
_MOST_OCTETS = 4096
PasswordSource: TypeAlias = str | Secret | Callable[[], str | Secret]


class Mechanism(Protocol):
    """One SASL exchange from the client's side (RFC 4422)."""

    name: ClassVar[str]

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What stands in its messages that no reply is to be seen to repeat."""

    def start(self) -> bytes | None:
        """Return the initial response, or None where the server speaks first."""

    def respond(self, challenge: bytes | None) -> bytes | None:
        """Return the answer to *challenge*, which is None where it is not base64, or None: there is nothing to say."""


# Strongest first. Both give the server the password itself, so PLAIN is first because it is one round trip.
RANKED: dict[str, type[Plain | Login]] = {mechanism.name: mechanism for mechanism in (Plain, Login)}


@dataclass(frozen=True, slots=True, init=False)
class Password:
    """
    Log in with a name and a password.

    Attributes:
        username: As the server knows it.
        password: A `Secret`, or a callable that is asked at each login, after TLS was verified; where the send has a
            deadline, in a thread of its own that is not waited for any longer.
        mechanisms: The SASL mechanisms that may be used, best first; None for all that the library has.
    """

    username: str
    password: Secret | Callable[[], str | Secret] = field(repr=False)
    mechanisms: tuple[str, ...] | None = None

    def __init__(self, username: str, password: PasswordSource, mechanisms: Iterable[str] | None = None) -> None:
        """
        Check what can be checked before the network, and hide the password.

        Raises:
            ConfigurationError: Empty, with a NUL (RFC 4616 §2), of the wrong type, or an unknown mechanism.
        """
        # First of all, so that no frame of a traceback holds the string.
        password = hidden(password)
        iterable = isinstance(mechanisms, Iterable)
        names = None if mechanisms is None else tuple(mechanisms) if iterable else ()
        object.__setattr__(self, "username", username)
        # Before anything is refused: a traceback may show it.
        object.__setattr__(self, "mechanisms", names)
        object.__setattr__(self, "password", password if callable(password) else _checked(password))
        if not _usable(username):
            message = "the username must be a str of 1 to 4096 octets without NUL"
            raise ConfigurationError(message)
        if names is not None and not (names and all(name in tuple(RANKED) for name in names)):
            message = f"mechanisms may name {', '.join(RANKED)}, and must name one"
            raise ConfigurationError(message)


def choose(login: Password, offered: Sequence[str]) -> Mechanism:
    """
    Return the first mechanism that *login* allows and the server *offered*, with the password fetched.

    Raises:
        NoUsableMechanismError: There is none; the password was not fetched.
        ConfigurationError: The callable gave something that is not a password.
    """
    name = mechanism(login, offered)
    if name is None:
        message = f"the server offers {_listed(offered)}, and only {_listed(_allowed(login))} may be used"
        raise NoUsableMechanismError(message, stage=Stage.AUTH)
    return RANKED[name](login.username, _fetched(login.password))


def mechanism(login: Password, offered: Sequence[str]) -> str | None:
    """Return the name of the first mechanism that *login* allows and the server *offered*, or None for none."""
    return next((name for name in _allowed(login) if name in offered), None)


def _allowed(login: Password) -> tuple[str, ...]:
    return login.mechanisms or tuple(RANKED)


def _fetched(source: Secret | Callable[[], str | Secret]) -> Secret:
    return _checked(hidden(source()) if callable(source) else source)


def hidden(password: PasswordSource) -> Secret | Callable[[], str | Secret]:
    """Return *password* as a `Secret`, of whatever wrong type it may be, unless it is one or a callable."""
    return password if isinstance(password, Secret) or callable(password) else Secret(password)


def _checked(password: Secret | Callable[[], str | Secret]) -> Secret:
    # A callable that returns a callable is not asked again.
    kind = type(cast("object", password.reveal())) if isinstance(password, Secret) else type(password)
    if not isinstance(password, Secret) or kind is not str:
        message = f"the password is a {kind.__name__}, not a str, a Secret or a callable that returns one"
        raise ConfigurationError(message, stage=Stage.AUTH)
    if not _usable(password.reveal()):
        message = "the password must be a str of 1 to 4096 octets without NUL"
        raise ConfigurationError(message, stage=Stage.AUTH)
    return password


def _usable(text: object) -> bool:
    # A lone surrogate would raise a UnicodeEncodeError that carries the password (measured: smtplib's does).
    if not isinstance(text, str) or not text or re.search("[\0\ud800-\udfff]", text):
        return False
    return len(text.encode()) <= _MOST_OCTETS


def _listed(names: Sequence[str]) -> str:
    return escape(", ".join(names), 200) if names else "no mechanism"
