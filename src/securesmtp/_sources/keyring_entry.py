"""A secret in the keyring of a desktop."""

from __future__ import annotations

from securesmtp._secret import Secret, SecretSource
from securesmtp._shown import quote
from securesmtp._sources.output import wrong_source
from securesmtp._tracebacks import hide_internal_frames
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.password import PasswordCalls
from securesmtp.errors import DeadlineExceededError

_UNLOCK = "unlock it, in the session of the same user"
# How many calls of one keyring may hang before later ones wait for them.
_MOST_HANGING = 4


class Entry(SecretSource):
    """An entry of the keyring, which may take any time."""

    __slots__ = ("_name", "_service", "_username")

    def __init__(self, service: str, username: str) -> None:
        """Look up the password of *username* for *service*."""
        self._service, self._username = service, username
        self._name = f"password of {quote(username, allow_at=True)} for {quote(service, allow_at=True)}"

    def __repr__(self) -> str:
        return f"<{self._name} from the keyring>"

    def __call__(self) -> Secret:
        # It belongs to an extra.
        from keyring import errors, get_password

        try:
            password = get_password(self._service, self._username)
        except errors.NoKeyringError as error:
            hint = "a service has no desktop: use from_file or from_command, or install and choose a backend of keyring"
            raise wrong_source("there is no keyring for this process", hint) from error
        except errors.KeyringError as error:
            raise wrong_source(f"the keyring cannot be read ({type(error).__name__})", _UNLOCK) from error
        if password is None:
            # Some backends return None while the keyring is locked.
            message = f"the keyring has no {self._name}, or it is locked"
            raise wrong_source(message, f"{_UNLOCK}, or add the password with: keyring set SERVICE USERNAME")
        return Secret(password)


class Keyring(SecretSource):
    """An entry of the keyring, with a limit for the time."""

    __slots__ = ("_calls", "_entry", "_timeout")

    def __init__(self, entry: Entry, timeout: float) -> None:
        self._entry, self._timeout = entry, timeout
        self._calls = PasswordCalls(_MOST_HANGING, "waiting for the keyring")

    def __repr__(self) -> str:
        return repr(self._entry)

    @hide_internal_frames
    def __call__(self) -> Secret:
        try:
            # A keyring that waits for somebody to unlock it cannot be interrupted, so it has a thread of its own.
            return self._calls.fetch(self._entry, Deadline("from_keyring", self._timeout), ())
        except DeadlineExceededError as error:
            error.hint = _UNLOCK
            raise
