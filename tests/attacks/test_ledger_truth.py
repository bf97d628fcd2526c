"""What a ledger says after an interrupt, a cut or a kill, against what the server accepted (PITFALLS-1, Q1 and Q2)."""

from __future__ import annotations

import asyncio
import itertools
import linecache
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

import memory_ledger
from conftest import AsyncMailer, Mailer, Run, Serve, thorough, unmeasured
from memory_ledger import MemoryLedger, new_ledger
from scripted import Peer, Script, ScriptedServer, honest
from securesmtp import Envelope, Outcome, SendResult, Window, _results, _workers
from securesmtp._bulk import backlog, calls, claims, jobs, read_ahead
from securesmtp._protocol.effects import Answer, Effect
from securesmtp._transport import poller
from securesmtp._transport.channel import Steps
from securesmtp._transport.connection import Connection
from securesmtp.ledger import Entry, Item, SQLiteLedger, State

OFFER = ("PIPELINING", "8BITMIME", "CHUNKING")
SENT_FOR_SURE = {State.ACCEPTED}
MAYBE_SENT = {State.CLAIMED, State.UNKNOWN}
modes = pytest.mark.parametrize("pipelining", ["message", "session"])


def mails(count: int, run: object = "") -> Iterator[Envelope]:
    """Return messages that are the same in each try of a *run*."""
    for number in range(count):
        yield Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\ntext\r\n", key=f"{run}.{number}")


def numbered(count: int, run: object = "") -> Iterator[Envelope]:
    """Return messages with their key as subject."""
    for envelope in mails(count, run):
        yield Envelope("a@b.example", ["c@d.example"], f"Subject: {envelope.key}\r\n\r\n".encode(), key=envelope.key)


def arrived(contents: list[bytes]) -> Counter[str]:
    """Return how often each key is among the messages that a server accepted."""
    return Counter(content.split(b"\r\n")[0].removeprefix(b"Subject: ").decode() for content in contents)


def accepted(server: ScriptedServer) -> Counter[str]:
    """Return how often a server accepted each message."""
    return arrived([message.content for message in server.accepted])


def check(states: dict[str, State], copies: Counter[str], where: object = "") -> None:
    """Check that the ledger says the truth of each message, and that none was accepted twice."""
    assert set(copies) <= set(states), where
    for key, state in states.items():
        if state in SENT_FOR_SURE:
            assert copies[key] == 1, (where, key, state)
        elif state not in MAYBE_SENT:
            assert copies[key] == 0, (where, key, state)
        else:
            assert copies[key] <= 1, (where, key, state)


def script() -> Script:
    """Return an honest server that takes many in flight."""
    return honest(extensions=OFFER)


@modes
@pytest.mark.parametrize("way", ["read", "written"])
def test_a_cut_at_any_octet_leaves_the_ledger_true(
    serve: Serve, mailer: Mailer, stride: int, pipelining: str, way: str
) -> None:
    """The next run sends what was not sent, and nothing else."""
    for at in range(stride, 1500, 60 * stride - 53):
        server, ledger = serve(script(), overlaps=True, **{f"cut_after_{way}": at}), new_ledger(pipelining)
        with mailer(server, pipelining=pipelining, max_connections=2, max_connect_failures=1) as mine:
            results = list(mine.send_many(numbered(4), ledger=ledger))
        server.joined()
        copies, states = accepted(server), ledger.states()
        check(states, copies, at)
        for result in results:
            assert states.get(f".{result.index}", State.NOT_SENT).value == result.outcome.value, at
        whole = serve(script(), overlaps=True)
        with mailer(whole, pipelining=pipelining) as mine:
            list(mine.send_many(numbered(4), ledger=ledger))
        after = accepted(whole)
        assert set(after) == {f".{number}" for number in range(4)} - {
            key for key, state in states.items() if state in SENT_FOR_SURE | MAYBE_SENT
        }, at
        server.stop()
        whole.stop()


