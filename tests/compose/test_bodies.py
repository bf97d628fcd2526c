"""The structure of a message, its texts, and its images."""

from __future__ import annotations

import contextlib
import re
import socket
import time
import tracemalloc
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compose.wire import MINIMAL, arrived, composed, read, tree, wire
from conftest import examples
from securesmtp import MessageError, compose
from securesmtp._compose.images import refuse_paths

INVITATION = (
    "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nORGANIZER:mailto:ada@example.org\nEND:VEVENT\nEND:VCALENDAR\n"
)
PARTS: dict[str, dict[str, Any]] = {
    "text": {"text": "Hi"},
    "html": {"html": "<p>Hi"},
    "images": {"html": '<img src="cid:logo">', "inline": {"logo": ("logo.png", b"png")}},
    "calendar": {"calendar": INVITATION},
    "file": {"attachments": [("a.pdf", b"%PDF")]},
    "files": {"attachments": [("a.pdf", b"%PDF"), ("b.zip", b"zip")]},
}
TREES = {
    "text": "plain",
    "html": "html",
    "text html": "alternative(plain, html)",
    "images": "related(html, png)",
    "text images": "alternative(plain, related(html, png))",
    "file": "mixed(plain, pdf)",
    "files": "mixed(plain, pdf, zip)",
    "text file": "mixed(plain, pdf)",
    "html file": "mixed(html, pdf)",
    "text html file": "mixed(alternative(plain, html), pdf)",
    "images file": "mixed(related(html, png), pdf)",
    "text images files": "mixed(alternative(plain, related(html, png)), pdf, zip)",
    "text calendar": "mixed(alternative(plain, calendar), ics)",
    "html calendar": "mixed(alternative(html, calendar), ics)",
    "images calendar": "mixed(alternative(related(html, png), calendar), ics)",
    "text html calendar": "mixed(alternative(plain, html, calendar), ics)",
    "text images calendar": "mixed(alternative(plain, related(html, png), calendar), ics)",
    "text calendar file": "mixed(alternative(plain, calendar), pdf, ics)",
    "html calendar files": "mixed(alternative(html, calendar), pdf, zip, ics)",
    "text html calendar file": "mixed(alternative(plain, html, calendar), pdf, ics)",
    "text images calendar file": "mixed(alternative(plain, related(html, png), calendar), pdf, ics)",
}


def _message(**given: Any) -> EmailMessage:
    return compose(**{**MINIMAL, **given})


@pytest.mark.parametrize("parts", TREES)
def test_each_combination_has_its_structure(parts: str) -> None:
    """As readers expect it: no level with one part, files outside, the invitation last."""
    given = {key: value for name in parts.split() for key, value in PARTS[name].items()}
    found = read(wire(_message(**given)))
    assert tree(found) == TREES[parts]
    assert found["MIME-Version"] == "1.0"
    assert [part for part in found.walk() if part is not found and "MIME-Version" in part] == []


def _masked(message: EmailMessage) -> bytes:
    return re.sub(rb"={15}\d+==|logo\.[0-9a-f]{16}", b"", wire(message))


def test_the_order_of_the_arguments_does_not_matter() -> None:
    """Apart from boundaries and Content-IDs, the same bytes; Python's own methods allow one order only."""
    given = list({**PARTS["text"], **PARTS["images"], **PARTS["calendar"], **PARTS["file"]}.items())
    orders = [given[start:] + given[:start] for start in range(len(given))]
    assert len({_masked(_message(**dict(order))) for order in [*orders, given[::-1]]}) == 1


@pytest.mark.parametrize("given", [{}, {"text": None}, PARTS["calendar"], PARTS["calendar"] | PARTS["file"]])
def test_without_anything_to_read_there_is_no_message(given: dict[str, Any]) -> None:
    """An invitation needs a text, too, for readers without a calendar."""
    with pytest.raises(MessageError, match="neither text nor html") as caught:
        _message(**given)
    assert "text=" in (caught.value.hint or "")


def test_an_empty_text_is_a_text() -> None:
    """None is not given, "" is."""
    assert tree(read(wire(_message(text="")))) == "plain"
    assert tree(read(wire(_message(text="", html="")))) == "alternative(plain, html)"
    assert tree(read(wire(_message(html="")))) == "html"


@pytest.mark.parametrize("name", ["text", "html"])
def test_what_is_no_str_is_no_text(name: str) -> None:
    """Also a half of a surrogate pair is not."""
    for wrong in (b"Hi", 7, ["Hi"]):
        with pytest.raises(MessageError, match=rf"{name} is a \w+, not a str") as caught:
            _message(**{name: wrong})
        assert "template" in (caught.value.hint or "")
    with pytest.raises(MessageError, match=rf"{name} has half of a surrogate pair at index 1"):
        _message(**{name: "a\udc80"})


