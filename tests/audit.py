"""
Check what a client wrote against the design's invariants, from a server's log alone.

It does not use the library. The fixture `serve` runs it on each connection of each scripted server of the suite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from scripted import Connection, ScriptedServer, Turn

# Invariant 1: everything that may be written in plaintext.
_PLAIN = re.compile(rb"EHLO [!-~]+\r\n(STARTTLS\r\n)?")
# Invariant 6: every command that may be written inside TLS; a caller's string is only ever between < and >, once.
_PATH = rb'<(?:"(?:[^"\\<>\x00-\x1f\x7f]|\\[^<>\x00-\x1f\x7f])*"|[^\s"<>@\x00-\x1f\x7f]+)@[\[\]A-Za-z0-9.:-]+>'
# RFC 3461 §4.
_XTEXT = rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"
_COMMANDS = {
    b"EHLO": re.compile(rb"EHLO [!-~]+"),
    b"AUTH": re.compile(
        rb"AUTH (?:LOGIN|(?:PLAIN|EXTERNAL|SCRAM-SHA-(?:1|256|512)(?:-PLUS)?|XOAUTH2|OAUTHBEARER)(?: [A-Za-z0-9+/=]+)?)"
    ),
    b"MAIL": re.compile(
        rb"MAIL FROM:(?:<>|" + _PATH + rb")(?: SIZE=[0-9]+)?(?: BODY=(?:8BITMIME|BINARYMIME))?(?: SMTPUTF8)?"
        rb"(?: RET=(?:FULL|HDRS))?(?: ENVID=" + _XTEXT + rb")?(?: REQUIRETLS)?(?: BY=[1-9][0-9]{0,8};[NR]T?)?"
        rb"(?: MT-PRIORITY=(?:-?[1-9]|0))?(?: HOLDFOR=[1-9][0-9]{0,8}| HOLDUNTIL=[0-9]{4}-[0-9T:-]{14}Z)?"
    ),
    b"RCPT": re.compile(
        rb"RCPT TO:" + _PATH + rb"(?: NOTIFY=(?:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:FAILURE|DELAY)){0,2}))?"
        rb"(?: ORCPT=(?:rfc822|utf-8);" + _XTEXT + rb")?"
    ),
    b"DATA": re.compile(rb"DATA"),
    b"BDAT": re.compile(rb"BDAT [0-9]+ LAST"),
    b"RSET": re.compile(rb"RSET"),
    b"QUIT": re.compile(rb"QUIT"),
}
_CHALLENGED = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
# What may follow each command, by the first digits of its reply.
_NEXT = {
    (b"EHLO", b"250"): {b"AUTH", b"MAIL", b"QUIT"},
    # After the login, a server may refuse another EHLO.
    (b"EHLO again", b"250"): {b"MAIL", b"RSET", b"QUIT"},
    (b"EHLO again", b"4"): {b"MAIL", b"RSET", b"QUIT"},
    (b"EHLO again", b"5"): {b"MAIL", b"RSET", b"QUIT"},
    (b"AUTH", b"334"): {b"challenged"},
    (b"AUTH", b"235"): {b"MAIL", b"QUIT"},
    (b"MAIL", b"250"): {b"RCPT"},
    (b"MAIL", b"4"): {b"MAIL", b"RSET", b"QUIT"},
    (b"MAIL", b"5"): {b"MAIL", b"RSET", b"QUIT"},
    (b"RCPT", b"25"): {b"RCPT", b"DATA", b"BDAT", b"RSET", b"QUIT"},
    (b"RCPT", b"4"): {b"RCPT", b"DATA", b"BDAT", b"RSET", b"QUIT"},
    (b"RCPT", b"5"): {b"RCPT", b"DATA", b"BDAT", b"RSET", b"QUIT"},
    (b"DATA", b"354"): {b"content"},
    (b"DATA", b"4"): {b"RSET", b"QUIT"},
    (b"DATA", b"5"): {b"RSET", b"QUIT"},
    (b"BDAT", b"250"): {b"MAIL", b"QUIT"},
    (b"BDAT", b"4"): {b"RSET", b"QUIT"},
    (b"BDAT", b"5"): {b"RSET", b"QUIT"},
    (b"content", b"250"): {b"MAIL", b"QUIT"},
    (b"content", b"4"): {b"MAIL", b"RSET", b"QUIT"},
    (b"content", b"5"): {b"MAIL", b"RSET", b"QUIT"},
    (b"RSET", b"250"): {b"MAIL", b"QUIT"},
}
# What may follow each command before its reply arrives, where transactions overlap. RSET follows a chunk because the
# chunk may have been refused, which leaves its transaction open (RFC 3030 §2).
_OVERLAPPING = {
    b"MAIL": {b"RCPT"},
    b"RCPT": {b"RCPT", b"DATA", b"BDAT", b"RSET", b"MAIL", b"QUIT"},
    b"DATA": {b"RSET", b"MAIL", b"QUIT"},
    b"BDAT": {b"RSET", b"MAIL", b"QUIT"},
    b"content": {b"RSET", b"MAIL", b"QUIT"},
    b"RSET": {b"MAIL", b"QUIT"},
}
# What may follow a command in the same group (RFC 2920 §3.1, RFC 3030 §4.2).
_GROUP = {b"RSET": {b"MAIL"}, b"MAIL": {b"RCPT"}, b"RCPT": {b"RCPT", b"DATA", b"BDAT"}}
_REPLY = re.compile(rb"(?:([2-5][0-9][0-9])-[^\r\n]*\r\n(?:\1-[^\r\n]*\r\n)*\1|([2-5][0-9][0-9]))(?: [^\r\n]*)?\r\n")
_BINARY = re.compile(rb"(?:RSET\r\n)?MAIL FROM:[^\r]* BODY=BINARYMIME\b")
_LOGIN = re.compile(rb"^AUTH ", re.MULTILINE)


def audit(server: ScriptedServer) -> None:
    """Fail if a client of *server* broke an invariant."""
    for log in server.connections:
        plain = bytes(log.plain)
        # If the server stopped reading in the middle of a line, what it read must be the beginning of a legal one.
        assert _PLAIN.fullmatch(plain) or _begins(plain), f"in plaintext: {plain!r}"
        (_audit_overlapping if server.overlaps else _audit_session)(log)


def _audit_overlapping(log: Connection) -> None:
    """Check all commands in order, each against the reply to the one before, whenever that came (RFC 2920 §3.1)."""
    said, heard = bytes(log.secret), b"".join(bytes(t.octets) for t in log.turns if t.encrypted and t.who == "server")
    # In implicit TLS the first reply is the greeting, which belongs to no command.
    codes = iter(_replies(heard)[0][not log.plain :])
    allowed, is_binary, ehlos, has_login = {b"EHLO"}, False, 0, _LOGIN.search(said) is not None
    # By offset: to cut off each of a thousand commands copies the rest a thousand times.
    start = 0
    while start < len(said):
        end = said.find(b"\r\n", start)
        verb = _kind(said[start:] if end < 0 else said[start : end + 2], allowed)
        if end < 0:
            return
        command, start = said[start:end], end + 2
        code = next(codes, b"")
        if verb == b"DATA" and code == b"354":
            # An empty content ends with the CRLF of DATA and a dot.
            end = said.find(b"\r\n.\r\n", start - 2)
            content, start = (said[start:], len(said)) if end < 0 else (said[start:end], end + 5)
            assert not _smuggles(content.removesuffix(b"\r")), "a bare CR, a bare LF or a NUL in the content"
            verb, code = b"content", next(codes, b"")
        is_binary = b" BODY=BINARYMIME" in command if verb == b"MAIL" else is_binary
        if verb == b"BDAT":
            size = int(command.split(b" ")[1])
            chunk, start = said[start : start + size], start + size
            assert is_binary or not _smuggles(chunk.removesuffix(b"\r")), "a bare CR, a bare LF or a NUL in the chunk"
        verb = b"AUTH" if verb == b"challenged" else verb
        ehlos += verb == b"EHLO"
        verb = b"EHLO again" if verb == b"EHLO" and ehlos > 1 else verb
        known = (_NEXT[verb, code[:n]] for n in (3, 2, 1) if (verb, code[:n]) in _NEXT)
        # Without PIPELINING, each command follows the reply to the one before.
        allowed = _OVERLAPPING.get(verb, set()) | _with_ehlo(next(known, set()), ehlos, has_login=has_login)


def _smuggles(text: bytes) -> bool:
    """Return whether *text* has a bare CR, a bare LF or a NUL."""
    rest = text.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest or b"\0" in rest


def _begins(plain: bytes) -> bool:
    ehlo, end, rest = plain.partition(b"\r\n")
    return (b"EHLO ".startswith(ehlo[:5]) and not end) or (bool(end) and b"STARTTLS\r\n".startswith(rest))


def _audit_session(log: Connection) -> None:
    logins, ehlos, allowed, due, is_binary = 0, 0, {b"EHLO"}, 0, False
    has_login = _LOGIN.search(log.secret) is not None
    # A refused token is replaced by another one, once.
    has_token = re.search(rb"^AUTH (?:XOAUTH2|OAUTHBEARER)\b", log.secret, re.MULTILINE) is not None
    for said, answer in _exchanges(log):
        # RFC 3030 §3: only a body that was announced as binary may have any bytes.
        is_binary = _BINARY.match(said) is not None if said.startswith((b"MAIL", b"RSET")) else is_binary
        kinds, due = _kinds(said, allowed, due, is_binary=is_binary)
        logins += kinds.count(b"AUTH")
        ehlos += kinds.count(b"EHLO")
        assert logins <= 1 + has_token, "one login too many on one connection"
        replies, rest = _replies(answer)
        # After more replies than commands, nobody can tell which command a later reply belongs to.
        if len(replies) > len(kinds) or (len(replies) == len(kinds) and rest):
            return
        if due:
            # The rest of a chunk, begun before any reply.
            allowed = {b"chunk"}
            continue
        # Invariant 8: after 421, or a malformed or missing reply, nothing is written.
        whole = len(replies) == len(kinds) and b"421" not in replies
        last, code = (
            b"AUTH" if kinds[-1] == b"challenged" else kinds[-1].replace(b"chunk", b"BDAT"),
            (replies or [b""])[-1],
        )
        last = b"EHLO again" if last == b"EHLO" and ehlos > 1 else last
        following = next((_NEXT[last, code[:n]] for n in (3, 2, 1) if (last, code[:n]) in _NEXT), set())
        allowed = _with_ehlo(following, ehlos, has_login=has_login) if whole else set()
        if has_token and whole and last == b"AUTH" and code.startswith(b"5"):
            allowed = {b"AUTH", b"QUIT"}
        if kinds[-1] == b"content" and not said.endswith(b".\r\n"):
            # Refused in the middle: what the client had already written still arrives.
            allowed = {b"rest"}


def _with_ehlo(following: set[bytes], ehlos: int, *, has_login: bool) -> set[bytes]:
    """Return *following*, and EHLO if it may come once more: between transactions, after a login."""
    is_between = b"MAIL" in following or b"RSET" in following
    is_logged_in = has_login and b"AUTH" not in following
    return following | {b"EHLO"} if is_between and is_logged_in and ehlos == 1 else following


def _exchanges(log: Connection) -> Iterator[tuple[bytes, bytes]]:
    """Yield what the client wrote inside TLS, each time with what the server replied."""
    inside = [turn for turn in log.turns if turn.encrypted]
    for said, answer in pairwise([*inside, Turn("server", encrypted=True)]):
        if said.who == "client":
            yield bytes(said.octets), bytes(answer.octets)


def _replies(answer: bytes) -> tuple[list[bytes], bytes]:
    """Return the codes of the well-formed replies at the start of *answer*, and what follows them."""
    codes, start = [], 0
    # By offset: to cut off each of a thousand long replies copies the rest a thousand times.
    while found := _REPLY.match(answer, start):
        codes.append(answer[start : start + 3])
        start = found.end()
    return codes, answer[start:]


def _kinds(said: bytes, allowed: set[bytes], due: int, *, is_binary: bool) -> tuple[list[bytes], int]:
    """Return what a client's turn consists of, and how many octets of a chunk are still missing."""
    if allowed == {b"chunk"}:
        assert len(said) <= due, f"octets after the chunk: {said[due:][:200]!r}"
        text = b"" if is_binary else said.removesuffix(b"\r").removeprefix(b"\n")
        assert not _smuggles(text), "a bare CR, LF or a NUL in the chunk"
        return [b"chunk"], due - len(said)
    kinds = [_kind(said, allowed)]
    while kinds[-1] in _GROUP and b"\r\n" in said:
        said = said.partition(b"\r\n")[2]
        if not said:
            return kinds, 0
        kinds.append(_kind(said, _GROUP[kinds[-1]]))
    if kinds[-1] == b"BDAT" and b"\r\n" in said:
        command, _, chunk = said.partition(b"\r\n")
        size = int(command.split(b" ")[1])
        assert len(chunk) <= size, f"octets after the chunk: {chunk[size:][:200]!r}"
        return kinds, size - len(chunk)
    return kinds, 0


