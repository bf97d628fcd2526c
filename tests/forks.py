"""A process that forks for each connection: what it has imported, its children need not import."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn


def fork_for_each_connection(path: str, serve: Callable[[socket.socket], object]) -> NoReturn:
    """Listen at *path*, and call *serve* in a child for each connection, until this process is killed."""
    # The kernel takes away what has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                serve(connection)
                sys.exit(0)
            connection.close()
