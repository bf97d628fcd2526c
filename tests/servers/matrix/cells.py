"""What the matrix finds: a cell for each row, server and way to send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from faces import Face
from scripted import Mode

Way = Literal["send", "send_many", "session"]
# "right": the outcome was true, and what arrived is what was sent. "cannot": the server cannot do it, and the library
# said so. "wrong": anything else.
Verdict = Literal["right", "cannot", "wrong"]
WAYS: tuple[Way, ...] = ("send", "send_many", "session")
MATRIX_FACES: tuple[Face, ...] = ("sync", "asyncio")


class Combination(NamedTuple):
    """How a message is sent; "session" is `send_many` with pipelining="session"."""

    mode: Mode
    face: Face
    way: Way


@dataclass(frozen=True)
class Cell:
    """What came of one row; *detail* has the server's reply, or what was wrong."""

    row: str
    server: str
    combination: Combination
    verdict: Verdict
    detail: str = ""
