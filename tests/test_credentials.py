"""`securesmtp.credentials`: what a command, a file or a keyring gives, what is refused, and that nothing shows it."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from types import FrameType

import keyring
import keyring.backends.fail
import keyring.core
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import InitError, KeyringLocked

from conftest import Mailer, Serve
from leaks import shown
from scripted import honest
from securesmtp import (
    CertificateError,
    ConfigurationError,
    DeadlineExceededError,
    OAuth2,
    Outcome,
    Secret,
    SecureSMTPError,
    Stage,
)
from securesmtp._sources import file as file_module
from securesmtp._sources.command import Command
from securesmtp.credentials import from_command, from_file, from_keyring
from tokens import Grants

PASSWORD = "hunter2secret"
Source = Callable[[], Secret]


def _refused(source: Source, kind: type[SecureSMTPError] = ConfigurationError) -> SecureSMTPError:
    """Return the error of *source*; neither it nor a frame of the library shows the password."""
    with pytest.raises(kind) as caught:
        source()
    assert PASSWORD not in shown(caught.value)
    assert (caught.value.stage, caught.value.outcome) == (Stage.AUTH, Outcome.NOT_SENT)
    return caught.value


def _python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("secret", "secret"),
        ("secret\n", "secret"),
        ("secret\r\n", "secret"),
        ("secret\n\n", "secret"),
        ("secret\r\r\n", "secret\r"),
        (" secret \n", " secret "),
        ("secret\nuser: me\nurl: mail.example.com\n", "secret"),
        ("pä🔑\n", "pä🔑"),
        ("secret\n" + "x" * 60_000, "secret"),
        ("t" * 60_000, "t" * 60_000),
    ],
    ids=["no line end", "LF", "CRLF", "two", "CR CRLF", "blanks", "lines", "Unicode", "notes", "token"],
)
def test_the_first_line_of_a_command_is_the_password(printed: str, expected: str) -> None:
    """All that it prints is read, so that it does not end by a broken pipe; one line end is removed (PITFALLS O21)."""
    assert from_command(["printf", "%s", printed])().reveal() == expected


@pytest.mark.parametrize("text", ["$HOME", "a; echo b", "`id`", "*", "", "a b"])
def test_no_shell_reads_the_arguments(text: str) -> None:
    """They arrive as they are."""
    assert from_command([*_python("import sys; print(repr(sys.argv[1]))"), text])().reveal() == repr(text)


def test_a_command_has_no_input_and_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It cannot ask, and what it says is not printed (PITFALLS O21)."""
    program = f"import sys; print({PASSWORD!r}, file=sys.stderr); print(sys.stdin.read() == '')"
    theirs, ours = os.pipe()
    with os.fdopen(theirs) as stdin, os.fdopen(ours, "w"):
        # Reading it would wait for the end of this test.
        saved = os.dup(0)
        os.dup2(stdin.fileno(), 0)
        try:
            assert from_command(_python(program))().reveal() == "True"
        finally:
            os.dup2(saved, 0)
            os.close(saved)
    session = from_command(_python("import os; print(os.getsid(0) == os.getpid())"))
    assert session().reveal() == "True"
    assert PASSWORD not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (f"print({PASSWORD!r}); raise SystemExit(3)", "ended with status 3"),
        (f"import sys; print({PASSWORD!r}, file=sys.stderr); raise SystemExit(1)", "ended with status 1"),
        (f"import os; print({PASSWORD!r}, flush=True); os.kill(os.getpid(), 9)", "ended with signal 9"),
        ("", "is empty, or its first line is"),
        (f"print(); print({PASSWORD!r})", "is empty, or its first line is"),
        (f"import sys; sys.stdout.buffer.write(b'{PASSWORD}\\xff')", "is not in UTF-8"),
        (f"import sys; sys.stdout.buffer.write(b'{PASSWORD}\\n' + b'x' * 70_000)", "is longer than 65536 bytes"),
        (f"while True: print({PASSWORD!r})", "is longer than 65536 bytes"),
    ],
    ids=["status", "stderr", "signal", "nothing", "empty line", "not UTF-8", "long", "endless"],
)
def test_a_command_that_gives_no_password_is_an_error(program: str, said: str) -> None:
    """The error names the program, and neither its arguments nor what it has printed."""
    source = from_command(_python(program))
    error = _refused(source)
    assert said in error.args[0]
    assert f"command {sys.executable!r}" in error.args[0]
    assert repr(source) == f"<password from the command {sys.executable!r}>"


