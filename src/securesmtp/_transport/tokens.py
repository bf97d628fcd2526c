"""
The access token of one mailer: fetched once for all its connections, and kept until the server refuses it.

How it works: a send that needs a token joins the fetch that is under way, or begins one. A fetch belongs to the mailer:
a send that stops waiting, at its deadline or by an interrupt, takes nothing from the others, and a token that comes
late is used by the next login. An error is raised in the sends that wait now, and then forgotten. A token that the
server refused is never sent again: before the next fetch *on_refused* is called, so that a library with a cache of its
own does not return the same one.

Nothing here waits, so that threads (`token_threads`) and tasks (`token_tasks`) share it.
"""

from __future__ import annotations

from secrets import token_bytes
from typing import TYPE_CHECKING, Any

from securesmtp._protocol.sasl import fingerprint, validated_token
from securesmtp._secret import Secret
from securesmtp._values import Stage
from securesmtp.errors import AuthenticationError, ConfigurationError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from securesmtp._protocol.sasl import OAuth2
    from securesmtp._transport.slot import Lease
    from securesmtp._values import Reply

WAITING = "waiting for the token callable"
# How many refused tokens are remembered: more than a source can still have.
_REMEMBERED = 16


class Fetch:
    """
    One fetch of a token, and who waits for it. Each step is atomic, so that an interrupt leaves nothing locked.

    Attributes:
        result: The token, or the error of a fetch that failed; None while it is under way.
    """

    def __init__(self) -> None:
        """Begin with nobody who waits."""
        self.result: Secret | SecureSMTPError | None = None
        self._runners: dict[None, object] = {}
        self._waiters: list[Callable[[], object]] = []
        self._leases: list[Lease] = []

    @property
    def has_begun(self) -> bool:
        """Whether a thread or task calls the caller's functions."""
        return bool(self._runners)

    def begin(self, runner: object) -> bool:
        """Return whether the thread or task *runner* is to call the caller's functions: only one does."""
        if self._runners.setdefault(None, runner) != runner:
            return False
        for lease in tuple(self._leases):
            lease.holders.add(runner)
        return True

    def join(self, waiter: object, leases: Iterable[Lease], notify: Callable[[], object]) -> None:
        """
        Have *notify* called, from any thread, when there is a result; perhaps twice.

        Sends that the caller's functions begin count as inside the ones that hold *leases*.

        Raises:
            ConfigurationError: The thread or task *waiter* runs the fetch itself.
        """
        if self._runners.get(None) == waiter:
            message = "the token callable sends through the mailer that needs the token"
            raise ConfigurationError(message, stage=Stage.AUTH, hint="give it a mailer of its own")
        # In this order, so that neither the runner nor the result can come in between.
        self._leases += leases
        # A list, not a tuple: made of a dict's values, only a list is made in one step without the interpreter's lock.
        for runner in list(self._runners.values()):
            for lease in leases:
                lease.holders.add(runner)
        self._waiters.append(notify)
        if self.result is not None:
            notify()

    def finish(self, result: Secret | SecureSMTPError) -> None:
        """Set the *result*, and notify all who wait."""
        self.result = result
        for lease in tuple(self._leases):
            lease.holders.difference_update(self._runners.values())
        for notify in tuple(self._waiters):
            notify()

    def token(self) -> Secret:
        """
        Return the token.

        Raises:
            SecureSMTPError: The fetch failed; each send gets an error of its own.
        """
        result = self.result
        if isinstance(result, Secret):
            return result
        if result is None:
            message = "the fetch is under way"
            raise RuntimeError(message)
        error = type(result)(result.args[0], stage=Stage.AUTH, retryable=result.retryable, hint=result.hint)
        raise error from result.__cause__


