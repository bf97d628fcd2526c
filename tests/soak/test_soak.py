"""The soak's short form: the long one is `nox -s soak`."""

from __future__ import annotations

import os

import pytest

from servers.postfix import Postfix
from soak.soak import parser, run


def test_what_is_told_is_what_was_delivered(capsys: pytest.CaptureFixture[str]) -> None:
    """Through a real Postfix and a network that breaks; nothing twice, nothing lost, nothing left behind."""
    reason = Postfix.missing()
    if reason is not None and "SECURESMTP_REQUIRE_SERVERS" not in os.environ:
        pytest.skip(reason)
    assert run(parser().parse_args(["--messages", "500", "--restarts", "1"])) == 0, capsys.readouterr().out
