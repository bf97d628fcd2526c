"""The script that cron runs: what it sends, logs and returns, and the line of the crontab."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cron_script
from compose.wire import tree
from securesmtp.testing import FaultName, MailServer

PAGE = (Path(cron_script.__file__).parents[1] / "how-to/cron-script.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the files of the report."""
    monkeypatch.chdir(tmp_path)
    Path("chart.png").write_bytes(b"PNG")
    Path("report.pdf").write_bytes(b"%PDF")
    return tmp_path


@pytest.fixture
def server(mail_server: MailServer, monkeypatch: pytest.MonkeyPatch) -> MailServer:
    """Name the server in the environment."""
    for name, value in mail_server.env().items():
        monkeypatch.setenv(name, value)
    return mail_server


def run(caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """Return the exit status, and the lines of its log."""
    with caplog.at_level(logging.INFO, "report"):
        status = cron_script.main("chart.png", "report.pdf")
    lines = [f"{each.levelname} {each.message}\n" for each in caplog.records if each.name == "report"]
    return status, "".join(lines)


def test_the_report_has_its_image_and_its_file(server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    """Three people get it; the log names it."""
    status, logged = run(caplog)
    (received,) = server.messages
    assert status == 0
    message_id = re.escape(str(received.message["Message-ID"]))
    assert re.fullmatch(rf"INFO accepted, message_id={message_id}, queue_id=\d+\n", logged)
    assert received.recipients == ("ada@example.net", "bob@example.net", "eve@example.org")
    assert tree(received.message) == "mixed(alternative(plain, related(html, png)), pdf)"


@pytest.mark.parametrize(
    ("fault", "status", "outcome"),
    [
        ("full", 75, "refused"),
        ("drops_in_content", 75, "not sent"),
        ("drops_after_content", 3, "unknown"),
        ("bad_login", 1, "not sent"),
        ("untrusted", 1, "not sent"),
        ("refuses_recipients", 1, "refused"),
    ],
)
def test_the_status_says_what_became_of_it(
    server: MailServer, caplog: pytest.LogCaptureFixture, fault: FaultName, status: int, outcome: str
) -> None:
    """And one line of the log begins with it, and has the Message-ID."""
    server.fault = fault
    # More than is written at once.
    Path("report.pdf").write_bytes(b"%PDF" * 200_000)
    found, logged = run(caplog)
    assert found == status
    assert re.fullmatch(rf"ERROR {outcome}, message_id=<\S+@example\.com>: .+\n", logged)


def test_the_others_get_it_if_one_is_refused(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The status says that somebody must act, and the log who has not got it."""
    with MailServer(refuse=["bob@example.net"]) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        status, logged = run(caplog)
        (received,) = server.messages
    assert received.recipients == ("ada@example.net", "eve@example.org")
    assert status == 1
    assert logged.splitlines()[1].startswith("ERROR refused for bob@example.net: 550 ")


@pytest.mark.parametrize(("name", "value"), [("SMTP_PASSWD", "x"), ("SMTP_HOST", "")])
def test_a_wrong_setting_is_logged(
    server: MailServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    """Nothing was sent, and somebody must look."""
    monkeypatch.setenv(name, value)
    status, logged = run(caplog)
    assert status == 1
    assert logged.startswith("ERROR not sent, message_id=None: ")
    assert name in logged


def test_a_missing_file_is_logged(server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    """Before a connection is made."""
    Path("chart.png").unlink()
    status, logged = run(caplog)
    assert (status, server.messages) == (1, [])
    assert "'chart.png' cannot be read" in logged


def test_cron_runs_the_line_of_the_page(server: MailServer, folder: Path) -> None:
    """In a shell that has no variables of ours, with the file of the page; only the names of files are others."""
    (settings,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    ((schedule, command),) = re.findall(r"```text\n((?:\S+ ){5})(.*)\n```", PAGE)
    assert schedule == "15 3 * * * "
    assert "%" not in command
    named = server.env()
    (folder / "smtp-password").write_text(named.pop("SMTP_PASSWORD"))
    (folder / "smtp-password").chmod(0o600)
    for name in ("SMTP_HOST", "SMTP_USERNAME"):
        settings = re.sub(rf"{name}='.*'", f"{name}='{named.pop(name)}'", settings)
    settings += "".join(f"{name}='{value}'\n" for name, value in named.items())
    (folder / "env").write_text(settings.replace("/etc/report/", f"{folder}/"))
    command = command.replace("/etc/report/", f"{folder}/").replace("/opt/report", str(folder))
    command = command.replace(".venv/bin/python cron_script.py", f"{sys.executable} {cron_script.__file__}")
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (received,) = server.messages
    assert received.username == server.env()["SMTP_USERNAME"]
    logged = (folder / "report.log").read_text()
    assert re.fullmatch(r"20\d\d-\S+ \S+ INFO accepted, message_id=<\S+>, queue_id=\d+\n", logged)
