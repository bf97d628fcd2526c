"""The command line and its demonstration, run as a user runs them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from scripted import Mode
from securesmtp import SecureMailer, TLSPolicy, __main__
from securesmtp._cli import main
from securesmtp.testing import MailServer, Received


def test_the_demo_sends_two_and_refuses_two(capsys: pytest.CaptureFixture[str]) -> None:
    """It succeeds, and shows the receipts and the errors."""
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("equal to what was sent") == 2
    assert "CertificateError" in shown
    assert "DowngradeError" in shown
    assert shown.count("outcome: not sent") == 2


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["--help"], 0), (["nonsense"], 2)])
def test_the_command_line_returns_an_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    """0 for success, 2 for an unknown command; something is printed in either case."""
    monkeypatch.setattr("sys.argv", ["securesmtp", *arguments])
    assert __main__.main() == code
    assert any(capsys.readouterr())


class _Tampering(MailServer):
    """A server that changes each message; the class keeps the CA of its last instance."""

    ca: str = ""

    def __init__(self, mode: Mode | None = None, **login: Any) -> None:
        super().__init__(mode, **login)
        _Tampering.ca = self.ca_pem

    def _add(self, message: Received) -> int:
        return super()._add(replace(message, content=message.content.replace(b"Grace", b"Eve")))


@pytest.mark.parametrize("broken", ["changed", "trusted"])
def test_a_demo_that_fails_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A changed message, or a refusal that did not happen, is exit code 1."""

    def trusting(host: str, port: int, **options: Any) -> SecureMailer:
        return SecureMailer(host, port, **({"policy": TLSPolicy(ca_data=_Tampering.ca)} | options))

    demo = sys.modules["securesmtp._cli.demo"]
    monkeypatch.setattr(demo, "MailServer", _Tampering)
    if broken == "trusted":
        monkeypatch.setattr(demo, "SecureMailer", trusting)
    assert main(["demo"]) == 1
    assert "please report it" in capsys.readouterr().out
