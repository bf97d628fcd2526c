"""Work out from the options what is to be sent, and which ledger knows of it, before any message is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from securesmtp._cli.send.draft import read_inline
from securesmtp._cli.send.rows import Table
from securesmtp._cli.send.sources import Files, Letter, Rows, find_files, read_people
from securesmtp._cli.send.templates import Templates, is_html, is_jinja
from securesmtp._protocol.address import addr_spec
from securesmtp._shown import quote
from securesmtp.errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from email.headerregistry import Address

    from securesmtp._cli.send.many_options import ManyOptions
    from securesmtp._cli.send.sources import Source
    from securesmtp._cli.send.templates import Filler

_TO_COLUMNS: Final = ("email", "e-mail", "mail", "address", "to")
# What a path of --attach or --inline has before the first cell.
_PLACEHOLDERS: Final = ("$", "{{", "{%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """
    The options that mean the same for one message and for many, as they were given.

    With ``--csv``, *subject*, *text*, *html*, the paths of *inline*, *attach* and *headers* are templates.
    """

    paths: tuple[Path, ...] = ()
    sender: str | None = None
    subject: str | None = None
    text: Path | None = None
    html: Path | None = None
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    reply_to: tuple[str, ...] = ()
    inline: tuple[str, ...] = ()
    attach: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    partial: Literal["raise", "allow"] = "raise"
    deadline: float | None = None
    dry_run: bool = False
    quiet: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What is to be sent.

    Attributes:
        title: What it is, for people.
        source: The messages.
        ledger: The file of the ledger.
        resend: What is sent again although an earlier run has tried it: ``"unknown"``, ``"refused"``.
        allow_duplicates: Whether an address may get several messages.
        allow_changes: Whether a message may differ from what was sent under its key.
    """

    title: str
    source: Source
    ledger: Path
    resend: frozenset[Literal["unknown", "refused"]]
    allow_duplicates: bool
    allow_changes: bool


def make_plan(draft: Draft, options: ManyOptions) -> Plan:
    """
    Return what is to be sent; templates and the header line of a table are read, but no message is made.

    Raises:
        click.UsageError: Options are missing, or do not fit together.
        MessageError: A file cannot be read, or is not what it should be.
    """
    source: Source
    if options.csv is not None:
        table = Table(options.csv, options.delimiter, options.encoding)
        title = f"{options.csv}: {', '.join(map(quote, table.columns))} between {quote(table.delimiter)}"
        source, ledger = Rows(table, _letter(draft, options, table)), _table_ledger(draft, options)
    else:
        source, ledger = _files(draft, options)
        title = f"{len(source.paths):,} files"
    resend = set[Literal["unknown", "refused"]]()
    if options.resend_unknown:
        resend.add("unknown")
    if options.retry_refused:
        resend.add("refused")
    return Plan(
        title=title,
        source=source,
        ledger=ledger,
        resend=frozenset(resend),
        allow_duplicates=options.allow_duplicates,
        allow_changes=options.allow_changes,
    )


def _files(draft: Draft, options: ManyOptions) -> tuple[Files, Path]:
    given = {
        "--subject": draft.subject,
        "--text": draft.text,
        "--html": draft.html,
        "--cc": draft.cc,
        "--bcc": draft.bcc,
        "--reply-to": draft.reply_to,
        "--inline": draft.inline,
        "--attach": draft.attach,
        "--header": draft.headers,
    }
    wrong = [*options.for_tables, *(name for name, value in given.items() if value)]
    if wrong:
        message = f"{', '.join(wrong)} cannot change messages that are in files. Hint: --csv makes one for each row"
        raise click.UsageError(message)
    if not draft.paths:
        message = "nothing is to be sent. Hint: name a folder or .eml files, or a table with --csv"
        raise click.UsageError(message)
    paths = find_files(draft.paths)
    ledger = options.ledger
    if ledger is None:
        folders = {path.resolve().parent for path in paths}
        if len(folders) > 1:
            message = "the files are in several folders. Hint: say with --ledger FILE where to keep what became of them"
            raise click.UsageError(message)
        ledger = paths[0].parent / "sent.ledger"
    sender = None if draft.sender is None else addr_spec(_sender(draft.sender))
    return Files(paths, ledger.parent, sender), ledger


