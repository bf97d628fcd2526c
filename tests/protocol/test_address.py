"""Mailboxes and domain names (RFC 5321 §4.1.2)."""

from __future__ import annotations

import re
import socket
import time
from email.headerregistry import Address
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from protocol.play import plain_id
from securesmtp import validate_address
from securesmtp._protocol.address import (
    Mailbox,
    addr_spec,
    address_literal,
    ascii_domain,
    ehlo_name,
    host_name,
    reverse_path,
)
from securesmtp._protocol.wire import line
from securesmtp.errors import AddressError, ConfigurationError

LABEL = "d" * 63


@pytest.mark.parametrize(
    "address",
    [
        "a@b", "user@example.org", "USER@Example.ORG", "o'brien+x=y@example.org", "!#$%&'*+-/=?^_`{|}~@b.example",
        "a.b.c@b.example", '"a b"@b.example', '""@b.example', '"a@b"@c.example', '"a\\"b\\\\"@c.example',
        '"a,b;c:d"@e.example', "a@1.example", "a@a--b.example", "a@ab--c.example", "a@[192.0.2.1]",
        "a@[IPv6:2001:db8::1]", "a@[ipv6:::1]", "a@xn--bcher-kva.example",
    ],
)  # fmt: skip
def test_a_mailbox_is_sent_exactly_as_given(address: str) -> None:
    """A mailbox that the grammar allows is sent byte for byte as the caller wrote it."""
    mailbox = Mailbox.parse(address)
    assert mailbox.encoded == address.encode()
    assert (mailbox.address, mailbox.needs_smtputf8) == (address, False)


@pytest.mark.parametrize(
    "address",
    [
        "", "a", "@", "a@", "@b", "postmaster", "a@@b", "a@b@c",
        " a@b", "a@b ", "a @b", "a@ b", "a b@c", "a\tb@c", "\ta@b",
        "<a@b>", "A <a@b>", "a@b, c@d", "a@b;c@d", "a(x)@b", "a@b(x)", "a@b>", "a<b@c", '"<"@b', '">"@b', '"\\<"@b',
        "a@b\r\nRCPT TO:<c@d>", "a@b\n", "a\n@b", "a@b\0", "\0a@b", "a\x7f@b", '"\r\n"@b', '"\\\n"@b', '"\x00"@b',
        ".a@b", "a.@b", "a..b@c", '"a@b', 'a"@b', '"a"b@c', 'a"b"@c', '"a"."b"@c', '"a\\"@b', '"a"b"@c', "a\\b@c",
        "[a]@b", "a:b@c", "@r:a@b",
        "a@.b", "a@b.", "a@b..c", "a@-b", "a@b-", "a@b_c", "a@b.-c.d", "a@b/c", "a@b:25", "a@b\\c", "a@*.b",
        "a@[", "a@]", "a@[]", "a@[192.0.2.256]", "a@[192.0.2]", "a@[192.0.2.1", "a@192.0.2.1]", "a@[::1]",
        "a@[IPv6:192.0.2.1]", "a@[IPv6:::1%eth0]", "a@[::1%eth0]", "a@[IPv6:]", "a@[x-tag:y]", "a@[ 192.0.2.1]",
        "a@[\u0661.2.3.4]",
        "a\u0085b@c", "a\u2028@b", "a\u202e@b", "a\u00a0b@c", "a\u200b@b", "a\ud800@b", '"\u2029"@b',
        "a@b\u3002c", "a@b\uff0ec", "a@\u202e.example", "a@\ud800.example", "a@☃.example", "a@a\u200db.example",
        "a@-ü.example", "a@ü..example", "a@" + "ü" * 60 + ".example", "a\uff20b",
    ],
    ids=plain_id,
)  # fmt: skip
def test_an_invalid_mailbox_is_refused(address: str) -> None:
    """Nothing is repaired. Spaces, brackets, comments, lists, controls and bad domains are printable errors."""
    with pytest.raises(AddressError) as caught:
        Mailbox.parse(address)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("address", [None, b"a@b.example", 1, ["a@b.example"], ("a", "b")])
