"""A temporary SMTP server with real TLS on loopback, for tests and demonstrations (extra ``testing``)."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from securesmtp._shown import quote
from securesmtp._values import TLSMode

try:
    import trustme
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(f"{_error.name} is missing: install securesmtp with its extra 'testing'") from _error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection
    from types import TracebackType

__all__ = ["LocalServer", "Received"]


@dataclass(frozen=True, slots=True)
class Received:
    """
    One message as `LocalServer` received it.

    Attributes:
        mail_from: The envelope's sender (reverse-path); empty for the null one.
        recipients: The recipients that were accepted, in the envelope's order.
        content: The message's bytes without dot-stuffing; each line ends in CRLF.
    """

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes


class LocalServer:
    """
    An SMTP server with real TLS on a free loopback port; a new CA signs its certificate for ``localhost``.

    Use it in a ``with`` block. It accepts a message, or refuses it permanently: it never replies 4xx, never closes a
    connection early, is never slow, and offers neither PIPELINING nor CHUNKING.

    Args:
        mode: ``"implicit"`` or ``"starttls"``.
        username: The user who must log in; None if no login is required.
        password: The user's password.
        refuse: Recipients to refuse with a 550 reply.

    Raises:
        ValueError: *mode* is something else.

    Attributes:
        host: ``"localhost"``.
        port: The port that the server listens on; 0 before the ``with`` block.
        ca_pem: The certificate of its CA in PEM form, for `TLSPolicy.ca_data`.
        messages: The messages that it accepted, in order.
    """

    host: str = "localhost"

    def __init__(
        self,
        mode: TLSMode | Literal["implicit", "starttls"] = "implicit",
        *,
        username: str | None = None,
        password: str = "",
        refuse: Collection[str] = (),
    ) -> None:
        """Make the CA and the certificate; the server does not listen yet."""
        if mode not in tuple(TLSMode):
            message = f'mode is {quote(mode)}, neither "implicit" nor "starttls"'
            raise ValueError(message)
        # aiosmtpd logs a traceback for each refused handshake. It is not printed unless logging is configured.
        logging.getLogger("mail.log").addHandler(logging.NullHandler())
        authority = trustme.CA()
        self.ca_pem: str = authority.cert_pem.bytes().decode("ascii")
        self.messages: list[Received] = []
        self.port: int = 0
        self._login = (username, password)
        self._refuse = frozenset(refuse)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        options: dict[str, Any] = {"authenticator": self._check_login}
        if TLSMode(mode) is TLSMode.IMPLICIT:
            # aiosmtpd requires STARTTLS before a login; with implicit TLS the login is inside TLS as well.
            options |= {"ssl_context": context, "auth_require_tls": False}
        else:
            options |= {"tls_context": context, "require_starttls": True}
        hooks = SimpleNamespace(
            handle_MAIL=self._accept_sender, handle_RCPT=self._accept_recipient, handle_DATA=self._accept_message
        )
        self._controller = _Controller(hooks, hostname="127.0.0.1", port=0, **options)

    def __enter__(self) -> Self:
        """Start to listen, and set *port*."""
        self._controller.start()
        self.port = self._controller.port
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server and its thread."""
        self._controller.stop(no_assert=True)

    async def _accept_sender(
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._login[0] is not None and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from, envelope.mail_options = address, options
        return "250 OK"

    async def _accept_recipient(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self._refuse:
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def _accept_message(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        # aiosmtpd gives the null reverse-path as "<>"; `Receipt.mail_from` is empty for it.
        mail_from = str(envelope.mail_from).removeprefix("<>")
        self.messages.append(Received(mail_from, tuple(envelope.rcpt_tos), envelope.original_content or b""))
        return f"250 2.0.0 queued as {len(self.messages)}"

    def _check_login(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, login: LoginPassword
    ) -> AuthResult:
        username, password = self._login
        success = username is not None and (login.login, login.password) == (username.encode(), password.encode())
        # Not handled: then aiosmtpd sends the 535 reply.
        return AuthResult(success=success, handled=False)


class _Controller(Controller):
    """aiosmtpd's controller on a port that the system chooses, which aiosmtpd's own start-up check does not support."""

    def _trigger_server(self) -> None:
        self.port = cast("asyncio.Server", self.server).sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call] # aiosmtpd leaves it untyped
