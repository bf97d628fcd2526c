"""The exit code of each error, and how an error is told to a shell."""

from __future__ import annotations

import ast
import io
import os
import re
import socket
import sys
from pathlib import Path

import click
import pytest

import securesmtp
from securesmtp import Envelope, Outcome, Recipient, Reply, Stage, errors
from securesmtp._cli import send
from securesmtp._cli.exit_codes import ExitCode
from securesmtp._cli.send import sendmail
from securesmtp._cli.send.options import read_input
from securesmtp._cli.send.outcome import IN_A_SHELL, MEANINGS, Manner, deliver, exit_code, print_line, translate
from securesmtp.errors import (
    AuthenticationError,
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
    "ProxyError": 69,
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
        (
            ConnectError,
            'the name: pass local_hostname="app.example.com"',
            "the name, and only a program can give it another one (local_hostname)",
        ),
        (AuthenticationError, "try later (max_connections)", "try later (for many messages: --connections)"),
        (WrongTLSModeError, 'use tls="starttls" (usually port 587), or …', "use --starttls (usually port 587), or …"),
        (WrongTLSModeError, 'if …, use tls="implicit"', "if …, leave --starttls out"),
        (
            CertificateError,
            "pass a private CA's root as ca_file; for …",
            "pass a private CA's root as --ca-file; for …",
        ),
        (
            CertificateError,
            "ca_file has 'x', not this root: get it …, and pass it as ca_file",
            "--ca-file has 'x', not this root: get it …, and pass it as --ca-file",
        ),
        (CertificateError, "add the root of that chain to ca_file", "add the root of that chain to the --ca-file"),
        (CertificateError, "use it as host, or TLSPolicy(server_hostname=…)", "use it as host"),
        (ConnectError, None, None),
    ],
)
def test_a_hint_names_options(kind: type[SecureSMTPError], hint: str | None, shown: str | None) -> None:
    """Not the arguments of a function."""
    error = kind("x", hint=hint)
    translate(error)
    assert error.hint == shown


