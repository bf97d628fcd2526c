"""
What is said in which order: generators that yield effects and never do I/O themselves.

Theory of operation: a link performs each effect and resumes the dialogue with its answer. When an effect fails, the
link has closed the connection and throws the error into the dialogue, which may translate it (only `deliver` knows
what became of the message) and then ends. A `RefusedError` that a dialogue raises and `in_step` confirms leaves the
session usable: every reply that was asked for was read. After any other error the link closes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast

from securesmtp._protocol.capabilities import Capabilities, parse_capabilities
from securesmtp._protocol.content import BLOCK, EMPTY
from securesmtp._protocol.sasl import Mechanism, Password, choose
from securesmtp._protocol.wire import MAX_AUTH, Line, RawReply, line
from securesmtp._values import Outcome, Recipient, Reply, Stage, TLSInfo, TLSMode
from securesmtp.errors import (
    AuthenticationError,
    ConnectError,
    DataRefusedError,
    DowngradeError,
    MessageError,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    RefusedError,
    SecureSMTPError,
    SenderRefusedError,
)

if TYPE_CHECKING:
    from securesmtp._protocol.address import Mailbox
    from securesmtp._protocol.message import Submission

Partial: TypeAlias = Literal["raise", "allow"]
Pipelining: TypeAlias = Literal["off", "message"]
Limit: TypeAlias = Literal["command", "data", "block", "final"]
T = TypeVar("T")

# STLS-07: what is said in the clear may be anybody's; enough to recognise a server by.
_PLAIN_TEXT = 200
_SPLIT = 'partial="allow" sends it in several transactions'
_WHO = "the error's recipients say who has it; send it to the others once you know that they have not"


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
    """Write these lines in one go (RFC 2920 §3.1); the reply to each is then received, in their order."""

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
    """Write one block of the content."""

    data: bytes


Effect: TypeAlias = Connect | Send | Flight | Receive | Upgrade | Block
Answer: TypeAlias = Connected | RawReply | TLSInfo | None
Dialogue: TypeAlias = Generator[Effect, Answer, T]
Transaction: TypeAlias = Dialogue[tuple[tuple[Recipient, ...], Reply]]

_RCPT_OK = (250, 251)


@dataclass(slots=True)
class Session:
    """
    An open session: the evidence of its TLS, and what the server offers inside it.

    What it offered in the clear is kept to be shown, and used for nothing (RFC 3207 §4.2). A transaction that was
    *left_open* is reset in the flight of the next.
    """

    tls: TLSInfo | None
    offered: Capabilities
    plain: Capabilities | None = None
    left_open: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the server said of one message that it accepted: of each recipient, and of each transaction's content."""

    recipients: tuple[Recipient, ...]
    replies: tuple[Reply, ...]
    size: int


def open_session(mode: TLSMode, name: bytes | None) -> Dialogue[Session]:
    """Connect, greet, and see to TLS; *name* None says EHLO with our address literal (RFC 5321 §4.1.4)."""
    connected = cast("Connected", (yield Connect()))
    tls = connected.tls
    greeting = _shown(connected.greeting, tls)
    if greeting.code != 220:  # noqa: PLR2004 -- RFC 5321 §4.3.2
        message = f'the greeting is "{greeting}"{_doubt(tls)}'
        raise ConnectError(message, stage=Stage.GREETING, reply=greeting, retryable=_temporary(greeting))
    offered, plain = (yield from ehlo(name or connected.literal, tls)), None
    if mode is TLSMode.STARTTLS:
        plain = offered
        tls, offered = yield from starttls(name or connected.literal, plain)
    return Session(tls, offered, plain)


