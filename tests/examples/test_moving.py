"""The right sides of docs/how-to/moving/: each program sends its message, with everything that the left side put in."""

from __future__ import annotations

import atexit
import re
from collections.abc import Callable
from contextlib import ExitStack
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from examples.conftest import AsPrinted
from examples.serving import EXAMPLES, serving
from scripted import Mode, honest

PAGES = EXAMPLES.parent / "how-to/moving"
FENCE = re.compile(r"<!-- ([^\n]*) -->\n```(\w+)\n(.*?)```", re.DOTALL)


def run_flask(names: dict[str, Any]) -> None:
    """Post to the application's route."""
    assert names["create_app"]().test_client().post("/welcome").data == b"sent"


def run_fastapi(names: dict[str, Any]) -> None:
    """Post to the application's route, over uvicorn."""
    with serving(names["app"]) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/welcome")
        assert connection.getresponse().status == 200
        connection.close()


def run_django(names: dict[str, Any]) -> None:
    """Send by Django's own function, with the page's settings."""
    import django  # noqa: PLC0415 -- as the next two
    from django.conf import settings  # noqa: PLC0415
    from django.core.mail import send_mail  # noqa: PLC0415
    from django.test.utils import override_settings  # noqa: PLC0415

    from securesmtp.integrations.django import close_mailers  # noqa: PLC0415

    if not settings.configured:
        settings.configure()
        django.setup()
    with override_settings(**{name: value for name, value in names.items() if name.startswith("EMAIL_")}):
        assert send_mail("Welcome", "Welcome!", "me@example.com", ["you@example.net"]) == 1
    # At its end, the process closes them; another test may have registered that already.
    close_mailers()


def run_mailer(names: dict[str, Any]) -> None:
    """Close the mailer that a short script leaves open."""
    names["mailer"].close()


class Wanted(NamedTuple):
    """What a page's program sends, and how to make it send."""

    subject: str
    text: str
    html: bool = False
    files: tuple[str, ...] = ()
    image: bool = False
    run: Callable[[dict[str, Any]], None] = lambda _: None


REPORT = ("The report", "The report is attached.")
WANTED = {
    "aiosmtplib": Wanted("Hello", "Is it there?"),
    "red-mail": Wanted(*REPORT, html=True, files=("report.pdf",), image=True),
    "yagmail": Wanted(*REPORT, files=("report.pdf",), run=run_mailer),
    "flask-mail": Wanted("Welcome", "Welcome!", html=True, run=run_flask),
    "fastapi-mail": Wanted("Welcome", "Welcome!", html=True, run=run_fastapi),
    "django": Wanted("Welcome", "Welcome!", run=run_django),
    "nodemailer": Wanted(*REPORT, html=True, files=("report.pdf",), image=True, run=run_mailer),
}


def test_each_page_has_two_sides_and_is_in_the_list() -> None:
    """The one that is replaced, which is not run, and ours; the overview names the page."""
    overview = (PAGES / "index.md").read_text("utf-8")
    pages = {path.stem for path in PAGES.glob("*.md")} - {"index"}
    assert pages == set(WANTED)
    for page in pages:
        marks = [mark for mark, _, _ in FENCE.findall((PAGES / f"{page}.md").read_text("utf-8"))]
        assert set(marks) >= {"run by: test_the_right_side_sends"}
        assert any(mark.startswith("not run: it is the") for mark in marks)
        assert f"({page}.md)" in overview
        assert f"\n{page}\n" in overview


# On Django 6.1; the page leads to the one that has its settings.
@pytest.mark.filterwarnings("ignore:The EMAIL_|The '")
@pytest.mark.parametrize("page", WANTED)
def test_the_right_side_sends(
    as_printed: AsPrinted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """One message over the port's TLS mode, to the recipient and nobody else, with text, HTML, image and file."""
    wanted, text = WANTED[page], (PAGES / f"{page}.md").read_text("utf-8")
    blocks = [code for mark, _, code in FENCE.findall(text) if mark == "run by: test_the_right_side_sends"]
    mode: Mode = "starttls" if "587" in "".join(blocks) else "implicit"
    server = as_printed(honest(mode, auth=("me", "secret")))
    monkeypatch.chdir(tmp_path)
    Path("report.pdf").write_bytes(b"%PDF-1.7")
    Path("chart.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    module = ModuleType("program")
    with ExitStack() as at_exit:
        monkeypatch.setattr(atexit, "register", at_exit.callback)
        for block in blocks:
            exec(compile(block, f"{page}.md", "exec"), vars(module))  # noqa: S102 -- our own page
        wanted.run(vars(module))
    server.joined()
    (accepted,) = server.accepted
    assert accepted.recipients == (b"RCPT TO:<you@example.net>",)
    message: EmailMessage = message_from_bytes(accepted.content, policy=policy.default)
    assert message["Subject"] == wanted.subject
    assert message["From"].addresses[0].addr_spec == "me@example.com"
    assert _body(message, "plain").strip() == wanted.text
    html = _body(message, "html")
    assert (wanted.text in html) is wanted.html
    assert tuple(part.get_filename() for part in message.iter_attachments()) == wanted.files
    images = [part["Content-ID"] for part in message.walk() if part.get_content_type() == "image/png"]
    assert ([f"<{each}>" for each in re.findall(r'src="cid:([^"]+)"', html)] == images) is True
    assert len(images) == wanted.image


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return "" if part is None else str(part.get_content())