def test_an_address_of_another_type_is_refused(address: object) -> None:
    """The error names the type."""
    with pytest.raises(AddressError, match=type(address).__name__):
        Mailbox.parse(address)  # type: ignore[arg-type]  # the mistake under test


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("a@bücher.example", "xn--bcher-kva.example"),
        ("a@faß.example", "xn--fa-hia.example"),
        ("a@例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_a_domain_becomes_ascii(address: str, domain: str) -> None:
    """A non-ASCII label becomes its A-label (IDNA 2008); it does not need SMTPUTF8."""
    mailbox = Mailbox.parse(address)
    assert (mailbox.domain, mailbox.encoded, mailbox.needs_smtputf8) == (domain, f"a@{domain}".encode(), False)


@pytest.mark.parametrize("local", ["jörg", '"jörg x"', "用户"])
def test_a_local_part_stays_utf8(local: str) -> None:
    """A non-ASCII local part has no ASCII form: it is sent as UTF-8 and needs SMTPUTF8."""
    mailbox = Mailbox.parse(f"{local}@b.example")
    assert mailbox.encoded == f"{local}@b.example".encode()
    assert mailbox.needs_smtputf8


@pytest.mark.parametrize(
    ("fits", "over"),
    [
        ("l" * 244, "l" * 245),
        ("ü" * 122, "ü" * 122 + "l"),
        (f'"{"l" * 242}"', f'"{"l" * 243}"'),
        ("SRS0=abcd=XY=origin.example=" + "u" * 100, "l" * 300),
    ],
    ids=["ascii", "utf-8", "quoted", "SRS"],
)
def test_a_local_part_may_be_as_long_as_the_path_allows(fits: str, over: str) -> None:
    """RFC 5321 §4.5.3.1 says to avoid more than 64 octets, not to refuse them: VERP, SRS and reply tokens need them."""
    assert Mailbox.parse(f"{fits}@b.example").local == fits
    with pytest.raises(AddressError, match="254"):
        Mailbox.parse(f"{over}@b.example")


def test_the_empty_address_is_the_null_reverse_path() -> None:
    """It is sent as <> (RFC 5321 §4.5.5). Everything else is a valid mailbox or refused."""
    null = reverse_path("")
    assert (null.encoded, null.address, null.needs_smtputf8) == (b"", "", False)
    assert reverse_path("a@b.example") == Mailbox.parse("a@b.example")
    for wrong in ("<>", " ", None, Address()):
        with pytest.raises(AddressError):
            reverse_path(wrong)  # type: ignore[arg-type]  # the mistake under test


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("Me", "me", "b.example"), "me@b.example"),
        (Address("", "user..name.", "mobile.example"), '"user..name."@mobile.example'),
        (Address("", ".a", "b.example"), '".a"@b.example'),
        (Address("", "a b", "b.example"), '"a b"@b.example'),
        (Address("", 'a"\\b', "b.example"), '"a\\"\\\\b"@b.example'),
        (Address("", "", "b.example"), '""@b.example'),
        (Address("", "a@x.example", "b.example"), '"a@x.example"@b.example'),
    ],
    ids=["plain", "dots", "first dot", "blank", "quote", "nothing", "at sign"],
)
def test_an_address_object_is_its_mailbox(address: Address, text: str) -> None:
    """A local part that is no Dot-string is quoted (RFC 5321 §4.1.2). Python's own addr_spec forgets this for dots."""
    assert Mailbox.parse(address) == Mailbox.parse(text)
    assert validate_address(address) == validate_address(text) == text


@pytest.mark.parametrize(
    "address",
    [Address(), Address("Me", "me"), Address("", "a>", "b.example"), Address("", "a", "b.example> SIZE=1"),
     Address("", "a\u2028", "b.example"), Address("", "l" * 255, "b")],
    ids=repr,
)  # fmt: skip
def test_an_invalid_address_object_is_refused(address: Address) -> None:
    """It passes the same checks as a str."""
    with pytest.raises(AddressError):
        validate_address(address)