@pytest.mark.parametrize(
    ("words", "command"), [(IN_A_SHELL, send.command), (sendmail.HINTS, sendmail.command)], ids=["send", "sendmail"]
)
def test_each_option_in_a_hint_exists(words: dict[str, str], command: click.Command) -> None:
    """As one of this command; and the name that it replaces is in a text of the library."""
    texts = {
        node.value
        for path in Path(securesmtp.__file__).parent.rglob("*.py")
        if path.name not in {"outcome.py", "sendmail.py"}
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    options = {opt for param in command.params for opt in param.opts}
    for argument, word in words.items():
        assert set(re.findall(r"--?[a-z-]+(?![\w=])", word.partition("securesmtp send")[0])) <= options, word
        # Some hints are made of parts.
        longest = max(re.findall(r"\w+", argument), key=len)
        assert any(longest in text for text in texts), argument


def _recipients(count: int, code: int) -> tuple[Recipient, ...]:
    return tuple(Recipient(f"{n}@x.example", code < 400, Reply(code, None, "r", b"r")) for n in range(count))


def test_refused_recipients_are_named() -> None:
    """Not more than fit on a line."""
    error = RecipientsRefusedError("x")
    error.recipients = _recipients(2, 250)[:1] + _recipients(2, 550)[1:]
    translate(error)
    assert str(error).startswith(
        "1 of 2 recipients refused: 1@x.example (550 r). Hint: --partial sends it to the others ("
    )
    error.recipients = _recipients(12, 550)
    translate(error)
    assert "12 of 12 recipients refused: 0@x.example" in str(error)
    assert "9@x.example (550 r) and 2 more. See http" in str(error)


def test_those_who_have_a_message_of_unknown_outcome_are_named() -> None:
    """It was sent in several transactions."""
    error = OutcomeUnknownError("x", hint="error.recipients says who has the message")
    error.recipients = _recipients(1, 250)
    translate(error)
    assert error.hint == "it was accepted for 0@x.example (250 r); find out who of the others has it"
    error.recipients = _recipients(1, 550)
    translate(error)
    assert str(error.hint).startswith("it was accepted for none so far;")


@pytest.mark.parametrize(
    ("cause", "code", "shown"),
    [
        (ConnectError("stopped"), 130, "securesmtp: not sent: stopped. "),
        (OutcomeUnknownError("stopped"), 3, "securesmtp: unknown: stopped. "),
    ],
)
def test_an_interrupt_says_what_became_of_the_message(
    capsys: pytest.CaptureFixture[str], cause: SecureSMTPError, code: int, shown: str
) -> None:
    """Ctrl-C is 130, unless the message may have been delivered."""

    def interrupted() -> None:
        raise KeyboardInterrupt from cause

    assert deliver(lambda: None, interrupted, Manner()) == code  # type: ignore[arg-type, return-value]
    assert capsys.readouterr().err.startswith(shown)


@pytest.mark.parametrize("hint", [None, "do something " * 8])
def test_at_a_terminal_an_error_has_lines(monkeypatch: pytest.MonkeyPatch, hint: str | None) -> None:
    """Wrapped between words; the address of the page is whole."""
    error = ConnectError("it failed", hint=hint)
    error.host, error.port = "mail.example.org", 465
    shown = _shown_at_a_terminal(monkeypatch, error, "not sent")
    assert shown[0] == "securesmtp: not sent: mail.example.org:465: it failed"
    assert shown[-1] == f"See {error.url}"
    assert " ".join(" ".join(shown[1:-1]).split()) == ("" if hint is None else f"Hint: {hint.strip()}")
    assert all(len(line) <= 60 for line in shown[:-1])


def test_at_a_terminal_the_message_to_look_for_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an unknown outcome; not wrapped, so that it can be copied."""
    error = OutcomeUnknownError("it failed", hint="look for it")
    error.message_id = f"<{'1' * 80}@example.org>"
    shown = _shown_at_a_terminal(monkeypatch, error, "unknown")
    assert shown[1:] == [f"Message-ID: {error.message_id}", "Hint: look for it", f"See {error.url}"]


def _shown_at_a_terminal(monkeypatch: pytest.MonkeyPatch, error: SecureSMTPError, outcome: str) -> list[str]:
    def fail() -> Envelope:
        raise error

    ours, theirs = os.openpty()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with os.fdopen(theirs, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert deliver(fail, lambda: pytest.fail("it was opened"), Manner()) == exit_code(error)
        stderr.flush()
        written = ""
        # The system passes on what was written a part at a time.
        while not written.endswith(f"{error.url}\n"):
            written += os.read(ours, 10_000).decode().replace("\r", "")
    os.close(ours)
    assert f"\x1b[1;31m{outcome}" in written
    return re.sub(r"\x1b\[[\d;]*m", "", written).splitlines()


def test_another_interrupt_is_left_to_the_caller() -> None:
    """Before the library was called, there is nothing to say."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(interrupted, interrupted, Manner())  # type: ignore[arg-type]


def test_a_pipe_without_reader_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a closed stdout; the rest of what Python writes at its end goes nowhere."""
    read, write = os.pipe()
    os.close(read)
    replaced: list[int] = []
    monkeypatch.setattr(os, "dup2", lambda _, to: replaced.append(to))
    with io.TextIOWrapper(io.FileIO(os.dup(write), "w"), write_through=True) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        print_line(b"x")
    os.close(write)
    assert replaced == [1]
    monkeypatch.setattr(sys, "stdout", None)
    print_line(b"x")
    assert replaced == [1]


def test_a_closed_standard_input_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the message is refused as empty."""
    monkeypatch.setattr(sys, "stdin", None)
    assert read_input() == b""


def test_at_a_terminal_the_way_to_end_the_message_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr."""
    master, slave = os.openpty()
    os.write(master, b"text\n\x04")
    with os.fdopen(slave, encoding="ascii") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert read_input() == b"text\n"
    os.close(master)
    assert "Ctrl-D ends it" in capsys.readouterr().err
