"""
A message takes no more calls than it did: a rise of CPU is seen where time is too noisy to measure it.

`python -m bench.calls` prints the same by room of the house, with the CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from bench.calls import WAYS, count_calls, server, table
from bench.clients import Task

# Calls of our own functions for one message, and a twentieth more. With many in flight there is more room, because
# replies come in more or fewer pieces. Lower a number when calls are saved; raise it only for a reason.
MOST = {"send": 415, "send_bytes": 295, "send_many": 510, "send_many, session": 460, "async send": 430}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[int, str]]:
    """Start a server for all of them."""
    with server() as running:
        yield running


@pytest.mark.parametrize("way", MOST)
def test_a_message_takes_no_more_calls_than_it_did(
    way: str, running: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Count what few messages take, over connections that are open, and without a log of events."""
    # An example that another test ran may have switched the log on.
    caplog.set_level(logging.WARNING, "securesmtp")
    connections = min(2, WAYS[way])
    count = 80 if "session" in way else 5 * connections
    calls = count_calls(way, Task(*running, connections=connections), count)
    assert sum(calls.own.values()) / count <= MOST[way], table(calls, count, {})
