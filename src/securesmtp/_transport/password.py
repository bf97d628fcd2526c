"""Call password callables, each in a thread of its own if the send has a deadline: nothing else can interrupt one."""

from __future__ import annotations

import threading
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from securesmtp._protocol.sasl import as_secret
from securesmtp._values import Stage
from securesmtp.errors import AuthenticationError, ConfigurationError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securesmtp._secret import Secret
    from securesmtp._transport.deadline import Deadline
    from securesmtp._transport.slot import Lease

_WAITING = "waiting for the password callable"


class PasswordCalls:
    """The calls of one mailer's password callables."""

    def __init__(self, most: int) -> None:
        """Run at most *most* calls at a time, so that a callable which hangs does not use up threads."""
        self._running = threading.BoundedSemaphore(most)

    def fetch(self, source: Callable[[], str | Secret], deadline: Deadline | None, leases: Sequence[Lease]) -> Secret:
        """
        Return the password that *source* returns before *deadline*; a later one is dropped.

        If *source* itself sends messages, those sends count as inside the ones that hold *leases*.

        Raises:
            DeadlineExceededError: It returned none in time.
        """
        if deadline is None:
            return _call(source)
        results: SimpleQueue[Secret | BaseException] = SimpleQueue()

        def run() -> None:
            thread = threading.get_ident()
            for lease in leases:
                lease.threads.add(thread)
            try:
                results.put(_call(source))
            except BaseException as error:  # noqa: BLE001 -- raised in the thread that waits
                results.put(error)
            finally:
                for lease in leases:
                    lease.threads.discard(thread)
                self._running.release()

        # `left` raises once there is no time left.
        while not self._running.acquire(timeout=deadline.left(Stage.AUTH, _WAITING)):
            continue
        thread = threading.Thread(target=copy_context().run, args=(run,), name="password callable", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # No thread can be started, for example while the interpreter shuts down.
            self._running.release()
            return _call(source)
        result = None
        while result is None:
            with suppress(Empty):
                result = results.get(timeout=deadline.left(Stage.AUTH, _WAITING))
        if isinstance(result, BaseException):
            raise result
        return result


def _call(source: Callable[[], str | Secret]) -> Secret:
    try:
        # If it returns a callable, the caller refuses that.
        return as_secret(source())
    except SecureSMTPError as error:
        # It may describe another message, which was perhaps sent; the message of this send was not.
        message = f"the password callable raised {type(error).__name__}: {error.args[0]}"
        kind = ConfigurationError if isinstance(error, ConfigurationError) else AuthenticationError
        raise kind(message, stage=Stage.AUTH, retryable=error.retryable, hint=error.hint) from error
