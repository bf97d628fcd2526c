"""The table of the faults says what a mailer makes of each; here the servers and the recording mailers play them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest

from conftest import Mailer
from securesmtp import OAuth2, Outcome, Receipt, Secret, SecureMailer, errors
from securesmtp.errors import (
    AuthenticationError,
    CertificateError,
    ConnectError,
    DeadlineExceededError,
    DowngradeError,
    OutcomeUnknownError,
    RecipientsRefusedError,
    SecureSMTPError,
)
from securesmtp.events import Failed, Sent
from securesmtp.testing import FAULTS, AsyncRecordingMailer, FaultName, MailServer, RecordingMailer

PAGE = Path(__file__).parents[2] / "docs/how-to/test-your-program.md"
IN_MEMORY = [name for name in FAULTS if name not in {"slow", "oauth_expired"}]
# More than client and server buffer.
LARGE = 8 << 20


def _end(send: Callable[[], Receipt]) -> Receipt | SecureSMTPError:
    try:
        return send()
    except SecureSMTPError as error:
        return error


def _check(name: FaultName, end: Receipt | SecureSMTPError) -> None:
    """Compare how a send ended with the row of the table."""
    fault = FAULTS[name]
    if isinstance(end, Receipt):
        assert (fault.outcome, fault.error) == (Outcome.ACCEPTED, None)
    else:
        assert type(end).__name__ == fault.error
        assert (end.outcome, end.retryable) == (fault.outcome, fault.retryable)
        assert getattr(end, "reason", None) is fault.reason


def _enlarge(name: FaultName, message: EmailMessage) -> None:
    if name == "drops_in_content":
        message.add_attachment(bytes(LARGE), maintype="application", subtype="octet-stream", filename="large")


@pytest.mark.faces("testing", sample=(3, 1))
@pytest.mark.parametrize("name", FAULTS)
def test_the_server_plays_what_the_table_says(name: FaultName, make_mailer: Mailer, message: EmailMessage) -> None:
    """With each mailer: the error, its outcome, whether a retry may help, and what the server has."""
    _enlarge(name, message)
    with MailServer(fault=name, delay=0.01) as server, ExitStack() as stack:
        assert server.login is not None
        options: dict[str, Any] = {"auth": OAuth2(*server.login)} if name == "oauth_expired" else {}
        options |= {"timeout": 0.2} if name == "silent" else {}
        made = make_mailer(server.host, server.port, **server.options(**options))
        stack.callback(made.close)
        _check(name, _end(lambda: made.send(message)))
    has_it = FAULTS[name].outcome in {Outcome.ACCEPTED, Outcome.UNKNOWN}
    assert len(server.messages) == has_it


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", IN_MEMORY)
def test_a_recording_mailer_plays_what_the_table_says(name: FaultName, kind: str, message: EmailMessage) -> None:
    """As the server does, with the same reply at the same stage."""
    played = RecordingMailer(fault=name) if kind == "sync" else AsyncRecordingMailer(fault=name)

    async def send() -> Receipt:
        assert isinstance(played, AsyncRecordingMailer)
        return await played.send(message)

    def call() -> Receipt:
        return played.send(message) if isinstance(played, RecordingMailer) else anyio.run(send)

    end = _end(call)
    _check(name, end)
    assert len(played.messages) == (end.outcome is Outcome.UNKNOWN if isinstance(end, SecureSMTPError) else True)


@pytest.mark.parametrize("name", IN_MEMORY)
def test_the_error_in_memory_is_that_of_a_server(name: FaultName, message: EmailMessage) -> None:
    """Class, stage, reply, outcome and recipients are equal; the text of a refused certificate, or of a cut, is not."""
    _enlarge(name, message)
    with MailServer(fault=name) as server:
        real = _end(lambda: server.mailer(timeout=0.2).send(message))
    recorded = _end(lambda: RecordingMailer(timeout=0.2, fault=name).send(message))
    assert isinstance(real, SecureSMTPError)
    assert isinstance(recorded, SecureSMTPError)
    shown, expected = recorded.as_dict(), real.as_dict()
    left_out = {"host", "port", "message_id"}
    if isinstance(real, CertificateError | ConnectError | OutcomeUnknownError) and not real.reply:
        left_out |= {"message", "hint"}
    assert {key: value for key, value in shown.items() if key not in left_out} == {
        key: value for key, value in expected.items() if key not in left_out
    }


def test_what_needs_a_server_says_so() -> None:
    """A recording mailer takes no time, and has no login."""
    for name in FAULTS.keys() - IN_MEMORY:
        with pytest.raises(ValueError, match=f"fault {name} needs a server.*mail_server_factory"):
            RecordingMailer(fault=name)
        with pytest.raises(ValueError, match="needs a server"):
            RecordingMailer().fault = name


@pytest.mark.parametrize("make", [MailServer, RecordingMailer, AsyncRecordingMailer])
def test_an_unknown_fault_is_refused_with_the_list(make: Callable[..., object]) -> None:
    """A mistyped name must not play nothing."""
    with pytest.raises(ValueError, match=r"fault is 'greylist', not one of refuses_recipients, greylists, "):
        make(fault="greylist")


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"fault": "starttls_stripped", "mode": "implicit"}, 'mode="starttls"'),
        ({"fault": "bad_login", "login": None}, "a login"),
        ({"fault": "oauth_expired", "login": "any"}, "a login"),
    ],
    ids=["starttls", "login", "token"],
)
def test_a_fault_that_cannot_be_played_is_refused(options: dict[str, Any], needed: str) -> None:
    """A test of it would pass for the wrong reason."""
    with pytest.raises(ValueError, match=f"needs {re.escape(needed)}"):
        MailServer(**options)


def test_greylisted_recipients_are_accepted_the_next_time(message: EmailMessage) -> None:
    """Each sender and recipient once; `clear` forgets them."""
    for played in _greylisting():
        with pytest.raises(RecipientsRefusedError) as caught:
            played[1].send(message)
        assert [each.reply.code for each in caught.value.recipients] == [451, 451]
        assert played[1].send(message).accepted == ("you@example.org", "blind@example.org")
        played[0].clear()
        assert played[0].messages == []
        with pytest.raises(RecipientsRefusedError):
            played[1].send(message)


def _greylisting() -> Iterator[tuple[MailServer | RecordingMailer, SecureMailer]]:
    with MailServer(fault="greylists") as server:
        yield server, server.mailer()
    recorder = RecordingMailer(fault="greylists")
    yield recorder, recorder


def test_a_fault_can_come_and_go(message: EmailMessage) -> None:
    """The program keeps its mailer, as when a server is down for a while; each fault concerns the next send."""
    with MailServer("starttls") as server:
        mailer = server.mailer()
        for name, expected in {
            "untrusted": CertificateError,
            "too_busy": ConnectError,
            "starttls_stripped": DowngradeError,
            "refuses_recipients": RecipientsRefusedError,
        }.items():
            server.fault = None
            mailer.send(message)
            server.fault = name  # type: ignore[assignment]
            with pytest.raises(expected):
                mailer.send(message)
        assert server.fault == "refuses_recipients"
    assert len(server.messages) == 4


def test_an_expired_token_is_replaced(message: EmailMessage) -> None:
    """A callable that returns another token is called again; the server accepts that one, for its user alone."""
    tokens = iter(["expired", "fresh", "other"])
    with MailServer(fault="oauth_expired", login=("me", "unused")) as server:
        with server.mailer(auth=OAuth2("me", lambda: Secret(next(tokens)))) as mailer:
            mailer.send(message)
        for mechanism in ("XOAUTH2", "OAUTHBEARER"):
            server.mailer(auth=OAuth2("me", "fresh", [mechanism])).send(message)
            for user, token in [("me", "expired"), ("you", "fresh")]:
                with pytest.raises(AuthenticationError, match="535"):
                    server.mailer(auth=OAuth2(user, token, [mechanism])).send(message)
    assert [each.username for each in server.messages] == ["me"] * 3
    assert next(tokens) == "other"


def test_a_slow_server_ends_a_shorter_limit(message: EmailMessage) -> None:
    """The remark of the table."""
    with MailServer(fault="slow", delay=5) as server, pytest.raises(DeadlineExceededError) as caught:
        server.mailer(deadline=0.2).send(message)
    assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("pipelining", ["off", "message"])
def test_a_short_message_is_unknown_if_the_server_drops_in_it(pipelining: Any, message: EmailMessage) -> None:
    """The remark of the table: it was written whole, by BDAT as by DATA, so the server may have read it."""
    with MailServer(fault="drops_in_content") as server, pytest.raises(OutcomeUnknownError):
        server.mailer(pipelining=pipelining).send(message)
    assert server.messages == []


def _size(message: EmailMessage) -> int:
    return RecordingMailer().send(message).size


@pytest.mark.parametrize("fault", [None, "full", "bad_login"])
def test_a_recording_mailer_emits_the_events_of_a_real_one(fault: FaultName | None, message: EmailMessage) -> None:
    """A program's counters are tested, too."""
    events = list[object]()
    _end(lambda: RecordingMailer(fault=fault, on_event=events.append).send(message))
    (event,) = events
    assert isinstance(event, Failed if fault else Sent)
    if isinstance(event, Failed):
        assert event.elapsed is not None
        assert (event.recipients, event.size, event.tls is None) == (2, _size(message), fault == "bad_login")


def test_the_table_names_each_fault_and_each_error_that_there_is() -> None:
    """A type checker knows the names from another list."""
    assert list(FAULTS) == list(get_args(FaultName))
    assert all(fault.error is None or fault.error in errors.__all__ for fault in FAULTS.values())


def table() -> str:
    """Return the table of the page."""
    lines = ["| fault | what the server does | what your mailer raises | outcome | retryable | remark |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, fault in FAULTS.items():
        reason = f", reason {fault.reason}" if fault.reason else ""
        error = f"`{fault.error}`{reason}" if fault.error else "nothing"
        cells = [f"`{name}`", fault.plays, error, fault.outcome, "yes" if fault.retryable else "no", fault.remark]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)


def test_the_page_prints_this_table() -> None:
    """To write it: `PYTHONPATH=tests python tests/testing/test_faults.py`."""
    assert table() in PAGE.read_text("utf-8")


if __name__ == "__main__":
    head, _, rest = PAGE.read_text("utf-8").partition("| fault |")
    PAGE.write_text(head + table() + "\n\n" + rest.partition("\n\n")[2], "utf-8")