@given(st.text(st.sampled_from('ab.@"\\ ,<ü'), max_size=12))
@settings(max_examples=examples(200), deadline=None)
def test_quoting_does_not_change_a_local_part(local: str) -> None:
    """Without quotes and backslashes it is the local part of the Address object (RFC 5322 §3.2.4)."""
    text = addr_spec(Address("", local, "b.example"))
    quoted = text.removesuffix("@b.example")
    read = re.sub(r"\\(.)", r"\1", quoted[1:-1]) if quoted.startswith('"') else quoted
    assert read == local
    if "<" not in local:
        assert Mailbox.parse(text).local == quoted


@pytest.mark.parametrize(
    ("given", "mailbox"),
    [
        ("Me <me@b.example>", "me@b.example"), ("<me@b.example>", "me@b.example"), (" me@b.example\n", "me@b.example"),
        ('"Last, First" <me@bücher.example>', "me@bücher.example"), ("N" * 300 + " <me@b.example>", "me@b.example"),
        ("me@b.example (Me)", "me@b.example"), ("mailto:me@b.example", "me@b.example"), ("a (b) (c)", None),
        ("Me <me>", None), ("a@b.example, c@d.example", None), ("a@b <c@d>, e@f", None), ("<a@b>>", None),
        ("N" * 2000 + " <me@b.example>", None),
    ],
    ids=plain_id,
)  # fmt: skip
def test_the_hint_shows_the_mailbox(given: str, mailbox: str | None) -> None:
    """The library does not guess: it suggests the mailbox, or shows what one looks like."""
    with pytest.raises(AddressError) as caught:
        Mailbox.parse(given)
    hint = f"pass the address alone: {mailbox!r}"
    assert (caught.value.hint == hint) if mailbox else ("user@example.org" in (caught.value.hint or ""))


def test_the_hint_takes_bounded_work() -> None:
    """Hundreds of brackets, or a megabyte of them, cause neither a RecursionError nor a delay."""
    start = time.perf_counter()
    for text in (">" * 900, "a" + ">" * 900, "<" * 900 + ">", "<a>" * 300, "a <" * 300_000 + ">" * 300_000):
        with pytest.raises(AddressError, match=r"bytes|@|local"):
            Mailbox.parse(text)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("name", "ascii_name"),
    [
        ("mail.example", "mail.example"), ("mail_relay", "mail_relay"), ("_a.b_.example", "_a.b_.example"),
        ("bücher.example", "xn--bcher-kva.example"), ("faß.example", "xn--fa-hia.example"),
        ("Bücher.example", "xn--bcher-kva.example"), (normalize("NFD", "bücher.example"), "xn--bcher-kva.example"),
        ("4.example", "4.example"), ("a.1b", "a.1b"), ("a.x0", "a.x0"), ("0xg", "0xg"), ("1.2.3.4a", "1.2.3.4a"),
    ],
)  # fmt: skip
def test_a_host_name_is_ascii(name: str, ascii_name: str) -> None:
    """A U-label, in any case and composition, becomes its A-label (RFC 9525 §7.2); underscores are allowed."""
    assert host_name(name) == ascii_name


@pytest.mark.parametrize(
    "name",
    ["", "a..b", "-a", "a b", "a@b", "a/b", "a:1", "[a]", "fe80::1%eth0", "bü_cher.example", "\u212a.example",
     "\uff4dail.example", "mail\u3002example", "☃.example", "a" * 64, "a\n", "a.example."],
    ids=plain_id,
)  # fmt: skip
def test_an_invalid_host_name_is_refused(name: str) -> None:
    """Only case and composition are mapped (ID-05); no other character is replaced."""
    with pytest.raises(ValueError):  # noqa: PT011 -- idna words its own errors
        host_name(name)


