"""The recipes of the page about HTML, and the page with the same mail in other libraries."""

from __future__ import annotations

import re
import socket
from email.message import EmailMessage
from typing import Any

import pytest
from flask.testing import FlaskClient
from jinja2 import UndefinedError

import html_mail
from bench import same_mail
from compose.wire import composed, read, tree, wire
from unsubscribe_flask import create_app

PAGE = same_mail.PAGE.read_text("utf-8")


def _invoice(**given: Any) -> EmailMessage:
    values = {
        "name": "Jeremy's <b>& Söhne",
        "address": "j@example.net",
        "number": "42",
        "total": "10 €",
        "pdf": b"%PDF",
    }
    return read(wire(html_mail.invoice(**{**values, **given})))


def test_templates_escape_html_only() -> None:
    """The subject and the text say what the customer is called, and the page shows it."""
    message = _invoice()
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert tree(message) == "mixed(alternative(plain, related(html, png)), pdf)"
    assert message["Subject"] == "Invoice 42 for Jeremy's <b>& Söhne"
    assert text is not None
    assert html is not None
    assert "Hello Jeremy's <b>& Söhne," in text.get_content()
    assert re.search(r"Hello Jeremy(&#39;|')s &lt;b&gt;&amp; Söhne,", html.get_content())


def test_a_missing_value_is_an_error() -> None:
    """In both kinds of templates."""
    for templates in (html_mail.PAGES, html_mail.TEXTS):
        with pytest.raises(UndefinedError):
            templates.from_string("Hello {{ nobody }}").render({})


def test_inlining_keeps_what_dark_styles_need() -> None:
    """CSS is in the elements; @media, the meta fields and the image are still there."""
    html = _invoice().get_body(("html",))
    assert html is not None
    page = html.get_content()
    assert '<h1 style="font-size: 20px;color: #036;">' in page
    assert "@media (prefers-color-scheme: dark)" in page
    for name in ("color-scheme", "supported-color-schemes"):
        assert f'<meta name="{name}" content="light dark">' in page
    assert re.search(r'<img src="cid:logo\.[0-9a-f]{16}@example\.com"', page)


def test_inlining_fetches_nothing() -> None:
    """HTML from outside could name a server in the program's own network."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        links = f'<link rel="stylesheet" href="{address}/x.css"><style>@import url({address}/y.css);</style>'
        assert html_mail.INLINER.inline(f"{links}<p>x</p>")
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.fixture
def removed() -> list[str]:
    """Return who was taken off the list."""
    return []


@pytest.fixture
def client(removed: list[str]) -> FlaskClient:
    """Return a client of the application that unsubscribes."""
    app = create_app("not a secret", removed.append)
    with app.test_request_context(base_url="https://example.com"):
        link = app.extensions["unsubscribe_link"]("bob@example.net")
        message = read(wire(composed(unsubscribe=("mailto:leave@example.com", link))))
    # As a mail program finds it in the message that arrived.
    found = re.search("<https://example.com(/[^>]+)>", message["List-Unsubscribe"])
    assert found
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    client = app.test_client()
    client.environ_base["UNSUBSCRIBE"] = found[1]
    return client


def test_a_get_does_not_unsubscribe(client: FlaskClient, removed: list[str]) -> None:
    """Scanners follow every link; a person gets a form, which posts."""
    path = client.environ_base["UNSUBSCRIBE"]
    for method in (client.get, client.head):
        assert method(path).status_code == 200
    assert '<form method="post">' in client.get(path).text
    assert removed == []
    assert client.post(path).status_code == 200
    assert removed == ["bob@example.net"]


def test_a_mail_program_unsubscribes_by_one_post(client: FlaskClient, removed: list[str]) -> None:
    """Without a redirect, a cookie or a login (RFC 8058 §3.1); a link of somebody else's making does nothing."""
    response = client.post(client.environ_base["UNSUBSCRIBE"], data={"List-Unsubscribe": "One-Click"})
    assert (response.status_code, removed) == (200, ["bob@example.net"])
    assert "Set-Cookie" not in response.headers
    assert client.post("/unsubscribe/forged").status_code == 404
    assert client.get("/unsubscribe/forged").status_code == 404
    assert removed == ["bob@example.net"]


@pytest.mark.parametrize("library", ["securesmtp", "smtplib", "Django"])
def test_the_same_mail_arrives(library: str) -> None:
    """The program runs as printed, and its row is right; `nox -s same_mail` runs the others, too."""
    assert same_mail.row(library, same_mail.check(same_mail.run(library))) in PAGE


def test_the_page_has_a_program_and_a_row_of_each_library() -> None:
    """The lines are counted again; ours are at most 11."""
    for library in same_mail.LIBRARIES:
        program = same_mail.program(library)
        lines, imports = same_mail.count_lines(program)
        assert f"| {library} | {lines} | {imports} | `" in PAGE
        assert f"../examples/same_mail/{program.name}\n" in PAGE
    assert same_mail.count_lines(same_mail.program("securesmtp")) == (11, 1)
