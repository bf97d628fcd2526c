"""Exit codes of errors."""

from __future__ import annotations

from securesmtp._cli.exit_codes import ExitCode
from securesmtp.errors import AuthenticationError, ConfigurationError, ConnectError, RefusedError


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code for *error*."""
    if getattr(error, "outcome", None) == "unknown":
        return ExitCode.UNKNOWN
    if getattr(error, "retryable", False):
        return ExitCode.TEMPORARY_FAILURE
    if isinstance(error, ConfigurationError):
        return ExitCode.DATA
    if isinstance(error, AuthenticationError):
        return ExitCode.NO_PERMISSION
    if isinstance(error, RefusedError | ConnectError):
        return ExitCode.UNAVAILABLE
    return ExitCode.PROTOCOL
