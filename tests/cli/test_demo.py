"""The demonstration, run as a user runs it."""

from __future__ import annotations

import pytest

from securesmtp._cli import main


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_demo_sends_two_and_refuses_two(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends well, and shows the receipts and the errors."""
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("equal to what was sent") == 2
    assert "CertificateError" in shown
    assert "DowngradeError" in shown
