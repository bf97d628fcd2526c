"""`securesmtp serve`: real messages over real TLS, read back from the folder, the terminal and the web page."""

from __future__ import annotations

import io
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import click
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rich.console import Console

from conftest import examples
from scripted import Mode
from securesmtp import SecureMailer
from securesmtp._cli import main
from securesmtp._cli.inbox import pages
from securesmtp._cli.inbox.store import Kept, Store, subject_of
from securesmtp._cli.inbox.web import serve_pages
from securesmtp._cli.serve import command as serve
from securesmtp._cli.serve import open_inbox
from securesmtp.errors import DataRefusedError
from securesmtp.testing import MailServer, Received

PAGE = (Path(__file__).parent.parent.parent / "docs/how-to/development-inbox.md").read_text("utf-8")


class Inbox(NamedTuple):
    """An open inbox: where its page is, what its terminal has, and a mailer for it."""

    address: str
    terminal: io.StringIO
    folder: Path
    mailer: SecureMailer
    server: MailServer

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
        """Return the response to a request."""
        connection = HTTPConnection(str(urlsplit(self.address).netloc), timeout=30)
        try:
            connection.request(method, path, headers={"Host": str(urlsplit(self.address).netloc)} | headers)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def send(self, message: EmailMessage | bytes) -> str:
        """Send a message, and return the path of its page."""
        if isinstance(message, bytes):
            self.mailer.send_bytes(message, mail_from="me@example.org", recipients=["you@example.org"])
        else:
            self.mailer.send(message)
        return str(urlsplit(self.terminal.getvalue().split()[-1]).path)


Open = Callable[..., AbstractContextManager[Inbox]]


@contextmanager
def opened(folder: Path, mode: Mode = "implicit", width: int = 80) -> Iterator[Inbox]:
    """Open an inbox on free ports."""
    terminal = io.StringIO()
    console = Console(file=terminal, width=width)
    with open_inbox(console, folder / "ca.pem", folder / "inbox", (0, 0), mode) as (server, address):
        # A program takes the settings that the terminal shows.
        settings = dict(re.findall(r"^(SMTP_\w+)=(\S+)$", terminal.getvalue(), re.MULTILINE))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            mailer = SecureMailer.from_env(username="me", password="any password")
        with mailer:
            yield Inbox(address, terminal, folder / "inbox", mailer, server)


@pytest.fixture
def open_one(tmp_path: Path) -> Open:
    """Return a function that opens an inbox."""
    return partial(opened, tmp_path)


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inbox]:
    """Open an inbox, which the tests share."""
    with opened(tmp_path_factory.mktemp("shared")) as shared:
        yield shared


@pytest.mark.parametrize("width", [80, 20])
def test_a_message_is_kept_shown_and_printed(open_one: Open, message: EmailMessage, mode: Mode, width: int) -> None:
    """Over both TLS modes, with any login; also a narrow terminal shows settings and addresses in one piece."""
    message.add_alternative('<p>Hello</p><a href="https://example.org/7">', subtype="html")
    with open_one(mode, width) as inbox:
        inbox.send(message)
        (path,) = inbox.folder.iterdir()
        arrived = message_from_bytes(path.read_bytes(), policy=policy.default)
        assert (arrived["Subject"], arrived["Bcc"]) == ("Grüße", None)
        line = inbox.terminal.getvalue().splitlines()[-1]
        page = f"{inbox.address}messages/1"
        assert line.endswith(f" me@example.org → you@example.org, blind@example.org  Grüße  {page}")
        listed, shown = inbox.get("/")[1].decode(), inbox.get("/messages/1")[1].decode()
        assert '<a href="/messages/1"><bdi>Grüße</bdi></a>' in listed
        for part in (
            "Hello\n.leading dot\n</pre>",
            '<iframe sandbox="" src="/messages/1/html"',
            '<a href="https://example.org/7" rel="noopener noreferrer" target="_blank">',
            "<td><bdi>you@example.org, blind@example.org</bdi></td>",
            '<th scope="row">Login</th><td><bdi>me</bdi>',
            '<th scope="row">TLS</th><td><bdi>TLSv1.3 TLS_AES_256_GCM_SHA384</bdi>',
        ):
            assert part in shown
        assert inbox.get("/messages/1/source")[1] == inbox.get("/messages/1/message.eml")[1] == path.read_bytes()
    assert "any password" not in f"{inbox.terminal.getvalue()}{shown}{path.read_bytes()!r}"


