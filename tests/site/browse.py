"""
Look at the built site in a real browser, at the width of a phone and of a desktop, in light and dark.

`nox -s site`. What must hold on every page: every internal link and anchor leads somewhere, no error is on the console,
nothing is fetched from another host, nothing is wider than the phone, and axe-core finds no violation. The pictures
are for people: they are left in the folder of the second argument.
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
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, Page, async_playwright

# What a browser would else do by itself is left out, the network's part above all.
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
THEMES = ("light", "dark")
# As many at a time as the smallest of CI's machines has cores.
AT_A_TIME = 2
# Code and tables scroll within themselves; the theme scrolls or hides whatever else is too wide, so the page itself
# does not tell.
WIDER = """() => [...document.querySelectorAll("article *")].filter(
  element => !element.parentElement.closest("pre, .table-wrapper") && element.getBoundingClientRect().right > innerWidth
).map(element => element.outerHTML.slice(0, 100))"""
LINKS = "() => [...document.links].map(link => link.href)"
ANCHORS = "() => [...document.querySelectorAll('[id]')].map(element => element.id)"
AXE = "rules => axe.run(document, {...rules, resultTypes: ['violations']}).then(result => result.violations)"
# Colours change with the theme alone, all else with the width alone; the check of colours is the slow one.
CONTRAST = "color-contrast"
RULES: dict[tuple[str, str], dict[str, Any]] = {
    ("desktop", "light"): {},
    ("desktop", "dark"): {"runOnly": [CONTRAST]},
    ("phone", "light"): {"rules": {CONTRAST: {"enabled": False}}},
}


@dataclass
class Site:
    """What was seen: by page its anchors and links, and every fault."""

    address: str
    pictures: Path
    anchors: dict[str, set[str]] = field(default_factory=dict)
    links: dict[str, set[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    async def look(self, browser: Browser, name: str, size: str) -> None:
        """Open one page at one width, judge it, and take its picture in both themes."""
        width, height = SIZES[size]
        context = await browser.new_context(viewport={"width": width, "height": height})
        page = await context.new_page()
        self._listen(page, f"{name} ({size})")
        for theme in THEMES:
            await page.emulate_media(color_scheme=theme)
            if theme == THEMES[0]:
                await page.goto(self.address + name, wait_until="load")
                await page.evaluate(AXE_SCRIPT)
            await self._judge(page, name, size, theme)
            picture = f"{name.removesuffix('.html').replace('/', '-')}-{size}-{theme}.png"
            await page.screenshot(path=self.pictures / picture, full_page=True)
        self.anchors[name] = set(await page.evaluate(ANCHORS))
        self.links[name] = set(await page.evaluate(LINKS))
        await context.close()

    async def _judge(self, page: Page, name: str, size: str, theme: str) -> None:
        where = f"{name} ({size}, {theme})"
        self.faults += [f"{where}: wider than the window: {html!r}" for html in await page.evaluate(WIDER)]
        if (size, theme) not in RULES:
            return
        for violation in await page.evaluate(AXE, RULES[size, theme]):
            self.faults += [
                f"{where}: axe {violation['id']} ({violation['impact']}): {node['html'][:200]!r}: "
                f"{' '.join(node['failureSummary'].split())}"
                for node in violation["nodes"]
            ]

    def _listen(self, page: Page, where: str) -> None:
        def console(message: Any) -> None:
            if message.type in {"error", "warning"}:
                self.faults.append(f"{where}: console: {message.text}")

        def request(asked: Any) -> None:
            if not asked.url.startswith((self.address, "data:")):
                self.faults.append(f"{where}: asks {asked.url}")

        def response(answer: Any) -> None:
            if answer.status >= 400:
                self.faults.append(f"{where}: {answer.status} for {answer.url}")

        page.on("console", console)
        page.on("pageerror", lambda error: self.faults.append(f"{where}: script: {error}"))
        page.on("request", request)
        page.on("response", response)

    def follow(self, folder: Path) -> int:
        """Follow each internal link of each page to its file and its anchor, and return how many there were."""
        followed = 0
        for name, links in self.links.items():
            for link in links:
                if not link.startswith(self.address):
                    continue
                followed += 1
                address, anchor = urldefrag(link)
                path = unquote(urlsplit(address).path).lstrip("/") or "index.html"
                if not (folder / path).is_file():
                    self.faults.append(f"{name}: {link} leads to no file")
                elif anchor and unquote(anchor) not in self.anchors.get(path, ()):
                    self.faults.append(f"{name}: {link} leads to no anchor")
        return followed


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that does not tell of each request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- its name there
        """Say nothing: the browser tells what went wrong."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve *folder* on loopback, and give its address."""
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
    """Look at every page in every way."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(browser: Browser, name: str, size: str) -> None:
        async with places:
            await site.look(browser, name, size)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        await asyncio.gather(*(one(browser, name, size) for name in names for size in SIZES))
        await browser.close()


def main() -> int:
    """Take the folder of the built site and that of the pictures; print what is wrong, and return the exit code."""
    folder, pictures = map(Path, sys.argv[1:])
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.html") if "_static" not in path.parts)
    with served(folder) as address:
        site = Site(address, pictures)
        asyncio.run(browse(site, names))
    followed = site.follow(folder)
    sys.stdout.write("".join(f"{fault}\n" for fault in sorted(site.faults)))
    sys.stdout.write(f"{len(names)} pages, {followed} links, {len(site.faults)} faults; pictures: {pictures}\n")
    return bool(site.faults) or not names


if __name__ == "__main__":
    sys.exit(main())
