"""SQLite files: what is made, what is refused with which hint, and what an error leaves behind."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import securesmtp.ledger
from conftest import unmeasured
from ledger.worlds import HOUR, SQLiteWorld, item, result
from securesmtp import Outcome
from securesmtp.errors import ConfigurationError, LedgerError
from securesmtp.ledger import SQLiteLedger, State, _sqlite_file
from securesmtp.ledger._lock import ProcessLock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a path in an empty folder."""
    return tmp_path / "ledger.sqlite"


def refused(path: Path | str, text: str, hint: str, **options: Any) -> LedgerError:
    """Fail to open a ledger; return the error."""
    with pytest.raises(LedgerError, match=text) as caught:
        SQLiteLedger(path, **options)
    assert hint in str(caught.value)
    assert caught.value.outcome is Outcome.NOT_SENT
    return caught.value


def run(statements: str, path: Path) -> None:
    """Change the file as another program does."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def test_a_new_ledger_is_for_its_user_alone(path: Path) -> None:
    """It has addresses in it. Nothing else is left in the folder."""
    with SQLiteLedger(path) as ledger:
        assert list(ledger.entries()) == []
        ledger.claim([item()], "mine")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "ledger.sqlite", "ledger.sqlite-journal", "ledger.sqlite-lock"
    ]  # fmt: skip


def test_old_entries_are_deleted_as_the_page_says(tmp_path: Path) -> None:
    """What has ended, a year ago. A worker has the ledger meanwhile, and finishes what it had claimed."""
    page = Path(__file__).parents[2] / "docs/how-to/ledger.md"
    (statement,) = re.findall(
        r"^ *-- sqlite3 mail\.ledger\n(.*?)```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    world = SQLiteWorld(tmp_path)
    with world.open() as ledger:
        for age in ("old", "young"):
            messages = [item(f"{state} {age}") for state in State]
            ledger.prepare(messages[:1])
            ledger.claim(messages[1:], age)
            ends = {f"{outcome} {age}": result(outcome) for outcome in Outcome}
            ledger.finish(ends, age)
        for state in State:
            world.age(f"{state} old", 366 * 24 * HOUR)
            world.age(f"{state} young", 364 * 24 * HOUR)
        kept = [entry.key for entry in ledger.entries()]
        run(statement, world.path)
        assert [entry.key for entry in ledger.entries()] == [
            key for key in kept if key not in {"accepted old", "refused old"}
        ]
        ledger.finish({"claimed old": result()}, "old")
        late = ledger.look_up("claimed old")
        assert late is not None
        assert late.state is State.ACCEPTED


def test_a_drive_without_hard_links_is_good_enough(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is made under its own name."""

    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with SQLiteLedger(path) as ledger:
        assert list(ledger.entries()) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_another_process_has_made_meanwhile_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the making."""
    with SQLiteLedger(path) as first:
        first.claim([item()], "mine")
        monkeypatch.setattr(Path, "exists", lambda _: False)
        with SQLiteLedger(path) as second:
            assert second.look_up("invoice-1") is not None


@pytest.mark.parametrize("name", ["a b", "100%?#&=.db", "ümläut", "\udcff.sqlite", "file:x?mode=memory"])
def test_any_name_is_a_file(tmp_path: Path, name: str) -> None:
    """It is not read as an address or a pattern."""
    with SQLiteLedger(tmp_path / name) as ledger:
        ledger.claim([item()], "mine")
    assert (tmp_path / name).stat().st_size > 0
    with SQLiteLedger(str(tmp_path / name)) as ledger:
        assert ledger.look_up("invoice-1") is not None


def test_the_folder_may_change(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A daemon changes to the root."""
    monkeypatch.chdir(tmp_path)
    with SQLiteLedger("ledger.sqlite") as ledger:
        monkeypatch.chdir("/")
        ledger.claim([item()], "mine")
        assert ledger.path == path


