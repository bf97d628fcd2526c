"""The messages of the kills."""

from __future__ import annotations

from securesmtp import Envelope

SENDER = "news@example.test"
LARGE = 100_000


def message(key: str) -> Envelope:
    """Return the message of *key*: each eighth is large enough for many writes."""
    number = int(key.rpartition("-")[2])
    size = LARGE if number % 8 == 0 else 40
    lines = f"{key:.<38}\r\n" * max(1, size // 40)
    fields = f"From: {SENDER}\r\nMessage-ID: <{key}@example.test>\r\nSubject: {key}\r\n\r\n"
    return Envelope(SENDER, [f"{key}@example.test"], f"{fields}{lines}".encode("ascii"), key=key)
