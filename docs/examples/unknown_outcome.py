"""
After an unknown outcome, search the server's log before you send again.

`python unknown_outcome.py you@example.net /var/log/mail.log`, on the machine of the
mail server, or with a copy of its log. The log must be Postfix's.
"""

import os
import re
import sys
import time
from collections.abc import Iterable
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path

from securesmtp import SecureMailer
from securesmtp.errors import OutcomeUnknownError

# The beginning of a line: time (in either form), host and program. Only this part is
# surely Postfix's own: the rest may repeat what a client sent.
_POSTFIX = r"(?:\w{3} [ \d]\d \S+|\S+) \S+ postfix[\w/-]*/"
# Postfix's cleanup logs the Message-ID when it has read the header, which is before
# the message is accepted. qmgr logs its line when the message is in the queue.
_HEADER_READ = re.compile(_POSTFIX + r"cleanup\[\d+\]: (\w+): message-id=(.*)")
_IN_THE_QUEUE = re.compile(_POSTFIX + r"qmgr\[\d+\]: (\w+): from=<")
# A queue id can be used again for another message.
_BEGUN = re.compile(_POSTFIX + r"(?:smtpd|pickup)\[\d+\]: (\w+): (?:client|uid)=")


def was_accepted(message_id: str, log: Iterable[str]) -> bool:
    """Return whether Postfix has accepted the message."""
    ours: set[str] = set()
    for line in log:
        if begun := _BEGUN.match(line):
            ours.discard(begun[1])
        elif read := _HEADER_READ.match(line):
            queue_id, found = read[1], read[2].strip()
            (ours.add if found == message_id else ours.discard)(queue_id)
        elif (queued := _IN_THE_QUEUE.match(line)) and queued[1] in ours:
            return True
    return False


def send(
    mailer: SecureMailer, message: EmailMessage, log: Path, wait: float = 60
) -> str:
    """Send; if the outcome is unknown, wait, search the log, and perhaps send again."""
    try:
        return f"accepted: {mailer.send(message).reply}"
    except OutcomeUnknownError as error:
        print("it may have arrived:", error)
        # The server may not be finished with it yet.
        time.sleep(wait)
    with log.open(encoding="utf-8", errors="replace") as lines:
        if was_accepted(message["Message-ID"], lines):
            return "it had arrived"
    # The same Message-ID: if the first copy arrived after all, the second can be
    # recognised. If this raises an error, do not try a third time by program.
    return f"accepted the second time: {mailer.send(message).reply}"


if __name__ == "__main__":
    message = EmailMessage()
    sender = os.environ["MAIL_FROM"]
    message["From"], message["To"], message["Subject"] = sender, sys.argv[1], "Hello"
    # Set it before the first try. Otherwise each send makes a new one.
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message.set_content("Once is enough.")
    with SecureMailer.from_env(deadline=45) as mailer:
        print(send(mailer, message, Path(sys.argv[2])))
