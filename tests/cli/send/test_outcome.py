"""The exit code of each error, and how an error is told to a shell."""

from __future__ import annotations

import socket

import pytest

from securesmtp import Outcome, Recipient, Reply, Stage, errors
from securesmtp._cli.exit_codes import ExitCode
from securesmtp._cli.send.outcome import MEANINGS, exit_code, translate_hint
from securesmtp.errors import (
    CertificateError,
    ConnectError,
    OutcomeUnknownError,
    RecipientsRefusedError,
    SecureSMTPError,
    WrongTLSModeError,
)

# The code of each class, if a later try would not help.
CODES = {
    "AddressError": 65,
    "AuthenticationError": 77,
    "CertificateError": 76,
    "ConfigurationError": 78,
    "ConnectError": 69,
    "DataRefusedError": 69,
    "DeadlineExceededError": 69,
    "DowngradeError": 76,
    "LedgerError": 69,
    "MessageError": 65,
    "NoUsableMechanismError": 77,
    "OutcomeUnknownError": 3,
    "ProtocolError": 76,
    "RecipientsRefusedError": 67,
    "RefusedError": 69,
    "SecureSMTPError": 3,
    "SenderRefusedError": 69,
    "ServerNotAuthenticError": 77,
    "TLSError": 76,
    "WrongTLSModeError": 76,
}


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_has_its_code(name: str) -> None:
    """Unknown always counts first; then whether a later try may succeed."""
    kind: type[SecureSMTPError] = getattr(errors, name)
    assert exit_code(kind("x")) == CODES[name]
    assert exit_code(kind("x", retryable=True)) == (3 if kind.outcome is Outcome.UNKNOWN else 75)
    unknown = kind("x", retryable=True)
    unknown.outcome = Outcome.UNKNOWN
    assert exit_code(unknown) == 3


@pytest.mark.parametrize(
    ("number", "code"),
    [(socket.EAI_NONAME, 68), (socket.EAI_AGAIN, 75), (socket.EAI_FAIL, 75)],
    ids=["none", "again", "fail"],
)
def test_a_name_that_does_not_exist_has_a_code_of_its_own(number: int, code: int) -> None:
    """A resolver that does not answer is temporary."""
    error = ConnectError("x", stage=Stage.CONNECT, retryable=True)
    error.__cause__ = socket.gaierror(number, "x")
    assert exit_code(error) == code


def test_what_is_no_error_of_ours_is_unknown() -> None:
    """Nothing is claimed of it."""
    assert exit_code(ValueError()) == 3


def test_each_code_has_its_meaning_and_none_is_taken_for_a_signal() -> None:
    """Callers read codes from 126 on as the shell's; 75 is the only one after which some try again."""
    assert set(MEANINGS) == set(ExitCode)
    assert max(ExitCode) < 126


@pytest.mark.parametrize(
    ("kind", "hint", "shown"),
    [
        (WrongTLSModeError, 'use tls="starttls" (usually port 587), or …', "use --starttls (usually port 587), or …"),
        (WrongTLSModeError, 'if …, use tls="implicit"', "if …, leave --starttls out"),
        (
            CertificateError,
            "pass a private CA's root as ca_file; for …",
            "pass a private CA's root as --ca-file; for …",
        ),
        (ConnectError, None, None),
    ],
)
def test_a_hint_names_options(kind: type[SecureSMTPError], hint: str | None, shown: str | None) -> None:
    """Not the arguments of a function."""
    error = kind("x", hint=hint)
    translate_hint(error)
    assert error.hint == shown


def _recipients(count: int, code: int) -> tuple[Recipient, ...]:
    return tuple(Recipient(f"{n}@x.example", code < 400, Reply(code, None, "r", b"r")) for n in range(count))


def test_refused_recipients_are_named() -> None:
    """Not more than fit on a line."""
    error = RecipientsRefusedError("x")
    error.recipients = _recipients(2, 250)[:1] + _recipients(2, 550)[1:]
    translate_hint(error)
    assert error.hint == "refused: 1@x.example (550 r); --partial sends it to the others"
    error.recipients = _recipients(12, 550)
    translate_hint(error)
    assert str(error.hint).endswith("9@x.example (550 r) and 2 more")


def test_those_who_have_a_message_of_unknown_outcome_are_named() -> None:
    """It was sent in several transactions."""
    error = OutcomeUnknownError("x", hint="error.recipients says who has the message")
    error.recipients = _recipients(1, 250)
    translate_hint(error)
    assert error.hint == "it was accepted for 0@x.example (250 r); find out who of the others has it"
    error.recipients = _recipients(1, 550)
    translate_hint(error)
    assert str(error.hint).startswith("it was accepted for none so far;")
