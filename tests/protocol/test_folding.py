"""Header fields are folded only at white space, and encoded if their kind allows it, in linear time."""

from __future__ import annotations

import binascii
import email
import email.policy
import re
import sys
from collections.abc import Callable
from email.headerregistry import Address, Group
from email.message import EmailMessage
from types import FrameType

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol import encoded_words as words
from securesmtp._protocol.address_fields import AddressList, format_address_field, format_phrase, read_addresses
from securesmtp._protocol.building import from_message
from securesmtp._protocol.encoded_words import encode_words, format_text_field
from securesmtp.errors import MessageError, SecureSMTPError

DATE = "Mon, 01 Jan 2024 00:00:00 +0000"
# Fields that programs read: for threads, one-click unsubscribe, inline images, signatures, parameters of providers.
PROGRAM = ["In-Reply-To", "References", "List-Unsubscribe", "Content-ID", "DKIM-Signature", "X-SMTPAPI", "X-Any"]
ASCII_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=120)
ASCII_TEXTS = st.lists(ASCII_TEXT, min_size=1, max_size=12).map(" ".join)
# Latin, combining, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Chinese, Japanese, Korean, emoji; encoded-words.
SCRIPTS = ["plain", "Besançon", "dès", "e\u0301te\u0301", "λόγος", "Привет", "שלום", "مرحبا", "नमस्ते",
           "你好世界", "こんにちは", "안녕하세요", "\U0001f469\u200d\U0001f467", "=?utf-8?q?a?=", "=?", "?=", "a_b=3D",
           "ß" * 40, "x" * 90, "\u00a0", "\u3000", "\x1b", "\u2028"]  # fmt: skip
BLANKS = st.sampled_from([" ", " ", " ", "  ", "\t", " " * 30])
WORDS = st.lists(st.tuples(st.sampled_from(SCRIPTS) | st.text(st.characters(exclude_categories=["Cs"],
                 exclude_characters="\r\n\0"), max_size=30), BLANKS), min_size=1, max_size=15)  # fmt: skip
TEXTS = WORDS.map(lambda words: "".join(word + blank for word, blank in words).strip(" \t"))


def message(**fields: str) -> EmailMessage:
    """Return a message with these fields."""
    msg = EmailMessage()
    msg.set_content("text\n")
    for name, value in ({"From": "a@b.example", "To": "c@d.example"} | fields).items():
        msg[name] = value
    return msg


def to_bytes(msg: EmailMessage, recipients: list[str] | None = None) -> bytes:
    """Return the bytes that are sent."""
    mail_from = None if recipients is None else "a@b.example"
    submission = from_message(msg, mail_from, recipients, date=lambda: DATE, token=lambda: "token")
    return b"".join(submission.content.chunk())


def field(data: bytes, name: str) -> str:
    """Return the only field of this name, with its line ends."""
    header = data.partition(b"\r\n\r\n")[0].decode("ascii") + "\r\n"
    (found,) = re.findall(rf"(?m)^{re.escape(name)}:.*\r\n(?:[ \t].*\r\n)*", header)
    return str(found)


def decode(text: str) -> str:
    """Return *text* as a reader decodes it: a slow and literal implementation of RFC 2047 §6.2."""
    parts = re.split(r"([ \t]+)", text)
    pattern = r"=\?([\w-]+)\?([qb])\?([!->@-~]*)\?="
    seen = ""
    for number, part in enumerate(parts):
        word = re.fullmatch(pattern, part)
        is_between = 0 < number < len(parts) - 1 and all(re.fullmatch(pattern, parts[number + i]) for i in (-1, 1))
        if word:
            data = binascii.a2b_base64(word[3]) if word[2] == "b" else binascii.a2b_qp(word[3], header=True)
            seen += data.decode(word[1])
        elif not is_between:
            seen += part
    return seen


def unfold(text: str) -> str:
    """Return the value of a folded field (RFC 5322 §2.2.3)."""
    return text.partition(":")[2].replace("\r\n", "").strip(" \t")


