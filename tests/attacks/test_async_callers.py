"""What the caller's own functions do to an async mailer: they hang, raise interrupts, send, and close the mailer."""

from __future__ import annotations

import io
import threading
from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest

from conftest import AsyncMailer, Run, Serve
from leaks import shown
from scripted import Peer, honest
from securesmtp import (
    AsyncSecureMailer,
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    Event,
    OAuth2,
    Receipt,
    SecureSMTPError,
)
from securesmtp.events import Closed, Failed
from tasks import happens, slots_in_use
from tokens import Grants

PASSWORD = "hunter2secret"
SMALL = b"Subject: x\r\n\r\nx\r\n"
LARGE = SMALL + b"x\r\n" * 100_000


class HangingFile(io.BytesIO):
    """A file on a server that does not answer."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.is_read, self.goes_on = threading.Event(), threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        self.is_read.set()
        self.goes_on.wait(20)
        return super().read(size)


@pytest.fixture
def file() -> Iterator[HangingFile]:
    """Return a file that ends at the end of the test."""
    hanging = HangingFile()
    yield hanging
    hanging.goes_on.set()


async def send(mailer: AsyncSecureMailer, data: bytes | HangingFile = SMALL, deadline: float | None = None) -> Receipt:
    """Send a message."""
    return await mailer.send_bytes(data, mail_from="a@b.example", recipients=["c@d.example"], deadline=deadline)


async def ends(file: HangingFile, mailer: AsyncSecureMailer) -> None:
    """Have *file* end, and wait for its thread; nobody gets what that has read, but its temporary file is closed."""
    file.goes_on.set()
    await mailer._pool.files.run(bool, "test")


async def in_time(function: Callable[[], Awaitable[None]]) -> None:
    """Call *function*, which must not hang."""
    with anyio.fail_after(10):
        await function()


def test_a_deadline_holds_while_a_file_hangs(
    run: Run, serve: Serve, async_mailer: AsyncMailer, file: HangingFile
) -> None:
    """Nothing can end the thread that reads it, but the send ends, with its event, and leaves its slot to the next."""
    events = list[Event]()
    mailer = async_mailer(serve(honest()), max_connections=1, on_event=events.append)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError, match="building the message"):
            await send(mailer, file, deadline=0.2)
        assert [type(event) for event in events] == [Failed]
        # It waits for the thread that reads the first one.
        with pytest.raises(DeadlineExceededError, match="building the message"):
            await send(mailer, HangingFile(), deadline=0.2)
        await send(mailer, LARGE)
        await mailer.close()
        await ends(file, mailer)

    run(in_time, main)


def test_an_abort_ends_the_wait_for_a_file(
    run: Run, serve: Serve, async_mailer: AsyncMailer, file: HangingFile
) -> None:
    """`close` would wait for that send without end."""
    events = list[Event]()
    mailer = async_mailer(serve(honest()), on_event=events.append)

    async def fails() -> None:
        with pytest.raises(SecureSMTPError, match="the mailer was closed"):
            await send(mailer, file)

    async def main() -> None:
        await send(mailer)
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
            await happens(file.is_read)
            await mailer.close(abort=True)
        await ends(file, mailer)

    run(in_time, main)
    assert isinstance(events[-1], Failed | Closed)
    assert sum(isinstance(event, Failed) for event in events) == 1


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_a_deadline_holds_while_a_password_is_awaited(
    run: Run, serve: Serve, async_mailer: AsyncMailer, kind: str
) -> None:
    """The error is that of the deadline, as in the sync mailer, not one of the callable."""
    goes_on = threading.Event()

    def hangs() -> str:
        goes_on.wait(20)
        return PASSWORD

    async def hangs_too() -> str:
        await anyio.sleep_forever()
        return PASSWORD

    password = hangs if kind == "function" else hangs_too
    mailer = async_mailer(serve(honest(auth=("me", PASSWORD))), username="me", password=password)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError, match="waiting for the password callable"):
            await send(mailer, deadline=0.2)

    try:
        run(in_time, main)
    finally:
        goes_on.set()


def test_a_callable_that_has_sent_is_still_inside_its_send(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """Otherwise `close` in it would wait for the very send that waits for it."""
    calls = list[int]()

    async def password() -> str:
        calls.append(1)
        if len(calls) == 1:
            await send(mailer)
            await mailer.close()
        return PASSWORD

    mailer = async_mailer(serve(honest(auth=("me", PASSWORD))), username="me", password=password, max_connections=2)

    async def main() -> None:
        await send(mailer)
        with pytest.raises(ConfigurationError, match="closed"):
            await send(mailer)

    run(in_time, main)
    assert len(calls) == 2


class Stop(BaseException):
    """What ends a program."""


def test_an_interrupt_of_on_event_wakes_those_who_wait(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """In the clean-up of a send, which has no connection any more; `close` ends, too."""
    interrupts = [Stop()]

    def on_event(event: Event) -> None:
        if isinstance(event, Closed) and interrupts:
            raise interrupts.pop()

    def resets(peer: Peer, _: bytes) -> bytes:
        peer.reset()
        return b""

    server = serve(honest(replies={"MAIL": resets}), honest())
    mailer = async_mailer(server, max_connections=1, on_event=on_event)
    ends = list[type[BaseException] | None]()

    async def sends() -> None:
        try:
            await send(mailer)
        except (SecureSMTPError, Stop) as error:
            ends.append(type(error))
        else:
            ends.append(None)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(sends)
        assert slots_in_use(mailer) == 0
        await mailer.close()

    run(in_time, main)
    assert (ends.count(Stop), ends.count(None)) == (1, 2)


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_whatever_a_token_callable_raises_is_an_error_of_those_who_wait(
    run: Run, serve: Serve, async_mailer: AsyncMailer, kind: str
) -> None:
    """It runs in a task of the loop itself: trio would end the whole program (TrioInternalError)."""

    def token() -> str:
        raise Stop

    async def token_async() -> str:
        raise Stop

    source = token if kind == "function" else token_async
    mailer = async_mailer(serve(Grants("token").script()), auth=OAuth2("me", source))

    async def main() -> None:
        with pytest.raises(AuthenticationError, match="Stop"):
            await send(mailer)
        await mailer.close()

    run(in_time, main)


@pytest.mark.parametrize("kind", ["function", "coroutine function", "callable object"])
def test_no_frame_of_an_error_has_what_a_callable_returned(
    run: Run, serve: Serve, async_mailer: AsyncMailer, kind: str
) -> None:
    """Not even where `on_event` sees it, before the internal frames are hidden."""
    wrong, seen = f"{PASSWORD}\0", list[str]()

    async def fetch_async() -> str:
        return wrong

    class Vault:
        async def __call__(self) -> str:
            return wrong

    def on_event(event: Event) -> None:
        if isinstance(event, Failed):
            seen.append(shown(event.error))

    sources = {"function": lambda: wrong, "coroutine function": fetch_async, "callable object": Vault()}
    server = serve(honest(auth=("me", PASSWORD)))
    mailer = async_mailer(server, username="me", password=sources[kind], on_event=on_event)

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="NUL"):
            await send(mailer)

    run(in_time, main)
    assert len(seen) == 1
    assert PASSWORD not in seen[0]


def test_no_frame_of_a_cancellation_has_what_comes_later(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """The thread that was abandoned gives its result to a list in one of them."""
    is_called, goes_on, threads = threading.Event(), threading.Event(), list[threading.Thread]()
    found = list[str]()

    def password() -> str:
        threads.append(threading.current_thread())
        is_called.set()
        goes_on.wait(20)
        return PASSWORD

    mailer = async_mailer(serve(honest(auth=("me", PASSWORD))), username="me", password=password)

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(sends)
                await happens(is_called)
                scope.cancel()

    async def sends() -> None:
        try:
            await send(mailer)
        except anyio.get_cancelled_exc_class() as interrupt:
            goes_on.set()
            threads[0].join(10)
            found.append(shown(interrupt))
            raise

    run(in_time, main)
    assert len(found) == 1
    assert PASSWORD not in found[0]
