"""What can be killed beside a worker: a Postfix that comes back on the same ports, and a ledger's database."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
import time
from contextlib import suppress
from typing import Protocol

from databases import PostgreSQL, Redis
from servers.postfix import Postfix
from servers.real import ALICE, READY_WITHIN
from servers.sink import Delivered

_BACK_WITHIN, _DELIVERED_WITHIN = 60.0, 120.0


class Victim(Protocol):
    """A server that is killed and started again."""

    def kill(self) -> None:
        """Kill all its processes (SIGKILL)."""

    def start(self) -> None:
        """Start it, with the data that it had, at the address that it had."""


class MortalPostfix(Postfix):
    """A Postfix that is killed, and started again on the same ports."""

    process: subprocess.Popen[bytes]

    def _run(self) -> subprocess.Popen[bytes]:
        self.process = super()._run()
        return self.process

    def kill(self) -> None:
        """Kill all its processes."""
        # The process that was started first is not stopped again: its number may be another one's by then.
        self._running.pop_all()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def start(self) -> None:
        """Start it again on the same ports."""
        end = time.monotonic() + _BACK_WITHIN
        while time.monotonic() < end:
            # Its last processes may hold a port for a moment.
            process = self._run()
            if self._is_up(process):
                return
            self.kill()
        raise RuntimeError(f"{self.name} does not come back:\n{self.log()[-4000:]}")

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        end = time.monotonic() + READY_WITHIN
        while process.poll() is None and time.monotonic() < end:
            # Without TLS, whose handshake takes longer than all else.
            with suppress(OSError, smtplib.SMTPException), smtplib.SMTP(self.host, self.starttls_port, "localhost", 5):
                return True
            time.sleep(0.02)
        return False

    def close(self) -> None:
        """Kill it, and stop the sink."""
        if hasattr(self, "process") and self.process.returncode is None:
            self.kill()
        super().close()

    def deliver_all(self) -> list[Delivered]:
        """Wait until it has nothing more to deliver, and return what it has delivered since the last call."""
        end = time.monotonic() + _DELIVERED_WITHIN
        while self.queued():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.queued()} messages are not delivered:\n{self.log()[-4000:]}")
            time.sleep(0.05)
        return self.delivered_now()

    def mailer(self) -> dict[str, object]:
        """Return the arguments of a mailer for it."""
        return {
            "host": self.host,
            "port": self.implicit_port,
            "tls": "implicit",
            "ca_file": str(self._ca_file),
            "username": ALICE.username,
            "password": ALICE.password,
        }


class OpenPostgreSQL(PostgreSQL):
    """A PostgreSQL that other machines may use."""

    def _prepare(self) -> None:
        super()._prepare()
        with (self._directory / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all trust\n")


class OpenRedis(Redis):
    """A Redis that other machines may use."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--protected-mode", "no"]
