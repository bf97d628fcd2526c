"""
What the real servers of the tests have in common: accounts, start, stop, and what each of them cannot do.

All of them listen on loopback only, ask no name server, require TLS before a login and a login before a message, take
messages of up to SIZE_LIMIT octets for any address but REFUSED and LATER, and deliver them to the test: see `Sink`.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

from servers.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import trustme

    from scripted import Mode
    from servers.sink import Delivered

DOMAIN = "example.test"
REFUSED = f"refused@{DOMAIN}"
LATER = f"later@{DOMAIN}"
REFUSALS = {REFUSED: "550 5.1.1 no such user here", LATER: "450 4.2.1 the mailbox is busy, come again"}
SIZE_LIMIT = 30_000_000

INSTALL = "run tests/servers/install as root"
# The caller's PATH may lack the folders of system servers.
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# Enough for a busy machine; usually a server starts within a second.
READY_WITHIN = 30.0
STOPPED_WITHIN = 5.0
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
# crypt(3) with SHA-256, and with few rounds, so that a login costs no tenth of a second: `openssl passwd -5`.
HASHES = {
    ALICE: "$5$rounds=1000$securesmtp$7datk2Vdz8nDduYkXBDs2woZ9W10Giqk0rUGGq6eHo5",
    BOB: "$5$rounds=1000$securesmtp$xIug5gUW1.fB3kbmiP5ea2HovQ4zbbklr8xOo.QDTJB",
    ODD: "$5$rounds=1000$securesmtp$6Rv7mHY6/lxc6j/jslzn0JKZ6Nlo4URIXIsazcP2kp9",
    PREPARED: "$5$rounds=1000$securesmtp$SwzyMmMHFEw.COgsDA3GsJc1tUwzaFmkkj01GwzqcYC",
}
# Who has a client certificate, and no password.
CAROL = f"carol@{DOMAIN}"


# Seconds that a server waits for a command; RFC 5321 asks for five minutes.
PATIENCE = 300
# What a server may lack, or its set-up: a mode of TLS; the octets of the content, which it changes; a Received field;
# all recipients of a message in one delivery; a refusal of REFUSED, or of LATER alone; a limit of SIZE_LIMIT; a
# patience that can be set; a start on the ports that it had; a delay of the greeting, with a check for clients that do
# not wait; the reports of DSN.
Ability = Literal[
    "implicit",
    "starttls",
    "octets",
    "trace",
    "envelope",
    "refuse",
    "later",
    "size",
    "patience",
    "restart",
    "greeting",
    "report",
]


class RealServer(ABC):
    """A mail server that runs in a private directory, on loopback, until it is closed."""

    name: ClassVar[str]
    # Who can log in.
    accounts: ClassVar[tuple[Account, ...]] = ACCOUNTS
    # What it lacks, and why.
    cannot: ClassVar[Mapping[Ability, str]] = MappingProxyType({})
    host: str = "localhost"
    implicit_port: int
    starttls_port: int
    version: str

    def __init__(self, directory: Path, ca: trustme.CA, patience: int = PATIENCE, greeting_delay: int = 0) -> None:
        """
        Start the server; return when it greets on both ports, over TLS with a certificate of `ca`.

        It waits *patience* seconds for a command, if it `can("patience")`; and *greeting_delay* seconds with its
        greeting, in which it watches for clients that do not wait, if it `can("greeting")`.
        """
        reason = self.missing()
        if reason is not None:
            raise RuntimeError(reason)
        self.patience, self.greeting_delay = patience, greeting_delay
        _open_to_all(directory)
        self._directory = directory
        self._certificate, self._ca_file = directory / "certificate.pem", directory / "ca.pem"
        self._stack, self._running = ExitStack(), ExitStack()
        self._ca = ca
        try:
            self._sink = Sink(REFUSALS, traced=self.can("trace"))
            self._stack.callback(self._sink.close)
            ca.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self._certificate)
            self._certificate.chmod(0o600)
            ca.cert_pem.write_to_path(self._ca_file)
            self.version = self._prepare()
            self._start()
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

    def _start(self, ports: tuple[int, int] | None = None) -> None:
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        for _ in range(ATTEMPTS):
            self.implicit_port, self.starttls_port = ports or _free_ports()
            with ExitStack() as attempt:
                process = self._run()
                attempt.callback(stop, process)
                if self._is_ready(process, context):
                    self._running, self._process = attempt.pop_all(), process
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
        for mode in self.modes:
            with self._connect(mode, context):
                pass

    def _connect(self, mode: Mode, context: ssl.SSLContext) -> smtplib.SMTP:
        # Without this name, smtplib would ask the resolver.
        me = "localhost"
        if mode == "implicit":
            return smtplib.SMTP_SSL(self.host, self.implicit_port, me, context=context, timeout=5)
        client = smtplib.SMTP(self.host, self.starttls_port, me, timeout=5)
        try:
            client.starttls(context=context)
        except BaseException:
            client.close()
            raise
        return client

    @classmethod
    def can(cls, ability: Ability) -> bool:
        """Return whether nothing is known to prevent it."""
        return ability not in cls.cannot

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of TLS that the server has."""
        modes: tuple[Mode, ...] = ("implicit", "starttls")
        return tuple(mode for mode in modes if self.can(mode))

    def port(self, mode: Mode) -> int:
        """Return the port for *mode*."""
        return self.implicit_port if mode == "implicit" else self.starttls_port

    def extensions(self, mode: Mode) -> dict[str, str]:
        """Return what the server offers after TLS and before a login: the parameters of each keyword."""
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        with self._connect(mode, context) as client:
            client.ehlo()
            return {keyword.upper(): str(parameters) for keyword, parameters in client.esmtp_features.items()}

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

    def expected(self, content: bytes) -> bytes:
        """Return what the server makes of *content*: the same, but where a kind says how it differs."""
        return content

    def restart(self, *, same_ports: bool = False) -> None:
        """Stop the server, whatever it is doing, and start it again on other ports, or on the same."""
        self._running.close()
        self._start((self.implicit_port, self.starttls_port) if same_ports else None)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the server's processes inside the block. The kernel still accepts connections to its ports."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # The session, for Courier's listeners leave the process group.
        for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
            with suppress(ProcessLookupError):
                if os.getsid(pid) == self._process.pid:
                    os.kill(pid, number)

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


