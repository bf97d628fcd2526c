"""
What a dialogue may ask of its connection, and typed helpers to ask for it.

How it works: a dialogue is a generator that decides what to say and does no I/O. It yields one effect at a time; the
connection performs it and resumes the dialogue with the answer. If an effect fails, the connection closes and throws
the error into the dialogue. The dialogue may replace the error (only a transaction knows what became of its message)
and ends.

A dialogue runs no code of the caller's either. It yields a `Computation` instead, which the driver of the connection
performs. What the caller's code raises is thrown into the dialogue, and is no error of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from securesmtp._protocol.message import Submission
from securesmtp._protocol.sasl import ChannelBinding, resolve_password
from securesmtp._protocol.wire import Line, RawReply
from securesmtp._secret import Secret
from securesmtp._values import TLSInfo

if TYPE_CHECKING:
    from securesmtp._protocol.capabilities import Capabilities
    from securesmtp._protocol.sasl import Mechanism
    from securesmtp._values import Stage

Limit: TypeAlias = Literal["command", "data", "block", "final"]
T = TypeVar("T")


@dataclass(slots=True)
class Connect:
    """Open the connection, in implicit mode with TLS, and read the greeting. The answer is `Opened`."""


@dataclass(slots=True)
class Opened:
    """
    The answer to `Connect`.

    Attributes:
        greeting: The server's first reply.
        tls: The TLS session, in implicit mode.
        literal: Our own address as an address literal, for EHLO.
    """

    greeting: RawReply
    tls: TLSInfo | None
    literal: bytes


@dataclass(slots=True)
class Send:
    """Write one command line."""

    line: Line
    stage: Stage


@dataclass(slots=True)
class CommandGroup:
    """Write these commands and a block that follows them in one go (RFC 2920); read each reply with a `Receive`."""

    lines: tuple[Line, ...]
    stage: Stage


@dataclass(slots=True)
class Receive:
    """
    Read one reply within the time limit, and with it up to *more* that have come. The answer is a tuple of `RawReply`.

    Only replies of the same message belong together: a dialogue that fails reads no reply of another.
    """

    stage: Stage
    limit: Limit = "command"
    more: int = 0


@dataclass(slots=True)
class Upgrade:
    """Start TLS. The answer is its `TLSInfo`."""


@dataclass(slots=True)
class ReadBinding:
    """Get the channel binding of the TLS session. The answer is a `ChannelBinding`, or None if it has none."""


@dataclass(slots=True)
class Block:
    """
    Write one block of the content; with *coalesce*, in one go with the group that may follow it (RFC 2920 §3.1).

    The answer is True if it was not written whole and replies are waiting that say why: nothing more can be written.

    Its repr shows nothing of the message, because it is in the frames of a traceback.
    """

    data: bytes = field(repr=False)
    coalesce: bool = False


@dataclass(slots=True)
class FetchPassword:
    """Get the password from *source*, which may be the caller's callable. The answer is a `Secret`."""

    source: Secret | Callable[[], Any] = field(repr=False)

    def perform(self) -> Secret:
        """Return the password."""
        return resolve_password(self.source)


@dataclass(slots=True)
class FetchToken:
    """Get the mailer's access token from *source*. The answer is a `Secret`, checked already."""

    source: Callable[[], Any] = field(repr=False)

    def perform(self) -> Secret:
        """Return the token."""
        return _checked(Secret, self.source())


@dataclass(slots=True)
class Adapt:
    """Adapt the message to the server, which may serialise the caller's message again. The answer is a `Submission`."""

    submission: Submission = field(repr=False)
    capabilities: Capabilities

    def perform(self) -> Submission:
        """Return the adapted message."""
        return self.submission.adapt_to(self.capabilities)


@dataclass(slots=True)
class Response:
    """The response to a SASL challenge, or None: its repr does not show it, because it is in the frames of a driver."""

    data: bytes | None = field(repr=False)


@dataclass(slots=True)
class Respond:
    """Answer a SASL challenge. SCRAM computes as long as the server asks for. The answer is a `Response`."""

    mechanism: Mechanism
    challenge: bytes | None = field(repr=False)

    def perform(self) -> Response:
        """Return the response."""
        return Response(self.mechanism.respond(self.challenge))


class Deadline(Protocol):
    """A moment by which something must be done (`_transport.deadline.Deadline`)."""

    limit: str
    seconds: float
    at: float


@dataclass(slots=True)
class SetDeadline:
    """Do what follows by *deadline*, and within *seconds* from now, a limit that is named *limit*."""

    deadline: Deadline | None
    limit: str = ""
    seconds: float = inf


Computation: TypeAlias = FetchPassword | FetchToken | Adapt | Respond
IOEffect: TypeAlias = Connect | Send | CommandGroup | Receive | Upgrade | ReadBinding | Block | SetDeadline
Effect: TypeAlias = IOEffect | Computation
Answer: TypeAlias = (
    Opened | tuple[RawReply, ...] | TLSInfo | ChannelBinding | Secret | Submission | Response | bool | None
)
Dialogue: TypeAlias = Generator[Effect, Answer, T]


def connect() -> Dialogue[Opened]:
    """Open the connection."""
    return _checked(Opened, (yield Connect()))


def receive(stage: Stage, limit: Limit = "command") -> Dialogue[RawReply]:
    """Read one reply, whatever its code."""
    return (yield from receive_some(Receive(stage, limit)))[0]


def receive_some(effect: Receive) -> Dialogue[tuple[RawReply, ...]]:
    """Read at least one reply."""
    return _checked(tuple, (yield effect))


def upgrade() -> Dialogue[TLSInfo]:
    """Start TLS."""
    return _checked(TLSInfo, (yield Upgrade()))


def read_binding() -> Dialogue[ChannelBinding | None]:
    """Return the channel binding of the TLS session, if it has one."""
    answer = yield ReadBinding()
    return None if answer is None else _checked(ChannelBinding, answer)


def fetch_password(source: Secret | Callable[[], Any]) -> Dialogue[Secret]:
    """Return the password from *source*."""
    return _checked(Secret, (yield FetchPassword(source)))


def fetch_token(source: Callable[[], Any]) -> Dialogue[Secret]:
    """Return the mailer's access token."""
    return _checked(Secret, (yield FetchToken(source)))


def respond(effect: Respond) -> Dialogue[Response]:
    """Return the response to a challenge."""
    # In the effect, the challenge is not in this frame, which a traceback shows.
    return _checked(Response, (yield effect))


def adapt(submission: Submission, capabilities: Capabilities) -> Dialogue[Submission]:
    """Return *submission*, adapted to a server that has these *capabilities*."""
    if submission.fits(capabilities):
        return submission
    return _checked(Submission, (yield Adapt(submission, capabilities)))


def _checked(kind: type[T], answer: Answer) -> T:
    if not isinstance(answer, kind):
        message = f"the connection answered an effect with {type(answer).__name__}, not {kind.__name__}"
        raise TypeError(message)
    return answer
