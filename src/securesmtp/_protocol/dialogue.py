"""
What is said in which order: generators that yield effects and never do I/O themselves.

Theory of operation: a link performs each effect and resumes the dialogue with its answer. When an effect fails, the
link has closed the connection and throws the error into the dialogue, which may translate it (only a transaction knows
what became of its message) and then ends. A `RefusedError` that a dialogue raises and `in_step` confirms leaves the
session usable: every reply that was asked for was read. After any other error the link closes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar, cast

from securesmtp._protocol.capabilities import Capabilities, parse_capabilities
from securesmtp._protocol.replies import is_closing, is_login_wanted, is_positive, is_refusal, is_temporary
from securesmtp._protocol.sasl import Mechanism, Password, choose
from securesmtp._protocol.wire import MAX_AUTH, MAX_COMMAND, Line, RawReply, line
from securesmtp._values import Reply, Stage, TLSInfo, TLSMode
from securesmtp.errors import (
    AuthenticationError,
    ConnectError,
    DataRefusedError,
    DowngradeError,
    ProtocolError,
    RefusedError,
    SecureSMTPError,
)

Partial: TypeAlias = Literal["raise", "allow"]
Pipelining: TypeAlias = Literal["off", "message", "session"]
Limit: TypeAlias = Literal["command", "data", "block", "final"]
T = TypeVar("T")

# STLS-07: what is said in the clear may be anybody's; enough to recognise a server by.
_PLAIN_TEXT = 200


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the connection, with TLS at once in implicit mode, and read the greeting: resumed with `Connected`."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The answer to `Connect`: the greeting, the evidence where TLS began already, and our end as address literal."""

    greeting: RawReply
    tls: TLSInfo | None
    literal: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Write one line."""

    line: Line
    stage: Stage


@dataclass(frozen=True, slots=True)
class Flight:
    """Write these lines in one go, with a block that follows; the reply to each is received, in their order."""

    lines: tuple[Line, ...]
    stage: Stage


@dataclass(frozen=True, slots=True)
class Receive:
    """Read one reply within the limit: resumed with a `RawReply`."""

    stage: Stage
    limit: Limit = "command"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Begin TLS: resumed with its `TLSInfo`."""


@dataclass(frozen=True, slots=True)
class Block:
    """
    Write one block of the content; with *more*, in one go with the flight that may follow it (RFC 2920 §3.1).

    Resumed with True where it did not leave whole, and replies have come that say why: nothing more can be written.

    Its repr shows nothing of the message: it stands in the frames of a traceback.
    """

    data: bytes = field(repr=False)
    more: bool = False


Effect: TypeAlias = Connect | Send | Flight | Receive | Upgrade | Block
Answer: TypeAlias = Connected | RawReply | TLSInfo | bool | None
Dialogue: TypeAlias = Generator[Effect, Answer, T]


@dataclass(slots=True)
class Session:
    """
    An open session: the evidence of its TLS, and what the server offers inside it.

    What it offered in the clear is kept to be shown, and used for nothing (RFC 3207 §4.2). A transaction that was
    *left_open* is reset in the flight of the next. So many *transactions* were begun. *chunking_refused* is how the
    server refused BDAT although it offers CHUNKING; from then on DATA is used.
    """

    tls: TLSInfo | None
    offered: Capabilities
    plain: Capabilities | None = None
    left_open: bool = False
    transactions: int = 0
    chunking_refused: Reply | None = None

    @property
    def room(self) -> int:
        """How many transactions the server still takes: it counts each MAIL, whatever it answers (RFC 9422 §4.1)."""
        return self.offered.limits.get("MAILMAX", 1 << 30) - self.transactions

    @property
    def can_chunk(self) -> bool:
        """Whether a content is sent by BDAT (RFC 3030)."""
        return "CHUNKING" in self.offered and self.chunking_refused is None


def interrupted(by: BaseException, stage: Stage) -> ConnectError:
    """Return what the foreign exception *by*, which ends the connection, is for a message on it."""
    error = ConnectError(f"the send was interrupted by {type(by).__name__}", stage=stage, retryable=True)
    error.interrupted = True
    return error


