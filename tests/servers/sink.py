"""
Where the mail of the real servers ends: an LMTP server in the test's own process.

That gives the envelope and the octets as the server holds them; a mailbox would lose the envelope, and an mbox would
quote "From " lines.
"""

from __future__ import annotations

import queue
import re
import socket
import socketserver
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# What the sink calls each message that it gets over SMTP; Dovecot passes it on.
NEXT_HOPS_ID = "4FzQbN2tGgz1Sw"


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message as the server delivered it; the Received field that the server added is separate."""

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes
    trace: str = ""


class Sink(socketserver.ThreadingTCPServer):
    """
    An LMTP server (RFC 2033) that makes one Delivered of each message.

    It speaks SMTP with a client that begins with EHLO.
    """

    # With the default of 5, a burst of connections would wait for a second.
    request_queue_size = 128
    # 8BITMIME and SMTPUTF8, so that no conversion is needed. No DSN, so the mail server itself reports to a sender that
    # asks for delivery reports.
    extensions: tuple[str, ...] = ("8BITMIME", "SMTPUTF8")
    delivered: queue.SimpleQueue[Delivered]

    def __init__(self, refusals: Mapping[str, str], *, traced: bool) -> None:
        """
        Start.

        *refusals* are replies to recipients, for servers that pass these on. *traced*: each message begins with the one
        Received field of its server.
        """
        super().__init__(("127.0.0.1", 0), _Session)
        self.refusals, self.traced = refusals, traced
        self.delivered = queue.SimpleQueue()
        self.port: int = self.socket.getsockname()[1]
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="lmtp-sink")
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and wait for the sessions, which end when the mail server does."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Session(socketserver.StreamRequestHandler):
    server: Sink
    # Otherwise replies to pipelined commands would wait 40 ms for each other.
    disable_nagle_algorithm = True
    # So that close() cannot wait forever. A server may keep a connection for as long as its own clients are idle:
    # OpenSMTPD does not see that one was closed, and puts the next message off for minutes.
    timeout = 900

    def handle(self) -> None:
        with suppress(OSError):
            self._say("220 localhost LMTP sink")
            while line := self.rfile.readline():
                if not self._obey(line.decode().rstrip("\r\n")):
                    return

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def _obey(self, line: str) -> bool:
        match line.upper().split(" ", 1)[0].split(":", 1)[0]:
            case "LHLO" | "EHLO" as greeting:
                self._is_lmtp = greeting == "LHLO"
                self._say("250-localhost", *(f"250-{each}" for each in self.server.extensions), "250 PIPELINING")
            case "MAIL":
                self._mail_from, self._recipients = _path(line), list[str]()
                self._say("250 ok")
            case "RCPT":
                recipient = _path(line)
                refusal = self.server.refusals.get(recipient)
                if refusal is None:
                    self._recipients.append(recipient)
                self._say(refusal or "250 ok")
            case "DATA":
                self._say("354 go on")
                self._take(self._read_content())
                # LMTP has a reply for each recipient, SMTP has one.
                if self._is_lmtp:
                    self._say(*["250 delivered"] * len(self._recipients))
                else:
                    self._say(f"250 Ok: queued as {NEXT_HOPS_ID}")
            case "RSET" | "NOOP":
                self._say("250 ok")
            case "QUIT":
                self._say("221 bye")
                return False
            case _:
                self._say("500 what?")
        return True

    def _read_content(self) -> bytes:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not lines:
                # OpenSMTPD writes the last dot when the rest is acknowledged (Nagle), usually 40 ms later.
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if not line:
                raise ConnectionError("the server went away inside a message")
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _take(self, raw: bytes) -> None:
        # The servers are configured to add exactly one field, at the top.
        trace = re.match(rb"Received:.*\r\n(?:[ \t].*\r\n)*" if self.server.traced else b"", raw)
        if trace is None:
            raise ValueError(f"no Received field of the server on top of {raw[:200]!r}")
        recipients = tuple(self._recipients)
        self.server.delivered.put(Delivered(self._mail_from, recipients, raw[trace.end() :], trace.group().decode()))


def _path(command: str) -> str:
    """
    Return the address of a MAIL or RCPT command, whose local part may be a quoted string.

    The domain is in A-labels: Courier decodes those that it gets, for a next hop with SMTPUTF8.
    """
    match = re.fullmatch(r"[^:]*:\s*<((?:\"(?:\\.|[^\"\\])*\"|[^\">])*)>.*", command)
    if match is None:
        raise ValueError(command)
    local, at, domain = match.group(1).rpartition("@")
    return local + at + domain.encode("idna").decode()
