"""What is asked about one server, and what a check of it found, before that is shown in one of the formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from pathlib import Path

    from securesmtp import SecureSMTPError, ServerReport, TLSInfo
    from securesmtp._protocol.sasl import PasswordSource

# The stages of a check, in their order: a connection, a verified TLS session, what is offered inside it, a login.
Stage: TypeAlias = Literal["connect", "tls", "ehlo", "auth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    What to check, and how far.

    Attributes:
        host: Name or IP address of the server.
        port: Its port; None for the mode's.
        tls: The mode; None for the port's.
        ca_file: PEM file of the roots to trust instead of certifi's.
        pins: As in ``TLSPolicy.pins``.
        client_cert: PEM file of the certificate (and key) to show to a server that asks for one.
        server_name: The name that the certificate must have, if it is not *host*.
        allow_legacy_ca: As in ``TLSPolicy.allow_legacy_ca``.
        local_hostname: What EHLO says; None for our address.
        username: Who logs in; None for no login.
        password: The password, or the access token with *oauth*: a `Secret` or a callable.
        oauth: Whether *password* is an access token.
        timeout: Seconds for each step.
        family: 4 or 6 for addresses of that kind alone.
        address: The IP address to connect to; the certificate must still be for *host*. None for any of the host's.
        until: The stage to stop after; None for all of them.
    """

    host: str
    port: int | None = None
    tls: Literal["implicit", "starttls"] | None = None
    ca_file: Path | None = None
    pins: tuple[str, ...] = ()
    client_cert: Path | None = None
    server_name: str | None = None
    allow_legacy_ca: bool = False
    local_hostname: str | None = None
    username: str | None = None
    password: PasswordSource | None = field(default=None, repr=False)
    oauth: bool = False
    timeout: float = 10.0
    family: Literal[4, 6] | None = None
    address: str | None = None
    until: Stage | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Something that is wrong, or will be soon.

    Attributes:
        level: "error" keeps a message from being sent; "warning" does not yet.
        name: The name of its section in the troubleshooting page, as `securesmtp explain` takes it.
        cause: What is wrong, in one sentence.
        fix: What to do, in one sentence.
        line: The line to write in the program; None if none helps.
    """

    level: Literal["error", "warning"]
    name: str
    cause: str
    fix: str
    line: str | None = None


# What became of an address, unless an error did.
CONNECTED, NOT_TRIED, NO_ANSWER, OVERTAKEN = "connected", "not tried", "no answer", "no answer before another one"


@dataclass(frozen=True, slots=True)
class AddressTried:
    """
    One IP address of the host, and what became of connecting to it.

    Attributes:
        address: The IP address.
        result: "connected", "not tried", "no answer before another one", or why there is no connection.
    """

    address: str
    result: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """
    One certificate of the chain that the server sent.

    Attributes:
        subject: The common name of its subject; without one, all of the subject, or its names.
        issuer: The same for its issuer.
        key: Type and size of its key, such as ``RSA 2048`` or ``EC P-256``.
        not_before: From when it is valid, ISO 8601.
        not_after: Until when, ISO 8601.
        days_left: Whole days until it expires; negative after that.
        spki_sha256: The pin of its key.
        names: The DNS names and IP addresses that it is for; a CA has none.
        signature: How it is signed, such as ``SHA256 with RSA``.
        sha256: SHA-256 of its DER form, 64 hexadecimal digits.
        is_self_issued: Whether it names itself as its issuer, as a root does.
    """

    subject: str
    issuer: str
    key: str
    not_before: str
    not_after: str
    days_left: int
    spki_sha256: str
    names: tuple[str, ...] = ()
    signature: str = ""
    sha256: str = ""
    is_self_issued: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """
    One line of the dialogue, redacted.

    Attributes:
        hint: As swaks prints it: ``->`` sent and ``<-`` received in plaintext, ``~>`` and ``<~`` inside TLS; ``<**``
            and ``<~*`` received, a refusal; ``===`` something that happened, ``***`` an error.
        text: The line.
    """

    hint: str
    text: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """
    What was found out about one server at one address.

    Attributes:
        host: The server.
        port: Its port.
        tls: The TLS mode.
        stage: The last stage that was completed: "connect", "tls", "ehlo" or "auth"; empty if there is no connection.
        addresses: Each address of the host.
        chain: The certificates that the server sent, its own first, also if they were refused.
        report: The library's report; None if there is no verified session, or `--until` ended the check before it.
        error: Why a message could not be sent; None if nothing keeps it from that.
        faults: What is wrong, worst first.
        round_trips: How many round trips one small message takes over an open connection; None if not known.
        transcript: The dialogue.
        elapsed: How long it took.
        address: The IP address that it is connected to, or was to be; None if there is none.
        trust: Which roots were trusted: ``"certifi …"`` or ``"ca_file …"``.
        session: How the TLS session was verified; None if there is none.
        before_tls: What EHLO offered in plaintext, by keyword; None with implicit TLS, or if it came to no EHLO.
        after_tls: What EHLO offered inside TLS, by keyword; None if it came to no EHLO.
        mechanism: The SASL mechanism that a login would use: yours if there is one, otherwise one with a password, or
            with a token if the server takes no password; None if there is none.
        mechanism_reason: Why that one, or why none; empty if it came to no EHLO.
        notes: What is not wrong, and good to know.
    """

    host: str
    port: int
    tls: Literal["implicit", "starttls"]
    stage: str
    addresses: tuple[AddressTried, ...]
    chain: tuple[Certificate, ...]
    report: ServerReport | None
    error: SecureSMTPError | None
    faults: tuple[Fault, ...]
    round_trips: int | None
    transcript: tuple[Line, ...]
    elapsed: timedelta
    address: str | None = None
    trust: str = ""
    session: TLSInfo | None = None
    before_tls: Mapping[str, str] | None = None
    after_tls: Mapping[str, str] | None = None
    mechanism: str | None = None
    mechanism_reason: str = ""
    notes: tuple[str, ...] = ()
