"""Paths are merged only as far as no rule notices, and what is left out is known."""

from __future__ import annotations

import pytest

from securesmtp._cli.audit.engine import check_source
from securesmtp._cli.audit.findings import Level
from securesmtp._cli.audit.paths import Path, reduce
from securesmtp._cli.audit.values import Const


def _paths(*states: str) -> list[Path]:
    return [Path({"client": {"%tls": Const(state)}}) for state in states]


@pytest.mark.parametrize(("most", "left", "is_cut"), [(3, 3, False), (2, 2, True)], ids=["all", "cut"])
def test_paths_that_are_left_out_are_noted(most: int, left: int, *, is_cut: bool) -> None:
    """Only then nothing can be said about all paths."""
    reduced = reduce(_paths("plain", "verified", "unverified"), most)
    assert [each.is_cut for each in reduced] == [is_cut] * left
    assert reduced[0].copy().is_cut is is_cut


def test_equal_paths_are_one() -> None:
    """A branch that does nothing for mail costs nothing."""
    assert len(reduce(_paths("plain", "plain", "verified"), 8)) == 2


def test_fault_on_paths_of_which_some_were_left_out_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others may be secure, as they are here."""
    source = b"""import smtplib
def send(m, plain, context):
    s = smtplib.SMTP('a.example', timeout=1)
    if plain:
        s.ehlo()
    else:
        s.starttls(context=context)
    s.send_message(m)
"""
    assert [(each.rule, each.level) for each in check_source(source, "p.py")] == [("SMT105", Level.NOTE)]
    monkeypatch.setattr("securesmtp._cli.audit.machine.MOST_PATHS", 1)
    assert [(each.rule, each.level) for each in check_source(source, "p.py")] == [("SMT102", Level.WARNING)]
