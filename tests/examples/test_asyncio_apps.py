"""The applications that docs/how-to/asyncio.md prints, and what it says about web servers: real requests to uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.urls import clear_url_caches, path
from fastapi import FastAPI

from conftest import Serve
from django_settings import URLS, configure
from examples.conftest import AsPrinted
from examples.serving import EXAMPLES, App, process, serving, when_logged
from examples.watched import Watched, leave, wait
from scripted import Answer, Peer, Script, honest

PAGE = (EXAMPLES.parent / "how-to/asyncio.md").read_text("utf-8")
# Makes Django's application with a view at /confirm.
MakeDjango = Callable[[Any], App]


def printed(test: str) -> str:
    """Return the block of the page that this test runs."""
    (code,) = re.findall(rf"<!-- run by: {test} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def load(test: str) -> dict[str, Any]:
    """Run this block, and return its names."""
    module = ModuleType("app")
    exec(compile(printed(test), "asyncio.md", "exec"), vars(module))  # noqa: S102 -- our own page
    return vars(module)


@pytest.fixture
def django_app(monkeypatch: pytest.MonkeyPatch) -> MakeDjango:
    """Return a function that makes Django's application with a view at /confirm."""
    configure()

    def make(view: Any) -> App:
        urls = ModuleType(URLS)
        urls.urlpatterns = [path("confirm", view)]  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, URLS, urls)
        clear_url_caches()
        application: App = get_asgi_application()
        return application

    return make


def post(port: int, where: str) -> tuple[int, Any]:
    """Post an empty request; return the status and the JSON."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", where)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def begin(port: int, where: str) -> socket.socket:
    """Post an empty request, and do not wait for the response."""
    browser = socket.create_connection(("127.0.0.1", port), timeout=30)
    browser.sendall(f"POST {where} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    return browser


def server_with(**replies: Answer) -> Script:
    """Return the script of a mail server that the page's login opens."""
    return honest(auth=("me", "secret"), replies=replies)


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """Run the test with both event loops that uvicorn has."""
    chosen: str = request.param
    if chosen == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop has no wheel for this Python")
    return chosen


def test_the_pages_application_sends(as_printed: AsPrinted, caplog: pytest.LogCaptureFixture, loop: str) -> None:
    """All requests use one connection; a refusal has the status that the application gives it, and is logged."""
    codes = iter([b"250 ok\r\n", b"250 ok\r\n", b"550 5.1.1 zebra\r\n", b"451 4.7.1 zebra\r\n"])
    server = as_printed(server_with(RCPT=lambda peer, line: next(codes)))
    with serving(load("test_the_pages_application_sends")["app"], loop=loop) as port:
        answers = [post(port, f"/orders/{number}/confirm") for number in range(4)]
    assert [status for status, _ in answers] == [200, 200, 502, 503]
    assert all("@example.com>" in body["message_id"] for _, body in answers[:2])
    assert [body for _, body in answers[2:]] == [{"detail": {"outcome": "refused"}}] * 2
    logged = [record.getMessage() for record in caplog.records if record.name == "shop"]
    assert [(line.partition(":")[0], line.count("zebra")) for line in logged] == [("order 2", 1), ("order 3", 1)]
    server.joined()
    assert (len(server.accepted), len(server.connections)) == (2, 1)


def test_the_pages_commands_run_its_application(serve: Serve, ca_file: Path, tmp_path: Path) -> None:
    """In a folder that has only it and the password; on SIGTERM the process ends, and the mail server gets QUIT."""
    commands = printed("test_the_pages_commands_run_its_application")
    exported = dict(re.findall(r"(SMTP_\w+)=(\S+)", commands))
    server = serve(server_with())
    exported |= {"SMTP_HOST": "localhost", "SMTP_PORT": str(server.port), "SMTP_CA_FILE": str(ca_file)}
    (tmp_path / "app.py").write_text(printed("test_the_pages_application_sends"), "utf-8")
    (tmp_path / exported["SMTP_PASSWORD_FILE"]).write_text("secret\n", "utf-8")
    (command,) = re.findall(r"^python (.*)", commands, re.MULTILINE)
    (where,) = re.findall(r"^curl -X POST http://127.0.0.1:8000(\S+)", commands, re.MULTILINE)
    with process([*command.split(), "--port=0"], exported, tmp_path) as web:
        assert post(web.port, where)[0] == 200
        web.process.send_signal(signal.SIGTERM)
        assert web.process.wait(30) == -signal.SIGTERM
    server.joined()
    (log,) = server.connections
    assert log.secret.endswith(b"QUIT\r\n")