GERMAN = "Schöne Grüße aus Köln, und bis bald in alter Frische am gewohnten Ort.\n" * 3


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Hello\n", "7bit"), ("", "7bit"), ("Hello", "7bit"), ("a\r\nb\rc", "7bit"), ("From me\n.\n..\n", "7bit"),
        ("\ta" + "b" * 77, "quoted-printable"), (GERMAN, "quoted-printable"), ("x" * 2000, "quoted-printable"),
        ("a" * 10 + "ü", "quoted-printable"), ("a" * 9 + "ü", "base64"), ("a\0b", "quoted-printable"),
        ("ends with a blank ü \n" * 9, "quoted-printable"), ("ü", "base64"),
        ("你好\n世界\n" * 40, "base64"),
    ],
)  # fmt: skip
def test_a_text_is_written_as_ascii(text: str, encoding: str) -> None:
    """So no server has to convert it; filters punish base64, so that is for text which is mostly not ASCII."""
    for name, get in (("text", "plain"), ("html", "html")):
        data = wire(_message(**{name: text}))
        found = read(data).get_body((get,))
        assert found is not None
        assert (found["Content-Transfer-Encoding"], data.isascii()) == (encoding, True)
        assert max(map(len, data.split(b"\r\n"))) <= 78
        expected = re.sub("\r\n|\r|\n", "\r\n", text)
        assert found.get_content() == expected + ("" if expected.endswith("\n") or not expected else "\r\n")


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=examples(120), deadline=None)
def test_any_text_is_read_as_it_was_set(text: str) -> None:
    """Line ends become CRLF, and the last line has one."""
    lines = re.split("\r\n|\r|\n", text)
    expected = "\r\n".join(lines if not lines[-1] else [*lines, ""])
    found = read(wire(_message(text=text)))
    assert found.get_content() == expected


# ---------------------------------------------------------------------------------------------------- images

PLACES = {
    "double": '<img src="cid:logo">',
    "single": "<img src='cid:logo'>",
    "bare": "<img src=cid:logo>",
    "spaces": '<img alt="" src = " cid:logo">',
    "upper": '<IMG SRC="CID:logo">',
    "background": '<td background="cid:logo">',
    "css": "<style>body { background: #fff url(cid:logo) }</style>",
    "css-quoted": """<style>p { background: url( 'cid:logo' ) } q { background: url("cid:logo") }</style>""",
    "style": '<p style="background:url(cid:logo)">',
    "style-entities": '<p style="background:url(&quot;cid:logo&quot;)">',
    "style-single": """<p style='background:url("cid:logo")'>""",
    "srcset": '<img src="cid:logo" srcset="cid:logo 1x, cid:logo 2x">',
    "comment": "<!--[if mso]><v:fill type='tile' src='cid:logo'/><![endif]-->",
    "svg": '<image xlink:href="cid:logo"/>',
    "poster": '<video poster="cid:logo">',
}


@pytest.mark.parametrize("html", PLACES.values(), ids=PLACES)
def test_an_image_is_found_where_html_may_name_it(html: str) -> None:
    """The field has angle brackets, the HTML has none; both are the same after parsing (RFC 2392)."""
    found = arrived(html=html, inline={"logo": ("logo.png", b"png")})
    page, image = found.iter_parts()
    content = page.get_content()
    content_id = str(image["Content-ID"])
    assert re.fullmatch(r"<logo\.[0-9a-f]{16}@example\.org>", content_id)
    replaced = re.sub("cid:logo", f"cid:{content_id[1:-1]}", html, flags=re.IGNORECASE)
    assert content.strip() == replaced
    assert (image.get_content_disposition(), image.get_filename()) == ("inline", "logo.png")
    assert found["Content-Type"].params["type"] == "text/html"


def test_a_text_about_cid_stays_as_it_is() -> None:
    """Only a place that loads something is a reference."""
    html = '<p>Write cid:logo or cid:other, not acid:logo.</p><a title="cid:logo" data-src="cid:x" href="?q=cid:y">'
    assert arrived(html=html).get_content().strip() == html
    with pytest.raises(MessageError, match="the HTML does not refer to it"):
        composed(html=html, inline={"logo": ("logo.png", b"")})


