"""The browser leaves while web_fastapi.py sends its message, or the process ends: no message or outcome is lost."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable
from typing import Final

import pytest
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

import web_fastapi
from answers import compose
from examples.serving import serving, when_logged
from examples.watched import Watched, leave, wait
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


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Count the messages that the application has begun to send."""
    begun = threading.Semaphore(0)

    def count(*arguments: str) -> object:
        begun.release()
        return compose(*arguments)

    monkeypatch.setattr(web_fastapi, "compose", count)
    return begun


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(frame, id=name, marks=[] if name == "cancels" else pytest.mark.exhaustive)
        for name, frame in FRAMES.items()
    ],
)
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


def statuses(browsers: list[socket.socket]) -> list[int | None]:
    """Read the responses, and return their statuses; None for a connection that was cut."""
    responses = []
    for browser in browsers:
        with browser, browser.makefile("rb") as stream:
            responses.append(stream.readline().split())
    return [int(response[1]) if response else None for response in responses]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the class of each error that the example has logged, sorted."""
    return sorted(record.getMessage().split()[0] for record in caplog.records if record.name == "send_email")


@pytest.mark.parametrize("seconds", [None, 0], ids=["no-limit", "limit"])
@pytest.mark.parametrize("stays", [True, False], ids=["browsers-wait", "browsers-have-left"])
def test_the_end_of_the_process_waits_for_messages(
    enter: Enter,
    composed: threading.Semaphore,
    caplog: pytest.LogCaptureFixture,
    stays: bool,  # noqa: FBT001 -- a row
    seconds: int | None,
) -> None:
    """All are sent; a browser that waits gets its response, unless uvicorn's limit ends the request first."""
    held, app = Held(enter, "CONTENT"), FRAMES["plain"]()
    # Without a limit, uvicorn waits for requests before it ends the lifespan; with one, it cancels them.
    line = "Waiting for application shutdown" if seconds == 0 else "Waiting for"
    with when_logged(line, held.released.set), serving(app, timeout_graceful_shutdown=seconds) as port:
        browsers = [browse(port, address) for address in ADDRESSES]
        wait(composed, REQUESTS)
        wait(held.asked, CONNECTIONS)
        if not stays:
            for browser in browsers:
                leave(browser, resets=False)
            wait(app.left, REQUESTS)
    if stays:
        assert statuses(browsers) == [200 if seconds is None else 500] * REQUESTS
    assert held.delivered() == ADDRESSES
    assert logged(caplog) == []


@pytest.mark.parametrize(
    ("stage", "outcomes"),
    [
        pytest.param("DATA", ["ConnectError"] * REQUESTS, id="not-sent"),
        pytest.param("CONTENT", ["ConnectError"] * 2 + ["OutcomeUnknownError"] * CONNECTIONS, id="unknown"),
    ],
)
@pytest.mark.parametrize("is_forced", [False, True], ids=["limit", "second-ctrl-c"])
def test_the_end_of_the_process_does_not_wait_for_ever(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    enter: Enter,
    composed: threading.Semaphore,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    outcomes: list[str],
    is_forced: bool,  # noqa: FBT001 -- a row
) -> None:
    """If the mail server does not reply in time, or after a second Ctrl-C, the log has the outcome of each message."""
    monkeypatch.setattr(web_fastapi, "GRACE", 0.1)
    held, app = Held(enter, stage), FRAMES["cancels"]()
    with serving(app, is_forced=is_forced) as port:
        browsers = [browse(port, address) for address in ADDRESSES]
        wait(composed, REQUESTS)
        wait(held.asked, CONNECTIONS)
        for browser in browsers:
            leave(browser, resets=False)
        wait(app.left, REQUESTS)
    held.released.set()
    assert logged(caplog) == outcomes


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
