"""The results of send_many over tasks: in order, read lazily; whatever ends a run, each message has one result."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import random
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from conftest import thorough
from securesmtp import (
    ConfigurationError,
    ConnectError,
    MessageError,
    Outcome,
    OutcomeUnknownError,
    Receipt,
    Reply,
    SendResult,
    Stage,
)
from securesmtp._async_backlog import AsyncBacklog
from securesmtp._async_results import AsyncResults, in_order
from securesmtp._bulk.jobs import InvalidInput, Job
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.content import Content
from securesmtp._protocol.message import Submission
from securesmtp._transport.event_loop import is_cancellation

ACCEPTED, NOT_SENT, UNKNOWN = Outcome.ACCEPTED, Outcome.NOT_SENT, Outcome.UNKNOWN
BACKENDS = ("asyncio", "trio")
Run = Callable[..., Any]


@pytest.fixture(params=BACKENDS)
def run(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Run]:
    """Run an async function on asyncio and on trio; fail if a task or an exception was left to the loop."""

    async def limited(function: Callable[..., Awaitable[object]], args: tuple[object, ...], limit: float) -> object:
        with anyio.fail_after(limit):
            return await function(*args)

    def runs(function: Callable[..., Awaitable[object]], *args: object, limit: float = 60) -> object:
        return anyio.run(limited, function, args, limit, backend=request.param)

    yield runs
    # Not the old generation: that takes half a second.
    gc.collect(1)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


def _job(index: int, size: int = 0) -> Job:
    data = b"Message-ID: <%d@x>\r\n\r\n" % index + b"x\r\n" * (size // 3)
    return Job(index, Submission(Mailbox.parse("a@b.example"), (), Content.from_bytes(data)), lambda: None)


class Jobs:
    """
    So many messages, as `send_many` reads them from the caller's iterable.

    Attributes:
        read: How many were read.
        before: Is awaited before each, with its number.
    """

    def __init__(self, count: int, before: Callable[[int], Awaitable[object]] | None = None, size: int = 0) -> None:
        """Start with the first."""
        self.read = 0
        self.before, self._count, self._size = before, count, size

    def __aiter__(self) -> AsyncIterator[Job | InvalidInput]:
        """Return it."""
        return self

    async def __anext__(self) -> Job | InvalidInput:
        """Return the next message."""
        if self.before is not None:
            await self.before(self.read)
        if self.read == self._count:
            raise StopAsyncIteration
        self.read += 1
        return _job(self.read - 1, self._size)


def _receipt(job: Job) -> Receipt:
    tls: Any = None
    return Receipt(job.submission.content.message_id, "", (), Reply(250, None, "ok", b""), tls, 0, timedelta())


class Worker:
    """
    A worker that keeps the rules of the mailer's: a message that was cancelled has its outcome, and then it ends.

    Attributes:
        started: The numbers of the messages whose sending began.
        ended: Those that it has finished.
        tasks: How many workers were started.
        running: How many have not ended.
        sending: Is set when a message waits at `go`.
        go: Lets messages be finished.
    """

    def __init__(self, waits: Callable[[Job], bool] = lambda _: False) -> None:
        """Finish each message after a checkpoint; one for which *waits* is true, when `go` is set."""
        self.started, self.ended = list[int](), list[int]()
        self.tasks = self.running = 0
        self._waits = waits
        self.sending, self.go = anyio.Event(), anyio.Event()

    async def __call__(self, backlog: AsyncBacklog) -> None:
        """Send what is in the backlog."""
        self.tasks += 1
        self.running += 1
        try:
            while (job := await backlog.next()) is not None:
                await self._handle(job)
        finally:
            self.running -= 1

    async def _handle(self, job: Job) -> None:
        try:
            self.started.append(job.index)
            await self.send(job)
        except BaseException as interrupt:
            interrupt.__cause__ = error = OutcomeUnknownError("the send was interrupted", stage=Stage.CONTENT)
            error.message_id = job.submission.content.message_id
            job.finish(interrupt)
            raise
        self.ended.append(job.index)
        job.finish(_receipt(job))

    async def send(self, job: Job) -> None:
        """Send one message."""
        if self._waits(job):
            self.sending.set()
            await self.go.wait()
        else:
            await anyio.lowlevel.checkpoint()


def _all(_: Job) -> bool:
    return True


def _outcomes(results: list[SendResult]) -> list[tuple[int, Outcome]]:
    return [(result.index, result.outcome) for result in results]


async def _read(results: AsyncResults) -> list[SendResult]:
    return [result async for result in results]


async def _cancelled(action: Callable[[], Awaitable[object]], when: anyio.Event) -> BaseException:
    """Cancel *action* when *when* is set, and return the cancellation that it has raised."""
    raised: list[BaseException] = []

    async def watched() -> None:
        try:
            await action()
        except BaseException as error:
            raised.append(error)
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(watched)
        await when.wait()
        group.cancel_scope.cancel()
    (error,) = raised
    assert not isinstance(error, Exception)
    return error


def test_results_come_in_the_order_of_the_messages(run: Run) -> None:
    """Even if a later one is sent first; there are no more workers than allowed, and none is left."""

    class Uneven(Worker):
        async def send(self, job: Job) -> None:
            await anyio.sleep(0.005 if job.index % 3 == 0 else 0)

    async def main() -> None:
        worker = Uneven()
        results = await _read(in_order(Jobs(30), worker, 3, 6))
        assert _outcomes(results) == [(number, ACCEPTED) for number in range(30)]
        assert sorted(worker.ended) == list(range(30)) != worker.ended
        assert (worker.tasks, worker.running) == (3, 0)

    run(main)


def test_a_run_is_made_outside_of_an_event_loop_and_starts_at_its_first_result(run: Run) -> None:
    """Nothing is read, and there is no worker, before somebody asks for a result."""
    jobs = Jobs(3)

    async def main(results: AsyncResults) -> list[SendResult]:
        assert jobs.read == 0
        return await _read(results)

    async def worker(backlog: AsyncBacklog) -> None:
        await Worker()(backlog)

    assert [result.index for result in run(main, in_order(jobs, worker, 2, 4))] == [0, 1, 2]


@pytest.mark.parametrize(
    ("size", "least", "most"), [(0, 4, 4), (3000, 2, 2), (570, 3, 4)], ids=["messages", "large", "octets"]
)
def test_the_input_is_read_only_a_little_ahead(run: Run, size: int, least: int, most: int) -> None:
    """At most so many messages or octets are held; of any size there is one for each worker."""

    async def main() -> None:
        jobs = Jobs(1000, size=size)
        worker = Worker(lambda job: job.index == 50)
        results = in_order(jobs, worker, 2, 4, octets=2000)
        for count in range(1, 51):
            await anext(results)
            assert jobs.read <= count + most
        # With the next one, it holds as much as it may.
        with anyio.move_on_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(results.__anext__)
                await anyio.wait_all_tasks_blocked()
                assert least <= jobs.read - 50 <= most
                worker.go.set()
        await results.aclose()

    run(main)


def test_few_workers_are_started_for_few_messages(run: Run) -> None:
    """One for each message that was read, and none for one that cannot be sent."""

    async def main() -> None:
        worker = Worker()
        await _read(in_order(Jobs(2), worker, 10, 20))
        assert worker.tasks == 2

    run(main)


def test_an_error_of_the_iterable_is_raised_after_the_results(run: Run) -> None:
    """Those of the messages before it; then there are no more."""

    async def raises(number: int) -> None:
        if number == 5:
            raise LookupError("the database is gone")

    async def main() -> None:
        results = in_order(Jobs(9, raises), Worker(), 2, 4)
        read = [await anext(results) for _ in range(5)]
        with pytest.raises(LookupError):
            await anext(results)
        assert _outcomes(read) == [(number, ACCEPTED) for number in range(5)]
        assert await _read(results) == []

    run(main)


def test_an_error_of_the_iterable_is_raised_after_a_cancellation_too(run: Run) -> None:
    """It comes after the results that the cancellation kept from the caller."""

    async def raises(number: int) -> None:
        if number == 2:
            raise LookupError("the database is gone")

    async def main() -> None:
        worker = Worker(_all)
        results = in_order(Jobs(9, raises), worker, 2, 4)
        await _cancelled(results.__anext__, worker.sending)
        assert _outcomes([await anext(results), await anext(results)]) == [(0, UNKNOWN), (1, UNKNOWN)]
        with pytest.raises(LookupError):
            await anext(results)
        assert await _read(results) == []

    run(main)


@pytest.mark.parametrize("leaves", ["aclose", "break", "error"])
def test_messages_that_are_being_sent_are_finished_and_the_others_dropped(run: Run, leaves: str) -> None:
    """Their results can still be read, and nothing more is read from the iterable."""

    async def main() -> None:
        worker, jobs = Worker(lambda job: job.index >= 3), Jobs(100)
        results = in_order(jobs, worker, 2, 6)
        first = [await anext(results) for _ in range(3)]

        async def leave() -> None:
            if leaves == "aclose":
                await results.aclose()
                return
            async with results:
                assert leaves == "break" or 1 // 0

        async with anyio.create_task_group() as group:
            if leaves == "error":

                async def fails() -> None:
                    with pytest.raises(ZeroDivisionError):
                        await leave()

                group.start_soon(fails)
            else:
                group.start_soon(leave)
            await worker.sending.wait()
            await anyio.wait_all_tasks_blocked()
            assert worker.running == 2
            worker.go.set()
        assert worker.running == 0
        rest = await _read(results)
        read = jobs.read
        assert [result.index for result in (*first, *rest)] == list(range(read))
        assert {result.index for result in (*first, *rest) if result.outcome is ACCEPTED} == set(worker.ended)
        assert len(rest) > 2
        for result in rest[2:]:
            assert result.outcome is NOT_SENT
            assert result.retryable
            assert isinstance(result.error, ConnectError)
        assert (await _read(results), jobs.read) == ([], read)

    run(main)


def test_a_run_closed_before_its_first_result_reads_nothing(run: Run) -> None:
    """Its iterable is not touched; closing twice is fine."""

    async def main() -> None:
        jobs = Jobs(3)
        results = in_order(jobs, Worker(), 2, 4)
        await results.aclose()
        await results.aclose()
        assert (await _read(results), jobs.read) == ([], 0)

    run(main)


async def _by_scope(action: Callable[[], Awaitable[object]], when: anyio.Event) -> BaseException:
    return await _cancelled(action, when)


async def _by_native_cancel(action: Callable[[], Awaitable[object]], when: anyio.Event) -> BaseException:
    """As asyncio.timeout, a server that shuts down, or an asyncio.TaskGroup does it: once."""
    if anyio.get_cancelled_exc_class() is trio.Cancelled:
        return await _cancelled(action, when)
    task = asyncio.ensure_future(action())
    await when.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert task.cancelled()
    return caught.value


@pytest.mark.parametrize("cancel", [_by_scope, _by_native_cancel])
@pytest.mark.parametrize("place", ["anext", "for", "aclose", "async with"])
def test_a_cancellation_ends_what_is_being_sent_and_loses_no_result(run: Run, cancel: Any, place: str) -> None:
    """Each message has its outcome in a note and as a result; the others are not sent; no task is left."""

    async def main() -> None:
        worker, jobs = Worker(lambda job: job.index in {2, 4}), Jobs(100)
        results, read = in_order(jobs, worker, 2, 6), list[SendResult]()

        async def loop() -> None:
            async for result in results:
                read.append(result)

        async def waits() -> None:
            async with results:
                read.extend([await anext(results), await anext(results)])
                await anyio.sleep_forever()

        if place in {"anext", "aclose"}:
            read += [await anext(results), await anext(results)]
        actions = {"anext": results.__anext__, "for": loop, "aclose": results.aclose, "async with": waits}
        interrupt = await cancel(actions[place], worker.sending)
        assert worker.running == 0
        rest = await _read(results)
        assert [result.index for result in (*read, *rest)] == list(range(jobs.read))
        assert jobs.read <= 8
        assert {each.index for each in (*read, *rest) if each.outcome is ACCEPTED} == set(worker.ended)
        unknown = {each.index for each in rest if each.outcome is UNKNOWN}
        assert unknown == set(worker.started) - set(worker.ended) >= {2}
        assert all(each.outcome is NOT_SENT for each in rest if each.index not in worker.started)
        notes = getattr(interrupt, "__notes__", [])
        for result in rest:
            note = f"securesmtp: result {result.index}, message <{result.index}@x>: {result.outcome}"
            assert (note in notes) is (result.index in worker.started), result
        assert await _read(results) == []

    run(main)


def test_a_cancelled_read_of_the_iterable_ends_the_run(run: Run) -> None:
    """The iterable is read in the caller's task; the message that is being sent meanwhile has its outcome."""
    waiting: list[anyio.Event] = []

    async def stalls(number: int) -> None:
        if number == 1:
            waiting[0].set()
            await anyio.sleep_forever()

    async def main() -> None:
        waiting.append(anyio.Event())
        worker = Worker(_all)
        results = in_order(Jobs(9, stalls), worker, 2, 4)
        async with anyio.create_task_group() as group:
            group.start_soon(_cancelled, results.__anext__, worker.sending)
            await waiting[0].wait()
        assert _outcomes(await _read(results)) == [(0, UNKNOWN)]

    run(main)


