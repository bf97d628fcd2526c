"""
Short tracebacks: an uncaught error shows the caller's line, one line of this library, and no internal frame.

An error that is kept as a result has no frames at all (`drop_frames`).

How it works: `hide_internal_frames` wraps each public method. It removes the library's frames from the error and from
its causes, and keeps the frames of a callable that the caller passed in, since a bug there must stay visible.
"""

from __future__ import annotations

import sys
from functools import wraps
from traceback import StackSummary
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from securesmtp.errors import SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")
_HIDDEN_PACKAGES = {__package__, "anyio", "outcome", "trio", *sys.stdlib_module_names}


def hide_internal_frames(method: Callable[P, T]) -> Callable[P, T]:
    """Wrap *method* so that its `SecureSMTPError` shows no internal frame; ``stage`` and the causes stay."""

    @wraps(method)
    def public_call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            # A debugger shows this frame's variables, and they may contain the message.
            del args, kwargs
            if not isinstance(error, SecureSMTPError):
                raise
            _shorten(error)
            # A bare `raise` would leave out this line too.
            raise error from error.__cause__

    return public_call


def hide_internal_frames_async(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Wrap the coroutine function *method* as `hide_internal_frames` does a function."""

    @wraps(method)
    async def public_call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except BaseException as error:
            del args, kwargs
            if not isinstance(error, SecureSMTPError):
                raise
            _shorten(error)
            raise error from error.__cause__

    return public_call


def _shorten(error: BaseException) -> None:
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = _skip_hidden_frames(cause.__traceback__)
        cause = cause.__cause__


def _skip_hidden_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return *traceback* from the first frame of the caller's own code; None if there is no such frame."""
    while traceback is not None and _package(traceback) in _HIDDEN_PACKAGES:
        traceback = traceback.tb_next
    return traceback


def _package(traceback: TracebackType) -> str:
    return str(traceback.tb_frame.f_globals.get("__name__")).partition(".")[0]


def drop_frames(error: BaseException) -> None:
    """
    Remove the tracebacks of *error* and its causes: their frames hold the whole message in local variables.

    If code of the caller's raised it, a note says where.
    """
    seen, waiting = set[int](), [error]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            note = _raised_at(each.__traceback__)
            if note and note not in getattr(each, "__notes__", ()):
                each.add_note(note)
            each.__traceback__ = None
            waiting += [inner for inner in (each.__cause__, each.__context__) if inner is not None]


def _raised_at(traceback: TracebackType | None) -> str:
    theirs = []
    while traceback is not None:
        if _package(traceback) not in _HIDDEN_PACKAGES:
            theirs.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return "Raised at:\n" + "".join(StackSummary.extract(theirs).format()).rstrip() if theirs else ""
