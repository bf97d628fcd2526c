"""Run a web application with uvicorn, in this process or in its own; and stop it."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

import web_fastapi
from conftest import unmeasured

EXAMPLES = Path(web_fastapi.__file__).parent
# Any ASGI application.
App = Callable[..., Any]


@contextmanager
def serving(app: App = web_fastapi.app, *, is_forced: bool = False, **options: Any) -> Iterator[int]:
    """Run *app* as uvicorn does, in a thread; end it as one Ctrl-C does, or as two."""
    # By default, it would be uvloop where that is installed.
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, **{"loop": "asyncio"} | options))
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        # It listens already, so a request before the application starts waits.
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.force_exit = is_forced
            server.should_exit = True
            thread.join()


@contextmanager
def when_logged(line: str, action: Callable[[], object]) -> Iterator[None]:
    """Call *action* when uvicorn logs *line*."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(line):
                action()

    handler, log = Handler(), logging.getLogger("uvicorn.error")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


class Process(NamedTuple):
    """A web server in a process of its own, the port that it listens on, and what it has logged since."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str]

    def memory(self) -> tuple[int, int]:
        """Return the memory that it uses, and the most that it has used so far, in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        now, peak = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
        assert now is not None
        assert peak is not None
        return int(now[1]), int(peak[1])


@contextmanager
def process(
    arguments: Sequence[str], changed: Mapping[str, str] | None = None, folder: Path = EXAMPLES
) -> Iterator[Process]:
    """Run Python with *arguments* in *folder* until its web server listens; kill it at the end."""
    environment = unmeasured() | {"PYTHONPATH": os.pathsep.join(sys.path)} | dict(changed or {})
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as running:
        last_resort = threading.Timer(110, running.kill)
        last_resort.start()
        try:
            assert running.stderr is not None
            lines = iter(running.stderr.readline, "")
            port = next(int(found[1]) for line in lines if (found := re.search(r"on http://127\.0\.0\.1:(\d+)", line)))
            logged: list[str] = []
            # A full pipe would stop the process.
            reading = threading.Thread(target=logged.extend, args=(lines,))
            reading.start()
            yield Process(running, port, logged)
        finally:
            last_resort.cancel()
            running.kill()
    reading.join()
