"""Many messages over several servers: results in order, nothing is lost, and nothing arrives twice."""

from __future__ import annotations

import io
import itertools
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import anyio
import pytest

from conftest import Mailer, Serve
from memory_ledger import MemoryLedger
from scripted import Peer, honest
from securesmtp import (
    AsyncFailover,
    AsyncSecureMailer,
    ConfigurationError,
    ConnectError,
    Envelope,
    Event,
    Failover,
    LedgerError,
    MessageError,
    Outcome,
    OutcomeUnknownError,
    QueuedMessage,
    RecipientsRefusedError,
    SecureMailer,
    SendResult,
    _queued,
)
from securesmtp._relay import Relay
from securesmtp._server_rules import Rules
from securesmtp._servers import Servers
from securesmtp.events import ServerDown, ServerUp
from securesmtp.ledger import SQLiteLedger, State
from securesmtp.testing import RecordingMailer
from test_failover import Over, Switch, clock, over
from test_many import mails

__all__ = ["clock", "over"]
ACCEPTED, REFUSED, NOT_SENT, UNKNOWN = Outcome.ACCEPTED, Outcome.REFUSED, Outcome.NOT_SENT, Outcome.UNKNOWN


def _ids(*servers: Any) -> list[str]:
    return [
        line.removeprefix(b"Message-ID: ").decode()
        for server in servers
        for message in server.accepted
        for line in message.content.split(b"\r\n")
        if line.startswith(b"Message-ID: ")
    ]


def _in_order(results: list[SendResult]) -> list[SendResult]:
    assert [(result.index, result.message_id) for result in results] == [(n, f"<{n}@x>") for n in range(len(results))]
    return results


@pytest.mark.faces("failover", sample=(3, 1))
@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("how", ["at MAIL", "at DATA", "after the content"])
def test_a_server_that_dies_in_a_run_loses_and_doubles_nothing(
    serve: Serve, mailer: Mailer, over: Over, how: str, pipelining: str
) -> None:
    """What arrived is what is accepted, and what may have: after the content it is unknown, and is not sent again."""
    count, lock, died = itertools.count(), threading.Lock(), threading.Event()
    verb, reply = {
        "at MAIL": ("MAIL", b"250 ok\r\n"),
        "at DATA": ("DATA", b"354 go\r\n"),
        "after the content": ("CONTENT", b"250 ok\r\n"),
    }[how]

    def dies(peer: Peer, _: bytes) -> bytes:
        with lock:
            if next(count) >= 7:
                died.set()
        if died.is_set():
            peer.close()
        return reply

    def greets(*_: object) -> bytes:
        return b"421 4.3.2 down\r\n" if died.is_set() else b"220 mx.test\r\n"

    first = serve(honest(replies={verb: dies, "GREETING": greets}), connections=50, overlaps=pipelining == "session")
    second = serve(connections=50, overlaps=pipelining == "session")
    options: dict[str, Any] = {"max_connections": 2, "pipelining": pipelining}
    results = _in_order(list(over(mailer(first, **options), mailer(second, **options)).send_many(mails(40))))
    outcomes = {result.message_id: result.outcome for result in results}
    arrived = Counter(_ids(first, second))
    assert max(arrived.values()) == 1
    assert {each for each, outcome in outcomes.items() if outcome is ACCEPTED} <= set(arrived)
    unknown = {each for each, outcome in outcomes.items() if outcome is UNKNOWN}
    assert set(outcomes) == set(arrived) | unknown
    assert bool(unknown) == (how == "after the content")
    assert set(outcomes.values()) <= {ACCEPTED, UNKNOWN}
    assert len(second.accepted) >= 25


@pytest.mark.faces("failover")
def test_a_server_that_is_back_gets_one_message_and_then_all(
    serve: Serve, mailer: Mailer, over: Over, clock: Callable[[float], None]
) -> None:
    """In the middle of a run, too."""
    first, second, events = Switch(serve), serve(connections=50), list[Event]()
    mine = over(mailer(first.server, on_event=events.append, max_connections=2), mailer(second, max_connections=2))
    first.is_down = True
    results = iter(mine.send_many(mails(60)))
    done = [next(results) for _ in range(10)]
    clock(61)
    done += [next(results) for _ in range(10)]
    tried = first.counts
    first.is_down = False
    clock(61)
    done += list(results)
    assert {result.outcome for result in _in_order(done)} == {ACCEPTED}
    # Two workers found it down, and later one message.
    assert tried in {(2, 0), (3, 0)}
    assert first.counts[1] >= 20
    assert len(done) == first.counts[1] + len(second.accepted) == 60
    assert [type(event) for event in events if isinstance(event, ServerDown | ServerUp)] == [ServerDown, ServerUp]