def _table_ledger(draft: Draft, options: ManyOptions) -> Path:
    """Return a ledger for this table with this template: another text is another mailing."""
    template = options.template or draft.html or draft.text
    if options.ledger is not None or options.csv is None or template is None:
        return options.ledger or Path()
    return options.csv.with_name(f"{options.csv.stem}-{template.name.partition('.')[0]}.ledger")


def _letter(draft: Draft, options: ManyOptions, table: Table) -> Letter:
    if draft.paths:
        message = "files cannot be sent together with --csv. Hint: send them by a command of their own"
        raise click.UsageError(message)
    template = options.template
    text, html = (
        draft.text or (None if template is None or is_html(template) else template),
        draft.html or (template if template is not None and is_html(template) else None),
    )
    if template is not None and template not in {text, html}:
        message = (
            f"--template and {'--html' if is_html(template) else '--text'} both give the body. Hint: use one of them"
        )
        raise click.UsageError(message)
    body = html or text
    if draft.sender is None or draft.subject is None or body is None:
        message = "--csv needs --from, --subject, and --template (or --text, --html)"
        raise click.UsageError(message)
    # First, because a wrong delimiter shows here.
    to_column = _to_column(options.to_column, table)
    bodies = [each for each in (text, html) if each is not None]
    templates = Templates(table.columns, body.parent, is_jinja=options.jinja or any(is_jinja(each) for each in bodies))
    return Letter(
        sender=_sender(draft.sender),
        subject=templates.load(draft.subject, "--subject"),
        text=None if text is None else templates.read(text),
        html=None if html is None else templates.read(html),
        to_column=to_column,
        name_column=None if options.name_column is None else _column(options.name_column, table, "--name-column"),
        cc=read_people(draft.cc, "--cc"),
        bcc=read_people(draft.bcc, "--bcc"),
        reply_to=read_people(draft.reply_to, "--reply-to"),
        headers=dict(_headers(draft.headers, templates)),
        unsubscribe=[templates.load(each, "--unsubscribe") for each in options.unsubscribe],
        images={
            name: (templates.load(path, f"--inline {name}"), _folder(path))
            for name, path in read_inline(draft.inline).items()
        },
        attachments=[(templates.load(each, "--attach"), _folder(each)) for each in draft.attach],
    )


def _sender(text: str) -> Address:
    people = read_people([text], "--from")
    if len(people) != 1:
        message = f"--from has {len(people)} addresses, not one"
        raise AddressError(message)
    return people[0]


def _to_column(given: str | None, table: Table) -> str:
    if given is not None:
        return _column(given, table, "--to-column")
    found = [column for column in table.columns if column.lower() in _TO_COLUMNS]
    if len(found) != 1:
        message = f"{table.path}: which column has the address? {_columns(table)}. Hint: name it with --to-column"
        raise click.UsageError(message)
    return found[0]


def _column(name: str, table: Table, option: str) -> str:
    if name not in table.columns:
        message = f"{option}: there is no column {quote(name)}. {_columns(table)}"
        raise click.UsageError(message)
    return name


def _columns(table: Table) -> str:
    return f"The columns are {', '.join(map(quote, table.columns))}"


def _headers(lines: Sequence[str], templates: Templates) -> Iterator[tuple[str, Filler]]:
    seen: set[str] = set()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            message = f"--header {quote(line)} has no colon. Hint: write 'X-Campaign: november'"
            raise click.UsageError(message)
        if name.strip().lower() in seen:
            message = f"--header {name.strip()} is given twice"
            raise click.UsageError(message)
        seen.add(name.strip().lower())
        yield name.strip(), templates.load(value.strip(), f"--header {name.strip()}")


def _folder(template: str) -> Path | None:
    """Return the folder in which the files of *template* must be; None for any if no cell says which file it is."""
    starts = [start for start in map(template.find, _PLACEHOLDERS) if start >= 0]
    if not starts:
        return None
    return Path(template[: min(starts)].rpartition("/")[0] or ("/" if template.startswith("/") else "."))
