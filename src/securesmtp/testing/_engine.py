"""
One connection of a test server: aiosmtpd's, and what aiosmtpd does not have: BDAT, logins by OAuth 2, and the faults.

aiosmtpd reads one command after the other, so PIPELINING (RFC 2920) only has to be offered. It is one class, so
the file has a few lines more than 300.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from aiosmtpd import smtp
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, syntax

from securesmtp.testing._received import Received, read_parameters
from securesmtp.testing._rules import BUSY, EXTENSIONS, Rules

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

# How much of the content is read before "drops_in_content" cuts the connection.
_FIRST_PART = 1024
# RFC 4954 §4: a token makes a long AUTH line. aiosmtpd allows 512 characters, and keeps the limit in the class.
_MAX_COMMAND = 12288
# What aiosmtpd does not know of DSN and `EXTENSIONS`.
_PARAMETERS = frozenset({"RET", "ENVID", "NOTIFY", "ORCPT", "REQUIRETLS", "BY", "MT-PRIORITY", "HOLDFOR", "HOLDUNTIL"})
# Bytes of a message, as SIZE says.
_MAX_SIZE = 1 << 25


@dataclass(slots=True, kw_only=True)
class ServerRules(Rules):
    """
    What a server on the network does besides.

    Attributes:
        login: The username and the password (or token) that are required; None if none are.
        takes_any_login: Whether it offers logins all the same, and accepts each.
        delay: Seconds before each reply of a slow server.
        expired_token: The token that "oauth_expired" has refused.
        connections: The open connections.
    """

    login: tuple[str, str] | None
    takes_any_login: bool
    delay: float
    expired_token: str | None = None
    connections: set[Engine] = field(default_factory=set)


def cut(transport: asyncio.WriteTransport) -> None:
    """Close *transport* at once."""
    # Python 3.11.2 fails if it is closed already (`AttributeError`); later ones do nothing.
    with suppress(AttributeError):
        transport.abort()


class Engine(SMTP):
    """
    One connection.

    It is its own handler: the methods ``handle_…`` are aiosmtpd's hooks.
    """

    def __init__(self, rules: ServerRules, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext | None) -> None:
        """Offer STARTTLS, and require it, if there is a *context*; otherwise the connection has TLS already."""
        self.command_size_limits = defaultdict(lambda: _MAX_COMMAND)
        # How much is read for one line; that of a message is limited by the class's 1001.
        self.line_length_limit = _MAX_COMMAND
        self._rules, self._chunks = rules, bytearray()
        # Whether a recipient was refused: most clients send no content then, and leave the transaction open.
        self._is_refused = False
        # The parameters of the last MAIL or RCPT, of this transaction's MAIL, and of each of its recipients.
        self._parameters: dict[str, str] = {}
        self._mail_parameters: dict[str, str] = {}
        self._recipients: dict[str, dict[str, str]] = {}
        super().__init__(
            self,
            data_size_limit=_MAX_SIZE,
            enable_SMTPUTF8=True,
            hostname="mail.test",
            ident="securesmtp.testing",
            tls_context=context,
            require_starttls=context is not None,
            # With implicit TLS, the login is inside TLS as well.
            auth_require_tls=context is not None,
            authenticator=self._check_login,
            loop=loop,
        )
        del self.line_length_limit

    @property
    def is_receiving(self) -> bool:
        """Whether a message may be on its way: a transaction is open, without a recipient that was refused."""
        return self._open_envelope.mail_from is not None and not self._is_refused

    @property
    def _open_envelope(self) -> Envelope:
        # It is there from the first moment of the connection.
        return cast("Envelope", self.envelope)

    def abort(self) -> None:
        """Cut the connection, which is open."""
        cut(cast("asyncio.WriteTransport", self.transport))

    # What aiosmtpd calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; also after STARTTLS."""
        self._rules.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self._rules.connections.discard(self)
        super().connection_lost(error)

    def _set_post_data_state(self) -> None:
        self._chunks.clear()
        super()._set_post_data_state()  # type: ignore[no-untyped-call] # aiosmtpd leaves it untyped

    async def _handle_client(self) -> None:
        match self._rules.fault:
            case "silent":
                await self._wait_for_the_end()
            case "too_busy":
                await self.push(BUSY)
                self._writer.close()
            case _:
                await super()._handle_client()

    async def push(self, status: str | bytes) -> None:
        """Write one line of a reply."""
        if self._rules.fault == "slow" and status[3:4] not in {"-", b"-"}:
            await asyncio.sleep(self._rules.delay)
        await super().push(str(status, "ascii") if isinstance(status, bytes) else status)

    async def handle_exception(self, error: Exception) -> str:
        """Say what went wrong: a handshake that failed, or an error of aiosmtpd's."""
        return f"451 4.3.0 {type(error).__name__}"

    async def handle_EHLO(  # noqa: N802 -- aiosmtpd's hooks are named and called so
        self, _server: SMTP, session: smtp.Session, _envelope: Envelope, hostname: str, lines: list[str]
    ) -> list[str]:
        """Return what the server offers."""
        session.host_name = hostname
        rules, offered = self._rules, ["250-PIPELINING", "250-CHUNKING", "250-DSN"]
        left_out = set[str]() if rules.login or rules.takes_any_login else {"AUTH"}
        if rules.fault == "starttls_stripped":
            # An attacker who wants the password offers a login instead.
            left_out.add("STARTTLS")
            offered.append("250-AUTH PLAIN LOGIN")
        # RFC 8689 §2: REQUIRETLS is offered inside TLS alone.
        is_encrypted = self._writer.get_extra_info("ssl_object") is not None
        offered += [f"250-{each}" for each in EXTENSIONS if is_encrypted or each != "REQUIRETLS"]
        kept = [each for each in lines[1:] if each[4:].partition(" ")[0] not in left_out]
        return [lines[0], *offered, *kept]

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, session: smtp.Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Reply to MAIL."""
        if self._rules.login is not None and not session.authenticated:
            return "530 5.7.0 Authentication required"
        reply = self._rules.reply_to_mail()
        if reply.startswith("250"):
            envelope.mail_from, envelope.mail_options, self._is_refused = address, options, False
            self._mail_parameters, self._recipients = self._parameters, {}
        return reply

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: smtp.Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Reply to RCPT."""
        reply = self._rules.reply_to_recipient(str(envelope.mail_from), address)
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
            self._recipients[address] = self._parameters
        else:
            self._is_refused = True
        return reply

    async def handle_DATA(  # noqa: N802
        self, _server: SMTP, session: smtp.Session, envelope: Envelope
    ) -> str:
        """Reply to the content."""
        # aiosmtpd gives the null reverse-path as "<>"; `Receipt.mail_from` is empty for it.
        mail_from = str(envelope.mail_from).removeprefix("<>")
        tls, content = self._writer.get_extra_info("ssl_object"), envelope.original_content or b""
        about = f"{tls.version()} {tls.cipher()[0]}"
        try:
            recipients, asked = tuple(envelope.rcpt_tos), (self._mail_parameters, self._recipients)
            number = self._rules.accept(Received(mail_from, recipients, content, session.auth_data, about, *asked))
        except Exception as error:  # noqa: BLE001 -- the server keeps it, and raises it where the test ends
            return f"451 4.3.0 the message was not kept: {type(error).__name__}"
        if self._rules.fault == "drops_after_content":
            self.abort()
            await self._wait_for_the_end()
        return f"250 2.0.0 queued as {number}"

    # What aiosmtpd does not have

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        found = super()._getaddr(arg)
        # aiosmtpd passes them on in upper case, which an ENVID does not survive.
        self._parameters = read_parameters(found[1] or "")
        return found

    def _getparams(self, params: Sequence[str]) -> dict[str, str | bool] | None:
        known = (each.partition("=")[0] in _PARAMETERS or each == "BODY=BINARYMIME" for each in params)
        return super()._getparams([each for each, is_known in zip(params, known, strict=True) if not is_known])

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """Read the content up to its final dot."""
        self._is_refused = self._is_refused and not self._open_envelope.rcpt_tos
        if self._chunks or self._mail_parameters.get("BODY", "").upper() == "BINARYMIME":
            await self.push("503 5.5.1 Use BDAT")
        elif self._rules.fault == "drops_in_content" and self._open_envelope.rcpt_tos:
            await self.push("354 Go on")
            await self._reader.read(_FIRST_PART)
            self.abort()
        else:
            await super().smtp_DATA(arg)

    @syntax("BDAT <size> [LAST]")
    async def smtp_BDAT(self, arg: str | None) -> None:  # noqa: N802
        """Read one chunk of the content (RFC 3030)."""
        self._is_refused = self._is_refused and not self._open_envelope.rcpt_tos
        size, _, last = (arg or "").upper().partition(" ")
        if not (size.isascii() and size.isdigit() and last in {"", "LAST"}):
            await self.push("501 5.5.4 Syntax: BDAT <size> [LAST]")
            # What follows is content of unknown length.
            self._writer.close()
            return
        if self._rules.fault == "drops_in_content":
            await self._reader.read(min(int(size), _FIRST_PART))
            self.abort()
            return
        await self._keep(int(size))
        if not self._open_envelope.rcpt_tos:
            status = "503 5.5.1 RCPT is missing"
        elif len(self._chunks) > _MAX_SIZE:
            status = "552 5.3.4 The message is too large"
            self._set_post_data_state()
        elif last:
            self._open_envelope.content = self._open_envelope.original_content = bytes(self._chunks)
            status = await self.handle_DATA(self, cast("smtp.Session", self.session), self._open_envelope)
            self._set_post_data_state()
        else:
            status = f"250 2.0.0 {size} bytes"
        await self.push(status)

    async def _keep(self, size: int) -> None:
        """Read one chunk; keep it only as long as the message is wanted and not too large."""
        while size:
            part = await self._reader.readexactly(min(size, 1 << 16))
            size -= len(part)
            if self._open_envelope.rcpt_tos and len(self._chunks) <= _MAX_SIZE:
                self._chunks += part

    async def auth_XOAUTH2(self, _server: SMTP, arguments: list[str]) -> AuthResult:  # noqa: N802
        """Log in by a token: ``user=…^Aauth=Bearer …^A^A``."""
        return await self._token_login(arguments, b'{"status":"401"}')

    async def auth_OAUTHBEARER(self, _server: SMTP, arguments: list[str]) -> AuthResult:  # noqa: N802
        """Log in by a token (RFC 7628): ``n,a=…,^A…auth=Bearer …^A^A``."""
        return await self._token_login(arguments, b'{"status":"invalid_token"}')

    async def _token_login(self, arguments: list[str], refusal: bytes) -> AuthResult:
        if len(arguments) > 1:
            try:
                data = base64.b64decode(arguments[1], validate=True)
            except binascii.Error:
                return AuthResult(success=False, handled=False, message="501 5.5.2 The token is not base64")
        else:
            # A long token comes in a line of its own.
            response = await self.challenge_auth("")
            if not isinstance(response, bytes):
                return AuthResult(success=False, handled=True)
            data = response
        fields = data.decode(errors="replace").split("\x01")
        found = {name: value for name, _, value in (each.partition("=") for each in fields[:-2])}
        user = found.get("user") or fields[0].removeprefix("n,a=").rstrip(",")
        token = found.get("auth", "").removeprefix("Bearer ")
        success = self._accepts(user, token, is_token=True)
        # The client answers the error, before it gets the 535.
        if not success and await self.challenge_auth(refusal) is smtp.MISSING:
            return AuthResult(success=False, handled=True)
        return AuthResult(success=success, handled=False, auth_data=user)

    def _check_login(
        self, _server: SMTP, _session: smtp.Session, _envelope: Envelope, _mechanism: str, login: LoginPassword
    ) -> AuthResult:
        user, password = (each.decode(errors="replace") for each in login)
        # Not handled: then aiosmtpd sends the 535 reply.
        return AuthResult(success=self._accepts(user, password), handled=False, auth_data=user)

    def _accepts(self, user: str, secret: str, *, is_token: bool = False) -> bool:
        rules = self._rules
        if rules.login is None:
            return rules.takes_any_login
        if user != rules.login[0] or rules.fault == "bad_login":
            return False
        if rules.fault == "oauth_expired" and is_token:
            rules.expired_token = rules.expired_token or secret
            return secret != rules.expired_token
        return secret == rules.login[1]

    async def _wait_for_the_end(self) -> None:
        """Wait until the client leaves, which cancels this."""
        await self.loop.create_future()
