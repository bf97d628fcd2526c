"""The arguments of one mailer, checked in one place."""

from __future__ import annotations

import ipaddress
from dataclasses import InitVar, dataclass, field, replace
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Literal, get_args

from securesmtp._options import Timeouts, TLSPolicy, Window, count, per_second, seconds
from securesmtp._protocol.address import ehlo_name, host_name
from securesmtp._protocol.proxy import Proxy, parse_proxy
from securesmtp._protocol.sasl import Auth, External, OAuth2, Password, PasswordFunction
from securesmtp._shown import Withheld, quote
from securesmtp._values import TLSMode
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from securesmtp._protocol.delivery import Pipelining
    from securesmtp._secret import Secret
    from securesmtp.signing import DKIM

# RFC 8314 §7.3, RFC 6409 §3.1.
PORT_IMPLICIT, PORT_STARTTLS = 465, 587
_MOST_PORT = 65535
# Counts that may be None, for as many as there are.
_WITHOUT_LIMIT = frozenset({"max_messages", "max_recipients"})
_LOGINS = ", ".join(kind.__name__ for kind in get_args(Auth))


@dataclass(frozen=True, slots=True)
class NotALogin:
    """Stands for an *auth* argument of a wrong type, which may hold a password: only the *kind* is kept."""

    kind: str


def as_login(auth: object) -> Auth | NotALogin | None:
    """Return *auth* if it is None or a login, else a `NotALogin` in its place."""
    return auth if auth is None or isinstance(auth, Auth) else NotALogin(type(auth).__name__)


# Without a repr: a traceback of its own checks shows it before it has all attributes.
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """
    The arguments of one mailer, which check themselves.

    A mailer passes its arguments unchanged, except those that may contain a secret: a traceback would show them.

    Attributes:
        host: The name that is looked up, in A-labels, or an IP address.
        port: The registered port of the mode unless given.
        mode: When TLS begins.
        server_name: The name that the certificate must have.
        login: How to log in; None for not at all.
        policy: Which servers to trust.
        timeouts: How long each step may take.
        sign: Signs the messages; None for no signature.
        ehlo_name: What EHLO says; None for our address.
        connect: Opens the connection; None to do so here.
        proxy: The proxy through which to connect.
    """

    host: str
    given_port: InitVar[int | None]
    tls: InitVar[TLSMode | Literal["implicit", "starttls"] | None]
    username: InitVar[str | None]
    password: InitVar[Secret | PasswordFunction | None]
    auth: InitVar[Auth | NotALogin | None]
    ca_file: InitVar[str | os.PathLike[str] | None]
    given_policy: InitVar[TLSPolicy | None]
    timeout: InitVar[float | Timeouts]
    local_hostname: InitVar[str | None]
    deadline: float | None
    max_connections: int
    max_messages: int | None
    max_idle: float
    max_connect_failures: int
    max_recipients: int | None
    rate: float | None
    pipelining: Pipelining
    window: Window
    source_address: tuple[str, int] | None
    connect: Callable[[str, int, float], Any] | None
    given_proxy: InitVar[Secret | None]
    sign: DKIM | None = None
    port: int = field(init=False)
    mode: TLSMode = field(init=False)
    server_name: str = field(init=False)
    login: Auth | None = field(init=False)
    policy: TLSPolicy = field(init=False)
    timeouts: Timeouts = field(init=False)
    ehlo_name: bytes | None = field(init=False)
    proxy: Proxy | None = field(init=False)

    def __post_init__(  # noqa: PLR0913, PLR0917 -- one for each `InitVar`
        self,
        given_port: int | None,
        tls: TLSMode | str | None,
        username: str | None,
        password: Secret | PasswordFunction | None,
        auth: Auth | NotALogin | None,
        ca_file: str | os.PathLike[str] | None,
        given_policy: TLSPolicy | None,
        timeout: float | Timeouts,
        local_hostname: str | None,
        given_proxy: Secret | None,
    ) -> None:
        """
        Check each argument, and find what follows from them.

        Raises:
            ConfigurationError: An argument is wrong; the message says which.
        """
        login, policy, mode = _login(username, password, auth), _policy(ca_file, given_policy), _mode(tls, given_port)
        if isinstance(login, External) and policy.client_cert is None:
            message = "External logs in with a client certificate, and there is none"
            raise ConfigurationError(message, hint="pass policy=TLSPolicy(client_cert=..., client_key=...)")
        if self.pipelining not in ("off", "message", "session"):
            message = f'pipelining is {quote(self.pipelining)}, neither "off" nor "message" nor "session"'
            raise ConfigurationError(message)
        if not _is_a(Window, self.window):
            message = f"window is a {type(self.window).__name__}, not a Window"
            raise ConfigurationError(message)
        _check_signer(self.sign)
        name, other_name = _server_name("host", self.host), policy.server_hostname
        if self.source_address is not None and not _is_source(self.source_address):
            message = f"source_address is {quote(self.source_address)}, not an address and a port"
            raise ConfigurationError(message, hint='pass ("192.0.2.1", 0), where 0 is any port')
        resolved = {
            "host": name,
            "port": _port(given_port, mode),
            "mode": mode,
            "server_name": name if other_name is None else _server_name("server_hostname", other_name),
            "login": login,
            "policy": policy,
            "timeouts": timeout if isinstance(timeout, Timeouts) else _uniform(timeout),
            "ehlo_name": None if local_hostname is None else ehlo_name(local_hostname),
            "proxy": None if given_proxy is None else _proxy(given_proxy),
        }
        self._check_way(resolved["proxy"])
        if self.deadline is not None:
            seconds("deadline", self.deadline)
        seconds("max_idle", self.max_idle)
        if self.rate is not None:
            per_second("rate", self.rate)
        for what in ("max_connections", "max_messages", "max_connect_failures", "max_recipients"):
            if what not in _WITHOUT_LIMIT or getattr(self, what) is not None:
                count(what, getattr(self, what))
        for attribute, value in resolved.items():
            object.__setattr__(self, attribute, value)

    def _check_way(self, proxy: object) -> None:
        if self.connect is None:
            return
        if not callable(self.connect):
            message = f"connect is a {type(self.connect).__name__}, which cannot be called"
            raise ConfigurationError(message)
        for other, value in (("proxy", proxy), ("source_address", self.source_address)):
            if value is not None:
                message = f"pass connect or {other}, not both"
                raise ConfigurationError(message, hint=f"the function that connects has to see to the {other}")


