"""The two outboxes of docs/how-to/outbox.md on a real PostgreSQL, with workers that are killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from email import message_from_bytes
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import django
import pytest

from conftest import thorough, unmeasured
from databases import PostgreSQL
from examples.children import KILLED, Child, nursery
from examples.outbox_common import STEPS, key
from examples.worlds import PASSWORD, WORLDS, Enter, World
from scripted import Peer, ScriptedServer

Engine = Literal["procrastinate", "django"]
HAS_TASKS = django.VERSION >= (6, 0)
# In seconds. No test waits for it to pass.
LONG = 300
# In order of time.
ROUTINE = [*STEPS[:2], "at the recipient", "at the content", *STEPS[2:]]


class Outbox:
    """One database with an outbox, and its users: each call is a process."""

    def __init__(self, address: Path, database: str, port: int) -> None:
        self._address = address
        self._environment = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "postgres",
            "PGDATABASE": database,
        }

    def start(self, function: str, **arguments: Any) -> Child:
        """Start a process; the mail server is that of the world that was entered."""
        smtp = {name: value for name, value in os.environ.items() if name.startswith("SMTP_")}
        return Child(self._address, function, self._environment | smtp, **arguments)

    def call(self, function: str, **arguments: Any) -> Any:
        """Run a process to its end."""
        value = self.start(function, **arguments).wait()
        assert value != KILLED, "it has ended with an exception, which is above"
        return value


@pytest.fixture(scope="module")
def engine_address(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start the process that all others are forked from."""
    environment = {**unmeasured(), "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    with nursery(tmp_path_factory.mktemp(engine), f"examples.outbox_{engine}_worker", environment) as address:
        yield address


@pytest.fixture(
    scope="module",
    params=[
        "procrastinate",
        pytest.param("django", marks=pytest.mark.skipif(not HAS_TASKS, reason="tasks came with Django 6.0")),
    ],
)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Run the test with each of them."""
    chosen: Engine = request.param
    return chosen


def disconnect(postgresql: PostgreSQL, name: str) -> None:
    """End the sessions in a database: while there is one, of a process that is just ending, it cannot be copied."""
    others = f"FROM pg_stat_activity WHERE datname = '{name}'"
    postgresql.execute(f"SELECT pg_terminate_backend(pid, 60000) {others}")


@pytest.fixture(scope="module")
def template(postgresql: PostgreSQL, engine: Engine, engine_address: Path) -> str:
    """Make a database with the tables, of which each test gets a copy."""
    name = f"template_{engine}"
    postgresql.execute(f"DROP DATABASE IF EXISTS {name}")
    postgresql.execute(f"CREATE DATABASE {name}")
    Outbox(engine_address, name, postgresql.port).call("set_up")
    disconnect(postgresql, name)
    return name


@pytest.fixture
def outbox(postgresql: PostgreSQL, template: str, engine_address: Path) -> Iterator[Outbox]:
    """Make a database with an empty outbox."""
    postgresql.execute(f"CREATE DATABASE outbox TEMPLATE {template}")
    try:
        yield Outbox(engine_address, "outbox", postgresql.port)
    finally:
        disconnect(postgresql, "outbox")
        postgresql.execute("DROP DATABASE outbox WITH (FORCE)")


def arrived(server: ScriptedServer) -> list[str]:
    """Return the keys of the messages that the server has."""
    server.joined()
    subjects = [message_from_bytes(each.content)["Subject"] for each in server.accepted]
    return sorted(key(int(subject.removeprefix("Your order "))) for subject in subjects)


def test_a_message_is_sent_once_after_the_commit(enter: Enter, outbox: Outbox) -> None:
    """Before it nobody sees it, and after a rollback there is none; the blind copy arrives without its field."""
    server = enter(WORLDS["normal"], timeout=LONG)
    outbox.call("roll_back", number=3)
    slow = outbox.start("write_slowly", number=1)
    slow.next()
    # It is committed first, although it was begun last (PITFALLS-1 Q12).
    outbox.call("write", number=2)
    outbox.call("work")
    assert arrived(server) == [key(2)]
    slow.wait()
    for _ in range(2):
        outbox.call("work", a_minute_later=True)
        assert arrived(server) == [key(1), key(2)]
    assert outbox.call("outcomes") == {key(1): "accepted", key(2): "accepted"}
    assert [sorted(each.recipients) for each in server.accepted] == [
        [b"RCPT TO:<all@example.com>", b"RCPT TO:<you@example.net>"]
    ] * 2
    assert not any(b"all@example.com" in each.content for each in server.accepted)


@pytest.mark.parametrize("callers", thorough(8, 50))
def test_a_key_is_sent_once_whoever_writes_it_again(enter: Enter, outbox: Outbox, callers: int) -> None:
    """Many callers at once, half of them with another text, and two after the send (PITFALLS-1 Q17)."""
    server = enter(WORLDS["normal"], timeout=LONG)
    # Of two texts, one is first.
    assert outbox.call("write_at_once", number=1, texts=["first", "second"] * (callers // 2)) == callers // 2
    outbox.call("work")
    assert outbox.call("write_at_once", number=1, texts=["first", "second"]) == 1
    outbox.call("work", a_minute_later=True)
    assert arrived(server) == [key(1)]


@pytest.mark.exhaustive
def test_a_message_that_cannot_be_sent_is_not_written(outbox: Outbox) -> None:
    """The transaction of the application gets the error."""
    assert "'you'" in outbox.call("write_to", address="you")
    assert (outbox.call("outcomes"), outbox.call("entries")) == ({}, {})


@pytest.mark.exhaustive
def test_a_message_that_was_refused_may_be_written_again(enter: Enter, outbox: Outbox) -> None:
    """With another text, under the same key."""
    enter(WORLDS["content-refused"], timeout=LONG)
    outbox.call("write", number=1, text="refused")
    outbox.call("work")
    assert outbox.call("outcomes") == {key(1): "refused"}
    server = enter(WORLDS["normal"], timeout=LONG)
    outbox.call("write", number=1, text="corrected")
    outbox.call("work")
    assert outbox.call("outcomes") == {key(1): "accepted"}
    assert b"corrected" in server.accepted[0].content


EXPECTED = {
    "before the claim": (1, "accepted"),
    "after the claim": (0, "unknown"),
    "at the recipient": (0, "unknown"),
    "at the content": (1, "unknown"),
    "before the finish": (1, "unknown"),
    "after the finish": (1, "accepted"),
    "at the end of the task": (1, "accepted"),
}
# The others are tried by the exhaustive run.
QUICK = {"at the content"}


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step in QUICK else pytest.mark.exhaustive) for step in ROUTINE]
)
def test_a_worker_is_killed_at_each_step(enter: Enter, outbox: Outbox, step: str) -> None:
    """Nothing is lost or doubled, and what is doubtful is listed until a person decides (PITFALLS-1 Q6, Q7)."""
    copies, outcome = EXPECTED[step]
    started, verb = SimpleQueue[Child](), {"at the recipient": "RCPT", "at the content": "CONTENT"}.get(step)
    steps = [step]

    def kill(peer: Peer, octets: bytes) -> bytes:
        while steps:
            steps.pop()
            started.get(timeout=LONG).signal()
        return b"250 2.0.0 ok\r\n"

    server = enter(World({verb: kill} if verb else {}, {}), timeout=LONG)
    outbox.call("write", number=1)
    worker = outbox.start("work", kill=step if step in STEPS else None)
    started.put(worker)
    assert worker.wait() == KILLED
    # The dead worker counts as alive.
    outbox.call("work", a_minute_later=True)
    outbox.call("make_older", is_alive=False)
    outbox.call("work", a_minute_later=True)
    assert (arrived(server), outbox.call("outcomes")) == ([key(1)] * copies, {key(1): outcome})
    assert outbox.call("entries") == {key(1): outcome}
    if outcome == "unknown":
        outbox.call("decide", number=1, arrived=copies == 1)
        outbox.call("work")
        assert (arrived(server), outbox.call("outcomes")) == ([key(1)], {key(1): "accepted"})


@pytest.mark.exhaustive
def test_what_was_sent_in_a_transaction_that_was_rolled_back_is_not_sent_again(enter: Enter, outbox: Outbox) -> None:
    """The claim and its end are committed on connections of the ledger's own (PITFALLS-1 Q9)."""
    server = enter(WORLDS["normal"], timeout=LONG)
    outbox.call("write", number=1)
    outbox.call("roll_back_a_send", number=1)
    assert (outbox.call("outcomes"), outbox.call("entries")) == ({key(1): ""}, {key(1): "accepted"})
    outbox.call("work")
    assert (arrived(server), outbox.call("outcomes")) == ([key(1)], {key(1): "accepted"})


def test_a_worker_that_only_looks_dead_is_not_doubled(enter: Enter, outbox: Outbox) -> None:
    """Its heartbeat has stopped, as in a graceful shutdown, but it still sends: the second one waits (Q6, Q8)."""
    inside, go = threading.Event(), threading.Event()

    def hold(peer: Peer, octets: bytes) -> bytes:
        inside.set()
        go.wait(LONG)
        return b"250 2.0.0 queued\r\n"

    server = enter(World({"CONTENT": hold}, {}), timeout=LONG)
    outbox.call("write", number=1)
    with ExitStack() as stack:
        first = outbox.start("work")
        stack.callback(first.wait)
        stack.callback(go.set)
        assert inside.wait(LONG)
        outbox.call("make_older", is_alive=True)
        outbox.call("work", a_minute_later=True)
        # It is due again later.
        assert outbox.call("outcomes") == {key(1): ""}
    for _ in range(2):
        assert (arrived(server), outbox.call("outcomes")) == ([key(1)], {key(1): "accepted"})
        outbox.call("make_older", is_alive=False)
        outbox.call("work", a_minute_later=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("signals", [1, 2])
def test_a_worker_ends_its_send_when_it_is_told_to_end(enter: Enter, outbox: Outbox, signals: int) -> None:
    """By one SIGTERM, or two; the other messages wait for the next worker (Q20)."""
    inside, go = threading.Event(), threading.Event()

    def hold(peer: Peer, octets: bytes) -> bytes:
        inside.set()
        go.wait(LONG)
        return b"250 2.0.0 queued\r\n"

    server = enter(World({"CONTENT": hold}, {}), timeout=LONG)
    outbox.call("write", number=1)
    outbox.call("write", number=2)
    with ExitStack() as stack:
        worker = outbox.start("work")
        stack.callback(worker.wait)
        stack.callback(go.set)
        assert inside.wait(LONG)
        for _ in range(signals):
            worker.signal(signal.SIGTERM)
    assert arrived(server) == [key(1)]
    assert outbox.call("entries") == {key(1): "accepted", key(2): "prepared"}
    outbox.call("make_older", is_alive=False)
    outbox.call("work", a_minute_later=True)
    assert arrived(server) == [key(1), key(2)]
    assert outbox.call("outcomes") == {key(1): "accepted", key(2): "accepted"}


@pytest.mark.parametrize(
    ("world", "outcome"),
    [
        ("later", ""),
        ("busy", ""),
        ("down", ""),
        ("recipient-refused", "refused"),
        ("wrong-password", "not sent"),
    ],
)
@pytest.mark.exhaustive
def test_only_what_may_succeed_later_is_tried_again(enter: Enter, outbox: Outbox, world: str, outcome: str) -> None:
    """And what is kept of it then has no address and no text (PITFALLS-1 Q5)."""
    enter(WORLDS[world], timeout=LONG)
    outbox.call("write", number=1)
    outbox.call("work")
    assert outbox.call("outcomes") == {key(1): outcome}
    server = enter(WORLDS["normal"], timeout=LONG)
    outbox.call("work", a_minute_later=True)
    assert arrived(server) == []
    outbox.call("make_older", is_alive=False)
    outbox.call("work", a_minute_later=True)
    assert arrived(server) == [key(1)] * (outcome == "")
    kept = "".join(outbox.call("kept"))
    assert key(1) in kept
    assert not any(text in kept for text in ("you@", "all@", "on its way", "Your order"))


PAGE = Path(__file__).parents[2] / "docs/how-to/outbox.md"


def printed(test: str) -> list[str]:
    """Return the blocks of the page that this test runs."""
    return re.findall(rf"<!-- run by: {test} -->\n```\w+\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def test_the_table_of_the_page_is_what_happens() -> None:
    """Each step, what arrived, and what the outbox says."""
    rows = re.findall(r"^\| ([^|]+) \| (\d) \| (\w+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert {step: (int(copies), outcome) for step, copies, outcome in rows} == EXPECTED
    assert [step for step, _, _ in rows] == ROUTINE


def test_the_settings_of_the_page_are_those_of_the_tests() -> None:
    """Of the project that they run."""
    (settings,) = printed("test_the_settings_of_the_page_are_those_of_the_tests")
    project = (Path(__file__).parent / "outbox_django_worker.py").read_text("utf-8")
    for line in settings.splitlines():
        assert f"    {line.replace(' += ', '=', 1).replace(' = ', '=', 1)},\n" in project


def test_the_program_of_the_page_writes_a_message(enter: Enter, outbox: Outbox, engine: Engine) -> None:
    """It is sent; the test case that the page shows passes."""
    server = enter(WORLDS["normal"], timeout=LONG)
    first, *blocks = printed("test_the_program_of_the_page_writes_a_message")
    outbox.call("run_blocks", blocks=[first] if engine == "procrastinate" else blocks)
    outbox.call("work")
    assert (arrived(server), outbox.call("outcomes")) == ([key(7)], {key(7): "accepted"})


@pytest.mark.exhaustive
def test_the_commands_of_the_page_set_up_and_send(  # noqa: PLR0913, PLR0917 -- fixtures
    enter: Enter, outbox: Outbox, engine: Engine, postgresql: PostgreSQL, tmp_path: Path, ca_file: Path
) -> None:
    """In a database of their own; the worker ends when it gets a SIGTERM."""
    inside = threading.Event()

    def content(peer: Peer, octets: bytes) -> bytes:
        inside.set()
        return b"250 2.0.0 queued\r\n"

    server = enter(World({"CONTENT": content}, {}), timeout=LONG)
    postgresql.execute("CREATE DATABASE fresh")
    examples = PAGE.parents[1] / "examples"
    try:
        fresh = Outbox(outbox._address, "fresh", postgresql.port)
        folder, environment = examples, unmeasured() | fresh._environment
        if engine == "django":
            folder = tmp_path
            write_project(folder, server.port, ca_file)
            environment["PYTHONPATH"] = str(examples)
        commands = printed("test_the_commands_of_the_page_set_up_and_send")[engine == "django"]
        migrate, worker, *others = ([sys.executable, *line.split()[1:]] for line in commands.splitlines())
        subprocess.run(migrate, cwd=folder, env=environment, check=True, timeout=LONG)
        fresh.call("write", number=1)
        with subprocess.Popen(worker, cwd=folder, env=environment) as process:
            try:
                assert inside.wait(LONG)
                process.terminate()
                assert process.wait(LONG) == 0
            finally:
                process.kill()
        for other in others:
            subprocess.run(other, cwd=folder, env=environment, check=True, timeout=LONG)
        assert (arrived(server), fresh.call("outcomes")) == ([key(1)], {key(1): "accepted"})
    finally:
        disconnect(postgresql, "fresh")
        postgresql.execute("DROP DATABASE fresh WITH (FORCE)")


def write_project(folder: Path, port: int, ca_file: Path) -> None:
    """Write a Django project with the settings of the page."""
    (settings,) = printed("test_the_settings_of_the_page_are_those_of_the_tests")
    backend = "securesmtp.integrations.django.EmailBackend"
    options = {"host": "localhost", "port": port, "use_ssl": True, "username": "me", "password": PASSWORD}
    if django.VERSION >= (6, 1):
        mailer = {"BACKEND": backend, "OPTIONS": {**options, "ca_file": str(ca_file)}}
        settings += f"MAILERS = {{'default': {mailer!r}}}\n"
    else:
        names = {"username": "HOST_USER", "password": "HOST_PASSWORD"}
        settings += "".join(f"EMAIL_{names.get(name, name.upper())} = {value!r}\n" for name, value in options.items())
        settings += f"EMAIL_BACKEND, SECURESMTP = {backend!r}, {{'ca_file': {str(ca_file)!r}}}\n"
    (folder / "settings.py").write_text(
        "import os\nSECRET_KEY, USE_TZ = 'x', True\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': os.environ['PGDATABASE']}}\n"
        f"INSTALLED_APPS = []\n{settings}",
        "utf-8",
    )
    (folder / "manage.py").write_text(
        "import os, sys\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n",
        "utf-8",
    )
