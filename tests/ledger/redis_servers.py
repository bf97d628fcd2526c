"""Redis with what its owner may configure, two that are a cluster, and a proxy that loses replies."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import trustme
from redis import Redis as Client

from databases import READY_WITHIN, Redis

PASSWORD = "k9Wq-7fJx2Lm"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class GuardedRedis(Redis):
    """One that wants a password, and has another port with TLS, whose certificate is for ``localhost``."""

    tls_port: int

    def _prepare(self) -> None:
        self.ca = trustme.CA()
        certificate = self.ca.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(str(self._directory / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(self._directory / "cert.pem"))
        self.ca.cert_pem.write_to_path(str(self._directory / "ca.pem"))

    def _command(self) -> list[str]:
        if not hasattr(self, "tls_port"):
            self.tls_port = _free_port()
        settings = {
            "requirepass": PASSWORD,
            "tls-port": str(self.tls_port),
            "tls-cert-file": "cert.pem",
            "tls-key-file": "key.pem",
            "tls-ca-cert-file": "ca.pem",
            "tls-auth-clients": "no",
            "unixsocket": str(self.socket),
        }
        return [*super()._command(), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(f"AUTH {PASSWORD}\r\nPING\r\n".encode())
            with client.makefile("rb") as replies:
                return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        return False

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> Path:
        """Its third address."""
        return self._directory / "redis.socket"

    @property
    def ca_file(self) -> Path:
        """The CA of its certificate."""
        return self._directory / "ca.pem"

    def tls_url(self, host: str = "localhost") -> str:
        """Return its URL with TLS."""
        return f"rediss://:{PASSWORD}@{host}:{self.tls_port}/0"

    @contextmanager
    def configured(self, **values: str) -> Iterator[None]:
        """Have these values for a while."""
        with Client.from_url(self.url) as client:
            before = {name: client.config_get(name)[name] for name in values}
            try:
                for name, value in values.items():
                    client.config_set(name, value)
                yield
            finally:
                for name, value in before.items():
                    client.config_set(name, value)


class ClusterRedis(GuardedRedis):
    """One server of a cluster."""

    bus_port: int

    def _command(self) -> list[str]:
        # Not 10000 above the other: there may be no such port.
        self.bus_port = _free_port()
        return [*super()._command(), "--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]


@contextmanager
def cluster(folder: Path) -> Iterator[list[ClusterRedis]]:
    """Run two servers, each with half of the slots."""
    with ExitStack() as stack:
        servers = []
        for number, slots in enumerate([(0, 8191), (8192, 16383)]):
            directory = folder / str(number)
            directory.mkdir()
            servers.append(stack.enter_context(ClusterRedis(directory)))
            with Client.from_url(servers[-1].url) as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", *slots)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        with Client.from_url(servers[0].url) as client:
            client.execute_command("CLUSTER MEET", "127.0.0.1", servers[1].port, servers[1].bus_port)
        for server in servers:
            with Client.from_url(server.url) as client:
                end = time.monotonic() + READY_WITHIN
                while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    assert time.monotonic() < end, server.log()
                    time.sleep(0.02)
        yield servers


class LossyProxy:
    """
    A proxy between a client and a Redis.

    Attributes:
        port: Where it listens.
        losses: How many of the next replies are lost; each with its connection.
        sent: All that clients have sent.
    """

    def __init__(self, target: int) -> None:
        """Forward to the port *target*."""
        self.losses: float = 0
        self.sent = bytearray()
        self._target = target
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for source, sink, is_reply in ((client, server, False), (server, client, True)):
                    thread = threading.Thread(target=self._forward, args=(source, sink, is_reply))
                    self._threads.append(thread)
                    thread.start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:  # noqa: FBT001 -- of a thread
        with suppress(OSError):
            while octets := source.recv(65536):
                if is_reply and self.losses > 0:
                    self.losses -= 1
                    break
                if not is_reply:
                    self.sent += octets
                sink.sendall(octets)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()