def test_the_queue_id_is_the_number_of_the_page(inbox: Inbox, message: EmailMessage) -> None:
    """So a program's log names the page."""
    for _ in range(2):
        receipt = inbox.mailer.send(message)
        assert inbox.terminal.getvalue().split()[-1] == f"{inbox.address}messages/{receipt.queue_id}"


def test_a_message_without_html_has_no_frame(inbox: Inbox) -> None:
    """An HTML part alone has no text; a message without a subject is in the list all the same."""
    first = inbox.send(b"From: me@example.org\r\n\r\nHello\r\n")
    second = inbox.send(b"From: me@example.org\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n")
    assert [b"<iframe" in inbox.get(page)[1] for page in (first, second)] == [False, True]
    assert b"<h2>Text</h2><p>None.</p>" in inbox.get(second)[1]
    assert b"<bdi>(no subject)</bdi>" in inbox.get("/")[1]


def test_the_list_is_bounded_and_its_newest_message_is_first(monkeypatch: pytest.MonkeyPatch, open_one: Open) -> None:
    """Without messages it says so."""
    with open_one() as inbox:
        assert b"No message has arrived yet." in inbox.get("/")[1]
        monkeypatch.setattr(pages, "_LISTED", 2)
        for number in range(3):
            inbox.send(b"From: me@example.org\r\nSubject: number %d\r\n\r\n\r\n" % number)
        listed = inbox.get("/")[1].decode()
        # The folder has the others; the server does not remember them.
        assert len(inbox.server.messages) == 1
    assert re.findall(r"number \d", listed) == ["number 2", "number 1"]
    assert "Inbox: 3 messages" in listed


def test_the_source_on_the_page_is_bounded(inbox: Inbox) -> None:
    """The page of a large message has its beginning; the source has everything."""
    page = inbox.send(b"From: me@example.org\r\n\r\n" + b"<x>\r\n" * 60_000)
    shown = inbox.get(page)[1].partition(b"This is its beginning.")[2]
    assert 10_000 < shown.count(b"&lt;x&gt;") < 20_001
    assert inbox.get(f"{page}/source")[1].count(b"<x>") == 60_000


# Each is one part of a message, and what no page of ours may have of it: markup, a line end in a field, a folder.
PAYLOAD = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><b>"
HOSTILE = {
    "subject": {"Subject": PAYLOAD},
    "from": {"From": f'"{PAYLOAD}" <me@example.org>'},
    "to": {"To": f"=?utf-8?q?{''.join(f'={byte:02x}' for byte in PAYLOAD.encode())}?= <you@example.org>"},
    "date": {"Date": PAYLOAD},
    "message-id": {"Message-ID": PAYLOAD},
    "reply-to": {"Reply-To": "=?utf-8?q?a=0d=0aX-Injected:_yes?= <me@example.org>"},
    "charset": {"Content-Type": f"text/html; charset={PAYLOAD!r}"},
    "type": {"Content-Type": "application/<b>", "Content-Disposition": "attachment; filename=x"},
}


