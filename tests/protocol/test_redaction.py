"""Secrets that a server repeats are redacted, and nothing else (AUTH-08)."""

from __future__ import annotations

import base64
import re
import string
import sys
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import examples
from protocol.play import plain_id, raw
from securesmtp._protocol import redaction, wire
from securesmtp._protocol.capabilities import parse_capabilities
from securesmtp._protocol.redaction import _KEYWORD, REDACTED, Memory, Redactor
from securesmtp._protocol.sasl import RANKED
from securesmtp._protocol.wire import RawReply, ReplyReader, line
from securesmtp.errors import ProtocolError

_OUT = REDACTED.decode()
PASSWORD = "correct horse"


def logged_in(password: str, name: str = "joe", memory: Memory | None = None) -> ReplyReader:
    """Return the reader of a connection on which AUTH PLAIN was sent."""
    reader = ReplyReader(memory)
    token = base64.b64encode(f"\0{name}\0{password}".encode())
    reader.redact(line(b"AUTH", b"PLAIN", token, secrets=(password.encode(),)))
    return reader


def redact(password: str, *texts: str, code: str = "535") -> list[str]:
    """Return the lines of a reply of *texts* after a login with *password*."""
    lines = [f"{code}-{text}" for text in texts[:-1]] + [f"{code} {texts[-1]}"]
    return [text.decode("utf-8", "surrogateescape") for text in _raw(lines, logged_in(password)).lines]


def _raw(lines: list[str], reader: ReplyReader) -> RawReply:
    return raw("\n".join(lines).encode("utf-8", "surrogateescape"), reader)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("password", "texts", "redacted"),
    [
        pytest.param("hunter22", ["no", "is hunter22, joe", "bye"], ["no", f"is {_OUT}, joe", "bye"], id="one line"),
        pytest.param("hunter22", ["5.7.8 hunter22"], [f"5.7.8 {_OUT}"], id="enhanced code"),
        pytest.param("hunter22", ["hunt", "er22"], [_OUT, _OUT], id="over two lines"),
        pytest.param("hunter22", ["5.7.8 hunt", "5.7.8 er22"], [f"5.7.8 {_OUT}"] * 2, id="enhanced codes between"),
        pytest.param("5.111.222.333", ["5.111.222", "5.222.333 x"], ["5.111.222", f"5{_OUT} x"], id="in other codes"),
        pytest.param("hunter22", ["hunter22", "a hunt", "er22 b"], [_OUT, f"a {_OUT}", f"{_OUT} b"], id="decoy"),
        pytest.param("hunter22", ["no h u n t e r 2 2 no"], [f"no {_OUT} no"], id="blanks"),
        pytest.param("hunter22", ["no HUNTER no"], [f"no {_OUT} no"], id="a part in upper case"),
        pytest.param("pässwörd", ["PÄSSWÖRD!"], [f"{_OUT}!"], id="non-ASCII in upper case"),
        pytest.param("großeß!", ["is GROSSESS!"], [f"is {_OUT}"], id="upper case has more letters"),
        pytest.param("пароль", ["ПАРОЛЬ нет"], [f"{_OUT} нет"], id="another script"),
        pytest.param("\u0131s\u0131t\u0131c\u0131", ["ISITICI"], [_OUT], id="two letters share an upper case"),
        pytest.param("hunter22", ["\udcff\udcc3hunter22\udcff"], [f"\udcff\udcc3{_OUT}\udcff"], id="bad UTF-8 around"),
        pytest.param("pässwörd", ["p\udcc3", "\udca4sswörd"], [_OUT, _OUT], id="a character over two lines"),
        pytest.param("hunter22", [f"no {_b64('hunter22')} no"], [f"no {_OUT} no"], id="base64"),
        pytest.param("hunter22", [f"{_b64('xhunter22y')}: no"], [f"{_OUT}: no"], id="base64 at offset 1"),
        pytest.param("hunter22", [f"{_b64('xyhunter22')}"], [_OUT], id="base64 at offset 2"),
        pytest.param("hunter22", [_b64("\0joe\0hunter22").upper()], [_OUT], id="the sent token in upper case"),
        pytest.param("hunter22", ["use of ter22"], ["use of ter22"], id="five bytes may be an accident"),
        pytest.param("hunter22", ["a", "b"], ["a", "b"], id="nothing"),
        pytest.param("ab", ["no 'ab'"], [f"no '{_OUT}'"], id="short: a word"),
        pytest.param("ab", ["crab about AB"], [f"crab about {_OUT}"], id="short: not part of a word"),
        pytest.param("ab", ["no", "ab", "crab"], ["no", _OUT, "crab"], id="short: a line"),
        pytest.param("ab", ["of a", "b"], [f"of {_OUT}", _OUT], id="short: over two lines"),
        pytest.param("ab", [f"no {_b64('ab')}"], [f"no {_OUT}="], id="short: in base64"),
        pytest.param("ab", [f"no {_b64(chr(0) + 'joe' + chr(0) + 'ab')}"], [f"no {_OUT}"], id="short: the sent token"),
        pytest.param("a b", ["your a b is wrong"], [f"your {_OUT} is wrong"], id="short with a space"),
        pytest.param("a  bcd", ["A BCD?"], [f"{_OUT}?"], id="six bytes with spaces"),
        pytest.param("!a", ["x!a a!"], [f"x{_OUT} a!"], id="short: begins with no letter"),
        pytest.param("ü", ["Ü ü über"], [f"{_OUT} über"], id="short: one character"),
        pytest.param("  ", ["a reply  with spaces"], ["a reply  with spaces"], id="nothing but spaces"),
        pytest.param("x", ["x-" * 8], [f"{_OUT}-" * 8], id="eight redactions"),
        pytest.param("x", ["4.2.2 " + "x-" * 9], ["4.2.2 " + _OUT], id="nine redactions: the line"),
    ],
)
def test_a_repeated_password_is_redacted(password: str, texts: list[str], redacted: list[str]) -> None:
    """Six consecutive bytes in any form, or a shorter password as a word, are redacted; the rest of the line stays."""
    assert redact(password, *texts) == redacted


