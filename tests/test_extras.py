"""What an installation without extras says of what needs one."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import securesmtp
import securesmtp.ledger
from securesmtp._cli import COMMANDS


def _folder_with(folder: Path, *names: str) -> Path:
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        (folder / name).symlink_to(Path(str(spec.origin)).parent)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with this library and its two packages, and nothing else."""
    return _folder_with(tmp_path_factory.mktemp("bare"), "securesmtp", "certifi", "idna")


@pytest.fixture(scope="module")
def with_cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with this library, and what its extra `cli` installs."""
    names = ("click", "rich", "markdown_it", "mdurl", "pygments")
    return _folder_with(tmp_path_factory.mktemp("cli"), "securesmtp", "certifi", "idna", *names)


def _run(bare: Path, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(bare)!r}); {program}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_all_names_can_be_imported_without_an_extra(bare: Path) -> None:
    """By `import *`, and by what looks at each name, such as `help`."""
    look = "import inspect, securesmtp; inspect.getmembers(securesmtp)"
    done = _run(bare, f"from securesmtp import *; {look}; print(SecureMailer.__name__)")
    assert done.stderr == ""
    assert done.stdout == "SecureMailer\n"
    assert {"AsyncResults", "AsyncSecureMailer"} <= set(securesmtp.__all__)


@pytest.mark.parametrize(
    ("program", "extra"),
    [
        ("from securesmtp import AsyncSecureMailer", "securesmtp[async]"),
        ("import securesmtp.integrations.celery", "securesmtp[celery]"),
        ("import securesmtp.integrations.django", "securesmtp[django]"),
        ("import securesmtp.integrations.opentelemetry", "securesmtp[otel]"),
        ("from securesmtp.signing import DKIM; DKIM('example.org', 'm', '-----BEGIN ')", "securesmtp[sign]"),
        ("from securesmtp.ledger import PostgreSQLLedger", "securesmtp[postgresql]"),
        ("from securesmtp.ledger import RedisLedger", "securesmtp[redis]"),
    ],
)
def test_what_needs_an_extra_names_it(bare: Path, program: str, extra: str) -> None:
    """The error says what to install."""
    done = _run(bare, program)
    assert done.returncode == 1
    assert extra in done.stderr.splitlines()[-1]


_COMMAND = "from securesmtp.__main__ import main; sys.exit(main())"


def test_the_command_line_without_its_extra_names_it(bare: Path) -> None:
    """On one line."""
    done = _run(bare, _COMMAND)
    assert done.returncode == 2
    assert done.stderr == "securesmtp: click is missing. Hint: install securesmtp with its extra 'cli'\n"


@pytest.mark.parametrize("name", [name for name, (_, extra, _) in COMMANDS.items() if extra == "cli"])
def test_a_command_needs_its_own_extra_alone(with_cli: Path, name: str) -> None:
    """Its help imports what it needs."""
    done = _run(with_cli, f"sys.argv = ['securesmtp', {name!r}, '--help']; {_COMMAND}")
    assert done.stderr == ""
    assert done.stdout.startswith(f"Usage: securesmtp {name} ")


@pytest.mark.parametrize("name", [name for name, (_, extra, _) in COMMANDS.items() if extra == "demo"])
def test_a_command_without_its_extra_names_it(with_cli: Path, name: str) -> None:
    """Whatever its arguments; the help of the others is not touched."""
    done = _run(with_cli, f"sys.argv = ['securesmtp', {name!r}, '--port', '0']; {_COMMAND}")
    assert done.returncode == 1
    assert re.fullmatch(rf"Error: {name} needs \w+\. Hint: install securesmtp with its extra 'demo'\n", done.stderr)


def test_the_names_of_all_commands_complete_without_their_extras(with_cli: Path) -> None:
    """As bash asks for them."""
    setting = (
        "import os; os.environ.update(_SECURESMTP_COMPLETE='bash_complete', COMP_WORDS='securesmtp ', COMP_CWORD='1')"
    )
    done = _run(with_cli, f"{setting}; sys.argv = ['securesmtp']; {_COMMAND}")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"plain,{name}" for name in COMMANDS]


def test_names_that_need_an_extra_are_left_out_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `import *` and `help` work."""
    file = Path(str(securesmtp.__file__))
    program, names = compile(file.read_text("utf-8"), file, "exec"), {"__name__": "bare"}
    monkeypatch.setattr(PathFinder, "find_spec", lambda *_: None)
    exec(program, names)  # noqa: S102 -- our own file
    assert set(securesmtp.__all__) - set(names["__all__"]) == {"AsyncFailover", "AsyncResults", "AsyncSecureMailer"}


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("celery", "_task", "celery"), ("django", "_backend", "django"), ("opentelemetry", "_bridge", "otel")],
    ids=["celery", "django", "otel"],
)
def test_a_missing_library_names_the_extra_of_its_integration(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    """Another missing module is shown as it is."""
    package = f"securesmtp.integrations.{name}"
    path = Path(str(securesmtp.__file__)).parent / f"integrations/{name}/__init__.py"
    program = compile(path.read_text("utf-8"), path, "exec")
    monkeypatch.setitem(sys.modules, f"{package}.{module}", None)
    with pytest.raises(ModuleNotFoundError, match="halted"):
        exec(program, {"__name__": package})  # noqa: S102 -- our own file
    for each in [each for each in sys.modules if each.startswith(f"{package}.") or each.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, each)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=rf"install securesmtp\[{extra}\]"):
        exec(program, {"__name__": package})  # noqa: S102


@pytest.mark.parametrize("name", ["PostgreSQLLedger", "RedisLedger", "SQLiteLedger"])
def test_a_fault_of_a_ledger_is_not_a_missing_extra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is shown as it is."""
    module = name.removesuffix("Ledger").lower()
    monkeypatch.setitem(sys.modules, f"securesmtp.ledger._{module}", None)
    with pytest.raises(ModuleNotFoundError, match="halted"):
        getattr(securesmtp.ledger, name)


@pytest.mark.parametrize(
    ("file", "loader", "missing", "text"),
    [
        ("__init__.py", "_async_mailer", "anyio", r"install securesmtp\[async\]"),
        ("testing/_server.py", "testing._certificates", "trustme", "its extra 'testing'"),
    ],
)
def test_only_the_package_of_an_extra_names_it(
    monkeypatch: pytest.MonkeyPatch, file: str, loader: str, missing: str, text: str
) -> None:
    """Another missing module is shown as it is."""
    path = Path(str(securesmtp.__file__)).parent / file
    program = compile(path.read_text("utf-8"), path, "exec")

    def load() -> None:
        names = {"__name__": f"securesmtp.{loader}"}
        exec(program, names)  # noqa: S102 -- our own file
        names.get("_load_async", load)()  # type: ignore[operator]

    monkeypatch.setitem(sys.modules, f"securesmtp.{loader}", None)
    with pytest.raises(ModuleNotFoundError, match="halted"):
        load()
    monkeypatch.delitem(sys.modules, f"securesmtp.{loader}")
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    # Both import anyio, so none of them is imported once more.
    for name in ("securesmtp._async_results", "securesmtp._async_workers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModuleNotFoundError, match=text):
        load()