class Markup(HTMLParser):
    """Counts the tags of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, value in attrs if name.startswith("on") or "javascript:" in str(value)]


@pytest.mark.parametrize("where", HOSTILE)
def test_nothing_in_a_message_is_markup_of_our_pages(inbox: Inbox, where: str) -> None:
    """Whatever field has it; the body, too."""
    fields = {"From": "me@example.org", "Subject": "Hello"} | HOSTILE[where]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    page = inbox.send(f"{head}\r\n{PAYLOAD}\r\n".encode())
    for path in ("/", page):
        markup = Markup(inbox.get(path)[1])
        assert {"script", "b", "img"} & set(markup.tags) == set()
        assert markup.handlers == []


LINKS = "<a href='javascript:alert(1)'>x</a> <a href=' JavaScript:alert(1)'>y</a> <a href='data:text/html,x'>z</a>"


def test_a_link_that_is_no_web_address_is_shown_as_text(inbox: Inbox) -> None:
    """One with javascript: or data: cannot be clicked."""
    page = inbox.send(f"From: me@example.org\r\nContent-Type: text/html\r\n\r\n{LINKS}<a>no address</a>\r\n".encode())
    shown = inbox.get(page)[1].decode()
    assert "<li>javascript:alert(1)</li><li>JavaScript:alert(1)</li><li>data:text/html,x</li>" in shown
    assert Markup(shown.encode()).handlers == []


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        pytest.param("<LINK rel=preconnect href=//evil>", "<x-LINK rel=preconnect href=# data-href=//evil>", id="link"),
        pytest.param("<meta http-equiv=refresh>", "<x-meta http-equiv=refresh>", id="meta"),
        pytest.param("<base href = '//evil'>", "<x-base href=# data-href = '//evil'>", id="base"),
        pytest.param("<iframe src=//evil>", "<x-iframe src=//evil>", id="iframe"),
        pytest.param("<frameset><frame src=//evil>", "<x-frameset><x-frame src=//evil>", id="frame"),
        pytest.param("<object data=//evil><embed>", "<x-object data=//evil><x-embed>", id="object"),
        pytest.param("<a/HREF=//evil>", "<a/href=# data-href=//evil>", id="a"),
        pytest.param("<a xlink:href=//evil>", "<a xlink:href=# data-href=//evil>", id="svg"),
        pytest.param("<p title='links'>href</p>", "<p title='links'>href</p>", id="text"),
        pytest.param('<img src="CID:logo">', '<img src="data:image/png;base64,iVBORw=="', id="image"),
        pytest.param("<img src=cid:a%26b&amp;c>", "<img src=data:image/png;base64,iVBORw==>", id="image-escaped"),
        pytest.param("<img src='cid:other'>", "<img src='cid:other'>", id="other-image"),
        pytest.param("<img src='cid:page'>", "<img src='cid:page'>", id="no-image"),
    ],
)
def test_the_frame_connects_to_nothing(inbox: Inbox, html: str, shown: str) -> None:
    """What could connect is renamed, links lead nowhere, and the message's images are in the document itself."""
    message = EmailMessage()
    message["From"], message["To"] = "me@example.org", "you@example.org"
    message.set_content(html, subtype="html")
    message.add_related(b"\x89PNG", "image", "png", cid="<logo>")
    message.add_related(b"\x89PNG", "image", "png", cid="<a&b&c>")
    message.add_related(b"<p>", "text", "html", cid="<page>")
    page = inbox.send(message)
    response, body = inbox.get(f"{page}/html")
    assert shown in body.decode()
    rules = str(response.headers["Content-Security-Policy"]).split("; ")
    assert {"default-src 'none'", "img-src data:", "form-action 'none'", "sandbox"} <= set(rules)
    assert not any(rule.startswith(("script-src", "frame-src", "connect-src")) for rule in rules)


@pytest.mark.parametrize(("for_", "status"), [("iframe", 200), ("document", 403), ("image", 403)])
def test_the_html_is_shown_in_its_frame_only(inbox: Inbox, message: EmailMessage, for_: str, status: int) -> None:
    """A browser says what a request is for; the links of a page of its own would lead away."""
    page = inbox.send(message)
    assert inbox.get(f"{page}/html", **{"Sec-Fetch-Dest": for_})[0].status == status


def test_every_reply_is_locked(inbox: Inbox, message: EmailMessage) -> None:
    """No script, no other site that reads or shows it, no names that are looked up, nothing kept."""
    page = inbox.send(message)
    for path in ("/", "/style.css", page, f"{page}/html", f"{page}/source", "/nothing"):
        headers = inbox.get(path)[0].headers
        rules = str(headers["Content-Security-Policy"])
        assert rules.startswith("default-src 'none'; ")
        assert "script-src" not in rules
        assert re.search(r"frame-ancestors '(none|self)'", rules)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-DNS-Prefetch-Control"] == "off"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "Python" not in headers["Server"]


