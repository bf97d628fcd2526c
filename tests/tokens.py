"""How a scripted mail server replies to access tokens, and a source of tokens that counts its calls."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Mapping

from scripted import Answer, Gone, Mode, Peer, Script, honest

ERROR = b'{"status":"401","schemes":"bearer mac","scope":"https://mail.google.com/"}'
_FORMS = {
    b"XOAUTH2": (re.compile(rb"user=([^\x01]*)\x01auth=Bearer ([^\x01 ]+)\x01\x01"), b""),
    b"OAUTHBEARER": (re.compile(rb"n,a=([^,]*),\x01auth=Bearer ([^\x01 ]+)\x01\x01"), b"AQ=="),
}


class Grants:
    """
    Decides about each login with a token, on all connections of a server.

    Attributes:
        accepted: The tokens that are accepted.
        accepts: Returns whether a token is accepted.
        refusal: The reply to any other.
        error: The text of a challenge before the refusal, not encoded; None for none.
        shown: The token of each login, in order.
        ends: What is done after a refusal: "close" closes the connection, "421" says so, "503" allows no second login.
    """

    def __init__(
        self,
        *accepted: str,
        refusal: bytes = b"535 5.7.8 no\r\n",
        error: bytes | None = None,
        ends: str = "",
    ) -> None:
        self.accepted = set(accepted)
        self.accepts: Callable[[str], bool] = lambda token: token in self.accepted
        self.refusal, self.error, self.ends = refusal, error, ends
        self.shown: list[str] = []
        self.names: set[str] = set()
        self._refused = set[int]()

    def has_ended(self, peer: Peer) -> bool:
        """Return whether this connection allows no second login; a client may not have seen that it is closed."""
        return bool(self.ends) and id(peer) in self._refused

    def script(self, mode: Mode = "implicit", replies: Mapping[str, Answer] | None = None, **options: str) -> Script:
        """Return the script of a server that offers *mechanisms*."""
        offer = b"250-mx.test\r\n250-PIPELINING\r\n250 AUTH %s\r\n" % options.get(
            "mechanisms", "XOAUTH2 OAUTHBEARER"
        ).encode("ascii")
        plain = b"250-mx.test\r\n250 STARTTLS\r\n"

        def ehlo(peer: Peer, _: bytes) -> bytes:
            return offer if peer.log.encrypted else plain

        return honest(mode, replies={"EHLO": ehlo, "AUTH": self.decide, **(replies or {})})

    def decide(self, peer: Peer, line: bytes) -> bytes:
        """Return the final reply to AUTH; read and answer what comes before it."""
        _, mechanism, *initial = line.split(b" ")
        form, answer = _FORMS[mechanism]
        if self.has_ended(peer):
            if self.ends == "503":
                return b"503 5.5.1 one login is enough\r\n"
            # The client had not seen yet that the connection is closed.
            raise Gone
        if not initial:
            peer.send(b"334 \r\n")
            initial = [peer.read_line()]
        match = form.fullmatch(base64.b64decode(initial[0], validate=True))
        assert match is not None
        self.names.add(match[1].decode())
        self.shown.append(match[2].decode())
        if self.accepts(self.shown[-1]):
            return b"235 2.7.0 welcome\r\n"
        self._refused.add(id(peer))
        if self.error is not None:
            peer.send(b"334 " + self.error + b"\r\n")
            assert peer.read_line() == answer
        if self.ends == "close":
            peer.send(self.refusal)
            peer.close()
            return b""
        return self.refusal + (b"421 4.7.0 bye\r\n" if self.ends == "421" else b"")


class Source:
    """Returns one token after the other; counts its calls and those of `refused`."""

    def __init__(self, *tokens: str | BaseException) -> None:
        self.tokens: list[str | BaseException] = [*tokens]
        self.calls = self.refusals = 0
        self.threads: list[threading.Thread] = []

    def __call__(self) -> str:
        """Return the next token; the last one again and again."""
        self.threads.append(threading.current_thread())
        token = self.tokens[min(self.calls, len(self.tokens) - 1)]
        self.calls += 1
        if isinstance(token, BaseException):
            raise token
        return token

    def refused(self) -> None:
        """Note that the server refused a token."""
        self.refusals += 1
