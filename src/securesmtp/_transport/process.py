"""Which process this is: a connection belongs to the one that made it, and to no child of that."""

from __future__ import annotations

import os
from contextlib import suppress


class _Forks:
    """The forks between the first process of the program and this one."""

    count = 0


def _count_fork() -> None:
    _Forks.count += 1


def current_process() -> tuple[int, int]:
    """
    Return what tells this process from each one that it was forked from.

    A child in a PID namespace of its own may have its parent's number (pid_namespaces(7)), so forks are counted; a fork
    that Python does not see, such as one by a C library, is told by the number.
    """
    return os.getpid(), _Forks.count


with suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(after_in_child=_count_fork)