@pytest.mark.parametrize("how", ["set", "parsed"])
@pytest.mark.parametrize("name", PROGRAM)
@given(text=ASCII_TEXTS)
@settings(max_examples=examples(40), deadline=None)
def test_an_ascii_field_is_folded_only_at_white_space(name: str, how: str, text: str) -> None:
    """
    Lines have at most 78 characters, except for a longer word (RFC 5322 §2.1.1, §2.2.3); nothing is encoded.

    No program reads an encoded `In-Reply-To`, `List-Unsubscribe` or `b=`.
    """
    # A field of nothing but commas is empty, and some must not be.
    assume(not re.search(r"=\?[^?]*\?[bqBQ]\?", text) and text.strip(", \t"))
    text = f"c=relaxed/relaxed; b={text}" if name == "DKIM-Signature" else text
    msg = message(**{name: text}) if how == "set" else raw(name, text)
    if how == "set":
        # Since 3.14, Python removes the commas from an `In-Reply-To` that is set.
        text = str(msg[name]).strip(" \t")
        assume(text)
    found = field(to_bytes(msg), name)
    assert unfold(found) == text
    for line in found.splitlines():
        # A parsed signature is not folded again.
        assert len(line) <= (998 if (name, how) == ("DKIM-Signature", "parsed") else 78) or not re.search(
            r"\S[ \t]+\S", line.removeprefix(f"{name}: ")
        )


@pytest.mark.parametrize("name", ["Subject", "Comments", "X-Any"])
@given(text=TEXTS)
@settings(max_examples=examples(150), deadline=None)
def test_a_reader_decodes_the_text_that_was_set(name: str, text: str) -> None:
    """
    Encoded-words have at most 75 octets, their lines 76 (RFC 2047 §2), and spaces between them are kept (§6.2).

    Some Python versions lose a space, others write two encoded-words without a space between them.
    """
    assume(len(text.splitlines()) <= 1)
    msg = message(**{name: text})
    wanted = str(msg[name]).strip(" \t")
    try:
        data = to_bytes(msg)
    except MessageError as error:
        # The text has an encoded line end.
        assert re.search(r"[\r\n]", wanted), error  # noqa: PT017 -- only some texts are refused
        return
    found = field(data, name)
    assert decode(unfold(found)) == wanted or (name == "X-Any" and wanted.isascii())
    encoded = re.findall(r"=\?utf-8\?[qb]\?[^?]*\?=", found) if not wanted.isascii() else []
    assert all(len(word) <= 75 for word in encoded)
    assert all(len(line) <= 76 or " " not in line.strip(" ") for line in found.splitlines() if "=?utf-8?" in line)
    assert not re.search(r"\?==\?", found) or wanted.isascii()


