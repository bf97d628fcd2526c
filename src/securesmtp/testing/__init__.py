"""A throw-away TLS SMTP server on loopback, for demonstrations and tests (extra ``testing``: aiosmtpd, trustme)."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from securesmtp._shown import quote
from securesmtp._values import TLSMode

try:
    import trustme
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
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
    One message as the server took it.

    Attributes:
        mail_from: The reverse-path; empty for the null one.
        recipients: The forward-paths that were accepted, in their order.
        content: Its octets, dot-stuffing undone; each line ends in CRLF.
    """

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes


class LocalServer:
    """
    A real SMTP server with real TLS on a free loopback port, with a certificate for ``localhost`` of a fresh CA.

    It accepts, or refuses for good: it gives no 4xx, cuts no connection, is never slow, and offers neither PIPELINING
    nor CHUNKING.

    Args:
        mode: ``"implicit"`` or ``"starttls"``.
        username: The name that must log in; nobody needs to when it is None.
        password: Its password.
        refuse: The recipients that are refused with a 550.

    Raises:
        ValueError: *mode* is neither.

    Attributes:
        host: ``"localhost"``.
        port: Where it listens, once it was entered by ``with``.
        ca_pem: The CA that signed its certificate, as PEM text for `TLSPolicy.ca_data`.
        messages: What it accepted, in order.
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
        """Make the CA and the certificate; nothing listens yet."""
        if mode not in tuple(TLSMode):
            message = f'mode is {quote(mode)}, neither "implicit" nor "starttls"'
            raise ValueError(message)
        # aiosmtpd tells of each refused handshake with a traceback; whoever configures logging still gets it.
        logging.getLogger("mail.log").addHandler(logging.NullHandler())
        authority = trustme.CA()
        self.ca_pem: str = authority.cert_pem.bytes().decode("ascii")
        self.messages: list[Received] = []
        self.port: int = 0
        self._login = (username, password)
        self._refuse = frozenset(refuse)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        options: dict[str, Any] = {"authenticator": self._check}
        if TLSMode(mode) is TLSMode.IMPLICIT:
            # aiosmtpd knows of STARTTLS only; a login inside implicit TLS is inside TLS as well.
            options |= {"ssl_context": context, "auth_require_tls": False}
        else:
            options |= {"tls_context": context, "require_starttls": True}
        self._controller = _Controller(self, hostname="127.0.0.1", port=0, **options)

    def __enter__(self) -> Self:
        """Listen."""
        self._controller.start()
        self.port = self._controller.port
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the server and its thread."""
        self._controller.stop(no_assert=True)

    async def handle_MAIL(  # noqa: N802 -- aiosmtpd's hook
        self,
        server: SMTP,  # noqa: ARG002
        session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        """Let in who may send."""
        if self._login[0] is not None and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from, envelope.mail_options = address, options
        return "250 OK"

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd's hook
        self,
        server: SMTP,  # noqa: ARG002
        session: Session,  # noqa: ARG002
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        """Take the recipient, or refuse it."""
        if address in self._refuse:
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802 -- as above
        """Keep the message."""
        content = cast("bytes", envelope.content)
        # The null reverse-path, which aiosmtpd shows with its brackets, is empty as in a receipt.
        mail_from = str(envelope.mail_from).removeprefix("<>")
        self.messages.append(Received(mail_from, tuple(envelope.rcpt_tos), content))
        return f"250 2.0.0 queued as {len(self.messages)}"

    def _check(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:  # noqa: ANN401, ARG002
        username, password = self._login
        right = username is not None and (data.login, data.password) == (username.encode(), password.encode())
        # Not "handled": then aiosmtpd answers with the 535.
        return AuthResult(success=right, handled=False)


class _Controller(Controller):
    """aiosmtpd's controller on a port of the system's choice, which its own start-up check does not know of."""

    def _trigger_server(self) -> None:
        self.port = cast("asyncio.Server", self.server).sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call] # aiosmtpd leaves it untyped
