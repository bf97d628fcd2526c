"""What an error means for a message that could go to another server, and for the server that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

from securesmtp._options import Timeouts, seconds
from securesmtp._protocol.failures import find_interrupt
from securesmtp._shown import quote
from securesmtp._values import Outcome
from securesmtp.errors import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    LedgerError,
    SecureSMTPError,
)

Choice = Literal["raise", "next"]
_LIMITS = {*Timeouts.__dataclass_fields__, "deadline"}


class Verdict(Enum):
    """What an error means for a message and its server."""

    STOP = "no other server gets the message"
    NEXT = "the next server gets it"
    REST = "the next server gets it, and this one rests"
    STOP_AND_REST = "no other server gets it, and this one rests"

    @property
    def goes_on(self) -> bool:
        """Whether the next server gets the message."""
        return self in {Verdict.NEXT, Verdict.REST}

    @property
    def rests(self) -> bool:
        """Whether the server rests."""
        return self in {Verdict.REST, Verdict.STOP_AND_REST}


@dataclass(frozen=True, slots=True)
class Rules:
    """
    After which errors the next server gets a message.

    Attributes:
        rest: How long a server that failed rests, in seconds.
        on_refusal: What to do after a temporary refusal of the message.
        on_login_refused: What to do after a refused login.
    """

    rest: float
    on_refusal: Choice
    on_login_refused: Choice

    def __post_init__(self) -> None:
        """
        Check the arguments.

        Raises:
            ConfigurationError: One of them is wrong.
        """
        seconds("rest", self.rest)
        for name in ("on_refusal", "on_login_refused"):
            if getattr(self, name) not in get_args(Choice):
                message = f'{name} is {quote(getattr(self, name))}, neither "raise" nor "next"'
                raise ConfigurationError(message)

    def judge(self, error: object) -> Verdict:
        """Return what *error* means. What may have been delivered never goes to another server."""
        if not isinstance(error, SecureSMTPError) or isinstance(error, ConfigurationError | LedgerError):
            return Verdict.STOP
        if find_interrupt(error) is not None or error.outcome is Outcome.ACCEPTED:
            return Verdict.STOP
        if error.outcome is Outcome.REFUSED:
            return Verdict.NEXT if error.retryable and self.on_refusal == "next" else Verdict.STOP
        if isinstance(error, AuthenticationError) and not error.retryable:
            # The account, or the callable for its password, is the same for the next server: its login would be one
            # more that is refused, and accounts are locked for less.
            return Verdict.REST if error.reply is not None and self.on_login_refused == "next" else Verdict.STOP
        if isinstance(error, DeadlineExceededError) and error.limit not in _LIMITS:
            # A source of passwords.
            return Verdict.STOP
        return Verdict.REST if error.outcome is Outcome.NOT_SENT else Verdict.STOP_AND_REST
