"""Servers that are libraries: a small program of ours sets one up, and hands each message to the sink."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from servers.dovecot import KEY
from servers.real import REFUSALS, SIZE_LIMIT, RealServer

if TYPE_CHECKING:
    from pathlib import Path


class ProgrammedServer(RealServer):
    """A server that a program of ours sets up."""

    def _write_settings(self, path: Path) -> None:
        """Write what the program needs to know."""
        settings = {
            "accounts": dict(self.accounts),
            "certificate": str(self._certificate),
            "greeting_delay": self.greeting_delay,
            "implicit": self.implicit_port,
            "patience": self.patience,
            "refusals": REFUSALS,
            "sink": self._sink.port,
            "size": SIZE_LIMIT,
            "starttls": self.starttls_port,
            "token_key": KEY.decode(),
        }
        path.write_text(json.dumps(settings), "utf-8")
