"""``securesmtp explain``: the troubleshooting page in the terminal, one section at a time."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

SITE: Final = "https://securesmtp.readthedocs.io/en/stable/"
_PAGE = "troubleshooting.md"
# It is a page of the docs. A wheel has a copy; in a checkout, it is read where it is.
_PLACES = (Path(__file__).parent / _PAGE, Path(__file__).parents[3] / "docs" / _PAGE)
# Columns: longer lines are hard to read.
_WIDEST = 100
_ANCHOR, _OTHER = r"\(([\w-]+)\)=", r"\([\w-]+\)=\n"
_COMMENT = re.compile(r"^<!--.*-->\n", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


class Section(NamedTuple):
    """
    One section of the page.

    Attributes:
        name: Its anchor, as the addresses in errors end.
        title: The error, or the reason of a refused certificate.
        text: Its Markdown, without the title.
    """

    name: str
    title: str
    text: str

    @property
    def meaning(self) -> str:
        """Its first sentence."""
        first = self.text.strip().partition("\n\n")[0].removeprefix("**What it means.** ")
        first = _LINK.sub(r"\1", first)
        return re.split(r"(?<=[.!?])\s", " ".join(first.split()), maxsplit=1)[0].replace("`", "")


_EPILOG = """\b
Examples:
  securesmtp explain                           list all errors
  securesmtp explain CertificateError expired
  securesmtp explain DowngradeError | less -R
  securesmtp explain "$(tail -1 error.log)"    the error that a log line names
"""


@click.command("explain", epilog=_EPILOG)
@click.argument("name", nargs=-1)
def command(name: tuple[str, ...]) -> int:
    """
    Explain an error, and say what to do about it. It works offline.

    NAME is the class of the error, for a refused certificate with its reason, or any text that has the address of its
    section, such as the error's own text. Without NAME, all errors are listed.
    """
    sections = read_sections()
    found = find(" ".join(name), sections) if name else []
    console = Console(highlight=False)
    try:
        with console.capture() as shown:
            if name:
                _show(found, console)
            else:
                console.print(_list(sections))
        # The page has characters that not every encoding has. Colours are left out already where they do not belong.
        click.echo(shown.get().encode(console.encoding, "replace").decode(console.encoding), nl=False, color=True)
    except OSError as error:
        # Python would try again at its end, and exit with a code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A reader that has gone has what it wants, as `head` does.
        if not isinstance(error, BrokenPipeError):
            raise click.ClickException(f"standard output cannot be written: {error.strerror or error}") from None
    return 0


def _show(found: list[Section], console: Console) -> None:
    width = min(console.width, _WIDEST)
    for section in found:
        text, links = with_numbered_links(section)
        console.print(Markdown(f"# {section.title}\n\n{text}"), width=width)
        console.print()
        # Each on a line of its own, without wrapping: they are to be copied.
        for number, link in enumerate(links):
            console.print(f"[{number}] {link}", style="dim", soft_wrap=True, markup=False)


def read_sections() -> dict[str, Section]:
    """Return the sections of the page by name, in its order."""
    page = next(place for place in _PLACES if place.is_file()).read_text("utf-8")
    # A section ends at the next anchor, or at a heading without one.
    found = re.findall(rf"^{_ANCHOR}\n#+ (.+)\n((?:(?!{_OTHER}|#+ ).*\n)*)", page, re.MULTILINE)
    return {name: Section(name, _title(name, title), _COMMENT.sub("", text)) for name, title, text in found}


def find(text: str, sections: dict[str, Section]) -> list[Section]:
    """
    Return the sections that *text* names: usually one, of CertificateError all.

    Raises:
        click.ClickException: There is none.
    """
    # What was pasted may be a log line, or the end of a traceback: the last address or class in it counts.
    addresses = re.findall(r"troubleshooting\.html#([\w-]+)", text)
    classes = [word for word in re.findall(r"\w+", text) if word in _classes(sections)]
    name = addresses[-1] if addresses else re.sub(r"[\W_]+", "-", text.strip().lower())
    # "untrusted" and "CertificateError" name sections of "certificateerror-untrusted".
    for each in (name, f"certificateerror-{name}", *(word.lower() for word in classes[-1:])):
        found = [section for other, section in sections.items() if other == each or other.startswith(f"{each}-")]
        if found:
            return found
    rule = re.fullmatch(r"smt[0-9]{3}", name)
    near = get_close_matches(text, _classes(sections), 1)
    hint = f"Did you mean {near[0]}?" if near else "`securesmtp explain` lists all errors"
    hint = f"`securesmtp audit --explain {rule[0].upper()}` explains a rule of the audit" if rule else hint
    message = f"there is no error {textwrap.shorten(text, 60)!r}. Hint: {hint}"
    raise click.ClickException(message)


def _classes(sections: dict[str, Section]) -> set[str]:
    return {section.title.partition(":")[0] for section in sections.values()}


def _list(sections: dict[str, Section]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for section in sections.values():
        table.add_row(section.name if "-" in section.name else section.title, section.meaning)
    return table


def _title(name: str, title: str) -> str:
    return f"CertificateError: {title.lower()}" if name.startswith("certificateerror-") else title


def with_numbered_links(section: Section) -> tuple[str, list[str]]:
    """Return its text with ``[1]`` in place of each address, and the addresses; the first is that of the section."""
    links = [f"{SITE}troubleshooting.html#{section.name}"]

    def number(link: re.Match[str]) -> str:
        words, target = link.groups()
        page, _, anchor = target.partition("#")
        links.append(f"{SITE}{page.removesuffix('.md') or 'troubleshooting'}.html{'#' * bool(anchor)}{anchor}")
        return rf"{words} \[{len(links) - 1}\]"

    return _LINK.sub(number, section.text), links
