"""What a URL, the environment and the caller give for one mailer, and the arguments that follow from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from securesmtp._options import TLSPolicy
from securesmtp._protocol.proxy import as_proxy_url
from securesmtp._protocol.sasl import Password, as_secret
from securesmtp._settings import PORT_IMPLICIT, PORT_STARTTLS
from securesmtp._shown import withhold
from securesmtp._values import TLSMode
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from securesmtp._options import Timeouts, Window
    from securesmtp._protocol.sasl import AsyncPasswordSource, Auth, PasswordSource
    from securesmtp._secret import Secret
    from securesmtp._transport.async_hook import AsyncConnect
    from securesmtp._transport.hook import Connect
    from securesmtp.events import Event
    from securesmtp.signing import DKIM

# Digits only: float() and int() also take "1e3", "nan", "1_0" and digits of other scripts.
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_COUNT = re.compile(r"[0-9]{1,9}")
# Ports with one registered mode each (RFC 8314 §7.3, RFC 6409 §3.1).
_REGISTERED = {PORT_IMPLICIT: TLSMode.IMPLICIT, PORT_STARTTLS: TLSMode.STARTTLS}
# Arguments that have others of their own.
_PARTS = {"policy": ("ca_file", "pins"), "auth": ("username", "password", "mechanisms")}


class _Options(TypedDict, total=False):
    username: str | None
    auth: Auth | None
    ca_file: str | os.PathLike[str] | None
    policy: TLSPolicy | None
    timeout: float | Timeouts
    deadline: float | None
    max_connections: int
    max_messages: int | None
    max_idle: float
    max_connect_failures: int
    max_recipients: int | None
    rate: float | None
    pipelining: Literal["off", "message", "session"]
    window: Window
    local_hostname: str | None
    source_address: tuple[str, int] | None
    proxy: str | Secret | None
    sign: DKIM | None
    on_event: Callable[[Event], None] | None


class Options(_Options, total=False):
    """The arguments of a `SecureMailer`, without host, port and tls."""

    password: PasswordSource | None
    connect: Connect | None


class AsyncOptions(_Options, total=False):
    """The arguments of an `AsyncSecureMailer`, without host, port and tls."""

    password: AsyncPasswordSource | None
    connect: AsyncConnect | None


class Given:
    """The arguments that were given, each with its source: the URL, a variable, or an argument of the caller's."""

    def __init__(self, options: Options | AsyncOptions) -> None:
        """Begin with the caller's *options*; None counts as not given."""
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        for name, value in options.items():
            if value is not None:
                self._values[name] = value
                self._sources[name] = f"the argument {name}"
        if "password" in self._values:
            self._values["password"] = as_secret(self._values["password"])
        if "proxy" in self._values:
            self._values["proxy"] = as_proxy_url(self._values["proxy"])
        if "sign" in self._values:
            self._values["sign"] = withhold(self._values["sign"])

    def add(self, name: str, value: object, source: str) -> None:
        """
        Add the argument *name*.

        Raises:
            ConfigurationError: Another source gives it too.
        """
        if name in self._values:
            message = f"{self._sources[name]} and {source} both give the {name}"
            raise ConfigurationError(message, hint="keep one of them")
        self._values[name], self._sources[name] = value, source

    def value(self, name: str) -> Any:  # noqa: ANN401 -- each argument has its own type
        """Return the argument *name*, or None."""
        return self._values.get(name)

    def arguments(self, *, hint: str) -> dict[str, Any]:
        """
        Return the arguments for a mailer.

        Raises:
            ConfigurationError: They contradict each other; *hint* says how to give a password.
        """
        self._refuse_contradictions(hint)
        found = dict(self._values)
        if "pins" in found:
            found["policy"] = TLSPolicy(ca_file=found.pop("ca_file", None), pins=found.pop("pins"))
        if "mechanisms" in found:
            found["auth"] = Password(found.pop("username"), found.pop("password"), found.pop("mechanisms"))
        return found

    def _refuse_contradictions(self, no_password_hint: str) -> None:
        values, sources = self._values, self._sources
        for whole, parts in _PARTS.items():
            for part in parts:
                if {whole, part} <= sources.keys():
                    message = f"{sources[part]} gives the {part}, and {sources[whole]} has its own"
                    raise ConfigurationError(message, hint="keep one of them")
        if "username" in sources and "password" not in sources:
            message = f"{sources['username']} gives a username, and there is no password"
            raise ConfigurationError(message, hint=no_password_hint)
        for name in ("password", "mechanisms"):
            if name in sources and "username" not in sources:
                raise ConfigurationError(f"{sources[name]} gives the {name}, and there is no username")
        mode, port = values.get("tls"), values.get("port")
        registered = mode if port is None else _REGISTERED.get(port, mode)
        if mode is not None and registered is not mode:
            message = f"{sources['tls']} says {mode}, and port {port} is for {registered}"
            raise ConfigurationError(message, hint="correct one of them, or leave the port out")


def as_seconds(text: str, source: str) -> float:
    """
    Return *text* as a number of seconds.

    Raises:
        ConfigurationError: It is not one; *source* names where it is from.
    """
    if not _SECONDS.fullmatch(text):
        raise ConfigurationError(f"{source} is not a number of seconds, such as 30 or 2.5")
    return float(text)


def as_rate(text: str, source: str) -> float:
    """
    Return *text* as a number of messages a second.

    Raises:
        ConfigurationError: It is not one; *source* names where it is from.
    """
    if not _SECONDS.fullmatch(text):
        raise ConfigurationError(f"{source} is not a number of messages a second, such as 10 or 0.5")
    return float(text)


def as_count(text: str, source: str) -> int:
    """
    Return *text* as a whole number.

    Raises:
        ConfigurationError: It is not one; *source* names where it is from.
    """
    if not _COUNT.fullmatch(text):
        raise ConfigurationError(f"{source} is not a whole number")
    return int(text)
