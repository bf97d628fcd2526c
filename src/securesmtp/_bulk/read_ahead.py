"""The messages of a run that were read and whose results were not yielded, and what is known of each at its end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from securesmtp._bulk.jobs import AnyJob, Job
from securesmtp._tracebacks import drop_frames
from securesmtp._values import SendResult, Stage, describe_id
from securesmtp.errors import ConnectError, OutcomeUnknownError, SecureSMTPError


@dataclass(slots=True)
class ReadAhead:
    """
    The jobs of a run in their order, and how far their results were yielded.

    Attributes:
        pending: The jobs whose result was not yielded yet, and perhaps the one whose result was yielded last.
        last_yielded: The index of the last result that was yielded.
        failures: What the iterable of the jobs has raised.
    """

    pending: deque[AnyJob] = field(default_factory=deque)
    last_yielded: int = -1
    failures: list[Exception] = field(default_factory=list)

    def oldest(self) -> AnyJob | None:
        """Return the first job whose result was not yielded."""
        while self.pending and self.pending[0].index <= self.last_yielded:
            self.pending.popleft()
        return self.pending[0] if self.pending else None

    def add_notes(self, interrupt: BaseException) -> None:
        """Add to *interrupt* the results that were not yielded, when all started jobs have their end."""
        ends = [job.end for job in self.pending if job.index > self.last_yielded]
        for end in ends:
            if isinstance(end, SendResult):
                which = f"{'message ' * (end.message_id is not None)}{describe_id(end.message_id, 200)}"
                interrupt.add_note(f"securesmtp: result {end.index}, {which}: {end.outcome}")


def octets(job: AnyJob) -> int:
    """Return how many octets the message of *job* has."""
    return job.submission.content.size if isinstance(job, Job) else 0


def to_result(job: Job, end: SendResult | BaseException) -> SendResult:
    """Return the result of a *job* with this *end*: a result, or what has ended it."""
    return end if isinstance(end, SendResult) else result_without_end(job, end)


def result_without_end(job: Job, interrupt: BaseException | None = None) -> SendResult:
    """Return the result of a *job* that an *interrupt*, or its end, has ended; or that no worker has started."""
    message_id, error = job.submission.content.message_id, getattr(interrupt or job.end, "__cause__", None)
    # What struck one message may have ended a worker that was to send others.
    if not isinstance(error, SecureSMTPError) or error.message_id != message_id:
        if job.started:
            error = OutcomeUnknownError("the worker that was to send it has ended", stage=Stage.CONTENT)
        else:
            error = ConnectError("not sent: the run was ended before its turn", stage=Stage.CONNECT, retryable=True)
            error.interrupted = True
        error.message_id = message_id
    drop_frames(error)
    job.submission.content.close()
    return job.result(error.outcome, error.receipt, None if error.receipt else error)
