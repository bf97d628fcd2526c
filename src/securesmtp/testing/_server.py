"""`MailServer`: a temporary SMTP server with real TLS on loopback."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote as percent

from securesmtp._mailer import SecureMailer
from securesmtp._shown import quote
from securesmtp._values import TLSMode
from securesmtp.testing._faults import FaultName, check_fault
from securesmtp.testing._inbox import Inbox

try:
    from securesmtp.testing._certificates import Certificates
    from securesmtp.testing._engine import Engine, ServerRules
    from securesmtp.testing._listener import Listener
except ModuleNotFoundError as _error:
    if str(_error.name).partition(".")[0] not in {"aiosmtpd", "trustme"}:
        raise
    _MISSING = f"{_error.name} is missing: install securesmtp with its extra 'testing'"
    raise ModuleNotFoundError(_MISSING, name=_error.name) from _error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection
    from types import TracebackType

    from securesmtp._async_mailer import AsyncSecureMailer
    from securesmtp.testing._listener import Connected
    from securesmtp.testing._received import Received


class MailServer(Inbox):
    """
    An SMTP server with real TLS on a free port of 127.0.0.1; a new CA signs its certificate.

    Use it in a ``with`` block. It offers PIPELINING, CHUNKING, 8BITMIME, SMTPUTF8, SIZE, DSN, BINARYMIME, DELIVERBY,
    MT-PRIORITY and FUTURERELEASE, and inside TLS also REQUIRETLS: a message has what it asks for in
    `Received.mail_parameters` and `Received.recipient_parameters`, and nothing is done about it.

    Args:
        mode: ``"implicit"`` or ``"starttls"``. By default implicit, except for the fault ``starttls_stripped``.
        login: The username and the password that clients must log in with: by PLAIN or LOGIN, or by XOAUTH2 or
            OAUTHBEARER with the password as token. By default, "me" and a random password. ``"any"`` accepts every
            login and requires none; None offers none.
        refuse: Recipients to refuse with a 550 reply.
        fault: The name of a fault that it plays: one of `FAULTS`.
        delay: Seconds before each reply, for the fault ``slow``.
        port: The port to listen on; 0 for a free one.
        on_message: Called with each message before the server confirms it, in the server's thread. If it raises, the
            client gets a 451 reply, and the end of the ``with`` block raises it.

    Raises:
        ValueError: *mode* or *fault* is something else, or the fault needs another mode or a login.

    Attributes:
        host: ``"127.0.0.1"``; the certificate is for it, and for ``localhost``.
        port: The port; with 0 given, known inside the ``with`` block.
        mode: As given.
        login: The username and the password; None if no login is required.
        ca_pem: The certificate of its CA in PEM form, for `TLSPolicy.ca_data`.
        ca_file: A file with the same, inside the ``with`` block.
    """

    host: str = "127.0.0.1"
    port: int
    ca_file: Path

    def __init__(  # noqa: PLR0913 -- keyword-only, with defaults
        self,
        mode: TLSMode | Literal["implicit", "starttls"] | None = None,
        *,
        login: tuple[str, str] | Literal["new", "any"] | None = "new",
        refuse: Collection[str] = (),
        fault: FaultName | None = None,
        delay: float = 1.0,
        port: int = 0,
        on_message: Callable[[Received], object] | None = None,
    ) -> None:
        """Make the CA; the server does not listen yet."""
        super().__init__()
        if mode is None:
            mode = TLSMode.STARTTLS if fault == "starttls_stripped" else TLSMode.IMPLICIT
        if mode not in tuple(TLSMode):
            message = f'mode is {quote(mode)}, neither "implicit" nor "starttls"'
            raise ValueError(message)
        self.mode: TLSMode = TLSMode(mode)
        self.port = port
        self.login: tuple[str, str] | None = (
            ("me", token_urlsafe()) if login == "new" else None if login == "any" else login
        )
        self._check(fault)
        self._certificates = Certificates()
        self.ca_pem: str = self._certificates.ca_pem
        self._rules = ServerRules(
            self._accept,
            frozenset(refuse),
            fault,
            login=self.login,
            takes_any_login=login == "any",
            delay=delay,
        )
        self._on_message, self._failures = on_message, list[Exception]()
        self._stack = ExitStack()
        self._listener: Listener | None = None

    def __enter__(self) -> Self:
        """Start to listen, and set *port* and *ca_file*."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            self.ca_file = Path(folder, "ca.pem")
            self.ca_file.write_text(self.ca_pem, "ascii")
            self._listener = listener = Listener(self._connect, self.port)
            stack.callback(listener.stop)
            self.port = listener.port
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server and its thread, and close the mailers that it has made."""
        self._stack.close()
        self._listener = None
        if kind is None and self._failures:
            raise self._failures[0]

    @property
    def fault(self) -> FaultName | None:
        """
        The name of the fault that it plays; None for none.

        Set it while the server runs, and it plays this fault from then on. Idle connections are closed.
        """
        return self._rules.fault

    @fault.setter
    def fault(self, name: FaultName | None) -> None:
        self._check(name)
        self._rules.fault = name
        if self._listener is not None:
            self._listener.call(self._close_idle())

    @property
    def url(self) -> str:
        """Where it is, with login and CA, for `SecureMailer.from_url`."""
        scheme = "smtps" if self.mode is TLSMode.IMPLICIT else "smtp+starttls"
        user = "" if self.login is None else ":".join(percent(each, safe="") for each in self.login) + "@"
        return f"{scheme}://{user}{self.host}:{self.port}?ca_file={percent(str(self.ca_file))}"

    def env(self, prefix: str = "SMTP_") -> dict[str, str]:
        """
        Return the environment variables for `SecureMailer.from_env`.

        They are for a child process (``env=os.environ | server.env()``), or for pytest's ``monkeypatch.setenv``.
        """
        values = {"HOST": self.host, "PORT": str(self.port), "TLS": str(self.mode), "CA_FILE": str(self.ca_file)}
        if self.login is not None:
            values["USERNAME"], values["PASSWORD"] = self.login
        return {prefix + name: value for name, value in values.items()}

    def options(self, **options: Any) -> dict[str, Any]:  # noqa: ANN401 -- as the mailers' own
        """
        Return the arguments of a mailer for this server after host and port: mode, CA and login.

        Args:
            options: Further arguments; they replace those of the server.
        """
        mine: dict[str, Any] = {"tls": self.mode}
        if "policy" not in options:
            mine["ca_file"] = self.ca_file
        if self.login is not None and "auth" not in options:
            mine["username"], mine["password"] = self.login
        return mine | options

    def mailer(self, **options: Any) -> SecureMailer:  # noqa: ANN401 -- as the mailer's own
        """Return a mailer with `options`; the end of the ``with`` block closes it."""
        mailer = SecureMailer(self.host, self.port, **self.options(**options))
        self._stack.callback(mailer.close)
        return mailer

    def async_mailer(self, **options: Any) -> AsyncSecureMailer:  # noqa: ANN401 -- as the mailer's own
        """Return an asynchronous mailer with `options`; close it in your event loop."""
        # Needs an extra.
        from securesmtp._async_mailer import AsyncSecureMailer

        return AsyncSecureMailer(self.host, self.port, **self.options(**options))

    def clear(self) -> None:
        """Forget the messages, and what the fault has refused once."""
        super().clear()
        self._rules.greylisted.clear()
        self._rules.expired_token = None

    def _check(self, fault: FaultName | None) -> None:
        check_fault(fault)
        if fault == "starttls_stripped" and self.mode is TLSMode.IMPLICIT:
            message = 'the fault starttls_stripped needs mode="starttls"'
            raise ValueError(message)
        if fault in {"bad_login", "oauth_expired"} and self.login is None:
            message = f"the fault {fault} needs a login"
            raise ValueError(message)

    def _connect(self, loop: asyncio.AbstractEventLoop) -> Connected:
        context = self._certificates.context(self._rules.fault)
        is_implicit = self.mode is TLSMode.IMPLICIT
        return Engine(self._rules, loop, None if is_implicit else context), context if is_implicit else None

    def _accept(self, message: Received) -> int:
        try:
            if self._on_message is not None:
                self._on_message(message)
        except Exception as error:
            self._failures.append(error)
            raise
        return self._add(message)

    def _is_receiving(self) -> bool:
        return any(each.is_receiving for each in tuple(self._rules.connections))

    async def _close_idle(self) -> None:
        for each in tuple(self._rules.connections):
            if not each.is_receiving:
                each.abort()
