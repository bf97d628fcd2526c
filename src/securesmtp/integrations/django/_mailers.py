"""The mailers of the process: one for each different set of arguments, shared by all threads."""

from __future__ import annotations

import atexit
import os
import secrets
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from securesmtp import SecureMailer

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

# More are a mistake, or customers with a login each: a mailer holds a TLS context and up to *max_connections* sockets.
_MOST = 32
# Seconds that the end of the process waits for sends in daemon threads, which the development server uses.
_EXIT_WAIT = 5.0


@dataclass(eq=False, slots=True)
class _Entry:
    mailer: SecureMailer
    users: set[object] = field(default_factory=set)


class Mailers:
    """
    Makes mailers and keeps them, the least recently used first.

    Django makes a backend for each call of ``send_mail``; the connections are kept here. The key is the arguments, so
    other settings, as tests have, are another mailer.
    """

    def __init__(self) -> None:
        """Begin with no mailer."""
        self._entries: dict[Hashable, _Entry] = {}
        self._pepper = secrets.token_bytes()
        self.renew()

    def renew(self) -> None:
        """Make a new lock: in the child of a fork, the old one may be held by a thread that does not exist there."""
        self._changed = threading.Condition()
        for entry in self._entries.values():
            entry.users.clear()

    @contextmanager
    def use(self, arguments: Mapping[str, Any]) -> Iterator[SecureMailer]:
        """
        Lend the mailer of these *arguments*, which is not closed meanwhile.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        key = self._key(arguments)
        with self._changed:
            entry = self._entries.pop(key, None) or _Entry(SecureMailer(**arguments))
            self._entries[key] = entry
            user = object()
            entry.users.add(user)
        try:
            yield entry.mailer
        finally:
            with self._changed:
                # Not there any more in the child of a fork.
                entry.users.discard(user)
                self._changed.notify_all()
                surplus = self._take_surplus()
            for mailer in surplus:
                mailer.close()

    def close(self, wait: float = _EXIT_WAIT) -> None:
        """Close all mailers; after *wait* seconds, end the sends that still run."""
        with self._changed:
            is_idle = self._changed.wait_for(lambda: not any(entry.users for entry in self._entries.values()), wait)
            entries, self._entries = self._entries, {}
        for entry in entries.values():
            entry.mailer.close(abort=not is_idle)

    def _take_surplus(self) -> list[SecureMailer]:
        unused = [key for key, entry in self._entries.items() if not entry.users]
        return [self._entries.pop(key).mailer for key in unused[: max(0, len(self._entries) - _MOST)]]

    def _key(self, arguments: Mapping[str, Any]) -> Hashable:
        """Return what is equal for equal *arguments*; of a password it has a digest."""
        password = arguments.get("password")
        if isinstance(password, str):
            digest = blake2b(password.encode(errors="surrogatepass"), key=self._pepper).digest()
            arguments = {**arguments, "password": digest}
        return frozenset((name, _hashable(value)) for name, value in arguments.items())


def close_mailers() -> None:
    """
    Close the connections of the process; a later send makes new ones.

    The end of the process does this. Call it yourself where a process ends without ``atexit``, as the workers of Celery
    do. It waits up to five seconds for messages that are being sent, then ends their connections.
    """
    MAILERS.close()


def _hashable(value: object) -> object:
    try:
        hash(value)
    except TypeError:
        # A mailer keeps its callables, so no other object gets this number meanwhile; it refuses lists.
        return id(value)
    return value


# Django has no object that lives as long as the process, and its backends live as long as one call.
MAILERS = Mailers()
atexit.register(close_mailers)
with suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(after_in_child=MAILERS.renew)
