"""The driver of a connection in one task: it waits by anyio, on asyncio or trio."""

from __future__ import annotations

import socket
from functools import partial as bind
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from securesmtp._protocol.effects import Adapt, FetchPassword, FetchToken, Respond
from securesmtp._transport.async_hook import await_hook
from securesmtp._transport.channel import PAUSE, READ, WRITE, WaitForAny, aborted_error
from securesmtp._transport.connection import Connection, Opening
from securesmtp._transport.read_wait import new_read_wait
from securesmtp._transport.waiting import within

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from securesmtp._protocol.effects import Dialogue
    from securesmtp._protocol.redaction import Memory
    from securesmtp._protocol.wire import RawReply
    from securesmtp._secret import Secret
    from securesmtp._settings import Settings
    from securesmtp._transport.addresses import AddressInfo
    from securesmtp._transport.async_hook import AsyncConnect
    from securesmtp._transport.channel import Steps
    from securesmtp._transport.threads import Threads

T = TypeVar("T")
Wanted: TypeAlias = int | WaitForAny | FetchPassword | FetchToken | Adapt | Respond | Opening
# Serialising so many bytes takes a few milliseconds; starting a thread 0.1 (measured).
LARGE = 1 << 18


class AsyncLink:
    """One connection to the configured server; it is opened once, and no caller gets it."""

    def __init__(
        self, settings: Settings, context: ssl.SSLContext, memory: Memory, lookups: Threads, messages: Threads
    ) -> None:
        """Start unconnected; names are looked up in *lookups*, and large messages are serialised in *messages*."""
        self.connection = Connection(settings, context, memory)
        self._settings = settings
        self._lookups = lookups
        self._messages = messages
        self._wait_for_read = new_read_wait()
        # Of a wait that a shutdown of the socket does not end.
        self._scope: anyio.CancelScope | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self.connection.is_open

    @property
    def is_usable(self) -> bool:
        """Whether its last dialogue ended cleanly, and the server has not said that it closes."""
        return self.connection.is_usable

    async def run(self, dialogue: Dialogue[T]) -> T:
        """Perform *dialogue* and return its value; the cancellation of the task is an interrupt (`Connection.run`)."""
        return await self._drive(self.connection.run(dialogue))

    def close_gracefully(self, dialogue: Dialogue[None]) -> None:
        """Run the last *dialogue* if the session is usable and as far as it needs no wait, and close."""
        steps = self.connection.close_gracefully(dialogue)
        next(steps, None)
        steps.close()

    def is_idle(self) -> bool:
        """Return whether the connection can carry another message."""
        return self.connection.is_idle()

    def abort(self) -> None:
        """Shut the connection down from another task: a wait for it ends, and the task that uses it closes it."""
        self.connection.channel.abort()
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        """Close the socket; nothing is sent."""
        self.connection.close()

    # What waits.

    async def _drive(self, steps: Steps[T]) -> T:
        try:
            wanted = next(steps)
            while True:
                try:
                    result = await self._wait(wanted)
                except BaseException as error:  # noqa: BLE001 -- the connection decides what it means
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value
        except BaseException as error:  # noqa: BLE001 -- raised again
            # An interrupt between two steps ends the steps, which raise it; so do steps that have ended already.
            raise steps.throw(error) from None

    async def _wait(self, wanted: Wanted) -> object:
        """Do what the steps ask for, and return what they are resumed with."""
        match wanted:
            case int():
                await (self._wait_for_socket(wanted) if wanted != PAUSE else checkpoint())
                return None
            case WaitForAny():
                return await self._wait_for_any(wanted)
            case FetchPassword() | FetchToken():
                return await self._fetch_secret(wanted)
            case Adapt() if wanted.submission.content.size < LARGE:
                return wanted.perform()
            case Adapt() | Respond():
                # A million iterations of SCRAM take up to 0.8 s (measured).
                return await self._messages.run(wanted.perform, f"securesmtp: {type(wanted).__name__.lower()}")
            case _:
                return await self._open()

    async def _wait_for_socket(self, events: int) -> None:
        connection = self.connection
        patience, sock = connection.patience(), connection.channel.connected_socket()
        connection.channel.acknowledge()
        if events == READ:
            await self._wait_for_read(sock, patience)
        else:
            with anyio.move_on_after(patience):
                if events == WRITE:
                    await anyio.wait_writable(sock)
                else:
                    await _wait_for_first([(anyio.wait_readable, sock), (anyio.wait_writable, sock)])
        connection.patience()

    async def _wait_for_any(self, wanted: WaitForAny) -> list[socket.socket]:
        patience, ready = self.connection.patience(), list[socket.socket]()
        with anyio.move_on_after(patience if wanted.delay is None else min(patience, wanted.delay)):
            await _wait_for_first([(anyio.wait_writable, sock) for sock in wanted.sockets], ready)
        # In the order of the addresses: trio wakes tasks of one moment in random order.
        return [sock for sock in wanted.sockets if sock in ready]

    async def _open(self) -> RawReply:
        connection = self.connection
        if self._settings.connect is not None:
            await self._drive(connection.adopt(await self._call_hook(self._settings.connect)))
        else:
            await self._drive(connection.connect(await self._look_up()))
        return await self._drive(connection.greet())

    async def _call_hook(self, connect: AsyncConnect) -> object:
        host, port, patience = self._settings.host, self._settings.port, self.connection.patience
        hook = bind(within, patience, bind(await_hook, connect, host, port, patience()))
        return await self._until_aborted(hook)

    async def _look_up(self) -> Sequence[AddressInfo]:
        place = self._settings.proxy or self._settings
        host, port = place.host, place.port

        def look_up(flags: int = 0) -> Sequence[AddressInfo]:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)

        try:
            return look_up(socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass
        look_up_in_thread = bind(self._lookups.run, look_up, "securesmtp: look up a name")
        return await self._until_aborted(bind(within, self.connection.patience, look_up_in_thread))

    async def _fetch_secret(self, wanted: FetchPassword | FetchToken) -> Secret:
        source = wanted.source
        if not callable(source):
            return wanted.perform()
        # A coroutine function of `AsyncPool`, which calls the caller's.
        secret = await self._until_aborted(source)
        return type(wanted)(lambda: secret).perform()

    async def _until_aborted(self, action: Callable[[], Awaitable[T]]) -> T:
        """Return what *action* returns; `abort` cancels it."""
        with anyio.CancelScope() as self._scope:
            return await action()
        raise aborted_error()


async def _wait_for_first(
    waits: list[tuple[Callable[[socket.socket], Awaitable[None]], socket.socket]],
    ready: list[socket.socket] | None = None,
) -> None:
    """Wait until one of *waits* ends, and add its socket to *ready*."""
    async with anyio.create_task_group() as group:

        async def wait(ready_for: Callable[[socket.socket], Awaitable[None]], sock: socket.socket) -> None:
            await ready_for(sock)
            if ready is not None:
                ready.append(sock)
            group.cancel_scope.cancel()

        for ready_for, sock in waits:
            group.start_soon(wait, ready_for, sock)
