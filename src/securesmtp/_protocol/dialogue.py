"""
The dialogues of a session: connect, greet, start TLS, log in, reset, quit.

`effects.py` says how a dialogue works. The connection closes after every error but one that `keep_session` has marked:
a refusal after which every reply that is due was read.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from securesmtp._protocol.capabilities import Capabilities, parse_capabilities
from securesmtp._protocol.effects import Respond, Send, connect, fetch_password, read_binding, receive, respond, upgrade
from securesmtp._protocol.failures import refusal_error, server_closing_error
from securesmtp._protocol.hints import login_hint
from securesmtp._protocol.replies import (
    is_auth_continue,
    is_closing,
    is_login_required,
    is_positive,
    is_refusal,
    is_temporary,
)
from securesmtp._protocol.sasl import choose_mechanism, require_mechanism, secret_source, start_mechanism
from securesmtp._protocol.wire import MAX_AUTH, MAX_COMMAND, Line, RawReply, line
from securesmtp._shown import escape
from securesmtp._values import Reply, Stage, TLSInfo, TLSMode
from securesmtp.errors import (
    AuthenticationError,
    ConnectError,
    DowngradeError,
    ProtocolError,
    RefusedError,
    SecureSMTPError,
)

if TYPE_CHECKING:
    from securesmtp._protocol.effects import Dialogue, Limit
    from securesmtp._protocol.sasl import Auth, Choice, Mechanism
    from securesmtp._secret import Secret

# Characters of a challenge that an error shows: all that Google, Microsoft and Dovecot send.
_CHALLENGE_SHOWN = 300
# STLS-07: a plaintext reply may come from an attacker. This many characters are enough to recognise a server.
_PLAINTEXT_SHOWN = 200


@dataclass(slots=True)
class Session:
    """
    An open session.

    Attributes:
        tls: The TLS session.
        capabilities: What the server offers inside TLS.
        plaintext_capabilities: What it offered before STARTTLS: kept to be shown, and used for nothing (RFC 3207 §4.2).
        needs_reset: Whether the server may still have a transaction open, so that the next one starts with RSET.
        transactions: How many transactions were started.
        choice: Which mechanism the login uses, as soon as one was chosen.
        chunking_refused: How the server refused BDAT although it offers CHUNKING. From then on DATA is used.
        name: Our name in EHLO.
        can_ask_again: Whether a login came after the last EHLO, so that another EHLO may show more.
    """

    tls: TLSInfo
    capabilities: Capabilities
    plaintext_capabilities: Capabilities | None = None
    needs_reset: bool = False
    transactions: int = 0
    choice: Choice | None = None
    chunking_refused: Reply | None = None
    name: bytes = b""
    can_ask_again: bool = False

    @property
    def transactions_left(self) -> int:
        """How many more transactions the server allows: it counts each MAIL, whatever its reply (RFC 9422 §4.1)."""
        return self.capabilities.limits.get("MAILMAX", 1 << 30) - self.transactions

    @property
    def can_chunk(self) -> bool:
        """Whether the content is sent by BDAT (RFC 3030)."""
        return "CHUNKING" in self.capabilities.keywords and self.chunking_refused is None


def open_session(mode: TLSMode, name: bytes | None) -> Dialogue[Session]:
    """Connect, greet and start TLS. Without a *name*, EHLO says our address literal (RFC 5321 §4.1.4)."""
    opened = yield from connect()
    tls = opened.tls
    greeting = _to_reply(opened.greeting, tls)
    if not is_positive(Stage.GREETING, greeting.code):
        message = f'the greeting is "{greeting}"{_plaintext_note(tls)}'
        raise ConnectError(message, stage=Stage.GREETING, reply=greeting, retryable=is_temporary(greeting.code))
    capabilities, plaintext_capabilities = (yield from ehlo(name or opened.literal, tls)), None
    if mode is TLSMode.STARTTLS or tls is None:
        plaintext_capabilities = capabilities
        tls, capabilities = yield from starttls(name or opened.literal, plaintext_capabilities)
    return Session(tls, capabilities, plaintext_capabilities, name=name or opened.literal)


def ehlo(name: bytes, tls: TLSInfo | None) -> Dialogue[Capabilities]:
    """Ask for the server's capabilities. There is no fallback to HELO, because HELO offers none."""
    yield Send(line(b"EHLO", name), Stage.EHLO)
    raw = yield from receive(Stage.EHLO)
    if is_positive(Stage.EHLO, raw.code):
        return parse_capabilities(raw.lines)
    reply = _to_reply(raw, tls)
    if tls is None:
        message = f'the server replied "{reply}" to EHLO{_plaintext_note(tls)}: without EHLO there is no STARTTLS'
        raise DowngradeError(
            message, stage=Stage.EHLO, reply=reply, retryable=is_temporary(reply.code), hint=_ehlo_hint(name, reply)
        )
    if not is_refusal(reply.code):
        message = f'the server replied "{reply}" to EHLO'
        raise ProtocolError(message, stage=Stage.EHLO, reply=reply)
    error = refusal_error(RefusedError, Stage.EHLO, reply, "the server refused EHLO")
    error.hint = _ehlo_hint(name, reply)
    raise error


