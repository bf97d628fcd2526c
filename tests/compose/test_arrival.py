"""What a server receives over TLS is what was composed, to a parser and in a browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
import tracemalloc
import zlib
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from compose.test_calendars import DATA
from compose.wire import MINIMAL, read, tree
from conftest import Mailer, Serve, unmeasured
from scripted import Mode, honest
from securesmtp import AsyncSecureMailer, MessageError, compose

CHROMIUM = shutil.which("chromium")
RED, WHITE = (200, 16, 46), (255, 255, 255)


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """Return a picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


LOGO = png(8, 8, RED)
EVERYTHING: dict[str, Any] = {
    **MINIMAL,
    "sender": ("Ada Lovelace", "ada@example.org"),
    "to": [("Doe, Jane", "jane@example.net"), "bob@example.net"],
    "bcc": "eve@example.net",
    "subject": "Grüße",
    "text": "Hello\n.\nGrüße\n",
    "html": '<h1>Hello</h1><img src="cid:logo" width="120" height="80"><p>Grüße',
    "inline": {"logo": ("Lögo.png", LOGO)},
    "attachments": [("Rechnung März.pdf", b"%PDF\r\n.\n" + bytes(range(256)))],
    "calendar": DATA,
    "unsubscribe": ("mailto:leave@example.org", "https://example.org/leave"),
    "automatic": True,
}


def _check(message: EmailMessage) -> None:
    assert tree(message) == "mixed(alternative(plain, related(html, png), calendar), pdf, ics)"
    assert [each.addr_spec for each in message["To"].addresses] == ["jane@example.net", "bob@example.net"]
    assert (message["Subject"], message["From"].addresses[0].display_name) == ("Grüße", "Ada Lovelace")
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert "Bcc" not in message
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    assert text.get_content() == "Hello\r\n.\r\nGrüße\r\n"
    image = next(part for part in message.walk() if part.get_content_type() == "image/png")
    assert f'src="cid:{image["Content-ID"][1:-1]}"' in html.get_content()
    assert (image.get_content(), image.get_filename()) == (LOGO, "Lögo.png")
    pdf, ics = message.iter_attachments()
    assert (pdf.get_filename(), pdf.get_content()) == ("Rechnung März.pdf", b"%PDF\r\n.\n" + bytes(range(256)))
    assert ics.get_content() == DATA
    assert {"Date", "Message-ID"} <= {*message.keys()}


@pytest.mark.parametrize(
    "offers", ["8BITMIME SMTPUTF8 SIZE", "PIPELINING CHUNKING 8BITMIME", ""], ids=["usual", "chunks", "none"]
)
def test_a_server_receives_what_was_composed(offers: str, mode: Mode, serve: Serve, mailer: Mailer) -> None:
    """Whatever it offers, because each part is ASCII; the envelope has everybody, once."""
    server = serve(honest(mode, extensions=offers.split()))
    mailer(server, tls=mode).send(compose(**EVERYTHING))
    (received,) = server.accepted
    assert received.recipients == tuple(b"RCPT TO:<%b@example.net>" % name for name in (b"jane", b"bob", b"eve"))
    _check(read(received.content))


def test_one_message_is_sent_twice_and_over_asyncio(serve: Serve, ca_file: Path) -> None:
    """Sending does not change it."""
    server = serve(honest())
    message = compose(**EVERYTHING)
    before = message.as_bytes()

    async def send() -> None:
        async with AsyncSecureMailer("localhost", server.port, ca_file=ca_file) as mailer:
            await mailer.send(message)
            await mailer.send(message)

    asyncio.run(send())
    assert message.as_bytes() == before
    for received in server.accepted:
        _check(read(received.content))
    assert len(server.accepted) == 2


