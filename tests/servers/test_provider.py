"""The limits of mail providers: what can be sent is sent once, the rest is told with what to do, and nothing hangs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from conftest import Mailer, Serve
from scripted import Mode, ScriptedServer
from securesmtp import AuthenticationError, Envelope, MessageError, Outcome, RecipientsRefusedError, RefusedError, Stage
from servers.provider import (
    BUSY,
    CONNECTIONS,
    CONNECTIONS_421,
    DAY_GMAIL,
    DAY_POLICY,
    DAY_SES,
    PASSWORD,
    RATE_SES,
    RECIPIENT_RATE,
    USER,
    Provider,
)

pytestmark = pytest.mark.faces("limits of providers", sample=(5, 1))

LOGIN = {"username": USER, "password": PASSWORD}
RAW = b"From: me@example.org\r\n\r\nHello\r\n"


def start(serve: Serve, provider: Provider, mode: Mode = "implicit") -> ScriptedServer:
    """Start the provider."""
    return serve(provider.script(mode), connections=100)


def envelopes(count: int) -> Iterator[Envelope]:
    """Yield so many messages, each with its number in the content."""
    for number in range(count):
        yield Envelope(USER, ["you@example.org"], b"X-Number: %d\r\n%b" % (number, RAW))


def arrived(server: ScriptedServer) -> Counter[bytes]:
    """Return how often each message was accepted, by its first line."""
    return Counter(accepted.content.split(b"\r\n")[0] for accepted in server.accepted)


def each_once(count: int) -> dict[bytes, int]:
    """Return what `arrived` returns if none was lost and none was sent twice."""
    return {b"X-Number: %d" % number: 1 for number in range(count)}


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
def test_more_messages_than_a_connection_takes(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """They go over further connections, each message once."""
    server = serve(Provider(messages=3).script(), connections=100, overlaps=pipelining == "session")
    with mailer(server, max_connections=1, pipelining=pipelining, **LOGIN) as sender:
        results = list(sender.send_many(envelopes(10)))
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}
    assert arrived(server) == each_once(10)
    assert [len(connection.accepted) for connection in server.connections] == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("stage", "reply"),
    [("CONTENT", CONNECTIONS), ("MAIL", CONNECTIONS), ("MAIL", CONNECTIONS_421)],
    ids=["432 to the content", "432 to MAIL", "421 to MAIL"],
)
def test_more_connections_than_the_account_has(serve: Serve, mailer: Mailer, stage: str, reply: bytes) -> None:
    """The run goes on over fewer; each connection too many costs one message at most, which may be sent again."""
    provider = Provider(connections=3, over_connections=(stage, reply))
    server = start(serve, provider)
    with mailer(server, max_connections=8, **LOGIN) as sender:
        results = list(sender.send_many(envelopes(60)))
        refused = [result for result in results if result.outcome is not Outcome.ACCEPTED]
        assert {(result.outcome, result.retryable) for result in refused} <= {(Outcome.REFUSED, True)}
        # After 421 to MAIL, the message goes over a connection that works.
        assert len(refused) == (0 if reply == CONNECTIONS_421 else provider.turned_away)
        for result in refused:
            content = b"X-Number: %d\r\n%b" % (result.index, RAW)
            sender.send_bytes(content, mail_from=USER, recipients=["you@example.org"])
    assert arrived(server) == each_once(60)
    assert 0 < provider.turned_away <= 5


def test_more_recipients_than_a_message_takes(serve: Serve, mailer: Mailer) -> None:
    """With "allow" the others get the message in further transactions; with "raise" nobody gets it."""
    to = [f"{number}@example.org" for number in range(25)]
    server = start(serve, Provider(recipients=10))
    with mailer(server, **LOGIN) as sender:
        receipt = sender.send_bytes(RAW, mail_from=USER, recipients=to, partial="allow")
        with pytest.raises(RecipientsRefusedError) as caught:
            sender.send_bytes(RAW, mail_from=USER, recipients=to)
    assert receipt.accepted == tuple(to)
    assert [len(accepted.recipients) for accepted in server.accepted] == [10, 10, 5]
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.REFUSED, True)


@pytest.mark.parametrize(
    ("stage", "reply"),
    [("CONTENT", RATE_SES), ("RCPT", RECIPIENT_RATE), ("MAIL", BUSY)],
    ids=["454 to the content", "450 to RCPT", "421 to MAIL"],
)
def test_a_rate_is_a_refusal_for_now(serve: Serve, mailer: Mailer, stage: str, reply: bytes) -> None:
    """Nothing over it is accepted, each is retryable, and all go a minute later."""
    provider = Provider(rate=2, over_rate=(stage, reply))
    server = start(serve, provider)
    with mailer(server, max_connections=1, **LOGIN) as sender:
        first = list(sender.send_many(envelopes(4)))
        provider.pass_time()
        again = list(sender.send_many(each for each, result in zip(envelopes(4), first, strict=True) if result.error))
    assert [result.outcome is Outcome.ACCEPTED for result in first] == [True, True, False, False]
    assert [result.retryable for result in first] == [False, False, True, True]
    assert {result.outcome for result in again} == {Outcome.ACCEPTED}
    assert arrived(server) == each_once(4)


@pytest.mark.parametrize(
    ("reply", "retryable", "hint"),
    [(DAY_GMAIL, False, "tomorrow"), (DAY_POLICY, False, ""), (DAY_SES, True, "")],
    ids=["550 5.4.5", "550 5.7.1", "454"],
)
def test_a_daily_quota_ends_the_day(serve: Serve, mailer: Mailer, reply: bytes, hint: str, *, retryable: bool) -> None:
    """The caller gets the provider's own words, and what to do if the reply says it."""
    server = start(serve, Provider(day=1, over_day=("CONTENT", reply)))
    with mailer(server, **LOGIN) as sender:
        sender.send_bytes(RAW, mail_from=USER, recipients=["you@example.org"])
        with pytest.raises(RefusedError) as caught:
            sender.send_bytes(RAW, mail_from=USER, recipients=["you@example.org"])
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.REFUSED, retryable)
    assert "limit exceeded" in str(caught.value) or "quota exceeded" in str(caught.value)
    assert hint in (caught.value.hint or "")
    assert len(server.accepted) == 1