def ehlo(name: bytes, tls: TLSInfo | None) -> Dialogue[Capabilities]:
    """Ask what is offered; there is no HELO to fall back to, since HELO offers nothing."""
    yield Send(line(b"EHLO", name), Stage.EHLO)
    raw = cast("RawReply", (yield Receive(Stage.EHLO)))
    if raw.code == 250:  # noqa: PLR2004 -- RFC 5321 §4.3.2
        return parse_capabilities(raw.lines)
    reply = _shown(raw, tls)
    if tls is None:
        message = f'EHLO is answered by "{reply}"{_doubt(tls)}: no STARTTLS, so no mail'
        raise DowngradeError(message, stage=Stage.EHLO, reply=reply, retryable=_temporary(reply))
    raise _error(RefusedError, Stage.EHLO, reply)


def starttls(name: bytes, offered: Capabilities) -> Dialogue[tuple[TLSInfo, Capabilities]]:
    """Upgrade the connection, or end it: nothing that happens here leads to mail in the clear (RFC 3207)."""
    if "STARTTLS" not in offered:
        message = "the server does not offer STARTTLS"
        hint = 'an attacker may have taken it out; if the server has implicit TLS (port 465), use tls="implicit"'
        raise DowngradeError(message, stage=Stage.STARTTLS, hint=hint)
    yield Send(line(b"STARTTLS"), Stage.STARTTLS)
    reply = _shown(cast("RawReply", (yield Receive(Stage.STARTTLS))), None)
    if reply.code != 220:  # noqa: PLR2004 -- RFC 3207 §4
        message = f'STARTTLS is answered by "{reply}"{_doubt(None)}'
        raise DowngradeError(message, stage=Stage.STARTTLS, reply=reply, retryable=_temporary(reply))
    tls = cast("TLSInfo", (yield Upgrade()))
    # RFC 3207 §4.2: what was offered in the clear is void.
    return tls, (yield from ehlo(name, tls))


def authenticate(session: Session, login: Password) -> Dialogue[str]:
    """Log in once, with one mechanism, and return its name; a refusal is final (AUTH-02)."""
    if session.tls is None:
        message = "no login without TLS"
        raise AuthenticationError(message, stage=Stage.AUTH)
    mechanism = choose(login, session.offered.auth)
    yield Send(_start(mechanism), Stage.AUTH)
    while (raw := cast("RawReply", (yield Receive(Stage.AUTH)))).code == 334:  # noqa: PLR2004 -- RFC 4954 §4
        response = _response(mechanism, raw.challenge)
        if isinstance(response, str):
            raise ProtocolError(response, stage=Stage.AUTH)
        yield Send(response, Stage.AUTH)
    if raw.code == 235:  # noqa: PLR2004 -- RFC 4954 §6: 235 alone is success
        return mechanism.name
    reply = raw.reply()
    if reply.code < 400:  # noqa: PLR2004 -- 4xx and 5xx are refusals, all else is out of step
        message = f'AUTH is answered by "{reply}", not by 235'
        raise ProtocolError(message, stage=Stage.AUTH, reply=reply)
    message = f'the login is refused: "{reply}"'
    hint = "check username and password; some providers want a password made for one application"
    raise AuthenticationError(message, stage=Stage.AUTH, reply=reply, retryable=_temporary(reply), hint=hint)


def deliver(
    session: Session, submission: Submission, partial: Partial, pipelining: Pipelining = "off"
) -> Dialogue[Delivery]:
    """
    Submit one message (RFC 5321 §3.3), and know what became of it.

    Where the server takes fewer recipients at a time than there are, ``"allow"`` sends it to the rest in further
    transactions; what fails after the first of them has succeeded is an `OutcomeUnknownError` that says who has it.
    """
    fitted = submission.fit(session.offered)
    transaction = _lockstep
    if pipelining != "off" and "PIPELINING" in session.offered:
        transaction = _by_chunk if "CHUNKING" in session.offered else _by_data
    most = session.offered.limits.get("RCPTMAX", len(fitted.recipients))
    if len(fitted.recipients) > most and partial == "raise":
        message = f"the message has {len(fitted.recipients)} recipients, and the server takes {most} at a time"
        raise MessageError(message, stage=Stage.MAIL, hint=_SPLIT)
    waiting, said, replies = fitted.recipients, dict[str, Recipient](), list[Reply]()
    while waiting:
        group, waiting = waiting[:most], waiting[most:]
        try:
            recipients, reply = yield from transaction(session, replace(fitted, recipients=group), partial)
        except SecureSMTPError as error:
            if not replies:
                raise
            recipients = _refused(group, error, said)
        else:
            replies.append(reply)
            full = {recipient.address for recipient in recipients if _too_many(recipient.reply)}
            waiting = tuple(mailbox for mailbox in group if mailbox.address in full) + waiting
        said |= {recipient.address: recipient for recipient in recipients}
    ordered = tuple(said[mailbox.address] for mailbox in fitted.recipients)
    return Delivery(ordered, tuple(replies), fitted.content.size)