@pytest.mark.parametrize("wrong", ["", ":memory:", b"ledger", None, 5], ids=repr)
def test_what_is_no_path_is_refused(wrong: Any) -> None:
    """A ledger in memory would forget."""
    with pytest.raises(ConfigurationError, match="is not the path of a file"):
        SQLiteLedger(wrong)


@pytest.mark.parametrize("wrong", ["unknown", ["accepted"], [None]], ids=repr)
def test_other_things_are_not_sent_again(path: Path, wrong: Any) -> None:
    """Nor is a text a collection of its characters."""
    with pytest.raises(ConfigurationError, match=r"resend is .*, not a collection"):
        SQLiteLedger(path, resend=wrong)


@pytest.mark.parametrize("wrong", [0, -1, True, "60", float("nan")], ids=repr)
def test_the_longest_send_is_a_number_of_seconds(path: Path, wrong: Any) -> None:
    """Before a file is made."""
    with pytest.raises(ConfigurationError, match="longest_send is"):
        SQLiteLedger(path, longest_send=wrong)
    assert not path.exists()


def test_a_closed_ledger_is_not_used(path: Path) -> None:
    """It may no longer have the lock."""
    ledger = SQLiteLedger(path)
    ledger.close()
    ledger.close()
    for use in (lambda: ledger.claim([item()], "mine"), lambda: ledger.look_up("x"), lambda: list(ledger.entries())):
        with pytest.raises(LedgerError, match="is closed") as raised:
            use()
        assert raised.value.hint


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_the_database_of_another_program_is_left_as_it_is(path: Path, journal: str) -> None:
    """Not even the mode of its journal changes."""
    run(f"PRAGMA journal_mode = {journal}; CREATE TABLE mine (x)", path)
    before = path.read_bytes()
    refused(path, "belongs to another program", "choose the path of a file that does not exist")
    assert path.read_bytes() == before
    assert not (path.parent / "ledger.sqlite-lock").exists()


@pytest.mark.parametrize("content", [b"Dear Sir\n" * 200, b"xy", b"\0" * 4096], ids=["text", "short", "zeros"])
def test_a_file_that_is_no_database_is_left_as_it_is(path: Path, content: bytes) -> None:
    """A wrong path is a typing error."""
    path.write_bytes(content)
    refused(path, "is no ledger", "choose the path of a file that does not exist")
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    """As mktemp makes it."""
    path.touch()
    with SQLiteLedger(path) as ledger:
        assert list(ledger.entries()) == []


def test_a_ledger_of_a_later_version_is_not_touched(path: Path) -> None:
    """This version cannot know what the entries mean."""
    SQLiteLedger(path).close()
    run("PRAGMA user_version = 2", path)
    refused(path, "a later version of securesmtp has written it", "install that version")


def test_a_result_of_a_later_version_is_not_guessed(path: Path) -> None:
    """It has a stage or an outcome that this version does not know."""
    with SQLiteLedger(path) as ledger:
        ledger.claim([item()], "mine")
        ledger.finish({"invoice-1": result()}, "mine")
        run("UPDATE entries SET result = replace(result, 'accepted', 'read')", path)
        for use in (lambda: ledger.look_up("invoice-1"), lambda: ledger.claim([item()], "mine")):
            with pytest.raises(LedgerError, match=r"an entry cannot be read.*later version"):
                use()


def test_a_damaged_file_says_that_an_empty_one_would_send_all_again(path: Path) -> None:
    """The hint warns of the obvious fix."""
    with SQLiteLedger(path) as ledger:
        ledger.claim([item(f"key-{number}") for number in range(300)], "mine")
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)
        with pytest.raises(LedgerError, match=r"it is damaged.*all messages would be sent again"):
            list(ledger.entries())


def test_a_ledger_that_was_removed_does_not_come_back_empty(path: Path) -> None:
    """Then every message would be sent again."""
    with SQLiteLedger(path) as ledger:
        ledger.claim([item()], "mine")
        path.unlink()
        with pytest.raises(LedgerError, match="cannot be opened"):
            ledger.claim([item("invoice-2")], "mine")
        assert not path.exists()
        path.touch()
        with pytest.raises(LedgerError, match="no such table"):
            ledger.claim([item("invoice-2")], "mine")


