"""Fetch the token of a mailer in a thread of the mailer; the sends wait for it, each with a deadline of its own."""

from __future__ import annotations

import threading
from contextlib import suppress
from contextvars import copy_context
from functools import partial as bind
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from securesmtp._interrupts import raise_if_interrupt
from securesmtp._transport.steps import HelperThread
from securesmtp._transport.tokens import WAITING, error_of
from securesmtp._values import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesmtp._secret import Secret
    from securesmtp._transport.deadline import Deadline
    from securesmtp._transport.slot import Lease
    from securesmtp._transport.tokens import Fetch, Tokens
    from securesmtp.errors import SecureSMTPError

# How often a thread looks whether the fetch that it waits for has begun, in seconds: an interrupt may have struck the
# thread that was to begin it.
_POLL_INTERVAL = 0.2


def fetch_token(tokens: Tokens, deadline: Deadline | None, leases: Sequence[Lease]) -> Secret:
    """
    Return the mailer's token; if it has none, fetch it or wait for the fetch that is under way.

    Sends that the caller's functions begin count as inside the ones that hold *leases*.

    Raises:
        DeadlineExceededError: There was none in time. The fetch goes on, for later sends.
    """
    if (usable := tokens.usable) is not None:
        return usable
    fetch, ready = tokens.fetch(), SimpleQueue[None]()
    fetch.join(threading.get_ident(), leases, bind(ready.put, None))
    while fetch.result is None:
        left = _POLL_INTERVAL if deadline is None else deadline.left(Stage.AUTH, WAITING)
        if not fetch.has_begun and not _start(tokens, fetch):
            raised = _run(tokens, fetch)
            if raised is not None:
                raise_if_interrupt(raised)
        with suppress(Empty):
            ready.get(timeout=min(left, _POLL_INTERVAL))
    return fetch.token()


def _start(tokens: Tokens, fetch: Fetch) -> bool:
    """Begin *fetch* in a thread; return False if none can be started, for example while the interpreter shuts down."""
    run = bind(copy_context().run, _run, tokens, fetch)
    try:
        HelperThread(target=run, name="token callable", daemon=True).start()
    except RuntimeError as error:
        raise_if_interrupt(error)
        return False
    return True


def _run(tokens: Tokens, fetch: Fetch) -> BaseException | None:
    """Call the caller's functions in this thread, unless another one does; return what one of them raised."""
    if not fetch.begin(threading.get_ident()):
        return None
    result: Secret | SecureSMTPError
    raised: BaseException | None = None
    try:
        result = _call_all(tokens)
    except BaseException as error:  # noqa: BLE001 -- raised in the threads that wait
        raised, result = error, error_of(error)
    tokens.finish(fetch, result)
    return raised


def _call_all(tokens: Tokens) -> Secret | SecureSMTPError:
    steps = tokens.steps()
    try:
        function = next(steps)
        while True:
            function = steps.send(function())
    except StopIteration as stop:
        result: Secret | SecureSMTPError = stop.value
        return result
