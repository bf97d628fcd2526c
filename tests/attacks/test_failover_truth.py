"""What a failover says is true: after `close`, an interrupt in `on_event`, and a server that contradicts itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any, cast

import pytest

from conftest import Mailer, Serve
from scripted import honest
from securesmtp import Event, Failover, Outcome, OutcomeUnknownError, SecureMailer, SecureSMTPError, _closing
from securesmtp._server_rules import Rules
from securesmtp._transport import pool
from securesmtp.events import Closed, Connected, ServerDown, ServerUp
from test_failover import Over, Switch, clock, over
from test_limits import Holding, threads, until
from test_many import mails
from test_shutdown import Silent, send, silent_at

__all__ = ["clock", "over"]
ACCEPTED, NOT_SENT = Outcome.ACCEPTED, Outcome.NOT_SENT
Wait = Callable[[float], None]


@pytest.mark.faces("failover")
def test_close_knows_what_ends_while_it_waits_for_another_server(
    serve: Serve, mailer: Mailer, over: Over, message: EmailMessage
) -> None:
    """The sends are those that were under way at any server when `close` was called."""
    slow, quick, closed = Holding(), Holding(), threading.Event()
    first, second = serve(honest(replies={"CONTENT": slow})), serve(honest(replies={"CONTENT": quick}))

    def on_event(event: Event) -> None:
        if isinstance(event, Closed):
            closed.set()

    # The connection that nobody uses is closed when `close` has begun to wait.
    one, two = mailer(first, on_event=on_event), mailer(second)
    three = mailer(serve(), on_event=on_event)
    three.send(message)
    mine = over(one, two, three)
    with threads(lambda: one.send(message)) as sent:
        assert slow.reached.acquire(timeout=60)
        with threads(lambda: two.send(message)) as sent_by_two:
            assert quick.reached.acquire(timeout=60)
            with threads(mine.close) as ends:
                assert closed.wait(60)
                quick.release.set()
                until(lambda: sent_by_two)
                slow.release.set()
    results: Any = ends[0]
    receipts = [*sent, *sent_by_two]
    assert [(each.index, each.receipt) for each in results] == list(enumerate(receipts))


def test_a_send_that_hangs_keeps_no_other_server_from_being_closed(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All mailers have the same time: the other connections are ended before it is waited for."""
    monkeypatch.setattr(_closing, "ABORT_GRACE", 600)
    release, reached, silent = threading.Event(), threading.Event(), Silent()

    def hangs(event: Event) -> None:
        if isinstance(event, Connected):
            reached.set()
            release.wait(60)

    login = {"username": "me", "password": "secret", "timeout": 60}
    one = mailer(serve(timeout=60), on_event=hangs)
    two = mailer(serve(silent_at("CONTENT", silent), timeout=60), **login)
    mine = Failover([one, two])
    with threads(lambda: send(one)), threads(lambda: send(two)) as ends:
        assert reached.wait(60)
        assert silent.reached.acquire(timeout=60)
        with threads(lambda: mine.close(timeout=0.05)) as closed:
            try:
                until(lambda: ends)
                assert not closed
            finally:
                release.set()
    (error,) = ends
    assert isinstance(error, OutcomeUnknownError)