@given(text=TEXTS)
@settings(max_examples=examples(100), deadline=None)
def test_a_parsed_non_ascii_field_decodes_to_the_same_text(text: str) -> None:
    """It may have raw UTF-8 next to encoded-words."""
    assume(not re.search(r"[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text))
    msg = message()
    msg.set_raw("Subject", text.encode().decode("ascii", "surrogateescape"))
    found = field(to_bytes(msg), "Subject")
    assert decode(unfold(found)) == decode(text)


@pytest.mark.parametrize("name", ["Subject", "X-Any", "To", "Content-Type"])
@pytest.mark.parametrize("blank", [" ", "\t", " \t "])
def test_no_line_of_a_header_is_blank(name: str, blank: str) -> None:
    """Some readers end the header there, and treat the next fields as text (RFC 5322 §3.2.2)."""
    text = {"To": "a@b.example", "Content-Type": "text/plain"}.get(name, "a")
    parsed = email.message_from_string(
        f"From: a@b.example\r\n{name}: {text}\r\n{blank}\r\n{blank}\r\nX-Last: x\r\n\r\nbody\r\n",
        policy=email.policy.default,
    )
    header = to_bytes(parsed, ["x@y.example"]).partition(b"\r\n\r\n")[0]
    assert f"{name}: {text}\r\nX-Last: x\r\n".encode() in header + b"\r\n"


@pytest.mark.parametrize("name", ["Subject", "X-Any"])
def test_a_word_longer_than_a_line(name: str) -> None:
    """In a text field it is encoded, in other fields it is refused. A word of 997 characters fits on a line."""
    msg = message()
    msg[name] = "a " + "x" * 997
    assert field(to_bytes(msg), name) == f"{name}: a\r\n {'x' * 997}\r\n"
    msg.replace_header(name, "a " + "x" * 998)
    if name == "Subject":
        assert decode(unfold(field(to_bytes(msg), name))) == msg[name]
    else:
        with pytest.raises(MessageError, match=r"'X-Any' has more than 998 bytes without a space") as caught:
            to_bytes(msg)
        assert "spaces" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["Message-ID", "References", "List-Unsubscribe", "X-SMTPAPI", "Content-ID"])
def test_a_field_for_programs_must_be_ascii(name: str) -> None:
    """Programs would not decode an encoded-word in it (RFC 2047 §5)."""
    msg = message()
    msg[name] = "<ü@x.example>"
    with pytest.raises(MessageError, match=f"{name} is not ASCII") as caught:
        to_bytes(msg)
    assert "percent-encoded" in (caught.value.hint or "")


def test_an_encoding_that_changes_the_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every result is decoded and compared, so a bug in the encoder cannot change the text."""
    monkeypatch.setattr(words, "encode_words", lambda *_: ["=?utf-8?q?other?="])
    with pytest.raises(MessageError, match="readers would not see the text of the header field Subject"):
        format_text_field("Subject", "grün", limit=78, utf8=False)


def test_a_long_name_leaves_room_for_an_encoded_word() -> None:
    """The encoded-word goes on the next line if it does not fit on the first."""
    msg = format_text_field("X-" + "n" * 60, "grün", limit=78, utf8=False)
    assert msg == f"X-{'n' * 60}:\r\n =?utf-8?q?gr=C3=BCn?=\r\n"


def test_raw_bytes_of_an_unknown_charset_are_kept() -> None:
    """They are encoded as unknown-8bit (RFC 1428 §3)."""
    assert encode_words("gr\udcfcn") == ["=?unknown-8bit?q?gr=FCn?="]
    msg = message()
    msg.set_raw("X-Any", "gr\udcfcn")
    assert field(to_bytes(msg), "X-Any") == "X-Any: =?unknown-8bit?q?gr=FCn?=\r\n"


@pytest.mark.parametrize("payload", ["=?utf-8?b?a?=", "=?iso-8859-1?q?=FC?="])
def test_an_encoded_word_that_cannot_be_decoded_is_kept(payload: str) -> None:
    """It stays unchanged in a parsed field that must be encoded."""
    assert format_text_field("Subject", f"{payload} ü", limit=78, utf8=False, is_source=True) == (
        f"Subject: {payload} =?utf-8?b?IMO8?=\r\n"
    )


@pytest.mark.parametrize(
    ("text", "utf8", "formatted"),
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
def test_a_display_name_is_atoms_a_quoted_string_or_encoded(text: str, utf8: bool, formatted: str) -> None:  # noqa: FBT001
    """It is encoded if it is not ASCII or looks encoded (RFC 5322 §3.2.5, RFC 2047 §5 (3)), raw in UTF-8 (RFC 6532)."""
    assert format_phrase(text, 75, utf8=utf8) == formatted


NAMES = st.text(st.sampled_from('ab,;:<>@()[]"\\.ü語 ='), max_size=12)
LOCALS = st.sampled_from(["a", "b.c", "d+e", "x..y.", "with blank", 'q"q', "(c)"])
BOXES = st.builds(Address, NAMES, LOCALS, st.sampled_from(["b.example", "xn--bcher-kva.example", "[192.0.2.1]"]))
GROUPS = st.lists(
    BOXES.map(lambda box: Group(None, (box,))) | st.builds(Group, NAMES.filter(str.strip), st.lists(BOXES, max_size=3)),
    min_size=1,
    max_size=6,
)


def boxes(groups: list[Group]) -> list[tuple[object, list[tuple[str, str]]]]:
    """Return names and addresses of *groups*, without spaces in names: Python adds and drops some."""
    return [
        (
            None if group.display_name is None else re.sub(r"\s", "", group.display_name),
            [(re.sub(r"\s", "", a.display_name), f"{a.username}@{a.domain}") for a in group.addresses],
        )
        for group in groups
    ]


@given(groups=GROUPS)
@settings(max_examples=examples(300), deadline=None)
def test_addresses_that_are_written_are_read_again(groups: list[Group]) -> None:
    """The library and Python read the same names and addresses; no name adds an address (RFC 5322 §3.4)."""
    text = format_address_field("To", groups, limit=78, utf8=False)
    assert text.isascii()
    found, is_list = read_addresses("To", unfold(text))
    assert is_list
    assert boxes(found) == boxes(groups)
    assert boxes(list(AddressList("To", unfold(text)).groups)) == boxes(groups)


TOKENS = st.sampled_from(["a@b.example", "c", "@", ",", ",", ";", ":", "<", ">", "(", ")", '"', '"x, y"', "[", "]",
                          "<a@b.example>", "\\", " ", ".", "<@r,@s:d@e.example>", "(a, b)", "G:", "ü"])  # fmt: skip


@given(text=st.lists(TOKENS, max_size=12).map("".join))
@settings(max_examples=examples(400), deadline=None)
def test_a_valid_list_is_read_as_python_reads_it(text: str) -> None:
    """Reading one address at a time gives the same as reading all at once, unless Python then reports defects."""
    try:
        at_once = AddressList("To", text)
    except (IndexError, AttributeError, ValueError, TypeError):
        return
    try:
        found, is_list = read_addresses("To", text)
    except (IndexError, AttributeError, ValueError, TypeError):
        return
    defects = [type(defect).__name__ for defect in at_once.defects]
    if is_list and not any("Invalid" in defect for defect in defects):
        assert boxes(found) == boxes(list(at_once.groups))
    elif is_list:
        assert [a.addr_spec for g in found for a in g.addresses], (text, defects)


@pytest.mark.parametrize(
    "text", ["a@b.example; c@d.example", "G: a@b.example", "G: H: a@b.example;", "G:; a@b.example", "G:;:;"]
)
def test_a_list_with_a_wrong_separator_is_not_valid(text: str) -> None:
    """A group has a name, members and an end; a comma follows it (RFC 5322 §3.4)."""
    assert not read_addresses("To", text)[1]


def test_an_address_longer_than_a_line_is_refused() -> None:
    """Python's parser takes quadratic time."""
    with pytest.raises(MessageError, match="To has an address of more than 998 characters") as caught:
        read_addresses("To", "a" * 999)
    assert "commas" in (caught.value.hint or "")


@given(name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80).map(str.strip))
@settings(max_examples=examples(150), deadline=None)
def test_a_filename_is_read_as_it_was_set(name: str) -> None:
    """It is encoded and split into sections if it is long (RFC 2231); lines have at most 78 characters if possible."""
    assume(name and name.isprintable() and not re.search(r"=\?|''|^\"|\"$", name))
    msg = message()
    msg.add_attachment(b"x", maintype="application", subtype="x", filename=name)
    data = to_bytes(msg)
    assert data.isascii()
    assert all(len(line) <= 78 or b" " not in line.strip() for line in data.split(b"\r\n"))
    (part,) = email.message_from_bytes(data, policy=email.policy.default).iter_attachments()
    assert part.get_filename() == msg.get_payload(1).get_filename()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["=?utf-8?q?a?=", "=?utf-8?q?a=2C?= b", "a  b", " a", "a "])