def test_a_command_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    """It is missing, or not executable."""
    (tmp_path / "show").touch(0o600)
    assert "cannot be run: No such file" in _refused(from_command(["no-such-program", PASSWORD])).args[0]
    assert "cannot be run: Permission denied" in _refused(from_command([str(tmp_path / "show")])).args[0]


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Return a FIFO, and whether a process keeps it open for writing for more than 10 seconds."""
    path = tmp_path / "alive"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    # Without any writer before, the end of the last one is not reported.
    writing = os.open(path, os.O_WRONLY)
    poll = select.poll()
    poll.register(reading, 0)

    def is_alive() -> bool:
        os.close(writing)
        return not poll.poll(10_000)

    yield str(path), is_alive
    os.close(reading)


HANGS = {
    "it sleeps": "echo {0}; exec sleep 60 3> {1}",
    "its child sleeps": "echo {0}; sleep 60 > {1} & wait",
    "its child keeps the pipe": "echo {0}; sleep 60 3> {1} & exit 0",
    "it closes the pipe": "exec > {1} < {1}; sleep 60",
}


@pytest.mark.parametrize("script", HANGS.values(), ids=HANGS)
def test_a_command_that_hangs_is_killed_with_its_children(script: str, alive: tuple[str, Callable[[], bool]]) -> None:
    """At its time limit; a process that it has started would keep the pipe, too (PITFALLS O21)."""
    path, is_alive = alive
    error = _refused(from_command(["sh", "-c", script.format(PASSWORD, path)], timeout=0.5), DeadlineExceededError)
    assert error.args[0] == "timed out after 0.5 s waiting for the command 'sh' (limit: from_command)"
    assert (error.retryable, error.limit) == (True, "from_command")  # type: ignore[attr-defined]
    assert not is_alive()


def test_a_command_is_killed_by_an_interrupt(alive: tuple[str, Callable[[], bool]]) -> None:
    """And the frames of the interrupt do not show what the command has printed."""

    class Interrupt(BaseException):
        """Raised by the signal."""

    def interrupt(_number: int, frame: FrameType | None) -> None:
        # While Python starts a process, nothing can be done for it.
        if frame is not None and frame.f_code is Command.__call__.__wrapped__.__code__:  # type: ignore[attr-defined]
            raise Interrupt
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    path, is_alive = alive
    script = f"echo {PASSWORD}; kill -ALRM {os.getpid()}; exec sleep 60 3> {path}"
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interrupt) as caught:
            from_command(["sh", "-c", script])()
    finally:
        signal.signal(signal.SIGALRM, before)
    # The script itself has the password, too.
    assert PASSWORD not in shown(caught.value).replace(f"echo {PASSWORD}", "")
    assert not is_alive()


@pytest.mark.parametrize(
    "arguments",
    ["pass show smtp", b"pass", [], (), [""], ["pass", 1], ["pass", "a\0b"], ["pa\0ss"], [b"pass"], None, {"pass"}],
    ids=repr,
)
def test_only_a_list_of_arguments_is_a_command(arguments: list[str]) -> None:
    """One str would need a shell."""
    with pytest.raises(ConfigurationError, match=r"not a list of str that begins with a program.*shlex\.split"):
        from_command(arguments)


@pytest.mark.parametrize(
    "make",
    [lambda limit: from_command(["x"], timeout=limit), lambda limit: from_keyring("s", "u", timeout=limit)],
    ids=["command", "keyring"],
)
def test_a_time_limit_is_a_number_of_seconds(make: Callable[[object], Source]) -> None:
    """There is always one."""
    for limit in (None, 0, "5"):
        with pytest.raises(ConfigurationError, match="timeout is"):
            make(limit)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b" secret \n", " secret "),
        ("pä🔑".encode(), "pä🔑"),
        (b"t" * 65_536, "t" * 65_536),
    ],
    ids=["no line end", "LF", "CRLF", "blanks", "Unicode", "token"],
)
def test_the_line_of_a_file_is_the_password(tmp_path: Path, content: bytes, expected: str) -> None:
    """Without one line end (PITFALLS O21)."""
    (tmp_path / "secret").write_bytes(content)
    for path in (tmp_path / "secret", str(tmp_path / "secret")):
        assert from_file(path)().reveal() == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (f"{PASSWORD}\n\n".encode(), "has more than one line"),
        (f"user: me\npassword: {PASSWORD}\n".encode(), "has more than one line"),
        (PASSWORD.encode() + b"\xff", "is not in UTF-8"),
        (PASSWORD.encode() * 6000, "is longer than 65536 bytes"),
        (f"{PASSWORD}\n".encode() * 6000, "is longer than 65536 bytes"),
    ],
    ids=["empty", "empty line", "two line ends", "lines", "not UTF-8", "long", "many lines"],
)
def test_a_file_without_one_line_is_an_error(tmp_path: Path, content: bytes, said: str) -> None:
    """A part of it would be a wrong password, without a hint why."""
    (tmp_path / "secret").write_bytes(content)
    source = from_file(tmp_path / "secret")
    assert _refused(source).args[0].endswith(said.partition(", or")[0]) or said in _refused(source).args[0]
    assert repr(source) == f"<password from the password file '{tmp_path}/secret'>"


def test_what_is_not_a_regular_file_is_an_error(tmp_path: Path) -> None:
    """A FIFO would block without a limit."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        assert "is not a regular file" in _refused(from_file(path)).args[0]
    (tmp_path / "loop").symlink_to("loop")
    for name, said in (("missing", "No such file"), ("loop", "symbolic links"), ("fifo/x", "Not a directory")):
        assert f"cannot be read: {said}" in _refused(from_file(tmp_path / name)).args[0].replace(
            "Too many levels of ", ""
        )


