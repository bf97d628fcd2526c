"""The applications of docs/how-to/web-frameworks.md: real requests to their servers, real TLS to a mail server."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import re
import signal
import socket
import threading
from email.message import EmailMessage
from http.client import HTTPConnection
from types import ModuleType
from typing import Any

import pytest

import outbox
import web_litestar
import web_starlette
from examples.serving import EXAMPLES, App, process, serving, when_logged
from examples.watched import Watched, leave, wait
from examples.worlds import PASSWORD, WORDS, WORLDS, Enter
from scripted import Peer, honest

PAGE = (EXAMPLES.parent / "how-to/web-frameworks.md").read_text("utf-8")
# More than the mailer has connections: two wait for one.
REQUESTS, CONNECTIONS = 6, 4
APPS: dict[str, App] = {"starlette": web_starlette.app, "litestar": web_litestar.app}


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest) -> App:
    """Run the test with each framework."""
    return APPS[request.param]


class Observed:
    """The application's sends; the test sees when one begins and when it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.ended = threading.Semaphore(0), threading.Semaphore(0)
        send = outbox.Outbox.send

        async def observe(box: outbox.Outbox, message: EmailMessage) -> outbox.Answer:
            sending = asyncio.ensure_future(send(box, message))
            await asyncio.sleep(0)  # `send` has made its task
            self.begun.release()
            answer = await sending
            self.ended.release()
            return answer

        monkeypatch.setattr(outbox.Outbox, "send", observe)


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> Observed:
    """Observe the application's sends."""
    return Observed(monkeypatch)


def post(port: int, number: int = 7) -> tuple[int, Any]:
    """Confirm an order; return the status and the JSON."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", f"/orders/{number}/confirm")
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def begin(port: int) -> socket.socket:
    """Confirm an order, and do not wait for the response."""
    browser = socket.create_connection(("127.0.0.1", port), timeout=30)
    browser.sendall(b"POST /orders/7/confirm HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    return browser


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the examples have logged."""
    return [record.getMessage() for record in caplog.records if record.name == "outbox"]


class Held:
    """A mail server that waits before it replies to the content, until it is released."""

    def __init__(self, enter: Enter) -> None:
        self.asked, self.released = threading.Semaphore(0), threading.Event()
        self.server = enter(WORLDS["normal"], honest(auth=("me", PASSWORD), replies={"CONTENT": self._wait}))

    def _wait(self, peer: Peer, octets: bytes) -> bytes:
        self.asked.release()
        self.released.wait(30)
        return b"250 2.0.0 queued\r\n"


