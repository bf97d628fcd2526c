"""PostgreSQL: transactions of the caller, lost connections, poolers, rights, and what an error shows."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4
from weakref import ref

import psycopg
import pytest
from django.db.utils import ConnectionHandler
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL

from conftest import AsyncMailer, Mailer, Run, Serve, examples, unmeasured
from databases import PgBouncer, PostgreSQL, running
from django_settings import configure
from ledger.test_model import Machine
from ledger.worlds import HOUR, PostgreSQLWorld, item, may_send, result
from scripted import Peer, honest
from securesmtp import Envelope, Outcome, Secret
from securesmtp._submissions import entry_digest
from securesmtp.errors import ConfigurationError, LedgerError
from securesmtp.ledger import Item, PostgreSQLLedger, State, _postgresql, _postgresql_connections
from securesmtp.ledger._postgresql import _escape, _unescape
from securesmtp.ledger._postgresql_connections import Connections

MAIL = Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\ntext\r\n", key="invoice-1")
PASSWORD = "hunter2-hunter2"


@pytest.fixture
def world(postgresql: PostgreSQL) -> PostgreSQLWorld:
    """Make an empty table."""
    return PostgreSQLWorld.make(Path(), postgresql)


@pytest.fixture
def ledger(world: PostgreSQLWorld) -> Iterator[PostgreSQLLedger]:
    """Open it; its connections have a name of their own."""
    with PostgreSQLLedger(f"{world.url}?application_name={world.table}", table=world.table) as opened:
        yield opened


@pytest.fixture
def caller(world: PostgreSQLWorld) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the caller does: each statement is in a transaction."""
    with closing(psycopg.connect(world.url)) as connection:
        yield connection


@pytest.fixture
def own_server() -> Iterator[PostgreSQL]:
    """Run a server that the test may kill."""
    yield from running(PostgreSQL)


def claim(ledger: PostgreSQLLedger, key: str = "invoice-1", token: str = "mine") -> bool:
    """Return whether the message may be sent."""
    (entry,) = ledger.claim([item(key)], token)
    return may_send(entry, item(key), token)


def state(ledger: PostgreSQLLedger, key: str = "invoice-1") -> str | None:
    """Return the state of a message."""
    entry = ledger.look_up(key)
    return None if entry is None else entry.state


def sessions(world: PostgreSQLWorld, which: str = "true") -> list[int]:
    """Return the sessions of the ledger, as the server sees them."""
    found = f"SELECT pid FROM pg_stat_activity WHERE application_name = %s AND {which}"  # noqa: S608 -- ours
    return [pid for (pid,) in world.run(found, world.table)]


def wait(look: Callable[[], Any]) -> Any:
    """Return what *look* finds, once it finds something."""
    end = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < end
    return found


def wait_for_lock(world: PostgreSQLWorld, count: int = 1) -> list[int]:
    """Wait until so many sessions of the ledger wait for a lock."""
    waiting: list[int] = wait(lambda: len(found := sessions(world, "wait_event_type = 'Lock'")) >= count and found)
    return waiting


def end_sessions(world: PostgreSQLWorld) -> None:
    """End the sessions of the ledger, as an administrator does, and wait until they are gone."""
    world.run("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = %s", world.table)


@contextmanager
def locked(world: PostgreSQLWorld, caller: psycopg.Connection[Any]) -> Iterator[None]:
    """Hold a lock on all entries of the ledger."""
    caller.execute(f"SELECT id FROM {world.table} FOR UPDATE")  # noqa: S608 -- our table
    try:
        yield
    finally:
        caller.rollback()


def test_the_callers_transaction_decides_about_a_prepared_message(
    ledger: PostgreSQLLedger, caller: psycopg.Connection[Any]
) -> None:
    """Rolled back, there is no entry; committed, there is one that nobody has claimed (Q9)."""
    for key, end in (("rolled back", caller.rollback), ("committed", caller.commit)):
        (entry,) = ledger.prepare([item(key)], connection=caller)
        assert entry.state is State.PREPARED
        assert ledger.look_up(key) is None
        end()
    assert ledger.look_up("rolled back") is None
    assert claim(ledger, "committed")