def test_labels_that_begin_alike_are_told_apart() -> None:
    """`cid:a` is not the beginning of `cid:a.b`."""
    html = '<img src="cid:a"><img src="cid:a.b"><img src="cid:a-1">'
    page, *images = arrived(
        html=html, inline={"a": ("1.png", b"1"), "a.b": ("2.png", b"2"), "a-1": ("3.png", b"3")}
    ).iter_parts()
    ids = [str(image["Content-ID"])[1:-1] for image in images]
    assert re.findall('cid:([^"]+)', page.get_content()) == ids
    assert [image.get_payload(decode=True) for image in images] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("given", "text", "hint"),
    [
        pytest.param(
            {"html": '<img src="cid:a"><img src="cid:b">'},
            "'a', 'b' by cid:, and inline does",
            "empty box",
            id="missing",
        ),
        pytest.param({"html": '<img src="cid:">'}, "refers to '' by cid:", "empty box", id="no-label"),
        pytest.param({"html": '<img src="cid:x@y">'}, "refers to 'x@y' by cid:", "empty box", id="a-whole-id"),
        pytest.param(
            {"html": "", "inline": {"b": ("b", b""), "a": ("a", b"")}}, "inline has 'a', 'b', and", "<img", id="unused"
        ),
        pytest.param({"text": "x", "inline": {"a": ("a", b"")}}, "no html", "attachments", id="no-html"),
        pytest.param({"html": "", "inline": [("a", b"")]}, "inline is a list, not a mapping", "logo", id="a-list"),
        pytest.param({"html": "", "inline": {"a b": ("a", b"")}}, "the name 'a b'", "letters", id="blank"),
        pytest.param({"html": "", "inline": {"a/b.png": ("a", b"")}}, "the name 'a/b.png'", "letters", id="slash"),
        pytest.param({"html": "", "inline": {"a.": ("a", b"")}}, "the name 'a.'", "letters", id="dot-at-the-end"),
        pytest.param({"html": "", "inline": {"ü": ("a", b"")}}, "the name 'ü'", "letters", id="umlaut"),
        pytest.param({"html": "", "inline": {"x" * 61: ("a", b"")}}, "the name 'xxx", "letters", id="long"),
        pytest.param({"html": "", "inline": {7: ("a", b"")}}, "the name 7", "letters", id="number"),
        pytest.param({"html": "", "inline": {"a": b""}}, "an attachment is a bytes", "path", id="no-file"),
    ],
)
def test_an_image_that_would_not_be_shown_is_an_error(given: dict[str, Any], text: str, hint: str) -> None:
    """A reader shows an empty box, or hides the image."""
    with pytest.raises(MessageError, match=re.escape(text)) as caught:
        _message(**given)
    assert hint in (caught.value.hint or "")


def test_a_hint_has_no_name_that_says_something_else_to_a_shell() -> None:
    """The command shows it as a line to copy, and data in a template may be anything."""
    for html, hint in {
        '<img src="cid:`id`">': 'use letters, digits, ".", "_" and "-" after cid:',
        '<img src="cid:$x"><img src="cid:logo">': "pass inline={'logo': …}",
    }.items():
        with pytest.raises(MessageError, match="by cid:, and inline does not have it") as caught:
            composed(html=html)
        assert caught.value.hint == f"{hint}; a reader would see an empty box"


PATHS = {
    "relative": ('<img src="chart.png">', "chart.png"),
    "below": ("<IMG alt=\"a > b\" SRC='img/my chart.png'/>", "my chart.png"),
    "no-quotes": ("<p><img width=1 src=img/chart.png>", "chart.png"),
    "absolute": ('<img src="/static/chart?id=3&amp;token=a/b">', "chart"),
    "file": ('<img src="file:///tmp/chart.png">', "chart.png"),
    "drive": (r'<img src="C:\pictures\chart.png">', "chart.png"),
    "dots": ('<img src=" ../chart%20a.png ">', "chart%20a.png"),
    "background": ('<td background="paper.png">', "paper.png"),
    "poster": ('<video poster="first.jpg">', "first.jpg"),
    "srcset": (
        '<img src="https://example.org/1.png" srcset="data:image/png;base64,AA== 1x, chart.png 2x">',
        "chart.png",
    ),
    "source": ('<source srcset="chart.webp">', "chart.webp"),
    "input": ('<input type="image" src="button.png">', "button.png"),
    "style": ('<p style="background: url(&quot;img/paper.png&quot;)">', "paper.png"),
    "css": ("<style>body { background: url( '/paper.svg#a' ) }</style>", "paper.svg"),
    "folder": ('<img src="img/">', "img/"),
}


@pytest.mark.parametrize(("html", "name"), PATHS.values(), ids=PATHS)
def test_an_image_that_is_named_by_a_path_is_an_error(html: str, name: str) -> None:
    """No reader has the file; the error says how to send it."""
    with pytest.raises(MessageError, match=re.escape(f"the HTML refers to '{name}' by a path")) as caught:
        composed(html=html)
    assert "in its place and pass inline={'" in str(caught.value.hint)


def test_the_error_about_a_path_has_a_name_that_works() -> None:
    """That of the file, if it can be one."""
    for path, label in {"img/chart-1.png": "chart-1", "größe.png": "image", "my chart.png": "image"}.items():
        with pytest.raises(MessageError) as caught:
            composed(html=f'<img src="{path}">')
        assert f"write cid:{label} in its place and pass inline={{'{label}': …}}" in str(caught.value.hint)


