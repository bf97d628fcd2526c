"""Mail servers, each named for its fault, and the environment variables that configure the examples for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from scripted import Answer, Mode, Peer, Script, ScriptedServer, honest

PASSWORD, WRONG = "s3cret-pa55phrase", "wr0ng-pa55phrase"
# The text of every refusal; no client may see it.
WORDS = "zebra"
# No program listens on this port of loopback.
DOWN = 1


def _cut(peer: Peer, content: bytes) -> bytes:
    """Accept the message, and cut the connection before the reply."""
    peer.cut()
    return b"250 2.0.0 queued\r\n"


def _refuses(**replies: bytes) -> dict[str, Answer]:
    return {verb: b"%s %s\r\n" % (code, WORDS.encode()) for verb, code in replies.items()}


class World(NamedTuple):
    """The server's replies, and the variables that differ from the right ones."""

    replies: Mapping[str, Answer]
    changed: Mapping[str, str]

    @property
    def mode(self) -> Mode:
        """The TLS mode."""
        return "starttls" if self.changed.get("SMTP_TLS") == "starttls" else "implicit"

    def script(self) -> Script:
        """Return the server's script."""
        return honest(self.mode, auth=("me", PASSWORD), replies=self.replies)

    def environment(self, port: int, ca_file: str) -> dict[str, str]:
        """Return the environment variables for the examples."""
        # A password is in a variable or in a file.
        password = {} if "SMTP_PASSWORD_FILE" in self.changed else {"SMTP_PASSWORD": PASSWORD}
        return {
            "SMTP_HOST": "localhost",
            "SMTP_PORT": str(port),
            "SMTP_TLS": self.mode,
            "SMTP_USERNAME": "me",
            **password,
            "SMTP_CA_FILE": ca_file,
            "MAIL_FROM": "me@example.com",
            **self.changed,
        }


# Starts the server of a world, perhaps with another script and options; see conftest.py.
Enter = Callable[..., ScriptedServer]

WORLDS = {
    "normal": World({}, {}),
    "starttls": World({}, {"SMTP_TLS": "starttls"}),
    "recipient-refused": World(_refuses(RCPT=b"550 5.1.1"), {}),
    "sender-refused": World(_refuses(MAIL=b"550 5.7.1"), {}),
    "content-refused": World(_refuses(CONTENT=b"554 5.7.1"), {}),
    "later": World(_refuses(RCPT=b"451 4.7.1"), {}),
    "busy": World(_refuses(GREETING=b"421 4.3.2"), {}),
    "greeting-refused": World(_refuses(GREETING=b"554 5.7.1"), {}),
    "out-of-step": World(_refuses(MAIL=b"354"), {}),
    "login-later": World(_refuses(AUTH=b"454 4.7.0"), {}),
    "wrong-password": World({}, {"SMTP_PASSWORD": WRONG}),
    "no-password-file": World({}, {"SMTP_PASSWORD_FILE": "/nowhere/password"}),
    # Python's `email` accepts it, the library does not.
    "wrong-sender": World({}, {"MAIL_FROM": "me@under_score.example"}),
    "stripped": World({"EHLO": b"250-mx.test\r\n250 AUTH PLAIN\r\n"}, {"SMTP_TLS": "starttls"}),
    "untrusted": World({}, {"SMTP_CA_FILE": "other.pem"}),
    "down": World({}, {"SMTP_PORT": str(DOWN)}),
    "cut": World({"CONTENT": _cut}, {}),
}