def test_a_time_limit_around_one_result_is_not_one_of_the_run(run: Run) -> None:
    """Nothing that was entered for one result is held until the next: other limits, groups and tasks are free."""

    async def main() -> None:
        worker, others = Worker(), list[SendResult]()
        results = in_order(Jobs(20), worker, 2, 4)
        for _ in range(5):
            with anyio.fail_after(10) as scope:
                await anext(results)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as group:

            async def elsewhere() -> None:
                others.extend([await anext(results) for _ in range(5)])
                group.cancel_scope.cancel()

            group.start_soon(elsewhere)
        assert [result.index for result in others] == [5, 6, 7, 8, 9]
        assert {result.outcome for result in await _read(results)} == {ACCEPTED}

    run(main)


def test_a_block_can_be_entered_and_left_in_two_tasks(run: Run) -> None:
    """As a fixture or a lifespan does it."""

    async def main() -> None:
        results = in_order(Jobs(20), Worker(), 2, 4)
        read = list[SendResult]()

        async def enter() -> None:
            await results.__aenter__()
            read.append(await anext(results))

        async def leave() -> None:
            await results.__aexit__(None, None, None)

        for step in (enter, leave):
            async with anyio.create_task_group() as group:
                group.start_soon(step)
        assert [result.index for result in read] == [0]

    run(main)


