"""Fetch the token of a mailer in a task of the event loop; the sends wait for it, each with a deadline of its own."""

from __future__ import annotations

from functools import partial as bind
from typing import TYPE_CHECKING

import anyio

from securesmtp._transport.event_loop import current_task, is_cancellation, is_in_trio
from securesmtp._transport.tokens import WAITING, error_of
from securesmtp._transport.waiting import within
from securesmtp._values import Stage
from securesmtp.errors import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from securesmtp._secret import Secret
    from securesmtp._transport.deadline import Deadline
    from securesmtp._transport.event_loop import EventLoop
    from securesmtp._transport.slot import Lease
    from securesmtp._transport.tokens import Fetch, Tokens
    from securesmtp.errors import SecureSMTPError

    # Calls a function of the caller's, in a thread if it is no coroutine function.
    Call = Callable[[Callable[[], object]], Awaitable[object]]


async def fetch_token(
    tokens: Tokens, deadline: Deadline | None, leases: Sequence[Lease], loop: EventLoop, call: Call
) -> Secret:
    """
    Return the mailer's token; if it has none, fetch it or wait for the fetch that is under way.

    Sends that the caller's functions begin count as inside the ones that hold *leases*.

    Raises:
        DeadlineExceededError: There was none in time. The fetch goes on, for later sends.
    """
    if (usable := tokens.usable) is not None:
        return usable
    is_new, fetch, ready = not tokens.is_fetching, tokens.fetch(), anyio.Event()
    fetch.join(current_task(), leases, ready.set)
    if is_new:
        loop.spawn(bind(_run, tokens, fetch, call), "securesmtp: token callable", bind(_end, tokens, fetch))
    if deadline is None:
        await ready.wait()
    else:
        await within(bind(deadline.left, Stage.AUTH, WAITING), ready.wait)
    return fetch.token()


async def _run(tokens: Tokens, fetch: Fetch, call: Call) -> None:
    """Call the caller's functions, one after the other."""
    fetch.begin(current_task())
    try:
        result = await _call_all(tokens, call)
    except BaseException as error:
        # Trio does not survive anything else in a task of its own, and asyncio's loop passes Ctrl-C on.
        if is_cancellation(error) or (isinstance(error, KeyboardInterrupt) and not is_in_trio()):
            raise
        result = error_of(error)
    tokens.finish(fetch, result)


def _end(tokens: Tokens, fetch: Fetch) -> None:
    """Give those who wait an error if the task was cancelled: the loop ends, or the caller's function cancels it."""
    if fetch.result is None:
        message = "the fetch of the token was cancelled"
        tokens.finish(fetch, AuthenticationError(message, stage=Stage.AUTH, retryable=True))


async def _call_all(tokens: Tokens, call: Call) -> Secret | SecureSMTPError:
    steps = tokens.steps()
    try:
        function = next(steps)
        while True:
            function = steps.send(await call(function))
    except StopIteration as stop:
        result: Secret | SecureSMTPError = stop.value
        return result
