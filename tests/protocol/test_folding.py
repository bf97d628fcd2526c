"""Header fields: folded at white space alone, encoded by kind, in linear work."""

from __future__ import annotations

import binascii
import email
import email.policy
import re
import sys
from collections.abc import Callable
from email.headerregistry import Address, AddressHeader, Group, HeaderRegistry
from email.message import EmailMessage
from types import FrameType
from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from securesmtp._protocol import encoded_words as words
from securesmtp._protocol.address_fields import address_field, phrase, read_addresses
from securesmtp._protocol.encoded_words import encoded_words, text_field
from securesmtp._protocol.message import from_message
from securesmtp.errors import MessageError, SecureSMTPError

DATE = "Mon, 01 Jan 2024 00:00:00 +0000"
REGISTRY = HeaderRegistry()
# Read by programs: threads, one-click unsubscribe, inline images, signatures, providers' parameters.
PROGRAM = ["In-Reply-To", "References", "List-Unsubscribe", "Content-ID", "DKIM-Signature", "X-SMTPAPI", "X-Any"]
ASCII_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=120)
ASCII_TEXTS = st.lists(ASCII_TEXT, min_size=1, max_size=12).map(" ".join)
# Latin, combining, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Chinese, Japanese, Korean, emoji; what looks encoded.
SCRIPTS = ["plain", "Besançon", "dès", "e\u0301te\u0301", "λόγος", "Привет", "שלום", "مرحبا", "नमस्ते",
           "你好世界", "こんにちは", "안녕하세요", "\U0001f469\u200d\U0001f467", "=?utf-8?q?a?=", "=?", "?=", "a_b=3D",
           "ß" * 40, "x" * 90, "\u00a0", "\u3000", "\x1b", "\u2028"]  # fmt: skip
BLANKS = st.sampled_from([" ", " ", " ", "  ", "\t", " " * 30])
WORDS = st.lists(st.tuples(st.sampled_from(SCRIPTS) | st.text(st.characters(exclude_categories=["Cs"],
                 exclude_characters="\r\n\0"), max_size=30), BLANKS), min_size=1, max_size=15)  # fmt: skip
TEXTS = WORDS.map(lambda words: "".join(word + blank for word, blank in words).strip(" \t"))


def message(**fields: str) -> EmailMessage:
    """Return a message with these fields."""
    made = EmailMessage()
    made.set_content("text\n")
    for name, value in ({"From": "a@b.example", "To": "c@d.example"} | fields).items():
        made[name] = value
    return made


def written(made: EmailMessage, recipients: list[str] | None = None) -> bytes:
    """Return the octets as they are written."""
    mail_from = None if recipients is None else "a@b.example"
    submission = from_message(made, mail_from, recipients, date=lambda: DATE, token=lambda: "token")
    return b"".join(submission.content.chunk())


def field(octets: bytes, name: str) -> str:
    """Return the one field of this name, with its line ends."""
    header = octets.partition(b"\r\n\r\n")[0].decode("ascii") + "\r\n"
    (found,) = re.findall(rf"(?m)^{re.escape(name)}:.*\r\n(?:[ \t].*\r\n)*", header)
    return str(found)


def reads(text: str) -> str:
    """Return what a reader decodes, word by word as RFC 2047 §6.2 says; slow, and nothing but the rule."""
    parts = re.split(r"([ \t]+)", text)
    pattern = r"=\?([\w-]+)\?([qb])\?([!->@-~]*)\?="
    seen = ""
    for number, part in enumerate(parts):
        word = re.fullmatch(pattern, part)
        is_between = 0 < number < len(parts) - 1 and all(re.fullmatch(pattern, parts[number + i]) for i in (-1, 1))
        if word:
            octets = binascii.a2b_base64(word[3]) if word[2] == "b" else binascii.a2b_qp(word[3], header=True)
            seen += octets.decode(word[1])
        elif not is_between:
            seen += part
    return seen


