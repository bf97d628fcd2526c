"""What a server repeats of a login is cut out of its words, and nothing else (AUTH-08)."""

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
from securesmtp._protocol import redaction
from securesmtp._protocol.capabilities import parse_capabilities
from securesmtp._protocol.redaction import _KEYWORD, REDACTED, Memory, Redactor
from securesmtp._protocol.wire import RawReply, ReplyReader, line
from securesmtp.errors import ProtocolError

_OUT = REDACTED.decode()
PASSWORD = "correct horse"


def told(password: str, name: str = "joe", memory: Memory | None = None) -> ReplyReader:
    """Return a reader that knows of a login by AUTH PLAIN."""
    reader = ReplyReader(memory)
    token = base64.b64encode(f"\0{name}\0{password}".encode())
    reader.conceal(line(b"AUTH", b"PLAIN", token, secrets=(password.encode(),)))
    return reader


def shown(password: str, *texts: str, code: str = "535") -> list[str]:
    """Return the lines of a reply of *texts*, as they are shown after a login with *password*."""
    lines = [f"{code}-{text}" for text in texts[:-1]] + [f"{code} {texts[-1]}"]
    return [text.decode("utf-8", "surrogateescape") for text in _raw(lines, told(password)).lines]


def _raw(lines: list[str], reader: ReplyReader) -> RawReply:
    return raw("\n".join(lines).encode("utf-8", "surrogateescape"), reader)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("password", "texts", "left"),
    [
        pytest.param("hunter22", ["no", "is hunter22, joe", "bye"], ["no", f"is {_OUT}, joe", "bye"], id="one line"),
        pytest.param("hunter22", ["5.7.8 hunter22"], [f"5.7.8 {_OUT}"], id="enhanced code"),
        pytest.param("hunter22", ["hunt", "er22"], [_OUT, _OUT], id="over two lines"),
        pytest.param("hunter22", ["5.7.8 hunt", "5.7.8 er22"], [f"5.7.8 {_OUT}"] * 2, id="enhanced codes between"),
        pytest.param("5.111.222.333", ["5.111.222", "5.222.333 x"], ["5.111.222", f"5{_OUT} x"], id="in other codes"),
        pytest.param("hunter22", ["hunter22", "a hunt", "er22 b"], [_OUT, f"a {_OUT}", f"{_OUT} b"], id="decoy"),
        pytest.param("hunter22", ["no h u n t e r 2 2 no"], [f"no {_OUT} no"], id="blanks"),
        pytest.param("hunter22", ["no HUNTER no"], [f"no {_OUT} no"], id="capitals, in part"),
        pytest.param("pässwörd", ["PÄSSWÖRD!"], [f"{_OUT}!"], id="capitals beyond ASCII"),
        pytest.param("großeß!", ["is GROSSESS!"], [f"is {_OUT}"], id="capitals that are two letters"),
        pytest.param("пароль", ["ПАРОЛЬ нет"], [f"{_OUT} нет"], id="another script"),
        pytest.param("\u0131s\u0131t\u0131c\u0131", ["ISITICI"], [_OUT], id="a capital of two letters"),
        pytest.param("hunter22", ["\udcff\udcc3hunter22\udcff"], [f"\udcff\udcc3{_OUT}\udcff"], id="no UTF-8 around"),
        pytest.param("pässwörd", ["p\udcc3", "\udca4sswörd"], [_OUT, _OUT], id="a character in two lines"),
        pytest.param("hunter22", [f"no {_b64('hunter22')} no"], [f"no {_OUT} no"], id="base64"),
        pytest.param("hunter22", [f"{_b64('xhunter22y')}: no"], [f"{_OUT}: no"], id="base64 after one octet"),
        pytest.param("hunter22", [f"{_b64('xyhunter22')}"], [_OUT], id="base64 after two"),
        pytest.param("hunter22", [_b64("\0joe\0hunter22").upper()], [_OUT], id="our token, in capitals"),
        pytest.param("hunter22", ["use of ter22"], ["use of ter22"], id="five octets are an accident"),
        pytest.param("hunter22", ["a", "b"], ["a", "b"], id="nothing"),
        pytest.param("ab", ["no 'ab'"], [f"no '{_OUT}'"], id="short: a word"),
        pytest.param("ab", ["crab about AB"], [f"crab about {_OUT}"], id="short: no part of a word"),
        pytest.param("ab", ["no", "ab", "crab"], ["no", _OUT, "crab"], id="short: a line"),
        pytest.param("ab", ["of a", "b"], [f"of {_OUT}", _OUT], id="short: over two lines"),
        pytest.param("ab", [f"no {_b64('ab')}"], [f"no {_OUT}="], id="short: in base64"),
        pytest.param("ab", [f"no {_b64(chr(0) + 'joe' + chr(0) + 'ab')}"], [f"no {_OUT}"], id="short: our token"),
        pytest.param("a b", ["your a b is wrong"], [f"your {_OUT} is wrong"], id="short with a blank"),
        pytest.param("a  bcd", ["A BCD?"], [f"{_OUT}?"], id="six octets with blanks"),
        pytest.param("!a", ["x!a a!"], [f"x{_OUT} a!"], id="short: no letter at its edge"),
        pytest.param("ü", ["Ü ü über"], [f"{_OUT} über"], id="short: one character"),
        pytest.param("  ", ["a reply  with blanks"], ["a reply  with blanks"], id="blanks alone"),
        pytest.param("x", ["x-" * 8], [f"{_OUT}-" * 8], id="eight cuts"),
        pytest.param("x", ["4.2.2 " + "x-" * 9], ["4.2.2 " + _OUT], id="nine cuts: the line"),
    ],
)
def test_what_repeats_a_password_is_cut_out(password: str, texts: list[str], left: list[str]) -> None:
    """Six octets in a row, however they are written, or a shorter one as a word; the rest of the line stays."""
    assert shown(password, *texts) == left