def test_an_interrupted_close_leaves_no_idle_connection(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at the server that it waits for, nor at the next one."""
    holding = Holding()
    one, two = mailer(serve(honest(replies={"CONTENT": holding}))), mailer(serve())
    two.send(message)

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with threads(lambda: one.send(message)):
        assert holding.reached.acquire(timeout=60)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(pool, "sleep", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    Failover([one, two]).close()
            assert two.stats().open == 0
        finally:
            holding.release.set()


def _interrupted_by(kind: type[Event]) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if isinstance(event, kind):
            raise KeyboardInterrupt

    return on_event


@pytest.fixture
def returning(serve: Serve, mailer: Mailer, message: EmailMessage, clock: Wait) -> tuple[Switch, Failover]:
    """Return a server that is back after a rest, and a failover that does not know it yet."""
    first = Switch(serve)
    mine = Failover([mailer(first.server, on_event=_interrupted_by(ServerUp)), mailer(serve())])
    first.is_down = True
    mine.send(message)
    first.is_down = False
    clock(61)
    return first, mine


def test_an_interrupt_by_the_event_of_a_server_that_is_back_has_the_receipt(
    returning: tuple[Switch, Failover], message: EmailMessage
) -> None:
    """As one by the event of the message."""
    first, mine = returning
    with pytest.raises(KeyboardInterrupt) as caught:
        mine.send(message)
    cause: Any = caught.value.__cause__
    assert type(cause) is SecureSMTPError
    assert cause.receipt is not None
    assert (cause.outcome, cause.receipt.accepted) == (ACCEPTED, ("you@example.org", "blind@example.org"))
    assert cause.message_id == cause.receipt.message_id
    assert "(accepted)" in caught.value.__notes__[0]
    assert len(first.server.accepted) == 1


@pytest.mark.parametrize("reply", [b"hm\r\n", b""], ids=["unknown", "not sent"])
def test_an_interrupt_by_the_event_of_a_server_that_is_down_has_the_outcome(
    serve: Serve, mailer: Mailer, message: EmailMessage, reply: bytes
) -> None:
    """Whether that may have the message or not."""
    script = honest(replies={"CONTENT": reply}) if reply else honest(replies={"GREETING": b"421 4.3.2 down\r\n"})
    mine = Failover([mailer(serve(script), on_event=_interrupted_by(ServerDown)), mailer(serve())])
    with pytest.raises(KeyboardInterrupt) as caught:
        mine.send(message)
    cause = caught.value.__cause__
    assert isinstance(cause, SecureSMTPError)
    assert cause.outcome is (Outcome.UNKNOWN if reply else NOT_SENT)
    assert f"({cause.outcome})" in caught.value.__notes__[0]


def test_a_run_that_such_an_event_ends_has_its_results(returning: tuple[Switch, Failover]) -> None:
    """What is known is not unknown."""
    first, mine = returning
    results = mine.send_many(mails(3))
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert [each.outcome for each in results] == [ACCEPTED] * len(first.server.accepted)
    assert len(first.server.accepted) == 1


def test_a_run_that_the_event_of_a_dead_server_ends_sends_nothing(serve: Serve, mailer: Mailer) -> None:
    """And says so."""
    script = honest(replies={"GREETING": b"421 4.3.2 down\r\n"})
    mine = Failover([mailer(serve(script), on_event=_interrupted_by(ServerDown)), mailer(serve())])
    results = mine.send_many(mails(3))
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert {each.outcome for each in results} == {NOT_SENT}


@pytest.mark.faces("failover", sample=(2, 1))
@pytest.mark.parametrize("pipelining", ["message", "session"])
@pytest.mark.parametrize("extensions", [("PIPELINING",), ("PIPELINING", "CHUNKING")], ids=len)
def test_a_refused_message_that_the_server_accepts_goes_to_no_other(
    serve: Serve, mailer: Mailer, over: Over, extensions: tuple[str, ...], pipelining: str
) -> None:
    """A server that refuses the recipient for now, and takes the content nevertheless, may deliver it."""
    first = serve(
        honest(extensions=extensions, replies={"RCPT": b"451 4.7.1 later\r\n", "BDAT": b"250 2.0.0 queued\r\n"}),
        connections=9,
    )
    second = serve()
    mine = over(mailer(first, pipelining=pipelining), mailer(second), on_refusal="next")
    with threads(lambda: send(cast("SecureMailer", mine))) as ends:
        pass
    has_content = b"Subject" in first.secret
    assert has_content == ("CHUNKING" in extensions)
    assert isinstance(ends[0], OutcomeUnknownError) == has_content
    assert len(second.accepted) == (not has_content)


def test_a_second_interrupt_leaves_the_outcome_to_the_first(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal at a line of the failover, after one inside the mailer, knows nothing of the message."""

    class SecondError(BaseException):
        """A signal."""

    def interrupted(*_: object) -> None:
        raise SecondError

    mine = Failover([mailer(serve(), on_event=_interrupted_by(Connected))])
    monkeypatch.setattr(Rules, "judge", interrupted)
    with pytest.raises(SecondError) as caught:
        mine.send(message)
    first = caught.value.__context__
    assert caught.value.__cause__ is None
    assert isinstance(first, KeyboardInterrupt)
    assert isinstance(first.__cause__, SecureSMTPError)
