"""A reader that has gone, a closed stream or an old terminal changes nothing of what is sent."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from securesmtp._cli import main
from securesmtp._cli.send.output import write
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
