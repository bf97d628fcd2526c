"""The demonstration, run as a user runs it."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from scripted import Mode
from securesmtp import SecureMailer, TLSPolicy, __main__
from securesmtp._cli import main
from securesmtp.testing import LocalServer


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_demo_sends_two_and_refuses_two(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends well, and shows the receipts and the errors."""
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("equal to what was sent") == 2
    assert "CertificateError" in shown
    assert "DowngradeError" in shown


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["--help"], 0), (["nonsense"], 2)])
def test_the_command_line_ends_with_a_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    """0 for what was asked, 2 for what it does not know, as commands do; with words in either case."""
    monkeypatch.setattr("sys.argv", ["securesmtp", *arguments])
    assert __main__.main() == code
    assert any(capsys.readouterr())


class _Changes(LocalServer):
    """A server that changes what it takes, and whose CA the next mailer trusts unasked."""

    ca: str = ""

    def __init__(self, mode: Mode = "implicit", **login: Any) -> None:
        super().__init__(mode, **login)
        _Changes.ca = self.ca_pem

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 -- aiosmtpd's
        assert isinstance(envelope.content, bytes)
        envelope.content = envelope.content.replace(b"Grace", b"Eve")
        return await super().handle_DATA(server, session, envelope)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("broken", ["changed", "trusted"])
def test_a_demo_that_shows_something_else_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A message that was changed, or a refusal that did not come, is exit code 1."""

    def trusting(host: str, port: int, **options: Any) -> SecureMailer:
        return SecureMailer(host, port, **({"policy": TLSPolicy(ca_data=_Changes.ca)} | options))

    demo = sys.modules["securesmtp._cli.demo"]
    monkeypatch.setattr(demo, "LocalServer", _Changes)
    if broken == "trusted":
        monkeypatch.setattr(demo, "SecureMailer", trusting)
    assert main(["demo"]) == 1
    assert "please report it" in capsys.readouterr().out
