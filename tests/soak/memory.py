"""Measure the memory that many small messages from a generator need: `nox -s soak -- --memory`."""

from __future__ import annotations

import multiprocessing
import re
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

from securesmtp import Envelope, Outcome, SecureMailer, TLSPolicy

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# MiB of growth between a tenth of the messages and all of them: allowed for allocators, too little for kept results.
_GROWTH = 4.0
_REPLIES = {b"EHLO": b"250-sink\r\n250 SIZE\r\n", b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}


def _sink(certificate: str, port: Connection) -> None:
    """Accept every message and keep none; runs in a separate process, which the parent ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port.send(listener.getsockname()[1])
        while True:
            threading.Thread(target=_take, args=(context, listener.accept()[0]), daemon=True).start()


def _take(context: ssl.SSLContext, sock: socket.socket) -> None:
    with suppress(OSError), context.wrap_socket(sock, server_side=True) as tls, tls.makefile("rb") as lines:
        tls.sendall(b"220 sink\r\n")
        while line := lines.readline():
            tls.sendall(_REPLIES.get(line[:4], b"250 ok\r\n"))
            if line[:4] == b"DATA":
                while lines.readline() not in {b".\r\n", b""}:
                    pass
                tls.sendall(b"250 queued\r\n")


def resident() -> float:
    """Return this process's resident memory, in MiB."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    assert found is not None
    return int(found[1]) / 1024


def measure(messages: int) -> bool:
    """Send that many messages, print the memory used; return True if it grew with their number."""
    ca = trustme.CA()
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    with tempfile.NamedTemporaryFile(suffix=".pem") as certificate:
        certificate.write(ca.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
        certificate.flush()
        sink = spawn.Process(target=_sink, args=(certificate.name, theirs), daemon=True)
        sink.start()
        port = mine.recv()
    policy = TLSPolicy(ca_data=ca.cert_pem.bytes().decode())
    envelopes: Iterator[Envelope] = (
        Envelope("a@b.example", ["c@d.example"], b"Subject: %d\r\n\r\n%s\r\n" % (number, b"x" * 60))
        for number in range(messages)
    )
    began, early = time.monotonic(), 0.0
    with SecureMailer("localhost", port, policy=policy) as mailer:
        for result in mailer.send_many(envelopes):
            assert result.outcome is Outcome.ACCEPTED, result
            if result.index + 1 == messages // 10:
                early = resident()
            if result.index + 1 in {messages // 100, messages // 10, messages // 2, messages}:
                print(f"{result.index + 1:7} messages: {resident():.1f} MiB", flush=True)  # noqa: T201 -- a report
    print(f"{messages / (time.monotonic() - began):.0f} messages a second")  # noqa: T201
    sink.terminate()
    sink.join()
    return resident() > early + _GROWTH
