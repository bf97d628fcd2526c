"""`securesmtp send` for one message, against a real server with TLS."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.send.conftest import Run
from scripted import Mode
from securesmtp._cli.exit_codes import ExitCode
from securesmtp.testing import MailServer

ME, YOU = ("--from", "me@example.org"), ("--to", "you@example.org")
BRIEF = (*ME, *YOU, "--subject", "hello")


def test_a_message_of_options_arrives(server: MailServer, run: Run, tmp_path: Path) -> None:
    """All of its parts; one line says what became of it."""
    (tmp_path / "text").write_bytes("\ufeffGrüße\n".encode())
    (tmp_path / "html").write_text("<p>Grüße")
    (tmp_path / "ä.pdf").write_bytes(b"%PDF")
    done = run(
        "send", "--from", "Ada Ä <me@example.org>",
        "--to", "a@example.org, Bob <b@example.org>", "--to", "c@example.org",
        "--cc", "d@example.org", "--bcc", "e@example.org", "--reply-to", "r@example.org", "--subject", "Größe",
        "--text", str(tmp_path / "text"), "--html", str(tmp_path / "html"), "--attach", str(tmp_path / "ä.pdf"),
        "--header", "X-Job: 7: 8",
    )  # fmt: skip
    (received,) = server.messages
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"accepted {received.message['Message-ID']} for 5 of 5 recipients: 250 ")
    assert done.out.count("\n") == 1
    assert received.recipients == tuple(f"{name}@example.org" for name in "abcde")
    assert received.mail_from == "me@example.org"
    assert str(received.message["From"]) == "Ada Ä <me@example.org>"
    assert received.message["To"] == "a@example.org, Bob <b@example.org>, c@example.org"
    assert received.message["Bcc"] is None
    assert (received.message["Reply-To"], received.message["X-Job"]) == ("r@example.org", "7: 8")
    assert (received.subject, received.text, received.html) == ("Größe", "Grüße\n", "<p>Grüße\n")
    assert [(each.name, each.content_type, each.data) for each in received.attachments] == [
        ("ä.pdf", "application/pdf", b"%PDF")
    ]


def test_an_image_in_the_html_arrives(server: MailServer, run: Run, tmp_path: Path) -> None:
    """The HTML refers to the part that has it, under the Content-ID that it has in the message."""
    (tmp_path / "report.html").write_text('<img src="cid:chart">')
    (tmp_path / "a=b.png").write_bytes(b"PNG")
    html = ("--html", str(tmp_path / "report.html"))
    done = run("send", *BRIEF, "--text", "-", *html, "--inline", f"chart={tmp_path / 'a=b.png'}", data=b"text\n")
    assert (done.code, done.err) == (0, "")
    (received,) = server.messages
    (image,) = (part for part in received.message.walk() if part.get_content_type() == "image/png")
    assert (image.get_content_disposition(), image.get_filename()) == ("inline", "a=b.png")
    assert image.get_payload(decode=True) == b"PNG"
    assert received.html == f'<img src="cid:{image["Content-ID"][1:-1]}">\n'


@pytest.mark.parametrize(
    ("html", "names", "hint"),
    [
        ('<img src="cid:chart">', [], "use --inline chart=PATH; a reader would see an empty box"),
        ('<img src="a/chart.png">', [], "write cid:chart in its place and use --inline chart=PATH, or write an https:"),
        ("<p>", ["chart"], 'write <img src="cid:chart" alt="…">, or use --attach: readers'),
        (None, ["chart"], "use --html, or --attach for the images"),
    ],
    ids=["missing", "path", "unused", "no HTML"],
)
def test_hints_on_images_name_options(run: Run, tmp_path: Path, html: str | None, names: list[str], hint: str) -> None:
    """Not arguments of Python."""
    given = []
    if html is not None:
        (tmp_path / "report.html").write_text(html)
        given += ["--html", str(tmp_path / "report.html")]
    for name in names:
        (tmp_path / "logo.png").write_bytes(b"PNG")
        given += ["--inline", f"{name}={tmp_path / 'logo.png'}"]
    done = run("send", *BRIEF, "--text", "-", *given, data=b"text")
    assert done.code == 65
    assert f"Hint: {hint}" in done.err


def test_the_text_can_be_standard_input(server: MailServer, run: Run) -> None:
    """So that a program's output is sent."""
    assert run("send", *BRIEF, "--text", "-", data=b"one\n.\ntwo\n").code == 0
    (received,) = server.messages
    assert received.text == "one\n.\ntwo\n"


