"""
Measure messages a second over a network with a delay, beside smtplib, and count the round trips that each takes.

The server is a light sink of our own with real TLS, in a process of its own, behind a proxy that holds every octet back
for half of the round trip in each direction. Every client has one connection, which is open before the clock starts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import queue
import smtplib
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.message import EmailMessage
from statistics import median
from typing import TYPE_CHECKING

import trustme

from securesmtp import SecureMailer, TLSPolicy

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_ALL = "PIPELINING CHUNKING"
_WARM = 3


def _serve(certificate: str, offer: str, delay: float, port: Connection) -> None:
    """Be the sink and the proxy before it; in a process of its own, which is ended by its parent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    words = ["sink", *offer.split(), "SIZE"]
    ehlo = "".join(f"250{' ' if word is words[-1] else '-'}{word}\r\n" for word in words).encode()
    with socket.create_server(("127.0.0.1", 0)) as sink, socket.create_server(("127.0.0.1", 0)) as proxy:
        port.send(proxy.getsockname()[1])
        while True:
            client = proxy.accept()[0]
            inner = socket.create_connection(sink.getsockname())
            server = sink.accept()[0]
            for one, other in ((client, inner), (inner, client)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=_hold_back, args=(one, other, delay / 2), daemon=True).start()
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_take, args=(context, server, ehlo), daemon=True).start()


def _hold_back(source: socket.socket, target: socket.socket, delay: float) -> None:
    held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def write() -> None:
        with suppress(OSError):
            while True:
                due, octets = held.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not octets:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(octets)

    threading.Thread(target=write, daemon=True).start()
    octets = b"x"
    while octets:
        try:
            octets = source.recv(65536)
        except OSError:
            octets = b""
        held.put((time.monotonic() + delay, octets))


def _take(context: ssl.SSLContext, sock: socket.socket, ehlo: bytes) -> None:
    with suppress(OSError), context.wrap_socket(sock, server_side=True) as tls, tls.makefile("rb") as lines:
        tls.sendall(b"220 sink\r\n")
        while line := lines.readline():
            verb = line[:4].upper()
            if verb == b"BDAT":
                lines.read(int(line.split()[1]))
            tls.sendall({b"EHLO": ehlo, b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n"))
            if verb == b"DATA":
                while lines.readline() not in {b".\r\n", b""}:
                    pass
                tls.sendall(b"250 queued\r\n")


def _message() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", "A benchmark"
    message["Date"], message["Message-ID"] = "Tue, 24 Nov 2026 12:00:00 +0000", "<1@example.org>"
    message.set_content("x" * 70 + "\n" + ("y" * 70 + "\n") * 25)
    return message


def _seconds(send: Callable[[], object], count: int) -> float:
    """Return the median of what one message takes, after a first one that opens the connection."""
    send()
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        send()
        taken.append(time.perf_counter() - began)
    return median(taken)


def _seconds_overlapping(mailer: SecureMailer, message: EmailMessage, count: int) -> float:
    """Return what one of many messages takes, after some that open the connection and try the server."""
    last = 0.0
    for result in mailer.send_many([message] * _WARM):
        last = time.perf_counter()
        assert result.receipt, result.error
    assert all(result.receipt for result in mailer.send_many([message] * count))
    return (time.perf_counter() - last) / count


def main() -> None:
    """Run every client once against each server, and print what a message takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, default=50, help="milliseconds")
    parser.add_argument("--messages", type=int, default=15)
    parser.add_argument("--overlapping", type=int, default=1000, help='messages with pipelining="session"')
    options = parser.parse_args()
    rtt = options.rtt / 1000
    ca = trustme.CA()
    spawn = multiprocessing.get_context("spawn")
    message = _message()
    policy = TLSPolicy(ca_data=ca.cert_pem.bytes().decode())
    context = ssl.create_default_context()
    ca.configure_trust(context)
    found: dict[str, float] = {}
    print(f"one connection, one recipient, 2 kB, a round trip of {options.rtt:g} ms; the median of {options.messages}")
    for offer in (_ALL, "PIPELINING"):
        mine, theirs = spawn.Pipe()
        with tempfile.NamedTemporaryFile(suffix=".pem") as certificate:
            certificate.write(ca.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
            certificate.flush()
            server = spawn.Process(target=_serve, args=(certificate.name, offer, rtt, theirs), daemon=True)
            server.start()
            port = mine.recv()
        with smtplib.SMTP_SSL("localhost", port, "localhost", context=context) as client:
            found["smtplib"] = _seconds(lambda: client.send_message(message), options.messages)
        for pipelining in ("message", "off"):
            with SecureMailer("localhost", port, policy=policy, pipelining=pipelining) as mailer:
                found[f'securesmtp, pipelining="{pipelining}"'] = _seconds(
                    lambda: mailer.send(message),
                    options.messages,
                )
        with SecureMailer(
            "localhost", port, policy=policy, pipelining="session", max_connections=1, max_messages=10_000
        ) as mailer:
            count = options.overlapping if "CHUNKING" in offer else options.messages * 4
            found['securesmtp, pipelining="session"'] = _seconds_overlapping(mailer, message, count)
        server.terminate()
        server.join()
        print(f"the server offers {offer}")
        for name, took in found.items():
            times = found["smtplib"] / took
            print(f"  {name:34} {1 / took:6.1f} messages/s  {times:5.2f} x smtplib", end="")
            print(f"  {took / rtt:5.2f} round trips" if rtt else "")


if __name__ == "__main__":
    main()