NAMES = {
    "../../etc/passwd": "passwd",
    "..\\..\\evil.exe": "evil.exe",
    "/etc/passwd": "passwd",
    ".bashrc": "bashrc",
    "..": "file",
    "": "file",
    'a"; filename="b.exe': 'a"; filename="b.exe',
    "a\r\nSet-Cookie: x=y": "a\r\nSet-Cookie: x=y",
    "Grüße ✓.pdf": "Grüße ✓.pdf",
    "x" * 300: "x" * 150,
}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_file_is_a_download_whose_name_has_no_folder(inbox: Inbox, name: str) -> None:
    """And nothing in its name is another field of the response."""
    encoded = "".join(f"%{byte:02x}" for byte in name.encode())
    part = f"Content-Type: text/html\r\nContent-Disposition: attachment; filename*=utf-8''{encoded}\r\n\r\n<script>"
    page = inbox.send(
        f"From: a@b\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n{part}\r\n--x--\r\n".encode()
    )
    response, body = inbox.get(f"{page}/files/0")
    found = re.fullmatch(r"attachment; filename\*=UTF-8''([\w%.~-]+)", str(response.headers["Content-Disposition"]))
    assert found is not None
    # Python's parser of fields drops control characters itself.
    assert unquote(found[1]) in {NAMES[name], re.sub(r"[\r\n]", "", NAMES[name])}
    assert (response.headers["Content-Type"], body) == ("application/octet-stream", b"<script>")
    assert response.headers["Set-Cookie"] is None
    # On disk, the name is ours.
    assert all(re.fullmatch(r"[\d-]+\.eml", path.name) for path in inbox.folder.iterdir())


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\r", "\u202e", "[red]"])
def test_a_subject_does_not_control_the_terminal(inbox: Inbox, text: str) -> None:
    """Control characters are shown as escapes, markup as it is."""
    encoded = "".join(f"={byte:02x}" for byte in f"a{text}b".encode())
    inbox.send(f"From: me@example.org\r\nSubject: =?utf-8?q?{encoded}?=\r\n\r\n\r\n".encode())
    line = inbox.terminal.getvalue().splitlines()[-1]
    assert text not in line or text == "[red]"
    assert re.search(r"  a.*b  http://", line)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:PORT", 200),
        ("localhost:PORT", 200),
        ("LOCALHOST:PORT", 200),
        ("evil.example", 403),
        ("evil.example:PORT", 403),
        ("127.0.0.1.evil.example:PORT", 403),
        ("localhost", 403),
        ("127.0.0.1:1", 403),
        ("", 403),
    ],
)
def test_another_sites_name_is_refused(inbox: Inbox, message: EmailMessage, host: str, status: int) -> None:
    """A page of that site, whose name suddenly means this machine, cannot read anything (DNS rebinding)."""
    page = inbox.send(message)
    port = str(urlsplit(inbox.address).port)
    response, body = inbox.get(f"{page}/source", Host=host.replace("PORT", port))
    assert (response.status, b"leading dot" in body) == (status, status == 200)


@pytest.mark.parametrize("path", ["0", "99999", "PAGE/", "PAGE/files/9", "PAGE/../1", "../../etc/passwd", "PAGE/text"])
def test_an_unknown_page_is_not_found(inbox: Inbox, message: EmailMessage, path: str) -> None:
    """A query changes nothing."""
    page = inbox.send(message)
    assert inbox.get(f"/messages/{path}".replace("/messages/PAGE", page))[0].status == 404
    assert inbox.get(f"{page}?x=y")[0].status == 200


def test_nothing_can_be_changed_over_the_web(inbox: Inbox, message: EmailMessage) -> None:
    """HEAD has no body; other methods do not exist."""
    page = inbox.send(message)
    where = urlsplit(inbox.address)
    with socket.create_connection((str(where.hostname), int(where.port or 0))) as browser:
        browser.sendall(f"HEAD {page} HTTP/1.0\r\nHost: {where.netloc}\r\n\r\n".encode())
        with browser.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")
    assert (head.partition(b"\r\n")[0], body) == (b"HTTP/1.0 200 OK", b"")
    assert [inbox.get(page, method)[0].status for method in ("POST", "DELETE", "PUT")] == [501] * 3
    assert inbox.get(page)[0].status == 200