def open_session(mode: TLSMode, name: bytes | None) -> Dialogue[Session]:
    """Connect, greet, and see to TLS; *name* None says EHLO with our address literal (RFC 5321 §4.1.4)."""
    connected = cast("Connected", (yield Connect()))
    tls = connected.tls
    greeting = _shown(connected.greeting, tls)
    if not is_positive(Stage.GREETING, greeting.code):
        message = f'the greeting is "{greeting}"{_doubt(tls)}'
        raise ConnectError(message, stage=Stage.GREETING, reply=greeting, retryable=is_temporary(greeting.code))
    offered, plain = (yield from ehlo(name or connected.literal, tls)), None
    if mode is TLSMode.STARTTLS:
        plain = offered
        tls, offered = yield from starttls(name or connected.literal, plain)
    return Session(tls, offered, plain)


def ehlo(name: bytes, tls: TLSInfo | None) -> Dialogue[Capabilities]:
    """Ask what is offered; there is no HELO to fall back to, since HELO offers nothing."""
    yield Send(line(b"EHLO", name), Stage.EHLO)
    raw = cast("RawReply", (yield Receive(Stage.EHLO)))
    if is_positive(Stage.EHLO, raw.code):
        return parse_capabilities(raw.lines)
    reply = _shown(raw, tls)
    if tls is None:
        message = f'EHLO is answered by "{reply}"{_doubt(tls)}: no STARTTLS, so no mail'
        raise DowngradeError(
            message, stage=Stage.EHLO, reply=reply, retryable=is_temporary(reply.code), hint=_ehlo_hint(name, reply)
        )
    error = refused(RefusedError, Stage.EHLO, reply)
    error.hint = _ehlo_hint(name, reply)
    raise error


def _ehlo_hint(name: bytes, reply: Reply) -> str | None:
    if reply.code in {500, 502}:  # no such command, whatever the name (RFC 5321 §4.2.4)
        return None
    # RFC 5321 §4.1.4 allows an address literal, which some servers refuse.
    return f'the server may not take the name "{name.decode()}" in EHLO: pass local_hostname="app.example.com"'


def starttls(name: bytes, offered: Capabilities) -> Dialogue[tuple[TLSInfo, Capabilities]]:
    """Upgrade the connection, or end it: nothing that happens here leads to mail in the clear (RFC 3207)."""
    if "STARTTLS" not in offered:
        message = "the server does not offer STARTTLS"
        hint = 'an attacker may have taken it out; if the server has implicit TLS (port 465), use tls="implicit"'
        raise DowngradeError(message, stage=Stage.STARTTLS, hint=hint)
    yield Send(line(b"STARTTLS"), Stage.STARTTLS)
    reply = _shown(cast("RawReply", (yield Receive(Stage.STARTTLS))), None)
    if not is_positive(Stage.STARTTLS, reply.code):
        message = f'STARTTLS is answered by "{reply}"{_doubt(None)}'
        raise DowngradeError(message, stage=Stage.STARTTLS, reply=reply, retryable=is_temporary(reply.code))
    tls = cast("TLSInfo", (yield Upgrade()))
    # RFC 3207 §4.2: what was offered in the clear is void.
    return tls, (yield from ehlo(name, tls))


def authenticate(session: Session, login: Password) -> Dialogue[str]:
    """Log in once, with one mechanism, and return its name; a refusal is final (AUTH-02)."""
    if session.tls is None:
        message = "no login without TLS"
        raise AuthenticationError(message, stage=Stage.AUTH)
    mechanism = choose(login, session.offered.auth)
    command, response = _start(mechanism)
    yield Send(command, Stage.AUTH)
    while (raw := cast("RawReply", (yield Receive(Stage.AUTH)))).code == 334:  # noqa: PLR2004 -- RFC 4954 §4
        response = response or _encoded(mechanism, mechanism.respond(_decoded(raw.challenge)))
        if response is None:
            message = f"the server asks for more than {mechanism.name} has to say"
            raise ProtocolError(message, stage=Stage.AUTH)
        yield Send(response, Stage.AUTH)
        response = None
    if is_positive(Stage.AUTH, raw.code):
        return mechanism.name
    reply = raw.reply()
    if not is_refusal(reply.code):
        message = f'AUTH is answered by "{reply}", not by 235'
        raise ProtocolError(message, stage=Stage.AUTH, reply=reply)
    message = f'the login is refused: "{reply}"'
    hint = (
        "the server takes no login for now: try later, or with fewer connections at the same time (max_connections)"
        if is_temporary(reply.code)
        else "check username and password; some providers want a password made for one application"
    )
    raise AuthenticationError(message, stage=Stage.AUTH, reply=reply, retryable=is_temporary(reply.code), hint=hint)


