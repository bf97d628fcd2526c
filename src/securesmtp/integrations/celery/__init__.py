"""
Send each message once through Celery: `mail_task` makes the task.

A worker sends a message only after it has claimed it in a ledger (`securesmtp.ledger`). So a task that is delivered
twice, or whose worker was killed, does not send its message twice.
"""

from __future__ import annotations

try:
    from securesmtp.integrations.celery._task import MailTask, TryAgainError, mail_task
except ModuleNotFoundError as _error:
    if str(_error.name).partition(".")[0] != "celery":
        raise
    _message = "mail tasks need Celery: install securesmtp[celery]"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

__all__ = ["MailTask", "TryAgainError", "mail_task"]