def test_a_browser_that_leaves_is_no_news(inbox: Inbox, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed, and the next one gets its page."""
    port = urlsplit(inbox.address).port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port)) as browser:
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        browser.sendall(b"GET / HTTP/1.1\r\n")
    assert inbox.get("/")[0].status == 200
    assert capfd.readouterr() == ("", "")


def test_a_deleted_file_is_not_found(open_one: Open, message: EmailMessage) -> None:
    """Its line stays in the list."""
    with open_one() as inbox:
        page = inbox.send(message)
        next(inbox.folder.iterdir()).unlink()
        response, body = inbox.get(page)
        assert (response.status, b"not in the folder any more" in body) == (404, True)
        assert b"Inbox: 1 message<" in inbox.get("/")[1]


def test_a_message_that_cannot_be_kept_is_refused(open_one: Open, message: EmailMessage) -> None:
    """The program gets a temporary refusal, and the terminal says why; the next message is kept."""

    def refuse_one() -> None:
        with open_one() as inbox:
            elsewhere = inbox.folder.rename(inbox.folder.with_name("elsewhere"))
            with pytest.raises(DataRefusedError) as caught:
                inbox.send(message)
            assert (caught.value.retryable, caught.value.reply and caught.value.reply.code) == (True, 451)
            line = inbox.terminal.getvalue().splitlines()[-1]
            assert line == "not kept: No such file or directory: me@example.org → you@example.org, blind@example.org"
            elsewhere.rename(inbox.folder)
            assert inbox.send(message) == "/messages/1"

    # The server raises it at its end.
    with pytest.raises(FileNotFoundError):
        refuse_one()


def test_a_second_run_keeps_what_the_first_one_has_received(open_one: Open, message: EmailMessage) -> None:
    """Its own list begins empty, and it writes the new CA over the old one."""
    for _ in range(2):
        with open_one() as inbox:
            assert b"No message has arrived yet." in inbox.get("/")[1]
            assert inbox.send(message) == "/messages/1"
    assert len(list(inbox.folder.iterdir())) == 2
    assert {path.stat().st_mode & 0o777 for path in inbox.folder.iterdir()} == {0o600}


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    """Both ports."""
    with open_inbox(Console(file=io.StringIO()), tmp_path / "ca.pem", tmp_path, (0, 0), "implicit") as (
        server,
        address,
    ):
        listening = Path("/proc/self/net/tcp").read_text("ascii")
        for port in (server.port, urlsplit(address).port):
            assert re.findall(rf" (\w+):{port:04X} 00000000:0000 0A", listening) == ["0100007F"]


@pytest.fixture
def taken() -> Iterator[int]:
    """Listen on a port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("option", ["--port", "--web-port"])
def test_a_port_in_use_is_an_error_that_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: int, option: str
) -> None:
    """And the other port is free again; the CA of an inbox that runs stays."""
    monkeypatch.chdir(tmp_path)
    Path("ca.pem").write_text("-----BEGIN CERTIFICATE-----\nof another\n", "ascii")
    other = {"--port": "--web-port", "--web-port": "--port"}[option]
    assert main(["serve", "--ca-out=ca.pem", f"{option}={taken}", f"{other}=0"]) == 1
    assert f"Error: {option} {taken} cannot be used: Address already in use" in capsys.readouterr().err
    assert Path("ca.pem").read_text("ascii").endswith("of another\n")


