"""`close(timeout=…)`: it ends, whatever the server does, and says what became of each send that was under way."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from conftest import AsyncMailer, Mailer, Run, Serve
from scripted import Peer, honest
from securesmtp import (
    ConfigurationError,
    ConnectError,
    Envelope,
    Event,
    Outcome,
    OutcomeUnknownError,
    Receipt,
    SecureMailer,
    SecureSMTPError,
    SendResult,
    _closing,
)
from securesmtp._sending import Sending
from securesmtp.events import Connected, Sent
from test_limits import Holding, threads, until

RAW = b"Subject: x\r\nMessage-ID: <x@y.example>\r\n\r\nx\r\n"
ACCEPTED, NOT_SENT, UNKNOWN = Outcome.ACCEPTED, Outcome.NOT_SENT, Outcome.UNKNOWN
# What the server does not reply to, and what that makes of a message when its connection is ended.
STEPS = {
    "GREETING": NOT_SENT,
    "EHLO": NOT_SENT,
    "AUTH": NOT_SENT,
    "MAIL": NOT_SENT,
    "RCPT": NOT_SENT,
    "DATA": NOT_SENT,
    "CONTENT": UNKNOWN,
}


def send(mailer: SecureMailer, number: int = 0) -> Receipt:
    """Send a message."""
    raw = RAW.replace(b"<x@", b"<%d@" % number)
    return mailer.send_bytes(raw, mail_from="a@b.example", recipients=["c@d.example"])


class Silent:
    """A reply that never comes."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)

    def __call__(self, peer: Peer, line: bytes) -> bytes:
        self.reached.release()
        peer.sleep_until_peer_closes()
        return b""


def silent_at(step: str, silent: Silent) -> Callable[[Peer], object]:
    """Return a server that is silent at *step*; it takes one command at a time, so that this is where the send is."""
    return honest(extensions=(), auth=("me", "secret"), replies={step: silent})


@pytest.mark.faces("close")
@pytest.mark.parametrize("step", STEPS)
def test_a_send_that_does_not_end_in_time_is_ended(serve: Serve, mailer: Mailer, step: str) -> None:
    """`close` returns what the send raises: the same error, stage and outcome; the server has nothing."""
    silent = Silent()
    server = serve(silent_at(step, silent), timeout=60)
    mine = mailer(server, username="me", password="secret", timeout=60)
    with threads(lambda: send(mine)) as ends:
        assert silent.reached.acquire(timeout=60)
        (result,) = mine.close(timeout=0.05)
    (error,) = ends
    assert isinstance(error, SecureSMTPError)
    assert isinstance(result.error, SecureSMTPError)
    assert (result.index, result.outcome, error.outcome) == (0, STEPS[step], STEPS[step])
    assert result.error.as_dict() == error.as_dict()
    # A copy: its traceback holds nothing of the message.
    assert result.error is not error
    assert result.error.__traceback__ is None
    assert server.accepted == []
    assert mine.close() == ()


@pytest.mark.faces("close")
def test_a_send_that_ends_in_time_is_waited_for(serve: Serve, mailer: Mailer) -> None:
    """Its receipt is in the result, and a send that waited for the connection is not sent."""
    holding = Holding()
    server = serve(honest(replies={"CONTENT": holding}))
    mine = mailer(server, max_connections=1)
    results: list[tuple[SendResult, ...]] = []
    with threads(lambda: send(mine, 1)) as first:
        assert holding.reached.acquire(timeout=60)
        with threads(lambda: send(mine, 2)) as second:
            until(lambda: mine.stats().waiting)
            with threads(lambda: results.append(mine.close(timeout=60))):
                # It ends at once, while the first one goes on.
                until(lambda: second)
                assert not results
                holding.release.set()
    ((one, two),) = results
    (receipt,), (error,) = first, second
    assert isinstance(receipt, Receipt)
    assert (one.index, one.outcome, one.receipt, one.error) == (0, ACCEPTED, receipt, None)
    assert one.message_id == "<1@y.example>"
    assert isinstance(error, ConfigurationError)
    assert (two.index, two.outcome, str(two.error)) == (1, NOT_SENT, str(error))
    server.joined()
    assert len(server.accepted) == 1
    assert server.secret.endswith(b"QUIT\r\n")


