"""The recording mailers are held to the real ones: signatures, checks, receipts, results, events."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncIterator, Callable, Iterator
from email.message import EmailMessage
from typing import Any

import anyio
import pytest

import securesmtp
from conftest import Run
from securesmtp import AsyncSecureMailer, Envelope, Outcome, Receipt, SecureMailer, SendResult
from securesmtp._arguments import AsyncOptions, Options
from securesmtp.errors import (
    CertificateError,
    ConfigurationError,
    RecipientsRefusedError,
    SecureSMTPError,
)
from securesmtp.testing import AsyncRecordingMailer, MailServer, Received, RecordingMailer

PAIRS = [(SecureMailer, RecordingMailer), (AsyncSecureMailer, AsyncRecordingMailer)]


@pytest.mark.parametrize(("real", "recording"), PAIRS, ids=["sync", "async"])
def test_the_methods_are_those_of_the_real_one(real: type, recording: type) -> None:
    """Same names, same arguments in the same order, same defaults, same result; coroutines where it has some."""
    methods = {name: each for name, each in vars(real).items() if not name.startswith("_") and callable(each)}
    assert {"send", "send_bytes", "send_many", "check", "close"} <= methods.keys()
    for name, method in methods.items():
        mine = getattr(recording, name)
        assert inspect.signature(mine) == inspect.signature(method), name
        assert inspect.iscoroutinefunction(mine) == inspect.iscoroutinefunction(inspect.unwrap(method)), name


@pytest.mark.parametrize(
    ("real", "recording", "options"),
    [(SecureMailer, RecordingMailer, Options), (AsyncSecureMailer, AsyncRecordingMailer, AsyncOptions)],
    ids=["sync", "async"],
)
def test_its_arguments_are_those_of_the_real_one(real: type, recording: type, options: type) -> None:
    """All of them, and a few more by keyword; the host may be left out."""
    theirs = inspect.signature(real).parameters
    mine = dict(inspect.signature(recording).parameters)
    assert mine.pop("options").kind is inspect.Parameter.VAR_KEYWORD
    assert list(mine) == ["host", "port", "tls", "fault", "refuse"]
    for name in ("port", "tls"):
        assert str(mine[name]) == str(theirs[name])
    assert set(theirs) == {"host", "port", "tls"} | options.__optional_keys__  # type: ignore[attr-defined]
    # The real code checks them.
    recording(**{name: each.default for name, each in theirs.items() if name != "host"})
    for wrong in ({"port": 0}, {"timeout": 0}, {"username": "me"}, {"ca_file": "missing.pem"}, {"host": ""}):
        with pytest.raises(ConfigurationError) as mine_says:
            recording(**wrong)
        with pytest.raises(ConfigurationError) as theirs_says:
            real(**{"host": "mail.example.com"} | wrong)
        assert str(mine_says.value) == str(theirs_says.value)


def _broken(**fields: str) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"] = "me@example.org", "you@example.org"
    made.set_content("x\n")
    for name, value in fields.items():
        del made[name]
        made[name] = value
    return made


def _with_nul() -> EmailMessage:
    made = _broken()
    made.set_payload("a\0b")
    return made


WRONG: dict[str, Callable[[Any], Any]] = {
    "no_recipient": lambda mailer: mailer.send(_broken(To="")),
    "no_sender": lambda mailer: mailer.send(_broken(From="")),
    "address": lambda mailer: mailer.send(_broken(), recipients=["you@example.org@"]),
    "one_str": lambda mailer: mailer.send(_broken(), recipients="you@example.org"),
    "nul": lambda mailer: mailer.send(_with_nul()),
    "no_message": lambda mailer: mailer.send("Subject: x\n\nx"),
    "partial": lambda mailer: mailer.send(_broken(), partial="some"),
    "deadline": lambda mailer: mailer.send(_broken(), deadline=-1),
    "empty": lambda mailer: mailer.send_bytes(b"", mail_from="a@example.org", recipients=["b@example.org"]),
    "bare_cr": lambda mailer: mailer.send_bytes(b"a: b\r\n\r\nx\ry", mail_from="", recipients=["b@example.org"]),
    "text": lambda mailer: mailer.send_bytes("a: b", mail_from="", recipients=["b@example.org"]),
    "bytes_partial": lambda mailer: mailer.send_bytes(b"a: b\n", mail_from="", recipients=["b@x.org"], partial=""),
    "one_message": lambda mailer: mailer.send_many(_broken()),
    "many_partial": lambda mailer: mailer.send_many([], partial="some"),
    "many_deadline": lambda mailer: mailer.send_many([], deadline=0),
}


@pytest.fixture(scope="module")
def server() -> Iterator[MailServer]:
    """Start a server that a real mailer sends to, for comparison."""
    with MailServer(refuse=["no@example.org"]) as running:
        yield running


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_fails_as_in_production(name: str, server: MailServer) -> None:
    """The same error with the same text, and nothing is kept."""

    async def call(mailer: Any) -> None:
        async with mailer:
            made = WRONG[name](mailer)
            await made

    errors = list[SecureSMTPError]()
    recorders: list[Any] = [RecordingMailer(), AsyncRecordingMailer()]
    for mailer in (server.mailer(), recorders[0]):
        with pytest.raises(SecureSMTPError) as caught:
            WRONG[name](mailer)
        errors.append(caught.value)
    with pytest.raises(SecureSMTPError) as caught:
        anyio.run(call, recorders[1])
    errors.append(caught.value)
    assert len({(type(error), error.args, error.hint, error.outcome, error.stage) for error in errors}) == 1
    assert [recorder.messages for recorder in recorders] == [[], []]


def _shape(receipt: Receipt) -> dict[str, Any]:
    """Return what is the same whoever accepted the message."""
    shown = receipt.as_dict()
    for name in ("tls", "elapsed", "reply", "replies", "message_id"):
        del shown[name]
    return shown


@pytest.mark.parametrize("kind", ["message", "bytes", "file", "utf8", "null", "large"])
def test_a_receipt_is_that_of_a_server(kind: str, server: MailServer) -> None:
    """Sender, recipients with their replies, size; and what was kept is what the server got."""
    to = ["you@example.org", "archive@example.org"]

    def send(mailer: SecureMailer) -> Receipt:
        match kind:
            case "bytes":
                return mailer.send_bytes(b"Subject: x\n\n.x\n", mail_from="a@example.org", recipients=to)
            case "file":
                return mailer.send_bytes(io.BytesIO(b"Subject: x\n\n.x"), mail_from="a@example.org", recipients=to)
            case "utf8":
                return mailer.send(_fixed("Grüße"), recipients=["jörg@bücher.example"])
            case "null":
                return mailer.send(_fixed("x"), mail_from="", recipients=to)
            case "large":
                large = _fixed("x")
                large.add_attachment(bytes(300_000), maintype="application", subtype="octet-stream", filename="a")
                large.set_boundary("b" * 20)
                return mailer.send(large, recipients=to)
        return mailer.send(_fixed("x"), recipients=to)

    recorder = RecordingMailer()
    assert _shape(send(recorder)) == _shape(send(server.mailer()))
    mine, theirs = recorder.messages[-1], server.messages[-1]
    assert (mine.mail_from, mine.recipients, mine.content) == (theirs.mail_from, theirs.recipients, theirs.content)
    assert mine.tls == theirs.tls


def _fixed(subject: str) -> EmailMessage:
    return _broken(Subject=subject, Date="Mon, 02 Nov 2026 10:00:00 +0000", **{"Message-ID": "<1@example.org>"})


def test_bytes_are_recorded_in_tasks(run: Run) -> None:
    """As by the mailer for threads."""

    async def send() -> list[Received]:
        mailer = AsyncRecordingMailer()
        await mailer.send_bytes(b"Subject: x\n\n.x\n", mail_from="a@example.org", recipients=["b@example.org"])
        return mailer.messages

    (received,) = run(send)
    assert (received.content, received.recipients) == (b"Subject: x\r\n\r\n.x\r\n", ("b@example.org",))


def test_partial_delivery_is_recorded(server: MailServer) -> None:
    """`refuse` and `partial` do what they do with a server; what was refused is not in the message."""
    to = ["no@example.org", "you@example.org"]
    recorder = RecordingMailer(refuse=["no@example.org"])
    mailers: list[SecureMailer] = [recorder, server.mailer()]
    for mailer in mailers:
        with pytest.raises(RecipientsRefusedError) as caught:
            mailer.send(_broken(), recipients=to)
        assert [each.reply.code for each in caught.value.recipients] == [550, 250]
        receipt = mailer.send(_broken(), recipients=to, partial="allow")
        assert (receipt.accepted, receipt.refused) == (("you@example.org",), ("no@example.org",))
    assert [each.recipients for each in recorder.messages] == [("you@example.org",)]
    assert server.messages[-1].recipients == ("you@example.org",)


def _inputs() -> list[Any]:
    broken = Envelope("a@example.org", ["b@example.org"], io.BytesIO(b""))
    return [_broken(), _broken(To="no@example.org"), EmailMessage(), broken, "no message", _broken()]


def _results(results: list[SendResult]) -> list[tuple[object, ...]]:
    return [(each.index, each.outcome, type(each.error), each.retryable, bool(each.message_id)) for each in results]


def test_a_run_has_the_results_of_a_real_one(server: MailServer, run: Run) -> None:
    """One for each message, in order: accepted, refused, or wrong input; from any kind of iterable."""

    async def results(messages: Any) -> list[SendResult]:
        async with AsyncRecordingMailer(refuse=["no@example.org"]) as mailer, mailer.send_many(messages) as found:
            return [each async for each in found]

    async def asynchronous() -> AsyncIterator[Any]:
        for each in _inputs():
            yield each

    expected = _results(list(server.mailer().send_many(_inputs())))
    recorder = RecordingMailer(refuse=["no@example.org"])
    assert _results(list(recorder.send_many(iter(_inputs())))) == expected
    assert _results(run(results, _inputs())) == expected
    assert _results(run(results, asynchronous())) == expected
    assert len(recorder.messages) == 2


def test_a_run_can_be_left_early(run: Run) -> None:
    """The messages that nobody asked for are not sent."""

    async def leave() -> int:
        mailer = AsyncRecordingMailer()
        results = mailer.send_many([_broken()] * 3)
        await anext(results)
        await results.aclose()
        assert [each async for each in results] == []
        return len(mailer.messages)

    assert run(leave) == 1
    recorder = RecordingMailer()
    assert next(recorder.send_many([_broken()] * 3)).outcome is Outcome.ACCEPTED
    assert len(recorder.messages) == 1


@pytest.mark.parametrize(("mode", "port"), [("implicit", 465), ("starttls", 587)])
def test_a_check_is_that_of_a_server_without_faults(mode: Any, port: int, run: Run) -> None:
    """With the mailer's own settings; a refused login is in the report, and a refused certificate is raised."""

    async def check() -> securesmtp.ServerReport:
        return await AsyncRecordingMailer(port=port, username="me", password="secret").check()

    reports = [RecordingMailer(port=port, username="me", password="secret").check(), run(check)]
    for report in reports:
        assert (report.port, report.tls.mode, report.login, report.mechanism) == (port, mode, True, "PLAIN")
        assert (report.before_tls is None) == (mode == "implicit")
        assert "login: accepted" in str(report)
    assert RecordingMailer().check().login is None
    refused = RecordingMailer(port=port, username="me", password="secret", fault="bad_login").check()
    assert (refused.login, type(refused.login_error).__name__) == (False, "AuthenticationError")
    with pytest.raises(CertificateError):
        RecordingMailer(fault="expired").check()


