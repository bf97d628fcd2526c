"""
Look at the development inbox in a real browser: what a person sees, and that a hostile message can do nothing.

`nox -s site` runs this. A hostile message is sent, its page is opened, and everything in its HTML is clicked. A trap on
loopback counts the connections of the browser: there must be none. To show that the trap works, the browser opens the
same HTML without the inbox, too; then it must connect.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import socket
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from axe_playwright_python.base import AXE_SCRIPT
from browse import AXE, FLAGS, SIZES, THEMES
from playwright.async_api import Browser, Frame, async_playwright
from rich.console import Console

from securesmtp import SecureMailer
from securesmtp._cli.serve import open_inbox

if TYPE_CHECKING:
    from collections.abc import Iterator

# What makes a browser without locks run something or connect. TRAP is the trap's address.
AT_ONCE = {
    "/script": "<script>new Image().src = 'TRAP/script'; document.title = 'run'</script>",
    "/script.js": "<script src='TRAP/script.js'></script>",
    "/onerror": "<img src='data:,' onerror=\"new Image().src = 'TRAP/onerror'\">",
    "/onload": "<svg onload=\"new Image().src = 'TRAP/onload'\"></svg>",
    "/image.png": "<img src='TRAP/image.png'><img src='TRAP/image.png' srcset='TRAP/image2.png 2x'>",
    "/background.png": "<table background='TRAP/background.png'><tr><td>x</td></tr></table>",
    "/style.png": "<p style='background: url(TRAP/style.png)'>x</p>",
    "/import.css": "<style>@import 'TRAP/import.css';</style>",
    "/font": "<style>@font-face { font-family: f; src: url(TRAP/font) } i { font-family: f }</style><i>x</i>",
    "/style.css": "<link rel='stylesheet' href='TRAP/style.css'>",
    "/prefetch": "<link rel='prefetch' href='TRAP/prefetch'>",
    "/preload": "<link rel='preload' as='image' href='TRAP/preload'>",
    "/frame": "<iframe src='TRAP/frame'></iframe>",
    "/srcdoc": "<iframe srcdoc=\"<img src='TRAP/srcdoc'>\"></iframe>",
    "/object": "<object data='TRAP/object'></object>",
    "/embed": "<embed src='TRAP/embed'>",
    "/video": "<video src='TRAP/video' poster='TRAP/poster.png' autoplay></video>",
    "/audio": "<audio src='TRAP/audio' autoplay></audio>",
    "/svg.png": "<svg><image href='TRAP/svg.png' width='9' height='9'/></svg>",
    "/input.png": "<input type='image' src='TRAP/input.png'>",
}
ALONE = {
    "/refresh": "<meta http-equiv='refresh' content='0; url=TRAP/refresh'>",
    "/relative.png": "<base href='TRAP/'><img src='relative.png'>",
}
# A connection alone. Chromium makes it only for windows with a profile; the trap has no control for it.
HINTS = "<link rel='preconnect' href='TRAP'><link rel='dns-prefetch' href='TRAP'>"
CLICKED = {
    "/form": "<form action='TRAP/form'><button>Send</button></form>",
    "/link": "<a href='TRAP/link'>here</a>",
    "/top": "<a href='TRAP/top' target='_top'>top</a>",
    "/blank": "<a href='TRAP/blank' target='_blank'>blank</a>",
    "/javascript": "<a href=\"javascript:new Image().src = 'TRAP/javascript'; void 0\">script</a>",
}
# Each message: its HTML, and what the trap is asked for without the inbox.
HOSTILE = {
    "at once": (HINTS + "".join(AT_ONCE.values()), set(AT_ONCE)),
    **{path: (html, {path}) for path, html in (ALONE | CLICKED).items()},
}
FRIENDLY = """
<h1 style="color: #036">Your order</h1><p>It is on its way. <img src="cid:logo" alt="Logo" width="40" height="40"></p>
<p><a href="https://example.com/orders/7">See your order</a></p>
"""
LOGO = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle cx="20" cy="20" r="20" fill="#c30"/></svg>'
)
# This is what connects for hints. No name is looked up, so that nothing leaves this machine.
BACKGROUND = "--disable-background-networking"
BROWSER = [*(flag for flag in FLAGS if flag != BACKGROUND), "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
# Seconds for something that must not happen.
PATIENCE = 0.5


class Trap:
    """A port that remembers what it was asked for, after an empty text for each connection; or shows *page*."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.page, self.asked = b"", set[str]()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            self.asked.add("")
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            line = connection.recv(65536).decode("latin-1").partition("\n")[0]
            path = line.removeprefix("GET ").partition(" ")[0].partition("?")[0]
            self.asked.add(path)
            head = f"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(self.page)}\r\n\r\n"
            connection.sendall(head.encode() + self.page)


