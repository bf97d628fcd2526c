"""The only type that holds a password or a token, and the base of what fetches one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NoReturn, final


@final
class Secret:
    """
    A string that is never shown in ``repr``, ``str``, logs or tracebacks, and cannot be pickled.

    Two secrets are equal only if they are the same object, so a comparison reveals nothing about their content.

    Args:
        value: The password or token.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Wrap *value*."""
        self._value = value

    def reveal(self) -> str:
        """Return the password or token as a plain string."""
        return self._value

    def __repr__(self) -> str:
        """Return the same text for every secret."""
        return "Secret(<redacted>)"

    def __reduce__(self) -> NoReturn:
        """
        Refuse to be pickled, and so to be copied or sent to another process.

        Raises:
            TypeError: Always.
        """
        message = "a Secret cannot be pickled: pass a callable that fetches the password where it is needed"
        raise TypeError(message)


class SecretSource(ABC):
    """
    Fetches a secret when it is called. The sources in `securesmtp.credentials` are of this class.

    Their errors are raised as they are: other than those of a callable of the caller's, they are never about another
    message.
    """

    __slots__ = ()

    @abstractmethod
    def __call__(self) -> Secret:
        """Return the secret as it is now."""
