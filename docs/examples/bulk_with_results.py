"""
Send many messages, and see what became of each.

`python bulk_with_results.py one@example.net two@example.net`

If it is killed, run it again: what was sent is in the file `news.ledger`, and is not
sent a second time.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from email.message import EmailMessage

from securesmtp import Outcome, SecureMailer
from securesmtp.ledger import Ledger, SQLiteLedger


def newsletters(addresses: Iterable[str]) -> Iterator[EmailMessage]:
    """Make one message for each address, when it is needed."""
    for number, address in enumerate(addresses):
        message = EmailMessage()
        message["From"], message["To"] = os.environ["MAIL_FROM"], address
        message["Subject"] = "News"
        # The same in each run: the ledger knows the message by it.
        message["Message-ID"] = f"<news-2026-11-{number}@example.com>"
        message.set_content("What is new.")
        yield message


def send_all(
    mailer: SecureMailer, ledger: Ledger, addresses: list[str]
) -> dict[str, list[str]]:
    """Send to all addresses; return them by what you must do next."""
    todo: dict[str, list[str]] = {
        "nothing": [],
        "send again": [],
        "fix": [],
        "ask the server's log": [],
    }
    for result in mailer.send_many(newsletters(addresses), ledger=ledger):
        if result.outcome is Outcome.ACCEPTED:
            what = "nothing"
        elif result.outcome is Outcome.UNKNOWN:
            what = "ask the server's log"
        else:
            what = "send again" if result.retryable else "fix"
        todo[what].append(addresses[result.index])
        if not result.from_ledger:
            detail = result.receipt.reply if result.receipt else result.error
            print(result.message_id, result.outcome, detail)
    return todo


if __name__ == "__main__":
    with (
        SecureMailer.from_env(deadline=45) as mailer,
        SQLiteLedger("news.ledger", exclusive=True) as ledger,
    ):
        for what, addresses in send_all(mailer, ledger, sys.argv[1:]).items():
            print(f"{what}:", *addresses)
