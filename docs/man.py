"""
Write the man pages of the commands into docs/man, from the commands' own help.

`python docs/man.py` writes them; tests/cli/test_man.py compares them with what the commands say today. The wheel has
them under share/man, where `man` looks for the commands of an environment.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from securesmtp._cli import COMMANDS, cli

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = Path(__file__).parent / "man"
# click's mark of a paragraph whose lines are kept, and its mark of the end of what `--help` shows.
_KEPT, _END = "\b\n", "\f"


def pages() -> dict[str, str]:
    """Return each page by its file's name."""
    context = click.Context(cli, None, "securesmtp", **cli.context_settings)
    written = {"securesmtp.1": _page("securesmtp", cli, context, str(cli.help), "".join(_commands()))}
    for name, (_, _, summary) in COMMANDS.items():
        command = cli.get_command(context, name) or cli
        own = click.Context(command, context, name, **command.context_settings)
        written[f"securesmtp-{name}.1"] = _page(f"securesmtp-{name}", command, own, summary)
    return written


def _page(name: str, command: click.Command, context: click.Context, summary: str, commands: str = "") -> str:
    help_text = inspect.cleandoc(command.help or "").partition(_END)[0]
    usage = " ".join(command.collect_usage_pieces(context))
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    listed = "".join(f".TP\n\\fB{_escape(opts)}\\fR\n{_escape(text)}\n" for opts, text in records)
    return (
        f'.TH {name.upper()} 1 "" securesmtp "securesmtp"\n'
        f".SH NAME\n{_escape(name)} \\- {_escape(summary.rstrip('.'))}\n"
        f".SH SYNOPSIS\n.B {_escape(context.command_path)}\n{_escape(usage)}\n"
        f".SH DESCRIPTION\n{''.join(_paragraphs(help_text))}"
        f"{commands}.SH OPTIONS\n{listed}"
        f"{''.join(_sections(command.epilog or ''))}"
    )


def _commands() -> Iterator[str]:
    yield ".SH COMMANDS\n"
    for name, (_, _, text) in COMMANDS.items():
        yield f".TP\n\\fB{name}\\fR\n{_escape(text)} See \\fBsecuresmtp\\-{name}\\fR(1).\n"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\n+", text.strip("\n")):
        if paragraph.startswith(_KEPT):
            yield f".PP\n.nf\n{_escape(inspect.cleandoc(paragraph.removeprefix(_KEPT)))}\n.fi\n"
        else:
            yield f".PP\n{_escape(' '.join(paragraph.split()))}\n"


def _sections(epilog: str) -> Iterator[str]:
    """Yield a section for each paragraph of *epilog* that begins with its title: ``Examples:``."""
    for paragraph in filter(None, re.split(r"\n\n+", epilog.strip("\n"))):
        kept = paragraph.startswith(_KEPT)
        title, colon, text = paragraph.removeprefix(_KEPT).partition(":\n")
        if kept and colon and "\n" not in title:
            yield f".SH {_escape(title.strip().upper())}\n"
            yield from _paragraphs(_KEPT + text)
        else:
            yield from _paragraphs(paragraph)


def _escape(text: str) -> str:
    """Return *text* as roff shows it: no control line, and a hyphen that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
