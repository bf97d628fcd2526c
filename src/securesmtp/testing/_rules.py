"""What a test server replies to an envelope, on the network and in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp.testing._faults import FaultName
    from securesmtp.testing._received import Received

# RFC 8689, 3030 §3, 2852, 6710, 4865: what is asked for is kept with the message, and not done.
EXTENSIONS = (
    "REQUIRETLS",
    "BINARYMIME",
    "DELIVERBY",
    "MT-PRIORITY",
    "FUTURERELEASE 999999999 9998-12-31T00:00:00Z",
)
BUSY = "421 4.3.2 Too many connections, try again later"


@dataclass(slots=True)
class Rules:
    """
    What a server does with messages.

    Attributes:
        accept: Keeps a message and returns its number; if it raises, the message is refused.
        refuse: Recipients that are refused.
        fault: The fault that is played.
        greylisted: Senders and recipients that "greylists" has refused once.
    """

    accept: Callable[[Received], int]
    refuse: frozenset[str]
    fault: FaultName | None
    greylisted: set[tuple[str, str]] = field(default_factory=set, init=False)

    def reply_to_mail(self) -> str:
        """Return the reply to MAIL."""
        return "452 4.3.1 Insufficient system storage" if self.fault == "full" else "250 2.1.0 OK"

    def reply_to_recipient(self, mail_from: str, address: str) -> str:
        """Return the reply to RCPT."""
        if self.fault == "refuses_recipients" or address in self.refuse:
            return "550 5.1.1 No such user here"
        if self.fault == "greylists" and (mail_from, address) not in self.greylisted:
            self.greylisted.add((mail_from, address))
            return "451 4.7.1 Greylisted, try again later"
        return "250 2.1.5 OK"