@pytest.mark.faces("close")
@pytest.mark.parametrize("pipelining", ["message", "session"])
def test_a_run_is_ended_and_has_all_its_results(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """`close` says of each message under way what the run says; the server has none that is not ACCEPTED or UNKNOWN."""
    silent = Silent()

    def content(peer: Peer, data: bytes) -> bytes:
        return silent(peer, data) if b"<4@" in data else b"250 2.0.0 queued\r\n"

    server = serve(
        honest(extensions=("PIPELINING",), replies={"CONTENT": content}),
        connections=8,
        overlaps=pipelining == "session",
        timeout=60,
    )
    mine = mailer(server, max_connections=1, pipelining=pipelining, timeout=60)
    messages = [Envelope("a@b.example", ["c@d.example"], RAW.replace(b"<x@", b"<%d@" % number)) for number in range(12)]
    runs: list[list[SendResult]] = []
    with threads(lambda: runs.append(list(mine.send_many(messages)))):
        assert silent.reached.acquire(timeout=60)
        closed = mine.close(timeout=0.05)
    (results,) = runs
    said = {result.message_id: result for result in results}
    assert [result.index for result in results] == list(range(12))
    assert [result.index for result in closed] == list(range(len(closed)))
    assert closed
    for result in closed:
        assert result.outcome is said[result.message_id].outcome
    assert said["<4@y.example>"].outcome is UNKNOWN
    assert "<4@y.example>" in {result.message_id for result in closed}
    accepted = {int(each.content.split(b"<")[1].split(b"@")[0]) for each in server.accepted}
    assert {result.index for result in results if result.outcome is ACCEPTED} == accepted
    # In flight, each message may have arrived; alone, only the one.
    unknown = [result.index for result in results if result.outcome is UNKNOWN]
    assert unknown == [4] if pipelining == "message" else set(unknown) >= {4}
    assert results[-1].outcome is NOT_SENT


@pytest.mark.faces("close")
@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), False, True, "5"])
def test_a_wrong_timeout_closes_nothing(serve: Serve, mailer: Mailer, timeout: Any) -> None:
    """The mailer can be used after it."""
    mine = mailer(serve())
    with pytest.raises(ConfigurationError, match=r"timeout is .* from 0 to .* max\(0, left\)"):
        mine.close(timeout=timeout)
    assert send(mine).reply.code == 250
    assert mine.close(timeout=5) == ()


@pytest.mark.faces("close")
@pytest.mark.parametrize("timeout", [0, 0.0])
def test_a_timeout_of_nothing_is_an_abort(serve: Serve, mailer: Mailer, timeout: float) -> None:
    """So a program can pass what is left of its own time."""
    silent = Silent()
    mine = mailer(serve(silent_at("CONTENT", silent), timeout=60), username="me", password="secret", timeout=60)
    with threads(lambda: send(mine)):
        assert silent.reached.acquire(timeout=60)
        assert [result.outcome for result in mine.close(timeout=timeout)] == [UNKNOWN]


@pytest.mark.faces("close")
def test_a_check_is_ended_too(serve: Serve, mailer: Mailer) -> None:
    """It is no send, so nothing is said of it."""
    silent = Silent()
    mine = mailer(serve(silent_at("EHLO", silent), timeout=60), timeout=60)
    with threads(mine.check) as ends:
        assert silent.reached.acquire(timeout=60)
        assert mine.close(abort=True) == ()
    (error,) = ends
    assert isinstance(error, ConnectError)


