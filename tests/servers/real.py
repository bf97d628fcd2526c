"""
What the real servers of the tests have in common: accounts, start, stop, and where their mail ends.

A server delivers over LMTP into the test's own process. That gives the envelope and the octets as the server holds
them; a mailbox would lose the envelope, and an mbox would quote "From " lines.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import smtplib
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trustme

DOMAIN = "example.test"
REFUSED = f"refused@{DOMAIN}"
LATER = f"later@{DOMAIN}"
SIZE_LIMIT = 30_000_000

INSTALL = "run tests/servers/install as root"
# The caller's PATH may lack the folders of system servers.
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# Enough for a busy machine; usually a server starts within a second.
READY_WITHIN = 30.0
STOPPED_WITHIN = 5.0
# What the sink calls each message that it gets over SMTP; Dovecot passes it on.
NEXT_HOPS_ID = "4FzQbN2tGgz1Sw"
# Another process may take a free port before the server binds it.
ATTEMPTS = 3


class Account(NamedTuple):
    """A user who may log in."""

    username: str
    password: str


ALICE = Account(f"alice@{DOMAIN}", "correct horse battery staple")
BOB = Account(f"bob@{DOMAIN}", "pässwörd")
# What SCRAM escapes in a name and not in a password, what LOGIN and PLAIN must leave alone, and letters beyond ASCII.
ODD = Account(f"zoë, a=b c@{DOMAIN}", "p=2C ass,w=örd €")
# As SASLprep (RFC 4013) leaves a password that its user types with ligatures, a hard space and a soft hyphen.
PREPARED = Account(f"dora@{DOMAIN}", "a IX fi\N{GRINNING FACE}")
ACCOUNTS = (ALICE, BOB, ODD, PREPARED)
# Who has a client certificate, and no password.
CAROL = f"carol@{DOMAIN}"


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message as the server delivered it; the Received field that the server added is separate."""

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes
    trace: str = ""


