"""The picture of the inbox of `securesmtp serve` on its page: a message of a shop in Debian's Chromium."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import TYPE_CHECKING

from browse import FLAGS, THEMES
from inbox import FRIENDLY, inbox, message_of
from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from pathlib import Path

# As wide as the text of a page of the site. The end of the page is left out: it names a file of this machine.
_WIDTH, _HEIGHT = 736, 580


def draw(docs: Path) -> None:
    """Make it, unless Chromium is missing."""
    if (chromium := shutil.which("chromium")) is None:
        sys.stderr.write("no picture of the inbox: chromium is not installed\n")
        return
    asyncio.run(_draw(chromium, docs / "how-to/pictures"))


async def _draw(chromium: str, folder: Path) -> None:
    with inbox() as (mailer, address):
        mailer.send(message_of(FRIENDLY, "Your order 7"))
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = await browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
            for theme in THEMES:
                await page.emulate_media(color_scheme=theme)
                await page.goto(f"{address}messages/1", wait_until="load")
                await page.screenshot(path=folder / f"inbox-{theme}.png")
            await browser.close()
