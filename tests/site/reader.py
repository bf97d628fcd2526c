"""
Use the built site as a reader does: search for a word, copy a program, look at what a shared link shows.

`nox -s site` runs this after `browse.py`, in the same browser.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path

from browse import FLAGS, served
from playwright.async_api import Browser, Page, async_playwright

# What people type, and the page that must be among the first results.
SEARCHED = {
    "django": "how-to/django.html",
    "cron": "how-to/send-from-a-shell.html",
    "html": "how-to/html-mail.html",
    "oauth": "how-to/oauth-microsoft.html",
    "self-signed": "how-to/own-ca.html",
    "gmail": "how-to/oauth-google.html",
    "certificate": "troubleshooting.html",
    "celery": "how-to/celery.html",
    "retry": "how-to/errors-and-retries.html",
}
FIRST = 3
# Milliseconds: the search reads each page that it found.
PATIENCE = 120_000
FOUND = (
    "() => [...document.querySelectorAll('#search-results li > a')].map(link => new URL(link.href).pathname.slice(1))"
)
HEAD = "name => document.querySelector(`meta[property='${name}'], meta[name='${name}']`)?.content"
# A page, the number of its button, and what a copy must be.
COPIED = {
    ("index.html", 0): 'with SecureMailer("smtp.example.com"',
    ("how-to/dkim.html", 0): 'pip install "securesmtp[cli,sign]"\nsecuresmtp dkim-key example.org mail2027',
}


async def search(page: Page, address: str) -> list[str]:
    """Search for each word; return what is missing among the first results."""
    faults = []
    for word, wanted in SEARCHED.items():
        await page.goto(f"{address}search.html?q={word}", wait_until="load")
        await page.wait_for_function("document.querySelector('.search-summary')?.textContent.match(/finished|found/)")
        found = list(dict.fromkeys(await page.evaluate(FOUND)))
        sys.stdout.write(f"search for {word}: {', '.join(found[:5])}\n")
        if wanted not in found[:FIRST]:
            faults.append(f"search for {word}: {wanted} is not among the first {FIRST}")
    return faults


async def copy(page: Page, address: str) -> list[str]:
    """Press buttons; return where the clipboard then has something else."""
    faults = []
    for (name, number), wanted in COPIED.items():
        await page.goto(address + name, wait_until="load")
        button = page.locator("button.copy").nth(number)
        await button.focus()
        await page.keyboard.press("Enter")
        await page.wait_for_function("button => button.textContent === 'Copied'", arg=await button.element_handle())
        copied = await page.evaluate("navigator.clipboard.readText()")
        if not copied.startswith(wanted) or re.search(r"^(\$|>>>) ", copied, re.MULTILINE):
            faults.append(f"{name}: button {number} copies {copied!r}")
    return faults


async def shared(page: Page, address: str) -> list[str]:
    """Return the pages without a title and a description of their own for those who get a link."""
    faults, seen = list[str](), dict[str, str]()
    for name in ("index.html", *SEARCHED.values(), "reference/api/mailer.html"):
        await page.goto(address + name, wait_until="load")
        title, description, again = [
            await page.evaluate(HEAD, each) for each in ("og:title", "og:description", "description")
        ]
        if not title or not description or description != again:
            faults.append(f"{name}: title {title!r}, description {description!r}, {again!r}")
        if (other := seen.setdefault(description, name)) != name:
            faults.append(f"{name}: has the description of {other}")
    return faults


async def visit(browser: Browser, address: str) -> list[str]:
    """Do all of it, and return the faults."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page = await context.new_page()
    return [*await search(page, address), *await copy(page, address), *await shared(page, address)]


async def main() -> int:
    """Read the folder of the site from the command line; print all faults, and return the exit code."""
    with served(Path(sys.argv[1])) as address:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            faults = await visit(browser, address)
            await browser.close()
    sys.stdout.write("".join(f"{fault}\n" for fault in faults) + f"{len(faults)} faults of a reader\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
