"""Send letters in one of the ways, and wait for what a server does to connections."""

from __future__ import annotations

import smtplib
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securesmtp import Outcome, SecureSMTPError
from securesmtp.events import Connected, Event, FellBack, LongLines
from servers.real import ALICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from faces import Faces
    from scripted import Mode
    from securesmtp import Receipt, SecureMailer, SendResult
    from servers.matrix.cells import Combination
    from servers.matrix.letters import Letter
    from servers.real import RealServer

# The state ESTABLISHED in /proc/net/tcp.
_ESTABLISHED = "01"


@dataclass(frozen=True)
class Result:
    """What the library says came of a letter."""

    outcome: Outcome
    receipt: Receipt | None = None
    error: SecureSMTPError | None = None

    @property
    def reply(self) -> str:
        """The server's reply that decided it, or the library's words."""
        source = self.receipt or self.error
        assert source is not None
        return str(source.reply or source)


@dataclass
class Sender:
    """A mailer with one connection, for one combination; it notes what the events say."""

    server: RealServer
    combination: Combination
    faces: Faces
    ca_file: Path
    connections: int = 0
    fell_back: list[str] = field(default_factory=list)
    warnings: set[str | None] = field(default_factory=set)
    mailer: SecureMailer = field(init=False)

    def __post_init__(self) -> None:
        """Make the mailer."""
        options: dict[str, Any] = {
            "tls": self.combination.mode,
            "username": ALICE.username,
            "password": ALICE.password,
            "ca_file": self.ca_file,
            "timeout": 60,
            # So that only the server ends the connection.
            "max_idle": 100_000,
            "max_connections": 1,
            "pipelining": "session" if self.combination.way == "session" else "message",
            "on_event": self._note,
        }
        self.mailer = self.faces.maker(self.combination.face)(
            self.server.host, self.server.port(self.combination.mode), **options
        )

    def _note(self, event: Event) -> None:
        if isinstance(event, Connected):
            self.connections += 1
        elif isinstance(event, FellBack):
            self.fell_back.append(event.reason)
        elif isinstance(event, LongLines):
            self.warnings.add(event.message_id)

    def send(self, letters: Sequence[Letter], **options: Any) -> list[Result]:
        """Send them, and return what came of each."""
        if self.combination.way == "send":
            return [self._send(letter, options) for letter in letters]
        results = self.mailer.send_many([letter.envelope for letter in letters], **options)
        return [_result(each) for each in results]

    def _send(self, letter: Letter, options: dict[str, Any]) -> Result:
        envelope = letter.envelope
        names = ("mail_from", "recipients", "dsn", "require_tls")
        arguments = {**{name: getattr(envelope, name) for name in names}, **options}
        send: Any = self.mailer.send_bytes if isinstance(envelope.content, bytes) else self.mailer.send
        try:
            receipt = send(envelope.content, **arguments)
        except SecureSMTPError as error:
            return Result(error.outcome, error=error)
        return Result(Outcome.ACCEPTED, receipt)

    def close(self) -> None:
        """Close the mailer."""
        self.mailer.close()


def _result(each: SendResult) -> Result:
    assert each.error is None or isinstance(each.error, SecureSMTPError)
    return Result(each.outcome, each.receipt, each.error)


def offered(server: RealServer, mode: Mode, ca_file: Path) -> set[str]:
    """Return the extensions that the server offers before or after a login, as another client is told."""
    context = ssl.create_default_context(cafile=str(ca_file))
    keywords = set(server.extensions(mode))
    if mode == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port(mode), "localhost", context=context)
    else:
        client = smtplib.SMTP(server.host, server.port(mode), "localhost")
    with client:
        if mode == "starttls":
            client.starttls(context=context)
        client.ehlo()
        client.user, client.password = ALICE
        client.auth("PLAIN", client.auth_plain)
        # OpenSMTPD and qpsmtpd refuse it.
        with suppress(smtplib.SMTPServerDisconnected):
            client.ehlo()
            keywords.update(keyword.upper() for keyword in client.esmtp_features)
    return keywords


def silent(port: int) -> int:
    """Return how many connections to this port of the machine are open, and hold nothing that was not read."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    own = [line for line in lines if line[2].endswith(f":{port:04X}") and line[3] == _ESTABLISHED]
    return sum(int(line[4].partition(":")[2], 16) == 0 for line in own)


def wait_for_silent(ports: Iterable[int], count: int, within: float) -> None:
    """Wait until *count* connections to *ports* together are open and silent."""
    end = time.monotonic() + within
    while (now := sum(silent(port) for port in ports)) != count:
        if time.monotonic() > end:
            raise TimeoutError(f"{now} connections in place of {count} after {within} s")
        time.sleep(0.02)
