"""
Send again what may have arrived, without a second copy that nobody recognises.

`python unknown_outcome.py you@example.net /var/log/mail.log`, on the server's machine,
or with a copy of its log, which must be Postfix's.
"""

import re
import sys
import time
from collections.abc import Iterable
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path

from configured import open_mailer, sender  # configured.py, beside this file
from securesmtp import SecureMailer
from securesmtp.errors import OutcomeUnknownError

# Host and program of a line, behind either form of its time. Only this far is a line
# the log's own: what follows may repeat what a client has said.
_POSTFIX = r"(?:\w{3} [ \d]\d \S+|\S+) \S+ postfix[\w/-]*/"
# Postfix's cleanup writes the Message-ID when it has read the header, so before the
# message is accepted. The line of qmgr comes when it is in the queue.
_HEADER_READ = re.compile(_POSTFIX + r"cleanup\[\d+\]: (\w+): message-id=(.*)")
_IN_THE_QUEUE = re.compile(_POSTFIX + r"qmgr\[\d+\]: (\w+): from=<")
# A queue id is used again when its message is gone.
_BEGUN = re.compile(_POSTFIX + r"(?:smtpd|pickup)\[\d+\]: (\w+): (?:client|uid)=")


def was_accepted(message_id: str, log: Iterable[str]) -> bool:
    """Return whether Postfix has put the message into its queue."""
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
    """Send, and once more if the log has no acceptance of it after *wait* s."""
    try:
        return f"accepted: {mailer.send(message).reply}"
    except OutcomeUnknownError as error:
        print("it may have arrived:", error)
        # The server may still be at it.
        time.sleep(wait)
    with log.open(encoding="utf-8", errors="replace") as lines:
        if was_accepted(message["Message-ID"], lines):
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