@modes
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [SystemExit, LookupError])
def test_an_interrupt_at_any_effect_leaves_the_ledger_true(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve,
    mailer: Mailer,
    monkeypatch: pytest.MonkeyPatch,
    pipelining: str,
    error: type[BaseException],
    stride: int,
    *,
    after: bool,
) -> None:
    """Whatever ends the thread of the run, each claim has an end, and a second run sends the rest."""
    perform = Connection._perform
    for at in itertools.count(0, 3 * stride - 2):
        seen: list[Effect] = []

        def interrupts(
            connection: Connection, effect: Effect, at: int = at, seen: list[Effect] = seen
        ) -> Steps[Answer]:
            seen.append(effect)
            if len(seen) == at + 1 and not after:
                raise error
            steps = perform(connection, effect)
            answer = connection._replies if steps is None else (yield from steps)
            if len(seen) == at + 1:
                raise error
            return answer

        server, ledger, results = serve(script(), overlaps=True), new_ledger(pipelining), list[SendResult]()
        mine = mailer(server, pipelining=pipelining, max_connections=1)
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "_perform", interrupts)
            run = mine.send_many(numbered(5), ledger=ledger)
            with suppress(error):
                results.extend(run)
        results.extend(run)
        copies, states = accepted(server), ledger.states()
        check(states, copies, at)
        assert State.CLAIMED not in states.values(), at
        for result in results:
            assert states.get(f".{result.index}", State.PREPARED).value in {result.outcome.value, "prepared"}, at
        list(mine.send_many(numbered(5), ledger=ledger))
        assert set(accepted(server).values()) <= {1}, at
        doubtful = {key for key, state in states.items() if state is State.UNKNOWN}
        assert set(accepted(server)) | doubtful == {f".{number}" for number in range(5)}, at
        mine.close()
        server.stop()
        if len(seen) <= at:
            assert at > 10
            return


def _interrupted_at(at: int, files: set[str | None], left: list[int]) -> Callable[[FrameType, str, object], Any]:
    # No signal strikes at a `try`, where Python does nothing and no handler holds yet, nor at the end of a `with`: its
    # line is traced again before `__exit__` is called.
    skipped = {"try:", "return result", "with wakeup, waker:", "with self._wakeable() as wakeup:", "with self._lock:"}

    def trace(frame: FrameType, what: str, _: object) -> Any:
        file = frame.f_code.co_filename
        if file not in files:
            return None
        # A signal strikes after a call, and not between an assignment and the return after it.
        if what == "line" and linecache.getline(file, frame.f_lineno).strip() not in skipped:
            left[0] -= 1
            if left[0] == -1:
                raise KeyboardInterrupt
        return trace

    return trace


@modes
@pytest.mark.parametrize("threads", [True, False], ids=["thread", "no thread"])
@pytest.mark.parametrize("step", thorough(193, 3))
def test_an_interrupt_at_any_line_leaves_the_ledger_true(  # noqa: PLR0913 -- fixtures and a row
    serve: Serve, mailer: Mailer, no_threads: Callable[[], None], pipelining: str, step: int, *, threads: bool
) -> None:
    """In the caller's thread, and, without another one, in the claims, the ledger and the poller themselves."""
    server = serve(script(), connections=5000, overlaps=True)
    mine = mailer(server, max_connections=2, pipelining=pipelining, window=Window(messages=3))
    if not threads:
        no_threads()
    files = {
        module.__file__
        for module in (_results, _workers, backlog, calls, claims, jobs, poller, read_ahead, memory_ledger)
    }
    for at in itertools.count(0, step):
        ledger, told, left = new_ledger(pipelining), list[SendResult](), [at]
        results = mine.send_many(numbered(6, at), ledger=ledger)
        before = sys.gettrace()
        sys.settrace(_interrupted_at(at, files, left))
        try:
            for result in results:
                told.append(result)
        except KeyboardInterrupt:
            sys.settrace(before)
            told += list(results)
        finally:
            sys.settrace(before)
        copies = Counter({key: count for key, count in accepted(server).items() if key.startswith(f"{at}.")})
        states = ledger.states()
        check(states, copies, at)
        assert [result.index for result in told] == list(range(len(told))), at
        assert State.CLAIMED not in states.values(), at
        for result in told:
            state = states.get(f"{at}.{result.index}", State.PREPARED)
            assert state.value in {result.outcome.value, "prepared"}, (at, result)
        assert all(slot.is_free for slot in mine._pool.slots), at
        if left[0] >= 0:
            break
    assert [result.outcome for result in told] == [Outcome.ACCEPTED] * 6
    assert at > 200


class Interrupted(MemoryLedger):
    """A ledger whose first call of a method is interrupted when it has been committed."""

    def __init__(self, method: str) -> None:
        """Interrupt *method*."""
        super().__init__()
        self.method = method

    def _note(self, name: str, keys: list[str]) -> None:
        super()._note(name, keys)
        if name == self.method:
            self.method = ""
            raise KeyboardInterrupt

    def claim(self, items: Sequence[Item], token: str) -> Sequence[Entry]:
        """Claim, and be interrupted."""
        if self.method == "claim":
            self.method = ""
            super().claim(items, token)
            raise KeyboardInterrupt
        return super().claim(items, token)


