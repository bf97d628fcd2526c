"""The task."""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from celery import Task
from celery.exceptions import Reject

from securesmtp import ConfigurationError, Outcome, QueuedMessage, SecureSMTPError, SendResult
from securesmtp.integrations.celery._process import Processes
from securesmtp.integrations.celery._texts import describe_error, describe_result, show_arguments, show_key
from securesmtp.ledger import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message

    from celery import Celery
    from celery.result import AsyncResult

    from securesmtp import Envelope
    from securesmtp.integrations.celery._process import Mailer
    from securesmtp.ledger import Ledger

# Generic in its stubs only.
if TYPE_CHECKING:
    _Task = Task[..., Any]
else:
    _Task = Task
_LOGGER = logging.getLogger("securesmtp")
# Seconds between the deadline, Celery's soft limit and its hard one: time to write the outcome, and to try later.
_MARGIN = 10.0
# Redis' own, in seconds. Half of it is also what RabbitMQ waits for a task to be acknowledged.
_VISIBILITY_TIMEOUT = 3600.0
# Characters of a result that Celery logs and shows in events: up to an outcome of 7 or 8 letters, and none of the
# addresses after it. With one more, Celery would write a second comma after the shorter ones.
_MAX_SHOWN = 21


class TryAgainError(Exception):
    """
    The task tries again: the message was certainly not accepted, or another worker may be sending it at this moment.

    Celery logs it and stores it as the result until then. Its text has no address: only the key, and the outcome with
    the kind of error and the code of the reply, or since when the message is in progress.
    """


@dataclass(frozen=True, slots=True)
class Rules:
    """
    How a task sends and tries again; see `mail_task`.

    Attributes:
        deadline: Seconds for one try.
        partial: What to do when some recipients are refused.
        max_retries: How often it tries again.
        retry_backoff: Seconds before the second try.
        retry_backoff_max: Most seconds between two tries.
    """

    deadline: float
    partial: Literal["raise", "allow"]
    max_retries: int
    retry_backoff: float
    retry_backoff_max: float

    def delay(self, tries: int, longest: float) -> float:
        """Return how many seconds to wait after so many *tries*: twice as long each time, less up to a half of it."""
        most = min(self.retry_backoff_max, longest, self.retry_backoff * 2 ** min(tries, 30))
        return random.uniform(most / 2, most)  # noqa: S311 -- spreads the tries, and hides nothing


class MailTask(_Task):
    """
    A task that sends a message; `mail_task` makes it.

    Its result is ``SendResult.as_dict()``, also if the message was refused: `SendResult.from_dict` makes it again. It
    fails, as Celery calls it, only because of a mistake in the program or in its settings.
    """

    rules: Rules
    processes: Processes
    # A task is acknowledged when it has ended, and delivered again if its worker was killed: the ledger decides.
    acks_late = True
    reject_on_worker_lost: bool | None = True
    # The rules count.
    max_retries: int | None = None
    serializer = "json"
    resultrepr_maxsize = _MAX_SHOWN

    def send_later(
        self,
        message: Message | Envelope,
        *,
        key: str | None = None,
        **options: Any,  # noqa: ANN401 -- those of Celery
    ) -> AsyncResult[Any]:
        """
        Enter *message* in the ledger, give it to Celery, and return Celery's handle of its result.

        If it raises, call it again with the same key and the same message, as often as you like: it is sent once.

        Args:
            message: An EmailMessage, or an `Envelope` if the addresses are not those of the header.
            key: Your name for the message, the same whenever you call it again; by default `Envelope.key`, or a
                Message-ID of yours. Logs and Celery's events show it, unless there is an ``@`` in it.
            options: Those of ``Task.apply_async``, such as *countdown* or *queue*.

        Raises:
            ConfigurationError: A time limit among *options* is not above the deadline.
            LedgerError: The ledger cannot be written; nothing was given to Celery.
            MessageError: The message cannot be sent as it is, it has no key, or its key is that of another message.
            kombu.exceptions.OperationalError: The broker cannot be reached. The message stays prepared in the ledger.
        """
        check_limits(self.rules.deadline, options.get("soft_time_limit"), options.get("time_limit"))
        queued = QueuedMessage.prepare(message, self.processes.current.ledger.get(), key=key)
        return self.apply_async((queued.as_dict(),), **options)

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> AsyncResult[Any]:  # noqa: ANN401 -- Celery's
        """Call it as Celery does; its arguments, which have addresses, are shown nowhere."""
        shown = {"argsrepr": show_arguments(*(args or ())), "kwargsrepr": "{}"}
        result: AsyncResult[Any] = super().apply_async(args, kwargs, *more, **{**options, **shown})
        return result

    def close(self) -> None:
        """
        Close the mailer and the ledger of this process, if there are any; workers do it when they end.

        The next message that the process sends, or gives to Celery, gets new ones. So call it between two tests.
        """
        self.processes.close()