@pytest.mark.parametrize("password", ["4.2.2", "452", "2", "4.2", "2.2mailbox"])
def test_the_codes_are_never_cut_out(password: str) -> None:
    """What a reply means is not changed by a password: 452 4.2.2 is a full mailbox, and not too many recipients."""
    reply = _raw(["452-4.2.2 mailbox", f"452 4.2.2 {password}, full"], told(password)).reply()
    assert (reply.code, reply.enhanced) == (452, "4.2.2")
    assert reply.text.endswith(f" 4.2.2 {_OUT}, full")


@pytest.mark.parametrize("password", ["auth", "PLAIN", "Login", "STARTTLS", "starttls now", "SmtpUtf8", "8bitmime"])
def test_what_a_server_offers_is_never_cut_out(password: str) -> None:
    """The second EHLO is understood as the first was, whatever word the password is."""
    offers = ["mx", "STARTTLS", "AUTH X-PLAIN PLAIN LOGIN", "SMTPUTF8", "8BITMIME", "SIZE 10"]
    lines = _raw([*(f"250-{text}" for text in offers[:-1]), "250 SIZE 10"], told(password)).lines
    capabilities = parse_capabilities(lines)
    assert set(capabilities.keywords) == {"STARTTLS", "SMTPUTF8", "8BITMIME", "SIZE"}
    assert {"PLAIN", "LOGIN"} <= set(capabilities.auth)


ALIGNED = [base64.b64encode(b"x" * before + PASSWORD.encode() + b"xy") for before in range(3)]
TOKEN = base64.b64encode(b"\0joe\0" + PASSWORD.encode())


@pytest.mark.parametrize("echo", [b"AUTH PLAIN " + TOKEN, b"235_" + PASSWORD.encode(), b"535-no\r\n" + TOKEN, *ALIGNED,
                                  b"535-correct hor\r\nse"])  # fmt: skip
def test_a_malformed_echo_is_redacted(echo: bytes) -> None:
    """A server that sends our own line back, or the password in base64 within other words, is not quoted."""
    reader = told(PASSWORD)
    reader.feed(echo + b"\r\n")
    with pytest.raises(ProtocolError) as caught:
        reader.next()
    assert _OUT in str(caught.value)
    frames = [entry.frame.f_locals for entry in caught.traceback if "wire" in str(entry.path)]
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
    Whatever its script, however it is written, and wherever line ends cut it, six octets in a row do not remain.

    Unless it has a word of EHLO's in it, which stays: see `test_what_a_server_offers_is_never_cut_out`.
    """
    echo = _FORMS[form](password).encode()
    pieces = [echo[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True)]
    # A line end of its own is not ours to put in.
    if not _fold(password) or _KEYWORD.search(echo) or any(set(piece) & set(b"\r\n") for piece in pieces):
        return
    reader = told(password)
    reader.feed(b"".join(b"535-" + piece + b"\r\n" for piece in pieces) + b"535 end of it\r\n")
    found = reader.next()
    assert found is not None
    left = _fold(b"".join(found.lines).replace(REDACTED, b"\n").decode("utf-8", "replace"), "\n")
    secret = _fold(echo.decode()).encode()
    assert not any(secret[at : at + 6] in left.encode() for at in range(len(secret) - 5))


def test_every_letter_of_unicode_is_one_in_all_its_cases() -> None:
    """And what is cut out is what was found: each folded byte has its place."""
    letters = [letter for letter in map(chr, range(sys.maxunicode + 1)) if {letter.upper(), letter.lower()} != {letter}]
    assert len(letters) > 2500
    for letter in letters:
        forms = {letter, letter.upper(), letter.lower(), letter.title(), letter.swapcase(), letter.casefold()}
        assert len({redaction._folded(form.encode()) for form in forms}) == 1
        text = f"a {letter}\t".encode()
        assert len(redaction._places(text)[0]) == len(redaction._folded(text))


def _fold(text: str, keep: str = "") -> str:
    return "".join(c for c in text.upper().casefold() if not c.isspace() or c in keep)


@given(st.lists(st.text(string.ascii_letters + string.digits + " .:-<>@", max_size=60), min_size=1, max_size=4))
@settings(max_examples=examples(300), deadline=None)
def test_what_repeats_nothing_is_not_changed(texts: list[str]) -> None:
    """The server's words are for people and programs: queue ids, names, reasons."""
    assert shown("§§§§§§", *texts) == texts
    assert shown("§", *texts) == texts


