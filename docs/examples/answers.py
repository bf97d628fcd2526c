"""One request, one message, one response: what the web examples share."""

import logging
from email.message import EmailMessage
from http import HTTPStatus
from typing import NamedTuple

from securesmtp import validate_address
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
    """The response to the client; it says nothing about mail server or login."""

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
# In characters. Python's `email` needs seconds for a very long subject.
MAX_SUBJECT = 500
# In bytes. The frameworks refuse a longer request with 413.
MAX_REQUEST = 1 << 18
# Our own faults are errors, the client's are not; everything else is a warning.
LEVELS = {500: logging.ERROR, 400: logging.INFO}


def start_log() -> None:
    """Log to stderr with time and level, unless logging is set up already."""
    line = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(format=line, level=logging.INFO)


def refusal(status: int, allow: str | None = None) -> Answer:
    """Return the response to what the framework itself refuses, such as 404."""
    if status == BAD.status:
        return BAD
    if status == BROKEN.status:
        return BROKEN
    headers = {"Allow": allow} if allow else {}
    phrase = HTTPStatus(status).phrase.lower()
    return Answer({"error": f"not sent: {phrase}"}, status, headers)


def answer(error: SecureSMTPError, to: str) -> Answer:
    """Return the response to a client that wanted to send to *to*."""
    match error:
        case OutcomeUnknownError():
            return UNKNOWN
        case AddressError() if error.address != to:
            return BROKEN  # our own sender
        case AddressError() | MessageError():
            return BAD
        case _ if error.retryable:
            return LATER
        case RefusedError() | ConnectError() | ProtocolError():
            return REFUSED
    # The login, the certificate or the settings: the client cannot change them.
    return BROKEN


def compose(sender: str, to: str, subject: str, body: str) -> EmailMessage | None:
    """
    Return the message, or None if the client's values do not make one.

    The client cannot choose the sender. Before you call this, limit who may send, and
    to whom (a login, a list, a rate). Otherwise your service is an open relay.
    """
    if len(subject) > MAX_SUBJECT:
        log.info("the subject has %d characters", len(subject))
        return None
    message = EmailMessage()
    message["From"] = sender
    try:
        # Checked first, because `email` needs seconds for thousands of quotes in `to`.
        message["To"], message["Subject"] = validate_address(to), subject
        message.set_content(body)
    except Exception as error:
        # AddressError, ValueError for a line end in the subject, or a bug in `email`.
        log.info("the request makes no message: %s", type(error).__name__)
        return None
    return message


def explain(error: Exception, to: str) -> Answer:
    """Log why the message to *to* was not sent, and return the response."""
    if not isinstance(error, SecureSMTPError):
        # Our own password function failed; it is called before anything is sent.
        log.error("no password", exc_info=error)
        return BROKEN
    # Its text is one line without secrets. The client does not get it.
    response = answer(error, to)
    level = LEVELS.get(response.status, logging.WARNING)
    log.log(level, "%s for %s: %s", type(error).__name__, error.message_id, error)
    return response
