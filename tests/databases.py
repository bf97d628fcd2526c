"""
Real databases for tests: each runs in a private directory on a loopback port, until it is closed.

`tests/servers/install` installs them; none of the machine's own is touched.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import pytest

INSTALL = "run tests/servers/install as root"
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
READY_WITHIN = 60.0
# Another process may take a free port before the database binds it.
ATTEMPTS = 3

D = TypeVar("D", bound="Database")


class Database(ABC):
    """
    A server of data.

    Attributes:
        ready_within: Seconds after which it has failed to start.
        port: Where it listens, on 127.0.0.1; the same after a restart.
        process: Its main process.
    """

    name: ClassVar[str]
    ready_within: ClassVar[float] = READY_WITHIN
    port: int
    process: subprocess.Popen[bytes]

    def __init__(self, directory: Path) -> None:
        """Start it; return when it answers."""
        self._directory = directory
        directory.chmod(0o777)
        self._prepare()
        for _ in range(ATTEMPTS):
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
            with suppress(RuntimeError):
                self.start()
                return
        raise RuntimeError(f"{self.name} does not start:\n{self.log()}")

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return why it cannot be started here and what to do about it, or None."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where a client connects to."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write what does not depend on the port."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command that runs it in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether it serves."""

    def _user(self) -> str | None:
        """Return the user that it runs as, if that is not ours."""
        return None

    def _environment(self) -> dict[str, str]:
        return {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def start(self) -> None:
        """Start it, and wait until it answers; after `stop` or `kill`, with the data that it had."""
        with (self._directory / "console.log").open("ab") as console:
            # In a session of its own, so that the group has only its processes.
            self.process = subprocess.Popen(
                self._command(),
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                user=self._user(),
            )
        end = time.monotonic() + self.ready_within
        while self.process.poll() is None and time.monotonic() < end:
            if self._answers():
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"{self.name} does not start:\n{self.log()}")

    def kill(self) -> None:
        """Kill all its processes (SIGKILL), as a loss of power would, and wait for their end."""
        # Those of PostgreSQL have sessions of their own, and may serve one more statement when their parent is dead.
        children = self._children()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for child in children:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, signal.SIGKILL)
            # Readable at its end.
            select.select([child], [], [])
            os.close(child)

    def _children(self) -> list[int]:
        """Return a file for each process that its main process has started."""
        children = list[int]()
        for status in Path("/proc").glob("[0-9]*/stat"):
            # It may have ended meanwhile.
            with suppress(OSError):
                parent = int(status.read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid:
                    children.append(os.pidfd_open(int(status.parent.name)))
        return children

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def log(self) -> str:
        """Return what it has printed."""
        return (self._directory / "console.log").read_text(errors="replace")

    def close(self) -> None:
        """End it; its data are of no use any more."""
        self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PostgreSQL(Database):
    """Debian's PostgreSQL; its superuser is ``postgres``, from everywhere and without a password."""

    name = "PostgreSQL"

    @classmethod
    def missing(cls) -> str | None:
        if cls._folder() is None:
            return f"PostgreSQL is missing: {INSTALL}"
        return None

    @staticmethod
    def _folder() -> Path | None:
        """Return the folder with the programs of the newest version."""
        found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
        return max((each.parent for each in found), key=lambda each: int(each.parent.name), default=None)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _user(self) -> str | None:
        # It refuses to run as root.
        return "postgres" if os.geteuid() == 0 else None

    def _program(self, name: str) -> str:
        folder = self._folder()
        assert folder is not None
        return str(folder / name)

    def _prepare(self) -> None:
        (self._directory / "sockets").mkdir(mode=0o777)
        options = [
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        data = self._directory / "data"
        data.mkdir(mode=0o700)
        if (user := self._user()) is not None:
            shutil.chown(data, user)
        subprocess.run(
            [self._program("initdb"), *options, "-D", str(data)],
            cwd=self._directory,
            env=self._environment(),
            user=self._user(),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def _command(self) -> list[str]:
        # What is written survives a SIGKILL without fsync, as the machine goes on; only a loss of power needs it.
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "200",
            "max_prepared_transactions": "10",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self._directory / "data"), "-p", str(self.port), *options]

    def _answers(self) -> bool:
        command = [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, env=self._environment(), check=False).returncode == 0

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run *sql* as the superuser, and return what psql prints, without headers."""
        command = [self._program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.url_of(database), "-c", sql]
        return subprocess.run(command, env=self._environment(), check=True, capture_output=True, text=True).stdout

    def url_of(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"


class PgBouncer(Database):
    """Debian's PgBouncer before a PostgreSQL: all its clients share one connection, each for a transaction."""

    name = "PgBouncer"

    def __init__(self, directory: Path, server: PostgreSQL) -> None:
        self._server = server
        super().__init__(directory)

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("pgbouncer", path=SEARCH_PATH) else f"PgBouncer is missing: {INSTALL}"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _user(self) -> str | None:
        # It refuses to run as root.
        return "postgres" if os.geteuid() == 0 else None

    def _prepare(self) -> None:
        """Its file has the port in it."""

    def _command(self) -> list[str]:
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": 1,
        }
        database = f"* = host=127.0.0.1 port={self._server.port} user=postgres"
        lines = ["[databases]", database, "[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
        path = self._directory / "pgbouncer.ini"
        path.write_text("\n".join(lines))
        return ["pgbouncer", str(path)]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False


class Redis(Database):
    """Debian's Redis, which writes each command to its disk before it replies."""

    name = "Redis"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("redis-server", path=SEARCH_PATH) else f"Redis is missing: {INSTALL}"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        """It makes its own files."""

    def _command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
        return ["redis-server", *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(b"PING\r\n")
            return client.recv(16) == b"+PONG\r\n"
        return False


class RabbitMQ(Database):
    """Debian's RabbitMQ, with a port mapper (epmd) of its own; user and password are ``guest``."""

    name = "RabbitMQ"
    # Five seconds of CPU time, which a busy machine does not have at once.
    ready_within = 300.0
    # Debian's command starts it as another user, in that one's folder.
    _PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    @classmethod
    def missing(cls) -> str | None:
        return None if cls._PROGRAM.exists() else f"RabbitMQ is missing: {INSTALL}"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def _prepare(self) -> None:
        (self._directory / "plugins").write_text("[].\n")
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            self._mapper, self._distribution = one.getsockname()[1], other.getsockname()[1]

    def _command(self) -> list[str]:
        # The mapper stays in the group of the server. Otherwise Erlang would start one that outlives it.
        return ["sh", "-c", f'epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & exec {self._PROGRAM}']

    def _environment(self) -> dict[str, str]:
        folder = str(self._directory)
        return {
            **super()._environment(),
            "HOME": folder,
            "ERL_EPMD_PORT": str(self._mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"tests-{self._mapper}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_CONFIG_FILE": f"{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_LOGS": "-",
        }

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            # AMQP 0-9-1: a protocol header, which is answered by a method frame.
            client.sendall(b"AMQP\x00\x00\x09\x01")
            return client.recv(1) == b"\x01"
        return False


def running(kind: type[D], make: Callable[[Path], D] | None = None) -> Iterator[D]:
    """Run a database for a fixture, which *make* makes in a folder, or skip its tests with the reason."""
    reason = kind.missing()
    if reason is not None:
        # If servers are required, as in .ci/run, a skip would hide that nothing was tested.
        if os.environ.get("SECURESMTP_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    # pytest's folders are closed to other users, and PostgreSQL does not run as root.
    with tempfile.TemporaryDirectory(prefix="securesmtp-") as directory, (make or kind)(Path(directory)) as database:
        yield database
