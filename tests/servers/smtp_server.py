"""nodemailer's smtp-server, the library on which test servers for Node.js and some mail services are built."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from servers.node import SCRIPTS, NodeServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servers.real import Ability


class SMTPServer(NodeServer):
    """A private smtp-server, whose messages a script of ours hands to the sink."""

    name: ClassVar[str] = "smtp-server"
    package: ClassVar[str] = "smtp-server"
    cannot: ClassVar[Mapping[Ability, str]] = MappingProxyType(
        {"trace": "it writes no Received field", "report": "it leaves reports to its application"}
    )

    def _command(self) -> list[str]:
        path = self._directory / "settings.json"
        self._write_settings(path)
        return [self._node(), str(SCRIPTS / "smtp_server.js"), str(path)]