class Tasks(set[object]):
    """The tasks of an application; the test sees when one was added."""

    def __init__(self) -> None:
        super().__init__()
        self.added = threading.Semaphore(0)

    def add(self, task: object) -> None:
        super().add(task)
        self.added.release()


class Slow:
    """A mail server that waits before it wants the content."""

    def __init__(self, as_printed: AsPrinted) -> None:
        self.asked, self.released = threading.Semaphore(0), threading.Event()
        self.server = as_printed(server_with(DATA=self._wait))

    def _wait(self, peer: Peer, line: bytes) -> bytes:
        self.asked.release()
        self.released.wait(30)
        return b"354 go\r\n"


@pytest.mark.parametrize("leaves", [True, False], ids=["client-leaves", "process-ends"])
def test_the_pages_application_loses_no_message(as_printed: AsPrinted, loop: str, leaves: bool) -> None:  # noqa: FBT001
    """If clients leave and their requests are cancelled, or the process ends, their messages are sent."""
    slow, names, tasks = Slow(as_printed), load("test_the_pages_application_sends"), Tasks()
    names["tasks"] = tasks
    app = Watched(names["app"], cancels=leaves)
    # With the limit 0, uvicorn cancels the requests when it shuts down.
    end = when_logged("Waiting for application shutdown", slow.released.set)
    with contextlib.ExitStack() as browsers, end, serving(app, loop=loop, timeout_graceful_shutdown=0) as port:
        for number in range(6):
            browser = browsers.enter_context(begin(port, f"/orders/{number}/confirm"))
            wait(tasks.added, 1)
            if leaves:
                leave(browser, resets=False)
                wait(app.left, 1)
        # Two more wait for a connection.
        wait(slow.asked, 4)
    slow.server.joined()
    assert len(slow.server.accepted) == 6


def test_a_django_view_sends_although_its_browser_leaves(as_printed: AsPrinted, django_app: MakeDjango) -> None:
    """Django cancels the view; its message is sent, and so is the next one."""
    slow, views = Slow(as_printed), load("test_a_django_view_sends_although_its_browser_leaves")
    app = Watched(django_app(views["confirm"]), cancels=False)
    with serving(app, lifespan="off") as port:
        browser = begin(port, "/confirm")
        wait(slow.asked, 1)
        leave(browser, resets=False)
        wait(app.left, 1)
        slow.released.set()
        assert post(port, "/confirm")[0] == 200
    asyncio.run(views["mailer"].close())
    slow.server.joined()
    assert len(slow.server.accepted) == 2


@pytest.mark.parametrize("framework", ["fastapi", "django"])
def test_what_becomes_of_a_request_whose_client_leaves(django_app: MakeDjango, framework: str) -> None:
    """FastAPI under uvicorn lets it go on; Django cancels it."""
    begun, ended = threading.Semaphore(0), threading.Semaphore(0)
    released, loops, seen = asyncio.Event(), list[asyncio.AbstractEventLoop](), list[str]()

    async def view(*request: object) -> None:
        loops.append(asyncio.get_running_loop())
        begun.release()
        try:
            await released.wait()
            seen.append("goes on")
        except asyncio.CancelledError:
            seen.append("is cancelled")
            raise
        finally:
            ended.release()

    async def route() -> None:
        await view()

    fastapi = FastAPI()
    fastapi.post("/confirm")(route)
    app = Watched(fastapi if framework == "fastapi" else django_app(view), cancels=False)
    with serving(app, lifespan="off") as port:
        browser = begin(port, "/confirm")
        wait(begun, 1)
        leave(browser, resets=False)
        wait(app.left, 1)
        if framework == "fastapi":
            loops[0].call_soon_threadsafe(released.set)
        wait(ended, 1)
    (what,) = seen
    rows = {"fastapi": "FastAPI and Starlette under uvicorn", "django": "an async view of Django"}
    assert f"| the client leaves: {rows[framework]} | {what} |" in PAGE
