"""Write the entries of a ledger for people and programs: as CSV, or as JSON lines."""

from __future__ import annotations

import csv
import json
import os
from typing import TYPE_CHECKING, Final

from securesmtp._cli.send.rows import unreadable_error
from securesmtp._values import describe_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import TextIO

    from securesmtp.ledger import Entry

COLUMNS: Final = ("key", "state", "changed", "message_id", "code", "reply", "error")
JSON_ENDINGS: Final = frozenset({".jsonl", ".ndjson", ".json"})
# A spreadsheet runs a cell that begins so, and a server's reply or an address may.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_results(entries: Iterable[Entry], path: Path) -> None:
    """
    Write *entries* to the file *path*: as JSON lines if its name ends with ``.jsonl``, else as CSV.

    Raises:
        MessageError: It cannot be written. A file that was there before is then unchanged.
    """
    is_json = path.suffix.lower() in JSON_ENDINGS
    # A device or a pipe is written to: a file in its place would break other programs.
    beside = path if path.exists() and not path.is_file() else path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # With the byte order mark, spreadsheets read UTF-8.
        with beside.open("w", encoding="utf-8" if is_json else "utf-8-sig", newline="") as file:
            if is_json:
                file.writelines(json_lines(entries))
            else:
                write_csv(entries, file)
        if beside != path:
            beside.replace(path)
    except OSError as error:
        if beside != path:
            beside.unlink(missing_ok=True)
        raise unreadable_error(path, error, "written") from None


def json_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield each entry as one line of JSON, with its whole receipt or error."""
    return (f"{json.dumps(entry.as_dict())}\n" for entry in entries)


def write_csv(entries: Iterable[Entry], file: TextIO) -> None:
    """Write the entries as a table; a cell that a spreadsheet would run gets an apostrophe before it."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    writer.writerows([harmless(cell) for cell in cells(entry)] for entry in entries)


def cells(entry: Entry) -> tuple[str, ...]:
    """Return what is in the columns for *entry*."""
    result = entry.result
    error = None if result is None else result.error
    reply = getattr(None if result is None else result.receipt or error, "reply", None)
    return (
        entry.key,
        str(entry.state),
        entry.changed.isoformat(timespec="seconds"),
        entry.message_id or "",
        "" if reply is None else str(reply.code),
        "" if reply is None else reply.text,
        "" if error is None else describe_error(error),
    )


def harmless(cell: str) -> str:
    """Return *cell* so that a spreadsheet shows it, and does not run it."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
