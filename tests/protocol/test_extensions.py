"""What a message asks of its server, and how it is written: RFC 8689, RFC 3030, RFC 2852, RFC 6710, RFC 4865."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp import DSN, AddressError, ConfigurationError, DeliverBy, MessageError, Stage
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.commands import mail_command
from securesmtp._protocol.content import Content
from securesmtp._protocol.extensions import MAIL_OCTETS, Extensions
from securesmtp._protocol.message import Submission
from securesmtp._submissions import from_octets

HOUR = timedelta(hours=1)
NOON = datetime(2027, 1, 2, 12, tzinfo=UTC)
LATE = DeliverBy(HOUR, if_late="return")
OFFERED = {
    "REQUIRETLS": "",
    "BINARYMIME": "",
    "CHUNKING": "",
    "DELIVERBY": "",
    "MT-PRIORITY": "",
    "FUTURERELEASE": "999999999 9998-12-31T00:00:00Z",
    "DSN": "",
}
BODY = b"Subject: x\r\n\r\n"


def _submission(content: bytes = BODY, **asked: Any) -> Submission:
    made = Content.from_bytes(content, is_binary=asked.get("binary", False))
    return Submission(Mailbox.parse("me@a.example"), (), made, extensions=Extensions(**asked))


def _parameters(**asked: Any) -> str:
    line = mail_command(_submission(**asked), Capabilities(OFFERED)).data
    return line.decode().removeprefix("MAIL FROM:<me@a.example>").removesuffix("\r\n").lstrip()


@pytest.mark.parametrize(
    ("asked", "parameters"),
    [
        ({}, ""),
        ({"require_tls": True}, "REQUIRETLS"),
        ({"binary": True}, "BODY=BINARYMIME"),
        ({"deliver_by": DeliverBy(HOUR)}, "BY=3600;N"),
        ({"deliver_by": LATE}, "BY=3600;R"),
        ({"deliver_by": DeliverBy(timedelta(milliseconds=1), if_late="return", trace=True)}, "BY=1;RT"),
        ({"deliver_by": DeliverBy(timedelta(seconds=999_999_999), trace=True)}, "BY=999999999;NT"),
        ({"priority": 0}, "MT-PRIORITY=0"),
        ({"priority": -9}, "MT-PRIORITY=-9"),
        ({"priority": 9}, "MT-PRIORITY=9"),
        ({"hold": timedelta(seconds=90)}, "HOLDFOR=90"),
        ({"hold": timedelta(seconds=0.5)}, "HOLDFOR=1"),
        ({"hold": NOON}, "HOLDUNTIL=2027-01-02T12:00:00Z"),
        ({"hold": datetime(2027, 1, 2, 3, tzinfo=timezone(timedelta(hours=5)))}, "HOLDUNTIL=2027-01-01T22:00:00Z"),
        ({"hold": NOON - timedelta(microseconds=1)}, "HOLDUNTIL=2027-01-02T12:00:00Z"),
        (
            {
                "dsn": DSN(ret="full", envid="7"),
                "require_tls": True,
                "binary": True,
                "deliver_by": LATE,
                "priority": 3,
                "hold": timedelta(seconds=9),
            },
            "BODY=BINARYMIME RET=FULL ENVID=7 REQUIRETLS BY=3600;R MT-PRIORITY=3 HOLDFOR=9",
        ),
    ],
)
def test_mail_has_what_the_message_asks_for(asked: dict[str, Any], parameters: str) -> None:
    """In a fixed order; a part of a second counts as one, so that nothing is released early."""
    assert _parameters(**asked) == parameters


def test_the_longest_mail_is_within_its_limit() -> None:
    """Each extension says how much longer it makes the command."""
    dsn, by = DSN(ret="headers", envid="e" * 94), DeliverBy(timedelta(seconds=999_999_999), trace=True)
    longest = Mailbox.parse("a" * 64 + "@" + ".".join(["b" * 46] * 4) + ".c")
    content = Content.from_bytes(b"Subject: \xc3\xbc\r\n\r\n")
    asked = Extensions(dsn=dsn, require_tls=True, deliver_by=by, priority=-9, hold=NOON)
    offered = Capabilities({**OFFERED, "SIZE": "", "8BITMIME": "", "SMTPUTF8": ""})
    line = mail_command(Submission(longest, (), content, extensions=asked), offered).data
    assert len(line) < 512
    added = [Extensions(require_tls=True), Extensions(deliver_by=by), Extensions(priority=-9), Extensions(hold=NOON)]
    assert sum(len(b" " + b"".join(each.mail_parameters())) for each in added) <= MAIL_OCTETS


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"require_tls": 1}, "require_tls is a int, not a bool"),
        ({"require_tls": None}, "require_tls is a NoneType"),
        ({"require_tls": "no"}, "require_tls is a str"),
        ({"binary": b""}, "binary is a bytes"),
        ({"dsn": {"notify": "never"}}, "dsn is a dict, not a DSN"),
        ({"deliver_by": 3600}, "deliver_by is a int, not a DeliverBy"),
        ({"deliver_by": HOUR}, "deliver_by is a timedelta, not a DeliverBy"),
        ({"priority": "high"}, "priority is a str, not an int"),
        ({"priority": True}, "priority is a bool"),
        ({"priority": 1.5}, "priority is a float"),
        ({"priority": 10}, "priority is 10, not from -9 to 9"),
        ({"priority": -10}, "priority is -10"),
        ({"hold": 3600}, "hold is a int, not a timedelta"),
        ({"hold": "2027-01-02T12:00:00Z\r\nRCPT TO:<x@y>"}, "hold is a str, not a timedelta"),
        ({"hold": timedelta()}, "hold is '0:00:00', not above 0"),
        ({"hold": -HOUR}, "not above 0"),
        ({"hold": timedelta(seconds=1e9)}, "at most 999999999 seconds"),
        ({"hold": datetime(2027, 1, 2)}, "hold has no time zone"),  # noqa: DTZ001 -- it is refused
        ({"hold": datetime.max.replace(tzinfo=UTC)}, "not between the years 1970 and 9998"),
        ({"hold": datetime.min.replace(tzinfo=timezone(HOUR))}, "not between the years"),
        ({"hold": HOUR, "deliver_by": DeliverBy(HOUR)}, "delivered before the server stops holding it back"),
        # The server gets both in seconds: the same number.
        (
            {"hold": HOUR + timedelta(microseconds=1), "deliver_by": DeliverBy(HOUR + timedelta(milliseconds=5))},
            "delivered before the server stops holding it back",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused(asked: dict[str, Any], error: str) -> None:
    """Before there is a message."""
    with pytest.raises(ConfigurationError, match=error):
        Extensions(**asked)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"within": 60}, "within is a int, not a timedelta"),
        ({"within": timedelta()}, "within is '0:00:00', not above 0"),
        ({"within": timedelta(days=12000)}, "at most 999999999 seconds"),
        ({"within": HOUR, "if_late": "R"}, 'if_late is \'R\', neither "return" nor "notify"'),
        ({"within": HOUR, "if_late": ["return"]}, "if_late is"),
        ({"within": HOUR, "trace": "T"}, "trace is a str, not a bool"),
    ],
)
def test_a_wrong_time_of_delivery_is_refused(given: dict[str, Any], error: str) -> None:
    """Where it is made."""
    with pytest.raises(ConfigurationError, match=error):
        DeliverBy(**given)


@pytest.mark.parametrize(
    ("asked", "keyword", "error"),
    [
        ({"require_tls": True}, "REQUIRETLS", "the message requires TLS all the way, and the server does not offer"),
        ({"binary": True}, "BINARYMIME", "the message is binary, and the server does not offer BINARYMIME"),
        ({"binary": True}, "CHUNKING", "the message is binary, and the server does not offer CHUNKING"),
        ({"deliver_by": LATE}, "DELIVERBY", "the message has a time for its delivery, and the server"),
        ({"priority": 0}, "MT-PRIORITY", "the message has a priority, and the server does not offer MT-PRIORITY"),
        ({"hold": HOUR}, "FUTURERELEASE", "the message is to be held back, and the server does not offer"),
        ({"dsn": DSN(notify="never")}, "DSN", "the message asks for delivery status notifications, and the server"),
    ],
    ids=lambda each: each if isinstance(each, str) and each.isupper() else "",
)
def test_a_server_that_does_not_offer_it_gets_nothing(asked: dict[str, Any], keyword: str, error: str) -> None:
    """And one that does, gets the message as it is."""
    submission = _submission(**asked)
    assert submission.fits(Capabilities(OFFERED))
    assert submission.adapt_to(Capabilities(OFFERED)) == submission
    left = Capabilities({name: each for name, each in OFFERED.items() if name != keyword})
    assert not submission.fits(left)
    with pytest.raises(MessageError, match=error) as caught:
        submission.adapt_to(left)
    assert caught.value.stage is Stage.MAIL
    assert caught.value.hint


def test_what_is_not_required_is_left_out_alone() -> None:
    """DSN(required=False) takes nothing else with it."""
    submission = _submission(dsn=DSN(ret="full", required=False), priority=3)
    left = Capabilities({name: each for name, each in OFFERED.items() if name != "DSN"})
    assert not submission.fits(left)
    assert submission.adapt_to(left).extensions == Extensions(priority=3)


@pytest.mark.parametrize(
    ("asked", "offer", "error"),
    [
        (
            {"deliver_by": LATE},
            {"DELIVERBY": "3601"},
            "has to be delivered in 3600 s; the server needs at least 3601 s",
        ),
        ({"deliver_by": LATE}, {"DELIVERBY": "3601,other"}, "at least 3601 s"),
        ({"deliver_by": LATE}, {"DELIVERBY": "3600"}, None),
        ({"deliver_by": LATE}, {"DELIVERBY": ",other"}, None),
        ({"deliver_by": LATE}, {"DELIVERBY": "soon"}, None),
        ({"deliver_by": LATE}, {"DELIVERBY": "9" * 5000}, None),
        ({"deliver_by": DeliverBy(HOUR)}, {"DELIVERBY": "3601"}, None),
        ({"hold": HOUR}, {"FUTURERELEASE": "3599 2027-01-02T12:00:00Z"}, "held back for 3600 s, .* for at most 3599 s"),
        ({"hold": HOUR}, {"FUTURERELEASE": "3600 2027-01-02T12:00:00Z"}, None),
        ({"hold": HOUR}, {"FUTURERELEASE": ""}, None),
        ({"hold": HOUR}, {"FUTURERELEASE": "² x"}, None),
        (
            {"hold": NOON},
            {"FUTURERELEASE": "9 2027-01-02T11:59:59Z"},
            "until 2027-01-02T12:00:00Z, .* until 2027-01-02T11:59:59Z",
        ),
        ({"hold": NOON}, {"FUTURERELEASE": "9 2027-01-02t12:00:00z"}, None),
        ({"hold": NOON}, {"FUTURERELEASE": "9 2027-01-02T10:00:00.5+01:00"}, None),
        ({"hold": NOON}, {"FUTURERELEASE": "9"}, None),
    ],
)
def test_the_limits_of_a_server_are_kept(asked: dict[str, Any], offer: dict[str, str], error: str | None) -> None:
    """RFC 2852 §3, RFC 4865 §4.1; what cannot be read is left to the server."""
    submission, offered = _submission(**asked), Capabilities({**OFFERED, **offer})
    assert submission.fits(offered) is (error is None)
    if error is None:
        assert submission.adapt_to(offered) == submission
        return
    with pytest.raises(MessageError, match=error):
        submission.adapt_to(offered)


def test_a_time_that_has_passed_holds_nothing_back() -> None:
    """A message that has waited too long in a queue is still sent."""
    asked = Extensions(hold=NOON, priority=3)
    assert asked.at(NOON, is_bounce=False) == Extensions(priority=3)
    assert asked.at(NOON - timedelta(microseconds=1), is_bounce=False) is asked
    assert Extensions(priority=3).at(NOON, is_bounce=True) == Extensions(priority=3)


@pytest.mark.parametrize("hold", [HOUR, NOON])
def test_a_notification_is_not_held_back(hold: object) -> None:
    """RFC 4865 §5.1.1."""
    with pytest.raises(MessageError, match="from the null reverse-path cannot be held back"):
        Extensions(hold=hold).at(NOON - HOUR, is_bounce=True)  # type: ignore[arg-type]
    assert Extensions(hold=HOUR).at(NOON, is_bounce=False) == Extensions(hold=HOUR)


def test_a_message_is_held_back_for_less_than_its_delivery_takes() -> None:
    """RFC 4865 §5.2.1, also if one of the two is a date."""
    asked = Extensions(hold=NOON, deliver_by=DeliverBy(HOUR))
    assert asked.at(NOON - HOUR + timedelta(seconds=1), is_bounce=False) is asked
    with pytest.raises(ConfigurationError, match="delivered before the server stops"):
        asked.at(NOON - HOUR, is_bounce=False)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"require_tls": True, "binary": True, "priority": -3},
        {"dsn": DSN(notify="never"), "deliver_by": DeliverBy(HOUR, if_late="return", trace=True), "hold": NOON},
        {"hold": timedelta(seconds=90)},
    ],
    ids=["nothing", "flags", "values", "interval"],
)
def test_it_goes_through_json(asked: dict[str, Any]) -> None:
    """And data that have less ask for less."""
    made = Extensions(**asked)
    data = json.loads(json.dumps(made.as_dict()))
    assert Extensions.from_dict(data) == made
    assert Extensions.from_dict({name: each for name, each in data.items() if each}) == made


@pytest.mark.parametrize("within", ["1", True, 1.0, None, -1, 0, 10**30], ids=repr)
def test_other_data_are_no_time_of_delivery(within: Any) -> None:
    """A queue may have anything."""
    rest = {"if_late": "notify", "trace": False}
    assert DeliverBy.from_dict({"within": 1, **rest}) == DeliverBy(timedelta(seconds=1))
    with pytest.raises(ValueError, match="cannot make a DeliverBy from this data"):
        DeliverBy.from_dict({"within": within, **rest})


@pytest.mark.parametrize("data", [{}, {"within": 1}, [], "x"], ids=repr)
def test_data_without_a_time_of_delivery_are_refused(data: Any) -> None:
    """Nothing is made up."""
    with pytest.raises(ValueError, match="cannot make a DeliverBy from this data"):
        DeliverBy.from_dict(data)


# Binary content


@given(st.binary(max_size=300), st.integers(1, 40))
@settings(max_examples=examples(300))
def test_a_binary_body_is_sent_as_it_is(body: bytes, size: int) -> None:
    """Whatever its bytes are, and however they are read."""
    data = b"Subject: x\r\nMessage-ID: <1@a.example>\r\n\r\n" + body

    class Slow(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            return super().read(size)

    for content in (Content.from_bytes(data, is_binary=True), Content.from_file(Slow(data), is_binary=True)):
        assert content.is_binary
        assert (content.size, content.message_id) == (len(data), "<1@a.example>")
        assert content.whole_chunk() == data
        content.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"Subject: x\nTo: y\n\nbody", "has a line end that is not CRLF"),
        (b"Subject: x\nTo: y\r\n\r\nbody", "has a line end that is not CRLF"),
        (b"Subject: x\nTo: y\n\n\0body\r", "has a line end that is not CRLF"),
        (b"Subject: x\rTo: y\r\n\r\nbody", "line 1 has a CR without LF"),
        (b"Subject: x\r\nTo: \0\r\n\r\nbody", "line 2 has a NUL"),
        (b"Subject: x\r\nBcc: y@z\r\n\r\nbody", "line 2 is a Bcc field"),
        (b"Subject: x\r\nbody\0\r", "line 2 has a NUL"),
        (b"Subject: x\r\nno field\r\n\r\n\0", "line 2 is neither a header field"),
        (b"Subject: " + b"x" * 990 + b"\r\n\r\n\0", "line 1 is longer than 998"),
        (b"Subject: \xff\r\n\r\n\0", "line 1 of the header is not UTF-8"),
        (b"X: y\r\n" * 200_000, "the header is longer than"),
    ],
    ids=[
        "LF",
        "one LF",
        "LF and a binary body",
        "CR",
        "NUL",
        "Bcc",
        "no body",
        "no field",
        "long",
        "not UTF-8",
        "endless",
    ],
)
def test_the_header_of_a_binary_message_is_checked(data: bytes, error: str) -> None:
    """As that of any other."""
    with pytest.raises(MessageError, match=error):
        Content.from_bytes(data, is_binary=True)
    with pytest.raises(MessageError, match=error):
        Content.from_file(io.BytesIO(data), is_binary=True)


def test_a_binary_message_needs_neither_8bitmime_nor_ascii() -> None:
    """BINARYMIME is enough (RFC 3030 §3); a non-ASCII header needs SMTPUTF8 as well."""
    assert _submission(BODY + b"\xff\0\n", binary=True).fits(Capabilities(OFFERED))
    submission = _submission(b"Subject: \xc3\xbc\r\n\r\n\xff", binary=True)
    with pytest.raises(MessageError, match="does not offer SMTPUTF8"):
        submission.adapt_to(Capabilities(OFFERED))
    line = mail_command(submission, Capabilities({**OFFERED, "SMTPUTF8": "", "8BITMIME": ""})).data
    assert line.endswith(b"> BODY=BINARYMIME SMTPUTF8\r\n")


@given(st.text(max_size=40), st.integers(-12, 12), st.integers(-5, 10**10), st.booleans())
@settings(max_examples=examples(200))
def test_no_value_adds_a_command(sender: str, priority: int, seconds: int, tls: bool) -> None:  # noqa: FBT001
    """Whatever is asked for, MAIL is one line with parameters of the RFCs, or it is refused."""
    try:
        asked = Extensions(priority=priority, require_tls=tls, hold=timedelta(seconds=seconds))
        submission = from_octets(BODY, f"{sender}@a.example", ["you@b.example"], asked)
    except (AddressError, ConfigurationError):
        return
    line = mail_command(submission, Capabilities({**OFFERED, "SMTPUTF8": ""})).data
    assert re.fullmatch(rb"MAIL FROM:<[^\r\n]*>[ -~]*\r\n", line)
    assert line.endswith(b" MT-PRIORITY=%d HOLDFOR=%d\r\n" % (priority, seconds))
