"""How to log in: one value for each kind of proof, which a mailer takes as *auth*."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias, assert_never

from securesmtp._protocol.sasl.registry import RANKED
from securesmtp._protocol.sasl.sources import as_secret, is_valid_credential, validated
from securesmtp._secret import Secret
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from securesmtp._protocol.sasl.mechanism import Proof
    from securesmtp._protocol.sasl.sources import PasswordSource


@dataclass(frozen=True, slots=True, init=False)
class Password:
    """
    Log in with a username and a password.

    Attributes:
        username: As the server knows it.
        password: A `Secret`, or a callable that returns one. It is called for each login, after TLS was verified; if
            the send has a deadline, in a thread of its own, which is abandoned when the deadline expires.
        mechanisms: The SASL mechanisms that may be used, best first; None for all that the library has.
    """

    username: str
    password: Secret | Callable[[], str | Secret] = field(repr=False)
    mechanisms: tuple[str, ...] | None = None

    def __init__(self, username: str, password: PasswordSource, mechanisms: Iterable[str] | None = None) -> None:
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
        object.__setattr__(self, "password", password if callable(password) else validated(password))
        if not is_valid_credential(username):
            message = "the username must be a str of 1 to 4096 bytes without NUL"
            raise ConfigurationError(message)
        check_mechanisms(names, "password")


@dataclass(frozen=True, slots=True)
class External:
    """
    Log in with the client certificate of the mailer's `TLSPolicy`: SASL EXTERNAL.

    Attributes:
        identity: Who to act as; empty for whoever the certificate names.
    """

    identity: str = ""

    def __post_init__(self) -> None:
        """Refuse an identity that cannot be sent."""
        if self.identity != "" and not is_valid_credential(self.identity):
            message = "the identity must be a str of at most 4096 bytes without NUL"
            raise ConfigurationError(message)


# What a mailer takes as *auth*.
Auth: TypeAlias = Password | External


def check_mechanisms(names: tuple[str, ...] | None, proof: Proof) -> None:
    """
    Check the *mechanisms* of a login.

    Raises:
        ConfigurationError: They are none at all, or one of them is no mechanism for this kind of *proof*.
    """
    known = _ranked(proof)
    if names is not None and not (names and all(name in known for name in names)):
        message = f"mechanisms must name at least one of {', '.join(known)}, and nothing else"
        raise ConfigurationError(message)


def allowed_mechanisms(login: Auth) -> tuple[str, ...]:
    """Return the mechanisms that *login* may use, best first."""
    match login:
        case Password():
            return login.mechanisms or _ranked("password")
        case External():
            return _ranked("certificate")
        case _:  # never
            assert_never(login)


def identity(login: Auth) -> str:
    """Return who logs in with *login*, or whom it acts as."""
    return login.identity if isinstance(login, External) else login.username


def secret_source(login: Auth) -> Secret | Callable[[], str | Secret] | None:
    """Return where the secret of *login* comes from, or None if it has none."""
    return None if isinstance(login, External) else login.password


def with_secret_source(login: Auth, source: Callable[[], str | Secret]) -> Auth:
    """Return *login* with its secret from *source* instead; one without a secret stays as it is."""
    return login if isinstance(login, External) else replace(login, password=source)


def known_secrets(login: Auth | None) -> tuple[bytes, ...]:
    """Return the secret of *login*, unless a callable returns it: then it is not known before the login."""
    source = None if login is None else secret_source(login)
    return (source.reveal().encode(),) if isinstance(source, Secret) else ()


def _ranked(proof: Proof) -> tuple[str, ...]:
    return tuple(name for name, mechanism in RANKED.items() if mechanism.proof == proof)
