"""The browser leaves while web_fastapi.py sends its message, or the process ends: no message or outcome is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

import web_fastapi
from answers import compose
from examples.serving import App, serving
from examples.worlds import PASSWORD, WORLDS, Enter
from scripted import Peer, honest

# What the mail server replies at each stage, when it is released.
REPLIES: Final = {
    "TLS": b"",
    "GREETING": b"220 mx.test\r\n",
    "EHLO": b"250-mx.test\r\n250 AUTH PLAIN\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go\r\n",
    "CONTENT": b"250 2.0.0 queued\r\n",
}
# The mailer's connections, and requests: two of them wait for a connection.
CONNECTIONS, REQUESTS = 4, 6
ADDRESSES = [f"you{number}@example.net" for number in range(REQUESTS)]


class Held:
    """A mail server that waits at one stage of each connection until it is released."""

    def __init__(self, enter: Enter, stage: str) -> None:
        self.asked, self.released = threading.Semaphore(0), threading.Event()
        self._reply = REPLIES[stage]
        alive = honest(auth=("me", PASSWORD), replies={stage: self._wait})

        def script(peer: Peer) -> None:
            if stage == "TLS":
                self._wait(peer, b"")
            alive(peer)

        self.server = enter(WORLDS["normal"], script)

    def _wait(self, peer: Peer, octets: bytes) -> bytes:
        self.asked.release()
        self.released.wait(30)
        return self._reply

    def delivered(self) -> list[str]:
        """Return the recipients of what was accepted, sorted."""
        self.server.joined()
        return sorted(message.recipients[0].decode()[9:-1] for message in self.server.accepted)


class Watched:
    """An application; the test sees when a browser has left. Like Django, it may cancel the request then."""

    def __init__(self, app: App, *, cancels: bool) -> None:
        self.left = threading.Semaphore(0)
        self._app, self._cancels = app, cancels

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
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


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Do nothing; Starlette runs such an application in a task of its own, which it may cancel."""
    return await call_next(request)


FRAMES = {
    "plain": lambda: Watched(web_fastapi.app, cancels=False),
    "middleware": lambda: Watched(BaseHTTPMiddleware(web_fastapi.app, pass_on), cancels=False),
    "cancels": lambda: Watched(web_fastapi.app, cancels=True),
}


def browse(port: int, address: str) -> socket.socket:
    """Post a message, and do not wait for the response."""
    body = json.dumps({"to": address, "subject": "Hello", "body": "Is it there?"}).encode()
    browser = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = b"POST /send-email HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    browser.sendall(head % len(body) + body)
    return browser


def leave(browser: socket.socket, *, resets: bool) -> None:
    """Close the connection by FIN or by RST."""
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", resets, 0))
    browser.close()


def wait(semaphore: threading.Semaphore, times: int) -> None:
    """Wait until it was released that often."""
    for _ in range(times):
        assert semaphore.acquire(timeout=30)


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Count the messages that the application has begun to send."""
    begun = threading.Semaphore(0)

    def count(*arguments: str) -> object:
        begun.release()
        return compose(*arguments)

    monkeypatch.setattr(web_fastapi, "compose", count)
    return begun


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("stage", REPLIES)
def test_each_message_is_sent_once_although_its_browser_leaves(
    enter: Enter,
    composed: threading.Semaphore,
    caplog: pytest.LogCaptureFixture,
    stage: str,
    frame: Callable[[], Watched],
) -> None:
    """At each stage, and while the message waits for a connection; also if the web server cancels the request."""
    held, app = Held(enter, stage), frame()
    with serving(app) as port:
        browsers = [browse(port, address) for address in ADDRESSES]
        wait(composed, REQUESTS)
        wait(held.asked, CONNECTIONS)
        for number, browser in enumerate(browsers):
            leave(browser, resets=number % 2 == 0)
        wait(app.left, REQUESTS)
        held.released.set()
    assert held.delivered() == ADDRESSES
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_request_that_is_cut_sends_nothing(enter: Enter, caplog: pytest.LogCaptureFixture) -> None:
    """The browser leaves before its request is complete."""
    held, app = Held(enter, "CONTENT"), FRAMES["plain"]()
    with serving(app) as port:
        for resets in (False, True):
            browser = socket.create_connection(("127.0.0.1", port), timeout=30)
            browser.sendall(b"POST /send-email HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            leave(browser, resets=resets)
            wait(app.left, 1)
    assert held.server.connections == []
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