@given(
    st.lists(st.sampled_from(["0", "1", "10", "177", "0177", "0x7f", "0X", "256", "4294967295", "08", "a", "x.9"]))
    .map(".".join)
    .filter(bool)
)
@settings(max_examples=examples(300), deadline=None)
def test_no_host_name_is_a_number_to_the_resolver(name: str) -> None:
    """A name that inet_aton accepts is refused: the certificate would be compared with another address."""
    try:
        socket.inet_aton(name)
    except OSError:
        return
    with pytest.raises(ValueError, match="number"):
        host_name(name)


def test_the_hint_for_empty_brackets_names_the_empty_reverse_path() -> None:
    """With smtplib, <> is the empty reverse-path."""
    with pytest.raises(AddressError, match='mail_from=""'):
        Mailbox.parse("<>")


def test_a_label_has_at_most_63_octets() -> None:
    """One more is refused."""
    assert Mailbox.parse(f"a@{LABEL}.example").domain == f"{LABEL}.example"
    with pytest.raises(AddressError):
        Mailbox.parse(f"a@{LABEL}d.example")


def test_a_mailbox_has_at_most_254_octets() -> None:
    """A path has 256 with its brackets; both the text as given and the bytes as sent are measured (CMD-06)."""
    domain = ".".join([LABEL, LABEL, LABEL, "d" * 60])
    assert len(Mailbox.parse(f"a@{domain}").encoded) == 254
    for address in (f"ab@{domain}", f"a@{domain}d", f"ü@{domain}"):
        with pytest.raises(AddressError, match="254"):
            Mailbox.parse(address)


def test_a_mailbox_is_measured_as_it_is_sent() -> None:
    """An A-label counts with its own length, which may be longer than that of its U-label."""
    domain = ".".join([LABEL, LABEL, LABEL, "d" * 40, "bücher"])
    assert len(f"a@{domain}") < 254
    assert Mailbox.parse(f"a@{domain}").domain.endswith(".xn--bcher-kva")
    with pytest.raises(AddressError, match="254"):
        Mailbox.parse("a" * 10 + f"@{domain}")


def test_a_domain_has_at_most_255_octets() -> None:
    """One more is refused; the limit matters for EHLO, since a mailbox is shorter."""
    name = f"{LABEL}.{LABEL}.{LABEL}.{LABEL}"
    assert len(name) == 255
    assert ascii_domain(name) == name
    with pytest.raises(ValueError, match="not a domain name"):
        ascii_domain(".".join([LABEL, LABEL, LABEL, "d" * 62, "d"]))


