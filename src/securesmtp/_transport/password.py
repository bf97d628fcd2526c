"""Call password callables, each in a thread of its own if the send has a deadline: nothing else can interrupt one."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from securesmtp._interrupts import raise_if_interrupt
from securesmtp._protocol.sasl import as_secret
from securesmtp._secret import SecretSource
from securesmtp._transport.steps import HelperThread
from securesmtp._transport.token_threads import fetch_token
from securesmtp._transport.tokens import Tokens
from securesmtp._values import Stage
from securesmtp.errors import AuthenticationError, ConfigurationError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from securesmtp._secret import Secret
    from securesmtp._transport.deadline import Deadline
    from securesmtp._transport.slot import Lease

# What a callable returned or raised.
_Result: TypeAlias = "Secret | BaseException"
WAITING = "waiting for the password callable"
# How often a send that may not call yet polls, in seconds.
_POLL_INTERVAL = 0.05


class PasswordCalls:
    """The calls of one mailer's password callables."""

    def __init__(self, most: int, doing: str = WAITING) -> None:
        """
        Run at most *most* calls at a time, so that a callable which hangs does not use up threads.

        *doing* is for the error at the end of the time.
        """
        self._most, self._doing = most, doing
        # Each call by its thread, in the order of the sends. Not a semaphore: an interrupt in one leaves its lock held
        # or its count wrong (measured, on each Python), and no later send gets a password.
        self._calls: dict[threading.Thread, None] = {}

    def fetch(self, source: Callable[[], Any] | Tokens, deadline: Deadline | None, leases: Sequence[Lease]) -> Secret:
        """
        Return the password that *source* returns before *deadline*; a later one is dropped.

        If *source* itself sends messages, those sends count as inside the ones that hold *leases*.

        Raises:
            DeadlineExceededError: It returned none in time.
        """
        if isinstance(source, Tokens):
            return fetch_token(source, deadline, leases)
        if deadline is None:
            return _call_inside(source, leases)
        results: SimpleQueue[_Result] = SimpleQueue()

        def run() -> None:
            try:
                results.put(_call_inside(source, leases))
            except BaseException as error:  # noqa: BLE001 -- raised in the thread that waits
                results.put(error)
            finally:
                self._calls.pop(thread, None)

        thread = HelperThread(target=copy_context().run, args=(run,), name="password callable", daemon=True)
        if not self._start(thread, results, deadline):
            return _call_inside(source, leases)
        result = None
        while result is None:
            with suppress(Empty):
                result = results.get(timeout=deadline.left(Stage.AUTH, self._doing))
        if isinstance(result, BaseException):
            raise result
        return result

    def _start(
        self, thread: threading.Thread, results: SimpleQueue[Secret | BaseException], deadline: Deadline
    ) -> bool:
        """Start *thread* in its turn, for its *results*; return False if no thread can be started."""
        is_started = False
        try:
            self._calls[thread] = None
            while list(self._calls).index(thread) >= self._most:
                # Nothing comes yet. `left` raises once there is no time left.
                with suppress(Empty):
                    results.get(timeout=min(_POLL_INTERVAL, deadline.left(Stage.AUTH, self._doing)))
            is_started = _start(thread)
        finally:
            if not is_started:
                self._calls.pop(thread, None)
        return is_started


def _start(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError as error:
        raise_if_interrupt(error)
        # For example while the interpreter shuts down.
        return False
    return True


def _call_inside(source: Callable[[], Any], leases: Sequence[Lease]) -> Secret:
    """Call *source* in this thread, whose sends are meanwhile inside those that hold *leases*."""
    ident = threading.get_ident()
    # The thread of a plain send has its lease already, and keeps it.
    added = [lease for lease in leases if ident not in lease.holders]
    for lease in added:
        lease.holders.add(ident)
    try:
        return _call(source)
    finally:
        for lease in added:
            lease.holders.discard(ident)


def _call(source: Callable[[], Any]) -> Secret:
    with translated_errors(source):
        # If it returns a callable, the caller refuses that.
        password: str | Secret = source()
        return as_secret(password)


@contextmanager
def translated_errors(source: Callable[[], object]) -> Iterator[None]:
    """
    Call *source* in this block.

    An error of ours that it raises says nothing of the send's message, unless it is a `SecretSource`.
    """
    try:
        yield
    except SecureSMTPError as error:
        if isinstance(source, SecretSource):
            raise
        # It may describe another message, which was perhaps sent; the message of this send was not.
        message = f"the password callable raised {type(error).__name__}: {error.args[0]}"
        kind = ConfigurationError if isinstance(error, ConfigurationError) else AuthenticationError
        raise kind(message, stage=Stage.AUTH, retryable=error.retryable, hint=error.hint) from error
