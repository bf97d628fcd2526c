"""Real workers with a real Redis: each kind of pool; killed, delivered again, and shut down."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis as RedisClient

from databases import Redis
from integrations.celery.workers import Site, site
from securesmtp import Outcome

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
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 7
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