def test_a_second_reader_is_refused(run: Run) -> None:
    """Two tasks that take turns would each get some of the results; closing in another task is fine."""

    async def main() -> None:
        worker = Worker(_all)
        results, read = in_order(Jobs(20), worker, 2, 4), list[SendResult]()

        async def reads() -> None:
            read.extend(await _read(results))

        async with anyio.create_task_group() as group:
            group.start_soon(reads)
            await worker.sending.wait()
            with pytest.raises(RuntimeError, match="another task"):
                await anext(results)
            group.start_soon(results.aclose)
            await anyio.wait_all_tasks_blocked()
            worker.go.set()
        assert _outcomes(read) == [(0, ACCEPTED), (1, ACCEPTED), (2, NOT_SENT), (3, NOT_SENT)]

    run(main)


def test_a_message_that_is_read_while_the_run_is_closed_is_not_sent(run: Run) -> None:
    """Its result says so."""

    async def main() -> None:
        reading, go, read = anyio.Event(), anyio.Event(), list[SendResult]()

        async def stalls(number: int) -> None:
            if number == 1:
                reading.set()
                await go.wait()

        worker = Worker()
        results = in_order(Jobs(9, stalls), worker, 2, 4)

        async def reads() -> None:
            read.extend(await _read(results))

        async with anyio.create_task_group() as group:
            group.start_soon(reads)
            await reading.wait()
            await anyio.wait_all_tasks_blocked()
            await results.aclose()
            go.set()
        assert _outcomes(read) == [(0, ACCEPTED), (1, NOT_SENT)]
        assert worker.tasks == 1

    run(main)


