"""
A whole session with a server that says anything at all: connect, STARTTLS, log in, submit, quit. No socket, no clock.

The dialogues are driven by the real link; a `Wire` stands for its socket. The low bits of the input's first octet
choose the `Case`. The rest is what the server says, cut at each "|", which is never a part of it: a piece comes when
the client waits for it, or at once when it begins with "!"; an empty piece is silence up to the limit, "!" alone a
reset, and the end of the input the end of the connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import IntFlag
from unittest import mock

from fuzz.wire import Said, Wire, memory_link
from protocol.play import TLS
from securesmtp import DataRefusedError, MessageError, Outcome, Password, SecureSMTPError, TLSError
from securesmtp._protocol.content import BLOCK, Content
from securesmtp._protocol.delivery import deliver
from securesmtp._protocol.dialogue import authenticate, open_session, quit_session
from securesmtp._protocol.failures import is_session_usable
from securesmtp._protocol.message import Submission, envelope_recipients
from securesmtp._transport import channel as transport
from securesmtp._values import TLSMode
from securesmtp.errors import ConfigurationError, OutcomeUnknownError, RefusedError

LOGIN = Password("me-myself", "hunter2-Secret")
# The password, its base64 alone and behind the name, and what PLAIN writes.
PASSWORD = re.compile("hunter2-Secret|aHVudGVyMi1TZWNyZXQ|odW50ZXIyLVNlY3JldA", re.IGNORECASE)
PLAIN = "AG1lLW15c2VsZgBodW50ZXIyLVNlY3JldA"
CLEAR = re.compile(rb"(?:EHLO client\.example\r\n(?:STARTTLS\r\n)?)?")
SHORT = b"Subject: x\r\n\r\n.dot\r\nlast"
MAIL_FROM, *RECIPIENTS = envelope_recipients(["a@client.example", "b@server.example", "c@server.example"])
# What an error says at the most, hint included.
MOST = 2000


class Case(IntFlag):
    """What is asked for."""

    STARTTLS = 1
    LOGIN = 2
    ALLOW = 4
    LONG = 8
    EIGHT_BIT = 16


def _content(case: Case) -> Content:
    eight_bit = "\r\nü".encode() if Case.EIGHT_BIT in case else b""
    # The dots are doubled, and two blocks are filled.
    return Content.from_bytes(SHORT + eight_bit + (b"\r\n." * (BLOCK // 3) if Case.LONG in case else b""))


CONTENTS = {Case(case): _content(Case(case)) for case in range(32)}
WRITTEN = {case: b"".join(content.blocks()) for case, content in CONTENTS.items()}


def check(octets: bytes) -> str:
    """Check every rule on the session that *octets* make, and return the outcome's name."""
    case = Case(octets[0] & 31 if octets else 0)
    wire = Wire(octets[1:].split(b"|"))
    mode = TLSMode.STARTTLS if Case.STARTTLS in case else TLSMode.IMPLICIT
    error: SecureSMTPError | None = None
    with mock.patch.multiple(transport, wrap=wire.wrap, verify_session=lambda *_: TLS):
        link = memory_link(wire, mode)
        try:
            session = link.run(open_session(mode, b"client.example"))
            if Case.LOGIN in case:
                link.run(authenticate(session, LOGIN))
            submission = Submission(MAIL_FROM, tuple(RECIPIENTS), CONTENTS[case])
            link.run(deliver(session, submission, "allow" if Case.ALLOW in case else "raise"))
        except SecureSMTPError as failure:
            error = failure
        steps = list(_steps(wire.log))
        _check_end(wire, error, lambda: link.close_gracefully(quit_session()))
    content = WRITTEN[case]
    _check_wire(wire, case, content)
    if error is None:
        _check_accepted(steps, case, content)
        return Outcome.ACCEPTED.value
    _check_outcome(error, steps[-1:], ended=content in bytes(wire.secret))
    _check_shown(error, wire)
    return error.outcome.value


def _check_end(wire: Wire, error: SecureSMTPError | None, close: Callable[[], None]) -> None:
    """After an error nothing more is written; after a refusal in step, and after success, only QUIT is."""
    usable = not wire.closed
    assert usable or error is not None
    # A refusal in the middle of the content is in step, and closes all the same.
    assert not usable or error is None or is_session_usable(error)
    written = len(wire.clear + wire.secret)
    close()
    assert wire.closed
    assert bytes(wire.clear + wire.secret)[written:] in ([b"", b"QUIT\r\n"] if usable else [b""])