@pytest.mark.faces("failover")
def test_if_all_servers_are_down_the_rest_is_not_tried(serve: Serve, mailer: Mailer, over: Over) -> None:
    """Each server is tried for a few messages only; all can be sent again."""
    servers = [Switch(serve) for _ in range(2)]
    for each in servers:
        each.is_down = True
    mine = over(*(mailer(each.server, max_connections=2) for each in servers))
    results = _in_order(list(mine.send_many(mails(100))))
    assert {(result.outcome, result.retryable) for result in results} == {(NOT_SENT, True)}
    assert all(each.counts[0] <= 4 for each in servers)
    assert [len(result.error.earlier) for result in results if isinstance(result.error, ConnectError)][:2] == [1, 1]
    assert str(results[-1].error).count("not sent: ") == 1
    servers[1].is_down = False
    assert {result.outcome for result in mine.send_many(mails(10))} == {ACCEPTED}


@pytest.mark.faces("failover")
def test_only_what_is_refused_for_now_goes_to_the_next_server(serve: Serve, mailer: Mailer, over: Over) -> None:
    """The server goes on with the others, and rests not."""

    def refuses(_: Peer, line: bytes) -> bytes:
        return (
            b"451 4.7.1 greylisted\r\n"
            if b"later" in line
            else b"550 5.1.1 no\r\n"
            if b"no@" in line
            else b"250 ok\r\n"
        )

    first, second, events = serve(honest(replies={"RCPT": refuses})), serve(), list[Event]()
    people = ["a@d.example", "later@d.example", "b@d.example", "no@d.example", "later@d.example", "c@d.example"]
    mine = over(mailer(first, on_event=events.append), mailer(second), on_refusal="next")
    results = list(mine.send_many(Envelope("a@b.example", [each], b"Subject: x\r\n\r\nx\r\n") for each in people))
    assert [result.outcome for result in results] == [ACCEPTED] * 3 + [REFUSED] + [ACCEPTED] * 2
    assert (len(first.accepted), len(second.accepted)) == (3, 2)
    assert isinstance(results[3].error, RecipientsRefusedError)
    assert [event for event in events if isinstance(event, ServerDown)] == []


@pytest.mark.faces("failover")
def test_what_is_wrong_with_a_message_stops_no_other(serve: Serve, mailer: Mailer, over: Over) -> None:
    """No other server gets it; what the iterable raises is raised after the results."""
    first, second = serve(), serve()

    def messages() -> Iterator[Envelope]:
        yield from mails(1)
        yield Envelope("a@b.example", [], b"x")
        yield from mails(1)
        raise ZeroDivisionError

    results, done = iter(over(mailer(first), mailer(second)).send_many(messages())), list[SendResult]()
    with pytest.raises(ZeroDivisionError):
        done.extend(results)
    assert [result.outcome for result in done] == [ACCEPTED, NOT_SENT, ACCEPTED]
    assert isinstance(done[1].error, MessageError)
    assert second.connections == []
    assert list(results) == []


@pytest.mark.faces("failover")
def test_what_was_read_can_be_had_after_the_end(serve: Serve, mailer: Mailer, over: Over) -> None:
    """After `close`, no other server gets a message, and each that was read has a result."""
    first, second = Switch(serve), serve()
    first.is_down = True
    results: Any = over(mailer(first.server, max_connections=2), mailer(second, max_connections=2)).send_many(mails(30))
    done = [next(results) for _ in range(3)]
    results.close()
    done += list(results)
    assert 3 <= len(_in_order(done)) <= 10
    assert len(second.accepted) == sum(result.outcome is ACCEPTED for result in done)
    assert {result.outcome for result in done} <= {ACCEPTED, NOT_SENT}


@pytest.mark.faces("failover")
def test_a_ledger_holds_over_all_servers(serve: Serve, mailer: Mailer, over: Over, tmp_path: Path) -> None:
    """What one server has accepted is not sent to another one in the next run, and the Message-ID stays the same."""
    first, second = Switch(serve), serve()
    mine = over(mailer(first.server), mailer(second))
    first.is_down = True
    envelopes = [
        Envelope("a@b.example", ["c@d.example"], b"Subject: %d\r\n\r\nx\r\n" % n, f"key {n}") for n in range(20)
    ]
    with SQLiteLedger(tmp_path / "ledger") as ledger:
        results = list(mine.send_many([*envelopes, envelopes[0]], ledger=ledger))
        assert [(result.outcome, result.from_ledger) for result in results] == [(ACCEPTED, False)] * 20 + [
            (ACCEPTED, True)
        ]
        assert {entry.state for entry in ledger.entries()} == {State.ACCEPTED}
        first.is_down = False
        assert all(result.from_ledger for result in mine.send_many(envelopes, ledger=ledger))
    assert (first.counts[1], len(second.accepted)) == (0, 20)


