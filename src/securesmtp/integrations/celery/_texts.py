"""What logs and events may show of a message: key, outcome, and kind of an error; neither address nor content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp import SecureSMTPError

if TYPE_CHECKING:
    from securesmtp import SendResult


def describe_result(result: SendResult) -> str:
    """Return the outcome of *result*, with the kind of its error."""
    error = result.error
    return str(result.outcome) if error is None else f"{result.outcome}: {describe_error(error)}"


def describe_error(error: Exception) -> str:
    """Return the kind of *error*, without its text, which may quote an address."""
    name = type(error).__name__
    if not isinstance(error, SecureSMTPError):
        return name
    code = f", {error.reply.code} {error.reply.enhanced or ''}".rstrip() if error.reply else ""
    return f"{name} ({error.stage}{code})"


def show_key(key: object, digest: object) -> str:
    """Return what a log may call the message: its key, unless that may be an address, or begin a line of its own."""
    text = str(key)
    return f"<{text}>" if text.isprintable() and "@" not in text else f"<{digest!s:.16}>"


def show_arguments(data: object = None, *_: object) -> str:
    """Return what is shown instead of a task's arguments."""
    return f"({show_key(data.get('key'), data.get('digest'))})" if isinstance(data, dict) else "(…)"