class Tokens:
    """Which token one mailer logs in with."""

    def __init__(self, login: OAuth2) -> None:
        """Begin without a token."""
        self._login = login
        self._current: Secret | None = None
        # How the server refused each token. Of the tokens only hashes are kept.
        self._refusals: dict[bytes, tuple[str, Reply | None]] = {}
        self._key = token_bytes(32)
        # The fetch that is under way, if there is one.
        self._fetches: dict[None, Fetch] = {}

    @property
    def usable(self) -> Secret | None:
        """The token to log in with, or None if one must be fetched."""
        token = self._current
        return None if token is None or self._hash(token) in self._refusals else token

    @property
    def is_fetching(self) -> bool:
        """Whether a fetch is under way."""
        return bool(self._fetches)

    def fetch(self) -> Fetch:
        """Return the fetch that is under way, or a new one."""
        return self._fetches.setdefault(None, Fetch())

    def steps(self) -> Generator[Callable[[], object], Any, Secret | SecureSMTPError]:
        """
        Fetch a token: yield each function of the caller's that is to be called, and take what it returns.

        Return the token, or the error if the result is none.
        """
        # Another fetch may have ended after the look at `usable` and before this one began.
        if (usable := self.usable) is not None:
            return usable
        source, on_refused = self._login.token, self._login.on_refused
        if isinstance(source, Secret):
            return source
        if self._current is not None and on_refused is not None:
            yield on_refused
        return _checked((yield source))

    def finish(self, fetch: Fetch, result: Secret | SecureSMTPError) -> None:
        """Keep the *result* of *fetch* if it is a token, and give it to all who wait."""
        if isinstance(result, Secret):
            self._current = result
        self._fetches.pop(None, None)
        fetch.finish(result)

    def refuse(self, token: Secret, refusal: AuthenticationError) -> None:
        """Note that the server refused *token*."""
        self._refusals[self._hash(token)] = refusal.args[0], refusal.reply
        for oldest in list(self._refusals)[:-_REMEMBERED]:
            self._refusals.pop(oldest, None)

    def forget(self) -> None:
        """Have the next login fetch a token, although the server has not refused the last one."""
        self._current = None

    def refusal_of(self, token: Secret) -> AuthenticationError | None:
        """Return the error for a login with *token* if the server has refused it before."""
        found = self._refusals.get(self._hash(token))
        if found is None:
            return None
        text, reply = found
        message = f"no login was attempted: the token is one that the server has refused: {text}"
        return AuthenticationError(message, stage=Stage.AUTH, reply=reply, hint=self.renewal_hint)

    @property
    def refused(self) -> frozenset[bytes]:
        """The hashes of the tokens that the server has refused."""
        return frozenset(self._refusals)

    def is_among(self, token: Secret, refused: frozenset[bytes]) -> bool:
        """Return whether *token* is one of those."""
        return self._hash(token) in refused

    @property
    def renewal_hint(self) -> str:
        """What to do if there is no other token."""
        if isinstance(self._login.token, Secret):
            return "pass a callable as token, which returns a new one"
        if self._login.on_refused is None:
            return "pass on_refused, which has the token callable return another token"
        return "on_refused must have the token callable return another token"

    def _hash(self, token: Secret) -> bytes:
        return fingerprint(token, self._key)


def _checked(value: str | Secret) -> Secret | SecureSMTPError:
    # At once a `Secret`, so that no frame of a traceback holds the string. It may be of a wrong type.
    secret = value if isinstance(value, Secret) else Secret(value)
    del value
    try:
        return validated_token(secret)
    except ConfigurationError as error:
        return error


def error_of(raised: BaseException) -> SecureSMTPError:
    """Return our error for what a function of the caller's *raised*; the message of this send was not sent."""
    name, cause = type(raised).__name__, raised
    if isinstance(raised, SecureSMTPError):
        # It may describe another message, which was perhaps sent.
        kind = ConfigurationError if isinstance(raised, ConfigurationError) else AuthenticationError
        message = f"the token callable raised {name}: {raised.args[0]}"
        error: SecureSMTPError = kind(message, stage=Stage.AUTH, retryable=raised.retryable, hint=raised.hint)
    else:
        # Its text is not shown, because it may contain a secret. A later try may succeed: mostly it is the network.
        message = f"the token callable raised {name}"
        error = AuthenticationError(message, stage=Stage.AUTH, retryable=True, hint="its __cause__ says why")
    error.__cause__ = cause
    return error
