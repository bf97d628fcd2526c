"""The exit codes of the commands. Those of `securesmtp send` are in sysexits.h, which mail programs read."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of ``securesmtp send``: sysexits.h, and one of its own."""

    OK = 0
    UNKNOWN = 3
    """At least one message may have been delivered: it is not known. sysexits.h has no code for it."""
    USAGE = 64
    DATA = 65
    NO_RECIPIENT = 67
    NO_HOST = 68
    UNAVAILABLE = 69
    NO_RESULTS = 73
    TEMPORARY_FAILURE = 75
    PROTOCOL = 76
    NO_PERMISSION = 77
    CONFIGURATION = 78


class CheckCode(IntEnum):
    """Exit codes of ``securesmtp check``, those of monitoring plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class AuditCode(IntEnum):
    """Exit codes of ``securesmtp audit``."""

    CLEAN = 0
    FOUND = 1
    NOT_CHECKED = 2
