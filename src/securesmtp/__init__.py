"""Submit email over verified TLS, or not at all; start with `SecureMailer`."""

from __future__ import annotations

from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securesmtp._async_failover import AsyncFailover
    from securesmtp._async_mailer import AsyncSecureMailer
    from securesmtp._async_results import AsyncResults
    from securesmtp._compose.addresses import AddressWarning
    from securesmtp._compose.message import compose
    from securesmtp._envelope import Envelope
    from securesmtp._failover import Failover
    from securesmtp._mailer import SecureMailer
    from securesmtp._options import Timeouts, TLSPolicy, Window
    from securesmtp._protocol.address import validate_address
    from securesmtp._protocol.dsn import DSN
    from securesmtp._protocol.extensions import DeliverBy
    from securesmtp._protocol.sasl import External, OAuth2, Password
    from securesmtp._queued import QueuedMessage
    from securesmtp._report import ServerReport, Stats
    from securesmtp._results import Results
    from securesmtp._secret import Secret
    from securesmtp._values import (
        Certificate,
        CertificateReason,
        Outcome,
        Receipt,
        Recipient,
        Reply,
        SendResult,
        Stage,
        TLSInfo,
        TLSMode,
    )
    from securesmtp.errors import (
        AddressError,
        AuthenticationError,
        CertificateError,
        ConfigurationError,
        ConnectError,
        DataRefusedError,
        DeadlineExceededError,
        DowngradeError,
        LedgerError,
        MessageError,
        NoUsableMechanismError,
        OutcomeUnknownError,
        ProtocolError,
        ProxyError,
        RecipientsRefusedError,
        RefusedError,
        SecureSMTPError,
        SenderRefusedError,
        ServerNotAuthenticError,
        TLSError,
        WrongTLSModeError,
    )
    from securesmtp.events import Event

__all__ = [  # noqa: RUF022 -- in plain order: DSN is a class, no constant
    "AddressError",
    "AddressWarning",
    "AsyncFailover",
    "AsyncResults",
    "AsyncSecureMailer",
    "AuthenticationError",
    "Certificate",
    "CertificateError",
    "CertificateReason",
    "ConfigurationError",
    "ConnectError",
    "DSN",
    "DataRefusedError",
    "DeadlineExceededError",
    "DeliverBy",
    "DowngradeError",
    "Envelope",
    "Event",
    "External",
    "Failover",
    "LedgerError",
    "MessageError",
    "NoUsableMechanismError",
    "OAuth2",
    "Outcome",
    "OutcomeUnknownError",
    "Password",
    "ProtocolError",
    "ProxyError",
    "QueuedMessage",
    "Receipt",
    "Recipient",
    "RecipientsRefusedError",
    "RefusedError",
    "Reply",
    "Results",
    "Secret",
    "SecureMailer",
    "SecureSMTPError",
    "SendResult",
    "SenderRefusedError",
    "ServerNotAuthenticError",
    "ServerReport",
    "Stage",
    "Stats",
    "TLSError",
    "TLSInfo",
    "TLSMode",
    "TLSPolicy",
    "Timeouts",
    "Window",
    "WrongTLSModeError",
    "compose",
    "validate_address",
]

# By name: the module that has it, which needs an extra, so no other name loads it.
_ASYNC = {
    "AsyncFailover": "securesmtp._async_failover",
    "AsyncResults": "securesmtp._async_results",
    "AsyncSecureMailer": "securesmtp._async_mailer",
}
# Few programs have several servers.
_RARE = {"Failover": "securesmtp._failover"}
if PathFinder.find_spec("anyio") is None:
    # `from securesmtp import *` and `help` would fail without the extra.
    globals()["__all__"] = [name for name in __all__ if name not in _ASYNC]


def __getattr__(name: str) -> object:
    """
    Import the library when one of its names is first used (PEP 562).

    ``import securesmtp`` alone loads only this file, so it costs little in a program that sends nothing.
    """
    if name in {"credentials", "errors", "events", "signing"}:
        return import_module(f"securesmtp.{name}")
    if name in _ASYNC:
        globals()[name] = found = getattr(_load_async(name), name)
        return found
    if name in _RARE:
        globals()[name] = found = getattr(import_module(_RARE[name]), name)
        return found
    if name in __all__:
        modules = map(
            import_module,
            (
                "securesmtp.errors",
                "securesmtp._mailer",
                "securesmtp._options",
                "securesmtp._report",
                "securesmtp._values",
                "securesmtp._envelope",
                "securesmtp._secret",
                "securesmtp.events",
                "securesmtp._protocol.address",
                "securesmtp._protocol.dsn",
                "securesmtp._protocol.extensions",
                "securesmtp._protocol.sasl",
                "securesmtp._compose.addresses",
                "securesmtp._compose.message",
                "securesmtp._queued",
            ),
        )
        globals()[name] = found = getattr(next(module for module in modules if hasattr(module, name)), name)
        return found
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def _load_async(name: str = "AsyncSecureMailer") -> object:
    try:
        return import_module(_ASYNC[name])
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "anyio":
            raise
        message = f"{name} needs anyio: install securesmtp[async]"
        raise ModuleNotFoundError(message, name=error.name) from error


def __dir__() -> list[str]:
    """Return the public names, imported or not yet."""
    return __all__
