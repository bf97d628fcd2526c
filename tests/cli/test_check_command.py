"""`securesmtp check`, run against real servers: what it prints, where to, and its exit codes."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from certificates import TABLE, Row
from cli.checks import TRUST_VARIABLES, Resolve
from cli.results import faulty, result
from conftest import Serve, unmeasured
from securesmtp._cli import main
from securesmtp._cli.check import command, probe, run
from securesmtp._cli.check.output import replace_file
from securesmtp._cli.check.parallel import AT_A_TIME, Progress, run_all
from securesmtp._cli.check.result import CheckResult, Request
from securesmtp._sources.command import Command
from securesmtp.testing import MailServer

# The certificates of the test servers are valid for so long that this is soon.
SOON = "1000000"
PIN = "sha256/" + "A" * 43 + "="
COMMAND = (sys.executable, "-m", "securesmtp", "check")


@pytest.fixture(scope="module")
def server() -> Iterator[MailServer]:
    """Start a server with STARTTLS that requires a login."""
    with MailServer("starttls", login=("me", "hunter22-secret")) as server:
        yield server


@pytest.fixture(scope="module")
def expired() -> Iterator[MailServer]:
    """Start a server whose certificate has expired."""
    with MailServer(fault="expired") as server:
        yield server


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of the one who runs the tests change what is printed."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "SMTP_PASSWORD", *TRUST_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def arguments(server: MailServer, *more: str) -> list[str]:
    """Return the arguments that check *server*, and trust its CA."""
    return [f"smtp+starttls://{server.host}:{server.port}", "--ca-file", str(server.ca_file), *more]


def expired_arguments(server: MailServer, *more: str) -> list[str]:
    """Return the arguments that check the server with implicit TLS."""
    return [f"{server.host}:{server.port}", "--ca-file", str(server.ca_file), *more]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 0, "is fine"),
        (["-w", SOON, "-c", "0"], 1, "works, with a warning"),
        (["-w", SOON, "-c", SOON], 2, "has a fault"),
        (["--pin", PIN], 2, "has a fault"),
        (["--until", "tls"], 0, "nothing after TLS checked"),
    ],
    ids=["fine", "warning", "critical", "wrong pin", "until"],
)
def test_the_exit_code_is_the_verdict(
    server: MailServer, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str
) -> None:
    """0, 1 and 2, as monitoring plugins have them, in each format."""
    assert main(["check", *arguments(server, *options)]) == code
    assert words in capsys.readouterr().out
    for form, verdict in (("json", '"verdict": "'), ("nagios", "SMTP "), ("prometheus", "securesmtp_check_status{")):
        assert main(["check", *arguments(server, *options), "--format", form]) == code
        shown = capsys.readouterr()
        assert verdict in shown.out
        assert shown.err == ""


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_each_certificate_gets_its_exit_code(
    row: Row, serve: Serve, resolve: Resolve, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And one verdict in the first line of the table."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(row.trust)
    server = serve(tls=row.certificate.context())
    host = f"[{row.host}]" if ":" in row.host else row.host
    is_fine = row.expected == "ok"
    assert main(["check", f"{host}:{server.port}", "--ca-file", str(ca_file)]) == (0 if is_fine else 2)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.endswith(":{} {}".format(server.port, "is fine" if is_fine else "has a fault"))
    explained = [line.split()[-1] for line in rest if "securesmtp explain" in line]
    assert explained == ([] if is_fine else [f"certificateerror-{row.expected.replace('_', '-')}"])


@pytest.mark.parametrize(("password", "code"), [("hunter22-secret", 0), ("wrong-secret", 2)])
def test_a_login_is_tried(
    server: MailServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, password: str, code: int
) -> None:
    """With the password of the environment, which nothing shows."""
    monkeypatch.setenv("SMTP_PASSWORD", password)
    for form in ("table", "json"):
        assert main(["check", *arguments(server, "--login", "me", "--transcript", "--format", form)]) == code
        shown = capsys.readouterr().out
        assert password not in shown
        assert ("accepted" if code == 0 else "refused") in shown


def test_several_servers_are_checked(
    server: MailServer, expired: MailServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """From the arguments and a file, in that order; the worst verdict is the exit code."""
    file = tmp_path / "servers.txt"
    file.write_text(f"# the old one\n{expired.host}:{expired.port}\nlocalhost:1\n")
    assert main(["check", *arguments(server), "--file", str(file), "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [(each["host"], each["port"]) for each in document["servers"]] == [
        (server.host, server.port),
        (expired.host, expired.port),
        ("localhost", 1),
    ]
    assert [each["verdict"] for each in document["servers"]] == ["ok", "critical", "critical"]
    assert document["verdict"] == "critical"


def test_standard_input_is_a_file_too(
    server: MailServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a dash."""
    text = f"smtp+starttls://127.0.0.1:{server.port}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["check", "--file", "-", "--ca-file", str(server.ca_file)]) == 0
    assert "is fine" in capsys.readouterr().out