def unfolded(text: str) -> str:
    """Return the value of a field as a reader unfolds it (RFC 5322 §2.2.3)."""
    return text.partition(":")[2].replace("\r\n", "").strip(" \t")


@pytest.mark.parametrize("how", ["set", "parsed"])
@pytest.mark.parametrize("name", PROGRAM)
@given(text=ASCII_TEXTS)
@settings(max_examples=40, deadline=None)
def test_an_ascii_field_is_folded_at_white_space_alone(name: str, how: str, text: str) -> None:
    """
    Never an encoded-word; lines of 78 where there are blanks, else as long as the word (RFC 5322 §2.1.1, §2.2.3).

    An encoded `In-Reply-To`, `List-Unsubscribe` or `b=` is read by no program.
    """
    assume(not re.search(r"=\?[^?]*\?[bqBQ]\?", text))
    text = f"c=relaxed/relaxed; b={text}" if name == "DKIM-Signature" else text
    made = message(**{name: text}) if how == "set" else raw(name, text)
    found = field(written(made), name)
    assert unfolded(found) == text
    for line in found.splitlines():
        # A parsed signature stays as it is.
        assert len(line) <= (998 if (name, how) == ("DKIM-Signature", "parsed") else 78) or not re.search(
            r"\S[ \t]+\S", line.removeprefix(f"{name}: ")
        )


@pytest.mark.parametrize("name", ["Subject", "Comments", "X-Any"])
@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_what_a_reader_decodes_is_what_was_set(name: str, text: str) -> None:
    """
    RFC 2047 §2: words of 75 octets, lines of 76, no character split; §6.2: blanks between encoded-words are not seen.

    Some Pythons lost a blank, others wrote two encoded-words without one between them.
    """
    assume(len(text.splitlines()) <= 1)
    made = message(**{name: text})
    wanted = str(made[name]).strip(" \t")
    try:
        octets = written(made)
    except MessageError as error:
        # A line end that was encoded.
        assert re.search(r"[\r\n]", wanted), error  # noqa: PT017 -- not each text is refused
        return
    found = field(octets, name)
    assert reads(unfolded(found)) == wanted or (name == "X-Any" and wanted.isascii())
    encoded = re.findall(r"=\?utf-8\?[qb]\?[^?]*\?=", found) if not wanted.isascii() else []
    assert all(len(word) <= 75 for word in encoded)
    assert all(len(line) <= 76 or " " not in line.strip(" ") for line in found.splitlines() if "=?utf-8?" in line)
    assert not re.search(r"\?==\?", found) or wanted.isascii()