class _Fault(BaseException):
    """What a caller's function raises."""


@pytest.mark.parametrize("fault", [_Fault, RuntimeError, KeyboardInterrupt])
def test_what_ends_a_worker_is_raised_where_the_results_are_read(run: Run, fault: type[BaseException]) -> None:
    """The run ends there; the message that the worker had is UNKNOWN, and those that no worker had are NOT_SENT."""

    async def worker(backlog: AsyncBacklog) -> None:
        while (job := await backlog.next()) is not None:
            if job.index == 2:
                raise fault
            job.finish(_receipt(job))

    async def main() -> None:
        results = in_order(Jobs(9), worker, 1, 5)
        assert _outcomes([await anext(results), await anext(results)]) == [(0, ACCEPTED), (1, ACCEPTED)]
        with pytest.raises(fault):
            await anext(results)
        assert _outcomes(await _read(results)) == [(2, UNKNOWN), *((number, NOT_SENT) for number in range(3, 7))]

    run(main)


@pytest.mark.parametrize(("fault", "outcome"), [(_Fault, UNKNOWN), (RuntimeError, ACCEPTED)])
def test_a_worker_that_has_raised_ends_the_others(run: Run, fault: type[BaseException], outcome: Outcome) -> None:
    """After an error they finish what they are sending; they take no more."""

    class Struck(Worker):
        async def send(self, job: Job) -> None:
            if job.index == 1:
                raise fault
            await super().send(job)

    async def main() -> None:
        worker = Struck(lambda job: job.index == 0)
        results = in_order(Jobs(9), worker, 2, 4)
        async with anyio.create_task_group() as group:

            async def reads() -> None:
                with pytest.raises(fault):
                    await anext(results)

            group.start_soon(reads)
            await worker.sending.wait()
            await anyio.wait_all_tasks_blocked()
            worker.go.set()
        assert sorted(worker.started) == [0, 1]
        assert _outcomes(await _read(results)) == [(0, outcome), (1, UNKNOWN), (2, NOT_SENT), (3, NOT_SENT)]

    run(main)


