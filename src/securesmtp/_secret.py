"""The one type that holds a password or a token."""

from __future__ import annotations

from typing import NoReturn, final


@final
class Secret:
    """
    A string that does not show itself: not in ``repr``, ``str``, logs, tracebacks or pickles.

    Two secrets are equal only when they are the same object, so that a comparison tells nothing about the content.

    Args:
        value: The password or token.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Keep *value* out of sight."""
        self._value = value

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def __repr__(self) -> str:
        """Return the same text for every secret."""
        return "Secret(<redacted>)"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied into another process."""
        message = "a Secret is not pickled: pass a callable that fetches the password where it is needed"
        raise TypeError(message)