def test_what_cannot_be_ended_is_not_waited_for(serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up of a name that hangs: after a grace, `close` returns; that message is never sent."""
    monkeypatch.setattr(_closing, "ABORT_GRACE", 0.05)
    release, reached, look_up = threading.Event(), threading.Event(), socket.getaddrinfo

    def hangs(*arguments: Any, **options: Any) -> Any:
        reached.set()
        release.wait(60)
        return look_up(*arguments, **options)

    server = serve()
    mine = mailer(server)
    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    with threads(lambda: send(mine)) as ends:
        assert reached.wait(60)
        (result,) = mine.close(timeout=0.05)
        assert ends == []
        release.set()
    assert result.outcome is NOT_SENT
    assert isinstance(result.error, ConnectError)
    assert result.retryable
    (error,) = ends
    assert isinstance(error, ConnectError)
    assert server.connections == [] or server.accepted == []


def test_an_event_handler_that_hangs_is_not_waited_for(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands between the connection and the message, which is not sent when it returns."""
    monkeypatch.setattr(_closing, "ABORT_GRACE", 0.05)
    release, reached = threading.Event(), threading.Event()

    def hangs(event: Event) -> None:
        if isinstance(event, Connected):
            reached.set()
            release.wait(60)

    server = serve()
    mine = mailer(server, on_event=hangs)
    with threads(lambda: send(mine)) as ends:
        assert reached.wait(60)
        (result,) = mine.close(timeout=0.05)
        assert ends == []
        release.set()
    assert result.outcome is NOT_SENT
    (error,) = ends
    assert isinstance(error, ConnectError)
    assert server.accepted == []


def test_a_sending_that_hangs_after_its_session_is_unknown(serve: Serve, mailer: Mailer) -> None:
    """What had begun may have got far; only of what had no session it is certain."""
    seen: list[SendResult] = []

    def content(peer: Peer, data: bytes) -> bytes:
        (sending,) = mine._core.activity.under_way.values()
        seen.append(sending.result(7))
        return b"250 ok\r\n"

    mine = mailer(serve(honest(replies={"CONTENT": content})))
    send(mine, 3)
    (result,) = seen
    assert (result.index, result.message_id, result.outcome) == (7, "<3@y.example>", UNKNOWN)
    assert isinstance(result.error, OutcomeUnknownError)


def test_two_threads_that_close_in_on_event_do_not_wait_for_each_other(serve: Serve, mailer: Mailer) -> None:
    """Each is told that its message was accepted, and closes: what became of both is known already."""
    both = threading.Barrier(2)

    def on_event(event: Event) -> None:
        if isinstance(event, Sent):
            both.wait(60)
            mine.close()

    mine = mailer(serve(connections=2), on_event=on_event)
    with threads(lambda: send(mine).reply.code, 2) as ends:
        pass
    assert ends == [250, 250]


def test_a_close_in_a_password_callable_waits_for_nothing(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """It is inside of a send, of which nothing is known yet; with *abort*, that send is not sent."""
    closed: list[tuple[SendResult, ...]] = []

    async def main() -> None:
        async def password() -> str:
            closed.append(await mailer.close(timeout=5))
            closed.append(await mailer.close(abort=True))
            return "secret"

        mailer = async_mailer(serve(honest(auth=("me", "secret"))), username="me", password=password)
        with suppress(SecureSMTPError):
            await mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
        await mailer.close()

    run(main)
    waited, aborted = closed
    assert waited == ()
    assert [result.outcome for result in aborted] == [NOT_SENT]


@pytest.mark.parametrize("options", [{"timeout": 30}, {"abort": True}], ids=["timeout", "abort"])
def test_a_signal_handler_inside_a_send_does_not_wait_for_it(
    serve: Serve, mailer: Mailer, options: dict[str, Any]
) -> None:
    """The send goes on when the handler returns, or is ended, and is none of the results."""
    closed: list[tuple[SendResult, ...]] = []

    def content(peer: Peer, data: bytes) -> bytes:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        until(lambda: closed)
        return b"250 2.0.0 queued\r\n"

    mine = mailer(serve(honest(replies={"CONTENT": content})))
    before = signal.signal(signal.SIGUSR1, lambda *_: closed.append(mine.close(**options)))
    try:
        if "abort" in options:
            with pytest.raises(OutcomeUnknownError):
                send(mine)
        else:
            assert send(mine).reply.code == 250
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert closed == [()]


def test_a_handler_inside_a_send_that_waits_does_not_wait_for_it(serve: Serve, mailer: Mailer) -> None:
    """The interrupted send has no connection: it would wait for ever for the handler that waits for it."""
    holding, closed = Holding(), list[tuple[SendResult, ...]]()
    mine = mailer(serve(honest(replies={"CONTENT": holding})), max_connections=1)

    def strike() -> None:
        until(lambda: mine.stats().waiting)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        until(lambda: mine._core.is_closed)
        holding.release.set()

    before = signal.signal(signal.SIGUSR1, lambda *_: closed.append(mine.close()))
    try:
        with threads(lambda: send(mine, 1)) as ends:
            assert holding.reached.acquire(timeout=60)
            with threads(strike), pytest.raises(ConfigurationError, match="closed"):
                send(mine, 2)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(ends) == 1
    assert [[result.outcome for result in each] for each in closed] == [[ACCEPTED]]


def test_a_cancelled_close_can_be_called_again(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """The sends that it waited for have gone on."""
    holding = Holding()

    async def main() -> None:
        mailer = async_mailer(serve(honest(replies={"CONTENT": holding})))
        codes: list[int] = []

        async def one() -> None:
            receipt = await mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
            codes.append(receipt.reply.code)

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            await anyio.to_thread.run_sync(lambda: holding.reached.acquire(timeout=60))
            with anyio.move_on_after(0.05):
                await mailer.close()
            assert codes == []
            holding.release.set()
            (result,) = await mailer.close(timeout=60)
        assert (codes, result.outcome) == ([250], ACCEPTED)

    run(main)


def test_a_send_that_cannot_be_ended_in_its_session_is_unknown() -> None:
    """It hangs in code of the caller's, and may still write."""
    content = SimpleNamespace(message_id="<1@b.example>")
    progress: Any = (None, SimpleNamespace(content=content), None)
    result = Sending("<1@b.example>", 0.0, progress).result(3)
    assert (result.index, result.message_id, result.outcome) == (3, "<1@b.example>", Outcome.UNKNOWN)
    assert isinstance(result.error, OutcomeUnknownError)