@pytest.mark.parametrize("source", ["file", "-", "-t"])
def test_a_message_that_exists_is_sent_unchanged(server: MailServer, run: Run, tmp_path: Path, source: str) -> None:
    """But for Bcc: from a file, from standard input, and as sendmail takes it."""
    kept = b"Date: Fri, 27 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\nFrom: me@example.org\r\n"
    kept += b"X-Odd:  two  blanks\r\n\tand a tab\r\nDKIM-Signature: v=1; a=x\r\n\r\nbody \r\n.\r\n"
    data = b"Bcc: you@example.org\n" + kept.replace(b"\r\n", b"\n")
    (tmp_path / "a.eml").write_bytes(data)
    arguments = [str(tmp_path / "a.eml")] if source == "file" else [source]
    assert run("send", *arguments, data=data).code == 0
    (received,) = server.messages
    assert received.content == kept
    assert (received.mail_from, received.recipients) == ("me@example.org", ("you@example.org",))


def test_options_replace_the_envelope_of_a_message_that_exists(server: MailServer, run: Run) -> None:
    """Its header stays."""
    data = b"From: me@example.org\nTo: you@example.org\n\nx\n"
    assert run("send", "-", "--from", "bounce@example.org", "--to", "archive@example.org", data=data).code == 0
    assert run("send", "-t", "-i", "-f", "bounce@example.org", "more@example.org", data=data).code == 0
    first, second = server.messages
    assert (first.mail_from, first.recipients) == ("bounce@example.org", ("archive@example.org",))
    assert first.message["To"] == "you@example.org"
    assert second.recipients == ("more@example.org", "you@example.org")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no message. Hint: write one by options, or name a file"),
        ([*YOU, "--subject", "x", "--text", "-"], "--from is missing"),
        ([*ME, *YOU, "--text", "-"], "--subject is missing"),
        ([*ME, "--subject", "x", "--text", "-"], "there is no recipient. Hint: use --to"),
        ([*BRIEF], "there is nothing to send. Hint: use --text FILE, or --text -"),
        ([*BRIEF, "--text", "-", "--html", "-"], "cannot be both"),
        ([*BRIEF, "--text", "missing.txt"], "missing.txt: No such file"),
        ([*BRIEF, "--text", "."], ".: Is a directory"),
        ([*BRIEF, "--text", "-", "--header", "X-Job"], '--header is not "Name: value"'),
        ([*BRIEF, "--text", "-", "--header", "X: 1", "--header", "X: 2"], "--header gives X twice"),
        ([*BRIEF, "--html", "-", "--inline", "a.png"], "--inline is not NAME=PATH"),
        ([*BRIEF, "--html", "-", "--inline", "a=1", "--inline", "a=2"], "--inline gives a twice"),
        (["-", "--inline", "a=a.png"], "--inline is for a message that is written by options"),
        (["you@example.org"], "Hint: the recipient is --to you@example.org"),
        (["missing.eml"], "no such file. Hint: - is standard input"),
        ([__file__], "is not an .eml file. Hint: use --text or --attach"),
        (["-", "--subject", "x"], "--subject is for a message that is written by options"),
        (["-t", "--cc", "a@example.org"], "--cc is for a message that is written by options"),
        (["-", "-"], "standard input is one message"),
        (["-", "."], "standard input is one message"),
        ([".", *YOU], "--to is for one message"),
        ([*BRIEF, "--text", "-", "--rate", "1/s"], "--rate is for many messages, and this is one"),
        (["-t", "--stop-after", "3"], "--stop-after is for many messages, and this is one"),
        (["--nonsense"], "--nonsense"),
        (["--port", "0"], "--port"),
        (["--deadline", "0"], "--deadline"),
        (["--ca-file", "missing.pem"], "--ca-file"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_a_usage_error_says_what_to_do(server: MailServer, run: Run, arguments: list[str], said: str) -> None:
    """EX_USAGE, on stderr, without a traceback; nothing is sent."""
    done = run("send", *arguments, data=b"text")
    assert (done.code, done.out) == (64, "")
    assert said in " ".join(done.err.split())
    assert not server.messages


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*ME, "--to", "you", "--subject", "x"], "--to has a name without a domain: 'you'"),
        ([*ME, "--to", "a@b@c", "--subject", "x"], "--to is not a list of addresses"),
        (["--from", "a@example.org, b@example.org", *YOU, "--subject", "x"], "--from has 2 addresses, not one"),
        ([*ME, *YOU, "--subject", "x\ny"], "subject"),
        ([*BRIEF, "--attach", "missing.pdf"], "No such file or directory. Hint: check the path and its permissions"),
        ([*BRIEF, "--header", "Bcc: x@example.org\n\nx"], "header"),
    ],
    ids=["name", "address", "two senders", "subject", "attachment", "header"],
)
def test_a_message_that_cannot_be_written_is_a_data_error(
    server: MailServer, run: Run, arguments: list[str], said: str
) -> None:
    """EX_DATAERR."""
    done = run("send", *arguments, "--text", "-", data=b"text")
    assert (done.code, done.out) == (65, "")
    assert said in done.err
    assert done.err.startswith("securesmtp: not sent: ")
    assert done.err.count("\n") == 1
    assert not server.messages