def mail_task(  # noqa: PLR0913 -- the whole configuration in one place, by keyword
    app: Celery,
    *,
    mailer: Callable[[], Mailer],
    ledger: Callable[[], Ledger],
    name: str = "securesmtp.send_mail",
    deadline: float = 30.0,
    soft_time_limit: float | None = None,
    time_limit: float | None = None,
    partial: Literal["raise", "allow"] = "raise",
    max_retries: int = 60,
    retry_backoff: float = 30.0,
    retry_backoff_max: float = 1800.0,
    close_timeout: float | None = None,
    **options: Any,  # noqa: ANN401 -- those of Celery
) -> MailTask:
    """
    Make a task of *app* that sends a message, tries again when that is safe, and never sends a message twice.

    It tries again exactly if the message was certainly not accepted and another try may succeed
    (`SendResult.retryable`), or if nothing was tried because the ledger cannot be reached. If another worker is sending
    the message, it waits until that is over. A message that may have been delivered is never sent again.

    Args:
        app: The Celery application.
        mailer: Makes the mailer of a process when its first task needs it, such as ``SecureMailer.from_env``. Celery's
            messages never contain the password.
        ledger: Makes the ledger of a process. Each process that calls `MailTask.send_later` has one too.
        name: The name of the task.
        deadline: Seconds for one try, whatever the mailer's own deadline is.
        soft_time_limit: Celery's soft limit; by default 10 seconds after *deadline*.
        time_limit: Celery's hard limit, which kills the process; by default 10 seconds after the soft one.
        partial: As for `SecureMailer.send`.
        max_retries: How often it tries again.
        retry_backoff: Seconds before the second try. Each further pause is twice as long, less a random part of up to
            a half.
        retry_backoff_max: Most seconds between two tries. It is never more than half of the broker's
            *visibility_timeout*, which is 3600 if it is not set.
        close_timeout: Seconds that a process waits at its end for messages that are being sent, before it aborts them;
            by default 5 seconds more than *deadline*.
        options: Any other option of ``Celery.task``, such as *queue* or *rate_limit*.

    Raises:
        ConfigurationError: A time limit is not above *deadline*: Celery would end the task while it sends.
    """
    soft = deadline + _MARGIN if soft_time_limit is None else soft_time_limit
    hard = soft + _MARGIN if time_limit is None else time_limit
    check_limits(deadline, soft, hard)
    made: MailTask = app.task(  # type: ignore[call-overload]  # which has whole seconds only
        name=name,
        bind=True,
        base=MailTask,
        # Of this application only.
        shared=False,
        soft_time_limit=soft,
        time_limit=hard,
        rules=Rules(deadline, partial, max_retries, retry_backoff, retry_backoff_max),
        processes=Processes(mailer, ledger, deadline + 5 if close_timeout is None else close_timeout),
        **options,
    )(_deliver)
    return made


def check_limits(deadline: float, soft: float | None, hard: float | None) -> None:
    """
    Check Celery's limits against the deadline.

    Raises:
        ConfigurationError: One of them strikes first.
    """
    for name, limit in (("soft_time_limit", soft), ("time_limit", hard)):
        if limit is not None and limit <= deadline:
            text = f"{name}={limit} is not above the deadline of {deadline} s: Celery would end the task while it sends"
            raise ConfigurationError(text, hint="set it 10 seconds above, or make the deadline shorter")