@given(text=TEXTS)
@settings(max_examples=100, deadline=None)
def test_a_parsed_field_that_is_not_ascii_reads_as_it_did(text: str) -> None:
    """Raw UTF-8 between encoded-words of its own: each stays what it was."""
    assume(not re.search(r"[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text))
    made = message()
    made.set_raw("Subject", text.encode().decode("ascii", "surrogateescape"))
    found = field(written(made), "Subject")
    assert reads(unfolded(found)) == reads(text)


@pytest.mark.parametrize("name", ["Subject", "X-Any", "To", "Content-Type"])
@pytest.mark.parametrize("blank", [" ", "\t", " \t "])
def test_no_line_of_a_header_is_blank(name: str, blank: str) -> None:
    """RFC 5322 §3.2.2: some readers end the header there, and take the fields behind it for text."""
    text = {"To": "a@b.example", "Content-Type": "text/plain"}.get(name, "a")
    parsed = email.message_from_string(
        f"From: a@b.example\r\n{name}: {text}\r\n{blank}\r\n{blank}\r\nX-Last: x\r\n\r\nbody\r\n",
        policy=email.policy.default,
    )
    header = written(parsed, ["x@y.example"]).partition(b"\r\n\r\n")[0]
    assert f"{name}: {text}\r\nX-Last: x\r\n".encode() in header + b"\r\n"


@pytest.mark.parametrize("name", ["Subject", "X-Any"])
def test_a_word_longer_than_a_line_may_be(name: str) -> None:
    """Text is encoded; what may be for programs is refused by its name. A word of 997 is a line of its own."""
    made = message()
    made[name] = "a " + "x" * 997
    assert field(written(made), name) == f"{name}: a\r\n {'x' * 997}\r\n"
    made.replace_header(name, "a " + "x" * 998)
    if name == "Subject":
        assert reads(unfolded(field(written(made), name))) == made[name]
    else:
        with pytest.raises(MessageError, match=r"'X-Any' has more than 998 octets without a blank") as caught:
            written(made)
        assert "blanks" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["Message-ID", "References", "List-Unsubscribe", "X-SMTPAPI", "Content-ID"])
def test_what_programs_read_is_ascii_or_refused(name: str) -> None:
    """An encoded-word in it would not be decoded (RFC 2047 §5)."""
    made = message()
    made[name] = "<ü@x.example>"
    with pytest.raises(MessageError, match=f"{name} is not ASCII") as caught:
        written(made)
    assert "percent-encoded" in (caught.value.hint or "")


def test_text_that_no_spelling_keeps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is read again, whatever the writer thinks."""
    monkeypatch.setattr(words, "encoded_words", lambda *_: ["=?utf-8?q?other?="])
    with pytest.raises(MessageError, match="Subject cannot be written so that it is read as the same text"):
        text_field("Subject", "grün", limit=78, utf8=False)


def test_a_long_name_leaves_room_for_an_encoded_word() -> None:
    """On the next line, if there is none on the first."""
    made = text_field("X-" + "n" * 60, "grün", limit=78, utf8=False)
    assert made == f"X-{'n' * 60}:\r\n =?utf-8?q?gr=C3=BCn?=\r\n"


def test_octets_that_are_no_text_stay_what_they_are() -> None:
    """RFC 1428 §3 has a name for them; UTF-8 beside them is UTF-8 still."""
    assert encoded_words("gr\udcfcn") == ["=?unknown-8bit?q?gr=FCn?="]
    made = message()
    made.set_raw("X-Any", "gr\udcfcn")
    assert field(written(made), "X-Any") == "X-Any: =?unknown-8bit?q?gr=FCn?=\r\n"


@pytest.mark.parametrize("payload", ["=?utf-8?b?a?=", "=?iso-8859-1?q?=FC?="])
def test_an_encoded_word_of_others_is_kept(payload: str) -> None:
    """In a parsed field that must be written anew, one that we cannot read is as it was."""
    assert text_field("Subject", f"{payload} ü", limit=78, utf8=False, is_source=True) == (
        f"Subject: {payload} =?utf-8?b?IMO8?=\r\n"
    )


@pytest.mark.parametrize(
    ("text", "utf8", "spelt"),
    [
        ("Joe Doe", False, "Joe Doe"),
        ("Last, First", False, '"Last, First"'),
        ('a"b\\c', False, '"a\\"b\\\\c"'),
        ("J. Doe", False, '"J. Doe"'),
        ("Jörg, Last", False, "=?utf-8?q?J=C3=B6rg=2C_Last?="),
        ("Jörg, Last", True, '"Jörg, Last"'),
        ("Jörg", True, "Jörg"),
        ("=?utf-8?q?a?=", True, "=?utf-8?b?PT91dGYtOD9xP2E/PQ==?="),
        ("a\nb", False, "=?utf-8?q?a=0Ab?="),
        ("", False, '""'),
    ],
)
def test_a_display_name_is_an_atom_a_string_or_encoded(text: str, utf8: bool, spelt: str) -> None:  # noqa: FBT001
    """RFC 5322 §3.2.5; encoded for what is not ASCII or would be decoded (RFC 2047 §5 (3)), raw in RFC 6532."""
    assert phrase(text, 75, utf8=utf8) == spelt


NAMES = st.text(st.sampled_from('ab,;:<>@()[]"\\.ü語 ='), max_size=12)
LOCALS = st.sampled_from(["a", "b.c", "d+e", "x..y.", "with blank", 'q"q', "(c)"])
BOXES = st.builds(Address, NAMES, LOCALS, st.sampled_from(["b.example", "xn--bcher-kva.example", "[192.0.2.1]"]))
GROUPS = st.lists(
    BOXES.map(lambda box: Group(None, (box,))) | st.builds(Group, NAMES.filter(str.strip), st.lists(BOXES, max_size=3)),
    min_size=1,
    max_size=6,
)


def whole(name: str, text: str) -> AddressHeader:
    """Return the field as Python reads it at once."""
    return cast("AddressHeader", REGISTRY(name, text))


def boxes(groups: list[Group]) -> list[tuple[object, list[tuple[str, str]]]]:
    """Return what is in *groups*, without blanks in names, of which Python adds and drops some."""
    return [
        (
            None if group.display_name is None else re.sub(r"\s", "", group.display_name),
            [(re.sub(r"\s", "", a.display_name), f"{a.username}@{a.domain}") for a in group.addresses],
        )
        for group in groups
    ]


@given(groups=GROUPS)
@settings(max_examples=300, deadline=None)
def test_addresses_are_read_as_they_are_written(groups: list[Group]) -> None:
    """By our reader and by Python's; a name adds no address (RFC 5322 §3.4)."""
    text = address_field("To", groups, limit=78, utf8=False)
    assert text.isascii()
    found, is_list = read_addresses("To", unfolded(text), lambda piece: whole("To", piece))
    assert is_list
    assert boxes(found) == boxes(groups)
    assert boxes(list(whole("To", unfolded(text)).groups)) == boxes(groups)


TOKENS = st.sampled_from(["a@b.example", "c", "@", ",", ",", ";", ":", "<", ">", "(", ")", '"', '"x, y"', "[", "]",
                          "<a@b.example>", "\\", " ", ".", "<@r,@s:d@e.example>", "(a, b)", "G:", "ü"])  # fmt: skip


@given(text=st.lists(TOKENS, max_size=12).map("".join))
@settings(max_examples=400, deadline=None)
def test_a_list_is_one_if_python_reads_all_of_it(text: str) -> None:
    """Address by address, so in linear work, and never more than the whole says."""
    try:
        at_once = whole("To", text)
    except (IndexError, AttributeError, ValueError, TypeError):
        return
    try:
        found, is_list = read_addresses("To", text, lambda piece: whole("To", piece))
    except (IndexError, AttributeError, ValueError, TypeError):
        return
    defects = [type(defect).__name__ for defect in at_once.defects]  # type: ignore[attr-defined]
    if is_list and not any("Invalid" in defect for defect in defects):
        assert boxes(found) == boxes(list(at_once.groups))
    elif is_list:
        assert [a.addr_spec for g in found for a in g.addresses], (text, defects)


@pytest.mark.parametrize(
    "text", ["a@b.example; c@d.example", "G: a@b.example", "G: H: a@b.example;", "G:; a@b.example", "G:;:;"]
)
def test_a_list_with_a_separator_too_many_is_none(text: str) -> None:
    """A group has a name, members and an end; then a comma (RFC 5322 §3.4)."""
    assert not read_addresses("To", text, lambda piece: whole("To", piece))[1]


def test_an_address_longer_than_a_line_is_refused() -> None:
    """Python's parser would take the square of it."""
    with pytest.raises(MessageError, match="To has an address of more than 998 characters") as caught:
        read_addresses("To", "a" * 999, lambda piece: whole("To", piece))
    assert "commas" in (caught.value.hint or "")


@given(name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80).map(str.strip))
@settings(max_examples=150, deadline=None)
def test_a_filename_is_read_as_it_was_given(name: str) -> None:
    """RFC 2231: encoded, continued where it is long, no character split; lines of 78 where there is a blank."""
    assume(name and name.isprintable() and not re.search(r"=\?|''|^\"|\"$", name))
    made = message()
    made.add_attachment(b"x", maintype="application", subtype="x", filename=name)
    octets = written(made)
    assert octets.isascii()
    assert all(len(line) <= 78 or b" " not in line.strip() for line in octets.split(b"\r\n"))
    (part,) = email.message_from_bytes(octets, policy=email.policy.default).iter_attachments()
    assert part.get_filename() == made.get_payload(1).get_filename()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["=?utf-8?q?a?=", "=?utf-8?q?a=2C?= b", "a  b", " a", "a "])
