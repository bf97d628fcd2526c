"""Hints: what to do next, where the server's reply does not say it."""

from __future__ import annotations

from email.message import EmailMessage
from typing import Literal

import pytest

from conftest import Mailer, Serve
from scripted import Mode, Peer, honest
from securesmtp import (
    DeadlineExceededError,
    DowngradeError,
    OutcomeUnknownError,
    RefusedError,
    SecureSMTPError,
    Stage,
    Timeouts,
)


def _mute(peer: Peer, _: bytes) -> bytes:
    peer.sleep_until_peer_closes()
    return b""


@pytest.mark.parametrize(
    ("reply", "has_hint"),
    [
        (b"501 5.5.4 Invalid domain name\r\n", True),
        (b"421 4.7.0 Try again later\r\n", True),
        (b"550 need fully-qualified hostname\r\n", True),
        (b"500 5.5.1 what?\r\n", False),
        (b"502 5.5.1 no EHLO here\r\n", False),
    ],
    ids=["501", "421", "550", "500", "502"],
)
@pytest.mark.parametrize("name", [None, "[192.0.2.1]", "app"])
def test_a_refused_ehlo_names_local_hostname(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve,
    mailer: Mailer,
    mode: Mode,
    message: EmailMessage,
    reply: bytes,
    name: str | None,
    *,
    has_hint: bool,
) -> None:
    """The hint shows the refused name: RFC 5321 §4.1.4 allows an address literal, but some servers refuse it."""
    mine = mailer(serve(honest(mode, replies={"EHLO": reply})), tls=mode, local_hostname=name)
    with pytest.raises(SecureSMTPError) as caught:
        mine.send(message)
    assert type(caught.value) is (DowngradeError if mode == "starttls" else RefusedError)
    assert caught.value.stage is Stage.EHLO
    shown = f'the server may not accept the name "{name or "[127.0.0.1]"}" in EHLO: pass local_hostname='
    assert str(caught.value.hint).startswith(shown) is has_hint


@pytest.mark.parametrize(
    ("verb", "pipelining", "extensions", "has_hint"),
    [
        ("MAIL", "message", ("PIPELINING",), True),
        ("RCPT", "message", ("PIPELINING",), True),
        ("DATA", "message", ("PIPELINING",), True),
        ("MAIL", "off", ("PIPELINING",), False),
        ("DATA", "off", ("PIPELINING",), False),
        ("MAIL", "message", (), False),
    ],
)
def test_a_timeout_after_pipelined_commands_names_pipelining(  # noqa: PLR0913 -- fixtures and a row
    serve: Serve,
    mailer: Mailer,
    verb: str,
    pipelining: Literal["off", "message"],
    extensions: tuple[str, ...],
    *,
    has_hint: bool,
) -> None:
    """A server that discards early commands is silent (RFC 2920 §3.2 forbids it, but some servers do it)."""
    server = serve(honest(replies={verb: _mute}, extensions=extensions))
    mine = mailer(server, pipelining=pipelining, deadline=0.5)
    with pytest.raises(DeadlineExceededError) as caught:
        mine.send_bytes(b"Subject: x\r\n\r\nx\r\n", mail_from="a@b.example", recipients=["c@d.example"])
    assert ('pipelining="off"' in str(caught.value.hint)) is has_hint


@pytest.mark.parametrize(
    ("extensions", "has_hint"),
    [(("PIPELINING", "CHUNKING"), True), (("PIPELINING",), False)],
    ids=["pipelined chunk", "content after 354"],
)
def test_an_unknown_outcome_names_pipelining_if_it_may_be_the_cause(
    serve: Serve,
    mailer: Mailer,
    extensions: tuple[str, ...],
    *,
    has_hint: bool,
) -> None:
    """With CHUNKING the server may have discarded the whole message as early data; after a 354 it cannot."""
    server = serve(honest(replies={"CONTENT": _mute}, extensions=extensions))
    with pytest.raises(OutcomeUnknownError) as caught:
        mailer(server, deadline=0.5).send_bytes(
            b"Subject: x\r\n\r\nx\r\n", mail_from="a@b.example", recipients=["c@d.example"]
        )
    assert "the server's log" in str(caught.value.hint)
    assert ('pipelining="off"' in str(caught.value.hint)) is has_hint


@pytest.mark.parametrize(
    ("lines", "recipients"),
    [(300, ["c@d.example"]), (1, ["c@d.example", "e@d.example"])],
    ids=["large", "for two, all or none"],
)
def test_a_chunk_that_is_sent_alone_does_not_name_pipelining(
    serve: Serve, mailer: Mailer, lines: int, recipients: list[str]
) -> None:
    """It is written after all replies to the commands before it, so pipelining cannot be the cause."""
    server = serve(honest(replies={"CONTENT": _mute}, extensions=("PIPELINING", "CHUNKING")))
    content = b"Subject: x\r\n\r\n" + (b"y" * 900 + b"\r\n") * lines
    with pytest.raises(OutcomeUnknownError) as caught:
        mailer(server, deadline=1).send_bytes(content, mail_from="a@b.example", recipients=recipients)
    assert "pipelining" not in str(caught.value.hint)


def test_a_timeout_before_the_greeting_names_implicit_tls(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """There nothing is pipelined, but the port may be waiting for TLS."""
    server = serve(lambda peer: peer.sleep_until_peer_closes())
    with pytest.raises(DeadlineExceededError) as caught:
        mailer(server, tls="starttls", timeout=Timeouts(command=0.3)).send(message)
    assert "implicit" in str(caught.value.hint)