def test_a_queued_message_goes_over_the_server_that_works(
    serve: Serve, mailer: Mailer, message: EmailMessage, tmp_path: Path
) -> None:
    """A task's message is recognised by what its caller gave: it is sent once, whichever server takes it."""
    first, second = Switch(serve), serve()
    first.is_down = True
    mine = Failover([mailer(first.server), mailer(second)])
    with SQLiteLedger(tmp_path / "ledger") as ledger:
        queued = QueuedMessage.prepare(message, ledger, key="a task")
        assert queued.send(mine, ledger, deadline=30).outcome is ACCEPTED
        first.is_down = False
        again = queued.send(mine, ledger, deadline=30)
    assert (again.outcome, again.from_ledger) == (ACCEPTED, True)
    assert (first.counts[1], len(second.accepted)) == (0, 1)


@pytest.mark.parametrize("passed", [29, 31])
def test_a_queued_message_goes_over_no_further_server_when_its_time_is_up(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, passed: int
) -> None:
    """A task queue would kill the worker while it sends, and the message would be in doubt."""
    now, ledger, events = [100.0], MemoryLedger(), list[Event]()
    monkeypatch.setattr(_queued, "monotonic", lambda: now[0])

    def slow(_: Peer, __: bytes) -> bytes:
        now[0] += passed
        return b"421 4.3.2 down\r\n"

    first, second = serve(honest(replies={"GREETING": slow})), serve()
    mine = Failover([mailer(first), mailer(second, on_event=events.append)])
    result = QueuedMessage.prepare(message, ledger, key="a task").send(mine, ledger, deadline=30)
    assert result.outcome is (ACCEPTED if passed < 30 else NOT_SENT)
    assert ledger.states() == {"a task": State(result.outcome.value)}
    assert (bool(events), len(second.accepted)) == ((True, 1) if passed < 30 else (False, 0))


@pytest.mark.faces("failover")
def test_a_broken_ledger_ends_the_run(serve: Serve, mailer: Mailer, over: Over, tmp_path: Path) -> None:
    """After the results; no server gets a message that was not claimed."""
    server = serve()
    with SQLiteLedger(tmp_path / "ledger") as ledger:
        mine = over(mailer(server), mailer(serve()))
        results, done = iter(mine.send_many(mails(30), ledger=ledger)), list[SendResult]()
        done.append(next(results))
        ledger.close()
        with pytest.raises(LedgerError):
            done.extend(results)
    assert len(server.accepted) < 30
    assert {result.outcome for result in done} <= {ACCEPTED, NOT_SENT}


def test_a_result_that_an_interrupt_has_lost_is_unknown_even_if_the_ledger_fails_then() -> None:
    """It may be that of a message which has arrived; only the message that was not looked up is certainly not sent."""
    relay = Relay(Servers([RecordingMailer()], SecureMailer, Rules(60, "raise", "raise")), "raise", MemoryLedger())
    relay.next_server()
    for message in mails(2):
        relay.add(message)
    relay.fail(LedgerError("the ledger is down"))
    relay.next_server()
    first = relay.next_result()
    relay.last_yielded = 0
    ends = [each and (each.index, each.outcome) for each in (first, relay.next_result())]
    assert ends == [(0, UNKNOWN), (1, NOT_SENT)]


def test_a_ledger_that_fails_before_any_message_ends_the_run_alone() -> None:
    """An interrupt may leave a run without messages."""
    relay = Relay(Servers([RecordingMailer()], SecureMailer, Rules(60, "raise", "raise")), "raise", MemoryLedger())
    relay.next_server()
    relay.fail(LedgerError("the ledger is down"))
    assert relay.next_result() is None
    assert [str(each) for each in relay.failures] == [str(LedgerError("the ledger is down"))]


def test_an_interrupt_loses_no_result(serve: Serve, mailer: Mailer) -> None:
    """One that strikes when a run has given its result, and before that is noted: it is unknown."""
    results: Any = Failover([mailer(serve()), mailer(serve())]).send_many(mails(5))
    relay, real = results._relay, results._relay.settle

    def strikes(result: SendResult) -> None:
        if result.index == 1:
            raise KeyboardInterrupt
        real(result)

    relay.settle = strikes
    assert next(results).outcome is ACCEPTED
    with pytest.raises(KeyboardInterrupt):
        next(results)
    relay.settle = real
    rest = list(results)
    assert [(result.index, result.message_id) for result in rest] == [(n, f"<{n}@x>") for n in range(1, len(rest) + 1)]
    assert isinstance(rest[0].error, OutcomeUnknownError)
    assert {result.outcome for result in rest[1:]} <= {ACCEPTED}


