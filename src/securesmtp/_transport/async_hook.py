"""
The caller's async function that opens a connection.

How it works: a connection reads and writes one socket. A stream that is not one is joined to a pair of sockets: a task
of the event loop copies in both directions until either side ends.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial as bind
from inspect import isawaitable
from typing import TypeAlias

import anyio
from anyio.abc import ByteStream

from securesmtp._transport.event_loop import current_loop
from securesmtp._transport.hook import hook_error
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError, SecureSMTPError

# What is called with the host, the port and the seconds that are left.
AsyncConnect: TypeAlias = Callable[[str, int, float], Awaitable[socket.socket | ByteStream]]
_CHUNK = 65536


async def await_hook(connect: AsyncConnect, host: str, port: int, seconds: float) -> object:
    """
    Return what *connect* returns; a socket in place of a stream.

    Raises:
        ConnectError: It raised an exception, which is the cause.
        ConfigurationError: It is not an async function.
    """
    try:
        awaitable: object = connect(host, port, seconds)
        found: object = (await awaitable) if isawaitable(awaitable) else None
    except SecureSMTPError:
        raise
    except Exception as error:
        raise hook_error(error) from error
    if found is None:
        if isinstance(awaitable, socket.socket):
            awaitable.close()
        message = f"connect returned a {type(awaitable).__name__}, which cannot be awaited, or None"
        raise ConfigurationError(message, stage=Stage.CONNECT, hint="write async def, and return a connected socket")
    return await _join(found) if isinstance(found, ByteStream) else found


async def _join(stream: ByteStream) -> socket.socket:
    """Return a socket that reads and writes what *stream* does."""
    try:
        ours, theirs = socket.socketpair()
    except OSError:  # too many files are open
        await anyio.aclose_forcefully(stream)
        raise
    theirs.settimeout(0)
    # Closed even if the task is cancelled before it has begun.
    current_loop().spawn(bind(_copy, stream, theirs), "securesmtp: copy a stream", theirs.close)
    return ours


async def _copy(stream: ByteStream, sock: socket.socket) -> None:
    try:
        # Whatever ends the stream, the connection sees the end of its socket.
        with suppress(Exception):
            async with anyio.create_task_group() as group:
                group.start_soon(_download, stream, sock)
                await _upload(stream, sock)
                group.cancel_scope.cancel()
    finally:
        with suppress(Exception):
            await anyio.aclose_forcefully(stream)


async def _upload(stream: ByteStream, sock: socket.socket) -> None:
    while True:
        await anyio.wait_readable(sock)
        data = sock.recv(_CHUNK)
        if not data:
            return
        await stream.send(data)


async def _download(stream: ByteStream, sock: socket.socket) -> None:
    with suppress(anyio.EndOfStream):
        while True:
            data = memoryview(await stream.receive(_CHUNK))
            while data:
                await anyio.wait_writable(sock)
                data = data[sock.send(data) :]
    sock.shutdown(socket.SHUT_WR)