@pytest.mark.parametrize("path", [None, "", b"secret", 3, "a\0b", Path("a\0b")], ids=repr)
def test_only_a_path_is_a_file(path: Path) -> None:
    """Found before the first login."""
    with pytest.raises(ConfigurationError, match="is not the path of a file"):
        from_file(path)


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666, 0o777], ids=oct)
def test_a_file_that_every_user_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever can write it can make the program log in as somebody else."""
    (tmp_path / "secret").write_text(PASSWORD, "ascii")
    (tmp_path / "secret").chmod(mode)
    error = _refused(from_file(tmp_path / "secret"))
    assert "can be written by every user" in error.args[0]
    assert "chmod o-w" in error.args[0]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user gets to, other than pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        if not all(folder.stat().st_mode & 1 for folder in Path(name).resolve().parents):
            pytest.skip("the folder for temporary files is not open to every user")
        yield Path(name)


def _kubernetes(folder: Path) -> Path:
    """Lay a secret out as Kubernetes does (its AtomicWriter); return its path."""
    (folder / "..2026_11_27_05_25_59.123456789").mkdir()
    (folder / "..2026_11_27_05_25_59.123456789" / "password").write_text(PASSWORD, "ascii")
    (folder / "..data").symlink_to("..2026_11_27_05_25_59.123456789")
    (folder / "password").symlink_to("..data/password")
    return folder / "password"


def _plain(folder: Path) -> Path:
    (folder / "password").write_text(PASSWORD, "ascii")
    return folder / "password"


@pytest.mark.parametrize(
    ("lay", "mode", "folder_mode", "is_mount", "warns"),
    [
        (_plain, 0o644, 0o755, False, True),
        (_plain, 0o604, 0o711, False, True),
        (_plain, 0o640, 0o755, False, False),
        (_plain, 0o600, 0o755, False, False),
        (_plain, 0o644, 0o750, False, False),
        (_plain, 0o444, 0o755, True, False),
        (_kubernetes, 0o644, 0o755, False, False),
    ],
    ids=["0644", "0604", "0640", "0600", "closed folder", "Docker", "Kubernetes"],
)
def test_a_file_that_every_user_can_read_is_a_warning(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    open_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lay: Callable[[Path], Path],
    mode: int,
    folder_mode: int,
    is_mount: bool,  # noqa: FBT001
    warns: bool,  # noqa: FBT001
) -> None:
    """Once, in the log; not for the secrets that are mounted into a container, which are so by default."""
    if is_mount:
        monkeypatch.setattr(file_module, "_MOUNTS", (open_folder,))
    path = lay(open_folder)
    path.chmod(mode)
    open_folder.chmod(folder_mode)
    source = from_file(path)
    for _ in range(2):
        assert source().reveal() == PASSWORD
    records = [record for record in caplog.records if record.name == "securesmtp"]
    assert [record.levelno for record in records] == [logging.WARNING] * warns
    assert all(f"'{path}' can be read by every user" in record.getMessage() for record in records)
    open_folder.chmod(0o755)


def test_docker_mounts_its_secrets_here() -> None:
    """`docker service create --secret`, and Podman's `--secret`."""
    assert [str(path) for path in file_module._MOUNTS] == ["/run/secrets", "/var/run/secrets"]