def test_a_ledger_that_is_removed_during_a_transaction_is_an_error(path: Path) -> None:
    """SQLite says so by an extended code (SQLITE_READONLY_DBMOVED)."""
    with SQLiteLedger(path) as ledger:
        ledger.claim([item()], "mine")
        writing = ledger._transaction()
        connection = writing.__enter__()
        path.unlink()
        with pytest.raises(sqlite3.OperationalError) as caught:
            connection.execute("UPDATE entries SET state = 'accepted'")
        with pytest.raises(LedgerError, match="it cannot be written"):
            writing.__exit__(caught.type, caught.value, caught.tb)


@pytest.mark.parametrize("where", ["missing/ledger.sqlite", ".", "file/ledger.sqlite"])
def test_a_path_without_folder_is_refused(tmp_path: Path, where: str) -> None:
    """Or one that is a folder."""
    (tmp_path / "file").touch()
    refused(tmp_path / where, "cannot be opened", "its folder must exist")


def test_a_key_that_is_no_text_claims_nothing(path: Path) -> None:
    """The name of a file may have bytes that are not UTF-8."""
    with SQLiteLedger(path) as ledger:
        with pytest.raises(LedgerError, match="a key cannot be written in UTF-8"):
            ledger.claim([item(), item("\udcff")], "mine")
        assert ledger.look_up("invoice-1") is None


@pytest.mark.parametrize("change", ["claim", "reconcile"])
def test_a_locked_file_is_waited_for(path: Path, change: str) -> None:
    """A transaction of another program ends in time. One that reads first would fail at once (Q13)."""
    with SQLiteLedger(path) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as other:
        ledger.claim([item()], "mine")
        ledger.finish({"invoice-1": result(Outcome.UNKNOWN)}, "mine")
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE entries SET message_id = 'changed'")
        changes = {
            "claim": lambda: ledger.claim([item()], "mine")[0],
            "reconcile": lambda: ledger.reconcile("invoice-1", State.ACCEPTED),
        }
        with ThreadPoolExecutor(1) as pool:
            changed = pool.submit(changes[change])
            assert wait([changed], 0.05).not_done
            other.execute("COMMIT")
            assert changed.result().message_id == "changed"


