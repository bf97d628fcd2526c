"""What is asked for about the delivery of a message, and how it is written (RFC 3461, RFC 6533)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp import DSN, AddressError, ConfigurationError, MessageError
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.commands import mail_command, rcpt_command
from securesmtp._protocol.content import Content
from securesmtp._protocol.dsn import check_dsn, xtext
from securesmtp._protocol.extensions import Extensions
from securesmtp._protocol.message import Submission

# RFC 3461 §4: what a server reads.
XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
LONGEST = Mailbox.parse("a" * 64 + "@" + ".".join(["b" * 46] * 4) + ".c")
WORST: dict[str, Any] = {"notify": {"success", "failure", "delay"}, "ret": "headers", "envid": "e" * 94, "orcpt": True}


def _decode(text: bytes) -> bytes:
    return re.sub(rb"\+([0-9A-F]{2})", lambda each: bytes([int(each[1], 16)]), text)


def _rcpt(address: str, **asked: Any) -> bytes:
    mailbox = Mailbox.parse(address)
    return rcpt_command(mailbox, check_dsn(DSN(**asked), [mailbox])).data


def _mail(**asked: Any) -> bytes:
    return _mail_command("me@a.example", DSN(**asked))


def _mail_command(mail_from: str, dsn: DSN) -> bytes:
    content = Content.from_bytes(b"\r\n")
    submission = Submission(Mailbox.parse(mail_from), (), content, extensions=Extensions(dsn=dsn))
    return mail_command(submission, Capabilities({"DSN": ""})).data


@given(st.binary(max_size=200))
@settings(max_examples=examples(2000))
def test_xtext_is_read_as_what_was_encoded(data: bytes) -> None:
    """Whatever it is, it has no blank, no line end and no "=", and a reader gets it back."""
    encoded = xtext(data)
    assert XTEXT.fullmatch(encoded)
    assert _decode(encoded) == data


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=120))
@settings(max_examples=examples(2000))
def test_an_envid_is_one_parameter_or_refused(envid: str) -> None:
    """It is refused exactly when the parameter is longer than 100 characters (RFC 3461 §5.4)."""
    if len(b"ENVID=" + xtext(envid.encode())) > 100:
        with pytest.raises(ConfigurationError, match="envid has more than 94 characters"):
            DSN(envid=envid)
        return
    line = _mail(envid=envid)
    assert line.startswith(b"MAIL FROM:<me@a.example> ENVID=")
    assert line.endswith(b"\r\n")
    (value,) = line[:-2].split(b" ENVID=")[1:]
    assert XTEXT.fullmatch(value)
    assert _decode(value) == envid.encode()


@given(st.text(min_size=1, max_size=60))
@settings(max_examples=examples(2000))
def test_an_orcpt_is_one_parameter_and_names_the_recipient(local: str) -> None:
    """Also for a quoted or a non-ASCII local part; what is refused is refused as an address."""
    try:
        mailbox = Mailbox.parse(f"{local}@b.example")
    except AddressError:
        return
    line = _rcpt(mailbox.address, orcpt=True)
    value = line[:-2].rpartition(b" ORCPT=")[2]
    kind, _, text = value.partition(b";")
    assert line == b"RCPT TO:<" + mailbox.encoded + b"> ORCPT=" + value + b"\r\n"
    assert XTEXT.fullmatch(text)
    if kind == b"rfc822":
        assert _decode(text) == mailbox.encoded
    else:
        found = re.sub(r"\\x\{([0-9A-F]+)\}", lambda each: chr(int(each[1], 16)), text.decode("ascii"))
        assert (kind, found, b"+" in text) == (b"utf-8", mailbox.encoded.decode(), False)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"notify": "never"}, b"<b@b.example> NOTIFY=NEVER"),
        ({"notify": "success"}, b"<b@b.example> NOTIFY=SUCCESS"),
        ({"notify": ["delay", "failure", "delay"]}, b"<b@b.example> NOTIFY=FAILURE,DELAY"),
        ({"notify": {"delay", "failure", "success"}}, b"<b@b.example> NOTIFY=SUCCESS,FAILURE,DELAY"),
        ({"notify": {"b@b.example": "never"}}, b"<b@b.example> NOTIFY=NEVER"),
        ({"ret": "full"}, b"<b@b.example>"),
        ({"orcpt": True}, b"<b@b.example> ORCPT=rfc822;b@b.example"),
        ({"notify": "delay", "orcpt": True}, b"<b@b.example> NOTIFY=DELAY ORCPT=rfc822;b@b.example"),
    ],
    ids=["never", "one", "twice", "all", "mapping", "ret", "orcpt", "both"],
)
def test_rcpt_has_what_is_about_the_recipient(asked: dict[str, Any], line: bytes) -> None:
    """In a fixed order, so that the same message is the same bytes."""
    assert _rcpt("b@b.example", **asked) == b"RCPT TO:" + line + b"\r\n"


@pytest.mark.parametrize(
    ("asked", "parameters"),
    [
        ({"ret": "full"}, b" RET=FULL"),
        ({"ret": "headers", "envid": "a+b=c d"}, b" RET=HDRS ENVID=a+2Bb+3Dc+20d"),
        ({"notify": "never"}, b""),
    ],
    ids=["full", "headers and envid", "notify"],
)
def test_mail_has_what_is_about_the_message(asked: dict[str, Any], parameters: bytes) -> None:
    """`+`, `=` and blanks are encoded (PITFALLS-2, X1)."""
    assert _mail(**asked) == b"MAIL FROM:<me@a.example>" + parameters + b"\r\n"


def test_the_page_shows_what_is_written() -> None:
    """The commands of its first example."""
    page = (Path(__file__).parents[2] / "docs/how-to/delivery-reports.md").read_text("utf-8")
    dsn = DSN(notify={"success", "failure"}, ret="headers", envid="order-7")
    mail = _mail_command("me@example.org", dsn)
    rcpt = rcpt_command(Mailbox.parse("you@example.org"), dsn)
    assert 'notify={"success", "failure"}, ret="headers", envid="order-7"' in page
    assert (mail + rcpt.data).decode().replace("\r\n", "\n") in page


@pytest.mark.parametrize(
    ("address", "orcpt"),
    [
        ('"a b+c=d"@b.example', b'rfc822;"a+20b+2Bc+3Dd"@b.example'),
        ("a+tag@bücher.example", b"rfc822;a+2Btag@xn--bcher-kva.example"),
        ("bü+=cher@b.example", rb"utf-8;b\x{FC}\x{2B}\x{3D}cher@b.example"),
        ('"ü \\" x"@b.example', rb'utf-8;"\x{FC}\x{20}\x{5C}"\x{20}x"@b.example'),
    ],
    ids=["quoted", "IDN", "SMTPUTF8", "SMTPUTF8 quoted"],
)
def test_orcpt_is_the_address_of_rcpt(address: str, orcpt: bytes) -> None:
    """RFC 3461 §4.2; a non-ASCII local part in the form that is ASCII (RFC 6533 §3)."""
    assert _rcpt(address, orcpt=True).endswith(b"> ORCPT=" + orcpt + b"\r\n")


def test_the_longest_lines_are_within_their_limits() -> None:
    """RET and ENVID fit into the 512 octets of MAIL; RCPT has more (RFC 3461 §4)."""
    dsn = DSN(**WORST)
    content = Content.from_bytes(b"Subject: \xc3\xbc\r\n\r\n")
    offered = Capabilities({"DSN": "", "SIZE": "", "8BITMIME": "", "SMTPUTF8": ""})
    line = mail_command(Submission(LONGEST, (), content, extensions=Extensions(dsn=dsn)), offered).data
    assert len(line) < 450
    assert len(LONGEST.encoded) == 254
    assert line.endswith(b" RET=HDRS ENVID=" + b"e" * 94 + b"\r\n")
    assert len(rcpt_command(LONGEST, dsn).data) == 10 + 254 + 29 + 14 + 254 + 2


def test_an_orcpt_of_over_500_octets_is_refused() -> None:
    """RFC 3461 §4.2: here with 159 octets, each of which becomes three."""
    fits, too_long = (Mailbox.parse("=" * count + "@b.example") for count in (159, 160))
    check_dsn(DSN(orcpt=True), [fits])
    assert len(rcpt_command(fits, DSN(orcpt=True, notify=WORST["notify"])).data) <= 512 + 530
    with pytest.raises(MessageError, match="ORCPT would have more than 500 characters for '====") as caught:
        check_dsn(DSN(orcpt=True), [too_long])
    assert caught.value.hint == "leave out orcpt"
    check_dsn(DSN(notify="never"), [too_long])


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"envid": "a\r\nRCPT TO:<x@y>"}, "envid is not printable ASCII text"),
        ({"envid": "a\n"}, "envid is not printable"),
        ({"envid": "a\rb"}, "envid is not printable"),
        ({"envid": "a\0b"}, "envid is not printable"),
        ({"envid": "a\x7fb"}, "envid is not printable"),
        ({"envid": "bücher"}, "envid is not printable"),
        ({"envid": "a\u2028b"}, "envid is not printable"),
        ({"envid": ""}, "envid is not printable"),
        ({"envid": b"a"}, "envid is a bytes, not a str"),
        ({"envid": 7}, "envid is a int, not a str"),
        ({"envid": "e" * 95}, "envid has more than 94 characters"),
        ({"envid": "+" * 32}, "envid has more than 94 characters"),
        ({"ret": "hdrs"}, 'ret is \'hdrs\', neither "full" nor "headers"'),
        ({"ret": "full\r\nDATA"}, "ret is 'full"),
        ({"ret": ["full"]}, "ret is \\['full'\\]"),
        ({"notify": "always"}, "notify has 'always', which is no condition"),
        ({"notify": "success,failure"}, "notify has 'success,failure'"),
        ({"notify": "SUCCESS"}, "notify has 'SUCCESS'"),
        ({"notify": {"success\r\n"}}, "notify has 'success"),
        ({"notify": {"never", "failure"}}, 'notify has "never" together with'),
        ({"notify": {"b@b.example": ["never", "delay"]}}, 'notify has "never" together with'),
        ({"notify": set()}, "notify has no condition"),
        ({"notify": {}}, "the DSN asks for nothing"),
        ({"notify": {"b@b.example": None}}, "notify has None, which is no condition"),
        ({"notify": [["success"]]}, "notify has \\['success'\\]"),
        ({"notify": True}, "notify has True"),
        ({"orcpt": "rfc822;a@b.example\r\nDATA"}, "orcpt is a str, not a bool"),
        ({"orcpt": 1}, "orcpt is a int, not a bool"),
        ({"notify": "never", "required": None}, "required is a NoneType, not a bool"),
        ({}, "the DSN asks for nothing"),
        ({"required": False}, "the DSN asks for nothing"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(asked: dict[str, Any], error: str) -> None:
    """Where it is made, and as data from a queue."""
    with pytest.raises(ConfigurationError, match=error):
        DSN(**asked)
    with pytest.raises(ValueError, match="cannot make a DSN from this data"):
        DSN.from_dict(asked)


def test_a_key_of_a_mapping_is_an_address() -> None:
    """It is checked like a recipient, and in the same form: a domain as its A-label."""
    with pytest.raises(AddressError):
        DSN(notify={"b@b.example> NOTIFY=NEVER\r\n": "never"})
    with pytest.raises(ValueError, match="cannot make a DSN"):
        DSN.from_dict({"notify": {"b": "never"}})
    assert _rcpt("b@bücher.example", notify={"b@bücher.example": "delay"}).endswith(b"> NOTIFY=DELAY\r\n")


def test_a_mapping_is_about_its_recipients_only() -> None:
    """The others have the server's default; a name that is no recipient is a mistake."""
    recipients = [Mailbox.parse(f"{name}@b.example") for name in "abc"]
    dsn = check_dsn(DSN(notify={"a@b.example": "never", "c@b.example": {"failure"}}), recipients)
    assert [rcpt_command(mailbox, dsn).data.partition(b">")[2] for mailbox in recipients] == [
        b" NOTIFY=NEVER\r\n",
        b"\r\n",
        b" NOTIFY=FAILURE\r\n",
    ]
    with pytest.raises(MessageError, match=r"notify has 'c@b\.example', which is no recipient"):
        check_dsn(dsn, recipients[:2])


def test_only_a_dsn_is_one() -> None:
    """A dictionary, as other libraries take it, is not."""
    with pytest.raises(ConfigurationError, match="dsn is a dict, not a DSN"):
        Extensions(dsn={"notify": "never"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [WORST, {"notify": "never"}, {"notify": {"b@b.example": {"delay"}}, "required": False}, {"ret": "full"}],
    ids=["all", "never", "mapping", "ret"],
)
def test_it_goes_through_json(asked: dict[str, Any]) -> None:
    """Names that a later version adds are ignored."""
    dsn = DSN(**asked)
    assert DSN.from_dict({**json.loads(json.dumps(dsn.as_dict())), "later": 1}) == dsn


def test_data_that_is_no_mapping_is_refused() -> None:
    """A queue may have anything."""
    wrong: list[Any] = [[], "notify", None, 1]
    for data in wrong:
        with pytest.raises(ValueError, match="cannot make a DSN from this data"):
            DSN.from_dict(data)
