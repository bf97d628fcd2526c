"""
The workers of a run: tasks of one thread, each of which sends over one connection.

How it works: the caller's thread reads messages and puts each into the backlog. A thread of the run has the poller, and
a worker in it for each connection. An interrupt can strike the caller's thread at any line, but not that of the run.
The workers share their state with that thread, so both are in one file, which is longer than 300 lines.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from contextvars import copy_context
from functools import partial as bind
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from securesmtp._bulk.backlog import Backlog
from securesmtp._bulk.batch import Batch
from securesmtp._bulk.calls import perform
from securesmtp._bulk.jobs import Ending, Job, Repeat
from securesmtp._bulk.read_ahead import result_without_end
from securesmtp._bulk.run import Step
from securesmtp._interrupts import raise_if_interrupt
from securesmtp._send_steps import Sender
from securesmtp._sending import Checkout
from securesmtp._transport.poller import Poller
from securesmtp._transport.steps import HelperThread, RunThread, Sleep
from securesmtp._transport.task import Task
from securesmtp._values import Receipt, SendResult
from securesmtp.events import mute_if_emitting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from securesmtp._bulk.claims import Claims
    from securesmtp._bulk.jobs import AnyJob
    from securesmtp._bulk.run import Run
    from securesmtp._transport.channel import Steps
    from securesmtp._transport.pool import Pool

# How often a thread whose start was interrupted is checked for being done, in seconds.
_POLL_INTERVAL = 0.01
# How long a worker without a message sleeps, in seconds: until it is woken.
_LONG = 3600.0


class Worker:
    """One worker of a run: it sends what is in the backlog, until there is no more or it is one too many."""

    def __init__(self, run: Run, pool: Pool, workers: Workers, task: Task) -> None:
        """Be one of *workers*, run by *task*."""
        self._run, self._pool, self._backlog, self._idle, self._task = run, pool, workers.backlog, workers.idle, task
        # Without a thread of its own, the run is inside whatever the caller's thread does.
        self._sender = Sender(run.core, pool, lambda: task, is_one_of_many=workers.thread is not None)

    def work(self) -> Steps[None]:
        """Send one message after the other, or several at a time if the host supports it."""
        run = self._run
        if not run.enter():
            return
        support = self._pool.overlap_support
        while (job := (yield from self._next_job())) is not None:
            overlap = run.overlap(support)
            if overlap is None:
                leaves = yield from self._send_one(job)
            else:
                with overlap:
                    leaves = yield from self._send_batch(job)
            if leaves:
                return
        run.leave()

    def _next_job(self) -> Steps[Job | None]:
        if self._pool.slots.turns.is_limited:
            return (yield from self._next_job_in_turn())
        while (job := self._backlog.take()) is None and not self._backlog.is_closed:
            yield from self._wait_for_job()
        return job

    def _wait_for_job(self) -> Steps[None]:
        self._idle.append(self._task)
        yield Sleep(self._task, _LONG)
        # A wake-up that was for another wait has left it there.
        with suppress(ValueError):
            self._idle.remove(self._task)

    def _next_job_in_turn(self) -> Steps[Job | None]:
        """Wait for a job, and then for its turn: only when that has come, its time begins."""
        backlog, pool = self._backlog, self._pool
        while not backlog.is_closed:
            if not backlog:
                yield from self._wait_for_job()
                continue
            has_turn = yield from pool.wait_for_turn(lambda: self._task, lambda: backlog.is_closed)
            # If the mailer is closed, there are no turns, and each of the rest gets that as its result.
            job = backlog.take() if has_turn or self._run.core.is_closed else None
            if job is not None:
                return job
            if has_turn:
                # Another worker has taken it.
                pool.give_back_turn()
        return None

    def _take_in_turn(self) -> Job | None:
        """Return a job whose turn it is now, or None."""
        if not self._backlog or not self._pool.take_turn():
            return None
        job = self._backlog.take()
        if job is None:
            self._pool.give_back_turn()
        return job

    def _send_one(self, job: Job) -> Steps[bool]:
        """Send *job*, or give it back to the backlog; return whether this worker leaves the run."""
        run = self._run
        checkout = Checkout(run.take_login_permit(), has_turn=True)
        while (cause := run.fatal_error) is None:
            with Ending[Receipt]() as ending:
                ending.end = yield from self._sender.submit(job.submission, run.partial, job.deadline, checkout)
            step = run.settle(job, ending.end, checkout, self._backlog.put)
            if step is not Step.RESEND:
                return (yield from self._follow(step))
        run.refuse(job, cause)
        return False

    def _send_batch(self, first: Job) -> Steps[bool]:
        """Send *first*, and what is in the backlog, over one connection; return whether this worker leaves the run."""
        batch = Batch(self._run, first, self._pool.overlap_support, self._take_in_turn, self._backlog.put)
        with Ending[None]() as ending:
            yield from self._sender.with_connection(first.deadline, batch.action, batch.checkout)
            ending.end = None
        try:
            leaves = yield from self._follow(batch.settle(ending.end))
            while not leaves and (job := batch.next_unsent()) is not None:
                leaves = yield from self._send_one(job)
        finally:
            # Also if on_event has ended this worker: its results would be waited for without end.
            batch.put_back_unsent()
        return leaves

    def _follow(self, step: Step) -> Steps[bool]:
        """Do what *step* says after a message; return whether this worker leaves the run."""
        if step is Step.PAUSE:
            until = monotonic() + self._run.pause
            while (left := until - monotonic()) > 0 and not self._backlog.is_closed:
                yield Sleep(self._task, left)
        return step is Step.LEAVE


class Workers:
    """
    The workers of a run, and the thread that they run in.

    Attributes:
        backlog: The jobs that none has taken.
        idle: The tasks of the workers that wait for one.
        thread: The thread; None before the first job, at the end, and if none can be started: then the caller's own
            thread does the work while it waits.
        has_ended: Whether the thread has ended.
        fault: What a worker has raised, to be raised where the results are read.
        ends: Has an entry when the job that is waited for has its end, and when the thread has ended.
    """

    def __init__(self, work: Callable[[Workers, Task], Steps[None]], most: int, claims: Claims | None = None) -> None:
        """Have up to *most* workers, each of which does *work*; with *claims*, what a ledger lets this run send."""
        self.backlog: Backlog = Backlog(self._note_change)
        self.idle: list[Task] = list[Task]()
        self.thread: threading.Thread | None = None
        self.has_ended: bool = False
        self.fault: BaseException | None = None
        self.ends: SimpleQueue[None] = SimpleQueue()
        self._work, self._most, self._started = work, most, 0
        self._claims, self._has_thread = claims, False
        self._poller = Poller(self._assign, self._note_end_of_worker)
        self._run_tasks = mute_if_emitting(self._poller.run if claims is None else bind(self._run_claimed, claims))
        self._awaited: Job | None = None
        self._has_news = self._has_woken_all = False

    def submit(self, job: Job) -> None:
        """Have *job* sent."""
        job.notify = self._note_end_of_job
        if self._claims is None:
            self.backlog.put(job)
        else:
            self._claims.waiting.append(job)
            self._note_change()
        if self.thread is None and not self._started:
            self._start()

    def wait_for(self, job: AnyJob) -> SendResult | BaseException:
        """
        Wait until *job* has its end, and return it.

        Raises:
            BaseException: What a worker has raised, so that *job* has none.
        """
        if isinstance(job, Repeat):
            return job.result_after(self.wait_for(job.first))
        if not isinstance(job, Job):
            return job.end
        # In this order: whoever gives it its end looks afterwards whether it is waited for.
        self._awaited = job
        while (end := job.end) is None:
            if self.has_ended or (self.thread is None and self._is_stuck()):
                if self.fault is not None:
                    raise self.fault
                # An interrupt that ended a connection struck when it had just been taken, or reported.
                job.end = result_without_end(job)
            elif self.thread is None:
                # All that was read: what is in flight would hold its connection while the caller's own code runs, and
                # that may wait for it. Nothing is caught: an interrupt here is one of the caller's own thread.
                self._run_tasks(self._is_stuck)
            else:
                self.ends.get()
                self._awaited = job
        self._awaited = None
        if self.fault is not None and self._claims is not None and job.key in self._claims.released:
            raise self.fault
        return end

    def stop(self, pending: Iterable[AnyJob]) -> None:
        """
        Drop the backlog, and wait for those of the jobs *pending* that are being sent.

        After an interrupt, the next call continues to wait.
        """
        self.backlog.close()
        if isinstance(threading.current_thread(), HelperThread) and self.thread is not None:
            # The garbage collector, or on_event, ends the run here: that may be the very thread to wait for.
            return
        if self.thread is None and self._poller.tasks:
            self._run_tasks(self._is_stuck)
        if self._claims is not None and not self._has_thread:
            perform(self._claims.release())
        # At the end of the interpreter, daemon threads do not run any more.
        while self.thread is not None and not sys.is_finalizing():
            try:
                self.thread.join()
            except RuntimeError as error:
                raise_if_interrupt(error)
                # Its start was interrupted, so it may run or not. It takes no more jobs, but may have one.
                if not self.has_ended and any(
                    isinstance(job, Job) and job.started and job.end is None for job in pending
                ):
                    with suppress(Empty):
                        self.ends.get(timeout=_POLL_INTERVAL)
                    continue
            self.thread = None

    def _start(self) -> None:
        """Start the thread if the system and the interpreter allow it."""
        if isinstance(threading.current_thread(), RunThread):
            # The sends of another run stand still while this one goes on, and may have all connections.
            self._most = 1
            return
        # A daemon: an iterator that is never read to its end does not keep the process alive.
        thread = RunThread(target=copy_context().run, args=(self._run,), name="securesmtp-run", daemon=True)
        # Before it is started: an interrupt may strike right after that, and it is waited for all the same.
        self.thread, self._has_thread = thread, True
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            raise_if_interrupt(error)
            self.thread, self._has_thread, self._most = None, False, 1

    def _note_change(self) -> None:
        if self.backlog.is_closed or self.idle or self._started < self._most:
            self._poller.wake()

    # In the thread of the workers.

    def _run(self) -> None:
        try:
            self._run_tasks(self._is_over)
        except BaseException as error:  # noqa: BLE001 -- raised where the results are read
            self.fault = self.fault or error
        try:
            if self._claims is not None:
                perform(self._claims.release())
        finally:
            self.has_ended = True
            self.ends.put(None)

    def _run_claimed(self, claims: Claims, is_over: Callable[[], bool]) -> None:
        """Run the tasks; a ledger has what became of their messages before the reader sees it."""
        try:
            self._poller.run(is_over)
        finally:
            perform(claims.flush())

    def _advance_claims(self, claims: Claims) -> None:
        """Write into the ledger what has ended, and claim the next jobs if there are workers for them."""
        free, held = len(self.idle) + self._most - self._started, len(self.backlog)
        if claims.has_work(free, held):
            if self.backlog.is_closed:
                perform(claims.flush())
            else:
                self.backlog.add_claimed(perform(claims.advance(free, held)))

    def _is_over(self) -> bool:
        return self.backlog.is_closed and not self._poller.tasks

    def _is_stuck(self) -> bool:
        """Return whether nothing is being sent, and there is no job for a worker."""
        has_job = (self.backlog or (self._claims is not None and self._claims.waiting)) and not self.backlog.is_closed
        can_begin = has_job and (self.idle or self._started < self._most)
        # By name, not by number: an interrupt may have ended a task that is still among the idle ones.
        return self._poller.tasks.keys() <= set(self.idle) and not can_begin

    def _assign(self) -> None:
        """Wake the reader for what has ended, and wake or add a worker for each job; at the end, wake all workers."""
        if self._claims is not None:
            self._advance_claims(self._claims)
        if self._has_news:
            # Not for each job: each time, the interpreter's lock goes to the other thread and comes back.
            self._has_news = False
            self.ends.put(None)
        if self.backlog.is_closed:
            # Once: who does not sleep now looks whether it is closed before.
            if not self._has_woken_all:
                self._has_woken_all = True
                for task in self._poller.tasks:
                    task.wake()
            return
        for _ in range(len(self.backlog)):
            if self.idle:
                self.idle.pop().wake()
            elif self._started < self._most:
                self._started += 1
                self._poller.spawn(bind(self._work, self))
            else:
                break

    def _note_end_of_job(self) -> None:
        awaited = self._awaited
        # The reader is not woken for each message that overtakes the one it waits for.
        if awaited is not None and awaited.end is not None:
            self._awaited = None
            self._has_news = True

    def _note_end_of_worker(self, error: BaseException | None) -> None:
        if error is not None:
            self.fault = self.fault or error
            self.backlog.close()
