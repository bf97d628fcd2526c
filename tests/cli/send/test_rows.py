"""Tables as spreadsheets and programs write them (PITFALLS-2 L12, L13)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp import MessageError
from securesmtp._cli.send.rows import Fault, Row, Table

Write = Callable[[bytes | str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a table."""

    def make(data: bytes | str) -> Path:
        path = tmp_path / "people.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return make


HEADERS = {
    "plain": (b"name,email\nAda,a@example.org\n", ",", 2),
    "UTF-8 with a byte order mark": ("\ufeffname,email\nAda,a@example.org\n".encode(), ",", 2),
    "a mark before a quotation mark": (b'\xef\xbb\xbf"name","email"\nAda,a@example.org\n', ",", 2),
    "a mark before Excel's line": (b"\xef\xbb\xbfsep=;\r\nname;email\r\nAda;a@example.org\r\n", ";", 3),
    "UTF-16, as Excel's Unicode text": ("name\temail\r\nAda\ta@example.org\r\n".encode("utf-16"), "\t", 2),
    "semicolons": (b"name;email\r\nAda;a@example.org\r\n", ";", 2),
    "semicolons, a comma in a cell": (b'name;email\r\nAda;a@example.org\r\n"Ada, B";c@example.org\r\n', ";", 2),
    "bars": (b"name|email\nAda|a@example.org\n", "|", 2),
    "a comma in a quoted name": (b'"name";"email"\nAda;a@example.org\n', ";", 2),
    "Excel's line for the delimiter": (b"sep=;\r\nname;email\r\nAda;a@example.org\r\n", ";", 3),
    "blanks around names": (b" name ,\temail \nAda,a@example.org\n", ",", 2),
    "no-break spaces around names": ("\xa0name\xa0,\u202femail\xa0\nAda,a@example.org\n".encode(), ",", 2),
    "characters without width": ("\u200bname,email\u2060\nAda,a@example.org\n".encode(), ",", 2),
    "empty lines": (b"name,email\n\n,\n  ,\nAda,a@example.org\n", ",", 5),
    "CR alone": (b"name,email\rAda,a@example.org\r", ",", 2),
}


@pytest.mark.parametrize(("data", "delimiter", "line"), HEADERS.values(), ids=HEADERS)
def test_the_columns_are_found(write: Write, data: bytes, delimiter: str, line: int) -> None:
    """Their names are without what surrounds them, and each row has its own line number."""
    table = Table(write(data))
    assert (table.columns, table.delimiter) == (("name", "email"), delimiter)
    assert next(iter(table)) == Row(line, {"name": "Ada", "email": "a@example.org"})


def test_only_the_header_line_says_the_delimiter(write: Write) -> None:
    """Cells with more semicolons than the header has commas change nothing."""
    table = Table(write("email,note\na@example.org,a;b;c;d;e\n"))
    assert [row.cells for row in table if isinstance(row, Row)] == [{"email": "a@example.org", "note": "a;b;c;d;e"}]


def test_a_delimiter_that_is_given_is_taken(write: Write) -> None:
    """Nothing is guessed then."""
    assert Table(write("a;b,c\n1;2,3\n"), ",").columns == ("a;b", "c")


def test_an_encoding_that_is_given_is_taken(write: Write) -> None:
    """Excel in Western Europe writes Windows-1252."""
    (row,) = Table(write("name\nJosé\n".encode("cp1252")), encoding="cp1252")
    assert isinstance(row, Row)
    assert row.cells == {"name": "José"}


FAULTS = {
    "more cells": ("a,b\n1,2\n1,2,3\n", "line 3: 3 cells, more than the 2 columns"),
    "fewer cells": ("a,b\n1,2\n1\n", "line 3: 1 cells, fewer than the 2 columns"),
    "after a cell with line ends": ('a,b\n"x\ny\nz",2\n1\n', "line 5: 1 cells"),
    "after Excel's line": ("sep=,\na,b\n1\n", "line 3: 1 cells"),
    "a quotation mark that is not closed": ('a,b\n1,2\n"x,2\n1,2\n', "line 3: not CSV"),
    "text after a quotation mark": ('a,b\n"x"y,2\n', "line 2: not CSV"),
    "another encoding": (b"a,b\n1,2\n1,Jos\xe9\n", "line 3: the cell 'b' is not utf-8"),
}


@pytest.mark.parametrize(("data", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_row_is_named_by_its_line(write: Write, data: str | bytes, reason: str) -> None:
    """No cell is lost, moved or made up: the row is no row."""
    faults = [row for row in Table(write(data)) if isinstance(row, Fault)]
    assert reason in str(faults[0])


def test_a_fault_does_not_hide_the_next(write: Write) -> None:
    """Every bad row is listed, and the good ones between them are read."""
    found = list(Table(write("a,b\n1\n1,2\n1,2,3\n")))
    assert [type(each) for each in found] == [Fault, Row, Fault]


WRONG_HEADERS: dict[str, tuple[str | bytes, str]] = {
    "equal names": ("a,b,a\n", "line 1: the header line names two columns 'a': columns 1 and 3"),
    "equal but for blanks": ("a,\xa0a\n", "names two columns 'a'"),
    "no name": ("a,,b\n", "has no name for column 2"),
    "empty file": ("", "has no names"),
    "empty line": ("\na,b\n", "has no names"),
    "not UTF-8": (b"a,\xe9\n", "is not utf-8"),
    "not closed": ('a,"b\n', "is not CSV"),
    "after Excel's line": ("sep=;\na;a\n", "line 2: the header line names two"),
    "UTF-16, cut": ("a\n".encode("utf-16")[:-1], "is not utf-16"),
}


@pytest.mark.parametrize(("data", "reason"), WRONG_HEADERS.values(), ids=WRONG_HEADERS)
def test_a_wrong_header_line_is_an_error(write: Write, data: str | bytes, reason: str) -> None:
    """It names the line."""
    with pytest.raises(MessageError) as caught:
        Table(write(data))
    assert reason in str(caught.value)
    assert caught.value.hint


def test_what_cannot_be_read_is_an_error(tmp_path: Path, write: Write) -> None:
    """A file that is missing, a folder, an encoding that does not exist."""
    for path, encoding in [(tmp_path / "none.csv", None), (tmp_path, None), (tmp_path, "utf-8")]:
        with pytest.raises(MessageError, match="cannot be read"):
            Table(path, encoding=encoding)
    # It can be opened, and its first octet cannot be read.
    with pytest.raises(MessageError, match="cannot be read"):
        Table(Path("/proc/self/mem"), encoding="utf-8")
    with pytest.raises(MessageError, match="'utf-9' is not an encoding"):
        Table(write("a\n"), encoding="utf-9")


def test_a_table_that_is_cut_later_is_an_error(write: Write) -> None:
    """In an encoding with several octets a character, half of one has no line."""
    table = Table(write("a\nb\n".encode("utf-16")))
    table.path.write_bytes("a\nb\n".encode("utf-16")[:-1])
    with pytest.raises(MessageError, match="is not utf-16"):
        list(table)


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=examples(60))
@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5), delimiter=st.sampled_from([",", ";", "\t"]))
def test_any_table_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str
) -> None:
    """Whatever Python's writer writes, but for rows of blanks alone."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["x", "y"], *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(file.getvalue().encode())
    found = [list(row.cells.values()) for row in Table(path) if isinstance(row, Row)]
    assert found == [row for row in rows if any(map(str.strip, row))]
