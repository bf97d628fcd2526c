"""
A worker that stops well: it sends what comes on its standard input, in four threads.

`python stop_gracefully.py < addresses.txt`

SIGTERM and Ctrl-C end it. It begins no further message, gives those that are being
sent some seconds, and prints what became of each. A second signal ends them at once.
"""

import os
import queue
import signal
import sys
import threading
import time
from email.message import EmailMessage
from email.utils import make_msgid

from securesmtp import SecureMailer, SecureSMTPError, SendResult

# Each is less than the next: a send, the end of the worker, and what the platform
# waits before it kills (Kubernetes: 30 s).
DEADLINE, CLOSE_TIMEOUT = 15, 20


class Stop:
    """Whether the program is to end, and what became of the last messages."""

    def __init__(self, mailer: SecureMailer) -> None:
        """Let the program go on, until a signal comes."""
        self.is_requested = False
        self.results: dict[str | None, SendResult] = {}
        self._mailer = mailer
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def close(self, timeout: float) -> None:
        """Close the mailer; a second signal does this while the first still waits."""
        for result in self._mailer.close(timeout=timeout):
            self.results[result.message_id] = result

    def _handle(self, *_: object) -> None:
        if self.is_requested:
            self.close(timeout=0)
        self.is_requested = True


def newsletter(address: str) -> EmailMessage:
    """Make the message for one address."""
    message = EmailMessage()
    message["From"], message["To"] = os.environ["MAIL_FROM"], address
    message["Subject"] = "News"
    message["Message-ID"] = make_msgid(domain="example.com")
    message.set_content("What is new.")
    return message


def work(mailer: SecureMailer, addresses: queue.SimpleQueue[str], stop: Stop) -> None:
    """Send to one address after the other."""
    while not stop.is_requested:
        try:
            mailer.send(newsletter(addresses.get(timeout=0.2)))
        except queue.Empty:
            continue
        except SecureSMTPError as error:
            print(error, file=sys.stderr)


def main() -> list[SendResult]:
    """Send until a signal comes; return what became of the messages under way then."""
    mailer, addresses = (
        SecureMailer.from_env(deadline=DEADLINE),
        queue.SimpleQueue[str](),
    )
    stop = Stop(mailer)
    for _ in range(4):
        threading.Thread(target=work, args=(mailer, addresses, stop)).start()
    for line in sys.stdin:
        addresses.put(line.strip())
    while not stop.is_requested:
        # A signal's handler runs meanwhile.
        time.sleep(0.1)
    stop.close(timeout=CLOSE_TIMEOUT)
    return list(stop.results.values())


if __name__ == "__main__":
    for result in main():
        print(result.message_id, result.outcome.name, flush=True)