def test_the_name_of_an_address_object_is_read_as_it_was_given(name: str) -> None:
    """Python's header object decodes what was never encoded, and loses blanks."""
    made = message()
    made["Reply-To"] = Address(name, "a", "b.example")
    (read,) = email.message_from_bytes(written(made), policy=email.policy.default)["Reply-To"].addresses
    assert read.display_name == name


def test_an_encoded_comma_in_a_name_stays_in_the_name() -> None:
    """It separates nothing (RFC 2047 §5 (3)). Python 3.14 leaves it encoded; where it is decoded, it is quoted."""
    made = message()
    made["Reply-To"] = "=?utf-8?q?=2C?= <a@b.example>, c@d.example"
    line = field(written(made), "Reply-To")
    assert line in {f"Reply-To: {name} <a@b.example>, c@d.example\r\n" for name in ("=?utf-8?q?=2C?=", '","')}


@pytest.mark.parametrize("raw", ["attachment; filename=b\xfccher.txt", 'attachment; filename="b\xfccher.txt"'])
def test_a_raw_filename_is_encoded_as_a_parameter(raw: str) -> None:
    """Programs send it in UTF-8; an encoded-word in quotes is no parameter (RFC 2047 §5)."""
    made = message()
    made.set_raw("Content-Disposition", raw.encode().decode("ascii", "surrogateescape"))
    assert field(written(made), "Content-Disposition") == (
        "Content-Disposition: attachment; filename*=utf-8''b%C3%BCcher.txt\r\n"
    )