def test_each_outcome_has_its_status(enter: Enter, app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Over one connection: accepted, refused, refused temporarily; the log has the server's words, the client not."""
    codes = iter([b"250 ok\r\n", b"550 5.1.1 zebra\r\n", b"451 4.7.1 zebra\r\n"])
    server = enter(WORLDS["normal"], honest(auth=("me", PASSWORD), replies={"RCPT": lambda peer, line: next(codes)}))
    with serving(app) as port:
        answers = [post(port, number) for number in range(3)]
    assert [status for status, _ in answers] == [200, 502, 503]
    assert answers[0][1]["message_id"].endswith("@example.com>")
    assert [body for _, body in answers[1:]] == [{"outcome": "refused"}] * 2
    assert [line.count(WORDS) for line in logged(caplog)] == [1, 1]
    server.joined()
    assert (len(server.accepted), len(server.connections)) == (1, 1)


def test_each_message_is_sent_although_its_client_leaves(enter: Enter, app: App) -> None:
    """Also those that still wait for a connection, and although the web server cancels the requests."""
    held, watched = Held(enter), Watched(app, cancels=True)
    with serving(watched) as port:
        browsers = [begin(port) for _ in range(REQUESTS)]
        wait(held.asked, CONNECTIONS)
        for browser in browsers:
            leave(browser, resets=False)
        wait(watched.left, REQUESTS)
        held.released.set()
    held.server.joined()
    assert len(held.server.accepted) == REQUESTS


def test_the_process_waits_for_its_messages(enter: Enter, app: App, observed: Observed) -> None:
    """It cancels the requests when its own limit expires; their messages are sent, also those without a connection."""
    held = Held(enter)
    end = when_logged("Waiting for application shutdown", held.released.set)
    with contextlib.ExitStack() as browsers, end, serving(app, timeout_graceful_shutdown=0) as port:
        for _ in range(REQUESTS):
            browsers.enter_context(begin(port))
        wait(observed.begun, REQUESTS)
        wait(held.asked, CONNECTIONS)
    held.server.joined()
    assert len(held.server.accepted) == REQUESTS


def test_the_process_ends_although_the_mail_server_does_not_reply(
    enter: Enter, app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the deadline, and the log says what became of each message."""
    monkeypatch.setattr(outbox, "DEADLINE", 2)
    held, watched = Held(enter), Watched(app, cancels=True)
    with serving(watched) as port:
        browser = begin(port)
        wait(held.asked, 1)
        leave(browser, resets=False)
        wait(watched.left, 1)
    held.released.set()
    (line,) = logged(caplog)
    assert re.match(r"<\S+@example\.com> is unknown: ", line)


def test_a_second_ctrl_c_logs_what_became_of_each_message(
    enter: Enter, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """It cancels the tasks of the outbox, too."""
    held, watched = Held(enter), Watched(app, cancels=True)
    with serving(watched, is_forced=True) as port:
        browser = begin(port)
        wait(held.asked, 1)
        leave(browser, resets=False)
        wait(watched.left, 1)
    held.released.set()
    (line,) = logged(caplog)
    assert line.startswith("cancelled: localhost:")


@pytest.mark.parametrize(
    "command",
    [
        # The other tests run its application, so that one process is enough.
        pytest.param(command, marks=pytest.mark.exhaustive if "starlette" in command else ())
        for command in re.findall(r"^python -m (.*)", PAGE, re.MULTILINE)
    ],
)
def test_the_commands_of_the_page_serve(enter: Enter, command: str) -> None:
    """On SIGTERM the process ends, and the mail server gets QUIT."""
    server = enter(WORLDS["normal"])
    with process(["-m", *command.split(), "--port=0"]) as web:
        assert post(web.port)[0] == 200
        web.process.send_signal(signal.SIGTERM)
        assert web.process.wait(30) == -signal.SIGTERM
    server.joined()
    (log,) = server.connections
    assert log.secret.endswith(b"QUIT\r\n")


def test_a_request_whose_client_leaves_goes_on(enter: Enter, app: App, observed: Observed) -> None:
    """Under uvicorn."""
    held, watched = Held(enter), Watched(app, cancels=False)
    with serving(watched) as port:
        browser = begin(port)
        wait(held.asked, 1)
        leave(browser, resets=False)
        wait(watched.left, 1)
        held.released.set()
        wait(observed.ended, 1)


def test_the_pages_factory_keeps_one_mailer_for_each_application(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of its requests use one connection, and the exit function closes it; two applications share nothing."""
    server = enter(WORLDS["normal"])
    (code,) = re.findall(
        r"<!-- run by: test_the_pages_factory_keeps_one_mailer_for_each_application -->\n```python\n(.*?)```",
        PAGE,
        re.DOTALL,
    )
    shop = ModuleType("shop")
    with contextlib.ExitStack() as at_exit:
        monkeypatch.setattr(atexit, "register", at_exit.callback)
        exec(compile(code, "web-frameworks.md", "exec"), vars(shop))  # noqa: S102 -- our own page
        apps = [shop.create_app(), shop.create_app()]
        assert len({app.extensions["mailer"] for app in apps}) == 2
        client = apps[0].test_client()
        answers = [client.post(f"/orders/{number}/confirm") for number in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    server.joined()
    (log,) = server.connections
    assert log.secret.endswith(b"QUIT\r\n")
    assert len(server.accepted) == 2
