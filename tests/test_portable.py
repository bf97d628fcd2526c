"""Receipts, results, reports and errors: as text for a person, and as JSON and back (RFC 8259)."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Mailer, Serve
from scripted import honest
from securesmtp import (
    Certificate,
    CertificateReason,
    Outcome,
    Receipt,
    Recipient,
    Reply,
    SendResult,
    ServerReport,
    Stage,
    TLSInfo,
    TLSMode,
    errors,
)
from securesmtp.errors import (
    AuthenticationError,
    CertificateError,
    ConnectError,
    DeadlineExceededError,
    OutcomeUnknownError,
    RecipientsRefusedError,
    SecureSMTPError,
)

OK, NO = Reply(250, "2.1.5", "2.1.5 ok", b"2.1.5 ok"), Reply(550, "5.1.1", "5.1.1 no\\xff", b"5.1.1 no\xff")
WHEN = datetime(2026, 11, 26, 12, tzinfo=UTC)
CERTIFICATE = Certificate("mx", "ca", ("mx.example", "192.0.2.1"), WHEN, WHEN + timedelta(days=1), "ab" * 32)
TLS = TLSInfo(
    TLSMode.STARTTLS, "TLSv1.3", "TLS_AES_128_GCM_SHA256", "mx.example", "ca_data", "ab", "sha256/x", WHEN,
    (CERTIFICATE,),
)  # fmt: skip
QUEUED = Reply(250, "2.0.0", "2.0.0 queued as 4X", b"2.0.0 queued as 4X")


def _receipt(refused: int = 0, message_id: str | None = "<1@x.example>") -> Receipt:
    people = [Recipient("a@b.example", accepted=True, reply=OK)]
    people += [Recipient(f"no{n}@b.example", accepted=False, reply=NO) for n in range(refused)]
    return Receipt(
        message_id, "me@x.example", tuple(people), QUEUED, TLS, 812, timedelta(microseconds=1234567), (QUEUED,)
    )


def _report(**changes: Any) -> ServerReport:
    facts: dict[str, Any] = {
        "host": "mx.example", "port": 587, "addresses": ("192.0.2.1", "2001:db8::1"), "address": "192.0.2.1",
        "tls": TLS, "days_left": 12, "before_tls": {"STARTTLS": ""}, "after_tls": {"SIZE": "1000", "AUTH": "PLAIN"},
        "mechanisms": ("PLAIN",), "mechanism": "PLAIN", "size": 1000, "limits": {"RCPTMAX": 2}, "round_trips": 1,
        "login": True,
        "passed_over": {"LOGIN": "not offered by the server", "Y": "no", "X": "not offered by the server"},
    }  # fmt: skip
    return ServerReport(**{**facts, **changes})


def _refused_login() -> AuthenticationError:
    return AuthenticationError("the login is refused", stage=Stage.AUTH, reply=NO)


def _facts(error: SecureSMTPError) -> tuple[object, ...]:
    # Two errors are never equal.
    earlier = [_facts(each) for each in error.earlier]
    return type(error), str(error), error.args, {**vars(error), "earlier": earlier}


def _full(kind: type[SecureSMTPError]) -> SecureSMTPError:
    """Return an error of this *kind* with every attribute set."""
    error = kind("what happened", stage=Stage.RCPT, reply=NO, retryable=True, hint="do this")
    error.host, error.port, error.message_id = "mx.example", 587, "<1@x.example>"
    extra: dict[str, object] = {
        "address": "no@", "reason": CertificateReason.STRICT, "limit": "final", "recipients": _receipt(1).recipients,
        "receipt": _receipt(), "interrupted": True, "earlier": (_refused_login(),),
    }  # fmt: skip
    for name, value in extra.items():
        if hasattr(kind, name):
            setattr(error, name, value)
    # An unknown outcome is never retryable.
    error.retryable = error.outcome is not Outcome.UNKNOWN
    assert set(vars(error)) >= set(get_type_hints(kind)) - {"outcome"}
    return error


ERRORS = [_full(getattr(errors, name)) for name in errors.__all__]
VALUES = [
    OK, NO, CERTIFICATE, TLS, _receipt(), _receipt(2, None), *_receipt(1).recipients,
    SendResult(0, "<1@x>", Outcome.ACCEPTED, _receipt()),
    SendResult(1, None, Outcome.UNKNOWN), _report(), _report(before_tls=None, mechanism=None, size=None, login=None),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=[f"{type(value).__name__}-{n}" for n, value in enumerate(VALUES)])
def test_a_value_survives_json(value: Reply | Receipt | ServerReport) -> None:
    """Every field: bytes, times and durations too."""
    written = json.dumps(value.as_dict())
    assert type(value).from_dict(json.loads(written)) == value


@given(
    st.builds(
        Reply, st.integers(200, 599), st.none() | st.just("4.2.2"), st.text(), st.binary()
    ).map(lambda reply: Recipient("a@b", accepted=reply.code < 300, reply=reply)),
    st.timedeltas(timedelta(0), timedelta(days=7)),
)  # fmt: skip
@settings(deadline=None)
def test_any_reply_and_duration_survives_json(recipient: Recipient, elapsed: timedelta) -> None:
    """Whatever the server sent."""
    receipt = Receipt(None, "", (recipient,), recipient.reply, TLS, 0, elapsed)
    assert Receipt.from_dict(json.loads(json.dumps(receipt.as_dict()))) == receipt


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_json_and_pickle(error: SecureSMTPError) -> None:
    """Its class, its text and every attribute, those of its class too."""
    for again in (
        SecureSMTPError.from_dict(json.loads(json.dumps(error.as_dict()))),
        type(error).from_dict(error.as_dict()),
        pickle.loads(pickle.dumps(error)),  # noqa: S301 -- our own
        copy.copy(error),
    ):
        assert _facts(again) == _facts(error)
        assert again.outcome is error.outcome


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_rebuilt_from_its_args_is_not_retryable(error: SecureSMTPError) -> None:
    """As Celery's JSON result backend does it (issue 13, C.9): unknown stage, the same outcome."""
    again = type(error)(*json.loads(json.dumps(error.args)))
    assert (again.retryable, again.reply, again.host, again.message_id) == (False, None, None, None)
    assert again.outcome is error.outcome
    # This stage is that of the class.
    assert again.stage is (Stage.CONFIGURATION if isinstance(error, errors.ConfigurationError) else Stage.UNKNOWN)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        ({}, SecureSMTPError, "an error of type None was raised"),
        ({"type": "builtins.KeyError"}, SecureSMTPError, "an error of type 'builtins.KeyError' was raised"),
        ({"type": "QuotaError", "message": "later"}, SecureSMTPError, "later"),
        ({"type": "smtplib", "message": "x"}, SecureSMTPError, "x"),
        ({"type": "Stage", "message": "x"}, SecureSMTPError, "x"),
        ({"type": ["x"], "message": "x"}, SecureSMTPError, "x"),
        ({"type": "ConnectError", "message": "lost"}, ConnectError, "lost"),
    ],
)
def test_missing_data_is_not_invented(data: dict[str, Any], kind: type[SecureSMTPError], text: str) -> None:
    """Without an outcome in the data or the class it is unknown, and the error is not retryable."""
    error = SecureSMTPError.from_dict(data)
    assert (type(error), error.args, error.retryable, error.stage) == (kind, (text,), False, Stage.UNKNOWN)
    assert error.outcome is (Outcome.NOT_SENT if kind is ConnectError else Outcome.UNKNOWN)