def _ehlo_hint(name: bytes, reply: Reply) -> str | None:
    if reply.code in {500, 502}:  # RFC 5321 §4.2.4: the command is unknown, whatever the name
        return None
    # RFC 5321 §4.1.4 allows an address literal, but some servers refuse one.
    return f'the server may not accept the name "{name.decode()}" in EHLO: pass local_hostname="app.example.com"'


def starttls(name: bytes, capabilities: Capabilities) -> Dialogue[tuple[TLSInfo, Capabilities]]:
    """Start TLS or fail: nothing that happens here leads to a message in plaintext (RFC 3207)."""
    if "STARTTLS" not in capabilities:
        message = "the server does not offer STARTTLS"
        hint = 'an attacker may have removed it; if the server has implicit TLS (port 465), use tls="implicit"'
        raise DowngradeError(message, stage=Stage.STARTTLS, hint=hint)
    yield Send(line(b"STARTTLS"), Stage.STARTTLS)
    reply = _to_reply((yield from receive(Stage.STARTTLS)), None)
    if not is_positive(Stage.STARTTLS, reply.code):
        message = f'the server replied "{reply}" to STARTTLS{_plaintext_note(None)}'
        raise DowngradeError(message, stage=Stage.STARTTLS, reply=reply, retryable=is_temporary(reply.code))
    tls = yield from upgrade()
    # RFC 3207 §4.2: forget the plaintext capabilities and ask again.
    return tls, (yield from ehlo(name, tls))


def pick_mechanism(session: Session, login: Auth) -> Dialogue[Choice]:
    """Choose the mechanism for *login*, and note the choice in *session*."""
    session.choice = choose_mechanism(login, session.capabilities.auth, (yield from read_binding()))
    return session.choice


def authenticate(session: Session, login: Auth) -> Dialogue[str]:
    """Log in once, with one mechanism, and return its name. A refusal is final (AUTH-02)."""
    name, source = (yield from usable_mechanism(session, login)), secret_source(login)
    secret = None if source is None else (yield from fetch_password(source))
    yield from exchange(begin_login(session, login, name, secret))
    return name


def usable_mechanism(session: Session, login: Auth) -> Dialogue[str]:
    """
    Return the name of the mechanism for *login*; call this before its secret is fetched.

    Raises:
        NoUsableMechanismError: There is none.
    """
    evidence: object = session.tls
    if evidence is None:  # checked although its type promises it: the password is used next
        message = "a login needs TLS"
        raise AuthenticationError(message, stage=Stage.AUTH)
    choice = yield from pick_mechanism(session, login)
    return require_mechanism(choice, login, session.capabilities.auth)


def begin_login(session: Session, login: Auth, name: str, secret: Secret | None) -> Mechanism:
    """Return a new exchange of the mechanism *name*, which was chosen for *session*."""
    binding = None if session.choice is None else session.choice.binding
    return start_mechanism(name, login, secret, binding, session.capabilities.auth)


