"""Where a password comes from: a string, a `Secret` or a callable; and what may be one."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, overload

from securesmtp._secret import Secret
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError

# A username and a password of this many bytes fit into one AUTH PLAIN line of 12288 (RFC 4954 §4).
_MAX_BYTES = 4096
PasswordSource: TypeAlias = str | Secret | Callable[[], str | Secret]
PasswordFunction: TypeAlias = Callable[[], str | Secret] | Callable[[], Awaitable[str | Secret]]
AsyncPasswordSource: TypeAlias = str | Secret | PasswordFunction


def resolve_password(source: Secret | Callable[[], Any]) -> Secret:
    """
    Return the password that *source* is or returns.

    Raises:
        ConfigurationError: A callable returned something that is not a password.
    """
    return validated(as_secret(source()) if callable(source) else source)


@overload
def as_secret(password: str | Secret) -> Secret: ...
@overload
def as_secret(password: PasswordSource) -> Secret | Callable[[], str | Secret]: ...
@overload
def as_secret(password: AsyncPasswordSource) -> Secret | PasswordFunction: ...
def as_secret(password: AsyncPasswordSource) -> Secret | PasswordFunction:
    """Return *password* as a `Secret`, even if it is of a wrong type, unless it is one already or a callable."""
    return password if isinstance(password, Secret) or callable(password) else Secret(password)


def validated(password: Secret | Callable[[], Any]) -> Secret:
    """
    Return *password* if it is one that can be sent.

    Raises:
        ConfigurationError: It is a callable, of a wrong type, empty or too long, or has a NUL or a lone surrogate.
    """
    # A callable that a callable returned is not called. A Secret may hold a value of a wrong type.
    kind = _type_of(password.reveal() if isinstance(password, Secret) else password)
    if not isinstance(password, Secret) or kind is not str:
        message = f"the password is a {kind.__name__}, not a str, a Secret or a callable that returns one"
        raise ConfigurationError(message, stage=Stage.AUTH)
    if not is_valid_credential(password.reveal()):
        message = "the password must be a str of 1 to 4096 bytes without NUL"
        raise ConfigurationError(message, stage=Stage.AUTH)
    return password


def _type_of(value: object) -> type:
    # In a function of its own, so that no frame that may raise holds the password.
    return type(value)


def is_valid_credential(text: object) -> bool:
    """Return whether *text* can be sent as a username or a password."""
    # A lone surrogate would raise a UnicodeEncodeError that shows the password (measured: smtplib's does).
    if not isinstance(text, str) or not text or re.search("[\0\ud800-\udfff]", text):
        return False
    return len(text.encode()) <= _MAX_BYTES
