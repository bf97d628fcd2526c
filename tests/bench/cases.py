"""What `bench.speed` compares: each case one server, and the clients that take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

BOTH, PIPELINING, POSTFIX = "PIPELINING CHUNKING", "PIPELINING", "Postfix"
RIVALS = ("smtplib", "aiosmtplib", "Django", "red-mail", "nodemailer")
FAST = ("smtplib", "aiosmtplib", "nodemailer")


@dataclass(frozen=True)
class Case:
    """
    One comparison.

    Attributes:
        name: What it is called.
        rtt: A round trip, in seconds.
        server: What the sink offers, or Postfix.
        counts: How many messages each client sends.
        task: What else is in its task.
    """

    name: str
    rtt: float
    server: str
    counts: dict[str, int]
    task: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """What is aimed at: *client* has at most or at least so many times what the best of *others* has."""

    case: str
    client: str
    others: Sequence[str]
    what: Literal["rate", "cpu", "memory", "time"]
    times: float


_LIMITS = {"limit, lockstep": 15, "limit, pipelined": 30, "limit, content-first": 60}
_OURS = {"securesmtp": 60, "securesmtp, send": 60, "securesmtp, off": 15}
_RTT = 0.05
CASES = (
    Case(
        "one connection, CHUNKING",
        _RTT,
        BOTH,
        dict.fromkeys(RIVALS, 15)
        | _OURS
        | _LIMITS
        | {"limit, chunk": 60, "securesmtp, session": 2000, "limit, chunks": 2000, "securesmtp, asyncio": 60},
    ),
    Case(
        "one connection, PIPELINING",
        _RTT,
        PIPELINING,
        dict.fromkeys(FAST, 15) | _OURS | _LIMITS | {"securesmtp, session": 60},
    ),
    Case(
        "one connection, Postfix",
        _RTT,
        POSTFIX,
        dict.fromkeys(FAST, 15) | _OURS | _LIMITS | {"securesmtp, session": 600, "limit, chunks": 600},
    ),
    Case(
        "ten connections, CHUNKING",
        _RTT,
        BOTH,
        dict.fromkeys(FAST, 100)
        | {"securesmtp": 400, "securesmtp, session": 8000, "limit, chunk": 400, "limit, chunks": 8000},
        {"connections": 10},
    ),
    Case(
        "100 recipients, CHUNKING",
        _RTT,
        BOTH,
        {"smtplib": 2, "nodemailer": 6, "securesmtp": 10, "securesmtp, allow": 10, "limit, chunk": 10},
        {"recipients": 100},
    ),
    Case("cold, CHUNKING", _RTT, BOTH, dict.fromkeys((*FAST, "securesmtp", "limit, chunk"), 6), {"cold": True}),
    Case(
        "cold, PIPELINING",
        _RTT,
        PIPELINING,
        dict.fromkeys((*FAST, "securesmtp", "limit, pipelined"), 6),
        {"cold": True},
    ),
    Case("cold, Postfix", 0.0, POSTFIX, dict.fromkeys((*FAST, "securesmtp", "limit, pipelined"), 20), {"cold": True}),
    Case(
        "2 kB, no distance",
        0.0,
        BOTH,
        dict.fromkeys(
            (
                *RIVALS,
                "securesmtp",
                "securesmtp, send",
                "securesmtp, off",
                "securesmtp, session",
                "securesmtp, asyncio",
            ),
            1000,
        ),
    ),
    Case(
        "2 kB of octets, no distance",
        0.0,
        BOTH,
        dict.fromkeys(
            (
                *("smtplib", "securesmtp", "securesmtp, send_bytes", "securesmtp, off", "securesmtp, session"),
                *("limit, lockstep", "limit, chunk"),
            ),
            1000,
        ),
        {"message": "octets"},
    ),
    Case("25 MB attached", 0.0, BOTH, dict.fromkeys((*FAST, "Django", "securesmtp"), 1), {"message": "large"}),
    Case("25 MB file", 0.0, BOTH, dict.fromkeys(("securesmtp", "limit, chunk"), 1), {"message": "file"}),
)
THREADED = ("smtplib", "aiosmtplib", "nodemailer")
# `bench.aims` has those for the CPU of small messages and of a file.
TARGETS = (
    Target("one connection, CHUNKING", "securesmtp", ["smtplib"], "rate", 3.6),
    Target("one connection, PIPELINING", "securesmtp", ["smtplib"], "rate", 1.9),
    Target("ten connections, CHUNKING", "securesmtp", THREADED, "rate", 3),
    Target("one connection, CHUNKING", "securesmtp, session", ["smtplib"], "rate", 40),
    Target("one connection, CHUNKING", "securesmtp, session", ["limit, chunks"], "rate", 0.8),
    Target("one connection, PIPELINING", "securesmtp, session", ["smtplib"], "rate", 3.8),
    Target("one connection, PIPELINING", "securesmtp, session", ["limit, content-first"], "rate", 0.9),
    Target("ten connections, CHUNKING", "securesmtp, session", THREADED, "rate", 25),
    Target("100 recipients, CHUNKING", "securesmtp, allow", ["smtplib"], "rate", 60),
    Target("100 recipients, CHUNKING", "securesmtp, allow", ["nodemailer"], "rate", 1),
    Target("100 recipients, CHUNKING", "securesmtp", ["smtplib"], "rate", 30),
    Target("cold, CHUNKING", "securesmtp", ["limit, chunk"], "time", 1.05),
    Target("cold, PIPELINING", "securesmtp", ["limit, pipelined"], "time", 1.05),
    Target("cold, Postfix", "securesmtp", ["smtplib"], "rate", 4),
    Target("25 MB attached", "securesmtp", ["smtplib"], "cpu", 0.3),
    Target("25 MB attached", "securesmtp", ["smtplib"], "memory", 0.4),
)