def test_the_name_of_an_address_object_is_read_as_it_was_set(name: str) -> None:
    """Python's header object decodes names that were never encoded, and loses spaces."""
    msg = message()
    msg["Reply-To"] = Address(name, "a", "b.example")
    (read,) = email.message_from_bytes(to_bytes(msg), policy=email.policy.default)["Reply-To"].addresses
    assert read.display_name == name


def test_an_encoded_comma_in_a_name_stays_in_the_name() -> None:
    """It is not a separator (RFC 2047 §5 (3)): Python 3.14 leaves it encoded; before that it is decoded and quoted."""
    msg = message()
    msg["Reply-To"] = "=?utf-8?q?=2C?= <a@b.example>, c@d.example"
    line = field(to_bytes(msg), "Reply-To")
    assert line in {f"Reply-To: {name} <a@b.example>, c@d.example\r\n" for name in ("=?utf-8?q?=2C?=", '","')}


@pytest.mark.parametrize("raw", ["attachment; filename=b\xfccher.txt", 'attachment; filename="b\xfccher.txt"'])
def test_a_raw_filename_is_encoded_as_a_parameter(raw: str) -> None:
    """Some programs write raw UTF-8; an encoded-word may not be in a parameter (RFC 2047 §5)."""
    msg = message()
    msg.set_raw("Content-Disposition", raw.encode().decode("ascii", "surrogateescape"))
    assert field(to_bytes(msg), "Content-Disposition") == (
        "Content-Disposition: attachment; filename*=utf-8''b%C3%BCcher.txt\r\n"
    )