def test_an_error_of_a_later_version_keeps_its_outcome() -> None:
    """Although this version does not have its class."""
    data = {**_full(ConnectError).as_dict(), "type": "QuotaError", "outcome": "refused", "quota": 5}
    error = SecureSMTPError.from_dict(data)
    assert (type(error), error.outcome, error.retryable) == (SecureSMTPError, Outcome.REFUSED, True)


def test_an_unknown_outcome_is_never_retryable() -> None:
    """Even if the data says so."""
    data = {**_full(OutcomeUnknownError).as_dict(), "retryable": True}
    assert not SecureSMTPError.from_dict(data).retryable


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Reply, {"code": "250", "enhanced": None, "text": "", "raw": ""}),
        (Reply, {"code": True, "enhanced": None, "text": "", "raw": ""}),
        (Reply, {"code": 250}),
        (Recipient, {"address": "a@b", "accepted": True, "reply": "250 ok"}),
        (Receipt, {**_receipt().as_dict(), "recipients": "a"}),
        (Receipt, {**_receipt().as_dict(), "elapsed": "1"}),
        (Receipt, {**_receipt().as_dict(), "elapsed": True}),
        (Receipt, {**_receipt().as_dict(), "elapsed": float("inf")}),
        (ServerReport, {**_report().as_dict(), "limits": {"RCPTMAX": "2"}}),
        (SendResult, {**SendResult(1, None, Outcome.UNKNOWN).as_dict(), "outcome": "sent"}),
        (SendResult, {**SendResult(1, None, Outcome.UNKNOWN).as_dict(), "error": "text"}),
        (ConnectError, {**_full(ConnectError).as_dict(), "retryable": "yes"}),
        (ConnectError, errors.TLSError("x").as_dict()),
        (ConnectError, {"type": "QuotaError", "message": "x"}),
    ],
)  # fmt: skip
def test_malformed_data_is_refused(kind: type[Receipt], data: dict[str, Any]) -> None:
    """Always with ValueError, whatever is wrong."""
    with pytest.raises(ValueError):  # noqa: PT011 -- whichever field it names
        kind.from_dict(data)


def test_a_duration_may_be_an_int() -> None:
    """JSON has one type of number (RFC 8259 §6): other programs write 1.0 as 1."""
    assert Receipt.from_dict({**_receipt().as_dict(), "elapsed": 1}).elapsed == timedelta(seconds=1)


@pytest.mark.parametrize("error", [_full(RecipientsRefusedError), _full(DeadlineExceededError)])
def test_a_result_and_a_report_keep_their_error(error: SecureSMTPError) -> None:
    """Compared as dicts, since exceptions compare by identity."""
    for value in (SendResult(3, None, error.outcome, error=error), _report(login=False, login_error=error)):
        data = json.loads(json.dumps(value.as_dict()))
        assert type(value).from_dict(data).as_dict() == value.as_dict() == data


