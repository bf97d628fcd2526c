"""A reader that has gone, a closed stream or an old terminal changes nothing of what is sent."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from securesmtp._cli import main
from securesmtp._cli.output import write
from securesmtp.testing import MailServer


@pytest.fixture
def unread() -> Iterator[TextIO]:
    """Open a pipe that nobody reads, as after `| head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield stream


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_has_gone_ends_no_run(
    unread: TextIO, name: str, server: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is sent, and the exit code says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, name, unread)
    Path("people.csv").write_text("email\nada@example.org\nbob@example.org\n")
    Path("mail.txt").write_text("Hello\n")
    options = ["--csv", "people.csv", "--template", "mail.txt", "--from", "news@example.org", "--subject", "x"]
    assert main(["send", *options]) == 0
    assert len(server.messages) == 2
    assert main(["ledger", "people-mail.ledger", "--state", "accepted"]) == 0


@pytest.mark.parametrize(
    "streams",
    [">/dev/null 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"],
    ids=["no stderr", "no stream", "full disk"],
)
def test_streams_that_nobody_can_write_to_end_no_run(streams: str, server: MailServer, tmp_path: Path) -> None:
    """A ledger that gets the number of a closed stream is not written into by what is printed."""
    (tmp_path / "people.csv").write_text("email\nada@example.org\nrefused@example.org\n")
    (tmp_path / "mail.txt").write_text("Hello\n")
    many = "--csv people.csv --template mail.txt --from news@example.org --subject x"
    script = f'"$0" -m securesmtp send {many} {streams}; test $? = 67 && "$0" -m securesmtp ledger people-mail.ledger'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 accepted, 1 refused\n"
    assert len(server.messages) == 1


def test_a_full_disk_changes_no_exit_code_of_one_message(server: MailServer) -> None:
    """Its error cannot be printed; its code is that of the refusal."""
    script = '"$0" -m securesmtp send --from a@example.org --to refused@example.org --subject x --text - 2>/dev/full'
    done = subprocess.run(["sh", "-c", script, sys.executable], input=b"text", check=False)
    assert (done.returncode, server.messages) == (67, [])


def test_what_is_written_later_is_dropped(unread: TextIO) -> None:
    """Nothing is left that Python would try to write at its end."""
    write(unread, "one\n")
    write(unread, "two\n")
    unread.flush()


def test_a_stream_that_is_closed_or_no_file_is_no_error() -> None:
    """Python sets it to None if the caller has closed it."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    write(None, "text")
    write(Full(), "text")


def test_characters_that_a_terminal_does_not_have_are_escaped() -> None:
    """A name in a table can be in any alphabet."""
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    write(stream, "Łódź\n")
    stream.seek(0)
    assert stream.buffer.read() == b"\\u0141\\xf3d\\u017a\n"