@pytest.mark.parametrize("announced", [True, False])
def test_a_message_over_the_size(serve: Serve, mailer: Mailer, *, announced: bool) -> None:
    """Not sent at all if the server says its limit, refused for good otherwise; the next one goes."""
    server = start(serve, Provider(size=1000, announces_size=announced))
    with mailer(server, **LOGIN) as sender:
        with pytest.raises(MessageError if announced else RefusedError) as caught:
            sender.send_bytes(RAW + b"x" * 900 + b"\r\n" + b"y" * 900, mail_from=USER, recipients=["you@example.org"])
        sender.send_bytes(RAW, mail_from=USER, recipients=["you@example.org"])
    assert caught.value.outcome is (Outcome.NOT_SENT if announced else Outcome.REFUSED)
    assert caught.value.retryable is False
    assert [accepted.content for accepted in server.accepted] == [RAW]


def test_a_greeting_that_comes_late_is_waited_for(serve: Serve, mailer: Mailer, mode: Mode) -> None:
    """In silence: a client that speaks before the greeting is taken for a spammer's."""
    server = start(serve, Provider(silent_for=0.2), mode)
    with mailer(server, tls=mode, **LOGIN) as sender:
        sender.send_bytes(RAW, mail_from=USER, recipients=["you@example.org"])
    server.check()
    assert len(server.accepted) == 1


def test_greylisting_is_a_refusal_for_now(serve: Serve, mailer: Mailer) -> None:
    """The second try of the same message is accepted, over the same connection."""
    server = start(serve, Provider(greylists=True))
    with mailer(server, **LOGIN) as sender:
        with pytest.raises(RecipientsRefusedError) as caught:
            sender.send_bytes(RAW, mail_from=USER, recipients=["you@example.org"])
        sender.send_bytes(RAW, mail_from=USER, recipients=["you@example.org"])
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.REFUSED, True)
    assert [len(connection.accepted) for connection in server.connections] == [1]


def test_one_login_that_fails_now_and_then_costs_no_message(serve: Serve, mailer: Mailer) -> None:
    """The other connections send what it would have sent."""
    provider = Provider(failing_logins=frozenset({2}))
    server = start(serve, provider)
    with mailer(server, max_connections=4, **LOGIN) as sender:
        results = list(sender.send_many(envelopes(40)))
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}, results
    assert arrived(server) == each_once(40)


def test_a_login_that_fails_for_now_is_not_tried_again_at_once(serve: Serve, mailer: Mailer) -> None:
    """The message was not sent and may be sent again: by another mailer at once, by this one when its pause is over."""
    provider = Provider(failing_logins=frozenset({1}))
    server = start(serve, provider)
    with mailer(server, **LOGIN) as sender:
        for _ in range(3):
            with pytest.raises(AuthenticationError) as caught:
                sender.send_bytes(RAW, mail_from=USER, recipients=["you@example.org"])
            assert (caught.value.outcome, caught.value.retryable) == (Outcome.NOT_SENT, True)
            assert caught.value.stage is Stage.AUTH
    assert provider.logins == 1
    with mailer(server, **LOGIN) as sender:
        sender.send_bytes(RAW, mail_from=USER, recipients=["you@example.org"])
    assert (provider.logins, len(server.accepted)) == (2, 1)