def _refused(group: tuple[Mailbox, ...], error: SecureSMTPError, said: dict[str, Recipient]) -> tuple[Recipient, ...]:
    """Return how a later transaction was refused; where that is not certain, the whole message's outcome is unknown."""
    if isinstance(error, RefusedError) and in_step(error) and error.reply is not None:
        answers = error.recipients if isinstance(error, RecipientsRefusedError) else ()
        return answers or tuple(Recipient(mailbox.address, accepted=False, reply=error.reply) for mailbox in group)
    asked = {mailbox.address for mailbox in group}
    known = tuple(recipient for recipient in said.values() if recipient.address not in asked)
    message = (
        f"accepted for {sum(each.accepted for each in known)} recipient(s), and then, for the rest: {error.args[0]}"
    )
    unknown = OutcomeUnknownError(message, stage=error.stage, outcome=Outcome.UNKNOWN, hint=_WHO)
    unknown.recipients = known
    raise unknown from error


def _too_many(reply: Reply) -> bool:
    # RFC 5321 §4.5.3.1.10; with another enhanced code it is the storage or the mailbox that is full (RFC 3463 §3.6).
    return reply.code == 452 and reply.enhanced in {None, "4.5.3"}  # noqa: PLR2004


def _lockstep(session: Session, fitted: Submission, partial: Partial) -> Transaction:
    """Ask and hear, one command after the other."""
    reply = yield from _ask(_mail(session, fitted), Stage.MAIL, (250,))
    if reply.code != 250:  # noqa: PLR2004 -- RFC 5321 §4.3.2
        raise _error(SenderRefusedError, Stage.MAIL, reply)
    recipients = []
    for mailbox in fitted.recipients:
        reply = yield from _ask(_rcpt(mailbox), Stage.RCPT, _RCPT_OK)
        recipients.append(_recipient(mailbox, reply))
    if refusal := _refusal(recipients, partial):
        yield from _give_up(refusal)
    reply = yield from _ask(line(b"DATA"), Stage.DATA, (354,), "data")
    if reply.code != 354:  # noqa: PLR2004 -- RFC 5321 §4.3.2
        yield from _give_up(_error(DataRefusedError, Stage.DATA, reply))
    reply = yield from _content(fitted.content.blocks())
    return tuple(recipients), _accepted(reply)


def _by_data(session: Session, fitted: Submission, partial: Partial) -> Transaction:
    """Write MAIL and RCPT in one flight, and DATA with them where no reply to a recipient can forbid the content."""
    data = line(b"DATA")
    # An accepted DATA cannot be taken back: where all or nobody is to have the message, it waits for the replies.
    along = partial == "allow" or len(fitted.recipients) == 1
    yield Flight((*_opening(session, fitted), *[data] * along), Stage.MAIL)
    recipients, refusal = yield from _opened(session, fitted, partial)
    reply = (yield from _hear(Stage.DATA, (354,), "data")) if along else None
    if refusal is not None:
        if reply is not None and reply.code == 354:  # noqa: PLR2004 -- RFC 5321 §4.3.2
            yield from _take_back(refusal)
        session.left_open = True
        raise refusal
    reply = reply or (yield from _ask(data, Stage.DATA, (354,), "data"))
    if reply.code != 354:  # noqa: PLR2004 -- RFC 5321 §4.3.2
        session.left_open = True
        raise _error(DataRefusedError, Stage.DATA, reply)
    reply = yield from _content(fitted.content.blocks())
    return recipients, _accepted(reply)