def _deliver(task: MailTask, data: Mapping[str, Any]) -> dict[str, Any]:
    """Send the message unless the ledger says that it must not be sent, and return its result; or try later."""
    request = task.request
    queued = QueuedMessage.from_dict(data)
    result, again = _send(task, queued)
    name, text = show_key(queued.key, queued.digest), again or describe_result(result)
    if again is None or request.is_eager or request.called_directly:
        # An eager task would try again at once, and all in one web request.
        if result.outcome is not Outcome.ACCEPTED:
            # For Celery, the task has succeeded.
            _LOGGER.warning("the task of %s has ended: %s", name, text)
        return _as_dict(result)
    countdown = task.rules.delay(request.retries, _longest_wait(task.app))
    try:
        raise task.retry(exc=TryAgainError(f"{name}: {text}"), countdown=countdown)
    except Reject as error:
        # The broker did not take it. It delivers this one again.
        raise Reject(error, requeue=True) from error


def _send(task: MailTask, queued: QueuedMessage) -> tuple[SendResult, str | None]:
    """Return what became of the message, and why the task tries again; None if it does not."""
    rules, process = task.rules, task.processes.current
    may_retry = task.request.retries < rules.max_retries
    try:
        ledger, mailer = process.ledger.get(), process.mailer.get()
    except Exception as error:  # the caller's own functions
        # A wrong setting of a worker must not use up the queue.
        _LOGGER.exception("no mailer or no ledger for %s", show_key(queued.key, queued.digest))
        result = SendResult(0, queued.message_id, Outcome.NOT_SENT, error=error)
        return result, describe_result(result) if may_retry else None
    try:
        result = queued.send(mailer, ledger, deadline=_deadline(task), partial=rules.partial)
        # Then another task sends it, and this one does not end before.
        in_progress = None
        if result.outcome is Outcome.UNKNOWN and result.from_ledger:
            in_progress = _in_progress(ledger, queued.key)
    except Exception as error:  # noqa: BLE001 -- Celery's soft limit, or the ledger is down
        _LOGGER.warning("%s ended early: %s", show_key(queued.key, queued.digest), describe_error(error))
        result = _end_after(error, ledger, queued)
        return result, describe_result(result) if may_retry and (result.retryable or result.error is error) else None
    return result, in_progress or (describe_result(result) if may_retry and result.retryable else None)


def _deadline(task: MailTask) -> float:
    """Return the deadline of this try; a task that was published with shorter limits has a shorter one."""
    deadline = task.rules.deadline
    limits = [limit for limit in task.request.timelimit or () if limit is not None and limit <= deadline]
    return min([deadline, *(max(limit - _MARGIN, limit / 2) for limit in limits)])


def _end_after(error: Exception, ledger: Ledger, queued: QueuedMessage) -> SendResult:
    """Return what became of the message when *error* ended its task: a run has written its end before that."""
    entry, outcome = None, error.outcome if isinstance(error, SecureSMTPError) else Outcome.UNKNOWN
    with suppress(Exception):
        entry = ledger.look_up(queued.key)
    if entry is not None and entry.digest != queued.digest:
        # Another message has its key now: that one's receipt is not its own.
        entry = None
    if entry is not None and entry.result is not None and entry.state.value == entry.result.outcome.value:
        return entry.result
    if entry is not None and entry.state is State.PREPARED:
        outcome = Outcome.NOT_SENT
    return SendResult(0, queued.message_id, outcome, error=error)


def _in_progress(ledger: Ledger, key: str) -> str | None:
    """Return since when another worker may be sending the message; None if none is. If nobody knows, one may be."""
    with suppress(Exception):
        entry = ledger.look_up(key)
        if entry is None or entry.state is not State.CLAIMED:
            return None
        return f"in progress elsewhere since {entry.changed:%Y-%m-%d %H:%M:%S} UTC"
    return "perhaps in progress elsewhere: the ledger cannot be read"


def _as_dict(result: SendResult) -> dict[str, Any]:
    data = result.as_dict()
    # First, because Celery logs the beginning.
    return {"outcome": data.pop("outcome"), **data}


def _longest_wait(app: Celery) -> float:
    """Return for how many seconds a task may wait before the broker delivers it once more; then there would be two."""
    timeout: float = (app.conf.broker_transport_options or {}).get("visibility_timeout") or _VISIBILITY_TIMEOUT
    return timeout / 2
