"""The blocks of docs/how-to/django.md, run as printed."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unittest
import urllib.request
from email import message_from_bytes, policy
from pathlib import Path
from types import ModuleType
from typing import Any

import django
import pytest
from django.test import RequestFactory, TestCase

from conftest import Serve, unmeasured
from integrations.django.conftest import BACKEND, HAS_MAILERS, Configure
from integrations.django.test_sending import path, refuse, to
from scripted import Peer, ScriptedServer, honest
from securesmtp.integrations.django import EmailBackend
from securesmtp.integrations.django._settings import OPTIONS

PAGE = (Path(__file__).parents[3] / "docs/how-to/django.md").read_text("utf-8")
HAS_TASKS = django.VERSION >= (6, 0)


def printed(test: str) -> str:
    """Return the block of the page that this test runs."""
    (code,) = re.findall(rf"<!-- run by: {test} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def load(test: str) -> dict[str, Any]:
    """Run this block, and return its names."""
    module = ModuleType("printed")
    # A task is known by the name of its module.
    sys.modules[module.__name__] = module
    exec(compile(printed(test), "django.md", "exec"), vars(module))  # noqa: S102 -- our own page
    return vars(module)


def manage(folder: Path, settings: str, *command: str) -> list[str]:
    """Make a project with these settings; return how to run a command of its manage.py."""
    (folder / "settings.py").write_text(
        f"SECRET_KEY, INSTALLED_APPS = 'x', ['securesmtp.integrations.django']\n{settings}", "utf-8"
    )
    (folder / "manage.py").write_text(
        "import os, sys\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n"
    )
    return [sys.executable, str(folder / "manage.py"), *command]


def local(server: ScriptedServer, ca_file: Path) -> str:
    """Return the lines that change the printed EMAIL_* into those of a server in a test."""
    return f"\nEMAIL_HOST, EMAIL_PORT = 'localhost', {server.port}\nSECURESMTP['ca_file'] = {str(ca_file)!r}\n"


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of manage.py."""
    environment = {**unmeasured(), "SMTP_PASSWORD": "secret"}
    return subprocess.run(
        command,
        cwd=Path(command[1]).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


def test_the_pages_settings_send(
    serve: Serve, override: Any, ca_file: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """As a settings module has them."""
    request.applymarker(pytest.mark.filterwarnings("ignore"))
    monkeypatch.setenv("SMTP_PASSWORD", "secret")
    server = serve(honest("starttls", auth=("me", "secret")))
    names = load("test_the_pages_settings_send")
    settings = {name: value for name, value in names.items() if name.startswith(("EMAIL_", "SECURESMTP"))}
    settings |= {"EMAIL_HOST": "localhost", "EMAIL_PORT": server.port}
    settings["SECURESMTP"] |= {"ca_file": str(ca_file)}
    assert settings["EMAIL_BACKEND"] == BACKEND
    override(**settings)
    assert to().send() == 1
    assert len(server.accepted) == 1


@pytest.mark.skipif(not HAS_MAILERS, reason="MAILERS came with Django 6.1")
def test_the_pages_mailers_send(serve: Serve, override: Any, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a settings module has them."""
    monkeypatch.setenv("SMTP_PASSWORD", "secret")
    server = serve(honest("starttls", auth=("me", "secret")))
    mailers = load("test_the_pages_mailers_send")["MAILERS"]
    mailers["default"]["OPTIONS"] |= {"host": "localhost", "port": server.port, "ca_file": str(ca_file)}
    override(MAILERS=mailers)
    assert to().send() == 1


def test_each_key_is_on_the_page_and_in_the_reference() -> None:
    """And no other: the table of keys, and the backend's docstring."""
    table = PAGE.partition("| key | as for |\n")[2].partition("\n\n")[0]
    keys = [name for row in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]
    assert sorted(keys) == sorted(OPTIONS)
    described = inspect.getdoc(EmailBackend) or ""
    assert sorted(re.findall(r"\*(\w+)\*", described)) == sorted(OPTIONS)


def test_the_pages_command_checks(serve: Serve, ca_file: Path, tmp_path: Path) -> None:
    """With a real manage.py: its output and its exit status; another command shows the system check's warning."""
    server = serve(honest("starttls", auth=("me", "secret")))
    settings = printed("test_the_pages_settings_send")
    arguments = printed("test_the_pages_command_checks").split()
    assert arguments[:2] == ["python", "manage.py"]
    done = run(manage(tmp_path, settings + local(server, ca_file), *arguments[2:]))
    assert (done.returncode, done.stdout.splitlines()[3]) == (0, "login: accepted by PLAIN"), done.stderr
    wrong = f"{settings}{local(server, ca_file)}EMAIL_USE_TLS = False\n"
    # It is no error, which would stop other commands.
    done = run(manage(tmp_path, wrong, "check"))
    assert (done.returncode, "securesmtp.W001" in done.stderr) == (0, True), done.stderr


def test_the_pages_loop_returns_what_can_be_sent_again(serve: Serve, configure_email: Configure) -> None:
    """What was accepted, refused for good, or is unknown is not sent again; what was not tried is."""

    def content(peer: Peer, data: bytes) -> bytes:
        return b"451 4.3.0 later\r\n" if b"To: you3@" in data else b"250 2.0.0 queued\r\n"

    server = serve(honest(replies={"CONTENT": content}))
    configure_email(server)
    messages = [to(number) for number in range(40)]
    again = load("test_the_pages_loop_returns_what_can_be_sent_again")["send_all"](messages)
    accepted = {path(each.recipients[0]) for each in server.accepted}
    assert messages[3] in again
    assert {message.to[0] for message in messages} - accepted == {message.to[0] for message in again}
    refused = serve(refuse(3))
    configure_email(refused)
    assert messages[3] not in load("test_the_pages_loop_returns_what_can_be_sent_again")["send_all"]([to(3)])


def test_the_pages_callback_runs_after_the_commit(serve: Serve, configure_email: Configure) -> None:
    """Not before, not after a rollback, and not in a TestCase unless it is captured (PITFALLS-1 D15)."""
    server = serve(refuse(3))
    configure_email(server)
    names = load("test_the_pages_callback_runs_after_the_commit")

    class InATest(TestCase):
        def runTest(self) -> None:  # noqa: N802 -- unittest's name
            with self.captureOnCommitCallbacks() as waiting:
                names["order"]("you@example.net")
            assert (len(waiting), server.accepted) == (1, [])
            with self.captureOnCommitCallbacks(execute=True):
                # An error does not stop the next callback.
                names["order"]("you3@example.net")
                names["order"]("you@example.net")
            assert len(server.accepted) == 1
            transaction, waiting = names["transaction"], []
            with self.captureOnCommitCallbacks(execute=True) as waiting:
                try:
                    with transaction.atomic():
                        names["order"]("you@example.net")
                        raise LookupError  # noqa: TRY301 -- a rollback
                except LookupError:
                    pass
            assert waiting == []

    result = unittest.TestResult()
    # In a suite: that enters the transaction of the class.
    unittest.TestSuite([InATest()]).run(result)
    assert [text for _, text in result.errors + result.failures] == []
    assert result.testsRun == 1


@pytest.mark.skipif(not HAS_TASKS, reason="tasks came with Django 6.0")
def test_the_pages_task_returns_what_became_of_the_message(serve: Serve, configure: Configure, style: str) -> None:
    """Its result is JSON; what may be sent again fails, with the error's class."""

    def rcpt(peer: Peer, line: bytes) -> bytes:
        codes = {b"<you3@": b"550 5.1.1 no\r\n", b"<you4@": b"451 4.2.0 later\r\n"}
        return next((reply for part, reply in codes.items() if part in line), b"250 2.1.5 ok\r\n")

    configure(serve(honest(replies={"RCPT": rcpt})))
    task = load("test_the_pages_task_returns_what_became_of_the_message")["send_welcome"]
    done = [task.enqueue(f"you{number}@example.net") for number in (0, 3, 4)]
    assert [each.status for each in done] == ["SUCCESSFUL", "SUCCESSFUL", "FAILED"]
    assert [each.return_value["outcome"] for each in done[:2]] == ["accepted", "refused"]
    assert done[2].errors[0].exception_class_path == "securesmtp.errors.RecipientsRefusedError"


def test_the_pages_mailing_is_sent_once(
    serve: Serve, configure: Configure, style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the command is run twice."""
    monkeypatch.chdir(tmp_path)
    configure(server := serve(honest()))
    for _ in range(2):
        load("test_the_pages_mailing_is_sent_once")["send_news"]("2026-11", ["you@example.net", "me@example.net"])
        assert sorted(path(each.recipients[0]) for each in server.accepted) == ["me@example.net", "you@example.net"]


def test_the_pages_async_view_sends(serve: Serve, configure: Configure, style: str) -> None:
    """Several requests at the same time, in threads of their own; a view that is cancelled still sends."""
    inside, go = asyncio.Event(), asyncio.Event()
    loop: asyncio.AbstractEventLoop

    def content(peer: Peer, data: bytes) -> bytes:
        loop.call_soon_threadsafe(inside.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(20)
        return b"250 2.0.0 queued\r\n"

    server = serve(honest(replies={"CONTENT": content}))
    configure(server)
    view = load("test_the_pages_async_view_sends")["confirm"]

    async def main() -> Any:
        nonlocal loop
        loop = asyncio.get_running_loop()
        request = RequestFactory().get("/")
        cancelled = asyncio.create_task(view(request))
        await inside.wait()
        cancelled.cancel()
        others = [asyncio.create_task(view(request)) for _ in range(2)]
        while len(server.connections) < 3:  # noqa: ASYNC110 -- the server has no event for it
            await asyncio.sleep(0.01)
        go.set()
        return await asyncio.gather(cancelled, *others, return_exceptions=True)

    first, *others = asyncio.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert [each.content for each in others] == [b'{"sent": 1}'] * 2
    server.check()
    assert len(server.accepted) == 3


def run_case(test: str) -> None:
    """Run this block with unittest, as Django does."""
    names = load(test)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(names["MailTest"]).run(result)
    assert [text for _, text in result.errors + result.failures] == []
    assert result.testsRun == 1


@pytest.mark.filterwarnings("ignore:Session.login_data:UserWarning")
def test_the_pages_test_passes(override: Any, request: pytest.FixtureRequest) -> None:
    """Also beside the page's settings."""
    request.applymarker(pytest.mark.filterwarnings("ignore"))
    override(EMAIL_USE_TLS=True, EMAIL_HOST_USER="me", EMAIL_HOST_PASSWORD="secret")
    run_case("test_the_pages_test_passes")


@pytest.mark.skipif(not HAS_MAILERS, reason="MAILERS came with Django 6.1")
@pytest.mark.filterwarnings("ignore:Session.login_data:UserWarning")
def test_the_pages_test_with_mailers_passes() -> None:
    """It overrides the same setting."""
    run_case("test_the_pages_test_with_mailers_passes")


_VIEW = """
from django.core.mail import send_mail
from django.http import HttpResponse
from django.urls import path

def view(request):
    send_mail("{subject}", "Text", "me@example.org", ["you@example.net"])
    return HttpResponse("{subject}")

urlpatterns = [path("", view)]
"""


@pytest.mark.exhaustive
def test_the_development_server_reloads(serve: Serve, ca_file: Path, tmp_path: Path) -> None:
    """The old process ends soon, its connection gets QUIT, and the new one sends."""
    server = serve(honest("starttls", auth=("me", "secret")))
    settings = printed("test_the_pages_settings_send") + local(server, ca_file)
    settings += "DEBUG = True\nROOT_URLCONF = 'urls'\nALLOWED_HOSTS = ['*']\n"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "urls.py").write_text(_VIEW.format(subject="before"))
    command = manage(tmp_path, settings, "runserver", f"127.0.0.1:{port}", "--nothreading")
    environment = {**unmeasured(), "SMTP_PASSWORD": "secret", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0
    ) as process:
        try:
            assert _wait_for(port, "before")
            (tmp_path / "urls.py").write_text(_VIEW.format(subject="after"))
            assert _wait_for(port, "after")
            assert server.connections[0].done.wait(20)
            assert bytes(server.connections[0].secret).endswith(b"QUIT\r\n")
        finally:
            os.killpg(process.pid, signal.SIGTERM)
    subjects = [message_from_bytes(each.content, policy=policy.default)["Subject"] for each in server.accepted]
    assert (subjects[0], subjects[-1]) == ("before", "after")


def _wait_for(port: int, text: str) -> bool:
    """Ask the development server until it says *text*."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
                if response.read().decode() == text:
                    return True
        except OSError:
            pass
        time.sleep(0.2)
    return False
