"""The command of many messages, killed at random points fifty times, with a real server that counts."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from killed_runs import Mailing, end, kill
from servers.real import ALICE, DOMAIN, RealServer

_KILLS = 50
_MESSAGES = 1000


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1])
def test_fifty_kills_lose_nothing_and_double_nothing(
    postfix: RealServer,
    ca_file: Path,
    tmp_path: Path,
    seed: int,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    """At any moment: while it starts, while it checks, and while it sends."""
    chance = random.Random(seed)
    environment = {
        "SMTP_HOST": postfix.host,
        "SMTP_PORT": str(postfix.implicit_port),
        "SMTP_TLS": "implicit",
        "SMTP_CA_FILE": str(ca_file),
        "SMTP_USERNAME": ALICE.username,
        "SMTP_PASSWORD": ALICE.password,
    }
    mailing = Mailing(tmp_path, _MESSAGES, DOMAIN, environment)
    postfix.delivered_now()
    kills = 0
    while kills < _KILLS:
        process = mailing.start("--connections", str(chance.choice([1, 4, 8])))
        if chance.random() < 0.2:
            # In its start, or in its check.
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.05, 2))
        else:
            _take(mailing, postfix, chance.randint(1, 12))
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.05))
        assert process.returncode is None, "the mailing is too small for so many kills"
        kill(process)
        kills += 1
    summary, _ = end(mailing.start())
    with suppress(TimeoutError):
        while True:
            _take(mailing, postfix, 1, timeout=5)
    doubtful = mailing.check(summary)
    record_testsuite_property("doubtful", len(doubtful))
    record_testsuite_property("doubtful that arrived", sum(mailing.arrived[name] for name in doubtful))


def _take(mailing: Mailing, server: RealServer, count: int, timeout: float = 60) -> None:
    for delivered in server.deliver(count, timeout):
        mailing.arrived.update(delivered.recipients)
