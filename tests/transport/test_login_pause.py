from __future__ import annotations

from time import monotonic

import pytest

from securesmtp import AuthenticationError, Reply
from securesmtp._transport.login_pause import LoginPause

REPLY = Reply(454, "4.7.0", "later", b"4.7.0 later")


def test_a_pause_that_another_thread_ends_meanwhile_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the interpreter's lock, the pause can end between any two reads."""
    reads = iter([(monotonic(), "454 later", REPLY), None])
    racing = property(lambda _: next(reads), lambda *_: None)
    monkeypatch.setattr(LoginPause, "_refusal", racing, raising=False)
    with pytest.raises(AuthenticationError, match="no login was attempted"):
        LoginPause().check()
