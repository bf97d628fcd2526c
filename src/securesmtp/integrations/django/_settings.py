"""Django's settings as the arguments of a `SecureMailer`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core import mail
from django.core.exceptions import ImproperlyConfigured

from securesmtp import ConfigurationError, TLSPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

# What `EmailBackend` takes as Django's own does, and Django's name of the setting.
SETTINGS = {
    "host": "EMAIL_HOST",
    "port": "EMAIL_PORT",
    "username": "EMAIL_HOST_USER",
    "password": "EMAIL_HOST_PASSWORD",
    "use_tls": "EMAIL_USE_TLS",
    "use_ssl": "EMAIL_USE_SSL",
    "timeout": "EMAIL_TIMEOUT",
    "ssl_keyfile": "EMAIL_SSL_KEYFILE",
    "ssl_certfile": "EMAIL_SSL_CERTFILE",
}
# The keys of SECURESMTP, or further keys of OPTIONS: arguments of `SecureMailer`, and *partial* of its `send`.
OPTIONS = frozenset(
    {
        "auth",
        "ca_file",
        "connect",
        "deadline",
        "local_hostname",
        "max_connect_failures",
        "max_connections",
        "max_idle",
        "max_messages",
        "max_recipients",
        "on_event",
        "partial",
        "pipelining",
        "policy",
        "proxy",
        "rate",
        "sign",
        "source_address",
        "window",
    }
)
_PORT_IMPLICIT, _PORT_STARTTLS = 465, 587


@dataclass(slots=True)
class Configuration:
    """
    Where the settings of one backend are from, for the texts of errors, and the further options.

    Attributes:
        alias: The mailer's name in MAILERS (Django 6.1); None for the settings EMAIL_* and SECURESMTP.
        options: What was given of `OPTIONS`.
        given: Which of `SETTINGS` were given to the backend itself, and not None.
    """

    alias: str | None
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    given: frozenset[str] = frozenset()

    def error(self, message: str) -> Exception:
        """Return the exception that Django has for wrong settings."""
        error: Exception = (
            ImproperlyConfigured(message) if self.alias is None else mail.InvalidMailer(message, alias=self.alias)
        )
        return error

    def name(self, key: str) -> str:
        """Return where *key* is set."""
        if self.alias is not None:
            return f"OPTIONS[{key!r}]"
        return SETTINGS.get(key) or f"SECURESMTP[{key!r}]"

    def add_defaults(self) -> None:
        """
        Add the options of the setting SECURESMTP that are not given.

        Raises:
            ImproperlyConfigured: It has an unknown key, or MAILERS is used.
        """
        found = getattr(settings, "SECURESMTP", None) or {}
        if self.alias is not None:
            if found:
                raise self.error("SECURESMTP is for the settings EMAIL_*: move its keys into OPTIONS.")
            return
        if not isinstance(found, dict):
            raise self.error(f"SECURESMTP is a {type(found).__name__}, not a dictionary.")
        for key in found.keys() - OPTIONS:
            raise self.error(_unknown(key))
        self.options = {**found, **self.options}

    def default(self, key: str) -> Any:  # noqa: ANN401 -- a setting may be anything
        """Return the setting for *key* where the backend was not given it."""
        if self.alias is not None:
            return False if key in {"use_tls", "use_ssl"} else None
        if key == "port" and not settings.is_overridden("EMAIL_PORT"):
            # Django's default, 25, is the port of neither mode.
            return None
        return getattr(settings, SETTINGS[key])

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the arguments of a `SecureMailer`.

        Args:
            values: One for each of `SETTINGS`.

        Raises:
            ImproperlyConfigured: They contradict each other, or there is no TLS.
        """
        options = {key: value for key, value in self.options.items() if value is not None and key != "partial"}
        try:
            found = {"host": values["host"], "port": self._port(values["port"]), "tls": self._mode(values), **options}
            self._add_login(found, values)
            self._add_client_certificate(found, values)
        except ConfigurationError as error:
            raise self.wrapped(error) from error
        if values["timeout"] is not None:
            found["timeout"] = values["timeout"]
        return found

    def wrapped(self, error: ConfigurationError) -> Exception:
        """Return *error* of a `SecureMailer` as Django's exception."""
        text = str(error)
        if "client_cert" in text or "client_key" in text:
            names = f"{self.name('ssl_certfile')} and {self.name('ssl_keyfile')}"
            text += f" {names} are the client's certificate and key. A CA to trust is {self.name('ca_file')}."
        return self.error(text)

    def _mode(self, values: Mapping[str, Any]) -> str:
        use_tls, use_ssl = self.name("use_tls"), self.name("use_ssl")
        if values["use_tls"] and values["use_ssl"]:
            raise self.exclusive()
        if values["use_ssl"]:
            return "implicit"
        if values["use_tls"]:
            return "starttls"
        right = {_PORT_IMPLICIT: f"{use_ssl} = True", _PORT_STARTTLS: f"{use_tls} = True"}.get(
            self._port(values["port"]) or 0,
            f"{use_tls} = True (STARTTLS, port {_PORT_STARTTLS}) or {use_ssl} = True (TLS from the start, port "
            f"{_PORT_IMPLICIT})",
        )
        raise self.error(
            f"{use_tls} and {use_ssl} are both off: the message and the password would be sent in plaintext to "
            f"{values['host']}. Set {right}. A server of your own with a private CA also needs {self.name('ca_file')}. "
            "To only look at messages while you develop, use django.core.mail.backends.console.EmailBackend."
        )

    def exclusive(self) -> Exception:
        """Return the error for both modes, in Django's words."""
        if self.alias is not None:
            return self.error("The 'use_ssl' and 'use_tls' OPTIONS are incompatible. Set at most one of them to True.")
        return self.error(
            "EMAIL_USE_TLS/EMAIL_USE_SSL are mutually exclusive, so only set one of those settings to True."
        )

    def _port(self, port: object) -> Any:  # noqa: ANN401 -- `SecureMailer` checks it
        # Often from an environment variable; Django's backend takes it as it is.
        return int(port) if isinstance(port, str) and port.isdecimal() else port

    def _add_login(self, found: dict[str, Any], values: Mapping[str, Any]) -> None:
        username, password = values["username"] or None, values["password"] or None
        if "username" in self.given or "password" in self.given:
            # As `get_connection(username=…)` has precedence over the settings; empty means no login.
            found.pop("auth", None)
        if username is None and password is None:
            return
        if username is None or password is None:
            missing, there = ("username", "password") if username is None else ("password", "username")
            raise self.error(
                f"{self.name(there)} is set and {self.name(missing)} is empty. Is the variable set that it comes from? "
                "Without a login, set neither."
            )
        found["username"], found["password"] = username, password

    def _add_client_certificate(self, found: dict[str, Any], values: Mapping[str, Any]) -> None:
        certificate, key = values["ssl_certfile"] or None, values["ssl_keyfile"] or None
        if certificate is None and key is None:
            return
        policy = found.pop("policy", None)
        if policy is None:
            policy = TLSPolicy(ca_file=found.pop("ca_file", None))
        elif policy.client_cert is not None:
            raise self.error(f"{self.name('ssl_certfile')} and {self.name('policy')} both have a client certificate.")
        found["policy"] = replace(policy, client_cert=certificate, client_key=key)


def _unknown(key: object) -> str:
    similar = get_close_matches(str(key), OPTIONS, 1)
    hint = f"Did you mean {similar[0]!r}?" if similar else f"It can have {', '.join(sorted(OPTIONS))}."
    if key in SETTINGS:
        hint = f"That is Django's own setting {SETTINGS[str(key)]}."
    return f"SECURESMTP has the unknown key {key!r}. {hint}"
