"""securesmtp: a message leaves over verified TLS, or it does not leave."""

from securesmtp._mailer import SecureMailer
from securesmtp._protocol.sasl import Password
from securesmtp._secret import Secret
from securesmtp._settings import Timeouts, TLSPolicy
from securesmtp._values import CertificateReason, Outcome, Receipt, Recipient, Reply, Stage, TLSInfo, TLSMode
from securesmtp.errors import (
    AddressError,
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    DataRefusedError,
    DeadlineExceededError,
    DowngradeError,
    MessageError,
    NoUsableMechanismError,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    RefusedError,
    SecureSMTPError,
    SenderRefusedError,
    TLSError,
    WrongTLSModeError,
)

__all__ = [
    "AddressError",
    "AuthenticationError",
    "CertificateError",
    "CertificateReason",
    "ConfigurationError",
    "ConnectError",
    "DataRefusedError",
    "DeadlineExceededError",
    "DowngradeError",
    "MessageError",
    "NoUsableMechanismError",
    "Outcome",
    "OutcomeUnknownError",
    "Password",
    "ProtocolError",
    "Receipt",
    "Recipient",
    "RecipientsRefusedError",
    "RefusedError",
    "Reply",
    "Secret",
    "SecureMailer",
    "SecureSMTPError",
    "SenderRefusedError",
    "Stage",
    "TLSError",
    "TLSInfo",
    "TLSMode",
    "TLSPolicy",
    "Timeouts",
    "WrongTLSModeError",
]