def test_a_name_is_no_secret() -> None:
    """AUTH LOGIN sends it as it sends the password; replies that speak of the user are shown (RFC 4954 §4)."""
    reader = ReplyReader()
    reader.conceal(line(base64.b64encode(b"joe@example.org")))
    reader.conceal(line(base64.b64encode(b"hunter22"), secrets=(b"hunter22",)))
    reply = _raw(["452 4.2.2 <joe@example.org>: hunter22 over quota (id am9lQGV4YW1wbGUub3Jn)"], reader).reply()
    assert str(reply) == f"452 4.2.2 <joe@example.org>: {_OUT} over quota (id am9lQGV4YW1wbGUub3Jn)"
    assert reply.enhanced == "4.2.2"


def test_what_one_connection_has_sent_all_of_them_know() -> None:
    """A server repeats in the greeting of the next what it was told on the last."""
    memory = Memory()
    other = ReplyReader(memory)
    told("hunter22", memory=memory)
    for reader in (other, ReplyReader(memory)):
        assert _raw(["220 hello hunter22"], reader).lines == (b"hello " + REDACTED,)
    assert _raw(["220 hello hunter22"], ReplyReader()).lines == (b"hello hunter22",)


def test_a_token_that_changes_fills_no_memory() -> None:
    """The last ones are known to all, its own to each connection, and one that comes again takes no second place."""
    memory = Memory()
    first = told("token-number-one", memory=memory)
    for number in range(100):
        told(f"another {number:09}", memory=memory)
    for _ in range(100):
        told("the last one", memory=memory)
    assert len(memory.known()) == redaction._KEPT
    texts = ["token-number-one", "another 000000099", "another 000000098", "another 000000097", "the last one"]
    left = [_raw([f"220 {text}"], ReplyReader(memory)).lines[0] == REDACTED for text in texts]
    assert left == [False, True, True, True, True]
    assert _raw(["220 token-number-one"], first).lines == (REDACTED,)


def test_no_secret_is_kept_and_a_hash_tells_nothing() -> None:
    """Each mailer has its own key; nothing that can be shown has the key, the hashes or the secret."""
    made = []
    for _ in range(2):
        memory = Memory()
        redactor = Redactor(memory)
        redactor.add((b"hunter22",), b"aHVudGVyMjI=")
        made.append(memory.known()[0])
        for each in (memory, redactor, made[-1]):
            assert re.fullmatch(r"<securesmtp\._protocol\.redaction\.\w+ object at 0x[0-9a-f]+>", repr(each))
        kept = [*made[-1].plain, *made[-1].encoded, *made[-1].words]
        assert all(type(value) is int for value in kept)
        assert not {hash(b"hunter"), hash(b"unter2"), hash(b"nter22")} & set(kept)
    assert not made[0].plain & made[1].plain


@pytest.mark.parametrize("text", ["x" * 60, "hunter22", "x " * 30, "ab" * 30], ids=plain_id)
@pytest.mark.parametrize("password", ["x", "hunter22", "xxxxxx", "ab"])
def test_a_reply_does_not_grow_by_what_is_cut_out(password: str, text: str) -> None:
    """Nobody fills a log, or our memory, with a word that stands for a letter (RPL-03)."""
    left = shown(password, *[text] * 100)
    assert sum(map(len, left)) <= 100 * (len(text) + 8 * len(_OUT))


def test_a_reply_that_says_nothing_else_is_left_out_whole() -> None:
    """No time is spent on where each of a thousand echoes stands; the codes stay (RPL-03)."""
    reply = _raw(["535-5.7.8 " + "hunter22 " * 200] * 5 + ["535 5.7.8 no"], told("hunter22"))
    assert reply.lines == (b"5.7.8 " + REDACTED,) * 6
    # The letter of a short one is no echo.
    assert shown("x", *["max " * 500] * 3) == ["max " * 500] * 3
