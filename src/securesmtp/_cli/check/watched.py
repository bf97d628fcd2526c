"""The connection of a check: the same as that of a send, watched, and ended where the check is to end."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from securesmtp import ConnectError
from securesmtp._cli.check.result import CONNECTED, NO_ANSWER, NOT_TRIED, OVERTAKEN, AddressTried
from securesmtp._cli.check.transcript import Transcript
from securesmtp._protocol.capabilities import Capabilities, parse_capabilities
from securesmtp._protocol.effects import Receive
from securesmtp._protocol.replies import is_positive
from securesmtp._protocol.wire import RawReply
from securesmtp._transport.addresses import order_addresses
from securesmtp._transport.connect_errors import describe
from securesmtp._transport.link import Link
from securesmtp._values import Stage, TLSInfo

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from typing import Literal

    from securesmtp._cli.check.result import Stage as CheckStage
    from securesmtp._protocol.effects import Answer, Dialogue, Effect
    from securesmtp._protocol.redaction import Memory
    from securesmtp._settings import Settings
    from securesmtp._transport.addresses import AddressInfo
    from securesmtp._transport.channel import Channel

T = TypeVar("T")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class StoppedError(Exception):
    """The check has reached the stage after which it is to end."""


@dataclass(slots=True)
class Watch:
    """
    What a check has seen so far.

    Attributes:
        until: The stage to stop after; None for all of them.
        family: 4 or 6 for addresses of that kind alone.
        address: The IP address to connect to; None for any.
        transcript: The dialogue.
        stage: The last stage that was completed; empty if none was.
        found: Each address of the host.
        links: The connections: one, or a second one to log in with another token.
        before_tls: What EHLO offered in plaintext.
        after_tls: What EHLO offered inside TLS.
    """

    until: CheckStage | None = None
    family: Literal[4, 6] | None = None
    address: str | None = None
    transcript: Transcript = field(default_factory=Transcript)
    stage: CheckStage | Literal[""] = ""
    found: Sequence[AddressInfo] = ()
    links: list[WatchedLink] = field(default_factory=list)
    before_tls: Capabilities | None = None
    after_tls: Capabilities | None = None

    @property
    def channel(self) -> Channel:
        """The last connection's bytes, of which the addresses and the TLS session stay known when it is closed."""
        return self.links[-1].connection.channel

    def reach(self, stage: CheckStage) -> None:
        """
        Note that *stage* is completed.

        Raises:
            StoppedError: The check ends after it.
        """
        self.stage = stage
        if stage == self.until:
            self.transcript.note(f"stopped after {stage}")
            raise StoppedError

    def note_connected(self, address: str) -> None:
        """Note that there is a connection to *address*; if it is empty, there is none."""
        if address:
            self.stage = "connect"
            self.transcript.note(f"Connected to {address}")

    def note_answer(self, effect: Effect, answer: Answer) -> None:
        """Note the *answer* to *effect*."""
        match effect, answer:
            case _, TLSInfo():
                self.reach("tls")
            case Receive(stage=Stage.EHLO), (RawReply(code=code, lines=lines), *_) if is_positive(Stage.EHLO, code):
                offered = parse_capabilities(lines)
                if self.transcript.is_encrypted:
                    self.after_tls, self.stage = offered, "ehlo"
                else:
                    self.before_tls = offered

    def choose(self, host: str, found: Sequence[AddressInfo]) -> Sequence[AddressInfo]:
        """
        Return those of the addresses *found* that may be connected to.

        Raises:
            ConnectError: None of them may.
        """
        self.found = found
        chosen = _of_family(found, self.family)
        if not chosen:
            message = f"{host} has no IPv{self.family} address"
            hint = f"leave out -{self.family}, or give the host such an address"
            raise ConnectError(message, stage=Stage.CONNECT, hint=hint)
        return chosen

    def tried(self) -> tuple[AddressTried, ...]:
        """Return each address of the host, with what became of it."""
        channel = self.channel
        connected = channel.address
        results = {
            str(address[0]): NO_ANSWER if error is None else describe(error)
            for (*_, address), error in channel.attempts.items()
        }
        if connected:
            # Attempts overlap: it may have answered later.
            results = {address: OVERTAKEN if it == NO_ANSWER else it for address, it in results.items()}
            results[connected] = CONNECTED
        known = dict.fromkeys([*(str(each[4][0]) for each in self.found), *results])
        return tuple(AddressTried(address, results.get(address, NOT_TRIED)) for address in known)


class WatchedLink(Link):
    """A connection that a `Watch` follows. Over it no message can be sent: a check runs no dialogue that has one."""

    def __init__(self, watch: Watch, settings: Settings, context: ssl.SSLContext, memory: Memory) -> None:
        """Start unconnected."""
        super().__init__(settings, context, memory)
        self._watch = watch
        watch.links.append(self)
        watch.transcript.is_encrypted = False

    def run(self, dialogue: Dialogue[T]) -> T:
        """Perform *dialogue* and return its value."""
        return super().run(self._watch.transcript.follow(dialogue, self._watch.note_answer))

    def close_gracefully(self, dialogue: Dialogue[None]) -> None:
        """Run the last *dialogue* if the session is usable, and close."""
        super().close_gracefully(self._watch.transcript.follow(dialogue, self._watch.note_answer))

    def look_up(self, host: str, port: int) -> Sequence[AddressInfo]:  # type: ignore[override] # it needs the request
        """Return the addresses to connect to."""
        watch = self._watch
        if watch.address is None:
            return watch.choose(host, super().look_up(host, port))
        return socket.getaddrinfo(watch.address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        watch, connection = self._watch, self.connection
        at = "" if watch.address is None else f" at {watch.address}"
        watch.transcript.note(f"Trying {host}:{port}{at}")
        try:
            if watch.until == "connect":
                self._drive(connection.channel.connect(self.look_up(host, port)))
            else:
                super()._get_socket(host, port, timeout)
        finally:
            # Also if the handshake has failed.
            watch.note_connected(connection.channel.address)
        if watch.until == "connect":
            watch.reach("connect")
        if connection.exchange.tls is not None:
            watch.transcript.note_session(connection.exchange.tls)
            watch.reach("tls")
        return connection.channel.connected_socket()


def look_up(host: str, port: int, family: Literal[4, 6] | None) -> list[str]:
    """Return the IP addresses of *host*, in the order in which a send tries them; without any, or on an error, none."""
    try:
        found = Link.look_up(host, port)
    except OSError:
        return []
    return [str(address[0]) for *_, address in order_addresses(_of_family(found, family))]


def _of_family(found: Sequence[AddressInfo], family: Literal[4, 6] | None) -> list[AddressInfo]:
    return [each for each in found if family is None or each[0] == _FAMILIES[family]]
