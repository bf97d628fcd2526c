"""The picture that programs show beside a link to the site: the logo, and what the library is."""

from __future__ import annotations

import shutil
from pathlib import Path

from browse import FLAGS
from playwright.sync_api import sync_playwright

# What `og:image` is for asks for this size.
_WIDTH, _HEIGHT = 1200, 630
_PAGE = """\
<style>
body {{ align-items: center; background: #fff; color: #1b1b1b; display: flex; flex-direction: column; height: 100vh;
  font-family: system-ui, "DejaVu Sans", sans-serif; gap: 28px; justify-content: center; margin: 0; }}
svg {{ width: 200px; }}
h1 {{ font-size: 92px; margin: 0; }}
p {{ font-size: 38px; line-height: 1.4; margin: 0; text-align: center; }}
</style>
{logo}
<h1>securesmtp</h1>
<p>Send email from Python:<br>over verified TLS or not at all</p>
"""


def draw(docs: Path) -> None:
    """Make it."""
    static = docs / "_static"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        page.set_content(_PAGE.format(logo=(static / "logo.svg").read_text("utf-8")))
        page.screenshot(path=static / "card.png")
        browser.close()