def test_each_address_can_be_checked_by_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them may be broken where the others are not."""
    look_up = socket.getaddrinfo

    def find(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host != "localhost":
            return look_up(host, port, *more, **options)
        return [*look_up("127.0.0.1", port, *more, **options), *look_up("127.0.0.2", port, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", find)
    with MailServer(login=None) as server:
        place = ["check", f"localhost:{server.port}", "--ca-file", str(server.ca_file)]
        assert main([*place, "--all-addresses"]) == 2
    shown = capsys.readouterr().out
    assert shown.startswith("2 checked: 1 with a fault, 1 with a warning\n")
    assert re.search(rf"!  localhost:{server.port} at 127\.0\.0\.1 ", shown)
    assert re.search(rf"✗  localhost:{server.port} at 127\.0\.0\.2 ", shown)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (["--server-name", "b.example"], "server_name", "b.example"),
        (["--pin", PIN, "--pin", PIN], "pins", (PIN, PIN)),
        (["--timeout", "2.5"], "timeout", 2.5),
        (["-4"], "family", 4),
        (["-6"], "family", 6),
        (["--until", "ehlo"], "until", "ehlo"),
        (["--login", "me"], "username", "me"),
        (["--login", "me", "--oauth"], "oauth", True),
        ([], "oauth", False),
        ([], "timeout", 10.0),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_each_option_reaches_the_check(
    options: list[str], name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does there is tested with the probe."""
    asked = []

    def probe_nothing(request: Request) -> CheckResult:
        asked.append(request)
        return result()

    monkeypatch.setattr(probe, "probe", probe_nothing)
    monkeypatch.setenv("SMTP_PASSWORD", "secret-password")
    assert main(["check", "a.example", *options]) == 0
    assert getattr(asked[0], name) == value


def test_what_machines_read_is_utf_8_in_any_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's name or reply may have any character."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "latin-1"))
    monkeypatch.setattr(probe, "probe", lambda _: result(host="bücher.example", faults=faulty(cause="日本").faults))
    assert main(["check", "a.example", "--format", "nagios"]) == 2
    assert "日本" in written.getvalue().decode("utf-8")