@pytest.mark.parametrize("text", ["ü; a=b", f"attachment; {'n' * 61}=ü"])
def test_a_parameter_without_a_name_is_refused(text: str) -> None:
    """The value and the names are tokens (RFC 2045 §5.1); Python's folder never ends with a name of 75 characters."""
    made = message()
    made.set_raw("Content-Disposition", text)
    with pytest.raises(MessageError, match="Content-Disposition has a value or the name of a parameter"):
        written(made)


def test_a_parameter_of_any_length_is_written() -> None:
    """In sections, when it would be too long for a line."""
    made = message()
    made.add_header("Content-Disposition", "attachment", filename="x" * 950)
    found = field(written(made), "Content-Disposition")
    assert "".join(re.findall(r"filename\*\d+\*=(?:utf-8'')?(x+)", found)) == "x" * 950
    assert max(map(len, found.split("\r\n"))) <= 78


class TooMuchError(Exception):
    """The work has no end."""


def work(doing: Callable[[], object], most: int = 3_000_000) -> int:
    """Return how many calls *doing* makes, of Python's functions and of C's; an error of ours is a result."""
    calls = 0

    def count(_frame: FrameType, event: str, _what: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}
        if calls > most:
            sys.setprofile(None)
            raise TooMuchError

    sys.setprofile(count)
    try:
        doing()
    except SecureSMTPError:
        pass
    finally:
        sys.setprofile(None)
    return calls


def raw(name: str, value: str) -> EmailMessage:
    """Return a message as it is parsed, with one field of this."""
    made = message()
    del made[name]
    made.set_raw(name, value)
    return made