def refuse_async_functions(settings: Settings) -> None:
    """
    Check that a mailer without an event loop can call the functions in *settings*.

    Raises:
        ConfigurationError: One is a coroutine function.
    """
    if iscoroutinefunction(settings.connect):
        message = "connect is a coroutine function"
        raise ConfigurationError(message, hint="use AsyncSecureMailer, or a function that is not async")
    match settings.login:
        case Password(password=function) if iscoroutinefunction(function):
            what = "password"
        case OAuth2(token=function) if iscoroutinefunction(function):
            what = "token"
        case OAuth2(on_refused=function) if iscoroutinefunction(function):
            what = "on_refused"
        case _:
            return
    message = f"the {what} callable is a coroutine function"
    raise ConfigurationError(message, hint="use AsyncSecureMailer, or a function that is not async")


def _login(
    username: str | None, password: Secret | PasswordFunction | None, auth: Auth | NotALogin | None
) -> Auth | None:
    if isinstance(auth, NotALogin):
        message = f"auth is a {auth.kind}, not one of {_LOGINS}"
        raise ConfigurationError(message)
    if (username is None) != (password is None):
        given, missing = ("username", "password") if password is None else ("password", "username")
        message = f"there is a {given}, and {missing} is None"
        hint = "is the variable set that it comes from? without a login, leave both out"
        raise ConfigurationError(message, hint=hint)
    if username is None or password is None:
        return auth
    if auth is not None:
        message = "pass username and password, or auth, not both"
        raise ConfigurationError(message)
    return Password(username, password)


def _proxy(url: Secret) -> Proxy:
    proxy = parse_proxy(url)
    return replace(proxy, host=_server_name("the proxy's host", proxy.host))