@pytest.mark.parametrize("unit", ["a", "@", '"', "a.", "ü", "a@", "\\", "("])
def test_a_huge_address_is_refused_at_once(unit: str) -> None:
    """The length is checked first: a megabyte takes no time and is not repeated in the error (CVE-2025-14874)."""
    start = time.perf_counter()
    with pytest.raises(AddressError) as caught:
        Mailbox.parse(unit * (1_000_000 // len(unit)) + "@b.example")
    assert time.perf_counter() - start < 1
    assert len(str(caught.value)) < 400


_HOSTILE = st.sampled_from('ab1.@"\\<>[]:;,() \t\r\n\0\x7f\x85\u2028-_üß例\U0001f600')
_LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_QUOTED = st.from_regex(r'"([ !#-\[\]-~]|\\[ -~]){0,10}"', fullmatch=True)
_NEAR = st.tuples(
    st.text(_HOSTILE, max_size=8) | _QUOTED, st.lists(_LABELS | st.text(_HOSTILE, max_size=4), max_size=3)
)
_ADDRESSES = _NEAR.map(lambda pair: f"{pair[0]}@{'.'.join(pair[1])}") | st.text(_HOSTILE, max_size=20)


@given(_ADDRESSES)
@settings(max_examples=examples(200), deadline=None)
def test_every_valid_mailbox_is_one_path(address: str) -> None:
    """It makes one RCPT line without further < > or controls, or spaces outside quotes; ASCII is unchanged."""
    try:
        mailbox = Mailbox.parse(address)
    except AddressError as error:
        assert str(error).isprintable()  # noqa: PT017 -- both results are legal, each with its own rule
        return
    command = line(b"RCPT", b"TO:<" + mailbox.encoded + b">", utf8=mailbox.needs_smtputf8).data
    assert command.count(b"\r\n") == command.count(b"<") == command.count(b">") == 1
    path = mailbox.encoded.decode()
    assert path.isprintable()
    assert " " not in re.sub(r'"(?:[^"\\]|\\.)*"', "", path)
    assert mailbox.domain.isascii()
    assert path == address if address.isascii() else path.startswith(f"{mailbox.local}@")


@pytest.mark.parametrize(
    ("name", "argument"),
    [("app.example.org", b"app.example.org"), ("localhost", b"localhost"), ("bücher.example", b"xn--bcher-kva.example"),
     ("[192.0.2.1]", b"[192.0.2.1]"), ("[IPv6:::1]", b"[IPv6:::1]")],
)  # fmt: skip
def test_the_argument_of_ehlo_is_a_name_or_a_literal(name: str, argument: bytes) -> None:
    """Both forms of RFC 5321 §4.1.4, in ASCII."""
    assert ehlo_name(name) == argument


@pytest.mark.parametrize("name", ["", "a b", "a\r\nb", "a_b", "[::1]", "[1.2.3]", "-a", "a.", "☃.example", "x" * 256])
def test_any_other_argument_of_ehlo_is_refused(name: str) -> None:
    """It is an error in the configuration, not in an address."""
    with pytest.raises(ConfigurationError) as caught:
        ehlo_name(name)
    assert type(caught.value) is ConfigurationError
    assert "neither a domain name nor an address literal" in caught.value.args[0]
    assert "leave it out" in (caught.value.hint or "")


def test_an_address_literal_has_brackets() -> None:
    """An IP address without brackets is no address literal."""
    assert address_literal("192.0.2.1") is None
    assert address_literal("[192.0.2.1]") == "[192.0.2.1]"


@pytest.mark.parametrize(("length", "cut"), [(98, False), (99, True)])
def test_an_error_quotes_100_characters_of_an_address(length: int, *, cut: bool) -> None:
    """The limit includes the quotation marks; a longer address ends in an ellipsis."""
    with pytest.raises(AddressError) as caught:
        Mailbox.parse("a" * length)
    assert caught.value.args[0] == f"'{'a' * 98}{'…' if cut else chr(39)} has no @"
    assert "without display name" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (b"x", "b'x' is a bytes, not a str"),
        ("", "'' is empty"),
        ("a b@c", "'a b@c' has a local part that RFC 5321 §4.1.2 does not allow"),
        ("a@b_c", "'a@b_c' has an invalid domain"),
        ("a" * 255, f"'{'a' * 98}… is longer than 254 bytes (RFC 5321 §4.5.3.1.3)"),
        (
            f"ü@{LABEL}.{LABEL}.{LABEL}.{'d' * 60}",
            f"'ü@{LABEL}.{'d' * 32}… is longer than 254 bytes (RFC 5321 §4.5.3.1.3)",
        ),
    ],
    ids=["type", "empty", "local", "domain", "long", "long when sent"],
)
def test_an_error_names_the_address_and_the_rule(address: str, message: str) -> None:
    """Its attribute ``address`` is the complete address if that is a str."""
    with pytest.raises(AddressError) as caught:
        Mailbox.parse(address)
    assert caught.value.args[0] == message
    assert caught.value.address == (None if message.endswith("not a str") else address)


def test_the_reason_of_idna_is_shown() -> None:
    """It follows in brackets."""
    with pytest.raises(AddressError) as caught:
        Mailbox.parse("a@☃.example")
    assert re.match(r"'a@☃\.example' has an invalid domain \(.*U\+2603", caught.value.args[0])
