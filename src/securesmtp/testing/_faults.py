"""The faults that a test server, and a recording mailer, can play: one table, from which the documentation is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from securesmtp._shown import quote
from securesmtp._values import CertificateReason, Outcome

FaultName: TypeAlias = Literal[
    "refuses_recipients",
    "greylists",
    "full",
    "bad_login",
    "oauth_expired",
    "too_busy",
    "slow",
    "silent",
    "drops_in_content",
    "drops_after_content",
    "starttls_stripped",
    "untrusted",
    "self_signed",
    "expired",
    "wrong_name",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One fault: what the server does, and what a mailer makes of it.

    Attributes:
        plays: What the server does.
        outcome: What became of the message.
        error: The name of the error that the mailer raises; None if it sends the message.
        retryable: Whether the error says that sending the message again may succeed.
        reason: The reason in a `CertificateError`.
        remark: When it is otherwise.
    """

    plays: str
    outcome: Outcome
    error: str | None = None
    retryable: bool = False
    reason: CertificateReason | None = None
    remark: str = ""


def _refused_certificate(plays: str, reason: CertificateReason) -> Fault:
    return Fault(plays, Outcome.NOT_SENT, "CertificateError", reason=reason)


FAULTS: dict[FaultName, Fault] = {
    "refuses_recipients": Fault(
        "replies 550 5.1.1 to every recipient",
        Outcome.REFUSED,
        "RecipientsRefusedError",
        remark="to refuse only some of them, use `refuse=`",
    ),
    "greylists": Fault(
        "replies 451 4.7.1 to each recipient of a sender once, and accepts it the next time",
        Outcome.REFUSED,
        "RecipientsRefusedError",
        retryable=True,
    ),
    "full": Fault("replies 452 4.3.1 to MAIL: its disk is full", Outcome.REFUSED, "SenderRefusedError", retryable=True),
    "bad_login": Fault("replies 535 5.7.8 to every login", Outcome.NOT_SENT, "AuthenticationError"),
    "oauth_expired": Fault(
        "refuses the first OAuth 2 token that it gets (535 5.7.8), and accepts any other",
        Outcome.NOT_SENT,
        "AuthenticationError",
        remark="accepted if the token is a callable that returns another one",
    ),
    "too_busy": Fault(
        "greets with 421 4.3.2 and closes the connection", Outcome.NOT_SENT, "ConnectError", retryable=True
    ),
    "slow": Fault(
        "waits for `delay` seconds (by default 1) before each reply",
        Outcome.ACCEPTED,
        remark="`DeadlineExceededError` if a time limit of the mailer is shorter; not sent",
    ),
    "silent": Fault(
        "accepts the connection, and sends nothing",
        Outcome.NOT_SENT,
        "DeadlineExceededError",
        retryable=True,
        remark="give the mailer a short limit: `timeout=0.2`",
    ),
    "drops_in_content": Fault(
        "cuts the connection when it has read the first part of the content",
        Outcome.NOT_SENT,
        "ConnectError",
        retryable=True,
        remark="only if the message is larger than the buffers between client and server (take 8 MB); "
        "a short one is fully sent by then, and its outcome is unknown",
    ),
    "drops_after_content": Fault(
        "keeps the message, and cuts the connection instead of confirming it", Outcome.UNKNOWN, "OutcomeUnknownError"
    ),
    "starttls_stripped": Fault(
        "does not offer STARTTLS, as if an attacker had removed it", Outcome.NOT_SENT, "DowngradeError"
    ),
    "untrusted": _refused_certificate("has a certificate of another CA", CertificateReason.UNTRUSTED),
    "self_signed": _refused_certificate("has a self-signed certificate", CertificateReason.SELF_SIGNED),
    "expired": _refused_certificate("has a certificate that expired in 2000", CertificateReason.EXPIRED),
    "wrong_name": _refused_certificate(
        "has a certificate for another host, `elsewhere.example`", CertificateReason.NAME_MISMATCH
    ),
}


def check_fault(name: object) -> None:
    """
    Check that *name* is None or the name of a fault.

    Raises:
        ValueError: It is neither; the text lists the names.
    """
    if name is not None and name not in get_args(FaultName):
        message = f"fault is {quote(name)}, not one of {', '.join(FAULTS)}"
        raise ValueError(message)