def test_a_file_that_is_no_certificate_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: int
) -> None:
    """--ca-out names it by mistake."""
    monkeypatch.chdir(tmp_path)
    Path("settings.py").write_text("SECRET = 1\n", "ascii")
    assert main(["serve", "--ca-out=settings.py", f"--port={taken}", "--web-port=0"]) == 1
    assert "settings.py exists and is no certificate. Hint: choose another name" in capsys.readouterr().err
    assert Path("settings.py").read_text("ascii") == "SECRET = 1\n"
    assert main(["serve", "--ca-out=missing/ca.pem", "--port=0", "--web-port=0"]) == 1
    assert "missing/ca.pem: No such file or directory" in capsys.readouterr().err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT end child processes: a background job of a script ignores it, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def serving(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the command as a user does; a developer's Python warns about what is left open."""
    with subprocess.Popen(
        # Not about all else: aiosmtpd's own import warns.
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-u", "-m", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        last_resort = threading.Timer(60, process.kill)
        last_resort.start()
        try:
            yield process
        finally:
            last_resort.cancel()
            process.kill()


# What differs from run to run in the command's output: ports, the file's folder, times.
VARYING = re.compile(r"(?<=127.0.0.1:)\d+|(?<=PORT=)\d+|(?<=FILE=).*(?=/ca.pem)|^\d\d:\d\d:\d\d", re.MULTILINE)


@pytest.mark.usefixtures("interruptible")
def test_the_page_shows_what_the_terminal_shows_until_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The page's command prints what the page says, while the page's program sends.

    Ctrl-C ends it without a traceback, although a browser is connected, and nothing is left open.
    """
    command, program = re.findall(r"<!-- run by: [^\n]* -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    with serving(*command.split(), "--port=0", "--web-port=0", folder=tmp_path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        for name, value in re.findall(r"^(SMTP_\w+)=(\S+)$", "".join(lines), re.MULTILINE):
            monkeypatch.setenv(name, value)
        exec(compile(program, "development-inbox.md", "exec"), {})  # noqa: S102 -- our own page
        lines.append(process.stdout.readline())
        page = urlsplit(lines[-1].split()[-1])
        with socket.create_connection((str(page.hostname), int(page.port or 0))):
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=30)
    assert VARYING.sub("_", "".join(lines)) == VARYING.sub("_", shown)
    assert (process.returncode, rest) == (0, "\nThe messages are in inbox\n")
    assert "Traceback" not in errors
    assert "ResourceWarning" not in errors
    assert len(list((tmp_path / "inbox").iterdir())) == 1


def test_the_page_has_every_option() -> None:
    """And no other."""
    assert set(re.findall(r"`(--[\w-]+)`", PAGE)) == {name for each in serve.params for name in each.opts}


def test_ctrl_c_before_it_is_ready_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """As shells report it, and without a traceback."""

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("securesmtp._cli.serve.command", click.Command("serve", callback=interrupted))
    assert main(["serve"]) == 130


NOW = datetime(2026, 11, 27, tzinfo=UTC)
FRAGMENTS = [
    *("From: ", "Subject: ", "To: ", "Content-Type: ", "Content-ID: <x>", "Content-Disposition: attachment; filename"),
    *(
        "multipart/mixed; boundary=x",
        "text/html",
        "text/plain; charset=",
        "message/rfc822",
        "image/png",
        "\r\n",
        "\r\n\r\n",
    ),
    *(
        "\r\n--x\r\n",
        "\r\n--x--\r\n",
        "=?utf-8?q?=0a?=",
        "=?x?b?!?=",
        "*0*=utf-8''%ff",
        '"',
        "<",
        ">",
        "@",
        ",",
        ";",
        "(",
        ":",
    ),
    *("Content-Transfer-Encoding: base64\r\n", "<a href=", "<![", "cid:x", "\x00", "\ud800", "[", "=", "\\"),
]


@hypothesis_settings(max_examples=examples(300))
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5)))
def test_every_message_has_its_pages(fragments: list[str]) -> None:
    """Whatever it consists of, nothing is raised, and each page is text that can be encoded."""
    received = Received("me@example.org", ("you@example.org",), "".join(fragments).encode("utf-8", "surrogatepass"))
    kept = Kept(1, NOW, Path("x.eml"), received, subject_of(received))
    for page in (pages.list_page([kept], "inbox"), pages.message_page(kept, received), pages.frame(received)):
        assert "<script" not in page.encode("utf-8", "replace").decode().lower() or "<script" in "".join(fragments)
    for each in pages.attachments(received):
        assert isinstance(each.data, bytes)


def test_an_image_whose_name_python_cannot_read_stays_as_it_is() -> None:
    """Python refuses to read a number of thousands of digits."""
    html = f'<img src="cid:&#{"9" * 5000};">'
    received = Received("", (), f"Content-Type: text/html\r\n\r\n{html}".encode())
    assert pages.frame(received) == html


def test_a_field_that_python_cannot_read_is_named_so() -> None:
    """The email package may raise anything; the subject and the page say that it did."""

    class Unreadable:
        content = b""

        def __getattr__(self, name: str) -> Any:
            raise ValueError(name)

    received: Any = Unreadable()
    assert subject_of(received) == "(a subject that cannot be read)"
    about = Received("", (), b"")
    page = pages.message_page(Kept(1, NOW, Path("x.eml"), about, ""), received)
    assert page.count("(cannot be read)") > 2
    assert pages.frame(received) == ""


def test_a_file_of_another_run_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it has the same name, which the time makes unlikely."""
    stopped = SimpleNamespace(now=lambda: NOW)
    monkeypatch.setattr("securesmtp._cli.inbox.store.datetime", stopped)
    Store(tmp_path).keep(Received("", (), b"first"))
    with pytest.raises(FileExistsError):
        Store(tmp_path).keep(Received("", (), b"second"))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_a_silent_browser_does_not_keep_the_inbox_from_its_end(tmp_path: Path) -> None:
    """Its connection is cut: browsers open some in advance."""
    with socket.socket() as silent:
        with serve_pages(Store(tmp_path), 0) as address:
            host, port = "127.0.0.1", urlsplit(address).port
            assert port is not None
            silent.connect((host, port))
            # It was accepted before this one.
            later = HTTPConnection(host, port, timeout=60)
            later.request("GET", "/")
            assert later.getresponse().status == 200
            later.close()
        silent.settimeout(60)
        assert silent.recv(1) == b""
