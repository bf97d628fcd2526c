"""Programs that call sendmail, themselves: git send-email, PHP's mail(), mailx, and a shell as cron's."""

from __future__ import annotations

import html
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from securesmtp._cli.send.outcome import MEANINGS
from securesmtp.testing import FaultName, MailServer

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/how-to/send-from-a-shell.md").read_text("utf-8")
Call = Callable[..., "subprocess.CompletedProcess[str]"]


def _require(program: str, package: str) -> None:
    """Skip without the program; fail where the real servers are required (tests/servers/install brings all)."""
    if shutil.which(program) is None:
        reason = f"{program} is missing: install Debian's package {package}, or run tests/servers/install"
        if os.environ.get("SECURESMTP_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def wrapper(shared_server: MailServer, tmp_path: Path) -> Iterator[Path]:
    """Write the script of the page that stands for /usr/sbin/sendmail, and its settings, for the server."""
    script = PAGE.partition("```sh\n#!/bin/sh\n")[2].partition("```\n")[0]
    (tmp_path / "settings").write_text("".join(f"{name}='{value}'\n" for name, value in shared_server.env().items()))
    command = f"{sys.executable} -m securesmtp sendmail"
    for name, value in {"/etc/securesmtp.env": f"{tmp_path}/settings", "securesmtp sendmail": command}.items():
        assert script.count(name) == 1
        script = script.replace(name, value)
    path = tmp_path / "sendmail"
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    shared_server.clear()
    yield path
    shared_server.fault = None


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Return what runs a program that has nothing of this process's environment but the path."""

    def run(*command: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"} | environment
        return subprocess.run(
            command, input=text, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def test_the_picture_of_a_send_shows_what_is_printed_today(tmp_path: Path) -> None:
    """Otherwise, `nox -s pictures` draws it again. Numbers, the Message-ID and where lines end differ."""
    (tmp_path / "report.txt").write_text("62 % used\n")
    picture = (ROOT / "docs/how-to/pictures/send-light.svg").read_text("utf-8")
    shown = html.unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture))).replace("\\", "")
    first, second = re.findall(r"\$\s+securesmtp\s+(send[^$]*?)\s+(?=accepted|securesmtp:)", shown)
    with MailServer(refuse=["nobody@example.org"], login=None) as server:
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm-256color"} | server.env()
        printed = [
            _at_a_terminal([sys.executable, "-m", "securesmtp", *each.split()], tmp_path, env)
            for each in (first, second)
        ]
    parts = ["$ securesmtp", first, printed[0], "$ securesmtp", second, printed[1], "$ echo $? 67"]
    assert _words(shown) == _words("".join(parts))


