"""Many messages, sent: each once, whatever ends the run; the summary, the results and the exit code say the truth."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import pytest

from securesmtp._cli.send import check
from securesmtp._cli.send.ledger_view import harmless
from securesmtp._submissions import entry_digest
from securesmtp.ledger import Item, SQLiteLedger, State
from securesmtp.testing import MailServer, Received

OPTIONS = (
    "--csv",
    "people.csv",
    "--template",
    "mail.txt",
    "--from",
    "News <news@example.org>",
    "--subject",
    "Hi $name",
)
NAMES = ["ada", "bob", "cy", "dan", "eve"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a table and a template."""
    monkeypatch.chdir(tmp_path)
    write_table(NAMES)
    Path("mail.txt").write_text("Dear $name\n")
    return tmp_path


def write_table(names: list[str]) -> None:
    """Write a row for each name."""
    Path("people.csv").write_text("email,name\n" + "".join(f"{name}@example.org,{name}\n" for name in names))


def arrived(server: MailServer) -> list[str]:
    """Return who has got something, in alphabetical order."""
    return sorted(each.partition("@")[0] for message in server.messages for each in message.recipients)


def counts(out: str) -> dict[str, list[int]]:
    """Return the numbers of the summary, by outcome: this run, and earlier ones."""
    rows = [line.split("│") for line in out.splitlines() if line.count("│") == 3]
    return {row[0].strip(): [int(cell) for cell in row[1:3] if cell.strip()] for row in rows}


def test_each_row_becomes_a_message(run: Any, server: MailServer) -> None:
    """The whole of a mailing: all accepted, exit code 0, a ledger beside the table."""
    done = run("send", *OPTIONS)
    assert done.code == 0, done.err
    assert arrived(server) == NAMES
    (ada,) = [each for each in server.messages if each.recipients == ("ada@example.org",)]
    assert ada.subject == "Hi ada"
    assert b"Dear ada\r\n" in ada.content
    assert counts(done.out)["accepted"] == [5, 0]
    assert Path("people-mail.ledger").exists()
    assert "Ledger: people-mail.ledger" in done.out


def test_the_same_command_again_sends_nothing(run: Any, server: MailServer) -> None:
    """What was accepted is never sent again, and the summary still counts it."""
    run("send", *OPTIONS)
    server.clear()
    done = run("send", *OPTIONS)
    assert (done.code, arrived(server)) == (0, [])
    assert counts(done.out)["accepted"] == [0, 5]
    assert "Nothing was to be sent." in done.out


def test_rows_may_be_added_removed_and_sorted(run: Any, server: MailServer) -> None:
    """Only the new ones get the message."""
    run("send", *OPTIONS)
    server.clear()
    write_table(["zoe", "eve", "ada", "may"])
    done = run("send", *OPTIONS)
    assert (done.code, arrived(server)) == (0, ["may", "zoe"])


def test_another_text_under_the_same_ledger_is_an_error(run: Any, server: MailServer) -> None:
    """Nobody gets two texts by mistake, and who wants to correct one can."""
    write_table(NAMES[:3])
    run("send", *OPTIONS)
    server.clear()
    write_table(NAMES)
    Path("mail.txt").write_text("Dearest $name\n")
    done = run("send", *OPTIONS)
    assert (done.code, arrived(server)) == (65, [])
    assert "people.csv, line 2: ada@example.org (accepted)\n" in done.err
    assert "Error: 3 differ from what people-mail.ledger says was sent to them." in done.err
    assert run("send", *OPTIONS, "--allow-changes").code == 0
    assert arrived(server) == NAMES[3:]
    server.clear()
    assert run("send", *OPTIONS, "--ledger", "second.ledger").code == 0
    assert arrived(server) == NAMES


def test_several_messages_to_one_address(run: Any, server: MailServer) -> None:
    """With --allow-duplicates; they are told apart when the run goes on."""
    Path("people.csv").write_text("email,name\nada@example.org,one\nada@example.org,two\nbob@example.org,x\n")
    assert run("send", *OPTIONS, "--allow-duplicates").code == 0
    assert sorted(each.subject for each in server.messages) == ["Hi one", "Hi two", "Hi x"]
    server.clear()
    assert run("send", *OPTIONS, "--allow-duplicates").code == 0
    assert server.messages == []