def test_a_worker_that_has_raised_ends_the_others_while_nobody_reads(run: Run) -> None:
    """One that waits for more messages ends at once."""

    class Struck(Worker):
        async def send(self, job: Job) -> None:
            await super().send(job)
            if job.index == 1:
                raise _Fault

    async def main() -> None:
        worker = Struck(lambda job: job.index == 1)
        results = in_order(Jobs(9), worker, 2, 4)
        await anext(results)
        await anyio.wait_all_tasks_blocked()
        # The other worker has sent all that was read, and waits for more.
        assert worker.ended == [0, 2, 3]
        worker.go.set()
        await anyio.wait_all_tasks_blocked()
        assert worker.running == 0
        with pytest.raises(_Fault):
            await _read(results)

    run(main)


def test_what_ends_a_worker_after_its_last_message_is_raised_at_the_end(run: Run) -> None:
    """It is not lost, and it is raised once."""

    async def worker(backlog: AsyncBacklog) -> None:
        job = await backlog.next()
        assert job is not None
        job.finish(_receipt(job))
        raise _Fault

    async def main() -> None:
        results = in_order(Jobs(1), worker, 1, 5)
        assert (await anext(results)).outcome is ACCEPTED
        with pytest.raises(_Fault):
            await anext(results)
        assert await _read(results) == []

    run(main)


def test_an_interrupt_of_one_message_is_raised_where_its_result_is_read(run: Run) -> None:
    """As Ctrl-C that strikes a worker; reading on gives what became of it."""

    class Struck(Worker):
        async def send(self, job: Job) -> None:
            if job.index == 1:
                raise KeyboardInterrupt

    async def main() -> None:
        results = in_order(Jobs(9), Struck(), 1, 5)
        assert (await anext(results)).outcome is ACCEPTED
        with pytest.raises(KeyboardInterrupt):
            await anext(results)
        assert _outcomes(await _read(results))[0] == (1, UNKNOWN)
        assert await _read(results) == []

    run(main)


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_whose_tasks_were_cancelled_sends_no_more(count: int) -> None:
    """As programs do that shut down: the reader never hangs, and each message that it reads has its outcome."""

    async def main() -> None:
        worker, jobs = Worker(lambda job: job.index >= 2), Jobs(20)
        results = in_order(jobs, worker, 2, 4)
        read = [await anext(results), await anext(results)]
        reader = asyncio.ensure_future(_read(results))
        await worker.sending.wait()
        await anyio.wait_all_tasks_blocked()
        tasks = sorted(asyncio.all_tasks() - {asyncio.current_task(), reader}, key=asyncio.Task.get_name)[:count]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        worker.go.set()
        read += await asyncio.wait_for(reader, 10)
        assert [result.index for result in read] == list(range(20))
        expected = Counter({ACCEPTED: 4 - count, UNKNOWN: count, NOT_SENT: 16})
        assert Counter(result.outcome for result in read) == expected
        assert {result.outcome for result in read[4:]} == {NOT_SENT}
        assert worker.running == 0

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_is_cancelled_before_it_begins_is_not_waited_for(count: int) -> None:
    """Asyncio runs none of its code, so that its end is not its own to report; the run ends as with any other."""

    async def main() -> None:
        worker = Worker()

        async def cancels(number: int) -> None:
            if number == count:
                for task in asyncio.all_tasks():
                    if task.get_name().startswith("securesmtp"):
                        task.cancel()

        results = in_order(Jobs(20, cancels), worker, 2, 4)
        read = await asyncio.wait_for(_read(results), 10)
        assert [result.index for result in read] == list(range(20))
        assert [result.outcome for result in read[-10:]] == [NOT_SENT] * 10
        assert worker.tasks == 2 - count

    asyncio.run(main())