@pytest.mark.parametrize("password", ["4.2.2", "452", "2", "4.2", "2.2mailbox"])
def test_codes_are_never_redacted(password: str) -> None:
    """A password does not change the meaning of a reply: 452 4.2.2 is a full mailbox, not too many recipients."""
    reply = _raw(["452-4.2.2 mailbox", f"452 4.2.2 {password}, full"], logged_in(password)).reply()
    assert (reply.code, reply.enhanced) == (452, "4.2.2")
    assert reply.text.endswith(f" 4.2.2 {_OUT}, full")


@pytest.mark.parametrize("password", ["auth", "PLAIN", "Login", "STARTTLS", "starttls now", "SmtpUtf8", "8bitmime"])
def test_keywords_of_ehlo_are_never_redacted(password: str) -> None:
    """A password that is a keyword does not change what the next EHLO means."""
    offers = ["mx", "STARTTLS", "AUTH X-PLAIN PLAIN LOGIN", "SMTPUTF8", "8BITMIME", "SIZE 10"]
    lines = _raw([*(f"250-{text}" for text in offers[:-1]), "250 SIZE 10"], logged_in(password)).lines
    capabilities = parse_capabilities(lines)
    assert set(capabilities.keywords) == {"STARTTLS", "SMTPUTF8", "8BITMIME", "SIZE"}
    assert {"PLAIN", "LOGIN"} <= set(capabilities.auth)


@pytest.mark.parametrize("name", RANKED)
def test_each_mechanism_is_still_offered_if_it_is_the_password(name: str) -> None:
    """A mechanism of the registry is a keyword of EHLO too."""
    lines = _raw(["250-mx", f"250 AUTH {name}"], logged_in(name)).lines
    assert parse_capabilities(lines).auth == (name,)


ALIGNED = [base64.b64encode(b"x" * before + PASSWORD.encode() + b"xy") for before in range(3)]
TOKEN = base64.b64encode(b"\0joe\0" + PASSWORD.encode())


@pytest.mark.parametrize("echo", [b"AUTH PLAIN " + TOKEN, b"235_" + PASSWORD.encode(), b"535-no\r\n" + TOKEN, *ALIGNED,
                                  b"535-correct hor\r\nse"])  # fmt: skip
def test_a_malformed_echo_is_redacted(echo: bytes) -> None:
    """The error shows neither the sent line nor the password in base64, and no frame of its traceback has them."""
    reader = logged_in(PASSWORD)
    reader.feed(echo + b"\r\n")
    with pytest.raises(ProtocolError) as caught:
        reader.next()
    assert _OUT in str(caught.value)
    frames = [entry.frame.f_locals for entry in caught.traceback if str(entry.path).endswith("wire.py")]
    assert frames
    assert not any(echo[-9:] in repr(value).encode() for frame in frames for value in frame.values())


_FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "upper": str.upper,
    "lower": str.lower,
    "swapped": str.swapcase,
    "casefolded": str.casefold,
    "blanks": " ".join,
    "base64": _b64,
    "base64 at 1": lambda text: _b64(f"x{text}"),
    "base64 at 2": lambda text: _b64(f"xy{text}"),
    "token": lambda text: _b64(f"\0joe\0{text}"),
}
_TEXT = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), min_size=6, max_size=40)


@given(_TEXT, st.sampled_from(sorted(_FORMS)), st.lists(st.integers(1, 60), max_size=3))
@example("ŉ" * 6, "upper", [])
@example("ΐΰςσ", "upper", [])
@example("İİİİ", "lower", [])
@settings(max_examples=examples(500), deadline=None)
def test_a_password_is_recognised_in_any_form_and_in_pieces(password: str, form: str, cuts: list[int]) -> None:
    """
    In any script, in any form and split over lines anywhere, no six consecutive bytes remain.

    Passwords with a keyword of EHLO in them are skipped: see `test_keywords_of_ehlo_are_never_redacted`.
    """
    echo = _FORMS[form](password).encode()
    pieces = [echo[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True)]
    # A piece with a line end of its own would make another line.
    if not _fold(password) or _KEYWORD.search(echo) or any(set(piece) & set(b"\r\n") for piece in pieces):
        return
    reader = logged_in(password)
    reader.feed(b"".join(b"535-" + piece + b"\r\n" for piece in pieces) + b"535 end of it\r\n")
    found = reader.next()
    assert found is not None
    left = _fold(b"".join(found.lines).replace(REDACTED, b"\n").decode("utf-8", "replace"), "\n")
    secret = _fold(echo.decode()).encode()
    assert not any(secret[at : at + 6] in left.encode() for at in range(len(secret) - 5))


def test_every_letter_of_unicode_matches_in_any_case() -> None:
    """Each byte of a folded letter is mapped to a place in the original text."""
    letters = [letter for letter in map(chr, range(sys.maxunicode + 1)) if {letter.upper(), letter.lower()} != {letter}]
    assert len(letters) > 2500
    for letter in letters:
        forms = {letter, letter.upper(), letter.lower(), letter.title(), letter.swapcase(), letter.casefold()}
        assert len({redaction._fold(form.encode()) for form in forms}) == 1
        text = f"a {letter}\t".encode()
        assert len(redaction._map_folded(text)[0]) == len(redaction._fold(text))


def _fold(text: str, keep: str = "") -> str:
    return "".join(c for c in text.upper().casefold() if not c.isspace() or c in keep)


@given(st.lists(st.text(string.ascii_letters + string.digits + " .:-<>@", max_size=60), min_size=1, max_size=4))
@settings(max_examples=examples(300), deadline=None)
def test_a_reply_without_a_secret_is_unchanged(texts: list[str]) -> None:
    """People and programs need its text: queue ids, names, reasons."""
    assert redact("§§§§§§", *texts) == texts
    assert redact("§", *texts) == texts


def test_a_user_name_is_not_redacted() -> None:
    """AUTH LOGIN sends it in the same way as the password, but replies about the user are shown (RFC 4954 §4)."""
    reader = ReplyReader()
    reader.redact(line(base64.b64encode(b"joe@example.org")))
    reader.redact(line(base64.b64encode(b"hunter22"), secrets=(b"hunter22",)))
    reply = _raw(["452 4.2.2 <joe@example.org>: hunter22 over quota (id am9lQGV4YW1wbGUub3Jn)"], reader).reply()
    assert str(reply) == f"452 4.2.2 <joe@example.org>: {_OUT} over quota (id am9lQGV4YW1wbGUub3Jn)"
    assert reply.enhanced == "4.2.2"


def test_all_connections_of_a_mailer_redact_the_same_secrets() -> None:
    """A server may repeat a secret in the greeting of another connection."""
    memory = Memory()
    other = ReplyReader(memory)
    logged_in("hunter22", memory=memory)
    for reader in (other, ReplyReader(memory)):
        assert _raw(["220 hello hunter22"], reader).lines == (b"hello " + REDACTED,)
    assert _raw(["220 hello hunter22"], ReplyReader()).lines == (b"hello hunter22",)