def test_a_text_that_is_not_utf_8_is_refused(server: MailServer, run: Run) -> None:
    """It would arrive as other text."""
    done = run("send", *BRIEF, "--text", "-", data=b"ab\xfc")
    assert done.code == 65
    assert "standard input is not in UTF-8: byte 3. Hint: convert it with iconv" in done.err


def test_a_display_name_with_another_address_is_warned_of(server: MailServer, run: Run) -> None:
    """On one line, and the message goes."""
    done = run("send", "--from", '"boss@bank.example" <me@example.org>', *YOU, "--subject", "x", "--text", "-")
    assert done.code == 0
    assert done.err.startswith("securesmtp: warning: a display name in sender")
    assert len(server.messages) == 1


def test_partial_sends_to_the_others_and_says_so(server: MailServer, run: Run) -> None:
    """Without it, to nobody; the code says that somebody does not have it, in both cases."""
    both = (*BRIEF, "--to", "refused@example.org", "--text", "-")
    done = run("send", *both)
    assert done.code == 67
    assert "1 of 2 recipients refused: refused@example.org (550 " in done.err
    assert "--partial sends it to the others" in done.err
    assert not server.messages
    done = run("send", *both, "--partial")
    assert (done.code, done.out) == (67, "")
    assert "1 of 2 recipients" in done.err
    (received,) = server.messages
    assert received.recipients == ("you@example.org",)
    assert "--partial" not in run("send", *ME, "--to", "refused@example.org", "--subject", "x", "--text", "-").err


def test_quiet_prints_nothing_of_success(server: MailServer, run: Run) -> None:
    """Errors are printed."""
    assert run("send", *BRIEF, "--text", "-", "--quiet") == (0, "", "")
    assert run("send", *ME, "--to", "refused@example.org", "--subject", "x", "--text", "-", "--quiet").err != ""


def test_json_has_the_result_and_the_code(server: MailServer, run: Run) -> None:
    """Of a success and of an error."""
    done = run("send", *BRIEF, "--text", "-", "--json")
    result = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert (result["outcome"], result["exit_code"], result["error"]) == ("accepted", 0, None)
    assert result["receipt"]["recipients"][0]["address"] == "you@example.org"
    done = run("send", *ME, "--to", "refused@example.org", "--subject", "x", "--text", "-", "--json")
    result = json.loads(done.out)
    assert (done.code, done.err, result["exit_code"]) == (67, "", 67)
    assert (result["outcome"], result["error"]["type"]) == ("refused", "RecipientsRefusedError")


