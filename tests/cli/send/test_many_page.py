"""The commands of the page on many messages, as printed there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from securesmtp.testing import MailServer

PAGE = (Path(__file__).parents[3] / "docs/how-to/send-many-files.md").read_text("utf-8")


def commands(test: str) -> list[list[str]]:
    """Return the arguments of each command that *test* runs."""
    blocks = re.findall(rf"<!-- run by: {test} -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the table and the template of the page, and what they need."""
    monkeypatch.chdir(tmp_path)
    table, template = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[:2]
    Path("people.csv").write_text(table)
    Path("mail.html").write_text(template)
    for name in ("invoices", "outbox"):
        Path(name).mkdir()
    for number in (1041, 1042):
        Path(f"invoices/{number}.pdf").write_bytes(b"%PDF-1")
    for name in ("first", "second"):
        Path(f"outbox/{name}.eml").write_text(f"From: me@example.org\nTo: {name}@example.org\n\nx\n")


def test_the_pages_commands_for_many_send(run: Any, server: MailServer) -> None:
    """One after the other: the first sends nothing, the last one has nothing left to send."""
    done = [run(*arguments) for arguments in commands("test_the_pages_commands_for_many_send")]
    assert [each.code for each in done] == [0] * 5, done
    assert "Nothing was sent." in done[0].out
    assert "2 accepted" in done[2].out
    assert "Nothing was to be sent." in done[4].out
    (ada,) = [each for each in server.messages if each.recipients == ("ada@example.org",)]
    assert (ada.subject, ada.message["To"]) == ("Invoice 1041", "Ada <ada@example.org>")
    assert [file.name for file in ada.attachments] == ["1041.pdf"]
    assert "<p>Dear Ada,</p>" in (ada.html or "")
    assert len(server.messages) == 4


def test_the_pages_commands_for_many_settle(run: Any, server: MailServer) -> None:
    """What is doubtful; the next run sends what did not arrive."""
    _, send = commands("test_the_pages_commands_for_many_send")[:2]
    server.fault = "drops_after_content"
    assert run(*send).code == 3
    server.fault = None
    server.clear()
    (settle,) = commands("test_the_pages_commands_for_many_settle")
    assert run(*settle).code == 0
    assert run(*send).code == 0
    assert [each.recipients for each in server.messages] == [("grace@example.org",)]