@pytest.mark.parametrize("text", ["ü; a=b", f"attachment; {'n' * 61}=ü"])
def test_a_parameter_whose_name_is_no_token_is_refused(text: str) -> None:
    """Value and names must be short tokens (RFC 2045 §5.1); Python never ends to fold a name of 75 characters."""
    msg = message()
    msg.set_raw("Content-Disposition", text)
    with pytest.raises(MessageError, match="header field Content-Disposition is not a token"):
        to_bytes(msg)


def test_a_long_parameter_is_split_into_sections() -> None:
    """No line has more than 78 characters (RFC 2231)."""
    msg = message()
    msg.add_header("Content-Disposition", "attachment", filename="x" * 950)
    found = field(to_bytes(msg), "Content-Disposition")
    assert "".join(re.findall(r"filename\*\d+\*=(?:utf-8'')?(x+)", found)) == "x" * 950
    assert max(map(len, found.split("\r\n"))) <= 78


class EndlessError(Exception):
    """The action makes too many calls."""


def count_calls(action: Callable[[], object], limit: int = 3_000_000) -> int:
    """Return how many functions *action* calls, in Python and C; it may raise an error of the library."""
    calls = 0

    def count(_frame: FrameType, event: str, _what: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}
        if calls > limit:
            sys.setprofile(None)
            raise EndlessError

    sys.setprofile(count)
    try:
        action()
    except SecureSMTPError:
        pass
    finally:
        sys.setprofile(None)
    return calls


def raw(name: str, value: str) -> EmailMessage:
    """Return a message with one field as a parser sets it."""
    msg = message()
    del msg[name]
    msg.set_raw(name, value)
    return msg


def nested(depth: int) -> EmailMessage:
    """Return a message that is attached to a message, *depth* times."""
    msg = message()
    for _ in range(depth):
        outer = message()
        outer.add_attachment(msg)
        msg = outer
    return msg


def wide(count: int) -> EmailMessage:
    """Return a message of *count* parts."""
    msg = message()
    msg.make_mixed()
    for number in range(count):
        part = EmailMessage()
        part.set_raw("Content-Type", f"text/plain; name=b{number}")
        msg.attach(part)
    return msg


def fields(count: int) -> EmailMessage:
    """Return a message of *count* fields."""
    msg = message()
    for number in range(count):
        msg.set_raw(f"X-{number}", "x")
    return msg


def with_signature(count: int) -> EmailMessage:
    """Return a message with *count* fields, and a signature that names *count* others (RFC 6376 §3.5)."""
    msg = fields(count)
    names = ":".join(f"y{number}" for number in range(count))
    msg.set_raw("DKIM-Signature", f"v=1; c=relaxed/relaxed; h={names}".replace("0:", "0:\r\n "))
    return msg


HOSTILE: dict[str, Callable[[int], EmailMessage]] = {
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
    "signed fields": lambda n: with_signature(n // 8),
    "parts": lambda n: wide(n // 20),
    "nesting": lambda n: nested(n // 400),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_work_is_linear_in_the_size_of_the_header(kind: str) -> None:
    """
    Function calls are counted, not time: twice the header makes at most about twice the calls.

    Some of these headers take minutes or never end in Python's own folding, where no time limit applies.
    """
    once, twice, eight = (HOSTILE[kind](size) for size in (2000, 4000, 16000))
    calls = count_calls(lambda: to_bytes(once, ["x@y.example"]))
    assert count_calls(lambda: to_bytes(twice, ["x@y.example"])) <= 2.3 * calls + 200
    assert count_calls(lambda: to_bytes(eight, ["x@y.example"])) <= 9 * calls + 1000
