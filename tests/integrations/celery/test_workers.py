"""Real workers with a real Redis: each kind of pool; killed, delivered again, and shut down."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis as RedisClient

from databases import Redis
from integrations.celery.workers import PATIENCE, Site, site
from securesmtp import Outcome
from securesmtp.ledger import SQLiteLedger, State

Make = Callable[..., Site]
_NO_SECRETS = ("example.net", "the body of", "dGhlIGJvZHkgb2Yg")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close what it has at the end of the test."""
    with ExitStack() as made:
        yield made


@pytest.fixture
def make(redis: Redis, tmp_path: Path, stack: ExitStack) -> Make:
    """Return what makes a site on the Redis of the tests."""
    return lambda **environment: stack.enter_context(site(tmp_path, redis.url, redis.url, **environment))


@contextmanager
def _events(app: Celery) -> Iterator[tuple[list[Any], threading.Event]]:
    """Collect Celery's events; the second value is set when one of them is the success of a task."""
    seen, has_succeeded = list[Any](), threading.Event()

    def note(event: dict[str, Any]) -> None:
        seen.append(event)
        if event["type"] == "task-succeeded":
            has_succeeded.set()

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": note})
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "wakeup": False})
        thread.start()
        try:
            yield seen, has_succeeded
        finally:
            # It looks after each event, or after a second without one.
            receiver.should_stop = True
            thread.join()


@pytest.mark.parametrize(
    "pool", ["prefork", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("threads", "gevent", "solo"))]
)
def test_every_pool_sends_each_message_once_and_shows_nothing_of_it(
    make: Make, redis: Redis, stack: ExitStack, pool: str
) -> None:
    """No password is in the broker, and neither an address nor the body in logs and events (PITFALLS-1, Q5 and Q19)."""
    if pool == "gevent" and find_spec("gevent") is None:
        pytest.skip("gevent is missing: it has no wheel for this Python")
    made = make()
    seen, has_succeeded = stack.enter_context(_events(made.task.app))
    sent = [made.send(str(number)) for number in range(6)]
    with RedisClient.from_url(redis.url) as client:
        queued = client.lrange(made.environment["TEST_QUEUE"], 0, -1)
    assert len(queued) == 6
    password = made.server.login[1] if made.server.login else ""
    assert password not in repr(queued)
    # One of them twice, as after a lost acknowledgement.
    sent.append(made.send("0"))
    worker = made.start("-P", pool, "-c", "2")
    results = [made.result(each) for each in sent]
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 7, worker.log
    assert results[0].message_id == results[-1].message_id
    assert made.arrived == [str(number) for number in range(6)]
    # Whoever listens to events may come late.
    numbers = count()
    while not has_succeeded.wait(1):
        made.result(made.send(f"more {next(numbers)}"))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    for text in (*_NO_SECRETS, password):
        assert text not in worker.log
        assert text not in repr(seen)
    assert worker.log.count(" connected in ") == worker.log.count("closed by the caller") > 0


def _states(made: Site) -> dict[str, State]:
    with SQLiteLedger(made.path, longest_send=1) as ledger:
        return {entry.key: entry.state for entry in ledger.entries()}


@pytest.mark.exhaustive
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_worker_that_is_killed_while_it_sends_leaves_a_doubt(
    request: pytest.FixtureRequest, tmp_path: Path, stack: ExitStack, broker: str
) -> None:
    """The broker delivers again; nobody sends again, and the result says that it may have arrived (PITFALLS-1, Q7)."""
    url, results = (request.getfixturevalue(name).url for name in (broker, "redis"))
    made = stack.enter_context(site(tmp_path, url, results, TEST_LONGEST_SEND="3", TEST_DEADLINE="2"))
    worker = made.start("-P", "prefork", "-c", "1")

    def kill() -> None:
        for child in worker.children:
            os.kill(child, signal.SIGKILL)

    made.before_reply.append(kill)
    result = made.result(made.send("1"))
    assert (result.outcome, result.from_ledger) == (Outcome.UNKNOWN, True)
    assert made.arrived == ["1"]
    made.before_reply.clear()
    # The other messages are sent by the process that has taken its place.
    assert made.result(made.send("2")).outcome is Outcome.ACCEPTED
    assert _states(made) == {"1": State.UNKNOWN, "2": State.ACCEPTED}