def test_the_callers_transaction_goes_on(ledger: PostgreSQLLedger, caller: psycopg.Connection[Any]) -> None:
    """Its settings are as before, and its rows are of its own kind."""
    caller.row_factory = psycopg.rows.dict_row
    show = "SELECT current_setting('lock_timeout') AS now"
    ledger.prepare([item()], connection=caller)
    assert caller.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
    assert caller.execute(show).fetchall() == [{"now": "0"}]


def test_a_pipeline_of_the_caller_is_refused(ledger: PostgreSQLLedger, caller: psycopg.Connection[Any]) -> None:
    """Nobody would know what is in the ledger before its end."""
    with caller.pipeline(), pytest.raises(ConfigurationError, match="connection is in pipeline mode"):
        ledger.prepare([item()], connection=caller)
    assert state(ledger) is None


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_the_callers_connection_may_have_another_encoding(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, encoding: str
) -> None:
    """Without one, psycopg returns bytes."""
    with closing(psycopg.connect(world.url, client_encoding=encoding)) as other:
        (prepared,) = ledger.prepare([item("é")], connection=other)
        other.commit()
    assert prepared == ledger.look_up("é")


def test_a_claim_outlives_the_callers_transaction(
    ledger: PostgreSQLLedger, caller: psycopg.Connection[Any], serve: Serve, mailer: Mailer
) -> None:
    """What was sent inside it stays accepted when it is rolled back: a second send sends nothing (Q9)."""
    server = serve()
    for _ in range(2):
        caller.execute("SELECT 1")
        list(mailer(server).send_many([MAIL], ledger=ledger))
        caller.rollback()
    assert state(ledger) == "accepted"
    assert len(server.accepted) == 1