def _policy(ca_file: str | os.PathLike[str] | None, policy: TLSPolicy | None) -> TLSPolicy:
    if policy is None:
        return TLSPolicy(ca_file=ca_file)
    if not _is_a(TLSPolicy, policy):
        message = f"policy is a {type(policy).__name__}, not a TLSPolicy"
        raise ConfigurationError(message, hint="every server is verified; TLSPolicy says which CAs are trusted")
    if ca_file is not None:
        message = "pass ca_file or policy, not both"
        raise ConfigurationError(message, hint="TLSPolicy has a ca_file")
    return policy


def _mode(tls: TLSMode | str | None, port: int | None) -> TLSMode:
    if tls is None:
        # Both modes are verified: a port that is served in the other mode is an error, never cleartext (RFC 8314).
        return TLSMode.STARTTLS if port == PORT_STARTTLS else TLSMode.IMPLICIT
    if tls not in tuple(TLSMode):
        message = f'tls is {quote(tls)}, neither "implicit" nor "starttls"'
        hint = "pass it as policy" if _is_a(TLSPolicy, tls) else "there is no mode without TLS"
        raise ConfigurationError(message, hint=hint)
    return TLSMode(tls)


def _port(port: int | None, mode: TLSMode) -> int:
    if port is None:
        return PORT_IMPLICIT if mode is TLSMode.IMPLICIT else PORT_STARTTLS
    if type(port) is not int or not 0 < port <= _MOST_PORT:
        message = f"port is {quote(port)}, not a number from 1 to {_MOST_PORT}"
        raise ConfigurationError(message, hint="convert a str with int(port)" if _is_a(str, port) else None)
    return port


def _server_name(what: str, host: str) -> str:
    """
    Return *host* as the name that is looked up and that the certificate must have (RFC 9525 §7.2).

    That is the name in A-labels without its trailing dot, or an IP address in canonical form.

    Raises:
        ConfigurationError: It is neither; *what* names the argument.
    """
    if _is_a(Withheld, host):
        raise _not_a_name(what, host)
    if not isinstance(host, str):
        message = f"{what} is a {type(host).__name__}, not a str"
        raise ConfigurationError(message, hint="is the variable set that it comes from?" if host is None else None)
    try:
        return _ip_address(host) or host_name(host.removesuffix("."))
    except ValueError:
        raise _not_a_name(what, host) from None


def _not_a_name(what: str, host: object) -> ConfigurationError:
    message = f"{what} {quote(host)} is neither a host name nor an IP address"
    hint = "pass the name alone; port and mode are arguments of their own"
    if not host:
        hint = "is the variable set that it comes from?"
    elif isinstance(host, str) and host[0] in "[0123456789":
        hint = "write an IP address in full and alone, such as 127.0.0.1 or ::1"
    return ConfigurationError(message, hint=hint)


def _uniform(value: float) -> Timeouts:
    each = seconds("timeout", value)
    return Timeouts(connect=each, handshake=each, command=each, data=each, block=each)


def _check_signer(sign: object) -> None:
    if sign is None:
        return
    # Few programs sign.
    from securesmtp.signing import DKIM

    if not isinstance(sign, DKIM):
        what = "(not shown: it may be a key)" if isinstance(sign, Withheld) else f"a {type(sign).__name__}"
        message = f"sign is {what}, not a DKIM"
        raise ConfigurationError(message, hint="pass DKIM(domain, selector, key), from securesmtp.signing")


def _is_a(kind: type, argument: object) -> bool:
    """Return whether *argument* is a *kind*, whatever its annotation promises: not every caller has a type checker."""
    return isinstance(argument, kind)


def _is_source(address: object) -> bool:
    match address:
        case (str(host), int(port)) if isinstance(address, tuple) and 0 <= port <= _MOST_PORT:
            return not host or _ip_address(host) is not None
    return False


def _ip_address(text: str) -> str | None:
    """Return *text* in canonical form if it is an IP address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A zone ("fe80::1%eth0") may hold any character, and no certificate is for one.
    return None if "%" in text else str(address)
