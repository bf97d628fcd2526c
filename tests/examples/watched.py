"""Browsers that leave, and an application that notices."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from examples.serving import App


class Watched:
    """An application; the test sees when a browser has left. Like Django, it may cancel the request then."""

    def __init__(self, app: App, *, cancels: bool) -> None:
        self.left = threading.Semaphore(0)
        self._app, self._cancels = app, cancels

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        messages: asyncio.Queue[Any] = asyncio.Queue()

        async def watch() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                messages.put_nowait(message)
            messages.put_nowait(message)
            if self._cancels:
                running.cancel()
            self.left.release()

        running = asyncio.ensure_future(self._app(scope, messages.get, send))
        watching = asyncio.ensure_future(watch())
        await asyncio.wait([running])
        # If it is not done, the browser has waited for its response.
        assert running.cancelled() == (self._cancels and watching.done())
        watching.cancel()


def leave(browser: socket.socket, *, resets: bool) -> None:
    """Close the connection by FIN or by RST."""
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", resets, 0))
    browser.close()


def wait(semaphore: threading.Semaphore, times: int) -> None:
    """Wait until it was released that often."""
    for _ in range(times):
        assert semaphore.acquire(timeout=30)
