"""
The pages of the development inbox, as HTML without any script.

How a hostile message is shown: each text is escaped. Its HTML is a document of its own, in a frame, with two locks. The
frame's attribute and the document's Content-Security-Policy both say ``sandbox``: no scripts, forms, pop-ups, downloads
or navigation of the page around it. And the policy allows no address at all but ``data:`` for images, so that nothing
is fetched; the images of the message itself become such addresses. A browser may still connect before it looks at the
policy: Chromium 156 does so for a frame and for a link that is clicked, and no policy covers a mere hint (``<link
rel="preconnect">``). So the elements that could do this are renamed, and links lead nowhere.
"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import partial
from html import escape, unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from email.message import MIMEPart

    from securesmtp._cli.inbox.store import Kept
    from securesmtp.testing import Attachment, Received

T = TypeVar("T")
S = TypeVar("S")
# Of our own pages. They have a style sheet, and the frame; "data:" is for the empty icon.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Of a message's HTML.
FRAME_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox"
)
# Messages in the list; bytes of the source on a page; characters of HTML in which links are looked for.
_LISTED, _SHOWN, _SEARCHED = 500, 100_000, 200_000
# Types of images that a browser draws; another type in a data: address could mean anything.
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})
_FIELDS = ("From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID")
# In the names of tags and attributes nothing is decoded, so there is no other spelling to look for.
_CONNECTING = re.compile(r"<(link|meta|base|i?frame|object|embed)", re.IGNORECASE)
_TARGET = re.compile(r"href(?=\s*=)", re.IGNORECASE)
_CID = re.compile(r"cid:([^\s\"'<>()]+)", re.IGNORECASE)
_UNREADABLE = "(cannot be read)"

STYLE = """\
:root { background: #fff; color: #1b1b1b; color-scheme: light dark; font: 100%/1.5 system-ui, sans-serif; }
a { color: #0645ad; }
@media (prefers-color-scheme: dark) {
  :root { background: #16181c; color: #e8e8e8; }
  a { color: #8ab4f8; }
}
body { margin: 0 auto; max-width: 70rem; padding: 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8886; overflow-wrap: anywhere; padding: .3rem .6rem .3rem 0; text-align: left; }
th, td { vertical-align: top; }
th[scope=row] { overflow-wrap: normal; white-space: nowrap; width: 1%; }
pre { background: #8882; overflow-wrap: anywhere; padding: .6rem; white-space: pre-wrap; }
iframe { background: #fff; border: 1px solid #888; box-sizing: border-box; color-scheme: light; height: 60vh; }
iframe { resize: vertical; width: 100%; }
li { overflow-wrap: anywhere; }
@media (max-width: 40rem) { .wide { display: none; } }
"""


def list_page(kept: Sequence[Kept], folder: object) -> str:
    """Return the list of messages, newest first."""
    rows = "".join(_row(each) for each in reversed(kept[-_LISTED:]))
    more = f"<p>The list has the newest {_LISTED}; all are in the folder.</p>" if len(kept) > _LISTED else ""
    head = '<th scope="col" class="wide">Time</th><th scope="col" class="wide">From</th>'
    table = f'<table><thead><tr>{head}<th scope="col">To</th><th scope="col">Subject</th></tr></thead>'
    found = f"{table}<tbody>{rows}</tbody></table>{more}" if rows else "<p>No message has arrived yet.</p>"
    about = f'<p>In {escape(str(folder))}. <a href="/">Reload</a></p>'
    return _page(f"Inbox: {_count(len(kept))}", about + found)


def message_page(kept: Kept, received: Received) -> str:
    """Return the page of one message."""
    base = f"/messages/{kept.number}"
    html, text = _read(lambda: received.html, _UNREADABLE), _read(lambda: received.text, _UNREADABLE)
    parts = ['<p><a href="/">All messages</a></p>', _fields(received)]
    if html is not None:
        parts += [
            "<h2>HTML</h2><p>Scripts, forms, links and remote images are off.</p>",
            f'<iframe sandbox="" src="{base}/html" title="The message as HTML"></iframe>',
            _links(html),
        ]
    parts += [
        "<h2>Text</h2>",
        "<p>None.</p>" if text is None else f'<pre tabindex="0">{escape(text)}</pre>',
        _files(base, received),
        _envelope(kept),
        _source(base, received.content),
    ]
    return _page(kept.subject or "(no subject)", "".join(parts))


def frame(received: Received) -> str:
    """Return the HTML of a message as a document that fetches nothing; it is empty if the message has none."""
    html = _CONNECTING.sub(r"<x-\1", _read(lambda: received.html, None) or "")
    # The first of two attributes with the same name counts.
    html = _TARGET.sub("href=# data-href", html)
    images = _images(received)
    return _CID.sub(lambda found: _read(lambda: images[unquote(unescape(found[1]))], found[0]), html)


def attachments(received: Received) -> Sequence[Attachment]:
    """Return the attached files, or none if they cannot be read."""
    return _read(lambda: received.attachments, ())


def failure_page(text: str) -> str:
    """Return a page that says why there is no other."""
    return _page(text, '<p><a href="/">All messages</a></p>')


def _page(title: str, body: str) -> str:
    title = escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css"></head>'
        f"<body><main><h1><bdi>{title}</bdi></h1>{body}</main></body></html>"
    )


def _row(kept: Kept) -> str:
    about, subject = kept.envelope, escape(kept.subject) or "(no subject)"
    return (
        f'<tr><td class="wide">{kept.arrived:%H:%M:%S}</td><td class="wide"><bdi>{escape(about.mail_from)}</bdi></td>'
        f"<td><bdi>{escape(', '.join(about.recipients))}</bdi></td>"
        f'<td><a href="/messages/{kept.number}"><bdi>{subject}</bdi></a></td></tr>'
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    found = "".join(f'<tr><th scope="row">{escape(name)}</th><td><bdi>{text}</bdi></td></tr>' for name, text in rows)
    return f"<table>{found}</table>"


def _fields(received: Received) -> str:
    values = {name: _read(partial(_field, received, name), _UNREADABLE) for name in _FIELDS}
    return _table((name, escape(value)) for name, value in values.items() if value is not None)


def _field(received: Received, name: str) -> str | None:
    value = received.message[name]
    return None if value is None else str(value)


def _envelope(kept: Kept) -> str:
    about = kept.envelope
    rows = {
        "Sender": about.mail_from or "empty (the null reverse-path)",
        "Recipients": ", ".join(about.recipients),
        "Login": about.username or "none",
        "TLS": about.tls,
        "Arrived": f"{kept.arrived:%Y-%m-%d %H:%M:%S %z}",
        "File": str(kept.path),
    }
    return "<h2>Envelope and TLS</h2>" + _table((name, escape(value)) for name, value in rows.items())


def _files(base: str, received: Received) -> str:
    items = "".join(
        f'<li><a href="{base}/files/{number}"><bdi>{escape(each.name or "(no name)")}</bdi></a>, '
        f"{escape(each.content_type)}, {len(each.data)} bytes</li>"
        for number, each in enumerate(attachments(received))
    )
    return f"<h2>Attachments</h2><ul>{items}</ul>" if items else ""


def _source(base: str, content: bytes) -> str:
    beginning = escape(content[:_SHOWN].decode("utf-8", "replace"))
    cut = "<p>This is its beginning.</p>" if len(content) > _SHOWN else ""
    return (
        f'<h2>Source</h2><p><a href="{base}/source">As text</a>, <a href="{base}/message.eml">as a file</a></p>'
        f'<details><summary>Show it here</summary>{cut}<pre tabindex="0">{beginning}</pre></details>'
    )


def _links(html: str) -> str:
    """Return where the links of *html* lead, because those in the frame do not work."""
    collector = _Links()
    # What was found before the parser gave up is shown.
    _read(lambda: collector.feed(html[:_SEARCHED]), None)
    items = "".join(
        f'<li><a href="{escape(each)}" rel="noopener noreferrer" target="_blank">{escape(each)}</a></li>'
        if each.lower().startswith(("https://", "http://"))
        else f"<li>{escape(each)}</li>"
        for each in collector.found
    )
    return f"<h2>Links</h2><ul>{items}</ul>" if items else ""


class _Links(HTMLParser):
    """Collects the addresses of links, each once."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address of a link."""
        address = dict(attrs).get("href") if tag in {"a", "area"} else None
        if address:
            self.found[address.strip()] = None


def _images(received: Received) -> dict[str, str]:
    """Return the images that the HTML can show, as data: addresses, by their Content-ID."""
    found = (_read(partial(_image, part), None) for part in _read(lambda: list(received.message.walk()), []))
    return dict(each for each in found if each is not None)


def _image(part: MIMEPart) -> tuple[str, str] | None:
    name, kind, data = part["Content-ID"], part.get_content_type(), part.get_payload(decode=True)
    if name is None or kind not in _IMAGES or not isinstance(data, bytes):
        return None
    return str(name).strip().strip("<>"), f"data:{kind};base64,{b64encode(data).decode('ascii')}"


def _read(get: Callable[[], T], instead: S) -> T | S:
    """Return what *get* returns, or *instead* if a hostile message makes the email package fail."""
    try:
        return get()
    except Exception:  # noqa: BLE001 -- it raises whatever a hostile field makes it raise
        return instead


def _count(number: int) -> str:
    return "1 message" if number == 1 else f"{number} messages"