NOT_PATHS = {
    "https": '<img src="https://example.org/chart.png"><img src="//example.org/chart.png">',
    "data": '<img src="data:image/png;base64,iVBORw0KGgo=" srcset="data:image/gif;base64,R0lG, https://e.org/2 2x">',
    "sizes": '<img srcset="https://example.org/1.png 640w, https://example.org/2.png 1.5x">',
    "base": '<base href="https://example.org/"><img src="chart.png">',
    "comment": '<!-- <img src="chart.png"> --><!--[if mso]><v:fill src="chart.png"/><![endif]-->',
    "text": '<p>Write src="chart.png", or &lt;img src=&quot;chart.png&quot;&gt;, or url(chart.png).</p>',
    "attribute": """<p title='<img src="chart.png">'><img alt='src="chart.png"' data-src="chart.png" src="#">""",
    "provider": '<img src="{{ chart }}"><img src="*|CHART|*"><img src="%recipient.chart%"><img src="[[chart]]">',
    "provider-underscores": '<img src="__CHART__">',
    "words": '<td background="none">',
    "data-in-srcset": """<img srcset="data:image/svg+xml;utf8,<svg xmlns='x' viewBox='0 0 1.5 2'/> 1x">""",
    "empty": '<img src=""><img src>',
    "font": '<style>@font-face { src: url(font.woff2) } p { fill: url(#red) } @import url("a.css");</style>',
    "css-comment": "<style>/* p { background: url(paper.png) } */</style><p style='/* url(paper.png)'>",
    "link": '<a href="page.html">page</a><script src="chart.js">"<img src=\'chart.png\'>"</script>',
    "unclosed": '<!-- <img src="chart.png">',
}


@pytest.mark.parametrize("html", NOT_PATHS.values(), ids=NOT_PATHS)
def test_what_may_be_no_path_is_left_alone(html: str) -> None:
    """Nothing that reaches its reader is refused."""
    assert arrived(html=html).get_content().strip() == html


HOSTILE = {
    "blanks": "src" + " " * 100_000 + "=" + " " * 100_000,
    "quote": 'src="' + "src='" * 50_000,
    "url": "url(" * 50_000,
    "url-quotes": "url('" * 50_000,
    "words": "src" * 70_000,
    "references": 'src="' + "cid:" * 50_000,
    "entities": 'style="' + "url(&quot;" * 20_000,
    "comments": "<!--" * 50_000,
    "scripts": "<script" * 30_000,
    "styles": "<style>" * 30_000,
    "open-styles": "<style " * 30_000,
    "tags": "<a " * 70_000,
    "tags-quotes": "<a \"'" * 40_000,
    "tag-quotes": "<a " + "'\"" * 100_000,
    "attributes": "<img " + "a=" * 100_000 + ">",
    "blanks-in-tag": "<img src" + " " * 200_000 + ">",
    "names": "<img " + "a" * 200_000 + ">",
    "srcset": '<img srcset="' + "a " * 100_000 + '">',
    "path": '<img src="' + "a/" * 100_000 + '{">',
    "values": "<img " + "a= " * 50_000 + " " * 100_000 + ">",
    "quotes-in-tag": "<img " + "' x=\" '" * 40_000 + ">",
    "css-urls": "<style>" + "url(a" * 50_000,
    "css-comments": "<style>" + "/*" * 100_000,
    "number": '<img src="&#' + "9" * 5_000 + ';">',
}


@pytest.mark.parametrize("html", HOSTILE.values(), ids=HOSTILE)
def test_hostile_html_takes_linear_time(html: str) -> None:
    """Data in a template may be anything. In quadratic time, it would take a minute of the processor's time."""
    began = time.process_time()
    with contextlib.suppress(MessageError):
        composed(html=html)
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    "html",
    [f"<img src=data:image/png;base64,{'A' * 200_000}>", "<p " + '""' * 100_000, f'<img src="{"a" * 200_000}">'],
    ids=["no-quotes", "quotes", "path"],
)
def test_html_is_read_in_little_memory(html: str) -> None:
    """It took 200 times the memory of the text: 2 GB for 10 MB."""
    tracemalloc.start()
    try:
        with contextlib.suppress(MessageError):
            refuse_paths(html)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(html)


def test_the_name_of_this_machine_is_not_in_the_message() -> None:
    """Content-IDs have the sender's domain; Python's own function publishes the host."""
    data = wire(_message(**PARTS["text"], **PARTS["images"], **PARTS["calendar"], **PARTS["file"]))
    assert socket.gethostname().encode() not in data
    assert data.count(b"@example.org") > 2
