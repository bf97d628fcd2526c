"""
What stands for a mail provider: a correct server with limits, each of which is off until a test sets it.

Each limit replies as a provider documents it; the source is beside it. Time passes only when the test says so.

    provider = Provider(recipients=100)
    server = serve(provider.script("implicit"), tls=..., connections=100)
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from scripted import Mode, Peer, Script, honest

USER, PASSWORD = "me@example.org", "app password"

# learn.microsoft.com/exchange/troubleshoot/send-emails/smtp-submission-improvements: three connections for a mailbox.
# Seen as the reply to the content.
CONNECTIONS = b"432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending\r\n"
# As several hosters say before the content.
CONNECTIONS_421 = b"421 4.7.0 Too many concurrent SMTP connections; please try again later\r\n"
# docs.kumomta.com, max_messages_per_connection: each further MAIL of the connection is refused for now. OpenSMTPD does
# the same after 100.
MESSAGES = b"452 4.5.3 Too many messages sent\r\n"
# support.google.com/a/answer/3726730, as the others with "gsmtp".
RECIPIENTS = b"452 4.5.3 Your message has too many recipients. - gsmtp\r\n"
TOO_LARGE = b"552 5.3.4 Your message exceeded Google's message size limits. - gsmtp\r\n"
DAY_GMAIL = b"550 5.4.5 Daily user sending limit exceeded. - gsmtp\r\n"
BUSY = b"421 4.4.5 Server busy, try again later. - gsmtp\r\n"
RECIPIENT_RATE = b"450 4.2.1 The user you are trying to contact is receiving mail too quickly. - gsmtp\r\n"
LOGIN = b"454 4.7.0 Cannot authenticate due to temporary system problem. Try again later. - gsmtp\r\n"
# docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html: to the content, and the message is dropped.
RATE_SES = b"454 Throttling failure: Maximum sending rate exceeded.\r\n"
DAY_SES = b"454 Throttling failure: Daily message quota exceeded.\r\n"
# As of Exchange and of many hosters: no code of its own for the day's quota, but that of a policy (RFC 3463 §3.8).
DAY_POLICY = b"550 5.7.1 Daily message quota exceeded\r\n"
# RFC 6647 §5 (greylisting): a temporary refusal of the first try, for a combination that was not seen before.
GREYLISTED = b"451 4.7.1 Greylisted, please try again later\r\n"


@dataclass(slots=True)
class Provider:
    """A provider; each limit is a number, or None."""

    connections: int | None = None
    """Connections of the account at a time."""
    over_connections: tuple[str, bytes] = ("CONTENT", CONNECTIONS)
    """The stage and the reply to a message over one connection more."""
    messages: int | None = None
    """Messages over one connection."""
    recipients: int | None = None
    """Recipients of one transaction."""
    size: int | None = None
    """Octets of a message."""
    announces_size: bool = True
    """Whether the limit is in the reply to EHLO."""
    rate: int | None = None
    """Messages between two calls of `pass_time`."""
    over_rate: tuple[str, bytes] = ("CONTENT", RATE_SES)
    """The stage and the reply to a message over the rate."""
    day: int | None = None
    """Messages in all."""
    over_day: tuple[str, bytes] = ("CONTENT", DAY_GMAIL)
    """The stage and the reply to a message over the day's quota."""
    greylists: bool = False
    """Whether each recipient is refused at the first try."""
    failing_logins: frozenset[int] = frozenset()
    """Which logins fail for now, counted from 1."""
    silent_for: float = 0.0
    """Seconds before the greeting, in which a client that speaks first is an error of the script."""
    accepted: int = 0
    """Messages accepted in all."""
    logins: int = 0
    """Logins tried in all."""
    turned_away: int = 0
    """Connections that were one too many."""
    _holders: set[Peer] = field(default_factory=set)
    _since: int = 0
    _seen: set[bytes] = field(default_factory=set)
    _sent: Counter[Peer] = field(default_factory=Counter)
    _named: Counter[Peer] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_time(self) -> None:
        """Let a minute pass: the rate begins anew."""
        with self._lock:
            self._since = 0

    def script(self, mode: Mode = "implicit") -> Script:
        """Return the script of each connection to the provider."""
        extensions = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"]
        if self.size is not None and self.announces_size:
            extensions.append(f"SIZE {self.size}")
        replies = {
            "GREETING": self._greet,
            "AUTH": self._login,
            "MAIL": self._mail,
            "RCPT": self._recipient,
            "CONTENT": self._content,
        }
        session = honest(mode, extensions=extensions, auth=(USER, PASSWORD), replies=replies)

        def script(peer: Peer) -> None:
            try:
                session(peer)
            finally:
                with self._lock:
                    self._holders.discard(peer)

        return script

    def _greet(self, peer: Peer, _line: bytes) -> bytes:
        if self.silent_for:
            peer.expect_silence(self.silent_for)
        return b"220 smtp.provider.test ESMTP\r\n"

    def _login(self, _peer: Peer, _line: bytes) -> bytes:
        with self._lock:
            self.logins += 1
            return LOGIN if self.logins in self.failing_logins else b"235 2.7.0 Accepted\r\n"

    def _mail(self, peer: Peer, _line: bytes) -> bytes:
        with self._lock:
            self._named[peer] = 0
            if self.messages is not None and self._sent[peer] >= self.messages:
                return MESSAGES
            return self._crowded(peer, "MAIL") or self._over("MAIL") or b"250 2.1.0 OK\r\n"

    def _recipient(self, peer: Peer, line: bytes) -> bytes:
        with self._lock:
            if self.greylists and line.upper() not in self._seen:
                self._seen.add(line.upper())
                return GREYLISTED
            if self.recipients is not None and self._named[peer] >= self.recipients:
                return RECIPIENTS
            refusal = self._over("RCPT")
            self._named[peer] += refusal is None
            return refusal or b"250 2.1.5 OK\r\n"

    def _content(self, peer: Peer, content: bytes) -> bytes:
        with self._lock:
            if self.size is not None and len(content) > self.size:
                return TOO_LARGE
            refusal = self._crowded(peer, "CONTENT") or self._over("CONTENT")
            if refusal is None:
                self.accepted += 1
                self._since += 1
                self._sent[peer] += 1
            return refusal or b"250 2.0.0 OK 1764270000 d2e1a72fcca58-7b0000000 - gsmtp\r\n"

    def _crowded(self, peer: Peer, stage: str) -> bytes | None:
        where, reply = self.over_connections
        if self.connections is None or where != stage:
            return None
        if peer not in self._holders and len(self._holders) >= self.connections:
            self.turned_away += 1
            return reply
        self._holders.add(peer)
        return None

    def _over(self, stage: str) -> bytes | None:
        for limit, used, (where, reply) in (
            (self.rate, self._since, self.over_rate),
            (self.day, self.accepted, self.over_day),
        ):
            if limit is not None and used >= limit and where == stage:
                return reply
        return None
