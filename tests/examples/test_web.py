"""POST /send-email of both web examples: real requests to a running server, real TLS to a mail server."""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import uvicorn
from werkzeug.serving import make_server

import web_fastapi
import web_flask
from answers import MAX_REQUEST
from examples.worlds import DOWN, PASSWORD, WORDS, WORLDS, WRONG, Enter, World
from scripted import Peer

EXAMPLES = Path(web_flask.__file__).parent
PAGE = (EXAMPLES.parent / "how-to/web-route.md").read_text("utf-8")
MAIL = {"to": "you@example.net", "subject": "Grüße", "body": "Hello\n"}
JSON = {"Content-Type": "application/json"}
Web = Callable[[], AbstractContextManager[int]]


class Answer(NamedTuple):
    status: int
    retry_after: str | None
    body: dict[str, str]


def post(
    port: int,
    body: bytes | Iterator[bytes],
    headers: Mapping[str, str] = JSON,
    where: tuple[str, str] = ("POST", "/send-email"),
) -> Answer:
    """Post to the route; the response is JSON, and shows nothing of the mail server or the program."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(*where, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    assert response.headers["Content-Type"] == "application/json"
    shown = f"{response.headers}{text}"
    for inner in (PASSWORD, WRONG, WORDS, "Traceback", "Error", "localhost", "example.", "OpenSSL"):
        assert inner not in shown
    assert ("POST" in response.headers.get("Allow", "")) == (response.status == 405)
    return Answer(response.status, response.headers["Retry-After"], json.loads(text))


@contextmanager
def fastapi() -> Iterator[int]:
    """Run the application as uvicorn does, in a thread."""
    server = uvicorn.Server(uvicorn.Config(web_fastapi.app, log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # It listens already, so a request before the application starts waits.
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def flask() -> Iterator[int]:
    """Run the application as `flask run` does, in a thread; call its exit functions at the end."""
    with ExitStack() as at_exit:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(atexit, "register", at_exit.callback)
            app = web_flask.create_app()
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.port
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture(params=[fastapi, flask], ids=["fastapi", "flask"])
def web(request: pytest.FixtureRequest) -> Web:
    """Run the test with each framework; the server reads the environment when it starts."""
    chosen: Web = request.param
    return chosen


def test_a_message_is_sent(enter: Enter, web: Web) -> None:
    """Its sender is the configured one; two messages use one connection, which ends with QUIT."""
    server = enter(WORLDS["normal"])
    with web() as port:
        for _ in range(2):
            answer = post(port, json.dumps(MAIL | {"from": "eve@example.com", "sender": "eve@example.com"}).encode())
            assert answer == (200, None, {"message": "Email sent successfully!"})
    server.joined()
    (log,) = server.connections
    assert log.secret.endswith(b"QUIT\r\n")
    assert len(log.accepted) == 2
    envelope = (log.accepted[0].mail_from, log.accepted[0].recipients)
    assert envelope == (b"MAIL FROM:<me@example.com>", (b"RCPT TO:<you@example.net>",))
    arrived = message_from_bytes(log.accepted[0].content, policy=policy.default)
    assert (arrived["From"], arrived["To"], arrived["Subject"]) == ("me@example.com", "you@example.net", "Grüße")
    assert arrived.get_content() == "Hello\r\n"


@pytest.mark.parametrize(
    ("name", "status", "logged"),
    [
        pytest.param("recipient-refused", 502, f"RecipientsRefusedError.*{WORDS}", id="recipient-refused"),
        pytest.param("greeting-refused", 502, f"ConnectError.*{WORDS}", id="greeting-refused"),
        pytest.param("out-of-step", 502, "ProtocolError", id="out-of-step"),
        pytest.param("later", 503, f"RecipientsRefusedError.*{WORDS}", id="later"),
        pytest.param("login-later", 503, f"AuthenticationError.*{WORDS}", id="login-later"),
        pytest.param("down", 503, "ConnectError", id="down"),
        pytest.param("stripped", 500, "DowngradeError", id="stripped"),
        pytest.param("untrusted", 500, "CertificateError.*certificate", id="untrusted"),
        pytest.param("wrong-password", 500, "AuthenticationError", id="wrong-password"),
        pytest.param("wrong-sender", 500, "AddressError", id="wrong-sender"),
        pytest.param("no-password-file", 500, "ConfigurationError.*the password file", id="no-password-file"),
        pytest.param("cut", 504, "OutcomeUnknownError for <.*>: ", id="cut"),
    ],
)
def test_each_failure_has_its_status(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    enter: Enter, web: Web, caplog: pytest.LogCaptureFixture, name: str, status: int, logged: str
) -> None:
    """The status and Retry-After say whether to try again; the log has the error with the server's words."""
    server = enter(WORLDS[name])
    with web() as port:
        answer = post(port, json.dumps(MAIL).encode())
    assert answer.status == status
    assert (answer.retry_after is not None) == (status == 503)
    assert answer.body.keys() == {"error"}
    assert answer.body["error"].startswith("unknown: " if status == 504 else "not sent: ")
    # One try: after a cut, the message has arrived; otherwise it has not.
    assert len(server.accepted) == (status == 504)
    (line,) = (record for record in caplog.records if record.name == "send_email")
    assert line.levelno == (logging.ERROR if status == 500 else logging.WARNING)
    assert re.search(logged, f"{line.getMessage()} {line.exc_text}")


