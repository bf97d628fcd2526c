"""A worker as many programs are: `smtplib`, a note of each message that was sent, and another try after any error."""

from __future__ import annotations

import smtplib
import sqlite3
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from kills.messages import SENDER, message
from kills.steps import Reporter

TRIES = 2


class Notes:
    """The messages that were sent."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("CREATE TABLE IF NOT EXISTS sent (key TEXT PRIMARY KEY)")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def add(self, key: str) -> None:
        """Note that it was sent."""
        self._connection.execute("INSERT OR IGNORE INTO sent VALUES (?)", (key,))

    def noted(self) -> set[str]:
        """Return what was sent."""
        return {key for (key,) in self._connection.execute("SELECT key FROM sent")}


class Client(smtplib.SMTP_SSL):
    """A client whose steps are told."""

    reporter: Reporter

    def data(self, msg: Any) -> tuple[int, bytes]:
        """Send the content."""
        self.putcmd("data")
        code, text = self.getreply()
        if code != 354:
            raise smtplib.SMTPDataError(code, text)
        with self.reporter.step("content"):
            self.send(smtplib._quote_periods(msg) + b".\r\n")  # type: ignore[attr-defined]
        with self.reporter.step("reply"):
            return self.getreply()


def work(keys: Sequence[str], where: str, mailer: dict[str, Any], reporter: Reporter) -> Iterator[tuple[str, str]]:
    """Send what was not noted; yield each key with its outcome."""
    with closing(Notes(where)) as notes:
        for key in keys:
            if key in notes.noted():
                continue
            if any(_send(key, mailer, reporter) for _ in range(TRIES)):
                with reporter.step("finish"):
                    notes.add(key)
                yield key, "accepted"


def _send(key: str, mailer: dict[str, Any], reporter: Reporter) -> bool:
    context = ssl.create_default_context(cafile=mailer["ca_file"])
    try:
        with reporter.step("connect"):
            client = Client(mailer["host"], mailer["port"], "localhost", context=context)
        client.reporter = reporter
        with client:
            client.login(mailer["username"], mailer["password"])
            content = message(key).content
            assert isinstance(content, bytes)
            client.sendmail(SENDER, [f"{key}@example.test"], content)
    except (OSError, smtplib.SMTPException):
        return False
    return True
