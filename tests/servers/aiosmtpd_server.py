"""aiosmtpd itself, without what `securesmtp.testing` adds to it."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from servers.programs import ProgrammedServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servers.real import Ability

PROGRAM = Path(__file__).with_name("aiosmtpd_program.py")


class Aiosmtpd(ProgrammedServer):
    """A private aiosmtpd, whose messages a program of ours hands to the sink."""

    name: ClassVar[str] = "aiosmtpd"
    cannot: ClassVar[Mapping[Ability, str]] = MappingProxyType(
        {"trace": "it writes no Received field", "greeting": "it greets at once, which cannot be set"}
    )

    @classmethod
    def missing(cls) -> str | None:
        """Return None: the tests require aiosmtpd anyway."""

    def _prepare(self) -> str:
        return metadata.version("aiosmtpd")

    def _command(self) -> list[str]:
        path = self._directory / "settings.json"
        self._write_settings(path)
        # -P: or this folder would come first on the path of imports.
        return [sys.executable, "-P", str(PROGRAM), str(path)]
