"""No leak by any mechanism, whichever way a mailer is used: the server repeats all that it knows and has received."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable
from email.message import EmailMessage

import pytest
import trustme

from conftest import Mailer, Serve
from leaks import raw_replies, shown
from scram_server import Server, tls_unique
from scripted import Answer, Peer, honest
from securesmtp import Envelope, OAuth2, Password, SecureMailer, SecureSMTPError
from securesmtp._protocol.sasl import RANKED

# A password and a token alike.
SECRET = "hunter2-Secret.token_0123456789"
MECHANISMS = [name for name, mechanism in RANKED.items() if mechanism.proof != "certificate"]
MAIL = Envelope("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\nx\r\n")


def _ask(peer: Peer, text: bytes = b"") -> bytes:
    peer.send(b"334 " + base64.b64encode(text) + b"\r\n")
    return peer.read_line()


class Repeating:
    """A server that has received a login, and repeats it."""

    def __init__(self) -> None:
        """Know the secret, as one that it has stored."""
        self.known = [SECRET.encode()]

    def login(self, peer: Peer, line: bytes) -> None:
        """Read the whole exchange."""
        _, name, *initial = line.split(b" ")
        if name == b"LOGIN":
            # `honest` has asked already.
            messages = bytes(peer.log.secret).split(b"\r\n")[-3:-1]
        elif name.startswith(b"SCRAM-"):
            binding = tls_unique(peer) if name.endswith(b"-PLUS") else None
            server = Server(name.decode(), "me", SECRET, binding)
            proof = _ask(peer, server.first(base64.b64decode(initial[0])))
            self.known.append(base64.b64decode(proof).rpartition(b"p=")[2])
            messages = [proof, _ask(peer, server.final(base64.b64decode(proof)))]
        else:
            messages = initial or [_ask(peer)]
        # The username is not secret, and the reply is to have a line's length.
        self.known += [message for message in messages if len(message) > 20]

    def reply(self, code: bytes) -> bytes:
        """Return a refusal with all of it."""
        return b"".join(b"%b-%b\r\n" % (code, text) for text in self.known) + b"%b no\r\n" % code


Way = Callable[[SecureMailer, EmailMessage], str]


def _send(mailer: SecureMailer, message: EmailMessage) -> str:
    receipt = mailer.send(message)
    return repr(receipt) + raw_replies(receipt)


def _session(mailer: SecureMailer, _: EmailMessage) -> str:
    results = list(mailer.send_many([MAIL]))
    return repr(results) + "".join(shown(result.error) for result in results if result.error)


def _check(mailer: SecureMailer, _: EmailMessage) -> str:
    report = mailer.check()
    return f"{report!r} {report}" + ("" if report.login_error is None else shown(report.login_error))


WAYS: dict[str, Way] = {"send": _send, "session": _session, "check": _check}


@pytest.fixture
def make(serve: Serve, mailer: Mailer, ca: trustme.CA) -> Callable[..., SecureMailer]:
    """Make a mailer that logs in by one mechanism, to a server that has this one alone."""

    def make(name: str, source: object, replies: dict[str, Answer]) -> SecureMailer:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if name.endswith("-PLUS"):
            tls.maximum_version = ssl.TLSVersion.TLSv1_2
        ca.issue_cert("localhost").configure_cert(tls)
        script = honest(extensions=("PIPELINING", f"AUTH {name}"), auth=("-", "-"), replies=replies)
        login = (OAuth2 if RANKED[name].proof == "token" else Password)("me", source, [name])  # type: ignore[arg-type]
        return mailer(serve(*[script] * 4, tls=tls), auth=login, pipelining="session", max_connections=1)

    return make


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("way", WAYS)
def test_no_mechanism_shows_what_it_has_sent(
    make: Callable[..., SecureMailer], message: EmailMessage, name: str, way: str
) -> None:
    """At AUTH, MAIL and the content, in text, attributes, causes and frames; from a str and a callable (AUTH-08)."""
    for where, source in (("AUTH", SECRET), ("AUTH", lambda: SECRET), ("MAIL", lambda: SECRET), ("CONTENT", SECRET)):
        repeating = Repeating()

        def auth(peer: Peer, line: bytes, where: str = where, repeating: Repeating = repeating) -> bytes:
            repeating.login(peer, line)
            return repeating.reply(b"535") if where == "AUTH" else b"235 in\r\n"

        def repeats(peer: Peer, line: bytes, repeating: Repeating = repeating) -> bytes:
            return repeating.reply(b"550")

        replies: dict[str, Answer] = {"AUTH": auth} if where == "AUTH" else {"AUTH": auth, where: repeats}
        mine = make(name, source, replies)
        try:
            found = WAYS[way](mine, message)
        except SecureSMTPError as error:
            found = shown(error)
        mine.close()
        # It came to that place.
        assert len(repeating.known) > 1
        assert way == "check" or "(redacted" in found
        for secret in repeating.known:
            assert secret.decode() not in found
            assert base64.b64encode(secret).decode().rstrip("=") not in found
            assert len(secret) < 30 or secret[-24:-4].decode() not in found
