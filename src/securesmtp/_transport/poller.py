"""
Many sends in one thread: each is a task, and all of them wait by one `poll`.

How it works: a task has the steps of a send and, while that visits a connection, those of the connection. It runs until
it must wait, and then others run. What blocks (a name lookup, a password callable) is done in a thread of its own. What
has arrived is read before a time limit counts, because all tasks stand still while a function of the caller's runs.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial as bind
from inspect import GEN_CLOSED, getgeneratorstate
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from securesmtp._interrupts import SuppressErrors, call_locked, raise_if_interrupt
from securesmtp._protocol.effects import Adapt, FetchPassword, FetchToken, Respond
from securesmtp._transport.channel import READ
from securesmtp._transport.connection import Opening
from securesmtp._transport.link import Selector
from securesmtp._transport.steps import HelperThread, Sleep
from securesmtp._transport.task import Task, Visit

if TYPE_CHECKING:
    import selectors

    from securesmtp._transport.channel import Steps
    from securesmtp._transport.connection import Connection

T = TypeVar("T")
# How often it looks what other threads want if they cannot end its wait, in seconds.
_POLL_INTERVAL = 0.02


class Poller:
    """
    Runs tasks.

    Attributes:
        tasks: Those that have not ended.
    """

    def __init__(self, on_turn: Callable[[], None], on_end: Callable[[BaseException | None], None]) -> None:
        """
        Start without tasks.

        *on_turn* is called before each wait, and may spawn tasks. *on_end* is called when a task has ended, with what
        it raised, and with an interrupt that is thrown into all tasks, before that.
        """
        self.tasks = dict[Task, None]()
        self._on_turn, self._on_end = on_turn, on_end
        # What is to be resumed, with which result or error.
        self._ready = deque[tuple[Task, object, BaseException | None]]()
        # What other threads want to be done in this one.
        self._calls = deque[Callable[[], object]]()
        self._is_waiting = False
        self._selector: selectors.BaseSelector = Selector()
        # For which events each file descriptor is watched, and the task that waits for it.
        self._watched: dict[int, int] = {}
        self._waiting = dict[int, Task]()
        # A byte from another thread ends the wait. The lock keeps it from a socket that has the number of a closed one.
        self._waker: socket.socket | None = None
        self._lock = threading.RLock()

    def spawn(self, steps: Callable[[Task], Steps[None]]) -> None:
        """Add a task that runs *steps*."""
        task = Task(steps, self.call_soon, self.resume)
        self.tasks[task] = None
        self._ready.append((task, None, None))

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call *function* in the thread that runs the tasks; any thread may call this."""
        self._calls.append(function)
        self.wake()

    def wake(self) -> None:
        """End the wait of the thread that runs the tasks, if it waits; any thread may call this."""
        if self._is_waiting:
            call_locked(self._lock, self._send_wakeup)

    def _send_wakeup(self) -> None:
        if self._waker is not None:
            # Its buffer is full of such bytes.
            with SuppressErrors(BlockingIOError):
                self._waker.send(b"\0")

    def resume(self, task: Task, result: object = None, error: BaseException | None = None) -> None:
        """Have *task* go on with *result*, or with *error*."""
        self._end_wait(task)
        self._ready.append((task, result, error))

    def _end_wait(self, task: Task) -> None:
        task.until = task.call = None
        task.end_sleep()
        if task.socket >= 0:
            self._waiting.pop(task.socket, None)
            task.socket = -1

    def run(self, is_over: Callable[[], bool]) -> None:
        """Run the tasks until *is_over* returns True; an interrupt is thrown into all of them."""
        # An interrupt may have ended the last run at any line.
        self._selector, self._watched = Selector(), {}
        for task in list(self._waiting.values()):
            self.resume(task)
        try:
            with self._wakeable() as wakeup:
                self._advance_ready()
                while not is_over():
                    self._wait(wakeup)
                    self._advance_ready()
        except BaseException as error:
            self._on_end(error)
            # They go on with nothing else.
            self._ready.clear()
            for task in list(self.tasks):
                self._end_wait(task)
                self._advance(task, None, error)
            raise

    @contextmanager
    def _wakeable(self) -> Iterator[socket.socket | None]:
        """Let other threads end a wait, by a byte to the socket that is yielded."""
        try:
            wakeup, waker = socket.socketpair()
        except OSError as error:
            raise_if_interrupt(error)
            # Too many files are open: it looks by itself what other threads want.
            yield None
            return
        with wakeup, waker:
            wakeup.settimeout(0)
            waker.settimeout(0)
            self._watch(wakeup.fileno(), READ)
            self._waker = waker
            try:
                yield wakeup
            finally:
                call_locked(self._lock, self._drop_waker)
                self._unwatch(wakeup.fileno())

    def _drop_waker(self) -> None:
        self._waker = None

    def _advance_ready(self) -> None:
        # Not those that are added meanwhile: others may have something to read.
        for _ in range(len(self._ready)):
            self._advance(*self._ready.popleft())

    def _wait(self, wakeup: socket.socket | None) -> None:
        self._is_waiting = True
        # From here on, whoever has something for this thread ends its wait.
        self._on_turn()
        while self._calls:
            self._calls.popleft()()
        limit = min((task.until for task in self.tasks if task.until is not None), default=None)
        longest = None if wakeup is not None else _POLL_INTERVAL
        if limit is not None:
            left = max(0, limit - monotonic())
            longest = left if longest is None else min(left, longest)
        found = self._selector.select(0 if self._ready else longest)
        self._is_waiting = False
        for key, _ in found:
            task = self._waiting.get(key.fd)
            if task is not None:
                self.resume(task)
            elif wakeup is not None and key.fd == wakeup.fileno():
                with SuppressErrors(BlockingIOError):
                    wakeup.recv(4096)
            else:
                # Nobody uses the connection now, or it is closed.
                self._unwatch(key.fd)
        if limit is not None and limit <= (now := monotonic()):
            for task in [task for task in self.tasks if task.until is not None and task.until <= now]:
                self._end_in_time(task)

    def _watch(self, number: int, events: int) -> None:
        # A closed socket may have left its number, which another one has now.
        if self._watched.get(number) != events:
            # The selector knows best: an interrupt may have struck before the number was noted here.
            try:
                self._selector.modify(number, events)
            except KeyError:
                self._selector.register(number, events)
            self._watched[number] = events

    def _unwatch(self, number: int) -> None:
        self._selector.unregister(number)
        self._watched.pop(number, None)

    def _end_in_time(self, task: Task) -> None:
        try:
            if task.link is not None:
                task.link.connection.patience()
        except BaseException as error:  # noqa: BLE001 -- the steps decide what it means
            self.resume(task, error=error)
        else:
            self.resume(task)

    def _advance(self, task: Task, result: object, error: BaseException | None) -> None:
        """Run *task* until it must wait, or has ended."""
        while task.frames:
            steps = task.frames[-1]
            try:
                wanted = steps.send(result) if error is None else steps.throw(error)
            except StopIteration as stop:
                _leave(task)
                result, error = stop.value, None
                continue
            except BaseException as raised:  # noqa: BLE001 -- the steps below decide what it means
                # An interrupt may strike when these steps are suspended again: then it is thrown into them.
                if getgeneratorstate(steps) == GEN_CLOSED:
                    _leave(task)
                result, error = None, raised
                continue
            result = error = None
            try:
                if self._has_to_wait(task, wanted):
                    return
                if type(wanted) is Adapt:
                    result = wanted.perform()
            except BaseException as raised:  # noqa: BLE001 -- these steps decide what it means
                error = raised
        del self.tasks[task]
        self._on_end(error)

    def _has_to_wait(self, task: Task, wanted: object) -> bool:
        """Begin what *task* wants, and return whether it is resumed later."""
        link = task.link
        match wanted:
            case Adapt():
                return False
            case Visit():
                task.link = wanted.link
                task.frames.append(wanted.link.connection.run(wanted.dialogue))
                return False
            case 0:  # PAUSE
                self._ready.append((task, None, None))
            case int() if link is not None:
                self._wait_for_socket(task, link.connection, wanted)
            case Opening() if link is not None:
                self._call_in_thread(task, link.open)
            case Sleep():
                wanted.perform()
            case FetchPassword() | FetchToken() | Respond():
                self._call_in_thread(task, wanted.perform)
            case _:  # never
                raise AssertionError(wanted)
        return True

    def _wait_for_socket(self, task: Task, connection: Connection, events: int) -> None:
        limit = monotonic() + connection.patience()
        connection.channel.acknowledge()
        number = connection.channel.connected_socket().fileno()
        self._watch(number, events)
        self._waiting[number], task.socket, task.until = task, number, limit

    def _call_in_thread(self, task: Task, function: Callable[[], object]) -> None:
        def work() -> None:
            result, error = None, None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 -- raised in the task
                error = raised
            self.call_soon(bind(self._end_call, task, work, result, error))

        task.call = work
        # A daemon: one that hangs does not keep the program alive.
        thread = HelperThread(target=copy_context().run, args=(work,), name="securesmtp: blocking", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise_if_interrupt(error)
            # For example while the interpreter shuts down.
            work()

    def _end_call(self, task: Task, call: Callable[[], object], result: object, error: BaseException | None) -> None:
        # An interrupt may have ended the wait for it.
        if task.call is call:
            self.resume(task, result, error)


def _leave(task: Task) -> None:
    task.frames.pop()
    task.link = None
