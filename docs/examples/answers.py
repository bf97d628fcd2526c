"""One request, one mail, one answer: what the web examples share, of no framework."""

import logging
from email.message import EmailMessage
from typing import NamedTuple

from securesmtp import SecureMailer
from securesmtp.errors import (
    AddressError,
    ConnectError,
    MessageError,
    OutcomeUnknownError,
    ProtocolError,
    RefusedError,
    SecureSMTPError,
)

log = logging.getLogger("send_email")


class Answer(NamedTuple):
    """What the client is told: nothing of the server, the login or the program."""

    body: dict[str, str]
    status: int
    headers: dict[str, str]


SENT = Answer({"message": "Email sent successfully!"}, 200, {})
BAD = Answer(
    {"error": "not sent: want to (one address), subject (one line), body"}, 400, {}
)
BROKEN = Answer({"error": "not sent: this service has a fault"}, 500, {})
REFUSED = Answer({"error": "not sent: the mail server refused it"}, 502, {})
LATER = Answer({"error": "not sent: try again later"}, 503, {"Retry-After": "60"})
UNKNOWN = Answer(
    {"error": "unknown: it may have been delivered; do not simply send it again"},
    504,
    {},
)


def answer(error: SecureSMTPError) -> Answer:
    """Return what an error means to the client."""
    match error:
        case OutcomeUnknownError():
            return UNKNOWN
        case AddressError() | MessageError():
            return BAD
        case _ if error.retryable:
            return LATER
        case RefusedError() | ConnectError() | ProtocolError():
            return REFUSED
    # The login, the certificate, the settings: nothing that the client could change.
    return BROKEN


def send_email(
    mailer: SecureMailer, sender: str, to: str, subject: str, body: str
) -> Answer:
    """
    Send one mail and return the answer.

    The sender is never the client's to choose. Whom your service writes to, and for
    whom, is yours to limit before this is called (a login, a list, a rate): else it
    is an open relay.
    """
    message = EmailMessage()
    try:
        message["From"], message["To"], message["Subject"] = sender, to, subject
        message.set_content(body)
    except Exception as error:
        # ValueError for a line end in a field; for odd addresses `email` has others,
        # such as IndexError.
        log.warning("the request makes no message: %s", type(error).__name__)
        return BAD
    try:
        # To this one address, whatever else could be read out of the field.
        mailer.send(message, recipients=[to])
    except SecureSMTPError as error:
        # Its text is one line without secrets; the client gets none of it.
        log.warning("%s for %s: %s", type(error).__name__, error.message_id, error)
        return answer(error)
    except Exception:
        # What our own password function raises; it is asked before anything is sent.
        log.exception("no password")
        return BROKEN
    return SENT
