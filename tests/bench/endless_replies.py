"""
What a server that does not come to an end costs its client: seconds beyond the limit, and memory at its peak.

Each case has a process of its own with the client alone: it sends one message as it should be, begins to watch its
peak memory, and sends another, to which the server answers without end: at each stage, and while a flight of one
message or of many is being written, of which the server reads no more. The last line is stock smtplib, with less of the
same, and shows that the memory would be seen. Run with `tests` on the path, as `nox -s bench` does.
"""

from __future__ import annotations

import json
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Literal

import trustme

from scripted import Answer, Gone, Mode, Peer, Script, ScriptedServer, honest
from securesmtp import Envelope, Password, SecureMailer, SecureSMTPError

Client = Literal["timeout", "deadline", "smtplib", "flight", "session", "receipt"]

MIB = 1 << 20
LIMIT = 1.0
INTERVAL = 0.1
LOGIN = ("me", "secret")
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# What the right answer would be, were it to come to its end.
RIGHT = {
    "GREETING": b"220 mx.test, after a long time\r\n",
    "EHLO": b"250 mx.test, after a long time\r\n",
    "AUTH": b"235 after a long time\r\n",
    "MAIL": b"250 after a long time\r\n",
    "RCPT": b"250 after a long time\r\n",
    "DATA": b"354 after a long time\r\n",
    "CONTENT": b"250 after a long time\r\n",
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is played: at which step the server begins to answer so, and whether there is a limit that ends it."""

    name: str
    step: str
    answer: Answer
    mode: Mode = "implicit"
    limit: float | None = None
    client: Client = "timeout"
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME")

    @property
    def script(self) -> Script:
        """The server's."""
        if self.step == "FLIGHT":
            return self._deaf
        return honest(self.mode, auth=LOGIN, extensions=self.extensions, replies={self.step: self.answer})

    def _deaf(self, peer: Peer) -> None:
        """Read nothing of what follows the login."""

        def logged_in(peer: Peer, line: bytes) -> bytes:
            peer.send(b"235 2.7.0 welcome\r\n")
            peer.sock.recv(1, socket.MSG_PEEK)
            assert callable(self.answer)
            with suppress(Gone):
                self.answer(peer, line)
            raise Gone

        honest(self.mode, auth=LOGIN, extensions=self.extensions, replies={"AUTH": logged_in})(peer)


def flood(pieces: Iterator[bytes]) -> Answer:
    """Write all of it, as fast as it is taken."""

    def answer(peer: Peer, line: bytes) -> bytes:
        for piece in pieces:
            peer.send(piece)
        return b""

    return answer


def drip(octets: bytes) -> Answer:
    """Write one octet at a time."""

    def answer(peer: Peer, line: bytes) -> bytes:
        peer.drip(octets, INTERVAL)
        return b""

    return answer


def asks_on(peer: Peer, line: bytes) -> bytes:
    """Ask for one thing more, whatever comes."""
    while True:
        peer.send(b"334 UGFzc3dvcmQ6\r\n")
        peer.read_line()


def blocks(octets: bytes, total: int) -> Iterator[bytes]:
    """Yield *total* octets, made of *octets*, in writes of about 64 KiB."""
    block = octets * (65536 // len(octets))
    return repeat(block, total // len(block))


def cases() -> Iterator[Case]:
    """Yield what is measured."""
    lines, keywords = blocks(b"250-x\r\n", 200 * MIB), (b"250-KEYWORD%d\r\n" % number for number in range(100_000))
    yield Case("200 MiB of lines after EHLO", "EHLO", flood(lines))
    yield Case("200 MiB of one line after EHLO", "EHLO", flood(chain([b"250-"], blocks(b"x", 200 * MIB))))
    yield Case("100,000 keywords after EHLO", "EHLO", flood(chain(keywords, [b"250 LAST\r\n"])))
    yield Case("200 MiB of greeting in the clear", "GREETING", flood(blocks(b"220-x\r\n", 200 * MIB)), "starttls")
    yield Case("334 without end", "AUTH", asks_on)
    for step, octets in RIGHT.items():
        client: Client = "deadline" if step == "CONTENT" else "timeout"
        yield Case(f"an octet each {INTERVAL} s: {step}", step, drip(octets), limit=LIMIT, client=client)
    no, chunking = b"550 5.1.1 no\r\n", ("PIPELINING", "CHUNKING")
    wordy = b"550-" + b"x" * 1000 + b"\r\n550 " + b"x" * 1000 + b"\r\n"
    flights: tuple[tuple[Client, str], ...] = (("flight", "500 recipients"), ("session", "30 kB each"))
    for who, what in flights:
        for extensions in (chunking[:1], chunking):
            words = f"{what}, {'chunks' if extensions == chunking else 'DATA'}"
            for size, reply in (("short", no), ("long", wordy)):
                case = Case(f"200 MiB of {size} replies, {words}", "FLIGHT", flood(blocks(reply, 200 * MIB)))
                yield replace(case, client=who, extensions=extensions)
    yield Case("3,000 replies of 2 kB, in a receipt", "RCPT", lambda _, __: wordy, client="receipt")
    control = Case("smtplib: 10 MiB of lines after EHLO", "EHLO", flood(blocks(b"250-x\r\n", 10 * MIB)))
    yield replace(control, client="smtplib")


def peak() -> int:
    """Return this process's peak of resident memory; not `ru_maxrss`, which begins with that of who started it."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))


def send(client: Client, mode: Mode, port: int, ca_file: str) -> None:
    """Send one message and forget the connection."""
    message = b"Subject: x\r\n\r\nx\r\n"
    if client == "smtplib":
        context = ssl.create_default_context(cafile=ca_file)
        with smtplib.SMTP_SSL("localhost", port, timeout=LIMIT, context=context) as stock:
            stock.login(*LOGIN)
            stock.sendmail("a@b.example", ["c@d.example"], message)
        return
    # LOGIN, because only LOGIN is asked for something.
    auth = Password(*LOGIN, mechanisms=["LOGIN"])
    if client in {"flight", "session", "receipt"}:
        many(client, port, ca_file)
        return
    # `Timeouts.final` is never below a minute: the reply to the content is bounded by a deadline for the whole send.
    deadline = LIMIT if client == "deadline" else None
    with SecureMailer("localhost", port, tls=mode, ca_file=ca_file, timeout=LIMIT, auth=auth) as mailer:
        mailer.send_bytes(message, mail_from="a@b.example", recipients=["c@d.example"], deadline=deadline)


def many(client: Client, port: int, ca_file: str) -> None:
    """Send what is written in flights, and fail as it failed; what was told is kept meanwhile."""
    session = client == "session"
    people = {"flight": 500, "session": 1, "receipt": 3000}[client]
    to = [f"r{number}@d.example" for number in range(people)]
    body = b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n" * (15_000 if session else 32_000)
    with SecureMailer(
        "localhost", port, ca_file=ca_file, timeout=LIMIT, auth=Password(*LOGIN), max_connections=1,
        pipelining="session" if session else "message",
    ) as mailer:  # fmt: skip
        if session:
            # As if it had been tried before.
            mailer._pool.overlap_support.confirm()
        envelopes = [Envelope("a@b.example", to, body)] * (40 if session else 1)
        results = list(mailer.send_many(envelopes, partial="allow"))
        error = next((result.error for result in results if result.error), None)
        if isinstance(error, SecureSMTPError):
            raise error


def be_client(client: Client, mode: Mode, port: str, ca_file: str) -> None:
    """Send twice, and print how the second went."""
    send(client, mode, int(port), ca_file)
    # The peak begins anew, at what is in use now.
    CLEAR_REFS.write_text("5")
    before, begin, error = peak(), time.perf_counter(), "no error"
    try:
        send(client, mode, int(port), ca_file)
    except (smtplib.SMTPException, OSError) as failure:
        error = type(failure).__name__
    seconds = time.perf_counter() - begin
    print(json.dumps({"error": error, "seconds": seconds, "grown": peak() - before}))


def measure(case: Case, tls: ssl.SSLContext, ca_file: str) -> None:
    """Play *case* and print what it cost."""
    first = honest(case.mode, auth=LOGIN, extensions=case.extensions)
    with ScriptedServer(first, case.script, tls=tls) as server:
        if case.step == "FLIGHT":
            # So that the client has something left to write.
            server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        command = [sys.executable, __file__, case.client, case.mode, str(server.port), ca_file]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=30)
    seen = json.loads(done.stdout)
    over = "" if case.limit is None else f"{seen['seconds'] - case.limit:+.3f} s"
    print(f"{case.name:51} {seen['error']:22} {seen['seconds']:6.3f} s {over:>9} {seen['grown'] / MIB:8.2f} MiB")


def main() -> None:
    """Measure and print."""
    ca, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(tls)
    print(f"{'the server says':51} {'error':22} {'took':>8} {'over':>9} {'memory':>12}")
    with ca.cert_pem.tempfile() as ca_file:
        for case in cases():
            measure(case, tls, ca_file)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        be_client(*sys.argv[1:])  # type: ignore[arg-type]
    else:
        main()