def nested(depth: int) -> EmailMessage:
    """Return a message in so many others."""
    made = message()
    for _ in range(depth):
        outer = message()
        outer.add_attachment(made)
        made = outer
    return made


def wide(count: int) -> EmailMessage:
    """Return a message of so many parts."""
    made = message()
    made.make_mixed()
    for number in range(count):
        part = EmailMessage()
        part.set_raw("Content-Type", f"text/plain; name=b{number}")
        made.attach(part)
    return made


def fields(count: int) -> EmailMessage:
    """Return a message of so many fields."""
    made = message()
    for number in range(count):
        made.set_raw(f"X-{number}", "x")
    return made


def signed(count: int) -> EmailMessage:
    """Return a message with so many fields, and a signature of so many others (RFC 6376 §3.5)."""
    made = fields(count)
    names = ":".join(f"y{number}" for number in range(count))
    made.set_raw("DKIM-Signature", f"v=1; c=relaxed/relaxed; h={names}".replace("0:", "0:\r\n "))
    return made


ENDLESS: dict[str, Callable[[int], EmailMessage]] = {
    "quotes": lambda n: raw("To", '"' * n),
    "addresses": lambda n: raw("To", ", ".join(f'"Last, {i}" <a{i}@b.example>' for i in range(n // 20))),
    "not ASCII": lambda n: raw("Cc", ", ".join(f"Jörg <a{i}@b.example>" for i in range(n // 20))),
    "a group": lambda n: raw("To", f"G: {', '.join(['a@b.example'] * (n // 20))};"),
    "commas": lambda n: raw("Reply-To", "ü" + "," * n),
    "comments": lambda n: raw("To", "(" * n),
    "angles": lambda n: raw("To", "<" * n),
    "brackets": lambda n: raw("To", "[" * n),
    "escapes": lambda n: raw("To", '"' + '\\"' * n),
    "a parameter's name": lambda n: raw("Content-Type", f"text/plain; {'n' * 75}={'ü' * (n // 10)}"),
    "parameters": lambda n: raw("Content-Type", "text/plain" + "; a=b" * (n // 10)),
    "quotes in a parameter": lambda n: raw("Content-Type", 'text/plain; a="' + '"' * n),
    "sections": lambda n: raw("Content-Disposition", "attachment" + "; f*1*=ü" * (n // 10)),
    "a long filename": lambda n: raw("Content-Disposition", f'attachment; filename="{"ü" * n}"'),
    "blanks": lambda n: raw("Subject", "ü" + " " * n + "ü"),
    "words": lambda n: raw("Subject", "ü a " * (n // 4)),
    "a word": lambda n: raw("Subject", "ü" * n),
    "no blank": lambda n: raw("References", "x" * n),
    "references": lambda n: raw("References", "<a@b.example> " * (n // 14)),
    "quotes in text": lambda n: raw("X-Any", '"\\' * n),
    "encoded-words": lambda n: raw("Subject", "ü " + "=?utf-8?q?a?= " * (n // 14)),
    "half encoded-words": lambda n: message(Subject="=?" * n),
    "fields": lambda n: fields(n // 4),
    "signed fields": lambda n: signed(n // 8),
    "parts": lambda n: wide(n // 20),
    "nesting": lambda n: nested(n // 400),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_twice_the_header_is_at_most_twice_the_work(kind: str) -> None:
    """
    Work is counted, not time. Some of these took minutes or for ever in Python's folder, which no deadline reaches.

    A kind that is refused is refused with a little work, whatever its size.
    """
    once, twice, more = (ENDLESS[kind](size) for size in (2000, 4000, 16000))
    few = work(lambda: written(once, ["x@y.example"]))
    many = work(lambda: written(twice, ["x@y.example"]))
    most = work(lambda: written(more, ["x@y.example"]))
    assert many <= 2.3 * few + 200
    assert most <= 9 * few + 1000
