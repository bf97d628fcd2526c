"""
Login credentials, and the ranked registry of SASL mechanisms.

A mechanism takes and returns bytes. It knows nothing of base64, command lines or replies: `dialogue.authenticate`
handles those. Secrets are revealed only in this package.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, overload

from securesmtp._protocol.sasl.simple import Login, Plain
from securesmtp._secret import Secret
from securesmtp._shown import escape
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError, NoUsableMechanismError

if TYPE_CHECKING:
    from collections.abc import Sequence

# A username and a password of this many bytes fit into one AUTH PLAIN line of 12288 (RFC 4954 §4).
_MAX_BYTES = 4096
PasswordSource: TypeAlias = str | Secret | Callable[[], str | Secret]
PasswordFunction: TypeAlias = Callable[[], str | Secret] | Callable[[], Awaitable[str | Secret]]
AsyncPasswordSource: TypeAlias = str | Secret | PasswordFunction


class Mechanism(Protocol):
    """The client's side of one SASL exchange (RFC 4422)."""

    name: ClassVar[str]

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What its messages contain that must not be shown if a reply repeats it."""

    def start(self) -> bytes | None:
        """Return the initial response, or None if the server sends the first challenge."""

    def respond(self, challenge: bytes | None, /) -> bytes | None:
        """Return the response to *challenge* (None: it is not base64), or None if there is no response to it."""


# Strongest first. Both send the password itself; PLAIN is first because it needs one round trip.
RANKED: dict[str, type[Plain | Login]] = {mechanism.name: mechanism for mechanism in (Plain, Login)}


@dataclass(frozen=True, slots=True, init=False)
class Password:
    """
    Log in with a username and a password.

    Attributes:
        username: As the server knows it.
        password: A `Secret`, or a callable that returns one. It is called for each login, after TLS was verified; if
            the send has a deadline, in a thread of its own, which is abandoned when the deadline expires. For
            `AsyncSecureMailer` alone, it may be a coroutine function.
        mechanisms: The SASL mechanisms that may be used, best first; None for all that the library has.
    """

    username: str
    password: Secret | PasswordFunction = field(repr=False)
    mechanisms: tuple[str, ...] | None = None

    def __init__(self, username: str, password: AsyncPasswordSource, mechanisms: Iterable[str] | None = None) -> None:
        """
        Check what can be checked before the network is used, and hide the password.

        Raises:
            ConfigurationError: Empty, with a NUL (RFC 4616 §2), of the wrong type, or an unknown mechanism.
        """
        # First of all, so that no frame of a traceback holds the string.
        password = as_secret(password)
        iterable = isinstance(mechanisms, Iterable)
        names = None if mechanisms is None else tuple(mechanisms) if iterable else ()
        object.__setattr__(self, "username", username)
        # Before any check fails, because a traceback may show this object.
        object.__setattr__(self, "mechanisms", names)
        object.__setattr__(self, "password", password if callable(password) else _validated(password))
        if not _is_valid_credential(username):
            message = "the username must be a str of 1 to 4096 bytes without NUL"
            raise ConfigurationError(message)
        if names is not None and not (names and all(name in tuple(RANKED) for name in names)):
            message = f"mechanisms must name at least one of {', '.join(RANKED)}, and nothing else"
            raise ConfigurationError(message)


def known_secrets(login: Password | None) -> tuple[bytes, ...]:
    """Return the password of *login*, unless a callable returns it: then it is not known before the login."""
    return (login.password.reveal().encode(),) if login and isinstance(login.password, Secret) else ()


def pick_mechanism(login: Password, offered: Sequence[str]) -> str | None:
    """Return the name of the first mechanism that *login* allows and the server *offered*, or None."""
    return next((name for name in _allowed(login) if name in offered), None)


def require_mechanism(login: Password, offered: Sequence[str]) -> str:
    """
    Return the name of the first mechanism that *login* allows and the server *offered*.

    Raises:
        NoUsableMechanismError: There is none.
    """
    name = pick_mechanism(login, offered)
    if name is None:
        message = f"the server offers {_listed(offered)}, but only {_listed(_allowed(login))} may be used"
        raise NoUsableMechanismError(message, stage=Stage.AUTH)
    return name


def start_mechanism(name: str, username: str, password: Secret) -> Mechanism:
    """Return a new exchange of the mechanism *name*."""
    return RANKED[name](username, password)


def _allowed(login: Password) -> tuple[str, ...]:
    return login.mechanisms or tuple(RANKED)


def resolve_password(source: Secret | Callable[[], Any]) -> Secret:
    """
    Return the password that *source* is or returns.

    Raises:
        ConfigurationError: A callable returned something that is not a password.
    """
    return _validated(as_secret(source()) if callable(source) else source)


@overload
def as_secret(password: str | Secret) -> Secret: ...
@overload
def as_secret(password: PasswordSource) -> Secret | Callable[[], str | Secret]: ...
@overload
def as_secret(password: AsyncPasswordSource) -> Secret | PasswordFunction: ...
def as_secret(password: AsyncPasswordSource) -> Secret | PasswordFunction:
    """Return *password* as a `Secret`, even if it is of a wrong type, unless it is one already or a callable."""
    return password if isinstance(password, Secret) or callable(password) else Secret(password)


def _validated(password: Secret | Callable[[], Any]) -> Secret:
    # A callable that a callable returned is not called. A Secret may hold a value of a wrong type.
    kind = _type_of(password.reveal() if isinstance(password, Secret) else password)
    if not isinstance(password, Secret) or kind is not str:
        message = f"the password is a {kind.__name__}, not a str, a Secret or a callable that returns one"
        raise ConfigurationError(message, stage=Stage.AUTH)
    if not _is_valid_credential(password.reveal()):
        message = "the password must be a str of 1 to 4096 bytes without NUL"
        raise ConfigurationError(message, stage=Stage.AUTH)
    return password


def _type_of(value: object) -> type:
    # In a function of its own, so that no frame that may raise holds the password.
    return type(value)


def _is_valid_credential(text: object) -> bool:
    # A lone surrogate would raise a UnicodeEncodeError that shows the password (measured: smtplib's does).
    if not isinstance(text, str) or not text or re.search("[\0\ud800-\udfff]", text):
        return False
    return len(text.encode()) <= _MAX_BYTES


def _listed(names: Sequence[str]) -> str:
    return escape(", ".join(names), 200) if names else "no mechanism"
