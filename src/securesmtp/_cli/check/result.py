"""What a check of one server found, before it is shown in one of the formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import timedelta

    from securesmtp import SecureSMTPError, ServerReport


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


@dataclass(frozen=True, slots=True)
class AddressTried:
    """
    One IP address of the host, and what became of connecting to it.

    Attributes:
        address: The IP address.
        result: "connected", "not tried", or why there is no connection.
    """

    address: str
    result: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """
    One certificate of the chain that the server sent.

    Attributes:
        subject: Its subject, or its names, comma-separated.
        issuer: Who issued it.
        key: Type and size of its key, such as ``RSA 2048`` or ``EC P-256``.
        not_before: From when it is valid, ISO 8601.
        not_after: Until when, ISO 8601.
        days_left: Whole days until it expires; negative after that.
        spki_sha256: The pin of its key.
    """

    subject: str
    issuer: str
    key: str
    not_before: str
    not_after: str
    days_left: int
    spki_sha256: str


@dataclass(frozen=True, slots=True)
class Line:
    """
    One line of the dialogue, redacted.

    Attributes:
        hint: As swaks prints it: ``->`` sent and ``<-`` received in plaintext, ``~>`` and ``<~`` inside TLS, ``===``
            something that happened, ``***`` an error.
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
        stage: How far it got: the last stage that was completed ("connect", "tls", "ehlo", "auth", …).
        addresses: Each address of the host.
        chain: The certificates that the server sent, its own first, also if they were refused.
        report: The library's report; None if there is no verified session, or `--until` ended the check before it.
        error: Why a message could not be sent; None if nothing keeps it from that.
        faults: What is wrong, worst first.
        round_trips: How many round trips one small message takes over an open connection; None if not known.
        transcript: The dialogue.
        elapsed: How long it took.
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
