"""The token bucket of a rate: no window of time has more turns than it may, and none is wasted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._transport.turns import Turns

RATES = st.floats(0.01, 5000)


@given(RATES, st.lists(st.floats(0, 3), min_size=1, max_size=60))
@settings(max_examples=examples(300))
def test_no_window_has_more_turns_than_the_rate_allows(rate: float, pauses: list[float]) -> None:
    """In any t seconds at most rate * t + max(1, rate / 10), whenever somebody comes and however greedy."""
    turns, now, taken = Turns(rate), 100.0, list[float]()
    for pause in pauses:
        now += pause
        for _ in range(3):
            if not turns.delay(now):
                turns.take(now)
                taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            allowed = rate * (taken[last] - start) + max(1, rate / 10)
            assert last - first + 1 <= allowed + 1e-6


@given(RATES)
@settings(max_examples=examples(300))
def test_whoever_waits_for_each_turn_gets_the_whole_rate(rate: float) -> None:
    """A wake-up that is a little late costs nothing later, because a tenth of a second is caught up."""
    turns, now, count = Turns(rate), 0.0, 200
    late = min(0.05, 1 / rate)
    for number in range(count):
        now += turns.delay(now)
        # Each second one is late, by up to 50 ms.
        now += late * (number % 2) * (rate > 20)
        turns.take(now)
    assert now <= (count - 1) / rate + 0.1


def test_a_turn_that_is_given_back_is_there_again() -> None:
    """As if nobody had taken it."""
    turns = Turns(2)
    turns.take(10)
    assert turns.delay(10) == 0.5
    turns.give_back()
    assert turns.delay(10) == 0


def test_without_a_rate_there_is_always_a_turn() -> None:
    """Nothing is counted."""
    turns = Turns(None)
    for _ in range(1000):
        turns.take(1)
    assert turns.delay(1) == 0
