"""The inputs that fuzzing begins with, and those that it found, on every Python and without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import flights, reply_reader, scram, session

CORPUS = Path(__file__).parent / "corpus"
HARNESSES = {
    "flights": flights.check,
    "reply_reader": reply_reader.check,
    "scram": scram.check,
    "session": session.check,
}
INPUTS = sorted(path for target in HARNESSES for path in (CORPUS / target).iterdir())


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_keeps_every_rule_and_ends_as_its_name_says(path: Path) -> None:
    """A file's name begins with what comes of it, so that no change makes an input test something else unnoticed."""
    octets = path.read_bytes()
    assert len(octets) < 1024
    assert path.name.startswith(HARNESSES[path.parent.name](octets).replace(" ", "-"))
