"""Read a message that is bytes."""

from __future__ import annotations

from email import message_from_bytes
from typing import TYPE_CHECKING

from securesmtp._protocol.building import from_message
from securesmtp._values import Envelope

if TYPE_CHECKING:
    pass


def read_eml(data: bytes) -> Envelope:
    """Return the message in *data* with the addresses of its header."""
    message = message_from_bytes(data)
    submission = from_message(message, None, None, date=lambda: "Thu, 1 Jan 1970 00:00:00 +0000", token=lambda: "0")
    return Envelope(submission.mail_from.address, [each.address for each in submission.recipients], message)