def test_a_refused_message_is_sent_again_when_told(run: Any, server: MailServer) -> None:
    """A refusal for good is not tried again by itself."""
    write_table(["ada", "refused"])
    done = run("send", *OPTIONS)
    assert done.code == 67
    assert counts(done.out)["refused"] == [1, 0]
    assert "refused@example.org  550 5.1.1 No such user here\n" in done.out
    again = run("send", *OPTIONS)
    assert (again.code, counts(again.out)["refused"]) == (67, [0, 1])
    told = run("send", *OPTIONS, "--retry-refused")
    assert (told.code, counts(told.out)["refused"]) == (67, [1, 0])
    assert arrived(server) == ["ada"]


def test_a_temporary_refusal_is_tried_again(run: Any, server: MailServer) -> None:
    """By the same command, until it is accepted: exit code 75 says so."""
    server.fault = "greylists"
    done = run("send", *OPTIONS)
    assert (done.code, counts(done.out)["refused"]) == (75, [5, 0])
    again = run("send", *OPTIONS)
    assert (again.code, arrived(server)) == (0, NAMES)


def test_what_may_have_arrived_is_not_sent_again_unless_told(run: Any, server: MailServer) -> None:
    """It is listed with its Message-ID, and what to do."""
    write_table(["ada"])
    server.fault = "drops_after_content"
    done = run("send", *OPTIONS)
    assert done.code == 3
    assert counts(done.out)["unknown"] == [1, 0]
    message_id = server.messages[0].message["Message-ID"]
    assert f"ada@example.org  {message_id}\n" in done.out
    for words in ("--arrived KEY", "--not-arrived KEY", "--resend-unknown"):
        assert words in done.out
    server.fault = None
    server.clear()
    again = run("send", *OPTIONS)
    assert (again.code, counts(again.out)["unknown"], server.messages) == (3, [0, 1], [])
    told = run("send", *OPTIONS, "--resend-unknown")
    assert (told.code, [each.message["Message-ID"] for each in server.messages]) == (0, [message_id])


@pytest.mark.parametrize(("option", "code", "sent"), [("--arrived", 0, []), ("--not-arrived", 0, ["ada"])])
def test_a_doubtful_message_is_settled(run: Any, server: MailServer, option: str, code: int, sent: list[str]) -> None:
    """By a person who has looked; the next run acts on it."""
    write_table(["ada"])
    server.fault = "drops_after_content"
    run("send", *OPTIONS)
    server.fault = None
    server.clear()
    shown = run("ledger", "people-mail.ledger")
    assert shown.code == 3
    assert "1 unknown" in shown.out
    settled = run("ledger", "people-mail.ledger", option, "-", data=b"\n ada@example.org \n")
    assert settled.code == 0, settled.err
    assert (run("send", *OPTIONS).code, arrived(server)) == (code, sent)


def test_what_a_killed_run_leaves_is_doubtful_at_once(run: Any) -> None:
    """Not before the process has ended, and not only when the next run has begun."""
    with SQLiteLedger("people-mail.ledger") as ledger:
        ledger.claim([Item("ada@example.org", "0" * 64, "<1@example.org>")], "of a run")
        alive = run("ledger", "people-mail.ledger", "--longest-send", "60")
        text = "1 claimed\nA claim counts as in progress for 60 s (--longest-send), then as unknown.\n"
        assert (alive.code, alive.out) == (0, text)
        assert run("ledger", "people-mail.ledger", "--json").out == ""
    dead = run("ledger", "people-mail.ledger")
    assert dead.code == 3
    # No claim is left, so nothing is said of claims.
    assert "1 unknown\n\nada@example.org\n" in dead.out
    assert run("ledger", "people-mail.ledger", "--arrived", "ada@example.org").code == 0