def test_a_message_is_not_sent_before_the_transaction_that_has_prepared_it_ends(
    world: PostgreSQLWorld, caller: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim waits, not forever; the error says what to do."""
    monkeypatch.setattr(_postgresql, "PATIENCE", 0.05)
    with world.open() as ledger:
        ledger.prepare([item()], connection=caller)
        with pytest.raises(LedgerError, match="another transaction has kept an entry locked") as caught:
            claim(ledger)
        assert "commit what has prepared a message before you send it" in str(caught.value)
        assert caught.value.retryable
        caller.commit()
        assert claim(ledger)


def test_transactions_may_commit_in_any_order(ledger: PostgreSQLLedger, world: PostgreSQLWorld) -> None:
    """What is prepared is found by its state, not by its number (Q12)."""
    with closing(psycopg.connect(world.url)) as first, closing(psycopg.connect(world.url)) as second:
        ledger.prepare([item("first")], connection=first)
        ledger.prepare([item("second")], connection=second)
        second.commit()
        assert [entry.key for entry in ledger.entries(State.PREPARED)] == ["second"]
        first.commit()
    assert [entry.key for entry in ledger.entries(State.PREPARED)] == ["first", "second"]


def test_what_the_application_has_prepared_is_what_send_many_sends(
    ledger: PostgreSQLLedger, caller: psycopg.Connection[Any], serve: Serve, mailer: Mailer
) -> None:
    """With the digest and the key of the run."""
    ledger.prepare([Item("invoice-1", entry_digest(MAIL), None)], connection=caller)
    caller.commit()
    assert [entry.key for entry in ledger.entries(State.PREPARED)] == ["invoice-1"]
    (sent,) = mailer(serve()).send_many([MAIL], ledger=ledger)
    assert sent.outcome is Outcome.ACCEPTED
    assert state(ledger) == "accepted"


class DjangoLike:
    """What `django.db.connection` has, for a database of another kind."""

    connection = None

    def ensure_connection(self) -> None:
        """Connect."""


@pytest.mark.parametrize(
    "other", [DjangoLike(), "postgresql://localhost/", psycopg.AsyncConnection], ids=["sqlite", "url", "async"]
)
def test_another_connection_is_refused(ledger: PostgreSQLLedger, other: object) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigurationError, match="not one of psycopg 3"):
        ledger.prepare([item()], connection=other)


def test_djangos_connection_can_be_given(ledger: PostgreSQLLedger, postgresql: PostgreSQL) -> None:
    """Inside `atomic`, the entry is part of its transaction."""
    configure()
    place = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres", "HOST": "127.0.0.1"}
    connection: Any = ConnectionHandler({"default": {**place, "PORT": str(postgresql.port)}})["default"]
    try:
        # Not `atomic`, which finds connections in the settings.
        connection.set_autocommit(False)
        ledger.prepare([item("rolled back")], connection=connection)
        connection.rollback()
        ledger.prepare([item("committed")], connection=connection)
        connection.commit()
    finally:
        connection.close()
    assert [entry.key for entry in ledger.entries()] == ["committed"]


CALLS: dict[str, Callable[[PostgreSQLLedger], object]] = {
    "prepare": lambda ledger: ledger.prepare([item("other")]),
    "claim": claim,
    "finish": lambda ledger: ledger.finish({"invoice-1": result()}, "mine"),
    "look_up": state,
    "entries": lambda ledger: list(ledger.entries()),
    "reconcile": lambda ledger: ledger.reconcile("doubtful", State.ACCEPTED),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_was_lost_is_replaced(ledger: PostgreSQLLedger, world: PostgreSQLWorld, call: str) -> None:
    """After hours without use, a firewall or a restart of the server has ended it, and all others with it."""
    lend = ledger._connections._lent
    with lend(), lend(), lend():
        assert len(sessions(world)) == 3
    claim(ledger)
    claim(ledger, "doubtful")
    world.age("doubtful", HOUR)
    end_sessions(world)
    CALLS[call](ledger)


def test_a_connection_that_is_lost_during_the_content_does_not_lose_the_end(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, serve: Serve, mailer: Mailer
) -> None:
    """No lock and no transaction is open while a message is sent (Q10)."""
    seen = []

    def reply(peer: Peer, content: bytes) -> bytes:
        seen.append((state(ledger), sessions(world, "state <> 'idle'")))
        end_sessions(world)
        return b"250 2.0.0 ok\r\n"

    (sent,) = mailer(serve(honest(replies={"CONTENT": reply}))).send_many([MAIL], ledger=ledger)
    assert seen == [("claimed", [])]
    assert (sent.outcome, state(ledger)) == (Outcome.ACCEPTED, "accepted")


def test_a_mailer_for_tasks_uses_it_too(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, serve: Serve, async_mailer: AsyncMailer, run: Run
) -> None:
    """Its calls wait for the database in a thread."""
    server = serve()

    async def send() -> list[Outcome]:
        async with async_mailer(server) as mine:
            return [result.outcome async for result in mine.send_many([MAIL], ledger=ledger)]

    assert run(send) == [Outcome.ACCEPTED]
    end_sessions(world)
    assert run(send) == [Outcome.ACCEPTED]
    assert len(server.accepted) == 1


def test_a_claim_whose_reply_was_lost_is_made_again(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, caller: psycopg.Connection[Any]
) -> None:
    """With the same token, so it is a yes (Q14)."""
    ledger.prepare([item()])
    with ThreadPoolExecutor(1) as pool:
        with locked(world, caller):
            claimed = pool.submit(claim, ledger)
            (first,) = wait_for_lock(world)
            end_sessions(world)
            (second,) = wait_for_lock(world)
        assert claimed.result()
    assert first != second
    assert state(ledger) == "claimed"


def test_a_verdict_is_not_written_twice(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, caller: psycopg.Connection[Any]
) -> None:
    """If the connection is lost meanwhile, nobody knows whether it was: the person looks again."""
    claim(ledger)
    world.age("invoice-1", HOUR)
    with ThreadPoolExecutor(1) as pool, locked(world, caller):
        given = pool.submit(ledger.reconcile, "invoice-1", State.ACCEPTED)
        wait_for_lock(world)
        end_sessions(world)
        with pytest.raises(LedgerError, match="the connection to the database was lost") as caught:
            given.result()
    assert caught.value.retryable
    assert state(ledger) == "unknown"


class TimeLimitError(Exception):
    """What a task queue raises in a task that takes too long."""


def test_a_time_limit_leaves_no_connection_in_use(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, caller: psycopg.Connection[Any]
) -> None:
    """The next call gets another one: the reply to the first call may still come."""
    ledger.prepare([item()])

    def strike(*_: object) -> None:
        raise TimeLimitError

    def wait_and_strike() -> None:
        wait_for_lock(world)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, strike)
    striking = threading.Thread(target=wait_and_strike)
    try:
        with locked(world, caller):
            striking.start()
            with pytest.raises(TimeLimitError):
                claim(ledger)
            assert state(ledger) == "prepared"
    finally:
        striking.join()
        signal.signal(signal.SIGUSR1, before)
    assert claim(ledger)


def test_whatever_error_says_that_another_process_has_made_the_table_it_is_used(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL may also say that its type exists: that once ended the run of a process that was a little slower."""
    execute, refused = Connections.execute, list[str]()

    def slower(self: Connections, statements: Any, parameters: Any, **options: Any) -> Any:
        if "CREATE TABLE" in statements.as_string() and not refused:
            with closing(psycopg.connect(world.url, autocommit=True)) as other:
                other.execute(f"CREATE DOMAIN {world.table} AS int")
                with pytest.raises(LedgerError) as raised:
                    execute(self, statements, parameters, **options)
                refused.append(raised.value.args[0])
                other.execute(f"DROP DOMAIN {world.table}")
            execute(self, statements, parameters, **options)
            raise raised.value
        return execute(self, statements, parameters, **options)

    monkeypatch.setattr(Connections, "execute", slower)
    assert claim(ledger)
    assert "type" in refused[0]


def test_threads_share_four_connections(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, caller: psycopg.Connection[Any]
) -> None:
    """Others wait for one: a database takes a hundred, from all processes together."""
    ledger.prepare([item(str(number)) for number in range(12)])
    with ThreadPoolExecutor(12) as pool:
        with locked(world, caller):
            claimed = [pool.submit(claim, ledger, str(number)) for number in range(12)]
            wait_for_lock(world, 4)
            assert len(sessions(world)) == 4
        assert all(each.result() for each in claimed)
    assert len(sessions(world)) <= 4


@pytest.mark.filterwarnings("ignore:.* was deleted while still open:ResourceWarning")
def test_an_interrupt_at_any_line_leaves_the_connections_usable(world: PostgreSQLWorld) -> None:
    """
    A task queue's time limit once took one of the four places for good, and the fifth one waited for ever.

    Nothing of the interrupted calls is kept.
    """
    connections, interrupted, usable = Connections(Secret(world.url), world.table), list[int](), list[int]()
    files = {_postgresql_connections.__file__, threading.__file__, contextlib.__file__}

    def call(at: int) -> None:
        left = at

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            left -= event == "line"
            if event == "line" and left == -1:
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with connections._lent():
                pass
        finally:
            sys.settrace(before)

    def strike() -> None:
        with suppress(KeyboardInterrupt):
            for at in itertools.count():
                try:
                    call(at)
                except KeyboardInterrupt:
                    interrupted.append(at)
                else:
                    break
        with ExitStack() as stack:
            for number in range(4):
                stack.enter_context(connections._lent())
                usable.append(number)

    # A daemon: if it waits for ever, the test fails.
    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    thread.join(60)
    connections.close()
    gc.collect()
    assert (len(interrupted) > 20, usable, connections._turns) == (True, [0, 1, 2, 3], [])


def test_the_next_call_forgets_interrupted_ones(world: PostgreSQLWorld) -> None:
    """Each would keep some bytes for good; nobody but an interrupted call leaves a dead reference."""
    connections = Connections(Secret(world.url), world.table)

    class Call:
        pass

    connections._turns += [ref(Call()), ref(Call())]  # type: ignore[arg-type]
    with connections._lent():
        assert None not in [each() for each in connections._turns]
    connections.close()


@pytest.mark.parametrize("call", ["prepare", "claim", "finish"])
@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_batches_lock_their_entries_in_one_order(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, caller: psycopg.Connection[Any], call: str, order: int
) -> None:
    """Whatever the order of their keys, so that two of them never wait for each other."""
    keys = [str(number) for number in range(8)][::order]
    items = [item(key) for key in keys]
    first, *others = sorted(keys, key=lambda key: sha256(key.encode()).digest())
    # In the table, the first one is the last.
    for key in [*others, first]:
        claim(ledger, key)
    calls = {
        "prepare": lambda: ledger.prepare(items),
        "claim": lambda: ledger.claim(items, "mine"),
        "finish": lambda: ledger.finish(dict.fromkeys(keys, result()), "mine"),
    }
    with ThreadPoolExecutor(1) as pool:
        caller.execute(f"SELECT 1 FROM {world.table} WHERE key = %s FOR UPDATE", [first])  # noqa: S608 -- our table
        called = pool.submit(calls[call])
        wait_for_lock(world)
        # It waits for the first, and has none of the others yet.
        free = world.run(f"SELECT key FROM {world.table} WHERE key <> %s FOR UPDATE SKIP LOCKED", first)  # noqa: S608 -- as above
        caller.rollback()
        called.result()
    assert sorted(key for (key,) in free) == sorted(others)


def test_a_ledger_that_was_closed_has_no_connection(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, caller: psycopg.Connection[Any]
) -> None:
    """Also not that of a call which was under way; it is used no more."""
    ledger.prepare([item()])
    with ThreadPoolExecutor(1) as pool:
        with locked(world, caller):
            claimed = pool.submit(claim, ledger)
            wait_for_lock(world)
            ledger.close()
        assert claimed.result()
    wait(lambda: not sessions(world))
    with pytest.raises(LedgerError, match="is closed"):
        ledger.look_up("invoice-1")


def test_a_database_that_is_down_is_an_error_until_it_is_back(own_server: PostgreSQL) -> None:
    """What was claimed survives a kill, also if the database does not wait for its disk by default."""
    # Then only the ledger's own setting writes the claim before the reply.
    own_server.execute("ALTER SYSTEM SET synchronous_commit = off")
    own_server.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    own_server.restart()
    with PostgreSQLLedger(own_server.url) as ledger:
        assert claim(ledger)
        own_server.kill()
        with pytest.raises(LedgerError, match="the database cannot be reached") as caught:
            ledger.finish({"invoice-1": result()}, "mine")
        assert (caught.value.outcome, caught.value.retryable) == (Outcome.UNKNOWN, False)
        with pytest.raises(LedgerError, match=r"cannot be reached.*refused") as caught:
            claim(ledger, "other")
        assert (caught.value.outcome, caught.value.retryable) == (Outcome.NOT_SENT, True)
        own_server.start()
        assert state(ledger) == "claimed"
        ledger.finish({"invoice-1": result()}, "mine")
        assert state(ledger) == "accepted"


def test_a_database_that_is_frozen_is_an_error(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if its disk or its virtual machine hangs: the kernel answers for it, so nothing is lost, and nothing comes."""
    assert claim(ledger)
    (session,) = sessions(world)
    monkeypatch.setattr(_postgresql_connections, "REPLY_WITHIN", 0.3)
    os.kill(session, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerError, match="the database does not reply") as caught:
            ledger.finish({"invoice-1": result()}, "other")
    finally:
        os.kill(session, signal.SIGCONT)
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.UNKNOWN, False)
    monkeypatch.undo()
    ledger.finish({"invoice-1": result()}, "mine")
    assert state(ledger) == "accepted"


@pytest.fixture(scope="module")
def bouncer(postgresql: PostgreSQL) -> Iterator[PgBouncer]:
    """Run a pooler with one connection for all, in transaction mode."""
    yield from running(PgBouncer, lambda folder: PgBouncer(folder, postgresql))


def test_a_ledger_works_behind_pgbouncer(bouncer: PgBouncer) -> None:
    """In its transaction mode, which has neither prepared statements nor settings of a session (Q11)."""

    class Here(Machine):
        make = staticmethod(lambda folder: PostgreSQLWorld.make(folder, bouncer))

    steps = settings(max_examples=examples(9), stateful_step_count=25, deadline=None)
    run_state_machine_as_test(Here, settings=steps)


def test_two_processes_behind_pgbouncer_claim_a_key_once(bouncer: PgBouncer, postgresql: PostgreSQL) -> None:
    """Nothing of a session is left on the shared connection: no lock, no statement, no setting (Q11)."""
    world = PostgreSQLWorld.make(Path(), bouncer)
    with world.open() as one, world.open() as other:
        won = [claim(each, key, token) for key in "abc" for each, token in ((one, "one"), (other, "other"))]
    assert won == [True, False] * 3
    left = "SELECT (SELECT count(*) FROM pg_prepared_statements), current_setting('lock_timeout')"
    assert world.run(left) == [(0, "0")]
    assert postgresql.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0\n"


@pytest.mark.parametrize("isolation", ["serializable", r"repeatable\ read"])
def test_the_isolation_that_is_the_default_of_the_database_does_not_matter(
    world: PostgreSQLWorld, isolation: str
) -> None:
    """Each claim sees what was committed before it, and none fails."""
    url = make_conninfo(world.url, options=f"-c default_transaction_isolation={isolation}")
    with PostgreSQLLedger(url, table=world.table) as ledger, ThreadPoolExecutor(8) as pool:
        keys = [str(number) for number in range(20)]
        won = pool.map(lambda token: [claim(ledger, key, token) for key in keys], map(str, range(8)))
        assert sum(map(sum, won)) == 20


def test_a_standby_is_not_used(world: PostgreSQLWorld) -> None:
    """It may not know the last claims (Q11)."""
    url = make_conninfo(world.url, options="-c default_transaction_read_only=on")
    with (
        PostgreSQLLedger(url, table=world.table) as ledger,
        pytest.raises(LedgerError, match=r"cannot be reached.*(read-only|read-write)"),
    ):
        ledger.look_up("invoice-1")


# In a process without threads, which imports little.
FORK = """
import os, sys
from securesmtp.ledger import Item, PostgreSQLLedger
ledger = PostgreSQLLedger(sys.argv[1], table=sys.argv[2])
ledger.claim([Item("of the parent", "", None)], "parent")
(connection,) = ledger._connections._idle
if os.fork() == 0:
    ledger.claim([Item("of the child", "", None)], "child")
    assert ledger._connections._idle[0] is not connection and connection.closed
    ledger.close()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert ledger.look_up("of the child").token == "child"
assert ledger._connections._idle[0] is connection and not connection.closed
ledger.close()
"""


def test_a_fork_leaves_the_connection_of_its_parent_alone(world: PostgreSQLWorld) -> None:
    """The child has one of its own, and its exit says nothing to the parent's session. Nothing warns."""
    command = [sys.executable, "-W", "default", "-c", FORK, *world.arguments]
    done = subprocess.run(command, env=unmeasured(), capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_child_that_uses_no_ledger_does_not_end_the_session_of_its_parent(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld
) -> None:
    """The copies are closed at the fork."""
    claim(ledger)
    before = sessions(world)
    (connection,) = ledger._connections._idle
    descriptor = os.dup(connection.fileno())
    try:
        # As in the child.
        Connections.abandon_all()
        assert connection.closed
        assert sessions(world) == before
        assert state(ledger) == "claimed"
        assert len(sessions(world)) == 2
    finally:
        os.close(descriptor)


# Tables and rights


def test_the_table_is_made_once(world: PostgreSQLWorld) -> None:
    """By whichever process is first; the others find it."""
    start = threading.Barrier(8)

    def open_and_claim(number: int) -> bool:
        with world.open() as ledger:
            start.wait()
            return claim(ledger, token=str(number))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(open_and_claim, range(8))) == 1


def test_a_table_that_another_process_has_just_made_is_a_ledger(
    ledger: PostgreSQLLedger, world: PostgreSQLWorld
) -> None:
    """Whether it exists is known at once, but its comment as it was when the statement began."""
    lock = int(uuid4()) % 2**31
    with (
        world.open() as faster,
        closing(psycopg.connect(world.url)) as holder,
        ThreadPoolExecutor() as pool,
    ):
        waiting = SQL(" FROM (SELECT pg_advisory_lock_shared({}) OFFSET 0) AS waiting").format(lock)
        ledger._statements.inspect += waiting
        holder.execute("SELECT pg_advisory_lock(%s)", [lock])
        claimed = pool.submit(claim, ledger)
        try:
            wait_for_lock(world)
            faster.prepare([item()])
        finally:
            holder.execute("SELECT pg_advisory_unlock(%s)", [lock])
        assert claimed.result()


def test_a_table_that_was_there_is_not_made_again(ledger: PostgreSQLLedger, world: PostgreSQLWorld) -> None:
    """All messages would be sent again."""
    claim(ledger)
    world.run(f"DROP TABLE {world.table}")
    with pytest.raises(LedgerError, match="the table was there, and is gone"):
        claim(ledger)
    assert world.run("SELECT to_regclass(%s)", world.table) == [(None,)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("DROP TABLE {0}; CREATE TABLE {0} (id int)", "the table is no ledger"),
        ("COMMENT ON TABLE {0} IS 'customers'", "the table is no ledger"),
        ("COMMENT ON TABLE {0} IS 'securesmtp ledger, version 2'", "a later version of securesmtp has made the table"),
    ],
    ids=["another table", "another comment", "later"],
)
def test_another_table_is_refused(ledger: PostgreSQLLedger, world: PostgreSQLWorld, change: str, text: str) -> None:
    """Nothing is written to it."""
    claim(ledger)
    world.run(change.format(world.table))
    with world.open() as other, pytest.raises(LedgerError, match=text):
        other.claim([item()], "mine")


def test_an_entry_of_a_later_version_cannot_be_read(ledger: PostgreSQLLedger, world: PostgreSQLWorld) -> None:
    """Its state may be a new one."""
    claim(ledger)
    world.run(f"UPDATE {world.table} SET state = 'postponed'")  # noqa: S608 -- our table
    with pytest.raises(LedgerError, match="an entry cannot be read"):
        ledger.look_up("invoice-1")


@pytest.fixture
def worker(world: PostgreSQLWorld) -> str:
    """Make a user that may make no table; return its name."""
    name = f"worker_{uuid4().hex}"
    world.run(f"CREATE ROLE {name} LOGIN; REVOKE CREATE ON SCHEMA public FROM public")
    return name


def test_a_user_without_the_right_to_make_a_table_is_told(
    world: PostgreSQLWorld, worker: str, postgresql: PostgreSQL
) -> None:
    """`schema` is for somebody who may; then a worker needs these rights, and no more."""
    url = f"postgresql://{worker}@127.0.0.1:{postgresql.port}/postgres"
    with PostgreSQLLedger(url, table=world.table) as ledger:
        with pytest.raises(LedgerError, match="the user of the database lacks a right") as caught:
            claim(ledger)
        assert "PostgreSQLLedger.schema()" in str(caught.value)
        world.run(PostgreSQLLedger.schema(world.table))
        with pytest.raises(LedgerError, match="the user of the database lacks a right"):
            claim(ledger)
        world.run(f"GRANT SELECT, INSERT, UPDATE ON {world.table} TO {worker}")
        world.run(f"GRANT USAGE ON SEQUENCE {world.table}_id_seq TO {worker}")
        assert claim(ledger)
        ledger.finish({"invoice-1": result()}, "mine")
        assert state(ledger) == "accepted"


def test_a_table_may_be_in_a_schema(world: PostgreSQLWorld) -> None:
    """A schema is not made: its owner and its rights are the reader's."""
    with PostgreSQLLedger(world.url, table=f"mail_{world.table}.Ledger") as ledger:
        with pytest.raises(LedgerError, match="the schema does not exist"):
            claim(ledger)
        world.run(f"CREATE SCHEMA mail_{world.table}")
        assert claim(ledger)
    assert world.run(f'SELECT count(*) FROM mail_{world.table}."Ledger"') == [(1,)]  # noqa: S608 -- our table


@pytest.mark.parametrize("table", ["", "a b", "a;b", 'a"b', "a.b.c", "1a", "a" * 64, ".a", "ä", None, 5, b"a"])
def test_other_names_are_no_table(table: Any) -> None:
    """So that nothing else is in the SQL."""
    for make in (lambda: PostgreSQLLedger("", table=table), lambda: PostgreSQLLedger.schema(table)):
        with pytest.raises(ConfigurationError, match="not the name of a table"):
            make()


@pytest.mark.parametrize("options", [{"longest_send": 0}, {"resend": "unknown"}, {"resend": ["accepted"]}], ids=repr)
def test_wrong_arguments_are_refused(options: dict[str, Any]) -> None:
    """As for a SQLite ledger."""
    with pytest.raises(ConfigurationError):
        PostgreSQLLedger("", **options)


# Keys


@given(st.text(alphabet="a\0\1\2", max_size=12))
def test_a_key_without_nul_stands_for_each_key(key: str) -> None:
    """PostgreSQL has no NUL in a text. Others are as they were."""
    escaped = _escape(key)
    assert "\0" not in escaped
    assert _unescape(escaped) == key
    assert escaped == key or {"\0", "\1"} & set(key)


def test_a_key_may_be_longer_than_an_index_takes(ledger: PostgreSQLLedger) -> None:
    """998 characters that cannot be compressed."""
    keys = ["".join(chr(0x4E00 + (number * number * 7919 + more) % 20_000) for number in range(998)) for more in (0, 1)]
    assert len(keys[0].encode()) > 2704
    for key in keys:
        assert claim(ledger, key)
        assert state(ledger, key) == "claimed"


def test_a_database_may_have_another_encoding(postgresql: PostgreSQL) -> None:
    """Keys that it has not are an error, not question marks, which would be the same for two keys."""
    postgresql.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with PostgreSQLLedger(postgresql.url_of("latin")) as ledger:
        assert claim(ledger, "Müller")
        assert state(ledger, "Müller") == "claimed"
        with pytest.raises(LedgerError, match="a key cannot be written in the encoding of the database"):
            claim(ledger, "\N{SNOWMAN}")


def test_a_database_may_have_no_encoding(postgresql: PostgreSQL) -> None:
    """Then texts are bytes, which are read as they were written."""
    postgresql.execute("CREATE DATABASE bare ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    with PostgreSQLLedger(postgresql.url_of("bare")) as ledger:
        assert claim(ledger, "\N{SNOWMAN}")
        assert [entry.key for entry in ledger.entries()] == ["\N{SNOWMAN}"]


def test_a_key_that_is_no_text_is_an_error(ledger: PostgreSQLLedger) -> None:
    """Half a character."""
    with pytest.raises(LedgerError, match="a key cannot be written"):
        ledger.look_up("\ud800")


# Secrets


def shown(error: BaseException | None) -> str:
    """Return all that a report of an error shows: its text, its causes, and the variables of every frame."""
    if error is None:
        return ""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    # This file knows the password.
    others = [frame for frame in told.stack if frame.filename != __file__]
    frames = [f"{name}={value}" for frame in others for name, value in (frame.locals or {}).items()]
    return f"{error!r} {error} {frames} {shown(error.__cause__)} {shown(error.__context__)}"


CONNINFOS = {
    "url": f"postgresql://me:{PASSWORD}@127.0.0.1:1/db",
    "words": f"host=127.0.0.1 port=1 password={PASSWORD}",
    "option": f"postgresql://127.0.0.1:1/db?password={PASSWORD}",
    "an @ in it": f"postgresql://me:a@{PASSWORD}@127.0.0.1:1/db",
    "a / in it": f"postgresql://me:1/{PASSWORD}@127.0.0.1:1/db",
    "a port of it": f"postgresql://me/{PASSWORD}@127.0.0.1:1",
    "a # in it": f"postgresql://me:#{PASSWORD}@127.0.0.1:1/db",
    "broken": f"postgresql://me:{PASSWORD}%@127.0.0.1:1/db",
    "no words": f"{PASSWORD}",
    "another scheme": f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/db",
}


@pytest.mark.parametrize("hide", [str, Secret])
@pytest.mark.parametrize("kind", CONNINFOS)
def test_no_error_shows_the_password(kind: str, hide: Callable[[str], Any]) -> None:
    """Wherever it is in the address, and whether the address is right or wrong."""
    with pytest.raises((LedgerError, ConfigurationError)) as caught:
        look_up(hide(CONNINFOS[kind]))
    assert PASSWORD not in shown(caught.value)
    assert caught.value.hint


def look_up(conninfo: str | Secret) -> None:
    """Use a ledger."""
    with PostgreSQLLedger(conninfo) as ledger:
        ledger.look_up("invoice-1")


def test_a_password_in_the_reply_of_the_server_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some proxies quote it."""

    def refuse(*_: object, **__: object) -> None:
        raise psycopg.OperationalError(f'the proxy does not know "{PASSWORD}"')

    monkeypatch.setattr(psycopg.Connection, "connect", refuse)
    with pytest.raises(LedgerError) as caught:
        look_up(CONNINFOS["url"])
    assert PASSWORD not in str(caught.value)


def test_a_ledger_shows_no_password() -> None:
    """Nor do its parts."""
    ledger = PostgreSQLLedger(CONNINFOS["url"])
    assert PASSWORD not in repr(ledger)
    assert PASSWORD not in repr(vars(ledger))