def _check_wire(wire: Wire, case: Case, content: bytes) -> None:
    """Nothing but EHLO and STARTTLS in the clear, TLS after a 220 alone, and one content at the most."""
    assert CLEAR.fullmatch(bytes(wire.clear)), "something else than EHLO and STARTTLS was written in the clear"
    assert Case.STARTTLS in case or not wire.clear
    if b"STARTTLS" in wire.clear:
        _, offer = next(_steps(wire.log))
        assert re.search(rb"(?im)^250[ -]STARTTLS[ \r]", offer), "STARTTLS was written, and not offered"
    if wire.upgraded_after is not None:
        assert _says(b"220", wire.upgraded_after), f"TLS was begun after {wire.upgraded_after!r}"
    _, _, after = bytes(wire.secret).partition(b"\r\nDATA\r\n")
    ends = (b"QUIT\r\n", b"RSET\r\n", b"RSET\r\nQUIT\r\n", content + b"QUIT\r\n")
    assert content.startswith(after) or after in ends, "something else than the content was written after DATA"


def _check_accepted(steps: list[tuple[bytes, bytes]], case: Case, content: bytes) -> None:
    """Read the log once more, without the reader: each thing that was written has the right and well-formed answer."""
    rights = [(b"EHLO", b"250"), (b"STARTTLS", b"220")] if Case.STARTTLS in case else []
    rights += [(b"EHLO", b"250"), *[(b"AUTH", b"235")] * (Case.LOGIN in case), (b"MAIL", b"250")]
    rights += [(b"RCPT", b"...") if Case.ALLOW in case else (b"RCPT", b"25.")] * 2
    for verb, code in [*rights, (b"DATA", b"354")]:
        wrote, read = steps.pop(0)
        assert wrote.startswith(verb), f"{wrote[:20]!r} was written where {verb!r} should be"
        while verb == b"AUTH" and read.startswith(b"334"):
            _, read = steps.pop(0)
        assert _says(code, read), f"{read!r} was taken for a success"
    wrote, read = steps.pop(0)
    assert wrote == content
    # What else was said by then is met by whoever writes next.
    assert _says(b"250", read, b".*"), f"{read!r} was taken for a success"
    assert not steps


def _says(code: bytes, read: bytes, more: bytes = b"") -> bool:
    """Return whether *read* is one well-formed reply with this *code*, by an expression that knows no reader."""
    text = rb"[^\r\n]*\r\n"
    return re.fullmatch(rb"(%b)(?:-%b\1)*(?: %b|\r\n)(?s:%b)" % (code, text, text, more), read) is not None


def _steps(log: list[Said]) -> Iterator[tuple[bytes, bytes]]:
    """Yield what was written together with what was read after it; the greeting is left out."""
    wrote = read = b""
    for who, octets in log:
        if who == "client" and read:
            yield wrote, read
            wrote, read = octets, b""
        elif who == "client":
            wrote += octets
        elif wrote:
            read += octets
    if wrote:
        yield wrote, read


def _check_outcome(error: SecureSMTPError, last: list[tuple[bytes, bytes]], *, ended: bool) -> None:
    """The outcome is the truth: unknown from when the last block was written whole, unless the server said no."""
    # The link's gate is the last defence, and the dialogues never come to it.
    assert type(error) is not TLSError, error
    assert not isinstance(error, ConfigurationError) or isinstance(error, MessageError), error
    assert error.outcome is not Outcome.ACCEPTED
    assert (error.outcome is Outcome.UNKNOWN) is isinstance(error, OutcomeUnknownError)
    assert (error.outcome is Outcome.REFUSED) is isinstance(error, RefusedError)
    if isinstance(error, OutcomeUnknownError):
        assert ended, "unknown, and the content was not ended"
        assert not error.retryable
    elif ended:
        assert isinstance(error, DataRefusedError), "the content was ended, and this is too sure"
        assert re.search(rb"(?m)^[45]\d\d", last[0][1]), f"{last!r} was taken for a refusal"


def _check_shown(error: SecureSMTPError, wire: Wire) -> None:
    """An error and what led to it are each one line, not long, and without a secret that the server was told."""
    wrote = wire.secret.decode("latin-1")
    told = PLAIN in wrote or PASSWORD.search(wrote) is not None
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, SecureSMTPError):
            assert str(seen).isprintable()
            assert len(str(seen)) <= MOST
        shown = f"{seen} {seen!r} {seen.args!r} {vars(seen)!r}"
        assert not (told and PASSWORD.search(shown)), "a password is shown"
        assert not told or PLAIN not in shown, "what was written to log in is shown"
        seen = seen.__cause__ or seen.__context__