def test_of_a_callers_own_error_only_the_type_is_kept() -> None:
    """Its text may contain a password; a class with the name of one of ours is not mistaken for it."""

    class ConnectError(Exception):
        pass

    result = SendResult(3, None, Outcome.NOT_SENT, error=ConnectError("hunter2"))
    assert "hunter2" not in f"{json.dumps(result.as_dict())} {result}"
    assert str(result) == "3: not sent a message without Message-ID, ConnectError"
    again = SendResult.from_dict(result.as_dict())
    assert (type(again.error), again.outcome, again.retryable) == (SecureSMTPError, Outcome.NOT_SENT, False)


def test_a_callers_subclass_is_written_as_the_librarys_class() -> None:
    """As the nearest class that the library can read."""

    class MyError(CertificateError):
        mine: "NotThere"  # type: ignore[name-defined]  # noqa: F821, UP037

    error = MyError("x")
    assert type(SecureSMTPError.from_dict(error.as_dict())) is CertificateError


def test_a_receipt_is_one_short_line() -> None:
    """For `print`; `repr` has every field."""
    assert str(_receipt()) == "accepted <1@x.example> for 1 of 1 recipients: 250 2.0.0 queued as 4X"
    assert repr(_receipt()).startswith("Receipt(message_id='<1@x.example>', mail_from=")
    assert str(_receipt(1, None)) == (
        "accepted a message without Message-ID for 1 of 2 recipients: 250 2.0.0 queued as 4X; "
        "refused: no0@b.example (550 5.1.1 no\\xff)"
    )
    assert str(_receipt(3)).endswith("no2@b.example (550 5.1.1 no\\xff)")
    assert str(_receipt(5)).endswith("no2@b.example (550 5.1.1 no\\xff), and 2 more")


def test_a_result_is_one_short_line() -> None:
    """The message, its outcome, why, and whether it can be sent again."""
    refused = SendResult(7, "<1@x>", Outcome.REFUSED, error=_full(RecipientsRefusedError))
    assert str(refused) == "7: refused <1@x>, RecipientsRefusedError: what happened (retryable)"
    assert str(SendResult(8, None, Outcome.UNKNOWN)) == "8: unknown a message without Message-ID"
    accepted = SendResult(9, "<1@x>", Outcome.ACCEPTED, _receipt())
    assert str(accepted) == f"9: {_receipt()}"


def test_a_report_is_seven_short_lines() -> None:
    """What a person wants to know about a server."""
    assert str(_report()).splitlines() == [
        "server: mx.example:587 at 192.0.2.1",
        "TLS: TLSv1.3, TLS_AES_128_GCM_SHA256, trust from ca_data",
        "certificate: for mx.example, 12 days left",
        "login: accepted by PLAIN",
        "mechanisms: offered PLAIN; chosen PLAIN; not LOGIN, X (not offered by the server); not Y (no)",
        "largest message: 1000 bytes",
        "offers: SIZE AUTH",
    ]
    lines = str(_report(login=False, login_error=_refused_login(), size=None)).splitlines()
    assert lines[3] == "login: refused, AuthenticationError: the login is refused"
    assert lines[5] == "largest message: no limit given"
    nothing = str(_report(login=None, mechanisms=(), mechanism=None, passed_over={})).splitlines()
    assert nothing[3:5] == ["login: not tried", "mechanisms: offered none"]
    assert "login: not tried" in str(_report(login=None))


@pytest.mark.parametrize("bad", ["\x1b[2J", "\r\n550 no", "\u2028", "\u202e", "\x00"])
def test_text_from_others_cannot_control_a_terminal_or_start_a_line(bad: str) -> None:
    """A Message-ID may come from a stranger, as a reply does (RPL-08)."""
    shown = f"{_receipt(message_id=f'<{bad}@x>')}{SendResult(1, f'<{bad}@x>', Outcome.UNKNOWN)}"
    assert shown.isprintable()
    assert bad not in shown


def test_real_values_survive_json(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """What a mailer returns and raises, not only values that a test makes."""
    mine = mailer(serve(honest(auth=("me", "right"))), username="me", password="right")
    receipt, report = mine.send(message), mine.check()
    (result,) = mine.send_many([message])
    for value in (receipt, report, result):
        assert type(value).from_dict(json.loads(json.dumps(value.as_dict()))) == value
    wrong = mailer(serve(honest(auth=("me", "right"))), username="me", password="wrong")
    with pytest.raises(AuthenticationError) as caught:
        wrong.send(message)
    again = AuthenticationError.from_dict(json.loads(json.dumps(caught.value.as_dict())))
    assert (str(again), vars(again)) == (str(caught.value), vars(caught.value))
    refused = wrong.check()
    assert "login: refused, AuthenticationError" in str(refused)
    assert ServerReport.from_dict(refused.as_dict()).as_dict() == refused.as_dict()
