"""
Send again what may have arrived, without a second copy that nobody recognises.

`python unknown_outcome.py you@example.net /var/log/mail.log`, on the server's machine,
or with a copy of its log.
"""

import sys
import time
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path

from configured import open_mailer, sender  # configured.py, beside this file
from securesmtp import SecureMailer
from securesmtp.errors import OutcomeUnknownError


def send(
    mailer: SecureMailer, message: EmailMessage, log: Path, wait: float = 60
) -> str:
    """Send, and once more if nobody knows and the log has nothing after *wait* s."""
    try:
        return f"accepted: {mailer.send(message).reply}"
    except OutcomeUnknownError as error:
        print("it may have arrived:", error)
        # The server may still be at it.
        time.sleep(wait)
    if message["Message-ID"] in log.read_text("utf-8", "replace"):
        return "it had arrived"
    # The same Message-ID: if the log was wrong, the receiver can tell it is a copy.
    # What this raises is for the caller: of a third time, a person decides.
    return f"accepted the second time: {mailer.send(message).reply}"


if __name__ == "__main__":
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender(), sys.argv[1], "Hello"
    # Before the first try: where there is none, each send would make another.
    message["Message-ID"] = make_msgid(domain=sender().rpartition("@")[2])
    message.set_content("Once is enough.")
    with open_mailer() as mailer:
        print(send(mailer, message, Path(sys.argv[2])))
