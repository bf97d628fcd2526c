"""What is wrong with a table, a template or a file is found before the first message goes (PITFALLS-2 L12 to L14)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from securesmtp._cli.send.sources import Files
from securesmtp.ledger import SQLiteLedger
from securesmtp.testing import MailServer

TABLE = "email,name,file\nada@example.org,Ada,\nbob@example.org,Bob,\n"
OPTIONS = ("--csv", "people.csv", "--template", "mail.txt", "--from", "News <news@example.org>")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a table, a template and what may be attached."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"people.csv": TABLE, "mail.txt": "Dear $name\n", "mail.html": "<p>Dear $name</p>\n"}.items():
        Path(name).write_text(text)
    Path("invoices").mkdir()
    Path("invoices/1.pdf").write_bytes(b"%PDF-1")
    Path("secret.txt").write_text("secret")
    return tmp_path


def test_the_columns_are_printed(run: Any) -> None:
    """With the delimiter, so that a wrong guess is seen (L12)."""
    Path("people.csv").write_bytes("\ufeffemail;name\r\nada@example.org;Ada\r\n".encode())
    done = run("send", *OPTIONS, "--subject", "Hello", "--dry-run")
    assert done.code == 0
    assert "people.csv: 'email', 'name' between ';'" in done.err


def test_a_dry_run_shows_the_first_message(run: Any, server: MailServer) -> None:
    """As its reader would see it; nothing is sent, and no ledger is made."""
    done = run(
        "send",
        *OPTIONS,
        "--subject",
        "Hello $name",
        "--name-column",
        "name",
        "--attach",
        "invoices/1.pdf",
        "--html",
        "mail.html",
        "--cc",
        "boss@example.org",
        "--bcc",
        "blind@example.org",
        "--dry-run",
    )
    assert done.code == 0
    for line in [
        "To: Ada <ada@example.org>",
        "Subject: Hello Ada",
        "(sent to: ada@example.org, boss@example.org, blind@example.org)",
        "Dear Ada",
        "<p>Dear Ada</p>",
        "[1.pdf, application/pdf]",
        "2 of 2 messages would be sent. Nothing was sent.",
    ]:
        assert f"{line}\n" in done.out
    assert "blind" not in done.out.split("(sent to")[0]
    assert server.messages == []
    assert not list(Path().glob("*.ledger*"))


FAULTS: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "a header in a name": (
        'email,name\nada@example.org,Ada\nbob@example.org,"Bob\nBcc: x@example.org"\n',
        ("--subject", "Hello", "--name-column", "name"),
        ["people.csv, line 3: the display name 'Bob\\nBcc: x@example.org' in to has the character U+000A"],
    ),
    "a header in a subject": (
        'email,name\nada@example.org,Ada\nbob@example.org,"Bob\r\nBcc: x@example.org"\n',
        ("--subject", "Hello $name"),
        ["people.csv, line 3: subject has the character U+000D"],
    ),
    "a header in a header": (
        'email,name\nada@example.org,"Ada\nX: y"\n',
        ("--subject", "Hello", "--header", "X-Who: $name"),
        ["people.csv, line 2: the header field X-Who has the character U+000A"],
    ),
    "a header in an address": (
        'email,name\n"ada@example.org\nBcc: x@example.org",Ada\n',
        ("--subject", "Hello"),
        ["people.csv, line 2: to: 'ada@example.org\\nBcc: x@example.org'"],
    ),
    "a URL with a line end": (
        'email,name\nada@example.org,"Ada\nx"\n',
        ("--subject", "Hello", "--unsubscribe", "https://example.org/$name"),
        ["people.csv, line 2: the https URL for unsubscribe is longer than 900 bytes, or not percent-encoded"],
    ),
    "a way out of the folder": (
        "email,name,file\nada@example.org,Ada,../secret.txt\nbob@example.org,Bob,1.pdf\neve@example.org,Eve,2.pdf\n",
        ("--subject", "Hello", "--attach", "invoices/$file"),
        [
            "people.csv, line 2: the attachment 'invoices/../secret.txt' is not in the folder 'invoices'",
            "people.csv, line 4: the file 'invoices/2.pdf' cannot be read",
        ],
    ),
    "an image outside of the folder": (
        "email,name,file\nada@example.org,Ada,../secret.txt\nbob@example.org,Bob,\n",
        ("--subject", "Hello", "--html", "mail.html", "--inline", "chart=invoices/$file"),
        ["people.csv, line 2: the image 'invoices/../secret.txt' is not in the folder 'invoices'"],
    ),
    "several of all kinds": (
        "email,name\nno address,Ada\n\nada@example.org\nada@example.org,Ada,1,2\ntwo@example.org two@example.org,x\n",
        ("--subject", "Hello"),
        [
            "people.csv, line 2: to: 'no address' has no @",
            "people.csv, line 4: 1 cells, fewer than the 2 columns",
            "people.csv, line 5: 4 cells, more than the 2 columns",
            "people.csv, line 6: to: 'two@example.org two@example.org'",
            "Error: 4 cannot be sent.",
        ],
    ),
}


@pytest.mark.parametrize(("table", "options", "lines"), FAULTS.values(), ids=FAULTS)
def test_every_bad_row_is_listed_and_nothing_is_sent(
    run: Any, server: MailServer, table: str, options: tuple[str, ...], lines: list[str]
) -> None:
    """With the number of its line; good rows beside it are not sent either (L14)."""
    Path("people.csv").write_bytes(table.encode())
    done = run("send", *OPTIONS, *options)
    assert done.code == 65
    for line in lines:
        assert f"\n{line}" in done.err
    assert server.messages == []


def test_many_bad_rows_are_counted(run: Any) -> None:
    """The first fifty are shown."""
    Path("people.csv").write_text("email,name\n" + "x\n" * 70)
    done = run("send", *OPTIONS, "--subject", "Hello")
    assert done.code == 65
    assert "and 20 more\n" in done.err
    assert "Error: 70 cannot be sent." in done.err


WRONG = {
    "$5 in the subject": (("--subject", "only $5"), 65, "--subject, line 1: '$5' is not a placeholder"),
    "$ in a header": (("--subject", "x", "--header", "X: $"), 65, "--header X, line 1: '$' is not a placeholder"),
    "no such column": (("--subject", "$namex"), 65, "--subject, line 1: there is no column 'namex'"),
    "a header twice": (("--subject", "x", "--header", "X: a", "--header", "x: b"), 64, "--header x is given twice"),
    "a header without colon": (("--subject", "x", "--header", "X"), 64, "has no colon"),
    "no such column for an image": (
        ("--subject", "x", "--inline", "a=$b"),
        65,
        "--inline a, line 1: there is no column",
    ),
    "an image without name": (("--subject", "x", "--inline", "$name"), 64, "--inline is not NAME=PATH"),
    "no such address column": (("--subject", "x", "--to-column", "To"), 64, "there is no column 'To'"),
    "no such name column": (("--subject", "x", "--name-column", "Name"), 64, "there is no column 'Name'"),
    "no subject": ((), 64, "--csv needs --from, --subject"),
    "a wrong sender": (("--subject", "x", "--from", "news"), 65, "--from has a name without a domain"),
    "two senders": (
        ("--subject", "x", "--from", "a@example.org, b@example.org"),
        65,
        "--from has 2 addresses, not one",
    ),
    "two bodies": (("--subject", "x", "--text", "mail.txt", "--template", "mail.txt"), 0, ""),
    "two other bodies": (("--subject", "x", "--text", "secret.txt"), 64, "--template and --text both give the body"),
    "files too": (("--subject", "x", "invoices"), 64, "files cannot be sent together with --csv"),
    "no rate": (("--subject", "x", "--rate", "10"), 64, "'10' is not a rate. Hint: write 10/s"),
    "rate zero": (("--subject", "x", "--rate", "0/s"), 64, "'0/s' is not a rate"),
    "delimiter": (("--subject", "x", "--delimiter", "::"), 64, "'::' is not one character"),
    "delimiter is given": (("--subject", "x", "--delimiter", "tab"), 64, "which column has the address?"),
    "encoding": (("--subject", "x", "--encoding", "utf-9"), 65, "'utf-9' is not an encoding"),
}


@pytest.mark.parametrize(("options", "code", "reason"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_named(run: Any, options: tuple[str, ...], code: int, reason: str) -> None:
    """Before any row is read."""
    done = run("send", *OPTIONS, *options, "--dry-run")
    assert (done.code, reason in " ".join(done.err.split())) == (code, True), done.err


def test_a_dry_run_lists_what_is_wrong(run: Any) -> None:
    """As a run does, and it can be quiet about the first message."""
    done = run("send", *OPTIONS, "--subject", "Hello", "--dry-run", "--quiet")
    assert done == (0, "2 of 2 messages would be sent. Nothing was sent.\n", "")
    Path("people.csv").write_text("email,name\nx,y\n")
    assert run("send", *OPTIONS, "--subject", "Hello", "--dry-run").code == 65


@pytest.mark.parametrize("header", ["email,To", "name,subject"])
def test_the_column_with_the_address_is_not_guessed(run: Any, header: str) -> None:
    """Of two or of none."""
    Path("people.csv").write_text(f"{header}\n")
    done = run("send", *OPTIONS, "--subject", "x")
    assert done.code == 64
    assert "which column has the address?" in " ".join(done.err.split())


def test_repeated_addresses_are_counted(run: Any, server: MailServer) -> None:
    """Whatever the case of their letters and the form of their domain; nothing is sent."""
    Path("people.csv").write_text(
        "email,name\nada@bücher.example,1\nAda@BÜCHER.example,2\nbob@example.org,3\nada@xn--bcher-kva.example,4\n",
        "utf-8",
    )
    done = run("send", *OPTIONS, "--subject", "Hello")
    assert done.code == 65
    assert "people.csv, line 3: ada@xn--bcher-kva.example#2\n" in done.err
    assert "Error: 2 are for an address that an earlier row has." in done.err
    assert "--allow-duplicates" in done.err
    assert server.messages == []
    assert run("send", *OPTIONS, "--subject", "Hello", "--allow-duplicates", "--dry-run").code == 0


def test_an_address_is_the_same_whoever_saved_the_table(run: Any, server: MailServer) -> None:
    """Some systems write an accent as a character of its own, which nobody sees."""
    Path("people.csv").write_text("email,name\nzo\u00eb@example.org,1\nzoe\u0308@example.org,2\n", "utf-8")
    done = run("send", *OPTIONS, "--subject", "Hello")
    assert (done.code, server.messages) == (65, [])
    assert "Error: 1 are for an address that an earlier row has." in done.err


def test_a_new_ledger_beside_others_is_pointed_out(run: Any, server: MailServer) -> None:
    """A table that was saved under another name has another ledger, and would be sent again."""
    Path("people.csv").write_text("email,name\nada@example.org,1\n")
    first = run("send", *OPTIONS, "--subject", "Hello", "--dry-run")
    assert "ledger" not in first.err
    for number in range(5):
        SQLiteLedger(f"table-{number}.ledger").close()
        os.utime(f"table-{number}.ledger", (number, number))
    done = run("send", *OPTIONS, "--subject", "Hello", "--dry-run")
    assert done.code == 0
    assert (
        "people-mail.ledger is new, so nothing counts as sent. The ledgers of its folder are table-4.ledger, "
        in done.err
    )
    assert "table-2.ledger and 2 more. Hint: --ledger FILE goes on with one of them\n" in done.err
    run("send", *OPTIONS, "--subject", "Hello", "--ledger", "table-1.ledger")
    again = run("send", *OPTIONS, "--subject", "Hello", "--ledger", "table-1.ledger")
    assert "is new" not in again.err


def test_files_are_read_before_the_first_is_sent(run: Any, server: MailServer) -> None:
    """A folder means its .eml files; each bad one is listed."""
    good = "From: a@example.org\nTo: b@example.org\nSubject: x\n\nHello\n"
    signed = good.replace("Hello", "x" * 1000).replace("Subject", "DKIM-Signature: v=1\nSubject")
    for name, text in {
        "1.eml": good,
        "2.eml": "Subject: x\n\nHello\n",
        "3.EML": "",
        "4.txt": "text",
        "5.eml": signed,
    }.items():
        Path("invoices", name).write_text(text)
    done = run("send", "invoices")
    assert done.code == 65
    assert "invoices/2.eml: the message has no From. Hint: set it, or give the sender: -f user@example.org" in done.err
    assert "invoices/3.EML: the message is empty" in done.err
    assert "invoices/5.eml: line " in done.err
    assert "Error: 3 cannot be sent." in done.err
    assert server.messages == []


FILES = {
    "a template for files": (("invoices", "--template", "mail.txt"), 64, "--template cannot change messages"),
    "an image for files": (
        ("invoices", "--inline", "a=b.png"),
        64,
        "--inline cannot change messages that are in files",
    ),
    "a subject for files": (("invoices", "--subject", "x"), 64, "--subject cannot change messages that are in files"),
    "a folder without": (("invoices",), 65, "invoices has no .eml file"),
    "several folders": (("a/1.eml", "b/1.eml"), 64, "say with --ledger FILE where to keep"),
    "a ledger alone": (("--ledger", "x.ledger"), 64, "nothing is to be sent"),
}


def test_what_cannot_be_read_is_a_fault(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has gone since it was found, and a folder that may not be read."""
    (fault,) = Files([Path("gone.eml")], Path(), None)
    assert str(fault).startswith("gone.eml: gone.eml cannot be read: No such file")

    def refuse(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    done = run("send", "invoices")
    assert (done.code, "invoices cannot be read: Permission denied" in done.err) == (65, True)


@pytest.mark.parametrize(("options", "code", "reason"), FILES.values(), ids=FILES)
def test_wrong_options_for_files_are_named(run: Any, options: tuple[str, ...], code: int, reason: str) -> None:
    """Before any file is read."""
    for name in "ab":
        Path(name).mkdir()
        Path(name, "1.eml").write_text("")
    done = run("send", *options, "--dry-run")
    assert (done.code, reason in " ".join(done.err.split())) == (code, True), done.err