@pytest.mark.parametrize("method", ["claim", "finish"])
@pytest.mark.parametrize("threads", [True, False], ids=["thread", "no thread"])
def test_an_interrupt_in_the_ledger_itself_leaves_it_true(
    serve: Serve, mailer: Mailer, no_threads: Callable[[], None], method: str, *, threads: bool
) -> None:
    """A claim that was just committed is given back; an end that was not is written again."""
    server, ledger, told = serve(script(), overlaps=True), Interrupted(method), list[SendResult]()
    if not threads:
        no_threads()
    results = mailer(server, max_connections=2).send_many(numbered(6), ledger=ledger)
    with pytest.raises(KeyboardInterrupt):
        told.extend(results)
    told.extend(results)
    states = ledger.states()
    check(states, accepted(server))
    assert states
    assert State.CLAIMED not in states.values()
    for result in told:
        assert states.get(f".{result.index}", State.PREPARED).value in {result.outcome.value, "prepared"}


# A program that sends a hundred messages, and says what became of those that an earlier run has left.
PROGRAM = """
import sys
from securesmtp import Envelope, SecureMailer, Window
from securesmtp.ledger import SQLiteLedger

port, ca_file, path, pipelining, count = sys.argv[1:]
ledger = SQLiteLedger(path, exclusive=True)

def messages():
    for number in range(int(count)):
        yield Envelope("a@b.example", ["c@d.example"], f"Subject: .{number}\\r\\n\\r\\n".encode(), key=f".{number}")

options = {"ca_file": ca_file, "max_connections": 3, "pipelining": pipelining, "window": Window(messages=4)}
with SecureMailer("localhost", int(port), **options) as mailer:
    print("begun", flush=True)
    for result in mailer.send_many(messages(), ledger=ledger):
        print(result.index, result.outcome.name, flush=True)
"""


def _told(output: str) -> dict[str, str]:
    """Return the outcome of each key that a program has printed."""
    lines = [line.split() for line in output.splitlines(keepends=True)[1:] if line.endswith("\n")]
    assert all(len(line) == 2 for line in lines), output
    return {f".{index}": outcome for index, outcome in lines}


def _start(server: ScriptedServer, ca_file: Path, path: Path, pipelining: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(server.port), str(ca_file), str(path), pipelining, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env=unmeasured(),
    )


@pytest.mark.parametrize(
    ("pipelining", "kills"),
    [
        ("message", 2),
        ("session", 1),
        pytest.param("message", 25, marks=pytest.mark.exhaustive),
        pytest.param("session", 25, marks=pytest.mark.exhaustive),
    ],
)
def test_a_killed_program_goes_on_where_it_was(
    serve: Serve, ca_file: Path, tmp_path: Path, pipelining: str, kills: int
) -> None:
    """At any point, again and again: nothing is lost, nothing is sent twice, and what is doubtful is reported."""
    count, path, seed = 30 * (kills + 1), tmp_path / "a.ledger", random.randrange(1 << 30)
    chosen, struck = random.Random(seed), threading.Event()
    aim: list[tuple[subprocess.Popen[str], int, bool]] = []
    seen = itertools.count()

    def strike(peer: Peer, content: bytes) -> bytes:
        # In the middle of what the program does: before or after the server has accepted a message.
        if aim and next(seen) >= aim[0][1] and not struck.is_set():
            struck.set()
            program, _, cut = aim.pop()
            program.send_signal(signal.SIGKILL)
            if cut:
                program.wait(30)
                peer.cut()
                peer.sleep_until_peer_closes()
        return b"250 2.0.0 ok\r\n"

    server = serve(honest(extensions=OFFER, replies={"CONTENT": strike}), connections=5000, overlaps=True)
    told: dict[str, str] = {}
    doubtful_before = set[str]()
    for kill in range(kills):
        struck.clear()
        seen = itertools.count()
        program = _start(server, ca_file, path, pipelining, count)
        aim.append((program, chosen.randrange(1, 20), chosen.random() < 0.5))
        output = program.communicate(timeout=60)[0]
        assert program.returncode == -signal.SIGKILL, (seed, kill, output)
        server.joined()
        with SQLiteLedger(path, exclusive=True) as ledger:
            states = {entry.key: entry.state for entry in ledger.entries()}
        check(states, accepted(server), (seed, kill))
        assert State.CLAIMED not in states.values()
        told |= _told(output)
        # Whatever a program has printed, the ledger has.
        assert all(states[key].name == outcome for key, outcome in told.items()), (seed, kill)
        doubtful = {key for key, state in states.items() if state is State.UNKNOWN}
        assert doubtful_before <= doubtful
        most = 3 if pipelining == "message" else 3 * 4 + 2 * 4
        assert len(doubtful - doubtful_before) <= most, (seed, kill)
        doubtful_before = doubtful
    last = _start(server, ca_file, path, pipelining, count)
    output = last.communicate(timeout=60)[0]
    assert last.returncode == 0, (seed, output)
    outcomes = _told(output)
    copies = accepted(server)
    assert len(outcomes) == count, seed
    for key, outcome in outcomes.items():
        assert outcome in {"ACCEPTED", "UNKNOWN"}, seed
        assert copies[key] == 1 or (outcome == "UNKNOWN" and not copies[key]), (seed, key)
    assert {key for key, outcome in outcomes.items() if outcome == "UNKNOWN"} == doubtful_before, seed


