"""What only tasks can do to a failover: cancel a send, leave a run, wait twice for one result."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from conftest import AsyncMailer, Run, Serve
from scripted import Peer, honest
from securesmtp import AsyncFailover, ConfigurationError, Envelope, Failover, Outcome, Receipt, SendResult
from securesmtp.testing import AsyncRecordingMailer
from tasks import happens
from test_failover import Switch
from test_many import mails

RAW = b"Subject: x\r\n\r\nx\r\n"
CONSTRUCTORS = ("__init__", "from_urls", "from_env")
METHODS = (*CONSTRUCTORS, "send", "send_bytes", "send_many", "check", "stats", "close")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_signature_of_the_sync_one(name: str) -> None:
    """Names, kinds and defaults."""
    ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (AsyncFailover, Failover))
    assert [(each.name, each.kind, each.default) for each in ours.values()] == [
        (each.name, each.kind, each.default) for each in theirs.values()
    ]


async def _send(mine: AsyncFailover) -> Receipt:
    return await mine.send_bytes(RAW, mail_from="", recipients=["c@d.example"])


def test_a_failover_of_tasks_closes_its_mailers(serve: Serve, async_mailer: AsyncMailer, run: Run) -> None:
    """At the end of its block; it shows where it sends to."""
    server, second = serve(), serve()

    async def main() -> None:
        mailers = [async_mailer(server), async_mailer(second)]
        async with AsyncFailover(mailers) as mine:
            assert mine.mailers == tuple(mailers)
            assert repr(mine) == f"<AsyncFailover localhost:{server.port}, localhost:{second.port}>"
            await _send(mine)
            assert [each.accepted for each in mine.stats()] == [1, 0]
        with pytest.raises(ConfigurationError, match="closed"):
            await _send(mine)

    run(main)


class Waits:
    """A server that does not reply to the first MAIL."""

    def __init__(self, serve: Serve) -> None:
        self.arrived = threading.Event()
        self.server = serve(honest(replies={"MAIL": self._reply}), connections=50)

    def _reply(self, peer: Peer, _: bytes) -> bytes:
        if not self.arrived.is_set():
            self.arrived.set()
            peer.sleep_until_peer_closes()
        return b"250 ok\r\n"


def test_a_cancelled_send_goes_to_no_other_server(serve: Serve, async_mailer: AsyncMailer, run: Run) -> None:
    """The server is not down because of it."""
    first, second = Waits(serve), serve()

    async def main() -> None:
        async with AsyncFailover([async_mailer(first.server), async_mailer(second)]) as mine:
            async with anyio.create_task_group() as group:
                group.start_soon(_send, mine)
                await happens(first.arrived)
                group.cancel_scope.cancel()
            assert second.connections == []
            await _send(mine)

    run(main)
    assert (len(first.server.accepted), second.connections) == (1, [])


def test_a_cancelled_run_can_be_read_on(serve: Serve, async_mailer: AsyncMailer, run: Run) -> None:
    """What was being sent, and what was read, has a result; no other server gets it."""
    first, second = Waits(serve), serve()

    async def main() -> list[SendResult]:
        async with AsyncFailover([async_mailer(first.server, max_connections=1), async_mailer(second)]) as mine:
            results = mine.send_many(mails(20))
            async with anyio.create_task_group() as group:
                group.start_soon(anext, results)
                await happens(first.arrived)
                with pytest.raises(RuntimeError, match="another task"):
                    await anext(results)
                group.cancel_scope.cancel()
            return [result async for result in results]

    done = run(main)
    assert [result.index for result in done] == list(range(len(done)))
    assert {result.outcome for result in done} == {Outcome.NOT_SENT}
    assert second.connections == []


@pytest.mark.parametrize("began", [False, True])
def test_a_run_that_is_left_sends_only_what_it_is_sending(
    serve: Serve, async_mailer: AsyncMailer, run: Run, *, began: bool
) -> None:
    """The end of its block waits for that, and its results can be read; an asynchronous iterable is read no further."""
    first, second, read = Switch(serve), serve(), list[Envelope]()
    first.is_down = True

    async def messages() -> AsyncGenerator[Envelope]:
        for each in mails(100):
            read.append(each)
            yield each

    async def main() -> list[SendResult]:
        mailers = async_mailer(first.server, max_connections=1), async_mailer(second, max_connections=1)
        async with AsyncFailover(mailers) as mine:
            async with aclosing(messages()) as source, mine.send_many(source) as results:
                done = [await anext(results)] if began else []
            return [*done, *[result async for result in results]]

    done = run(main)
    assert len(done) == len(read) == (len(done) if began else 0)
    assert len(read) < 10
    assert len(second.accepted) == sum(result.outcome is Outcome.ACCEPTED for result in done) >= began


def test_an_error_of_an_asynchronous_iterable_is_raised_after_the_results(
    serve: Serve, async_mailer: AsyncMailer, run: Run
) -> None:
    """Once."""

    async def messages() -> AsyncIterator[Envelope]:
        for each in mails(2):
            yield each
        raise ZeroDivisionError

    async def main() -> None:
        async with AsyncFailover([async_mailer(serve())]) as mine:
            results: Any = mine.send_many(messages())
            assert [(await anext(results)).outcome for _ in range(2)] == [Outcome.ACCEPTED] * 2
            with pytest.raises(ZeroDivisionError):
                await anext(results)
            assert await anext(results, None) is None

    run(main)


def test_a_program_of_tasks_can_be_tested_with_recording_mailers(run: Run) -> None:
    """They play a server that fails; a large message is built without a thread."""

    async def main() -> None:
        first, second = AsyncRecordingMailer(fault="too_busy"), AsyncRecordingMailer()
        async with AsyncFailover([first, second]) as mine:
            assert [result.outcome async for result in mine.send_many(mails(3))] == [Outcome.ACCEPTED] * 3
            await mine.send_bytes(RAW + b"x\r\n" * 100_000, mail_from="", recipients=["c@d.example"])
        assert (len(first.messages), len(second.messages)) == (0, 4)

    run(main)