def _kind(said: bytes, allowed: set[bytes]) -> bytes:
    if allowed == {b"rest"}:
        assert b"\r\n.\r\n" not in said, "the content was ended after it had been refused"
        return b"rest"
    if allowed == {b"content"}:
        end = (b"\r\n" + said).find(b"\r\n.\r\n")
        assert end < 0 or end + 3 == len(said), f"octets after the content: {said[end:][:200]!r}"
        # A cut in the middle of a CRLF leaves a CR at the end.
        assert not _smuggles(said.removesuffix(b"\r")), "a bare CR, a bare LF or a NUL in the content"
        return b"content"
    line, ended, rest = said.partition(b"\r\n")
    if allowed == {b"challenged"}:
        assert not rest, f"more than one line at a time: {said[:200]!r}"
        assert _CHALLENGED.fullmatch(line), "a response to a challenge that is not base64"
        return b"challenged"
    verb = line.split(b" ")[0]
    if ended:
        assert verb in _COMMANDS, f"not a command of this library: {said[:200]!r}"
        assert _COMMANDS[verb].fullmatch(line), f"malformed: {said[:200]!r}"
        # RFC 3461 §5.4: NOTIFY and ORCPT come on top of that; RFC 8689, 2852, 6710 and 4865: REQUIRETLS and so on.
        limit = 512 + {b"RCPT": 29 + 501, b"MAIL": 11 + 17 + 15 + 34}.get(verb, 0)
        assert len(line) + 2 <= limit, f"longer than a command may be: {said[:200]!r}"
        assert not rest or verb in _GROUP or verb == b"BDAT", f"more than one line at a time: {said[:200]!r}"
    else:
        # A cut line may be the beginning of several commands: "R" of RSET and of RCPT.
        begun = {known for known in _COMMANDS if known.startswith(verb) or verb.startswith(known)}
        verb = next(iter((begun & allowed) or begun), b"")
    assert verb in allowed, f"{said[:200]!r} where only {allowed} may follow"
    return verb