def _by_chunk(session: Session, fitted: Submission, partial: Partial) -> Transaction:
    """Write MAIL, RCPT and one chunk in one flight (RFC 3030 §4.2); the chunk waits where it must, or had better."""
    data = line(b"BDAT", b"%d" % fitted.content.octets, b"LAST")
    # Nothing large is uploaded for nobody.
    along = (partial == "allow" or len(fitted.recipients) == 1) and fitted.content.octets <= BLOCK
    yield Flight((*_opening(session, fitted), *[data] * along), Stage.MAIL)
    if along:
        recipients, refusal, reply = yield from _with_chunk(session, fitted, partial)
    else:
        recipients, refusal = yield from _opened(session, fitted, partial)
    # RFC 3030 §2: until it is reset, whatever of it was refused.
    session.left_open = True
    if refusal is not None:
        raise refusal
    if not along:
        yield Flight((data,), Stage.CONTENT)
        reply = yield from _content(fitted.content.chunk())
    accepted = _accepted(reply)
    session.left_open = False
    return recipients, accepted


def _with_chunk(
    session: Session, fitted: Submission, partial: Partial
) -> Dialogue[tuple[tuple[Recipient, ...], SecureSMTPError | None, Reply]]:
    """Write the chunk, and hear all replies of its flight; from here on an error says that the outcome is unknown."""
    refusal: SecureSMTPError | None = None
    yield Block(b"".join(fitted.content.chunk()))
    try:
        recipients, refusal = yield from _opened(session, fitted, partial)
        reply = yield from _final()
    except SecureSMTPError as error:
        # RFC 5321 §3.8: behind a 421 nothing is heard any more.
        if error.reply is not None and error.reply.code == 421:  # noqa: PLR2004
            raise
        raise (refusal or _unknown(error)) from error
    if refusal is not None:
        _demand_refused(reply, refusal)
    return recipients, refusal, reply


def _take_back(refusal: SecureSMTPError) -> Dialogue[None]:
    """End a content that nobody is to get without a line of it (RFC 2920 §3.1); it should be refused."""
    try:
        yield Block(EMPTY)
        reply = yield from _final()
    except SecureSMTPError as error:
        raise refusal from error
    _demand_refused(reply, refusal)


def _demand_refused(reply: Reply, refusal: SecureSMTPError) -> None:
    if reply.code < 400:  # noqa: PLR2004 -- RFC 5321 §4.2.1
        message = "the server accepted a content for nobody"
        raise refusal from ProtocolError(message, stage=Stage.CONTENT, reply=reply)


def _opening(session: Session, fitted: Submission) -> list[Line]:
    return [*[line(b"RSET")] * session.left_open, _mail(session, fitted), *map(_rcpt, fitted.recipients)]


def _opened(
    session: Session, fitted: Submission, partial: Partial
) -> Dialogue[tuple[tuple[Recipient, ...], SecureSMTPError | None]]:
    """Hear the replies to `_opening`, and return what was said of each recipient, and what forbids to go on."""
    if session.left_open:
        yield from _hear(Stage.RSET, (250,))
        session.left_open = False
    refusal: SecureSMTPError | None = None
    try:
        reply = yield from _hear(Stage.MAIL, (250,))
        if reply.code != 250:  # noqa: PLR2004 -- RFC 5321 §4.3.2
            refusal = _error(SenderRefusedError, Stage.MAIL, reply)
    except AuthenticationError as error:
        refusal = error
    recipients = []
    for mailbox in fitted.recipients:
        reply = yield from _hear(Stage.RCPT, _RCPT_OK)
        recipients.append(_recipient(mailbox, reply))
    return tuple(recipients), refusal or _refusal(recipients, partial)