class Backend(KeyringBackend):
    """A backend of the real package, which answers as it is told."""

    priority = 1

    def __init__(self, answer: Callable[[], str | None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.answer = answer

    def get_password(self, service: str, username: str) -> str | None:
        assert (service, username) == ("smtp", "me")
        return self.answer()

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@contextmanager
def _using(backend: KeyringBackend) -> Iterator[None]:
    before = keyring.core._keyring_backend
    keyring.set_keyring(backend)
    try:
        yield
    finally:
        keyring.core._keyring_backend = before


def _raises(error: Exception) -> Callable[[], str | None]:
    def answer() -> str | None:
        raise error

    return answer


HEADLESS = keyring.backends.fail.Keyring()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("backend", "said", "hint"),
    [
        (HEADLESS, "there is no keyring for this process", "use from_file or from_command"),
        (Backend(_raises(KeyringLocked())), "the keyring cannot be read (KeyringLocked)", "unlock it"),
        (Backend(_raises(InitError("no D-Bus"))), "the keyring cannot be read (InitError)", "unlock it"),
        (Backend(lambda: None), "the keyring has no password of 'me' for 'smtp', or it is locked", "keyring set"),
    ],
    ids=["headless", "locked", "no session", "missing"],
)
def test_a_keyring_that_gives_no_password_is_an_error(backend: KeyringBackend, said: str, hint: str) -> None:
    """It says what to do; a missing entry may be a locked keyring, so the error names both (PITFALLS O22)."""
    with _using(backend):
        error = _refused(from_keyring("smtp", "me"))
    assert error.args[0] == said
    assert hint in str(error.hint)


def test_the_password_comes_from_the_keyring() -> None:
    """Each time anew."""
    answers = iter([PASSWORD, "another"])
    source = from_keyring("smtp", "me")
    with _using(Backend(lambda: next(answers))):
        assert [source().reveal(), source().reveal()] == [PASSWORD, "another"]
    assert repr(source) == "<password of 'me' for 'smtp' from the keyring>"


def test_a_keyring_that_hangs_ends_at_its_limit() -> None:
    """As a locked one does that asks at a desktop where nobody is; it does not stop the next call (PITFALLS O22)."""
    unlocked = threading.Event()
    hangs = [True]

    def answer() -> str:
        if hangs:
            hangs.pop()
            unlocked.wait(30)
        return PASSWORD

    source = from_keyring("smtp", "me", timeout=0.2)
    with _using(Backend(answer)):
        error = _refused(source, DeadlineExceededError)
        assert source().reveal() == PASSWORD
        unlocked.set()
    assert error.args[0] == "timed out after 0.2 s waiting for the keyring (limit: from_keyring)"
    assert (error.retryable, error.hint) == (True, "unlock it, in the session of the same user")


def test_another_error_of_a_backend_is_raised_as_it_is() -> None:
    """The library does not know what it means."""
    with _using(Backend(_raises(LookupError("bug")))), pytest.raises(LookupError, match="bug"):
        from_keyring("smtp", "me")()


@pytest.mark.parametrize(("service", "username"), [("", "me"), ("smtp", ""), (None, "me"), ("smtp", b"me")])
def test_a_keyring_needs_a_service_and_a_username(service: str, username: str) -> None:
    """Found before the first login."""
    with pytest.raises(ConfigurationError, match=r"the (service|username) of from_keyring is not a str"):
        from_keyring(service, username)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the source is made, before the first login."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigurationError, match=r"keyring is not installed.*securesmtp\[keyring\]"):
        from_keyring("smtp", "me")


@pytest.mark.faces("passwords")
@pytest.mark.parametrize("deadline", [None, 20.0])
def test_a_new_password_is_used_at_the_next_login(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve, make_mailer: Mailer, ca_file: Path, tmp_path: Path, message: EmailMessage, deadline: float | None
) -> None:
    """The file is read anew, also if it is a symbolic link that changes its target."""
    server = serve(honest(auth=("me", "first")), honest(auth=("me", "second")))
    for name in ("first", "second"):
        (tmp_path / name).write_text(f"{name}\n", "ascii")
    (tmp_path / "secret").symlink_to("first")
    with make_mailer(
        "localhost",
        server.port,
        username="me",
        password=from_file(tmp_path / "secret"),
        ca_file=ca_file,
        max_messages=1,
        timeout=5,
        deadline=deadline,
    ) as mailer:
        mailer.send(message)
        (tmp_path / "secret").unlink()
        (tmp_path / "secret").symlink_to("second")
        assert mailer.send(message).reply.code == 250


@pytest.mark.faces("passwords")
def test_a_token_comes_from_the_same_sources(
    serve: Serve, make_mailer: Mailer, ca_file: Path, message: EmailMessage
) -> None:
    """Such as from a command of the provider's."""
    grants, token = Grants(PASSWORD), from_command(["echo", PASSWORD])
    server = serve(grants.script())
    with make_mailer(
        "localhost", server.port, auth=OAuth2("me", token), ca_file=ca_file, timeout=5, deadline=20
    ) as mailer:
        mailer.send(message)
    assert grants.shown == [PASSWORD]


@pytest.mark.faces("passwords")
def test_a_command_runs_only_after_the_server_is_verified(
    serve: Serve, make_mailer: Mailer, tmp_path: Path, message: EmailMessage
) -> None:
    """An attacker learns nothing, not even from a prompt that it causes."""
    source = from_command(["touch", str(tmp_path / "ran")])
    with (
        make_mailer("localhost", serve().port, username="me", password=source, timeout=5) as mailer,
        pytest.raises(CertificateError),
    ):
        mailer.send(message)
    assert not (tmp_path / "ran").exists()


@pytest.mark.faces("passwords")
@pytest.mark.parametrize("deadline", [None, 20.0])
def test_the_error_of_a_source_is_the_error_of_the_send(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve, make_mailer: Mailer, ca_file: Path, tmp_path: Path, message: EmailMessage, deadline: float | None
) -> None:
    """It says where and for which message, and the server gets nothing."""
    server = serve(honest(auth=("me", PASSWORD)))
    source = from_file(tmp_path / "missing")
    with make_mailer(
        "localhost", server.port, username="me", password=source, ca_file=ca_file, timeout=5, deadline=deadline
    ) as mailer:
        error = _refused(lambda: mailer.send(message))  # type: ignore[arg-type, return-value]
        (result,) = mailer.send_many([message])
        assert _refused(mailer.check).args == error.args  # type: ignore[arg-type]
    assert error.args[0] == f"the password file '{tmp_path}/missing' cannot be read: No such file or directory"
    assert (error.host, error.port, error.retryable) == ("localhost", server.port, False)
    assert isinstance(result.error, ConfigurationError)
    assert b"AUTH" not in server.secret


@pytest.mark.faces("passwords")
def test_the_deadline_of_the_send_counts_too(
    serve: Serve, make_mailer: Mailer, ca_file: Path, message: EmailMessage
) -> None:
    """The send does not wait until the command is killed (PITFALLS O6)."""
    server, source = serve(honest(auth=("me", PASSWORD))), from_command(["sleep", "5"], timeout=1)
    with (
        make_mailer("localhost", server.port, username="me", password=source, ca_file=ca_file, timeout=5) as mailer,
        pytest.raises(DeadlineExceededError, match=r"limit: deadline") as caught,
    ):
        mailer.send(message, deadline=0.3)
    assert caught.value.outcome is Outcome.NOT_SENT
    for thread in threading.enumerate():
        if "password callable" in thread.name:
            thread.join(10)


@pytest.mark.faces("passwords")
def test_a_locked_keyring_holds_up_no_send_without_a_deadline(
    serve: Serve, make_mailer: Mailer, ca_file: Path, message: EmailMessage
) -> None:
    """It has a limit of its own; the error says what the time was spent on (PITFALLS O22)."""
    unlocked = threading.Event()

    def answer() -> str:
        unlocked.wait(30)
        return PASSWORD

    server, source = serve(honest(auth=("me", PASSWORD))), from_keyring("smtp", "me", timeout=0.2)
    with (
        _using(Backend(answer)),
        make_mailer("localhost", server.port, username="me", password=source, ca_file=ca_file, timeout=5) as mailer,
    ):
        with pytest.raises(DeadlineExceededError, match="waiting for the keyring") as caught:
            mailer.send(message)
        unlocked.set()
        assert mailer.send(message).reply.code == 250
    assert (caught.value.limit, caught.value.host, caught.value.retryable) == ("from_keyring", "localhost", True)