def test_a_list_with_a_wrong_key_is_settled_but_for_that(run: Any, server: MailServer) -> None:
    """In the letters of a log, too; and the same list can be given again."""
    server.fault = "drops_after_content"
    run("send", *OPTIONS)
    keys = b"Ada@Example.ORG\nnobody@example.org\nno address\nbob@example.org\n"
    for _ in range(2):
        done = run("ledger", "people-mail.ledger", "--not-arrived", "-", data=keys)
        assert done.code == 65
        assert [line.partition(",")[0] for line in done.err.splitlines()] == [
            "Error: the message 'nobody@example.org' is not unknown",
            "Error: the message 'no address' is not unknown",
        ]
    assert "without --arrived" in done.err
    with SQLiteLedger("people-mail.ledger") as ledger:
        assert [entry.key for entry in ledger.entries(State.NOT_SENT)] == ["ada@example.org", "bob@example.org"]
    both = run("ledger", "people-mail.ledger", "--arrived", "cy@example.org", "--not-arrived", "cy@example.org")
    assert (both.code, "it is accepted" in both.err) == (65, True)


def test_what_is_not_doubtful_cannot_be_settled(run: Any, server: MailServer) -> None:
    """Nor what is not there, nor in what is no ledger."""
    run("send", *OPTIONS)
    for key in ("ada@example.org", "nobody@example.org"):
        done = run("ledger", "people-mail.ledger", "--not-arrived", key)
        assert (done.code, "is not unknown, it is" in done.err) == (65, True)
    assert run("ledger", "people.csv").code == 65


def test_the_ledger_lists_what_is_asked(run: Any, server: MailServer) -> None:
    """The messages in a state, for people, as JSON and as a file."""
    write_table(["ada", "refused"])
    run("send", *OPTIONS)
    done = run("ledger", "people-mail.ledger", "--state", "refused", "--results", "refused.csv")
    assert (done.code, done.out.splitlines()[0]) == (0, "1 accepted, 1 refused")
    assert "refused@example.org" in done.out
    assert "ada@example.org" not in done.out
    assert [row["key"] for row in read_csv("refused.csv")] == ["refused@example.org"]
    (line,) = run("ledger", "people-mail.ledger", "--state", "accepted", "--json").out.splitlines()
    assert json.loads(line)["key"] == "ada@example.org"
    assert "no message yet" not in done.out