def test_a_slow_mail_server_does_not_block_other_requests(enter: Enter, web: Web) -> None:
    """While one request waits for its 250, the next one gets its response."""
    asked, answered = threading.Event(), threading.Event()

    def content(peer: Peer, octets: bytes) -> bytes:
        asked.set()
        answered.wait(30)
        return b"250 2.0.0 queued\r\n"

    enter(World({"CONTENT": content}, {}))
    with web() as port, ThreadPoolExecutor() as elsewhere:
        first = elsewhere.submit(post, port, json.dumps(MAIL).encode())
        try:
            assert asked.wait(30)
            assert post(port, b"{").status == 400
            assert not first.done()
        finally:
            answered.set()
        assert first.result().status == 200


BAD = {
    "not-json": b"{",
    "nothing": b"",
    "a-list": b"[]",
    "lists-in-lists": b"[" * 100_000,
    "not-utf-8": b'{"to": "\xff"}',
    "surrogate-in-the-subject": json.dumps(MAIL | {"subject": "\ud800"}).encode(),
    "surrogate-in-the-body": json.dumps(MAIL | {"body": "\ud800"}).encode(),
    "nul-in-the-body": json.dumps(MAIL | {"body": "\0"}).encode(),
    "newline-in-the-subject": json.dumps(MAIL | {"subject": "Hello\nBcc: eve@example.com"}).encode(),
    "newline-in-the-address": json.dumps(MAIL | {"to": "you@example.net\r\nBcc: eve@example.com"}).encode(),
    "command-in-the-address": json.dumps(MAIL | {"to": "you@example.net>\r\nDATA"}).encode(),
    "two-addresses": json.dumps(MAIL | {"to": "you@example.net, eve@example.com"}).encode(),
    "display-name": json.dumps(MAIL | {"to": "You <you@example.net>"}).encode(),
    "no-address": json.dumps(MAIL | {"to": "you"}).encode(),
    "empty-address": json.dumps(MAIL | {"to": ""}).encode(),
    # `email` raises IndexError and AttributeError for these.
    "one-quote": json.dumps(MAIL | {"to": '"'}).encode(),
    "no-group": json.dumps(MAIL | {"to": ':a;"\t>-;'}).encode(),
    **{f"without-{field}": json.dumps(MAIL | {field: None}).encode() for field in MAIL},
    **{f"a-number-as-{field}": json.dumps(MAIL | {field: 5}).encode() for field in MAIL},
    **{f"no-{field}": json.dumps({each: MAIL[each] for each in MAIL if each != field}).encode() for field in MAIL},
}


