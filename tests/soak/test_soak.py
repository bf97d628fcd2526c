"""A short soak; the long one is `nox -s soak`."""

from __future__ import annotations

import os

import pytest

from faces import Face
from securesmtp import Outcome
from servers.postfix import Postfix
from soak.callers import Told, message
from soak.soak import Delivered, parser, run


@pytest.mark.faces("soak", sample=(2, 1))
def test_outcomes_agree_with_deliveries(face: Face, capsys: pytest.CaptureFixture[str]) -> None:
    """Through a real Postfix and a failing network: nothing is delivered twice, lost or left behind."""
    reason = Postfix.missing()
    if reason is not None and os.environ.get("SECURESMTP_REQUIRE_SERVERS") != "1":
        pytest.skip(reason)
    options = parser().parse_args(["--messages", "400", "--restarts", "1", "--face", face])
    assert run(options) == 0, capsys.readouterr().out


def test_a_lie_is_found() -> None:
    """Every kind of lie is found; true and unknown outcomes are not lies."""
    told, truth = Told(), Delivered()
    told.outcomes = dict(enumerate([Outcome.ACCEPTED] * 4 + [Outcome.NOT_SENT, Outcome.REFUSED, Outcome.NOT_SENT]))
    told.outcomes |= {7: Outcome.UNKNOWN, 8: Outcome.UNKNOWN}
    for number in (1, 2, 2, 3, 5, 6, 7, 9):
        truth.note(message(number).replace(b".3 ", b".4 "), f"id {len(truth.ids)}" if number == 2 else "id")
    assert truth.lies(told) == {
        "told accepted, and not delivered": [0],
        "told not sent or refused, and delivered": [5, 6],
        "submitted twice": [2],
        "changed on the way": [3],
        "delivered, and never told": [9],
    }
