"""A secret that a command prints."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from securesmtp._secret import Secret, SecretSource
from securesmtp._shown import quote
from securesmtp._sources.output import Output, wrong_source
from securesmtp._tracebacks import hide_internal_frames
from securesmtp._transport.deadline import Deadline
from securesmtp._values import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

# Seconds for a process to end after it was killed. Another user's (sudo) goes on.
_DEATH = 5


class Command(SecretSource):
    """The first line that a command prints."""

    __slots__ = ("_arguments", "_name", "_timeout")

    def __init__(self, arguments: tuple[str, ...], timeout: float) -> None:
        self._arguments, self._timeout = arguments, timeout
        # Other arguments may be secret.
        self._name = f"command {quote(arguments[0])}"

    def __repr__(self) -> str:
        return f"<password from the {self._name}>"

    @hide_internal_frames
    def __call__(self) -> Secret:
        deadline, doing = Deadline("from_command", self._timeout), f"waiting for the {self._name}"
        output = Output()
        with self._running() as (process, pipe):
            ready = select.poll()
            ready.register(pipe, select.POLLIN)
            # Not `communicate`, which reads without a limit.
            while not ready.poll(1000 * deadline.left(Stage.AUTH, doing)) or output.read(pipe):
                continue
            while process.returncode is None and not output.is_too_long:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(deadline.left(Stage.AUTH, doing))
        if process.returncode and not output.is_too_long:
            ended = f"status {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
            hint = "run it as the same user to see why: what it says is not shown here, since it may be a secret"
            raise wrong_source(f"the {self._name} ended with {ended}", hint)
        return output.first_line(f"the output of the {self._name}")

    @contextmanager
    def _running(self) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """Run the command; if it has not ended when the block does, kill it and the processes that it has started."""
        try:
            # A session of its own is a process group too. It has no terminal, at which nobody may be.
            process = subprocess.Popen(  # noqa: S603 -- the caller's program
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise wrong_source(f"the {self._name} cannot be run: {error.strerror}") from error
        try:
            yield process, process.stdout.fileno()  # type: ignore[union-attr]  # it is a pipe
        finally:
            process.stdout.close()  # type: ignore[union-attr]
            if process.returncode is None:
                # Its number is not in use again, because nobody has waited for it. With sudo there is no right to kill.
                with suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_DEATH)