def read_csv(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of results."""
    with Path(name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_results_are_written(run: Any, server: MailServer) -> None:
    """As a table and as JSON lines; of the whole mailing, not of the last run alone."""
    write_table(["ada"])
    run("send", *OPTIONS)
    write_table(["ada", "refused"])
    run("send", *OPTIONS, "--results", "results.csv")
    ada, refused = read_csv("results.csv")
    assert (ada["key"], ada["state"], ada["code"]) == ("ada@example.org", "accepted", "250")
    assert (refused["state"], refused["code"]) == ("refused", "550")
    assert refused["error"].startswith("RecipientsRefusedError: ")
    run("send", *OPTIONS, "--results", "results.jsonl")
    lines = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]
    assert [each["state"] for each in lines] == ["accepted", "refused"]
    assert sorted(path.name for path in Path().glob(".*")) == []


def test_results_that_cannot_be_written_do_not_hide_the_summary(run: Any, server: MailServer) -> None:
    """All was sent by then."""
    done = run("send", *OPTIONS, "--results", "other/results.csv")
    assert (done.code, arrived(server)) == (73, NAMES)
    assert "securesmtp: other/results.csv cannot be written" in done.err
    assert counts(done.out)["accepted"] == [5, 0]


@pytest.mark.parametrize(("fault", "code"), [("drops_after_content", 3), ("full", 75)])
def test_results_that_cannot_be_written_hide_no_outcome(run: Any, server: MailServer, fault: Any, code: int) -> None:
    """The exit code is that of the messages."""
    server.fault = fault
    done = run("send", *OPTIONS, "--results", "other/results.csv")
    assert (done.code, "other/results.csv cannot be written" in done.err) == (code, True)


def test_a_pipe_is_written_to_and_not_replaced(run: Any, server: MailServer) -> None:
    """Nor is a device, such as /dev/null: all programs of the machine need it."""
    write_table(["ada"])
    os.mkfifo("pipe.csv")
    reader = os.open("pipe.csv", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("send", *OPTIONS, "--results", "pipe.csv").code == 0
        assert b"ada@example.org,accepted," in os.read(reader, 10_000)
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(Path("pipe.csv").stat().st_mode)
    # Not a device: a mutant of the code, run by root, would replace that of the machine.
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.csv")
        assert run("send", *OPTIONS, "--results", "socket.csv").code == 73
    assert stat.S_ISSOCK(Path("socket.csv").stat().st_mode)


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1"]


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_is_shown_and_not_run(cell: str) -> None:
    """A spreadsheet opens the table of results (L15)."""
    assert harmless(cell) == f"'{cell}"
    assert harmless(f"x{cell}") == f"x{cell}"


def test_a_formula_in_an_address_is_harmless_in_csv_and_exact_in_json(run: Any, server: MailServer) -> None:
    """It is a valid local part."""
    write_table(["=cmd"])
    assert run("send", *OPTIONS, "--results", "results.csv").code == 0
    assert "'=cmd@example.org" in Path("results.csv").read_text("utf-8-sig")
    assert run("send", *OPTIONS, "--results", "results.jsonl").code == 0
    assert json.loads(Path("results.jsonl").read_text())["key"] == "=cmd@example.org"


def test_files_are_sent_once_each(run: Any, server: MailServer) -> None:
    """From wherever the command runs, by the folder or by their names; a new file is sent."""
    Path("outbox").mkdir()
    for name in "ab":
        Path(f"outbox/{name}.eml").write_text(f"From: me@example.org\nTo: {name}@example.org\nSubject: {name}\n\nx\n")
    assert (run("send", "outbox").code, arrived(server)) == (0, ["a", "b"])
    assert {each.message["Message-ID"] for each in server.messages}.isdisjoint({None})
    assert {each.message["Date"] for each in server.messages}.isdisjoint({None})
    server.clear()
    assert (run("send", "outbox/b.eml", "outbox/a.eml").code, arrived(server)) == (0, [])
    os.chdir("outbox")
    Path("c.eml").write_text("From: me@example.org\nTo: c@example.org\nBcc: d@example.org\n\nx\n")
    done = run("send", ".", "-f", "bounces@example.org", "--allow-changes")
    assert (done.code, arrived(server)) == (0, ["c", "d"])
    assert server.messages[0].mail_from == "bounces@example.org"
    assert server.messages[0].message["Bcc"] is None
    assert [entry.key for entry in SQLiteLedger("sent.ledger").entries()] == ["a.eml", "b.eml", "c.eml"]


def test_many_failures_are_counted_and_the_first_are_listed(run: Any, server: MailServer) -> None:
    """With the command that lists all of them."""
    server.fault = "full"
    write_table([f"p{number:03}" for number in range(23)])
    done = run("send", *OPTIONS, "--ledger", "my ledger")
    assert (done.code, counts(done.out)["refused"]) == (75, [23, 0])
    assert done.out.count("@example.org  452 4.3.1 ") == 20
    assert "  and 3 more: securesmtp ledger 'my ledger' --state refused\n" in done.out


def test_each_row_has_its_own_files(run: Any, server: MailServer) -> None:
    """A row without one has none."""
    Path("ada.txt").write_text("for Ada")
    Path("people.csv").write_text("email,name,file\nada@example.org,ada,ada.txt\nbob@example.org,bob,\n")
    assert run("send", *OPTIONS, "--attach", "$file", "--unsubscribe", "https://example.org/$name").code == 0
    files = {each.recipients[0]: [file.name for file in each.attachments] for each in server.messages}
    assert files == {"ada@example.org": ["ada.txt"], "bob@example.org": []}
    assert {each.message["List-Unsubscribe"] for each in server.messages} == {
        "<https://example.org/ada>",
        "<https://example.org/bob>",
    }


def test_each_row_has_its_own_image(run: Any, server: MailServer) -> None:
    """The ledger recognises the message in the second run, though each time it has a new Content-ID."""
    write_table(["ada", "bob"])
    Path("charts").mkdir()
    for name in ("ada", "bob"):
        Path(f"charts/{name}.png").write_text(name)
    Path("mail.html").write_text('<img src="cid:chart">')
    for _ in range(2):
        done = run("send", *OPTIONS, "--html", "mail.html", "--inline", "chart=charts/$name.png")
        assert done.code == 0
    parts = {each.recipients[0]: list(each.message.walk()) for each in server.messages}
    images = {
        to: [part.get_payload(decode=True) for part in all_ if "Content-ID" in part] for to, all_ in parts.items()
    }
    assert images == {"ada@example.org": [b"ada"], "bob@example.org": [b"bob"]}
    assert len(server.messages) == 2


def test_who_was_refused_beside_others_is_listed(run: Any, server: MailServer) -> None:
    """With --partial, the others have the message; the next run still says who has not."""
    Path("outbox").mkdir()
    Path("outbox/a.eml").write_text("From: me@example.org\nTo: ada@example.org, refused@example.org\n\nx\n")
    for _ in range(2):
        done = run("send", "outbox", "--partial")
        assert (done.code, arrived(server)) == (67, ["ada"])
        assert "accepted, but refused for some recipients:\n  a.eml  not for refused@example.org\n" in done.out


def test_files_of_several_folders_have_a_ledger_that_is_named(run: Any, server: MailServer) -> None:
    """What a file has as Date and Message-ID is kept."""
    fields = "From: me@example.org\nDate: Fri, 27 Nov 2026 12:00:00 +0000\nMessage-ID: <1@example.org>\n"
    for name in "ab":
        Path(name).mkdir()
        Path(name, "1.eml").write_text(f"{fields}To: {name}@example.org\n\nx\n")
    assert (run("send", "a", "b", "--ledger", "all.ledger").code, arrived(server)) == (0, ["a", "b"])
    assert [each.message["Message-ID"] for each in server.messages] == ["<1@example.org>"] * 2
    assert [entry.key for entry in SQLiteLedger("all.ledger").entries()] == ["a/1.eml", "b/1.eml"]


@pytest.mark.parametrize(
    ("wrong", "code", "reason"),
    [(("SMTP_PASSWORD", "wrong"), 77, "535 5.7.8 "), (("SMTP_CA_FILE", certifi.where()), 76, "CertificateError: ")],
)
def test_what_keeps_every_message_from_being_sent_ends_the_run(
    run: Any, server: MailServer, wrong: tuple[str, str], code: int, reason: str
) -> None:
    """After one try, not after one for each row: the account would be locked."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv(*wrong)
        write_table([f"p{number:03}" for number in range(40)])
        done = run("send", *OPTIONS)
    assert (done.code, arrived(server)) == (code, [])
    assert reason in done.out
    assert "Stopped early: no message can be sent." in done.err
    assert counts(done.out)["not tried yet"][0] > 0


def test_failures_end_the_run_when_told(run: Any, server: MailServer) -> None:
    """The rest is not tried, and the summary says how many."""
    server.fault = "greylists"
    write_table([f"p{number:03}" for number in range(12)])
    done = run("send", *OPTIONS, "--stop-after", "3", "--connections", "1")
    found = counts(done.out)
    assert done.code == 75
    assert 3 <= found["refused"][0] < 12
    assert found["not tried yet"] == [12 - found["refused"][0]]
    assert "Stopped early: stopped after" in done.err


def test_a_summary_in_json(run: Any, server: MailServer) -> None:
    """On one line, for programs."""
    write_table(["ada", "refused"])
    value = json.loads(run("send", *OPTIONS, "--json").out)
    assert value["version"] == 1
    assert (value["messages"], value["not_tried"], value["ledger"]) == (2, 0, "people-mail.ledger")
    assert value["this_run"] == {"accepted": 1, "refused": 1, "not sent": 0, "unknown": 0}
    assert value["earlier"] == {"accepted": 0, "refused": 0, "not sent": 0, "unknown": 0}


def test_quiet_says_nothing_if_all_was_accepted(run: Any, server: MailServer) -> None:
    """And the summary if not."""
    assert run("send", *OPTIONS, "--quiet") == (0, "", "")
    write_table(["refused"])
    assert "refused" in run("send", *OPTIONS, "--quiet").out


@pytest.mark.parametrize("exclusive", [True, False])
def test_two_runs_at_once_are_refused(run: Any, server: MailServer, exclusive: bool) -> None:  # noqa: FBT001
    """Whether the other one has the ledger for itself or not; this one is told why, and sends nothing (L16)."""
    with SQLiteLedger("people-mail.ledger", exclusive=exclusive) as ledger:
        ledger.claim([Item("somebody@example.org", "0" * 64, None)], "token")
        done = run("send", *OPTIONS)
    assert (done.code, arrived(server)) == (75, [])
    assert "another run is using it" in done.err


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MailServer]:
    """Return what starts a server at one of whose messages this process gets signals."""

    def start(*numbers: signal.Signals, at: int = 2) -> MailServer:
        seen: list[Received] = []

        def on_message(message: Received) -> None:
            seen.append(message)
            if len(seen) == at:
                for number in numbers:
                    os.kill(os.getpid(), number)

        return MailServer(on_message=on_message)

    return start


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.exhaustive),
    ],
)
def test_a_signal_ends_the_run_after_what_is_in_flight(
    run: Any,
    interrupting: Callable[..., MailServer],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    """With a summary; no message is doubtful, and the next run sends the rest."""
    names = [f"p{number:03}" for number in range(12)]
    write_table(names)
    with interrupting(number) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        done = run("send", *OPTIONS, "--connections", "1")
        sent = arrived(server)
        assert (done.code, done.out.count("12 messages")) == (code, 1)
        assert 2 <= len(sent) < 12
        assert counts(done.out)["accepted"] == [len(sent), 0]
        assert counts(done.out)["unknown"] == [0, 0]
        assert list(SQLiteLedger("people-mail.ledger").entries(State.UNKNOWN, State.CLAIMED)) == []
        assert run("send", *OPTIONS).code == 0
        assert arrived(server) == names


def test_a_second_signal_ends_the_run_at_once(
    run: Any, interrupting: Callable[..., MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even then, the summary is written, and nothing is sent twice."""
    names = [f"p{number:03}" for number in range(12)]
    write_table(names)
    with interrupting(signal.SIGINT, signal.SIGTERM) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        done = run("send", *OPTIONS, "--connections", "1")
        assert done.code == 130
        assert "Ended at once" in done.err
        assert "12 messages" in done.out
        again = run("send", *OPTIONS)
        assert again.code in (0, 3)
        unknown = {entry.key.partition("@")[0] for entry in SQLiteLedger("people-mail.ledger").entries(State.UNKNOWN)}
        assert sorted({*arrived(server), *unknown}) == names
        assert len(set(arrived(server))) == len(arrived(server))


def test_a_rate_of_one_an_hour_does_not_keep_ctrl_c_waiting(
    run: Any, interrupting: Callable[..., MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next message would go in an hour; three in a moment go at once."""
    with interrupting(signal.SIGINT, at=1) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        assert run("send", *OPTIONS, "--rate", "1/h").code == 130
        assert len(server.messages) == 1
        assert run("send", *OPTIONS, "--rate", "60000/m").code == 0
        assert arrived(server) == NAMES


def test_a_signal_during_the_check_sends_nothing(run: Any, server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check takes long for a long table."""

    def digest(envelope: Any) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return entry_digest(envelope)

    monkeypatch.setattr(check, "entry_digest", digest)
    done = run("send", *OPTIONS)
    assert (done.code, arrived(server)) == (130, [])
    assert "Nothing was sent." in done.err


def spoil(path: Path) -> None:
    """Write something else over the second half of a table."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\nx\n")


def extend(path: Path) -> None:
    """Add a row to a table."""
    with path.open("a") as file:
        file.write("new@example.org,new\n")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a faulty row": (spoil, "people.csv, line "),
    "rows are missing": (lambda path: os.truncate(path, path.stat().st_size // 2), "messages are missing"),
    "rows are new": (extend, "is new"),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_an_input_that_changes_during_the_run_ends_it(
    run: Any, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], reason: str
) -> None:
    """What was checked is no longer what would be sent; what was sent before is counted."""
    path, messages = Path("people.csv"), list[Received]()

    def on_message(message: Received) -> None:
        messages.append(message)
        if len(messages) == 1:
            change(path)

    with MailServer(on_message=on_message) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        # Python reads 8 KiB ahead.
        path.write_text("email,name\n" + "".join(f"p{n:02}@example.org,{'long ' * 800}\n" for n in range(12)))
        done = run("send", *OPTIONS, "--connections", "1", "--subject", "Hi")
        assert done.code == 65, done.out
        assert "the input has changed while it was being sent" in " ".join(done.err.split())
        assert reason in " ".join(done.err.split())
        assert counts(done.out)["accepted"][0] == len(server.messages)
        assert "new" not in arrived(server)