def test_a_closed_one_sends_nothing(run: Run) -> None:
    """As a real one, which a program must not use at its end."""

    async def send() -> None:
        mailer = AsyncRecordingMailer()
        await mailer.close()
        await mailer.send(_broken())

    with RecordingMailer() as mailer:
        pass
    for use in (lambda: mailer.send(_broken()), mailer.check, lambda: mailer.send_many([]), lambda: run(send)):
        with pytest.raises(ConfigurationError, match="the mailer is closed"):
            use()


def test_it_can_be_made_from_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that calls `from_env` on a class of its choice checks its variables in tests, too."""
    monkeypatch.setenv("SMTP_URL", "smtps://me:secret@mail.example.org")
    recorder = RecordingMailer.from_env()
    recorder.send(_broken())
    assert recorder.messages[0].username == "me"
    assert isinstance(recorder, SecureMailer)
    assert "secret" not in repr(recorder) + str(vars(recorder))
    with pytest.raises(ConfigurationError):
        RecordingMailer.from_url("smtps://mail.example.org?nonsense=1")


def test_a_password_is_not_asked_for(run: Run) -> None:
    """It may cost a request; and it may be a coroutine function."""

    async def secret() -> str:
        pytest.fail("the password was asked for")

    async def send() -> None:
        await AsyncRecordingMailer(username="me", password=secret, fault="greylists").check()

    run(send)
    RecordingMailer(username="me", password=lambda: pytest.fail("asked for")).send(_broken())


def test_an_interrupt_in_the_on_event_function_is_raised() -> None:
    """What a program's own function raises is as with a real one."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    recorder = RecordingMailer(on_event=interrupt)
    with pytest.raises(KeyboardInterrupt):
        recorder.send(_broken())
    with pytest.raises(KeyboardInterrupt):
        list(recorder.send_many([_broken()]))


def test_the_faults_of_a_run_are_results() -> None:
    """A fault may come and go between two messages."""
    recorder = RecordingMailer()
    outcomes = []
    for result in recorder.send_many([_broken() for _ in range(3)]):
        outcomes.append(result.outcome)
        recorder.fault = None if recorder.fault else "too_busy"
    assert outcomes == ["accepted", "not sent", "accepted"]
