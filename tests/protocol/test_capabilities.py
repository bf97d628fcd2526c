"""The reply to EHLO."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol.capabilities import Capabilities, parse_capabilities


def parse(*lines: bytes) -> Capabilities:
    """Return the capabilities of a reply with these *lines* after the server's name."""
    return parse_capabilities([b"mx.example.org", *lines])


def test_the_first_line_offers_nothing() -> None:
    """It is the server's name, even if it looks like a keyword."""
    assert parse_capabilities([b"STARTTLS"]) == Capabilities({}, ())
    assert parse_capabilities([]) == Capabilities({}, ())


def test_keywords_are_in_upper_case_and_parameters_unchanged() -> None:
    """Keywords are case-insensitive (RFC 5321 §2.4); parameters may not be."""
    capabilities = parse(b"starttls", b"Size 100", b"x-y a B=c", b"8BITMIME")
    assert capabilities.keywords == {"STARTTLS": "", "SIZE": "100", "X-Y": "a B=c", "8BITMIME": ""}
    assert "STARTTLS" in capabilities
    assert "PIPELINING" not in capabilities


def test_the_first_line_of_a_repeated_keyword_counts() -> None:
    """A later line does not change it."""
    assert parse(b"SIZE 1", b"size 2", b"SIZE").keywords == {"SIZE": "1"}


def test_several_auth_lines_are_combined() -> None:
    """AUTH and AUTH= make one list: each mechanism once, in the server's order and in upper case."""
    capabilities = parse(b"AUTH=LOGIN plain", b"AUTH PLAIN  XOAUTH2", b"auth login")
    assert capabilities.auth == ("LOGIN", "PLAIN", "XOAUTH2")
    assert "AUTH" not in capabilities


@pytest.mark.parametrize("text", [b"AUTH", b"AUTH ", b"AUTH=", b"AUTHPLAIN", b"X-AUTH PLAIN", b"AUTH\tPLAIN"])
def test_auth_without_a_mechanism_offers_none(text: bytes) -> None:
    """Neither empty parameters nor similar keywords give a mechanism."""
    assert parse(text).auth == ()


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b" STARTTLS", b"-STARTTLS", b"STARTTLS\0", b"STARTTLS\t", b"START_TLS", b"SIZE=10", b"STARTTLS=",
     b"SIZE \xff", b"\xc5\xbfTARTTLS", b"A: b", b"SIZE 10\x1b"],
)  # fmt: skip
def test_a_malformed_line_is_ignored(text: bytes) -> None:
    """It offers nothing, and the lines around it still count."""
    assert parse(b"A", text, b"B").keywords == {"A": "", "B": ""}


def test_only_the_first_hundred_lines_count() -> None:
    """A keyword in line 100 is found, one in line 101 is not."""
    lines = [b"K%d" % number for number in range(99)]
    assert "STARTTLS" in parse(*lines, b"STARTTLS")
    assert "STARTTLS" not in parse(*lines, b"K99", b"STARTTLS")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (b"SIZE 35882577", 35882577),
        (b"SIZE 1", 1),
        (b"SIZE 0", None),
        (b"SIZE 00", None),
        (b"SIZE", None),
        (b"SIZE ", None),
        (b"SIZE -1", None),
        (b"SIZE +1", None),
        (b"SIZE 1 2", None),
        (b"SIZE 1_0", None),
        (b"SIZE  10", None),
        (b"SIZE ten", None),
        (b"SIZE " + b"9" * 20, 10**20 - 1),
        (b"SIZE " + b"9" * 21, None),
        (b"X", None),
    ],
)
def test_size_is_a_number_or_no_limit(text: bytes, size: int | None) -> None:
    """At most 20 digits (RFC 1870 §4); 0 and anything that is not a number mean no limit."""
    assert parse(text).size == size


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (b"LIMITS MAILMAX=20 RCPTMAX=100", {"MAILMAX": 20, "RCPTMAX": 100}),
        (b"limits rcptmax=5 X=1", {"RCPTMAX": 5, "X": 1}),
        (b"LIMITS MAILMAX=0 RCPTMAX=000 RCPTDOMAINMAX=1", {"RCPTDOMAINMAX": 1}),
        (b"LIMITS MAILMAX RCPTMAX= X=-1 Y=1_0 Z=ten A==1", {}),
        (b"LIMITS MAILMAX=" + b"9" * 10, {"MAILMAX": 10**10 - 1}),
        (b"LIMITS MAILMAX=" + b"9" * 11, {}),
        (b"LIMITS", {}),
        (b"X MAILMAX=1", {}),
    ],
)
def test_limits_are_positive_numbers(text: bytes, limits: dict[str, int]) -> None:
    """At most 10 digits; a value of 0, and anything that is not a number, is ignored (RFC 9422 §3)."""
    assert parse(text).limits == limits


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"AUTH PLAIN", b"SIZE 5", b"STARTTLS"]), max_size=8))
@settings(max_examples=examples(200), deadline=None)
def test_any_reply_can_be_parsed(lines: list[bytes]) -> None:
    """No line raises an error, and all that is kept is printable ASCII."""
    capabilities = parse_capabilities(lines)
    for text in (*capabilities.keywords, *capabilities.keywords.values(), *capabilities.auth):
        assert text.isascii()
        assert text.isprintable()
    assert capabilities.size is None or capabilities.size > 0