@pytest.mark.parametrize("is_own", [True, False], ids=["on this connection", "on another connection"])
def test_a_reply_that_was_free_of_secrets_is_searched_again_after_a_login(*, is_own: bool) -> None:
    """What was clean before the login may repeat its password."""
    memory = Memory()
    reader = logged_in("correct horse", memory=memory)
    for _ in range(2):
        assert raw(b"250 hunter22", reader).lines == (b"hunter22",)
        assert raw(b"250-hunter22\n250 correct horse", reader).lines == (b"hunter22", REDACTED)
    if is_own:
        reader.redact(line(b"AUTH", b"PLAIN", b"aHVudGVyMjI=", secrets=(b"hunter22",)))
    else:
        logged_in("hunter22", memory=memory)
    for _ in range(2):
        assert raw(b"250 hunter22", reader).lines == (REDACTED,)


def test_clean_replies_do_not_fill_the_memory() -> None:
    """A server that never repeats a reply costs no more than a few of them, and none that shows a secret is kept."""
    reader = logged_in("hunter22")
    kept = list[int]()
    for number in range(200):
        raw(b"250 %d queued" % number, reader)
        kept.append(len(reader._remembered))
    assert max(kept) == wire._MAX_REMEMBERED
    for unusual in (b"250-a\n250 b", b"250 " + b"x" * wire._MAX_REMEMBERED_LINE, b"250 is hunter22", b"334 aHVudGVy"):
        raw(unusual, reader)
    assert len(reader._remembered) == kept[-1]


def test_a_repeated_reply_is_the_same_object() -> None:
    """It is parsed once, and all receipts share its public form."""
    reader = logged_in("hunter22")
    first, again, other = (raw(text, reader) for text in (b"250 2.1.5 Ok", b"250 2.1.5 Ok", b"250 2.1.5 OK"))
    assert again is first
    assert again.reply() is first.reply()
    assert other.reply() != first.reply()
    assert first.reply(3).text == "2.…"
    assert first.reply().text == "2.1.5 Ok"


def test_tokens_that_change_do_not_fill_the_memory() -> None:
    """The mailer remembers the last four different ones, and a connection remembers its own."""
    memory = Memory()
    first = logged_in("token-number-one", memory=memory)
    for number in range(100):
        logged_in(f"another {number:09}", memory=memory)
    for _ in range(100):
        logged_in("the last one", memory=memory)
    assert len(memory.fingerprints()) == redaction._KEPT
    texts = ["token-number-one", "another 000000099", "another 000000098", "another 000000097", "the last one"]
    redacted = [_raw([f"220 {text}"], ReplyReader(memory)).lines[0] == REDACTED for text in texts]
    assert redacted == [False, True, True, True, True]
    assert _raw(["220 token-number-one"], first).lines == (REDACTED,)


def test_only_keyed_hashes_are_kept() -> None:
    """Each mailer has its own key, no fingerprint has a plain hash, and no repr shows key, hashes or secret."""
    fingerprints = []
    for _ in range(2):
        memory = Memory()
        redactor = Redactor(memory)
        redactor.add((b"hunter22",), b"aHVudGVyMjI=")
        fingerprints += memory.fingerprints()
        for each in (memory, redactor, fingerprints[-1]):
            assert re.fullmatch(r"<securesmtp\._protocol\.redaction\.\w+ object at 0x[0-9a-f]+>", repr(each))
        kept = [*fingerprints[-1].plain, *fingerprints[-1].encoded, *fingerprints[-1].words]
        assert all(type(value) is int for value in kept)
        assert not {hash(b"hunter"), hash(b"unter2"), hash(b"nter22")} & set(kept)
    assert not fingerprints[0].plain & fingerprints[1].plain


@pytest.mark.parametrize("text", ["x" * 60, "hunter22", "x " * 30, "ab" * 30], ids=plain_id)
@pytest.mark.parametrize("password", ["x", "hunter22", "xxxxxx", "ab"])
def test_redaction_adds_at_most_eight_placeholders_to_a_line(password: str, text: str) -> None:
    """A server cannot fill a log or the memory by repeating a short password (RPL-03)."""
    redacted = redact(password, *[text] * 100)
    assert sum(map(len, redacted)) <= 100 * (len(text) + 8 * len(_OUT))


def test_a_reply_of_nothing_but_secrets_is_redacted_as_a_whole() -> None:
    """The codes stay; the place of each of a thousand matches is not needed (RPL-03)."""
    reply = _raw(["535-5.7.8 " + "hunter22 " * 200] * 5 + ["535 5.7.8 no"], logged_in("hunter22"))
    assert reply.lines == (b"5.7.8 " + REDACTED,) * 6
    # A letter inside a word does not match a password of one letter.
    assert redact("x", *["max " * 500] * 3) == ["max " * 500] * 3
