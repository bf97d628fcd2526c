"""How to log in: one value for each kind of proof, which a mailer takes as *auth*."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from securesmtp._protocol.sasl.oauth import MAX_USERNAME, is_valid_username, validated_token
from securesmtp._protocol.sasl.registry import RANKED
from securesmtp._protocol.sasl.scram import can_prepare
from securesmtp._protocol.sasl.sources import as_secret, is_valid_credential, validated
from securesmtp._secret import Secret
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from securesmtp._protocol.sasl.mechanism import Proof
    from securesmtp._protocol.sasl.sources import AsyncPasswordSource, PasswordFunction


@dataclass(frozen=True, slots=True, init=False)
class Password:
    """
    Log in with a username and a password.

    Attributes:
        username: As the server knows it.
        password: A `Secret`, or a callable that returns a str or a `Secret`. It is called for each login, after TLS was
            verified: in the thread of `SecureMailer.send` if that has no deadline, otherwise in one of its own, which
            is abandoned when the deadline expires. For `AsyncSecureMailer` alone, it may be a coroutine function.
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
        object.__setattr__(self, "password", password if callable(password) else validated(password))
        if not is_valid_credential(username):
            message = "the username must be a str of 1 to 4096 bytes without NUL"
            raise ConfigurationError(message)
        check_mechanisms(names, "password")
        only_scram = names is not None and all(name.startswith("SCRAM-") for name in names)
        if only_scram and isinstance(self.password, Secret) and not can_prepare(username, self.password):
            message = "SCRAM cannot use these: SASLprep (RFC 4013) does not allow a character of username or password"
            raise ConfigurationError(message)


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


@dataclass(frozen=True, slots=True, init=False)
class OAuth2:
    """
    Log in with an OAuth 2 access token.

    The mailer fetches a token for its first login, after TLS was verified, and uses it for all its connections. When
    the server refuses the token, the mailer fetches another one and tries once more; it never sends a refused token
    again. It does not look into a token, nor at a clock.

    The two callables are called in a thread of the mailer, and a send waits for them no longer than its deadline. Give
    the requests that they make a time limit of their own. For `AsyncSecureMailer` alone, they may be coroutine
    functions.

    Attributes:
        username: The mailbox that sends, as the server knows it: mostly its full address.
        token: A `Secret`, or a callable that returns a token. It may return the same one until *on_refused* is called.
        mechanisms: The SASL mechanisms that may be used, best first; None for XOAUTH2 and OAUTHBEARER.
        on_refused: Called before *token* when the server has refused the last token. A library that keeps tokens must
            forget it then.
    """

    username: str
    token: Secret | PasswordFunction = field(repr=False)
    mechanisms: tuple[str, ...] | None = None
    on_refused: Callable[[], object] | None = None

    def __init__(
        self,
        username: str,
        token: AsyncPasswordSource,
        mechanisms: Iterable[str] | None = None,
        *,
        on_refused: Callable[[], object] | None = None,
    ) -> None:
        """
        Check what can be checked before the network is used, and hide the token.

        Raises:
            ConfigurationError: Empty, with a control character, of the wrong type, or an unknown mechanism.
        """
        # First of all, so that no frame of a traceback holds the string.
        token = as_secret(token)
        iterable = isinstance(mechanisms, Iterable)
        names = None if mechanisms is None else tuple(mechanisms) if iterable else ()
        object.__setattr__(self, "username", username)
        # Before any check fails, because a traceback may show this object.
        object.__setattr__(self, "mechanisms", names)
        object.__setattr__(self, "on_refused", on_refused)
        object.__setattr__(self, "token", token if callable(token) else validated_token(token))
        if not is_valid_username(username):
            message = f"the username must be a str of 1 to {MAX_USERNAME} bytes without control characters"
            raise ConfigurationError(message)
        if on_refused is not None and not callable(on_refused):
            message = f"on_refused is a {type(on_refused).__name__}, which cannot be called"
            raise ConfigurationError(message)
        check_mechanisms(names, "token")


# What a mailer takes as *auth*.
Auth: TypeAlias = Password | OAuth2 | External


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
        case OAuth2():
            return login.mechanisms or _ranked("token")
        case External():
            return _ranked("certificate")
        case _:  # never
            assert_never(login)


def identity(login: Auth) -> str:
    """Return who logs in with *login*, or whom it acts as."""
    return login.identity if isinstance(login, External) else login.username


def secret_source(login: Auth) -> Secret | PasswordFunction | None:
    """Return where the secret of *login* comes from, or None if it has none."""
    match login:
        case Password():
            return login.password
        case OAuth2():
            return login.token
        case External():
            return None
        case _:  # never
            assert_never(login)


def with_secret_source(login: Auth, source: Callable[[], Any]) -> Auth:
    """Return *login* with its password from *source* instead; one without a password stays as it is."""
    return replace(login, password=source) if isinstance(login, Password) else login


def known_secrets(login: Auth | None) -> tuple[bytes, ...]:
    """Return the secret of *login*, unless a callable returns it: then it is not known before the login."""
    source = None if login is None else secret_source(login)
    return (source.reveal().encode(),) if isinstance(source, Secret) else ()


def _ranked(proof: Proof) -> tuple[str, ...]:
    return tuple(name for name, mechanism in RANKED.items() if mechanism.proof == proof)