def test_a_program_can_be_tested_with_recording_mailers() -> None:
    """They play a server that fails."""
    first, second = RecordingMailer(fault="too_busy"), RecordingMailer()
    with Failover([first, second]) as mine:
        assert [result.outcome for result in mine.send_many(mails(3))] == [ACCEPTED] * 3
        mine.send_bytes(io.BytesIO(b"Subject: x\r\n\r\nx\r\n"), mail_from="", recipients=["c@d.example"])
    assert (len(first.messages), len(second.messages)) == (0, 4)
    # All servers rest: the other messages are not even tried.
    with Failover([RecordingMailer(fault="too_busy"), RecordingMailer(fault="too_busy")]) as mine:
        assert [result.outcome for result in mine.send_many(mails(9))] == [NOT_SENT] * 9


@pytest.mark.parametrize("is_async", [False, True])
def test_an_interrupt_of_the_iterable_ends_the_run(
    serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch, *, is_async: bool
) -> None:
    """A task queue's time limit is an `Exception` that a signal handler raises: it is no error of the iterable."""

    class TimeLimit(Exception):  # noqa: N818 -- as such a queue names it
        pass

    def strikes(*_: object) -> None:
        raise TimeLimit

    def messages() -> Iterator[Envelope]:
        yield from mails(1)
        signal.raise_signal(signal.SIGUSR1)

    server, before = serve(), signal.signal(signal.SIGUSR1, strikes)
    settings: dict[str, Any] = {"port": server.port, "ca_file": ca_file, "tls": "implicit"}
    done = list[SendResult]()

    async def main() -> None:
        async with AsyncFailover([AsyncSecureMailer("localhost", **settings)]) as mine:
            results = mine.send_many(messages())
            with pytest.raises(TimeLimit):  # noqa: PT012 -- the loop raises it
                async for result in results:
                    done.append(result)
            done.extend([result async for result in results])

    try:
        if is_async:
            anyio.run(main)
        else:
            with Failover([SecureMailer("localhost", **settings)]) as mine:
                results = iter(mine.send_many(messages()))
                with pytest.raises(TimeLimit):
                    done.extend(results)
                done.extend(results)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [result.index for result in done] == [0]
    assert done[0].outcome in {ACCEPTED, NOT_SENT}


@pytest.mark.faces("failover")
def test_a_run_that_was_stopped_gives_back_its_place(
    serve: Serve, mailer: Mailer, over: Over, clock: Callable[[float], None]
) -> None:
    """It was the one to try a server that has rested, and found out nothing: the next send tries it."""
    first, second = Switch(serve), serve()
    mine = over(mailer(first.server), mailer(second))
    first.is_down = True
    assert [result.outcome for result in mine.send_many(mails(1))] == [ACCEPTED]
    first.is_down = False
    clock(61)
    (invalid,) = mine.send_many([Envelope("a@b.example", [], b"x")])
    assert invalid.outcome is NOT_SENT
    assert [result.outcome for result in mine.send_many(mails(1))] == [ACCEPTED]
    assert first.counts[1] == 1


@pytest.mark.faces("failover")
def test_if_all_servers_refuse_a_message_it_has_the_last_refusal(serve: Serve, mailer: Mailer, over: Over) -> None:
    """The others go on: no server is down. Nothing is sent by a run that is closed at once, or has a wrong deadline."""
    later = honest(replies={"RCPT": lambda _, line: b"451 4.7.1 no\r\n" if b"later@" in line else b"250 ok\r\n"})
    first, second = serve(later), serve(later)
    mine = over(mailer(first), mailer(second), on_refusal="next")
    with pytest.raises(ConfigurationError, match="deadline"):
        mine.send_many(mails(1), deadline=-1)
    closed: Any = mine.send_many(mails(1))
    closed.close()
    assert list(closed) == []
    people = ["later@d.example", "a@d.example"]
    messages = [Envelope("a@b.example", [each], b"Subject: x\r\n\r\nx\r\n") for each in people]
    refused, accepted = mine.send_many(messages, deadline=60)
    assert (refused.outcome, refused.retryable, accepted.outcome) == (REFUSED, True, ACCEPTED)
    assert isinstance(refused.error, RecipientsRefusedError)
    assert (refused.error.port, [each.port for each in refused.error.earlier]) == (second.port, [first.port])
    assert (len(first.accepted), len(second.accepted)) == (1, 0)