def test_a_dry_run_shows_all_and_connects_to_nobody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server need be known."""
    monkeypatch.delenv("SMTP_HOST", raising=False)
    done = run("send", *BRIEF, "--bcc", "b@example.org", "--text", "-", "--dry-run", data=b"text\n")
    assert (done.code, done.err) == (0, "")
    head, _, message = done.out.partition("\n\n")
    assert head.startswith(
        "Not sent: --dry-run\nFrom: <me@example.org>\nTo: <you@example.org>\nTo: <b@example.org>\nSize: "
    )
    assert message.startswith("From: me@example.org\nTo: you@example.org\n")
    assert message.endswith("\n\ntext\n")
    assert "Bcc" not in message
    shown = json.loads(run("send", *BRIEF, "--text", "-", "--dry-run", "--json", data=b"text\n").out)
    assert (shown["mail_from"], shown["recipients"]) == ("me@example.org", ["you@example.org"])
    assert shown["size"] == len(shown["message"])
    assert run("send", *ME, "--to", "you", "--subject", "x", "--text", "-", "--dry-run").code == 65


@pytest.mark.parametrize("way", ["url", "host", "starttls"])
def test_the_server_can_be_options(run: Run, way: str, tmp_path: Path) -> None:
    """Then the variables do not count."""
    mode: Mode = "starttls" if way == "starttls" else "implicit"
    with MailServer(mode, login=("me", "pa ss")) as server:
        secret = tmp_path / "secret"
        secret.write_text("pa ss\n")
        secret.chmod(0o600)
        options = ["--password-file", str(secret), "--timeout", "30", "--deadline", "60"]
        if way == "url":
            options += ["--url", server.url.replace(":pa%20ss@", "@")]
        else:
            options += ["--host", server.host, "--port", str(server.port), "--ca-file", str(server.ca_file)]
            options += ["--username", "me", *["--starttls"] * (way == "starttls")]
        done = run("send", *BRIEF, "--text", "-", *options)
        assert (done.code, done.err) == (0, "")
        (received,) = server.messages
        assert received.username == "me"


def test_without_a_server_the_variables_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """EX_CONFIG."""
    for name in [name for name in os.environ if name.startswith("SMTP_")]:
        monkeypatch.delenv(name)
    done = run("send", *BRIEF, "--text", "-")
    assert done.code == 78
    assert "Hint: set SMTP_HOST or SMTP_URL, or use --host or --url" in done.err


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("drops_after_content", 3, "securesmtp: unknown: "),
        ("drops_in_content", 75, "securesmtp: not sent: "),
        ("bad_login", 77, "securesmtp: not sent: "),
        ("untrusted", 76, "Hint: --ca-file has '"),
        ("full", 75, "securesmtp: "),
    ],
)
def test_each_fault_has_its_code(server: MailServer, run: Run, fault: str, code: int, said: str) -> None:
    """And one line that begins with what became of the message."""
    server.fault = fault  # type: ignore[assignment] # one of its names
    # The content is longer than what is written at once.
    done = run("send", *BRIEF, "--text", "-", "--timeout", "20", data=b"text\n" * 100_000)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("command", [["send", "-t"], ["sendmail", "-t", "-i"]], ids=["send", "sendmail"])
def test_an_unknown_outcome_names_the_message(server: MailServer, run: Run, command: list[str]) -> None:
    """By the Message-ID that this command has made, so that somebody can look for it."""
    server.fault = "drops_after_content"
    done = run(*command, data=b"From: me@example.org\nTo: you@example.org\n\nx\n")
    assert done.code == 3
    (received,) = server.messages
    assert f". Message-ID: {received.message['Message-ID']}. Hint: before you send it again, look " in done.err


def test_the_wrong_mode_names_the_option(server: MailServer, run: Run) -> None:
    """A hint for a shell, not for a program."""
    with MailServer("starttls", login=None) as other:
        done = run(
            "send",
            *BRIEF,
            "--text",
            "-",
            "--host",
            other.host,
            "--port",
            str(other.port),
            "--ca-file",
            str(other.ca_file),
        )
    assert done.code == 76
    assert "use --starttls" in done.err


def test_ctrl_c_says_what_became_of_the_message(server: MailServer, tmp_path: Path) -> None:
    """Before the content it is not sent: 130, as shells report it."""
    server.fault = "silent"
    command = [sys.executable, "-m", "securesmtp", "send", *BRIEF, "--text", "/dev/null"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        _wait_for_connection(server)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("securesmtp: not sent: ")
    assert "Traceback" not in err


def test_a_folder_is_many_messages(run: Run, tmp_path: Path) -> None:
    """With the options for them."""
    for number in range(2):
        (tmp_path / f"{number}.eml").write_text(f"From: me@example.org\nTo: {number}@example.org\n\nx\n")
    done = run("send", str(tmp_path), "--connections", "1", "--dry-run")
    assert done.code == 0
    assert "0@example.org" in done.out + done.err


@pytest.mark.parametrize("command", ["send", "sendmail"])
def test_the_help_teaches_by_examples(run: Run, command: str) -> None:
    """In sections, with each exit code; without the options that are refused or ignored."""
    done = run(command, "--help")
    assert done.code == 0
    sections = re.findall(r"^ *(\w[\w ]+):$", done.out, re.MULTILINE)
    own = {"Message", "Server", "Login"} if command == "send" else {"Options of sendmail"}
    assert {"Exit codes", "Examples", *own} < set(sections)
    assert "Examples:\n    " in done.out
    assert f"securesmtp {command} " in done.out
    codes = re.findall(r"^    (\d+) ", done.out, re.MULTILINE)
    # sendmail has no --results.
    assert codes == [str(int(code)) for code in ExitCode if command == "send" or code is not ExitCode.NO_RESULTS]
    assert "--password " not in done.out
    assert "ignored_" not in done.out
    assert max(map(len, done.out.splitlines())) <= 110


def _wait_for_connection(server: MailServer) -> None:
    # The server keeps its open connections.
    while not server._rules.connections:
        time.sleep(0.001)
