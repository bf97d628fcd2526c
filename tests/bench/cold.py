"""
A cold send: connect, TLS, login and one message of 2 kB or 1 MB, to a server that is 100 ms away; in round trips.

`python -m bench.cold` compares `send_bytes`, each time with a new mailer, with the limit client, for implicit TLS and
STARTTLS, and leaves out one socket option after the other: what each is worth. TCP's slow start is the kernel's
(`bench.network`, which needs root on Linux).

The server comes in two forms: one with `TCP_NODELAY`, and one with Nagle's algorithm that writes its session tickets
and its greeting in two writes, as Postfix does.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any, Literal

import trustme

from bench import network
from bench.clients import LOGIN, Task
from bench.limit import Limit
from bench.processes import child
from bench.sink import Counts, converse
from securesmtp import SecureMailer

Mode = Literal["implicit", "starttls"]
MODES: tuple[Mode, ...] = ("implicit", "starttls")
SIZES = {"2 kB": 2_000, "1 MB": 1_000_000}
_EHLO = b"250-sink\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-AUTH PLAIN\r\n250 SIZE\r\n"
_CLEAR = b"250-sink\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
OPTIONS = {
    "all options": (),
    "without QUICKACK": (socket.TCP_QUICKACK,),
    "without NODELAY": (socket.TCP_NODELAY,),
    "without NOTSENT_LOWAT": (socket.TCP_NOTSENT_LOWAT,),
    "without any": (socket.TCP_QUICKACK, socket.TCP_NODELAY, socket.TCP_NOTSENT_LOWAT),
}


def _serve(certificate: str, mode: Mode, nagle: bool, pipe: Any) -> None:  # noqa: FBT001 -- passed to a process
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server((network.NEAR, 0), backlog=64) as server:
        pipe.send(server.getsockname()[1])
        while True:
            sock = server.accept()[0]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not nagle)
            threading.Thread(target=_take, args=(context, sock, mode), daemon=True).start()


def _take(context: ssl.SSLContext, sock: socket.socket, mode: Mode) -> None:
    with suppress(OSError):
        if mode == "starttls":
            for reply in (b"220 sink\r\n", _CLEAR, b"220 go\r\n"):
                sock.sendall(reply)
                if reply != b"220 go\r\n":
                    sock.recv(4096)
        with context.wrap_socket(sock, server_side=True) as tls:
            if mode == "implicit":
                tls.sendall(b"220 sink\r\n")
            converse(tls, _EHLO, Counts())


@contextmanager
def server(certificate: str, mode: Mode, *, nagle: bool) -> Iterator[int]:
    """Start the server, give its port, and end it."""
    with child(_serve, certificate, mode, nagle) as (_, _, port):
        yield port


@contextmanager
def without(options: Sequence[int]) -> Iterator[None]:
    """Set none of these options of TCP meanwhile."""
    set_option = socket.socket.setsockopt

    def unless_left_out(sock: socket.socket, level: int, option: int, value: int) -> None:
        if level != socket.IPPROTO_TCP or option not in options:
            set_option(sock, level, option, value)

    socket.socket.setsockopt = unless_left_out  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        socket.socket.setsockopt = set_option  # type: ignore[method-assign]


def ours(port: int, ca: str, mode: Mode, data: bytes) -> float:
    """Send with a new mailer, which is not made within the time."""
    with SecureMailer(
        network.FAR,
        port,
        tls=mode,
        username=LOGIN[0],
        password=LOGIN[1],
        ca_file=ca,
    ) as mailer:
        began = time.perf_counter()
        mailer.send_bytes(data, mail_from="a@example.test", recipients=["b@example.test"])
        return time.perf_counter() - began


def limit(port: int, ca: str, mode: Mode, data: bytes) -> float:
    """Send with sockets and prepared bytes."""
    context = Task(port, ca).context()
    began = time.perf_counter()
    client = Limit(port, context, LOGIN, network.FAR, starttls=mode == "starttls")
    client.send("chunk", data, ["b@example.test"], 1)
    seconds = time.perf_counter() - began
    client.sock.close()
    return seconds


CLIENTS: dict[str, Callable[[int, str, Mode, bytes], float]] = {"limit": limit, "securesmtp": ours}


def main() -> None:
    """Measure each case, and print it in round trips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtt", type=float, default=100, help="milliseconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="options whose name has this")
    chosen = parser.parse_args()
    if why := network.missing():
        parser.exit(message=f"left out: {why}\n")
    network.enter("bench.cold")
    rtt = chosen.rtt / 1000
    with tempfile.TemporaryDirectory(prefix="securesmtp-bench-") as folder, network.delay(rtt):
        print(f"round trips of {chosen.rtt:g} ms, least and median of {chosen.rounds}; {network.congestion_control()}")
        ca, ca_file, certificate = trustme.CA(), Path(folder, "ca.pem"), Path(folder, "certificate.pem")
        ca_file.write_bytes(ca.cert_pem.bytes())
        certificate.write_bytes(ca.issue_cert(network.FAR).private_key_and_cert_chain_pem.bytes())
        for mode in MODES:
            for nagle in (False, True):
                with server(str(certificate), mode, nagle=nagle) as port:
                    _compare(port, str(ca_file), mode, chosen, nagle=nagle)


def _compare(port: int, ca: str, mode: Mode, chosen: argparse.Namespace, *, nagle: bool) -> None:
    for size, octets in SIZES.items():
        data = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * (octets // 72)
        cases = [(client, name) for name in OPTIONS if chosen.only in name for client in CLIENTS]
        took: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
        # In turn, so that a busy moment of the machine is nobody's alone.
        for _ in range(chosen.rounds):
            for client, name in cases:
                with without(OPTIONS[name]):
                    took[client, name].append(CLIENTS[client](port, ca, mode, data) / (chosen.rtt / 1000))
        print(f"\n{mode}, {size}, server with {'Nagle' if nagle else 'TCP_NODELAY'}")
        for (client, name), trips in took.items():
            print(f"  {client:12}{name:24}{min(trips):7.2f}{median(trips):7.2f}", flush=True)


if __name__ == "__main__":
    main()