def missing_root_server(name: str, sign: str, version: Callable[[], str]) -> str | None:
    """Return why the server *name*, whose *version* has *sign*, cannot be started here and what to do, or None."""
    if os.geteuid() != 0:
        return f"{name} starts as root only: run the tests as root"
    printed = version()
    return None if sign in printed else f"{name} does not run here ({printed.strip()}): {INSTALL}"


def in_root(name: str, folders: Mapping[str, str]) -> tuple[str, ...]:
    """
    Return what runs a command in a root that tests/servers/install unpacks, with the machine's /dev.

    *folders* are the other folders of the machine that it sees, and where. No other process sees them there.
    """
    return ("unshare", "--mount", *_enter('mount --rbind /dev "$root/dev"', name, folders))


def contained(name: str, folders: Mapping[str, str], log: Path) -> tuple[str, ...]:
    """
    Return the same for a command that writes to the syslog, here the socket *log*, and leaves its process group.

    All its processes end when the first does, for they are in a namespace of their own.
    """
    devices = (
        'mount -t tmpfs none "$root/dev"; for node in null zero random urandom; do : > "$root/dev/$node"; '
        f'mount --bind "/dev/$node" "$root/dev/$node"; done; : > "$root/dev/log"; mount --bind "{log}" "$root/dev/log"'
    )
    return ("unshare", "--mount", "--pid", "--fork", "--kill-child", *_enter(devices, name, folders))


def _enter(devices: str, name: str, folders: Mapping[str, str]) -> tuple[str, ...]:
    script = (
        f'root=$1; shift; {devices}; while [ "$1" != : ]; do '
        'mkdir -p "$root$2"; mount --bind "$1" "$root$2"; shift 2; done; shift; exec chroot "$root" "$@"'
    )
    pairs = [path for pair in folders.items() for path in pair]
    return ("sh", "-euc", script, "-", str(servers_cache() / name), *pairs, ":")


def _open_to_all(directory: Path) -> None:
    """Give the server's user access to a temporary directory, which only root may enter by default."""
    directory.chmod(0o755)
    for parent in directory.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise ValueError(f"the server's user cannot reach {directory}: others may not enter {parent}")


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End *process* and its children."""
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