WRONG = {
    "no server": ([], "there is no server to check"),
    "no host": (["a b"], "neither a host name"),
    "no option": (["a.example", "--nonsense"], "nonsense"),
    "format": (["a.example", "--format", "xml"], "xml"),
    "two formats": (["a.example", "--json", "--format", "nagios"], "two formats"),
    "thresholds": (["a.example", "-w", "5", "-c", "6"], "the warning comes first"),
    "one threshold": (["a.example", "-w", "5"], "--critical is 7 days and --warning 5"),
    "days": (["a.example", "-w", "soon"], "soon"),
    "transcript": (["a.example", "--transcript", "--format", "prometheus"], "no transcript"),
    "password": (["a.example", "--password-file", "x"], "add --login USER"),
    "token": (["a.example", "--oauth"], "add --login USER"),
    "two passwords": (["a.example", "--login", "me", "--password-file", "a", "--password-command", "b"], "keep one"),
    "CA": (["a.example", "--ca-file", "none.pem"], "none.pem"),
    "pin": (["a.example", "--pin", "sha1/x"], "pin"),
    "file": (["--file", "none.txt"], "none.txt"),
    "stage": (["a.example", "--until", "mail"], "mail"),
    "timeout": (["a.example", "--timeout", "0"], "timeout"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_unknown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, as for a monitoring plugin: 2 would be a fault of the server."""
    options, words = WRONG[name]
    assert main(["check", *options]) == 3
    shown = capsys.readouterr()
    assert words in shown.err.replace("\n", " ")
    assert (shown.out == "", "Traceback" in shown.err) == ("nagios" not in options, False)


@pytest.mark.parametrize(
    "options", [["--format", "nagios", "--nonsense"], ["--format=nagios"], ["a b", "--format", "nagios"]]
)
def test_monitoring_sees_why_nothing_was_checked(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It shows standard output alone."""
    assert main(["check", *options]) == 3
    assert re.fullmatch(r"SMTP UNKNOWN - [^|\n]+\n", capsys.readouterr().out)


def test_help_teaches_by_examples(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command can read each of them, and the exit codes are listed."""
    assert main(["check", "--help"]) == 0
    shown = capsys.readouterr().out
    examples = re.findall(r"^    securesmtp check (.*?)(?: {3,}.*)?$", shown, re.MULTILINE)
    assert len(examples) == 5
    monkeypatch.chdir(tmp_path)
    for name in ("corp-ca.pem", "servers.txt"):
        Path(name).touch()
    for example in examples:
        with command.make_context("check", example.split()) as context:
            assert context.params["hosts"] or context.params["file"]
    assert re.findall(r"^    (\d+)  ", shown, re.MULTILINE) == ["0", "1", "2", "3", "130"]


@pytest.mark.parametrize("form", ["table", "json", "nagios", "prometheus"])
def test_a_file_gets_what_would_be_printed(
    form: str, server: MailServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without colours, readable by others as the process's other files are, and with nothing left beside it."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = tmp_path / "smtp.prom"
    output.write_text("yesterday")
    assert main(["check", *arguments(server, "--format", form, "--output", str(output))]) == 0
    assert capsys.readouterr() == ("", "")
    written = output.read_text("utf-8")
    assert "127.0.0.1" in written
    assert "\x1b" not in written
    assert list(tmp_path.iterdir()) == [output]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(output.stat().st_mode) == 0o666 & ~umask


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that it names is replaced."""
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    replace_file(link, "new\r\n")
    assert (link.is_symlink(), target.read_bytes()) == (True, b"new\r\n")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector never reads half a file, also if the disk is full or Ctrl-C comes in between (PITFALLS-2 L19)."""
    output = tmp_path / "smtp.prom"
    output.write_text("yesterday")
    seen = []

    def full(descriptor: int) -> None:
        seen.append((output.read_text(), [each.suffix for each in tmp_path.iterdir() if each != output]))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyboardInterrupt):
        replace_file(output, "today")
    assert seen == [("yesterday", [".new"])]
    assert [each.read_text() for each in tmp_path.iterdir()] == ["yesterday"]


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    """What is no regular file, such as /dev/stdout, is not replaced by one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Open for both, so that no open waits for the other end.
    descriptor = os.open(pipe, os.O_RDWR)
    replace_file(pipe, "new\n")
    assert os.read(descriptor, 100) == b"new\n"
    os.close(descriptor)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_file_that_cannot_be_written_is_unknown(
    server: MailServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its exit code is not that of a fault of the server."""
    output = str(tmp_path / "none" / "smtp.prom")
    for form in ("table", "prometheus"):
        assert main(["check", *arguments(server, "--format", form, "--output", output)]) == 3
        assert f"Error: {output} cannot be written: " in capsys.readouterr().err


def test_a_link_to_itself_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As any other name; what it says has no control character, whatever the name has."""
    link = tmp_path / "\x1b[31m"
    link.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(link, "new")
    assert link.is_symlink()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert main(["check", f"127.0.0.1:{port}", "--json", "--output", str(link)]) == 3
    assert "/\\x1b[31m cannot be written: " in capsys.readouterr().err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_descriptors_change_no_exit_code(closed: str, expired: MailServer) -> None:
    """As a daemon may start it: the exit code is the verdict, and nothing is said where it can be."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *expired_arguments(expired)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=unmeasured())
    assert (done.returncode, done.stderr) == (2, b"")


@pytest.mark.parametrize("form", ["table", "nagios"])
def test_a_mistake_of_the_program_is_unknown(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the traceback, and not with Python's exit code, which would be that of a warning."""

    def fail(_: Request) -> CheckResult:
        raise IndexError(7)

    monkeypatch.setattr(probe, "probe", fail)
    assert main(["check", "a.example", "--format", form]) == 3
    shown = capsys.readouterr()
    assert "IndexError: 7" in shown.err
    assert ("SMTP UNKNOWN - a mistake in this program: IndexError" in shown.out) == (form == "nagios")


def test_without_a_standard_output_the_exit_code_is_all(
    expired: MailServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Python has it when it was closed."""
    given = expired_arguments(expired)
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["check", *given]) == 2
    monkeypatch.undo()
    assert not any(capsys.readouterr())


def test_ctrl_c_where_the_password_is_asked_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every command."""

    def interrupted(*_: object, **__: object) -> None:
        raise click.Abort

    monkeypatch.setattr("securesmtp._cli.check.run.find_secret", interrupted)
    assert main(["check", "a.example", "--login", "me"]) == 130


def test_a_password_that_cannot_be_had_is_unknown(
    server: MailServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no fault of the server: neither a file that is missing nor a command that never ends."""
    login = arguments(server, "--login", "me", "--format", "nagios", "--password-file")
    output = tmp_path / "smtp.prom"
    assert main(["check", *login, str(tmp_path / "none"), "--output", str(output)]) == 3
    assert capsys.readouterr().out.startswith("SMTP UNKNOWN - the password file ")
    assert not output.exists()
    monkeypatch.setattr(run, "find_secret", lambda *_, **__: Command(("sleep", "100"), 0.1))
    assert main(["check", *login, "any"]) == 3
    assert capsys.readouterr().out.startswith("SMTP UNKNOWN - timed out after 0.1 s waiting for the command 'sleep'")


def test_a_full_disk_at_standard_output_is_unknown(server: MailServer) -> None:
    """Rather than a traceback, or a verdict that nobody could read."""
    command = [*COMMAND, *arguments(server)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, env=unmeasured())
    assert (done.returncode, b"Traceback" in done.stderr) == (3, False)


@pytest.mark.parametrize("form", ["table", pytest.param("json", marks=pytest.mark.exhaustive)])
def test_a_reader_that_has_gone_changes_nothing(form: str, expired: MailServer) -> None:
    """As after ``| head``: the exit code is the verdict, and nothing is said."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, *expired_arguments(expired, "--format", form)]
    # Measured, if this process is.
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (2, b"")


def test_checks_run_side_by_side_and_return_in_order() -> None:
    """As many at a time as there are threads, and no more."""
    lock, running, most = threading.Lock(), 0, 0
    together = threading.Barrier(AT_A_TIME)

    def check(number: int) -> Callable[[], int]:
        def run() -> int:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            together.wait(30)
            with lock:
                running -= 1
            return number

        return run

    numbers = list(range(2 * AT_A_TIME))
    assert run_all({number: check(number) for number in numbers}, Progress(io.StringIO())) == numbers
    assert most == AT_A_TIME


def test_an_error_of_a_check_is_raised_at_once() -> None:
    """Without waiting for the others."""
    forever = threading.Event()

    def fail() -> bool:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        run_all({1: lambda: forever.wait(20), 2: fail}, Progress(io.StringIO()))
    forever.set()


class _Terminal(io.StringIO):
    """A terminal of 30 columns."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 99


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make terminal 99 one of 30 columns."""
    sizes = {99: os.terminal_size((30, 10))}
    # pytest asks for its own, when it is to show the name of each test.
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: sizes.get(descriptor, os.terminal_size((80, 24))))
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("narrow")
def test_a_terminal_gets_a_line_of_progress() -> None:
    """Never wider than standard error's terminal, written when something changes, and erased at the end (L17)."""
    file = _Terminal()
    progress = Progress(file)
    with progress.shown():
        progress.update(0, 2, "a.example")
        progress.update(0, 2, "a.example")
        progress.update(1, 1, "b")
    assert file.getvalue() == "\r0 of 2 checked; waiting for a\x1b[K\r1 of 2 checked; waiting for b\x1b[K\r\x1b[K"


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("variable", [("TERM", "dumb"), ("FORCE_COLOR", "1")], ids=lambda each: each[0])
def test_a_log_gets_no_progress(variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a terminal that cannot erase a line nor a file, whatever FORCE_COLOR says (PITFALLS-2 L17)."""
    monkeypatch.setenv(*variable)
    file = _Terminal() if variable[0] == "TERM" else io.StringIO()
    progress = Progress(file)
    with progress.shown():
        progress.update(0, 1, "a.example")
    assert file.getvalue() == ""


def _at_terminal(columns: int, command: list[str], **environment: str) -> tuple[str, int]:
    """Run *command* at a terminal of this width; return what the terminal got, and the exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = unmeasured() | {"TERM": "xterm-256color"} | environment
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        found = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            found += part
        code = process.wait(60)
    os.close(ours)
    return found.decode(), code


@pytest.mark.parametrize("columns", [pytest.param(40, marks=pytest.mark.exhaustive), 80, 200])
def test_at_a_real_terminal_it_is_as_wide_as_that(columns: int, server: MailServer, expired: MailServer) -> None:
    """With colours, a line of progress that is erased, and no line that wraps but one to copy."""
    command = [*COMMAND, *arguments(server), f"{expired.host}:{expired.port}"]
    text, code = _at_terminal(columns, command)
    assert code == 2
    progress, _, text = text.rpartition("\r\x1b[K")
    assert "0 of 2 checked; waiting for " in progress
    assert "\x1b[1;31m✗" in text
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).split("\r\n")
    assert lines[0] == "2 checked: 1 with a fault, 1 fine"
    assert max(len(line) for line in lines if "sha256/" not in line and "ca_file=" not in line) <= columns
    assert ("round trips" in text) == (columns > 40)


@pytest.mark.parametrize(
    "variable",
    [pytest.param(("NO_COLOR", "1"), marks=pytest.mark.exhaustive), ("TERM", "dumb")],
    ids=["NO_COLOR", "dumb"],
)
def test_at_a_real_terminal_without_colours(variable: tuple[str, str], expired: MailServer) -> None:
    """NO_COLOR leaves no colour, and a dumb terminal gets no escape at all."""
    text, code = _at_terminal(80, [*COMMAND, *expired_arguments(expired)], **dict([variable]))
    assert code == 2
    assert "✗ 127.0.0.1" in text
    assert not re.search(r"\x1b\[(\d+;)*3\dm", text)
    assert ("\x1b" in text) == (variable[0] == "NO_COLOR")


def test_ctrl_c_ends_it_at_once() -> None:
    """With 130, without a traceback, and without waiting for the server that is silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        command = [*COMMAND, f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "600"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=unmeasured()) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
            connection.close()
    assert (process.returncode, out, err.strip()) == (130, b"", b"")
