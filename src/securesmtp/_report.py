"""The result of `SecureMailer.check`: what a server offers, and whether the login works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from securesmtp._portable import Portable
from securesmtp._shown import escape
from securesmtp._values import TLSInfo, describe_error


@dataclass(frozen=True, slots=True)
class ServerReport(Portable):
    """
    What `SecureMailer.check` found out about a server.

    Attributes:
        host: The configured server.
        port: The configured port.
        addresses: The IP addresses of the host, in the resolver's order.
        address: The IP address of the connection.
        tls: How the TLS session was verified, with the verified chain.
        days_left: Whole days until the server's certificate expires.
        before_tls: What EHLO offered in plaintext, by keyword; None with implicit TLS.
        after_tls: What EHLO offered inside TLS, by keyword.
        mechanisms: The SASL mechanisms that the server offers inside TLS.
        mechanism: The mechanism that a login would use; None without credentials, or if none is usable.
        passed_over: Each better mechanism that your login may use, with the reason why it is not used.
        size: Bytes of the largest message that the server accepts; None if it names no limit.
        limits: The numbers in its LIMITS extension, by name (RFC 9422).
        round_trips: How many round trips a small message to one recipient takes over an open connection.
        login: Whether the login succeeded; None without credentials.
        login_error: Why the login failed.
    """

    host: str
    port: int
    addresses: tuple[str, ...]
    address: str
    tls: TLSInfo
    days_left: int
    before_tls: Mapping[str, str] | None
    after_tls: Mapping[str, str]
    mechanisms: tuple[str, ...]
    mechanism: str | None
    size: int | None
    limits: Mapping[str, int]
    round_trips: int
    login: bool | None
    login_error: Exception | None = None
    passed_over: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return seven lines: the server, its TLS and certificate, the login and its mechanism, and what it offers."""
        login = {None: "not tried", True: f"accepted by {self.mechanism}", False: "refused"}[self.login]
        if self.login_error is not None:
            login += f", {describe_error(self.login_error)}"
        size = "no limit given" if self.size is None else f"{self.size} bytes"
        return "\n".join(
            (
                f"server: {self.host}:{self.port} at {self.address}",
                f"TLS: {self.tls.version}, {self.tls.cipher}, trust from {escape(self.tls.trust)}",
                f"certificate: for {self.tls.server_name}, {self.days_left} days left",
                f"login: {login}",
                f"mechanisms: {self._mechanisms()}",
                f"largest message: {size}",
                f"offers: {escape(' '.join(self.after_tls))}",
            )
        )

    def _mechanisms(self) -> str:
        parts = [escape(f"offered {', '.join(self.mechanisms) or 'none'}")]
        if self.mechanism is not None:
            parts.append(f"chosen {self.mechanism}")
        for reason in dict.fromkeys(self.passed_over.values()):
            names = [name for name, why in self.passed_over.items() if why == reason]
            parts.append(f"not {', '.join(names)} ({reason})")
        return "; ".join(parts)

    @property
    def only_before_tls(self) -> frozenset[str]:
        """The keywords that were offered in plaintext only; STARTTLS is normally one of them."""
        return frozenset(self.before_tls or ()) - frozenset(self.after_tls)

    @property
    def only_after_tls(self) -> frozenset[str]:
        """The keywords that were offered inside TLS only."""
        return frozenset(self.after_tls) - frozenset(self.before_tls or self.after_tls)


@dataclass(frozen=True, slots=True)
class Stats(Portable):
    """
    What a mailer is doing in this process, and what it has done since it was made.

    Of messages that were wrong, or that a ledger kept from being sent, nothing is counted. A message that
    `SecureMailer.send_many` sends a second time counts once.

    Attributes:
        open: Open connections, without those of `SecureMailer.check`.
        busy: Connections that a send uses or opens.
        under_way: Sends that have begun and not ended.
        waiting: Those of them, and workers of `SecureMailer.send_many`, that wait for a connection, or with *rate* for
            their turn.
        accepted: Messages that the server accepted.
        refused: Messages that the server refused.
        not_sent: Messages that were not sent.
        unknown: Messages that may have been accepted.
        connects: Connections that were opened.
        logins: Logins that the server accepted.
    """

    open: int
    busy: int
    under_way: int
    waiting: int
    accepted: int
    refused: int
    not_sent: int
    unknown: int
    connects: int
    logins: int