class RealServer(ABC):
    """A mail server that runs in a private directory, on loopback, until it is closed."""

    name: ClassVar[str]
    host: str = "localhost"
    implicit_port: int
    starttls_port: int
    version: str

    def __init__(self, directory: Path, ca: trustme.CA) -> None:
        """Start the server; return when it greets on both ports, over TLS with a certificate of `ca`."""
        reason = self.missing()
        if reason is not None:
            raise RuntimeError(reason)
        _open_to_all(directory)
        self._directory = directory
        self._certificate, self._ca_file = directory / "certificate.pem", directory / "ca.pem"
        self._stack, self._running = ExitStack(), ExitStack()
        self._ca = ca
        try:
            self._sink = _Sink()
            self._stack.callback(self._sink.close)
            ca.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self._certificate)
            self._certificate.chmod(0o600)
            ca.cert_pem.write_to_path(self._ca_file)
            self.version = self._prepare()
            self._start(ca)
        except BaseException:
            self.close()
            raise

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return why the server cannot be started here and what to do about it, or None."""

    @abstractmethod
    def _prepare(self) -> str:
        """Write the files that do not depend on the ports; return the server's version."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Write the configuration, and return the command that runs the server in the foreground."""

    def _environment(self) -> dict[str, str]:
        return {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def _write_sasldb(self, owner: str) -> None:
        """Write the accounts for Cyrus SASL, which computes what SCRAM needs from the password."""
        path = self._directory / "sasldb"
        for account in ACCOUNTS:
            user, domain = account.username.split("@")
            command = ["saslpasswd2", "-c", "-p", "-f", str(path), "-u", domain, user]
            subprocess.run(command, input=account.password.encode(), env=self._environment(), check=True)
        shutil.chown(path, owner)

    def _start(self, ca: trustme.CA) -> None:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        for _ in range(ATTEMPTS):
            self.implicit_port, self.starttls_port = _free_ports()
            with ExitStack() as attempt:
                process = self._run()
                attempt.callback(_stop, process)
                if self._is_ready(process, context):
                    self._running = attempt.pop_all()
                    return
        raise RuntimeError(f"{self.name} does not start:\n{self.log()}")

    def _run(self) -> subprocess.Popen[bytes]:
        command = self._command()
        with (self._directory / "console.log").open("ab") as console:
            # In a new session, so that the process group contains only the server and its children.
            return subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def _is_ready(self, process: subprocess.Popen[bytes], context: ssl.SSLContext) -> bool:
        end = time.monotonic() + READY_WITHIN
        while process.poll() is None and time.monotonic() < end:
            # Verified, because the port may now belong to another run's server, which has another CA.
            with suppress(OSError, smtplib.SMTPException):
                self._greet(context)
                return True
            time.sleep(0.02)
        return False

    def _greet(self, context: ssl.SSLContext) -> None:
        # Without this name, smtplib would ask the resolver.
        me = "localhost"
        with smtplib.SMTP_SSL(self.host, self.implicit_port, me, context=context, timeout=5):
            pass
        with smtplib.SMTP(self.host, self.starttls_port, me, timeout=5) as client:
            client.starttls(context=context)

    def deliver(self, count: int = 1, timeout: float = 20.0) -> list[Delivered]:
        """Wait until `count` or more messages were delivered since the last call; return them."""
        end = time.monotonic() + timeout
        taken: list[Delivered] = []
        while len(taken) < count or not self._sink.delivered.empty():
            try:
                taken.append(self._sink.delivered.get(timeout=max(0.0, end - time.monotonic())))
            except queue.Empty:
                raise TimeoutError(f"{len(taken)} of {count} messages after {timeout} s:\n{self.log()}") from None
        return taken

    def delivered_now(self) -> list[Delivered]:
        """Return what was delivered since the last call, without waiting."""
        return [self._sink.delivered.get() for _ in range(self._sink.delivered.qsize())]

    def restart(self) -> None:
        """Stop the server, whatever it is doing, and start it again on other ports."""
        self._running.close()
        self._start(self._ca)

    def log(self) -> str:
        """Return the server's logs."""
        paths = sorted(self._directory.glob("*.log"))
        return "".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in paths)

    def close(self) -> None:
        """Stop the server's processes and free its ports."""
        self._running.close()
        self._stack.close()

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the server."""
        self.close()


def servers_cache() -> Path:
    """Return the folder into which tests/servers/install unpacks servers."""
    default = Path.home() / ".cache" / "securesmtp-servers"
    return Path(os.environ.get("SECURESMTP_SERVERS") or default)


def in_root(name: str, folders: Mapping[str, str]) -> tuple[str, ...]:
    """
    Return what runs a command in a root that tests/servers/install unpacks, with the machine's /dev.

    *folders* are the other folders of the machine that it sees, and where. No other process sees them there.
    """
    script = (
        'root=$1; shift; mount --rbind /dev "$root/dev"; while [ "$1" != : ]; do '
        'mkdir -p "$root$2"; mount --bind "$1" "$root$2"; shift 2; done; shift; exec chroot "$root" "$@"'
    )
    pairs = [path for pair in folders.items() for path in pair]
    return ("unshare", "--mount", "sh", "-euc", script, "-", str(servers_cache() / name), *pairs, ":")


def _open_to_all(directory: Path) -> None:
    """Give the server's user access to a temporary directory, which only root may enter by default."""
    directory.chmod(0o755)
    for parent in directory.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise ValueError(f"the server's user cannot reach {directory}: others may not enter {parent}")


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    # The whole group: busy children outlive the server, and keep its ports.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + STOPPED_WITHIN
        # WNOWAIT: until the leader is waited for, no other process can get its number.
        while not _has_ended(process.pid) and time.monotonic() < end:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _has_ended(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    return True


class _Sink(socketserver.ThreadingTCPServer):
    """
    An LMTP server (RFC 2033) that accepts everything, and makes one Delivered of each message.

    It speaks SMTP with a client that begins with EHLO.
    """

    # With the default of 5, a burst of connections would wait for a second.
    request_queue_size = 128
    delivered: queue.SimpleQueue[Delivered]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
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
    server: _Sink
    # Otherwise replies to pipelined commands would wait 40 ms for each other.
    disable_nagle_algorithm = True
    # So that close() cannot wait forever.
    timeout = 60

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
                # 8BITMIME and SMTPUTF8, so that no conversion is needed. No DSN, so the mail server itself reports
                # to a sender that asks for delivery reports.
                self._say("250-localhost", "250-PIPELINING", "250-8BITMIME", "250 SMTPUTF8")
            case "MAIL":
                self._mail_from, self._recipients = _path(line), list[str]()
                self._say("250 ok")
            case "RCPT":
                self._recipients.append(_path(line))
                self._say("250 ok")
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
        # Both servers are configured to add exactly one field, at the top.
        trace = re.match(rb"Received:.*\r\n(?:[ \t].*\r\n)*", raw)
        if trace is None:
            raise ValueError(f"no Received field of the server on top of {raw[:200]!r}")
        recipients = tuple(self._recipients)
        self.server.delivered.put(Delivered(self._mail_from, recipients, raw[trace.end() :], trace.group().decode()))


def _path(command: str) -> str:
    """Return the address of a MAIL or RCPT command, whose local part may be a quoted string."""
    match = re.fullmatch(r"[^:]*:\s*<((?:\"(?:\\.|[^\"\\])*\"|[^\">])*)>.*", command)
    if match is None:
        raise ValueError(command)
    return match.group(1)