@modes
@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.parametrize("way", ["cancelled", "abandoned", "closed"])
def test_a_run_of_tasks_that_ends_early_leaves_the_ledger_true(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    run: Run, serve: Serve, async_mailer: AsyncMailer, pipelining: str, after: int, way: str
) -> None:
    """Cancelled, closed, or left to the end of the event loop, which cancels the task that keeps the ledger."""
    server, ledger = serve(script(), overlaps=True), MemoryLedger()
    mine, told = async_mailer(server, pipelining=pipelining, max_connections=2), list[SendResult]()

    async def main() -> None:
        results = mine.send_many(numbered(20), ledger=ledger)
        with anyio.CancelScope() as scope:
            async for result in results:
                told.append(result)
                if len(told) == after:
                    if way == "abandoned":
                        # Nobody reads on, and nobody closes anything: the loop ends.
                        return
                    if way == "closed":
                        await results.aclose()
                        break
                    scope.cancel()
        told.extend([result async for result in results])
        await mine.close()

    run(main)
    # In another loop: that drops the connections of the first one.
    run(mine.close)
    server.joined()
    states = ledger.states()
    check(states, accepted(server))
    assert State.CLAIMED not in states.values()
    assert len(told) >= after
    for result in told:
        assert states.get(f".{result.index}", State.PREPARED).value in {result.outcome.value, "prepared"}


def test_a_claim_that_the_end_of_the_loop_cuts_short_has_an_end(
    run: Run, serve: Serve, async_mailer: AsyncMailer
) -> None:
    """The task that waits for it is cancelled, but its thread is not."""
    server, ledger = serve(script(), overlaps=True), MemoryLedger()
    mine, has_begun, is_over = async_mailer(server, max_connections=1), threading.Event(), threading.Event()

    def before(name: str) -> None:
        if name == "claim" and ledger.states():
            has_begun.set()
            is_over.wait(0.3)

    ledger.before = before

    async def main() -> None:
        results = mine.send_many(numbered(4), ledger=ledger)
        await anext(results)
        await anyio.to_thread.run_sync(has_begun.wait, 10)

    run(main)
    is_over.set()
    run(mine.close)
    server.joined()
    for thread in threading.enumerate():
        if thread.name == "securesmtp: ledger":
            thread.join(10)
    check(ledger.states(), accepted(server))
    assert State.CLAIMED not in ledger.states().values()


def test_without_the_task_that_keeps_the_ledger_nothing_more_is_sent(serve: Serve, async_mailer: AsyncMailer) -> None:
    """A program may cancel all tasks that it finds, and go on."""
    reached, go = threading.Event(), threading.Event()

    def reply(peer: Peer, content: bytes) -> bytes:
        if content.startswith(b"Subject: .1\r"):
            reached.set()
            go.wait(10)
        return b"250 2.0.0 ok\r\n"

    server, ledger = serve(honest(extensions=OFFER, replies={"CONTENT": reply}), overlaps=True), MemoryLedger()
    mine = async_mailer(server, pipelining="session", max_connections=1, window=Window(messages=2))

    async def main() -> list[SendResult]:
        results = mine.send_many(numbered(12), ledger=ledger)
        told = [await anext(results)]
        await asyncio.to_thread(reached.wait, 10)
        (keeper,) = (task for task in asyncio.all_tasks() if task.get_name() == "securesmtp-ledger")
        keeper.cancel()
        await asyncio.wait([keeper])
        go.set()
        told += [result async for result in results]
        await mine.close()
        return told

    told = asyncio.run(main())
    server.joined()
    states = ledger.states()
    check(states, accepted(server))
    assert State.CLAIMED not in states.values()
    assert told[-1].outcome is Outcome.NOT_SENT
