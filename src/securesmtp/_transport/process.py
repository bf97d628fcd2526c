"""Identify the current process: a connection is used only by the process that made it, never by a forked child."""

from __future__ import annotations

import os
from contextlib import suppress


class _Forks:
    """The number of forks between the first process of the program and this one."""

    count = 0


def _count_fork() -> None:
    _Forks.count += 1


def current_process() -> tuple[int, int]:
    """
    Return a value that differs from that of every process from which this one was forked.

    The number of forks is part of it because a child in a PID namespace of its own may have its parent's PID
    (pid_namespaces(7)). The PID is, because Python does not notice a fork by a C library.
    """
    return os.getpid(), _Forks.count


with suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(after_in_child=_count_fork)