@pytest.mark.exhaustive
def test_a_process_that_gets_sigterm_finishes_its_message(make: Make) -> None:
    """As systemd sends it, without `KillMode=mixed`: the task is delivered again, and returns the ledger's receipt."""
    made = make()
    worker = made.start("-P", "prefork", "-c", "1")

    def end() -> None:
        for child in worker.children:
            os.kill(child, signal.SIGTERM)

    made.before_reply.append(end)
    result = made.result(made.send("1"))
    assert (result.outcome, result.from_ledger) == (Outcome.ACCEPTED, True)
    assert made.arrived == ["1"]


@pytest.mark.exhaustive
def test_a_worker_that_is_killed_before_the_claim_loses_nothing(make: Make, tmp_path: Path) -> None:
    """The broker delivers again what was not acknowledged, and it is sent then (PITFALLS-1, Q7)."""
    marker = tmp_path / "killed"
    made = make(TEST_KILL_ONCE=str(marker))
    made.start("-P", "prefork", "-c", "1")
    assert made.result(made.send("1")).outcome is Outcome.ACCEPTED
    assert made.arrived == ["1"]
    assert marker.exists()


@pytest.mark.exhaustive
def test_redis_delivers_again_while_the_message_is_being_sent(make: Make) -> None:
    """Its visibility timeout is shorter than the send: the second worker sends nothing, and ends as the first one."""
    made = make(TEST_VISIBILITY="1", TEST_DEADLINE="100", TEST_LONGEST_SEND="200")
    arrived, go_on = threading.Event(), threading.Event()
    made.before_reply += [arrived.set, lambda: go_on.wait(PATIENCE)]
    # It takes nothing while it sends: Redis delivers to the second one.
    first = made.start("-P", "prefork", "-c", "1", "--prefetch-multiplier", "1")
    sent = made.send("1")
    assert arrived.wait(PATIENCE), first.log
    second = made.start("-P", "prefork", "-c", "1")
    second.wait_for(" retry: ")
    assert first.log.count(" retry: ") == 0
    go_on.set()
    result = made.result(sent)
    assert (result.outcome, result.from_ledger) == (Outcome.ACCEPTED, False)
    second.wait_for(" succeeded in ")
    assert made.arrived == ["1"]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGQUIT]],
    ids=["once", "twice", "SIGQUIT"],
)
def test_a_worker_that_is_told_to_end_leaves_no_second_copy(make: Make, signals: list[int]) -> None:
    """It finishes what it sends; what it has not begun is sent by the next worker (PITFALLS-1, Q20)."""
    made = make(TEST_LONGEST_SEND="20")
    arrived, go_on = threading.Event(), threading.Event()
    made.before_reply += [arrived.set, lambda: go_on.wait(PATIENCE)]
    worker = made.start("-P", "prefork", "-c", "1")
    sent, later = made.send("1"), made.send("2")
    assert arrived.wait(PATIENCE), worker.log
    for count_, number in enumerate(signals, 1):
        worker.signal(number)
        if number == signal.SIGTERM:
            worker.wait_for("Warm shutdown", count_)
    go_on.set()
    worker.wait()
    made.before_reply.clear()
    made.start("-P", "prefork", "-c", "1")
    # SIGQUIT ends the process of the pool at any point.
    assert made.result(sent).outcome in {Outcome.ACCEPTED, *([Outcome.UNKNOWN] if signal.SIGQUIT in signals else [])}
    assert made.result(later).outcome is Outcome.ACCEPTED
    assert made.arrived == ["1", "2"]


@pytest.mark.exhaustive
def test_a_process_of_one_task_closes_its_connection(make: Make) -> None:
    """Celery ends it by `os._exit`, which runs no `atexit` (PITFALLS-1, Q19)."""
    made = make()
    worker = made.start("-P", "prefork", "-c", "1", "--max-tasks-per-child", "1")
    results = [made.result(made.send(str(number))) for number in range(3)]
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 3
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert worker.log.count(" connected in ") == worker.log.count("closed by the caller") == 3
