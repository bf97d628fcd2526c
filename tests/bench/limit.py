"""
The limit: sockets, `ssl`, octets that were made before, and nothing else; what a library can hope to come near.

It trusts the server to say what it should, so it is no client for anything but a measurement.
"""

from __future__ import annotations

import base64
import socket
import ssl
from typing import IO, Literal

Way = Literal["lockstep", "pipelined", "content-first", "chunk", "chunks"]


class Limit:
    """One connection."""

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        login: tuple[str, str] | None,
        host: str = "localhost",
        *,
        starttls: bool = False,
    ) -> None:
        """Connect, and log in."""
        sock = socket.create_connection((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if starttls:
            for command in (b"EHLO [127.0.0.1]\r\n", b"STARTTLS\r\n"):
                sock.recv(16384)
                sock.sendall(command)
            sock.recv(16384)
        self.sock = context.wrap_socket(sock, server_hostname=host)
        if not starttls:
            self.hear(1)
        self.sock.sendall(b"EHLO [127.0.0.1]\r\n")
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        while not self.sock.recv(16384).split(b"\r\n")[-2].startswith(b"250 "):
            pass
        if login is not None:
            self.sock.sendall(b"AUTH PLAIN " + base64.b64encode("\0".join(("", *login)).encode()) + b"\r\n")
            self.hear(1)

    def hear(self, lines: int) -> None:
        """Read so many lines, and let no acknowledgement of ours be waited for."""
        while lines > 0:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            lines -= self.sock.recv(16384).count(b"\n")

    def send(self, way: Way, content: bytes, recipients: list[str], count: int, window: int = 32) -> None:
        """Send the same octets *count* times."""
        forward = [b"RCPT TO:<%s>\r\n" % address.encode() for address in recipients]
        opening = [b"MAIL FROM:<a@example.org>\r\n", *forward]
        group, ended = b"".join(opening) + b"DATA\r\n", content + b".\r\n"
        flight = b"".join(opening) + b"BDAT %d LAST\r\n" % len(content) + content
        replies = len(opening) + 1
        if way == "lockstep":
            for _ in range(count):
                for command in (*opening, b"DATA\r\n", ended):
                    self.sock.sendall(command)
                    self.hear(1)
        elif way == "pipelined":
            for _ in range(count):
                self.sock.sendall(group)
                self.hear(replies)
                self.sock.sendall(ended)
                self.hear(1)
        elif way == "content-first":
            self.sock.sendall(group)
            self.hear(replies)
            for _ in range(count - 1):
                self.sock.sendall(ended + group)
                self.hear(1 + replies)
            self.sock.sendall(ended)
            self.hear(1)
        elif way == "chunk":
            for _ in range(count):
                self.sock.sendall(flight)
                self.hear(replies)
        else:
            self.send_flights([flight] * count, replies, window)

    def send_flights(self, flights: list[bytes], replies: int, window: int = 32) -> None:
        """Send *flights*, each of which has so many *replies*, with so many at most in flight."""
        begun, heard = min(window, len(flights)), 0
        self.sock.sendall(b"".join(flights[:begun]))
        while heard < len(flights) * replies:
            heard += self.sock.recv(16384).count(b"\n")
            if more := min(heard // replies + window, len(flights)) - begun:
                self.sock.sendall(b"".join(flights[begun : begun + more]))
                begun += more

    def send_file(self, file: IO[bytes], size: int) -> None:
        """Send a file of *size* octets, which has CRLF already, as one chunk."""
        self.sock.sendall(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nBDAT %d LAST\r\n" % size)
        while block := file.read(65536):
            self.sock.sendall(block)
        self.hear(3)