def test_a_file_that_stays_locked_is_an_error_that_can_be_retried(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was claimed. If outcomes were to be written, they are unknown until they are."""
    with SQLiteLedger(path) as ledger, closing(sqlite3.connect(path)) as other:
        ledger.claim([item()], "mine")
        monkeypatch.setattr(_sqlite_file, "BUSY_TIMEOUT", 0.01)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match=r"another program kept it locked for 30 s.*database browser") as caught:
            ledger.claim([item("invoice-2")], "mine")
        assert (caught.value.outcome, caught.value.retryable) == (Outcome.NOT_SENT, True)
        with pytest.raises(LedgerError) as caught:
            ledger.finish({"invoice-1": result()}, "mine")
        assert (caught.value.outcome, caught.value.retryable) == (Outcome.UNKNOWN, False)
        other.execute("ROLLBACK")
        assert [entry.state for entry in ledger.entries()] == ["claimed"]


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    """`synchronous=FULL`, and a journal whose end is synced too (Q13)."""
    with SQLiteLedger(path) as ledger, ledger._transaction() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("persist",)


# Small enough to be full soon, large enough for an empty ledger.
_SMALL_DRIVE = """
    mount -t tmpfs -o size=64k none "$1" && cd "$1" && "$2" -c "$3"
"""
_FILL = """
from ledger.worlds import item, result
from securesmtp.ledger import SQLiteLedger
from securesmtp.errors import LedgerError
ledger = SQLiteLedger("ledger.sqlite")
ledger.claim([item()], "mine")
try:
    for number in range(100):
        ledger.claim([item(f"{number}-{more}") for more in range(20)], "mine")
except LedgerError as error:
    print(error.outcome, error.retryable, error)
    print(sum(1 for each in ledger.entries()) % 20, ledger.look_up("invoice-1").state)
"""
_READ_ONLY = """
import subprocess
from ledger.worlds import item, result
from securesmtp.ledger import SQLiteLedger
from securesmtp.errors import LedgerError
ledger = SQLiteLedger("ledger.sqlite")
ledger.claim([item()], "mine")
ledger.close()
ledger = SQLiteLedger("ledger.sqlite")
subprocess.run(["mount", "-o", "remount,ro", "."], check=True)
print(ledger.look_up("invoice-1").state)
for use in (lambda: ledger.claim([item("2")], "mine"), lambda: SQLiteLedger("new.sqlite")):
    try:
        use()
    except LedgerError as error:
        print(error.outcome, error.retryable, error)
"""


def _on_a_small_drive(folder: Path, program: str) -> list[str]:
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", _SMALL_DRIVE, "sh"]
    environment = {**unmeasured(), "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    done = subprocess.run(
        [*command, folder, sys.executable, program], env=environment, capture_output=True, text=True, check=False
    )
    if done.stderr.startswith("unshare:") or "permission denied" in done.stderr.lower():
        pytest.skip(f"no user namespaces, which a drive of its own needs: {done.stderr}")
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_full_disk_claims_nothing_and_keeps_what_was_claimed(tmp_path: Path) -> None:
    """A real one, of 64 KiB."""
    error, after = _on_a_small_drive(tmp_path, _FILL)
    assert error.startswith("not sent True the ledger")
    assert "the disk is full. Hint: make room, and start again" in error
    assert after == "1 claimed"


def test_a_drive_that_is_read_only_can_be_read(tmp_path: Path) -> None:
    """It was mounted so after an error of the disk."""
    state, claimed, opened = _on_a_small_drive(tmp_path, _READ_ONLY)
    assert state == "claimed"
    assert "it cannot be written. Hint: this user must be allowed" in claimed
    assert "it cannot be written. Hint: this user must be allowed" in opened
    assert claimed.startswith("not sent False")


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_drive_without_locks_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, *, exclusive: bool) -> None:
    """Some network drives grant every lock, others none (Q13). The first claim finds out, or the opening."""

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    answers: list[Callable[..., None]] = [lambda *_: None, none]
    for number, answer in enumerate(answers):
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", answer)
            with pytest.raises(LedgerError, match=r"the drive has no locks.*put the ledger on a local disk"):
                SQLiteLedger(path, exclusive=exclusive).claim([item(f"{number}")], "mine")
    assert list(SQLiteLedger(path).entries()) == []


def test_an_exclusive_ledger_keeps_others_from_claiming(path: Path) -> None:
    """Others can read, and give verdicts."""
    reader = SQLiteLedger(path)
    with SQLiteLedger(path, exclusive=True) as owner:
        owner.claim([item()], "mine")
        with pytest.raises(LedgerError, match=r"another run is using it.*sqlite-lock.*fuser") as caught:
            reader.claim([item("invoice-2")], "yours")
        assert caught.value.retryable
        refused(path, "another run is using it", "wait for its end", exclusive=True)
        owner.finish({"invoice-1": result(Outcome.UNKNOWN)}, "mine")
        assert reader.reconcile("invoice-1", State.ACCEPTED).state is State.ACCEPTED
    with reader:
        reader.claim([item("invoice-2")], "yours")
        # It has the lock now, until it is closed.
        refused(path, "another run is using it", "wait for its end", exclusive=True)
    SQLiteLedger(path, exclusive=True).close()


def test_the_lock_is_that_of_the_file_and_not_of_its_name(path: Path, tmp_path: Path) -> None:
    """A symbolic link leads to the same ledger."""
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    with SQLiteLedger(path, exclusive=True):
        refused(link, "another run is using it", "wait for its end", exclusive=True)


def test_what_an_exclusive_ledger_finds_claimed_is_unknown_at_once(path: Path) -> None:
    """Its owner is dead, since it would have the lock. An owner that only closed it can still end its claim."""
    with SQLiteLedger(path) as dead:
        dead.claim([item("invoice-1"), item("invoice-2"), item("invoice-3")], "dead")
        dead.finish({"invoice-3": result()}, "dead")
    with SQLiteLedger(path, exclusive=True) as ledger:
        assert [entry.state for entry in ledger.entries()] == ["unknown", "unknown", "accepted"]
        assert [entry.state for entry in ledger.claim([item()], "mine")] == ["unknown"]
        ledger.finish({"invoice-2": result()}, "dead")
        assert [entry.state for entry in ledger.entries()] == ["unknown", "accepted", "accepted"]
        ledger.claim([item("invoice-4")], "mine")
    with SQLiteLedger(path) as shared:
        assert [entry.key for entry in shared.entries(State.CLAIMED)] == ["invoice-4"]


def test_a_clock_that_is_wrong_sends_nothing(path: Path, tmp_path: Path) -> None:
    """A claim of the future is in progress, one of long ago is unknown (Q16)."""
    world = SQLiteWorld(tmp_path)
    with world.open() as ledger:
        ledger.claim([item()], "mine")
        for seconds, state in ((-1000 * HOUR, State.CLAIMED), (5000 * HOUR, State.UNKNOWN)):
            world.age("invoice-1", seconds)
            (entry,) = ledger.claim([item()], "yours")
            assert (entry.state, entry.token) == (state, "mine")


def test_a_child_closes_its_copy_of_a_lock(path: Path) -> None:
    """What happens in the child of a fork, here in the same process, so that this one gives the lock back."""
    with SQLiteLedger(path, exclusive=True) as owner:
        ProcessLock.abandon_all()
        with SQLiteLedger(path, exclusive=True), pytest.raises(LedgerError, match="another run is using it"):
            owner.claim([item()], "mine")


def test_a_signal_handler_may_claim_while_its_thread_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is about to take the lock, and cannot go on before the handler ends."""
    take, keys = fcntl.flock, ["of the handler"]

    def interrupted(*arguments: Any) -> None:
        if keys:
            ledger.claim([item(keys.pop())], "handler")
        take(*arguments)

    with SQLiteLedger(path) as ledger:
        monkeypatch.setattr(fcntl, "flock", interrupted)
        ledger.claim([item()], "mine")
        assert [entry.state for entry in ledger.entries()] == ["claimed", "claimed"]


def test_the_module_has_public_names_only() -> None:
    """SQLite is imported when it is used."""
    with pytest.raises(AttributeError, match="has no attribute 'PaperLedger'"):
        getattr(securesmtp.ledger, "PaperLedger")  # noqa: B009 -- mypy knows that it is not there


@pytest.mark.parametrize("exclusive", [True, False], ids=["exclusive", "shared"])
@pytest.mark.parametrize("loss", ["deleted", "emptied", "link"])
def test_a_ledger_that_is_gone_is_missed(path: Path, loss: str, *, exclusive: bool) -> None:
    """With a new one, all would be sent again."""
    SQLiteLedger(path).close()
    kept = path.read_bytes()
    opened = path
    if loss == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
    if loss == "link":
        opened = path.with_name("other")
        opened.symlink_to(path.name)
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"deleted or emptied after it had been used.*ends in -lock") as caught:
            SQLiteLedger(opened, exclusive=exclusive)
        assert not caught.value.retryable
        assert path.exists() == (loss == "emptied")
    path.write_bytes(kept)
    SQLiteLedger(opened, exclusive=exclusive).close()
    path.unlink()
    path.with_name(f"{path.name}-lock").unlink()
    SQLiteLedger(opened, exclusive=exclusive).close()
    assert path.exists()
