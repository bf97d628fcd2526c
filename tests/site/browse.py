"""
Look at the built site in a real browser, at the width of a phone and of a desktop, in light and dark.

`nox -s site` runs this. On every page, each internal link must have its target, the console must have no error, nothing
may be fetched from another host, nothing may be wider than the phone, and axe-core must find no violation. If the
second argument names a folder, pictures are left there, for people to look at.
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urldefrag, urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, Page, async_playwright

# Turn off what a browser does by itself, above all over the network.
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
]
SIZES = {"phone": (390, 844), "desktop": (1280, 800)}
THEMES: Final = ("light", "dark")
NO_PAGES = {"_downloads", "_static"}
# Pages at a time: CI's smallest machine has two cores.
AT_A_TIME = 2
# Code and tables may scroll. The theme scrolls or hides everything else that is too wide, so the width of the page
# itself shows nothing.
WIDER = """() => [...document.querySelectorAll("article *")].filter(
  element => !element.parentElement.closest("pre, .table-wrapper") && element.getBoundingClientRect().right > innerWidth
).map(element => element.outerHTML.slice(0, 100))"""
LINKS = "() => [...document.links].map(link => link.href)"
ANCHORS = "() => [...document.querySelectorAll('[id]')].map(element => element.id)"
AXE = "rules => axe.run(document, {...rules, resultTypes: ['violations']}).then(result => result.violations)"
# Colours depend only on the theme, everything else only on the width; the check of colours is the slow one.
CONTRAST = "color-contrast"
RULES: dict[tuple[str, str], dict[str, Any]] = {
    ("desktop", "light"): {},
    ("desktop", "dark"): {"runOnly": [CONTRAST]},
    ("phone", "light"): {"rules": {CONTRAST: {"enabled": False}}},
}


@dataclass
class Site:
    """What was seen: the anchors and links of each page, and all faults."""

    address: str
    pictures: Path | None = None
    anchors: dict[str, set[str]] = field(default_factory=dict)
    links: dict[str, set[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    async def look_at_all(self, browser: Browser, names: Iterator[str]) -> None:
        """Open the pages one after the other at each width."""
        # One context for all pages: a new one begins with an empty cache.
        context = await browser.new_context()
        # In milliseconds: in CI, the tests run meanwhile.
        context.set_default_timeout(120_000)
        page = await context.new_page()
        self._listen(page)
        for name in names:
            for size, (width, height) in SIZES.items():
                await page.set_viewport_size({"width": width, "height": height})
                await self._look(page, name, size)
        await context.close()

    async def _look(self, page: Page, name: str, size: str) -> None:
        await page.emulate_media(color_scheme=THEMES[0])
        await page.goto(self.address + name, wait_until="load")
        await page.evaluate(AXE_SCRIPT)
        for theme in THEMES:
            await page.emulate_media(color_scheme=theme)
            where = f"{name} ({size}, {theme})"
            self.faults += [f"{where}: wider than the window: {html!r}" for html in await page.evaluate(WIDER)]
            if (size, theme) in RULES:
                await self._check_rules(page, where, RULES[size, theme])
            if self.pictures is not None:
                picture = f"{name.removesuffix('.html').replace('/', '-')}-{size}-{theme}.png"
                await page.screenshot(path=self.pictures / picture, full_page=True)
        self.anchors[name] = set(await page.evaluate(ANCHORS))
        self.links[name] = set(await page.evaluate(LINKS))

    async def _check_rules(self, page: Page, where: str, rules: dict[str, Any]) -> None:
        for violation in await page.evaluate(AXE, rules):
            self.faults += [
                f"{where}: axe {violation['id']} ({violation['impact']}): {node['html'][:200]!r}: "
                f"{' '.join(node['failureSummary'].split())}"
                for node in violation["nodes"]
            ]

    def _listen(self, page: Page) -> None:
        def console(message: Any) -> None:
            if message.type in {"error", "warning"}:
                self.faults.append(f"{page.url}: console: {message.text}")

        def request(sent: Any) -> None:
            if not sent.url.startswith((self.address, "data:")):
                self.faults.append(f"{page.url}: requests {sent.url}")

        def response(received: Any) -> None:
            if received.status >= 400:
                self.faults.append(f"{page.url}: {received.status} for {received.url}")

        page.on("console", console)
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: script: {error}"))
        page.on("request", request)
        page.on("response", response)

    def follow(self, folder: Path) -> int:
        """Check that each internal link has its file and its anchor; return the number of links."""
        followed = 0
        for name, links in self.links.items():
            for link in links:
                if not link.startswith(self.address):
                    continue
                followed += 1
                address, anchor = urldefrag(link)
                path = unquote(urlsplit(address).path).lstrip("/") or "index.html"
                if not (folder / path).is_file():
                    self.faults.append(f"{name}: {link} has no file")
                elif anchor and unquote(anchor) not in self.anchors.get(path, ()):
                    self.faults.append(f"{name}: {link} has no anchor")
        return followed


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that does not log each request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- its name there
        """Log nothing: the browser reports what went wrong."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve *folder* on loopback, and yield its address."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


async def browse(site: Site, names: list[str]) -> None:
    """Look at every page at every width."""
    left = iter(names)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        await asyncio.gather(*(site.look_at_all(browser, left) for _ in range(AT_A_TIME)))
        await browser.close()


def main() -> int:
    """Read the folders, site and pictures, from the command line; print all faults, and return the exit code."""
    folder, pictures = Path(sys.argv[1]), next(map(Path, sys.argv[2:]), None)
    if pictures is not None:
        shutil.rmtree(pictures, ignore_errors=True)
        pictures.mkdir(parents=True)
    # What is downloaded, such as a template of a message, is no page.
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.html") if not NO_PAGES & set(path.parts))
    with served(folder) as address:
        site = Site(address, pictures)
        asyncio.run(browse(site, names))
    followed = site.follow(folder)
    sys.stdout.write("".join(f"{fault}\n" for fault in sorted(site.faults)))
    sys.stdout.write(f"{len(names)} pages, {followed} links, {len(site.faults)} faults\n")
    return bool(site.faults) or not names


if __name__ == "__main__":
    sys.exit(main())
