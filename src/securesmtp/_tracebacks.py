"""What an uncaught error shows: the line that called the library, one line of the library, and no frame below it."""

from __future__ import annotations

import sys
from functools import wraps
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