def reset() -> Dialogue[None]:
    """Give up the transaction that was begun (RFC 5321 §4.1.1.5)."""
    yield from ask(line(b"RSET"), Stage.RSET)


def quit_session() -> Dialogue[None]:
    """Say goodbye; what the server answers changes nothing any more, and nobody waits for it."""
    yield Send(line(b"QUIT"), Stage.QUIT)


def ask(command: Line, stage: Stage, limit: Limit = "command") -> Dialogue[Reply]:
    """Write one command, and hear its reply."""
    yield Send(command, stage)
    return (yield from hear(stage, limit))


def hear(stage: Stage, limit: Limit = "command") -> Dialogue[Reply]:
    """Return the reply if it is positive or a refusal; whatever else comes is out of step (RPL-06)."""
    reply = cast("RawReply", (yield Receive(stage, limit))).reply()
    if is_login_wanted(stage, reply.code):
        message = f'the server wants a login: "{reply}"'
        raise AuthenticationError(message, stage=stage, reply=reply, hint="pass username and password")
    # RFC 5321 §3.8: after 421 the server is gone. RSET is never refused by a server that is in step.
    if is_closing(reply.code) or (is_refusal(reply.code) and stage is Stage.RSET):
        raise closing(reply, stage)
    if not is_positive(stage, reply.code) and not is_refusal(reply.code):
        message = f'{stage.upper()} is answered by "{reply}"'
        raise ProtocolError(message, stage=stage, reply=reply)
    return reply


def closing(reply: Reply, stage: Stage) -> ConnectError:
    """Return the error for a server that ends the session."""
    message = f'the server closes the session: "{reply}"'
    return ConnectError(message, stage=stage, reply=reply, retryable=is_temporary(reply.code))


def in_step(refusal: RefusedError) -> bool:
    """Return whether the session can go on after *refusal*: RSET went well, and it is not 421 (RFC 5321 §3.8)."""
    return refusal.__cause__ is None and refusal.reply is not None and not is_closing(refusal.reply.code)


def refuse_early(raw: RawReply) -> SecureSMTPError:
    """Return the error for a reply that came while the content was being written: it was not ended, so not accepted."""
    reply = raw.reply()
    if is_refusal(reply.code):
        return refused(DataRefusedError, Stage.CONTENT, reply)
    message = f'"{reply}" came before the content was ended'
    return ProtocolError(message, stage=Stage.CONTENT, reply=reply)


E = TypeVar("E", bound=RefusedError)


def refused(kind: type[E], stage: Stage, reply: Reply, what: str = "refused") -> E:
    """Return the error for a 4xx or 5xx reply."""
    message = f'{what}: "{reply}"'
    return kind(message, stage=stage, reply=reply, retryable=is_temporary(reply.code))


def _start(mechanism: Mechanism) -> tuple[Line, Line | None]:
    """Return the AUTH command, and the initial response where it does not fit into it (RFC 4954 §4)."""
    name, response = mechanism.name.encode("ascii"), _encoded(mechanism, mechanism.start())
    alone = line(b"AUTH", name)
    if response is None or len(alone.data) + len(response.data) - 1 > MAX_COMMAND:
        return alone, response
    # RFC 4954 §4: an empty initial response is written as "=".
    return line(b"AUTH", name, response.data[:-2] or b"=", secrets=response.secrets), None


def _encoded(mechanism: Mechanism, octets: bytes | None) -> Line | None:
    if octets is None:
        return None
    secrets = tuple(secret for secret in mechanism.secrets if secret in octets)
    return line(base64.b64encode(octets), secrets=secrets, limit=MAX_AUTH)


def _decoded(challenge: bytes) -> bytes | None:
    try:
        return base64.b64decode(challenge, validate=True)
    except binascii.Error:
        return None


def _shown(raw: RawReply, tls: TLSInfo | None) -> Reply:
    return raw.reply() if tls else raw.reply(_PLAIN_TEXT)


def _doubt(tls: TLSInfo | None) -> str:
    return "" if tls else " (said in the clear, by nobody knows whom)"