def test_a_large_file_is_in_memory_once_and_encoded(tmp_path: Path) -> None:
    """A path is read in blocks: the most memory is that of the encoded text, and of its pieces while it is joined."""
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(6_000_000))
    compose(**MINIMAL, text="", attachments=[("warm.bin", b"")])
    tracemalloc.start()
    message = compose(**MINIMAL, text="", attachments=[path])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    encoded = 6_000_000 * 78 / 57
    assert peak < 2.1 * encoded
    (part,) = message.iter_attachments()
    assert part.get_content() == bytes(6_000_000)


def test_a_message_over_the_servers_size_names_its_largest_part(serve: Serve, mailer: Mailer) -> None:
    """Nothing of it is sent; bytes have no parts to name."""
    server = serve(honest(extensions=["SIZE 3000"]))
    files = [("small.pdf", b"x"), ("large.pdf", bytes(3000))]
    sender = mailer(server)
    with pytest.raises(MessageError, match="the server accepts at most 3000") as caught:
        sender.send(compose(**MINIMAL, text="", attachments=files))
    assert caught.value.hint == "send a link instead of the largest part, application/pdf 'large.pdf'"
    with pytest.raises(MessageError) as caught:
        sender.send_bytes(b"x: y\n\n" + b"z\n" * 2000, mail_from="a@b.example", recipients=["c@d.example"])
    assert caught.value.hint == "send a link instead of the attachment"
    assert server.accepted == []


def _browser() -> str:
    if CHROMIUM is not None:
        return CHROMIUM
    missing = "chromium is not installed; tests/site/install installs it on Debian"
    if "SECURESMTP_REQUIRE_BROWSER" in os.environ:
        pytest.fail(missing)
    pytest.skip(missing)


def _pixels(data: bytes, count: int) -> list[list[tuple[int, ...]]]:
    """Return the first *count* rows of a PNG of Chromium: 8 bits each for red, green, blue, and perhaps opacity."""
    width, height, _, kind = struct.unpack(">IIBB", data[16:26])
    depth = {2: 3, 6: 4}[kind]
    packed, position = b"", 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            packed += data[position + 8 : position + 8 + length]
        position += length + 12
    flat, above, rows = zlib.decompress(packed), bytes(width * depth), []
    for start in range(0, min(height, count) * (width * depth + 1), width * depth + 1):
        line = bytearray(flat[start + 1 : start + 1 + width * depth])
        for index, value in enumerate(line):
            left = line[index - depth] if index >= depth else 0
            corner = above[index - depth] if index >= depth else 0
            line[index] = (value + _predicted(flat[start], left, above[index], corner)) % 256
        above = bytes(line)
        rows.append([tuple(above[index : index + 3]) for index in range(0, len(above), depth)])
    return rows


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 4:
        guess = left + up - corner
        return min((left, up, corner), key=lambda each: abs(guess - each))
    return (0, left, up, (left + up) // 2)[kind]


def test_a_browser_shows_the_image_of_the_html(serve: Serve, mailer: Mailer, tmp_path: Path) -> None:
    """Chromium reads `multipart/related` as a mail program does (MHTML), and finds the image by its Content-ID."""
    chromium = _browser()
    server = serve(honest())
    style = "<style>body { margin: 0 } @media (max-width: 1px) { img { display: none } }</style>"
    html = f'<!doctype html>{style}<img src="cid:logo" width="120" height="80" style="display:block"><p>Grüße'
    mailer(server).send(compose(**{**EVERYTHING, "html": html}))
    related = next(part for part in read(server.accepted[0].content).walk() if part.get_content_subtype() == "related")
    (tmp_path / "mail.mhtml").write_bytes(b"MIME-Version: 1.0\r\n" + related.as_bytes(policy=policy.SMTP))
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=200,150",
        f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'shown.png'}",
        (tmp_path / "mail.mhtml").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, env=unmeasured(), check=True, capture_output=True, timeout=120)
    rows = _pixels((tmp_path / "shown.png").read_bytes(), 110)
    assert (rows[40][60], rows[79][119], rows[40][121], rows[81][60]) == (RED, RED, WHITE, WHITE)
    # The text, in black, is below the image.
    assert any(pixel < (64, 64, 64) for row in rows[81:] for pixel in row)
