"""Where the commands take a secret from; never from an argument."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import keyring
import pytest

from cli.send.conftest import Run
from conftest import unmeasured
from securesmtp.testing import MailServer

BRIEF = ("send", "--from", "me@example.org", "--to", "you@example.org", "--subject", "x", "--text", "-")
PASSWORD = "do-not-show"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--password", PASSWORD],
        [f"--password={PASSWORD}"],
        ["--pass", PASSWORD],
        ["--token", PASSWORD],
        ["--password"],
        ["--url", f"smtps://me:{PASSWORD}@smtp.example.com"],
        ["--url", f"me:{PASSWORD}@smtp.example.com"],
        ["--url", f"smtps://me:{PASSWORD}@x@smtp.example.com"],
    ],
    ids=" ".join,
)
def test_a_password_as_argument_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """With the ways there are, and without showing it."""
    monkeypatch.setenv("SMTP_PASSWORD", "from the environment")
    done = run(*BRIEF, *arguments, data=b"text")
    assert done.code == 64
    assert "every user of this machine can read the arguments" in done.err
    assert "--password-file, --password-command, --password-keyring" in done.err
    assert PASSWORD not in done.err


@pytest.fixture
def bare(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> MailServer:
    """Leave the password out of the environment."""
    monkeypatch.delenv("SMTP_PASSWORD")
    return server


def _password(server: MailServer) -> str:
    assert server.login is not None
    return server.login[1]


def test_a_file_is_read_unless_others_can_read_it(bare: MailServer, run: Run, tmp_path: Path) -> None:
    """A program is only warned; a command refuses, and nothing is sent."""
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:-1]:
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 1:
            folder.chmod(0o711)
    secret = tmp_path / "secret"
    secret.write_text(_password(bare) + "\n")
    secret.chmod(0o644)
    done = run(*BRIEF, "--password-file", str(secret))
    assert done.code == 78
    assert "can be read by every user (correct it with chmod o-r)" in done.err
    assert not bare.messages
    secret.chmod(0o640)
    assert run(*BRIEF, "--password-file", str(secret)).code == 0


def test_a_command_is_run(bare: MailServer, run: Run) -> None:
    """Quoted as in a shell."""
    assert run(*BRIEF, "--password-command", f"echo '{_password(bare)}'").code == 0
    done = run(*BRIEF, "--password-command", "no-such-program-at-all")
    assert done.code == 78
    assert "--password-command does not begin with a program" in done.err


def test_a_keyring_is_asked(bare: MailServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of a service and the username of the login."""
    passwords = {("mail", "me"): _password(bare)}
    monkeypatch.setattr(keyring, "get_password", lambda service, username: passwords.get((service, username)))
    assert run(*BRIEF, "--password-keyring", "mail").code == 0
    assert run(*BRIEF, "--password-keyring", "other").code == 78


def test_an_option_and_a_variable_contradict_each_other(server: MailServer, run: Run) -> None:
    """Both give the password of the login that the variables give."""
    done = run(*BRIEF, "--password-command", "echo x")
    assert done.code == 78
    assert "SMTP_PASSWORD and --password-command both give the password. Hint: keep one of them" in done.err
    assert not server.messages


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--username", "me", "--password-file", "a", "--password-command", "b"],
            "two options say where the password is",
        ),
        (["--password-file", "a"], "--password-file needs --username"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(run: Run, arguments: list[str], said: str) -> None:
    """And say which."""
    done = run(*BRIEF, "--host", "127.0.0.1", *arguments)
    assert done.code == 64
    assert said in " ".join(done.err.split())


def test_the_variable_counts_with_another_server_too(server: MailServer, run: Run) -> None:
    """A password is no part of the options, so it has to come from somewhere."""
    options = ["--host", server.host, "--port", str(server.port), "--ca-file", str(server.ca_file), "--username", "me"]
    assert run(*BRIEF, *options).code == 0


def test_an_access_token_logs_in(server: MailServer, run: Run) -> None:
    """By an option, or by the variable."""
    assert run(*BRIEF, "--oauth").code == 0
    assert len(server.messages) == 1
    assert run("send", "-t", "--oauth", "-fme@example.org", "you@example.org", data=b"\nx").code == 0


def test_the_answer_at_the_terminal_is_the_password(
    bare: MailServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here without one; the last test has a real one."""
    monkeypatch.setattr("securesmtp._cli.secrets._TERMINAL", os.devnull)
    monkeypatch.setattr("getpass.getpass", lambda _: _password(bare))
    monkeypatch.delenv("SMTP_USERNAME")
    options = ["--host", bare.host, "--port", str(bare.port), "--ca-file", str(bare.ca_file), "--username", "me"]
    assert run(*BRIEF, *options).code == 0
    monkeypatch.setattr("securesmtp._cli.secrets._TERMINAL", "/no/such/terminal")
    assert run(*BRIEF, *options).code == 64


def test_without_a_terminal_nobody_is_asked(server: MailServer) -> None:
    """Standard input is the message: nothing of it is taken for a password."""
    options = ["--host", server.host, "--port", str(server.port), "--username", "me"]
    environment = {name: value for name, value in unmeasured().items() if not name.startswith("SMTP_")}
    done = subprocess.run(
        [sys.executable, "-m", "securesmtp", *BRIEF, *options],
        input="secret\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        start_new_session=True,
    )
    assert (done.returncode, done.stdout) == (64, "")
    assert "there is no password for me, and no terminal to ask for it" in " ".join(done.stderr.split())


def test_at_a_terminal_it_is_asked_for_without_echo(server: MailServer, tmp_path: Path) -> None:
    """By its own line there, while the message is on standard input."""
    options = ["--host", server.host, "--port", str(server.port), "--username", "me", "--ca-file", str(server.ca_file)]
    environment = {name: value for name, value in unmeasured().items() if not name.startswith("SMTP_")}
    (tmp_path / "text").write_text("the text\n")
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover -- another process
        os.dup2(os.open(tmp_path / "text", os.O_RDONLY), 0)
        os.execve(sys.executable, [sys.executable, "-m", "securesmtp", *BRIEF, *options], environment)  # noqa: S606
    shown = b""
    while b"Password of me:" not in shown:
        assert select.select([terminal], [], [], 60)[0], shown
        shown += os.read(terminal, 1000)
    os.write(terminal, _password(server).encode() + b"\n")
    while True:
        try:
            data = os.read(terminal, 1000)
        except OSError:
            break
        shown += data
        if not data:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    assert _password(server).encode() not in shown
    (received,) = server.messages
    assert received.text == "the text\n"