def reset() -> Dialogue[None]:
    """Give up the transaction that was begun (RFC 5321 §4.1.1.5)."""
    yield from _ask(line(b"RSET"), Stage.RSET, (250,))


def _give_up(refusal: RefusedError) -> Dialogue[None]:
    """Leave the transaction and raise *refusal*; where that fails, the failure is its cause."""
    try:
        yield from reset()
    except SecureSMTPError as error:
        raise refusal from error
    raise refusal


def quit_session() -> Dialogue[None]:
    """Say goodbye; what the server answers changes nothing any more, and nobody waits for it."""
    yield Send(line(b"QUIT"), Stage.QUIT)


def _mail(session: Session, fitted: Submission) -> Line:
    utf8 = fitted.needs_smtputf8
    parameters = [b"SIZE=%d" % fitted.content.size] if "SIZE" in session.offered else []
    parameters += [b"BODY=8BITMIME"] if not fitted.content.is_ascii else []
    parameters += [b"SMTPUTF8"] if utf8 else []
    return line(b"MAIL", b"FROM:<" + fitted.mail_from.encoded + b">", *parameters, utf8=utf8)


def _rcpt(mailbox: Mailbox) -> Line:
    # One path that is not ASCII makes the parameter on MAIL, which allows UTF-8 in every path (RFC 6531 §3.3).
    return line(b"RCPT", b"TO:<" + mailbox.encoded + b">", utf8=mailbox.needs_smtputf8)


def _recipient(mailbox: Mailbox, reply: Reply) -> Recipient:
    return Recipient(mailbox.address, reply.code in _RCPT_OK, reply)


def _refusal(recipients: Sequence[Recipient], partial: Partial) -> RecipientsRefusedError | None:
    """Return the error where a refused recipient forbids the content."""
    refused = [recipient for recipient in recipients if not recipient.accepted]
    if not refused or (partial == "allow" and len(refused) < len(recipients)):
        return None
    what = f"{len(refused)} of {len(recipients)} refused"
    error = _error(RecipientsRefusedError, Stage.RCPT, refused[0].reply, what)
    error.recipients = tuple(recipients)
    error.hint = "the error's recipients have each one's reply"
    if len(refused) < len(recipients):
        error.hint += '; partial="allow" delivers to the rest'
    error.retryable = all(recipient.retryable for recipient in refused)
    return error


def _content(blocks: Iterator[bytes]) -> Dialogue[Reply]:
    """
    Write the content; from the moment its last block is written, an error says that the outcome is unknown.

    Not before: of a block that was not written whole, the TLS record with its end was not, and no part of a record can
    be decrypted (RFC 8446 §5.2).
    """
    for block in blocks:
        yield Block(block)
    try:
        return (yield from _final())
    except RefusedError:
        raise
    except SecureSMTPError as error:
        raise _unknown(error) from error


def _final() -> Dialogue[Reply]:
    """Return the reply to the content, which is 250 or a refusal."""
    reply = cast("RawReply", (yield Receive(Stage.CONTENT, "final"))).reply()
    if reply.code < 400 and reply.code != 250:  # noqa: PLR2004 -- RFC 5321 §4.3.2
        message = f'the content is answered by "{reply}"'
        raise ProtocolError(message, stage=Stage.CONTENT, reply=reply)
    return reply


def _accepted(reply: Reply) -> Reply:
    if reply.code != 250:  # noqa: PLR2004 -- RFC 5321 §4.3.2
        raise _error(DataRefusedError, Stage.CONTENT, reply)
    return reply


def _unknown(error: SecureSMTPError) -> OutcomeUnknownError:
    message = f"the content was ended, and then: {error.args[0]}. The message may have been delivered"
    hint = "ask the server's log for the Message-ID before you send it again"
    return OutcomeUnknownError(message, stage=Stage.CONTENT, outcome=Outcome.UNKNOWN, hint=hint)


