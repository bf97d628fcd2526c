"""The wait for a reply: it ends when something can be read or the time is up, and one timer serves many waits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import anyio
import pytest

from faces import Backend
from securesmtp._transport import read_wait
from securesmtp._transport.read_wait import new_read_wait

LONG, SHORT = 60.0, 0.01
BACKENDS: list[Backend] = ["asyncio", "trio"]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wait_ends_when_something_can_be_read_or_the_time_is_up(
    pair: tuple[socket.socket, socket.socket], backend: Backend
) -> None:
    """A short wait after a long one, and a long one after a short one."""
    ours, theirs = pair

    async def waits() -> None:
        wait = new_read_wait()
        for _ in range(3):
            theirs.send(b"x")
            await wait(ours, LONG)
            assert ours.recv(2) == b"x"
            began = anyio.current_time()
            await wait(ours, SHORT)
            assert SHORT <= anyio.current_time() - began < LONG
        theirs.send(b"x")
        await wait(ours, SHORT)
        assert ours.recv(1) == b"x"
        # The timer of the wait before rings, and this one goes on.
        began = anyio.current_time()
        await wait(ours, 5 * SHORT)
        assert anyio.current_time() - began >= 5 * SHORT

    anyio.run(waits, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cancelled_wait_no_longer_watches_the_socket(
    pair: tuple[socket.socket, socket.socket], backend: Backend
) -> None:
    """The next wait is not disturbed, nor does a timer or a socket end one that nobody waits for."""
    ours, theirs = pair
    errors = list[object]()

    async def waits() -> None:
        wait = new_read_wait()
        if backend == "asyncio":
            asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with anyio.create_task_group() as group:
            group.start_soon(wait, ours, SHORT)
            await anyio.wait_all_tasks_blocked()
            theirs.send(b"x")
            if backend == "asyncio":
                # Before the loop's next look at the socket, and in the same round.
                asyncio.get_running_loop().call_soon(group.cancel_scope.cancel)
            else:
                group.cancel_scope.cancel()
        if backend == "asyncio":
            assert not asyncio.get_running_loop().remove_reader(ours)
        # Until the timer of the cancelled wait has rung.
        await anyio.sleep(2 * SHORT)
        await wait(ours, LONG)
        assert ours.recv(1) == b"x"

    anyio.run(waits, backend=backend)
    assert not errors


def test_many_waits_have_one_timer(pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set again if a wait is shorter, and when it has rung."""
    ours, theirs = pair

    async def waits() -> None:
        loop, wait, timers = asyncio.get_running_loop(), new_read_wait(), list[asyncio.TimerHandle]()

        def call_at(when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
            timers.append(asyncio.TimerHandle(when, callback, (), loop))
            return timers[-1]

        monkeypatch.setattr(loop, "call_at", call_at)
        theirs.send(b"x")
        for seconds in (LONG, LONG, LONG / 2, LONG, LONG):
            await wait(ours, seconds)
        assert [timer.cancelled() for timer in timers] == [True, False]
        # Nobody waits any more.
        timers[1]._run()
        assert len(timers) == 2
        await wait(ours, LONG)
        assert len(timers) == 3

    asyncio.run(waits())


def test_another_loop_waits_by_anyio(pair: tuple[socket.socket, socket.socket]) -> None:
    """Such as uvloop, or Windows' own loop, which cannot watch a socket."""
    ours, theirs = pair

    class Loop:
        """No selector loop."""

    async def wait() -> None:
        own = asyncio.get_running_loop()
        asyncio._set_running_loop(Loop())  # type: ignore[arg-type] # asyncio has no public way
        try:
            wait = new_read_wait()
        finally:
            asyncio._set_running_loop(own)
        assert wait is read_wait._wait_by_anyio
        theirs.send(b"x")
        await wait(ours, LONG)
        assert ours.recv(1) == b"x"

    asyncio.run(wait())
