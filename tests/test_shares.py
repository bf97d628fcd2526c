"""The shares of `--share K/N`, among which `.ci/run` divides the suite."""

from __future__ import annotations

import pytest

from conftest import in_share

IDS = [f"tests/test_many.py::test_each_result[{number}]" for number in range(3000)]


@pytest.mark.parametrize("commit", ["", "/8d7bc1df"])
@pytest.mark.parametrize("shares", [1, 2, 3, 4])
def test_each_test_is_in_one_share(shares: int, commit: str) -> None:
    """None is lost, and the shares are about equal."""
    held = [[each for each in IDS if in_share(each, f"{number}/{shares}{commit}")] for number in range(1, shares + 1)]
    assert sorted(each for share in held for each in share) == sorted(IDS)
    assert min(map(len, held)) > 0.9 * len(IDS) / shares


def test_a_test_is_in_the_same_share_on_every_machine() -> None:
    """Neither the order nor Python's seed for hashes decides."""
    assert [each[-2] for each in IDS[:10] if in_share(each, "1/2")] == ["1", "4", "6", "7"]


def test_each_commit_has_other_shares() -> None:
    """A test that no other Python runs at this commit, some other Python runs at one of the next."""
    first, second = ({each for each in IDS if in_share(each, f"1/4/{commit}")} for commit in ("8d7bc1df", "7aa491f1"))
    assert 0.2 < len(first & second) / len(first) < 0.3


def test_even_and_odd_cases_are_in_both_shares() -> None:
    """The cases of a family may alternate, as those of the two TLS modes do."""
    even = [each for each in IDS[::2] if in_share(each, "1/2")]
    assert 0.4 < len(even) / len(IDS[::2]) < 0.6