def _at_a_terminal(command: list[str], folder: Path, env: dict[str, str]) -> str:
    """Run *command* at a terminal, and return what it shows."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = b""
        # Linux reports the end of the other side as an error.
        with suppress(OSError):
            while data := os.read(ours, 65536):
                shown += data
    os.close(ours)
    return shown.decode()


def _words(text: str) -> str:
    return re.sub(r"\d+", "_", re.sub(r"\x1b\[[\d;]*m|\s|<[\da-f]{32}", "", text))


def test_the_pages_commands_send(shared_server: MailServer, call: Call, tmp_path: Path) -> None:
    """One after the other, in one shell; only the server is another one."""
    commands = re.findall(r"<!-- run by: test_the_pages_commands_send -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    script = "set -e\n" + "".join(commands)
    assert script.count("SMTP_HOST=smtp.example.com") == 1
    settings = shared_server.env()
    password = settings.pop("SMTP_PASSWORD")
    named = " ".join(f"{name}={value}" for name, value in settings.items())
    script = script.replace("SMTP_HOST=smtp.example.com SMTP_USERNAME=me", named)
    programs = {"securesmtp": f'exec {sys.executable} -m securesmtp "$@"', "backup": "echo disk full; exit 1"}
    for name, command in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{command}\n")
        (tmp_path / name).chmod(0o755)
    message = "From: me@example.org\nTo: you@example.org\nSubject: exists\n\nx\n"
    files = {
        "smtp-password": password,
        "report.txt": "text",
        "report.html": '<img src="cid:chart">',
        "report.pdf": "%PDF",
    }
    files["chart.png"] = "PNG"
    for name, text in {**files, "message.eml": message}.items():
        (tmp_path / name).write_text(text)
    shared_server.clear()
    done = call("sh", "-c", script, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (0, "")
    assert [each.subject for each in shared_server.messages] == [
        "disks", "Report for November", "exists", "backup failed",
    ]  # fmt: skip
    _, report, _, failed = shared_server.messages
    assert report.recipients == ("ada@example.org", "archive@example.org")
    assert [part.get_filename() for part in report.message.walk()][-2:] == ["chart.png", "report.pdf"]
    assert failed.text == "disk full\n"
    assert re.fullmatch(
        r"(accepted <.*> for . of . recipients: 250 .*\n){3}Not sent: --dry-run\n(?s:.*)\nx\n(accepted .*\n)",
        done.stdout,
    )


def test_the_page_has_each_exit_code() -> None:
    """With what the help says, and its name in sysexits.h."""
    known = "OK USAGE DATAERR NOUSER NOHOST UNAVAILABLE CANTCREAT TEMPFAIL PROTOCOL NOPERM CONFIG"
    names = {f"EX_{name}": getattr(os, f"EX_{name}") for name in known.split()}
    rows = re.findall(r"^\| (\d+) \| (\S+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert {int(code): meaning for code, _, meaning in rows} == MEANINGS
    assert {name.strip("`"): int(code) for code, name, _ in rows if name != "none"} == names


def test_git_send_email_stops_at_the_patch_that_is_refused(
    shared_server: MailServer, wrapper: Path, call: Call, tmp_path: Path
) -> None:
    """Three patches of which the second is copied to somebody whom the server refuses (PITFALLS L11)."""
    _require("/usr/lib/git-core/git-send-email", "git-email")
    me = {"GIT_AUTHOR_NAME": "Ädä", "GIT_AUTHOR_EMAIL": "ada@example.org"}
    me |= {"GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org"}
    assert call("git", "init", "-q").returncode == 0
    trailers = ["", "\n\nCc: refused@example.org\n", ""]
    for number, trailer in enumerate(trailers, 1):
        (tmp_path / "file").write_text(f"{number}\n.\n")
        call("git", "add", "file")
        assert call("git", "commit", "-q", "-m", f"Change {number}: größer{trailer}", **me).returncode == 0
    assert call("git", "format-patch", "-q", "--root", "-o", "patches").returncode == 0
    assert call("git", "config", "sendemail.sendmailCmd", str(wrapper)).returncode == 0
    send = ("git", "send-email", "--confirm=never", "--to", "list@example.org", "--from", "Ädä <ada@example.org>")
    done = call(*send, "patches", **me)
    assert done.returncode != 0
    assert "refused@example.org (550 " in done.stderr
    (first,) = shared_server.messages
    assert first.subject == "[PATCH 1/3] Change 1: größer"
    assert (first.mail_from, first.recipients) == ("ada@example.org", ("list@example.org", "ada@example.org"))
    assert "\n+.\n" in str(first.text)
    # And with an envelope sender, which it passes as -f.
    done = call(*send, "--envelope-sender", "bounce@example.org", "--suppress-cc=all", "-1", **me)
    assert (done.returncode, done.stderr) == (0, "")
    assert [each.mail_from for each in shared_server.messages[1:]] == ["bounce@example.org"]


def test_php_mail_says_true_only_if_the_server_has_the_message(
    shared_server: MailServer, wrapper: Path, call: Call
) -> None:
    """Line ends, Bcc, a sender of its own; a refusal; a 4yz, which PHP 8.5 takes for success; and unknown (L10)."""
    _require("php", "php-cli")
    setting = f"sendmail_path={wrapper} -t -i -f www@example.org"
    program = (
        'exit(mail($argv[1], "Grüße", "Zeile\n.\r\nEnde", "Bcc: b@example.org\r\nX-A: b", $argv[2] ?? "") ? 0 : 9);'
    )
    php = ("php", "-n", "-d", setting, "-r", program, "--")
    assert call(*php, "a@example.org", "-fother@example.org").returncode == 0
    done = call(*php, "refused@example.org")
    assert (done.returncode, "550" in done.stderr) == (9, True)
    (first,) = shared_server.messages
    faults: tuple[FaultName, ...] = ("greylists", "drops_after_content")
    for shared_server.fault in faults:
        assert call(*php, "a@example.org").returncode == 9
    assert first.mail_from == "other@example.org"
    assert first.recipients == ("a@example.org", "b@example.org")
    assert first.subject == "Grüße"
    assert first.text == "Zeile\n.\nEnde\n"
    assert first.message["Bcc"] is None


def test_mailx_sends(shared_server: MailServer, wrapper: Path, call: Call, tmp_path: Path) -> None:
    """As scripts call it."""
    _require("bsd-mailx", "bsd-mailx")
    (tmp_path / "rc").write_text(f"set sendmail={wrapper}\n")
    command = ("bsd-mailx", "-s", "load", "-r", "me@example.org", "-b", "b@example.org", "root")
    done = call(*command, text="one\n.\n..\ntwo\n", MAILRC=str(tmp_path / "rc"))
    assert (done.returncode, done.stderr) == (0, "")
    # mailx delivers after it has ended, unless it is told to wait.
    (received,) = shared_server.wait_for(1, timeout=60)
    assert (received.mail_from, received.recipients) == ("me@example.org", ("ops@example.org", "b@example.org"))
    assert received.text == "one\n.\n..\ntwo\n"


def test_cron_calls_it_by_a_shell(shared_server: MailServer, wrapper: Path, call: Call) -> None:
    """Debian's cron runs MAILFMT by popen(3), with an environment of four variables."""
    done = call(
        "/bin/sh", "-c", f"{wrapper} -i -FCronDaemon -B8BITMIME -oem root", text=CRON, LOGNAME="root", SHELL="/bin/sh"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (received,) = shared_server.messages
    assert (received.mail_from, received.recipients) == ("ops@example.org", ("ops@example.org",))
    assert received.message["X-Cron-Env"] is None
    assert received.text == "ü\n"


CRON = """From: root (Cron Daemon)
To: root
Subject: Cron <root@host> test -x /usr/sbin/x || "ü"
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit
X-Cron-Env: <SHELL=/bin/sh>
X-Cron-Env: <TOKEN=geheim>

ü
"""


def test_a_password_command_does_not_eat_the_message(
    shared_server: MailServer, wrapper: Path, call: Call, tmp_path: Path
) -> None:
    """It gets no input (PITFALLS L9)."""
    settings, ask = tmp_path / "settings", tmp_path / "ask"
    lines = settings.read_text().splitlines(keepends=True)
    (password,) = (line.partition("=")[2] for line in lines if line.startswith("SMTP_PASSWORD="))
    ask.write_text(f"#!/bin/sh\ncat >{tmp_path}/eaten\necho {password}\n")
    ask.chmod(0o700)
    kept = [line for line in lines if not line.startswith("SMTP_PASSWORD=")]
    settings.write_text("".join([*kept, f"SMTP_PASSWORD_COMMAND={ask}\n"]))
    done = call(str(wrapper), "-fme@example.org", "a@example.org", text="Subject: x\n\n" + "line\n" * 50_000)
    assert (done.returncode, done.stderr) == (0, "")
    (received,) = shared_server.messages
    assert received.content.count(b"line\r\n") == 50_000
    assert (tmp_path / "eaten").read_bytes() == b""


@pytest.mark.parametrize(
    "script", ['("$@"; echo "code $?" >&2) | true', '"$@" >&-; echo "code $?" >&2'], ids=["pipe", "closed"]
)
def test_a_reader_that_has_gone_makes_no_error_of_a_sent_message(
    shared_server: MailServer, call: Call, wrapper: Path, script: str
) -> None:
    """The exit code is still that of the message."""
    done = call("bash", "-c", script, "-", str(wrapper), "-v", "-fme@example.org", "a@example.org", text="\nx\n")
    assert (done.stdout, done.stderr) == ("", "code 0\n")
    assert len(shared_server.messages) == 1