def test_results_can_be_read_in_a_new_loop_when_theirs_has_ended(run: Run) -> None:
    """Its end has cancelled the workers; what they were sending has its outcome, and no more is sent."""
    worker, jobs = Worker(lambda job: job.index >= 1), Jobs(20)

    async def first() -> AsyncResults:
        worker.sending, worker.go = anyio.Event(), anyio.Event()
        results = in_order(jobs, worker, 2, 4)
        await anext(results)
        await anyio.wait_all_tasks_blocked()
        return results

    results = run(first)
    assert worker.running == 0
    expected = [(1, UNKNOWN), (2, UNKNOWN), *((number, NOT_SENT) for number in range(3, 20))]
    assert _outcomes(run(_read, results)) == expected


@pytest.mark.parametrize("reads", ["iteration", "aclose", "async with"])
def test_a_closed_loop_is_not_waited_for(reads: str) -> None:
    """A loop that was closed without its tasks being cancelled never runs them again."""
    worker = Worker(lambda job: job.index >= 1)

    async def first() -> AsyncResults:
        worker.sending, worker.go = anyio.Event(), anyio.Event()
        results = in_order(Jobs(5), worker, 2, 4)
        await anext(results)
        await anyio.wait_all_tasks_blocked()
        return results

    async def second() -> None:
        if reads == "aclose":
            await results.aclose()
        elif reads == "async with":
            with anyio.CancelScope() as scope:
                async with results:
                    scope.cancel()
                    await anyio.sleep_forever()
        rest = await _read(results)
        assert _outcomes(rest)[:3] == [(1, UNKNOWN), (2, UNKNOWN), (3, NOT_SENT)]
        assert (len(rest) == 4) is (reads == "iteration")

    loop = asyncio.new_event_loop()
    results = loop.run_until_complete(first())
    loop.close()
    asyncio.run(asyncio.wait_for(second(), 10))


def test_the_end_of_a_collected_task_is_one_of_a_cancellation() -> None:
    """There is no loop then that could be asked which exception is its own."""
    assert is_cancellation(GeneratorExit())


def test_results_of_another_loop_are_refused_while_it_lives(run: Run) -> None:
    """The error says so; nothing is lost by the try."""

    async def main() -> None:
        worker = Worker(lambda job: job.index == 1)
        results = in_order(Jobs(3), worker, 2, 4)
        await anext(results)
        errors: list[BaseException] = []

        def elsewhere() -> None:
            for backend in BACKENDS:
                for action in (results.__anext__, results.aclose, lambda: results.__aexit__(None, None, None)):
                    with pytest.raises(ConfigurationError, match="another event loop") as caught:
                        anyio.run(action, backend=backend)
                    errors.append(caught.value)

        await anyio.to_thread.run_sync(elsewhere)
        assert len(errors) == 6
        worker.go.set()
        assert _outcomes(await _read(results)) == [(1, ACCEPTED), (2, ACCEPTED)]

    run(main)


@pytest.mark.parametrize("where", ["here", "in a thread"])
def test_results_that_nobody_keeps_end_the_run(run: Run, where: str) -> None:
    """Wherever they are garbage-collected: what is being sent is finished, and no task is left."""

    async def main() -> None:
        worker, jobs = Worker(lambda job: job.index >= 1), Jobs(50)
        holder = [in_order(jobs, worker, 2, 8)]
        async for result in holder[0]:
            if result.index == 0:
                break
        del result
        await anyio.wait_all_tasks_blocked()
        if where == "here":
            holder.clear()
        else:
            collector = threading.Thread(target=holder.clear)
            collector.start()
            collector.join()
        gc.collect()
        await anyio.wait_all_tasks_blocked()
        assert worker.started == [0, 1, 2]
        worker.go.set()
        await anyio.wait_all_tasks_blocked()
        assert (worker.started, sorted(worker.ended)) == ([0, 1, 2], [0, 1, 2])
        assert worker.running == 0
        assert jobs.read == 8

    run(main)


def test_an_idle_worker_is_woken_when_the_results_are_collected_in_a_thread(run: Run) -> None:
    """An event of the loop may be set in its own thread only."""

    async def main() -> None:
        worker = Worker()
        holder = [in_order(Jobs(5), worker, 1, 1)]
        await anext(holder[0])
        await anyio.wait_all_tasks_blocked()
        assert worker.running == 1
        await anyio.to_thread.run_sync(holder.clear)
        await anyio.wait_all_tasks_blocked()
        assert worker.running == 0

    run(main)


