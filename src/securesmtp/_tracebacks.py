"""Which frames an error keeps: an uncaught one those of the caller, a result none."""

from __future__ import annotations

import sys
from functools import wraps
from traceback import StackSummary
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from securesmtp.errors import SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")
_NOT_THE_CALLERS = {__package__, *sys.stdlib_module_names}


def raising_here(method: Callable[P, T]) -> Callable[P, T]:
    """Let *method* raise this library's errors without its internal frames; stage and causes say where it was."""

    @wraps(method)
    def public_call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except SecureSMTPError as error:
            _shorten(error)
            # They may be the message: the frame of this function is shown.
            del args, kwargs
            # Not a bare `raise`: that would leave out this line too.
            raise error from error.__cause__

    return public_call


def _shorten(error: BaseException) -> None:
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = _from_the_callers_own(seen.__traceback__)
        seen = seen.__cause__


def _from_the_callers_own(traceback: TracebackType | None) -> TracebackType | None:
    """Return what a callable of the caller's shows; None where the library called none."""
    while traceback is not None and _package(traceback) in _NOT_THE_CALLERS:
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
        if _package(traceback) not in _NOT_THE_CALLERS:
            theirs.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return "Raised at:\n" + "".join(StackSummary.extract(theirs).format()).rstrip() if theirs else ""