@pytest.fixture(scope="module", params=[fastapi, flask], ids=["fastapi", "flask"])
def without_mail(request: pytest.FixtureRequest) -> Iterator[int]:
    """Start a web server whose mail server is down: a request that gets as far as that has status 503."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in WORLDS["down"].environment(DOWN, "").items():
            patch.setenv(variable, value)
        patch.delenv("SMTP_CA_FILE")
        start: Web = request.param
        with start() as port:
            yield port


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_a_bad_request_is_400_and_nothing_more(
    without_mail: int, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    """The mailer is not called (it would be 503), and the log has no line above INFO."""
    caplog.set_level(logging.INFO)
    answer = post(without_mail, body)
    assert (answer.status, answer.retry_after, list(answer.body)) == (400, None, ["error"])
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize(
    ("where", "status"), [(("GET", "/send-email"), 405), (("POST", "/elsewhere"), 404)], ids=["method", "path"]
)
def test_what_the_framework_refuses_has_the_same_form(without_mail: int, where: tuple[str, str], status: int) -> None:
    """404 and 405 are JSON too, with the key "error"."""
    answer = post(without_mail, b"", where=where)
    assert (answer.status, answer.retry_after, list(answer.body)) == (status, None, ["error"])


@pytest.mark.parametrize("module", [web_fastapi, web_flask], ids=["fastapi", "flask"])
def test_a_bug_has_the_same_form(
    enter: Enter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: ModuleType
) -> None:
    """The client gets 500, and the log has the exception."""
    enter(WORLDS["normal"])
    monkeypatch.setattr(module, "compose", lambda *_: 1 // 0)
    with (fastapi if module is web_fastapi else flask)() as port:
        answer = post(port, json.dumps(MAIL).encode())
    assert (answer.status, answer.retry_after, list(answer.body)) == (500, None, ["error"])
    assert "ZeroDivisionError" in caplog.text


def test_a_request_beyond_the_limit_is_not_read(without_mail: int) -> None:
    """It is refused by its Content-Length alone."""
    assert post(without_mail, b"", JSON | {"Content-Length": str(MAX_REQUEST + 1)}).status == 413


def test_a_request_without_a_length_is_bounded(enter: Enter) -> None:
    """In chunks: exactly the limit is read, and is not JSON; one byte more is 413. Flask itself reads no more."""
    enter(WORLDS["normal"])
    with fastapi() as port:
        for size, status in (MAX_REQUEST, 400), (MAX_REQUEST + 1, 413):
            blocks = iter([b"x" * 65536] * (size // 65536) + [b"x"] * (size % 65536))
            assert post(port, blocks).status == status


@pytest.mark.parametrize("field", ["to", "subject"])
def test_a_long_field_does_not_reach_the_email_package(
    without_mail: int, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """It is refused by its length, because the email package's work grows with the square of it."""
    seen = []

    def record(_: object, name: str, value: str) -> None:
        seen.append((name, len(value)))

    monkeypatch.setattr(EmailMessage, "__setitem__", record)
    assert post(without_mail, json.dumps(MAIL | {field: '"' * 16_000}).encode()).status == 400
    assert all(length < 1000 for _, length in seen)


def test_only_the_content_type_of_json_is_accepted(without_mail: int) -> None:
    """A form on another site can send JSON text, but not with this content type."""
    body = json.dumps(MAIL).encode()
    assert post(without_mail, body).status == 503
    assert post(without_mail, body, {"Content-Type": "text/plain"}).status == 400


@pytest.mark.parametrize("address", ["nobody", "Me <me@example.com>", ""])
def test_a_wrong_sender_is_found_at_the_start(enter: Enter, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """It is the operator's mistake; otherwise each request would get 400, as if the client were wrong."""
    enter(WORLDS["normal"])
    monkeypatch.setenv("MAIL_FROM", address)
    with pytest.raises(Exception, match=r"."), flask():
        pass


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT end child processes: a background job of a script ignores it, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("command", re.findall(r"^python -m (.*)", PAGE, re.MULTILINE), ids=["fastapi", "flask"])
def test_the_commands_serve(enter: Enter, tmp_path: Path, command: str) -> None:
    """The page's commands run with the password in a file; when the process ends, the mail server gets QUIT."""
    server = enter(WORLDS["normal"])
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n", "ascii")
    environment = {name: value for name, value in os.environ.items() if name != "SMTP_PASSWORD"}
    environment |= {"SMTP_PASSWORD_FILE": str(secret), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-m", *command.split(), "--port=0"],
        cwd=EXAMPLES,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        last_resort = threading.Timer(60, process.kill)
        last_resort.start()
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            port = next(int(found[1]) for line in lines if (found := re.search(r"on http://127\.0\.0\.1:(\d+)", line)))
            assert post(port, json.dumps(MAIL).encode()).status == 200
            assert post(port, BAD["newline-in-the-subject"]).status == 400
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        finally:
            last_resort.cancel()
            process.kill()
    server.joined()
    (log,) = server.connections
    assert log.secret.endswith(b"QUIT\r\n")
    assert PASSWORD not in rest
    assert re.search(r"^[\d-]+ [\d:,]+ INFO send_email: the request makes no message: ValueError$", rest, re.MULTILINE)
