"""
Read a table of recipients: a CSV file as spreadsheets and programs write it.

Nothing is guessed but the delimiter, and that from the header line alone. A line that does not fit the header is a
fault with its line number, never a row with shifted cells.
"""

from __future__ import annotations

import codecs
import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from securesmtp._shown import quote
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from _csv import Reader
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import TextIO

T = TypeVar("T")

DELIMITERS: Final = (",", ";", "\t", "|")
# `str.strip` removes the no-break space; these have no width, and come from web pages and byte order marks.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
# Excel writes "sep=;" as the first line, to tell itself the delimiter.
_SEPARATOR_LINE = "sep="
_HALVES: Final = range(0xDC80, 0xDD00)
_HINT = "save the table as CSV UTF-8, or pass --encoding, such as cp1252 for Excel in Western Europe"


@dataclass(frozen=True, slots=True)
class Row:
    """
    One row of a table.

    Attributes:
        line: The number of its first line in the file, from 1.
        cells: Each cell under the name of its column.
    """

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What keeps a message from being sent, found before the first one is.

    Attributes:
        place: Where it is: a file, and its line if it has any.
        reason: What is wrong, and what to do.
    """

    place: str
    reason: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.place}: {self.reason}"


class Table:
    """
    A CSV file with a header line. Its rows are read anew for each iteration, so that few are in memory.

    Attributes:
        path: The file.
        delimiter: What is between two cells.
        columns: The names of the columns, without blanks around them.
    """

    def __init__(self, path: Path, delimiter: str | None = None, encoding: str | None = None) -> None:
        """
        Read the header line.

        Args:
            path: The file.
            delimiter: What is between two cells; by default, what is in the header line most often.
            encoding: How it is encoded; by default UTF-8, or UTF-16 if it begins with that byte order mark.

        Raises:
            MessageError: The file cannot be read, or its header line is wrong.
        """
        self.path = path
        self._encoding = encoding or _find_encoding(path)
        # How many lines are before the header line.
        self._skipped = 0
        with self._open() as file:
            first = self._read(file.readline)
            if first.lower().startswith(_SEPARATOR_LINE):
                self._skipped = 1
                delimiter = delimiter or first.strip("\r\n")[len(_SEPARATOR_LINE) :]
                first = self._read(file.readline)
        self.delimiter = delimiter or _guess_delimiter(first)
        self.columns = self._read_columns()

    def __iter__(self) -> Iterator[Row | Fault]:
        """
        Yield each row, or what is wrong with it. Empty lines, and lines of empty cells, are left out.

        Raises:
            MessageError: The file cannot be read.
        """
        with self._open() as file:
            reader = self._reader(file)
            self._read(lambda: next(reader))
            while True:
                line = reader.line_num + self._skipped + 1
                try:
                    cells = self._read(lambda: next(reader, None))
                except csv.Error as error:
                    # What follows cannot be told apart.
                    yield self._fault(line, f"not CSV: {error}. Hint: close each quotation mark")
                    return
                if cells is None:
                    return
                if any(map(str.strip, cells)):
                    yield self._row(line, cells)

    def _row(self, line: int, cells: list[str]) -> Row | Fault:
        if len(cells) != len(self.columns):
            more = "more" if len(cells) > len(self.columns) else "fewer"
            hint = f"put quotation marks around a cell that contains {quote(self.delimiter)}"
            return self._fault(line, f"{len(cells)} cells, {more} than the {len(self.columns)} columns. Hint: {hint}")
        for name, cell in zip(self.columns, cells, strict=True):
            if not _is_decoded(cell):
                return self._fault(line, f"the cell {quote(name)} is not {self._encoding}. Hint: {_HINT}")
        return Row(line, dict(zip(self.columns, cells, strict=True)))

    def _fault(self, line: int, reason: str) -> Fault:
        return Fault(f"{self.path}, line {line}", reason)

    def _read_columns(self) -> tuple[str, ...]:
        with self._open() as file:
            reader = self._reader(file)
            try:
                cells = self._read(lambda: next(reader, []))
            except csv.Error as error:
                raise self._header_error(f"is not CSV: {error}", "close each quotation mark") from None
        names = [cell.strip().strip(_INVISIBLE).strip() for cell in cells]
        if not any(names):
            raise self._header_error("has no names", "write the names of the columns there")
        for number, name in enumerate(names, 1):
            if not name:
                raise self._header_error(f"has no name for column {number}", "name it, or delete the column")
            if not _is_decoded(name):
                raise self._header_error(f"is not {self._encoding}", _HINT)
            if names.index(name) != number - 1:
                text = f"names two columns {quote(name)}: columns {names.index(name) + 1} and {number}"
                raise self._header_error(text, "rename one of them")
        return tuple(names)

    def _open(self) -> TextIO:
        try:
            # Octets that are no characters become halves of surrogate pairs, so that the line of each is known.
            file = self.path.open(encoding=self._encoding, errors="surrogateescape", newline="")
        except LookupError:
            message = f"{quote(self._encoding)} is not an encoding"
            raise MessageError(message, hint="pass --encoding utf-8, utf-16 or cp1252") from None
        except OSError as error:
            raise unreadable_error(self.path, error) from None
        for _ in range(self._skipped):
            file.readline()
        return file

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except UnicodeError:
            message = f"{self.path} is not {self._encoding}"
            raise MessageError(message, hint=_HINT) from None
        except OSError as error:
            raise unreadable_error(self.path, error) from None

    def _reader(self, file: TextIO) -> Reader:
        # Strict: a quotation mark that is not closed would make one cell of the rest of the file.
        return csv.reader(file, delimiter=self.delimiter, strict=True)

    def _header_error(self, text: str, hint: str) -> MessageError:
        return MessageError(f"{self.path}, line {self._skipped + 1}: the header line {text}", hint=hint)


def unreadable_error(path: Path, error: OSError, verb: str = "read") -> MessageError:
    """Return the error for a file that cannot be read, or written."""
    message = f"{path} cannot be {verb}: {error.strerror}"
    return MessageError(message, hint="check the path and its permissions")


def _find_encoding(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise unreadable_error(path, error) from None
    # "Unicode text", as Excel saves it.
    return "utf-16" if start in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig"


def _is_decoded(text: str) -> bool:
    return text.isascii() or not any(ord(character) in _HALVES for character in text)


def _guess_delimiter(header: str) -> str:
    """Return which delimiter *header* has most often outside of quotation marks; a comma if it has none."""
    bare = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=bare.count)