def test_the_temporary_files_of_unsent_messages_are_closed_with_the_results(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file that is collected while it is open would be a ResourceWarning."""
    closed = list[str | None]()
    monkeypatch.setattr(Content, "close", lambda content: closed.append(content.message_id))

    async def main() -> None:
        worker = Worker(lambda job: job.index == 1)
        holder = [in_order(Jobs(9), worker, 1, 4)]
        await anext(holder[0])
        await worker.sending.wait()
        holder.clear()
        await anyio.wait_all_tasks_blocked()
        assert closed == ["<0@x>", "<2@x>", "<3@x>"]
        worker.go.set()

    run(main)


def test_results_are_collected_after_their_loop_has_ended(run: Run, recwarn: pytest.WarningsRecorder) -> None:
    """Nothing is called there any more (PITFALLS A12)."""
    worker = Worker(lambda job: job.index >= 1)

    async def main() -> AsyncResults:
        worker.sending, worker.go = anyio.Event(), anyio.Event()
        results = in_order(Jobs(50), worker, 2, 8)
        await anext(results)
        return results

    results = run(main)
    del results
    gc.collect()
    assert worker.running == 0
    assert list(recwarn) == []


def test_a_reader_that_is_dropped_with_its_loop_is_quiet() -> None:
    """Python ends its coroutine by `GeneratorExit`, where nothing can be waited for."""
    worker = Worker(_all)

    async def first() -> Any:
        results = in_order(Jobs(50), worker, 2, 8)
        step = results.__anext__()
        # As a loop does it, by hand: the reader waits, and is then closed.
        task = asyncio.ensure_future(worker.sending.wait())
        future = step.send(None)
        await task
        step.close()
        assert future is not None
        worker.go.set()
        return [result.outcome async for result in results]

    async def main() -> Any:
        worker.sending, worker.go = anyio.Event(), anyio.Event()
        return await first()

    assert asyncio.run(main()) == [ACCEPTED] * 50


def test_messages_that_cannot_be_sent_let_other_tasks_run(run: Run) -> None:
    """However many there are; none of them starts a worker."""

    class Invalid(Jobs):
        async def __anext__(self) -> InvalidInput:
            self.read += 1
            return InvalidInput(SendResult(self.read - 1, None, NOT_SENT, error=MessageError("it is empty")))

    async def main() -> None:
        worker = Worker()
        results = in_order(Invalid(0), worker, 2, 4)
        with anyio.move_on_after(0.05) as scope:
            async for result in results:
                assert result.index < 1_000_000
        assert scope.cancelled_caught
        assert worker.tasks == 0

    run(main)


def test_a_worker_has_the_context_of_the_reader(run: Run) -> None:
    """As loggers and tracers expect it."""
    name = contextvars.ContextVar("name", default="")
    seen = set[str]()

    class Looks(Worker):
        async def send(self, job: Job) -> None:
            seen.add(name.get())

    async def main() -> None:
        name.set("reader")
        await _read(in_order(Jobs(5), Looks(), 2, 4))

    run(main)
    assert seen == {"reader"}


def test_thousands_of_messages_need_no_more_tasks_than_workers(run: Run) -> None:
    """And no more memory: what was read and not returned is bounded."""

    async def main() -> None:
        worker, most = Worker(), 0
        before = len(anyio.get_running_tasks())
        jobs = Jobs(3000)
        count = 0
        async for result in in_order(jobs, worker, 8, 16):
            count += result.outcome is ACCEPTED
            if count % 100 == 0:
                most = max(most, len(anyio.get_running_tasks()) - before)
        assert (count, worker.tasks) == (3000, 8)
        assert most <= 8

    run(main)


def test_a_closed_backlog_drops_what_no_worker_has_taken(run: Run) -> None:
    """Each worker learns that there are no more jobs, and what is put there later is not sent."""

    async def main() -> None:
        backlog = AsyncBacklog()
        backlog.put(_job(0))
        backlog.close()
        backlog.put(_job(1))
        assert [await backlog.next(), await backlog.next(), backlog.take()] == [None] * 3

    run(main)


def test_a_backlog_starts_the_time_of_a_job_when_it_is_taken(run: Run) -> None:
    """And a job that is put back has no time."""

    async def main() -> None:
        backlog = AsyncBacklog()
        assert backlog.take() is None
        backlog.put(_job(0))
        job = await backlog.next()
        assert job is not None
        assert job.started > 0
        backlog.put(job)
        assert job.started == 0
        assert backlog.take() is job
        assert job.started > 0

    run(main)


def test_a_pause_ends_when_its_backlog_is_closed(run: Run) -> None:
    """All workers that pause are woken; otherwise it takes its time, whatever is put there."""

    async def main() -> None:
        backlog = AsyncBacklog()
        backlog.put(_job(0))
        before = anyio.current_time()
        await backlog.pause(0.05)
        assert anyio.current_time() - before >= 0.04
        async with anyio.create_task_group() as group:
            group.start_soon(backlog.pause, 60)
            group.start_soon(backlog.pause, 60)
            await anyio.wait_all_tasks_blocked()
            backlog.put(_job(1))
            backlog.close()
        await backlog.pause(60)
        assert anyio.current_time() - before < 30

    run(main)


@pytest.mark.parametrize("rounds", thorough(60, 600))
def test_no_wake_up_is_lost_by_a_cancelled_worker(run: Run, rounds: int) -> None:
    """A worker that is cancelled at the moment it is woken passes that on: no job waits while a worker does."""

    async def main() -> None:
        for seed in range(rounds):
            choose, backlog, taken = random.Random(seed), AsyncBacklog(), list[int]()
            scopes = [anyio.CancelScope() for _ in range(4)]

            async def work(scope: anyio.CancelScope, backlog: AsyncBacklog, taken: list[int]) -> None:
                with scope:
                    while (job := await backlog.next()) is not None:
                        taken.append(job.index)

            async with anyio.create_task_group() as group:
                for scope in scopes:
                    group.start_soon(work, scope, backlog, taken)
                await anyio.wait_all_tasks_blocked()
                for number in range(8):
                    for _ in range(choose.randrange(3)):
                        backlog.put(_job(number))
                    # The first worker is never cancelled.
                    if choose.random() < 0.4:
                        scopes[choose.randrange(1, 4)].cancel()
                    for _ in range(choose.randrange(3)):
                        if (job := backlog.take()) is not None:
                            taken.append(job.index)
                    if choose.random() < 0.5:
                        await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
                assert backlog.take() is None, seed
                backlog.put(_job(8))
                await anyio.wait_all_tasks_blocked()
                assert taken[-1] == 8, seed
                backlog.close()

    run(main, limit=60 + rounds)


@pytest.mark.parametrize("rounds", thorough(60, 600))
def test_each_message_has_one_result_however_a_run_ends(run: Run, rounds: int) -> None:
    """A seeded walk: cancelled, left or closed at any moment, every message that was read has one true result."""

    async def main() -> None:
        for seed in range(rounds):
            await _one_run(random.Random(seed))

    run(main, limit=60 + rounds)


async def _one_run(choose: random.Random) -> None:
    class Slow(Worker):
        async def send(self, job: Job) -> None:
            for _ in range(choose.randrange(4)):
                await anyio.lowlevel.checkpoint()

    async def slow(_: int) -> None:
        for _ in range(choose.randrange(2)):
            await anyio.lowlevel.checkpoint()

    count, most = choose.randrange(1, 12), choose.randrange(1, 4)
    worker, jobs, read = Slow(), Jobs(count, slow), list[SendResult]()
    results = in_order(jobs, worker, most, most * choose.randrange(1, 3))

    async def reads(leave: int) -> None:
        async for result in results:
            read.append(result)
            if result.index == leave:
                break

    async def interrupted(action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(action)
            for _ in range(choose.randrange(12)):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    async def reads_in_block() -> None:
        async with results:
            await reads(choose.randrange(12))

    for _ in range(choose.randrange(4)):
        what = choose.randrange(4)
        if what == 0:
            await reads(choose.randrange(12))
        elif what == 1:
            await results.aclose()
        else:
            await interrupted(reads_in_block if what == 2 else lambda: reads(-1))
    await reads(-1)
    assert worker.running == 0
    assert [result.index for result in read] == list(range(jobs.read))
    outcomes = Counter(result.outcome for result in read)
    assert outcomes[ACCEPTED] == len(worker.ended)
    assert outcomes[UNKNOWN] == len(worker.started) - len(worker.ended)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.eager_task_factory is new in Python 3.12")
def test_eager_tasks_make_no_difference() -> None:
    """A worker then begins, and may end, inside the call that starts it."""

    async def main() -> None:
        eager: Any = vars(asyncio)["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(eager)
        worker = Worker()
        assert _outcomes(await _read(in_order(Jobs(20), worker, 3, 6))) == [(each, ACCEPTED) for each in range(20)]
        assert (worker.tasks, worker.running) == (3, 0)

        async def ends(_: AsyncBacklog) -> None:
            """End at once."""

        assert {result.outcome for result in await _read(in_order(Jobs(3), ends, 3, 6))} == {NOT_SENT}

    asyncio.run(main())