def _ask(command: Line, stage: Stage, ok: tuple[int, ...], limit: Limit = "command") -> Dialogue[Reply]:
    yield Send(command, stage)
    return (yield from _hear(stage, ok, limit))


def _hear(stage: Stage, ok: tuple[int, ...], limit: Limit = "command") -> Dialogue[Reply]:
    """Return the reply if it is *ok* or a refusal; whatever else comes is out of step (RPL-06)."""
    reply = cast("RawReply", (yield Receive(stage, limit))).reply()
    if reply.code in ok:
        return reply
    # RFC 4954 §6; for one recipient, 530 is a refusal of that recipient.
    if reply.code in {530, 535, 538} and stage is Stage.MAIL:
        message = f'the server wants a login: "{reply}"'
        raise AuthenticationError(message, stage=stage, reply=reply, hint="pass username and password")
    # RFC 5321 §3.8: after 421 the server is gone. RSET is never refused by a server that is in step.
    if reply.code == 421 or (reply.code >= 400 and stage is Stage.RSET):  # noqa: PLR2004
        raise closing(reply, stage)
    if reply.code < 400:  # noqa: PLR2004
        message = f'{stage.upper()} is answered by "{reply}"'
        raise ProtocolError(message, stage=stage, reply=reply)
    return reply


def closing(reply: Reply, stage: Stage) -> ConnectError:
    """Return the error for a server that ends the session."""
    message = f'the server closes the session: "{reply}"'
    return ConnectError(message, stage=stage, reply=reply, retryable=_temporary(reply))


def in_step(refusal: RefusedError) -> bool:
    """Return whether the session can go on after *refusal*: RSET went well, and it is not 421 (RFC 5321 §3.8)."""
    return refusal.__cause__ is None and refusal.reply is not None and refusal.reply.code != 421  # noqa: PLR2004


def refuse_early(raw: RawReply) -> SecureSMTPError:
    """Return the error for a reply that came while the content was being written: it was not ended, so not accepted."""
    reply = raw.reply()
    if reply.code >= 400:  # noqa: PLR2004
        return _error(DataRefusedError, Stage.CONTENT, reply)
    message = f'"{reply}" came before the content was ended'
    return ProtocolError(message, stage=Stage.CONTENT, reply=reply)


E = TypeVar("E", bound=RefusedError)


def _error(kind: type[E], stage: Stage, reply: Reply, what: str = "refused") -> E:
    message = f'{what}: "{reply}"'
    return kind(message, stage=stage, outcome=Outcome.REFUSED, reply=reply, retryable=_temporary(reply))


def _start(mechanism: Mechanism) -> Line:
    name, response = mechanism.name.encode("ascii"), _encoded(mechanism.start())
    if response is None:
        return line(b"AUTH", name)
    # RFC 4954 §4: an empty initial response is written as "=".
    return line(b"AUTH", name, response.data[:-2] or b"=", secret=True, limit=MAX_AUTH)


def _response(mechanism: Mechanism, challenge: bytes) -> Line | str:
    # The fault is returned, not raised: the frame of a traceback would keep the challenge, which may echo a password.
    try:
        answer = _encoded(mechanism.respond(base64.b64decode(challenge, validate=True)))
    except binascii.Error:
        return "the server's challenge is not base64"
    return answer or f"the server asks for more than {mechanism.name} has to say"


def _encoded(octets: bytes | None) -> Line | None:
    return None if octets is None else line(base64.b64encode(octets), secret=True, limit=MAX_AUTH)


def _shown(raw: RawReply, tls: TLSInfo | None) -> Reply:
    return raw.reply() if tls else raw.reply(_PLAIN_TEXT)


def _doubt(tls: TLSInfo | None) -> str:
    return "" if tls else " (said in the clear, by nobody knows whom)"


def _temporary(reply: Reply) -> bool:
    return 400 <= reply.code < 500  # noqa: PLR2004 -- RFC 5321 §4.2.1
