"""
Any replies to a SCRAM login: it succeeds with the server's proof in its place, and with nothing else.

The input is the server's replies, one a line. `334+` stands for a 334 whose challenge is the rest of the line: the
harness puts it in base64, since libFuzzer finds a comma, and not the base64 of one. The client's nonce is always "n".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from unittest import mock

from protocol.play import TLS, Played, play
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.dialogue import Session, authenticate
from securesmtp._protocol.sasl import Password, scram
from securesmtp.errors import (
    AuthenticationError,
    ConnectError,
    ProtocolError,
    SecureSMTPError,
    ServerNotAuthenticError,
)

PASSWORD = "hunter2-Secret"
ECHO = re.compile(r"hunter2-secret|ahvudgvymi1tzwnyzxq", re.IGNORECASE)
NAME = b"SCRAM-SHA-1"
_LINE = re.compile(rb"(235|250|334|535)(\+|)([^\r]{0,1500})")
# Said once more, beside the library's own expression (RFC 5802 §7).
_FIRST = re.compile(rb"r=(n[!-+\--~]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{3,6})(?:,[^\0]*)?")
ENDS: dict[type[SecureSMTPError], str] = {
    ProtocolError: "malformed",
    AuthenticationError: "refused",
    ServerNotAuthenticError: "no proof",
    ConnectError: "part",
}


def check(octets: bytes) -> str:
    """Check every rule on the replies *octets*, and say how the login ended: "login", "malformed", "refused", …."""
    replies = [_reply(*match.groups()) for match in map(_LINE.fullmatch, octets.split(b"\n")) if match]
    with mock.patch.object(scram, "token_urlsafe", return_value="n"):
        session = Session(TLS, Capabilities(auth=(NAME.decode(),)))
        login = authenticate(session, Password("user", PASSWORD))
        played = play(login, *replies, ConnectError("nothing more comes"))
    messages = _messages(played)
    assert messages[0] == b"n,,n=user,r=n"
    if len(messages) > 1:
        assert _FIRST.fullmatch(_challenge(replies[0])), "a proof for what is no first message"
        assert re.fullmatch(rb"c=biws,r=n[!-+\--~]+,p=[A-Za-z0-9+/]{27}=", messages[1])
    assert messages[2:] in ([], [b""]), "more than two messages and an empty one"
    if played.error is None:
        assert _is_proved(replies, messages), "a login without the server's proof"
        return "login"
    shown = f"{played.error} {vars(played.error)}"
    assert str(played.error).isprintable()
    assert not ECHO.search(shown), "the password is shown"
    assert len(messages) < 2 or messages[1][-20:].decode() not in shown, "the proof is shown"
    return ENDS[type(played.error)]


def _reply(code: bytes, plus: bytes, text: bytes) -> bytes:
    return code + b" " + (base64.b64encode(text) if plus else text)


def _messages(played: Played[str]) -> list[bytes]:
    first, *responses = played.commands
    verb, name, initial = first.split(b" ")
    assert (verb, name) == (b"AUTH", NAME)
    return [base64.b64decode(each, validate=True) for each in (initial, *responses)]


def _challenge(reply: bytes) -> bytes:
    return base64.b64decode(reply[4:])


def _is_proved(replies: list[bytes], messages: list[bytes]) -> bool:
    """Return whether the server has proved that it knows the password, computed anew from what both have said."""
    if [reply[:3] for reply in replies[:3]] != [b"334", b"334", b"235"] or len(messages) != 3:
        return False
    first, final = map(_challenge, replies[:2])
    match = _FIRST.fullmatch(first)
    assert match is not None
    salted = hashlib.pbkdf2_hmac("sha1", PASSWORD.encode(), base64.b64decode(match[2]), int(match[3]))
    signed = b",".join((b"n=user,r=n", first, messages[1].rpartition(b",p=")[0]))
    signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha1"), signed, "sha1")
    return final.partition(b",")[0] == b"v=" + base64.b64encode(signature)