class Inspection:
    """What was seen: all faults."""

    def __init__(self, browser: Browser, address: str, trap: Trap, pictures: Path) -> None:
        self.browser, self.address, self.trap, self.pictures = browser, address, trap, pictures
        self.stage = Trap()
        self.faults: list[str] = []

    async def look(self, path: str, name: str) -> None:
        """Look at a page of ours at each size: axe, console, width; take its pictures."""
        for size, (width, height) in SIZES.items():
            context = await self.browser.new_context(viewport={"width": width, "height": height})
            page = await context.new_page()
            page.on("console", lambda message: self.faults.append(f"{name}: console: {message.text}"))
            page.on("pageerror", lambda error: self.faults.append(f"{name}: script: {error}"))
            for theme in THEMES:
                await page.emulate_media(color_scheme=theme)
                await page.goto(self.address + path, wait_until="load")
                wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
                self.faults += [f"{name} ({size}): wider than the window"] * wide
                await page.screenshot(path=self.pictures / f"inbox-{name}-{size}-{theme}.png", full_page=True)
                # The page's policy allows no script but the browser's own.
                checked = await page.evaluate(f"{AXE_SCRIPT}; ({AXE})({{}})")
                self.faults += [
                    f"{name} ({size}, {theme}): axe {each['id']}: {each['nodes'][0]['html']}" for each in checked
                ]
            await context.close()

    async def attack(self, number: int, name: str) -> None:
        """Open the page of a hostile message, and click on everything in its HTML; the trap must see nothing."""
        self.trap.asked.clear()
        path = f"{self.address}messages/{number}"
        async with await self.browser.new_context() as context:
            page = await context.new_page()
            await page.goto(path, wait_until="load")
            await self._click(page.frames[1])
            await asyncio.sleep(PATIENCE)
            self.faults += [f"{name}: left the page for {page.url}"] * (page.url != path)
            self.faults += [f"{name}: opened another page"] * (len(context.pages) > 1)
            self.faults += [f"{name}: a script has run"] * ("run" in [await each.title() for each in page.frames])
            response = await page.goto(f"{path}/html")
            is_refused = response is not None and response.status == HTTPStatus.FORBIDDEN
            self.faults += [f"{name}: the HTML is shown as a page"] * (not is_refused)
        self.faults += [f"{name}: asked the trap for {asked!r}" for asked in sorted(self.trap.asked)]

    async def control(self, name: str, html: str, wanted: set[str]) -> None:
        """Open the same HTML without the inbox; the trap must see everything."""
        self.stage.page = html.encode()
        async with await self.browser.new_context() as context:
            page = await context.new_page()
            await page.goto(self.stage.address, wait_until="commit")
            await self._click(page.main_frame)
            for _ in range(50):
                if self.trap.asked >= wanted:
                    break
                await asyncio.sleep(0.1)
        self.faults += [f"{name}: the trap does not see {each!r}" for each in sorted(wanted - self.trap.asked)]

    async def _click(self, frame: Frame) -> None:
        for target in await frame.locator("a, button").all():
            await target.click(no_wait_after=True, timeout=5000)


def message_of(html: str, subject: str) -> EmailMessage:
    """Return a message with this HTML and an image."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", "you@example.net", subject
    message.set_content("It is on its way.\n")
    message.add_alternative(html, subtype="html")
    message.get_payload()[1].add_related(LOGO, "image", "svg+xml", cid="<logo>")  # type: ignore[index,union-attr]
    message.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="Rechnung ✓.pdf")
    return message


@contextmanager
def inbox() -> Iterator[tuple[SecureMailer, str]]:
    """Open an inbox with free ports; yield a mailer for it, and its address."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open_inbox(
            Console(file=io.StringIO()), Path(folder, "ca.pem"), Path(folder, "inbox"), (0, 0), "implicit"
        ) as found,
        SecureMailer(found[0].host, found[0].port, ca_file=Path(folder, "ca.pem")) as mailer,
    ):
        yield mailer, found[1]


async def inspect(pictures: Path) -> list[str]:
    """Return all faults."""
    trap = Trap()
    with inbox() as (mailer, address):
        mailer.send(message_of(FRIENDLY, "Your order 7"))
        for name, (html, _) in HOSTILE.items():
            mailer.send(message_of(html.replace("TRAP", trap.address), f"Hostile: {name} <script>alert(1)</script>"))
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=BROWSER, ignore_default_args=[BACKGROUND]
            )
            found = Inspection(browser, address, trap, pictures)
            await found.look("", "list")
            await found.look("messages/1", "message")
            for number, (name, (html, wanted)) in enumerate(HOSTILE.items(), 2):
                await found.attack(number, name)
                await found.control(name, html.replace("TRAP", trap.address), wanted)
            await browser.close()
    return found.faults


def main() -> int:
    """Read the folder for pictures from the command line; print all faults, and return the exit code."""
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    faults = asyncio.run(inspect(pictures))
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    sys.stdout.write(f"inbox: {len(HOSTILE)} hostile messages, {len(faults)} faults; pictures: {pictures}\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