def exchange(mechanism: Mechanism) -> Dialogue[None]:
    """
    Log in by one exchange of *mechanism*.

    Raises:
        AuthenticationError: The server refused the login.
    """
    command, response = _auth_command(mechanism)
    yield Send(command, Stage.AUTH)
    decoded = b""
    while is_auth_continue((raw := (yield from receive(Stage.AUTH))).code):
        yield Send(response or (yield from _answer(mechanism, raw)), Stage.AUTH)
        response, decoded = None, raw.decoded
    if is_positive(Stage.AUTH, raw.code):
        mechanism.finish()
        return
    reply = raw.reply()
    if not is_refusal(reply.code):
        message = f'the server replied "{reply}" to AUTH, not 235'
        raise ProtocolError(message, stage=Stage.AUTH, reply=reply)
    message = f'the server refused the login: "{reply}"'
    if mechanism.has_failed and decoded:
        message += f" ({escape(b' '.join(decoded.split()), _CHALLENGE_SHOWN)})"
    hint = login_hint(mechanism, reply)
    raise AuthenticationError(message, stage=Stage.AUTH, reply=reply, retryable=is_temporary(reply.code), hint=hint)


def reset() -> Dialogue[None]:
    """Abort the open transaction (RFC 5321 §4.1.1.5)."""
    yield from send_command(line(b"RSET"), Stage.RSET)


def quit_session() -> Dialogue[None]:
    """Send QUIT, and do not wait for a reply: it would change nothing."""
    yield Send(line(b"QUIT"), Stage.QUIT)


def send_command(command: Line, stage: Stage, limit: Limit = "command") -> Dialogue[Reply]:
    """Send one command and return its reply, checked by `expect_reply`."""
    yield Send(command, stage)
    return (yield from expect_reply(stage, limit))


def expect_reply(stage: Stage, limit: Limit = "command") -> Dialogue[Reply]:
    """Return the next reply, checked by `check_reply`."""
    return check_reply((yield from receive(stage, limit)), stage)


def check_reply(raw: RawReply, stage: Stage) -> Reply:
    """Return *raw* if it is positive or a refusal. Any other reply is a `ProtocolError` (RPL-06)."""
    reply = raw.reply()
    if is_positive(stage, reply.code):
        return reply
    if is_login_required(stage, reply.code):
        message = f'the server requires a login: "{reply}"'
        raise AuthenticationError(message, stage=stage, reply=reply, hint="pass username and password")
    # RFC 5321 §3.8: the server is gone after 421. §4.1.1.5: RSET cannot be refused, so this reply is not to RSET.
    if is_closing(reply.code) or (is_refusal(reply.code) and stage is Stage.RSET):
        raise server_closing_error(reply, stage)
    if not is_refusal(reply.code):
        message = f'the server replied "{reply}" to {stage.upper()}'
        raise ProtocolError(message, stage=stage, reply=reply)
    return reply


def _auth_command(mechanism: Mechanism) -> tuple[Line, Line | None]:
    """Return AUTH, and separately the initial response if AUTH has no room for it (RFC 4954 §4)."""
    name, response = mechanism.name.encode("ascii"), _encode_response(mechanism, mechanism.start())
    alone = line(b"AUTH", name, known=mechanism.secrets)
    if response is None or len(alone.data) + len(response.data) - 1 > MAX_COMMAND:
        return alone, response
    # RFC 4954 §4: an empty initial response is written as "=".
    return line(b"AUTH", name, response.data[:-2] or b"=", secrets=response.secrets, known=response.known), None


def _answer(mechanism: Mechanism, raw: RawReply) -> Dialogue[Line]:
    """Return the response to the challenge *raw*; after any error, nothing more is written (AUTH-04)."""
    try:
        answer = yield from respond(Respond(mechanism, _decode_challenge(raw.challenge)))
        response = _encode_response(mechanism, answer.data)
    except SecureSMTPError as error:
        error.reply = raw.reply()
        raise
    if response is None:
        message = f"the server asks for more than {mechanism.name} can answer"
        raise ProtocolError(message, stage=Stage.AUTH)
    return response


def _encode_response(mechanism: Mechanism, response: bytes | None) -> Line | None:
    if response is None:
        return None
    known = tuple(filter(None, mechanism.secrets))
    secrets = known if any(secret in response for secret in known) else ()
    return line(base64.b64encode(response), secrets=secrets, known=known, limit=MAX_AUTH)


def _decode_challenge(challenge: bytes) -> bytes | None:
    try:
        return base64.b64decode(challenge, validate=True)
    except binascii.Error:
        return None


def _to_reply(raw: RawReply, tls: TLSInfo | None) -> Reply:
    return raw.reply() if tls else raw.reply(_PLAINTEXT_SHOWN)


def _plaintext_note(tls: TLSInfo | None) -> str:
    return "" if tls else " (in plaintext, so anyone may have sent it)"
